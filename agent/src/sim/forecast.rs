//! `what-if`: one disaster, played on the state of a live cluster by the engine that would decide it.
//!
//! What is said of a group is read from the typed events of that run and from its leader's status, never guessed.
//! What the run can't know is said with it: [`UNKNOWN`].

use super::live::{Live, lags};
use super::world::{What, World};
use super::{SimHost, Violation};
use crate::config::{ClusterSpec, Problems};
use crate::engine::{Engine, StatusDocument};
use crate::event::Event;
use quorum::id::{GroupName, HostName, SiteName};
use quorum::ledger::{self as facts, Ledger, PlanKind, StepKind, TicketState};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What a forecast rests on that isn't known.
pub const UNKNOWN: [&str; 6] = [
    "workloads are played: each starts within 0.3 s and answers 2 s later; yours take their own time, and may not start",
    "every round trip between sites takes round_trip_max, and no packet is lost",
    "fence devices that were read well in the last minute work at once, the others not at all; a lost site's die with it",
    "a copy that isn't whole now stays so, and one that lags stays as far behind as it was attested last",
    "hosts that aren't heard or admitted now stay away; processor and memory that a host has left aren't looked at",
    "a leader's own memory (penalties of hosts that kept getting lost, how long a freeze has run) begins anew",
];

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disaster {
    /// A site loses its power, its management processors with it.
    SiteLoss(SiteName),
    /// Two sites don't reach each other any more.
    LinkLoss(SiteName, SiteName),
    /// A host loses its power.
    HostLoss(HostName),
}

/// How a group comes out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It goes on where it is.
    Stays,
    /// It runs elsewhere.
    Moves,
    /// It goes nowhere before a person says so.
    Waits,
    /// A gate holds it, or nothing could decide.
    Held,
    /// It didn't run before either.
    Down,
}

/// What would become of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupForecast {
    /// Its name.
    pub group: String,
    /// How it comes out.
    pub outcome: Outcome,
    /// Where it ran before.
    pub from: Option<String>,
    /// Where it runs then.
    pub to: Option<String>,
    /// When its host is declared lost, in milliseconds after the disaster.
    pub declared_ms: Option<u64>,
    /// When evidence about its host is accepted.
    pub proven_ms: Option<u64>,
    /// By what its former owners are proven harmless.
    pub proven_by: Vec<String>,
    /// From the disaster until it answers elsewhere.
    pub expected_rto_ms: Option<u64>,
    /// How much written data is lost at most; absent where it stays, goes nowhere, or has no data.
    pub expected_rpo_ms: Option<u64>,
    /// Whether a second copy of its data is left.
    pub protected: bool,
    /// Why.
    pub because: String,
    /// The person's next command; empty if there is none.
    pub next: String,
}

/// What would happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forecast {
    /// Group by group.
    pub groups: Vec<GroupForecast>,
    /// How long was looked ahead.
    pub horizon: Duration,
}

/// Why there is no forecast.
#[derive(Debug, thiserror::Error)]
pub enum NoForecast {
    /// The ledger's spec can't be read by this program.
    #[error("read the spec in force: {0}")]
    Spec(Problems),
    /// The cluster doesn't exist yet.
    #[error("find a cluster: there is none yet")]
    NoCluster,
    /// The spec has no such place.
    #[error("find {0} in the spec")]
    Unknown(String),
    /// The voters are being changed.
    #[error("play a cluster whose voters are being changed: ask again once that is over")]
    Changing,
    /// An invariant broke: a defect.
    #[error("keep invariant {invariant}: {text}")]
    Broken {
        /// Which.
        invariant: &'static str,
        /// How.
        text: String,
    },
}

impl From<Violation> for NoForecast {
    fn from(violation: Violation) -> Self {
        Self::Broken { invariant: violation.invariant, text: violation.text }
    }
}

/// A leader is elected, leases are renewed, devices are read and mirrors followed again within this.
const SETTLING: Duration = Duration::from_secs(15);
/// At least so long is looked, also where nothing is to move.
const HORIZON_MIN: Duration = Duration::from_secs(30);
/// Beyond every hold-off: leases, fencing, a start.
const HORIZON_BEYOND: Duration = Duration::from_secs(90);
/// How often the lag of asynchronous copies is told.
const LAG_EVERY: Duration = Duration::from_millis(500);

