//! From an input to a host's engine, to its effects, to what they bring back.

use super::host::{Agent, SimHost};
use super::network::nanos;
use super::place::{Place, WorkFault};
use super::verbs::OF_THE_FUTURE;
use super::watch::Point;
use super::world::{Happening, Trace, What, World};
use crate::engine::{Effect, Engine, Input, Now, Report, Work, WorkId};
use crate::heartbeat::Datagram;
use quorum::id::{Epoch, GroupName, HostName};
use quorum::lease;
use quorum::mutants;
use quorum::replica::{Entry, EntryKind, SnapshotWrite, Write};

/// How long the played disk takes to flush.
const FLUSH_NS: u64 = 1_000_000;
/// Work that hangs is looked at again after this.
const HANGS_NS: u64 = 1_000_000_000;

impl World {
    /// Hands an input to a host's engine, now or when its process goes on.
    pub(super) fn tell(&mut self, name: &HostName, input: Input) {
        let now_ns = self.now_ns;
        let Some(agent) = self.agent_mut(name) else { return };
        if agent.paused_until > now_ns {
            let (until, process) = (agent.paused_until, agent.number);
            self.at(until, Happening::Input { host: name.clone(), process, input: Box::new(input) });
        } else {
            self.input(name, input);
        }
    }

    pub(super) fn wake(&mut self, name: &HostName, process: u64) {
        let now_ns = self.now_ns;
        let is_due = self.agent_mut(name).is_some_and(|agent| {
            // A process that was stopped wakes later than it asked for.
            let is_due = agent.number == process && agent.wake_ns <= now_ns;
            if is_due {
                agent.wake_ns = u64::MAX;
            }
            is_due
        });
        if is_due {
            self.input(name, Input::Wake);
        }
    }

    /// Hands an input to a host's engine, if it runs, and performs what comes of it.
    pub(super) fn input(&mut self, name: &HostName, input: Input) {
        let now_ns = self.now_ns;
        let Some(host) = self.hosts.get_mut(name) else { return };
        let Some(moment) = host.read(now_ns) else { return };
        let wall_ms = host.wall_ms(now_ns);
        if let Some(span) = host.stops.remove(&Point::AgentReads) {
            self.pause_agent(name, nanos(span));
            self.reached(Point::AgentReads);
            self.tell(name, input);
            return;
        }
        let Some(boot) = host.boot.as_mut() else { return };
        let clock = boot.clock;
        let Some(agent) = boot.agent.as_mut() else { return };
        let process = agent.number;
        if let Input::Operator { ticket, request, .. } = &input {
            self.oracle.asked(*ticket, request, agent.engine.ledger());
        }
        let effects = agent.engine.step(Now { moment, wall_ms }, input);
        let deadline = agent.engine.deadline();
        if let Some(deadline) = deadline {
            let at = clock.real_at(deadline).max(now_ns + 1_000);
            if at < agent.wake_ns {
                agent.wake_ns = at;
                self.at(at, Happening::Wake(name.clone(), process));
            }
        }
        let effects = self.unless_stopped_before(name, process, effects);
        for effect in effects {
            self.perform(name, process, effect);
        }
    }

    /// A process that is to be stopped between a decision and its effects performs them when it goes on.
    fn unless_stopped_before(&mut self, name: &HostName, process: u64, effects: Vec<Effect>) -> Vec<Effect> {
        let acts = |effect: &Effect| matches!(effect, Effect::Work { .. } | Effect::Keeper(_) | Effect::Persist(_));
        let host = self.hosts.get_mut(name).expect("a host");
        if host.stops.is_empty() || !effects.iter().any(acts) {
            return effects;
        }
        let Some(span) = host.stops.remove(&Point::AgentActs) else { return effects };
        self.pause_agent(name, nanos(span));
        self.reached(Point::AgentActs);
        self.at(self.now_ns + nanos(span), Happening::Effects { host: name.clone(), process, effects });
        Vec::new()
    }

