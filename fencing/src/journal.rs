//! The durable record of every attempt: what was ordered, which device was called to do what, what came of it.
//!
//! One JSON object a line, appended. [`Journal::write_durably`] returns when the record is on disk (fdatasync); what
//! must not be lost is written so: orders, cancellations, admissions, each `off` before it is sent, verdicts. After a crash the last
//! line may be torn; it is cut off. The journal brings back the gate (so that an overtaken task stays refused) and the
//! tasks that were under way, with the time until which one of their calls may still act.
//! Secrets never come here: what devices say was masked before.
//! Not here: evidence (the ledger's), proof ages (`executor::proofs`).

use crate::gate::Gate;
use crate::name::{DeviceName, HostName};
use crate::request::{FenceOrder, Stamp};
use crate::session::{Act, Note};
use crate::verdict::Verdict;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

/// The journal's file name.
pub const FILE: &str = "fence.journal";
/// A file of this size is put aside.
const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// So many put-aside files are kept.
const KEPT: usize = 4;
/// Version of the records.
const VERSION: u32 = 1;

/// What can go wrong with the journal. Nothing is sent to a device whose record can't be kept.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file can't be opened, read or made.
    #[error("open the fencing journal {path}")]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A record couldn't be written or brought to disk. It may or may not be there.
    #[error("write the fencing journal")]
    Write(#[source] io::Error),
}

/// What a record is about.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum Event<'a> {
    /// The gate as it stands: the first record of each file.
    Gate {
        /// The gate.
        gate: &'a Gate,
    },
    /// An order was taken.
    Ordered {
        /// The order.
        order: &'a FenceOrder,
    },
    /// A device is about to be called.
    Calling {
        /// Which.
        device: &'a DeviceName,
        /// To do what.
        act: Act,
        /// CLOCK_BOOTTIME in milliseconds until which the call may act.
        until_boottime_ms: u64,
    },
    /// Something happened in a session.
    Noted {
        /// What.
        note: &'a Note,
    },
    /// A session concluded.
    Concluded {
        /// With what.
        verdict: &'a Verdict,
    },
    /// A task was called off.
    Cancelled {
        /// Why.
        because: &'a str,
    },
    /// A host was admitted again.
    Admitted,
    /// No call of a task is under way any more.
    Finished,
}

/// Which task a record belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TaskKey {
    /// The host.
    pub target: HostName,
    /// Its epoch.
    pub he: u64,
    /// Where the decision stands.
    pub stamp: Stamp,
}

/// What every record has besides its event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    v: u32,
    seq: u64,
    wall_ms: u64,
    boot: String,
    boottime_ms: u64,
    task: Option<TaskKey>,
}

#[derive(Serialize)]
struct Record<'a, E> {
    #[serde(flatten)]
    head: &'a Head,
    #[serde(flatten)]
    event: &'a E,
}

/// The moment of a record, as clocks say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct When {
    /// Wall time in milliseconds, for people.
    pub wall_ms: u64,
    /// This boot.
    pub boot: String,
    /// CLOCK_BOOTTIME in milliseconds.
    pub boottime_ms: u64,
}

/// A task that was under way when the last process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interrupted {
    /// Which.
    pub task: TaskKey,
    /// In the same boot: until when one of its calls may still act. `None`: the machine has booted since, none can.
    pub until_boottime_ms: Option<u64>,
}

/// What a journal brought back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The gate.
    pub gate: Gate,
    /// Tasks that didn't finish.
    pub interrupted: Vec<Interrupted>,
    /// Lines that couldn't be read, the torn last one not counted.
    pub damaged: usize,
}

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    file: File,
    /// Up to here the file is whole lines.
    bytes: u64,
    /// Part of a line may follow, which a full disk refused.
    is_torn: bool,
    seq: u64,
}

