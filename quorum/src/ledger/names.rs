//! Birth and end of names: specs, groups, hosts (protocol §7).
//!
//! A newborn group may be running anywhere it was ever configured by hand: every place is a possible owner until it
//! says that nothing of the group runs there. A removed name leaves its last epoch behind, from which it goes on.

use super::apply::rule;
use super::command::SetSpec;
use super::cover::Reach;
use super::event::Event;
use super::evidence::Incarnation;
use super::refusal::Refusal;
use super::spec::SpecRevision;
use super::spec_check::SpecProblems;
use super::state::{Ground, GroupState, Ledger, Owner};
use crate::id::{Epoch, Generation, GroupName, HostEpoch, HostName};
use crate::mutants;
use std::collections::{BTreeMap, BTreeSet};

impl Ledger {
    pub(super) fn set_spec(&mut self, set: &SetSpec, events: &mut Vec<Event>) -> Result<(), Refusal> {
        let next = self.spec.revision + 1;
        rule("ledger.spec_overwritten", set.revision == next, || Refusal::SpecRevisionNotNext {
            asked: set.revision,
            next,
        })?;
        let timing = self.timing().expect("checked before every command");
        let problems = self.spec_problems(&set.spec, timing);
        rule("ledger.bad_spec_accepted", problems.is_empty(), || Refusal::SpecInvalid {
            problems: SpecProblems(problems),
        })?;
        for (name, group) in &mut self.groups {
            let Some(spec) = set.spec.groups.get(name) else { continue };
            group.places_ever.extend(spec.hosts().cloned());
            let owners: BTreeSet<&HostName> = group.owners.keys().map(|owner| &owner.host).collect();
            // A place that comes back later must say again that nothing was left there meanwhile.
            group.absent.retain(|host| spec.names(host) || owners.contains(host));
        }
        self.spec = SpecRevision {
            revision: set.revision,
            spec: set.spec.clone(),
            source: set.source.clone(),
            by: Some(set.by.by.clone()),
            at: self.position.index,
        };
        events.push(Event::SpecSet { revision: set.revision, by: set.by.by.to_string() });
        Ok(())
    }

    pub(super) fn create_group(
        &mut self,
        group: &GroupName,
        source: &HostName,
        events: &mut Vec<Event>,
    ) -> Result<(), Refusal> {
        let unknown = || Refusal::UnknownGroup { group: group.clone() };
        let spec = self.group_spec(group).ok_or_else(unknown)?;
        let newborn = !self.groups.contains_key(group);
        rule("ledger.group_born_twice", newborn, || Refusal::GroupExists { group: group.clone() })?;
        rule("ledger.born_elsewhere", spec.names(source), || Refusal::NotAPlace {
            group: group.clone(),
            host: source.clone(),
        })?;
        let places: BTreeSet<HostName> = spec.hosts().cloned().collect();
        let in_sync = places.iter().filter(|host| spec.is_same_copy(source, host)).cloned().collect();
        let last = self.tombstones.groups.get(group).copied().unwrap_or_default();
        let state = GroupState {
            created_at: self.position.index,
            source: source.clone(),
            epoch: if mutants::on("ledger.name_starts_over") { Epoch::default() } else { last }
                .max(Epoch::in_era(self.era, 0)),
            ticket: None,
            last_owner: None,
            owners: BTreeMap::new(),
            absent: BTreeSet::new(),
            places_ever: places.clone(),
            generation: Generation(1),
            in_sync,
            copies: BTreeMap::new(),
            diverged: BTreeMap::new(),
            intent: None,
            pin: None,
            is_parked: false,
        };
        self.groups.insert(group.clone(), state);
        self.tombstones.groups.remove(group);
        let awaits = u32::try_from(places.len()).unwrap_or(u32::MAX);
        let he = HostEpoch::in_era(self.era, 0);
        for host in places {
            let claim = Owner { ground: Ground::Place, stopped: None };
            self.insert_owner(group, Incarnation { host, he }, claim);
        }
        events.push(Event::GroupCreated { group: group.clone(), source: source.clone(), awaits });
        Ok(())
    }

