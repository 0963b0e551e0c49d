//! What the normal suite sees of fuzzing: every target with its seeds and with mutations of them, and the bytes that
//! must never change.

use super::samples::HISTORY;
use super::*;
use crate::engine::{Fed, Message, Recovery, begin_era, decode_ledger, encode_ledger};
use crate::sim::Random;
use quorum::codec::{Blob, DecodeError};
use quorum::id::{AgentInstance, Era, LogIndex, SiteName, Term};
use quorum::ledger::{Decision, Ledger, Person, PersonKey, Position};
use quorum::replica::wire::{Appended, Body};
use quorum::replica::{EntryKind, Position as Place, Snapshot, SnapshotMeta};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Mutations of each target.
const MUTATIONS: u64 = 300;

fn pick(random: &mut Random, bound: usize) -> usize {
    usize::try_from(random.below(bound as u64)).unwrap_or_default()
}

/// Changes `bytes` a little, as fuzzers do.
fn mutate(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    const ODD: [u8; 7] = [0, 0x7f, 0x80, 0xfa, 0xfb, 0xfd, 0xff];
    for _ in 0..=pick(random, 4) {
        let at = pick(random, bytes.len() + 1);
        let value = pick(random, 256);
        match pick(random, 6) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, value as u8),
            2 => drop(bytes.splice(at..at, other.iter().copied().take(value))),
            3 if at < bytes.len() => bytes[at] ^= 1 << (value & 7),
            4 if at < bytes.len() => bytes[at] = ODD[value % ODD.len()],
            5 if at < bytes.len() => bytes.truncate(bytes.len() - 1),
            _ => bytes.push(value as u8),
        }
    }
}

fn replay((name, run, seeds): Target) {
    let seeds = seeds();
    let accepted = seeds.iter().filter(|seed| run(seed)).count();
    // Some are refused on purpose: files with every mistake there is.
    assert!(5 * accepted >= seeds.len(), "{name} accepts only {accepted} of {} seeds", seeds.len());
    let mut random = Random::new(1);
    for _ in 0..MUTATIONS {
        let mut input = seeds[pick(&mut random, seeds.len())].clone();
        let other = &seeds[pick(&mut random, seeds.len())];
        mutate(&mut input, other, &mut random);
        let _is_accepted = run(&input);
    }
    for length in 0..64 {
        let _is_accepted = (run(&vec![0xff; length]), run(&vec![0; length]));
    }
}

#[test]
fn every_target_bears_its_seeds_and_mutations_of_them() {
    targets().for_each(replay);
}

fn borne(name: &str, input: &[u8]) {
    let (_, run, _) = targets().find(|(target, _, _)| *target == name).expect("a target");
    let _is_accepted = run(input);
}

fn seed_with(name: &str, part: &str) -> Vec<u8> {
    let (_, _, seeds) = targets().find(|(target, _, _)| *target == name).expect("a target");
    let has = |seed: &Vec<u8>| String::from_utf8_lossy(seed).contains(part);
    seeds().into_iter().find(has).expect("a seed with this part")
}

#[test]
fn what_once_ended_a_process_is_borne() {
    // A monitor whose error isn't an object.
    borne("programs", b"\0{\"id\":1,\"error\":5}\n{\"id\":2,\"error\":null}\n");
    // A golden trace of an age that milliseconds can't count.
    borne("scenario", b"\x019223372036854775807.999 tk-1 x\n");
    // An audit trail whose first record has the largest number there is.
    let trail = String::from_utf8(seed_with("requests", "\"number\":1")).expect("text");
    borne("requests", trail.replace("\"number\":1", &format!("\"number\":{}", u64::MAX)).as_bytes());
    // Shared memory that says so many writes came before that there is no next number.
    let mut memory = seed_with("keeper", "what was written");
    memory[17..25].fill(0xff);
    borne("keeper", &memory);
    // Entries that go on behind the largest index there is.
    borne("talk", &talk::committed_at(u64::MAX, [1, 1]));
    // Entries whose terms fall.
    borne("talk", &talk::committed_at(1, [33, 1]));
}

