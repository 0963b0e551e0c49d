//! What a volume's copy on this host is: a small file that lies beside the volume.
//!
//! It is the standby's *own* check before an activation (protocol §7: "in the in-sync set at that generation, and its
//! own check agrees"); it is never a permission. It is replaced in one step and forced to disk before the data changes
//! in a way that would make it a lie: a copy says `syncing` before its first chunk is overwritten.
//!
//! Invariant: neither generation nor epoch ever falls.

use quorum::id::{Epoch, Generation, GroupName};
use quorum::mutants;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A record's form. Another one is refused, not guessed at.
const VERSION: u32 = 1;

/// What a copy is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The group ran, or runs, on this copy: it may hold what no other copy has.
    Source,
    /// It follows a source and was complete at its generation.
    Standby,
    /// It is being made equal to a source: a mixture that nothing may be started from.
    Syncing,
}

/// The record of one copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    version: u32,
    /// The group.
    pub group: GroupName,
    /// The volume.
    pub volume: String,
    /// Which state of the group's data it belongs to.
    pub generation: Generation,
    /// The epoch under which it was last written.
    pub epoch: Epoch,
    /// What it is good for.
    pub role: Role,
    /// True while it may hold data of an older reign that no other copy has: set when a source becomes a standby, until
    /// all that differed was kept.
    pub was_source: bool,
}

/// Why a record can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file can't be read or written. What was there before is still there.
    #[error("{doing} {path:?}")]
    File {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The file holds no record, or one for something else. The copy's worth is unknown.
    #[error("read the record {path:?}: {because}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        because: String,
    },
    /// The new record would go back in generation or epoch. Nothing was written.
    #[error("write an older record: {there:?} is there already")]
    Older {
        /// The record that is there.
        there: Box<Record>,
    },
}

impl Record {
    /// A record of this form.
    pub fn new(group: &GroupName, volume: &str, role: Role) -> Self {
        let (generation, epoch) = (Generation(0), Epoch(0));
        Self {
            version: VERSION,
            group: group.clone(),
            volume: volume.into(),
            generation,
            epoch,
            role,
            was_source: false,
        }
    }

    /// The same with this generation and epoch.
    #[must_use]
    pub fn at(mut self, generation: Generation, epoch: Epoch) -> Self {
        self.generation = generation;
        self.epoch = epoch;
        self
    }

    /// The same, that may or may not hold data of an older reign that no other copy has.
    #[must_use]
    pub fn that_was_source(mut self, was_source: bool) -> Self {
        self.was_source = was_source;
        self
    }
}

impl Record {
    /// What a record file says.
    pub(crate) fn understand(bytes: &[u8]) -> Result<Self, String> {
        let record: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if record.version != VERSION {
            return Err(format!("form {}, known is {VERSION}", record.version));
        }
        Ok(record)
    }
}

/// Where a copy's record lies.
#[derive(Clone, Debug)]
pub struct RecordFile {
    path: PathBuf,
    group: GroupName,
    volume: String,
}

impl RecordFile {
    /// The record at `path` of this group's volume.
    pub fn new(path: PathBuf, group: &GroupName, volume: &str) -> Self {
        Self { path, group: group.clone(), volume: volume.into() }
    }

    /// The usual place for a volume kept in a file: beside it.
    pub fn beside(volume: &Path) -> PathBuf {
        let mut name = OsString::from(volume);
        name.push(".record");
        name.into()
    }

    /// Whether a reboot empties the file system on which `record` lies: what a copy is would be forgotten with it.
    pub fn is_lost_at_boot(record: &str) -> bool {
        ["/dev/", "/run/", "/var/run/", "/proc/", "/sys/"].iter().any(|folder| record.starts_with(folder))
    }

    /// What is recorded; `None` for a copy that was never used.
    ///
    /// # Errors
    /// [`RecordError::File`], [`RecordError::Damaged`].
    pub fn read(&self) -> Result<Option<Record>, RecordError> {
        let damaged = |because: String| RecordError::Damaged { path: self.path.clone(), because };
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(RecordError::File { doing: "read", path: self.path.clone(), source }),
        };
        let record = Record::understand(&bytes).map_err(damaged)?;
        if (&record.group, &record.volume) != (&self.group, &self.volume) {
            return Err(damaged(format!("it is for {}.{}", record.group, record.volume)));
        }
        Ok(Some(record))
    }

    /// Records `record`; when this returns, it is on disk.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn write(&self, record: &Record) -> Result<(), RecordError> {
        if let Some(there) = self.read()?
            && (record.generation < there.generation || record.epoch < there.epoch)
            && !mutants::on("data.record_goes_back")
        {
            return Err(RecordError::Older { there: Box::new(there) });
        }
        let failed = |doing| move |source| RecordError::File { doing, path: self.path.clone(), source };
        let text = serde_json::to_vec_pretty(record).map_err(io::Error::from).map_err(failed("write"))?;
        replace(&self.path, &text).map_err(failed("write"))
    }

    /// Takes the record away, where another can't be written (a full disk): the copy is as one that was never used, and
    /// nothing counts on it. What it said stays beside it for people, as `NAME.withdrawn`. Needs no room.
    ///
    /// # Errors
    /// [`RecordError::File`]; the record is still there.
    pub fn withdraw(&self) -> Result<(), RecordError> {
        let mut aside = OsString::from(&self.path);
        aside.push(".withdrawn");
        let withdrawn = fs::rename(&self.path, aside).and_then(|()| sync_folder(&self.path));
        withdrawn.map_err(|source| RecordError::File { doing: "withdraw", path: self.path.clone(), source })
    }
}

/// Replaces a file in one step; when this returns, the new content is on disk.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut temporary = OsString::from(path);
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let mut file = File::create(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_folder(path)
}

pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(folder: &tempfile::TempDir) -> RecordFile {
        RecordFile::new(folder.path().join("root.raw.record"), &"erp".parse().unwrap(), "root")
    }

    #[test]
    fn a_record_is_read_back_and_never_goes_back() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(&folder);
        assert_eq!(file.read().unwrap(), None);
        let record = Record::new(&"erp".parse().unwrap(), "root", Role::Standby).at(Generation(2), Epoch(7));
        file.write(&record).unwrap();
        assert_eq!(file.read().unwrap(), Some(record.clone()));
        for older in [record.clone().at(Generation(1), Epoch(8)), record.clone().at(Generation(2), Epoch(6))] {
            assert!(matches!(file.write(&older), Err(RecordError::Older { .. })));
        }
        assert_eq!(file.read().unwrap(), Some(record));
    }

    #[test]
    fn a_record_of_something_else_is_damage_not_absence() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(&folder);
        for text in ["", "{}", "{\"version\":9}"] {
            fs::write(&file.path, text).unwrap();
            assert!(matches!(file.read(), Err(RecordError::Damaged { .. })), "{text:?}");
        }
        let other = Record::new(&"crm".parse().unwrap(), "root", Role::Standby);
        fs::write(&file.path, serde_json::to_vec(&other).unwrap()).unwrap();
        assert!(matches!(file.read(), Err(RecordError::Damaged { .. })));
    }
}
