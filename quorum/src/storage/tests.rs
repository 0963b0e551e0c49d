//! Claims about stores, made of every kind of store where they hold for every kind.

use super::*;
use crate::codec::Blob;
use crate::id::Term;
use crate::replica::{Entry, EntryKind, HardState, Position, Replica, SnapshotMeta};
use crate::roster::{Membership, VoterInfo};
use std::path::Path;

const ID: VoterId = VoterId(1);

fn membership() -> Membership {
    let info = VoterInfo { id: ID, host: "h1".parse().unwrap(), site: "s1".parse().unwrap() };
    Membership { voters: [(ID, info)].into(), ..Membership::default() }
}

fn founding() -> Founding {
    let identity = Identity { cluster: [7; 16], era: Era(1), voter: ID };
    let last = Position { index: LogIndex(1), term: Term(1) };
    let meta = SnapshotMeta { last, config: LogIndex(1), membership: membership() };
    Founding { identity, genesis: Some(Snapshot { meta, data: Blob::from(b"genesis".as_slice()) }) }
}

/// A store that can be opened again.
#[derive(Clone, Debug)]
enum Place {
    Memory(MemoryDisk),
    Blocks(FaultyBlocks),
    File(std::path::PathBuf),
}

impl Place {
    fn open(&self) -> Result<Box<dyn LogStore>, StorageError> {
        Ok(match self {
            Self::Memory(disk) => Box::new(MemoryStore::on(disk)?),
            Self::Blocks(blocks) => Box::new(FileStore::on(blocks.clone(), Path::new("simulated"))?),
            Self::File(path) => Box::new(FileStore::at(path)?),
        })
    }
}

fn each(claim: impl Fn(&Place)) {
    let directory = tempfile::tempdir().unwrap();
    claim(&Place::Memory(MemoryDisk::default()));
    claim(&Place::Blocks(FaultyBlocks::default()));
    claim(&Place::File(directory.path().join("voter.redb")));
}

/// The only voter of a cluster: it makes writes of every kind without a network.
struct Voter {
    replica: Replica,
    store: Box<dyn LogStore>,
    applied: Vec<Entry>,
}

impl Voter {
    fn start(place: &Place) -> Result<Self, StorageError> {
        let mut store = place.open()?;
        if store.identity().is_none() {
            store.found(founding())?;
        }
        let loaded = store.load()?;
        let params = crate::replica::Params { keep_entries: 2, ..Default::default() };
        let mut voter = Self { replica: Replica::new(params, loaded).unwrap(), store, applied: Vec::new() };
        while !voter.replica.is_leader() {
            voter.replica.tick();
            voter.work()?;
        }
        Ok(voter)
    }

    fn work(&mut self) -> Result<(), StorageError> {
        while let Some(ready) = self.replica.ready() {
            assert!(ready.send_now.is_empty());
            for persisted in self.store.persist(vec![ready.write])? {
                let after = self.replica.persisted(persisted);
                if let Some(last) = after.committed.last() {
                    self.replica.applied(last.index);
                }
                self.applied.extend(after.committed);
            }
        }
        Ok(())
    }

    fn propose(&mut self, data: &[u8]) -> Result<(), StorageError> {
        self.replica.propose(data.to_vec()).unwrap();
        self.work()
    }

    fn contents(&self) -> Vec<Vec<u8>> {
        let data = |entry: &Entry| match &entry.kind {
            EntryKind::Normal(data) => Some(data.to_vec()),
            EntryKind::Empty | EntryKind::Membership(_) => None,
        };
        self.applied.iter().filter_map(data).collect()
    }
}

#[test]
fn what_was_persisted_is_there_after_a_restart_and_each_start_counts() {
    each(|place| {
        for round in 1..=4u8 {
            let mut voter = Voter::start(place).unwrap();
            voter.propose(&[round]).unwrap();
            let expected: Vec<Vec<u8>> = (1..=round).map(|round| vec![round]).collect();
            assert_eq!(voter.contents(), expected);
            drop(voter);
            let loaded = place.open().unwrap().load().unwrap();
            assert_eq!(loaded.incarnation, u64::from(round) * 2);
            assert_eq!(loaded.identity, founding().identity);
            assert_eq!(loaded.hard_state.vote, Some(ID));
        }
    });
}

