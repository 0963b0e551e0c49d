//! The steps of each kind of plan.

use quorum::id::HostName;
use quorum::ledger::{PlanKind, Step, StepKind};
use quorum::mutants;
use std::time::Duration;

/// Who takes part in a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The owner that a planned move stops, or that mirrors in a reprotection.
    pub from: Option<HostName>,
    /// The next owner, or the standby of a reprotection.
    pub to: HostName,
    /// A person must say go.
    pub needs_approval: bool,
    /// How long the workload may take until its probe succeeds.
    pub probe_within: Duration,
}

/// Evidence comes within the lease wait; after this the plan says that a person is needed.
const EVIDENCE: Duration = Duration::from_secs(60);
/// A person may take this long to say go.
const APPROVAL: Duration = Duration::from_secs(24 * 3_600);
const GRANT: Duration = Duration::from_secs(10);
const LOCAL: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(120);
/// A whole volume may have to be compared and copied.
const REVERSE: Duration = Duration::from_secs(24 * 3_600);

/// The steps of a plan of this kind.
pub fn steps(kind: PlanKind, route: &Route) -> Vec<Step> {
    let leader = |kind, deadline| Step { kind, host: None, deadline };
    let at = |kind, host: &HostName, deadline| Step { kind, host: Some(host.clone()), deadline };
    let bring_up = [
        leader(StepKind::Grant, GRANT),
        at(StepKind::Promote, &route.to, LOCAL),
        at(StepKind::Start, &route.to, LOCAL),
        at(StepKind::Announce, &route.to, LOCAL),
        at(StepKind::Probe, &route.to, route.probe_within.max(LOCAL)),
    ];
    let stop = route.from.as_ref().map(|from| at(StepKind::Stop, from, STOP));
    let mut steps = Vec::new();
    match kind {
        PlanKind::Drill if mutants::on("engine.drills_for_real") => {
            steps.push(leader(StepKind::Preflight, LOCAL));
            steps.extend(stop);
        }
        PlanKind::Failover | PlanKind::Restart => {
            steps.push(leader(StepKind::AwaitEvidence, EVIDENCE));
            steps.extend(route.needs_approval.then(|| leader(StepKind::AwaitApproval, APPROVAL)));
            steps.extend(bring_up);
        }
        PlanKind::Switchover | PlanKind::Failback | PlanKind::Migration => {
            steps.push(leader(StepKind::Preflight, LOCAL));
            steps.extend(stop);
            steps.extend(bring_up);
        }
        PlanKind::Reprotect => {
            steps.extend(route.from.as_ref().map(|from| at(StepKind::Reverse, from, REVERSE)));
            steps.push(leader(StepKind::AwaitInSync, GRANT));
        }
        PlanKind::Stop => steps.extend(stop),
        PlanKind::Drill => {}
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(needs_approval: bool) -> Route {
        let host = |name: &str| HostName::new(name).expect("a name");
        Route { from: Some(host("a1")), to: host("b1"), needs_approval, probe_within: Duration::from_secs(60) }
    }

    #[test]
    fn every_plan_that_moves_a_ticket_has_exactly_one_pivot_and_starts_behind_it() {
        for kind in [PlanKind::Failover, PlanKind::Switchover, PlanKind::Failback] {
            let steps = steps(kind, &route(false));
            let position = |kind| steps.iter().position(|step| step.kind == kind).expect("the step");
            assert_eq!(steps.iter().filter(|step| step.kind == StepKind::Grant).count(), 1, "{kind:?}");
            assert!(position(StepKind::Grant) < position(StepKind::Start), "{kind:?}");
            assert!(steps.iter().all(|step| !step.deadline.is_zero()));
        }
    }

    #[test]
    fn approval_comes_before_the_pivot() {
        let steps = steps(PlanKind::Failover, &route(true));
        let at = |kind| steps.iter().position(|step| step.kind == kind).expect("the step");
        assert!(at(StepKind::AwaitApproval) < at(StepKind::Grant));
    }
}
