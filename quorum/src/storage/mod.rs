//! What a voter keeps on its own disk: the log, the hard state, the last snapshot, and a few facts about itself.
//!
//! Contract: [`LogStore::persist`] returns only when what it was given is durable, and gives a [`Persisted`] for each
//! write, which nothing outside this module can make. Any error of it is final: what is on disk is unknown, the store
//! refuses everything from then on, and **the caller ends the process** — never retries, never goes on without a disk.
//!
//! Everything stored is sealed with a checksum of its own and read completely at the start. A store that is damaged,
//! of a newer version or somebody else's is refused with a message that names the remedy; nothing is repaired by
//! guessing, because a voter that forgot a promise can make two leaders.
//!
//! ```text
//! LogStore  <-  Store<B>  (records, checks, poison)  <-  B: FileBacking (head, redb)  over a file or FaultyBlocks
//!                                                           MemoryBacking       over a MemoryDisk with faults
//! ```
//!
//! Not here: what entries mean; when to make a snapshot; running the writes in a thread (the agent's driver).

mod faulty;
mod file;
pub(crate) mod fuzz;
mod image;
mod memory;
mod promise;
mod record;
mod store;

pub use faulty::{FaultyBlocks, SyncFault};
pub use file::{FileBacking, FileStore};
pub use image::Loaded;
pub use memory::{Fault, MemoryBacking, MemoryDisk, MemoryStore};
pub use store::{Backing, Store};

use crate::id::{Era, LogIndex, VoterId};
use crate::replica::{Snapshot, Write};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Whose store it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// Drawn when the cluster was founded; no other cluster has it.
    pub cluster: [u8; 16],
    /// The era that the log belongs to.
    pub era: Era,
    /// The voter.
    pub voter: VoterId,
}

/// What a store begins with.
#[derive(Clone, Debug)]
pub struct Founding {
    /// Whose it is.
    pub identity: Identity,
    /// The state that the log begins from, the same at every founding voter; none for a voter that joins a cluster
    /// and gets everything from its leader.
    pub genesis: Option<Snapshot>,
}

/// What others remember of a voter, so that it can't come back with a disk that has forgotten (protocol §2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Seen {
    /// How often its process had started.
    pub incarnation: u64,
    /// Entries up to here it had durably accepted, and they were committed: no honest log ever gets shorter.
    /// A mere last index wouldn't do, because entries that were not committed may be overwritten by fewer.
    pub durable: LogIndex,
}

impl Seen {
    /// Whether a voter that shows `self` now has forgotten something since it was seen as `remembered`.
    pub fn is_behind(&self, remembered: &Self) -> bool {
        self.incarnation < remembered.incarnation || self.durable < remembered.durable
    }

    /// Both together: neither part ever falls.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self { incarnation: self.incarnation.max(other.incarnation), durable: self.durable.max(other.durable) }
    }
}

/// Proof that a write is durable. Only a store makes one; the replica takes nothing else.
#[derive(Debug)]
#[must_use = "the replica must learn of it"]
pub struct Persisted(u64);

impl Persisted {
    /// The write that is durable, and with it all before it.
    pub fn number(&self) -> u64 {
        self.0
    }
}

/// Why a store could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The operating system refused. After [`LogStore::persist`] it is unknown what is on disk.
    #[error("{doing}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The error.
        #[source]
        source: std::io::Error,
    },
    /// The disk is full. The write is not durable.
    #[error("{doing}: the disk is full; free space and start this voter again")]
    Full {
        /// What was being done.
        doing: &'static str,
    },
    /// What is stored is not what was written.
    #[error(
        "read the voter's store: {what}. It may have forgotten votes or entries, so this vote ends: don't restore a copy \
         of it. The agent puts it aside and asks the leader for a vote under a new id (antipode quorum status shows it \
         come). With no leader left: antipode quorum recover on a voter whose store is whole, or antipode quorum restore \
         FILE with a backup"
    )]
    Damaged {
        /// What doesn't fit.
        what: String,
    },
    /// It is whole, but older than what the voter has promised others.
    #[error(
        "read the voter's store: it has lost what it promised (its newest commit is number {found}, it has promised \
         number {promised}). A voter that forgot votes or entries could make two leaders, so this vote ends; what ran on \
         this host ends with its lease and starts elsewhere. Don't restore a copy of the store. The agent puts it aside \
         and asks the leader for a vote under a new id (antipode quorum status shows it come). With no leader left: \
         antipode quorum recover on a voter whose store is whole, or antipode quorum restore FILE with a backup"
    )]
    Forgotten {
        /// The last commit that the voter was told is durable.
        promised: u64,
        /// The newest that is there.
        found: u64,
    },
    /// A newer release wrote it.
    #[error("read the voter's store: it was written by a newer release (record version {0}); start that release")]
    NewerVersion(u8),
    /// Another process has it open.
    #[error("open {0}: another process uses it; is an agent running already?")]
    InUse(PathBuf),
    /// There is nothing in it.
    #[error("read the voter's store: it is empty; this voter was never founded and never joined")]
    Empty,
    /// It already belongs to a voter.
    #[error("found a voter here: the store already belongs to voter {} of era {}", .0.voter, .0.era)]
    Taken(Identity),
    /// An earlier operation failed; nothing was done.
    #[error("use the voter's store after it failed; end this process")]
    Poisoned,
}

/// Where a voter keeps what it must not forget.
pub trait LogStore {
    /// Whose it is; none before [`Self::found`].
    fn identity(&self) -> Option<Identity>;

    /// Makes an empty store a voter's, durably.
    ///
    /// # Errors
    /// [`StorageError::Taken`] when it is somebody's, even the same voter's; else as the disk has it.
    fn found(&mut self, founding: Founding) -> Result<(), StorageError>;

    /// Counts this start, durably, and reads everything. Once for each process.
    ///
    /// # Errors
    /// [`StorageError`]; the voter must not start.
    fn load(&mut self) -> Result<Loaded, StorageError>;

    /// Makes writes durable, all in one go, in the order of their numbers. A write that need not be synced
    /// ([`Write::must_sync`]) may ride along with a later one.
    ///
    /// # Errors
    /// [`StorageError`]: what is on disk is unknown; end the process.
    fn persist(&mut self, writes: Vec<Write>) -> Result<Vec<Persisted>, StorageError>;

    /// Remembers what a peer has shown, durably; never less than before.
    ///
    /// # Errors
    /// As [`Self::persist`].
    fn remember(&mut self, peer: VoterId, seen: Seen) -> Result<(), StorageError>;

    /// What is remembered of all peers.
    fn remembered(&self) -> &BTreeMap<VoterId, Seen>;
}

#[cfg(test)]
mod tests;
