//! What the ledger wishes of this host for a group, and what the runner answers.

use crate::engine::{Work, WorkId};
use quorum::id::{Epoch, Generation, HostEpoch, HostName, IntentId};
use quorum::ledger::{StepKind, StepOutcome};
use std::time::Duration;

/// What this host is for the group now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Duty {
    /// Nothing of the group may be here.
    None,
    /// This host owned it last, and its copy is one of those that have everything.
    Former(FormerDuty),
    /// The group is newborn: say that nothing of it is here, if so.
    SayAbsent,
    /// Receive the owner's writes.
    Standby(StandbyDuty),
    /// Run it.
    Owner(OwnerDuty),
    /// It is tied to an earlier admission of this host: what runs goes on, nothing is started.
    Tied(TiedDuty),
}

/// Where the processes of a running group belong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tie {
    /// Under the lease.
    Out,
    /// In the pinned cgroup.
    In,
    /// Where they are, until the keeper and the log have taken note of the pin.
    Stay,
}

/// The duty of a host to which a group is tied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TiedDuty {
    /// The ticket's epoch.
    pub epoch: Epoch,
    /// Where its processes belong.
    pub tie: Tie,
}

/// What the copy of the last owner says of itself, after that owner's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormerDuty {
    /// The epoch under which it owned the group.
    pub epoch: Epoch,
    /// The generation at which the ledger counts its copy as in sync.
    pub generation: Generation,
}

/// The duty of a standby.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandbyDuty {
    /// The owner's epoch.
    pub epoch: Epoch,
    /// The owner.
    pub owner: HostName,
    /// The ledger counts this copy as in sync at this generation, under this epoch.
    pub in_sync: Option<Generation>,
}

/// The duty of the owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerDuty {
    /// The ticket's epoch.
    pub epoch: Epoch,
    /// The admission that it names.
    pub host_epoch: HostEpoch,
    /// The generation that the copy must have before it is opened.
    pub opens: Generation,
    /// The generation that is written now.
    pub generation: Generation,
    /// A workload that already runs here without an epoch is taken over.
    pub adopts: bool,
    /// The ledger knows that it runs.
    pub is_recorded_running: bool,
    /// The ledger knows that it stopped: run nothing until a newer grant.
    pub is_stopped: bool,
    /// A planned move names this host as its source: stop.
    pub stop_for: Option<IntentId>,
    /// Bring this host's copy up to date and mirror to it.
    pub mirror_to: Option<HostName>,
    /// Copies that the ledger counts as in sync, besides this one.
    pub in_sync: Vec<HostName>,
    /// How long a stop may take before it becomes a kill.
    pub patience: Duration,
    /// Writes don't wait for the copy: how far it is behind is to be told this often.
    pub attest_every: Option<Duration>,
    /// Where its processes belong.
    pub tie: Tie,
}

/// Whether a start is allowed in this very step, and if not why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MayStart {
    /// Everything that protocol §7 asks for holds now.
    Yes,
    /// The reason for people.
    No(String),
}

/// What the runner wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Perform this.
    Work(WorkId, Work),
    /// What is under way is overtaken.
    Overtaken,
    /// Tell the ledger.
    Say(Saying),
}

/// What the runner tells the ledger. Said again until the ledger shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Saying {
    /// Nothing of a newborn group is here.
    Absent,
    /// It runs.
    Running(Epoch),
    /// It stopped and stays so.
    Stopped {
        /// Under which epoch it ran.
        epoch: Epoch,
        /// Under which intent. Never without one: a bare `Stopped` could still be under way when a restarted agent
        /// starts the group again, one with an intent does nothing once that is closed.
        intent: IntentId,
        /// Hosts whose copies have everything.
        drained: Vec<HostName>,
        /// Nothing was opened for writing.
        untouched: bool,
    },
    /// The mirror is away: go on without it.
    Detached {
        /// Under which epoch.
        epoch: Epoch,
        /// Whose copies.
        away: Vec<HostName>,
        /// The generation from now on.
        generation: Generation,
    },
    /// A copy has everything.
    InSync {
        /// Under which epoch.
        epoch: Epoch,
        /// Whose.
        copy: HostName,
        /// At which generation.
        generation: Generation,
    },
    /// How far a copy is behind for which no write waits.
    Attested {
        /// Under which epoch.
        epoch: Epoch,
        /// Whose.
        copy: HostName,
        /// At which generation.
        generation: Generation,
        /// How far, in time.
        lag: Duration,
    },
    /// A plan's step that this host executes began.
    StepBegan(StepKind),
    /// A plan's step that this host executes ended.
    StepEnded(StepKind, StepOutcome),
}