#[test]
fn a_snapshot_made_here_replaces_the_log_behind_it_but_for_a_tail() {
    each(|place| {
        let mut voter = Voter::start(place).unwrap();
        for n in 0..9u8 {
            voter.propose(&[n]).unwrap();
        }
        let applied = voter.replica.applied_index();
        voter.replica.compact(applied, Blob::from(b"nine".as_slice()));
        voter.work().unwrap();
        voter.propose(b"after").unwrap();
        drop(voter);
        let loaded = place.open().unwrap().load().unwrap();
        assert_eq!(loaded.snapshot.as_ref().unwrap().data.as_slice(), b"nine");
        assert_eq!(loaded.snapshot.as_ref().unwrap().meta.last.index, applied);
        assert_eq!(loaded.truncated.index.0, applied.0 - 2);
        assert_eq!(loaded.last().index.0, applied.0 + 1);
        assert!(loaded.hard_state.commit >= applied);
        let voter = Voter::start(place).unwrap();
        assert_eq!(voter.contents(), [b"after"]);
    });
}

#[test]
fn several_writes_in_one_commit_are_as_one_after_the_other() {
    each(|place| {
        let mut voter = Voter::start(place).unwrap();
        let mut writes = Vec::new();
        for n in 0..5u8 {
            voter.replica.propose(vec![n]).unwrap();
            writes.push(voter.replica.ready().unwrap().write);
        }
        let persisted = voter.store.persist(writes).unwrap();
        assert_eq!(persisted.len(), 5);
        for persisted in persisted {
            let after = voter.replica.persisted(persisted);
            voter.applied.extend(after.committed);
        }
        voter.work().unwrap();
        assert_eq!(voter.contents().len(), 5);
        drop(voter);
        assert_eq!(Voter::start(place).unwrap().contents().len(), 5);
    });
}

#[test]
fn a_store_is_founded_once_and_belongs_to_one_voter() {
    each(|place| {
        let mut store = place.open().unwrap();
        assert!(matches!(store.load(), Err(StorageError::Empty)));
        store.found(founding()).unwrap();
        assert!(matches!(store.found(founding()), Err(StorageError::Taken(identity)) if identity.voter == ID));
        drop(store);
        assert_eq!(place.open().unwrap().identity(), Some(founding().identity));
    });
}

#[test]
fn what_peers_have_shown_is_remembered_and_never_less() {
    each(|place| {
        let mut store = place.open().unwrap();
        store.found(founding()).unwrap();
        let seen = |incarnation, durable| Seen { incarnation, durable: LogIndex(durable) };
        store.remember(VoterId(2), seen(3, 50)).unwrap();
        store.remember(VoterId(2), seen(4, 40)).unwrap();
        store.remember(VoterId(3), seen(1, 1)).unwrap();
        drop(store);
        let store = place.open().unwrap();
        assert_eq!(store.remembered()[&VoterId(2)], seen(4, 50));
        assert_eq!(store.remembered().len(), 2);
        assert!(seen(4, 49).is_behind(&seen(4, 50)) && seen(3, 60).is_behind(&seen(4, 50)));
        assert!(!seen(4, 50).is_behind(&seen(4, 50)));
    });
}

#[test]
fn one_process_at_a_time_has_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("voter.redb");
    let first = FileStore::at(&path).unwrap();
    let second = FileStore::at(&path).unwrap_err();
    assert!(matches!(&second, StorageError::InUse(at) if *at == path), "{second}");
    drop(first);
    FileStore::at(&path).unwrap();
}