/// Plays a disaster on the state of a live cluster.
///
/// # Errors
/// [`NoForecast`] if the state can't be played.
pub fn what_if(live: &Live, disaster: &Disaster) -> Result<Forecast, NoForecast> {
    let source = &live.ledger.spec_revision().source;
    let spec = ClusterSpec::parse("the spec in force", source).map_err(NoForecast::Spec)?;
    let hit = hit_by(&spec, disaster)?;
    if live.ledger.membership().is_joint() {
        return Err(NoForecast::Changing);
    }
    let mut world = World::going_on(live, &spec).ok_or(NoForecast::NoCluster)?;
    settle(&mut world, live)?;
    let before = running(&world);
    let (zero_ns, first) = (world.now_ns, world.trace.len());
    strike(&mut world, &spec, (disaster, &hit));
    let is_over = |world: &World| {
        let now = running(world);
        before.iter().all(|(group, host)| !hit.contains(host) || now.get(group).is_some_and(|now| now != host))
    };
    let longest = live.ledger.spec().groups.values().map(|group| group.hold_off).max().unwrap_or_default();
    world.run_for(HORIZON_MIN)?;
    world.run_until(longest + HORIZON_BEYOND - HORIZON_MIN, is_over)?;
    let status = leader(&world).map(Engine::status);
    let view = View { world: &world, status, hit: &hit, since: (first, zero_ns) };
    let groups = spec.groups.keys().map(|group| view.forecast(group, before.get(group))).collect();
    Ok(Forecast { groups, horizon: Duration::from_nanos(world.now_ns - zero_ns) })
}

/// The hosts that lose their power.
fn hit_by(spec: &ClusterSpec, disaster: &Disaster) -> Result<BTreeSet<HostName>, NoForecast> {
    let unknown = |name: &dyn std::fmt::Display| Err(NoForecast::Unknown(name.to_string()));
    match disaster {
        Disaster::SiteLoss(site) if !spec.sites.contains_key(site) => unknown(site),
        Disaster::LinkLoss(one, _) if !spec.sites.contains_key(one) => unknown(one),
        Disaster::LinkLoss(_, other) if !spec.sites.contains_key(other) => unknown(other),
        Disaster::HostLoss(host) if !spec.hosts.contains_key(host) => unknown(host),
        Disaster::LinkLoss(..) => Ok(BTreeSet::new()),
        Disaster::SiteLoss(site) => Ok(of_site(spec, site)),
        Disaster::HostLoss(host) => Ok(BTreeSet::from([host.clone()])),
    }
}

fn of_site(spec: &ClusterSpec, site: &SiteName) -> BTreeSet<HostName> {
    spec.hosts.values().filter(|host| host.site == *site).map(|host| host.name.clone()).collect()
}

fn settle(world: &mut World, live: &Live) -> Result<(), NoForecast> {
    let lags = lags(live);
    let mut left = SETTLING;
    while !left.is_zero() {
        let step = LAG_EVERY.min(left);
        world.run_for(step)?;
        world.tell_lags(&lags);
        left = left.saturating_sub(step);
    }
    Ok(())
}

fn strike(world: &mut World, spec: &ClusterSpec, (disaster, hit): (&Disaster, &BTreeSet<HostName>)) {
    for host in hit {
        world.power_off(host);
    }
    match disaster {
        Disaster::HostLoss(_) => {}
        Disaster::SiteLoss(_) => {
            let executors: Vec<HostName> = world.hosts.keys().cloned().collect();
            let dead = hit.iter().flat_map(|target| executors.iter().map(|from| (from.clone(), target.clone())));
            world.fences.cut.extend(dead);
        }
        Disaster::LinkLoss(one, other) => {
            for left in of_site(spec, one) {
                for right in of_site(spec, other) {
                    world.cut(&left, &right, true);
                    world.cut(&right, &left, true);
                }
            }
        }
    }
}

