//! Opening, following and closing replicated plans (protocol §7, Plans).
//!
//! Steps never change once they are in the log; attempts are counted, so that a late answer of an older attempt does
//! nothing. Before the pivot a plan can be undone, after it only be retried. One open plan a group.

use super::apply::rule;
use super::command::Grant;
use super::event::Event;
use super::person::Permit;
use super::plan::{Plan, PlanKind, PlanOutcome, PlanState, StepKind, StepOutcome, StepState};
use super::refusal::Refusal;
use super::spec::Tier;
use super::state::{Ended, Ledger};
use crate::id::{GroupName, HostName, PlanId};
use crate::mutants;

/// Longest plan: far above what any kind needs, so that an entry stays small.
const STEPS_MAX: usize = 64;

/// How many closed plans are kept for `plan list`; older ones are in the voters' journals.
const CLOSED_KEPT: usize = 256;

impl StepKind {
    /// Steps that carry the safety of the move: nobody may go on without them.
    pub const fn is_skippable(self) -> bool {
        match self {
            Self::AwaitEvidence | Self::AwaitApproval | Self::Stop | Self::Grant | Self::Promote => false,
            Self::Preflight
            | Self::Quiesce
            | Self::Start
            | Self::Probe
            | Self::Announce
            | Self::Reverse
            | Self::AwaitInSync
            | Self::Migrate
            | Self::Snapshot
            | Self::CleanUp
            | Self::Measure
            | Self::Retire => true,
        }
    }
}

impl Ledger {
    pub(super) fn open_plan_entry(&mut self, plan: &Plan, events: &mut Vec<Event>) -> Result<(), Refusal> {
        let group = &plan.group;
        let state = self.groups.get(group).ok_or_else(|| Refusal::UnknownGroup { group: group.clone() })?;
        rule("ledger.plan_of_older_epoch", state.epoch == plan.epoch, || Refusal::EpochStale {
            group: group.clone(),
            said: plan.epoch,
            now: state.epoch,
        })?;
        if let Some(open) = self.open_plan(group) {
            let id = open.id;
            rule("ledger.two_plans", false, || Refusal::PlanBusy { group: group.clone(), plan: id })?;
        }
        check_shape(plan)?;
        self.check_may_begin(plan)?;
        let id = PlanId(self.position.index.0);
        let opened = PlanState {
            id,
            plan: plan.clone(),
            steps: vec![StepState::Waiting; plan.steps.len()],
            pivot: None,
            outcome: None,
            approval: self.approval_needed(plan),
            denied: None,
        };
        self.plans.insert(id, opened);
        let because = plan.because.clone();
        events.push(Event::PlanOpened { plan: id, kind: plan.kind, group: group.clone(), because });
        Ok(())
    }

    /// What nobody asked for doesn't begin while frozen; a way home doesn't while anything is wrong (I19). Starting
    /// again in place isn't a new plan in the sense of a freeze.
    fn check_may_begin(&self, plan: &Plan) -> Result<(), Refusal> {
        if !plan.initiator.is_automatic() {
            return Ok(());
        }
        if plan.kind != PlanKind::Restart
            && let Some((freeze, frozen)) = self.freeze_of_group(&plan.group)
        {
            let scope = || frozen.scope.clone();
            rule("ledger.planned_while_frozen", false, || Refusal::Frozen { freeze, scope: scope() })?;
        }
        if plan.kind == PlanKind::Failback { self.check_quiet() } else { Ok(()) }
    }

    /// Nothing is being fenced, and no loss waits for proof.
    pub(super) fn check_quiet(&self) -> Result<(), Refusal> {
        let fencing = self.tasks.values().find(|task| task.cancelled.is_none()).map(|task| task.of.to_string());
        let unproven = self.hosts.iter().find_map(|(host, state)| {
            let current = state.incarnations.get(&state.he)?;
            let lost = matches!(current.ended, Some(Ended::Lost { .. } | Ended::EraOver { .. }));
            (lost && current.evidence.is_empty()).then(|| host.to_string())
        });
        let why = match (fencing, unproven) {
            (Some(of), _) => Some(format!("{of} is being fenced")),
            (None, Some(host)) => Some(format!("nothing is proven about {host}, which is lost")),
            (None, None) => None,
        };
        match why {
            None => Ok(()),
            Some(why) => rule("ledger.failback_while_fencing", false, || Refusal::FailbackUnsafe { why }),
        }
    }

    /// A failover of tier `approve` begins by itself, but waits for a person.
    fn approval_needed(&self, plan: &Plan) -> Option<Permit> {
        let tier = self.group_spec(&plan.group).map_or(Tier::Manual, |spec| spec.tier);
        let asks = plan.kind == PlanKind::Failover && plan.initiator.is_automatic() && tier == Tier::Approve;
        asks.then(|| Permit { index: self.position.index, term: self.position.term, needs: 1, agreed: Vec::new() })
    }

