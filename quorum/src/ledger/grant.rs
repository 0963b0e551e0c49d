//! The grant: the pivot of every move (protocol §7).
//!
//! `Grant(g, X, e+1)` is valid iff e is current; X is admitted, with no loss, retirement or evidence; every possible
//! owner is proven harmless; the data gate passes; and what allows it (tier, hold-off, brake, freeze) does allow it.
//! That X's lease lives is checked by the proposer and again by X: `apply` can't know it.

use super::apply::rule;
use super::command::{Grant, GrantCause};
use super::cover::Reach;
use super::event::{Event, ProofKind};
use super::evidence::Incarnation;
use super::gate::GateResult;
use super::refusal::Refusal;
use super::state::{Ground, GroupState, Ledger, Owner, Ticket, TicketState};
use crate::id::GroupName;
use std::time::Duration;

/// What a valid grant rests on.
pub(super) struct GrantBasis {
    proofs: Vec<(Incarnation, ProofKind)>,
    gate: GateResult,
}

impl Ledger {
    /// Whether the grant would be accepted now: the same check as in `apply`.
    ///
    /// # Errors
    /// The first rule that refuses it.
    pub fn may_grant(&self, grant: &Grant) -> Result<(), Refusal> {
        self.check_grant(grant).map(|_| ())
    }

    pub(super) fn grant(&mut self, grant: &Grant, events: &mut Vec<Event>) -> Result<(), Refusal> {
        let basis = self.check_grant(grant)?;
        let group = &grant.group;
        let at = self.position.index;
        self.close_intent(group, "granted", events);
        let owner = Owner { ground: Ground::Granted(grant.epoch), stopped: None };
        self.replace_owners(group, grant.to.clone(), owner);
        let state = self.group_mut(group);
        state.epoch = grant.epoch;
        state.last_owner = Some(grant.to.host.clone());
        // What was adopted is accounted for as if it had been granted from the beginning.
        state.absent.insert(grant.to.host.clone());
        state.is_parked = false;
        state.ticket = Some(Ticket {
            of: grant.to.clone(),
            epoch: grant.epoch,
            granted_at: at,
            opens: basis.gate.opens,
            adopt: grant.adopt,
            state: TicketState::Granted,
        });
        state.generation = basis.gate.generation;
        state.copies.retain(|host, _| !basis.gate.in_sync.contains(host));
        state.in_sync = basis.gate.in_sync;
        state.diverged.remove(&grant.to.host);
        self.losses.retain(|_, loss| loss.asked.group != *group);
        events.push(Event::Granted {
            group: group.clone(),
            to: grant.to.clone(),
            epoch: grant.epoch,
            opens: basis.gate.opens,
            generation: basis.gate.generation,
            proofs: basis.proofs,
            expected_loss: basis.gate.expected_loss,
        });
        if let Some(plan) = grant.plan {
            self.pivot(plan, events);
        }
        Ok(())
    }

    fn check_grant(&self, grant: &Grant) -> Result<GrantBasis, Refusal> {
        let group = &grant.group;
        let state = self.groups.get(group).ok_or_else(|| Refusal::UnknownGroup { group: group.clone() })?;
        let next = state.epoch.next();
        rule("ledger.epoch_skipped", grant.epoch == next, || Refusal::EpochNotNext {
            group: group.clone(),
            asked: grant.epoch,
            next,
        })?;
        self.check_not_pinned(group)?;
        if grant.adopt {
            self.check_living_target(&grant.to)?;
            let newborn = state.last_owner.is_none() && grant.to.host == state.source;
            rule("ledger.adopted_elsewhere", newborn, || Refusal::AdoptOnlySource { group: group.clone() })?;
        } else {
            self.check_target(group, &grant.to)?;
        }
        let proofs = self.prove_owners(grant, state)?;
        self.check_cause(grant, state)?;
        if let Some(plan) = grant.plan {
            self.plan_that_moves(plan, group, &grant.to.host)?;
        }
        let gate = self.pass_gate(grant, state)?;
        Ok(GrantBasis { proofs, gate })
    }

    /// Whether a host may become an owner at all: admitted, a place, and seen to have had nothing of the group.
    pub(super) fn check_target(&self, group: &GroupName, to: &Incarnation) -> Result<(), Refusal> {
        self.check_living_target(to)?;
        let place = self.group_spec(group).is_some_and(|spec| spec.names(&to.host));
        rule("ledger.granted_off_place", place, || Refusal::NotAPlace { group: group.clone(), host: to.host.clone() })?;
        let absent = self.groups.get(group).is_some_and(|state| state.absent.contains(&to.host));
        rule("ledger.granted_before_absent", absent, || Refusal::TargetNotAbsent {
            group: group.clone(),
            host: to.host.clone(),
        })
    }