#[test]
fn a_file_left_half_made_is_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("voter.redb");
    std::fs::write(directory.path().join("voter.redb.new"), b"half").unwrap();
    assert!(FileStore::at(&path).unwrap().identity().is_none());
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn the_file_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("voter.redb");
    FileStore::at(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn after_an_error_the_store_refuses_everything() {
    for (fault, landed) in [(Fault::ErrorBefore, false), (Fault::ErrorAfter, true), (Fault::Full, false)] {
        let disk = MemoryDisk::default();
        let place = Place::Memory(disk.clone());
        let mut voter = Voter::start(&place).unwrap();
        disk.inject(fault);
        let first = voter.propose(b"perhaps").unwrap_err();
        assert!(matches!(first, StorageError::Io { .. } | StorageError::Full { .. }), "{first}");
        let again = voter.store.persist(Vec::new()).unwrap_err();
        assert!(matches!(again, StorageError::Poisoned), "never retried: {again}");
        assert!(matches!(
            voter.store.remember(ID, Seen { incarnation: 9, ..Seen::default() }),
            Err(StorageError::Poisoned)
        ));
        drop(voter);
        let voter = Voter::start(&place).unwrap();
        assert_eq!(voter.contents().len(), usize::from(landed), "{fault:?}");
    }
}

#[test]
fn a_failed_sync_of_the_production_store_is_final_and_what_landed_is_whole() {
    for seed in 0..30 {
        let blocks = FaultyBlocks::default();
        let place = Place::Blocks(blocks.clone());
        let mut voter = Voter::start(&place).unwrap();
        voter.propose(b"kept").unwrap();
        blocks.fail_next_sync(SyncFault::Error);
        assert!(matches!(voter.propose(b"perhaps"), Err(StorageError::Io { .. })));
        assert!(matches!(voter.store.persist(Vec::new()), Err(StorageError::Poisoned)));
        drop(voter);
        blocks.restart(seed);
        let contents = Voter::start(&place).unwrap().contents();
        assert_eq!(contents[0], b"kept");
        assert!(contents.len() == 1 || contents[1] == b"perhaps");
    }
}

#[test]
fn a_full_disk_says_so_and_loses_nothing() {
    let blocks = FaultyBlocks::default();
    let place = Place::Blocks(blocks.clone());
    let mut voter = Voter::start(&place).unwrap();
    voter.propose(b"kept").unwrap();
    blocks.set_capacity(Some(blocks.bytes()));
    let error = (0..200).find_map(|_| voter.propose(&[1; 65_536]).err()).expect("the disk fills up");
    assert!(matches!(error, StorageError::Full { .. }), "{error}");
    assert!(error.to_string().contains("free space"), "{error}");
    drop(voter);
    blocks.set_capacity(None);
    assert_eq!(Voter::start(&place).unwrap().contents()[0], b"kept");
}

#[test]
fn power_may_go_at_any_write_to_any_block() {
    let script = |voter: &mut Voter| -> Result<(), StorageError> {
        for n in 0..4u8 {
            voter.propose(&[n])?;
        }
        let applied = voter.replica.applied_index();
        voter.replica.compact(applied, Blob::from(b"four".as_slice()));
        voter.work()?;
        voter.propose(b"last")
    };
    // A file appears under its name when it is whole; so here, too, the empty store is there.
    let empty = {
        let blocks = FaultyBlocks::default();
        drop(Place::Blocks(blocks.clone()).open().unwrap());
        blocks.image()
    };
    let blocks = FaultyBlocks::with_image(empty.clone());
    script(&mut Voter::start(&Place::Blocks(blocks.clone())).unwrap()).unwrap();
    let all = blocks.operations();
    assert!(all > 60, "{all}");
    for cut in 1..=all {
        let blocks = FaultyBlocks::with_image(empty.clone());
        let place = Place::Blocks(blocks.clone());
        blocks.cut_power_after(cut);
        let mut acknowledged = 0;
        if let Ok(mut voter) = Voter::start(&place) {
            let _ = script(&mut voter);
            acknowledged = voter.contents().len();
        }
        blocks.restart(cut);
        let voter = Voter::start(&place).unwrap_or_else(|error| panic!("cut at {cut} of {all}: {error}"));
        let snapshot = place_snapshot(&voter);
        let kept = voter.contents().len() + if snapshot == b"four" { 4 } else { 0 };
        assert!(kept >= acknowledged, "cut at {cut}: {kept} of {acknowledged}");
    }
}

fn place_snapshot(voter: &Voter) -> &'static [u8] {
    if voter.replica.snapshot_index() > LogIndex(1) { b"four" } else { b"genesis" }
}

/// A voter with some history on it.
fn history(place: &Place) -> usize {
    let mut voter = Voter::start(place).unwrap();
    for n in 0..6u8 {
        voter.propose(&[n; 30]).unwrap();
    }
    voter.contents().len()
}

