//! The voter's disk in a thread of its own: a slow disk delays promises, never beats.

use quorum::replica::Write;
use quorum::storage::{FileStore, Founding, Loaded, LogStore, Persisted, StorageError};
use std::path::Path;
use std::sync::mpsc;

/// A voter's store, opened and loaded.
pub struct Disk {
    /// What it held.
    pub loaded: Loaded,
    store: FileStore,
}

impl Disk {
    /// Opens the store in `dir`, founding it if it is new.
    ///
    /// # Errors
    /// [`StorageError`], which names the remedy; the voter must not start.
    pub fn open(dir: &Path, founding: Founding) -> Result<Self, StorageError> {
        let mut store = FileStore::at(&dir.join("voter.redb"))?;
        if store.identity().is_none() {
            store.found(founding)?;
        }
        let loaded = store.load()?;
        Ok(Self { loaded, store })
    }

    /// Starts the thread. Writes go in by the sender; `done` is called with each write that became durable, in
    /// order, and `failed` once if the disk failed: the process must end then.
    pub fn start(
        mut self,
        done: impl Fn(Persisted) + Send + 'static,
        failed: impl Fn(StorageError) + Send + 'static,
    ) -> mpsc::Sender<Write> {
        let (sender, receiver) = mpsc::channel::<Write>();
        std::thread::Builder::new()
            .name("voter-disk".into())
            .spawn(move || {
                while let Ok(first) = receiver.recv() {
                    // What queued up meanwhile shares one flush.
                    let mut writes = vec![first];
                    writes.extend(receiver.try_iter());
                    match self.store.persist(writes) {
                        Ok(persisted) => persisted.into_iter().for_each(&done),
                        Err(error) => return failed(error),
                    }
                }
            })
            .expect("the operating system gives a thread at start");
        sender
    }
}
