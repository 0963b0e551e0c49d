//! The voter's disk in a thread of its own: a slow disk delays promises, never beats. And the life of its file: founded
//! once, put aside for ever when the vote ends.
//!
//! Invariant: a file that was put aside is never a voter's again, and its id is never founded again on this host: it
//! would vote twice.

use quorum::id::VoterId;
use quorum::replica::Write;
use quorum::storage::{FileStore, Founding, Loaded, LogStore, Persisted, Seen, StorageError};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::mpsc;

/// The store of the vote that this host has.
const STORE: &str = "voter.redb";
/// What is put in front of the id of a vote that ended, behind the store's name.
const ENDED: &str = "voter.redb.ended-";
/// The name of a store that was put aside and can't say whose it was.
const UNKNOWN: &str = "voter.redb.unknown";

/// The store's file.
pub fn store_in(dir: &Path) -> PathBuf {
    dir.join(STORE)
}

/// The ids under which this host has voted and must never vote again; none where there is no folder yet.
///
/// # Errors
/// When the folder can't be read: then nobody knows, and no store may be founded.
pub fn ended_votes(dir: &Path) -> std::io::Result<BTreeSet<VoterId>> {
    let mut ended = BTreeSet::new();
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(ended),
        entries => entries?,
    };
    for entry in entries {
        let name = entry?.file_name();
        let id = name.to_str().and_then(|name| name.strip_prefix(ENDED));
        let digits = id.map(|id| id.split('.').next().unwrap_or_default());
        ended.extend(digits.and_then(|digits| digits.parse().ok()).map(VoterId));
    }
    Ok(ended)
}

/// Whose the store on this host is, where it can't say so itself: the founding vote's until that has ended. After that
/// only the log knows which later vote it was; the ids of those end when the log names them and finds no store.
pub fn whose(founding: Option<VoterId>, ended: &BTreeSet<VoterId>) -> Option<VoterId> {
    founding.filter(|id| !ended.contains(id))
}

/// Puts the store aside, durably: it is kept for people, and its id, if that is known, has ended here. Without a store
/// only the id ends.
///
/// # Errors
/// As the file system says; the vote must not go on.
pub fn put_aside(dir: &Path, voter: Option<VoterId>) -> std::io::Result<()> {
    let aside = free_name(dir, voter);
    match std::fs::rename(store_in(dir), &aside) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => drop(std::fs::File::create(&aside)?),
        other => other?,
    }
    std::fs::File::open(dir)?.sync_all()
}

/// As [`put_aside`], but the store also stays in its place, to be replaced in one step.
///
/// # Errors
/// As the file system says; nothing may be put in its place then.
pub fn keep_aside(dir: &Path, voter: Option<VoterId>) -> std::io::Result<()> {
    let aside = free_name(dir, voter);
    match std::fs::hard_link(store_in(dir), &aside) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => drop(std::fs::File::create(&aside)?),
        other => other?,
    }
    std::fs::File::open(dir)?.sync_all()
}

fn free_name(dir: &Path, voter: Option<VoterId>) -> PathBuf {
    let name = voter.map_or_else(|| UNKNOWN.to_owned(), |voter| format!("{ENDED}{voter}"));
    let free = |n: u32| {
        let suffix = if n == 0 { String::new() } else { format!(".{n}") };
        Some(dir.join(format!("{name}{suffix}"))).filter(|path| !path.exists())
    };
    (0..).find_map(free).expect("numbers don't end")
}

/// A voter's store, opened and loaded.
pub struct Disk {
    /// What it held.
    pub loaded: Loaded,
    /// It was founded just now.
    pub is_new: bool,
    /// What it remembers of other voters.
    pub remembered: BTreeMap<VoterId, Seen>,
    store: FileStore,
}

/// What the disk's thread does.
enum Task {
    Write(Write),
    Remember(VoterId, Seen),
}

/// The way to the disk's thread. When it is dropped the thread ends, after what was handed to it.
pub struct DiskThread(mpsc::Sender<Task>);

impl DiskThread {
    /// Hands a write over; false if the thread is gone.
    pub fn write(&self, write: Write) -> bool {
        self.0.send(Task::Write(write)).is_ok()
    }

