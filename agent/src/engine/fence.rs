//! Fencing at this agent: taking up the tasks that the leader hands out, and letting go of them (protocol §6).
//!
//! ```text
//! FenceAssign ─► asked ─► FenceTaskStarted applied ─► running ─► finished ─► FenceTaskFinished applied
//!                  │                                    │ ▲
//!                  └ never applied: forgotten           └ ending: called off, or proven otherwise
//! ```
//! Contract: devices are driven only for a task that the log knows, that this very process took up, while this host
//! holds its lease: a majority of voters granted it within L, so a minority never fences (I9). A task that an earlier
//! process of this agent took up is ended, never gone on with. Evidence is proposed first, the end of the work after.
//!
//! Not here: which executor is asked and when a task ends (`fence_lead`), what evidence is (`fencing`), device calls
//! (the driver).

use super::core::Engine;
use super::effect::Effect;
use super::input::Fenced;
use super::message::Message;
use fencing::FenceOrder;
use fencing::request::Stamp;
use quorum::id::{HostName, TaskId};
use quorum::ledger::{Command, FenceOutcome, FenceTask, Incarnation};
use quorum::moment::Moment;
use quorum::mutants;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// The leader is told at least this often what this agent's devices could prove: well within the minute after which
/// a probed path counts no more (protocol §5).
const TELL_EVERY: Duration = Duration::from_secs(5);
/// And no more often than this when it changes.
const TELL_PAUSE: Duration = Duration::from_millis(500);
/// A task that was asked for and isn't started in the log by then is forgotten; the leader asks again.
const ASKED_MAX: Duration = Duration::from_secs(5);

/// What an agent's devices could prove of one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prospect {
    /// The host.
    pub host: HostName,
    /// How many of its devices were read well of late.
    pub devices: u32,
    /// Age of the oldest reading of its quickest level that would prove it powered off and was read well; none if
    /// there is no such level.
    pub proven_ms_ago: Option<u32>,
    /// How long that level takes at worst from the order to the evidence; none if nobody has measured it.
    pub takes_ms: Option<u32>,
    /// The device that showed it running last.
    pub running: Option<SeenRunning>,
}

/// A device that says that a host runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenRunning {
    /// Which.
    pub device: String,
    /// How long ago.
    pub ms_ago: u32,
}

/// The host of a task and where the decision about it stands.
type Whom = (fencing::name::HostName, Stamp);

/// Where a task stands at this agent.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// Its start is proposed.
    Asked(Moment),
    /// Devices are being called for this decision about this host; what came of it so far.
    Running(Whom, Option<FenceOutcome>),
    /// The driver was told to end it; what is said when it has.
    Ending(FenceOutcome),
    /// Nothing of it can reach a device any more.
    Finished(FenceOutcome),
}

/// Fencing at this agent.
#[derive(Debug, Default)]
pub(super) struct FenceDuty {
    /// What the devices could prove, as the driver said last, and when.
    pub(super) prospects: Vec<Prospect>,
    pub(super) prospects_at: Option<Moment>,
    tasks: BTreeMap<TaskId, Stage>,
    told: Option<(HostName, Moment)>,
    is_news: bool,
}

impl FenceDuty {
    pub(super) fn deadline(&self) -> Option<Moment> {
        let (_, at) = self.told.as_ref()?;
        Some(at.plus(if self.is_news { TELL_PAUSE } else { TELL_EVERY }))
    }
}

impl Engine {
    /// What the driver's readings say.
    pub(super) fn on_prospects(&mut self, prospects: Vec<Prospect>) {
        let known = |prospect: &Prospect| {
            let old = self.fence.prospects.iter().find(|old| old.host == prospect.host);
            old.is_some_and(|old| {
                old.devices == prospect.devices && old.takes_ms.is_some() == prospect.takes_ms.is_some()
            })
        };
        let is_news = prospects.len() != self.fence.prospects.len() || !prospects.iter().all(known);
        self.fence.is_news |= is_news;
        self.fence.prospects = prospects;
        self.fence.prospects_at = Some(self.now.moment);
    }

    /// The leader wants this agent to carry out a task.
    pub(super) fn on_fence_assign(&mut self, from: &HostName, task: TaskId) {
        let from_voter = *from == self.me.host || self.vote_of(from).is_some();
        // A task that isn't applied here yet is asked for again by the leader.
        let Some(state) = self.ledger.tasks().get(&task).filter(|_| from_voter) else { return };
        if state.cancelled.is_some() || self.fence.tasks.contains_key(&task) {
            return;
        }
        let host = &state.of.host;
        let because = if *host == self.me.host {
            Some("a host doesn't fence itself".to_owned())
        } else if self.fence.prospects.iter().all(|prospect| prospect.host != *host) {
            Some(format!("no fence device of {host} is driven here"))
        } else {
            self.lease_until().err()
        };
        match because {
            Some(because) => self.decline(from.clone(), task, because),
            None if self.following.barrier_passed(self.ledger.applied()) => {
                self.fence.tasks.insert(task, Stage::Asked(self.now.moment));
                let executor = self.me.host.clone();
                let until = self.now.moment.plus(ASKED_MAX);
                self.propose_until(Command::FenceTaskStarted { task, executor }, Some(until));
            }
            None => {}
        }
    }