    /// Whether an automatic grant is within what the group's tier leaves to a machine.
    pub(super) fn check_tier(&self, grant: &Grant, tier: Tier) -> Result<(), Refusal> {
        let approved = grant.plan.and_then(|plan| self.plans.get(&plan)).is_some_and(PlanState::is_approved);
        let allowed = match tier {
            Tier::Auto => true,
            Tier::Approve => approved,
            Tier::Manual | Tier::Restore => false,
        };
        rule("ledger.tier_ignored", allowed, || Refusal::TierAsks { group: grant.group.clone(), tier })
    }

    /// An open plan.
    pub(super) fn open_plan_by_id(&self, plan: PlanId) -> Result<&PlanState, Refusal> {
        let state = self.plans.get(&plan).ok_or(Refusal::PlanUnknown { plan })?;
        rule("ledger.closed_plan_goes_on", state.is_open(), || Refusal::PlanOver { plan })?;
        Ok(state)
    }

    /// An open plan that moves a group to a host.
    pub(super) fn plan_that_moves(
        &self,
        plan: PlanId,
        group: &GroupName,
        to: &HostName,
    ) -> Result<&PlanState, Refusal> {
        let state = self.open_plan_by_id(plan)?;
        let mismatch = || Refusal::PlanMismatch { plan, group: group.clone() };
        let moves = state.plan.group == *group && state.plan.to.as_ref().is_none_or(|planned| planned == to);
        rule("ledger.grant_by_another_plan", moves && state.plan.kind != PlanKind::Drill, mismatch)?;
        rule("ledger.denied_plan_goes_on", state.denied.is_none(), || Refusal::PlanDenied { plan })?;
        Ok(state)
    }

    pub(super) fn start_step(
        &mut self,
        plan: PlanId,
        step: u32,
        executor: &HostName,
        events: &mut Vec<Event>,
    ) -> Result<(), Refusal> {
        let state = self.open_plan_by_id(plan)?;
        rule("ledger.denied_plan_goes_on", state.denied.is_none(), || Refusal::PlanDenied { plan })?;
        let current = state.current_step() == Some(step as usize);
        rule("ledger.step_out_of_order", current, || Refusal::StepOutOfOrder { plan, step })?;
        state.check_pivot_before(step as usize)?;
        let attempt = match state.steps.get(step as usize) {
            Some(StepState::Started { attempt, .. } | StepState::Ended { attempt, .. }) => attempt.saturating_add(1),
            Some(StepState::Waiting) | None => 1,
        };
        let started = StepState::Started { attempt, executor: executor.clone() };
        self.set_step(plan, step, started)?;
        events.push(Event::StepStarted { plan, step, attempt, executor: executor.clone() });
        Ok(())
    }

    pub(super) fn end_step(
        &mut self,
        plan: PlanId,
        (step, attempt): (u32, u32),
        outcome: &StepOutcome,
        events: &mut Vec<Event>,
    ) -> Result<(), Refusal> {
        let state = self.open_plan_by_id(plan)?;
        state.check_step_end((step, attempt), outcome)?;
        let kind = state.plan.steps.get(step as usize).map(|step| step.kind);
        if kind == Some(StepKind::AwaitApproval) && matches!(outcome, StepOutcome::Done { .. }) {
            let tier = self.group_spec(&state.plan.group).map_or(Tier::Manual, |spec| spec.tier);
            let agreed = state.approval.is_none() || state.is_approved();
            let group = state.plan.group.clone();
            rule("ledger.approval_assumed", agreed, || Refusal::TierAsks { group, tier })?;
        }
        self.set_step(plan, step, StepState::Ended { attempt, outcome: outcome.clone() })?;
        events.push(Event::StepEnded { plan, step, attempt, outcome: outcome.clone() });
        Ok(())
    }

    fn set_step(&mut self, plan: PlanId, step: u32, to: StepState) -> Result<(), Refusal> {
        let state = self.plans.get_mut(&plan).ok_or(Refusal::PlanUnknown { plan })?;
        let slot = state.steps.get_mut(step as usize).ok_or(Refusal::StepOutOfOrder { plan, step })?;
        *slot = to;
        Ok(())
    }

    /// The plan's grant took effect.
    pub(super) fn pivot(&mut self, plan: PlanId, events: &mut Vec<Event>) {
        let at = self.position.index;
        if let Some(state) = self.plans.get_mut(&plan) {
            state.pivot = Some(at);
            events.push(Event::PlanPivoted { plan });
        }
    }

