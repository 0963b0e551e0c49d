//! The world: a queue of events in real time, and what each does.

use super::disk::SimDisk;
use super::fence::{FenceBench, FenceHappening};
use super::host::{Founded, HostSpec, SimHost};
use super::network::{Network, nanos};
use super::oracle::{Oracle, Violation};
use super::place::{Place, Volume};
use super::random::Random;
use super::watch::Point;
use crate::engine::{Answer, Effect, Engine, Input, Message, WorkId};
use crate::event::Event;
use crate::heartbeat::Datagram;
use crate::keeper::core::Action;
use quorum::id::{Era, Generation, GroupName, HostName, SiteName, VoterId};
use quorum::ledger::{Class, Ledger};
use quorum::moment::Moment;
use quorum::replica::Write;
use quorum::roster::{Membership, VoterInfo};
use quorum::storage::{FaultyBlocks, MemoryDisk};
use quorum::timing::{Measured, Timing};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// No cluster of a few hosts has this many events in this span unless somebody spins.
const EVENTS_MAX: u64 = 20_000;
const BUSY_NS: u64 = 100_000_000;
/// So many of them are counted by kind, so that it can be said who.
const EVENTS_NAMED: u64 = 2_000;
/// Clocks are off by up to this many parts per million: two of them by less than ρ.
const RATE_PPM: u64 = 450;

/// A cluster to be simulated.
#[derive(Clone, Debug)]
pub struct WorldSpec {
    /// Seed of everything.
    pub seed: u64,
    /// Hosts: name, site, vote, whether it prefers to lead.
    pub hosts: Vec<(HostName, SiteName, Option<VoterId>, bool)>,
    /// Groups and the hosts that can have their data; the first has it.
    pub groups: Vec<(GroupName, Vec<HostName>)>,
    /// W.
    pub watchdog_worst: Duration,
    /// Largest round trip.
    pub round_trip_max: Duration,
}

/// What is not as it mostly is.
#[derive(Clone, Debug, Default)]
pub struct Tuning {
    /// The time spans before a spec says otherwise, if not those that follow from the two figures.
    pub timing: Option<Timing>,
    /// What the hosts' leases prove; [`Class::A`] for those that aren't named.
    pub classes: BTreeMap<HostName, Class>,
    /// Voters keep their log in the production store over faulty blocks instead of in memory.
    pub is_on_blocks: bool,
    /// Nothing is kept in [`World::trace`].
    pub is_silent: bool,
}

/// One line of a run's trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Real time.
    pub at_ns: u64,
    /// Which host; `None` for the world itself.
    pub host: Option<HostName>,
    /// What.
    pub what: What,
}

/// What a trace line tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// What the world did: power, keepers, watchdogs, links.
    Done(String),
    /// What an agent told.
    Told(Event),
}

impl Happening {
    /// What spins, when somebody does.
    fn kind(&self) -> String {
        match self {
            Self::Message { to, from, message } => {
                let whole = format!("{message:?}");
                let kind = whole.split([' ', '(']).take(2).collect::<Vec<_>>().join(" ");
                format!("message {kind} from {from} to {to}")
            }
            Self::Datagram { to, from, .. } => format!("datagram from {from} to {to}"),
            Self::Flushed { host, .. } => format!("flush at {host}"),
            Self::WorkEnded { host, .. } => format!("work at {host}"),
            Self::Wake(host, _) => format!("wake of {host}"),
            Self::Keeper(host, _) | Self::KeeperResumes(host, ..) => format!("keeper of {host}"),
            _ => "something else".to_owned(),
        }
    }
}

impl Trace {
    /// As a line for people, without what differs from run to run.
    pub fn text(&self) -> String {
        match &self.what {
            What::Done(text) => text.clone(),
            What::Told(event) => serde_json::to_string(event).unwrap_or_else(|_| event.name().to_owned()),
        }
    }
}