    fn decline(&mut self, to: HostName, task: TaskId, because: String) {
        if to == self.me.host {
            self.on_fence_declined(&to, task, &because);
        } else {
            self.effects.push(Effect::Message { to, message: Box::new(Message::FenceDeclined { task, because }) });
        }
    }

    /// Moves each task on by what the log says of it.
    pub(super) fn fence_duties(&mut self) {
        self.tell_prospects();
        let now = self.now.moment;
        let executor = self.me.host.clone();
        let started = |state: &FenceTask| state.executors.get(&executor) == Some(&None);
        let mine: Vec<(TaskId, FenceTask)> =
            self.ledger.tasks().iter().filter(|(_, state)| started(state)).map(|(id, s)| (*id, s.clone())).collect();
        for (task, state) in &mine {
            self.fence_duty(*task, state);
        }
        let is_mine = |task: &TaskId| mine.iter().any(|(id, _)| id == task);
        let dropped: Vec<TaskId> = self.fence.tasks.keys().filter(|task| !is_mine(task)).copied().collect();
        for task in dropped {
            match self.fence.tasks.get(&task).expect("just listed") {
                Stage::Asked(at) if now.held_since(*at) < ASKED_MAX => {}
                // The host is admitted again, or an era began: whatever still runs here is overtaken.
                Stage::Running(whom, _) => {
                    let whom = whom.clone();
                    self.end_fencing(task, whom, (FenceOutcome::Cancelled, "the task is over in the log"));
                }
                Stage::Ending(_) => {}
                Stage::Asked(_) | Stage::Finished(_) => drop(self.fence.tasks.remove(&task)),
            }
        }
    }

    /// One task that this agent has taken up by the log.
    fn fence_duty(&mut self, task: TaskId, state: &FenceTask) {
        let executor = self.me.host.clone();
        match self.fence.tasks.get(&task).cloned() {
            None => {
                if self.following.barrier_passed(self.ledger.applied()) {
                    let because = "the agent that had taken it up was restarted".to_owned();
                    self.fence.tasks.insert(task, Stage::Ending(FenceOutcome::Failed { because }));
                    let (target, stamp) = self.whom_of(state);
                    self.effects.push(Effect::OutwaitFence { task, target, stamp });
                }
            }
            Some(Stage::Asked(_)) => match (&state.cancelled, self.order_of(task, state)) {
                (None, Ok(order)) => {
                    let whom = (order.target.clone(), order.stamp);
                    self.fence.tasks.insert(task, Stage::Running(whom, None));
                    self.effects.push(Effect::Fence(Box::new(order)));
                }
                (None, Err(because)) => {
                    self.fence.tasks.insert(task, Stage::Finished(FenceOutcome::Failed { because }));
                }
                (Some(_), _) => drop(self.fence.tasks.insert(task, Stage::Finished(FenceOutcome::Cancelled))),
            },
            Some(Stage::Running(whom, outcome)) => {
                let called_off = state.cancelled.as_ref().filter(|_| !mutants::on("fence.called_off_goes_on"));
                if let Some((_, because)) = called_off {
                    self.end_fencing(task, whom, (outcome.unwrap_or(FenceOutcome::Cancelled), because));
                }
            }
            Some(Stage::Ending(_)) => {}
            Some(Stage::Finished(outcome)) => {
                self.propose(Command::FenceTaskFinished { task, executor, outcome });
            }
        }
    }

    fn end_fencing(&mut self, task: TaskId, (target, stamp): Whom, (outcome, because): (FenceOutcome, &str)) {
        self.fence.tasks.insert(task, Stage::Ending(outcome));
        self.effects.push(Effect::CancelFence { task, target, stamp, because: because.to_owned() });
    }

    /// A host is admitted again: the executor here is told, so that nothing older can reach it.
    pub(super) fn fence_readmitted(&mut self, of: &Incarnation) {
        let is_driven = self.fence.prospects.iter().any(|prospect| prospect.host == of.host);
        if is_driven && self.following.barrier_passed(self.ledger.applied()) {
            let target = super::fence_lead::fence_host(&of.host);
            self.effects.push(Effect::FenceReadmitted { target, host_epoch: of.he.0 });
        }
    }

    fn whom_of(&self, state: &FenceTask) -> Whom {
        let stamp = Stamp { era: u64::from(self.ledger.era().0), term: state.opened_term.0, index: state.opened_at.0 };
        (super::fence_lead::fence_host(&state.of.host), stamp)
    }

