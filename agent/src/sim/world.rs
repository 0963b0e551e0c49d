//! The world: a queue of events in real time, and what each does.

use super::clock::Clock;
use super::fence::{FenceBench, FenceHappening};
use super::host::{Boot, Founded, HostSpec, SimHost};
use super::network::{Network, nanos};
use super::oracle::{Oracle, Violation};
use super::place::{Place, Volume};
use super::random::Random;
use crate::engine::{Answer, Effect, Input, Message, Now, Report, Request, Sight, Work, WorkId};
use crate::event::Event;
use crate::heartbeat::Datagram;
use quorum::id::{AgentInstance, BootId, Epoch, GroupName, HostName, KeeperInstance, SiteName, VoterId};
use quorum::ledger::{Class, Person, PersonKey};
use quorum::replica::Write;
use quorum::roster::{Membership, VoterInfo};
use quorum::storage::LogStore;
use quorum::timing::{Measured, Timing};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long the played disk takes to flush.
const FLUSH_NS: u64 = 1_000_000;
/// From power-on until the keeper runs, and from there until the agent does.
const BOOT_NS: u64 = 500_000_000;
/// No cluster of a few hosts has this many events in this span unless somebody spins.
const EVENTS_MAX: u64 = 20_000;
const BUSY_NS: u64 = 100_000_000;
/// A link is set up this many one-way delays after both ends live.
const HANDSHAKE: u32 = 3;

/// A cluster to be simulated.
#[derive(Clone, Debug)]
pub struct WorldSpec {
    /// Seed of everything.
    pub seed: u64,
    /// Hosts: name, site, vote, whether it prefers to lead.
    pub hosts: Vec<(HostName, SiteName, Option<VoterId>, bool)>,
    /// Groups and the host that has their data.
    pub groups: Vec<(GroupName, Vec<HostName>)>,
    /// W.
    pub watchdog_worst: Duration,
    /// Largest round trip.
    pub round_trip_max: Duration,
}

/// One line of a run's trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Real time.
    pub at_ns: u64,
    /// Which host; `None` for the world itself.
    pub host: Option<HostName>,
    /// What.
    pub text: String,
}

pub(super) enum Happening {
    PowerOn(HostName),
    StartAgent(HostName, u64),
    Wake(HostName, u64),
    Keeper(HostName, u64),
    Datagram { to: HostName, from: HostName, datagram: Box<Datagram> },
    Message { to: HostName, from: HostName, message: Box<Message> },
    Link { to: HostName, from: HostName, agents: (u64, u64) },
    Flushed { host: HostName, process: u64, write: Box<Write> },
    WorkEnded { host: HostName, process: u64, id: WorkId },
    WatchdogLooks(HostName, u64),
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
    /// What happened.
    pub trace: Vec<Trace>,
    /// Answers to requests, by ticket.
    pub answers: BTreeMap<u64, Answer>,
    oracle: Oracle,
    random: Random,
    queue: BTreeMap<(u64, u64), Happening>,
    sequence: u64,
    events: u64,
    founded: Founded,
    tickets: u64,
    /// Fence devices.
    pub fences: FenceBench,
}

