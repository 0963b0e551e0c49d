//! What proves that a possible owner of a group can no longer run it (protocol §6, §7).
//!
//! A proof is `Stopped` by the owner itself, or accepted evidence whose scope covers the group on that host, of a kind
//! that the group accepts and that the host's class can give. Everything else is a gap, and a gap has a name.

use super::event::ProofKind;
use super::evidence::{AcceptedEvidence, Class, EvidenceKind, Incarnation, Scope};
use super::state::{Ended, Ground, GroupState, IncarnationState, Ledger};
use crate::id::GroupName;
use crate::mutants;

/// For what a proof is asked: a host's word about itself reaches less far where it can't be checked (class C).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach<'a> {
    /// For anybody: local evidence doesn't count.
    Anywhere,
    /// For a grant to this incarnation.
    To(&'a Incarnation),
    /// For an admission of the same host: local evidence suffices.
    OnItself,
}

/// Why nothing proves that an owner can no longer run a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Gap {
    /// A place of a newborn group.
    #[error("it didn't say yet that nothing of the group runs there")]
    NotSaidAbsent,
    /// It isn't a possible owner at all.
    #[error("it isn't a possible owner")]
    NotAnOwner,
    /// It is admitted.
    #[error("it is admitted and didn't stop the group")]
    Admitted,
    /// There is no evidence.
    #[error("there is no evidence yet")]
    NoEvidence,
    /// The evidence is about other groups.
    #[error("the {0} evidence is about other groups")]
    OtherGroups(EvidenceKind),
    /// The group's `accept` list doesn't have the kind.
    #[error("the group doesn't accept {0}")]
    NotAccepted(EvidenceKind),
    /// The host's class can't give the kind.
    #[error("a host of class {1} can't prove itself by {0}")]
    ClassForbids(EvidenceKind, Class),
    /// The host's own word counts for a grant to itself only.
    #[error("{0} of a class C host counts only for a grant to itself")]
    LocalOnly(EvidenceKind),
    /// A storage exclusion without isolation of the network.
    #[error("it can't write, but clients may still reach it")]
    NotIsolated,
    /// The group is pinned, and the kind doesn't prove a pinned group gone.
    #[error("the group is pinned: {0} doesn't prove it gone")]
    PinForbids(EvidenceKind),
    /// An operator vouched, but not for acting before the lease is over.
    #[error("an operator vouched for it; its lease isn't over yet")]
    LeaseNotOver,
    /// An operator vouched, but nobody of this era can tell when a lease of an older one is over.
    #[error("an operator vouched for it, but its lease is of an older era: vouch with --now that it is over")]
    LeaseOfOlderEra,
}

impl Ledger {
    /// For every possible owner of a group, what proves it harmless, or why nothing does. `Reach::Anywhere` is the
    /// question before a move; ask [`Ledger::cover`] for a grant to a certain host.
    pub fn covering_evidence(&self, group: &GroupName) -> Vec<(Incarnation, Result<ProofKind, Gap>)> {
        let owners = self.groups.get(group).into_iter().flat_map(|state| state.owners.keys());
        owners.map(|owner| (owner.clone(), self.cover(group, owner, Reach::Anywhere))).collect()
    }

    /// What proves that `owner` can no longer run `group`.
    ///
    /// # Errors
    /// The gap that is closest to being closed: the last one in the order of [`Gap`].
    pub fn cover(&self, group: &GroupName, owner: &Incarnation, reach: Reach<'_>) -> Result<ProofKind, Gap> {
        let state = self.groups.get(group).ok_or(Gap::NotAnOwner)?;
        let claim = state.owners.get(owner).ok_or(Gap::NotAnOwner)?;
        if claim.stopped.is_some() {
            return Ok(ProofKind::Stopped);
        }
        if let (Ground::Incoming(_), Reach::To(target)) = (claim.ground, reach)
            && target == owner
        {
            return Ok(ProofKind::Itself);
        }
        if claim.ground == Ground::Place && !mutants::on("ledger.place_needs_no_absent") {
            return Err(Gap::NotSaidAbsent);
        }
        let incarnation = self.incarnation(owner).ok_or(Gap::NoEvidence)?;
        if incarnation.ended.is_none() {
            return Err(Gap::Admitted);
        }
        let mut gap = Gap::NoEvidence;
        for evidence in &incarnation.evidence {
            match self.counts(evidence, incarnation, (group, state, owner), reach) {
                Ok(()) => return Ok(ProofKind::Evidence(evidence.kind)),
                Err(missing) => gap = gap.max(missing),
            }
        }
        Err(gap)
    }

