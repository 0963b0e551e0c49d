//! What makes a spec one that the ledger can keep.
//!
//! The spec is checked as a whole, against itself and against what is alive: a revision can't drop what still may
//! run, move a host to another failure domain, or promise what the protocol can't keep. All problems are reported at
//! once. The configuration reader runs the same check before it proposes.

use super::evidence::EvidenceKind;
use super::spec::{GroupSpec, LedgerSpec, Replication, Tier, VolumeSpec};
use super::state::Ledger;
use crate::id::{DeviceName, GroupName, HostName, SiteName};
use crate::timing::Timing;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

/// δ_io that a shared volume without reservations needs: in-flight writes of a dead initiator still land within it.
const DELTA_IO_SHARED: Duration = Duration::from_secs(1);

/// The least that a BMC or PDU must settle between two reads.
const SETTLE_MIN: Duration = Duration::from_secs(1);

/// Everything that keeps a spec from being kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecProblems(pub Vec<SpecProblem>);

impl fmt::Display for SpecProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, problem) in self.0.iter().enumerate() {
            let separator = if position == 0 { "" } else { "; " };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

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
    /// A device whose two reads of "off" could be one stale answer.
    #[error("device {device} must settle for at least 1 s between two reads, not {settle:?}")]
    SettleTooShort {
        /// The device.
        device: DeviceName,
        /// What the spec says.
        settle: Duration,
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

impl LedgerSpec {
    /// What is wrong with this spec in itself, under these time spans.
    pub fn problems(&self, timing: &Timing, lab: bool) -> Vec<SpecProblem> {
        let mut problems = Vec::new();
        self.check_policy(&mut problems);
        self.check_hosts(lab, &mut problems);
        for (name, group) in &self.groups {
            self.check_places(name, group, &mut problems);
            check_promises(name, group, timing, &mut problems);
        }
        self.check_volumes(&mut problems);
        self.check_order(&mut problems);
        problems
    }

    fn check_policy(&self, problems: &mut Vec<SpecProblem>) {
        let policy = &self.policy;
        if !(1..=2).contains(&policy.approvals) {
            problems.push(SpecProblem::Approvals(policy.approvals));
        }
        if policy.brake_window < Duration::from_secs(60) || policy.brake_percent > 40 || policy.brake_hosts_min > 3 {
            problems.push(SpecProblem::BrakeTooWeak);
        }
    }

    fn check_hosts(&self, lab: bool, problems: &mut Vec<SpecProblem>) {
        for (host, spec) in &self.hosts {
            if !self.sites.contains_key(&spec.site) {
                problems.push(SpecProblem::SiteUnknown { host: host.clone(), site: spec.site.clone() });
            }
            for device in spec.fencing.iter().flatten().filter(|device| !self.devices.contains_key(*device)) {
                problems.push(SpecProblem::DeviceUnknown { host: host.clone(), device: device.clone() });
            }
        }
        for (name, device) in &self.devices {
            if device.lab && !lab {
                problems.push(SpecProblem::DeviceOfLab(name.clone()));
            }
            let managed = matches!(device.kind.as_str(), "redfish" | "ipmi" | "pdu");
            if managed && device.settle < SETTLE_MIN {
                problems.push(SpecProblem::SettleTooShort { device: name.clone(), settle: device.settle });
            }
        }
    }

    fn check_places(&self, name: &GroupName, group: &GroupSpec, problems: &mut Vec<SpecProblem>) {
        if !group.places.contains_key(&group.home) {
            problems.push(SpecProblem::HomeWithoutPlace(name.clone()));
        }
        for (site, place) in &group.places {
            let (group, site) = (name.clone(), site.clone());
            match self.sites.get(&site) {
                None => problems.push(SpecProblem::PlaceUnknown { group: group.clone(), site: site.clone() }),
                Some(spec) if spec.witness => {
                    problems.push(SpecProblem::PlaceAtWitness { group: group.clone(), site: site.clone() });
                }
                Some(_) => {}
            }
            if place.hosts.is_empty() {
                problems.push(SpecProblem::PlaceEmpty { group: group.clone(), site: site.clone() });
            }
            for host in place.hosts.iter().filter(|host| self.site_of(host) != Some(&site)) {
                let (group, host, site) = (group.clone(), host.clone(), site.clone());
                problems.push(SpecProblem::PlaceHostElsewhere { group, host, site });
            }
        }
    }

    /// A volume belongs to one group: two owners of one backend are two owners of its data.
    fn check_volumes(&self, problems: &mut Vec<SpecProblem>) {
        let mut owner: BTreeMap<&String, &GroupName> = BTreeMap::new();
        for (name, group) in &self.groups {
            for volume in &group.volumes {
                if let Some(one) = owner.insert(&volume.backend, name)
                    && one != name
                {
                    let (backend, one, other) = (volume.backend.clone(), one.clone(), name.clone());
                    problems.push(SpecProblem::VolumeShared { backend, one, other });
                }
            }
        }
    }

    fn check_order(&self, problems: &mut Vec<SpecProblem>) {
        for name in self.groups.keys() {
            if let Some(after) = self.broken_after(name) {
                problems.push(SpecProblem::AfterUnknown { group: name.clone(), after });
            }
        }
    }

    /// A predecessor of `group` that isn't in the spec or leads back to `group`.
    fn broken_after(&self, group: &GroupName) -> Option<GroupName> {
        let mut seen = BTreeSet::new();
        let mut waiting: Vec<&GroupName> = self.groups[group].after.iter().collect();
        while let Some(next) = waiting.pop() {
            if next == group || !self.groups.contains_key(next) {
                return Some(next.clone());
            }
            if seen.insert(next) {
                waiting.extend(&self.groups[next].after);
            }
        }
        None
    }
}

/// A tier that promises what its data can't keep is refused before the disaster, not found out in it.
fn check_promises(name: &GroupName, group: &GroupSpec, timing: &Timing, problems: &mut Vec<SpecProblem>) {
    if group.accept.is_empty() {
        problems.push(SpecProblem::NothingAccepted(name.clone()));
    }
    for volume in &group.volumes {
        if volume.shared && !volume.persistent_reservations {
            let (group_name, volume_name) = (name.clone(), volume.name.clone());
            if group.accept.contains(&EvidenceKind::SelfFenced) {
                let (group, volume) = (group_name.clone(), volume_name.clone());
                problems.push(SpecProblem::SharedNeedsReservations { group, volume });
            }
            if timing.delta_io < DELTA_IO_SHARED {
                problems.push(SpecProblem::SharedNeedsDeltaIo { group: group_name, volume: volume_name });
            }
        }
        if let Some(floor) = loss_floor(volume, timing)
            && group.tier == Tier::Auto
            && group.target_rpo < floor
        {
            problems.push(SpecProblem::TargetOutOfReach {
                group: name.clone(),
                tier: group.tier,
                volume: volume.name.clone(),
                target_rpo: group.target_rpo,
                floor,
            });
        }
    }
}

/// What an ungated volume may lose at best: after its last lease the source has acknowledged for L what nobody else
/// has. None where writes wait.
fn loss_floor(volume: &VolumeSpec, timing: &Timing) -> Option<Duration> {
    match volume.replication {
        Replication::None
        | Replication::Synchronous { gated: true }
        | Replication::Asynchronous { gated: true, .. } => None,
        Replication::Synchronous { gated: false } => Some(timing.lease),
        Replication::Asynchronous { usual_lag, gated: false } => Some(timing.lease.saturating_add(usual_lag)),
    }
}

impl Ledger {
    /// What is wrong with a spec as the next revision: in itself, and with what is alive.
    pub fn spec_problems(&self, spec: &LedgerSpec, timing: &Timing) -> Vec<SpecProblem> {
        let lab = self.cluster().is_some_and(|cluster| cluster.lab);
        let mut problems = spec.problems(timing, lab);
        let old = &self.spec.spec;
        for group in self.groups.keys().filter(|group| !spec.groups.contains_key(*group)) {
            problems.push(SpecProblem::GroupDropped(group.clone()));
        }
        for host in self.hosts.keys() {
            match (old.site_of(host), spec.site_of(host)) {
                (Some(_), None) => problems.push(SpecProblem::HostDropped(host.clone())),
                (Some(before), Some(after)) if before != after => problems.push(SpecProblem::HostMoved(host.clone())),
                (Some(_) | None, _) => {}
            }
        }
        for voter in self.membership.all_voters() {
            if old.sites.contains_key(&voter.site) && !spec.sites.contains_key(&voter.site) {
                problems.push(SpecProblem::SiteOfVoterDropped(voter.site.clone()));
            }
        }
        self.check_places_in_use(spec, &mut problems);
        problems
    }

    /// A place may be dropped only when nothing can be there any more.
    fn check_places_in_use(&self, spec: &LedgerSpec, problems: &mut Vec<SpecProblem>) {
        for (name, state) in &self.groups {
            let (Some(before), Some(after)) = (self.group_spec(name), spec.groups.get(name)) else { continue };
            let hosts: BTreeSet<&HostName> = state.owners.keys().map(|owner| &owner.host).collect();
            for host in hosts.into_iter().filter(|host| before.names(host) && !after.names(host)) {
                problems.push(SpecProblem::PlaceInUse { group: name.clone(), host: host.clone() });
            }
        }
    }
}