impl Journal {
    /// Opens the journal in `folder`, making both if need be.
    ///
    /// # Errors
    /// [`JournalError::Open`]: nothing was changed but, perhaps, a torn last line cut off.
    pub fn open(folder: &Path, boot: &str) -> Result<(Self, Recovered), JournalError> {
        let path = folder.join(FILE);
        let failed = |source| JournalError::Open { path: path.clone(), source };
        std::fs::create_dir_all(folder).map_err(failed)?;
        let mut file = open_file(&path).map_err(failed)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if whole < bytes.len() {
            file.set_len(whole as u64).and_then(|()| file.sync_all()).map_err(failed)?;
        }
        file.seek(SeekFrom::End(0)).map_err(failed)?;
        sync_folder(folder).map_err(failed)?;
        let (recovered, seq) = recover(&bytes[..whole], boot);
        Ok((Self { folder: folder.to_owned(), file, bytes: whole as u64, is_torn: false, seq }, recovered))
    }

    /// Appends a record. It reaches the disk with the next durable one.
    ///
    /// # Errors
    /// [`JournalError::Write`]: of what was refused nothing is left before the next record.
    pub fn write(&mut self, when: &When, task: Option<&TaskKey>, event: &impl Serialize) -> Result<(), JournalError> {
        // It orders records for people; a damaged file may end at the largest number there is.
        self.seq = self.seq.saturating_add(1);
        let When { wall_ms, boot, boottime_ms } = when.clone();
        let head = Head { v: VERSION, seq: self.seq, wall_ms, boot, boottime_ms, task: task.cloned() };
        let mut line =
            serde_json::to_vec(&Record { head: &head, event }).map_err(|error| JournalError::Write(error.into()))?;
        line.push(b'\n');
        self.append(&line).map_err(JournalError::Write)
    }

    /// A record behind half a line would be no record, and the next start wouldn't know of what it says.
    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        if std::mem::replace(&mut self.is_torn, true) {
            self.file.set_len(self.bytes)?;
        }
        self.file.write_all(line)?;
        self.bytes += line.len() as u64;
        self.is_torn = false;
        Ok(())
    }

    /// Appends a record and returns when it is on disk.
    ///
    /// # Errors
    /// [`JournalError::Write`]: it may or may not be there; what it was to allow must not be done.
    pub fn write_durably(
        &mut self,
        when: &When,
        task: Option<&TaskKey>,
        event: &impl Serialize,
    ) -> Result<(), JournalError> {
        self.write(when, task, event)?;
        self.sync()
    }

    /// Brings everything written so far to disk.
    ///
    /// # Errors
    /// [`JournalError::Write`].
    pub fn sync(&mut self) -> Result<(), JournalError> {
        self.file.sync_data().map_err(JournalError::Write)
    }

    /// Puts the file aside if it has grown too large. Only to be called while no task is under way.
    ///
    /// # Errors
    /// [`JournalError`]: the old file goes on being used.
    pub fn rotate(&mut self, when: &When, gate: &Gate) -> Result<(), JournalError> {
        if self.bytes < FILE_BYTES_MAX {
            return Ok(());
        }
        let path = |number: usize| self.folder.join(format!("{FILE}.{number}"));
        for number in (1..KEPT).rev().filter(|number| path(*number).exists()) {
            std::fs::rename(path(number), path(number + 1)).map_err(JournalError::Write)?;
        }
        // The new file is complete under another name before it takes the place of the old one.
        let fresh = self.folder.join(format!("{FILE}.new"));
        let mut next =
            Self { folder: self.folder.clone(), file: new_file(&fresh)?, bytes: 0, is_torn: false, seq: self.seq };
        next.write_durably(when, None, &Event::Gate { gate })?;
        // A link, not a rename: at no moment is there no journal.
        std::fs::hard_link(self.folder.join(FILE), path(1)).map_err(JournalError::Write)?;
        std::fs::rename(&fresh, self.folder.join(FILE)).map_err(JournalError::Write)?;
        sync_folder(&self.folder).map_err(JournalError::Write)?;
        *self = next;
        Ok(())
    }

    /// The last `count` records, oldest first, as JSON.
    ///
    /// # Errors
    /// [`JournalError::Open`].
    pub fn last(&self, count: usize) -> Result<Vec<Value>, JournalError> {
        let mut records = Vec::new();
        for number in (0..=KEPT).rev() {
            let path = if number == 0 { self.folder.join(FILE) } else { self.folder.join(format!("{FILE}.{number}")) };
            match std::fs::read_to_string(&path) {
                Ok(text) => records.extend(text.lines().filter_map(|line| serde_json::from_str(line).ok())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(JournalError::Open { path, source }),
            }
        }
        let surplus = records.len().saturating_sub(count);
        Ok(records.split_off(surplus))
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(path)
}

fn new_file(path: &Path) -> Result<File, JournalError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(JournalError::Write(error)),
        _ => {}
    }
    open_file(path).map_err(JournalError::Write)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[derive(Default)]
