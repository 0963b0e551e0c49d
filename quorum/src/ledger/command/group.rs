//! Payloads of commands about groups, their tickets and their data.

use super::super::evidence::Incarnation;
use super::super::person::Decision;
use crate::id::{Epoch, Generation, GroupName, HostName, IntentId, LogIndex, PlanId};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The right to run a group goes to a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The group.
    pub group: GroupName,
    /// The new owner.
    pub to: Incarnation,
    /// The epoch that it gets: one more than the current.
    pub epoch: Epoch,
    /// Why its data is good enough.
    pub gate: DataGate,
    /// A copy that already runs there is taken over: only for a group's first grant, to its source.
    pub adopt: bool,
    /// What allows it.
    pub cause: GrantCause,
    /// The plan whose pivot it is.
    pub plan: Option<PlanId>,
}

/// What allows a grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GrantCause {
    /// The group goes back to the machine that owned it last. Not a move: no tier, hold-off, freeze or brake applies.
    InPlace,
    /// The leader moves it.
    Automatic {
        /// The time since the loss was applied, rounded down.
        waited: Duration,
    },
    /// A planned move that was begun by an intent.
    Intent(IntentId),
    /// A person moves it.
    Operator(Decision),
}

/// Why a copy is good enough to be activated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DataGate {
    /// The group has no data.
    NoVolumes,
    /// The target's copy is in the in-sync set.
    InSync {
        /// At which generation.
        generation: Generation,
        /// What the target's own check of its copy says.
        own: CopyCheck,
    },
    /// The target's copy is behind, but not more than the group allows.
    Lagging {
        /// At which generation.
        generation: Generation,
        /// What the target's own check of its copy says.
        own: CopyCheck,
        /// How much is lost.
        loss: LossMeasure,
    },
    /// A person accepted the loss.
    Accepted {
        /// The entry by which.
        acceptance: LogIndex,
        /// What the target's own check of its copy says.
        own: CopyCheck,
    },
}

/// What a host finds when it compares its own copy with what the ledger knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum CopyCheck {
    /// Same lineage, same generation.
    Agrees,
    /// Same lineage, an older generation.
    Older(Generation),
    /// It has what the ledger doesn't know of.
    Ahead,
    /// Another lineage.
    Diverged,
}

/// How much data a lagging copy would lose. Intervals on the proposer's clock, rounded up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LossMeasure {
    /// How far the copy was behind at the last attestation.
    pub lag: Duration,
    /// Time since that attestation.
    pub since_attested: Duration,
    /// From that attestation to the last grant of the source's lease by any voter; none if a voter was not heard and
    /// must count as having granted until now.
    pub granted_after: Option<Duration>,
}

/// The sender's workload is down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// The group.
    pub group: GroupName,
    /// Under which epoch it ran.
    pub epoch: Epoch,
    /// Where.
    pub of: Incarnation,
    /// The intent under which it was stopped: counts only if that is open here.
    pub intent: Option<IntentId>,
    /// The data's generation now.
    pub generation: Generation,
    /// Whose copies were seen to have everything.
    pub copies: Vec<HostName>,
}

/// A planned move or migration begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The group.
    pub group: GroupName,
    /// Its epoch.
    pub epoch: Epoch,
    /// From where.
    pub from: Incarnation,
    /// To where.
    pub to: Incarnation,
    /// How long it may stay open; the leader aborts it then.
    pub deadline: Duration,
    /// The plan that it belongs to.
    pub plan: Option<PlanId>,
}