impl World {
    /// A world in which every host is off.
    pub fn new(spec: &WorldSpec) -> Self {
        let timing = Timing::derive(Measured::new(spec.watchdog_worst, spec.round_trip_max));
        let voters = spec.hosts.iter().filter_map(|(host, site, voter, _)| {
            voter.map(|id| (id, VoterInfo { id, host: host.clone(), site: site.clone() }))
        });
        let membership = Membership { voters: voters.collect(), ..Membership::default() };
        let peers = spec.hosts.iter().map(|(host, site, ..)| (host.clone(), site.clone())).collect();
        let mut random = Random::new(spec.seed);
        let mut hosts = BTreeMap::new();
        for (name, site, voter, prefers_lead) in &spec.hosts {
            let rate_ppm = i64::try_from(random.below(401)).unwrap_or(0) - 200;
            let host = HostSpec {
                name: name.clone(),
                site: site.clone(),
                voter: *voter,
                class: Class::A,
                rate_ppm,
                prefers_lead: *prefers_lead,
            };
            hosts.insert(name.clone(), SimHost::new(host));
        }
        for (group, places) in &spec.groups {
            for (n, place) in places.iter().enumerate() {
                let generation = quorum::id::Generation(u64::from(n == 0));
                let volume = Volume { generation, ..Volume::default() };
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
            oracle: Oracle::default(),
            random,
            queue: BTreeMap::new(),
            sequence: 0,
            events: 0,
            founded: Founded { membership, peers, timing },
            tickets: 0,
            fences: FenceBench::default(),
        }
    }

    /// The time spans in force.
    pub fn timing(&self) -> &Timing {
        &self.founded.timing
    }

    pub(super) fn at(&mut self, at_ns: u64, happening: Happening) {
        self.sequence += 1;
        self.queue.insert((at_ns, self.sequence), happening);
    }

    pub(super) fn note(&mut self, host: Option<&HostName>, text: String) {
        self.trace.push(Trace { at_ns: self.now_ns, host: host.cloned(), text });
    }

    // ---- what tests and scenarios do ----

    /// Gives a host power; it is up after a boot's time.
    pub fn power_on(&mut self, host: &HostName) {
        self.note(Some(host), "power on".into());
        self.at(self.now_ns, Happening::PowerOn(host.clone()));
    }

    /// Takes a host's power, at this instant.
    pub fn power_off(&mut self, host: &HostName) {
        self.note(Some(host), "power off".into());
        if let Some(host) = self.hosts.get_mut(host) {
            host.boot = None;
            host.disk.crash();
            host.places.values_mut().for_each(Place::cut);
        }
        self.mirrors_look();
    }

    /// Kills a host's agent; keeper and workloads go on.
    pub fn kill_agent(&mut self, host: &HostName) {
        self.note(Some(host), "agent killed".into());
        if let Some(boot) = self.hosts.get_mut(host).and_then(|host| host.boot.as_mut()) {
            boot.agent = None;
        }
    }

    /// Starts a host's agent again.
    pub fn start_agent(&mut self, host: &HostName) {
        let number = self.hosts[host].boots;
        self.at(self.now_ns, Happening::StartAgent(host.clone(), number));
    }

    /// Cuts or heals one direction.
    pub fn cut(&mut self, from: &HostName, to: &HostName, is_cut: bool) {
        self.note(None, format!("{} {from} -> {to}", if is_cut { "cut" } else { "heal" }));
        self.network.link(from, to).is_cut = is_cut;
        if !is_cut {
            self.connect(from, to);
        }
        self.mirrors_look();
    }

    /// Hands a request to a host's agent; the answer is found under the ticket returned.
    pub fn ask(&mut self, host: &HostName, request: Request) -> u64 {
        self.tickets += 1;
        let by = Person { name: "operator".into(), key: PersonKey::Local(0) };
        self.input(host, Input::Operator { ticket: self.tickets, by, request: Box::new(request) });
        self.tickets
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
        if at / BUSY_NS != self.now_ns / BUSY_NS {
            self.events = 0;
        }
        self.events += 1;
        if self.events > EVENTS_MAX {
            let text = format!("{EVENTS_MAX} events in {} ms: somebody spins", BUSY_NS / 1_000_000);
            return Err(Violation { invariant: "liveness", text });
        }
        self.now_ns = at;
        self.happen(happening);
        self.oracle.look(&self.hosts)
    }

    // ---- what happens ----

    /// dispatcher: one arm a happening.
    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::PowerOn(host) => self.boot(&host),
            Happening::StartAgent(host, boot) => self.begin_agent(&host, boot),
            Happening::Wake(host, process) => {
                let now_ns = self.now_ns;
                let is_due = self.agent_mut(&host).is_some_and(|agent| {
                    let is_due = agent.number == process && agent.wake_ns == now_ns;
                    if is_due {
                        agent.wake_ns = u64::MAX;
                    }
                    is_due
                });
                if is_due {
                    self.input(&host, Input::Wake);
                }
            }
            Happening::Keeper(host, boot) => self.keeper_looks(&host, boot),
            Happening::Datagram { to, from, datagram } => {
                let received = self.hosts[&to].read(self.now_ns);
                if let Some(received) = received {
                    self.input(&to, Input::Datagram { from, path: 0, datagram, received });
                }
            }
            Happening::Message { to, from, message } => self.input(&to, Input::Message { from, message }),
            Happening::Link { to, from, agents } => {
                let now = (self.process_of(&to), self.process_of(&from));
                if now == (Some(agents.0), Some(agents.1)) {
                    self.input(&to, Input::Link { peer: from, up: true });
                }
            }
            Happening::Flushed { host, process, write } => self.flushed(&host, process, *write),
            Happening::WorkEnded { host, process, id } => self.work_ended(&host, process, id),
            Happening::WatchdogLooks(host, boot) => self.watchdog_looks(&host, boot),
            Happening::Fence(happening) => self.fence_happens(happening),
        }
    }

    pub(super) fn process_of(&self, host: &HostName) -> Option<u64> {
        Some(self.hosts.get(host)?.boot.as_ref()?.agent.as_ref()?.number)
    }

    fn boot(&mut self, name: &HostName) {
        let id = BootId(self.random.stamp());
        let now_ns = self.now_ns;
        let host = self.hosts.get_mut(name).expect("a host");
        if host.boot.is_some() {
            return;
        }
        host.boots += 1;
        let number = host.boots;
        let clock = Clock::new(now_ns, host.spec.rate_ppm);
        host.boot = Some(Boot { id, clock, keeper: None, agent: None, petted_ns: None, number });
        let instance = KeeperInstance(self.random.stamp());
        let timing = self.founded.timing.clone();
        self.hosts.get_mut(name).expect("a host").start_keeper(instance, &timing);
        self.at(now_ns + BOOT_NS, Happening::Keeper(name.clone(), number));
        self.at(now_ns + BOOT_NS, Happening::StartAgent(name.clone(), number));
    }

    fn begin_agent(&mut self, name: &HostName, boot: u64) {
        let instance = AgentInstance(self.random.stamp());
        let founded = self.founded.clone();
        let now_ns = self.now_ns;
        let host = self.hosts.get_mut(name).expect("a host");
        let is_current = host.boot.as_ref().is_some_and(|now| now.number == boot && now.agent.is_none());
        let Some(moment) = host.read(now_ns).filter(|_| is_current) else { return };
        host.start_agent(Now { moment, wall_ms: now_ns / 1_000_000 }, instance, &founded);
        self.note(Some(name), "agent started".into());
        let peers: Vec<HostName> = self.hosts.keys().filter(|peer| *peer != name).cloned().collect();
        for peer in peers {
            self.connect(name, &peer);
            self.connect(&peer, name);
        }
        if let Some(page) = self.page_of(name) {
            self.input(name, Input::Keeper(page));
        }
        self.input(name, Input::Wake);
    }

    fn page_of(&self, name: &HostName) -> Option<crate::engine::KeeperPage> {
        Some(self.hosts.get(name)?.boot.as_ref()?.keeper.as_ref()?.page())
    }

    /// The stream connection comes up a handshake later, if both ends still live then.
    fn connect(&mut self, from: &HostName, to: &HostName) {
        let link = *self.network.link(from, to);
        let back = self.network.link(to, from).is_cut;
        let (Some(theirs), Some(ours)) = (self.process_of(to), self.process_of(from)) else { return };
        if !link.is_cut && !back {
            let at = self.now_ns + nanos(link.delay * HANDSHAKE);
            self.at(at, Happening::Link { to: to.clone(), from: from.clone(), agents: (theirs, ours) });
        }
    }

    fn keeper_looks(&mut self, name: &HostName, boot: u64) {
        let now_ns = self.now_ns;
        let period = nanos(self.founded.timing.keeper_period);
        let host = self.hosts.get_mut(name).expect("a host");
        let Some(now) = host.boot.as_mut().filter(|now| now.number == boot) else { return };
        let Some(keeper) = now.keeper.as_mut() else { return };
        let before = keeper.page();
        let clock = now.clock;
        let is_empty = host.places.values().all(|place| place.running.is_none());
        let looked = keeper.look(|| clock.read(now_ns), is_empty);
        let after = keeper.page();
        if looked.petted {
            now.petted_ns = Some(now_ns);
        }
        if looked.kill {
            for place in host.places.values_mut() {
                place.running = None;
                place.mirror = None;
            }
        }
        let watchdog = now.petted_ns;
        if looked.kill && !is_empty {
            self.note(Some(name), "keeper killed the protected slice".into());
        }
        self.write(name);
        self.at(now_ns + period, Happening::Keeper(name.clone(), boot));
        if let Some(petted) = watchdog {
            // W is the worst the dog takes; it bites at nine tenths of it.
            let bite = petted + nanos(self.founded.timing.watchdog_worst) * 9 / 10;
            self.at(bite, Happening::WatchdogLooks(name.clone(), boot));
        }
        if before.state != after.state {
            self.note(Some(name), format!("keeper {:?} -> {:?} ({})", before.state, after.state, after.because));
        }
        if before != after {
            self.input(name, Input::Keeper(after));
        }
    }

    /// Whatever runs on a host writes, once: to both copies where it is mirrored, not at all while its mirror is away.
    fn write(&mut self, name: &HostName) {
        let running: Vec<(GroupName, Epoch, Option<HostName>)> = self.hosts[name]
            .places
            .iter()
            .filter_map(|(group, place)| Some((group.clone(), place.running?, place.mirror.clone())))
            .collect();
        for (group, epoch, standby) in running {
            if let Some(standby) = &standby {
                if !self.reaches_export(name, &group, (epoch, standby)) {
                    continue;
                }
                self.copy(name, standby, &group, 1);
            }
            let volume = self.hosts.get_mut(name).and_then(|host| host.places.get_mut(&group)?.volume.as_mut());
            volume.into_iter().for_each(|volume| volume.writes += 1);
        }
    }

    /// Gives the standby what the owner has, and `more` writes under way.
    fn copy(&mut self, owner: &HostName, standby: &HostName, group: &GroupName, more: u64) {
        let has = self.hosts[owner].places.get(group).and_then(|place| place.volume.as_ref()).map(|has| has.writes);
        let copy = self.hosts.get_mut(standby).and_then(|host| host.places.get_mut(group)?.volume.as_mut());
        if let (Some(has), Some(copy)) = (has, copy) {
            copy.writes = has + more;
        }
    }

    fn watchdog_looks(&mut self, name: &HostName, boot: u64) {
        let limit = nanos(self.founded.timing.watchdog_worst) * 9 / 10;
        let host = self.hosts.get_mut(name).expect("a host");
        let Some(now) = host.boot.as_ref().filter(|now| now.number == boot) else { return };
        if now.petted_ns.is_some_and(|petted| self.now_ns >= petted + limit) {
            self.note(Some(name), "watchdog reset".into());
            self.power_off(name);
            self.power_on(name);
        }
    }

    fn flushed(&mut self, name: &HostName, process: u64, write: Write) {
        let host = self.hosts.get_mut(name).expect("a host");
        let Some(agent) = host.boot.as_mut().and_then(|boot| boot.agent.as_mut()) else { return };
        let Some(store) = agent.store.as_mut().filter(|_| agent.number == process) else { return };
        let persisted = store.persist(vec![write]).expect("the played disk works");
        for persisted in persisted {
            self.input(name, Input::Persisted(Box::new(persisted)));
        }
    }

    /// Hands an input to a host's engine, if it runs, and performs what comes of it.
    pub(super) fn input(&mut self, name: &HostName, input: Input) {
        let now_ns = self.now_ns;
        let Some(host) = self.hosts.get_mut(name) else { return };
        let Some(moment) = host.read(now_ns) else { return };
        let Some(boot) = host.boot.as_mut() else { return };
        let clock = boot.clock;
        let Some(agent) = boot.agent.as_mut() else { return };
        let process = agent.number;
        let effects = agent.engine.step(Now { moment, wall_ms: now_ns / 1_000_000 }, input);
        let deadline = agent.engine.deadline();
        for effect in effects {
            self.perform(name, process, effect);
        }
        if let Some(deadline) = deadline {
            let at = clock.real_at(deadline).max(now_ns + 1_000);
            if let Some(agent) = self.agent_mut(name).filter(|agent| agent.number == process && at < agent.wake_ns) {
                agent.wake_ns = at;
                self.at(at, Happening::Wake(name.clone(), process));
            }
        }
    }

    /// dispatcher: one arm an effect.
    fn perform(&mut self, name: &HostName, process: u64, effect: Effect) {
        let now_ns = self.now_ns;
        match effect {
            Effect::Datagram { to, datagram } => {
                if let Some(at) = self.network.datagram(now_ns, (name, &to), &mut self.random) {
                    self.at(at, Happening::Datagram { to, from: name.clone(), datagram });
                }
            }
            Effect::Message { to, message } => {
                if let Some(at) = self.network.message(now_ns, (name, &to), &mut self.random) {
                    self.at(at, Happening::Message { to, from: name.clone(), message });
                }
            }
            Effect::Persist(write) => {
                self.at(now_ns + FLUSH_NS, Happening::Flushed { host: name.clone(), process, write });
            }
            Effect::Keeper(order) => {
                let keeper = self.hosts.get_mut(name).and_then(|host| host.boot.as_mut()?.keeper.as_mut());
                if let Some(keeper) = keeper {
                    keeper.write(order);
                }
            }
            Effect::Work { id, group, work, .. } => {
                let span = Place::span(&work);
                if let Some(agent) = self.agent_mut(name) {
                    agent.work.insert(id, (group, work));
                }
                self.at(now_ns + nanos(span), Happening::WorkEnded { host: name.clone(), process, id });
            }
            Effect::Overtaken { group } => {
                if let Some(agent) = self.agent_mut(name) {
                    agent.work.retain(|_, (of, _)| *of != group);
                }
            }
            Effect::Answer { ticket, answer } => {
                self.answers.insert(ticket, *answer);
            }
            Effect::Event(event) => self.note(Some(name), render(&event)),
            Effect::Halt { because } => {
                self.note(Some(name), format!("halt: {because}"));
                self.kill_agent(name);
            }
            Effect::Fence(order) => self.fence(name, process, *order),
            Effect::OutwaitFence { task, .. } => self.end_fencing(name, process, (task, String::new())),
            Effect::CancelFence { task, because, .. } => self.end_fencing(name, process, (task, because)),
            Effect::FenceReadmitted { .. } => {}
            Effect::Spec(spec) => self.fence_spec(name, process, &spec),
        }
    }

    fn agent_mut(&mut self, name: &HostName) -> Option<&mut super::host::Agent> {
        self.hosts.get_mut(name)?.boot.as_mut()?.agent.as_mut()
    }

    fn work_ended(&mut self, name: &HostName, process: u64, id: WorkId) {
        if self.process_of(name) != Some(process) {
            return;
        }
        let Some((group, work)) = self.agent_mut(name).and_then(|agent| agent.work.remove(&id)) else { return };
        let report = match &work {
            Work::Mirror { epoch, standby, .. } => self.mirror(name, &group, (*epoch, standby)),
            Work::Start { .. } if !self.may_run(name) => Report::Failed { because: "the slice is frozen".into() },
            _ => {
                let host = self.hosts.get_mut(name).expect("a host");
                host.places.entry(group.clone()).or_default().perform(&work)
            }
        };
        self.input(name, Input::Work { id, report });
    }

    /// Whether the keeper lets anything run now.
    fn may_run(&self, name: &HostName) -> bool {
        let page = self.page_of(name);
        page.is_some_and(|page| page.state == crate::heartbeat::KeeperState::Armed)
    }

    /// A mirror comes up if the standby's copy is open to this owner and epoch and can be reached.
    fn mirror(&mut self, owner: &HostName, group: &GroupName, to: (Epoch, &HostName)) -> Report {
        let (epoch, standby) = to;
        if !self.reaches_export(owner, group, to) {
            return Report::Failed { because: format!("the export at {standby} can't be reached for epoch {epoch}") };
        }
        self.copy(owner, standby, group, 0);
        let place = self.hosts.get_mut(owner).expect("a host").places.entry(group.clone()).or_default();
        place.mirror = Some(standby.clone());
        Report::Done { detail: "mirrored".into() }
    }

    fn reaches_export(&mut self, owner: &HostName, group: &GroupName, to: (Epoch, &HostName)) -> bool {
        let (epoch, standby) = to;
        let reachable = !self.network.link(owner, standby).is_cut && !self.network.link(standby, owner).is_cut;
        let wanted = Some((epoch, owner.clone()));
        let open = self.hosts.get(standby).filter(|host| host.is_powered()).and_then(|host| host.places.get(group));
        reachable && open.is_some_and(|place| place.volume.as_ref().is_some_and(|volume| volume.export == wanted))
    }

    /// Tells owners whose mirror lost its peer.
    fn mirrors_look(&mut self) {
        let mut away = Vec::new();
        for (name, host) in &self.hosts {
            for (group, place) in &host.places {
                if let Some(standby) = place.mirror.clone().filter(|_| place.running.is_some()) {
                    away.push((name.clone(), group.clone(), standby));
                }
            }
        }
        for (owner, group, standby) in away {
            let cut = self.network.link(&owner, &standby).is_cut || self.network.link(&standby, &owner).is_cut;
            if cut || !self.hosts[&standby].is_powered() {
                let sight = Sight::MirrorAway { since: Duration::ZERO };
                self.input(&owner, Input::Seen { group, sight });
            }
        }
    }
}

/// A trace line: what happened, without what differs from run to run.
fn render(event: &Event) -> String {
    serde_json::to_string(event).unwrap_or_else(|_| event.name().to_owned())
}