    /// Whether one piece of evidence proves `owner` harmless to `group`.
    fn counts(
        &self,
        evidence: &AcceptedEvidence,
        incarnation: &IncarnationState,
        (group, state, owner): (&GroupName, &GroupState, &Incarnation),
        reach: Reach<'_>,
    ) -> Result<(), Gap> {
        let kind = evidence.kind;
        let in_scope = match &evidence.scope {
            Scope::Host => true,
            Scope::Groups(groups) => groups.contains(group) || mutants::on("ledger.evidence_of_another_group"),
        };
        gap(in_scope, Gap::OtherGroups(kind))?;
        let accepted = kind.is_always_accepted()
            || self.group_spec(group).is_some_and(|spec| spec.accept.contains(&kind))
            || mutants::on("ledger.accept_list_ignored");
        gap(accepted, Gap::NotAccepted(kind))?;
        gap(self.class_allows(kind, incarnation.class), Gap::ClassForbids(kind, incarnation.class))?;
        let isolated = evidence.is_sufficient || mutants::on("ledger.storage_without_isolation");
        gap(isolated, Gap::NotIsolated)?;
        let pinned = state.pin.as_ref().is_some_and(|pin| pin.of == *owner);
        let for_pinned = !pinned || proves_pinned(kind, incarnation.class) || mutants::on("ledger.pin_and_lease");
        gap(for_pinned, Gap::PinForbids(kind))?;
        let local = is_local(kind, incarnation.class) && !mutants::on("ledger.local_evidence_elsewhere");
        gap(!local || self.reaches_itself(owner, incarnation, reach), Gap::LocalOnly(kind))?;
        let older_era = matches!(incarnation.ended, Some(Ended::EraOver { .. }));
        let missing = if older_era { Gap::LeaseOfOlderEra } else { Gap::LeaseNotOver };
        gap(!awaits_lease(evidence, incarnation), missing)
    }

    /// Protocol §3, classes: the lease of class A is evidence, of B if the cluster says so, of C and D never.
    pub(super) fn class_allows(&self, kind: EvidenceKind, class: Class) -> bool {
        if kind != EvidenceKind::SelfFenced {
            return true;
        }
        match class {
            Class::A => true,
            Class::B => self.spec.spec.policy.trust_software_watchdog || mutants::on("ledger.class_b_trusted"),
            Class::C | Class::D => mutants::on("ledger.class_c_self_fenced"),
        }
    }

    /// Whether a proof that holds on the machine itself only is asked for that machine. A name that passed to
    /// another machine is another one.
    fn reaches_itself(&self, owner: &Incarnation, incarnation: &IncarnationState, reach: Reach<'_>) -> bool {
        match reach {
            Reach::Anywhere => false,
            Reach::OnItself => true,
            Reach::To(target) => {
                let machine = self.incarnation(target).and_then(|state| state.hardware);
                let same = machine.is_some() && machine == incarnation.hardware;
                target.host == owner.host && (same || mutants::on("ledger.local_evidence_of_another_machine"))
            }
        }
    }
}

fn gap(holds: bool, gap: Gap) -> Result<(), Gap> {
    if holds { Ok(()) } else { Err(gap) }
}

/// For a pinned group only what doesn't rest on the lease or on the keeper's general kill counts; a release counts
/// because its scope is what it lists (protocol §5).
fn proves_pinned(kind: EvidenceKind, class: Class) -> bool {
    match kind {
        EvidenceKind::PoweredOff | EvidenceKind::Attested | EvidenceKind::Released => true,
        EvidenceKind::Returned => class != Class::C,
        EvidenceKind::SelfFenced | EvidenceKind::HypervisorOff | EvidenceKind::StorageExcluded => false,
    }
}

/// An agent inside a VM can't know what goes on around it: its word counts on its own machine only.
fn is_local(kind: EvidenceKind, class: Class) -> bool {
    match kind {
        EvidenceKind::Released | EvidenceKind::Returned => class == Class::C,
        EvidenceKind::PoweredOff
        | EvidenceKind::SelfFenced
        | EvidenceKind::Attested
        | EvidenceKind::HypervisorOff
        | EvidenceKind::StorageExcluded => false,
    }
}

/// On classes A and B an override doesn't shorten the lease wait unless that was said and recorded (protocol §6).
fn awaits_lease(evidence: &AcceptedEvidence, incarnation: &IncarnationState) -> bool {
    let has_lease = match incarnation.class {
        Class::A | Class::B => true,
        Class::C | Class::D => false,
    };
    evidence.kind == EvidenceKind::Attested
        && has_lease
        && !evidence.at_once
        && incarnation.lease_over.is_none()
        && !mutants::on("ledger.override_skips_lease")
}
