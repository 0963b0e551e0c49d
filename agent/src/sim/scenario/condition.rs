//! What a script can ask of a world. Each condition may begin with `not`.
//!
//! ```text
//! quiet                              no plan open, every group runs, everything powered is admitted and protected
//! runs GROUP HOSTS|nowhere           the workload really is up there
//! ticket GROUP held-by HOSTS|nobody  as the ledger has it
//! protected GROUP                    a second copy is in sync
//! in-sync GROUP HOST                 that copy is in sync
//! admitted HOSTS · lost HOSTS · retired HOSTS · leased HOSTS · powered HOSTS · armed HOSTS     all of them
//! proven HOST KIND                   the last ended admission has evidence of this kind
//! leads HOSTS|nobody                 who the voters that run follow
//! plan GROUP KIND                    such a plan is open
//! braked · frozen
//! answered done|refused|waits|undecided [TEXT]   the last `ask`
//! says HOST GROUP detect|declare|fence|activate|automatic TEXT   what its status says of a gate
//! attention HOST CODE                its status calls for a person
//! event TEXT                         a line of the trace since `mark` has the text
//! events COUNT TEXT                  exactly so many lines have it
//! ```
//! The ledger's word is that of the engine that applied most.

use super::super::{SimHost, World};
use super::run::Seen;
use super::words::Words;
use crate::engine::{Answer, Engine};
use crate::heartbeat::KeeperState;
use quorum::id::{GroupName, HostName};
use quorum::ledger::{Ended, EvidenceKind, Ledger, PlanKind, TicketState};
use std::collections::BTreeSet;

/// A condition.
pub(super) struct Condition {
    is_negated: bool,
    fact: Fact,
}

enum Fact {
    Quiet,
    Runs(GroupName, Vec<HostName>),
    HeldBy(GroupName, Vec<HostName>),
    Protected(GroupName),
    InSync(GroupName, HostName),
    All(Vec<HostName>, HostFact),
    Proven(HostName, EvidenceKind),
    Leads(Vec<HostName>),
    Plan(GroupName, PlanKind),
    Braked,
    Frozen,
    Answered(String, String),
    Says(HostName, GroupName, Gate, String),
    Attention(HostName, String),
    Event(String),
    Events(usize, String),
}

#[derive(Clone, Copy)]
enum HostFact {
    Admitted,
    Lost,
    Retired,
    Leased,
    Powered,
    Armed,
}

#[derive(Clone, Copy)]
enum Gate {
    Detect,
    Declare,
    Fence,
    Activate,
    Automatic,
}

const NAMES: &str = "quiet, runs, ticket, protected, in-sync, admitted, lost, retired, leased, powered, armed, proven, \
                     leads, plan, braked, frozen, answered, says, attention, event, events";

impl Condition {
    /// dispatcher: one arm a condition.
    pub(super) fn read(words: &mut Words<'_>) -> Result<Self, String> {
        let is_negated = words.took("not");
        let name = words.next()?;
        let fact = match name {
            "quiet" => Fact::Quiet,
            "runs" => Fact::Runs(words.group()?, hosts_or(words, "nowhere")?),
            "ticket" => {
                let group = words.group()?;
                words.must("held-by")?;
                Fact::HeldBy(group, hosts_or(words, "nobody")?)
            }
            "protected" => Fact::Protected(words.group()?),
            "in-sync" => Fact::InSync(words.group()?, words.host()?),
            "admitted" => Fact::All(words.hosts()?, HostFact::Admitted),
            "lost" => Fact::All(words.hosts()?, HostFact::Lost),
            "retired" => Fact::All(words.hosts()?, HostFact::Retired),
            "leased" => Fact::All(words.hosts()?, HostFact::Leased),
            "powered" => Fact::All(words.hosts()?, HostFact::Powered),
            "armed" => Fact::All(words.hosts()?, HostFact::Armed),
            "proven" => Fact::Proven(words.host()?, kind(words)?),
            "leads" => Fact::Leads(hosts_or(words, "nobody")?),
            "plan" => Fact::Plan(words.group()?, plan_kind(words)?),
            "braked" => Fact::Braked,
            "frozen" => Fact::Frozen,
            "answered" => Fact::Answered(answer(words)?, words.rest().unwrap_or_default().to_owned()),
            "says" => Fact::Says(words.host()?, words.group()?, gate(words)?, words.rest()?.to_owned()),
            "attention" => Fact::Attention(words.host()?, words.next()?.to_owned()),
            "event" => Fact::Event(words.rest()?.to_owned()),
            "events" => {
                let count = usize::try_from(words.number()?).map_err(|_| "a count isn't negative")?;
                Fact::Events(count, words.rest()?.to_owned())
            }
            _ => return Err(format!("{name:?} is no condition; conditions are {NAMES}")),
        };
        Ok(Self { is_negated, fact })
    }