pub(super) enum Happening {
    PowerOn(HostName),
    StartAgent(HostName, u64),
    Wake(HostName, u64),
    Keeper(HostName, (u64, u64)),
    KeeperResumes(HostName, (u64, u64), Action),
    Datagram { to: HostName, from: HostName, datagram: Box<Datagram>, received: Option<(u64, Moment)> },
    Message { to: HostName, from: HostName, message: Box<Message> },
    Link { to: HostName, from: HostName, agents: (u64, u64) },
    Flushed { host: HostName, process: (u64, u64), write: Box<Write> },
    Joins { host: HostName, process: u64, voter: VoterId, era: Era },
    WorkEnded { host: HostName, process: u64, id: WorkId },
    Input { host: HostName, process: u64, input: Box<Input> },
    Effects { host: HostName, process: u64, effects: Vec<Effect> },
    WatchdogLooks(HostName, u64),
    Reset(HostName, u64),
    WakesUp(HostName, u64, u64),
    MirrorMeasured(HostName, GroupName),
    Fence(FenceHappening),
}

/// The world.
pub struct World {
    /// Real time in nanoseconds.
    pub now_ns: u64,
    /// The hosts.
    pub hosts: BTreeMap<HostName, SimHost>,
    /// The network.
    pub network: Network,
    /// What happened, if the world is traced.
    pub trace: Vec<Trace>,
    /// Answers to requests, by ticket.
    pub answers: BTreeMap<u64, Answer>,
    /// Fence devices.
    pub fences: FenceBench,
    pub(super) oracle: Oracle,
    pub(super) random: Random,
    pub(super) founded: Founded,
    pub(super) tickets: u64,
    pub(super) flowed_ns: u64,
    pub(super) mirrors_away: BTreeSet<(HostName, GroupName)>,
    pub(super) reached: BTreeSet<Point>,
    pub(super) is_traced: bool,
    queue: BTreeMap<(u64, u64), Happening>,
    sequence: u64,
    /// Events of the span that is counted now, and which span that is.
    events: u64,
    span: u64,
    /// The last of too many, by kind.
    busy: BTreeMap<String, u64>,
}

impl World {
    /// A world in which every host is off.
    pub fn new(spec: &WorldSpec) -> Self {
        Self::tuned(spec, &Tuning::default())
    }

    /// As [`World::new`], with some things otherwise.
    pub fn tuned(spec: &WorldSpec, tuning: &Tuning) -> Self {
        let voters = spec.hosts.iter().filter_map(|(host, site, voter, _)| {
            voter.map(|id| (id, VoterInfo { id, host: host.clone(), site: site.clone() }))
        });
        let membership = Membership { voters: voters.collect(), ..Membership::default() };
        let peers = spec.hosts.iter().map(|(host, site, ..)| (host.clone(), site.clone())).collect();
        let derived = || Timing::derive(Measured::new(spec.watchdog_worst, spec.round_trip_max));
        let timing = tuning.timing.clone().unwrap_or_else(derived);
        let mut random = Random::new(spec.seed);
        let mut hosts = BTreeMap::new();
        for (name, site, voter, prefers_lead) in &spec.hosts {
            let rate_ppm = i64::try_from(random.below(2 * RATE_PPM + 1)).unwrap_or(0) - RATE_PPM.cast_signed();
            let host = HostSpec {
                name: name.clone(),
                site: site.clone(),
                voter: *voter,
                class: tuning.classes.get(name).copied().unwrap_or(Class::A),
                rate_ppm,
                prefers_lead: *prefers_lead,
                wall_off_ms: 0,
            };
            let disk = if tuning.is_on_blocks {
                SimDisk::Blocks(FaultyBlocks::default())
            } else {
                SimDisk::Memory(MemoryDisk::default())
            };
            hosts.insert(name.clone(), SimHost::new(host, disk));
        }
        for (group, places) in &spec.groups {
            for (n, place) in places.iter().enumerate() {
                let volume = Volume { generation: Generation(u64::from(n == 0)), ..Volume::default() };
                let host = hosts.get_mut(place).expect("a place is a host");
                host.places.insert(group.clone(), Place { volume: Some(volume), ..Place::default() });
            }
        }
        Self {
            now_ns: 1,
            hosts,
            network: Network::default(),
            trace: Vec::new(),
            answers: BTreeMap::new(),
            fences: FenceBench::default(),
            oracle: Oracle::new(&membership),
            random,
            queue: BTreeMap::new(),
            sequence: 0,
            events: 0,
            span: 0,
            busy: BTreeMap::new(),
            founded: Founded { membership, peers, timing, genesis: None },
            tickets: 0,
            flowed_ns: 1,
            mirrors_away: BTreeSet::new(),
            reached: BTreeSet::new(),
            is_traced: !tuning.is_silent,
        }
    }

