//! The audit trail on this host: what people did, one record a line, never rewritten.
//!
//! A record is durable before the person is told that the act took effect: its event comes before the answer, and both
//! are performed in order. Records that are here already (an agent that started again applies them once more) are
//! passed over. A line that a crash or a full disk has left half written was never promised to anybody: it is cut off, so that
//! the next record, or the same one applied once more, doesn't end up within it. What the records are worth is judged
//! elsewhere (`admin`, `audit verify`).

use crate::admin::AUDIT_FILE;
use quorum::ledger::AuditRecord;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;

/// So much waits for a disk that takes nothing.
const UNWRITTEN_BYTES_MAX: usize = 1 << 20;

/// An open trail.
pub(super) struct AuditTrail {
    file: File,
    /// The last record that is here, or waits to be.
    last: u64,
    /// Up to here the file is whole lines.
    whole: u64,
    /// Part of a line may follow, which a full disk refused.
    is_torn: bool,
    /// Lines that the disk hasn't taken yet.
    unwritten: Vec<u8>,
}

impl AuditTrail {
    /// Opens the trail in `dir` for appending, and cuts off a line at its end that isn't whole.
    ///
    /// # Errors
    /// What the operating system says; no record was touched.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).read(true).open(dir.join(AUDIT_FILE))?;
        let (mut last, mut whole) = (0, 0);
        let (mut reader, mut line) = (BufReader::new(&file), Vec::new());
        while reader.read_until(b'\n', &mut line)? > 0 {
            let is_whole = line.ends_with(b"\n");
            // A line that is no record (nor even text) is the reader's to tell; the next record goes behind it.
            if let Some(record) = serde_json::from_slice::<AuditRecord>(&line).ok().filter(|_| is_whole) {
                last = last.max(record.number);
            }
            whole += if is_whole { line.len() as u64 } else { 0 };
            line.clear();
        }
        if file.metadata()?.len() > whole {
            tracing::warn!("the audit trail ended within a line, as a crash leaves it: that line was cut off");
            file.set_len(whole)?;
        }
        file.sync_all()?;
        // Its name, too.
        File::open(dir)?.sync_all()?;
        Ok(Self { file, last, whole, is_torn: false, unwritten: Vec::new() })
    }

    /// Appends a record that isn't here yet. What can't be written is told to the log, and written before the next record:
    /// the act took effect, and until then `audit verify` finds that the trail ends before it.
    pub(super) fn append(&mut self, record: &AuditRecord) {
        if record.number <= self.last {
            return;
        }
        self.last = record.number;
        let line = serde_json::to_vec(record).expect("a record is plain data");
        self.unwritten.extend(line.into_iter().chain([b'\n']));
        if let Err(error) = self.write() {
            tracing::error!(%error, "the audit trail could not be written; its last records are written with the next one");
        }
        if self.unwritten.len() > UNWRITTEN_BYTES_MAX {
            tracing::error!(
                "the disk has taken no records of the audit trail for too long: those that wait are lost here"
            );
            self.unwritten.clear();
        }
    }

    fn write(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.is_torn, true) {
            self.file.set_len(self.whole)?;
        }
        self.file.write_all(&self.unwritten)?;
        self.file.sync_data()?;
        self.whole += self.unwritten.len() as u64;
        self.unwritten.clear();
        self.is_torn = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorum::id::LogIndex;
    use quorum::ledger::{AuditHead, Decision, Person, PersonKey};

    /// The first records of a trail.
    fn records(count: u64) -> Vec<AuditRecord> {
        let mut head = AuditHead::default();
        let by = || Person { name: "ann".into(), key: PersonKey::Local(0) };
        let record = |index| AuditRecord {
            number: 0,
            index: LogIndex(index),
            wall_ms: 1,
            action: "freeze".into(),
            decision: Decision { by: by(), reason: String::new(), shown: String::new() },
            command: [1; 32],
            previous: [0; 32],
            hash: [0; 32],
        };
        (1..=count).map(|index| head.append(record(index))).collect()
    }

    fn written(dir: &Path) -> Vec<AuditRecord> {
        let text = std::fs::read_to_string(dir.join(AUDIT_FILE)).expect("written");
        assert!(text.is_empty() || text.ends_with('\n'), "whole lines: {text}");
        text.lines().map(|line| serde_json::from_str(line).expect("a record")).collect()
    }

    #[test]
    fn a_record_that_is_applied_again_is_written_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let record = records(1).remove(0);
        for _start in 0..2 {
            let mut trail = AuditTrail::open(dir.path()).expect("opened");
            trail.append(&record);
            trail.append(&record);
        }
        assert_eq!(written(dir.path()), [record]);
    }

    #[test]
    fn a_record_that_a_crash_has_torn_is_written_whole_when_it_is_applied_again() {
        let records = records(3);
        let lines: Vec<_> = records.iter().map(|record| serde_json::to_vec(record).expect("data")).collect();
        // Also the one that lacks its end of line only.
        for torn in [0, 1, lines[1].len() / 2, lines[1].len()] {
            let dir = tempfile::tempdir().expect("a directory");
            let before = [&lines[0][..], b"\n", &lines[1][..torn]].concat();
            std::fs::write(dir.path().join(AUDIT_FILE), before).expect("written");
            let mut trail = AuditTrail::open(dir.path()).expect("opened");
            assert_eq!(written(dir.path()), records[..1], "{torn} bytes");
            records.iter().for_each(|record| trail.append(record));
            assert_eq!(written(dir.path()), records, "{torn} bytes");
        }
    }

    #[test]
    fn records_that_a_full_disk_refuses_are_written_with_the_next_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let records = records(4);
        let mut trail = AuditTrail::open(dir.path()).expect("opened");
        trail.append(&records[0]);
        let full = OpenOptions::new().append(true).open("/dev/full").expect("opened");
        let disk = std::mem::replace(&mut trail.file, full);
        trail.append(&records[1]);
        trail.append(&records[2]);
        assert_eq!(written(dir.path()), records[..1]);
        // What there was room for.
        std::io::Write::write_all(&mut &disk, b"{\"numb").expect("written");
        trail.file = disk;
        trail.append(&records[3]);
        assert_eq!(written(dir.path()), records);
        assert_eq!(trail.whole, std::fs::metadata(dir.path().join(AUDIT_FILE)).expect("there").len());
    }

    #[test]
    fn what_a_disk_refuses_for_ever_does_not_grow_for_ever() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut trail = AuditTrail::open(dir.path()).expect("opened");
        trail.file = OpenOptions::new().append(true).open("/dev/full").expect("opened");
        for record in records(10_000) {
            trail.append(&record);
            assert!(trail.unwritten.len() <= UNWRITTEN_BYTES_MAX);
        }
    }

    #[test]
    fn a_trail_that_rotted_keeps_no_agent_from_starting() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join(AUDIT_FILE), b"{\xff\xfe\n\n{}\n").expect("written");
        assert_eq!(AuditTrail::open(dir.path()).expect("opened").last, 0);
    }
}
