//! What happened to a lab host, one JSON object a line, stamped with the chassis' own CLOCK_BOOTTIME.
//!
//! Contract: written at once, never read back by the chassis; the clock is the one that all chassis of a machine
//! share, so that logs of several hosts can be laid side by side.

use crate::driver::clock;
use serde_json::{Map, Value};
use std::fs::File;
use std::io::Write;
use std::path::Path;

/// The log of a chassis.
#[derive(Debug)]
pub(super) struct Log {
    file: File,
    host: String,
}

impl Log {
    /// Appends to the log at `path`.
    pub(super) fn open(path: &Path, host: &str) -> std::io::Result<Self> {
        let file = File::options().create(true).append(true).open(path)?;
        Ok(Self { file, host: host.to_owned() })
    }

    /// Writes an event with its fields. A log that can't be written loses the line: the hardware goes on.
    pub(super) fn write(&mut self, event: &str, fields: Value) {
        let mut line = Map::new();
        line.insert("t_boot_ns".into(), clock::now().boot_ns.into());
        line.insert("host".into(), self.host.as_str().into());
        line.insert("event".into(), event.into());
        line.insert("lab".into(), true.into());
        if let Value::Object(fields) = fields {
            line.extend(fields);
        }
        let mut text = Value::Object(line).to_string();
        text.push('\n');
        self.file.write_all(text.as_bytes()).ok();
    }
}
