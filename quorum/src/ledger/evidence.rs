//! What was observed that proves a host, or one group on it, harmless (protocol §6).
//!
//! The ledger has its own words for evidence: the replicated format doesn't change when a device driver does.
//! Invariant: there is no way from "unknown" to evidence; an observation always says what was read back.
//! Two kinds never arrive as an observation, because nobody observes them: `self-fenced` follows from counted
//! `Expired` entries, and `attested` from an operator's override.
//!
//! Not here: deciding whether evidence is accepted (`prove`) and what it covers (`cover`).

use crate::id::{BootId, DeviceName, Era, GroupName, HardwareId, HostEpoch, HostName, KeeperInstance, LogIndex};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// A host from one admission to its end: what leases, evidence and commands are bound to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Incarnation {
    /// The machine.
    pub host: HostName,
    /// Which of its admissions.
    pub he: HostEpoch,
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.host, self.he)
    }
}

/// How much a host's lease proves (protocol §3), attested at admission and shown before the disaster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Class {
    /// Hardware watchdog, fire-tested: the lease is evidence.
    A,
    /// Software or BMC watchdog: the lease is evidence if the cluster's policy says so.
    B,
    /// The agent is inside a VM or container, or beside an ESX host: its lease is never evidence, and what it says
    /// about itself counts for a grant to itself only.
    C,
    /// No watchdog: its lease is never evidence, its keeper's word and its reboot are.
    D,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::B => "B",
            Self::C => "C",
            Self::D => "D",
        })
    }
}

/// A kind of evidence, as named in a group's `accept` list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EvidenceKind {
    /// The power state was read back "off" twice. Covers the host.
    PoweredOff,
    /// A majority of voters waited out the lease of a host with a watchdog. Covers the host.
    SelfFenced,
    /// The keeper attested that the groups it lists are gone. Covers those.
    Released,
    /// The same machine answers from another boot and nothing is left. Covers the host.
    Returned,
    /// An operator vouched. Covers the incarnations named.
    Attested,
    /// The hypervisor of record says the group's VM is off. Covers that group.
    HypervisorOff,
    /// The host can no longer write to any volume of the groups, and clients can't reach it. Covers those groups.
    StorageExcluded,
}

impl EvidenceKind {
    /// Every kind, in the order in which `accept` lists are shown.
    pub const ALL: [Self; 7] = [
        Self::PoweredOff,
        Self::SelfFenced,
        Self::Released,
        Self::Returned,
        Self::Attested,
        Self::HypervisorOff,
        Self::StorageExcluded,
    ];

    /// As written in the cluster spec and shown to people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PoweredOff => "powered-off",
            Self::SelfFenced => "self-fenced",
            Self::Released => "released",
            Self::Returned => "returned",
            Self::Attested => "attested",
            Self::HypervisorOff => "hypervisor-off",
            Self::StorageExcluded => "storage-excluded",
        }
    }

    /// The kind with this name, if any.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// Released and returned are accepted whatever a group's `accept` list says, as is what an operator vouched for:
    /// the list chooses among proofs from outside, these are the host's own account or a person's decision.
    pub const fn is_always_accepted(self) -> bool {
        match self {
            Self::Released | Self::Returned | Self::Attested => true,
            Self::PoweredOff | Self::SelfFenced | Self::HypervisorOff | Self::StorageExcluded => false,
        }
    }
}

impl fmt::Display for EvidenceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What was seen about an incarnation, proposed as evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Whom it is about.
    pub of: Incarnation,
    /// What was seen.
    pub observed: Observation,
    /// Whose eyes: the executor, or the host that had the answer.
    pub observer: HostName,
    /// Whether a device of the lab (a chassis process, not hardware) was involved. Only a lab cluster accepts it.
    pub lab: bool,
}

/// An observation with everything that `apply` checks about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Observation {
    /// Power read back from every device of one fencing level of the host.
    PoweredOff {
        /// One reading for each device of the level; two feeds of a machine are two devices of one level.
        readings: Vec<PowerReading>,
    },
    /// The keeper's attestation (protocol §2), forwarded by the agent.
    Released {
        /// The boot in which the keeper attests.
        boot: BootId,
        /// The keeper that attests. Another one than admitted only if the host epoch is already lost or retired.
        instance: KeeperInstance,
        /// The groups that it verified to be gone. It proves nothing about others.
        groups: Vec<GroupName>,
        /// The era in which the attestation was made.
        era: Era,
        /// The host epoch of the record that the keeper latched as retired. Another one than `of.he` only for what
        /// an older era left behind.
        named: HostEpoch,
    },
    /// The machine answered from another boot.
    Returned {
        /// The boot it answers from.
        boot: BootId,
        /// The machine that answers.
        hardware: HardwareId,
        /// The applied index of the proposer when it drew the nonce that the answer carries.
        drawn_at: LogIndex,
        /// Whatever of a protected group was found present (process, role, address). Must be none.
        remnants: Vec<GroupName>,
        /// The highest host epoch for which a keeper was armed in the answering boot; none if never.
        armed: Option<HostEpoch>,
    },
    /// What the hypervisor of record says about a group's VM.
    HypervisorOff {
        /// The group whose VM it is.
        group: GroupName,
        /// How the state was established.
        reading: HypervisorReading,
    },
    /// The host was excluded from volumes.
    StorageExcluded {
        /// Backend identities of the volumes from which it is excluded.
        volumes: Vec<String>,
        /// How, and how it was checked.
        exclusion: Exclusion,
        /// Why clients can't reach the old instance any more. Without it the exclusion is never enough.
        isolation: Option<Isolation>,
    },
}

