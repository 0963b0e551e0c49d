//! Counting leases that were waited out (protocol §3).
//!
//! A voter's `Expired` counts only under the configuration in force at its log position: any majority that granted
//! meets any majority that expired in one voter, if both are majorities of the same configuration.

use super::apply::rule;
use super::event::Event;
use super::evidence::{AcceptedEvidence, Class, EvidenceKind, Incarnation, Scope};
use super::refusal::Refusal;
use super::state::{Ended, Ledger};
use crate::id::VoterId;
use crate::mutants;
use crate::roster::ConfigId;

impl Ledger {
    pub(super) fn expire(
        &mut self,
        voter: VoterId,
        of: &Incarnation,
        config: ConfigId,
        events: &mut Vec<Event>,
    ) -> Result<(), Refusal> {
        let state = self.current(of)?;
        rule("ledger.expired_while_admitted", state.ended.is_some(), || Refusal::LeaseNotEnded { of: of.clone() })?;
        let this_era = !matches!(state.ended, Some(Ended::EraOver { .. }));
        rule("ledger.lease_across_eras", this_era, || Refusal::LeaseOfOlderEra { of: of.clone() })?;
        let now = self.config;
        rule("ledger.expired_of_old_config", config == now, || Refusal::ExpiredOldConfig { config, now })?;
        let votes = self.membership.is_voter(voter);
        rule("ledger.learner_expires", votes, || Refusal::ExpiredFromStranger { voter })?;
        rule("ledger.lease_over_twice", state.lease_over.is_none(), || Refusal::EvidenceKnown { of: of.clone() })?;
        let fresh = !state.expired.contains(&voter);
        rule("ledger.expired_counted_twice", fresh, || Refusal::ExpiredTwice { voter })?;
        let state = self.incarnation_mut(of);
        state.expired.insert(voter);
        let counted = u32::try_from(state.expired.len()).expect("a handful of voters");
        events.push(Event::ExpiredCounted { of: of.clone(), voter, counted });
        self.conclude_lease(of, events);
        Ok(())
    }

    /// m distinct waits in the configuration in force are evidence, if the host has a watchdog that kept its word.
    fn conclude_lease(&mut self, of: &Incarnation, events: &mut Vec<Event>) {
        let index = self.position.index;
        let Some(state) = self.incarnation(of) else { return };
        let all = self.membership.has_majority(|id| state.expired.contains(&id));
        if !all && !mutants::on("ledger.one_voter_expires") {
            return;
        }
        let (class, lab) = (state.class, state.lab);
        let state = self.incarnation_mut(of);
        state.lease_over = Some(index);
        let has_watchdog = match class {
            Class::A | Class::B => true,
            Class::C | Class::D => mutants::on("ledger.class_c_self_fenced"),
        };
        if !has_watchdog {
            return;
        }
        let kind = EvidenceKind::SelfFenced;
        let scope = Scope::Host;
        state.evidence.push(AcceptedEvidence {
            kind,
            scope: scope.clone(),
            index,
            observer: None,
            lab,
            is_sufficient: true,
            at_once: false,
        });
        events.push(Event::EvidenceAccepted { of: of.clone(), kind, scope, lab });
    }

    /// A change of configuration throws away what was counted but not concluded. Returns how many voices that were.
    pub(super) fn discard_counted_expiries(&mut self) -> u32 {
        if mutants::on("ledger.config_keeps_expired") {
            return 0;
        }
        let mut discarded = 0;
        for state in self.hosts.values_mut().flat_map(|host| host.incarnations.values_mut()) {
            if state.lease_over.is_none() {
                discarded += u32::try_from(state.expired.len()).expect("a handful of voters");
                state.expired.clear();
            }
        }
        discarded
    }

    /// Whether a change of voters would make somebody wait longer for a takeover (protocol §3: none while a loss
    /// awaits lease evidence, unless it is needed to keep the quorum; then don't ask).
    ///
    /// # Errors
    /// The admission whose lease is being waited out.
    pub fn may_change_voters(&self) -> Result<(), Refusal> {
        let waits = self.hosts.iter().find_map(|(host, state)| {
            let current = state.incarnations.get(&state.he)?;
            let awaited = match (current.class, current.ended) {
                (Class::A | Class::B, Some(Ended::Lost { .. } | Ended::Retired { .. })) => {
                    current.lease_over.is_none() && current.evidence.is_empty()
                }
                (Class::A | Class::B, None | Some(Ended::EraOver { .. })) | (Class::C | Class::D, _) => false,
            };
            let wanted = self.on_host.get(host).is_some_and(|groups| !groups.is_empty());
            (awaited && wanted).then(|| Incarnation { host: host.clone(), he: state.he })
        });
        match waits {
            None => Ok(()),
            Some(of) => Err(Refusal::ConfigAwaitsLease { of }),
        }
    }
}
