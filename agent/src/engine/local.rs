//! The groups of this host: from the ledger's state to each runner's duty, from its acts to effects.

use super::core::Engine;
use super::effect::{Effect, Work, WorkId};
use super::groups::{follows_this_grant, is_following};
use super::input::{Report, Resync, Sight};
use super::message::Challenge;
use crate::event::Event;
use crate::heartbeat::GroupLag;
use crate::runner::{Act, Duty, FormerDuty, GroupRunner, MayStart, OwnerDuty, Saying, StandbyDuty};
use quorum::id::{AgentInstance, Generation, GroupName, HostName};
use quorum::ledger::{
    Command, Ground, GroupState, Incarnation, PlanKind, StepKind, StepOutcome, StepState, Stopped, Ticket, TicketState,
};
use quorum::moment::Moment;
use quorum::mutants;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a workload may take to stop by itself in a planned move.
const PATIENCE: Duration = Duration::from_secs(30);

/// A measured lag that isn't committed within this is measured anew.
const ATTEST_WITHIN: Duration = Duration::from_secs(1);

/// The runners and what belongs to them.
pub(super) struct Local {
    pub(super) runners: BTreeMap<GroupName, GroupRunner>,
    /// How far each group's standby was behind, and when that was seen.
    lags: BTreeMap<GroupName, (GroupLag, Moment)>,
    /// A challenge that waits for everything here to be looked at, and who asked.
    pub(super) challenge: Option<(HostName, Challenge)>,
    /// Who asked for a group's copy and waits until it is looked at.
    pub(super) copy_asked: BTreeMap<GroupName, Vec<HostName>>,
    work: BTreeMap<WorkId, GroupName>,
    base: u64,
    turn: usize,
}

impl Local {
    /// No groups yet. Work ids of different agent processes differ.
    pub(super) fn new(agent: AgentInstance) -> Self {
        let base = u64::from(u16::from_le_bytes([agent.0[0], agent.0[1]])) << 48;
        Self {
            runners: BTreeMap::new(),
            lags: BTreeMap::new(),
            challenge: None,
            copy_asked: BTreeMap::new(),
            work: BTreeMap::new(),
            base,
            turn: 0,
        }
    }

    /// No work is under way, and nobody waits for a look.
    pub(super) fn is_at_rest(&self) -> bool {
        self.work.is_empty() && self.challenge.is_none() && self.copy_asked.is_empty()
    }

    pub(super) fn deadline(&self) -> Option<Moment> {
        self.runners.values().filter_map(GroupRunner::deadline).min()
    }

    /// The groups take turns in the beats.
    pub(super) fn next_lag(&mut self, now: Moment) -> Option<GroupLag> {
        let count = self.lags.len();
        if count == 0 {
            return None;
        }
        self.turn = (self.turn + 1) % count;
        let group = self.lags.keys().nth(self.turn)?.clone();
        self.lag_of(&group, now)
    }

    /// How far a group's standby is behind: what isn't looked at grows older.
    pub(super) fn lag_of(&self, group: &GroupName, now: Moment) -> Option<GroupLag> {
        let (lag, seen) = self.lags.get(group)?;
        let age = u32::try_from(now.held_since(*seen).as_millis()).unwrap_or(u32::MAX);
        Some(GroupLag { lag_ms: lag.lag_ms.saturating_add(age), ..lag.clone() })
    }

    /// The group went to another host: what was measured here is told no more.
    pub(super) fn forget_lag(&mut self, group: &GroupName) {
        if !mutants::on("engine.former_lag_counts") {
            self.lags.remove(group);
        }
    }

    pub(super) fn runner(&mut self, group: &GroupName) -> &mut GroupRunner {
        if !self.runners.contains_key(group) {
            // Each runner counts its own works from a base of its own, which the one before doesn't reach in a century.
            let base = self.base + ((self.runners.len() as u64 + 1) << 32);
            self.runners.insert(group.clone(), GroupRunner::new(base));
        }
        self.runners.get_mut(group).expect("just inserted")
    }
}

impl Engine {
    pub(super) fn on_work(&mut self, id: WorkId, report: Report) {
        let Some(group) = self.local.work.remove(&id) else { return };
        let runner = self.local.runner(&group);
        let work = runner.busy().map(|work| format!("{work:?}")).unwrap_or_default();
        let standby = match runner.busy() {
            Some(Work::Mirror { standby, .. }) => Some(standby.clone()),
            _ => None,
        };
        let acts = runner.report(self.now.moment, id, report.clone());
        if let (Report::Mirrored { resync: Some(resync) }, Some(copy)) = (&report, standby) {
            self.event(resync_done(&group, copy, resync));
        }
        self.event(Event::WorkEnded { group: group.clone(), work, outcome: format!("{report:?}") });
        self.perform(&group, acts);
        self.answer_copy_questions(&group);
    }

