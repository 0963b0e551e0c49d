//! `status` and `explain`: how things stand and why.

use super::options::{Format, Reach, Shown};
use super::table::Table;
use super::{Failure, Outcome, client};
use crate::admin::Subject;
use serde::Deserialize;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::time::Duration;

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    shown: Shown,
    /// Draw it anew every second
    #[arg(long, conflicts_with = "check")]
    watch: bool,
    /// Speak as a Nagios plugin: one line, exit 0, 1, 2 or 3
    #[arg(long, conflicts_with = "format")]
    check: bool,
    #[command(flatten)]
    reach: Reach,
}

/// Arguments of `explain`.
#[derive(Debug, clap::Args)]
pub(super) struct ExplainArgs {
    /// What kind of thing
    subject: Subject,
    /// Which one
    name: String,
    #[command(flatten)]
    look: LookArgs,
}

/// How something is looked at.
#[derive(Debug, clap::Args)]
pub(super) struct LookArgs {
    #[command(flatten)]
    pub shown: Shown,
    #[command(flatten)]
    pub reach: Reach,
}

/// The part of the status that is shown to people. A newer agent may say more.
#[derive(Debug, Deserialize)]
struct Status {
    cluster: String,
    lab: bool,
    index: u64,
    seen_by: String,
    as_of_ms: u64,
    spec_revision: u64,
    freeze: Vec<Freeze>,
    quorum: Quorum,
    sites: Vec<Site>,
    hosts: Vec<Host>,
    groups: Vec<Group>,
    plans: Vec<Plan>,
    attention: Vec<Attention>,
}

#[derive(Debug, Deserialize)]
struct Freeze {
    index: u64,
    scope: String,
    span_ms: u64,
    reason: String,
}

#[derive(Debug, Deserialize)]
struct Quorum {
    voters: usize,
    reachable: usize,
    can_lose: usize,
    leader: Option<String>,
    #[serde(default)]
    members: Vec<Voter>,
}

#[derive(Debug, Deserialize)]
struct Voter {
    id: u64,
    host: String,
    reachable: bool,
}

#[derive(Debug, Deserialize)]
struct Site {
    name: String,
    state: String,
    witness: bool,
}

