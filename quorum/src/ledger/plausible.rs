//! What no log adds up to: a ledger that a peer or a damaged backup made up.
//!
//! Every rule of `apply` holds for a ledger that grew from entries, so that its sums can't overflow and its lists fit each
//! other. A snapshot is taken as a whole. Here is what the code relies on; not whether the ledger is true, which nobody
//! could tell from it.

use super::plan::{PlanState, StepState};
use super::state::Ledger;
use crate::replica::wire::COUNT_MAX;

/// More attempts at a step, and more host epochs or epochs in an era, than any cluster lives to see.
const ATTEMPTS_MAX: u32 = 1 << 31;
const TOKENS_MAX: u64 = 1 << 47;

impl Ledger {
    /// What makes this ledger one that no log adds up to, if anything does.
    pub fn impossible(&self) -> Option<&'static str> {
        let broken = [
            (self.has_absurd_counts(), "a count in the ledger is beyond anything real"),
            (self.has_absurd_tokens(), "an epoch in the ledger is beyond anything real"),
            (!self.plans.values().all(is_whole), "a plan in the ledger has other steps than it plans"),
            (
                self.timing().is_some_and(|timing| !timing.is_within_range()),
                "the ledger's timing is beyond what can be reckoned with",
            ),
        ];
        broken.into_iter().find_map(|(is_broken, because)| is_broken.then_some(because))
    }

    fn has_absurd_counts(&self) -> bool {
        let generations = self.groups.values().map(|group| group.generation.0);
        let fixed = [self.position.index.0, self.position.term.0, self.audit.length, self.spec.revision];
        fixed.into_iter().chain(generations).any(|count| count > COUNT_MAX)
    }

    fn has_absurd_tokens(&self) -> bool {
        let host_epochs = self.hosts.values().map(|host| host.he).chain(self.tombstones.hosts.values().copied());
        let epochs = self.groups.values().map(|group| group.epoch).chain(self.tombstones.groups.values().copied());
        host_epochs.map(|he| he.count()).chain(epochs.map(|epoch| epoch.count())).any(|count| count > TOKENS_MAX)
    }
}

fn is_whole(state: &PlanState) -> bool {
    let is_possible = |step: &StepState| match step {
        StepState::Started { attempt, .. } | StepState::Ended { attempt, .. } => *attempt <= ATTEMPTS_MAX,
        StepState::Waiting => true,
    };
    state.steps.len() == state.plan.steps.len() && state.steps.iter().all(is_possible)
}

#[cfg(test)]
mod tests {
    use super::super::person::Initiator;
    use super::super::plan::{Plan, PlanKind, Step, StepKind};
    use super::super::state::HostState;
    use super::*;
    use crate::id::{Epoch, Era, GroupName, HostEpoch, HostName, LogIndex, PlanId};
    use std::time::Duration;

    #[test]
    fn what_no_log_adds_up_to_is_named() {
        assert_eq!(Ledger::default().impossible(), None);
        let broken = |spoil: fn(&mut Ledger)| {
            let mut ledger = Ledger::default();
            spoil(&mut ledger);
            ledger.impossible()
        };
        for spoil in [
            (|ledger: &mut Ledger| ledger.position.index = LogIndex(COUNT_MAX + 1)) as fn(&mut Ledger),
            |ledger| ledger.position.term.0 = u64::MAX,
            |ledger| ledger.audit.length = u64::MAX,
            |ledger| ledger.spec.revision = u64::MAX,
        ] {
            assert_eq!(broken(spoil), Some("a count in the ledger is beyond anything real"));
        }
        let tokens = broken(|ledger| {
            let he = HostEpoch::in_era(Era(3), u64::MAX);
            ledger.hosts.insert(HostName::new("tk1").expect("a name"), HostState { he, ..HostState::default() });
        });
        assert_eq!(tokens, Some("an epoch in the ledger is beyond anything real"));
    }

    #[test]
    fn a_plan_has_one_state_for_each_step_and_so_many_attempts_as_can_be_made() {
        let step = Step { kind: StepKind::Start, host: None, deadline: Duration::ZERO };
        let waiting = StepState::Waiting;
        let tried = StepState::Started { attempt: u32::MAX, executor: HostName::new("tk1").expect("a name") };
        for (states, is_possible) in
            [(vec![], false), (vec![waiting.clone()], true), (vec![waiting; 2], false), (vec![tried], false)]
        {
            let plan = Plan {
                kind: PlanKind::Restart,
                group: GroupName::new("erp").expect("a name"),
                epoch: Epoch::default(),
                from: None,
                to: None,
                steps: vec![step.clone()],
                initiator: Initiator::Automatic,
                because: String::new(),
            };
            let (pivot, outcome, approval, denied) = (None, None, None, None);
            let state = PlanState { id: PlanId(1), plan, steps: states, pivot, outcome, approval, denied };
            let mut ledger = Ledger::default();
            ledger.plans.insert(PlanId(1), state);
            let because = "a plan in the ledger has other steps than it plans";
            assert_eq!(ledger.impossible(), (!is_possible).then_some(because));
        }
    }
}
