//! Blocks in memory that tear, refuse, lie and rot: what the production store runs on in the simulator.
//!
//! Writes go to a cache; a sync makes them durable; a crash keeps, of what was not synced, an arbitrary part in
//! sectors, as a disk may. What part is drawn from a seed.
//!
//! Not here: latency. Who simulates time holds the write back.

use redb::StorageBackend;
use std::io::{Error, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Disks write sectors whole, or not at all.
const SECTOR: usize = 512;

/// What happens to a sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncFault {
    /// EIO: what was cached may or may not survive the crash that follows.
    Error,
    /// Says that all is durable; it is as cached as before.
    Lie,
}

#[derive(Debug, Default)]
struct Blocks {
    cached: Vec<u8>,
    durable: Vec<u8>,
    /// Not synced yet: offset and length, oldest first.
    dirty: Vec<(usize, usize)>,
    /// Counts down at each write or sync; at zero the power goes.
    power_left: Option<u64>,
    is_off: bool,
    sync_fault: Option<SyncFault>,
    capacity: Option<u64>,
    operations: u64,
}

/// The disk. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct FaultyBlocks(Arc<Mutex<Blocks>>);

impl FaultyBlocks {
    fn lock(&self) -> MutexGuard<'_, Blocks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A disk that has these bytes on it.
    pub fn with_image(image: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Blocks { cached: image.clone(), durable: image, ..Blocks::default() })))
    }

    /// What is durable.
    pub fn image(&self) -> Vec<u8> {
        self.lock().durable.clone()
    }

    /// The power goes at the `operations`-th write, resize or sync from now; that one and all later ones fail.
    pub fn cut_power_after(&self, operations: u64) {
        self.lock().power_left = Some(operations);
    }

    /// What happens to the next sync.
    pub fn fail_next_sync(&self, fault: SyncFault) {
        self.lock().sync_fault = Some(fault);
    }

    /// The disk can't grow beyond this many bytes.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().capacity = bytes;
    }

    /// How many writes, resizes and syncs there were.
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// How long it is in bytes.
    pub fn bytes(&self) -> u64 {
        self.lock().cached.len() as u64
    }

    /// Flips one bit of what is durable. Whatever `bit` is, one is hit; none on an empty disk.
    pub fn flip_bit(&self, bit: u64) {
        let mut blocks = self.lock();
        let bits = blocks.durable.len() as u64 * 8;
        if bits > 0 {
            let bit = bit % bits;
            blocks.durable[(bit / 8) as usize] ^= 1 << (bit % 8);
        }
        blocks.cached = blocks.durable.clone();
    }

    /// The power comes back after a cut, or goes and comes back now. Of every sector that was not synced, `seed`
    /// decides whether it is the old or the new one.
    pub fn restart(&self, seed: u64) {
        let mut blocks = self.lock();
        let mut state = seed;
        let dirty = std::mem::take(&mut blocks.dirty);
        for (offset, len) in dirty {
            let mut at = offset;
            while at < offset + len {
                let end = ((at / SECTOR + 1) * SECTOR).min(offset + len);
                if draw(&mut state) & 1 == 0 {
                    blocks.keep(at, end);
                }
                at = end;
            }
        }
        blocks.cached = blocks.durable.clone();
        (blocks.power_left, blocks.is_off, blocks.sync_fault) = (None, false, None);
    }
}

/// SplitMix64.
fn draw(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

impl Blocks {
    /// The cached bytes of a range become durable.
    fn keep(&mut self, from: usize, to: usize) {
        let to = to.min(self.cached.len());
        if self.durable.len() < to {
            self.durable.resize(to, 0);
        }
        if from < to {
            self.durable[from..to].copy_from_slice(&self.cached[from..to]);
        }
    }

    /// Counts an operation that changes something; fails when there is no power.
    fn operate(&mut self) -> Result<(), Error> {
        self.operations += 1;
        if let Some(left) = &mut self.power_left {
            *left = left.saturating_sub(1);
            self.is_off |= *left == 0;
        }
        if self.is_off { Err(Error::other("injected power cut")) } else { Ok(()) }
    }
}

impl StorageBackend for FaultyBlocks {
    fn len(&self) -> Result<u64, Error> {
        Ok(self.lock().cached.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        let blocks = self.lock();
        let end = usize::try_from(offset).ok().and_then(|from| Some(from..from.checked_add(out.len())?));
        match end.and_then(|range| blocks.cached.get(range)) {
            Some(bytes) => {
                out.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(Error::from(ErrorKind::UnexpectedEof)),
        }
    }

    fn set_len(&self, len: u64) -> Result<(), Error> {
        let mut blocks = self.lock();
        blocks.operate()?;
        if blocks.capacity.is_some_and(|capacity| len > capacity) {
            return Err(Error::from(ErrorKind::StorageFull));
        }
        let len = len as usize;
        blocks.cached.resize(len, 0);
        // Metadata of the file: as if journalled at once.
        blocks.durable.resize(len, 0);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), Error> {
        let mut blocks = self.lock();
        blocks.operate()?;
        match blocks.sync_fault.take() {
            Some(SyncFault::Error) => Err(Error::other("injected EIO")),
            Some(SyncFault::Lie) => Ok(()),
            None => {
                blocks.dirty.clear();
                blocks.durable = blocks.cached.clone();
                Ok(())
            }
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), Error> {
        let mut blocks = self.lock();
        // The write during which the power goes has reached the cache, and so may reach the disk in part.
        let powered = blocks.operate();
        let from = offset as usize;
        let to = from + data.len();
        if to > blocks.cached.len() {
            return Err(Error::from(ErrorKind::UnexpectedEof));
        }
        blocks.cached[from..to].copy_from_slice(data);
        blocks.dirty.push((from, data.len()));
        powered
    }
}