    /// A host that is admitted says that nothing of the group runs there: it answers the claim of the group's birth,
    /// or becomes a place to which the group may be granted.
    pub(super) fn note_absent(
        &mut self,
        group: &GroupName,
        of: &Incarnation,
        events: &mut Vec<Event>,
    ) -> Result<(), Refusal> {
        let ended = self.current(of)?.ended.is_some();
        rule("ledger.absent_by_the_ended", !ended, || Refusal::OwnerEnded { group: group.clone(), of: of.clone() })?;
        let claims = self.place_claims(group, &of.host)?;
        let state = &self.groups[group];
        let place = self.group_spec(group).is_some_and(|spec| spec.names(&of.host));
        let holds = state.owners.keys().any(|owner| owner.host == of.host);
        let asked = !claims.is_empty() || place && !holds && !state.absent.contains(&of.host);
        rule("ledger.absent_unasked", asked, || Refusal::AbsentNotAsked {
            group: group.clone(),
            host: of.host.clone(),
        })?;
        self.mark_absent(group, &of.host, claims, events);
        Ok(())
    }

    /// The claims of a group's birth on a host.
    pub(super) fn place_claims(&self, group: &GroupName, host: &HostName) -> Result<Vec<Incarnation>, Refusal> {
        let state = self.groups.get(group).ok_or_else(|| Refusal::UnknownGroup { group: group.clone() })?;
        let claims = state.owners.iter().filter(|(owner, claim)| owner.host == *host && claim.ground == Ground::Place);
        Ok(claims.map(|(owner, _)| owner.clone()).collect())
    }

    pub(super) fn mark_absent(
        &mut self,
        group: &GroupName,
        host: &HostName,
        claims: Vec<Incarnation>,
        events: &mut Vec<Event>,
    ) {
        for claim in claims {
            self.remove_owner(group, &claim);
        }
        let state = self.group_mut(group);
        state.absent.insert(host.clone());
        let awaits = state.owners.values().filter(|claim| claim.ground == Ground::Place).count();
        let awaits = u32::try_from(awaits).unwrap_or(u32::MAX);
        events.push(Event::AbsentSeen { group: group.clone(), host: host.clone(), awaits });
    }

    pub(super) fn remove_group(&mut self, group: &GroupName, events: &mut Vec<Event>) -> Result<(), Refusal> {
        let state = self.groups.get(group).ok_or_else(|| Refusal::UnknownGroup { group: group.clone() })?;
        for owner in state.owners.keys() {
            let covered = self.cover(group, owner, Reach::Anywhere).is_ok();
            rule("ledger.living_group_removed", covered, || Refusal::GroupInUse {
                group: group.clone(),
                owner: owner.clone(),
            })?;
        }
        if let Some(plan) = self.open_plan(group) {
            return Err(Refusal::PlanBusy { group: group.clone(), plan: plan.id });
        }
        let epoch = state.epoch;
        let owners: Vec<Incarnation> = state.owners.keys().cloned().collect();
        for owner in owners {
            self.remove_owner(group, &owner);
        }
        self.groups.remove(group);
        self.losses.retain(|_, loss| loss.asked.group != *group);
        self.tombstones.groups.insert(group.clone(), epoch);
        events.push(Event::GroupRemoved { group: group.clone(), epoch });
        Ok(())
    }

    pub(super) fn remove_host(&mut self, host: &HostName, events: &mut Vec<Event>) -> Result<(), Refusal> {
        let Some(state) = self.hosts.get(host) else {
            return Err(Refusal::UnknownHost { host: host.clone() });
        };
        let of = Incarnation { host: host.clone(), he: state.he };
        let ended = self.admitted(host).is_none();
        rule("ledger.living_host_removed", ended, || Refusal::HostStillAdmitted { host: host.clone() })?;
        if let Some(group) = self.on_host.get(host).and_then(BTreeSet::first) {
            rule("ledger.owner_removed", false, || Refusal::HostInUse { host: host.clone(), group: group.clone() })?;
        }
        let votes = self.membership.all_voters().any(|voter| voter.host == *host);
        rule("ledger.voter_removed", !votes, || Refusal::HostIsVoter { host: host.clone() })?;
        self.check_fence_tasks(host)?;
        self.hosts.remove(host);
        self.supports.remove(host);
        self.tasks.retain(|_, task| task.of.host != *host);
        self.tombstones.hosts.insert(host.clone(), of.he);
        events.push(Event::HostRemoved { of });
        Ok(())
    }
}
