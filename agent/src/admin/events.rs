//! The agent's own event journal, handed out piece by piece.
//!
//! A reader names the byte up to which it has read; each answer holds whole lines and the next such byte. A journal
//! that was begun anew is read from its beginning.

use super::{ErrorDocument, Exit};
use crate::engine::API_VERSION;
use serde::{Deserialize, Serialize};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// The journal's name in the data directory.
const JOURNAL: &str = "events.jsonl";

/// At most this much of it in one answer.
const PIECE_BYTES: u64 = 1 << 20;

/// `events -o json`, a piece of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EventsDocument {
    /// Version of this document.
    pub api_version: u32,
    /// Ask for what follows this byte.
    pub next: u64,
    /// Nothing followed when this was read.
    pub is_end: bool,
    /// Events in the order in which they became so.
    pub events: Vec<serde_json::Value>,
}

/// Reads what follows byte `after`. Blocks on the disk.
pub(super) fn read(data_dir: &Path, after: u64) -> Result<EventsDocument, ErrorDocument> {
    match piece(&data_dir.join(JOURNAL), after) {
        Ok(document) => Ok(document),
        Err(error) => {
            let text = format!("read the event journal: {error}");
            Err(ErrorDocument::new(Exit::Error, "journal-unreadable", text, "look at the agent's data directory"))
        }
    }
}

fn piece(path: &Path, after: u64) -> std::io::Result<EventsDocument> {
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    let from = if after > length { 0 } else { after };
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(PIECE_BYTES).read_to_end(&mut bytes)?;
    // The last line may be in the middle of being written.
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let lines = bytes[..whole].split(|byte| *byte == b'\n');
    let events = lines.filter_map(|line| serde_json::from_slice(line).ok()).collect();
    let next = from + whole as u64;
    Ok(EventsDocument { api_version: API_VERSION, next, is_end: next >= length || whole == 0, events })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_being_written_waits_for_its_end() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(JOURNAL);
        std::fs::write(&path, "{\"event\":\"a\"}\n{\"event\":").expect("written");
        let first = read(dir.path(), 0).expect("readable");
        assert_eq!((first.events.len(), first.next), (1, 14));
        std::fs::write(&path, "{\"event\":\"a\"}\n{\"event\":\"b\"}\n").expect("written");
        let second = read(dir.path(), first.next).expect("readable");
        assert_eq!(second.events, [serde_json::json!({"event": "b"})]);
        assert!(second.is_end);
    }

    #[test]
    fn a_journal_that_began_anew_is_read_from_its_beginning() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join(JOURNAL), "{\"event\":\"a\"}\n").expect("written");
        assert_eq!(read(dir.path(), 1_000).expect("readable").events.len(), 1);
    }
}
