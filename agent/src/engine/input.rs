//! Everything that can happen to an agent.

use super::effect::WorkId;
use super::fence::Prospect;
use super::message::Message;
use super::operator::Request;
use crate::detector::Reading;
use crate::heartbeat::{Datagram, KeeperState};
use quorum::id::{BootId, Epoch, Generation, GroupName, HardwareId, HostEpoch, HostName, KeeperInstance, VoterId};
use quorum::ledger::{Class, CopyCheck, Ledger, Person, WatchdogAttestation};
use quorum::moment::Moment;
use quorum::replica::Replica;
use quorum::storage::{Persisted, Seen};
use std::collections::BTreeMap;
use std::time::Duration;

/// What the driver hands in. The order of inputs of one kind is the order in which they happened.
#[derive(Debug)]
pub enum Input {
    /// A deadline passed, or nothing: look at the clock.
    Wake,
    /// A datagram arrived.
    Datagram {
        /// From whom, by its certificate.
        from: HostName,
        /// On which path.
        path: u8,
        /// What.
        datagram: Box<Datagram>,
        /// When the kernel received it.
        received: Moment,
    },
    /// A message arrived on the stream connection.
    Message {
        /// From whom, by its certificate.
        from: HostName,
        /// What.
        message: Box<Message>,
    },
    /// The stream connection to a peer came up or went away.
    Link {
        /// Whom.
        peer: HostName,
        /// Whether it is up.
        up: bool,
    },
    /// A write reached the disk.
    Persisted(Box<Persisted>),
    /// The store that `Join` asked for is founded and loaded.
    Joined(Box<Vote>),
    /// The machine under this voter was rolled back to an earlier state, or copied.
    RolledBack {
        /// What showed it.
        because: String,
    },
    /// The keeper's page changed.
    Keeper(KeeperPage),
    /// A piece of work ended.
    Work {
        /// Which.
        id: WorkId,
        /// How.
        report: Report,
    },
    /// A driver saw something about a group without being asked.
    Seen {
        /// The group.
        group: GroupName,
        /// What.
        sight: Sight,
    },
    /// What comes of a fence task that this agent executes.
    Fenced {
        /// The task.
        task: quorum::id::TaskId,
        /// What came of it.
        fenced: Fenced,
    },
    /// What this agent's fence devices could prove, by their scheduled readings.
    Prospects(Vec<Prospect>),
    /// A person asks for something.
    Operator {
        /// Comes back with the answer.
        ticket: u64,
        /// Who.
        by: Person,
        /// What.
        request: Box<Request>,
    },
    /// The machine under the agent was measured.
    Health(Reading),
}

/// A voter as its store holds it.
#[derive(Debug)]
pub struct Vote {
    /// Loaded from the store.
    pub replica: Replica,
    /// What was applied up to the store's snapshot.
    pub ledger: Ledger,
    /// What the disk had when it was loaded.
    pub seen: Seen,
    /// It was founded just now, with the cluster.
    pub is_new: bool,
    /// What is remembered of other voters.
    pub remembered: BTreeMap<VoterId, Seen>,
}

/// What the keeper's page says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeeperPage {
    /// The keeper process.
    pub instance: KeeperInstance,
    /// Where it stands.
    pub state: KeeperState,
    /// The host epoch of the record that it follows or has retired, if any.
    pub host_epoch: Option<HostEpoch>,
    /// The sequence number of the armed set that it last took over.
    pub echoed: u64,
    /// The sequence number of the last record that any agent process wrote.
    pub written: u64,
    /// What it attests, once everything protected is verified gone.
    pub attested: Option<Attestation>,
    /// What its device allows.
    pub watchdog: Option<WatchdogAttestation>,
    /// The strongest class that follows from that.
    pub class: Class,
    /// The device is a lab chassis.
    pub lab: bool,
    /// Why it is where it is, for people.
    pub because: String,
}

/// The keeper's word that groups are gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attestation {
    /// In which boot.
    pub boot: BootId,
    /// For which host epoch.
    pub host_epoch: HostEpoch,
    /// Which groups are verified gone.
    pub groups: Vec<GroupName>,
}

/// What the agent knows of its own machine when it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The kernel's boot id.
    pub boot: BootId,
    /// The machine.
    pub hardware: HardwareId,
}

/// How a piece of work ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// What was found of the group here.
    Found(Found),
    /// Done, as the driver itself saw it.
    Done {
        /// For people.
        detail: String,
    },
    /// A graceful stop ended.
    Stopped {
        /// The mirror was seen to have every answered write.
        is_drained: bool,
        /// Nothing was ever opened for writing under this epoch.
        untouched: bool,
    },
    /// The standby's copy follows.
    Mirrored {
        /// What bringing it up to date took, if it wasn't up to date already.
        resync: Option<Resync>,
    },
    /// Not done. What state is left is in the text; it may be tried again.
    Failed {
        /// Why.
        because: String,
    },
}

/// What bringing a copy up to date took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resync {
    /// Bytes compared at both ends.
    pub compared_bytes: u64,
    /// Of these, bytes that differed.
    pub differing_bytes: u64,
    /// Bytes sent in all.
    pub copied_bytes: u64,
    /// Bytes of the old side that were kept first.
    pub kept_bytes: u64,
    /// How long the workload stood still for the last of it.
    pub pause: Duration,
}

/// What is present of a group on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The workload.
    pub workload: Presence,
    /// This host's copy of the data; `None` if the group has no volumes here.
    pub copy: Option<CopyFound>,
    /// Something is in the group's pinned cgroup.
    pub is_tied: bool,
}

/// Whether something of a workload is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Nothing.
    Absent,
    /// It runs under this epoch.
    Running(Epoch),
    /// Something is here that can't be told to be gone.
    Remnant,
}

/// What a copy says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyFound {
    /// Generation recorded beside it.
    pub generation: Generation,
    /// What the driver's own check says beyond the generation: another lineage shows here.
    pub check: Option<CopyCheck>,
}

/// What drivers tell without being asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    /// The workload's process ended.
    Exited {
        /// For people.
        because: String,
    },
    /// The mirror lost its peer; in synchronous mode writes wait now.
    MirrorAway {
        /// For how long.
        since: Duration,
    },
    /// The mirror ended by itself: whatever the mode, no write waits for the standby now.
    MirrorEnded {
        /// For people.
        because: String,
    },
    /// How far the standby is behind.
    Lag {
        /// Age of the oldest write that it doesn't have; none while that was never seen.
        behind: Option<Duration>,
        /// How many bytes.
        bytes: u64,
    },
    /// This host's copy had data that nobody else has; it was kept before it was overwritten.
    Kept {
        /// The kept set.
        id: String,
        /// How many bytes.
        bytes: u64,
    },
}

/// What came of fencing one host: a verdict, and later the end of all calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fenced {
    /// Devices proved it. Calls may still be ending.
    Proven(Box<fencing::Evidence>),
    /// Nothing was proven: the state is unknown. Calls may still be ending.
    Unproven {
        /// Device by device.
        because: String,
    },
    /// Nothing of the task can reach a device any more.
    Finished,
}
