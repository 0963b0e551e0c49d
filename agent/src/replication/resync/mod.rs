//! Bringing an old copy up to date without sending what it has already: both ends are read and hashed, what differs is
//! sent, what the standby had instead is kept first.
//!
//! ```text
//!   source                                                        standby
//!   the running side's writes are tracked from here on
//!   Begin ───────────────────────────────────────────────────────► its record says `syncing` at this very epoch?
//!   Hash(range) ─────────────────────────────────────────────────► read, hash
//!   read, hash, compare  ◄──────────────────────────────── Hashes
//!   Replace(chunk)… Settle ──────────────────────────────────────► keep what was there, force it; write, force it
//!                        ◄──────────────────────────────── Settled
//!   End ─────────────────────────────────────────────────────────► Ended
//!   then the kind itself sends what was written meanwhile, the last of it in a short pause
//! ```
//! No bitmap of the side that crashed is trusted, and none is read: what it wrote and never sent shows as a difference.
//! A chunk that the guest writes while it is read may be compared torn; it is among the tracked ones and is sent again.
//!
//! Invariant: a byte of the standby is overwritten only while its door ([`door`]) stands open for this session, and, if
//! it may be the only copy of something, only after it lies in the kept set on disk.
//!
//! Not here: who is brought up to date (`runner`), the wire (`driver::transport`), the tracking (`nbd::catchup`).

pub mod door;
pub(crate) mod fuzz;
pub mod kept;
mod source;
mod standby;
mod volume;
mod wire;

pub use source::compare_and_send;
pub use standby::{Served, Serving, serve};
pub use volume::{CHUNK, Volume};
pub use wire::{Begin, STREAM_KIND, Wire};

use std::time::Duration;

/// What bringing a copy up to date took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Bytes that were hashed at both ends.
    pub compared_bytes: u64,
    /// Of these, bytes in chunks that differed.
    pub differing_bytes: u64,
    /// Bytes sent in all: what differed, and what the guest wrote meanwhile.
    pub copied_bytes: u64,
    /// Bytes of the old side that were kept because nobody else has them.
    pub kept_bytes: u64,
    /// How long the guest stood still for the last of it.
    pub pause: Duration,
}

/// Why a comparison ended before its end. The standby's copy stays what its record says: `syncing`.
#[derive(Debug, thiserror::Error)]
pub enum ResyncError {
    /// The stream between the agents broke, or the other end said nothing for too long.
    #[error("hear from the other agent: {0}")]
    Wire(String),
    /// The other end refused; nothing more was written there.
    #[error("go on: {0}")]
    Refused(String),
    /// The volume, or what is kept of it, can't be read or written here.
    #[error("use the volume: {0}")]
    Volume(String),
}
