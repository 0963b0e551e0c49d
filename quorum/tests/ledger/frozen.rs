//! What release N wrote into the log and into snapshots, release N+1 must read as it was meant.
//!
//! A line of `testdata/wire/ledger.v1.txt` is a name, bytes as they were first written, and what they mean: the value as
//! `{:?}` shows it (of a whole ledger, its SHA-256). `BLESS=1` adds what no line has yet; it never changes one. Where a
//! line doesn't hold any more, the change needs a version of its own, with a reader that still knows this one; only a
//! new name for a field may be put into a line by hand.

use crate::cases::files;
use crate::script::{Answer, World};
use quorum::codec::{self, FRAME_BYTES_MAX};
use quorum::ledger::{Entry, Ledger, digest};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;

/// Version of entries and of ledgers.
const VERSION: u8 = 1;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn written<T: Serialize>(value: &T) -> Vec<u8> {
    codec::encode(VERSION, value, FRAME_BYTES_MAX).expect("a small value")
}

/// The value of these bytes, which today's code writes as the same bytes.
fn read<T: Serialize + DeserializeOwned + Debug>(name: &str, bytes: &[u8]) -> T {
    let value: T = codec::decode(VERSION, bytes, FRAME_BYTES_MAX).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(hex(&written(&value)), hex(bytes), "{name} is written as it was");
    value
}

fn meaning(name: &str, bytes: &[u8]) -> String {
    if name.starts_with("ledger") {
        hex(&digest(&format!("{:?}", read::<Ledger>(name, bytes))))
    } else {
        let entry = read::<Entry>(name, bytes);
        assert_eq!(entry.command.name(), name);
        format!("{entry:?}")
    }
}

/// The first entry of each kind that any story tells, and the ledgers at the ends of the stories.
fn told() -> BTreeMap<String, Vec<u8>> {
    let mut told = BTreeMap::new();
    for file in files() {
        let text = std::fs::read_to_string(&file).expect("a story");
        let mut world = World::new();
        let mut is_answer = false;
        for line in text.lines() {
            is_answer = (is_answer || line == "----") && !line.is_empty();
            if is_answer || line.is_empty() || line.starts_with('#') {
                continue;
            }
            if ["begin", "fresh"].contains(&line) {
                world = World::new();
            }
            if let Answer::Applied(entry, _) = world.run(line) {
                told.entry(entry.command.name().to_owned()).or_insert_with(|| written(&*entry));
            }
        }
        let name = file.file_stem().expect("a file").to_string_lossy().into_owned();
        told.insert(format!("ledger-{name}"), written(&world.ledger));
    }
    told
}

#[test]
fn what_was_ever_written_is_read_as_it_was_meant() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/wire/ledger.v1.txt");
    let mut text = std::fs::read_to_string(&path).unwrap_or_default();
    let names: Vec<String> = text.lines().filter_map(|line| Some(line.split_once('\t')?.0.to_owned())).collect();
    for (name, bytes) in told().iter().filter(|(name, _)| !names.contains(name)) {
        assert!(std::env::var_os("BLESS").is_some(), "{name} isn't frozen yet; BLESS=1 adds it");
        text += &format!("{name}\t{}\t{}\n", hex(bytes), meaning(name, bytes));
    }
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &text).expect("written");
    }
    assert!(text.lines().count() > 40, "the stories tell of most commands");
    for line in text.lines() {
        let fields: Vec<&str> = line.splitn(3, '\t').collect();
        let [name, bytes, meant] = fields.as_slice() else { panic!("{line:?} isn't name, bytes, meaning") };
        assert_eq!(&meaning(name, &unhex(bytes)), meant, "{name} means what it meant");
    }
}
