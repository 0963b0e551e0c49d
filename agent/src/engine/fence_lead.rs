//! The leader's part of fencing: each open task is passed along the agents that could carry it out, until there is
//! evidence; a task whose work is done, or whose host may come back, is called off and waited for (protocol §6).
//!
//! Invariant: a task is over only when everybody who took it up said so, or when its deadline and 10 s have passed on
//! this leader's clock since it was called off.
//!
//! Not here: what an executor does with a task (`fence`), whether evidence is accepted (the ledger).

use super::core::Engine;
use super::effect::Effect;
use super::fence::Prospect;
use super::leader::Leading;
use super::message::Message;
use fencing::moment::Moment as FenceMoment;
use fencing::relay::{Candidate, Relay, RelayEffect, RelayInput};
use quorum::id::{HostName, LogIndex, TaskId};
use quorum::ledger::{self, Command, FenceOutcome, FenceTask, Incarnation, TASK_GRACE};
use quorum::moment::Moment;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// An executor that didn't take a task up is asked again after this, and given up after [`ASKS_MAX`] times.
const ASK_AGAIN: Duration = Duration::from_millis(800);
const ASKS_MAX: u32 = 3;
/// How long one executor is waited for before the next is asked as well.
const PATIENCE_MIN: Duration = Duration::from_secs(3);
const PATIENCE_MAX: Duration = Duration::from_secs(15);
/// After everybody failed, all are asked again: a BMC may come back. Doubled each round up to the largest.
const ROUND_PAUSE: Duration = Duration::from_secs(15);
const ROUND_PAUSE_MAX: Duration = Duration::from_secs(300);
/// How long an agent may work on a task whose devices prove nothing.
const PILL_DEADLINE: Duration = Duration::from_secs(30);
/// An agent that told longer ago what its devices could prove says nothing about now.
const TOLD_FRESH: Duration = Duration::from_secs(60);
/// An agent that wasn't heard for this isn't asked.
const HEARD_FRESH: Duration = Duration::from_secs(2);

/// What the leader remembers of fencing.
#[derive(Debug, Default)]
pub(super) struct FenceLead {
    chases: BTreeMap<TaskId, Chase>,
    /// When each called-off task was first seen so by this leader.
    called_off: BTreeMap<TaskId, Moment>,
    /// When each override that waits for a second person was first seen by this leader.
    overrides: BTreeMap<LogIndex, Moment>,
    /// What each agent's devices could prove, and when it said so.
    told: BTreeMap<HostName, (Moment, Vec<Prospect>)>,
    /// Who was lost, as the ledger stood then: among a thousand hosts they aren't looked for again and again.
    lost: Option<(LogIndex, Vec<Incarnation>)>,
}

/// One task on its way along the executors.
#[derive(Debug)]
struct Chase {
    relay: Relay,
    inbox: Vec<RelayInput>,
    asked: BTreeMap<HostName, Asked>,
    round: u32,
    next_round: Option<Moment>,
}

#[derive(Debug)]
struct Asked {
    at: Moment,
    times: u32,
    began: bool,
}

impl Engine {
    /// An agent says what its devices could prove.
    pub(super) fn on_fence_prospects(&mut self, from: HostName, prospects: Vec<Prospect>) {
        let now = self.now.moment;
        if let Some(leading) = &mut self.leading {
            leading.fencing.told.insert(from, (now, prospects));
        }
    }

    /// An agent won't carry out a task.
    pub(super) fn on_fence_declined(&mut self, from: &HostName, task: TaskId, because: &str) {
        let Some(leading) = &mut self.leading else { return };
        let Some(chase) = leading.fencing.chases.get_mut(&task) else { return };
        if chase.asked.remove(from).is_some() {
            chase.inbox.push(RelayInput::Gone { host: fence_host(from) });
            let because = format!("won't fence: {because}");
            self.event(crate::event::Event::Dropped { from: from.clone(), because });
        }
    }

