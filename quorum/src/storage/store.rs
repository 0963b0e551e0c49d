//! The store over any backing that can commit a batch of records, all or nothing.

use super::image::{Image, Loaded};
use super::record::{self, Batch, HARD_STATE, IDENTITY, INCARNATION, SNAPSHOT, TRUNCATED};
use super::{Founding, Identity, LogStore, Persisted, Seen, StorageError};
use crate::id::{LogIndex, Term, VoterId};
use crate::replica::{HardState, Position, SnapshotWrite, Write};
use std::collections::BTreeMap;

/// Keeps records under keys. Private in effect: only this crate can fill a [`Batch`].
pub trait Backing {
    /// Reads every record.
    ///
    /// # Errors
    /// [`StorageError`]; the voter must not start.
    fn read_all(&mut self) -> Result<BTreeMap<(u8, u64), Vec<u8>>, StorageError>;

    /// Commits a batch, all or nothing; returns when it is durable.
    ///
    /// # Errors
    /// [`StorageError`]: whether it is durable is unknown.
    fn commit(&mut self, batch: &Batch) -> Result<(), StorageError>;
}

/// The one implementation of [`LogStore`]; what differs is where records go.
#[derive(Debug)]
pub struct Store<B> {
    backing: B,
    identity: Option<Identity>,
    incarnation: u64,
    peers: BTreeMap<VoterId, Seen>,
    truncated: LogIndex,
    last: LogIndex,
    newest_write: u64,
    /// A commit index that waits for the next commit to ride along with.
    lazy: Option<HardState>,
    poisoned: bool,
}

impl<B: Backing> Store<B> {
    /// Opens what `backing` holds.
    ///
    /// # Errors
    /// [`StorageError`] when it can't be read or is damaged.
    pub fn open(mut backing: B) -> Result<Self, StorageError> {
        let image = Image::read(&backing.read_all()?)?;
        Ok(Self {
            backing,
            identity: image.identity,
            incarnation: image.incarnation,
            truncated: image.truncated.index,
            last: image.entries.last().map_or(image.truncated.index, |entry| entry.index),
            peers: image.peers,
            newest_write: 0,
            lazy: None,
            poisoned: false,
        })
    }

    /// Where the records go.
    pub fn backing(&self) -> &B {
        &self.backing
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), StorageError> {
        if self.poisoned {
            return Err(StorageError::Poisoned);
        }
        // Poisoned until it is known to have worked: an error, or a panic below, must not be forgotten.
        self.poisoned = true;
        self.backing.commit(batch)?;
        self.poisoned = false;
        Ok(())
    }

    fn add(&mut self, write: &Write, batch: &mut Batch) {
        assert!(write.number() > self.newest_write, "writes come in the order of their numbers");
        self.newest_write = write.number();
        match write.snapshot() {
            Some(SnapshotWrite::Install(snapshot)) => {
                batch.delete.push(record::entry(0)..=record::entry(u64::MAX));
                batch.put.retain(|(key, _)| record::as_entry(*key).is_none());
                batch.put(SNAPSHOT, snapshot);
                batch.put(TRUNCATED, &snapshot.meta.last);
                (self.truncated, self.last) = (snapshot.meta.last.index, snapshot.meta.last.index);
            }
            Some(SnapshotWrite::Compact { snapshot, truncated }) => {
                let gone = record::entry(0)..=record::entry(truncated.index.0);
                batch.put.retain(|(key, _)| !gone.contains(key));
                batch.delete.push(gone);
                batch.put(SNAPSHOT, snapshot);
                batch.put(TRUNCATED, truncated);
                self.truncated = truncated.index;
            }
            None => {}
        }
        if let Some(first) = write.entries().first() {
            assert!(
                (self.truncated.0 + 1..=self.last.0 + 1).contains(&first.index.0),
                "entry {} follows a log that ends at {}",
                first.index,
                self.last
            );
            let overwritten = record::entry(first.index.0)..=record::entry(u64::MAX);
            batch.put.retain(|(key, _)| !overwritten.contains(key));
            if first.index <= self.last {
                batch.delete.push(overwritten);
            }
        }
        for entry in write.entries() {
            batch.put(record::entry(entry.index.0), entry);
            self.last = entry.index;
        }
        self.lazy = write.hard_state().copied().or(self.lazy);
    }
}

impl<B: Backing> LogStore for Store<B> {
    fn identity(&self) -> Option<Identity> {
        self.identity
    }

    fn found(&mut self, founding: Founding) -> Result<(), StorageError> {
        if let Some(identity) = self.identity {
            return Err(StorageError::Taken(identity));
        }
        let start = founding.genesis.as_ref().map_or(Position::default(), |snapshot| snapshot.meta.last);
        // Term 1 at least: raft can't refuse a vote in term 0.
        let term = start.term.max(Term(1));
        let mut batch = Batch::default();
        batch.put(IDENTITY, &founding.identity);
        batch.put(INCARNATION, &0u64);
        batch.put(HARD_STATE, &HardState { term, vote: None, commit: start.index });
        batch.put(TRUNCATED, &start);
        if let Some(snapshot) = &founding.genesis {
            batch.put(SNAPSHOT, snapshot);
        }
        self.commit(&batch)?;
        self.identity = Some(founding.identity);
        (self.truncated, self.last) = (start.index, start.index);
        Ok(())
    }

    fn load(&mut self) -> Result<Loaded, StorageError> {
        let mut image = Image::read(&self.backing.read_all()?)?;
        if image.identity.is_none() {
            return Err(StorageError::Empty);
        }
        self.incarnation = image.incarnation + 1;
        let mut batch = Batch::default();
        batch.put(INCARNATION, &self.incarnation);
        self.commit(&batch)?;
        image.incarnation = self.incarnation;
        image.into_loaded()
    }

    fn persist(&mut self, writes: Vec<Write>) -> Result<Vec<Persisted>, StorageError> {
        if self.poisoned {
            return Err(StorageError::Poisoned);
        }
        let mut batch = Batch::default();
        for write in &writes {
            self.add(write, &mut batch);
        }
        if writes.iter().any(Write::must_sync) {
            if let Some(hard_state) = self.lazy.take() {
                batch.put(HARD_STATE, &hard_state);
            }
            self.commit(&batch)?;
        }
        debug_assert!(batch.is_empty() || writes.iter().any(Write::must_sync), "only a commit index may wait");
        Ok(writes.into_iter().map(|write| Persisted(write.number())).collect())
    }

    fn remember(&mut self, peer: VoterId, seen: Seen) -> Result<(), StorageError> {
        let before = self.peers.get(&peer).copied().unwrap_or_default();
        let seen = seen.max(before);
        if seen == before {
            return Ok(());
        }
        let mut batch = Batch::default();
        batch.put(record::peer(peer.0), &seen);
        self.commit(&batch)?;
        self.peers.insert(peer, seen);
        Ok(())
    }

    fn remembered(&self) -> &BTreeMap<VoterId, Seen> {
        &self.peers
    }
}
