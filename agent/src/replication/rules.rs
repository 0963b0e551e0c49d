//! What a copy's own record permits and refuses: the same for every kind.
//!
//! Each question is answered from the record alone and changes nothing; the answer is the record to write. When it is
//! written is the kind's part of the contract: before what it says begins to be true for the worse (a copy says
//! `syncing` before it is overwritten), after it is true for the better.

use super::record::{Record, RecordError, RecordFile, Role};
use super::{AcceptedLoss, ExportOrder, PromoteOrder, ReplicationError};
use quorum::id::{Epoch, Generation, GroupName};
use quorum::mutants;
use std::path::PathBuf;

/// The record of one copy, and its rules.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    file: RecordFile,
    group: GroupName,
    volume: String,
}

impl Rules {
    /// Of the copy whose record lies at `path`.
    pub(super) fn new(path: PathBuf, group: &GroupName, volume: &str) -> Self {
        Self { file: RecordFile::new(path, group, volume), group: group.clone(), volume: volume.into() }
    }

    pub(super) fn read(&self) -> Result<Option<Record>, RecordError> {
        self.file.read()
    }

    pub(super) fn write(&self, record: &Record) -> Result<(), RecordError> {
        self.file.write(record)
    }

    fn blank(&self, role: Role) -> Record {
        Record::new(&self.group, &self.volume, role)
    }

    /// The record of data that is born here; `None` if just that is recorded already.
    pub(super) fn of_birth(&self, epoch: Epoch, generation: Generation) -> Result<Option<Record>, ReplicationError> {
        let record = self.blank(Role::Source).at(generation, epoch);
        match self.file.read()? {
            None => Ok(Some(record)),
            Some(there) if there == record => Ok(None),
            Some(_) if mutants::on("data.born_twice") => Ok(Some(record)),
            Some(there) => Err(refused(format!("this copy has a history: {there:?}"))),
        }
    }

    /// The source's record under this very epoch.
    pub(super) fn of_reign(&self, epoch: Epoch) -> Result<Record, ReplicationError> {
        match self.file.read()? {
            Some(record) if record.role == Role::Source && mutants::on("data.another_reign_speaks") => Ok(record),
            Some(record) if record.role == Role::Source && record.epoch == epoch => Ok(record),
            other => Err(refused(format!("this copy isn't the source under epoch {epoch}: {other:?}"))),
        }
    }

    /// What the record must say before a source may write here; `None` if it may stay as it is. `there` is what the
    /// copy says of itself.
    pub(super) fn of_export(
        &self,
        there: Option<Record>,
        order: &ExportOrder,
    ) -> Result<Option<Record>, ReplicationError> {
        use super::ExportBegin::{Afresh, Continue};
        if let Some(there) = &there {
            let is_own_reign = there.role == Role::Source && there.epoch == order.epoch;
            if (there.epoch > order.epoch || is_own_reign) && !mutants::on("data.older_source_let_in") {
                return Err(refused(format!("an export for epoch {}, but this copy is {there:?}", order.epoch)));
            }
        }
        match (order.begin, there) {
            (Continue, Some(there)) if there.role == Role::Standby && there.epoch == order.epoch => Ok(None),
            (Continue, there) => Err(refused(format!("continue at epoch {}, but this copy is {there:?}", order.epoch))),
            // `Syncing` is on disk before the first chunk is overwritten.
            (Afresh, Some(there)) if mutants::on("data.overwritten_as_standby") => Ok(Some(there)),
            (Afresh, None) => Ok(Some(self.blank(Role::Syncing).at(Generation(0), order.epoch))),
            (Afresh, Some(there)) => {
                let was_source = there.was_source || there.role == Role::Source;
                Ok(Some(self.blank(Role::Syncing).at(there.generation, order.epoch).that_was_source(was_source)))
            }
        }
    }

    /// A standby turned out to lack something: its record says so from now on, and after a reboot too, which empties the
    /// folders where that was noted. The disk may have no room for a record either.
    pub(super) fn demote(&self, standby: &Record) -> Result<Option<Record>, RecordError> {
        let (generation, epoch) = (standby.generation, standby.epoch);
        let mixture = self.blank(Role::Syncing).at(generation, epoch).that_was_source(standby.was_source);
        match self.file.write(&mixture) {
            Err(_) if mutants::on("data.refusal_unrecorded") => Ok(Some(mixture)),
            Err(error) => {
                tracing::error!(group = %self.group, volume = %self.volume, %error,
                    "this copy's record can't be rewritten and is withdrawn: nothing is started from it, and it is compared \
                     as a whole once its disk has room again");
                self.file.withdraw().map(|()| None)
            }
            Ok(()) => Ok(Some(mixture)),
        }
    }

    /// The record of a copy that has become complete.
    pub(super) fn of_standby(&self, epoch: Epoch, generation: Generation) -> Result<Record, ReplicationError> {
        let is_of = |there: &Record| there.epoch == epoch || mutants::on("data.standby_of_any_epoch");
        match self.file.read()? {
            Some(there) if there.role != Role::Source && is_of(&there) => {
                Ok(self.blank(Role::Standby).at(generation, epoch))
            }
            other => Err(refused(format!("this copy isn't being made equal under epoch {epoch}: {other:?}"))),
        }
    }

    /// The record of a copy that the group runs on from now on. `there` is what the copy says of itself.
    pub(super) fn of_promotion(
        &self,
        there: Option<&Record>,
        order: &PromoteOrder,
    ) -> Result<Record, ReplicationError> {
        let there = there.ok_or_else(|| refused("this copy was never used".into()))?;
        if there.epoch > order.epoch && !mutants::on("data.older_epoch_promoted") {
            return Err(refused(format!("epoch {} is over: this copy is {there:?}", order.epoch)));
        }
        let is_whole = there.role != Role::Syncing;
        let is_latest = there.generation == order.generation && there.epoch >= order.not_before;
        let is_accepted = match order.accepted {
            _ if mutants::on("data.any_copy_promoted") => true,
            AcceptedLoss::Nothing if mutants::on("data.mixture_promoted") => is_latest,
            AcceptedLoss::Nothing => is_whole && is_latest,
            AcceptedLoss::OlderGeneration => is_whole && there.generation <= order.generation,
            AcceptedLoss::Mixture => there.generation <= order.generation,
        };
        if !is_accepted {
            let PromoteOrder { generation, not_before, .. } = order;
            let wanted = format!("generation {generation}, not before epoch {not_before}");
            return Err(refused(format!("wanted is {wanted}, but this copy is {there:?}")));
        }
        Ok(self.blank(Role::Source).at(order.generation, order.epoch))
    }
}

pub(super) fn refused(because: String) -> ReplicationError {
    ReplicationError::Refused { because }
}
