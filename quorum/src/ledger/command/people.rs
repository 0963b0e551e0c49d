//! Payloads of commands that carry people's decisions.

use super::super::evidence::Incarnation;
use super::super::person::Decision;
use super::CopyCheck;
use crate::id::{Epoch, Era, GroupName, HostName, LogIndex, PlanId, SiteName, VoterId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// With what a person agrees or disagrees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Subject {
    /// A plan of a group whose tier asks for one.
    Plan(PlanId),
    /// An override that asks for a second person.
    Override(LogIndex),
    /// An acceptance of a loss that asks for a second person.
    Loss(LogIndex),
}

/// A sign that the target of an override isn't dead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contrary {
    /// Which target.
    pub host: HostName,
    /// What: a heartbeat, a BMC that says "on", a storage path that still writes.
    pub what: String,
    /// How old, rounded down.
    pub age: Duration,
}

/// What is frozen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum FreezeScope {
    /// Everything.
    Cluster,
    /// A site's hosts, and the groups that run there.
    Site(SiteName),
    /// One group.
    Group(GroupName),
}

/// A host or a site.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PlaceScope {
    /// One machine.
    Host(HostName),
    /// All machines of a site.
    Site(SiteName),
}

/// Why something that was to last a while ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndCause {
    /// Its time is over.
    Elapsed {
        /// The time since it began or since this leader took over, on the leader's clock, rounded down.
        waited: Duration,
    },
    /// A person ended it.
    Person(Decision),
}

/// What makes it safe to untie a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnpinGround {
    /// The evidence in the ledger covers it, or its owner stopped it.
    Proof,
    /// The host is admitted, and its keeper acknowledged that the group is in the armed set of that admission.
    Rearmed {
        /// The admission.
        of: Incarnation,
        /// The sequence number of the armed set that the keeper echoed.
        sequence: u64,
    },
}

/// A person asserts what machines could not prove.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// What is asserted.
    pub claim: Claim,
    /// The signs against it that the person was shown.
    pub contrary: Vec<Contrary>,
    /// Don't wait for the lease of hosts of class A and B.
    pub at_once: bool,
    /// How long it may stay incomplete.
    pub span: Duration,
    /// Who, why, and what was shown.
    pub by: Decision,
}

/// What a person vouches for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Claim {
    /// These incarnations can do no harm.
    Inert(Vec<Incarnation>),
    /// Nothing of a newborn group runs on these hosts, and autostart is off.
    Absent {
        /// The group.
        group: GroupName,
        /// The hosts.
        hosts: Vec<HostName>,
    },
}

/// A person accepts that data is lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptLoss {
    /// The group.
    pub group: GroupName,
    /// Its current epoch: the acceptance is for the next grant only.
    pub epoch: Epoch,
    /// Whose copy will be activated.
    pub copy: HostName,
    /// What that copy's own check said when the person decided.
    pub own: CopyCheck,
    /// How much is expected to be lost; none if nobody can say.
    pub expected_loss: Option<Duration>,
    /// Who, why, and what was shown.
    pub by: Decision,
}

/// The first entry of a new era.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EraBegun {
    /// The new era: larger than any that the ledger or the person knows.
    pub era: Era,
    /// Machines that the person names as places of a group, beyond what the ledger knows: it may be behind.
    pub places: BTreeMap<GroupName, Vec<HostName>>,
    /// Voters seen unreachable, and how that was seen; must not be empty of the old majority.
    pub unreachable: Vec<VoterId>,
    /// Voters of the old configuration that answered. Must be none but the survivors.
    pub survivors: Vec<VoterId>,
    /// Who, why, and what was shown.
    pub by: Decision,
}

impl EndCause {
    /// The decision behind it, if a person's.
    pub const fn decision(&self) -> Option<&Decision> {
        match self {
            Self::Elapsed { .. } => None,
            Self::Person(decision) => Some(decision),
        }
    }
}
