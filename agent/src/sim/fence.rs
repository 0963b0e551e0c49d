//! Fence devices of the simulated world: a management processor beside each host that reads and cuts its power, asked
//! by the production session over a network of its own.
//!
//! What is played is the driver and the device. A call that was begun takes effect whatever becomes of the agent that
//! made it: an order on the wire can't be called back.

use super::network::nanos;
use super::world::{Happening, World};
use crate::config::{ClusterSpec, fencing_config};
use crate::engine::{Fenced, Input, Prospect, SeenRunning};
use fencing::Verdict;
use fencing::facts::Proves;
use fencing::moment::Moment;
use fencing::name::DeviceName;
use fencing::plan::Plan;
use fencing::reading::{Observed, Power, Reading, Standing};
use fencing::session::{self, Act, Answer, CallId, Session};
use fencing::target::ReportedIdentity;
use fencing::topology::Topology;
use fencing::trouble::Trouble;
use quorum::id::{HostName, TaskId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A call over the management network and back.
const CALL: Duration = Duration::from_millis(120);
/// From an engine's order to the executor.
const HAND_OVER_NS: u64 = 1_000;
/// How often an agent reads every device.
const READ_EVERY: Duration = Duration::from_secs(10);
/// What a power cycle through the played processor takes at worst: two readings a second apart, and the switching.
const TAKES_MS: u32 = 1_600;

/// Something that happens between an executor and a device.
pub(super) enum FenceHappening {
    /// The executor gets an order.
    Ordered { at: Executing, order: Box<fencing::FenceOrder> },
    /// The executor is told to end a task.
    Ended { at: Executing, because: String },
    /// A call reaches the device; its answer goes back.
    Called { at: Executing, call: CallId, device: DeviceName, act: Act },
    /// An answer arrives.
    Answered { at: Executing, call: CallId, answer: Answer },
    /// A session's own deadline.
    Tick(Executing),
    /// An agent reads every device.
    Reads { host: HostName, process: u64 },
}

/// An executor's process at work on a task.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Executing {
    host: HostName,
    process: u64,
    task: TaskId,
}

/// All devices, and the sessions that use them.
#[derive(Default)]
pub struct FenceBench {
    topology: Topology,
    sessions: BTreeMap<Executing, Session>,
    reading: BTreeSet<(HostName, u64)>,
    /// Executor and target between which the management network is cut.
    pub cut: BTreeSet<(HostName, HostName)>,
    /// What hypervisors say of whether a VM that is off stays so.
    pub standing: Standing,
    /// Processors that take an order and don't carry it out.
    pub stubborn: BTreeSet<HostName>,
}

impl World {
    /// The spec that an agent took over: devices are built from it as the daemon does.
    pub(super) fn fence_spec(&mut self, host: &HostName, process: u64, spec: &ClusterSpec) {
        match fencing_config(spec).build() {
            Ok(built) => self.fences.topology = built.topology,
            Err(problems) => self.note(Some(host), format!("fencing configuration refused: {problems:?}")),
        }
        if self.fences.reading.insert((host.clone(), process)) {
            let reads = FenceHappening::Reads { host: host.clone(), process };
            self.at(self.now_ns + nanos(CALL), Happening::Fence(reads));
        }
    }

    /// An executor begins a task: in a moment, because the step that ordered it has more to be performed.
    pub(super) fn fence(&mut self, host: &HostName, process: u64, order: fencing::FenceOrder) {
        let at = Executing { host: host.clone(), process, task: TaskId(order.task) };
        self.note(Some(host), format!("fencing {} he {} at {}", order.target, order.he, order.stamp));
        let ordered = FenceHappening::Ordered { at, order: Box::new(order) };
        self.at(self.now_ns + HAND_OVER_NS, Happening::Fence(ordered));
    }

    /// An executor is told to end a task.
    pub(super) fn end_fencing(&mut self, host: &HostName, process: u64, (task, because): (TaskId, String)) {
        let at = Executing { host: host.clone(), process, task };
        self.at(self.now_ns + HAND_OVER_NS, Happening::Fence(FenceHappening::Ended { at, because }));
    }

