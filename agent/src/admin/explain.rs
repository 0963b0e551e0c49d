//! Why something is as it is: one site, host, group or plan, from the status that an agent sees.
//!
//! Pure: a status in, an explanation out.

use crate::engine::{API_VERSION, GateLine, GroupLine, HostLine, PinLine, PlanLine, StatusDocument};
use serde::Serialize;

/// What can be explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Subject {
    /// A site.
    Site,
    /// A host.
    Host,
    /// A group: its four gates.
    Group,
    /// An open plan, by its number.
    Plan,
}

impl Subject {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Site => "site",
            Self::Host => "host",
            Self::Group => "group",
            Self::Plan => "plan",
        }
    }

    /// The subject with this word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Site, Self::Host, Self::Group, Self::Plan].into_iter().find(|subject| subject.as_str() == word)
    }
}

/// `explain -o json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Version of this document.
    pub api_version: u32,
    /// site, host, group or plan.
    pub kind: &'static str,
    /// Which.
    pub name: String,
    /// Which host says so.
    pub seen_by: String,
    /// At which log index.
    pub index: u64,
    /// How old it is, in milliseconds.
    pub as_of_ms: u64,
    /// What is so and why, in the order in which it decides.
    pub facts: Vec<Fact>,
    /// The next commands of a person, if any.
    pub next: Vec<String>,
}

/// One thing that is so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fact {
    /// What it is about.
    pub about: String,
    /// How it is: a word.
    pub state: String,
    /// Why, or more of it; may be empty.
    pub because: String,
}

fn fact(about: impl Into<String>, state: impl Into<String>, because: impl Into<String>) -> Fact {
    Fact { about: about.into(), state: state.into(), because: because.into() }
}

/// Explains `name`, or nothing if the status has no such thing.
pub fn explain(status: &StatusDocument, subject: Subject, name: &str) -> Option<Explanation> {
    let facts = match subject {
        Subject::Site => site(status, name)?,
        Subject::Host => host(status, status.hosts.iter().find(|host| host.name == name)?),
        Subject::Group => group(status, status.groups.iter().find(|group| group.name == name)?),
        Subject::Plan => plan(status.plans.iter().find(|plan| plan.id.to_string() == name)?),
    };
    Some(Explanation {
        api_version: API_VERSION,
        kind: subject.as_str(),
        name: name.to_owned(),
        seen_by: status.seen_by.clone(),
        index: status.index,
        as_of_ms: status.as_of_ms,
        facts,
        next: next(status, subject, name),
    })
}

/// A group's plan waits for people, or the attention list names the thing.
fn next(status: &StatusDocument, subject: Subject, name: &str) -> Vec<String> {
    let plans = status.plans.iter().filter(|plan| match subject {
        Subject::Group => plan.group == name,
        Subject::Plan => plan.id.to_string() == name,
        Subject::Site | Subject::Host => false,
    });
    let plans = plans.map(|plan| plan.next.clone()).filter(|next| !next.is_empty());
    let named = |text: &str| text.split(|c: char| !(c.is_alphanumeric() || "-_.".contains(c))).any(|word| word == name);
    let explain_itself = format!("antipode explain {} {name}", subject.as_str());
    let attention = status.attention.iter().filter(|line| named(&line.next)).map(|line| line.next.clone());
    plans.chain(attention.filter(|next| *next != explain_itself)).collect()
}

fn site(status: &StatusDocument, name: &str) -> Option<Vec<Fact>> {
    let site = status.sites.iter().find(|site| site.name == name)?;
    let role = if site.witness { "a witness: it never runs workloads" } else { "" };
    let mut facts = vec![fact("site", site.state, role)];
    for host in status.hosts.iter().filter(|host| host.site == name) {
        facts.push(fact(format!("host {}", host.name), host.state, lease(host)));
    }
    for group in status.groups.iter().filter(|group| group.site.as_deref() == Some(name)) {
        facts.push(fact(format!("group {}", group.name), group.state, runs_on(group)));
    }
    Some(facts)
}