#[derive(Debug, Deserialize)]
struct Host {
    name: String,
    site: String,
    class: String,
    state: String,
    host_epoch: Option<String>,
    last_grant_age_ms: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Group {
    name: String,
    tier: String,
    state: String,
    host: Option<String>,
    site: Option<String>,
    shape: Option<String>,
    epoch: Option<String>,
    data: Data,
    would_go_to: Option<String>,
    automatic_failover: Possible,
}

#[derive(Debug, Deserialize)]
struct Data {
    in_sync: Vec<String>,
    lag_ms: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Possible {
    possible: bool,
    because: String,
}

#[derive(Debug, Deserialize)]
struct Plan {
    id: u64,
    kind: String,
    group: String,
    state: String,
    step: String,
    next: String,
}

#[derive(Debug, Deserialize)]
struct Attention {
    code: String,
    text: String,
    next: String,
}

#[derive(Debug, Deserialize)]
struct Explained {
    kind: String,
    name: String,
    seen_by: String,
    index: u64,
    as_of_ms: u64,
    facts: Vec<Fact>,
    next: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Fact {
    about: String,
    state: String,
    because: String,
}

pub(super) fn status(args: &StatusArgs) -> Result<Outcome, Failure> {
    if args.watch {
        return watch(args);
    }
    let document = client::get(&args.reach, "/v1/status");
    if args.check {
        return Ok(check(document.and_then(|document| client::parse(&document))));
    }
    let document = document?;
    Ok(Outcome::done(match args.shown.format {
        Format::Json => format!("{document}\n"),
        Format::Text => text(&client::parse(&document)?),
    }))
}

/// How often the screen is drawn anew.
const DRAW_EVERY: Duration = Duration::from_secs(1);

/// Draws the status again and again until interrupted; an agent that doesn't answer is drawn as that. On a terminal
/// each one takes the place of the last; elsewhere, and as JSON one document a line, they follow each other.
fn watch(args: &StatusArgs) -> Result<Outcome, Failure> {
    let is_screen = std::io::stdout().is_terminal() && args.shown.format == Format::Text;
    loop {
        let drawn = match client::get(&args.reach, "/v1/status") {
            Ok(document) if args.shown.format == Format::Json => format!("{document}\n"),
            Ok(document) => text(&client::parse(&document)?),
            Err(failure) if args.shown.format == Format::Json => failure.to_json(),
            Err(failure) => format!("{failure}\n"),
        };
        let clear = if is_screen { "\x1b[H\x1b[2J" } else { "" };
        let mut out = std::io::stdout().lock();
        // A reader that went away wants no more.
        if write!(out, "{clear}{drawn}").and_then(|()| out.flush()).is_err() {
            return Ok(Outcome::done(""));
        }
        drop(out);
        std::thread::sleep(DRAW_EVERY);
    }
}

/// A part of the status document, under its own key.
fn part(look: &LookArgs, key: &str, shown: fn(&Status) -> String) -> Result<Outcome, Failure> {
    let document = client::get(&look.reach, "/v1/status")?;
    Ok(Outcome::done(match look.shown.format {
        Format::Text => shown(&client::parse(&document)?),
        Format::Json => {
            let seen = ["api_version", "seen_by", "index", "as_of_ms"];
            let seen = seen.map(|field| (field.to_owned(), document[field].clone()));
            let mut part = serde_json::Map::from_iter(seen);
            part.insert(key.to_owned(), document[key].clone());
            let part = Value::Object(part);
            format!("{part}\n")
        }
    }))
}

pub(super) fn quorum_status(look: &LookArgs) -> Result<Outcome, Failure> {
    part(look, "quorum", voters)
}

fn voters(status: &Status) -> String {
    let quorum = &status.quorum;
    let mut table = Table::new(&["VOTER", "HOST", "HEARD", "ROLE"]);
    for voter in &quorum.members {
        let role = if quorum.leader.as_ref() == Some(&voter.host) { "leader" } else { "-" };
        let heard = if voter.reachable { "yes" } else { "no" };
        table.row([voter.id.to_string(), voter.host.clone(), heard.to_owned(), role.to_owned()]);
    }
    format!("{table}{}/{} heard, can lose {}\n", quorum.reachable, quorum.voters, quorum.can_lose)
}

pub(super) fn explain(args: &ExplainArgs) -> Result<Outcome, Failure> {
    explained(args.subject, &args.name, &args.look)
}

fn explained(subject: Subject, name: &str, look: &LookArgs) -> Result<Outcome, Failure> {
    let document = client::get(&look.reach, &format!("/v1/explain/{}/{name}", subject.as_str()))?;
    if look.shown.format == Format::Json {
        return Ok(Outcome::done(format!("{document}\n")));
    }
    let explained: Explained = client::parse(&document)?;
    let mut text = format!(
        "{} {}   index {}   seen by {}, {} ago\n\n",
        explained.kind,
        explained.name,
        explained.index,
        explained.seen_by,
        ago(explained.as_of_ms)
    );
    let mut table = Table::new(&["ABOUT", "IS", "BECAUSE"]);
    for fact in explained.facts {
        table.row([fact.about, fact.state, fact.because]);
    }
    text.push_str(&table.to_string());
    for next in explained.next {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "next: {next}");
    }
    Ok(Outcome::done(text))
}

/// A span as people read it.
pub(super) fn ago(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..120_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        _ => format!("{} h", ms / 3_600_000),
    }
}

fn text(status: &Status) -> String {
    let mut text = head(status);
    text.push_str(&sites(status));
    text.push('\n');
    text.push_str(&hosts(status));
    text.push('\n');
    text.push_str(&groups(status));
    if !status.plans.is_empty() {
        text.push('\n');
        text.push_str(&plans(status));
    }
    for line in &status.attention {
        let _ = write!(text, "\n! {}: {}\n  next: {}\n", line.code, line.text, line.next);
    }
    text
}

fn head(status: &Status) -> String {
    let quorum = &status.quorum;
    let name = if status.cluster.is_empty() { "(not created yet)" } else { &status.cluster };
    let lab = if status.lab { " (lab)" } else { "" };
    let leader = quorum.leader.as_deref().unwrap_or("none");
    let freezes: Vec<String> = status
        .freeze
        .iter()
        .map(|f| format!("{} for {} (thaw {}, {})", f.scope, ago(f.span_ms), f.index, f.reason))
        .collect();
    let freezes = if freezes.is_empty() { "none".to_owned() } else { freezes.join(", ") };
    format!(
        "cluster {name}{lab}   index {}   quorum {}/{}, can lose {}   leader {leader}   seen by {}, {} ago\nspec rev {}   freeze {freezes}\n\n",
        status.index,
        quorum.reachable,
        quorum.voters,
        quorum.can_lose,
        status.seen_by,
        ago(status.as_of_ms),
        status.spec_revision
    )
}

fn sites(status: &Status) -> String {
    let mut table = Table::new(&["SITE", "STATE", "HOSTS"]);
    for site in &status.sites {
        let all: Vec<&Host> = status.hosts.iter().filter(|host| host.site == site.name).collect();
        let good = all.iter().filter(|host| host.state == "admitted").count();
        let state = if site.witness && site.state == "healthy" { "witness" } else { &site.state };
        table.row([site.name.clone(), state.to_owned(), format!("{good}/{}", all.len())]);
    }
    table.to_string()
}

fn hosts(status: &Status) -> String {
    let mut table = Table::new(&["HOST", "SITE", "STATE", "CLASS", "HOST EPOCH", "LAST GRANT"]);
    for host in &status.hosts {
        let grant = host.last_grant_age_ms.map_or_else(dash, |age| format!("{} ago", ago(age)));
        let epoch = host.host_epoch.clone().unwrap_or_else(dash);
        table.row([host.name.clone(), host.site.clone(), host.state.clone(), or_dash(&host.class), epoch, grant]);
    }
    table.to_string()
}

fn groups(status: &Status) -> String {
    let head = ["GROUP", "TIER", "STATE", "RUNS ON", "SHAPE", "EPOCH", "DATA LOSS NOW", "WOULD GO TO", "READY"];
    let mut table = Table::new(&head);
    for group in &status.groups {
        let place = match (&group.site, &group.host) {
            (Some(site), Some(host)) => format!("{site}/{host}"),
            _ => dash(),
        };
        let ready = &group.automatic_failover;
        table.row([
            group.name.clone(),
            group.tier.clone(),
            group.state.clone(),
            place,
            group.shape.clone().unwrap_or_else(dash),
            group.epoch.clone().unwrap_or_else(dash),
            loss(&group.data),
            group.would_go_to.clone().unwrap_or_else(dash),
            if ready.possible { "yes".to_owned() } else { format!("no: {}", ready.because) },
        ]);
    }
    table.to_string()
}

fn loss(data: &Data) -> String {
    match data.lag_ms {
        Some(0) if data.in_sync.len() > 1 => "0 (in sync)".to_owned(),
        Some(lag) => ago(lag),
        None => "unknown".to_owned(),
    }
}

fn plans(status: &Status) -> String {
    let mut table = Table::new(&["PLAN", "KIND", "GROUP", "STATE", "STEP", "NEXT"]);
    for plan in &status.plans {
        let (kind, group, state) = (plan.kind.clone(), plan.group.clone(), plan.state.clone());
        table.row([plan.id.to_string(), kind, group, state, or_dash(&plan.step), or_dash(&plan.next)]);
    }
    table.to_string()
}

pub(super) fn dash() -> String {
    "-".to_owned()
}

pub(super) fn or_dash(text: &str) -> String {
    if text.is_empty() { dash() } else { text.to_owned() }
}

const NAGIOS_OK: u8 = 0;
const NAGIOS_WARNING: u8 = 1;
const NAGIOS_CRITICAL: u8 = 2;
const NAGIOS_UNKNOWN: u8 = 3;

/// One line and the exit status, as Nagios wants them.
fn check(status: Result<Status, Failure>) -> Outcome {
    let (status, line) = match status {
        Err(failure) => (NAGIOS_UNKNOWN, format!("UNKNOWN - {}", failure.0.error.text)),
        Ok(status) => judged(&status),
    };
    Outcome { text: format!("ANTIPODE {line}\n"), status }
}

fn judged(status: &Status) -> (u8, String) {
    let down: Vec<&str> =
        status.groups.iter().filter(|group| group.state == "held").map(|group| group.name.as_str()).collect();
    let quorum = &status.quorum;
    let said = status.attention.iter().map(|line| line.text.as_str()).collect::<Vec<_>>().join("; ");
    if quorum.leader.is_none() {
        let text = format!("CRITICAL - no leader, {} of {} voters heard; {said}", quorum.reachable, quorum.voters);
        return (NAGIOS_CRITICAL, text);
    }
    if !down.is_empty() {
        return (NAGIOS_CRITICAL, format!("CRITICAL - {} without a proven owner; {said}", down.join(", ")));
    }
    if !status.attention.is_empty() || quorum.reachable < quorum.voters {
        let text = format!("WARNING - {} of {} voters heard; {said}", quorum.reachable, quorum.voters);
        return (NAGIOS_WARNING, text.trim_end_matches("; ").to_owned());
    }
    let (voters, groups) = (quorum.voters, status.groups.len());
    (
        NAGIOS_OK,
        format!("OK - {groups} groups, {voters} of {voters} voters, leader {}", quorum.leader.as_deref().unwrap_or("")),
    )
}