    fn begin_fencing(&mut self, at: &Executing, order: &fencing::FenceOrder) {
        match Plan::of(&self.fences.topology, order) {
            Ok(plan) => {
                let now = self.fence_moment();
                self.fences.sessions.insert(at.clone(), Session::new(plan, now));
                self.drive(at, session::Input::Tick);
            }
            Err(no_plan) => {
                let because = no_plan.to_string();
                self.say(at, Fenced::Unproven { because });
                self.say(at, Fenced::Finished);
            }
        }
    }

    /// Tells an executor's engine, if it is still that process.
    fn say(&mut self, at: &Executing, fenced: Fenced) {
        if self.process_of(&at.host) == Some(at.process) {
            self.tell(&at.host, Input::Fenced { task: at.task, fenced });
        }
    }

    pub(super) fn fence_happens(&mut self, happening: FenceHappening) {
        match happening {
            FenceHappening::Ordered { at, order } => self.begin_fencing(&at, &order),
            FenceHappening::Ended { at, because } if self.fences.sessions.contains_key(&at) => {
                self.drive(&at, session::Input::Cancelled { because });
            }
            FenceHappening::Ended { at, .. } => self.say(&at, Fenced::Finished),
            FenceHappening::Called { at, call, device, act } => {
                let answer = self.called(&at, &device, act);
                let answered = FenceHappening::Answered { at, call, answer };
                self.at(self.now_ns + nanos(CALL / 2), Happening::Fence(answered));
            }
            FenceHappening::Answered { at, call, answer } => self.drive(&at, session::Input::Answered { call, answer }),
            FenceHappening::Tick(at) => self.drive(&at, session::Input::Tick),
            FenceHappening::Reads { host, process } => self.read_devices(host, process),
        }
    }

    fn fence_moment(&self) -> Moment {
        Moment::at(Duration::from_nanos(self.now_ns))
    }

    /// Steps a session and does what it wants; forgets it with the process that drove it.
    fn drive(&mut self, at: &Executing, input: session::Input) {
        if self.process_of(&at.host) != Some(at.process) {
            self.fences.sessions.remove(at);
            return;
        }
        let now = self.fence_moment();
        let Some(session) = self.fences.sessions.get_mut(at) else { return };
        let mut effects = Vec::new();
        session.step(now, input, &mut effects);
        let (is_finished, deadline) = (session.is_finished(), session.deadline());
        for effect in effects {
            match effect {
                session::Effect::Call { call, device, act, limit: _ } => self.call(at, call, (device, act)),
                session::Effect::Stop { .. } | session::Effect::Note(_) => {}
                session::Effect::Conclude(verdict) => {
                    self.note(Some(&at.host), format!("fencing concluded: {verdict}"));
                    let fenced = match verdict {
                        Verdict::Proven { evidence } => Fenced::Proven(Box::new(evidence)),
                        Verdict::Unproven(why) => Fenced::Unproven { because: why.to_string() },
                    };
                    self.say(at, fenced);
                }
            }
        }
        if is_finished {
            self.fences.sessions.remove(at);
            self.say(at, Fenced::Finished);
        } else if let Some(deadline) = deadline {
            let at_ns = nanos(deadline.since_start()).max(self.now_ns + 1_000);
            self.at(at_ns, Happening::Fence(FenceHappening::Tick(at.clone())));
        }
    }

    /// A call leaves the executor, if it still may be made at this very moment.
    fn call(&mut self, at: &Executing, call: CallId, (device, act): (DeviceName, Act)) {
        let host = &self.hosts[&at.host];
        let permit = host.engine().map_or(Err("no agent".to_owned()), |engine| engine.fence_permit(at.task));
        let now = host.read(self.now_ns).unwrap_or_default();
        let permit = permit.and_then(|until| {
            if now.either_reached(until) { Err("this host's lease ran out".to_owned()) } else { Ok(()) }
        });
        if act == Act::Off && permit.is_ok() {
            self.shoots(at);
        }
        let happening = match (act, permit) {
            (Act::Off, Err(because)) => {
                let answer = Answer::Off(Err(Trouble::Overtaken { because }));
                FenceHappening::Answered { at: at.clone(), call, answer }
            }
            (Act::Off | Act::Read, _) => FenceHappening::Called { at: at.clone(), call, device, act },
        };
        self.at(self.now_ns + nanos(CALL / 2), Happening::Fence(happening));
    }

