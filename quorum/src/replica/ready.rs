//! What a replica hands out, in the order in which it obliges.
//!
//! The order is in the types. [`Ready`] carries what may leave at once and a [`Write`]. Only a store turns a `Write` into
//! [`Persisted`](crate::storage::Persisted), and only for a `Persisted` does the replica give [`After`]: the messages
//! that promise what was written, the entries that are committed *and* here on disk. No code outside `storage` can make
//! the one without the other.

use super::read::ReadState;
use super::wire::{Entry, HardState, Message, Position, Snapshot};
use crate::id::{Term, VoterId};

/// What a replica wants done next.
#[derive(Debug)]
#[must_use = "its write must be persisted and its messages sent"]
pub struct Ready {
    /// May leave before the write is durable: only a leader has any, and only once its term is durable.
    pub send_now: Vec<Message>,
    /// Must be persisted, in order.
    pub write: Write,
}

/// A snapshot that goes to disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotWrite {
    /// A leader sent it: it replaces the whole log.
    Install(Snapshot),
    /// It was made here: entries up to `truncated` go, those behind it stay.
    Compact {
        /// The new snapshot.
        snapshot: Snapshot,
        /// The last entry that goes.
        truncated: Position,
    },
}

/// What must be durable before anything that depends on it happens. In this order: snapshot, entries, hard state; all
/// or nothing.
#[derive(Debug)]
#[must_use = "only a store can persist it"]
pub struct Write {
    pub(super) number: u64,
    pub(super) must_sync: bool,
    pub(super) snapshot: Option<SnapshotWrite>,
    pub(super) entries: Vec<Entry>,
    pub(super) hard_state: Option<HardState>,
}

impl Write {
    /// Which write of this replica, from 1, without gaps.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Whether it must reach the disk before it counts as persisted. Otherwise it holds nothing, or only a commit
    /// index, which may be lost: the cluster knows it.
    pub fn must_sync(&self) -> bool {
        self.must_sync
    }

    /// The snapshot, if there is one.
    pub fn snapshot(&self) -> Option<&SnapshotWrite> {
        self.snapshot.as_ref()
    }

    /// Entries to append: they replace everything in the log from the first one's index on. A voter that must know of
    /// an entry before it is committed reads them here, or from the replica.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The hard state, if it changed.
    pub fn hard_state(&self) -> Option<&HardState> {
        self.hard_state.as_ref()
    }
}

/// A voter's part in its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks whether it would be elected.
    PreCandidate,
    /// Stands for election.
    Candidate,
    /// Leads.
    Leader,
}

/// Who leads, as one voter sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Standing {
    /// This voter's part.
    pub role: Role,
    /// The term it is in.
    pub term: Term,
    /// The leader of that term, if it knows one.
    pub leader: Option<VoterId>,
}

/// What may happen once a write is durable.
#[derive(Debug, Default)]
#[must_use = "its messages must be sent and its entries applied"]
pub struct After {
    /// May leave now.
    pub send: Vec<Message>,
    /// A snapshot to install, before `committed`. Until `applied` says so, the replica takes part in no election.
    pub snapshot: Option<Snapshot>,
    /// Committed entries to apply, in order, each index once in the life of the process.
    pub committed: Vec<Entry>,
    /// Reads of this process that may be answered once their index is applied.
    pub reads: Vec<ReadState>,
    /// Role, term or leader changed. The replica's own methods tell at once; this is for the record.
    pub standing: Option<Standing>,
}
