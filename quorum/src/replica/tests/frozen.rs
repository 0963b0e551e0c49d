//! Bytes of every version, as they were first sent and stored: what reads them today must read them for ever.
//!
//! `BLESS=1` writes a file that is missing; it never changes one. A new version gets files of its own.

use super::super::wire::{Appended, Ballot, Body};
use super::super::*;
use super::world::{ERA, info, members};
use crate::codec::{self, Blob};
use crate::id::{LogIndex, Term, VoterId};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::path::PathBuf;

fn at(index: u64, term: u64) -> Position {
    Position { index: LogIndex(index), term: Term(term) }
}

fn snapshot() -> Snapshot {
    let mut membership = members([1, 2, 300]);
    membership.outgoing = members([1, 2, 3]).voters;
    membership.learners.insert(VoterId(9), info(9));
    let meta = SnapshotMeta { last: at(70_000, 12), config: LogIndex(69_999), membership };
    Snapshot { meta, data: Blob::from(b"the state".as_slice()) }
}

/// One of each kind, with fields of each width.
fn bodies() -> Vec<(&'static str, Body)> {
    let read = ReadContext { voter: VoterId(2), incarnation: 5, count: 1_000 };
    let joint = vec![MemberStep::Remove(VoterId(3)), MemberStep::AddVoter(info(4)), MemberStep::AddLearner(info(5))];
    let kinds = [
        EntryKind::Empty,
        EntryKind::Normal(Blob::from(b"a command".as_slice())),
        EntryKind::Membership(MembershipChange::Joint(joint)),
        EntryKind::Membership(MembershipChange::One(MemberStep::Remove(VoterId(3)))),
        EntryKind::Membership(MembershipChange::Leave),
    ];
    let entries = kinds.into_iter().map(|kind| Appended { term: Term(12), kind }).collect();
    let (commit, index) = (LogIndex(69_998), LogIndex(70_000));
    vec![
        ("append", Body::Append { prev: at(70_000, 11), commit, entries }),
        ("append-accepted", Body::AppendAccepted { last: index, commit }),
        ("append-rejected", Body::AppendRejected { prev: index, hint: at(250, 3), commit }),
        ("heartbeat", Body::Heartbeat { commit, read: Some(read) }),
        ("heartbeat-answer", Body::HeartbeatAnswer { commit, read: None }),
        ("vote-pre", Body::Vote { ballot: Ballot::Pre, last: at(70_000, 11), committed: at(69_998, 11), priority: -3 }),
        ("vote-transfer", Body::Vote { ballot: Ballot::Transfer, last: at(1, 1), committed: at(1, 1), priority: 10 }),
        ("vote-answer", Body::VoteAnswer { pre: true, granted: false, committed: at(69_998, 11) }),
        ("snapshot", Body::Snapshot(snapshot())),
        ("take-over", Body::TakeOver),
        ("read-index", Body::ReadIndex(read)),
        ("read-index-answer", Body::ReadIndexAnswer { read, index }),
    ]
}

fn hex(bytes: &[u8]) -> String {
    let line = |chunk: &[u8]| chunk.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    bytes.chunks(32).map(line).collect::<Vec<_>>().join("\n") + "\n"
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// Whether today's code writes `value` as these bytes, and reads them as `value`.
fn holds<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, version: u8, value: &T) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("testdata/wire/{name}.v{version}.hex"));
    let bytes = codec::encode(version, value, codec::FRAME_BYTES_MAX).unwrap();
    if !path.exists() && std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, hex(&bytes)).unwrap();
    }
    let frozen = unhex(&std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())));
    assert_eq!(
        &codec::decode::<T>(version, &frozen, codec::FRAME_BYTES_MAX).unwrap(),
        value,
        "{name} is read as it was"
    );
    assert_eq!(hex(&bytes), hex(&frozen), "{name} is written as it was");
}

#[test]
fn messages_are_written_and_read_as_they_ever_were() {
    for (name, body) in bodies() {
        let message = Message { era: ERA, from: VoterId(1), to: VoterId(300), term: Term(12), body };
        holds(&format!("message-{name}"), wire::MESSAGE_VERSION, &message);
    }
}

#[test]
fn records_are_stored_and_read_as_they_ever_were() {
    use crate::storage::{Identity, Seen};
    let version = wire::RECORD_VERSION;
    holds("record-identity", version, &Identity { cluster: [0xa5; 16], era: ERA, voter: VoterId(300) });
    holds(
        "record-hard-state",
        version,
        &HardState { term: Term(12), vote: Some(VoterId(1)), commit: LogIndex(69_998) },
    );
    holds("record-position", version, &at(70_000, 12));
    holds("record-seen", version, &Seen { incarnation: 5, durable: LogIndex(69_998) });
    let kind = EntryKind::Normal(Blob::from(b"a command".as_slice()));
    holds("record-entry", version, &Entry { index: LogIndex(70_001), term: Term(12), kind });
    holds("record-snapshot", version, &snapshot());
}

#[test]
fn every_kind_survives_the_way_through_rafts_types() {
    use super::super::convert::{message_from_raft, message_to_raft};
    for (name, body) in bodies() {
        let term = if matches!(body, Body::ReadIndex(_)) { Term(0) } else { Term(12) };
        let message = Message { era: ERA, from: VoterId(1), to: VoterId(300), term, body };
        let raft = message_to_raft(&message);
        assert_eq!(message_from_raft(ERA, &raft, Some(&snapshot())).as_ref(), Some(&message), "{name}");
    }
}