#[test]
fn any_flipped_bit_in_a_record_is_found_and_the_message_names_the_remedy() {
    let bits = {
        let disk = MemoryDisk::default();
        history(&Place::Memory(disk.clone()));
        disk.bits()
    };
    for bit in 0..bits {
        let disk = MemoryDisk::default();
        history(&Place::Memory(disk.clone()));
        disk.flip_bit(bit);
        let error = MemoryStore::on(&disk).expect_err("a flipped bit");
        assert!(matches!(error, StorageError::Damaged { .. } | StorageError::NewerVersion(_)), "bit {bit}: {error}");
        assert!(error.to_string().contains("quorum restore") || error.to_string().contains("newer"), "{error}");
    }
}

/// The production store after some history: closed as a process does that ends, and as it is when the power goes.
fn images() -> [Vec<u8>; 2] {
    let closed = FaultyBlocks::default();
    history(&Place::Blocks(closed.clone()));
    let cut = FaultyBlocks::default();
    let mut voter = Voter::start(&Place::Blocks(cut.clone())).unwrap();
    for n in 0..6u8 {
        voter.propose(&[n; 30]).unwrap();
    }
    [closed.image(), cut.image()]
}

/// Flips one bit each, and says how many flips were found and how many did no harm.
fn flips(image: &[u8], bits: impl Iterator<Item = u64>) -> (u32, u32) {
    let (mut found, mut harmless) = (0, 0);
    let expected = place_entries(&Place::Blocks(FaultyBlocks::with_image(image.to_vec()))).unwrap();
    for bit in bits {
        let blocks = FaultyBlocks::with_image(image.to_vec());
        blocks.flip_bit(bit);
        match place_entries(&Place::Blocks(blocks)) {
            Ok(entries) => {
                assert_eq!(entries, expected, "bit {bit}: nothing is said, and something is lost");
                harmless += 1;
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                found += 1;
            }
        }
    }
    (found, harmless)
}

#[test]
fn a_flipped_bit_in_any_page_is_found_or_harmless() {
    for image in images() {
        // Most of the file is pages that nothing uses. Of the bytes that something does, every 23rd: all of them take
        // half a minute, and did hold.
        let used = (0..image.len() as u64).filter(|at| image[*at as usize] != 0).step_by(23);
        let bits: Vec<u64> = used.enumerate().map(|(n, at)| at * 8 + n as u64 % 8).collect();
        let (found, harmless) = flips(&image, bits.into_iter());
        assert!(found > 20 && harmless > 0, "{found} found, {harmless} harmless");
    }
}

/// Where the two copies of the last promise are, and redb's header with its two roots.
fn header() -> impl Iterator<Item = u64> {
    (0..20).chain(4_096..4_116).chain(8_192..8_192 + 320)
}

#[test]
fn a_flipped_bit_in_the_header_never_loses_a_commit_unnoticed() {
    for image in images() {
        let all = header().flat_map(|at| (at * 8..at * 8 + 8).step_by(if at % 2 == 0 { 3 } else { 5 }));
        let (found, harmless) = flips(&image, all);
        assert!(found > 0 && harmless > 0, "{found} found, {harmless} harmless");
    }
}

#[test]
fn a_newest_commit_that_does_not_verify_is_refused_as_a_lost_promise() {
    let [_, image] = images();
    let lost = |at: u64| {
        let blocks = FaultyBlocks::with_image(image.clone());
        blocks.flip_bit(at * 8);
        matches!(place_entries(&Place::Blocks(blocks)), Err(StorageError::Forgotten { promised, found }) if found + 1 == promised)
    };
    // The roots' own checksums: redb takes the other root, which is one commit older.
    let roots = [8_192 + 64 + 127, 8_192 + 64 + 128 + 127];
    assert_eq!(roots.into_iter().filter(|at| lost(*at)).count(), 1, "one of the two is the newest");
}

#[cfg(feature = "mutants")]
#[test]
fn without_the_promise_a_flipped_bit_loses_a_commit_and_nothing_is_said() {
    let _planted = crate::mutants::plant("storage.forgets_promises");
    let [_, image] = images();
    let expected = place_entries(&Place::Blocks(FaultyBlocks::with_image(image.clone()))).unwrap();
    let is_silent = |at: u64| {
        let blocks = FaultyBlocks::with_image(image.clone());
        blocks.flip_bit(at * 8);
        place_entries(&Place::Blocks(blocks)).is_ok_and(|entries| entries != expected)
    };
    assert!(header().any(is_silent));
}

