//! `fence`: what could be proven now, tests that never shoot, fencing by hand, the override, and the record of it all.
//!
//! Contract: a verb that can harm shows first what it will do and on what ground, and needs the target's name twice.
//! Refused by a safety gate is exit 3, waiting for a second person is exit 4.

use super::options::{Format, Reach, Shown};
use super::orders::{Given, Place, span_ms};
use super::table::Table;
use super::{Failure, Outcome, apply, client};
use crate::admin::{Exit, FenceAsked, FenceTestAsked};
use crate::engine::FenceAct;
use quorum::id::HostName;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::IsTerminal;

/// Verbs of fencing.
#[derive(Debug, clap::Subcommand)]
pub(super) enum FenceVerb {
    /// What could be proven of each host now, by what, and how old the proof of that is
    Status(LookArgs),
    /// Read the fence devices of a host, or all: login, identity, state. Switches nothing
    Test(TestArgs),
    /// Declare a host or a site lost and switch it off by its devices
    Run(ActArgs),
    /// Vouch that a host or a site can do no harm: "it is off, I looked"
    Override(OverrideArgs),
    /// Call off what is under way against a host or a site
    Release(ActArgs),
    /// The agent's journal of attempts, oldest first
    History(HistoryArgs),
}

/// How something is looked at.
#[derive(Debug, clap::Args)]
pub(super) struct LookArgs {
    #[command(flatten)]
    shown: Shown,
    #[command(flatten)]
    reach: Reach,
}

/// Arguments of `fence test`.
#[derive(Debug, clap::Args)]
pub(super) struct TestArgs {
    /// The host whose devices are read
    #[arg(required_unless_present = "all")]
    host: Option<HostName>,
    /// Every device that the agent drives
    #[arg(long, conflicts_with = "host")]
    all: bool,
    #[command(flatten)]
    look: LookArgs,
}

/// Arguments of `fence history`.
#[derive(Debug, clap::Args)]
pub(super) struct HistoryArgs {
    /// How many records
    #[arg(long, default_value_t = 100)]
    count: usize,
    #[command(flatten)]
    look: LookArgs,
}

/// Arguments of `fence run` and `fence release`.
#[derive(Debug, clap::Args)]
pub(super) struct ActArgs {
    #[command(flatten)]
    place: Place,
    /// Only say what it would come to
    #[arg(long)]
    dry_run: bool,
    /// The target's name once more
    #[arg(long, value_name = "NAME")]
    confirm: Option<String>,
    #[command(flatten)]
    given: Given,
}

/// Arguments of `fence override`.
#[derive(Debug, clap::Args)]
pub(super) struct OverrideArgs {
    #[command(flatten)]
    act: ActArgs,
    /// Don't wait for the end of leases
    #[arg(long = "now")]
    at_once: bool,
    /// Wait at most so long for a second person, as 30s or 5m; ten minutes at most
    #[arg(long = "within", value_name = "SPAN", value_parser = span_ms)]
    span_ms: Option<u64>,
}

impl FenceVerb {
    pub(super) fn run(&self) -> Result<Outcome, Failure> {
        match self {
            Self::Status(look) => status(look),
            Self::Test(args) => test(args),
            Self::Run(args) => args.order(FenceAct::Run),
            Self::Override(args) => args.act.order(FenceAct::Override { at_once: args.at_once, span_ms: args.span_ms }),
            Self::Release(args) => args.order(FenceAct::Release),
            Self::History(args) => history(args),
        }
    }
}

fn status(look: &LookArgs) -> Result<Outcome, Failure> {
    let document = client::get(&look.reach, "/v1/fence")?;
    Ok(Outcome::done(shown(look.shown.format, &document, status_text)))
}

fn test(args: &TestArgs) -> Result<Outcome, Failure> {
    let asked = FenceTestAsked { host: args.host.clone() };
    let document = client::post_slow(&args.look.reach, "/v1/fence/test", &asked)?;
    let text = shown(args.look.shown.format, &document, test_text);
    let exit = if document["is_good"] == true { Exit::Done } else { Exit::Error };
    Ok(Outcome { text, status: exit.code() })
}

fn history(args: &HistoryArgs) -> Result<Outcome, Failure> {
    let document = client::get(&args.look.reach, &format!("/v1/fence/history?count={}", args.count))?;
    Ok(Outcome::done(shown(args.look.shown.format, &document, history_text)))
}

