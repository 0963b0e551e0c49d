//! What the status document consists of.
//!
//! Field names are the JSON interface (issue: kept at least; additive). States are words that a person can read.
//! Not here: what they are filled with (`lines`, `plans`, `attention`).

use serde::Serialize;

/// Version of every JSON output.
pub const API_VERSION: u32 = 1;

/// `status -o json`.
#[derive(Clone, Debug, Serialize)]
pub struct StatusDocument {
    /// Version of this document.
    pub api_version: u32,
    /// The cluster's name; empty before it exists.
    pub cluster: String,
    /// It is a lab.
    pub lab: bool,
    /// Log index that this agent has applied.
    pub index: u64,
    /// Which host says so.
    pub seen_by: String,
    /// Age of what is shown: time since this agent last heard a leader, in milliseconds.
    pub as_of_ms: u64,
    /// Revision of the spec in force.
    pub spec_revision: u64,
    /// Versions, while releases are mixed.
    pub version: VersionLine,
    /// Freezes in force.
    pub freeze: Vec<FreezeLine>,
    /// The quorum.
    pub quorum: QuorumLine,
    /// Sites.
    pub sites: Vec<SiteLine>,
    /// Hosts.
    pub hosts: Vec<HostLine>,
    /// Groups.
    pub groups: Vec<GroupLine>,
    /// Open plans.
    pub plans: Vec<PlanLine>,
    /// What a person should look at.
    pub attention: Vec<AttentionLine>,
}

/// Which version of entries and messages is in force.
#[derive(Clone, Debug, Serialize)]
pub struct VersionLine {
    /// The cluster's.
    pub cluster: u32,
    /// The highest that this agent understands.
    pub here: u32,
    /// Voters and admitted hosts that hold the cluster back: others understand more.
    pub behind: Vec<String>,
}

/// A freeze in force.
#[derive(Clone, Debug, Serialize)]
pub struct FreezeLine {
    /// Its identity: the log index at which it began.
    pub index: u64,
    /// What is frozen.
    pub scope: String,
    /// For how long, from its beginning.
    pub span_ms: u64,
    /// Why.
    pub reason: String,
}

/// The quorum.
#[derive(Clone, Debug, Serialize)]
pub struct QuorumLine {
    /// Voters in force.
    pub voters: usize,
    /// Voters heard now, this one included if it votes.
    pub reachable: usize,
    /// How many more may be lost.
    pub can_lose: usize,
    /// The leader's host.
    pub leader: Option<String>,
    /// The voters in force.
    pub members: Vec<VoterLine>,
}

/// A voter.
#[derive(Clone, Debug, Serialize)]
pub struct VoterLine {
    /// Its identity in Raft.
    pub id: u64,
    /// Its host.
    pub host: String,
    /// It is heard here now.
    pub reachable: bool,
}

/// A site.
#[derive(Clone, Debug, Serialize)]
pub struct SiteLine {
    /// Its name.
    pub name: String,
    /// healthy, suspect, partial, lost or unknown.
    pub state: &'static str,
    /// It never runs workloads.
    pub witness: bool,
}

/// A host.
#[derive(Clone, Debug, Serialize)]
pub struct HostLine {
    /// Its name.
    pub name: String,
    /// Its site.
    pub site: String,
    /// A, B, C or D; empty if it was never admitted.
    pub class: String,
    /// admitted, suspect, lost, retired or unknown.
    pub state: &'static str,
    /// Its current or last host epoch.
    pub host_epoch: Option<String>,
    /// Time since this voter last granted it a lease.
    pub last_grant_age_ms: Option<u64>,
    /// What is left of the lease; this host's own only.
    pub lease_left_ms: Option<u32>,
}

/// A group.
#[derive(Clone, Debug, Serialize)]
pub struct GroupLine {
    /// Its name.
    pub name: String,
    /// auto, approve, manual or restore.
    pub tier: &'static str,
    /// unborn, granted, running, stopped, failing-over, held or moving.
    pub state: &'static str,
    /// The owner.
    pub host: Option<String>,
    /// The owner's site.
    pub site: Option<String>,
    /// vm or physical.
    pub shape: Option<&'static str>,
    /// The ticket's epoch.
    pub epoch: Option<String>,
    /// Its data.
    pub data: DataLine,
    /// Where it would go.
    pub would_go_to: Option<String>,
    /// The four gates.
    pub gates: GatesLine,
    /// Whether the cluster can fail it over by itself.
    pub automatic_failover: PossibleLine,
    /// It is tied to a host.
    pub pin: Option<PinLine>,
}

/// A group's tie to a host.
#[derive(Clone, Debug, Serialize)]
pub struct PinLine {
    /// To which host.
    pub host: String,
    /// To which admission of it.
    pub host_epoch: String,
    /// The host's keeper has said that it spares the group.
    pub acknowledged: bool,
    /// Its processes are out of the lease's reach; only that host itself knows.
    pub in_force: Option<bool>,
    /// Why it was pinned.
    pub reason: String,
}

/// A group's data.
#[derive(Clone, Debug, Serialize)]
pub struct DataLine {
    /// Hosts whose copies have everything.
    pub in_sync: Vec<String>,
    /// The generation.
    pub generation: u64,
    /// How far the furthest copy is behind; 0 when in sync, null when nobody knows.
    pub lag_ms: Option<u64>,
    /// Time since that was attested.
    pub attested_ms_ago: Option<u64>,
    /// The most that a takeover by the best other copy would lose now; null when nobody can say.
    pub expected_loss_ms: Option<u64>,
}

/// One gate.
#[derive(Clone, Debug, Serialize)]
pub struct GateLine {
    /// open, waiting or closed.
    pub state: &'static str,
    /// Why.
    pub because: String,
}

/// The four gates.
#[derive(Clone, Debug, Serialize)]
pub struct GatesLine {
    /// Is it heard?
    pub detect: GateLine,
    /// Is its host declared lost?
    pub declare: GateLine,
    /// Is every possible owner proven harmless?
    pub fence: GateLine,
    /// May it be activated?
    pub activate: GateLine,
}

/// Whether something is possible.
#[derive(Clone, Debug, Serialize)]
pub struct PossibleLine {
    /// Whether.
    pub possible: bool,
    /// Why not, or on what it rests.
    pub because: String,
}

/// An open plan.
#[derive(Clone, Debug, Serialize)]
pub struct PlanLine {
    /// Its identity.
    pub id: u64,
    /// What for.
    pub kind: &'static str,
    /// Which group.
    pub group: String,
    /// waiting, running or failed.
    pub state: &'static str,
    /// The current step.
    pub step: String,
    /// How long its attempt may take.
    pub deadline_ms: u64,
    /// The person's next command, if it waits for one.
    pub next: String,
}

/// What a person should look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AttentionLine {
    /// A stable word.
    pub code: &'static str,
    /// What happened and what it means.
    pub text: String,
    /// The next command.
    pub next: String,
}
