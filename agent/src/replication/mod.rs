//! What moves a group's data: one small trait, one folder or file a kind.
//!
//! A driver serves one copy of one volume on this host. It moves data and says what it sees; it decides nothing: when a
//! mirror that is away becomes `Detached`, whether a standby is promoted, and what counts as in sync, is decided by the
//! ledger (protocol §7). The driver only refuses what its own record contradicts.
//!
//! ```text
//!   standby:  open_export -> (Syncing ... mark_standby -> Standby) -> close_export -> promote -> Source
//!   source:   start_mirror -> Copying -> Synced <-> Away -> [Detached is committed] -> release_writes -> Detached
//! ```
//!
//! Honest zero loss: under [`Mode::Sync`] a write of the guest is answered only when it is on the disks of both sides.
//! While the standby is away, writes wait, without end, until `release_writes` is told that `Detached` is committed; if
//! no majority can be reached to commit it, the lease ends and the keeper kills the guest.
//!
//! Not here: who runs what (`crate::workload`), proof towards the cluster, the wire between agents.

pub mod command;
pub mod contract;
pub mod nbd;
pub mod record;
pub mod refusals;
pub mod resync;
mod rules;

use crate::workload::Doing;
use quorum::id::{Epoch, Generation, HostName};
use quorum::mutants;
use record::{Record, RecordError};
use resync::{Figures, Wire};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::time::Duration;

/// When a guest's write is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// When both sides have it on disk.
    Sync,
    /// When this side has it; the other follows, with a measured lag.
    Async,
}

/// What is wrong with a key of a kind in the cluster spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyProblem {
    /// Which key.
    pub key: &'static str,
    /// What is wrong with its value.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

impl KeyProblem {
    fn new(key: &'static str, what: String, remedy: &str) -> Self {
        Self { key, what, remedy: remedy.to_owned() }
    }
}

/// How a kind's mirror lives beside the workload whose data it moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// It is a part of the running workload and ends with it. A copy that was left behind is compared over a stream
    /// between the agents, and a planned stop needs a synchronous mirror to lose nothing.
    WithWorkload,
    /// It lives by itself: it compares by itself, and what a stopped workload wrote last can still be sent.
    ByItself,
}

/// The order to take in what a source sends.
#[derive(Clone, Debug)]
pub struct ExportOrder {
    /// The epoch of the source's grant. A source of an older one is refused, whatever it presents.
    pub epoch: Epoch,
    /// The only host that is let in.
    pub from: HostName,
    /// Where to listen.
    pub listen: SocketAddr,
    /// Whether the copy is complete already.
    pub begin: ExportBegin,
}

/// What an export continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportBegin {
    /// The copy is to be made equal: from now on, and until `mark_standby`, nothing may be started from it.
    Afresh,
    /// The copy is a standby of this very epoch whose source still waits for it (after a restart of this host, say).
    Continue,
}

/// The order to send everything to a standby.
#[derive(Clone, Debug)]
pub struct MirrorOrder {
    /// The epoch of our grant.
    pub epoch: Epoch,
    /// The standby; it must prove to be this host.
    pub to: HostName,
    /// Where its export listens.
    pub target: SocketAddr,
    /// When writes are answered.
    pub mode: Mode,
    /// What has to be sent first.
    pub begin: MirrorBegin,
}

/// What a mirror starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MirrorBegin {
    /// Send the whole volume, then follow.
    Whole,
    /// Both copies are known to be identical and the guest is paused since that was established: only follow.
    Identical,
}