    /// The time spans in force.
    pub fn timing(&self) -> &Timing {
        &self.founded.timing
    }

    /// What the oracle saw so far, for coverage.
    pub fn oracle(&self) -> &Oracle {
        &self.oracle
    }

    /// The engine of a host whose agent runs.
    pub fn engine(&self, host: &HostName) -> Option<&Engine> {
        self.hosts.get(host)?.engine()
    }

    /// The ledger of whoever has applied most.
    pub fn ledger(&self) -> Option<&Ledger> {
        let ledgers = self.hosts.values().filter_map(|host| Some(host.engine()?.ledger()));
        ledgers.max_by_key(|ledger| ledger.applied())
    }

    /// The agent that leads with the highest term, if any does.
    pub fn leader(&self) -> Option<&HostName> {
        let leaders = self.hosts.iter().filter(|(_, host)| host.engine().is_some_and(Engine::is_leader));
        leaders
            .max_by_key(|(_, host)| host.engine().map(|engine| engine.ledger().position().term))
            .map(|(name, _)| name)
    }

    pub(super) fn at(&mut self, at_ns: u64, happening: Happening) {
        self.sequence += 1;
        self.queue.insert((at_ns, self.sequence), happening);
    }

    pub(super) fn note(&mut self, host: Option<&HostName>, text: String) {
        if self.is_traced {
            self.trace.push(Trace { at_ns: self.now_ns, host: host.cloned(), what: What::Done(text) });
        }
    }

    pub(super) fn reached(&mut self, point: Point) {
        self.reached.insert(point);
    }