    pub(super) fn holds(&self, world: &World, seen: &Seen<'_>) -> bool {
        self.is_negated != self.fact.holds(world, seen)
    }
}

fn hosts_or(words: &mut Words<'_>, nobody: &str) -> Result<Vec<HostName>, String> {
    if words.took(nobody) { Ok(Vec::new()) } else { words.hosts() }
}

fn kind(words: &mut Words<'_>) -> Result<EvidenceKind, String> {
    let word = words.next()?;
    EvidenceKind::parse(word).ok_or_else(|| format!("{word:?} is no kind of evidence"))
}

fn plan_kind(words: &mut Words<'_>) -> Result<PlanKind, String> {
    let word = words.next()?;
    let kinds = [PlanKind::Failover, PlanKind::Switchover, PlanKind::Failback, PlanKind::Reprotect, PlanKind::Restart];
    kinds.into_iter().find(|kind| kind.as_str() == word).ok_or_else(|| format!("{word:?} is no kind of plan"))
}

fn answer(words: &mut Words<'_>) -> Result<String, String> {
    let word = words.next()?;
    let known = ["done", "refused", "waits", "undecided", "nothing"].contains(&word);
    if known {
        Ok(word.to_owned())
    } else {
        Err(format!("{word:?} is no answer; write done, refused, waits or undecided"))
    }
}

fn gate(words: &mut Words<'_>) -> Result<Gate, String> {
    match words.next()? {
        "detect" => Ok(Gate::Detect),
        "declare" => Ok(Gate::Declare),
        "fence" => Ok(Gate::Fence),
        "activate" => Ok(Gate::Activate),
        "automatic" => Ok(Gate::Automatic),
        other => Err(format!("{other:?} is no gate; gates are detect, declare, fence, activate and automatic")),
    }
}

/// Every engine that runs.
fn engines(world: &World) -> impl Iterator<Item = (&HostName, &Engine)> {
    world.hosts.iter().filter_map(|(name, host)| Some((name, host.engine()?)))
}

/// The ledger of whoever applied most.
pub(super) fn ledger(world: &World) -> Option<&Ledger> {
    engines(world).map(|(_, engine)| engine.ledger()).max_by_key(|ledger| ledger.applied())
}

impl Fact {
    /// dispatcher: one arm a condition.
    fn holds(&self, world: &World, seen: &Seen<'_>) -> bool {
        match self {
            Self::Quiet => is_quiet(world),
            Self::Runs(group, hosts) => {
                let runs = |name: &HostName, host: &SimHost| {
                    let is_up = host.places.get(group).is_some_and(|place| place.running.is_some());
                    (host.is_powered() && is_up).then(|| name.clone())
                };
                let where_it_runs: Vec<_> = world.hosts.iter().filter_map(|(name, host)| runs(name, host)).collect();
                one_of(&where_it_runs, hosts)
            }
            Self::HeldBy(group, hosts) => {
                let state = ledger(world).and_then(|ledger| ledger.group(group));
                let owner = state.and_then(|state| state.ticket.as_ref()).map(|ticket| ticket.of.host.clone());
                one_of(&owner.into_iter().collect::<Vec<_>>(), hosts)
            }
            Self::Protected(group) => {
                ledger(world).and_then(|ledger| ledger.group(group)).is_some_and(|state| state.in_sync.len() > 1)
            }
            Self::InSync(group, host) => {
                ledger(world).and_then(|ledger| ledger.group(group)).is_some_and(|state| state.in_sync.contains(host))
            }
            Self::All(hosts, fact) => hosts.iter().all(|host| fact.holds(world, host)),
            Self::Proven(host, kind) => {
                let state = ledger(world).and_then(|ledger| ledger.host(host));
                let ended = state.and_then(|state| state.incarnations.values().rev().find(|one| one.ended.is_some()));
                ended.is_some_and(|one| match kind {
                    EvidenceKind::SelfFenced => one.lease_over.is_some(),
                    kind => one.evidence.iter().any(|accepted| accepted.kind == *kind),
                })
            }
            Self::Leads(hosts) => {
                let leaders: Vec<HostName> =
                    engines(world).filter(|(_, engine)| engine.is_leader()).map(|(name, _)| name.clone()).collect();
                one_of(&leaders, hosts)
            }
            Self::Plan(group, kind) => {
                ledger(world).and_then(|ledger| ledger.open_plan(group)).is_some_and(|plan| plan.plan.kind == *kind)
            }
            Self::Braked => ledger(world).is_some_and(|ledger| ledger.brake().is_some()),
            Self::Frozen => ledger(world).is_some_and(|ledger| !ledger.freezes().is_empty()),
            Self::Answered(how, text) => {
                let (word, said) = answer_as_words(seen.asked.and_then(|ticket| world.answers.get(&ticket)));
                word == how && said.contains(text.as_str())
            }
            Self::Says(host, group, gate, text) => says(world, (host, group), *gate).is_some_and(|s| s.contains(text)),
            Self::Attention(host, code) => {
                let engine = world.hosts.get(host).and_then(SimHost::engine);
                engine.is_some_and(|engine| engine.status().attention.iter().any(|line| line.code == code))
            }
            Self::Event(text) => seen.lines.iter().any(|line| line.text.contains(text)),
            Self::Events(count, text) => seen.lines.iter().filter(|line| line.text.contains(text)).count() == *count,
        }
    }
}

