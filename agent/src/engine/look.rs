//! What people look at beside the status: plans with their steps, the spec in force, the end of the audit chain, and
//! what a spec would change.
//!
//! Field names are the JSON interface, additive as those of [`super::StatusDocument`].

use super::core::Engine;
use super::log::decode_entry;
use super::status::API_VERSION;
use crate::config::{Checked, Problem, changes};
use quorum::id::{LogIndex, PlanId};
use quorum::ledger::{Initiator, PlanOutcome, PlanState, Step, StepOutcome, StepState, digest};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Who says so, at which log index, and how old it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Version of the document.
    pub api_version: u32,
    /// Which host says so.
    pub seen_by: String,
    /// Log index that it has applied.
    pub index: u64,
    /// Time since it last heard a leader, in milliseconds.
    pub as_of_ms: u64,
}

/// `plan list -o json` and `plan show -o json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlansDocument {
    /// Who says so.
    #[serde(flatten)]
    pub seen: Seen,
    /// Open plans and the last closed ones, oldest first.
    pub plans: Vec<PlanDetail>,
}

/// A plan with everything that is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanDetail {
    /// Its identity.
    pub id: u64,
    /// What for.
    pub kind: String,
    /// Which group.
    pub group: String,
    /// open, done, cancelled or failed.
    pub state: String,
    /// Whom the ticket is taken from.
    pub from: Option<String>,
    /// Where it goes.
    pub to: Option<String>,
    /// automatic, or the person.
    pub initiator: String,
    /// Why it was opened.
    pub because: String,
    /// The log index of its grant, once it is past its point of no return.
    pub pivot: Option<u64>,
    /// Its steps in order.
    pub steps: Vec<StepLine>,
    /// How it ended, for people; empty while open.
    pub outcome: String,
    /// From what began it to service, where measured.
    pub measured_rto_ms: Option<u64>,
    /// The loss of data, where measured.
    pub measured_rpo_ms: Option<u64>,
    /// The person's next command, if there is one.
    pub next: String,
}

/// A step of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepLine {
    /// Its number, from 0.
    pub number: u32,
    /// What it does.
    pub kind: String,
    /// Who executes it; the leader if nobody.
    pub host: Option<String>,
    /// How long an attempt may take.
    pub deadline_ms: u64,
    /// waiting, started, done, failed, timed-out, undone or skipped.
    pub state: String,
    /// Which attempt; 0 before the first.
    pub attempt: u32,
    /// What it found, or why it failed.
    pub detail: String,
    /// A person may go on without it.
    pub skippable: bool,
}

/// `config show -o json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecDocument {
    /// Who says so.
    #[serde(flatten)]
    pub seen: Seen,
    /// Counts the revisions; 0 is "none yet".
    pub revision: u64,
    /// The log index of the entry that set it.
    pub at_index: u64,
    /// Who applied it.
    pub by: Option<String>,
    /// What people wrote.
    pub source: String,
}

/// The end of the audit chain as this agent's ledger has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainDocument {
    /// Who says so.
    #[serde(flatten)]
    pub seen: Seen,
    /// How many records there are.
    pub length: u64,
    /// Hash of the last one, in hexadecimal.
    pub hash: String,
    /// People's acts that this voter's log still has, recomputed from its entries.
    pub logged: Vec<LoggedAct>,
}

/// An entry of the replicated log that carries a person's decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedAct {
    /// Its index.
    pub index: u64,
    /// The command's name.
    pub action: String,
    /// SHA-256 of the command, in hexadecimal.
    pub command: String,
}

