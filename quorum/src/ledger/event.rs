//! What `apply` did, as typed facts: log line, metric, journal entry, `explain` text and golden trace are renderings.
//!
//! Contract: every change of state that matters to anybody is an event; a refused command yields none but the
//! refusal. Events are derived from the log alone, so every replica yields the same.

use super::command::{CopyCheck, EndCause, FenceOutcome, FreezeScope, PlaceScope};
use super::evidence::{Class, EvidenceKind, Incarnation, Scope};
use super::plan::{PlanKind, PlanOutcome, StepOutcome};
use crate::id::{
    Epoch, Era, Generation, GroupName, HostName, IntentId, LogIndex, PlanId, SiteName, TaskId, Term, VoterId,
};
use crate::roster::ConfigId;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Something that became so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// The cluster exists.
    Bootstrapped {
        /// Its name.
        cluster: SiteName,
        /// Whether it is a lab.
        lab: bool,
    },
    /// The term changed: permits are void.
    LeaderChanged {
        /// The new term.
        term: Term,
        /// How many permits became void.
        voided: u32,
    },
    /// Another configuration of voters is in force.
    ConfigChanged {
        /// Its identity.
        config: ConfigId,
        /// How many voters it has.
        voters: u32,
        /// Whether it is the joint step.
        joint: bool,
        /// How many counted `Expired` were thrown away; they are proposed again.
        discarded: u32,
    },
    /// The time spans changed.
    TimingSet {
        /// The lease now.
        lease: Duration,
        /// The voter's wait now; hosts admitted before keep the largest until their next admission.
        voter_wait: Duration,
    },
    /// The spec changed.
    SpecSet {
        /// The revision now.
        revision: u64,
        /// Who did it.
        by: String,
    },
    /// A host may act.
    HostAdmitted {
        /// Who.
        of: Incarnation,
        /// What its lease proves.
        class: Class,
    },
    /// A host was declared lost.
    HostLost {
        /// Who.
        of: Incarnation,
        /// By what: `automatic` or the person.
        because: String,
    },
    /// A site was declared lost as a whole.
    SiteLost {
        /// Which.
        site: SiteName,
        /// How many hosts.
        hosts: u32,
    },
    /// A host epoch ended without a loss.
    HostRetired {
        /// Who.
        of: Incarnation,
        /// On what ground.
        because: String,
    },
    /// A voter's wait was counted.
    ExpiredCounted {
        /// Whose lease.
        of: Incarnation,
        /// Which voter.
        voter: VoterId,
        /// How many were counted so far.
        counted: u32,
    },
    /// Evidence was accepted.
    EvidenceAccepted {
        /// About whom.
        of: Incarnation,
        /// Which kind.
        kind: EvidenceKind,
        /// What it reaches to.
        scope: Scope,
        /// Whether a device of the lab was involved.
        lab: bool,
    },
    /// A host is to be fenced.
    FenceTaskOpened {
        /// The task.
        task: TaskId,
        /// Who.
        of: Incarnation,
        /// How long an executor may work on it.
        deadline: Duration,
    },
    /// An executor may act on a task.
    FenceTaskStarted {
        /// The task.
        task: TaskId,
        /// Who.
        executor: HostName,
    },
    /// An executor will do nothing more.
    FenceTaskFinished {
        /// The task.
        task: TaskId,
        /// Who.
        executor: HostName,
        /// What came of it.
        outcome: FenceOutcome,
    },
    /// A task was called off.
    FenceTaskCancelled {
        /// The task.
        task: TaskId,
        /// Why.
        because: String,
    },
    /// Nobody can act on a task any more.
    FenceTaskOver {
        /// The task.
        task: TaskId,
        /// The host that it was about.
        host: HostName,
    },
    /// A group is born.
    GroupCreated {
        /// Its name.
        group: GroupName,
        /// Where its data is.
        source: HostName,
        /// How many hosts have to say that nothing of it runs there.
        awaits: u32,
    },
    /// A host has nothing of a newborn group.
    AbsentSeen {
        /// The group.
        group: GroupName,
        /// Where.
        host: HostName,
        /// How many hosts still have to say so.
        awaits: u32,
    },
    /// The ticket moved.
    Granted {
        /// The group.
        group: GroupName,
        /// The new owner.
        to: Incarnation,
        /// Its epoch.
        epoch: Epoch,
        /// The generation that the new owner's copy must have before it is opened.
        opens: Generation,
        /// The generation that it writes from then on.
        generation: Generation,
        /// Who owned it before, and what proves that it can do no harm.
        proofs: Vec<(Incarnation, ProofKind)>,
        /// The most that is lost; none if a person accepted what nobody can say.
        expected_loss: Option<Duration>,
    },
    /// The workload is up.
    Running {
        /// The group.
        group: GroupName,
        /// Where.
        of: Incarnation,
        /// Under which epoch.
        epoch: Epoch,
    },
    /// The workload is down, and stays so until a newer grant.
    Stopped {
        /// The group.
        group: GroupName,
        /// Where.
        of: Incarnation,
        /// Under which epoch it ran.
        epoch: Epoch,
        /// The data's generation.
        generation: Generation,
        /// The intent under which it stopped.
        intent: Option<IntentId>,
    },
    /// A planned move or migration began.
    IntentOpened {
        /// The group.
        group: GroupName,
        /// Its identity.
        intent: IntentId,
        /// From where.
        from: Incarnation,
        /// To where.
        to: Incarnation,
        /// Whether it is a live migration.
        migration: bool,
    },
    /// A planned move or migration is no longer open.
    IntentClosed {
        /// The group.
        group: GroupName,
        /// Its identity.
        intent: IntentId,
        /// Why.
        because: String,
    },
    /// Copies fell behind.
    Detached {
        /// The group.
        group: GroupName,
        /// Whose.
        away: Vec<HostName>,
        /// The generation now.
        generation: Generation,
    },
    /// A copy caught up.
    InSync {
        /// The group.
        group: GroupName,
        /// Whose.
        copy: HostName,
        /// At which generation.
        generation: Generation,
    },
    /// A copy's lag was recorded.
    DataAttested {
        /// The group.
        group: GroupName,
        /// Whose.
        copy: HostName,
        /// How far it is behind.
        lag: Duration,
    },
    /// A copy doesn't fit what the ledger knows: hold, and a split-brain alarm.
    DataDiverged {
        /// The group.
        group: GroupName,
        /// Whose.
        copy: HostName,
        /// What was found.
        found: CopyCheck,
    },
    /// A plan began.
    PlanOpened {
        /// Its identity.
        plan: PlanId,
        /// What for.
        kind: PlanKind,
        /// Which group.
        group: GroupName,
        /// Why.
        because: String,
    },
    /// An attempt at a step began.
    StepStarted {
        /// Which plan.
        plan: PlanId,
        /// Which step.
        step: u32,
        /// Which attempt, from 1.
        attempt: u32,
        /// Who executes it.
        executor: HostName,
    },
    /// An attempt at a step ended.
    StepEnded {
        /// Which plan.
        plan: PlanId,
        /// Which step.
        step: u32,
        /// Which attempt.
        attempt: u32,
        /// How.
        outcome: StepOutcome,
    },
    /// A plan is past the point of no return.
    PlanPivoted {
        /// Which plan.
        plan: PlanId,
    },
    /// A plan ended.
    PlanClosed {
        /// Which plan.
        plan: PlanId,
        /// How.
        outcome: PlanOutcome,
    },
    /// A person agreed with something.
    Approved {
        /// The entry of what was agreed with.
        subject: LogIndex,
        /// How many people agreed so far.
        agreed: u32,
        /// Whether that is enough.
        given: bool,
    },
    /// A person refused something.
    Denied {
        /// The entry of what was refused.
        subject: LogIndex,
        /// Who.
        by: String,
    },
    /// New declarations and plans stop.
    Frozen {
        /// The entry that froze.
        freeze: LogIndex,
        /// What.
        scope: FreezeScope,
        /// For how long.
        span: Duration,
    },
    /// A freeze is over.
    Thawed {
        /// The entry that froze.
        freeze: LogIndex,
        /// Why.
        cause: EndCause,
    },
    /// Work on a host or site begins.
    MaintenanceBegun {
        /// What.
        scope: PlaceScope,
        /// For how long.
        span: Duration,
    },
    /// Work on a host or site is over.
    MaintenanceEnded {
        /// What.
        scope: PlaceScope,
        /// Why.
        cause: EndCause,
    },
    /// A host or site gets nothing new.
    Held {
        /// What.
        scope: PlaceScope,
        /// For how long.
        span: Duration,
        /// Why.
        because: String,
    },
    /// A host or site may get something new again.
    HoldEnded {
        /// What.
        scope: PlaceScope,
        /// Why.
        cause: EndCause,
    },
    /// A group is tied to its host.
    Pinned {
        /// The group.
        group: GroupName,
        /// Its owner.
        of: Incarnation,
    },
    /// The keeper exempts the group.
    PinAcknowledged {
        /// The group.
        group: GroupName,
        /// Its owner.
        of: Incarnation,
    },
    /// A group is no longer tied.
    Unpinned {
        /// The group.
        group: GroupName,
        /// Its owner from here on.
        owner: Option<Incarnation>,
    },
    /// Automatic activation stops.
    BrakeSet {
        /// Why.
        because: String,
    },
    /// Automatic activation may go on.
    BrakeReleased {
        /// Who.
        by: String,
    },
    /// A person asserts something.
    OverrideAsked {
        /// The entry.
        index: LogIndex,
        /// How many people it needs.
        needs: u32,
    },
    /// An assertion took effect; the evidence is an event of its own.
    OverrideUsed {
        /// The entry that asked.
        index: LogIndex,
    },
    /// An assertion ran out or became void.
    OverrideVoid {
        /// The entry that asked.
        index: LogIndex,
        /// Why.
        because: String,
    },
    /// A person accepts a loss.
    LossAccepted {
        /// The entry.
        index: LogIndex,
        /// The group.
        group: GroupName,
        /// Whose copy will be activated.
        copy: HostName,
        /// Whether enough people agreed.
        given: bool,
    },
    /// A group is gone.
    GroupRemoved {
        /// Its name.
        group: GroupName,
        /// Its last epoch, from which the name goes on.
        epoch: Epoch,
    },
    /// A host is gone.
    HostRemoved {
        /// Its name and last host epoch, from which the name goes on.
        of: Incarnation,
    },
    /// A member understands more than before.
    Supports {
        /// Who.
        host: HostName,
        /// Up to which cluster version.
        version: u32,
    },
    /// New kinds of entries may be proposed.
    ClusterVersionSet {
        /// The version now.
        version: u32,
    },
    /// A new era.
    EraBegun {
        /// Which.
        era: Era,
        /// Groups that now wait for evidence of every place.
        groups: u32,
    },
    /// A person's act was chained.
    Audited {
        /// What is chained.
        record: super::audit::AuditRecord,
    },
}

/// What proves a former owner harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ProofKind {
    /// It said so itself while it was admitted.
    Stopped,
    /// Evidence of this kind.
    Evidence(EvidenceKind),
    /// It is the new owner itself: target of the migration that ends here.
    Itself,
    /// Group adopted where it ran.
    Adopted,
}
