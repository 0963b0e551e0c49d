//! The log in memory: what raft reads, so that no step ever waits for the disk.
//!
//! Invariant: it holds every entry from `truncated` on that raft handed out for writing, persisted or not; raft itself
//! keeps count of what is persisted. After a restart it is rebuilt from the disk, so what was never persisted is gone.
//!
//! It stays small: what lies behind the last snapshot goes, but for a tail that spares a voter which is a little late
//! the whole snapshot.

use super::convert;
use super::membership::conf_state;
use super::wire::{HardState, Position, Snapshot};
use crate::id::{LogIndex, Term, VoterId};
use crate::roster::Membership;
use crate::storage::Loaded;
use raft::eraftpb::{self, ConfState};
use raft::{Error, GetEntriesContext, RaftState, StorageError};
use std::cell::Cell;
use std::collections::VecDeque;

/// The log since it was last truncated, and the newest snapshot.
#[derive(Debug)]
pub(super) struct Log {
    /// As loaded; raft reads it once, when it starts.
    initial: RaftState,
    truncated: Position,
    entries: VecDeque<eraftpb::Entry>,
    snapshot: Option<Snapshot>,
    /// A follower needs a newer snapshot than there is.
    is_wanted: Cell<bool>,
}

impl Log {
    pub(super) fn new(loaded: &Loaded) -> Self {
        let members = loaded.snapshot.as_ref().map(|snapshot| &snapshot.meta.membership);
        Self {
            initial: RaftState {
                hard_state: raft_hard_state(&loaded.hard_state),
                conf_state: members.map_or_else(ConfState::default, conf_state),
            },
            truncated: loaded.truncated,
            entries: loaded.entries.iter().map(convert::entry_to_raft).collect(),
            snapshot: loaded.snapshot.clone(),
            is_wanted: Cell::new(false),
        }
    }

    /// Whether a follower waits for a newer snapshot than there is.
    pub(super) fn wants_snapshot(&self) -> bool {
        self.is_wanted.get()
    }

    pub(super) fn snapshot_here(&self) -> Option<&Snapshot> {
        self.snapshot.as_ref()
    }

    /// The newest snapshot's last index; 0 if there is none.
    pub(super) fn snapshot_index(&self) -> LogIndex {
        self.snapshot.as_ref().map_or(LogIndex(0), |snapshot| snapshot.meta.last.index)
    }

    fn first(&self) -> u64 {
        self.truncated.index.0 + 1
    }

    pub(super) fn last(&self) -> u64 {
        self.truncated.index.0 + self.entries.len() as u64
    }

    /// The entries from `low` up to, not including, `high`, as far as they are here.
    pub(super) fn range(&self, low: u64, high: u64) -> impl Iterator<Item = &eraftpb::Entry> {
        let at = |index: u64| {
            usize::try_from(index.saturating_sub(self.first()))
                .map_or(self.entries.len(), |at| at.min(self.entries.len()))
        };
        self.entries.range(at(low)..at(high).max(at(low)))
    }

    /// Appends entries, replacing what they overwrite.
    ///
    /// # Panics
    /// When they leave a gap or reach behind the truncation, which raft never asks for.
    pub(super) fn append(&mut self, entries: &[eraftpb::Entry]) {
        let Some(first) = entries.first() else { return };
        assert!((self.first()..=self.last() + 1).contains(&first.index), "entries must follow the log");
        self.entries.truncate((first.index - self.first()) as usize);
        self.entries.extend(entries.iter().cloned());
    }

    /// Replaces everything by a snapshot that a leader sent.
    pub(super) fn install(&mut self, snapshot: Snapshot) {
        self.truncated = snapshot.meta.last;
        self.entries.clear();
        self.snapshot = Some(snapshot);
        self.is_wanted.set(false);
    }

    /// Takes a snapshot made here and drops entries behind it, but for the last `keep` of them.
    /// Returns up to where entries went.
    pub(super) fn compact(&mut self, snapshot: Snapshot, keep: u64) -> Position {
        let until = snapshot.meta.last.index.0.saturating_sub(keep);
        while self.truncated.index.0 < until
            && let Some(entry) = self.entries.pop_front()
        {
            self.truncated = Position { index: LogIndex(entry.index), term: Term(entry.term) };
        }
        self.snapshot = Some(snapshot);
        self.is_wanted.set(false);
        self.truncated
    }

    /// The term of the entry at `index`, if it is here or just behind the truncation.
    pub(super) fn term_at(&self, index: u64) -> Option<u64> {
        if index == self.truncated.index.0 {
            return Some(self.truncated.term.0);
        }
        let at = index.checked_sub(self.first())?;
        self.entries.get(usize::try_from(at).ok()?).map(|entry| entry.term)
    }

    /// The membership as of the snapshot that the log starts from.
    pub(super) fn membership(&self) -> Membership {
        self.snapshot.as_ref().map(|snapshot| snapshot.meta.membership.clone()).unwrap_or_default()
    }
}

fn raft_hard_state(state: &HardState) -> eraftpb::HardState {
    eraftpb::HardState {
        term: state.term.0,
        vote: state.vote.map_or(0, |id| id.0),
        commit: state.commit.0,
        ..Default::default()
    }
}

impl raft::Storage for Log {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(self.initial.clone())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<eraftpb::Entry>> {
        if low < self.first() {
            return Err(Error::Store(StorageError::Compacted));
        }
        if high > self.last() + 1 {
            return Err(Error::Store(StorageError::Unavailable));
        }
        let limit = max_size.into().unwrap_or(u64::MAX);
        let mut size = 0u64;
        // One entry is always returned, however long: else a long one would never be sent.
        let fits = |entry: &&eraftpb::Entry| {
            let is_first = size == 0;
            size = size.saturating_add(convert::entry_size(entry));
            is_first || size <= limit
        };
        Ok(self.range(low, high).take_while(fits).cloned().collect())
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index < self.truncated.index.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        self.term_at(index).ok_or(Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<eraftpb::Snapshot> {
        // A new member refuses a snapshot from before it was one.
        let is_known =
            |members: &Membership| members.is_voter(VoterId(to)) || members.learners.contains_key(&VoterId(to));
        match &self.snapshot {
            Some(snapshot) if snapshot.meta.last.index.0 >= request_index && is_known(&snapshot.meta.membership) => {
                Ok(convert::snapshot_to_raft(&snapshot.meta))
            }
            _ => {
                self.is_wanted.set(true);
                Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
            }
        }
    }
}