    /// dispatcher: one arm an effect.
    pub(super) fn perform(&mut self, name: &HostName, process: u64, effect: Effect) {
        let now_ns = self.now_ns;
        match effect {
            Effect::Datagram { to, datagram } => self.send_datagram(name, to, datagram),
            Effect::Datagrams { to, datagram } => {
                for to in to {
                    self.send_datagram(name, to, datagram.clone());
                }
            }
            Effect::Message { to, message } => {
                if let Some(at) = self.network.message(now_ns, (name, &to), &mut self.random) {
                    self.at(at, Happening::Message { to, from: name.clone(), message });
                }
            }
            Effect::Messages { to, message } => {
                for to in to {
                    self.perform(name, process, Effect::Message { to, message: Box::new(message.as_ref().clone()) });
                }
            }
            Effect::Persist(write) => {
                // A disk that works again doesn't overtake what it was given before.
                let host = self.hosts.get_mut(name).expect("a host");
                let at = (host.stalled_until.max(now_ns) + FLUSH_NS).max(host.flushes_until);
                host.flushes_until = at;
                let store = host.boot.as_ref().and_then(|boot| Some(boot.agent.as_ref()?.store_number));
                let process = (process, store.unwrap_or_default());
                self.at(at, Happening::Flushed { host: name.clone(), process, write });
            }
            Effect::Remember { voter, seen } => self.remember(name, voter, seen),
            Effect::Join { voter, era } => {
                self.at(now_ns + FLUSH_NS, Happening::Joins { host: name.clone(), process, voter, era });
            }
            Effect::VoteEnded { voter, because } => self.vote_ended(name, voter, because),
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
            Effect::Overtaken { group } => self.overtaken(name, &group),
            Effect::Answer { ticket, answer } => {
                self.oracle.answered(ticket, &answer);
                self.answers.insert(ticket, *answer);
            }
            Effect::Event(event) => {
                let ledger = self.hosts.get(name).and_then(SimHost::engine).map(Engine::ledger);
                self.oracle.told(name, &event, (ledger, now_ns));
                if self.is_traced {
                    self.trace.push(Trace { at_ns: now_ns, host: Some(name.clone()), what: What::Told(event) });
                }
            }
            Effect::Halt { because } => {
                self.note(Some(name), format!("halt: {because}"));
                self.agent_failed(name);
            }
            Effect::Fence(order) => self.fence(name, process, *order),
            Effect::OutwaitFence { task, .. } => self.end_fencing(name, process, (task, String::new())),
            Effect::CancelFence { task, because, .. } => self.end_fencing(name, process, (task, because)),
            Effect::FenceReadmitted { .. } => {}
            Effect::Spec(spec) => self.fence_spec(name, process, &spec),
        }
    }

    fn send_datagram(&mut self, name: &HostName, to: HostName, datagram: Box<Datagram>) {
        if let Datagram::Lease(lease::Answer::Grant(grant)) = &*datagram {
            let ledger = self.hosts[name].engine().map(|engine| engine.ledger());
            self.oracle.granted_lease(grant, ledger, self.now_ns);
        }
        let is_padded = matches!(&*datagram, Datagram::Beat(beat) if !beat.padding.is_empty());
        if is_padded && self.network.link(name, &to).is_narrow {
            return;
        }
        let mut arrivals = self.network.datagram(self.now_ns, (name, &to), &mut self.random);
        let Some(first) = arrivals.pop() else { return };
        for at in arrivals {
            let (datagram, to, from) = (datagram.clone(), to.clone(), name.clone());
            self.at(at, Happening::Datagram { to, from, datagram, received: None });
        }
        self.at(first, Happening::Datagram { to, from: name.clone(), datagram, received: None });
    }

    pub(super) fn agent_mut(&mut self, name: &HostName) -> Option<&mut Agent> {
        self.hosts.get_mut(name)?.boot.as_mut()?.agent.as_mut()
    }

    pub(super) fn flushed(&mut self, name: &HostName, process: (u64, u64), write: Write) {
        let installed = match write.snapshot() {
            Some(SnapshotWrite::Install(snapshot)) => Some(snapshot.meta.last.index.0),
            Some(SnapshotWrite::Compact { .. }) | None => None,
        };
        let is_unknown =
            |entry: &Entry| matches!(&entry.kind, EntryKind::Normal(data) if data.as_slice() == OF_THE_FUTURE);
        let unknown = write.entries().iter().find(|entry| is_unknown(entry)).map(|entry| entry.index.0);
        let last = write.entries().last().map(|entry| entry.index.0).or(installed);
        let is_current = |agent: &&mut Agent| (agent.number, agent.store_number) == process;
        let Some(agent) = self.agent_mut(name).filter(is_current) else { return };
        let Some(store) = agent.store.as_mut() else { return };
        match store.persist(write) {
            Ok(persisted) => {
                if let Some(last) = last {
                    self.oracle.persisted(name, last);
                }
                if let Some(unknown) = unknown {
                    self.oracle.cannot_read(name, unknown);
                }
                for persisted in persisted {
                    self.input(name, Input::Persisted(Box::new(persisted)));
                }
            }
            Err(error) => self.disk_failed(name, &error.to_string()),
        }
    }

