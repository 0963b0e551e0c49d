//! Lines that carry people's decisions.

use super::args::{Args, group, host, index, list, plan, site, span};
use super::groups::check;
use super::world::World;
use quorum::id::{Era, GroupName, HostName, VoterId};
use quorum::ledger::{
    AcceptLoss, Claim, Command, Contrary, Decision, EndCause, EraBegun, FreezeScope, Initiator, Override, Person,
    PersonKey, PlaceScope, Subject,
};
use std::collections::BTreeMap;
use std::time::Duration;

/// `by=ann`; `by=ann/bob` is a person who calls herself ann and has bob's key; `by=root` comes over the local socket.
pub fn decision(args: &Args<'_>) -> Decision {
    let text = args.get("by").unwrap_or("ann");
    let (name, key) = text.split_once('/').unwrap_or((text, text));
    let key = match key {
        "root" => PersonKey::Local(0),
        key => PersonKey::Certificate([key.as_bytes()[0]; 32]),
    };
    Decision { by: Person { name: name.to_owned(), key }, reason: "asked".to_owned(), shown: "the evidence".to_owned() }
}

/// A person if the line names one, else the leader.
pub fn initiator(args: &Args<'_>) -> Initiator {
    if args.get("by").is_some() { Initiator::Person(decision(args)) } else { Initiator::Automatic }
}

impl World {
    pub fn people_command(&self, args: &Args<'_>) -> Option<Command> {
        Some(match args.verb() {
            "approve" => {
                Command::Approve { subject: subject(args.word(0)), by: decision(args), contrary: contrary(args) }
            }
            "deny" => Command::Deny { subject: subject(args.word(0)), by: decision(args) },
            "freeze" => Command::Freeze {
                scope: freeze_scope(args.word(0)),
                span: args.span("for", Duration::from_secs(1_800)),
                hold_activation: args.has("hold"),
                by: decision(args),
            },
            "thaw" => Command::Thaw { freeze: index(args.word(0)), cause: end_cause(args) },
            "maintenance" => Command::Maintenance {
                scope: place_scope(args.word(0)),
                span: args.span("for", Duration::from_secs(1_800)),
                by: decision(args),
            },
            "maintenance-end" => Command::MaintenanceEnded { scope: place_scope(args.word(0)), cause: end_cause(args) },
            "hold" => Command::Held {
                scope: place_scope(args.word(0)),
                span: args.span("for", Duration::from_secs(1_800)),
                because: "it flaps".to_owned(),
            },
            "hold-end" => Command::HoldEnded { scope: place_scope(args.word(0)), cause: end_cause(args) },
            "brake-set" => Command::BrakeSet { because: "asked".to_owned(), initiator: initiator(args) },
            "brake-release" => Command::BrakeReleased { by: decision(args) },
            "override" => Command::Override(self.assertion(args)),
            "override-expired" => {
                Command::OverrideExpired { index: index(args.word(0)), waited: args.span("waited", Duration::ZERO) }
            }
            "accept-loss" => {
                let group = group(args.word(0));
                Command::AcceptLoss(AcceptLoss {
                    epoch: self.epoch(&group, args),
                    copy: host(args.get("copy").unwrap_or("os1")),
                    own: check(args.get("own").unwrap_or("agrees")),
                    expected_loss: args.get("expected").map(span),
                    by: decision(args),
                    group,
                })
            }
            "era" => Command::EraBegun(EraBegun {
                era: Era(u16::try_from(index(args.word(0)).0).expect("small")),
                places: named_places(args),
                unreachable: voters(args.get("unreachable").unwrap_or("1,3")),
                survivors: voters(args.get("survivors").unwrap_or("2")),
                by: decision(args),
            }),
            "audit" => Command::Audit { action: "bundle".to_owned(), detail: "taken".to_owned(), by: decision(args) },
            _ => return None,
        })
    }

    /// `override tk1@1 tk2@1`, or `override absent erp os1`.
    fn assertion(&self, args: &Args<'_>) -> Override {
        let named: Vec<&str> = args.words_from(0).into_iter().filter(|word| *word != "at-once").collect();
        let claim = match named.split_first() {
            Some((&"absent", rest)) => {
                Claim::Absent { group: group(rest[0]), hosts: rest[1..].iter().map(|name| host(name)).collect() }
            }
            Some(_) | None => Claim::Inert(named.iter().map(|of| self.incarnation(of)).collect()),
        };
        Override {
            claim,
            contrary: contrary(args),
            at_once: args.has("at-once"),
            span: Duration::from_secs(600),
            by: decision(args),
        }
    }
}

/// `contrary=tk1:2s`: tk1 was heard two seconds ago.
fn contrary(args: &Args<'_>) -> Vec<Contrary> {
    let sign = |text: &str| {
        let (name, age) = text.split_once(':').expect("host:age");
        Contrary { host: host(name), what: "it was heard".to_owned(), age: span(age) }
    };
    list(args.get("contrary").unwrap_or_default()).into_iter().map(sign).collect()
}

fn subject(text: &str) -> Subject {
    match text.split_once(':') {
        Some(("plan", id)) => Subject::Plan(plan(id)),
        Some(("override", id)) => Subject::Override(index(id)),
        Some(("loss", id)) => Subject::Loss(index(id)),
        Some(_) | None => panic!("subject {text:?}"),
    }
}

fn freeze_scope(text: &str) -> FreezeScope {
    match text.split_once(':') {
        None => FreezeScope::Cluster,
        Some(("site", name)) => FreezeScope::Site(site(name)),
        Some((_, name)) => FreezeScope::Group(group(name)),
    }
}

fn place_scope(text: &str) -> PlaceScope {
    match text.split_once(':').expect("host: or site:") {
        ("site", name) => PlaceScope::Site(site(name)),
        (_, name) => PlaceScope::Host(host(name)),
    }
}

/// `waited=30m`: its time is over; else a person ends it.
fn end_cause(args: &Args<'_>) -> EndCause {
    match args.get("waited") {
        Some(waited) => EndCause::Elapsed { waited: span(waited) },
        None => EndCause::Person(decision(args)),
    }
}

fn voters(text: &str) -> Vec<VoterId> {
    list(text).into_iter().map(|id| VoterId(index(id).0)).collect()
}

/// `place=erp:xx1,xx2`
fn named_places(args: &Args<'_>) -> BTreeMap<GroupName, Vec<HostName>> {
    let named = args.get("place").and_then(|text| text.split_once(':'));
    named.map(|(name, hosts)| (group(name), list(hosts).into_iter().map(host).collect())).into_iter().collect()
}
