//! What keeper and agent leave each other in memory, as a fuzzer calls it.

use super::armed::{ArmedGroup, ArmedSet};
use super::core::Head;
use super::handover::{State, take_state};
use super::layout::Take;
use super::page::{Attestation, PAGE_BYTES_MAX, Page, PageState, Posture};
use super::record::{RECORD_BYTES_MAX, Record, decode_into};
use super::slots::{Mapping, SlotReader, SlotWriter};
use quorum::id::{BootId, Epoch, Era, GroupName, HostEpoch, KeeperInstance};
use quorum::moment::Moment;
use rustix::fs::MemfdFlags;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

const SLOT_BYTES: usize = 64;

/// A record, a page, a handover or the shared file itself: the first byte says which.
pub(crate) fn memory(bytes: &[u8]) -> bool {
    let Some((&which, bytes)) = bytes.split_first() else { return false };
    match which & 0x03 {
        0 => record(bytes),
        1 => page(bytes),
        2 => take_state(&mut Take::new(bytes)).is_ok_and(|(_pid, state)| is_well_named(&state)),
        _ => slots(bytes),
    }
}

fn is_well_named(state: &State) -> bool {
    assert!(state.adopted.iter().all(|group| GroupName::new(group.name()).is_ok()), "{state:?}");
    true
}

fn record(bytes: &[u8]) -> bool {
    let mut armed = ArmedSet::reserved();
    let Ok(head) = decode_into(bytes, &mut armed) else {
        assert!(armed.is_empty(), "what isn't whole arms nothing");
        return false;
    };
    assert!(armed.iter().all(|group| GroupName::new(group.name()).is_ok()), "{armed:?}");
    let mut again = vec![0; RECORD_BYTES_MAX];
    let length = Record { head, armed }.encode(&mut again).expect("what was read fits");
    assert!(bytes.starts_with(&again[..length]), "a record has one spelling");
    true
}

fn page(bytes: &[u8]) -> bool {
    let Ok(page) = Page::decode(bytes) else { return false };
    let mut again = vec![0; PAGE_BYTES_MAX];
    let length = page.encode(&mut again).expect("what was read fits");
    assert_eq!(Page::decode(&again[..length]), Ok(page));
    true
}

/// Memory with these bytes as both see it. Whatever lay there, what is written is read.
fn slots(bytes: &[u8]) -> bool {
    let room = Mapping::file_bytes(SLOT_BYTES);
    let mut content = bytes.to_vec();
    content.resize(room, 0);
    let Ok(memory) = memory_of(&content) else { return false };
    let mapped = || Mapping::map(&memory, room).expect("mapped");
    let is_whole = SlotReader::new(mapped()).read().is_ok_and(|said| said.len() <= SLOT_BYTES);
    let mut writer = SlotWriter::new(mapped());
    writer.write(b"the next");
    assert_eq!(SlotReader::new(mapped()).read(), Ok(&b"the next"[..]));
    is_whole
}

fn memory_of(content: &[u8]) -> std::io::Result<OwnedFd> {
    let memory = File::from(rustix::fs::memfd_create(c"antipode-fuzz", MemfdFlags::CLOEXEC)?);
    memory.write_all_at(content, 0)?;
    Ok(memory.into())
}

/// The head of a record as tests write it.
pub(super) fn head() -> Head {
    Head {
        era: Era(1),
        he: HostEpoch::in_era(Era(1), 9),
        boot: BootId([1; 16]),
        instance: KeeperInstance([2; 16]),
        expiry: Moment { boot_ns: 5, raw_ns: 6 },
        sequence: 3,
    }
}

/// The largest of everything that is written here, and the least.
pub(crate) fn samples() -> Vec<(&'static str, Vec<u8>)> {
    let mut armed = ArmedSet::default();
    for (name, pinned) in [("erp", false), ("crm.2", true)] {
        let group = ArmedGroup::new(&GroupName::new(name).expect("a name"), Epoch::in_era(Era(1), 4), pinned);
        armed.push(group).expect("room");
    }
    let head = head();
    let (at, gone) = (Moment { boot_ns: 7, raw_ns: 8 }, armed.clone());
    let page = Page {
        instance: head.instance,
        boot: head.boot,
        pid: 4_321,
        state: PageState::Armed,
        armed: Some(head.he),
        retired: HostEpoch::in_era(Era(1), 8),
        echoed: 3,
        written: at,
        last_pet: at,
        late_max: Duration::from_micros(70),
        spans: 2,
        watchdog_worst: Duration::from_millis(1_100),
        posture: Posture { memory_locked: true, held: true, ..Posture::default() },
        attestation: Some(Attestation { boot: head.boot, he: HostEpoch::in_era(Era(1), 8), at, gone }),
        ..Page::default()
    };
    let mut buffer = vec![0; PAGE_BYTES_MAX.max(RECORD_BYTES_MAX)];
    let length = Record { head, armed }.encode(&mut buffer).expect("fits");
    let record = buffer[..length].to_vec();
    let length = page.encode(&mut buffer).expect("fits");
    vec![("keeper-record", record), ("keeper-page", buffer[..length].to_vec())]
}

pub(crate) fn memory_seeds() -> Vec<Vec<u8>> {
    let numbered = |(which, (_, bytes)): (u8, (&str, Vec<u8>))| [&[which], bytes.as_slice()].concat();
    let mut seeds: Vec<Vec<u8>> = (0..).zip(samples()).map(numbered).collect();
    // A handover without anything armed: its mark, and enough for every field behind it.
    seeds.push([&[2][..], b"antikh\0\x01", &[0; 120]].concat());
    let mut content = vec![0; Mapping::file_bytes(SLOT_BYTES)];
    let written = memory_of(&content).and_then(|memory| {
        SlotWriter::new(Mapping::map(&memory, content.len())?).write(b"what was written");
        File::from(memory).read_exact_at(&mut content, 0)
    });
    if written.is_ok() {
        seeds.push([&[3][..], &content].concat());
    }
    seeds
}
