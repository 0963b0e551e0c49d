//! The data gate (protocol §7): a copy is activated only if it has everything, or lacks no more than the group allows,
//! or a person accepted the loss.
//!
//! An older generation is held; a copy that is ahead or diverged is held and alarmed. Intervals come from one
//! machine's clock, rounded up. Whoever is granted the ticket has written nothing yet: what it owes to the other copies
//! of the in-sync set is to see that they get every write, or to commit `Detached` before the first that they don't.

use super::apply::rule;
use super::command::{CopyCheck, DataGate, Grant, LossMeasure};
use super::evidence::Class;
use super::refusal::Refusal;
use super::spec::GroupSpec;
use super::state::{GroupState, Ledger};
use crate::id::{Generation, GroupName, HostName, LogIndex};
use crate::mutants;
use std::collections::BTreeSet;
use std::time::Duration;

/// What becomes of the data when the grant takes effect.
pub(super) struct GateResult {
    /// What the new owner's copy must have.
    pub opens: Generation,
    /// What it writes from then on.
    pub generation: Generation,
    /// Whose copies have everything from then on.
    pub in_sync: BTreeSet<HostName>,
    /// The most that is lost.
    pub expected_loss: Option<Duration>,
}

impl Ledger {
    pub(super) fn pass_gate(&self, grant: &Grant, state: &GroupState) -> Result<GateResult, Refusal> {
        let group = &grant.group;
        let host = &grant.to.host;
        match &grant.gate {
            DataGate::NoVolumes => {
                let none = self.group_spec(group).is_some_and(|spec| spec.volumes.is_empty());
                rule("ledger.volumes_ignored", none, || Refusal::HasVolumes { group: group.clone() })?;
                Ok(self.clean(grant, state))
            }
            DataGate::InSync { generation, own } => {
                self.check_agreement(group, state, *generation, *own)?;
                let in_sync = state.in_sync.contains(host) && !state.diverged.contains_key(host);
                rule("ledger.not_in_sync_granted", in_sync, || Refusal::NotInSync {
                    group: group.clone(),
                    host: host.clone(),
                })?;
                Ok(self.clean(grant, state))
            }
            DataGate::Lagging { generation, own, loss } => {
                self.check_agreement(group, state, *generation, *own)?;
                let expected_loss = self.check_loss_measure(grant, state, loss)?;
                Ok(self.lossy(grant, state, state.generation, Some(expected_loss)))
            }
            DataGate::Accepted { acceptance, own } => {
                let expected_loss = self.use_acceptance(grant, *acceptance, *own)?;
                let opens = match own {
                    CopyCheck::Older(generation) => *generation,
                    CopyCheck::Agrees | CopyCheck::Ahead | CopyCheck::Diverged => state.generation,
                };
                Ok(self.lossy(grant, state, opens, expected_loss))
            }
        }
    }

    fn check_agreement(
        &self,
        group: &GroupName,
        state: &GroupState,
        said: Generation,
        own: CopyCheck,
    ) -> Result<(), Refusal> {
        let expected = state.generation;
        rule("ledger.older_generation_granted", said == expected, || Refusal::OtherGeneration {
            group: group.clone(),
            said,
            expected,
        })?;
        rule("ledger.disagreeing_copy_granted", own == CopyCheck::Agrees, || Refusal::CopyDisagrees {
            group: group.clone(),
            own,
        })
    }

    /// expected_loss = lag + min(time since its attestation, (last grant − attestation) + L): L after its last grant
    /// the source has stopped acknowledging. Without the min where its lease isn't evidence (classes C, D).
    fn check_loss_measure(&self, grant: &Grant, state: &GroupState, loss: &LossMeasure) -> Result<Duration, Refusal> {
        let group = &grant.group;
        let host = &grant.to.host;
        let attested = state.copies.get(host).is_some_and(|copy| copy.generation == state.generation);
        rule("ledger.unattested_copy_granted", attested && !state.diverged.contains_key(host), || {
            Refusal::NotAttested { group: group.clone(), host: host.clone() }
        })?;
        let source = state.ticket.as_ref().and_then(|ticket| self.incarnation(&ticket.of));
        let acknowledged = match source.map(|source| (source.class, source.terms.lease)) {
            Some((Class::A | Class::B, lease)) => loss
                .granted_after
                .map_or(loss.since_attested, |after| loss.since_attested.min(after.saturating_add(lease))),
            Some((Class::C | Class::D, _)) | None => loss.since_attested,
        };
        let since = if mutants::on("ledger.loss_without_time") { Duration::ZERO } else { acknowledged };
        let expected_loss = loss.lag.saturating_add(since);
        let target_rpo = self.group_spec(group).map(|spec| spec.target_rpo).unwrap_or_default();
        rule("ledger.loss_above_target", expected_loss <= target_rpo, || Refusal::LossTooLarge {
            group: group.clone(),
            expected_loss,
            target_rpo,
        })?;
        Ok(expected_loss)
    }

    /// A person's acceptance is for one group, one epoch, one copy as it was shown, in one term.
    fn use_acceptance(&self, grant: &Grant, acceptance: LogIndex, own: CopyCheck) -> Result<Option<Duration>, Refusal> {
        let not_accepted = || Refusal::LossNotAccepted { group: grant.group.clone() };
        let Some(loss) = self.losses.get(&acceptance) else {
            rule("ledger.loss_not_accepted", false, not_accepted)?;
            return Ok(None);
        };
        let asked = &loss.asked;
        let fits = asked.group == grant.group
            && asked.epoch.next() == grant.epoch
            && asked.copy == grant.to.host
            && asked.own == own;
        rule("ledger.acceptance_of_another_loss", fits, not_accepted)?;
        rule("ledger.acceptance_incomplete", loss.permit.is_given(), not_accepted)?;
        Ok(asked.expected_loss)
    }

    /// Nothing is lost. As long as the new owner hasn't written, every copy of the set still has everything. Where
    /// writes wait for the mirror, the owner commits `Detached` before it lets any through that a copy doesn't get, so
    /// the set stays; elsewhere nobody would say so in time, and the other copies leave it here.
    fn clean(&self, grant: &Grant, state: &GroupState) -> GateResult {
        let mates = self.copy_mates(&grant.group, &grant.to.host);
        let opens = state.generation;
        let left_behind = state.in_sync.iter().any(|host| !mates.contains(host));
        let mut in_sync = mates;
        let waits = self.group_spec(&grant.group).is_some_and(GroupSpec::writes_wait_for_mirror);
        let generation = if waits || !left_behind || mutants::on("ledger.ungated_copy_kept") {
            in_sync.extend(state.in_sync.iter().cloned());
            opens
        } else {
            Generation(opens.0 + 1)
        };
        GateResult { opens, generation, in_sync, expected_loss: Some(Duration::ZERO) }
    }

    /// Something is or may be lost: every other copy is of another lineage from here.
    fn lossy(
        &self,
        grant: &Grant,
        state: &GroupState,
        opens: Generation,
        expected_loss: Option<Duration>,
    ) -> GateResult {
        GateResult {
            opens,
            generation: Generation(state.generation.0 + 1),
            in_sync: self.copy_mates(&grant.group, &grant.to.host),
            expected_loss,
        }
    }
}
