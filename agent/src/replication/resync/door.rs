//! Whether another agent may write into a volume's copy here: one door a volume, shut unless an export is open.
//!
//! A write is made while the door is held; shutting it waits for that write. So after a copy was closed or promoted
//! nothing that a source sent reaches it, and nothing sent before is under way. A new session shuts the older one out:
//! what is left of it in some buffer is refused. An agent that ends shuts all its doors, and its writes end with it.

use quorum::id::{Epoch, HostName};
use quorum::mutants;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex as Lock, OnceLock, PoisonError};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// For whom the door stands open.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Open {
    epoch: Epoch,
    from: HostName,
    /// The session that may write; none before the first.
    session: Option<u64>,
}

/// A volume's door.
#[derive(Debug, Default)]
pub struct Door {
    open: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    open: Option<Open>,
    sessions: u64,
}

/// Held while a write is made.
#[derive(Debug)]
pub struct Held {
    _guard: OwnedMutexGuard<State>,
}

/// The door of the volume at `path` in this process.
pub fn of(path: &Path) -> Arc<Door> {
    static DOORS: OnceLock<Lock<BTreeMap<PathBuf, Arc<Door>>>> = OnceLock::new();
    let mut doors = DOORS.get_or_init(Lock::default).lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(doors.entry(path.to_owned()).or_default())
}

impl Door {
    /// Lets sessions of this source in, and nobody else's.
    pub async fn open(&self, epoch: Epoch, from: &HostName) {
        self.open.lock().await.open = Some(Open { epoch, from: from.clone(), session: None });
    }

    /// Lets nobody in. When it returns, no write is under way.
    pub async fn shut(&self) {
        self.open.lock().await.open = None;
    }

    /// Begins a session; an older one is out from now on. `None` if the door isn't open for this source.
    pub async fn enter(&self, epoch: Epoch, from: &HostName) -> Option<u64> {
        let mut state = self.open.lock().await;
        state.sessions += 1;
        let session = state.sessions;
        let is_for = |open: &&mut Open| open.epoch == epoch && open.from == *from;
        let open = state.open.as_mut().filter(|open| is_for(open) || mutants::on("data.door_for_anybody"))?;
        open.session = Some(session);
        Some(session)
    }

    /// Holds the door for one write of a session. `None` if the session is out.
    pub async fn hold(&self, session: u64) -> Option<Held> {
        let guard = Arc::clone(&self.open).lock_owned().await;
        let is_newest = |open: &Open| open.session == Some(session) || mutants::on("data.older_session_writes");
        let is_in = guard.open.as_ref().is_some_and(is_newest);
        is_in.then_some(Held { _guard: guard })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> HostName {
        name.parse().unwrap()
    }

    #[tokio::test]
    async fn only_the_newest_session_of_the_right_source_may_write() {
        let door = Door::default();
        assert_eq!(door.enter(Epoch(7), &host("tk-1")).await, None, "a door is shut at first");
        door.open(Epoch(7), &host("tk-1")).await;
        assert_eq!(door.enter(Epoch(6), &host("tk-1")).await, None, "an older epoch");
        assert_eq!(door.enter(Epoch(7), &host("tk-2")).await, None, "another host");
        let first = door.enter(Epoch(7), &host("tk-1")).await.unwrap();
        assert!(door.hold(first).await.is_some());
        let second = door.enter(Epoch(7), &host("tk-1")).await.unwrap();
        assert!(door.hold(first).await.is_none(), "an older session is out");
        assert!(door.hold(second).await.is_some());
        door.shut().await;
        assert!(door.hold(second).await.is_none(), "a shut door lets nobody write");
    }

    #[tokio::test]
    async fn shutting_waits_for_the_write_that_is_under_way() {
        let door = Arc::new(Door::default());
        door.open(Epoch(7), &host("tk-1")).await;
        let session = door.enter(Epoch(7), &host("tk-1")).await.unwrap();
        let held = door.hold(session).await.unwrap();
        tokio::select! {
            biased;
            () = door.shut() => panic!("it was shut while a write was under way"),
            () = std::future::ready(()) => {}
        }
        drop(held);
        door.shut().await;
    }

    #[tokio::test]
    #[cfg(feature = "mutants")]
    async fn a_door_that_lets_in_whom_it_should_not_is_noticed() {
        let door = Door::default();
        door.open(Epoch(7), &host("tk-1")).await;
        let first = {
            let _planted = mutants::plant("data.door_for_anybody");
            door.enter(Epoch(6), &host("tk-2")).await.expect("anybody is let in")
        };
        door.enter(Epoch(7), &host("tk-1")).await.unwrap();
        assert!(door.hold(first).await.is_none());
        let _planted = mutants::plant("data.older_session_writes");
        assert!(door.hold(first).await.is_some(), "an older session writes");
    }
}
