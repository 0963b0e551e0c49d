//! A voter's store with arbitrary records in it, as a fuzzer calls it.

use super::record::{Batch, HARD_STATE, IDENTITY, INCARNATION, Key, SNAPSHOT, TRUNCATED, entry, peer};
use super::store::{Backing, Store};
use super::{FaultyBlocks, LogStore, StorageError, promise};
use crate::codec;
use crate::fuzzing::{frozen, joined, pieces};
use crate::replica::wire::RECORD_VERSION;
use std::collections::BTreeMap;

struct Shelf(BTreeMap<Key, Vec<u8>>);

impl Backing for Shelf {
    fn read_all(&mut self) -> Result<BTreeMap<Key, Vec<u8>>, StorageError> {
        Ok(self.0.clone())
    }
    fn commit(&mut self, batch: &Batch) -> Result<(), StorageError> {
        for (key, value) in &batch.put {
            self.0.insert(*key, value.clone());
        }
        Ok(())
    }
}

/// Records, one after the other: which key, then its value. Whatever checksums keep out is sealed here, so that the
/// checks behind them are reached; the last bit of the first byte leaves a record as it is.
pub fn store(bytes: &[u8]) -> bool {
    let mut shelf = Shelf(BTreeMap::new());
    for piece in pieces(bytes) {
        let Some((&which, content)) = piece.split_first() else { continue };
        let key = key_of(which);
        if which == u8::MAX {
            head(content);
        } else if which & 0x80 != 0 {
            shelf.0.insert(key, content.to_vec());
        } else {
            shelf.0.insert(key, sealed(key, content));
        }
    }
    let Ok(mut store) = Store::open(shelf) else { return false };
    let Ok(loaded) = store.load() else { return false };
    let last = loaded.last();
    assert!(loaded.hard_state.commit <= last.index && last.term <= loaded.hard_state.term, "{loaded:?}");
    assert!(loaded.entries.iter().zip(loaded.truncated.index.0 + 1..).all(|(entry, index)| entry.index.0 == index));
    let again = store.load().expect("what was loaded can be loaded again");
    again.entries == loaded.entries
}

fn key_of(which: u8) -> Key {
    match which & 0x7f {
        0 => IDENTITY,
        1 => INCARNATION,
        2 => HARD_STATE,
        3 => TRUNCATED,
        4 => SNAPSHOT,
        number @ 5..16 => peer(u64::from(number)),
        number @ 16..112 => entry(69_985 + u64::from(number)),
        number => (number, 0),
    }
}

fn sealed(key: Key, content: &[u8]) -> Vec<u8> {
    let mut bytes = codec::encode(RECORD_VERSION, &key, 64).expect("a key is short");
    bytes.extend_from_slice(content);
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

/// The file's head, cut or extended as it comes.
fn head(content: &[u8]) {
    if let Ok((head, _body)) = promise::Head::of(FaultyBlocks::with_image(content.to_vec())) {
        let _ = (head.check(0), head.check(u64::MAX), head.check(content.len() as u64));
    }
}

/// A store of all frozen records, one that has just joined, and heads of files.
pub fn store_seeds() -> Vec<Vec<u8>> {
    let record = |name: &str| {
        let (_, bytes) = frozen(name).into_iter().next().expect("a frozen record");
        bytes[1..].to_vec()
    };
    let with = |which: u8, content: &[u8]| [&[which], content].concat();
    let base = [(0, "record-identity"), (2, "record-hard-state"), (7, "record-seen")];
    let base: Vec<Vec<u8>> = base.map(|(which, name)| with(which, &record(name))).into();
    let old = [with(1, &[3]), with(3, &record("record-position")), with(4, &record("record-snapshot"))];
    let whole = base.iter().chain(&old).cloned().chain([with(16, &record("record-entry"))]);
    let mut head = vec![0; 8_192];
    head[..20].copy_from_slice(&promise::copy_of(6));
    head[4_096..4_116].copy_from_slice(&promise::copy_of(7));
    let whole: Vec<Vec<u8>> = whole.collect();
    vec![joined(&whole), joined(whole.iter().chain([&with(u8::MAX, &head)]))]
}
