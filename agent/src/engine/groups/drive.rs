//! Driving open plans to their end, step by step; giving up those whose ground is gone.

use super::is_following;
use crate::engine::core::Engine;
use quorum::id::HostName;
use quorum::ledger::{
    Command, DataGate, GrantCause, GroupSpec, GroupState, Incarnation, Initiator, Intent, PlanKind, PlanOutcome,
    PlanState, StepKind, StepOutcome, StepState, TicketState,
};
use quorum::mutants;
use std::time::Duration;

/// A planned move's intent may stay open this long.
const INTENT_OPEN: Duration = Duration::from_secs(180);
/// A step that the ledger shows to be done, and whose executor doesn't say so for this long, is recorded by the leader.
const UNTOLD: Duration = Duration::from_secs(2);

impl Engine {
    pub(super) fn drive(&mut self, plan: &PlanState, state: &GroupState, spec: &GroupSpec) {
        let Some(index) = plan.current_step() else {
            let (measured_rto, measured_rpo) = self.measured(plan);
            let outcome = PlanOutcome::Done { measured_rto, measured_rpo };
            self.close(plan, outcome);
            return;
        };
        if plan.denied.is_some() && plan.pivot.is_none() {
            self.abandon(plan, state, PlanOutcome::Cancelled { because: "a person denied it".into() });
            return;
        }
        if self.give_up(plan, state) || self.end_overdue(plan, index, state) {
            return;
        }
        match plan.plan.kind {
            PlanKind::Failover | PlanKind::Restart => self.drive_failover(plan, index, (state, spec)),
            PlanKind::Switchover | PlanKind::Failback => self.drive_switchover(plan, index, (state, spec)),
            PlanKind::Reprotect => self.drive_reprotect(plan, index, state),
            PlanKind::Drill if mutants::on("engine.drills_for_real") => {
                self.drive_switchover(plan, index, (state, spec))
            }
            PlanKind::Migration | PlanKind::Stop | PlanKind::Drill => {
                let because = format!("{} plans are not executed by this version", plan.plan.kind.as_str());
                let next = "antipode switchover moves a group with a stop".to_owned();
                self.close(plan, PlanOutcome::Failed { because, next });
            }
        }
    }

    /// Ends plans whose ground is gone: the target was lost, the owner returned before the pivot, the owner of a
    /// reprotection changed.
    pub(super) fn give_up(&mut self, plan: &PlanState, state: &GroupState) -> bool {
        let ticket = state.ticket.as_ref();
        let to = plan.plan.to.as_ref();
        if plan.pivot.is_some() {
            // Behind the pivot only the new owner's own end ends the plan.
            let owner_over = ticket.is_some_and(|ticket| self.ledger.is_ended(&ticket.of));
            if owner_over {
                let because = "the new owner was lost before the plan ended".to_owned();
                self.close(plan, PlanOutcome::Failed { because, next: "wait: another plan takes its place".into() });
            }
            return owner_over;
        }
        let from_over = plan.plan.from.as_ref().is_some_and(|from| self.ledger.is_ended(from));
        let target_gone = to.is_some_and(|to| !self.is_alive(to));
        let because = match plan.plan.kind {
            PlanKind::Failover | PlanKind::Restart => {
                let owner = plan.plan.from.as_ref().map(|from| &from.host);
                if owner.is_some_and(|owner| self.ledger.admitted(owner).is_some()) {
                    Some("the owner's host returned before the grant; it is granted back there")
                } else {
                    target_gone.then_some("the target is silent or no longer admitted")
                }
            }
            _ if from_over => Some("the owner's host epoch is over"),
            PlanKind::Switchover | PlanKind::Failback if self.is_left_behind(plan, state) => {
                Some("the owner stopped, and the other copy misses its last writes; it is granted back")
            }
            _ => target_gone.then_some("the other host is silent or no longer admitted"),
        };
        let Some(because) = because else { return false };
        self.abandon(plan, state, PlanOutcome::Cancelled { because: because.into() });
        true
    }

    /// Ends a plan before its pivot. A move that it opened is called off first, also when its source is over: a plan
    /// can't be closed in the middle of a move, and no other one can begin before it is.
    fn abandon(&mut self, plan: &PlanState, state: &GroupState, outcome: PlanOutcome) {
        let group = &plan.plan.group;
        if let Some(intent) = state.intent.as_ref().filter(|intent| intent.plan == Some(plan.id)) {
            let because = match &outcome {
                PlanOutcome::Cancelled { because } | PlanOutcome::Failed { because, .. } => because.clone(),
                PlanOutcome::Done { .. } => String::new(),
            };
            let command = Command::SwitchAbort { group: group.clone(), intent: intent.id, because };
            self.propose_paced(group.as_str(), command);
            return;
        }
        self.close(plan, outcome);
    }