    /// Runs until `done` says so or real time has moved on by `limit`. Returns whether it said so.
    ///
    /// # Errors
    /// The first [`Violation`] that the oracle sees.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) -> Result<bool, Violation> {
        let end = self.now_ns + nanos(limit);
        loop {
            if done(self) {
                return Ok(true);
            }
            match self.queue.first_key_value() {
                Some(((at, _), _)) if *at <= end => {
                    self.step()?;
                }
                _ => {
                    self.now_ns = end;
                    return Ok(false);
                }
            }
        }
    }

    /// Lets real time pass.
    ///
    /// # Errors
    /// The first [`Violation`] that the oracle sees.
    pub fn run_for(&mut self, span: Duration) -> Result<(), Violation> {
        self.run_until(span, |_| false).map(|_| ())
    }

    fn step(&mut self) -> Result<(), Violation> {
        let Some(((at, _), happening)) = self.queue.pop_first() else { return Ok(()) };
        // Not compared with `now_ns`, which a caller that lets time pass in even steps moves on, too.
        if at / BUSY_NS != self.span {
            (self.span, self.events) = (at / BUSY_NS, 0);
            self.busy.clear();
        }
        self.events += 1;
        if self.events > EVENTS_MAX - EVENTS_NAMED {
            *self.busy.entry(happening.kind()).or_default() += 1;
        }
        if self.events > EVENTS_MAX {
            let most = self.busy.iter().max_by_key(|(_, count)| **count).map(|(kind, _)| kind.as_str());
            let text = format!(
                "{EVENTS_MAX} events in {} ms: somebody spins; most of the last are {}",
                BUSY_NS / 1_000_000,
                most.unwrap_or_default()
            );
            return Err(Violation { invariant: "liveness", text });
        }
        self.now_ns = at;
        self.happen(happening);
        self.oracle.look(&self.hosts, self.now_ns)
    }

    /// dispatcher: one arm a happening.
    fn happen(&mut self, happening: Happening) {
        let Some(happening) = self.unless_stopped(happening) else { return };
        match happening {
            Happening::PowerOn(host) => self.boot(&host),
            Happening::StartAgent(host, boot) => self.begin_agent(&host, boot),
            Happening::Wake(host, process) => self.wake(&host, process),
            Happening::Keeper(host, process) => self.keeper_looks(&host, process),
            Happening::KeeperResumes(host, process, action) => self.keeper_acts(&host, process, Some(action)),
            Happening::Datagram { to, from, datagram, received } => {
                if let Some((_, received)) = received {
                    self.input(&to, Input::Datagram { from, path: 0, datagram, received });
                }
            }
            Happening::Message { to, from, message } => self.input(&to, Input::Message { from, message }),
            Happening::Link { to, from, agents } => {
                let now = (self.process_of(&to), self.process_of(&from));
                if now == (Some(agents.0), Some(agents.1)) && self.network.is_whole(&to, &from) {
                    self.input(&to, Input::Link { peer: from, up: true });
                }
            }
            Happening::Flushed { host, process, write } => self.flushed(&host, process, *write),
            Happening::Joins { host, process, voter, era } => self.joins(&host, process, (voter, era)),
            Happening::WorkEnded { host, process, id } => self.work_ended(&host, process, id),
            Happening::Input { host, process, input } => {
                if self.process_of(&host) == Some(process) {
                    self.input(&host, *input);
                }
            }
            Happening::Effects { host, process, effects } => {
                if self.process_of(&host) == Some(process) {
                    effects.into_iter().for_each(|effect| self.perform(&host, process, effect));
                }
            }
            Happening::WatchdogLooks(host, boot) => self.watchdog_looks(&host, boot),
            Happening::Reset(host, boot) => self.reset(&host, boot),
            Happening::WakesUp(host, boot, span_ns) => self.wakes_up(&host, boot, span_ns),
            Happening::MirrorMeasured(host, group) => self.mirror_is_measured(&host, &group),
            Happening::Fence(happening) => self.fence_happens(happening),
        }
    }

    /// What happens to an agent that is stopped happens when it goes on. The kernel receives datagrams all the while,
    /// and says when; a host that is suspended receives none.
    fn unless_stopped(&mut self, mut happening: Happening) -> Option<Happening> {
        let now_ns = self.now_ns;
        if let Happening::Datagram { to, received, .. } = &mut happening {
            let boot = self.hosts.get(to)?.boot.as_ref().filter(|boot| !boot.is_asleep)?;
            let seen = *received.get_or_insert_with(|| (boot.number, boot.clock.read(now_ns)));
            // What an earlier boot received died with it.
            if seen.0 != boot.number {
                return None;
            }
        }
        let host = match &happening {
            Happening::Wake(host, _)
            | Happening::Datagram { to: host, .. }
            | Happening::Message { to: host, .. }
            | Happening::Link { to: host, .. }
            | Happening::Flushed { host, .. }
            | Happening::Joins { host, .. }
            | Happening::WorkEnded { host, .. }
            | Happening::Input { host, .. }
            | Happening::Effects { host, .. } => host,
            Happening::PowerOn(_)
            | Happening::StartAgent(..)
            | Happening::Keeper(..)
            | Happening::KeeperResumes(..)
            | Happening::WatchdogLooks(..)
            | Happening::Reset(..)
            | Happening::WakesUp(..)
            | Happening::MirrorMeasured(..)
            | Happening::Fence(_) => return Some(happening),
        };
        let until = self.hosts.get(host)?.boot.as_ref()?.agent.as_ref()?.paused_until;
        if until > now_ns {
            self.at(until, happening);
            return None;
        }
        Some(happening)
    }

    pub(super) fn process_of(&self, host: &HostName) -> Option<u64> {
        Some(self.hosts.get(host)?.boot.as_ref()?.agent.as_ref()?.number)
    }
}