/// A peer that votes sent it as a snapshot, and the detector's margin overflowed.
#[test]
fn a_ledger_with_a_span_that_nobody_can_have_set_is_refused() {
    let bytes = encode_ledger(&HISTORY.ledger).expect("small");
    let detection = HISTORY.ledger.timing().expect("it began").detection;
    assert!(decode_ledger(&bytes).is_ok() && detection.as_secs() == 0);
    // Seconds and nanoseconds, as `bincode` writes them: the smallest number of bytes, then four behind a mark.
    let span = [&[0, 0xfc][..], &detection.subsec_nanos().to_le_bytes()].concat();
    let at = bytes.windows(span.len()).position(|window| window == span).expect("it is written");
    let absurd = [&bytes[..at], &[0xfd], &[0xff; 8], &bytes[at + 1..]].concat();
    assert!(matches!(decode_ledger(&absurd), Err(DecodeError::Impossible(_))));
}

/// Raft keeps a snapshot before anybody reads it: a voter that can't would end, and at each start again.
#[test]
fn a_voter_takes_no_snapshot_that_it_could_not_read_or_that_ends_elsewhere() {
    let stands = HISTORY.ledger.position();
    let later = Position { index: LogIndex(stands.index.0 + 1), term: stands.term };
    let mut ledger = HISTORY.ledger.clone();
    ledger.apply_empty(later);
    let whole = encode_ledger(&ledger).expect("small");
    let after = |data: &[u8], at: Position| {
        let last = Place { index: at.index, term: at.term };
        let meta = SnapshotMeta { last, config: ledger.config_id().index, membership: super::samples::membership() };
        let body = Body::Snapshot(Snapshot { meta, data: Blob::from(data) });
        let told = super::talk::after_raft(&HISTORY.ledger, at.term, body).expect("it goes on");
        (told.applied, told.dropped.len(), told.unread.len())
    };
    assert_eq!(after(&whole, later), (later, 0, 0), "the control");
    assert_eq!(after(&whole[..whole.len() - 1], later), (stands, 1, 1), "half of one");
    let elsewhere = Position { index: LogIndex(later.index.0 + 1), ..later };
    assert_eq!(after(&whole, elsewhere), (stands, 1, 1));
}

/// It would stay where it is without anybody's knowing why.
#[test]
fn a_host_that_can_not_read_what_it_follows_tells_people_until_it_can() {
    let whole = encode_ledger(&HISTORY.ledger).expect("small");
    let at = HISTORY.ledger.position();
    let snapshot = |bytes: &[u8]| Message::Snapshot { index: at.index, part: 0, parts: 1, bytes: Blob::from(bytes) };
    let after = |messages| super::talk::after_messages(messages).expect("it goes on");
    let half = snapshot(&whole[..whole.len() - 1]);
    let stuck = after(vec![half.clone()]);
    assert_eq!((stuck.applied.index, stuck.dropped.len()), (LogIndex(0), 1));
    let [line] = &stuck.unread[..] else { panic!("{stuck:?}") };
    assert!(line.text.starts_with("tk-1 has the log until entry 0 only"), "{line:?}");
    assert!(line.next.contains("on tk-1 the release of ng-1"), "{line:?}");
    let read = after(vec![half, snapshot(&whole)]);
    assert_eq!((read.applied, read.unread.len()), (at, 0));
    let falls = Message::Committed { first: LogIndex(1), entries: vec![Fed::Empty(Term(3)), Fed::Empty(Term(2))] };
    let stuck = after(vec![falls]);
    assert_eq!((stuck.applied.index, stuck.unread.len()), (LogIndex(1), 1));
}