    /// Ends plans whose current step takes longer than it may, each with the person's next command. What waits for
    /// proof,
    /// for a person or for data goes on waiting: status names what for.
    fn end_overdue(&mut self, plan: &PlanState, index: usize, state: &GroupState) -> bool {
        let step = &plan.plan.steps[index];
        let waited = self.waited_at_step(plan, index);
        if waited >= UNTOLD && self.shows_done(plan, index, state) {
            // Its executor did it, and ended before it could say so.
            self.done_by_leader(plan, index, "done, as the ledger shows");
            return true;
        }
        let is_takeover = matches!(plan.plan.kind, PlanKind::Failover | PlanKind::Restart);
        if waited < step.deadline || (is_takeover && plan.pivot.is_none()) {
            return false;
        }
        let group = &plan.plan.group;
        let because = format!("step {:?} took longer than {:?}", step.kind, step.deadline);
        let next = match (plan.plan.kind, plan.pivot, &plan.plan.from) {
            (PlanKind::Reprotect, ..) => format!("antipode explain group {group}; it is tried again by itself"),
            (_, None, _) => format!("antipode explain group {group}, then order the move again"),
            (_, Some(_), Some(from)) => {
                format!("antipode explain group {group}; antipode switchover {group} --to {} moves it back", from.host)
            }
            (_, Some(_), None) => format!("antipode explain group {group}"),
        };
        self.abandon(plan, state, PlanOutcome::Failed { because, next });
        true
    }

    /// How long this leader has seen the plan at this step.
    fn waited_at_step(&mut self, plan: &PlanState, index: usize) -> Duration {
        let now = self.now.moment;
        let Some(leading) = &mut self.leading else { return Duration::ZERO };
        let (step, since) = leading.at_step.entry(plan.id).or_insert((index, now));
        if *step != index {
            (*step, *since) = (index, now);
        }
        now.waited_since(*since)
    }

    /// Whether the ledger shows by itself that a step which its host executes is done.
    fn shows_done(&self, plan: &PlanState, index: usize, state: &GroupState) -> bool {
        let step = &plan.plan.steps[index];
        let ticket = state.ticket.as_ref().map(|ticket| ticket.state);
        let is_past = plan.pivot.is_some();
        match step.kind {
            StepKind::Stop => is_past || matches!(ticket, Some(TicketState::Stopped { .. })),
            StepKind::Promote | StepKind::Start => is_past && ticket == Some(TicketState::Running),
            StepKind::Reverse => plan.plan.to.as_ref().is_some_and(|to| state.in_sync.contains(to)),
            StepKind::Preflight
            | StepKind::AwaitEvidence
            | StepKind::AwaitApproval
            | StepKind::Quiesce
            | StepKind::Grant
            | StepKind::Probe
            | StepKind::Announce
            | StepKind::AwaitInSync
            | StepKind::Migrate
            | StepKind::Snapshot
            | StepKind::CleanUp
            | StepKind::Measure
            | StepKind::Retire => false,
        }
    }

    /// The owner has stopped for the move, and the target's copy isn't in sync any more.
    pub(super) fn is_left_behind(&self, plan: &PlanState, state: &GroupState) -> bool {
        let has_data = self.ledger.group_spec(&plan.plan.group).is_some_and(|spec| !spec.volumes.is_empty());
        let stopped = state.ticket.as_ref().is_some_and(|ticket| matches!(ticket.state, TicketState::Stopped { .. }));
        has_data && stopped && plan.plan.to.as_ref().is_some_and(|to| !state.in_sync.contains(to))
    }

    pub(super) fn close(&mut self, plan: &PlanState, outcome: PlanOutcome) {
        self.propose_paced(&plan.id.to_string(), Command::PlanClosed { plan: plan.id, outcome });
    }

    /// Records a step that the leader itself executes: begun and done in one go.
    pub(super) fn done_by_leader(&mut self, plan: &PlanState, index: usize, detail: &str) {
        let (id, step) = (plan.id, u32::try_from(index).unwrap_or(u32::MAX));
        let attempt = match &plan.steps[index] {
            StepState::Waiting => {
                let executor = self.me.host.clone();
                self.propose_paced(&format!("{id}/{step}"), Command::StepStarted { plan: id, step, executor });
                1
            }
            StepState::Started { attempt, .. } => *attempt,
            StepState::Ended { attempt, .. } => {
                let executor = self.me.host.clone();
                self.propose_paced(&format!("{id}/{step}"), Command::StepStarted { plan: id, step, executor });
                attempt + 1
            }
        };
        let outcome = StepOutcome::Done { detail: detail.to_owned() };
        self.propose_paced(&format!("{id}/{step}"), Command::StepEnded { plan: id, step, attempt, outcome });
    }

    pub(super) fn step_index(plan: &PlanState, kind: StepKind) -> Option<usize> {
        plan.plan.steps.iter().position(|step| step.kind == kind)
    }