/// What is seen of a mirror at its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MirrorState {
    /// There is none: never started, released, or ended by itself.
    Detached {
        /// Why it ended, if it ended by itself.
        because: Option<String>,
    },
    /// The standby is being made equal. Writes wait for it already.
    Copying {
        /// Bytes sent.
        done_bytes: u64,
        /// Bytes known to be sent in all; grows while the guest writes.
        total_bytes: u64,
    },
    /// The standby was complete and follows. Under [`Mode::Sync`] every answered write is on its disk.
    Synced {
        /// Bytes not yet on the standby. Under `Sync` none of them was answered; under `Async` this is the lag.
        pending_bytes: u64,
        /// How long ago nothing was pending, as far as was looked: under `Async` no answered write that is older is
        /// missing at the standby. `None` if that was never seen.
        behind: Option<Duration>,
    },
    /// The standby doesn't answer. Under [`Mode::Sync`] writes wait.
    Away {
        /// For how long at least.
        since: Duration,
        /// Bytes that wait for it.
        pending_bytes: u64,
        /// It was complete before: under [`Mode::Sync`] every answered write is on its disk all the same.
        was_whole: bool,
    },
}

/// The order to make a copy the one that the group runs on.
#[derive(Clone, Copy, Debug)]
pub struct PromoteOrder {
    /// The grant's epoch.
    pub epoch: Epoch,
    /// The grant's data generation.
    pub generation: Generation,
    /// The epoch under which the copy last became complete, as the ledger knows it: a copy that says an older one is an
    /// older state of the same generation.
    pub not_before: Epoch,
    /// What loss a person has accepted, on record.
    pub accepted: AcceptedLoss,
}

/// What a person has accepted to lose, recorded in the log before the order was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptedLoss {
    /// Nothing: the copy must be exactly the generation of the grant.
    Nothing,
    /// What was written since this copy's generation.
    OlderGeneration,
    /// The consistency of a copy that was being overwritten: only for data that can repair itself.
    Mixture,
}

/// Why a driver could not do what it was told, and what that means for the data.
#[derive(Debug, thiserror::Error)]
pub enum ReplicationError {
    /// It contradicts this copy's own record. Nothing was changed.
    #[error("go on: {because}")]
    Refused {
        /// What contradicts it.
        because: String,
    },
    /// The record can't be read or written. Nothing was changed; the copy's worth is unknown until it can.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The other side can't be reached, or isn't who it should be. Nothing was changed here.
    #[error("reach the other side: {because}")]
    Unreachable {
        /// What went wrong.
        because: String,
    },
    /// It was begun and failed, and what was begun was undone.
    #[error("replicate: {because}")]
    Failed {
        /// What went wrong.
        because: String,
    },
    /// It can't be told what is in force now: writes may or may not reach the other side.
    #[error("tell what became of it: {because}")]
    Unknown {
        /// What went wrong.
        because: String,
    },
}

/// Moves the data of one volume.
///
/// Contract, for every kind (checked by [`contract`]):
/// - Each verb is idempotent: said twice, the second finds its work done and succeeds.
/// - What is started runs in the group's cgroup, outlives this process, and is found again by a new driver.
/// - `close_export` and `release_writes` need no cooperation of the other side, whether it is dead or silent.
/// - After `close_export` returned, nothing that a source sends reaches the copy, and nothing sent before is under way.
/// - A record is on disk before what it says begins to be true for the worse, and after it is true for the better.
pub trait Replication: Send + Sync {
    /// This copy's record.
    ///
    /// # Errors
    /// [`RecordError`].
    fn record(&self) -> Result<Option<Record>, RecordError>;

    /// How the kind's mirrors live.
    fn manner(&self) -> Manner;

    /// Records the birth of the data on this host: the copy that the group was created from.
    ///
    /// # Errors
    /// [`ReplicationError::Refused`] if there is a record of something else already.
    fn adopt(&self, epoch: Epoch, generation: Generation) -> Doing<'_, Result<(), ReplicationError>>;

    /// Standby: takes in what the source of this epoch sends.
    ///
    /// # Errors
    /// [`ReplicationError`]; an export of an older epoch is closed even then.
    fn open_export<'a>(&'a self, order: &'a ExportOrder) -> Doing<'a, Result<(), ReplicationError>>;

    /// Standby: the copy is complete as of this generation (the source said so, under this epoch).
    ///
    /// # Errors
    /// [`ReplicationError::Refused`] unless the copy was being made equal under this very epoch.
    fn mark_standby(&self, epoch: Epoch, generation: Generation) -> Result<(), ReplicationError>;