/// A new era goes on from what its one voter had, which may be less than others had applied.
#[test]
fn what_a_host_could_not_read_matters_no_more_in_an_era_that_it_can_read() {
    let mut ledger = HISTORY.ledger.clone();
    let snapshot = |ledger: &Ledger| {
        let bytes = Blob::from(encode_ledger(ledger).expect("small"));
        Message::Snapshot { index: ledger.applied(), part: 0, parts: 1, bytes }
    };
    let recovery = Recovery {
        cluster: [7; 16],
        host: super::samples::host("ng-1"),
        site: SiteName::new("nagoya").expect("a name"),
        survivor: None,
        unreachable: ledger.membership().all_voters().map(|voter| voter.id).collect(),
        places: BTreeMap::new(),
        above: Era(0),
        instance: AgentInstance([9; 16]),
        wall_ms: 0,
        by: Decision {
            by: Person { name: "operator".into(), key: PersonKey::Local(0) },
            reason: "test".into(),
            shown: String::new(),
        },
    };
    let begun = begin_era(ledger.clone(), &recovery).expect("all voters were looked for").ledger;
    for _ in 0..9 {
        let at = ledger.position();
        ledger.apply_empty(Position { index: LogIndex(at.index.0 + 1), ..at });
    }
    let falls = Message::Committed {
        first: LogIndex(ledger.applied().0 + 1),
        entries: vec![Fed::Empty(Term(ledger.position().term.0 - 1))],
    };
    let of_old = vec![snapshot(&ledger), falls];
    let after = |eras: Vec<Vec<Message>>| super::talk::after_eras(eras).expect("it goes on");
    let stuck = after(vec![of_old.clone()]);
    assert_eq!((stuck.applied, stuck.unread.len()), (ledger.position(), 1), "the control");
    let read = after(vec![of_old, vec![snapshot(&begun)]]);
    assert!(begun.position().index < ledger.position().index);
    assert_eq!((read.applied, read.unread.len()), (begun.position(), 0), "{read:?}");
}

/// A host that had followed the log before it began to vote is further than its replica, which comes to entries of earlier
/// terms then. They are passed by; only what is to be applied must not be of an earlier term.
#[test]
fn a_voter_that_is_further_than_its_replica_passes_by_entries_of_earlier_terms() {
    let stands = HISTORY.ledger.position();
    let append = |ahead: u64| {
        let mut ledger = HISTORY.ledger.clone();
        ledger.apply_empty(Position { index: LogIndex(stands.index.0 + ahead), term: Term(stands.term.0 + 5) });
        let entries = vec![Appended { term: stands.term, kind: EntryKind::Empty }; 2];
        let prev = Place { index: stands.index, term: stands.term };
        let body = Body::Append { prev, commit: LogIndex(stands.index.0 + 2), entries };
        super::talk::after_raft(&ledger, stands.term, body).expect("it goes on")
    };
    let told = append(2);
    assert!(told.dropped.is_empty() && told.unread.is_empty(), "both are applied already: {told:?}");
    let told = append(1);
    assert!(matches!(&told.dropped[..], [why] if why.contains("of an earlier term")), "{told:?}");
    assert!(matches!(&told.unread[..], [line] if line.next.contains("quorum remove os-1")), "{told:?}");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What release N sends and stores, release N+1 must read. A sample that is encoded to other bytes needs a new version of
/// its envelope, samples of its own, and a reader that still knows the old ones: these lines are only ever added to.
#[test]
fn what_is_sent_and_stored_is_written_as_it_ever_was() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/wire/v1.txt");
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let frozen: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once(": ")).collect();
    let samples = samples();
    if std::env::var_os("BLESS").is_some() {
        let missing = samples.iter().filter(|(name, _)| !frozen.contains_key(name.as_str()));
        let lines: String = missing.map(|(name, bytes)| format!("{name}: {}\n", hex(bytes))).collect();
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        return std::fs::write(&path, text.clone() + &lines).expect("written");
    }
    for (name, bytes) in &samples {
        assert_eq!(
            Some(hex(bytes).as_str()),
            frozen.get(name.as_str()).copied(),
            "{name}; BLESS=1 adds what is missing"
        );
    }
    assert_eq!(frozen.len(), samples.len(), "nothing that was ever sent is forgotten");
}