    pub(super) fn drive_failover(&mut self, plan: &PlanState, index: usize, (state, spec): (&GroupState, &GroupSpec)) {
        let group = plan.plan.group.clone();
        let Some(to) = plan.plan.to.clone() else { return };
        if plan.pivot.is_some() {
            self.end_grant_step(plan, index);
            return;
        }
        // Asked for early, so that the answer is here when the evidence is.
        let gate = self.data_gate(&group, state, &to);
        let proven = self.ledger.covering_evidence(&group).iter().all(|(_, proof)| proof.is_ok())
            || mutants::on("ledger.grant_without_evidence");
        if !proven {
            return;
        }
        let kind = plan.plan.steps[index].kind;
        if kind == StepKind::AwaitEvidence {
            self.done_by_leader(plan, index, "every possible owner is proven harmless");
        }
        let approved = plan.approval.as_ref().is_some_and(quorum::ledger::Permit::is_given);
        let needs_approval = Self::step_index(plan, StepKind::AwaitApproval).is_some();
        if needs_approval && !approved {
            return;
        }
        if kind == StepKind::AwaitApproval {
            self.done_by_leader(plan, index, "a person said go");
        }
        let Some(gate) = gate else { return };
        let cause = match (&plan.plan.initiator, plan.approval.as_ref().and_then(|permit| permit.agreed.first())) {
            (Initiator::Person(decision), _) => GrantCause::Operator(decision.clone()),
            (Initiator::Automatic, Some(decision)) => GrantCause::Operator(decision.clone()),
            (Initiator::Automatic, None) => GrantCause::Automatic { waited: self.waited_since_loss(plan) },
        };
        let _ = spec;
        self.try_grant(&group, (&to, gate), cause, Some(plan));
    }

    pub(super) fn waited_since_loss(&self, plan: &PlanState) -> Duration {
        let now = self.now.moment;
        let Some(leading) = &self.leading else { return Duration::ZERO };
        let at = plan.plan.from.as_ref().and_then(|from| leading.ended_at.get(from));
        // A leader that wasn't there when it was applied counts from when it took over.
        now.waited_since(at.copied().unwrap_or(leading.since))
    }

    /// Behind the pivot: the grant step is recorded, the rest is the new owner's.
    pub(super) fn end_grant_step(&mut self, plan: &PlanState, index: usize) {
        if plan.plan.steps[index].kind == StepKind::Grant || plan.plan.steps[index].host.is_none() {
            self.done_by_leader(plan, index, "the ticket moved");
        }
    }

    pub(super) fn drive_switchover(
        &mut self,
        plan: &PlanState,
        index: usize,
        (state, spec): (&GroupState, &GroupSpec),
    ) {
        let _ = spec;
        let group = plan.plan.group.clone();
        let Some(to) = plan.plan.to.clone() else { return };
        if plan.pivot.is_some() {
            self.end_grant_step(plan, index);
            return;
        }
        let gate = self.data_gate(&group, state, &to);
        // A copy that follows asynchronously has everything only once the owner has stopped and drained.
        if gate.is_none() && !is_following(state, &to) {
            return;
        }
        let kind = plan.plan.steps[index].kind;
        if kind == StepKind::Preflight {
            self.done_by_leader(plan, index, "the target is admitted and its copy agrees");
        }
        match (&state.intent, state.ticket.as_ref().map(|ticket| ticket.state)) {
            (None, Some(TicketState::Running | TicketState::Granted)) => self.open_intent(plan, &to),
            (Some(intent), Some(TicketState::Stopped { .. })) => {
                let Some(gate) = gate.filter(|gate| !matches!(gate, DataGate::Lagging { .. })) else { return };
                let cause = GrantCause::Intent(intent.id);
                self.try_grant(&group, (&to, gate), cause, Some(plan));
            }
            (Some(_), _) | (None, _) => {}
        }
    }

    pub(super) fn open_intent(&mut self, plan: &PlanState, to: &HostName) {
        let (Some(from), Some((he, _))) = (plan.plan.from.clone(), self.ledger.admitted(to)) else { return };
        let intent = Intent {
            group: plan.plan.group.clone(),
            epoch: plan.plan.epoch,
            from,
            to: Incarnation { host: to.clone(), he },
            deadline: INTENT_OPEN,
            plan: Some(plan.id),
        };
        self.propose_paced(plan.plan.group.as_str(), Command::SwitchIntent(intent));
    }

    pub(super) fn drive_reprotect(&mut self, plan: &PlanState, index: usize, state: &GroupState) {
        let has_all = |to: &HostName| state.in_sync.contains(to) || is_following(state, to);
        let in_sync = plan.plan.to.as_ref().is_some_and(has_all);
        if in_sync && plan.plan.steps[index].kind == StepKind::AwaitInSync {
            self.done_by_leader(plan, index, "the other copy is in sync");
        }
    }
}