    /// Remembers durably what another voter was seen to have.
    pub fn remember(&self, voter: VoterId, seen: Seen) -> bool {
        self.0.send(Task::Remember(voter, seen)).is_ok()
    }
}

impl Disk {
    /// Opens the store in `dir`. A new one is founded, if there is something to found it with.
    ///
    /// # Errors
    /// [`StorageError`], which names the remedy; the voter must not start.
    pub fn open(dir: &Path, founding: Option<Founding>) -> Result<Self, StorageError> {
        let mut store = FileStore::at(&store_in(dir))?;
        let is_new = store.identity().is_none();
        if let (true, Some(founding)) = (is_new, founding) {
            store.found(founding)?;
        }
        let loaded = store.load()?;
        let remembered = store.remembered().clone();
        Ok(Self { loaded, is_new, remembered, store })
    }

    /// Starts the thread. `done` is called with each write that became durable, in order, and `failed` once if the
    /// disk failed: the process must end then.
    pub fn start(
        mut self,
        done: impl Fn(Persisted) + Send + 'static,
        failed: impl Fn(StorageError) + Send + 'static,
    ) -> DiskThread {
        let (sender, receiver) = mpsc::channel::<Task>();
        std::thread::Builder::new()
            .name("voter-disk".into())
            .spawn(move || {
                while let Ok(first) = receiver.recv() {
                    // What queued up meanwhile shares one flush.
                    let mut writes = Vec::new();
                    let mut seen = Vec::new();
                    for task in [first].into_iter().chain(receiver.try_iter()) {
                        match task {
                            Task::Write(write) => writes.push(write),
                            Task::Remember(voter, has) => seen.push((voter, has)),
                        }
                    }
                    let written = if writes.is_empty() { Ok(Vec::new()) } else { self.store.persist(writes) };
                    let remembered = seen.into_iter().try_for_each(|(voter, has)| self.store.remember(voter, has));
                    match written.and_then(|written| remembered.map(|()| written)) {
                        Ok(persisted) => persisted.into_iter().for_each(&done),
                        Err(error) => return failed(error),
                    }
                }
            })
            .expect("the operating system gives a thread at start");
        DiskThread(sender)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vote_that_ended_is_known_for_ever_and_its_file_is_kept() {
        let dir = tempfile::tempdir().expect("a folder");
        assert_eq!(ended_votes(dir.path()).expect("readable"), BTreeSet::new());
        std::fs::write(store_in(dir.path()), b"x").expect("written");
        put_aside(dir.path(), Some(VoterId(2))).expect("put aside");
        put_aside(dir.path(), Some(VoterId(1_207))).expect("without a store only the id ends");
        put_aside(dir.path(), Some(VoterId(2))).expect("once more");
        assert_eq!(ended_votes(dir.path()).expect("readable"), BTreeSet::from([VoterId(2), VoterId(1_207)]));
        assert_eq!(std::fs::read(dir.path().join("voter.redb.ended-2")).expect("kept"), b"x");
        assert!(!store_in(dir.path()).exists());
    }

    #[test]
    fn a_later_votes_damaged_store_is_not_taken_for_the_founding_votes() {
        let dir = tempfile::tempdir().expect("a folder");
        let (founding, ended) = (Some(VoterId(2)), |dir: &Path| ended_votes(dir).expect("readable"));
        assert_eq!(whose(founding, &ended(dir.path())), founding, "no other vote was ever here");
        put_aside(dir.path(), founding).expect("put aside");
        std::fs::write(store_in(dir.path()), b"a later vote's").expect("written");
        let later = whose(founding, &ended(dir.path()));
        assert_eq!(later, None, "it can't be told whose it is");
        put_aside(dir.path(), later).expect("put aside");
        assert_eq!(ended(dir.path()), BTreeSet::from([VoterId(2)]), "no id ends that nobody knows");
        assert_eq!(std::fs::read(dir.path().join("voter.redb.unknown")).expect("kept"), b"a later vote's");
        assert_eq!(whose(None, &BTreeSet::new()), None, "a host that never founded has no founding vote");
    }
}
