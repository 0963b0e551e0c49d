//! The datagrams of the beat connection and their size limits.
//!
//! Every collection has a fixed upper bound, so that a beat fits one datagram whatever the size of the cluster:
//! what doesn't fit rides on the next beat.

use quorum::codec::{self, DecodeError, EncodeError};
use quorum::id::{
    AgentInstance, BootId, Era, GroupName, HardwareId, HostEpoch, HostName, KeeperInstance, LogIndex, SiteName, Term,
};
use quorum::lease::{self, LeaseRequest};
use quorum::ledger::{Class, WatchdogAttestation};
use serde::{Deserialize, Serialize};

/// Largest datagram on the beat connection in bytes: below the smallest path MTU that QUIC allows (1,200) less
/// QUIC's own headers and tag.
pub const DATAGRAM_BYTES_MAX: usize = 1_100;
/// Version byte in front of every datagram.
const VERSION: u8 = 1;
/// Most hosts and sites named in one beat's suspicions, each.
pub const SUSPECTS_MAX: usize = 8;
/// Most echoes in one beat: a host listens to voters only, and there are at most seven.
const ECHOES_MAX: usize = 8;

/// Why bytes are no datagram. Nothing of them was used.
#[derive(Debug, thiserror::Error)]
pub enum BadDatagram {
    /// Not an envelope of this version.
    #[error("decode a datagram")]
    Decode(#[from] DecodeError),
    /// A collection is longer than any sender makes it.
    #[error("accept a beat whose lists are longer than any sender makes them")]
    Bounds,
}

/// What the beat connection carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Datagram {
    /// A beat, with or without a lease request.
    Beat(Box<Beat>),
    /// A voter's answer to a lease request.
    Lease(lease::Answer),
}

/// One beat. All ages are the sender's own measure in milliseconds, never a moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// The sender's era; a beat of a lower era is refused.
    pub era: Era,
    /// Counts the beats of this agent instance to this host on this path, from 1.
    pub seq: u64,
    /// Who the sender is in this life.
    pub hello: Hello,
    /// What the sender last heard from each voter: shows one-way loss.
    pub echoes: Vec<Echo>,
    /// A renewal, every R.
    pub lease: Option<LeaseRequest>,
    /// How long the sender's lease still runs by its own count; zero without one.
    pub lease_left_ms: u32,
    /// 0 healthy … 8 very sick, see `detector::health`.
    pub sickness: u8,
    /// What this voter suspects; empty from others.
    pub suspicions: Suspicions,
    /// How far the sender applied the log.
    pub applied: LogIndex,
    /// Raft's term as the sender knows it, and who leads it.
    pub term: Term,
    /// The leader the sender follows, if it knows one.
    pub leader: Option<HostName>,
    /// How far behind the standby of one of the sender's groups is; the groups take turns.
    pub lag: Option<GroupLag>,
    /// Filler of every sixteenth beat, so that a path that only passes small packets is found out.
    pub padding: Vec<u8>,
}

/// Who an agent is in this life: what an admission binds a host epoch to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The kernel's boot id.
    pub boot: BootId,
    /// The agent process.
    pub agent: AgentInstance,
    /// The keeper process, if there is one.
    pub keeper: Option<KeeperInstance>,
    /// The machine.
    pub hardware: HardwareId,
    /// The strongest class that the keeper's device allows.
    pub class: Class,
    /// The watchdog is a lab chassis.
    pub lab: bool,
    /// The host epoch under which the sender acts, if any.
    pub host_epoch: Option<HostEpoch>,
    /// Where the keeper stands.
    pub keeper_state: KeeperState,
    /// What was seen of its watchdog, if it has one.
    pub watchdog: Option<WatchdogAttestation>,
}

/// Where the sender's keeper stands with the host epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeeperState {
    /// No keeper, or none that this agent can read.
    Absent,
    /// Running, no host epoch armed.
    Idle,
    /// Petting under the lease of the host epoch.
    Armed,
    /// The host epoch is retired; the protected slice is being emptied.
    Clearing,
    /// The host epoch is retired and everything protected is verified gone.
    Clear,
}

/// What the sender last heard from a voter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Echo {
    /// The voter.
    pub voter: HostName,
    /// Its last sequence number heard on any path.
    pub seq: u64,
    /// How long ago.
    pub age_ms: u32,
}

/// What a voter suspects, as far as it fits; sites first, since a suspect site stands for all its hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspicions {
    /// The voter doesn't trust its own ears now: count it neither for nor against.
    pub abstains: bool,
    /// Sites of which every host is silent here.
    pub sites: Vec<SiteName>,
    /// Silent hosts of other sites.
    pub hosts: Vec<HostName>,
}

/// A group's replication lag as its running side sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupLag {
    /// The group.
    pub group: GroupName,
    /// Age of the oldest write that the standby doesn't have; zero if it has all.
    pub lag_ms: u32,
    /// Bytes that the standby doesn't have.
    pub lag_bytes: u64,
}

/// Encodes a datagram.
///
/// # Errors
/// [`EncodeError`] if it outgrew [`DATAGRAM_BYTES_MAX`]; nothing is sent then.
pub fn encode(datagram: &Datagram) -> Result<Vec<u8>, EncodeError> {
    codec::encode(VERSION, datagram, DATAGRAM_BYTES_MAX)
}

/// Decodes and bounds-checks a datagram from the network.
///
/// # Errors
/// [`BadDatagram`] for anything malformed, oversized or of another version; the caller counts and drops it.
pub fn decode(bytes: &[u8]) -> Result<Datagram, BadDatagram> {
    let datagram: Datagram = codec::decode(VERSION, bytes, DATAGRAM_BYTES_MAX)?;
    if let Datagram::Beat(beat) = &datagram {
        let fits = beat.echoes.len() <= ECHOES_MAX
            && beat.suspicions.sites.len() <= SUSPECTS_MAX
            && beat.suspicions.hosts.len() <= SUSPECTS_MAX;
        if !fits {
            return Err(BadDatagram::Bounds);
        }
    }
    Ok(datagram)
}
