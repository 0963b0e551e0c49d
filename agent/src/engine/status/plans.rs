//! Open plans, and what a person can do for them.

use super::document::PlanLine;
use super::lines::millis;
use crate::engine::core::Engine;
use quorum::ledger::{Initiator, PlanState, StepKind, StepState};

impl Engine {
    pub(super) fn plan_line(&self, plan: &PlanState) -> PlanLine {
        let current = plan.current_step();
        let step = current.map(|index| &plan.plan.steps[index]);
        let state = match current.map(|index| &plan.steps[index]) {
            None => "running",
            Some(StepState::Waiting) => "waiting",
            Some(StepState::Started { .. }) => "running",
            Some(StepState::Ended { .. }) => "failed",
        };
        PlanLine {
            id: plan.id.0,
            kind: plan.plan.kind.as_str(),
            group: plan.plan.group.to_string(),
            state,
            step: step.map(|step| format!("{:?}", step.kind)).unwrap_or_default(),
            deadline_ms: step.map(|step| millis(step.deadline)).unwrap_or_default(),
            next: self.next_for(plan),
        }
    }

    /// What a person can do for a plan that waits for somebody, or whose step failed.
    pub(in crate::engine) fn next_for(&self, plan: &PlanState) -> String {
        let group = &plan.plan.group;
        let current = plan.current_step();
        let failed = current.is_some_and(|index| matches!(plan.steps[index], StepState::Ended { .. }));
        let by_itself = plan.plan.initiator == Initiator::Automatic;
        match (current.map(|index| plan.plan.steps[index].kind), &plan.plan.from) {
            (Some(StepKind::AwaitApproval), _) if !plan.is_approved() => format!("antipode approve plan {}", plan.id),
            (Some(StepKind::AwaitEvidence), Some(from)) => {
                format!(
                    "antipode explain group {group}; if {0} is off for sure: antipode fence override host {0}",
                    from.host
                )
            }
            (Some(StepKind::Grant), _) if plan.pivot.is_none() => match self.activation_held(group) {
                Some((_, next)) if by_itself => next,
                _ => format!(
                    "antipode explain group {group}; if its data is held: antipode failover {group} --accept-loss"
                ),
            },
            _ if failed => format!("antipode explain group {group}; it is tried again by itself"),
            _ => String::new(),
        }
    }
}