    fn order_of(&self, task: TaskId, state: &FenceTask) -> Result<FenceOrder, String> {
        self.lease_until()?;
        let (target, stamp) = self.whom_of(state);
        Ok(FenceOrder { task: task.0, ..FenceOrder::new(target, state.of.he.0, stamp, state.deadline) })
    }

    /// Until when this agent may call devices for a task, as far as it knows now. Asked last thing before each call.
    ///
    /// # Errors
    /// Why it may not, for people.
    pub fn fence_permit(&self, task: TaskId) -> Result<Moment, String> {
        let state = self.ledger.tasks().get(&task).ok_or("the log knows the task no more")?;
        let called_off = state.cancelled.as_ref().filter(|_| !mutants::on("fence.called_off_goes_on"));
        if let Some((_, because)) = called_off {
            return Err(format!("the task was called off: {because}"));
        }
        if state.executors.get(&self.me.host) != Some(&None) {
            return Err("this host has not taken the task up".to_owned());
        }
        let host = self.ledger.host(&state.of.host).map(|host| host.he);
        if host != Some(state.of.he) || !self.ledger.lost_or_retired(&state.of) {
            return Err(format!("{} isn't the lost admission of its host", state.of));
        }
        self.lease_until()
    }

    /// The end of this host's own lease: who holds none may be on the minority's side of a partition.
    fn lease_until(&self) -> Result<Moment, String> {
        let none = "this host holds no lease: it may be on the minority's side, which never fences";
        if mutants::on("fence.without_lease") {
            return Ok(self.now.moment.plus(Duration::from_secs(60)));
        }
        self.my_incarnation().ok_or(none)?;
        let expires = self.keeper.holder.as_ref().and_then(quorum::lease::Holder::expires_at).ok_or(none)?;
        if self.now.moment.either_reached(expires) { Err(none.to_owned()) } else { Ok(expires) }
    }

    /// What came of a task that this agent executes.
    pub(super) fn on_fenced(&mut self, task: TaskId, fenced: Fenced) {
        let of = self.ledger.tasks().get(&task).map(|state| state.of.clone());
        let outcome = match fenced {
            Fenced::Proven(evidence) => {
                match of.map(|of| super::fence_proof::translate(&of, &evidence, &self.me.host)) {
                    Some(Ok(evidence)) => {
                        for evidence in evidence {
                            self.propose(Command::Evidence(evidence));
                        }
                        FenceOutcome::Proven
                    }
                    Some(Err(because)) => FenceOutcome::Failed { because },
                    None => FenceOutcome::Cancelled,
                }
            }
            Fenced::Unproven { because } => FenceOutcome::Failed { because },
            Fenced::Finished => return self.on_fencing_finished(task),
        };
        if let Some(Stage::Running(_, so_far @ None)) = self.fence.tasks.get_mut(&task) {
            *so_far = Some(outcome);
        }
    }

    fn on_fencing_finished(&mut self, task: TaskId) {
        let outcome = match self.fence.tasks.get(&task) {
            Some(Stage::Running(_, Some(outcome)) | Stage::Ending(outcome)) => outcome.clone(),
            Some(Stage::Running(_, None)) => {
                FenceOutcome::Failed { because: "the executor ended without a verdict".to_owned() }
            }
            Some(Stage::Asked(_) | Stage::Finished(_)) | None => return,
        };
        self.fence.tasks.insert(task, Stage::Finished(outcome));
    }

    fn tell_prospects(&mut self) {
        let now = self.now.moment;
        let Some(leader) = self.leader().filter(|leader| *leader != self.me.host) else {
            self.fence.told = None;
            return;
        };
        let due = match &self.fence.told {
            Some((whom, at)) if *whom == leader => {
                now.held_since(*at) >= if self.fence.is_news { TELL_PAUSE } else { TELL_EVERY }
            }
            Some(_) | None => true,
        };
        if self.fence.prospects.is_empty() || !due {
            return;
        }
        self.fence.told = Some((leader.clone(), now));
        self.fence.is_news = false;
        let waited = self.fence.prospects_at.map(|at| now.waited_since(at)).unwrap_or_default();
        let prospects = self.fence.prospects.iter().map(|prospect| prospect.aged(waited)).collect();
        let message = Box::new(Message::FenceProspects { prospects });
        self.effects.push(Effect::Message { to: leader, message });
    }
}

impl Prospect {
    /// The same, seen `waited` later.
    #[must_use]
    pub fn aged(&self, waited: Duration) -> Self {
        let waited = u32::try_from(waited.as_millis()).unwrap_or(u32::MAX);
        let mut aged = self.clone();
        aged.proven_ms_ago = aged.proven_ms_ago.map(|age| age.saturating_add(waited));
        if let Some(running) = &mut aged.running {
            running.ms_ago = running.ms_ago.saturating_add(waited);
        }
        aged
    }
}