    /// Standby: cuts the source off, whatever it does, and waits until nothing of it is under way.
    ///
    /// # Errors
    /// [`ReplicationError::Unknown`] if it could not be seen closed within the limit.
    fn close_export(&self, limit: Duration) -> Doing<'_, Result<(), ReplicationError>>;

    /// Makes this copy the one that the group runs on: closes the export, checks the record, records the new epoch.
    ///
    /// # Errors
    /// [`ReplicationError::Refused`] if the copy isn't what the order says, beyond what was accepted.
    fn promote<'a>(&'a self, order: &'a PromoteOrder) -> Doing<'a, Result<(), ReplicationError>>;

    /// Source: the data has another generation from now on (a copy was left behind).
    ///
    /// # Errors
    /// [`ReplicationError::Refused`] unless this copy is the source under this very epoch.
    fn advance(&self, epoch: Epoch, generation: Generation) -> Result<(), ReplicationError>;

    /// Source: sends everything to the standby. A mirror of the same order is left as it is; another one is refused.
    ///
    /// # Errors
    /// [`ReplicationError`].
    fn start_mirror<'a>(&'a self, order: &'a MirrorOrder) -> Doing<'a, Result<(), ReplicationError>>;

    /// Source: brings a copy that was left behind up to date, sending what differs only, and then mirrors as
    /// [`Replication::start_mirror`] does. `wire` leads to the standby's agent. `None`: such a mirror was there already,
    /// or the kind compares by itself and doesn't say.
    ///
    /// # Errors
    /// [`ReplicationError`]; no mirror is left then, and the guest runs on.
    fn resync<'a>(
        &'a self,
        order: &'a MirrorOrder,
        wire: &'a mut dyn Wire,
    ) -> Doing<'a, Result<Option<Figures>, ReplicationError>>;

    /// Source: ends what a driver that died left half done, such as a guest that stands still for it.
    ///
    /// # Errors
    /// [`ReplicationError::Unknown`] if the source doesn't answer.
    fn recover(&self) -> Doing<'_, Result<(), ReplicationError>>;

    /// Source: looks. A mirror whose standby has taken nothing for `stall` while something waits is
    /// [`MirrorState::Away`].
    ///
    /// # Errors
    /// [`ReplicationError::Unknown`] if the source doesn't answer.
    fn mirror_state(&self, stall: Duration) -> Doing<'_, Result<MirrorState, ReplicationError>>;

    /// Source, under [`Mode::Async`]: lets the standby take everything once, so that its lag is known. The workload may
    /// stand still meanwhile, for `limit` at most. Returns whether nothing was pending at some moment of this call; of a
    /// workload that was stopped before it the standby has everything then ([`Manner::ByItself`] only).
    ///
    /// # Errors
    /// [`ReplicationError::Unknown`] if the source doesn't answer.
    fn even_out(&self, limit: Duration) -> Doing<'_, Result<bool, ReplicationError>>;

    /// Source: lets waiting writes go and ends the mirror. To be said only when `Detached` is committed for this copy's
    /// epoch and this host accepted it.
    ///
    /// # Errors
    /// [`ReplicationError::Unknown`] if writes may still wait.
    fn release_writes(&self) -> Doing<'_, Result<(), ReplicationError>>;
}

/// Whether a mirror of this synchronous order is there and its standby became whole, away or not: one that an earlier life
/// of this agent began is taken as it is. That life may have said that the copy is in sync, and the word may still be under
/// way. To let the writes go because the standby can't be reached just now would make it a lie.
pub async fn is_whole_already(driver: &dyn Replication, order: &MirrorOrder, stall: Duration) -> bool {
    let is_whole = |state| matches!(state, Ok(MirrorState::Synced { .. } | MirrorState::Away { was_whole: true, .. }));
    // Looked at again: a mirror that ended between the look and the order was begun anew.
    !mutants::on("data.waiting_mirror_let_go")
        && is_whole(driver.mirror_state(stall).await)
        && driver.start_mirror(order).await.is_ok()
        && is_whole(driver.mirror_state(stall).await)
}