    pub(super) fn on_sight(&mut self, group: &GroupName, sight: &Sight) {
        let ticket = self.ledger.group(group).and_then(|state| state.ticket.as_ref());
        let is_here = ticket.is_some_and(|ticket| ticket.of.host == self.me.host);
        if let Sight::Lag { behind: Some(behind), bytes } = sight
            && is_here
        {
            let lag_ms = u32::try_from(behind.as_millis()).unwrap_or(u32::MAX);
            let lag = GroupLag { group: group.clone(), lag_ms, lag_bytes: *bytes };
            self.local.lags.insert(group.clone(), (lag, self.now.moment));
        }
        if let Sight::Kept { id, bytes } = sight {
            self.event(Event::DataKept { group: group.clone(), id: id.clone(), bytes: *bytes });
        }
        self.local.runner(group).sight(self.now.moment, sight);
    }

    /// Compares every group of this host with its duty.
    pub(super) fn run_groups(&mut self) {
        // Nothing is started, and nothing is killed, on a state that may be stale: not before the log up to a read
        // index obtained after this process began is applied.
        if !self.following.barrier_passed(self.ledger.applied()) {
            return;
        }
        for group in self.concerned_groups() {
            let duty = self.duty(&group);
            let may_start = self.may_start(&group, &duty);
            let now = self.now.moment;
            let acts = self.local.runner(&group).step(now, &duty, &may_start);
            self.perform(&group, acts);
            self.catch_up_with_plan(&group, &duty);
        }
        self.answer_challenge();
    }

    /// Says of the open plan's current step that it is done, if this host executes it and has done it: while another
    /// step
    /// was current, or in an earlier life of this agent, that could not be said.
    fn catch_up_with_plan(&mut self, group: &GroupName, duty: &Duty) {
        let Duty::Owner(owner) = duty else { return };
        let Some(plan) = self.ledger.open_plan(group).filter(|plan| plan.pivot.is_some()) else { return };
        let Some(index) = plan.current_step() else { return };
        let step = &plan.plan.steps[index];
        let has_done = self.local.runners.get(group).is_some_and(|runner| runner.has_done(step.kind, owner.epoch));
        if step.host.as_ref() != Some(&self.me.host) || !has_done {
            return;
        }
        let kind = step.kind;
        let id = plan.id;
        let says = |command: &Command| match command {
            Command::StepStarted { plan, .. } | Command::StepEnded { plan, .. } => *plan == id,
            _ => false,
        };
        if self.proposals.any_like(says) {
            return;
        }
        let is_begun = matches!(plan.steps[index], StepState::Started { .. });
        self.say_step(group, kind, is_begun.then(|| StepOutcome::Done { detail: "done before".into() }));
    }

    /// Groups that may be here, or may have been.
    pub(super) fn concerned_groups(&self) -> Vec<GroupName> {
        let mut groups: Vec<GroupName> = self.local.runners.keys().cloned().collect();
        let mine = self.ledger.groups().iter().filter(|(_, state)| concerns(state, &self.me.host));
        groups.extend(mine.map(|(name, _)| name.clone()));
        groups.sort();
        groups.dedup();
        groups
    }

    fn perform(&mut self, group: &GroupName, acts: Vec<Act>) {
        for act in acts {
            match act {
                Act::Work(id, work) => {
                    self.local.work.insert(id, group.clone());
                    self.event(Event::WorkStarted { group: group.clone(), work: format!("{work:?}") });
                    let host_epoch = self.my_incarnation().map(|of| of.he);
                    self.effects.push(Effect::Work { id, group: group.clone(), host_epoch, work });
                }
                Act::Overtaken => self.effects.push(Effect::Overtaken { group: group.clone() }),
                Act::Say(saying) => self.say(group, saying),
            }
        }
    }