#[test]
fn an_older_copy_of_the_pages_under_a_newer_head_is_refused() {
    let blocks = FaultyBlocks::default();
    let place = Place::Blocks(blocks.clone());
    history(&place);
    let mut older = blocks.image();
    Voter::start(&place).unwrap().propose(b"later").unwrap();
    older[..8_192].copy_from_slice(&blocks.image()[..8_192]);
    let error = place_entries(&Place::Blocks(FaultyBlocks::with_image(older))).unwrap_err();
    assert!(matches!(error, StorageError::Forgotten { .. }), "{error}");
    assert!(error.to_string().contains("antipode quorum restore"), "{error}");
}

fn place_entries(place: &Place) -> Result<(Vec<Entry>, HardState), StorageError> {
    let loaded = place.open()?.load()?;
    Ok((loaded.entries, loaded.hard_state))
}

#[test]
fn a_file_that_is_no_store_or_a_cut_one_is_refused_with_the_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("voter.redb");
    std::fs::write(&path, b"not a store, but a note of 40 characters.").unwrap();
    let error = FileStore::at(&path).unwrap_err();
    assert!(matches!(error, StorageError::Damaged { .. }), "{error}");

    std::fs::remove_file(&path).unwrap();
    history(&Place::File(path.clone()));
    let whole = std::fs::read(&path).unwrap();
    for len in [1, 512, 4096, whole.len() / 4, whole.len() / 2] {
        std::fs::write(&path, &whole[..len]).unwrap();
        let error = FileStore::at(&path).expect_err("a part of a store");
        assert!(matches!(error, StorageError::Damaged { .. } | StorageError::Io { .. }), "{len}: {error}");
    }
}

#[test]
fn records_that_contradict_each_other_are_refused() {
    use super::record::{Batch, HARD_STATE, SNAPSHOT, TRUNCATED, entry};
    let entry_at = |index, term| Entry { index: LogIndex(index), term: Term(term), kind: EntryKind::Empty };
    type Break = fn(&mut Batch, &dyn Fn(u64, u64) -> Entry);
    let cases: [(&str, Break); 7] = [
        ("follows entry", |batch, at| batch.put(entry(19), &at(19, 2))),
        ("holds record", |batch, at| {
            batch.put(entry(3), &at(3, 2));
            batch.put[0].0 = entry(2);
        }),
        ("older term", |batch, at| batch.put(entry(3), &at(3, 1))),
        ("later term", |batch, at| batch.put(entry(8), &at(8, 90))),
        ("committed and missing", |batch, _| {
            batch.put(HARD_STATE, &HardState { term: Term(2), vote: None, commit: LogIndex(99) });
        }),
        ("doesn't meet the log", |batch, _| {
            batch.put(TRUNCATED, &Position { index: LogIndex(1), term: Term(2) });
        }),
        ("is missing", |batch, _| batch.delete.push(HARD_STATE..=HARD_STATE)),
    ];
    for (what, break_it) in cases {
        let disk = MemoryDisk::default();
        history(&Place::Memory(disk.clone()));
        let mut batch = Batch::default();
        break_it(&mut batch, &entry_at);
        let mut backing = MemoryBacking::on(&disk);
        backing.commit(&batch).unwrap();
        let error = MemoryStore::on(&disk).expect_err(what);
        assert!(error.to_string().contains(what), "{what}: {error}");
    }
    let disk = MemoryDisk::default();
    history(&Place::Memory(disk.clone()));
    let mut batch = Batch::default();
    batch.delete.push(SNAPSHOT..=SNAPSHOT);
    MemoryBacking::on(&disk).commit(&batch).unwrap();
    assert!(MemoryStore::on(&disk).unwrap_err().to_string().contains("no snapshot"));
}

#[test]
fn a_record_of_a_newer_release_is_named_as_such() {
    use super::record::{Batch, HARD_STATE};
    let disk = MemoryDisk::default();
    history(&Place::Memory(disk.clone()));
    let mut batch = Batch::default();
    batch.put.push((HARD_STATE, crate::codec::seal(9, &(HARD_STATE, 1u8, 2u8), 99).unwrap()));
    MemoryBacking::on(&disk).commit(&batch).unwrap();
    assert!(matches!(MemoryStore::on(&disk), Err(StorageError::NewerVersion(9))));
}