    /// A piece of work is dropped: what it began may have happened already, and nothing of it is reported.
    fn overtaken(&mut self, name: &HostName, group: &GroupName) {
        let Some(agent) = self.agent_mut(name) else { return };
        let dropped: Vec<WorkId> = agent.work.iter().filter(|(_, (of, _))| of == group).map(|(id, _)| *id).collect();
        for id in dropped {
            let Some((_, work)) = self.agent_mut(name).and_then(|agent| agent.work.remove(&id)) else { continue };
            if self.random.chance(500) {
                let _unreported = self.work_done(name, group, &work);
            }
        }
    }

    pub(super) fn work_ended(&mut self, name: &HostName, process: u64, id: WorkId) {
        if self.process_of(name) != Some(process) {
            return;
        }
        let Some((group, work)) = self.agent_mut(name).and_then(|agent| agent.work.remove(&id)) else { return };
        let report = match self.place_mut(name, &group).strikes(&work) {
            Some(WorkFault::Hangs) => {
                if let Some(agent) = self.agent_mut(name) {
                    agent.work.insert(id, (group, work));
                }
                self.at(self.now_ns + HANGS_NS, Happening::WorkEnded { host: name.clone(), process, id });
                return;
            }
            Some(WorkFault::Fails(_)) => Report::Failed { because: "a fault of the played driver".into() },
            None => self.work_done(name, &group, &work),
        };
        self.input(name, Input::Work { id, report });
    }

    fn work_done(&mut self, name: &HostName, group: &GroupName, work: &Work) -> Report {
        self.flow();
        let report = match work {
            Work::Mirror { epoch, standby, counts, waits } => {
                self.mirror(name, group, (*epoch, standby, *counts, *waits))
            }
            Work::Start { .. } if self.hosts[name].boot.as_ref().is_none_or(|boot| boot.slice_frozen) => {
                Report::Failed { because: "the slice is frozen".into() }
            }
            Work::Untie { .. } => self.untie(name, group, work),
            Work::Stop { .. } => {
                // What was answered is on the mirror only as long as the mirror follows.
                let place = self.place_mut(name, group);
                let mirrored = place.running.zip(place.mirror.clone());
                let follows = mirrored.is_some_and(|(epoch, standby)| self.takes(name, &standby, (group, epoch)));
                match self.place_mut(name, group).perform(work) {
                    Report::Stopped { untouched, .. } => Report::Stopped { is_drained: follows, untouched },
                    other => other,
                }
            }
            _ => self.place_mut(name, group).perform(work),
        };
        if matches!(work, Work::Promote { .. } | Work::CloseExport | Work::OpenExport { .. } | Work::Mirror { .. }) {
            self.mirrors_look();
        }
        report
    }

    /// Back into the cgroup of the host epoch that is armed now; there is none while the slice is frozen.
    fn untie(&mut self, name: &HostName, group: &GroupName, work: &Work) -> Report {
        let boot = self.hosts[name].boot.as_ref().filter(|boot| !boot.slice_frozen);
        let armed = boot.and_then(|boot| boot.keeper.as_ref()).and_then(super::keeper::SimKeeper::armed_epoch);
        let Some(he) = armed else { return Report::Failed { because: "no host epoch is armed".into() } };
        let place = self.place_mut(name, group);
        place.started_under = place.running.map(|_| he);
        place.perform(work)
    }

    /// A mirror comes up if the standby's copy is open to this owner and epoch and can be reached: from then on it has
    /// what the owner's copy has, and every write waits for it.
    fn mirror(
        &mut self,
        owner: &HostName,
        group: &GroupName,
        (epoch, standby, counts, waits): (Epoch, &HostName, bool, bool),
    ) -> Report {
        let is_there = self.place_mut(owner, group).mirror.as_ref() == Some(standby);
        if counts && !is_there && !mutants::on("data.counted_mirror_begun") {
            return Report::Failed {
                because: format!("the mirror to {standby}, on whose copy the ledger counts, is gone"),
            };
        }
        if !self.takes(owner, standby, (group, epoch)) {
            return Report::Failed { because: format!("the export at {standby} can't be reached for epoch {epoch}") };
        }
        let writes = self.written(owner, group);
        let place = self.place_mut(owner, group);
        if place.running != Some(epoch) {
            return Report::Failed { because: "nothing of this epoch runs here".into() };
        }
        place.mirror = Some(standby.clone());
        place.is_mirror_behind = !waits;
        place.unanswered = false;
        if let Some(volume) = &mut self.place_mut(standby, group).volume {
            // Everything was compared.
            (volume.writes, volume.has_refused) = (writes, false);
        }
        if !waits {
            self.measure_later(owner, group);
        }
        Report::Done { detail: "mirrored".into() }
    }
}
