//! A voter's disk: the store in memory, or the production store over blocks that tear, flip and fail.

use quorum::id::VoterId;
use quorum::replica::Write;
use quorum::storage::{
    Fault, FaultyBlocks, FileStore, Founding, Identity, Loaded, LogStore, MemoryDisk, MemoryStore, Persisted, Seen,
    StorageError, SyncFault,
};
use std::collections::BTreeMap;
use std::path::Path;

/// What is in the host.
#[derive(Clone, Debug)]
pub(super) enum SimDisk {
    /// Records in memory: fast.
    Memory(MemoryDisk),
    /// redb over faulty blocks: what production runs on.
    Blocks(FaultyBlocks),
}

/// A disk that is open.
pub(super) enum SimStore {
    /// On [`SimDisk::Memory`].
    Memory(MemoryStore),
    /// On [`SimDisk::Blocks`].
    File(Box<FileStore>),
}

impl SimDisk {
    /// Opens it.
    pub(super) fn open(&self) -> Result<SimStore, StorageError> {
        Ok(match self {
            Self::Memory(disk) => SimStore::Memory(MemoryStore::on(disk)?),
            Self::Blocks(blocks) => {
                SimStore::File(Box::new(FileStore::on(blocks.clone(), Path::new("the played disk"))?))
            }
        })
    }

    /// An empty one of the same kind.
    pub(super) fn empty(&self) -> Self {
        match self {
            Self::Memory(_) => Self::Memory(MemoryDisk::default()),
            Self::Blocks(_) => Self::Blocks(FaultyBlocks::default()),
        }
    }

    /// Power goes, and with it what was not durable; of what was being written, `seed` says which sectors arrived.
    pub(super) fn crash(&self, seed: u64) {
        match self {
            Self::Memory(disk) => disk.crash(),
            Self::Blocks(blocks) => blocks.restart(seed),
        }
    }

    /// The next write to it goes wrong.
    pub(super) fn fail_next(&self, fault: Fault) {
        match self {
            Self::Memory(disk) => disk.inject(fault),
            Self::Blocks(blocks) => match fault {
                Fault::None => {}
                Fault::ErrorBefore | Fault::ErrorAfter => blocks.fail_next_sync(SyncFault::Error),
                Fault::Full => blocks.set_capacity(Some(blocks.bytes())),
                Fault::Lie => blocks.fail_next_sync(SyncFault::Lie),
            },
        }
    }

    /// What can be taken back is: there is room again.
    pub(super) fn mend(&self) {
        match self {
            Self::Memory(_) => {}
            Self::Blocks(blocks) => blocks.set_capacity(None),
        }
    }

    /// One stored bit is the other way round from now on.
    pub(super) fn flip_bit(&self, bit: u64) {
        match self {
            Self::Memory(disk) => disk.flip_bit(bit),
            Self::Blocks(blocks) => blocks.flip_bit(bit),
        }
    }

    /// Power goes in the middle of the `operations`-th write from now; on a store in memory, before the next one.
    pub(super) fn tear_after(&self, operations: u64) {
        match self {
            Self::Memory(disk) => disk.inject(Fault::ErrorBefore),
            Self::Blocks(blocks) => blocks.cut_power_after(operations),
        }
    }
}

impl SimStore {
    fn log(&mut self) -> &mut dyn LogStore {
        match self {
            Self::Memory(store) => store,
            Self::File(store) => store.as_mut(),
        }
    }

    fn as_log(&self) -> &dyn LogStore {
        match self {
            Self::Memory(store) => store,
            Self::File(store) => store.as_ref(),
        }
    }

    pub(super) fn identity(&self) -> Option<Identity> {
        self.as_log().identity()
    }

    pub(super) fn found(&mut self, founding: Founding) -> Result<(), StorageError> {
        self.log().found(founding)
    }

    pub(super) fn remember(&mut self, voter: VoterId, seen: Seen) -> Result<(), StorageError> {
        self.log().remember(voter, seen)
    }

    pub(super) fn remembered(&self) -> BTreeMap<VoterId, Seen> {
        self.as_log().remembered().clone()
    }

    pub(super) fn load(&mut self) -> Result<Loaded, StorageError> {
        self.log().load()
    }

    pub(super) fn persist(&mut self, write: Write) -> Result<Vec<Persisted>, StorageError> {
        self.log().persist(vec![write])
    }
}
