//! The audit trail on this host: what people did, one record a line, never cut and never rewritten.
//!
//! A record is durable before the person is told that the act took effect: its event comes before the answer, and both
//! are performed in order. Records that are here already (an agent that started again applies them once more) are
//! passed over. What the records are worth is judged elsewhere (`admin`, `audit verify`).

use crate::admin::AUDIT_FILE;
use quorum::ledger::AuditRecord;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;

/// An open trail.
pub(super) struct AuditTrail {
    file: File,
    last: u64,
}

impl AuditTrail {
    /// Opens the trail in `dir` for appending.
    ///
    /// # Errors
    /// What the operating system says; nothing was changed.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).read(true).open(dir.join(AUDIT_FILE))?;
        let mut last = 0;
        for line in BufReader::new(&file).split(b'\n') {
            // A line that is no record (nor even text) is the reader's to tell; the next record goes behind it.
            if let Ok(record) = serde_json::from_slice::<AuditRecord>(&line?) {
                last = last.max(record.number);
            }
        }
        Ok(Self { file, last })
    }

    /// Appends a record that isn't here yet. A trail that can't be written is told to the log: the act took effect,
    /// and `audit verify` finds that the trail ends before it.
    pub(super) fn append(&mut self, record: &AuditRecord) {
        if record.number <= self.last {
            return;
        }
        let written = serde_json::to_vec(record).map_err(io::Error::from).and_then(|mut bytes| {
            bytes.push(b'\n');
            self.file.write_all(&bytes)?;
            self.file.sync_data()
        });
        match written {
            Ok(()) => self.last = record.number,
            Err(error) => tracing::error!(%error, "the audit trail could not be written"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorum::id::LogIndex;
    use quorum::ledger::{AuditHead, Decision, Person, PersonKey};

    #[test]
    fn a_record_that_is_applied_again_is_written_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let by = Person { name: "ann".into(), key: PersonKey::Local(0) };
        let record = AuditHead::default().append(AuditRecord {
            number: 0,
            index: LogIndex(3),
            wall_ms: 1,
            action: "freeze".into(),
            decision: Decision { by, reason: String::new(), shown: String::new() },
            command: [1; 32],
            previous: [0; 32],
            hash: [0; 32],
        });
        for _start in 0..2 {
            let mut trail = AuditTrail::open(dir.path()).expect("opened");
            trail.append(&record);
            trail.append(&record);
        }
        let text = std::fs::read_to_string(dir.path().join(AUDIT_FILE)).expect("written");
        assert_eq!(text.lines().count(), 1);
        assert_eq!(serde_json::from_str::<AuditRecord>(text.trim()).expect("a record"), record);
    }

    #[test]
    fn a_trail_that_rotted_keeps_no_agent_from_starting() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join(AUDIT_FILE), b"{\xff\xfe\n\n{}\n").expect("written");
        assert_eq!(AuditTrail::open(dir.path()).expect("opened").last, 0);
    }
}
