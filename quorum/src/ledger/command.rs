//! Everything that can be in the log: an [`Entry`] asks, `apply` decides.
//!
//! Contract: commands are orders, not facts; a refused one changes nothing. What a command says about elapsed time
//! was measured by its proposer on one clock and rounded to the safe side; `apply` reads no clock. The replicated
//! format only grows at the end of each enum and struct, and a new kind is proposed only after every voter and agent
//! reported that it understands it ([`Command::ClusterVersion`]).
//!
//! Not here: bytes (`codec`), rules (the verb files beside this one).

mod about;
mod group;
mod host;
mod people;

pub use group::*;
pub use host::*;
pub use people::*;

use super::evidence::{Evidence, Incarnation};
use super::person::{Decision, Initiator};
use super::plan::{Plan, PlanOutcome, StepOutcome};
use crate::id::{
    Epoch, Era, Generation, GroupName, HostName, IntentId, LogIndex, PlanId, ProposalKey, TaskId, Term, VoterId,
};
use crate::roster::ConfigId;
use crate::timing::Timing;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Where an entry is in the log. The term is that of the leader which appended it, so that a change of leader is
/// seen without anybody having to announce it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The entry's index.
    pub index: LogIndex,
    /// The entry's term.
    pub term: Term,
}

/// A proposal as it is in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its identity: proposed again after a doubt, it takes effect once.
    pub key: ProposalKey,
    /// Who proposed it.
    pub proposer: HostName,
    /// The era it was made in; a lower one is refused.
    pub era: Era,
    /// The proposer's wall clock, for people only. Never compared with anything.
    pub wall_ms: u64,
    /// What is asked for.
    pub command: Command,
}

/// What an entry asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]