/// Where each group really is up.
fn running(world: &World) -> BTreeMap<GroupName, HostName> {
    let mut found = BTreeMap::new();
    for (host, sim) in &world.hosts {
        let up = sim.places.iter().filter(|(_, place)| place.running.is_some());
        found.extend(up.map(|(group, _)| (group.clone(), host.clone())));
    }
    let is_said = |group: &GroupName| {
        let ticket = world.ledger().and_then(|ledger| ledger.group(group)?.ticket.as_ref().map(|ticket| ticket.state));
        ticket == Some(TicketState::Running)
    };
    found.retain(|group, _| is_said(group));
    found
}

/// The engine that leads; none where no majority of voters is left.
fn leader(world: &World) -> Option<&Engine> {
    let engines = world.hosts.values().filter_map(SimHost::engine);
    let leads = engines.filter(|engine| engine.is_leader()).max_by_key(|engine| engine.ledger().position().term)?;
    let quorum = leads.status().quorum;
    (quorum.reachable >= quorum::roster::majority(quorum.voters)).then_some(leads)
}

/// What a run came to.
struct View<'a> {
    world: &'a World,
    /// As the leader sees it at the end.
    status: Option<StatusDocument>,
    hit: &'a BTreeSet<HostName>,
    /// The first line of the trace after the disaster, and when that was.
    since: (usize, u64),
}