    /// What the log says that concerns a chase.
    pub(super) fn fence_lead_on(&mut self, fact: &ledger::Event) {
        // What the ledger didn't accept, or what leaves a group unproven, is no end of the search.
        let is_enough = match fact {
            ledger::Event::FenceTaskFinished { task, .. } => {
                let task = self.ledger.tasks().get(task);
                task.is_some_and(|task| self.proof_of(&task.of).is_some())
            }
            _ => false,
        };
        let Some(leading) = &mut self.leading else { return };
        match fact {
            ledger::Event::FenceTaskStarted { task, executor } => {
                let asked = leading.fencing.chases.get_mut(task).and_then(|chase| chase.asked.get_mut(executor));
                if let Some(asked) = asked {
                    asked.began = true;
                }
            }
            ledger::Event::FenceTaskFinished { task, executor, outcome } => {
                if let Some(chase) = leading.fencing.chases.get_mut(task) {
                    chase.asked.remove(executor);
                    let proven = matches!(outcome, FenceOutcome::Proven) && is_enough;
                    chase.inbox.push(RelayInput::Concluded { host: fence_host(executor), proven });
                }
            }
            _ => {}
        }
    }

    /// Everything that the leader does about fencing.
    pub(super) fn lead_fencing(&mut self) {
        let open = |(_, state): &(&TaskId, &FenceTask)| !state.is_over();
        let tasks: Vec<(TaskId, FenceTask)> =
            self.ledger.tasks().iter().filter(open).map(|(task, state)| (*task, state.clone())).collect();
        let Some(leading) = &mut self.leading else { return };
        let mut lead = std::mem::take(&mut leading.fencing);
        let is_open = |task: &TaskId| tasks.iter().any(|(open, _)| open == task);
        lead.chases.retain(|task, _| is_open(task));
        lead.called_off.retain(|task, _| is_open(task));
        for (task, state) in &tasks {
            match (&state.cancelled, self.proof_of(&state.of)) {
                (Some(_), _) => self.expire_task(*task, state, &mut lead),
                (None, Some(proof)) => {
                    let because = format!("proven: {proof}");
                    self.propose_paced(&task.to_string(), Command::FenceTaskCancel { task: *task, because });
                }
                (None, None) => self.chase(*task, state, &mut lead),
            }
        }
        self.expire_overrides(&mut lead);
        if let Some(leading) = &mut self.leading {
            leading.fencing = lead;
        }
        self.hasten_ends();
    }

    /// A lost host whose devices prove nothing has no task from its loss: the ledger counts on evidence alone. Its pill
    /// is sent all the same, once for each admission, while something about it is unproven.
    fn hasten_ends(&mut self) {
        let applied = self.ledger.applied();
        let seen = |leading: &Leading| leading.fencing.lost.as_ref().map(|(at, _)| *at);
        if self.leading.as_ref().and_then(seen) != Some(applied) {
            let lost = self.lost();
            let Some(leading) = &mut self.leading else { return };
            leading.fencing.lost = Some((applied, lost));
        }
        let hasten = |of: &&Incarnation| {
            let is_new = self.ledger.tasks().values().all(|task| task.of != **of);
            let has_pill = self.ledger.fence_deadline(&of.host).is_none() && !self.prospects_of(&of.host).is_empty();
            is_new && has_pill && self.proof_of(of).is_none()
        };
        let lost = self.leading.iter().flat_map(|leading| &leading.fencing.lost).flat_map(|(_, lost)| lost);
        let hasten: Vec<Incarnation> = lost.filter(hasten).cloned().collect();
        for of in hasten {
            let (subject, deadline) = (of.to_string(), PILL_DEADLINE);
            let initiator = ledger::Initiator::Automatic;
            self.propose_paced(&subject, Command::FenceTaskOpened { of, deadline, initiator });
        }
    }