struct Under {
    until_boottime_ms: u64,
    boot: String,
}

/// What the lines of a journal bring back, and the last sequence number.
pub(crate) fn recover(bytes: &[u8], boot: &str) -> (Recovered, u64) {
    let mut recovered = Recovered::default();
    let mut open: BTreeMap<TaskKey, Under> = BTreeMap::new();
    let mut seq = 0;
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let parsed = serde_json::from_slice::<Value>(line)
            .ok()
            .and_then(|value| serde_json::from_value::<Head>(value.clone()).ok().map(|head| (head, value)));
        let Some((head, value)) = parsed else {
            recovered.damaged += 1;
            continue;
        };
        seq = seq.max(head.seq);
        replay(&mut recovered.gate, &mut open, head, &value);
    }
    let interrupted = |(task, under): (TaskKey, Under)| {
        let until_boottime_ms = (under.boot == boot && !boot.is_empty()).then_some(under.until_boottime_ms);
        Interrupted { task, until_boottime_ms }
    };
    recovered.interrupted = open.into_iter().map(interrupted).collect();
    (recovered, seq)
}

fn replay(gate: &mut Gate, open: &mut BTreeMap<TaskKey, Under>, head: Head, value: &Value) {
    let event = value.get("event").and_then(Value::as_str).unwrap_or_default();
    if event == "gate" {
        if let Some(kept) = value.get("gate").and_then(|kept| serde_json::from_value(kept.clone()).ok()) {
            *gate = kept;
        }
        return;
    }
    let Some(task) = head.task else { return };
    match event {
        "ordered" => {
            // An order that was refused wasn't written, so this can't fail but for a damaged file.
            let _ = gate.admit(&task.target, task.he, task.stamp);
            open.entry(task).or_default();
        }
        "calling" => {
            let until = value.get("until_boottime_ms").and_then(Value::as_u64).unwrap_or(0);
            let under = open.entry(task).or_default();
            under.until_boottime_ms = under.until_boottime_ms.max(until);
            under.boot = head.boot;
        }
        "cancelled" => gate.cancel(&task.target, task.stamp),
        "admitted" => gate.admitted_again(&task.target, task.he),
        "finished" => {
            open.remove(&task);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn task(index: u64) -> TaskKey {
        TaskKey { target: HostName::new("tk-p1").unwrap(), he: 4, stamp: Stamp { era: 1, term: 1, index } }
    }

    fn order(index: u64) -> FenceOrder {
        let TaskKey { target, he, stamp } = task(index);
        FenceOrder::new(target, he, stamp, Duration::from_secs(10))
    }

    fn when() -> When {
        When { wall_ms: 1, boot: "boot-a".into(), boottime_ms: 1000 }
    }

    fn reopen(folder: &Path, boot: &str) -> Recovered {
        Journal::open(folder, boot).unwrap().1
    }

    #[test]
    fn an_overtaken_task_stays_refused_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(folder.path(), "boot-a").unwrap();
        for index in [10, 20] {
            let event = order(index);
            journal.write_durably(&when(), Some(&task(index)), &Event::Ordered { order: &event }).unwrap();
        }
        journal.write_durably(&when(), Some(&task(20)), &Event::Cancelled { because: "readmission" }).unwrap();
        let gate = reopen(folder.path(), "boot-a").gate;
        let host = HostName::new("tk-p1").unwrap();
        assert!(gate.check(&host, 4, task(10).stamp).is_err());
        assert!(gate.check(&host, 4, task(20).stamp).is_err());
        assert!(gate.check(&host, 4, task(21).stamp).is_ok());
    }

    #[test]
    fn a_record_after_one_that_a_full_disk_refused_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(folder.path(), "boot-a").unwrap();
        let order = order(20);
        let ordered = Event::Ordered { order: &order };
        journal.write_durably(&when(), Some(&task(10)), &Event::Admitted).unwrap();
        let full = OpenOptions::new().append(true).open("/dev/full").unwrap();
        let mut disk = std::mem::replace(&mut journal.file, full);
        assert!(journal.write_durably(&when(), Some(&task(20)), &ordered).is_err());
        // What there was room for.
        disk.write_all(b"{\"v\":1,\"seq\":2,\"wal").unwrap();
        journal.file = disk;
        journal.write_durably(&when(), Some(&task(20)), &ordered).unwrap();
        let recovered = reopen(folder.path(), "boot-a");
        let stamp = task(10).stamp;
        assert!(recovered.gate.check(&order.target, 4, stamp).is_err(), "overtaken: {recovered:?}");
        assert_eq!((recovered.damaged, recovered.interrupted.len()), (0, 1));
    }

    #[test]
    fn a_journal_that_ends_at_the_largest_number_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let line = format!(r#"{{"v":1,"seq":{},"wall_ms":1,"boot":"b","boottime_ms":1,"task":null}}"#, u64::MAX);
        std::fs::write(folder.path().join(FILE), line + "\n").unwrap();
        let (mut journal, _) = Journal::open(folder.path(), "boot-a").unwrap();
        journal.write_durably(&when(), Some(&task(10)), &Event::Admitted).unwrap();
    }

    #[test]
    fn a_task_under_way_is_told_with_the_time_until_which_it_may_act() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(folder.path(), "boot-a").unwrap();
        let (done, open, device) = (order(10), order(20), DeviceName::new("bmc").unwrap());
        journal.write(&when(), Some(&task(10)), &Event::Ordered { order: &done }).unwrap();
        journal.write(&when(), Some(&task(10)), &Event::Finished).unwrap();
        journal.write(&when(), Some(&task(20)), &Event::Ordered { order: &open }).unwrap();
        let calling = Event::Calling { device: &device, act: Act::Off, until_boottime_ms: 5000 };
        journal.write_durably(&when(), Some(&task(20)), &calling).unwrap();
        let same = reopen(folder.path(), "boot-a").interrupted;
        assert_eq!(same, [Interrupted { task: task(20), until_boottime_ms: Some(5000) }]);
        let other = reopen(folder.path(), "boot-b").interrupted;
        assert_eq!(other, [Interrupted { task: task(20), until_boottime_ms: None }]);
    }

    #[test]
    fn a_torn_last_line_is_cut_off_and_writing_goes_on_behind_it() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(folder.path(), "boot-a").unwrap();
        let event = order(10);
        journal.write_durably(&when(), Some(&task(10)), &Event::Ordered { order: &event }).unwrap();
        drop(journal);
        let path = folder.path().join(FILE);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend_from_slice(b"{\"v\":1,\"seq\":2,\"wal");
        std::fs::write(&path, bytes).unwrap();
        let (mut journal, recovered) = Journal::open(folder.path(), "boot-a").unwrap();
        assert_eq!((recovered.damaged, recovered.interrupted.len()), (0, 1));
        journal.write_durably(&when(), Some(&task(10)), &Event::Finished).unwrap();
        assert_eq!(reopen(folder.path(), "boot-a"), Recovered { interrupted: vec![], ..recovered });
        assert_eq!(journal.last(10).unwrap().len(), 2);
    }

    #[test]
    fn a_large_file_is_put_aside_and_the_gate_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(folder.path(), "boot-a").unwrap();
        let event = order(10);
        journal.write_durably(&when(), Some(&task(10)), &Event::Ordered { order: &event }).unwrap();
        journal.write(&when(), Some(&task(10)), &Event::Finished).unwrap();
        let mut gate = Gate::default();
        gate.admit(&task(10).target, 4, task(10).stamp).unwrap();
        journal.bytes = FILE_BYTES_MAX;
        journal.rotate(&when(), &gate).unwrap();
        assert!(folder.path().join(format!("{FILE}.1")).exists());
        assert_eq!(reopen(folder.path(), "boot-a").gate, gate);
        assert_eq!(journal.last(10).unwrap().len(), 3);
    }
}
