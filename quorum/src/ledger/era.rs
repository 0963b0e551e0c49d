//! A new era after a majority was lost for ever (protocol §9).
//!
//! The ledger that begins it may be behind. So every place of a group, as any revision or the person names it, is a
//! possible owner in every admission of older eras; every copy's worth is unknown; every token starts in a range above
//! all older ones. A lease of an older era proves nothing: its voters aren't ours.

use super::apply::rule;
use super::command::EraBegun;
use super::event::Event;
use super::evidence::{Class, Incarnation};
use super::plan::PlanOutcome;
use super::refusal::Refusal;
use super::state::{Ended, Ground, IncarnationState, Ledger, Owner};
use crate::id::{Epoch, Era, GroupName, HostEpoch, HostName};
use crate::mutants;
use crate::roster::ConfigId;
use std::collections::{BTreeMap, BTreeSet};

impl Ledger {
    pub(super) fn begin_era(&mut self, begun: &EraBegun, events: &mut Vec<Event>) -> Result<(), Refusal> {
        self.check_era(begun)?;
        self.era = begun.era;
        self.config = ConfigId { era: begun.era, index: self.position.index };
        let places = self.places_of_all_groups(&begun.places);
        let hosts: BTreeSet<HostName> = self.hosts.keys().chain(places.values().flatten()).cloned().collect();
        for host in hosts {
            self.close_older_admissions(&host, begun.era);
        }
        for (group, hosts) in places {
            self.suspend_group(&group, hosts, begun.era);
        }
        self.raise_tombstones(begun.era);
        self.end_what_was_under_way(events);
        let groups = u32::try_from(self.groups.len()).unwrap_or(u32::MAX);
        events.push(Event::EraBegun { era: begun.era, groups });
        Ok(())
    }

    /// Every voter of the old configuration must have been looked for, and the survivors must not be a majority.
    fn check_era(&self, begun: &EraBegun) -> Result<(), Refusal> {
        rule("ledger.not_bootstrapped", self.cluster.is_some(), || Refusal::NotBootstrapped {})?;
        let newer = begun.era > self.era;
        rule("ledger.era_lowered", newer, || Refusal::EraNotNewer { asked: begun.era, now: self.era })?;
        for voter in self.membership.all_voters().map(|voter| voter.id) {
            let looked_for = begun.unreachable.contains(&voter) || begun.survivors.contains(&voter);
            rule("ledger.voter_forgotten", looked_for, || Refusal::MajorityAlive { voter })?;
        }
        let alive = |id| begun.survivors.contains(&id);
        let majority = self.membership.has_majority(alive);
        let voter = begun.survivors.first().copied().unwrap_or_default();
        rule("ledger.era_despite_majority", !majority, || Refusal::MajorityAlive { voter })?;
        match begun.places.keys().find(|group| !self.groups.contains_key(*group)) {
            None => Ok(()),
            Some(group) => Err(Refusal::UnknownGroup { group: group.clone() }),
        }
    }

    /// (b): whoever was ever named as a place, by any revision or by the person.
    fn places_of_all_groups(
        &self,
        named: &BTreeMap<GroupName, Vec<HostName>>,
    ) -> BTreeMap<GroupName, BTreeSet<HostName>> {
        let of_group = |(name, state): (&GroupName, &super::state::GroupState)| {
            let mut hosts = if mutants::on("ledger.era_keeps_owners") {
                state.owners.keys().map(|owner| owner.host.clone()).collect()
            } else {
                state.places_ever.clone()
            };
            hosts.extend(state.owners.keys().map(|owner| owner.host.clone()));
            hosts.extend(named.get(name).into_iter().flatten().cloned());
            (name.clone(), hosts)
        };
        self.groups.iter().map(of_group).collect()
    }

    /// (a) for hosts: one record stands for every admission of older eras, known or not.
    fn close_older_admissions(&mut self, host: &HostName, era: Era) {
        let at = self.position.index;
        let terms = self.timing().expect("checked before every command").lease_terms();
        let state = self.hosts.entry(host.clone()).or_default();
        let last = state.incarnations.remove(&state.he);
        let he = HostEpoch::in_era(era, 0);
        state.he = he;
        state.incarnations.clear();
        let older = IncarnationState {
            admitted_at: at,
            boot: last.as_ref().and_then(|last| last.boot),
            instance: last.as_ref().and_then(|last| last.instance),
            hardware: last.as_ref().and_then(|last| last.hardware),
            // Of a host that nobody knows nothing may be concluded from its own word.
            class: last.as_ref().map_or(Class::C, |last| last.class),
            lab: last.as_ref().is_some_and(|last| last.lab),
            ended: Some(Ended::EraOver { at }),
            terms: last.as_ref().map_or(terms, |last| last.terms.widest(terms)),
            expired: BTreeSet::new(),
            lease_over: None,
            evidence: Vec::new(),
        };
        state.incarnations.insert(he, Box::new(older));
    }

    /// (a), (b), (c) for groups.
    fn suspend_group(&mut self, group: &GroupName, hosts: BTreeSet<HostName>, era: Era) {
        let he = HostEpoch::in_era(era, 0);
        let before: Vec<Incarnation> = self.groups[group].owners.keys().cloned().collect();
        for host in &hosts {
            let of = Incarnation { host: host.clone(), he };
            self.insert_owner(group, of, Owner { ground: Ground::OlderEra, stopped: None });
        }
        let state = self.group_mut(group);
        for of in before {
            state.owners.remove(&of);
        }
        state.places_ever.extend(hosts);
        state.epoch = Epoch::in_era(era, 0);
        state.ticket = None;
        if !mutants::on("ledger.era_keeps_in_sync") {
            state.in_sync.clear();
        }
        state.copies.clear();
        state.intent = None;
        state.pin = None;
    }

    fn raise_tombstones(&mut self, era: Era) {
        for epoch in self.tombstones.groups.values_mut() {
            *epoch = Epoch::in_era(era, 0);
        }
        for he in self.tombstones.hosts.values_mut() {
            *he = HostEpoch::in_era(era, 0);
        }
    }

    /// Tasks, plans and permits of the older era end; what forbids goes on.
    fn end_what_was_under_way(&mut self, events: &mut Vec<Event>) {
        self.tasks.clear();
        self.recent_losses.clear();
        self.void_permits(events);
        let outcome = PlanOutcome::Failed {
            because: "the era ended".to_owned(),
            next: "`antipode status`, then move the group again".to_owned(),
        };
        for plan in self.plans.values_mut().filter(|plan| plan.is_open()) {
            plan.outcome = Some(outcome.clone());
            events.push(Event::PlanClosed { plan: plan.id, outcome: outcome.clone() });
        }
    }
}
