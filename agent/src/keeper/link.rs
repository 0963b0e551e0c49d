//! The agent's side of the shared memory: it writes the record and reads the page.
//!
//! Contract: one [`KeeperLink`] per host at a time (a lock on the record's file says so); neither call waits, makes a
//! system call or is disturbed by the other side. A record is written only by an effect of the engine's step that
//! found the lease good.
//!
//! Not here: when a group may start: the agent waits until [`Page::echoed`] has reached the sequence that armed it,
//! the page is fresh, and its own pet inequality holds.

use super::armed::ArmedSet;
use super::page::{PAGE_BYTES_MAX, Page, PageError};
use super::record::{RECORD_BYTES_MAX, Record, RecordError, decode_into};
use super::slots::{Mapping, SlotError, SlotReader, SlotWriter};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// The record's file in the keeper's directory.
pub(super) const RECORD_FILE: &str = "record";
/// The page's file in the keeper's directory.
pub(super) const PAGE_FILE: &str = "page";

/// Why there is no link, or nothing to read on it.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The keeper's file can't be mapped: most likely there is no keeper.
    #[error("map {path:?}, shared with the keeper")]
    Map {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Another agent writes records here.
    #[error("write keeper records in {0:?}: another agent does")]
    Busy(PathBuf),
    /// There is nothing whole to read.
    #[error("read what keeper and agent share")]
    Slots(#[source] SlotError),
    /// The page is whole but not understood.
    #[error("read what the keeper says")]
    Page(#[source] PageError),
    /// The record is whole but not understood.
    #[error("read what an agent wrote before")]
    Record(#[source] RecordError),
}

/// Bytes of the largest record and of the largest page: what their files are made for.
pub const fn capacities() -> (usize, usize) {
    (RECORD_BYTES_MAX, PAGE_BYTES_MAX)
}

fn mapped(path: &Path, mapping: io::Result<Mapping>) -> Result<Mapping, LinkError> {
    mapping.map_err(|source| LinkError::Map { path: path.to_owned(), source })
}

/// The page, for whoever only looks.
#[derive(Debug)]
pub struct PageReader(SlotReader);

impl PageReader {
    /// Maps the page of the keeper that works in `dir`.
    ///
    /// # Errors
    /// [`LinkError::Map`] if there is none.
    pub fn open(dir: &Path) -> Result<Self, LinkError> {
        let path = dir.join(PAGE_FILE);
        Ok(Self(SlotReader::new(mapped(&path, Mapping::open(&path, PAGE_BYTES_MAX))?)))
    }

    /// What the keeper says.
    ///
    /// # Errors
    /// [`LinkError::Slots`] or [`LinkError::Page`]; nothing is known about the keeper then.
    pub fn page(&mut self) -> Result<Page, LinkError> {
        let bytes = self.0.read().map_err(LinkError::Slots)?;
        Page::decode(bytes).map_err(LinkError::Page)
    }

    /// Another number means that it says something since; 0 that it never did.
    pub fn generation(&self) -> u64 {
        self.0.generation()
    }
}

/// The agent's end.
#[derive(Debug)]
pub struct KeeperLink {
    writer: SlotWriter,
    page: PageReader,
    buffer: Box<[u8]>,
    last: SlotReader,
    /// Held for as long as this link lives.
    _lock: File,
}

impl KeeperLink {
    /// Connects to the keeper that works in `dir`.
    ///
    /// # Errors
    /// [`LinkError::Map`] if no keeper has ever worked there, [`LinkError::Busy`] if another agent is connected.
    pub fn open(dir: &Path) -> Result<Self, LinkError> {
        let path = dir.join(RECORD_FILE);
        let writer = mapped(&path, Mapping::open(&path, RECORD_BYTES_MAX))?;
        let last = mapped(&path, Mapping::open(&path, RECORD_BYTES_MAX))?;
        let lock = File::open(&path).map_err(|source| LinkError::Map { path: path.clone(), source })?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| LinkError::Busy(path))?;
        Ok(Self {
            writer: SlotWriter::new(writer),
            page: PageReader::open(dir)?,
            buffer: vec![0; RECORD_BYTES_MAX].into_boxed_slice(),
            last: SlotReader::new(last),
            _lock: lock,
        })
    }

    /// Makes `record` the one that the keeper sees. Its sequence must be larger than any written before it, also by
    /// an earlier agent: see [`KeeperLink::last`].
    ///
    /// # Panics
    /// If the record has more groups than fit, which its table doesn't allow.
    pub fn write(&mut self, record: &Record) {
        let len = record.encode(&mut self.buffer);
        let len = len.expect("a table of at most GROUPS_MAX groups fits the largest record");
        self.writer.write(&self.buffer[..len]);
    }

    /// What the keeper says.
    ///
    /// # Errors
    /// [`LinkError::Slots`] or [`LinkError::Page`]; nothing is known about the keeper then.
    pub fn page(&mut self) -> Result<Page, LinkError> {
        self.page.page()
    }

    /// See [`PageReader::generation`].
    pub fn generation(&self) -> u64 {
        self.page.generation()
    }

    /// The last record written, by this agent or one before it; `None` if there never was one.
    ///
    /// # Errors
    /// [`LinkError::Slots`] or [`LinkError::Record`] if an earlier agent left something that isn't understood; the
    /// keeper doesn't understand it either.
    pub fn last(&mut self) -> Result<Option<Record>, LinkError> {
        let bytes = match self.last.read() {
            Ok(bytes) => bytes,
            Err(SlotError::Empty) => return Ok(None),
            Err(torn) => return Err(LinkError::Slots(torn)),
        };
        let mut armed = ArmedSet::default();
        let head = decode_into(bytes, &mut armed).map_err(LinkError::Record)?;
        Ok(Some(Record { head, armed }))
    }
}
