//! The agent's event journal: one JSON object a line, in the order in which things became so.
//!
//! Each line carries this machine's BOOTTIME in nanoseconds, so that tools on the same machine can line it up, and
//! the wall clock for people. It is a record, not a source of truth: losing its end loses nothing that matters.

use crate::event::Event;
use quorum::id::HostName;
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
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
    host: HostName,
}

impl Journal {
    /// Opens `events.jsonl` in `dir` for appending.
    ///
    /// # Errors
    /// What the operating system says; nothing was changed.
    pub fn open(dir: &Path, host: HostName) -> io::Result<Self> {
        let path = dir.join("events.jsonl");
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path, file, bytes, host })
    }

    /// Appends an event. A journal that can't be written is told to the log once per event and otherwise ignored:
    /// the cluster must not stop because a disk for logs is full.
    pub fn append(&mut self, t_boot_ns: u64, wall_ms: u64, event: &Event) {
        let line = Line { t_boot_ns, wall_ms, host: &self.host, event };
        let written = serde_json::to_vec(&line).map_err(io::Error::from).and_then(|mut bytes| {
            bytes.push(b'\n');
            self.rotate(bytes.len() as u64)?;
            self.file.write_all(&bytes)
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
            self.bytes = more;
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