impl ActArgs {
    fn order(&self, act: FenceAct) -> Result<Outcome, Failure> {
        let is_grave = act != FenceAct::Release;
        if !self.dry_run && self.given.why.reason.trim().is_empty() {
            let text = "an order about fencing needs a reason for the audit log";
            return Err(Failure::new(Exit::Usage, "reason-missing", text, "add --reason \"it is off, I looked\""));
        }
        let asked = |dry_run, confirm| {
            let (scope, reason) = (self.place.scope()?, self.given.why.reason.clone());
            Ok::<_, Failure>(FenceAsked { scope, act, reason, confirm, dry_run })
        };
        let format = self.given.shown.format;
        let dry = client::post(&self.given.reach, "/v1/fence/order", &asked(true, String::new())?)?;
        if self.dry_run {
            let exit = if dry["decision"]["refused"].is_null() { Exit::Done } else { Exit::Refused };
            return Ok(Outcome { text: shown(format, &dry, decision_text), status: exit.code() });
        }
        if format == Format::Text {
            eprint!("{}", decision_text(&dry));
        }
        let confirm = if is_grave { self.confirmed()? } else { String::new() };
        let answer = client::post(&self.given.reach, "/v1/fence/order", &asked(false, confirm)?)?;
        apply::done(&answer, format)
    }

    /// The target's name a second time: typed, or given. Nobody is asked where nobody sits.
    fn confirmed(&self) -> Result<String, Failure> {
        let name = &self.place.name;
        let missing =
            |text: String| Failure::new(Exit::Usage, "not-confirmed", text, "add --confirm and the target's name");
        let typed = match &self.confirm {
            Some(typed) => typed.clone(),
            None if !std::io::stdin().is_terminal() => {
                return Err(missing("nobody is there to type the target's name".to_owned()));
            }
            None => {
                eprint!("type {name} to go on: ");
                let mut line = String::new();
                std::io::stdin().read_line(&mut line).map_err(|error| missing(error.to_string()))?;
                line.trim().to_owned()
            }
        };
        if typed == *name { Ok(typed) } else { Err(missing(format!("{typed:?} is not {name}"))) }
    }
}

