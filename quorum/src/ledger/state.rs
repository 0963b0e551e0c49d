//! What the log adds up to.
//!
//! Contract: a function of the applied entries and configurations, and of nothing else; ordered maps only, so that two
//! replicas have equal bytes. It is snapshot-able as a whole: a snapshot forgets nothing that a later rule needs.
//! Fields are read by everyone and written by the verb files only.

use super::audit::AuditHead;
use super::command::{AcceptLoss, CopyCheck, FenceOutcome, FreezeScope, Override, PlaceScope, Position};
use super::evidence::{AcceptedEvidence, Class, Incarnation};
use super::person::{Decision, Permit};
use super::plan::PlanState;
use super::remembered::Remembered;
use super::spec::SpecRevision;
use crate::id::{
    BootId, Epoch, Era, Generation, GroupName, HardwareId, HostEpoch, HostName, IntentId, KeeperInstance, LogIndex,
    PlanId, SiteName, TaskId, Term, VoterId,
};
use crate::roster::{ConfigId, Membership};
use crate::timing::{LeaseTerms, Timing};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The replicated state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// The last applied entry.
    pub(super) position: Position,
    /// What `Bootstrap` said; none before.
    pub(super) cluster: Option<Cluster>,
    /// The era.
    pub(super) era: Era,
    /// The spec in force.
    pub(super) spec: SpecRevision,
    /// The configuration of voters in force.
    pub(super) config: ConfigId,
    /// Its members.
    pub(super) membership: Membership,
    /// Hosts that were ever admitted, or are named by what an older era left behind.
    pub(super) hosts: BTreeMap<HostName, HostState>,
    /// Groups that were created.
    pub(super) groups: BTreeMap<GroupName, GroupState>,
    /// Which groups name a host as possible owner: an index over `groups`, so that an admission is cheap.
    pub(super) on_host: BTreeMap<HostName, BTreeSet<GroupName>>,
    /// Fence tasks by which somebody may still act, and the last ones by which nobody can.
    pub(super) tasks: BTreeMap<TaskId, FenceTask>,
    /// Open plans and the last closed ones.
    pub(super) plans: BTreeMap<PlanId, PlanState>,
    /// Freezes in force, by the entry that began them.
    pub(super) freezes: BTreeMap<LogIndex, Freeze>,
    /// Maintenance in force.
    pub(super) maintenance: BTreeMap<PlaceScope, Restriction>,
    /// Holds in force.
    pub(super) holds: BTreeMap<PlaceScope, Restriction>,
    /// The brake, if it is set.
    pub(super) brake: Option<Brake>,
    /// Automatic losses within the brake's window.
    pub(super) recent_losses: Vec<RecentLoss>,
    /// Overrides that wait for a second person.
    pub(super) overrides: BTreeMap<LogIndex, PendingOverride>,
    /// Acceptances of losses of this term.
    pub(super) losses: BTreeMap<LogIndex, LossAcceptance>,
    /// Where names that were removed go on.
    pub(super) tombstones: Tombstones,
    /// The end of the audit chain.
    pub(super) audit: AuditHead,
    /// Proposals that took effect lately.
    pub(super) remembered: Remembered,
    /// The cluster version.
    pub(super) version: u32,
    /// What each member understands.
    pub(super) supports: BTreeMap<HostName, u32>,
    /// Hash over every entry, outcome and event so far: cheap to compare at each index.
    pub(super) chain: [u8; 32],
}

/// What was said at the cluster's creation, and its time spans.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Its name.
    pub name: SiteName,
    /// Whether it is a lab.
    pub lab: bool,
    /// The time spans in force.
    pub timing: Timing,
}

/// A host's admissions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostState {
    /// The last host epoch; the next admission gets the one after.
    pub he: HostEpoch,
    /// The current admission, and older ones that a possible owner still names.
    /// There is usually one, and a map keeps room for eleven: so each lies outside of it.
    pub incarnations: BTreeMap<HostEpoch, Box<IncarnationState>>,
}

/// One admission of a host and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncarnationState {
    /// The entry that admitted it, or that began the era which it stands for.
    pub admitted_at: LogIndex,
    /// The boot; none for what an older era left behind and nobody knows.
    pub boot: Option<BootId>,
    /// The keeper; none as above.
    pub instance: Option<KeeperInstance>,
    /// The machine; none as above.
    pub hardware: Option<HardwareId>,
    /// What its lease proves.
    pub class: Class,
    /// Whether its watchdog or power is a process of the lab.
    pub lab: bool,
    /// How it ended; none while it is admitted.
    pub ended: Option<Ended>,
    /// The largest L, ρ and δ_io in force since it was admitted.
    pub terms: LeaseTerms,
    /// Voters of the configuration in force whose waits were counted.
    pub expired: BTreeSet<VoterId>,
    /// The entry by which a majority had waited out the lease.
    pub lease_over: Option<LogIndex>,
    /// Evidence about it.
    pub evidence: Vec<AcceptedEvidence>,
}

/// How an admission ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Ended {
    /// Declared lost.
    Lost {
        /// By which entry.
        at: LogIndex,
        /// Whether a person did.
        by_person: bool,
        /// Whether it was retired before.
        was_retired: bool,
    },
    /// Over without a loss.
    Retired {
        /// By which entry.
        at: LogIndex,
    },
    /// Its era ended; it stands for every admission of older eras.
    EraOver {
        /// The entry that began the new era.
        at: LogIndex,
    },
}

