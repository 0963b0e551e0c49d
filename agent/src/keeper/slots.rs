//! One writer, any readers, two slots: how keeper and agent hand each other bytes through memory without a lock.
//!
//! Contract: a reader gets bytes that one `write` wrote as a whole, and the latest of them, or [`SlotError`]. A
//! writer that dies in the middle of a write leaves the slot before it untouched and still the latest. Neither side
//! waits for the other, allocates or makes a system call after it was set up.
//!
//! Every word is an atomic, so that a race is at worst a torn slot, which generation and checksum tell.
//! Not here: what the bytes mean (`record`, `page`); that there is one writer only (`link`, `driver` take a lock).

use quorum::mutants;
use rustix::fs::{Mode, OFlags};
use rustix::mm::{MapFlags, ProtFlags};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// "antikeep" and the version of this layout.
const MAGIC: u64 = u64::from_le_bytes(*b"antikp\0\x01");
/// Words before the slots: magic, capacity, latest generation, and room to grow.
const HEADER_WORDS: usize = 8;
/// Words of a slot before its body: begin, end, length, checksum.
const SLOT_WORDS: usize = 4;
const WORD: usize = size_of::<u64>();
/// A reader is overtaken only if two whole writes fall into one read; this often in a row never happens by chance.
const READ_TRIES: usize = 16;

/// Why there is nothing to read. The reader's earlier bytes are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SlotError {
    /// Nothing was ever written.
    #[error("read the shared slots: nothing was ever written")]
    Empty,
    /// The slot doesn't hold together: a torn write, a wrong checksum, or another layout.
    #[error("read the shared slots: torn, or of another layout")]
    Torn,
}

/// Shared memory of whole words, mapped from a file.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: the memory is only ever touched through atomics, from any thread and process.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Bytes of a file whose slots hold up to `capacity` bytes each.
    pub fn file_bytes(capacity: usize) -> usize {
        (HEADER_WORDS + 2 * (SLOT_WORDS + capacity.div_ceil(WORD))) * WORD
    }

    /// Maps the file at `path`; makes it and its size if need be. Only its owner may read or write it.
    ///
    /// # Errors
    /// What the kernel said; a file that was made is left behind.
    pub fn create(path: &Path, capacity: usize) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = File::from(rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?);
        let bytes = Self::file_bytes(capacity);
        if file.metadata()?.len() != bytes as u64 {
            file.set_len(0)?;
            file.set_len(bytes as u64)?;
        }
        Self::map(&file.into(), bytes)
    }

    /// Maps the file at `path`, which must have the size of these slots.
    ///
    /// # Errors
    /// What the kernel said; [`io::ErrorKind::InvalidData`] if the size is another one.
    pub fn open(path: &Path, capacity: usize) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
        let bytes = Self::file_bytes(capacity);
        if file.metadata()?.len() != bytes as u64 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the keeper's file has another layout"));
        }
        Self::map(&file.into(), bytes)
    }

    pub(super) fn map(file: &OwnedFd, bytes: usize) -> io::Result<Self> {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address that the kernel chooses; nothing else refers to it.
        let base = unsafe { rustix::mm::mmap(std::ptr::null_mut(), bytes, prot, MapFlags::SHARED, file, 0) }?;
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("the kernel mapped page zero"))?;
        Ok(Self { base, words: bytes / WORD })
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: `base` is the page-aligned start of a mapping of exactly `words` words that lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.words) }
    }

    fn capacity(&self) -> usize {
        ((self.words - HEADER_WORDS) / 2 - SLOT_WORDS) * WORD
    }

    fn has_layout(&self) -> bool {
        let words = self.words();
        words[0].load(Ordering::Relaxed) == MAGIC && words[1].load(Ordering::Relaxed) == self.capacity() as u64
    }

    fn latest(&self) -> &AtomicU64 {
        &self.words()[2]
    }

    fn slot(&self, generation: u64) -> &[AtomicU64] {
        let slot_words = SLOT_WORDS + self.capacity() / WORD;
        let start = HEADER_WORDS + (generation as usize & 1) * slot_words;
        &self.words()[start..start + slot_words]
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: unmaps exactly what `map` mapped; no reference outlives `self`.
        let unmapped = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.words * WORD) };
        debug_assert!(unmapped.is_ok(), "a mapping of ours can be unmapped");
    }
}

