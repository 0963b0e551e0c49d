//! Whatever in this crate reads bytes, as a fuzzer calls it (`make fuzz`).
//!
//! Contract of a target: no bytes whatsoever make it panic; what was decoded is encoded to bytes that are decoded to the
//! same again. It answers whether the bytes were accepted, so that a target that refuses everything shows.
//!
//! Not here: the fuzzer (`tests/fuzz`), and what it found once (`antipode::fuzzing`).

use crate::codec::{self, Blob};
use crate::id::{Era, HostName, LogIndex, SiteName, Term, VoterId};
use crate::replica::wire::MESSAGE_BYTES_MAX;
use crate::replica::{BadMessage, Message, Params, Position, Replica, Snapshot, SnapshotMeta};
use crate::roster::{Membership, VoterInfo};
use crate::storage::{Founding, Identity, LogStore, MemoryDisk, MemoryStore};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;

pub use crate::storage::fuzz::{store, store_seeds};

/// A name, what is called, and inputs that are accepted.
pub type Target = (&'static str, fn(&[u8]) -> bool, fn() -> Vec<Vec<u8>>);

/// This crate's targets.
pub const TARGETS: [Target; 3] =
    [("codec", nested, nested_seeds), ("raft", raft, raft_seeds), ("store", store, store_seeds)];

/// Encodes `value`, which was decoded from `from`, and holds it against what is decoded of that.
///
/// # Panics
/// When the value doesn't come back as it was.
pub fn comes_back<T, E: std::fmt::Debug, D: std::fmt::Debug>(
    from: &[u8],
    value: &T,
    encode: impl Fn(&T) -> Result<Vec<u8>, E>,
    decode: impl Fn(&[u8]) -> Result<T, D>,
) {
    // Spans of time have more than one encoding, so what came in at the limit may have no room any more.
    let Some(once) = encode(value).map_or_else(|error| (from.len() < 512).then(|| panic!("{error:?}")), Some) else {
        return;
    };
    assert!(once.len() <= 2 * from.len(), "{} bytes became {}", from.len(), once.len());
    let again = decode(&once).expect("what was encoded can be decoded");
    assert!(encode(&again).expect("encoded before") == once, "it comes back as it was");
}

/// The pieces of an input of several parts: two bytes of length, little endian, then that many bytes.
pub fn pieces(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<2>() {
        let (piece, rest) = rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

/// An input of these pieces.
pub fn joined<P: AsRef<[u8]>>(pieces: impl IntoIterator<Item = P>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in pieces {
        let piece = piece.as_ref();
        let Ok(length) = u16::try_from(piece.len()) else { continue };
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(piece);
    }
    bytes
}

/// The codec alone, with a type as twisted as none of ours. Elements without bytes don't come back: lengths have more
/// than one encoding, and a shorter one leaves room for fewer.
fn nested(bytes: &[u8]) -> bool {
    type Twisted = (Vec<Vec<Option<u64>>>, BTreeMap<String, Blob>, Option<Box<(i64, char, bool)>>, Vec<[u8; 3]>);
    if let Ok(nothings) = codec::decode::<Vec<()>>(1, bytes, 1 << 16) {
        assert!(nothings.len() <= bytes.len(), "elements without bytes are counted, too");
    }
    let Ok(value) = codec::decode::<Twisted>(1, bytes, 1 << 16) else { return false };
    let decode = |bytes: &[u8]| codec::decode::<Twisted>(1, bytes, 1 << 17);
    comes_back(bytes, &value, |value| codec::encode(1, value, 1 << 17), decode);
    true
}

fn nested_seeds() -> Vec<Vec<u8>> {
    let map = BTreeMap::from([("a".to_owned(), Blob::from(vec![1, 2, 3]))]);
    let value = (vec![vec![Some(7_u64), None], vec![]], map, Some(Box::new((-3_i64, 'é', true))), vec![[1_u8; 3]]);
    codec::encode(1, &value, 1 << 16).into_iter().collect()
}

/// What the frozen messages are written for: voter 300 of three.
static DISK: LazyLock<MemoryDisk> = LazyLock::new(|| {
    let voter = VoterId(300);
    let info = |id| VoterInfo {
        id,
        host: HostName::new("host").expect("a name"),
        site: SiteName::new("site").expect("a name"),
    };
    let voters = [1, 2, 300].map(|id| (VoterId(id), info(VoterId(id))));
    let membership = Membership { voters: voters.into(), ..Membership::default() };
    let last = Position { index: LogIndex(70_000), term: Term(11) };
    let meta = SnapshotMeta { last, config: LogIndex(69_999), membership };
    let genesis = Some(Snapshot { meta, data: Blob::from(b"the state".as_slice()) });
    let disk = MemoryDisk::default();
    let mut store = MemoryStore::on(&disk).expect("an empty disk opens");
    let identity = Identity { cluster: [0xa5; 16], era: Era(1), voter };
    store.found(Founding { identity, genesis }).expect("an empty disk takes a founding");
    disk
});

/// Messages of peers, one after the other, to a voter that believes their names. An empty piece is a tick.
fn raft(bytes: &[u8]) -> bool {
    let mut store = MemoryStore::on(&DISK.backup()).expect("a whole disk");
    let loaded = store.load().expect("a whole disk");
    let mut replica = Replica::new(Params::default(), loaded).expect("good parameters");
    let mut is_accepted = false;
    for frame in pieces(bytes) {
        if frame.is_empty() {
            replica.tick();
        } else if let Ok(message) = Message::decode(frame, MESSAGE_BYTES_MAX) {
            comes_back(frame, &message, Message::encode, |bytes| Message::decode(bytes, MESSAGE_BYTES_MAX));
            match replica.step(message.from, message) {
                Ok(()) => is_accepted = true,
                Err(BadMessage::Forgotten { .. }) => return is_accepted,
                Err(_) => {}
            }
        }
        drain(&mut replica, &mut store);
    }
    is_accepted
}

fn drain(replica: &mut Replica, store: &mut MemoryStore) {
    while let Some(ready) = replica.ready() {
        for persisted in store.persist(vec![ready.write]).expect("a disk without faults") {
            let after = replica.persisted(persisted);
            let installed = after.snapshot.map(|snapshot| snapshot.meta.last.index);
            let applied = after.committed.last().map(|entry| entry.index).or(installed);
            applied.into_iter().for_each(|index| replica.applied(index));
        }
    }
}

/// Each frozen message alone, and all of them after each other.
fn raft_seeds() -> Vec<Vec<u8>> {
    let all: Vec<Vec<u8>> = frozen("message-").into_iter().map(|(_, bytes)| bytes).collect();
    let accepted = all.iter().map(|frame| joined([frame])).filter(|input| raft(input));
    accepted.chain([joined(all.iter().flat_map(|frame| [frame.as_slice(), &[]]))]).collect()
}

/// The frozen bytes whose names begin so. Only where the repository is.
pub(crate) fn frozen(prefix: &str) -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/wire");
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).expect("the frozen bytes are here").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(prefix) {
            let text = std::fs::read_to_string(entry.path()).expect("a readable file");
            let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
            found.insert(name, digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect());
        }
    }
    found.into_iter().collect()
}