/// Exactly one, and it is among `wanted`; or none at all if none is wanted.
fn one_of(found: &[HostName], wanted: &[HostName]) -> bool {
    match found {
        [] => wanted.is_empty(),
        [one] => wanted.contains(one),
        _ => false,
    }
}

/// An answer's kind and what it said.
pub(super) fn answer_as_words(answer: Option<&Answer>) -> (&'static str, String) {
    match answer {
        None => ("nothing", String::new()),
        Some(Answer::Done { detail, .. }) => ("done", detail.clone()),
        Some(Answer::Refused { code, because, .. }) => ("refused", format!("{code}: {because}")),
        Some(Answer::Undecided { because }) => ("undecided", because.clone()),
        Some(Answer::Waits { because, .. }) => ("waits", because.clone()),
        Some(Answer::FenceDecision(decision)) => match &decision.refused {
            Some(refusal) => ("refused", format!("{}: {}", refusal.code, refusal.because)),
            None => ("done", decision.then.clone()),
        },
        Some(
            Answer::Status(_)
            | Answer::Timing(_)
            | Answer::Fencing(_)
            | Answer::Plans(_)
            | Answer::Spec(_)
            | Answer::Chain(_)
            | Answer::Backup { .. }
            | Answer::Live { .. }
            | Answer::Checked(_),
        ) => ("done", String::new()),
    }
}

fn says(world: &World, (host, group): (&HostName, &GroupName), gate: Gate) -> Option<String> {
    let status = world.hosts.get(host)?.engine()?.status();
    let line = status.groups.into_iter().find(|line| line.name == group.as_str())?;
    let gates = line.gates;
    let one = match gate {
        Gate::Detect => gates.detect,
        Gate::Declare => gates.declare,
        Gate::Fence => gates.fence,
        Gate::Activate => gates.activate,
        Gate::Automatic => {
            let possible = line.automatic_failover;
            return Some(format!(
                "{}: {}",
                if possible.possible { "possible" } else { "impossible" },
                possible.because
            ));
        }
    };
    Some(format!("{}: {}", one.state, one.because))
}

fn is_quiet(world: &World) -> bool {
    let Some(ledger) = ledger(world) else { return false };
    let powered: BTreeSet<&HostName> =
        world.hosts.iter().filter(|(_, host)| host.is_powered()).map(|(name, _)| name).collect();
    let admitted = powered.iter().all(|host| ledger.admitted(host).is_some());
    let groups = ledger.spec().groups.iter().all(|(name, spec)| {
        let Some(state) = ledger.group(name) else { return false };
        let Some(ticket) = &state.ticket else { return false };
        let has_standby = spec
            .hosts()
            .any(|host| *host != ticket.of.host && powered.contains(host) && !spec.is_same_copy(host, &ticket.of.host));
        let protected = spec.volumes.is_empty() || !has_standby || state.in_sync.len() > 1;
        ticket.state == TicketState::Running && protected && ledger.open_plan(name).is_none()
    });
    admitted && groups && engines(world).any(|(_, engine)| engine.is_leader())
}

impl HostFact {
    fn holds(self, world: &World, host: &HostName) -> bool {
        let page = || world.hosts.get(host)?.engine()?.keeper_page();
        let last = || {
            let state = ledger(world)?.host(host)?;
            state.incarnations.get(&state.he)?.ended
        };
        match self {
            Self::Admitted => ledger(world).is_some_and(|ledger| ledger.admitted(host).is_some()),
            Self::Lost => matches!(last(), Some(Ended::Lost { .. })),
            Self::Retired => matches!(last(), Some(Ended::Retired { .. })),
            Self::Leased => world.hosts.get(host).and_then(SimHost::engine).is_some_and(Engine::holds_lease),
            Self::Powered => world.hosts.get(host).is_some_and(SimHost::is_powered),
            Self::Armed => page().is_some_and(|page| page.state == KeeperState::Armed),
        }
    }
}
