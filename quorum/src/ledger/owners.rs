//! The set of possible owners, and the index from hosts to groups that goes with it.
//!
//! Invariant: an owner leaves the set only through here, and every caller names the proof: `Stopped`, covering
//! evidence, `Absent`, or being the new owner itself. `on_host` names exactly the hosts of the owners.

use super::evidence::Incarnation;
use super::state::{GroupState, Ledger, Owner};
use crate::id::{GroupName, HostName};

impl Ledger {
    /// A group that the caller has just looked up.
    pub(super) fn group_mut(&mut self, group: &GroupName) -> &mut GroupState {
        self.groups.get_mut(group).expect("looked up before")
    }

    pub(super) fn insert_owner(&mut self, group: &GroupName, of: Incarnation, owner: Owner) {
        self.on_host.entry(of.host.clone()).or_default().insert(group.clone());
        self.group_mut(group).owners.insert(of, owner);
    }

    pub(super) fn remove_owner(&mut self, group: &GroupName, of: &Incarnation) {
        let state = self.group_mut(group);
        state.owners.remove(of);
        let elsewhere = state.owners.keys().any(|owner| owner.host == of.host);
        if !elsewhere {
            self.remove_from_index(group, &of.host);
        }
        self.forget_incarnations(&of.host);
    }

    fn remove_from_index(&mut self, group: &GroupName, host: &HostName) {
        if let Some(groups) = self.on_host.get_mut(host) {
            groups.remove(group);
            if groups.is_empty() {
                self.on_host.remove(host);
            }
        }
    }

    /// After a full proof of everybody, `of` is the only possible owner.
    pub(super) fn replace_owners(&mut self, group: &GroupName, of: Incarnation, owner: Owner) {
        let before: Vec<Incarnation> = self.groups[group].owners.keys().cloned().collect();
        for former in before {
            self.remove_owner(group, &former);
        }
        self.insert_owner(group, of, owner);
    }
}
