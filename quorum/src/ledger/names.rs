//! Birth and end of names, and what makes a spec one that the ledger can keep.
//!
//! The spec is checked as a whole, against itself and against what is alive: a revision can't drop what still may
//! run, move a host to another failure domain, or promise what the protocol can't keep.

use super::spec::Tier;
use crate::id::{DeviceName, GroupName, HostName, SiteName};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Why a spec can't be kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum SpecProblem {
    /// A group that exists isn't in the new revision.
    #[error("group {0} still exists: `antipode group remove` it first")]
    GroupDropped(GroupName),
    /// A host that was admitted isn't in the new revision.
    #[error("host {0} still exists: `antipode host remove` it first")]
    HostDropped(HostName),
    /// A host that was admitted is at another site.
    #[error("host {0} can't change its site while it exists: `antipode host remove` it first")]
    HostMoved(HostName),
    /// A host's site isn't in the spec.
    #[error("host {host} is at site {site}, which isn't in the spec")]
    SiteUnknown {
        /// The host.
        host: HostName,
        /// The site that is missing.
        site: SiteName,
    },
    /// A voter's site isn't in the new revision.
    #[error("site {0} has a voter: `antipode quorum remove` it first")]
    SiteOfVoterDropped(SiteName),
    /// A host names a device that isn't in the spec.
    #[error("host {host} names device {device}, which isn't in the spec")]
    DeviceUnknown {
        /// The host.
        host: HostName,
        /// The device that is missing.
        device: DeviceName,
    },
    /// A device of the lab in a cluster that isn't one.
    #[error("device {0} is a process of a lab, and this cluster isn't one")]
    DeviceOfLab(DeviceName),
    /// A group's place names a site that isn't in the spec.
    #[error("group {group} has a place at site {site}, which isn't in the spec")]
    PlaceUnknown {
        /// The group.
        group: GroupName,
        /// The site.
        site: SiteName,
    },
    /// A group's place is at a witness.
    #[error("group {group} can't run at {site}: a witness runs no workloads")]
    PlaceAtWitness {
        /// The group.
        group: GroupName,
        /// The site.
        site: SiteName,
    },
    /// A group's place names a host that isn't at that site.
    #[error("group {group} names host {host} at site {site}, where it isn't")]
    PlaceHostElsewhere {
        /// The group.
        group: GroupName,
        /// The host.
        host: HostName,
        /// The site.
        site: SiteName,
    },
    /// A place without hosts.
    #[error("group {group} has no host at {site}")]
    PlaceEmpty {
        /// The group.
        group: GroupName,
        /// The site.
        site: SiteName,
    },
    /// A group without any place, or whose home isn't one of its places.
    #[error("group {0} has no place at its home")]
    HomeWithoutPlace(GroupName),
    /// A place is dropped although the group may still run there.
    #[error("group {group} may still run on {host}: move it away first")]
    PlaceInUse {
        /// The group.
        group: GroupName,
        /// The host.
        host: HostName,
    },
    /// A volume's backend belongs to two groups.
    #[error("volume backend {backend} belongs to {one} and {other}: a volume belongs to one group")]
    VolumeShared {
        /// The backend.
        backend: String,
        /// A group that has it.
        one: GroupName,
        /// Another group that has it.
        other: GroupName,
    },
    /// A shared volume without reservations where the lease alone would be accepted.
    #[error(
        "group {group} accepts self-fenced, but shared volume {volume} has no persistent reservations: in-flight \
         writes could outlive the lease"
    )]
    SharedNeedsReservations {
        /// The group.
        group: GroupName,
        /// The volume.
        volume: String,
    },
    /// A shared volume without reservations needs a longer wait for I/O.
    #[error("shared volume {volume} of {group} has no persistent reservations: delta_io must be at least 1 s")]
    SharedNeedsDeltaIo {
        /// The group.
        group: GroupName,
        /// The volume.
        volume: String,
    },
    /// A tier that can't keep its promise.
    #[error(
        "group {group} is of tier {tier:?} with target_rpo {target_rpo:?}, but volume {volume} may lose {floor:?}: gate \
         it, raise target_rpo, or choose tier approve"
    )]
    TargetOutOfReach {
        /// The group.
        group: GroupName,
        /// Its tier.
        tier: Tier,
        /// The volume.
        volume: String,
        /// Its target.
        target_rpo: Duration,
        /// What may be lost at best: L and the usual lag.
        floor: Duration,
    },
    /// A group accepts no evidence from outside at all.
    #[error("group {0} accepts no evidence: it could never be taken over")]
    NothingAccepted(GroupName),
    /// A group must run after one that doesn't exist, or after itself.
    #[error("group {group} runs after {after}, which isn't in the spec or leads back to it")]
    AfterUnknown {
        /// The group.
        group: GroupName,
        /// The other one.
        after: GroupName,
    },
    /// A number of people that the cluster can't ask for.
    #[error("approvals must be 1 or 2, not {0}")]
    Approvals(u32),
    /// A brake that never holds.
    #[error("the brake's window must be at least 60 s and its share at most 40 %")]
    BrakeTooWeak,
}
