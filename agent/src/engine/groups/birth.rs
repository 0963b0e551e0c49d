//! Births, first grants and grants in place.

use crate::engine::core::Engine;
use quorum::id::{GroupName, HostName};
use quorum::ledger::{
    Command, DataGate, Decision, Grant, GrantCause, GroupState, Incarnation, Person, PersonKey, PlanState,
};

impl Engine {
    /// A group of the spec that the ledger doesn't know is born where its home's first host is.
    pub(super) fn create(&mut self, group: &GroupName) {
        let Some(spec) = self.ledger.group_spec(group) else { return };
        let home = spec.places.get(&spec.home).or_else(|| spec.places.values().next());
        let Some(source) = home.and_then(|place| place.hosts.first()).cloned() else { return };
        // Absence is said by admitted hosts only: nothing is gained by a birth before.
        if self.ledger.admitted(&source).is_none() {
            return;
        }
        let nobody = || Person { name: "the spec".into(), key: PersonKey::Local(0) };
        let by = Decision {
            by: self.ledger.spec_revision().by.clone().unwrap_or_else(nobody),
            reason: format!("revision {} of the spec names it", self.ledger.spec_revision().revision),
            shown: String::new(),
        };
        self.propose_paced(group.as_str(), Command::GroupCreated { group: group.clone(), source, by });
    }

    /// The first grant goes to the source, and after a new era to who owned it last, if its data agrees.
    pub(super) fn grant_first(&mut self, group: &GroupName, state: &GroupState) {
        // A person's acceptance of loss names the copy that is to run; else it is the last owner's turn.
        let accepted =
            self.ledger.losses().values().find(|loss| loss.asked.group == *group && loss.asked.epoch == state.epoch);
        if let Some((copy, by)) = accepted.map(|loss| (loss.asked.copy.clone(), loss.asked.by.clone())) {
            let Some(gate) = self.data_gate(group, state, &copy) else { return };
            self.try_grant(group, (&copy, gate), GrantCause::Operator(by), None);
            return;
        }
        let owner = state.last_owner.clone().unwrap_or_else(|| state.source.clone());
        self.grant_in_place(group, state, &owner);
    }

    pub(super) fn grant_in_place(&mut self, group: &GroupName, state: &GroupState, host: &HostName) {
        let Some(gate) = self.data_gate(group, state, host) else { return };
        self.try_grant(group, (host, gate), GrantCause::InPlace, None);
    }

    /// Proposes a grant that the ledger would take as things stand. Returns whether it would.
    pub(super) fn try_grant(
        &mut self,
        group: &GroupName,
        (host, gate): (&HostName, DataGate),
        cause: GrantCause,
        plan: Option<&PlanState>,
    ) -> bool {
        let (Some((he, _)), Some(epoch)) = (self.ledger.admitted(host), self.ledger.next_epoch(group)) else {
            return false;
        };
        let to = Incarnation { host: host.clone(), he };
        let plan = plan.map(|plan| plan.id);
        let grant = Grant { group: group.clone(), to, epoch, gate, adopt: false, cause, plan };
        if self.ledger.may_grant(&grant).is_err() || !self.is_alive(host) {
            return false;
        }
        self.propose_paced(group.as_str(), Command::Grant(grant));
        true
    }
}
