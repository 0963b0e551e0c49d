//! A store in memory that outlives its process and fails on demand: the simulator's disk.
//!
//! What a slow disk, a lost write and a write that landed without being acknowledged look like, the simulator does
//! itself: it holds a `Write` back, drops it, or persists it and drops the `Persisted`. Here is what it can't do that
//! way. Torn writes are the business of blocks: see [`FaultyBlocks`](super::FaultyBlocks).

use super::StorageError;
use super::record::Batch;
use super::store::{Backing, Store};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What happens to a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It works; for skipping some.
    None,
    /// EIO, and nothing landed.
    ErrorBefore,
    /// EIO, and everything landed.
    ErrorAfter,
    /// ENOSPC; nothing landed.
    Full,
    /// The disk says it is durable and keeps it in a cache that the next crash empties.
    Lie,
}

#[derive(Debug, Default)]
struct Records {
    /// What reads see.
    cached: BTreeMap<(u8, u64), Vec<u8>>,
    /// What a crash leaves.
    durable: BTreeMap<(u8, u64), Vec<u8>>,
    /// For the next commits, in order.
    faults: VecDeque<Fault>,
    commits: u64,
}

/// The disk. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk(Arc<Mutex<Records>>);

impl MemoryDisk {
    fn lock(&self) -> MutexGuard<'_, Records> {
        // A panic of a test elsewhere must not hide behind a second one here.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What happens to the next commit that has no fault yet.
    pub fn inject(&self, fault: Fault) {
        self.lock().faults.push_back(fault);
    }

    /// The machine loses power: what the disk lied about is gone.
    pub fn crash(&self) {
        let mut records = self.lock();
        records.cached = records.durable.clone();
        records.faults.clear();
    }

    /// How many commits were tried.
    pub fn commits(&self) -> u64 {
        self.lock().commits
    }

    /// A copy of what is durable: a backup of the disk, as people make them.
    pub fn backup(&self) -> Self {
        let durable = self.lock().durable.clone();
        Self(Arc::new(Mutex::new(Records { cached: durable.clone(), durable, ..Records::default() })))
    }

    /// How many bits are stored.
    pub fn bits(&self) -> u64 {
        self.lock().cached.values().map(|value| value.len() as u64 * 8).sum()
    }

    /// Flips one bit of the stored bytes, counted over all records; whatever `bit` is, one is hit.
    /// Does nothing on an empty disk.
    pub fn flip_bit(&self, bit: u64) {
        let bits = self.bits();
        if bits == 0 {
            return;
        }
        let mut records = self.lock();
        let mut at = bit % bits;
        for value in records.cached.values_mut() {
            let here = value.len() as u64 * 8;
            if at < here {
                value[(at / 8) as usize] ^= 1 << (at % 8);
                break;
            }
            at -= here;
        }
        records.durable = records.cached.clone();
    }
}

/// Records on a [`MemoryDisk`].
#[derive(Debug)]
pub struct MemoryBacking(MemoryDisk);

/// A store on a [`MemoryDisk`].
pub type MemoryStore = Store<MemoryBacking>;

impl MemoryStore {
    /// Opens the disk.
    ///
    /// # Errors
    /// [`StorageError::Damaged`] after a bit was flipped.
    pub fn on(disk: &MemoryDisk) -> Result<Self, StorageError> {
        Self::open(MemoryBacking::on(disk))
    }
}

impl MemoryBacking {
    /// The records of `disk`.
    pub fn on(disk: &MemoryDisk) -> Self {
        Self(disk.clone())
    }
}

impl Backing for MemoryBacking {
    fn read_all(&mut self) -> Result<BTreeMap<(u8, u64), Vec<u8>>, StorageError> {
        Ok(self.0.lock().cached.clone())
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), StorageError> {
        let mut records = self.0.lock();
        records.commits += 1;
        let fault = records.faults.pop_front().unwrap_or(Fault::None);
        let eio = || StorageError::Io { doing: "write to the disk", source: std::io::Error::other("injected EIO") };
        match fault {
            Fault::ErrorBefore => return Err(eio()),
            Fault::Full => return Err(StorageError::Full { doing: "write to the disk" }),
            Fault::None | Fault::ErrorAfter | Fault::Lie => {}
        }
        for range in &batch.delete {
            records.cached.retain(|key, _| !range.contains(key));
        }
        for (key, value) in &batch.put {
            records.cached.insert(*key, value.clone());
        }
        if fault != Fault::Lie {
            records.durable = records.cached.clone();
        }
        if fault == Fault::ErrorAfter { Err(eio()) } else { Ok(()) }
    }
}