impl View<'_> {
    fn forecast(&self, group: &GroupName, from: Option<&HostName>) -> GroupForecast {
        let mut said = GroupForecast {
            group: group.to_string(),
            outcome: Outcome::Down,
            from: from.map(ToString::to_string),
            to: None,
            declared_ms: None,
            proven_ms: None,
            proven_by: Vec::new(),
            expected_rto_ms: None,
            expected_rpo_ms: None,
            protected: self.is_protected(group),
            because: String::new(),
            next: String::new(),
        };
        self.read_trace(group, from, &mut said);
        let now = running(self.world).get(group).cloned();
        said.outcome = match (from, &now) {
            (None, None) => Outcome::Down,
            (Some(from), Some(now)) if from == now => Outcome::Stays,
            (_, Some(_)) => Outcome::Moves,
            (Some(_), None) if self.waits_for_a_person(group) => Outcome::Waits,
            (Some(_), None) => Outcome::Held,
        };
        said.to = now.map(|host| host.to_string());
        if !matches!(said.outcome, Outcome::Moves) {
            (said.expected_rto_ms, said.expected_rpo_ms) = (None, None);
        }
        (said.because, said.next) = self.reason(group, &said);
        said
    }

    fn read_trace(&self, group: &GroupName, from: Option<&HostName>, said: &mut GroupForecast) {
        let (first, zero_ns) = self.since;
        for trace in &self.world.trace[first..] {
            let What::Told(Event::Applied { fact, .. }) = &trace.what else { continue };
            let at_ms = Some((trace.at_ns - zero_ns) / 1_000_000);
            match &**fact {
                facts::Event::HostLost { of, .. } if Some(&of.host) == from => {
                    said.declared_ms = said.declared_ms.or(at_ms);
                }
                facts::Event::EvidenceAccepted { of, .. } if Some(&of.host) == from => {
                    said.proven_ms = said.proven_ms.or(at_ms);
                }
                facts::Event::Granted { group: of, proofs, expected_loss, .. } if of == group => {
                    said.proven_by =
                        proofs.iter().map(|(of, proof)| format!("{}: {}", of.host, word(*proof))).collect();
                    let has_data = self.spec().and_then(|spec| Some(!spec.groups.get(group)?.volumes.is_empty()));
                    let loss = expected_loss.filter(|_| has_data == Some(true));
                    said.expected_rpo_ms = loss.map(|loss| u64::try_from(loss.as_millis()).unwrap_or(u64::MAX));
                }
                facts::Event::Running { group: of, .. } if of == group => {
                    said.expected_rto_ms = said.expected_rto_ms.or(at_ms);
                }
                _ => {}
            }
        }
    }

    fn spec(&self) -> Option<&facts::LedgerSpec> {
        self.world.ledger().map(Ledger::spec)
    }

    /// A second copy, on a host that is left, has everything.
    fn is_protected(&self, group: &GroupName) -> bool {
        let state = self.world.ledger().and_then(|ledger| ledger.group(group));
        state.is_some_and(|state| state.in_sync.iter().filter(|host| !self.hit.contains(*host)).count() > 1)
    }

    fn waits_for_a_person(&self, group: &GroupName) -> bool {
        let Some(ledger) = self.world.ledger() else { return false };
        let waits = ledger.open_plan(group).is_some_and(|plan| {
            let step = plan.current_step().map(|index| plan.plan.steps[index].kind);
            plan.plan.kind == PlanKind::Failover && step == Some(StepKind::AwaitApproval)
        });
        let asks = ledger
            .group_spec(group)
            .is_some_and(|spec| matches!(spec.tier, facts::Tier::Manual | facts::Tier::Restore));
        waits || asks
    }

    /// Why it comes out so, and what a person does.
    fn reason(&self, group: &GroupName, said: &GroupForecast) -> (String, String) {
        let seconds =
            |ms: Option<u64>| ms.map_or("-".to_owned(), |ms| format!("{}.{} s", ms / 1_000, ms % 1_000 / 100));
        match said.outcome {
            Outcome::Stays if said.protected || !self.has_data(group) => (String::new(), String::new()),
            Outcome::Stays => ("it goes on without a second copy of its data".to_owned(), String::new()),
            Outcome::Moves => {
                let (declared, proven) = (seconds(said.declared_ms), seconds(said.proven_ms));
                let by = said.proven_by.join(", ");
                (format!("declared lost after {declared}, proven after {proven} ({by})"), String::new())
            }
            Outcome::Waits | Outcome::Held | Outcome::Down => self.shut(group),
        }
    }

    fn has_data(&self, group: &GroupName) -> bool {
        self.spec().and_then(|spec| spec.groups.get(group)).is_some_and(|spec| !spec.volumes.is_empty())
    }

    /// The first gate that isn't open, as the leader says; or that there is nobody to say so.
    fn shut(&self, group: &GroupName) -> (String, String) {
        let Some(status) = &self.status else {
            let because = "no majority of voters is left: nothing can be decided".to_owned();
            return (because, "antipode quorum status; if they are gone for good: antipode quorum recover".to_owned());
        };
        let Some(line) = status.groups.iter().find(|line| line.name == group.as_str()) else {
            return ("it isn't born yet".to_owned(), format!("antipode explain group {group}"));
        };
        let gates = [
            ("detect", &line.gates.detect),
            ("declare", &line.gates.declare),
            ("fence", &line.gates.fence),
            ("activate", &line.gates.activate),
        ];
        let plan = status.plans.iter().find(|plan| plan.group == line.name && !plan.next.is_empty());
        let calls =
            |text: &str| text.split(|c: char| !(c.is_alphanumeric() || "-_.".contains(c))).any(|w| w == line.name);
        let attention = status.attention.iter().find(|item| calls(&item.text));
        let brake = status.attention.iter().find(|item| item.code == "brake");
        let gate = gates.into_iter().find(|(_, gate)| gate.state != "open");
        let because = match (brake, gate) {
            (Some(brake), _) => brake.text.clone(),
            (None, Some((name, gate))) => format!("gate {name}: {}", gate.because),
            (None, None) => line.automatic_failover.because.clone(),
        };
        let next = brake.map(|item| item.next.clone()).or_else(|| plan.map(|plan| plan.next.clone()));
        let next = next.or_else(|| attention.map(|item| item.next.clone()));
        (because, next.unwrap_or_else(|| format!("antipode failover {group}")))
    }
}

const fn word(proof: facts::ProofKind) -> &'static str {
    match proof {
        facts::ProofKind::Stopped => "stopped",
        facts::ProofKind::Evidence(kind) => kind.as_str(),
        facts::ProofKind::Itself => "itself",
        facts::ProofKind::Adopted => "adopted",
    }
}
