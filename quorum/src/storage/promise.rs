//! The head of a store's file: the number of the last commit that its voter was told of, kept twice, outside redb.
//!
//! redb syncs once for a commit. After that a newest root that doesn't verify looks like a commit during which the
//! power went, and redb falls back to the one before: right for a commit that nobody was told of, a forgotten promise
//! for one that somebody was. So each commit has a number; when it is durable its number is written here and synced,
//! and only then is the commit reported. A file that opens at a lower number than its head says has lost something.
//!
//! ```text
//! 0      one sector: the number of the last even commit     4096   one sector: that of the last odd one
//! 8192   redb's file
//! ```
//! The two copies lie in pages of their own: the power may go while one is written, and then the other is one less.
//!
//! Why not redb's two-phase commit, which costs the same second sync: `quorum/docs/decisions/0002-promise.md`.

use super::StorageError;
use redb::{BackendError, StorageBackend};
use std::io::Error;
use std::ops::Bound;
use std::sync::Arc;

/// What lies before redb's first byte; a whole number of its pages.
const HEAD_BYTES: u64 = 2 * SLOT_BYTES;
/// From one copy to the other.
const SLOT_BYTES: u64 = 4_096;
/// Disks write a sector whole or not at all; a copy is shorter.
const COPY_BYTES: usize = 20;
const MAGIC: [u8; 8] = *b"promised";

/// The head.
#[derive(Debug)]
pub(super) struct Head {
    blocks: Arc<dyn StorageBackend>,
    promised: u64,
}

/// Everything behind the head: what redb takes for the whole file.
#[derive(Debug)]
pub(super) struct Body(Arc<dyn StorageBackend>);

impl Head {
    /// Reads the head of `blocks`, or makes one on blocks that are empty, and gives what lies behind it.
    pub(super) fn of(blocks: impl StorageBackend) -> Result<(Self, Body), StorageError> {
        let blocks: Arc<dyn StorageBackend> = Arc::new(blocks);
        let doing = |source| StorageError::Io { doing: "read the head of the voter's store", source };
        let len = blocks.len().map_err(doing)?;
        if len == 0 {
            blocks.set_len(HEAD_BYTES).map_err(doing)?;
        } else if len < HEAD_BYTES {
            return Err(StorageError::Damaged { what: format!("the file has only {len} bytes") });
        }
        let mut copies = Vec::new();
        for slot in 0..2 {
            let mut bytes = [0; COPY_BYTES];
            blocks.read(slot * SLOT_BYTES, &mut bytes).map_err(doing)?;
            copies.extend(number_in(&bytes, slot));
        }
        let Some(promised) = copies.into_iter().max() else {
            return Err(StorageError::Damaged { what: "neither copy in its head can be read".to_owned() });
        };
        let body = Body(Arc::clone(&blocks));
        Ok((Self { blocks, promised }, body))
    }

    /// Holds the commit that redb opened at against what was promised.
    pub(super) fn check(&self, found: u64) -> Result<(), StorageError> {
        let promised = self.promised;
        if found < promised && !crate::mutants::on("storage.forgets_promises") {
            return Err(StorageError::Forgotten { promised, found });
        }
        // One commit more: the power went before it was promised. Two: and the copy of the last promise is damaged.
        if found > promised.saturating_add(2) {
            let what = format!("it is at commit {found} and its head at {promised}: they don't belong together");
            return Err(StorageError::Damaged { what });
        }
        Ok(())
    }

    /// Makes durable that commit `number` is, which redb has just made so.
    pub(super) fn promise(&mut self, number: u64) -> Result<(), Error> {
        self.blocks.write(number % 2 * SLOT_BYTES, &copy_of(number))?;
        self.blocks.sync_data()?;
        self.promised = number;
        Ok(())
    }
}

pub(super) fn copy_of(number: u64) -> [u8; COPY_BYTES] {
    let mut bytes = [0; COPY_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..16].copy_from_slice(&number.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..16]);
    bytes[16..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// The number in a copy; zero in one that was never written, none in one that is damaged.
fn number_in(bytes: &[u8; COPY_BYTES], slot: u64) -> Option<u64> {
    if *bytes == [0; COPY_BYTES] {
        return Some(0);
    }
    let number = u64::from_le_bytes(bytes[8..16].try_into().ok()?);
    (*bytes == copy_of(number) && number % 2 == slot).then_some(number)
}

impl StorageBackend for Body {
    fn len(&self) -> Result<u64, Error> {
        Ok(self.0.len()?.saturating_sub(HEAD_BYTES))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        self.0.read(offset.saturating_add(HEAD_BYTES), out)
    }

    fn set_len(&self, len: u64) -> Result<(), Error> {
        self.0.set_len(len.saturating_add(HEAD_BYTES))
    }

    fn sync_data(&self) -> Result<(), Error> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), Error> {
        self.0.write(offset.saturating_add(HEAD_BYTES), data)
    }

    fn close(&self) -> Result<(), Error> {
        self.0.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.query_lock_range(start, end)
    }
}