    /// What the ledger wishes of this host for a group.
    pub(super) fn duty(&self, group: &GroupName) -> Duty {
        let Some(state) = self.ledger.group(group) else { return Duty::None };
        let me = self.my_incarnation();
        if me.is_some() && self.is_asked_for_absence(group, state) {
            return Duty::SayAbsent;
        }
        if let Some(tied) = self.tied_duty(group, state) {
            return tied;
        }
        match &state.ticket {
            Some(ticket) if Some(&ticket.of) == me.as_ref() => self.owner_duty(group, state, &ticket.of),
            Some(ticket) if ticket.of.host == self.me.host && mutants::on("engine.owns_by_name") && me.is_some() => {
                self.owner_duty(group, state, me.as_ref().expect("just seen"))
            }
            // Until the new owner runs, this copy may still be the one to go back to: nothing may write to it.
            Some(ticket) if self.owned_last(state, ticket) => {
                Duty::Former(FormerDuty { epoch: ticket.epoch, generation: state.generation })
            }
            Some(ticket) if ticket.state == TicketState::Granted => Duty::None,
            Some(ticket) => match self.standby_of(group, state) {
                Some(standby) if standby == self.me.host && ticket.of.host != self.me.host => {
                    let is_whole = state.in_sync.contains(&self.me.host) || follows_this_grant(state, &self.me.host);
                    let in_sync = is_whole.then_some(state.generation);
                    Duty::Standby(StandbyDuty { epoch: ticket.epoch, owner: ticket.of.host.clone(), in_sync })
                }
                _ => Duty::None,
            },
            None => Duty::None,
        }
    }

    /// This host owned the group last, that is over, and its copy counts as having everything.
    fn owned_last(&self, state: &GroupState, ticket: &Ticket) -> bool {
        ticket.of.host == self.me.host && self.ledger.is_ended(&ticket.of) && state.in_sync.contains(&self.me.host)
    }

    /// The group was born, or this host became a place of it, and this host hasn't said yet that nothing is here.
    fn is_asked_for_absence(&self, group: &GroupName, state: &GroupState) -> bool {
        let mut claims = state.owners.iter().filter(|(owner, _)| owner.host == self.me.host);
        let is_place = self.ledger.group_spec(group).is_some_and(|spec| spec.names(&self.me.host));
        match claims.next() {
            Some((_, claim)) => claim.ground == Ground::Place && claim.stopped.is_none(),
            None => is_place && !state.absent.contains(&self.me.host) && state.ticket.is_none(),
        }
    }

    /// The host whose copy follows the owner's: the one that a reprotection names, or that is in sync.
    pub(super) fn standby_of(&self, group: &GroupName, state: &GroupState) -> Option<HostName> {
        let plan = self.ledger.open_plan(group).filter(|plan| plan.plan.kind == PlanKind::Reprotect);
        if self.ledger.group_spec(group).is_none_or(|spec| spec.volumes.is_empty()) {
            return None;
        }
        let owner = state.ticket.as_ref().map(|ticket| &ticket.of.host);
        let follower = || state.copies.keys().find(|host| Some(*host) != owner && is_following(state, host));
        plan.and_then(|plan| plan.plan.to.clone())
            .or_else(|| state.in_sync.iter().find(|host| Some(*host) != owner).cloned())
            .or_else(|| follower().cloned())
    }

    fn owner_duty(&self, group: &GroupName, state: &GroupState, me: &Incarnation) -> Duty {
        let ticket = state.ticket.as_ref().expect("the caller saw the ticket");
        let stop_for = state.intent.as_ref().filter(|intent| intent.from == *me && !intent.migration);
        let spec = self.ledger.group_spec(group);
        let is_own =
            |host: &HostName| *host == self.me.host || spec.is_some_and(|spec| spec.is_same_copy(&self.me.host, host));
        // Without volumes there is nothing that another host could have or lack.
        let has_data = spec.is_none_or(|spec| !spec.volumes.is_empty());
        let others = state.in_sync.iter().filter(|host| has_data && !is_own(host));
        Duty::Owner(OwnerDuty {
            epoch: ticket.epoch,
            host_epoch: me.he,
            opens: ticket.opens,
            generation: state.generation,
            adopts: ticket.adopt,
            is_recorded_running: ticket.state == TicketState::Running,
            is_stopped: matches!(ticket.state, TicketState::Stopped { .. }),
            stop_for: stop_for.map(|intent| intent.id),
            mirror_to: self.standby_of(group, state).filter(|host| *host != self.me.host),
            in_sync: others.cloned().collect(),
            attest_every: spec.filter(|spec| !spec.writes_wait_for_mirror()).map(|spec| attest_every(spec.target_rpo)),
            patience: PATIENCE,
            tie: self.tie(group, state),
        })
    }

