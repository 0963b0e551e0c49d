//! Everything in a store, read at the start and checked as a whole.
//!
//! Each record was checked by its own seal. Here is what seals can't see: a gap in the log, terms that fall, a commit
//! index without its entry, a snapshot that doesn't meet the log.

use super::record::{self, HARD_STATE, IDENTITY, INCARNATION, Key, SNAPSHOT, TRUNCATED};
use super::{Identity, Seen, StorageError};
use crate::id::{LogIndex, Term, VoterId};
use crate::replica::{Entry, HardState, Position, Snapshot};
use std::collections::BTreeMap;

/// What a replica continues from. Only a store makes one.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Loaded {
    /// Whose it is.
    pub identity: Identity,
    /// Which start of the voter this is, from 1.
    pub incarnation: u64,
    /// Term, vote and commit index; the commit index is at least the snapshot's.
    pub hard_state: HardState,
    /// The newest snapshot; none at a voter that has just joined.
    pub snapshot: Option<Snapshot>,
    /// The last entry that is gone; not behind the snapshot's last.
    pub truncated: Position,
    /// All entries behind it, without a gap.
    pub entries: Vec<Entry>,
}

impl Loaded {
    /// What this voter may tell others about its disk.
    pub fn seen(&self) -> Seen {
        Seen { incarnation: self.incarnation, durable: self.last().index }
    }

    /// The last entry.
    pub fn last(&self) -> Position {
        self.entries.last().map_or(self.truncated, Entry::position)
    }
}

/// A whole store, as found.
#[derive(Debug, Default)]
pub(super) struct Image {
    pub(super) identity: Option<Identity>,
    pub(super) incarnation: u64,
    pub(super) hard_state: HardState,
    pub(super) truncated: Position,
    pub(super) snapshot: Option<Snapshot>,
    pub(super) entries: Vec<Entry>,
    pub(super) peers: BTreeMap<VoterId, Seen>,
}

impl Image {
    /// Reads and checks all records.
    pub(super) fn read(records: &BTreeMap<Key, Vec<u8>>) -> Result<Self, StorageError> {
        let mut image = Self::default();
        for (&key, bytes) in records {
            image.take(key, bytes)?;
        }
        if records.is_empty() {
            return Ok(image);
        }
        for must in [IDENTITY, INCARNATION, HARD_STATE, TRUNCATED] {
            if !records.contains_key(&must) {
                return Err(damaged(format!("record {must:?} is missing")));
            }
        }
        image.check_log()?;
        image.check_snapshot()?;
        Ok(image)
    }

    fn take(&mut self, key: Key, bytes: &[u8]) -> Result<(), StorageError> {
        match key {
            IDENTITY => self.identity = Some(record::open(key, bytes)?),
            INCARNATION => self.incarnation = record::open(key, bytes)?,
            HARD_STATE => self.hard_state = record::open(key, bytes)?,
            TRUNCATED => self.truncated = record::open(key, bytes)?,
            SNAPSHOT => self.snapshot = Some(record::open(key, bytes)?),
            _ => {
                if let Some(id) = record::as_peer(key) {
                    self.peers.insert(VoterId(id), record::open(key, bytes)?);
                } else if record::as_entry(key).is_some() {
                    self.entries.push(record::open(key, bytes)?);
                } else {
                    return Err(damaged(format!("record {key:?} is unknown")));
                }
            }
        }
        Ok(())
    }

    fn check_log(&self) -> Result<(), StorageError> {
        let mut before = self.truncated;
        for entry in &self.entries {
            if entry.index.0 != before.index.0 + 1 {
                return Err(damaged(format!("entry {} follows entry {}", entry.index, before.index)));
            }
            if entry.term < before.term {
                return Err(damaged(format!("entry {} is of an older term than the one before", entry.index)));
            }
            before = entry.position();
        }
        if before.term > self.hard_state.term {
            return Err(damaged(format!("entry {} is of a later term than the voter's", before.index)));
        }
        if self.hard_state.commit > before.index {
            return Err(damaged(format!("entry {} is committed and missing", self.hard_state.commit)));
        }
        Ok(())
    }

    fn check_snapshot(&self) -> Result<(), StorageError> {
        let Some(snapshot) = &self.snapshot else {
            return if self.truncated == Position::default() {
                Ok(())
            } else {
                Err(damaged("entries are gone and there is no snapshot".to_owned()))
            };
        };
        let last = snapshot.meta.last;
        if self.term_at(last.index) != Some(last.term) {
            return Err(damaged(format!("the snapshot at entry {} doesn't meet the log", last.index)));
        }
        crate::replica::membership::check(&snapshot.meta.membership)
            .map_err(|error| damaged(format!("the snapshot's membership is none: {error}")))
    }

    fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == self.truncated.index {
            return Some(self.truncated.term);
        }
        let at = index.0.checked_sub(self.truncated.index.0 + 1)?;
        self.entries.get(usize::try_from(at).ok()?).map(|entry| entry.term)
    }

    /// Hands it to a replica.
    pub(super) fn into_loaded(self) -> Result<Loaded, StorageError> {
        let identity = self.identity.ok_or(StorageError::Empty)?;
        let mut hard_state = self.hard_state;
        if let Some(snapshot) = &self.snapshot {
            // The commit index may lag behind on disk; what a snapshot includes is committed.
            hard_state.commit = hard_state.commit.max(snapshot.meta.last.index);
        }
        Ok(Loaded {
            identity,
            incarnation: self.incarnation,
            hard_state,
            snapshot: self.snapshot,
            truncated: self.truncated,
            entries: self.entries,
        })
    }
}

fn damaged(what: String) -> StorageError {
    StorageError::Damaged { what }
}