pub enum Command {
    /// Nothing. A new leader's first entry.
    Noop,
    /// Creates the cluster.
    Bootstrap(Bootstrap),
    /// Changes the time spans. A weaker setting is refused, not warned about.
    SetTiming {
        /// The spans from now on.
        timing: Timing,
        /// Who and why.
        by: Decision,
    },
    /// Replaces the cluster spec.
    SetSpec(SetSpec),
    /// Admits a host: the only way in which a host epoch comes to be.
    HostAdmitted(HostAdmitted),
    /// Declares hosts lost, one by one. Final for their host epochs.
    Lost(Lost),
    /// Ends a host epoch without a loss: the keeper attested, or the machine answers from another boot or instance.
    Retired {
        /// Whose.
        of: Incarnation,
        /// On what ground.
        because: RetiredBecause,
    },
    /// A voter waited out the lease.
    Expired {
        /// The voter.
        voter: VoterId,
        /// Whose lease.
        of: Incarnation,
        /// The configuration that the voter had applied. Counts only if it is the one in force here.
        config: ConfigId,
    },
    /// Something was seen that proves a host, or groups on it, harmless.
    Evidence(Evidence),
    /// Opens another fence task for a lost host. `Lost` opens the first by itself.
    FenceTaskOpened {
        /// Who is to be fenced.
        of: Incarnation,
        /// How long an executor may work on it.
        deadline: Duration,
        /// Who asked.
        initiator: Initiator,
    },
    /// An executor takes a task up. It acts only after it applied this.
    FenceTaskStarted {
        /// Which task.
        task: TaskId,
        /// Who.
        executor: HostName,
    },
    /// An executor will do nothing more for a task.
    FenceTaskFinished {
        /// Which task.
        task: TaskId,
        /// Who.
        executor: HostName,
        /// What came of it. Evidence, if any, is an entry of its own.
        outcome: FenceOutcome,
    },
    /// Ends a task: executors that haven't started never will, the others finish.
    FenceTaskCancel {
        /// Which task.
        task: TaskId,
        /// Why.
        because: String,
    },
    /// An executor of a cancelled task was not heard of, and its deadline + 10 s passed on the leader's clock since
    /// the cancellation was applied.
    FenceTaskExpired {
        /// Which task.
        task: TaskId,
        /// The time since, rounded down.
        waited: Duration,
    },
    /// A group is born.
    GroupCreated {
        /// Its name, as in the spec.
        group: GroupName,
        /// The machine that has its data.
        source: HostName,
        /// Who and why.
        by: Decision,
    },
    /// Nothing of a newborn group runs on a host and autostart is off.
    Absent {
        /// The group.
        group: GroupName,
        /// Where, and in which admission that was seen.
        of: Incarnation,
    },
    /// The ticket moves: the pivot of a plan.
    Grant(Grant),
    /// The workload is up.
    Running {
        /// The group.
        group: GroupName,
        /// Under which epoch.
        epoch: Epoch,
        /// Where.
        of: Incarnation,
    },
    /// The workload is down, flushed, drained and released, and the sender won't run it without a newer grant.
    Stopped(Stopped),
    /// A planned move begins.
    SwitchIntent(Intent),
    /// A planned move is given up. If it is first in the log, a later `Stopped` under it does nothing.
    SwitchAbort {
        /// The group.
        group: GroupName,
        /// Which intent.
        intent: IntentId,
        /// Why.
        because: String,
    },
    /// A live migration begins: before the first page moves, the target counts as a possible owner.
    MigrateIntent(Intent),
    /// A live migration is given up, after the target is proven to hold nothing.
    MigrateAbort {
        /// The group.
        group: GroupName,
        /// Which intent.
        intent: IntentId,
        /// Why.
        because: String,
    },
    /// Copies fell behind and the owner goes on without them. It releases writes only when it applied this.
    Detached {
        /// The group.
        group: GroupName,
        /// Under which epoch.
        epoch: Epoch,
        /// The owner.
        of: Incarnation,
        /// Whose copies.
        away: Vec<HostName>,
        /// The generation from now on: one more than before.
        generation: Generation,
    },
    /// A copy has everything that the owner has.
    InSync {
        /// The group.
        group: GroupName,
        /// Under which epoch.
        epoch: Epoch,
        /// The owner.
        of: Incarnation,
        /// Whose copy.
        copy: HostName,
        /// The generation at which.
        generation: Generation,
    },
    /// How far a copy is behind.
    DataAttested {
        /// The group.
        group: GroupName,
        /// Under which epoch.
        epoch: Epoch,
        /// The owner.
        of: Incarnation,
        /// Whose copy.
        copy: HostName,
        /// The generation of both.
        generation: Generation,
        /// How far, in time, rounded up.
        lag: Duration,
    },
    /// A copy was found ahead of, or different from, what the ledger knows.
    DataDiverged {
        /// The group.
        group: GroupName,
        /// Whose copy.
        copy: HostName,
        /// What was found.
        found: CopyCheck,
        /// For people.
        detail: String,
    },
    /// A plan begins.
    PlanOpened {
        /// What is to be done.
        plan: Plan,
    },
    /// An attempt at a step begins.
    StepStarted {
        /// Which plan.
        plan: PlanId,
        /// Which step, from 0.
        step: u32,
        /// Who executes it.
        executor: HostName,
    },
    /// An attempt at a step ended.
    StepEnded {
        /// Which plan.
        plan: PlanId,
        /// Which step, from 0.
        step: u32,
        /// Which attempt, as the start's event said.
        attempt: u32,
        /// How.
        outcome: StepOutcome,
    },
    /// A plan ends.
    PlanClosed {
        /// Which plan.
        plan: PlanId,
        /// How.
        outcome: PlanOutcome,
    },
    /// A person agrees.
    Approve {
        /// With what.
        subject: Subject,
        /// Who and why.
        by: Decision,
        /// Signs against it that the person was shown, with their age.
        contrary: Vec<Contrary>,
    },
    /// A person refuses.
    Deny {
        /// What.
        subject: Subject,
        /// Who and why.
        by: Decision,
    },
    /// Stops new declarations and new plans.
    Freeze {
        /// What is frozen.
        scope: FreezeScope,
        /// For how long; a leader that takes over counts anew.
        span: Duration,
        /// Whether activations that are under way wait, too.
        hold_activation: bool,
        /// Who and why.
        by: Decision,
    },
    /// Ends a freeze.
    Thaw {
        /// Which: the log index of the entry that froze.
        freeze: LogIndex,
        /// Why.
        cause: EndCause,
    },
    /// Work on a host or site: it isn't declared lost automatically and gets nothing new.
    Maintenance {
        /// What.
        scope: PlaceScope,
        /// For how long; a leader that takes over counts anew.
        span: Duration,
        /// Who and why.
        by: Decision,
    },
    /// Maintenance is over.
    MaintenanceEnded {
        /// What.
        scope: PlaceScope,
        /// Why.
        cause: EndCause,
    },
    /// A host or site that flaps gets nothing new automatically.
    Held {
        /// What.
        scope: PlaceScope,
        /// For how long; a leader that takes over counts anew.
        span: Duration,
        /// Why.
        because: String,
    },
    /// A hold is over.
    HoldEnded {
        /// What.
        scope: PlaceScope,
        /// Why.
        cause: EndCause,
    },
    /// Ties a group to its host through network work: from here nobody else can be granted it.
    Pin {
        /// The group.
        group: GroupName,
        /// Its owner.
        of: Incarnation,
        /// Who and why.
        by: Decision,
    },
    /// The host's keeper exempts the group from the lease's end.
    PinAcknowledged {
        /// The group.
        group: GroupName,
        /// Its owner.
        of: Incarnation,
        /// The sequence number of the armed set that the keeper echoed.
        sequence: u64,
    },
    /// Unties a group.
    Unpin {
        /// The group.
        group: GroupName,
        /// What makes that safe.
        ground: UnpinGround,
        /// Who and why.
        by: Decision,
    },
    /// Stops automatic activation.
    BrakeSet {
        /// Why.
        because: String,
        /// Who, if a person.
        initiator: Initiator,
    },
    /// Automatic activation may go on.
    BrakeReleased {
        /// Who and why.
        by: Decision,
    },
    /// A person asserts what machines could not prove. Needs `Lost` or `Retired` of everything it names.
    Override(Override),
    /// An override that isn't complete ran out.
    OverrideExpired {
        /// Which: the log index of the entry that asked.
        index: LogIndex,
        /// The time since, on the leader's clock.
        waited: Duration,
    },
    /// A person accepts that data is lost.
    AcceptLoss(AcceptLoss),
    /// A group ends; its name keeps its last epoch.
    GroupRemoved {
        /// The group.
        group: GroupName,
        /// Who and why.
        by: Decision,
    },
    /// A host ends; its name keeps its last host epoch.
    HostRemoved {
        /// The host.
        host: HostName,
        /// Who and why.
        by: Decision,
    },
    /// What a member understands.
    Supports {
        /// Who.
        host: HostName,
        /// The highest cluster version that it understands.
        version: u32,
    },
    /// New kinds of entries may be proposed from here.
    ClusterVersion {
        /// The version from now on.
        version: u32,
        /// Who and why.
        by: Decision,
    },
    /// A new era after a majority was lost for ever (protocol §9). Its first entry.
    EraBegun(EraBegun),
    /// Something a person did that changes nothing in the ledger but belongs into the audit chain.
    Audit {
        /// What.
        action: String,
        /// With which result.
        detail: String,
        /// Who and why.
        by: Decision,
    },
}