    /// Protocol §7, "X starts g iff", as far as it isn't in the duty already: the newest grant is ours, instance and
    /// host epoch match, no intent names us as the source.
    fn may_start(&self, group: &GroupName, duty: &Duty) -> MayStart {
        let Duty::Owner(owner) = duty else { return MayStart::No("the ticket is not here".into()) };
        if !self.may_pet() && !mutants::on("engine.starts_without_lease") {
            return MayStart::No("this host holds no lease that lasts long enough".into());
        }
        if !self.keeper.is_armed(group, owner.epoch) && !mutants::on("engine.starts_unarmed") {
            return MayStart::No("the keeper hasn't taken the group into its armed set yet".into());
        }
        let waits_for =
            self.spec.as_ref().and_then(|spec| spec.groups.get(group)).map(|config| config.after.as_slice());
        let not_running = waits_for.unwrap_or_default().iter().find(|before| {
            let ticket = self.ledger.group(before).and_then(|state| state.ticket.as_ref());
            ticket.is_none_or(|ticket| ticket.state != TicketState::Running)
        });
        match not_running {
            Some(before) => MayStart::No(format!("it starts after {before}, which doesn't run yet")),
            None => MayStart::Yes,
        }
    }

    fn say(&mut self, group: &GroupName, saying: Saying) {
        let Some(of) = self.my_incarnation() else { return };
        let group_name = group.clone();
        let Some(state) = self.ledger.group(group) else { return };
        let command = match saying {
            Saying::Absent => Command::Absent { group: group_name, of },
            Saying::Running(epoch) => Command::Running { group: group_name, epoch, of },
            Saying::Stopped { epoch, intent, drained, .. } => Command::Stopped(Stopped {
                group: group_name,
                epoch,
                of,
                intent: Some(intent),
                generation: generation_after(state, &drained, &self.me.host),
                copies: drained,
            }),
            Saying::Detached { epoch, away, generation } => {
                Command::Detached { group: group_name, epoch, of, away, generation }
            }
            Saying::InSync { epoch, copy, generation } => {
                Command::InSync { group: group_name, epoch, of, copy, generation }
            }
            Saying::Attested { epoch, copy, generation, lag } => {
                let command = Command::DataAttested { group: group_name, epoch, of, copy, generation, lag };
                // A measure is worth nothing once it is old: it isn't handed over again and again.
                self.propose_until(command, Some(self.now.moment.plus(ATTEST_WITHIN)));
                return;
            }
            Saying::StepBegan(kind) => return self.say_step(group, kind, None),
            Saying::StepEnded(kind, outcome) => return self.say_step(group, kind, Some(outcome)),
        };
        self.propose(command);
    }

    /// Records the step of an open plan that this host executes. A piece of work outside a plan is no step.
    pub(super) fn say_step(&mut self, group: &GroupName, kind: StepKind, outcome: Option<StepOutcome>) {
        let Some(plan) = self.ledger.open_plan(group) else { return };
        let mine =
            plan.plan.steps.iter().position(|step| step.kind == kind && step.host.as_ref() == Some(&self.me.host));
        let Some(index) = mine else { return };
        let (id, step) = (plan.id, u32::try_from(index).unwrap_or(u32::MAX));
        let began = match &plan.steps[index] {
            StepState::Waiting => 1,
            StepState::Started { attempt, .. } => *attempt,
            StepState::Ended { attempt, .. } => *attempt + 1,
        };
        let command = match outcome {
            None => Command::StepStarted { plan: id, step, executor: self.me.host.clone() },
            Some(outcome) => Command::StepEnded { plan: id, step, attempt: began, outcome },
        };
        self.propose(command);
    }
}

fn resync_done(group: &GroupName, copy: HostName, resync: &Resync) -> Event {
    Event::ResyncDone {
        group: group.clone(),
        copy,
        compared_bytes: resync.compared_bytes,
        differing_bytes: resync.differing_bytes,
        copied_bytes: resync.copied_bytes,
        kept_bytes: resync.kept_bytes,
        pause_ms: u64::try_from(resync.pause.as_millis()).unwrap_or(u64::MAX),
    }
}

/// Leaving an in-sync copy behind raises the generation: that copy must never pass for the latest.
fn generation_after(state: &GroupState, drained: &[HostName], owner: &HostName) -> Generation {
    let left_behind = state.in_sync.iter().any(|host| host != owner && !drained.contains(host));
    if left_behind { Generation(state.generation.0 + 1) } else { state.generation }
}

/// Often enough for the target, and seldom enough for the log.
fn attest_every(target_rpo: Duration) -> Duration {
    (target_rpo / 8).clamp(Duration::from_secs(1), Duration::from_secs(60))
}

fn concerns(state: &GroupState, host: &HostName) -> bool {
    state.places_ever.contains(host) || state.owners.keys().any(|of| of.host == *host)
}
