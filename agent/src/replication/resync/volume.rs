//! A volume as chunks, read and written past the page cache: what is read is what the disk holds, what was written is on
//! the disk when the call returns.

use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// Unit of comparison in bytes. QEMU's own dirty bitmaps use the same by default: a smaller one would be copied in these
/// anyway.
pub const CHUNK: usize = 64 << 10;

/// What `O_DIRECT` asks of buffers, offsets and lengths on every disk of today.
const ALIGNED: usize = 4096;
/// No disk has smaller sectors.
const SECTOR: u64 = 512;

/// An open volume.
#[derive(Debug)]
pub struct Volume {
    file: File,
    bytes: u64,
}

/// A buffer of a chunk that `O_DIRECT` takes.
struct Buffer {
    memory: Vec<u8>,
    start: usize,
}

impl Buffer {
    fn new() -> Self {
        let memory = vec![0; CHUNK + ALIGNED];
        let start = memory.as_ptr().align_offset(ALIGNED);
        Self { memory, start }
    }

    fn slice(&mut self, length: usize) -> &mut [u8] {
        &mut self.memory[self.start..self.start + length]
    }
}

impl Volume {
    /// Opens the raw file or block device at `path`.
    ///
    /// # Errors
    /// What the kernel says, or a size that no disk has.
    pub fn open(path: &Path, is_to_write: bool) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(is_to_write).custom_flags(libc::O_DIRECT | libc::O_DSYNC);
        let mut file = options.open(path)?;
        let bytes = file.seek(SeekFrom::End(0))?;
        if bytes % SECTOR != 0 {
            return Err(io::Error::other(format!("{bytes} bytes are no whole number of sectors")));
        }
        Ok(Self { file, bytes })
    }

    /// Its size.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many chunks it has; the last one may be shorter.
    pub fn chunks(&self) -> u64 {
        self.bytes.div_ceil(CHUNK as u64)
    }

    fn length_of(&self, chunk: u64) -> io::Result<usize> {
        let start = chunk.checked_mul(CHUNK as u64).filter(|start| *start < self.bytes);
        let start = start.ok_or_else(|| io::Error::other(format!("chunk {chunk} lies behind the end")))?;
        Ok(usize::try_from((self.bytes - start).min(CHUNK as u64)).unwrap_or(CHUNK))
    }

    /// One chunk's bytes.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn read(&self, chunk: u64) -> io::Result<Vec<u8>> {
        let length = self.length_of(chunk)?;
        let mut buffer = Buffer::new();
        self.file.read_exact_at(buffer.slice(length), chunk * CHUNK as u64)?;
        Ok(buffer.slice(length).to_vec())
    }

    /// The hash of one chunk's bytes.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn hash(&self, chunk: u64) -> io::Result<[u8; 32]> {
        self.read(chunk).map(|bytes| hash(&bytes))
    }

    /// Replaces one chunk; on disk when it returns.
    ///
    /// # Errors
    /// What the kernel says; a part of it may have been written.
    pub fn write(&self, chunk: u64, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() != self.length_of(chunk)? {
            return Err(io::Error::other(format!("chunk {chunk} doesn't have {} bytes", bytes.len())));
        }
        let mut buffer = Buffer::new();
        buffer.slice(bytes.len()).copy_from_slice(bytes);
        self.file.write_all_at(buffer.slice(bytes.len()), chunk * CHUNK as u64)
    }
}

/// The hash by which chunks are compared: no two different chunks that anybody could find have the same.
pub(super) fn hash(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}