/// A group's ticket, data and everything that may hold it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupState {
    /// The entry that created it.
    pub created_at: LogIndex,
    /// The machine that had its data at birth.
    pub source: HostName,
    /// The last epoch granted.
    pub epoch: Epoch,
    /// Who holds it; none before the first grant and after a new era.
    pub ticket: Option<Ticket>,
    /// The machine that held it last, for granting back in place; survives a new era.
    pub last_owner: Option<HostName>,
    /// Everyone who may run it: every host ever assigned since the last full proof.
    pub owners: BTreeMap<Incarnation, Owner>,
    /// Machines that said (or were vouched) to have had nothing of it when they became a place.
    pub absent: BTreeSet<HostName>,
    /// Every machine that any revision named as a place.
    pub places_ever: BTreeSet<HostName>,
    /// The data's generation.
    pub generation: Generation,
    /// Machines whose copy has everything. The owner's is always among them.
    pub in_sync: BTreeSet<HostName>,
    /// What is known of other copies.
    pub copies: BTreeMap<HostName, CopyState>,
    /// Copies that don't fit what the ledger knows.
    pub diverged: BTreeMap<HostName, CopyCheck>,
    /// The move under way, if any.
    pub intent: Option<OpenIntent>,
    /// What ties it to a host, if anything.
    pub pin: Option<PinState>,
    /// A person stopped it for good: only a person's grant brings it up again.
    pub is_parked: bool,
}

/// The right to run a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// Who has it.
    pub of: Incarnation,
    /// Its epoch: the fencing token.
    pub epoch: Epoch,
    /// The entry that granted it.
    pub granted_at: LogIndex,
    /// The generation that the owner's copy must have before it opens it.
    pub opens: Generation,
    /// Whether the owner took over what already ran there.
    pub adopt: bool,
    /// How far it is.
    pub state: TicketState,
}

/// How far an owner is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TicketState {
    /// It may start.
    Granted,
    /// It said that the workload is up.
    Running,
    /// It said that the workload is down; it needs a new grant.
    Stopped {
        /// By which entry.
        at: LogIndex,
    },
}

/// Why a host may run a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// On what ground it is counted.
    pub ground: Ground,
    /// The entry by which it said that it doesn't, and won't without a newer grant.
    pub stopped: Option<LogIndex>,
}

/// On what ground a host counts as a possible owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Ground {
    /// It is a place of a newborn group and didn't say yet that nothing of it runs there.
    Place,
    /// It was granted this epoch.
    Granted(Epoch),
    /// It is the target of this migration.
    Incoming(IntentId),
    /// It was a place in an older era.
    OlderEra,
}

/// What is known of a copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyState {
    /// The generation at which it was last attested.
    pub generation: Generation,
    /// How far it was behind then.
    pub lag: Duration,
    /// The entry that said so.
    pub attested_at: LogIndex,
}

/// A move under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenIntent {
    /// Its identity.
    pub id: IntentId,
    /// Whether it is a live migration.
    pub migration: bool,
    /// From where.
    pub from: Incarnation,
    /// To where.
    pub to: Incarnation,
    /// How long it may stay open.
    pub deadline: Duration,
    /// The plan that it belongs to.
    pub plan: Option<PlanId>,
}

/// What ties a group to a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinState {
    /// The owner.
    pub of: Incarnation,
    /// The entry that tied it.
    pub at: LogIndex,
    /// The sequence of the armed set with which the keeper acknowledged it; none yet.
    pub acknowledged: Option<u64>,
    /// Who and why.
    pub by: Decision,
}

/// An order to fence a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FenceTask {
    /// Who.
    pub of: Incarnation,
    /// The entry that opened it.
    pub opened_at: LogIndex,
    /// How long an executor may work on it.
    pub deadline: Duration,
    /// Who took it up, and what came of it.
    pub executors: BTreeMap<HostName, Option<FenceOutcome>>,
    /// The entry that called it off, and why.
    pub cancelled: Option<(LogIndex, String)>,
    /// Its executors' deadline and 10 s passed after it was called off.
    pub expired: bool,
    /// The term of the entry that opened it: with era and index what an executor shows to a device.
    pub opened_term: Term,
}

/// A stop of new declarations and plans.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freeze {
    /// What is frozen.
    pub scope: FreezeScope,
    /// For how long.
    pub span: Duration,
    /// Whether activations under way wait, too.
    pub hold_activation: bool,
    /// Who and why.
    pub by: Decision,
}

/// Maintenance or a hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restriction {
    /// The entry that began it.
    pub at: LogIndex,
    /// For how long.
    pub span: Duration,
    /// Why.
    pub because: String,
}

/// Why automatic activation stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brake {
    /// The entry that set it.
    pub at: LogIndex,
    /// Why.
    pub because: String,
}

/// An automatic loss within the brake's window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecentLoss {
    /// The site, if it was declared as a whole.
    pub site: Option<SiteName>,
    /// The hosts.
    pub hosts: Vec<HostName>,
    /// The time since, rounded down, as of the last automatic loss.
    pub age: Duration,
}

/// An override and the people it waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingOverride {
    /// What is asserted.
    pub asked: Override,
    /// Who agreed.
    pub permit: Permit,
}

/// An acceptance of a loss and the people it waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LossAcceptance {
    /// What is accepted.
    pub asked: AcceptLoss,
    /// Who agreed.
    pub permit: Permit,
}

/// Where removed names go on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstones {
    /// The last epoch of removed groups.
    pub groups: BTreeMap<GroupName, Epoch>,
    /// The last host epoch of removed hosts.
    pub hosts: BTreeMap<HostName, HostEpoch>,
}