fn host(status: &StatusDocument, host: &HostLine) -> Vec<Fact> {
    let epoch = host.host_epoch.as_ref().map(|he| format!("host epoch {he}")).unwrap_or_default();
    let mut facts = vec![fact("host", host.state, epoch), fact("site", host.site.as_str(), "")];
    if !host.class.is_empty() {
        facts.push(fact("class", host.class.as_str(), class_meaning(&host.class)));
    }
    facts.push(fact("lease", if host.last_grant_age_ms.is_some() { "seen" } else { "unknown here" }, lease(host)));
    for group in status.groups.iter().filter(|group| group.host.as_deref() == Some(host.name.as_str())) {
        facts.push(fact(format!("group {}", group.name), group.state, runs_on(group)));
    }
    facts
}

fn class_meaning(class: &str) -> &'static str {
    match class {
        "A" => "its lease's end is evidence",
        "B" => "its lease's end is evidence if the cluster trusts software watchdogs",
        _ => "its silence proves nothing: it needs a fencing device or a person",
    }
}

fn lease(host: &HostLine) -> String {
    let granted = host.last_grant_age_ms.map(|age| format!("this voter last granted {age} ms ago"));
    let left = host.lease_left_ms.map(|left| format!("{left} ms left here"));
    granted.into_iter().chain(left).collect::<Vec<_>>().join(", ")
}

fn runs_on(group: &GroupLine) -> String {
    match (&group.host, &group.epoch) {
        (Some(host), Some(epoch)) => format!("on {host} under epoch {epoch}"),
        _ => "nobody owns it yet".to_owned(),
    }
}

fn group(status: &StatusDocument, group: &GroupLine) -> Vec<Fact> {
    let mut facts = vec![fact("group", group.state, runs_on(group)), fact("tier", group.tier, "")];
    let gates = &group.gates;
    let named = [
        ("detect", &gates.detect),
        ("declare", &gates.declare),
        ("fence", &gates.fence),
        ("activate", &gates.activate),
    ];
    let gate = |(name, gate): (&str, &GateLine)| fact(format!("gate {name}"), gate.state, gate.because.as_str());
    facts.extend(named.into_iter().map(gate));
    facts.push(data(group));
    let possible = if group.automatic_failover.possible { "possible" } else { "not possible" };
    let because = group.automatic_failover.because.as_str();
    facts.push(fact("automatic failover", possible, because));
    if let Some(to) = &group.would_go_to {
        facts.push(fact("would go to", to.as_str(), ""));
    }
    facts.extend(group.pin.as_ref().map(pin));
    for line in status.plans.iter().filter(|line| line.group == group.name) {
        facts.push(fact(format!("plan {}", line.id), line.state, format!("{}: {}", line.kind, line.step)));
    }
    facts
}

fn pin(pin: &PinLine) -> Fact {
    let state = match (pin.acknowledged, pin.in_force) {
        (false, _) => "asked for",
        (true, Some(true)) => "in force",
        (true, Some(false)) => "not in force",
        (true, None) => "acknowledged",
    };
    let what = "it goes on without a lease, nobody else is granted it";
    fact("pin", state, format!("to {} under host epoch {}: {what} ({})", pin.host, pin.host_epoch, pin.reason))
}

fn data(group: &GroupLine) -> Fact {
    let in_sync = group.data.in_sync.join(", ");
    let because = if in_sync.is_empty() { "no copy is known".to_owned() } else { format!("complete at {in_sync}") };
    let state = match group.data.lag_ms {
        Some(0) => "nothing would be lost".to_owned(),
        Some(lag) => format!("{lag} ms would be lost"),
        None => "the loss is unknown".to_owned(),
    };
    fact("data", state, because)
}

fn plan(plan: &PlanLine) -> Vec<Fact> {
    vec![
        fact("plan", plan.state, format!("{} of {}", plan.kind, plan.group)),
        fact("step", plan.step.as_str(), format!("an attempt may take {} ms", plan.deadline_ms)),
    ]
}