    pub(super) fn close_plan(
        &mut self,
        plan: PlanId,
        outcome: &PlanOutcome,
        events: &mut Vec<Event>,
    ) -> Result<(), Refusal> {
        let state = self.open_plan_by_id(plan)?;
        let group = state.plan.group.clone();
        match outcome {
            PlanOutcome::Done { .. } => {
                let left = state.current_step().map(|step| u32::try_from(step).unwrap_or(u32::MAX));
                rule("ledger.plan_closed_early", left.is_none(), || Refusal::StepOutOfOrder {
                    plan,
                    step: left.unwrap_or_default(),
                })?;
            }
            PlanOutcome::Cancelled { .. } => {
                rule("ledger.cancelled_past_pivot", state.pivot.is_none(), || Refusal::PastPivot { plan })?;
            }
            PlanOutcome::Failed { .. } => {}
        }
        let open = self.groups.get(&group).and_then(|group| group.intent.as_ref());
        if let Some(open) = open.filter(|open| open.plan == Some(plan)) {
            let intent = open.id;
            rule("ledger.plan_closed_mid_move", false, || Refusal::IntentIsOpen { group: group.clone(), intent })?;
        }
        let stops = state.plan.kind == PlanKind::Stop && matches!(outcome, PlanOutcome::Done { .. });
        if stops && let Some(state) = self.groups.get_mut(&group) {
            state.is_parked = true;
        }
        self.plans.get_mut(&plan).expect("looked up before").outcome = Some(outcome.clone());
        self.forget_old_plans();
        events.push(Event::PlanClosed { plan, outcome: outcome.clone() });
        Ok(())
    }

    fn forget_old_plans(&mut self) {
        let closed: Vec<PlanId> = self.plans.values().filter(|plan| !plan.is_open()).map(|plan| plan.id).collect();
        for old in closed.iter().take(closed.len().saturating_sub(CLOSED_KEPT)) {
            self.plans.remove(old);
        }
    }
}

impl PlanState {
    /// Whether a person agreed, in this term.
    pub fn is_approved(&self) -> bool {
        self.denied.is_none() && self.approval.as_ref().is_some_and(Permit::is_given)
    }

    /// What comes after the grant begins only after it took effect.
    fn check_pivot_before(&self, step: usize) -> Result<(), Refusal> {
        let grant = self.plan.steps.iter().position(|step| step.kind == StepKind::Grant);
        let reached = grant.is_none_or(|grant| step <= grant || self.pivot.is_some());
        rule("ledger.started_before_pivot", reached, || Refusal::BeforePivot { plan: self.id })
    }

    fn check_step_end(&self, (step, attempt): (u32, u32), outcome: &StepOutcome) -> Result<(), Refusal> {
        let plan = self.id;
        let index = step as usize;
        let Some(planned) = self.plan.steps.get(index) else {
            return Err(Refusal::StepOutOfOrder { plan, step });
        };
        match outcome {
            StepOutcome::Undone => {
                rule("ledger.undone_past_pivot", self.pivot.is_none(), || Refusal::PastPivot { plan })
            }
            StepOutcome::Skipped { .. } => {
                let current = self.current_step() == Some(index);
                rule("ledger.skipped_out_of_order", current, || Refusal::StepOutOfOrder { plan, step })?;
                let skippable = planned.kind.is_skippable();
                rule("ledger.safety_step_skipped", skippable, || Refusal::StepNotSkippable { plan, step })
            }
            StepOutcome::Done { .. } | StepOutcome::Failed { .. } | StepOutcome::TimedOut => {
                let under_way =
                    matches!(self.steps.get(index), Some(StepState::Started { attempt: now, .. }) if *now == attempt);
                rule("ledger.late_attempt_counts", under_way, || Refusal::AttemptStale { plan, step })?;
                let granted = planned.kind != StepKind::Grant
                    || self.pivot.is_some()
                    || !matches!(outcome, StepOutcome::Done { .. });
                rule("ledger.grant_step_assumed", granted, || Refusal::BeforePivot { plan })
            }
        }
    }
}

/// What every plan of a kind has, and what none may have.
fn check_shape(plan: &Plan) -> Result<(), Refusal> {
    let grants = plan.steps.iter().filter(|step| step.kind == StepKind::Grant).count();
    let moves = match plan.kind {
        PlanKind::Failover | PlanKind::Switchover | PlanKind::Failback | PlanKind::Migration | PlanKind::Restart => {
            true
        }
        PlanKind::Reprotect | PlanKind::Stop | PlanKind::Drill => false,
    };
    let why = if plan.steps.is_empty() || plan.steps.len() > STEPS_MAX {
        Some("it has no steps, or too many")
    } else if moves && grants != 1 {
        Some("a move has one grant")
    } else if !moves && grants != 0 && !mutants::on("ledger.drill_grants") {
        Some("only a move may grant")
    } else {
        None
    };
    match why {
        None => Ok(()),
        Some(why) => rule("ledger.misshapen_plan", false, || Refusal::PlanShape { why: why.to_owned() }),
    }
}