/// The checksum over what must belong together.
fn checksum(generation: u64, bytes: &[u8]) -> u64 {
    let mut hash = crc32fast::Hasher::new();
    hash.update(&generation.to_le_bytes());
    hash.update(&(bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
    u64::from(hash.finalize())
}

/// The one who writes.
#[derive(Debug)]
pub struct SlotWriter {
    mapping: Mapping,
}

impl SlotWriter {
    /// Goes on after the latest write; makes the layout if there is none.
    pub fn new(mapping: Mapping) -> Self {
        if !mapping.has_layout() {
            mapping.words().iter().for_each(|word| word.store(0, Ordering::Relaxed));
            mapping.words()[1].store(mapping.capacity() as u64, Ordering::Relaxed);
            mapping.words()[0].store(MAGIC, Ordering::Release);
        }
        Self { mapping }
    }

    /// Makes `bytes` the latest.
    ///
    /// # Panics
    /// If they don't fit the slots: their size is a constant of this program.
    pub fn write(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.mapping.capacity(), "what is written fits the slots");
        // Whatever lies there: zero would say that nothing was ever written.
        let generation = self.mapping.latest().load(Ordering::Relaxed).wrapping_add(1).max(1);
        let slot = self.mapping.slot(generation);
        slot[0].store(generation, Ordering::Relaxed);
        fence(Ordering::Release);
        slot[2].store(bytes.len() as u64, Ordering::Relaxed);
        slot[3].store(checksum(generation, bytes), Ordering::Relaxed);
        for (word, chunk) in slot[SLOT_WORDS..].iter().zip(bytes.chunks(WORD)) {
            let mut padded = [0; WORD];
            padded[..chunk.len()].copy_from_slice(chunk);
            word.store(u64::from_le_bytes(padded), Ordering::Relaxed);
        }
        slot[1].store(generation, Ordering::Release);
        self.mapping.latest().store(generation, Ordering::Release);
    }
}

/// One who reads.
#[derive(Debug)]
pub struct SlotReader {
    mapping: Mapping,
    buffer: Box<[u8]>,
}

impl SlotReader {
    /// Reads what a [`SlotWriter`] writes into the same file.
    pub fn new(mapping: Mapping) -> Self {
        let buffer = vec![0; mapping.capacity()].into_boxed_slice();
        Self { mapping, buffer }
    }

    /// The number of the latest write: two equal numbers mean that nothing was written in between.
    pub fn generation(&self) -> u64 {
        self.mapping.latest().load(Ordering::Acquire)
    }

    /// The latest bytes.
    ///
    /// # Errors
    /// [`SlotError`]: nothing was written, or nothing holds together.
    pub fn read(&mut self) -> Result<&[u8], SlotError> {
        for _ in 0..READ_TRIES {
            let generation = self.generation();
            if generation == 0 {
                return Err(SlotError::Empty);
            }
            if let Some(len) = self.copy(generation) {
                return Ok(&self.buffer[..len]);
            }
            // Only a newer write can have spoilt this one; without it trying again is no use.
            if self.generation() == generation {
                return Err(SlotError::Torn);
            }
        }
        Err(SlotError::Torn)
    }

    fn copy(&mut self, generation: u64) -> Option<usize> {
        if !self.mapping.has_layout() {
            return None;
        }
        let slot = self.mapping.slot(generation);
        let end = slot[1].load(Ordering::Acquire);
        let len = usize::try_from(slot[2].load(Ordering::Relaxed)).ok().filter(|&len| len <= self.buffer.len())?;
        let sum = slot[3].load(Ordering::Relaxed);
        for (word, chunk) in slot[SLOT_WORDS..].iter().zip(self.buffer[..len].chunks_mut(WORD)) {
            chunk.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes()[..chunk.len()]);
        }
        fence(Ordering::Acquire);
        let begin = slot[0].load(Ordering::Relaxed);
        let whole = begin == generation && end == generation && sum == checksum(generation, &self.buffer[..len]);
        (whole || mutants::on("keeper.reads_torn")).then_some(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    const CAPACITY: usize = 4096;

    struct Pair {
        _dir: tempfile::TempDir,
        path: std::path::PathBuf,
        writer: SlotWriter,
        reader: SlotReader,
    }

    fn pair() -> Pair {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("slots");
        let writer = SlotWriter::new(Mapping::create(&path, CAPACITY).expect("created"));
        let reader = SlotReader::new(Mapping::open(&path, CAPACITY).expect("opened"));
        Pair { _dir: dir, path, writer, reader }
    }

    #[test]
    fn the_latest_whole_write_is_read() {
        let mut pair = pair();
        assert_eq!(pair.reader.read(), Err(SlotError::Empty));
        for bytes in [&b"one"[..], b"twenty-two bytes long", b"", b"last"] {
            pair.writer.write(bytes);
            assert_eq!(pair.reader.read(), Ok(bytes));
        }
    }

    #[test]
    fn a_writer_that_dies_in_the_middle_leaves_the_write_before() {
        let mut pair = pair();
        pair.writer.write(b"whole");
        let torn = Mapping::open(&pair.path, CAPACITY).expect("opened");
        let slot = torn.slot(2);
        slot[0].store(2, Ordering::Relaxed);
        slot[SLOT_WORDS].store(u64::MAX, Ordering::Relaxed);
        assert_eq!(pair.reader.read(), Ok(&b"whole"[..]));
        let mut next = SlotWriter::new(torn);
        next.write(b"after the restart");
        assert_eq!(pair.reader.read(), Ok(&b"after the restart"[..]));
    }

    #[test]
    fn one_flipped_bit_is_torn() {
        let mut pair = pair();
        pair.writer.write(b"what was agreed");
        let slot = pair.writer.mapping.slot(1);
        for word in [0, 1, 2, 3, SLOT_WORDS] {
            slot[word].fetch_xor(1, Ordering::Relaxed);
            assert_eq!(pair.reader.read(), Err(SlotError::Torn), "word {word}");
            slot[word].fetch_xor(1, Ordering::Relaxed);
        }
        assert_eq!(pair.reader.read(), Ok(&b"what was agreed"[..]));
    }

    #[test]
    #[cfg(feature = "mutants")]
    fn a_torn_write_that_is_read_is_noticed() {
        let mut pair = pair();
        pair.writer.write(b"what was agreed");
        pair.writer.mapping.slot(1)[2].fetch_xor(1, Ordering::Relaxed);
        let _planted = mutants::plant("keeper.reads_torn");
        assert!(matches!(pair.reader.read(), Ok(torn) if torn != b"what was agreed"));
    }

    #[test]
    fn a_file_of_another_layout_is_torn_until_a_writer_makes_it_anew() {
        let mut pair = pair();
        pair.writer.write(b"old");
        pair.writer.mapping.words()[0].store(1, Ordering::Relaxed);
        assert_eq!(pair.reader.read(), Err(SlotError::Torn));
        SlotWriter::new(Mapping::create(&pair.path, CAPACITY).expect("created")).write(b"new");
        assert_eq!(pair.reader.read(), Ok(&b"new"[..]));
    }

    #[test]
    fn readers_that_race_the_writer_see_whole_and_rising_writes_only() {
        let Pair { _dir, path, mut writer, reader } = pair();
        drop(reader);
        writer.write(&[0; CAPACITY]);
        let stop = Arc::new(AtomicBool::new(false));
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let mut reader = SlotReader::new(Mapping::open(&path, CAPACITY).expect("opened"));
                let stop = Arc::clone(&stop);
                std::thread::spawn(move || race(&mut reader, &stop))
            })
            .collect();
        for n in 0..20_000_u32 {
            let mut bytes = [(n % 251) as u8; CAPACITY];
            bytes[..4].copy_from_slice(&n.to_le_bytes());
            writer.write(&bytes);
        }
        stop.store(true, Ordering::Relaxed);
        let seen: usize = readers.into_iter().map(|reader| reader.join().expect("no torn read")).sum();
        assert!(seen > 0, "the race took place");
    }

    /// Counts whole reads; a reader that is overtaken time and again may find nothing, but never something torn.
    fn race(reader: &mut SlotReader, stop: &AtomicBool) -> usize {
        let (mut last, mut whole) = (0, 0);
        while !stop.load(Ordering::Relaxed) {
            let Ok(bytes) = reader.read() else { continue };
            let n = u32::from_le_bytes(bytes[..4].try_into().expect("four bytes"));
            assert!(n >= last, "went back from {last} to {n}");
            assert_eq!(bytes.len(), CAPACITY);
            assert!(bytes[4..].iter().all(|&b| b == (n % 251) as u8), "torn at {n}");
            (last, whole) = (n, whole + 1);
        }
        whole
    }
}