/// `apply --dry-run -o json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckDocument {
    /// Who says so.
    #[serde(flatten)]
    pub seen: Seen,
    /// The revision that it would become.
    pub revision: u64,
    /// What keeps it from being applied.
    pub problems: Vec<Problem>,
    /// What its author should know.
    pub warnings: Vec<Problem>,
    /// What would change, key by key.
    pub changes: Vec<changes::Change>,
    /// The same in a sentence.
    pub detail: String,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl Engine {
    /// Raft's term and commit index, if this host votes.
    pub fn raft_position(&self) -> Option<(u64, u64)> {
        self.voting.as_ref().map(|voting| (voting.replica.term().0, voting.replica.committed().0))
    }

    /// How sick this host judges itself.
    pub fn sickness(&self) -> u8 {
        self.health.sickness()
    }

    /// Proposals of this agent without an outcome yet.
    pub fn proposals_waiting(&self) -> u64 {
        self.proposals.waiting()
    }

    pub(super) fn seen(&self) -> Seen {
        Seen {
            api_version: API_VERSION,
            seen_by: self.me.host.to_string(),
            index: self.ledger.applied().0,
            as_of_ms: self.leader_age_ms(),
        }
    }

    pub(super) fn plans_document(&self) -> PlansDocument {
        PlansDocument {
            seen: self.seen(),
            plans: self.ledger.plans().values().map(|plan| detail(plan, self.next_for(plan))).collect(),
        }
    }

    /// The spec in force, as written.
    pub fn spec_document(&self) -> SpecDocument {
        let revision = self.ledger.spec_revision();
        SpecDocument {
            seen: self.seen(),
            revision: revision.revision,
            at_index: revision.at.0,
            by: revision.by.as_ref().map(ToString::to_string),
            source: revision.source.clone(),
        }
    }

    pub(super) fn chain_document(&self) -> ChainDocument {
        let head = self.ledger.audit_head();
        ChainDocument { seen: self.seen(), length: head.length, hash: hex(&head.hash), logged: self.logged_acts() }
    }

    fn logged_acts(&self) -> Vec<LoggedAct> {
        let Some(voting) = &self.voting else { return Vec::new() };
        let applied = self.ledger.applied();
        let entries = voting.replica.entries_after(LogIndex(0)).take_while(|entry| entry.index <= applied);
        let act = |entry: quorum::replica::EntryRef<'_>| {
            let quorum::replica::EntryKind::Normal(data) = entry.to_entry().kind else { return None };
            let command = decode_entry(data.as_ref()).ok()?.command;
            command.decision()?;
            Some(LoggedAct {
                index: entry.index.0,
                action: command.action().to_owned(),
                command: hex(&digest(&command)),
            })
        };
        entries.filter_map(act).collect()
    }

    pub(super) fn check_document(&self, checked: &Checked, source: &str) -> CheckDocument {
        let revision = self.ledger.spec_revision().revision + 1;
        let changes = changes::between(&self.ledger.spec_revision().source, source);
        let detail = match (checked.problems.len(), changes.len()) {
            (0, 0) => "the spec is good and changes nothing".to_owned(),
            (0, count) => format!("the spec is good; it would become revision {revision} with {count} changes"),
            (count, _) => format!("the spec has {count} problems; nothing was changed"),
        };
        let (problems, warnings) = (checked.problems.clone(), checked.warnings.clone());
        CheckDocument { seen: self.seen(), revision, problems, warnings, changes, detail }
    }

    /// The current step of an open plan, with the number of its last attempt.
    pub(super) fn current_step_of(&self, plan: PlanId) -> Result<(u32, u32), String> {
        let state = self.ledger.plans().get(&plan).ok_or_else(|| format!("there is no plan {plan}"))?;
        let index = state.current_step().filter(|_| state.is_open()).ok_or_else(|| format!("plan {plan} is over"))?;
        let attempt = match &state.steps[index] {
            StepState::Waiting => 0,
            StepState::Started { attempt, .. } | StepState::Ended { attempt, .. } => *attempt,
        };
        Ok((u32::try_from(index).unwrap_or(u32::MAX), attempt))
    }

    /// A person asked for another attempt: what waits after a failure waits no longer.
    pub(super) fn retry_plan(&mut self, plan: PlanId) {
        let Some(group) = self.ledger.plans().get(&plan).map(|state| state.plan.group.clone()) else { return };
        if let Some(runner) = self.local.runners.get_mut(&group) {
            runner.retry_now();
        }
        self.forget_paces(&plan.to_string());
    }
}

fn detail(plan: &PlanState, next: String) -> PlanDetail {
    let step = |(number, (step, state)): (usize, (&Step, &StepState))| step_line(number, step, state);
    let (rto, rpo) = match &plan.outcome {
        Some(PlanOutcome::Done { measured_rto, measured_rpo }) => (*measured_rto, *measured_rpo),
        Some(PlanOutcome::Cancelled { .. } | PlanOutcome::Failed { .. }) | None => (None, None),
    };
    let (state, outcome) = match &plan.outcome {
        None => ("open", String::new()),
        Some(PlanOutcome::Done { .. }) => ("done", "done".to_owned()),
        Some(PlanOutcome::Cancelled { because }) => ("cancelled", because.clone()),
        Some(PlanOutcome::Failed { because, .. }) => ("failed", because.clone()),
    };
    PlanDetail {
        id: plan.id.0,
        kind: plan.plan.kind.as_str().to_owned(),
        group: plan.plan.group.to_string(),
        state: state.to_owned(),
        from: plan.plan.from.as_ref().map(ToString::to_string),
        to: plan.plan.to.as_ref().map(ToString::to_string),
        initiator: match &plan.plan.initiator {
            Initiator::Automatic => "automatic".to_owned(),
            Initiator::Person(decision) => decision.by.to_string(),
        },
        because: plan.plan.because.clone(),
        pivot: plan.pivot.map(|at| at.0),
        steps: plan.plan.steps.iter().zip(&plan.steps).enumerate().map(step).collect(),
        outcome,
        measured_rto_ms: rto.map(millis),
        measured_rpo_ms: rpo.map(millis),
        next: match &plan.outcome {
            Some(PlanOutcome::Failed { next, .. }) => next.clone(),
            Some(PlanOutcome::Done { .. } | PlanOutcome::Cancelled { .. }) => String::new(),
            None => next,
        },
    }
}

fn step_line(number: usize, step: &Step, state: &StepState) -> StepLine {
    let (word, attempt, detail) = match state {
        StepState::Waiting => ("waiting", 0, String::new()),
        StepState::Started { attempt, executor } => ("started", *attempt, format!("at {executor}")),
        StepState::Ended { attempt, outcome } => match outcome {
            StepOutcome::Done { detail } => ("done", *attempt, detail.clone()),
            StepOutcome::Failed { because } => ("failed", *attempt, because.clone()),
            StepOutcome::TimedOut => ("timed-out", *attempt, "its deadline passed".to_owned()),
            StepOutcome::Undone => ("undone", *attempt, String::new()),
            StepOutcome::Skipped { by } => ("skipped", *attempt, format!("by {}: {}", by.by, by.reason)),
        },
    };
    StepLine {
        number: u32::try_from(number).unwrap_or(u32::MAX),
        kind: format!("{:?}", step.kind),
        host: step.host.as_ref().map(ToString::to_string),
        deadline_ms: millis(step.deadline),
        state: word.to_owned(),
        attempt,
        detail,
        skippable: step.kind.is_skippable(),
    }
}
