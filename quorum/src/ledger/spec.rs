//! The part of the cluster spec that `apply` needs to check its rules.
//!
//! Contract: this is the *checked* form; the text that people wrote is kept beside it ([`SpecRevision::source`]).
//! The configuration reader makes it, `apply` validates it again as a whole (`names`), because nothing that only
//! one machine checked is safe.
//!
//! Not here: parsing, defaults, driver parameters, secrets.

use super::evidence::EvidenceKind;
use crate::id::{DeviceName, GroupName, HardwareId, HostName, LogIndex, SiteName};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Sites, hosts, devices, groups and policies of one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerSpec {
    /// Failure domains.
    pub sites: BTreeMap<SiteName, SiteSpec>,
    /// Machines.
    pub hosts: BTreeMap<HostName, HostSpec>,
    /// Fencing devices.
    pub devices: BTreeMap<DeviceName, DeviceSpec>,
    /// Protection groups.
    pub groups: BTreeMap<GroupName, GroupSpec>,
    /// What holds for the whole cluster.
    pub policy: ClusterPolicy,
}

/// A failure domain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteSpec {
    /// It never runs workloads.
    pub witness: bool,
}

/// A machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostSpec {
    /// Where it stands.
    pub site: SiteName,
    /// The machine's identity, if the operator wrote it down; an admission of another machine is refused.
    pub hardware: Option<HardwareId>,
    /// Fencing levels in order; every device of a level must succeed. Two power feeds are two devices of one level.
    pub fencing: Vec<Vec<DeviceName>>,
}

/// A fencing device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceSpec {
    /// The driver (`redfish`, `ipmi`, `fence_agent`, `command`, …).
    pub kind: String,
    /// How far apart two reads of "off" must be. At least 1 s for BMCs and PDUs; a kind may say its own.
    pub settle: Duration,
    /// Longest time that one call may take before its child is killed.
    pub deadline: Duration,
    /// It is a process of the lab, not a device. Only a lab cluster accepts its evidence.
    pub lab: bool,
}

/// How much a machine may decide by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Tier {
    /// Moves by itself.
    Auto,
    /// Moves after one person said go.
    Approve,
    /// Moves when a person asks for it.
    Manual,
    /// Comes back from a backup when a person asks for it.
    Restore,
}

/// What shape a group has at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Shape {
    /// A virtual machine.
    Vm,
    /// A physical machine.
    Physical,
}

/// A protection group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupSpec {
    /// Who decides about a failover.
    pub tier: Tier,
    /// Groups start in rising order.
    pub order: i32,
    /// Groups that must run before.
    pub after: Vec<GroupName>,
    /// Kinds of evidence accepted for this group; released, returned and attested always are.
    pub accept: BTreeSet<EvidenceKind>,
    /// Largest loss of data, in time, at which the group may be activated without a person.
    pub target_rpo: Duration,
    /// Longest interruption aimed at.
    pub target_rto: Duration,
    /// How long after the loss of its host an automatic activation waits.
    pub hold_off: Duration,
    /// Where it can run and in which shape.
    pub places: BTreeMap<SiteName, PlaceSpec>,
    /// Its data.
    pub volumes: Vec<VolumeSpec>,
    /// Whether and when it goes home.
    pub failback: FailbackPolicy,
    /// The place where it belongs.
    pub home: SiteName,
}

/// Where a group can run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceSpec {
    /// As what.
    pub shape: Shape,
    /// On which machines, preferred first.
    pub hosts: Vec<HostName>,
    /// The machines of this place see the same copy of the data.
    pub shared_storage: bool,
}

/// A volume of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSpec {
    /// Its name within the group.
    pub name: String,
    /// The identity of what is behind it (WWN, resource, export): belongs to one group only.
    pub backend: String,
    /// How its data gets to the other places.
    pub replication: Replication,
    /// Whether writers of this volume are kept apart by SCSI-3 persistent reservations.
    pub persistent_reservations: bool,
    /// Whether it is opened by more than one machine (a LUN, an image on shared storage).
    pub shared: bool,
}

