//! What people and their programs ask, and what this host kept for them, as a fuzzer makes it up.

use super::audit::{judge, parse};
use super::revisions::RevisionDocument;
use super::{ApplyAsked, BackupDocument, FenceAsked, FenceTestAsked, MembersAsked, MoveAsked, OrderAsked};
use crate::engine::{API_VERSION, ChainDocument, Seen};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A body in JSON, or the audit trail: the first byte says for which request.
pub(crate) fn requests(bytes: &[u8]) -> bool {
    let Some((&which, bytes)) = bytes.split_first() else { return false };
    match which & 0x0f {
        0 => again::<ApplyAsked>(bytes),
        1 => again::<MoveAsked>(bytes),
        2 => again::<OrderAsked>(bytes),
        3 => again::<MembersAsked>(bytes),
        4 => again::<FenceAsked>(bytes),
        5 => again::<FenceTestAsked>(bytes),
        6 => again::<RevisionDocument>(bytes),
        7 => serde_json::from_slice::<BackupDocument>(bytes).is_ok_and(|document| document.bytes().is_some()),
        _ => trail(bytes),
    }
}

/// What was understood is written to be understood the same.
fn again<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> bool {
    let Ok(asked) = serde_json::from_slice::<T>(bytes) else { return false };
    let once = serde_json::to_vec(&asked).expect("plain data");
    let twice: T = serde_json::from_slice(&once).expect("what was written can be read");
    assert_eq!(serde_json::to_vec(&twice).expect("plain data"), once);
    true
}

fn trail(bytes: &[u8]) -> bool {
    let (records, _findings) = parse(&String::from_utf8_lossy(bytes));
    let last = records.last().map(|record| record.number);
    let seen = Seen { api_version: API_VERSION, seen_by: "tk-1".into(), index: 9, as_of_ms: 0 };
    let (length, hash) = (last.unwrap_or_default(), "00".repeat(32));
    let chain = ChainDocument { seen, length, hash, logged: Vec::new() };
    let (_verdict, findings, _compared) = judge(&records, &chain);
    !records.is_empty() && findings.len() <= 2 * records.len() + 2
}

pub(crate) fn request_seeds() -> Vec<Vec<u8>> {
    let with = |which: u8, text: &str| [&[which], text.as_bytes()].concat();
    let zeros = format!("[{}]", ["0"; 32].join(","));
    let record = |number: u64| {
        format!(
            r#"{{"number":{number},"index":7,"wall_ms":5,"action":"freeze","decision":{{"by":{{"name":"ann","key":{{"Local":0}}}},"reason":"work","shown":""}},"command":{zeros},"previous":{zeros},"hash":{zeros}}}"#
        )
    };
    let texts = [
        (0, r#"{"source":"[cluster]\nname = 'demo'","dry_run":true,"reason":"why"}"#.to_owned()),
        (1, r#"{"kind":"switchover","group":"erp","to":"osaka","reason":"why","dry_run":false,"accept_loss":false}"#.to_owned()),
        (2, r#"{"order":{"order":"freeze","scope":{"site":"tokyo"},"span_ms":5,"hold_activation":false},"reason":"why"}"#.to_owned()),
        (3, r#"{"order":{"members":"add","host":"tk-1","replaces":null},"reason":"why"}"#.to_owned()),
        (5, r#"{"host":"tk-1"}"#.to_owned()),
        (6, r#"{"api_version":1,"seen_by":"tk-1","revision":3,"at_index":9,"by":null,"seen_wall_ms":4,"source":"x"}"#.to_owned()),
        (7, r#"{"api_version":1,"index":9,"era":1,"hex":"00ffA0"}"#.to_owned()),
        (8, format!("{}\n{}\nno record\n", record(1), record(3))),
    ];
    texts.iter().map(|(which, text)| with(*which, text)).filter(|seed| requests(seed)).collect()
}
