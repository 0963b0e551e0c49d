//! Replicated plans: immutable steps, and what became of each.
//!
//! A plan is undoable before its pivot (the step that grants) and only retried after it. Any leader resumes it.
//!
//! Not here: choosing steps (the agent's `failover`), the rules of opening and closing (`plan_rules`).

use super::evidence::Incarnation;
use super::person::Initiator;
use crate::id::{Epoch, GroupName, HostName, LogIndex, PlanId};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What a plan is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PlanKind {
    /// Takeover behind a fence.
    Failover,
    /// Planned move, nothing lost.
    Switchover,
    /// Switchover home after reprotect.
    Failback,
    /// Replicate the other way round and re-arm.
    Reprotect,
    /// Live migration.
    Migration,
    /// Start again where it ran.
    Restart,
    /// Stop, and stay stopped.
    Stop,
    /// Rehearsal from a snapshot; never grants.
    Drill,
}

impl PlanKind {
    /// As shown to people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Failover => "failover",
            Self::Switchover => "switchover",
            Self::Failback => "failback",
            Self::Reprotect => "reprotect",
            Self::Migration => "migration",
            Self::Restart => "restart",
            Self::Stop => "stop",
            Self::Drill => "drill",
        }
    }
}

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum StepKind {
    /// Check capacity, paths and data at the target; changes nothing.
    Preflight,
    /// Wait for evidence on every possible owner.
    AwaitEvidence,
    /// Wait for people.
    AwaitApproval,
    /// Stop taking new work.
    Quiesce,
    /// Stop, flush, drain, release; ends in `Stopped`.
    Stop,
    /// The pivot: the ticket moves.
    Grant,
    /// Make the target's copy the writable one.
    Promote,
    /// Bring the workload up.
    Start,
    /// See that it answers.
    Probe,
    /// Make its addresses lead to it.
    Announce,
    /// Replicate to the other place.
    Reverse,
    /// Wait until the other copy is in sync.
    AwaitInSync,
    /// Copy memory and state of a running VM.
    Migrate,
    /// Take or release a snapshot.
    Snapshot,
    /// Remove what a rehearsal or an undone plan left.
    CleanUp,
    /// Measure RTO and RPO.
    Measure,
    /// Give the ticket up for good.
    Retire,
}

/// One part of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What it does.
    pub kind: StepKind,
    /// Who executes it; none where the leader itself does.
    pub host: Option<HostName>,
    /// How long an attempt may take.
    pub deadline: Duration,
}

/// What is to be done. It never changes once it is in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// What for.
    pub kind: PlanKind,
    /// The group that it moves.
    pub group: GroupName,
    /// The group's epoch when the plan was made.
    pub epoch: Epoch,
    /// Whom the ticket is taken from, if from anyone.
    pub from: Option<Incarnation>,
    /// Where it goes, if anywhere.
    pub to: Option<HostName>,
    /// The steps in order.
    pub steps: Vec<Step>,
    /// Who began it.
    pub initiator: Initiator,
    /// Why, for people.
    pub because: String,
}

/// How an attempt at a step ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StepOutcome {
    /// Done, seen by the step's probe.
    Done {
        /// What it found, for people.
        detail: String,
    },
    /// Not done; it may be tried again.
    Failed {
        /// Why.
        because: String,
    },
    /// The deadline passed.
    TimedOut,
    /// Undone; only before the pivot.
    Undone,
    /// A person decided to go on without it.
    Skipped {
        /// Who and why.
        by: super::person::Decision,
    },
}

impl StepOutcome {
    /// The decision behind it, if a person's.
    pub const fn decision(&self) -> Option<&super::person::Decision> {
        match self {
            Self::Skipped { by } => Some(by),
            Self::Done { .. } | Self::Failed { .. } | Self::TimedOut | Self::Undone => None,
        }
    }
}

/// Where a step is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum StepState {
    /// Not begun.
    #[default]
    Waiting,
    /// An attempt is under way.
    Started {
        /// Which attempt, from 1.
        attempt: u32,
        /// Who executes it.
        executor: HostName,
    },
    /// The last attempt ended.
    Ended {
        /// Which attempt.
        attempt: u32,
        /// How.
        outcome: StepOutcome,
    },
}

/// How a plan ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PlanOutcome {
    /// All done.
    Done {
        /// From the event that began it to service, where measured.
        measured_rto: Option<Duration>,
        /// The loss of data that was measured, where measured.
        measured_rpo: Option<Duration>,
    },
    /// Undone before the pivot.
    Cancelled {
        /// Why.
        because: String,
    },
    /// Given up; `next` is the person's next command.
    Failed {
        /// Why.
        because: String,
        /// What a person can do.
        next: String,
    },
}

/// A plan in the log and how far it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanState {
    /// Its identity: the log index of the entry that opened it.
    pub id: PlanId,
    /// What is to be done.
    pub plan: Plan,
    /// One state for each step.
    pub steps: Vec<StepState>,
    /// The entry of the plan's grant, once it is past its pivot.
    pub pivot: Option<LogIndex>,
    /// How it ended, if it did.
    pub outcome: Option<PlanOutcome>,
    /// The people who agreed that it may go on, where its tier asks for one.
    pub approval: Option<super::person::Permit>,
    /// A person denied it.
    pub denied: Option<super::person::Decision>,
}

impl PlanState {
    /// Whether it still may change something.
    pub const fn is_open(&self) -> bool {
        self.outcome.is_none()
    }

    /// The first step that isn't done, undone or skipped.
    pub fn current_step(&self) -> Option<usize> {
        self.steps.iter().position(|state| match state {
            StepState::Waiting | StepState::Started { .. } => true,
            StepState::Ended { outcome, .. } => match outcome {
                StepOutcome::Failed { .. } | StepOutcome::TimedOut => true,
                StepOutcome::Done { .. } | StepOutcome::Undone | StepOutcome::Skipped { .. } => false,
            },
        })
    }
}