/// How a volume's data gets to the other places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Replication {
    /// There is one copy for all places.
    None,
    /// A write is answered when the other copy has it.
    Synchronous {
        /// Writes wait, when the mirror is away, until `Detached` is committed. Without it zero loss isn't honest.
        gated: bool,
    },
    /// A write is answered before the other copy has it.
    Asynchronous {
        /// How far behind the copy usually is.
        usual_lag: Duration,
        /// The source stops answering writes when the copy falls behind the target.
        gated: bool,
    },
}

/// Whether and when a group goes home after a failover.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailbackPolicy {
    /// Without a person.
    pub automatic: bool,
    /// How long home must have been stable.
    pub stable_for: Duration,
}

/// How eagerly a loss is declared (protocol §5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Declare {
    /// Eagerly where a positive fence path is ready, else lazily.
    #[default]
    Measured,
    /// As soon as it is detected.
    Eager,
    /// As late as the lease wait allows.
    Lazy,
}

/// What holds for the whole cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterPolicy {
    /// The lease of a class B host is evidence.
    pub trust_software_watchdog: bool,
    /// How many people an override or an acceptance of a loss needs: 1 or 2.
    pub approvals: u32,
    /// Contrary evidence younger than this refuses an override.
    pub contrary_fresh: Duration,
    /// How eagerly a loss is declared.
    pub declare: Declare,
    /// Two sites lost within this time set the brake.
    pub brake_window: Duration,
    /// More than this share of the hosts of sites that aren't lost, lost within the window, sets the brake.
    pub brake_percent: u32,
    /// But never fewer hosts than this.
    pub brake_hosts_min: u32,
}

impl Default for ClusterPolicy {
    fn default() -> Self {
        Self {
            trust_software_watchdog: false,
            approvals: 1,
            contrary_fresh: Duration::from_secs(60),
            declare: Declare::Measured,
            brake_window: Duration::from_secs(60),
            brake_percent: 40,
            brake_hosts_min: 3,
        }
    }
}

/// A committed revision of the spec.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecRevision {
    /// Counts the revisions; 0 is "none yet".
    pub revision: u64,
    /// Its checked form.
    pub spec: LedgerSpec,
    /// What people wrote.
    pub source: String,
    /// Who committed it; none before the first.
    pub by: Option<super::person::Person>,
    /// The entry that set it.
    pub at: LogIndex,
}

impl GroupSpec {
    /// Every machine of every place.
    pub fn hosts(&self) -> impl Iterator<Item = &HostName> {
        self.places.values().flat_map(|place| place.hosts.iter())
    }

    /// Whether `host` is one of its places' machines.
    pub fn names(&self, host: &HostName) -> bool {
        self.hosts().any(|named| named == host)
    }

    /// Whether no write is answered that a copy of the in-sync set doesn't have, unless `Detached` was committed.
    pub fn writes_wait_for_mirror(&self) -> bool {
        self.volumes.iter().all(|volume| match volume.replication {
            Replication::None | Replication::Synchronous { gated: true } => true,
            Replication::Synchronous { gated: false } | Replication::Asynchronous { .. } => false,
        })
    }

    /// Whether both machines see the same copy of the data.
    pub fn is_same_copy(&self, one: &HostName, other: &HostName) -> bool {
        one == other
            || !self.volumes.is_empty() && self.volumes.iter().all(|volume| volume.replication == Replication::None)
            || self
                .places
                .values()
                .any(|place| place.shared_storage && place.hosts.contains(one) && place.hosts.contains(other))
    }
}

impl LedgerSpec {
    /// The site of a machine.
    pub fn site_of(&self, host: &HostName) -> Option<&SiteName> {
        self.hosts.get(host).map(|host| &host.site)
    }
}
