//! The agent's event journal: one JSON object a line, in the order in which things became so.
//!
//! Each line carries this machine's BOOTTIME in nanoseconds, so that tools on the same machine can line it up, and
//! the wall clock for people. It is a record, not a source of truth: losing its end loses nothing that matters.

use crate::event::Event;
use quorum::id::HostName;
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// Beyond this size the journal is renamed to `.old` and begun anew.
const BYTES_MAX: u64 = 64 << 20;

#[derive(Serialize)]
struct Line<'a> {
    t_boot_ns: u64,
    wall_ms: u64,
    host: &'a HostName,
    #[serde(flatten)]
    event: &'a Event,
}

/// An open journal.
pub struct Journal {
    path: PathBuf,
    file: File,
    bytes: u64,
    /// It ends within a line, as a crash or a full disk leaves it.
    is_torn: bool,
    host: HostName,
}

impl Journal {
    /// Opens `events.jsonl` in `dir` for appending.
    ///
    /// # Errors
    /// What the operating system says; nothing was changed.
    pub fn open(dir: &Path, host: HostName) -> io::Result<Self> {
        let path = dir.join("events.jsonl");
        let file = OpenOptions::new().create(true).append(true).read(true).open(&path)?;
        let bytes = file.metadata()?.len();
        let mut last = [b'\n'];
        if bytes > 0 {
            file.read_exact_at(&mut last, bytes - 1)?;
        }
        Ok(Self { path, file, bytes, is_torn: last != [b'\n'], host })
    }

    /// Appends an event. A journal that can't be written is told to the log once per event and otherwise ignored:
    /// the cluster must not stop because a disk for logs is full.
    pub fn append(&mut self, t_boot_ns: u64, wall_ms: u64, event: &Event) {
        let line = Line { t_boot_ns, wall_ms, host: &self.host, event };
        let written = serde_json::to_vec(&line).map_err(io::Error::from).and_then(|mut bytes| {
            bytes.push(b'\n');
            self.rotate(bytes.len() as u64 + 1)?;
            // What is torn stays a line of its own, which no reader takes for an event.
            if std::mem::replace(&mut self.is_torn, true) {
                bytes.insert(0, b'\n');
            }
            self.file.write_all(&bytes)?;
            self.is_torn = false;
            Ok(())
        });
        if let Err(error) = written {
            tracing::warn!(%error, "the event journal could not be written");
        }
    }

    fn rotate(&mut self, more: u64) -> io::Result<()> {
        self.bytes += more;
        if self.bytes > BYTES_MAX {
            std::fs::rename(&self.path, self.path.with_extension("jsonl.old"))?;
            self.file = OpenOptions::new().create(true).append(true).open(&self.path)?;
            (self.bytes, self.is_torn) = (more, false);
        }
        Ok(())
    }
}

/// Writes an event to the log as well, at the level that it deserves.
pub fn log(event: &Event) {
    let text = serde_json::to_string(event).unwrap_or_default();
    match event {
        Event::Refused { .. } | Event::LeaseLost { .. } | Event::Suspect { .. } | Event::SiteSuspect { .. } => {
            tracing::warn!(event = event.name(), detail = %text, "event");
        }
        Event::Dropped { .. } => tracing::debug!(event = event.name(), detail = %text, "event"),
        _ => tracing::info!(event = event.name(), detail = %text, "event"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_after_a_torn_one_has_a_line_of_its_own() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("events.jsonl");
        std::fs::write(&path, "{\"event\":\"a\"}\n{\"eve").expect("written");
        let host = HostName::new("tk-1").expect("a name");
        let mut journal = Journal::open(dir.path(), host).expect("opened");
        let full = OpenOptions::new().append(true).open("/dev/full").expect("opened");
        let lost = Event::Dropped { from: HostName::new("os-1").expect("a name"), because: "on the way".to_owned() };
        for round in 0..3 {
            journal.append(round, 1, &lost);
        }
        let disk = std::mem::replace(&mut journal.file, full);
        journal.append(3, 1, &lost);
        journal.file = disk;
        journal.append(4, 1, &lost);
        let text = std::fs::read_to_string(&path).expect("written");
        let events: Vec<_> = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).ok()).collect();
        let moments: Vec<_> = events.iter().map(|event| event.as_ref()?["t_boot_ns"].as_u64()).collect();
        // After the one that the disk didn't take, an empty line: it could have been torn.
        assert_eq!(moments, [None, None, Some(0), Some(1), Some(2), None, Some(4)], "{text}");
        assert_eq!(events[0].as_ref().map(|event| &event["event"]), Some(&serde_json::json!("a")));
    }
}