    /// The last admission of each host of the spec that was declared lost.
    fn lost(&self) -> Vec<Incarnation> {
        let lost = |host: &HostName| {
            let of = Incarnation { host: host.clone(), he: self.ledger.host(host)?.he };
            matches!(self.ledger.incarnation(&of)?.ended, Some(ledger::Ended::Lost { .. })).then_some(of)
        };
        self.ledger.spec().hosts.keys().filter_map(lost).collect()
    }

    /// The evidence by which everything is proven for which fencing this admission was begun; none while something
    /// is missing.
    fn proof_of(&self, of: &Incarnation) -> Option<String> {
        let state = self.ledger.incarnation(of)?;
        if state.evidence.is_empty() || self.ledger.unproven_on(&of.host).contains(of) {
            return None;
        }
        let kinds: BTreeSet<&str> = state.evidence.iter().map(|evidence| evidence.kind.as_str()).collect();
        Some(kinds.into_iter().collect::<Vec<_>>().join(", "))
    }

    fn expire_task(&mut self, task: TaskId, state: &FenceTask, lead: &mut FenceLead) {
        let now = self.now.moment;
        let waited = now.held_since(*lead.called_off.entry(task).or_insert(now));
        if waited >= state.deadline.saturating_add(TASK_GRACE) {
            self.propose_paced(&task.to_string(), Command::FenceTaskExpired { task, waited });
        }
    }

    /// An override that nobody else agreed with in time is void: permits are measured by one leader's clock.
    fn expire_overrides(&mut self, lead: &mut FenceLead) {
        let now = self.now.moment;
        let spans: Vec<(LogIndex, Duration)> =
            self.ledger.overrides().iter().map(|(index, pending)| (*index, pending.asked.span)).collect();
        lead.overrides.retain(|index, _| spans.iter().any(|(open, _)| open == index));
        for (index, span) in spans {
            let waited = now.held_since(*lead.overrides.entry(index).or_insert(now));
            if waited >= span {
                self.propose_paced(&index.to_string(), Command::OverrideExpired { index, waited });
            }
        }
    }

    fn chase(&mut self, task: TaskId, state: &FenceTask, lead: &mut FenceLead) {
        let now = self.now.moment;
        let due = |chase: &Chase| chase.next_round.is_some_and(|at| now.either_reached(at));
        let round = match lead.chases.get(&task) {
            Some(chase) if due(chase) => Some(chase.round + 1),
            Some(chase) if chase.next_round.is_some() => return,
            Some(_) => None,
            None => Some(0),
        };
        if let Some(round) = round {
            let relay = self.relay(state, lead);
            let (inbox, asked) = (Vec::new(), BTreeMap::new());
            lead.chases.insert(task, Chase { relay, inbox, asked, round, next_round: None });
        }
        let chase = lead.chases.get_mut(&task).expect("just made");
        let mut inputs = std::mem::take(&mut chase.inbox);
        inputs.push(RelayInput::Tick);
        let again = self.ask_again(chase);
        inputs.extend(again.gone.into_iter().map(|host| RelayInput::Gone { host: fence_host(&host) }));
        let mut effects = Vec::new();
        for input in inputs {
            chase.relay.step(fence_moment(now), input, &mut effects);
        }
        let mut ask = again.again;
        for effect in effects {
            match effect {
                RelayEffect::Assign { host } => ask.extend(HostName::new(host.as_str())),
                // The log ends their work: the task is called off there once the evidence is accepted.
                RelayEffect::Cancel { .. } => {}
                RelayEffect::Exhausted => {
                    let pause = ROUND_PAUSE.saturating_mul(1 << chase.round.min(5)).min(ROUND_PAUSE_MAX);
                    chase.next_round = Some(now.plus(pause));
                }
            }
        }
        for host in &ask {
            let asked = chase.asked.entry(host.clone()).or_insert(Asked { at: now, times: 0, began: false });
            asked.at = now;
            asked.times += 1;
        }
        for host in ask {
            self.assign(host, task);
        }
    }

