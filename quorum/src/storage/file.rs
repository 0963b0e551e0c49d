//! The store in a file, by redb: commits are atomic and synced before they return.
//!
//! Why redb and not a log file of our own: `quorum/docs/decisions/0001-log-in-redb.md`.
//!
//! The whole file is verified at every start, not only after a crash: a flipped bit must stop the voter before it
//! votes, not when the page is read one day. The log is short, so it costs milliseconds. What redb can't tell from a
//! crash, a damaged newest commit, the file's head tells: see `promise.rs`.

use super::StorageError;
use super::promise::Head;
use super::record::Batch;
use super::store::{Backing, Store};
use redb::{
    Builder, Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition,
    TableError,
};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

const RECORDS: TableDefinition<'_, (u8, u64), &[u8]> = TableDefinition::new("records");
/// The number of the newest commit.
const COMMITS: TableDefinition<'_, (), u64> = TableDefinition::new("commits");

/// The log is read from memory; the cache only has to hold what a commit touches.
const CACHE_BYTES: usize = 8 << 20;

/// Records in a redb database.
#[derive(Debug)]
pub struct FileBacking {
    database: Database,
    head: Head,
    /// The newest commit.
    number: u64,
}

/// A store in a file.
pub type FileStore = Store<FileBacking>;

impl FileStore {
    /// Opens the store at `path`, or makes an empty one. Its directory must exist.
    ///
    /// # Errors
    /// [`StorageError`] when another process has it, the disk refuses, or it is damaged.
    pub fn at(path: &Path) -> Result<Self, StorageError> {
        if !path.exists() {
            create(path)?;
        }
        Self::in_file(path, path)
    }

    fn in_file(file: &Path, path: &Path) -> Result<Self, StorageError> {
        let opened_file = OpenOptions::new().read(true).write(true).open(file).map_err(io("open the voter's store"))?;
        let backend = redb::backends::FileBackend::new(opened_file).map_err(|error| opened(error, path))?;
        Self::on(backend, path)
    }

    /// Opens the store on any blocks. `path` is for messages.
    ///
    /// # Errors
    /// As [`Self::at`].
    pub fn on(blocks: impl StorageBackend, path: &Path) -> Result<Self, StorageError> {
        let open = || {
            let (head, body) = Head::of(blocks)?;
            let mut builder = Builder::new();
            builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
            let database = builder.create_with_backend(body).map_err(|error| opened(error, path))?;
            let number = newest(&database).map_err(|error| failed("read the voter's store", error))?;
            head.check(number)?;
            Self::open(FileBacking { database, head, number })
        };
        // redb's debug builds panic about damage that its release builds report.
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(open))
            .unwrap_or_else(|_| Err(StorageError::Damaged { what: "its pages contradict each other".to_owned() }))
    }
}

/// Makes an empty store under another name and then gives it its own: a crash leaves none or a whole one.
fn create(path: &Path) -> Result<(), StorageError> {
    let doing = io("create the voter's store");
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let half_made = Path::new(&name);
    match std::fs::remove_file(half_made) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(doing(error)),
        _ => {}
    }
    let new = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(half_made);
    let file = new.map_err(&doing)?;
    drop(FileStore::in_file(half_made, path)?);
    file.sync_all().map_err(&doing)?;
    std::fs::rename(half_made, path).map_err(&doing)?;
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // Without it the new name may be gone after a crash.
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(doing)
}

fn io(doing: &'static str) -> impl Fn(std::io::Error) -> StorageError {
    move |source| match source.kind() {
        ErrorKind::StorageFull => StorageError::Full { doing },
        _ => StorageError::Io { doing, source },
    }
}

fn opened(error: DatabaseError, path: &Path) -> StorageError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => StorageError::InUse(path.to_owned()),
        DatabaseError::UpgradeRequired(version) => {
            StorageError::Damaged { what: format!("its file format is {version}, which no release wrote") }
        }
        other => failed("open the voter's store", other.into()),
    }
}

fn failed(doing: &'static str, error: redb::Error) -> StorageError {
    match error {
        redb::Error::Corrupted(what) => StorageError::Damaged { what },
        redb::Error::Io(source) if source.kind() == ErrorKind::InvalidData => {
            StorageError::Damaged { what: source.to_string() }
        }
        redb::Error::Io(source) => io(doing)(source),
        other => StorageError::Io { doing, source: std::io::Error::other(other) },
    }
}

fn newest(database: &Database) -> Result<u64, redb::Error> {
    match database.begin_read()?.open_table(COMMITS) {
        Ok(table) => Ok(table.get(())?.map_or(0, |number| number.value())),
        Err(TableError::TableDoesNotExist(_)) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

impl FileBacking {
    fn read(&self) -> Result<BTreeMap<(u8, u64), Vec<u8>>, redb::Error> {
        let transaction = self.database.begin_read()?;
        let table = match transaction.open_table(RECORDS) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok(BTreeMap::new()),
            Err(error) => return Err(error.into()),
        };
        let mut records = BTreeMap::new();
        for record in table.iter()? {
            let (key, value) = record?;
            records.insert(key.value(), value.value().to_vec());
        }
        Ok(records)
    }

    fn write(&mut self, batch: &Batch) -> Result<(), redb::Error> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        {
            let mut table = transaction.open_table(RECORDS)?;
            for range in &batch.delete {
                table.retain_in(range.clone(), |_, _| false)?;
            }
            for (key, value) in &batch.put {
                table.insert(key, value.as_slice())?;
            }
            transaction.open_table(COMMITS)?.insert((), self.number + 1)?;
        }
        transaction.commit()?;
        self.number += 1;
        self.head.promise(self.number).map_err(redb::Error::Io)?;
        Ok(())
    }
}

impl Backing for FileBacking {
    fn read_all(&mut self) -> Result<BTreeMap<(u8, u64), Vec<u8>>, StorageError> {
        self.read().map_err(|error| failed("read the voter's store", error))
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), StorageError> {
        self.write(batch).map_err(|error| failed("write the voter's store", error))
    }
}