fn shown(format: Format, document: &Value, text: impl Fn(&Value) -> String) -> String {
    match format {
        Format::Json => format!("{document}\n"),
        Format::Text => text(document),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

fn words(value: &Value) -> String {
    let words: Vec<String> = list(value).iter().map(word).collect();
    if words.is_empty() { "-".to_owned() } else { words.join(", ") }
}

fn age(value: &Value) -> String {
    let Some(ms) = value.as_u64() else { return "never".to_owned() };
    match ms / 1_000 {
        0..=119 => format!("{}.{}s", ms / 1_000, ms % 1_000 / 100),
        seconds @ 120..=7_199 => format!("{}m", seconds / 60),
        seconds => format!("{}h", seconds / 3_600),
    }
}

fn yes(value: &Value) -> String {
    if *value == true { "yes" } else { "no" }.to_owned()
}

fn status_text(document: &Value) -> String {
    let seen = format!(
        "index {}   seen by {}, {} ago   an override needs {} person(s)\n\n",
        document["index"],
        word(&document["seen_by"]),
        age(&document["as_of_ms"]),
        document["approvals"]
    );
    let mut hosts =
        Table::new(&["HOST", "SITE", "STATE", "CLASS", "DECLARED", "EVIDENCE", "MISSING ABOUT", "SEEN ALIVE"]);
    for host in list(&document["hosts"]) {
        let alive = list(&host["signs"]).iter().min_by_key(|sign| sign["age_ms"].as_u64());
        let alive = alive
            .map_or_else(|| "-".to_owned(), |sign| format!("{}, {} ago", word(&sign["what"]), age(&sign["age_ms"])));
        let told = ["name", "site", "state", "class"].map(|key| word(&host[key]));
        let [site, alone] = ["declares", "declares_alone"].map(|key| word(&host[key]));
        let declared = if site == alone { site } else { format!("{site}, alone {alone}") };
        let proven = ["evidence", "unproven"].map(|key| words(&host[key]));
        hosts.row(told.into_iter().chain([declared]).chain(proven).chain([alive]));
    }
    let mut levels = Table::new(&["HOST", "LEVEL", "WOULD PROVE", "PROOF OF THAT", "READY"]);
    for level in list(&document["levels"]) {
        let proves = if level["would_prove"].is_null() { word(&level["why_not"]) } else { word(&level["would_prove"]) };
        let (host, number) = (word(&level["host"]), word(&level["level"]));
        levels.row([host, number, proves, age(&level["proof_age_ms"]), yes(&level["ready"])]);
    }
    let mut text = format!("{seen}{hosts}\n{levels}\n{}", device_table(document));
    for host in list(&document["hosts"]) {
        for task in list(&host["tasks"]) {
            let called_off = task["called_off"].as_str().map_or_else(String::new, |why| format!(" called off: {why}"));
            let _infallible =
                writeln!(text, "\ntask {} about {}{called_off}", word(&task["task"]), word(&task["about"]));
            for executor in list(&task["executors"]) {
                let told = ["host", "outcome", "because"].map(|key| word(&executor[key]));
                let _infallible = writeln!(text, "  {}: {} {}", told[0], told[1], told[2]);
            }
        }
    }
    for pending in list(&document["overrides"]) {
        let (index, names) = (word(&pending["index"]), words(&pending["names"]));
        let agreed = list(&pending["agreed"]).len();
        let _infallible = writeln!(
            text,
            "\noverride {index} about {names} waits: {agreed} of {} agreed; antipode approve override {index}",
            pending["needs"]
        );
    }
    for attention in list(&document["attention"]) {
        let told = ["weight", "subject", "text", "remedy"].map(|key| word(&attention[key]));
        let _infallible = write!(text, "\n{}: {}: {}\n  next: {}", told[0], told[1], told[2], told[3]);
    }
    text.trim_end().to_owned() + "\n"
}

/// An override that waits for a second person, with what speaks against it now; nothing if there is none of this number.
pub(super) fn pending_text(document: &Value, index: u64) -> String {
    let Some(pending) = list(&document["overrides"]).iter().find(|pending| pending["index"] == index) else {
        return String::new();
    };
    let mut text = format!("override {index}\n");
    let mut line = |label: &str, told: String| {
        let _infallible = writeln!(text, "  {label:<20} {told}");
    };
    line("about", words(&pending["names"]));
    line("asked for by", words(&pending["agreed"]));
    line("because", word(&pending["reason"]));
    line("was shown", word(&pending["shown"]));
    let named: Vec<&str> = list(&pending["names"]).iter().filter_map(|name| name.as_str()?.split('@').next()).collect();
    for host in list(&document["hosts"]).iter().filter(|host| host["name"].as_str().is_some_and(|n| named.contains(&n)))
    {
        for sign in list(&host["signs"]) {
            let fresh = if sign["is_fresh"] == true { "  FRESH" } else { "" };
            line(
                "speaks against it",
                format!("{}: {}, {} ago{fresh}", word(&host["name"]), word(&sign["what"]), age(&sign["age_ms"])),
            );
        }
    }
    text
}

fn device_table(document: &Value) -> Table {
    let mut devices = Table::new(&["DEVICE", "KIND", "READ", "TOOK", "SHOWS", "FAILED", "TROUBLE"]);
    for device in list(&document["devices"]) {
        let took = device["latency_ms"].as_u64().map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"));
        let (name, kind, read) = (word(&device["name"]), word(&device["kind"]), age(&device["proof_age_ms"]));
        let failed = word(&device["failures_in_a_row"]);
        devices.row([name, kind, read, took, word(&device["shows"]), failed, word(&device["trouble"])]);
    }
    devices
}

fn test_text(document: &Value) -> String {
    let mut table = Table::new(&["DEVICE", "KIND", "SHOWS", "IDENTITY", "TOOK", "TROUBLE"]);
    for line in list(&document["tested"]) {
        let trouble = match (line["trouble"].as_str(), line["remedy"].as_str()) {
            (Some(trouble), Some(remedy)) => format!("{trouble}; {remedy}"),
            (Some(trouble), None) => trouble.to_owned(),
            (None, _) if line["waits"] == true => "nothing to read: its proof comes from elsewhere".to_owned(),
            (None, _) => "-".to_owned(),
        };
        let told = ["device", "kind", "shows", "identity"].map(|key| word(&line[key]));
        table.row(told.into_iter().chain([format!("{} ms", line["latency_ms"]), trouble]));
    }
    format!("read by {}\n\n{table}", word(&document["seen_by"]))
}

fn history_text(document: &Value) -> String {
    let mut text = format!("journal of {}\n", word(&document["seen_by"]));
    for record in list(&document["records"]) {
        let at = record["wall_ms"].as_i64().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        let at = at.map_or_else(|| "-".to_owned(), |at| at.to_string());
        let task = &record["task"];
        let about = match task["target"].as_str() {
            Some(target) => format!("{target} he {} index {}", task["he"], task["stamp"]["index"]),
            None => "-".to_owned(),
        };
        let mut rest = record.as_object().cloned().unwrap_or_default();
        for key in ["v", "seq", "wall_ms", "boot", "boottime_ms", "task", "event"] {
            rest.remove(key);
        }
        let rest = if rest.is_empty() { String::new() } else { Value::Object(rest).to_string() };
        let _infallible = writeln!(text, "{at}  {about}  {}  {rest}", word(&record["event"]));
    }
    text
}

fn decision_text(document: &Value) -> String {
    let decision = &document["decision"];
    let (index, seen_by, old) = (&document["index"], word(&document["seen_by"]), age(&document["as_of_ms"]));
    let mut text = format!(
        "{} of {}   index {index}   seen by {seen_by}, {old} ago\n",
        word(&decision["act"]),
        word(&decision["target"])
    );
    let mut line = |label: &str, told: String| {
        let _infallible = writeln!(text, "  {label:<20} {told}");
    };
    line("about", words(&decision["names"]));
    line("declares lost first", words(&decision["declares_lost"]));
    for told in list(&decision["evidence_for"]) {
        line("speaks for it", word(told));
    }
    for sign in list(&decision["evidence_against"]) {
        let fresh = if sign["is_fresh"] == true { "  FRESH" } else { "" };
        let (host, what) = (word(&sign["host"]), word(&sign["what"]));
        line("speaks against it", format!("{host}: {what}, {} ago{fresh}", age(&sign["age_ms"])));
    }
    line("releases", words(&decision["releases"]));
    line("needs", format!("{} person(s), each with another key", decision["approvals"]));
    line("then", word(&decision["then"]));
    if let Some(because) = decision["refused"]["because"].as_str() {
        line("would be refused", because.to_owned());
        line("next", word(&decision["refused"]["next"]));
    }
    for host in list(&document["hosts"]) {
        for level in list(&host["levels"]) {
            let hope = level["would_prove"]
                .as_str()
                .map_or_else(|| word(&level["why_not"]), |kind| format!("would prove {kind}"));
            line(&format!("{} level {}", word(&host["target"]), level["number"]), hope);
            for call in list(&level["calls"]) {
                let told = ["device", "act"].map(|key| word(&call[key]));
                line("", format!("{} {}: {}", told[0], told[1], words(&call["shown"])));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_decision_shows_what_speaks_against_it_with_its_age() {
        let document = json!({ "decision": {
            "act": "override", "target": "host tk-1", "names": ["tk-1@7"], "declares_lost": [], "evidence_for": [],
            "evidence_against": [{ "host": "tk-1", "what": "a heartbeat heard by ng-1", "age_ms": 140, "is_fresh": true }],
            "releases": ["erp (to os-1)"], "approvals": 2, "then": "…",
            "refused": { "code": "contrary-fresh", "because": "host tk-1 may be alive", "next": "look again" },
        }, "hosts": [] });
        let text = decision_text(&document);
        for told in
            ["tk-1: a heartbeat heard by ng-1, 0.1s ago  FRESH", "2 person(s)", "would be refused", "erp (to os-1)"]
        {
            assert!(text.contains(told), "{text}");
        }
    }

    #[test]
    fn an_age_is_told_in_the_unit_that_fits() {
        let ages = [(json!(140), "0.1s"), (json!(125_000), "2m"), (json!(93_600_000), "26h"), (Value::Null, "never")];
        for (ms, told) in ages {
            assert_eq!(age(&ms), told);
        }
    }
}
