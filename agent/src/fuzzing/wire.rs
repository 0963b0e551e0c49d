//! What peers send and what lies in the log.

use super::samples::{HISTORY, datagrams, messages};
use crate::engine::{self, decode_entry, decode_ledger, encode_entry, encode_ledger, read_backup};
use crate::heartbeat::{self, DATAGRAM_BYTES_MAX, Datagram};
use quorum::fuzzing::{comes_back, joined, pieces};
use quorum::id::{LogIndex, Term};
use quorum::ledger::{Ledger, Position};

/// A datagram of the beat connection.
pub(super) fn datagram(bytes: &[u8]) -> bool {
    let Ok(datagram) = heartbeat::decode(bytes) else { return false };
    assert!(bytes.len() <= DATAGRAM_BYTES_MAX);
    if let Datagram::Beat(beat) = &datagram {
        assert!(beat.echoes.len() <= 8 && beat.suspicions.sites.len() <= 8 && beat.suspicions.hosts.len() <= 8);
    }
    comes_back(bytes, &datagram, heartbeat::encode, heartbeat::decode);
    true
}

pub(super) fn datagram_seeds() -> Vec<Vec<u8>> {
    datagrams().into_iter().map(|(_, bytes)| bytes).collect()
}

/// A message between agents.
pub(super) fn message(bytes: &[u8]) -> bool {
    let Ok(message) = engine::decode(bytes) else { return false };
    comes_back(bytes, &message, engine::encode, engine::decode);
    true
}

pub(super) fn message_seeds() -> Vec<Vec<u8>> {
    messages().into_iter().map(|(_, bytes)| bytes).collect()
}

/// Entries, applied one after the other; an empty piece is a new leader's first. Nobody may propose what makes an
/// agent panic, or what makes a ledger that a snapshot doesn't bring back.
pub(super) fn entries(bytes: &[u8]) -> bool {
    let mut ledger = HISTORY.founded.clone();
    let mut at = ledger.position();
    let mut is_accepted = false;
    for piece in pieces(bytes) {
        at = Position { index: LogIndex(at.index.0 + 1), term: at.term };
        if piece.is_empty() {
            at.term = Term(at.term.0 + 1);
            let _events = ledger.apply_empty(at);
        } else if let Ok(entry) = decode_entry(piece) {
            comes_back(piece, &entry, encode_entry, decode_entry);
            let applied = ledger.apply(at, &entry);
            // Refusals are told to people, and events are written down.
            let _told = (applied.outcome.as_ref().map_err(ToString::to_string).err(), format!("{:?}", applied.events));
            is_accepted |= applied.outcome.is_ok();
        }
    }
    let snapshot = encode_ledger(&ledger).expect("a small ledger");
    assert!(decode_ledger(&snapshot).is_ok_and(|again| again == ledger), "a snapshot brings everything back");
    is_accepted
}

/// The whole history, and pieces of it.
pub(super) fn entry_seeds() -> Vec<Vec<u8>> {
    let encoded: Vec<Vec<u8>> = HISTORY.entries.iter().filter_map(|entry| encode_entry(entry).ok()).collect();
    let mut seeds: Vec<Vec<u8>> = [4, 12, encoded.len()].map(|count| joined(encoded.iter().take(count))).into();
    seeds.retain(|seed| entries(seed));
    seeds
}

/// A snapshot's ledger, or a backup of one: the first byte says which.
pub(super) fn ledger(bytes: &[u8]) -> bool {
    let Some((&which, bytes)) = bytes.split_first() else { return false };
    let read = if which & 1 == 0 { decode_ledger(bytes).ok() } else { read_backup("demo", bytes).ok() };
    let Some(ledger) = read else { return false };
    let once = encode_ledger(&ledger).expect("it was decoded from no more");
    let again = decode_ledger(&once).expect("what was encoded can be decoded");
    assert!(again == ledger && encode_ledger(&again).expect("encoded before") == once);
    true
}

pub(super) fn ledger_seeds() -> Vec<Vec<u8>> {
    let with = |which: u8, bytes: Vec<u8>| [vec![which], bytes].concat();
    let snapshots = [&Ledger::new(), &HISTORY.founded, &HISTORY.ledger]
        .map(|ledger| with(0, encode_ledger(ledger).expect("small")));
    let backup = engine::backup("demo", &HISTORY.ledger).expect("small");
    snapshots.into_iter().chain([with(1, backup)]).collect()
}
