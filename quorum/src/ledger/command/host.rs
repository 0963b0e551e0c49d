//! Payloads of commands about the cluster and its hosts.

use super::super::evidence::{Class, Incarnation};
use super::super::person::Decision;
use super::super::spec::LedgerSpec;
use crate::id::{BootId, Era, HardwareId, KeeperInstance, LogIndex, SiteName, VoterId};
use crate::timing::Timing;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Creates the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bootstrap {
    /// Its name; part of every storage key.
    pub cluster: SiteName,
    /// A lab: evidence from a chassis process counts, and nothing else about it is to be trusted.
    pub lab: bool,
    /// The time spans.
    pub timing: Timing,
    /// Who and why.
    pub by: Decision,
}

/// Replaces the cluster spec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetSpec {
    /// The revision that it becomes: one more than the one in force, so that nobody overwrites what they didn't see.
    pub revision: u64,
    /// Its checked form.
    pub spec: LedgerSpec,
    /// What people wrote, in full.
    pub source: String,
    /// Who and why.
    pub by: Decision,
}

/// Admits a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostAdmitted {
    /// The host and its next host epoch.
    pub of: Incarnation,
    /// The boot that is admitted.
    pub boot: BootId,
    /// The keeper that is admitted.
    pub instance: KeeperInstance,
    /// What its lease proves.
    pub class: Class,
    /// The watchdog behind classes A and B.
    pub watchdog: Option<WatchdogAttestation>,
    /// Which machine it is.
    pub hardware: HardwareId,
    /// Its watchdog or power is a process of the lab.
    pub lab: bool,
}

/// What was seen of a watchdog when the host was commissioned and at its last boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchdogAttestation {
    /// Which driver.
    pub driver: String,
    /// The worst fire time measured, times 1.1. Not above W of the cluster's timing.
    pub worst: Duration,
    /// How many fire tests stand behind that.
    pub fire_tests: u32,
    /// nowayout, stop_on_reboot=0, masked sleep states and GETTIMEOUT were verified at this boot.
    pub conditions_hold: bool,
}

/// Declares hosts lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// Every host, one by one.
    pub hosts: Vec<Incarnation>,
    /// On what ground.
    pub cause: LostCause,
}

/// Why hosts are declared lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LostCause {
    /// The voters no longer hear them.
    Automatic {
        /// Whether a whole site went, or single hosts.
        scope: LostScope,
        /// What each voter says about *all* the hosts listed.
        reports: Vec<SuspectReport>,
        /// The time since the leader last applied an automatic loss, rounded down; zero if it doesn't know.
        since_previous: Duration,
        /// How long the leader has suspected them, corroborated.
        suspected_for: Duration,
    },
    /// A person says so, whatever freeze and brake say.
    Operator(Decision),
}

/// How much was declared at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LostScope {
    /// All hosts of a site.
    Site(SiteName),
    /// Single hosts of sites that otherwise live.
    Hosts,
}

/// What one voter says about all the hosts of a declaration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuspectReport {
    /// Who.
    pub voter: VoterId,
    /// Age of what it said when the leader proposed, rounded up.
    pub age: Duration,
    /// What it said.
    pub verdict: Verdict,
}

/// A voter's judgement of all the hosts of a declaration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Verdict {
    /// It is healthy itself and hears none of them.
    Suspects,
    /// It is healthy itself and hears at least one of them.
    Hears,
    /// It made progress, but isn't healthy enough to judge.
    Abstains,
}

/// Why a host epoch ends without a loss.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RetiredBecause {
    /// Its keeper attested that it latched the host epoch as retired.
    KeeperAttested {
        /// The boot in which it did.
        boot: BootId,
        /// The era in which it did.
        era: Era,
    },
    /// The machine answers from another boot or with another keeper.
    Answered {
        /// The boot that answers.
        boot: BootId,
        /// The keeper that answers.
        instance: KeeperInstance,
        /// The applied index of the proposer when it drew the nonce that the answer carries.
        drawn_at: LogIndex,
    },
}

/// What came of an executor's work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FenceOutcome {
    /// It has evidence, which is or will be an entry of its own.
    Proven,
    /// Every level failed; the state of the target is unknown.
    Failed {
        /// Why, device by device.
        because: String,
    },
    /// It saw the cancellation and stopped.
    Cancelled,
}
