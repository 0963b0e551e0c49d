//! What runs a group at a place: one small trait, one folder or file a kind.
//!
//! A driver is the hand, never the head: whether a group may start here is decided by the engine (protocol §7: grant,
//! lease, host epoch, keeper's echo, storage claim); the driver starts what it is told, with the epoch and host epoch
//! it is told, inside the cgroup it is told.
//!
//! ```text
//!   Absent --start--> Running (paused) --resume--> Running --stop--> Absent
//!      ^                  |                           |
//!      +------- kill -----+----------- kill ----------+          Unknown: can't tell; for safety it counts as Running
//! ```
//!
//! Not here: replication (`crate::replication`), announcing addresses (`crate::network`), proof towards the cluster
//! (the keeper's attestation), deadlines of a plan.

pub mod command;
pub mod contract;
pub mod qemu;

use quorum::id::{Epoch, GroupName, HostEpoch, HostName};
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

/// A driver's work under way. Dropping it gives up waiting; it never undoes what was begun.
pub type Doing<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where a driver works: the group, this host, and the two folders that are its own.
#[derive(Clone, Debug)]
pub struct Place {
    /// The group that it runs.
    pub group: GroupName,
    /// This host.
    pub host: HostName,
    /// The group's cgroup (version 2) inside the protected slice. Everything able to bring the group up runs in it.
    pub cgroup: PathBuf,
    /// Where its processes are moved while it is pinned: as long as one is in there, something of the group is here.
    pub pinned: PathBuf,
    /// A folder on a file system that a reboot empties; sockets and process ids of this group live there.
    pub runtime: PathBuf,
}

/// A volume as it is found on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeAt {
    /// Its name in the cluster spec: letters, digits and `-`, as it becomes part of node and export names.
    pub name: String,
    /// The raw file or block device that holds it.
    pub path: PathBuf,
}

/// Whether a started workload begins to execute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// Its processors run when `start` returns.
    Running,
    /// It is loaded and holds its devices, but doesn't execute until `resume`.
    Paused,
}

/// The order to start a group.
#[derive(Clone, Debug)]
pub struct StartOrder {
    /// The grant's epoch; the guest can read it.
    pub epoch: Epoch,
    /// The host epoch under which it was granted.
    pub host_epoch: HostEpoch,
    /// Its volumes, claimed and promoted.
    pub volumes: Vec<VolumeAt>,
    /// Whether it executes at once.
    pub begin: Begin,
    /// How long starting may take until it counts as failed.
    pub limit: Duration,
}

/// The order to stop a group in an orderly way. Each span runs after the one before.
#[derive(Clone, Copy, Debug)]
pub struct StopOrder {
    /// How long the workload has to end by itself after it was asked to.
    pub ask: Duration,
    /// How long its hypervisor or supervisor then has to flush and end it.
    pub quit: Duration,
    /// How long killing may then take.
    pub kill: Duration,
}

/// How a stopped workload came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Nothing was running.
    WasAbsent,
    /// It ended by itself when asked: all it had was written.
    ByItself,
    /// It was ended with its device caches flushed; what only the guest's memory held is gone.
    Flushed,
    /// It was killed.
    Killed,
}

/// What is seen of the group on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    /// No process of it exists. The only observation that may be reported as "stopped".
    Absent,
    /// It exists, begun under this grant.
    Running {
        /// The epoch that it was started with, as the process itself shows it.
        epoch: Epoch,
        /// The host epoch that it was started with.
        host_epoch: HostEpoch,
        /// Whether it executes or is paused.
        begin: Begin,
    },
    /// It can't be told. Never to be taken for absent.
    Unknown {
        /// What stood in the way.
        because: String,
    },
}

/// Why a driver could not do what it was told, and what that means for the group.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadError {
    /// Nothing was begun; the group is as it was. Another attempt needs a change first.
    #[error("begin: {because}")]
    Refused {
        /// What has to change.
        because: String,
    },
    /// Something of the group under another epoch is here. Nothing was begun.
    #[error("begin: the group is here already with epoch {epoch}")]
    Occupied {
        /// The epoch of what is here.
        epoch: Epoch,
    },
    /// It was begun and failed, and nothing of it is left: seen absent afterwards.
    #[error("start: {because}")]
    Failed {
        /// What went wrong.
        because: String,
    },
    /// It can't be told whether something of the group runs here. Counts as running until `observe` says otherwise.
    #[error("tell what became of it: {because}")]
    Unknown {
        /// What went wrong.
        because: String,
    },
}

/// What a preflight found; shown to people and used by placement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preflight {
    /// One line per fact worth knowing, such as the accelerator and why not a better one.
    pub notes: Vec<String>,
}

/// Runs one group on this host.
///
/// Contract, for every kind (checked by [`contract`]):
/// - Each verb is idempotent: said twice, the second finds its work done and succeeds.
/// - `start` never disturbs what is there: the same epoch is success, another is [`WorkloadError::Occupied`].
/// - Everything that is started runs in [`Place::cgroup`] from its first instruction and outlives this process; a new
///   driver made from the same place finds it again.
/// - `observe` only looks. [`Presence::Absent`] is said only when no process of the group was found, however the
///   driver came to be made; doubt is [`Presence::Unknown`].
/// - `kill` needs no cooperation of the workload, and [`Ended`] is returned only after the processes are gone.
pub trait Workload: Send + Sync {
    /// Checks what can be checked without starting: programs, devices, bridges, volumes, memory.
    ///
    /// # Errors
    /// [`WorkloadError::Refused`] with all problems found.
    fn preflight<'a>(&'a self, volumes: &'a [VolumeAt]) -> Doing<'a, Result<Preflight, WorkloadError>>;

    /// Starts the group under the order's epoch.
    ///
    /// # Errors
    /// Each kind of [`WorkloadError`], as described there.
    fn start<'a>(&'a self, order: &'a StartOrder) -> Doing<'a, Result<(), WorkloadError>>;

    /// Lets a paused group execute.
    ///
    /// # Errors
    /// [`WorkloadError::Refused`] if it isn't there, [`WorkloadError::Unknown`] if it didn't answer.
    fn resume(&self) -> Doing<'_, Result<(), WorkloadError>>;

    /// Stops the group in an orderly way, in the order's stages.
    ///
    /// # Errors
    /// [`WorkloadError::Unknown`] if it could not be seen gone.
    fn stop<'a>(&'a self, order: &'a StopOrder) -> Doing<'a, Result<Ended, WorkloadError>>;

    /// Kills whatever of the group is here and waits until it is gone.
    ///
    /// # Errors
    /// [`WorkloadError::Unknown`] if it could not be seen gone within the limit.
    fn kill(&self, limit: Duration) -> Doing<'_, Result<Ended, WorkloadError>>;

    /// Looks.
    fn observe(&self) -> Doing<'_, Presence>;

    /// Asks whether the workload is in good order: executing, no fault reported. Says nothing about its service.
    ///
    /// # Errors
    /// [`WorkloadError::Refused`] with what is wrong, [`WorkloadError::Unknown`] if it didn't answer.
    fn probe(&self) -> Doing<'_, Result<(), WorkloadError>>;
}
