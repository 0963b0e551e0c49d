//! Keys and values on disk.
//!
//! A key is a space and a number; a value is sealed by the codec together with its own key, so that a value found
//! under another key is as damaged as one with a flipped bit.

use super::StorageError;
use crate::codec::{self, DecodeError, EncodeError, FRAME_BYTES_MAX};
use crate::replica::wire::RECORD_VERSION;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::ops::RangeInclusive;

/// Space, then number.
pub(super) type Key = (u8, u64);

/// Whose store it is.
pub(super) const IDENTITY: Key = (0, 0);
/// How often the voter has started.
pub(super) const INCARNATION: Key = (0, 1);
/// The hard state.
pub(super) const HARD_STATE: Key = (1, 0);
/// The last entry that is gone.
pub(super) const TRUNCATED: Key = (1, 1);
/// The snapshot.
pub(super) const SNAPSHOT: Key = (1, 2);

const PEERS: u8 = 2;
const LOG: u8 = 3;

/// What is remembered of a peer.
pub(super) const fn peer(id: u64) -> Key {
    (PEERS, id)
}

/// An entry.
pub(super) const fn entry(index: u64) -> Key {
    (LOG, index)
}

/// The peer that a key is about.
pub(super) const fn as_peer(key: Key) -> Option<u64> {
    if key.0 == PEERS { Some(key.1) } else { None }
}

/// The index of the entry under a key.
pub(super) const fn as_entry(key: Key) -> Option<u64> {
    if key.0 == LOG { Some(key.1) } else { None }
}

/// What a commit changes, all or nothing: first deletions, then values.
#[derive(Debug, Default)]
pub struct Batch {
    pub(super) delete: Vec<RangeInclusive<Key>>,
    pub(super) put: Vec<(Key, Vec<u8>)>,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.delete.is_empty() && self.put.is_empty()
    }

    /// Seals `value` and puts it under `key`.
    ///
    /// # Panics
    /// When the value is longer than anything a replica hands out; its parts were bounded before.
    pub(super) fn put<T: Serialize>(&mut self, key: Key, value: &T) {
        let sealed: Result<_, EncodeError> = codec::seal(RECORD_VERSION, &(key, value), FRAME_BYTES_MAX);
        self.put.push((key, sealed.expect("what is stored was bounded before")));
    }
}

/// Opens what [`Batch::put`] sealed under `key`.
pub(super) fn open<T: DeserializeOwned>(key: Key, bytes: &[u8]) -> Result<T, StorageError> {
    let damaged = |what: String| StorageError::Damaged { what };
    match codec::open::<(Key, T)>(RECORD_VERSION, bytes, FRAME_BYTES_MAX) {
        Ok((under, value)) if under == key => Ok(value),
        Ok((under, _)) => Err(damaged(format!("record {key:?} holds record {under:?}"))),
        Err(DecodeError::Version { found, .. }) if found > RECORD_VERSION => Err(StorageError::NewerVersion(found)),
        Err(error) => Err(damaged(format!("record {key:?} can't be read: {}", chain(&error)))),
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