impl Observation {
    /// The kind of evidence that it is.
    pub const fn kind(&self) -> EvidenceKind {
        match self {
            Self::PoweredOff { .. } => EvidenceKind::PoweredOff,
            Self::Released { .. } => EvidenceKind::Released,
            Self::Returned { .. } => EvidenceKind::Returned,
            Self::HypervisorOff { .. } => EvidenceKind::HypervisorOff,
            Self::StorageExcluded { .. } => EvidenceKind::StorageExcluded,
        }
    }
}

/// One device's word on a host's power.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerReading {
    /// The device that was read.
    pub device: DeviceName,
    /// How often it said "off", without "on" in between. Must be at least twice.
    pub reads: u32,
    /// The time between the first and the last of these reads, on the executor's clock, rounded down.
    pub apart: Duration,
    /// Whether the identity that the device reported (serial, UUID) is the target's.
    pub identity_matches: bool,
}

/// What the hypervisor of record said, and what was done so that it stays true (protocol §6).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HypervisorReading {
    /// Which hypervisor or management server answered.
    pub source: String,
    /// How often "off" was read. Must be at least twice.
    pub reads: u32,
    /// The agent VM is off, or its API account is disabled and its sessions have ended; true where the hypervisor
    /// itself is the executor.
    pub agent_contained: bool,
    /// Power-on tasks that were still pending when last read. Must be zero.
    pub pending_starts: u32,
    /// The VM is unregistered, or its disks are detached.
    pub detached: bool,
    /// HA restart and autostart of the VM are off.
    pub automatic_start_off: bool,
}

/// How a host was cut off from volumes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exclusion {
    /// SCSI-3 PREEMPT AND ABORT.
    PreemptAndAbort {
        /// It was issued on every path and logical unit.
        every_path: bool,
        /// The keys were read afterwards, and the host's is gone.
        keys_read_back: bool,
    },
    /// SCSI-3 PREEMPT without abort: counts only after what was in flight has timed out.
    Preempt {
        /// It was issued on every path and logical unit.
        every_path: bool,
        /// The keys were read afterwards, and the host's is gone.
        keys_read_back: bool,
        /// The time waited since, rounded down.
        drained: Duration,
        /// The initiator's I/O timeout, rounded up.
        io_timeout: Duration,
    },
    /// The array's mapping to the host was removed and read back.
    MappingRemoved {
        /// The mapping was read afterwards and is gone.
        read_back: bool,
    },
    /// The replica took the writing role.
    ReplicaRoleTaken {
        /// The old source was seen to refuse writes.
        source_write_blocked: bool,
    },
}

/// Why the old instance can't serve clients any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Isolation {
    /// The host's client network was cut off at a switch or by the overlay, and read back.
    Network {
        /// The device that did it.
        device: DeviceName,
    },
    /// The service's addresses move under a check of the epoch: an older one is refused.
    EpochCheckedAddresses,
}

/// What a piece of accepted evidence reaches to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// Everything on the host.
    Host,
    /// These groups on the host, and no others.
    Groups(std::collections::BTreeSet<GroupName>),
}

/// Evidence that `apply` accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedEvidence {
    /// Its kind.
    pub kind: EvidenceKind,
    /// What it reaches to.
    pub scope: Scope,
    /// The entry by which it was accepted.
    pub index: LogIndex,
    /// Who saw it; none for what was counted (self-fenced).
    pub observer: Option<HostName>,
    /// Whether a device of the lab was involved.
    pub lab: bool,
    /// Whether it is enough by itself: false for a storage exclusion without isolation.
    pub is_sufficient: bool,
    /// For attested evidence: whether the operator chose not to wait for the lease (`--now`).
    pub at_once: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_name_that_leads_back_to_it() {
        for kind in EvidenceKind::ALL {
            assert_eq!(EvidenceKind::parse(kind.as_str()), Some(kind));
        }
        assert_eq!(EvidenceKind::parse("unknown"), None);
    }
}
