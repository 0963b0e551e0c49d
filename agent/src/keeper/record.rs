//! The record that the agent writes for its keeper: what may run, and until when (protocol §2).
//!
//! Contract: {era, he, boot, keeper instance, E_h on both clocks, armed set, sequence}; the checksum and the guard
//! against torn reads belong to `slots`. The layout carries its version; a keeper that doesn't know a version reads
//! the record as torn, which extends nothing.
//!
//! Not here: whether a record is believed (`core`).

use super::armed::{ArmedSet, TABLE_BYTES_MAX, TableError};
use super::core::Head;
use super::layout::{Put, Short, Take};
use quorum::id::{BootId, Era, HostEpoch, KeeperInstance};
use quorum::moment::Moment;

/// Version of the record's layout.
const VERSION: u16 = 1;

/// Bytes of the largest record.
pub(super) const RECORD_BYTES_MAX: usize = 128 + TABLE_BYTES_MAX;

/// Why bytes are no record. What was being filled is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The bytes end too early.
    #[error("read a keeper record: it is too short")]
    Short,
    /// The layout is of a version that this program doesn't know.
    #[error("read a keeper record of version {0}: this program knows {VERSION}")]
    Version(u16),
    /// The armed set is malformed.
    #[error("read a keeper record")]
    Table(#[source] TableError),
}

impl From<Short> for RecordError {
    fn from(Short: Short) -> Self {
        Self::Short
    }
}

/// What may run on this host, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Era, host epoch, boot, instance, E_h and sequence.
    pub head: Head,
    /// The groups that may have processes.
    pub armed: ArmedSet,
}

impl Record {
    /// This record with E_h long past: it orders the keeper to retire the host epoch now, and to answer with an
    /// attestation. `sequence` must be larger than any written before.
    #[must_use]
    pub fn release(mut self, sequence: u64) -> Self {
        self.head.expiry = Moment::default();
        self.head.sequence = sequence;
        self
    }

    /// Writes the record's bytes; gives their number.
    pub(super) fn encode(&self, buffer: &mut [u8]) -> Result<usize, Short> {
        let mut put = Put::new(buffer);
        put.u16(VERSION)?;
        put_head(&self.head, &mut put)?;
        self.armed.put(&mut put)?;
        Ok(put.written())
    }
}

/// Reads a record into a table that the caller owns, so that a keeper allocates nothing.
pub(super) fn decode_into(bytes: &[u8], armed: &mut ArmedSet) -> Result<Head, RecordError> {
    let mut take = Take::new(bytes);
    let version = take.u16()?;
    if version != VERSION {
        return Err(RecordError::Version(version));
    }
    let head = take_head(&mut take)?;
    armed.take(&mut take).map_err(RecordError::Table)?;
    Ok(head)
}

pub(super) fn put_head(head: &Head, put: &mut Put<'_>) -> Result<(), Short> {
    put.u16(head.era.0)?;
    put.u64(head.he.0)?;
    put.bytes(&head.boot.0)?;
    put.bytes(&head.instance.0)?;
    put_moment(head.expiry, put)?;
    put.u64(head.sequence)
}

pub(super) fn take_head(take: &mut Take<'_>) -> Result<Head, Short> {
    Ok(Head {
        era: Era(take.u16()?),
        he: HostEpoch(take.u64()?),
        boot: BootId(take.array()?),
        instance: KeeperInstance(take.array()?),
        expiry: take_moment(take)?,
        sequence: take.u64()?,
    })
}

pub(super) fn put_moment(moment: Moment, put: &mut Put<'_>) -> Result<(), Short> {
    put.u64(moment.boot_ns)?;
    put.u64(moment.raw_ns)
}

pub(super) fn take_moment(take: &mut Take<'_>) -> Result<Moment, Short> {
    Ok(Moment { boot_ns: take.u64()?, raw_ns: take.u64()? })
}

#[cfg(test)]
mod tests {
    use super::super::armed::ArmedGroup;
    use super::super::fuzz::head;
    use super::*;
    use quorum::id::{Epoch, GroupName};

    fn record() -> Record {
        let mut armed = ArmedSet::default();
        let erp = GroupName::new("erp").expect("name");
        armed.push(ArmedGroup::new(&erp, Epoch::in_era(Era(1), 4), true)).expect("room");
        Record { head: head(), armed }
    }

    #[test]
    fn a_record_survives_its_bytes() {
        let mut bytes = [0; RECORD_BYTES_MAX];
        let len = record().encode(&mut bytes).expect("fits");
        let mut armed = ArmedSet::default();
        let head = decode_into(&bytes[..len], &mut armed).expect("whole");
        assert_eq!(Record { head, armed }, record());
    }

    #[test]
    fn a_record_cut_anywhere_is_refused_and_never_panics() {
        let mut bytes = [0; RECORD_BYTES_MAX];
        let len = record().encode(&mut bytes).expect("fits");
        for cut in 0..len {
            assert!(decode_into(&bytes[..cut], &mut ArmedSet::default()).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn an_unknown_version_is_named() {
        let mut bytes = [0; RECORD_BYTES_MAX];
        let len = record().encode(&mut bytes).expect("fits");
        bytes[0] = 9;
        assert_eq!(decode_into(&bytes[..len], &mut ArmedSet::default()), Err(RecordError::Version(9)));
    }
}