    /// An executor calls a device: by what it has applied itself, the task isn't called off, and its target is lost (I13).
    fn shoots(&mut self, at: &Executing) {
        let Some(ledger) = self.hosts[&at.host].engine().map(crate::engine::Engine::ledger) else { return };
        let why = match ledger.tasks().get(&at.task) {
            None => Some("which its log doesn't know".to_owned()),
            Some(task) if task.cancelled.is_some() => Some("which its log calls off".to_owned()),
            Some(task) if !ledger.is_ended(&task.of) => Some(format!("whose target {} its log has admitted", task.of)),
            Some(_) => None,
        };
        if let Some(why) = why {
            self.oracle.breaks("I13", format!("{} calls a device for task {}, {why}", at.host, at.task));
        }
    }

    /// A call has reached the device.
    fn called(&mut self, at: &Executing, device: &DeviceName, act: Act) -> Answer {
        let unreachable = || Trouble::Unreachable { because: "no route".to_owned() };
        let target = self.target_of(device);
        let target = target.filter(|target| !self.fences.cut.contains(&(at.host.clone(), target.clone())));
        match (act, target) {
            (Act::Read, None) => Answer::Read(Err(unreachable())),
            (Act::Off, None) => Answer::Off(Err(unreachable())),
            (Act::Read, Some(target)) => {
                let (asked, answered) = (self.fence_moment(), self.fence_moment());
                let power = if self.hosts[&target].is_powered() { Power::On } else { Power::Off };
                let proves = self.fences.topology.devices().get(device).map(|facts| &facts.proves);
                let observed = match proves {
                    Some(Proves::Hypervisor(_)) => Observed::Vm { power, standing: self.fences.standing.clone() },
                    _ => Observed::Power(power),
                };
                Answer::Read(Ok(Reading { asked, answered, observed, identity: ReportedIdentity::none(), lab: false }))
            }
            (Act::Off, Some(target)) => {
                self.note(Some(&at.host), format!("{device} told to switch {target} off"));
                if !self.fences.stubborn.contains(&target) {
                    self.power_off(&target);
                }
                Answer::Off(Ok(()))
            }
        }
    }

    fn target_of(&self, device: &DeviceName) -> Option<HostName> {
        let uses = |fenced: &&fencing::topology::Fenced| fenced.levels.iter().flatten().any(|name| name == device);
        let fenced = self.fences.topology.targets().values().find(uses)?;
        HostName::new(fenced.target.host.as_str()).ok()
    }

    /// The scheduled readings of one agent, all at once.
    fn read_devices(&mut self, host: HostName, process: u64) {
        if self.process_of(&host) != Some(process) {
            self.fences.reading.remove(&(host, process));
            return;
        }
        let mut prospects = Vec::new();
        for fenced in self.fences.topology.targets().values() {
            let Ok(target) = HostName::new(fenced.target.host.as_str()) else { continue };
            let proves = |name: &DeviceName| self.fences.topology.devices().get(name).map(|facts| &facts.proves);
            let named = || fenced.levels.iter().flatten();
            if named().all(|name| matches!(proves(name), None | Some(Proves::Elsewhere(_)))) {
                continue;
            }
            let device = named().find(|name| proves(name).is_some_and(Proves::is_evidence));
            let Some(device) = device else {
                let (proven_ms_ago, takes_ms, running) = (None, None, None);
                prospects.push(Prospect { host: target, devices: 0, proven_ms_ago, takes_ms, running });
                continue;
            };
            let reached = target != host && !self.fences.cut.contains(&(host.clone(), target.clone()));
            let is_on = reached && self.hosts[&target].is_powered();
            prospects.push(Prospect {
                host: target,
                devices: u32::from(reached),
                proven_ms_ago: reached.then_some(0),
                takes_ms: reached.then_some(TAKES_MS),
                running: is_on.then(|| SeenRunning { device: device.to_string(), ms_ago: 0 }),
            });
        }
        self.tell(&host, Input::Prospects(prospects));
        let reads = FenceHappening::Reads { host, process };
        self.at(self.now_ns + nanos(READ_EVERY), Happening::Fence(reads));
    }
}