    fn assign(&mut self, host: HostName, task: TaskId) {
        if host == self.me.host {
            self.on_fence_assign(&host, task);
        } else {
            self.effects.push(Effect::Message { to: host, message: Box::new(Message::FenceAssign { task }) });
        }
    }

    /// Those who were asked and didn't begin: asked again, or given up.
    fn ask_again(&self, chase: &mut Chase) -> Again {
        let now = self.now.moment;
        let mut again = Again::default();
        chase.asked.retain(|host, asked| {
            if asked.began || now.held_since(asked.at) < ASK_AGAIN {
                return true;
            }
            let is_given_up = asked.times >= ASKS_MAX;
            if is_given_up {
                again.gone.push(host.clone())
            } else {
                again.again.push(host.clone())
            }
            !is_given_up
        });
        again
    }

    /// The voters' agents at work now: a handful, at every site, whatever the number of hosts.
    fn relay(&self, state: &FenceTask, lead: &FenceLead) -> Relay {
        let now = self.now.moment;
        let target = &state.of.host;
        let is_heard = |host: &HostName| {
            *host == self.me.host || self.heard.get(host).is_some_and(|last| now.held_since(last.at) < HEARD_FRESH)
        };
        let fits = |host: &HostName| host != target && self.ledger.admitted(host).is_some() && is_heard(host);
        let candidate = |host: HostName| {
            let told = lead.told.get(&host).filter(|(at, _)| now.held_since(*at) < TOLD_FRESH);
            let told = if host == self.me.host { Some(&self.fence.prospects) } else { told.map(|(_, told)| told) };
            let in_reach = told.and_then(|told| told.iter().find(|prospect| prospect.host == *target));
            Some(Candidate {
                site: fencing::name::SiteName::new(self.ledger.site_of(&host)?.as_str()).ok()?,
                devices_in_reach: in_reach.map_or(0, |prospect| prospect.devices as usize),
                host: fence_host(&host),
            })
        };
        let candidates = self.voter_hosts().into_values().filter(fits).filter_map(candidate).collect();
        let site = self.ledger.site_of(target).and_then(|site| fencing::name::SiteName::new(site.as_str()).ok());
        let site = site.unwrap_or_else(|| fencing::name::SiteName::new("unknown").expect("a name"));
        Relay::new(candidates, &site, (state.deadline / 4).clamp(PATIENCE_MIN, PATIENCE_MAX))
    }

    /// What agents at other sites than the host's said of late that they could prove of it, this one's own readings
    /// among it; how long ago is counted in.
    pub(super) fn prospects_of(&self, host: &HostName) -> Vec<(HostName, Prospect)> {
        let now = self.now.moment;
        let own = self.fence.prospects_at.map(|at| (self.me.host.clone(), at, &self.fence.prospects));
        let told = self.leading.iter().flat_map(|leading| &leading.fencing.told);
        let told = told.map(|(from, (at, prospects))| (from.clone(), *at, prospects));
        let of_host = |(from, at, prospects): (HostName, Moment, &Vec<Prospect>)| {
            let prospect = prospects.iter().find(|prospect| prospect.host == *host)?;
            Some((from, prospect.aged(now.waited_since(at))))
        };
        own.into_iter().chain(told).filter_map(of_host).collect()
    }
}

#[derive(Default)]
struct Again {
    again: Vec<HostName>,
    gone: Vec<HostName>,
}

/// Both crates have one rule for names.
pub(super) fn fence_host(host: &HostName) -> fencing::name::HostName {
    fencing::name::HostName::new(host.as_str()).expect("both crates have one rule for names")
}

/// A relay compares moments of one process only; which clock they are of doesn't matter to it.
fn fence_moment(moment: Moment) -> FenceMoment {
    FenceMoment::at(Duration::from_nanos(moment.boot_ns))
}