    fn check_living_target(&self, to: &Incarnation) -> Result<(), Refusal> {
        let living = self.admitted(&to.host).is_some_and(|(he, state)| he == to.he && state.evidence.is_empty());
        rule("ledger.granted_to_the_ended", living, || Refusal::TargetNotAdmitted { of: to.clone() })
    }

    pub(super) fn check_not_pinned(&self, group: &GroupName) -> Result<(), Refusal> {
        let Some(pin) = self.groups.get(group).and_then(|state| state.pin.as_ref()) else { return Ok(()) };
        rule("ledger.pinned_group_granted", false, || Refusal::Pinned { group: group.clone(), of: pin.of.clone() })
    }

    /// Invariant I2: every possible owner is proven harmless before anybody else may run the group.
    fn prove_owners(&self, grant: &Grant, state: &GroupState) -> Result<Vec<(Incarnation, ProofKind)>, Refusal> {
        let mut proofs = Vec::new();
        for (owner, claim) in &state.owners {
            // What already runs at the source of a newborn group is what is granted.
            if grant.adopt && claim.ground == Ground::Place && owner.host == grant.to.host {
                proofs.push((owner.clone(), ProofKind::Adopted));
                continue;
            }
            match self.cover(&grant.group, owner, Reach::To(&grant.to)) {
                Ok(proof) => proofs.push((owner.clone(), proof)),
                Err(gap) => rule("ledger.grant_without_evidence", false, || Refusal::OwnerUnproven {
                    group: grant.group.clone(),
                    owner: owner.clone(),
                    why: gap.to_string(),
                })?,
            }
        }
        Ok(proofs)
    }

    /// What allows the move, apart from its safety.
    fn check_cause(&self, grant: &Grant, state: &GroupState) -> Result<(), Refusal> {
        let group = &grant.group;
        let parked =
            || rule("ledger.parked_group_granted", !state.is_parked, || Refusal::Parked { group: group.clone() });
        match &grant.cause {
            GrantCause::Operator(_) => Ok(()),
            GrantCause::InPlace => {
                parked()?;
                let home = state.last_owner.as_ref().unwrap_or(&state.source);
                rule("ledger.move_in_place", *home == grant.to.host, || Refusal::NotInPlace {
                    group: group.clone(),
                    host: grant.to.host.clone(),
                })
            }
            GrantCause::Intent(intent) => {
                let open = state.intent.as_ref().is_some_and(|open| open.id == *intent && open.to == grant.to);
                rule("ledger.grant_after_abort", open, || Refusal::IntentNotOpen {
                    group: group.clone(),
                    intent: *intent,
                })
            }
            GrantCause::Automatic { waited } => {
                parked()?;
                self.check_automatic(grant, *waited)
            }
        }
    }

    /// A move that nobody asked for: tier, hold-off, brake, freeze, and the target's own restrictions.
    fn check_automatic(&self, grant: &Grant, waited: Duration) -> Result<(), Refusal> {
        let group = &grant.group;
        let spec = self.group_spec(group).ok_or_else(|| Refusal::UnknownGroup { group: group.clone() })?;
        self.check_tier(grant, spec.tier)?;
        let needed = spec.hold_off;
        rule("ledger.hold_off_ignored", waited >= needed, || Refusal::HoldOffRuns {
            group: group.clone(),
            waited,
            needed,
        })?;
        if let Some(brake) = &self.brake {
            let because = || brake.because.clone();
            rule("ledger.granted_under_brake", false, || Refusal::BrakeOn { because: because() })?;
        }
        if let Some((freeze, frozen)) = self.freeze_of_group(group) {
            let held = || Refusal::ActivationHeld { freeze, scope: frozen.scope.clone() };
            rule("ledger.granted_while_held", !frozen.hold_activation, held)?;
            let begun = grant.plan.is_some_and(|plan| plan.0 < freeze.0);
            rule("ledger.new_move_while_frozen", begun, || Refusal::GrantNeedsPlan { group: group.clone() })?;
        }
        let host = &grant.to.host;
        let working = self.maintenance_of(host).is_some();
        rule("ledger.granted_into_maintenance", !working, || Refusal::InMaintenance { host: host.clone() })?;
        match self.hold_of(host) {
            None => Ok(()),
            Some(hold) => rule("ledger.granted_to_held", false, || Refusal::TargetHeld {
                host: host.clone(),
                because: hold.because.clone(),
            }),
        }
    }
}
