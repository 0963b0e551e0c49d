//! What an agent can tell of fencing by the log and by what it hears: the ledger's half of `fence status`.
//!
//! The other half, what the devices of this host say, is the fencing crate's.

use super::core::Engine;
use super::status::AttentionLine;
use crate::policy::Mode;
use quorum::id::HostName;
use quorum::ledger::{Contrary, Ended, FenceOutcome, FenceTask, Incarnation};
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// A sign that a host lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SignLine {
    /// Which host.
    pub host: String,
    /// What.
    pub what: String,
    /// How old.
    pub age_ms: u64,
    /// Young enough to refuse an override.
    pub is_fresh: bool,
}

impl SignLine {
    pub(super) fn of(sign: Contrary, fresh: Duration) -> Self {
        let age_ms = u64::try_from(sign.age.as_millis()).unwrap_or(u64::MAX);
        Self { host: sign.host.to_string(), what: sign.what, age_ms, is_fresh: sign.age < fresh }
    }
}

impl fmt::Display for SignLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}, {} ago", self.host, self.what, seconds(Duration::from_millis(self.age_ms)))
    }
}

/// Fencing by the log.
#[derive(Clone, Debug, Serialize)]
pub struct FenceView {
    /// Log index that this agent has applied.
    pub index: u64,
    /// Which host says so.
    pub seen_by: String,
    /// Time since this agent last heard a leader.
    pub as_of_ms: u64,
    /// How many people an override needs.
    pub approvals: u32,
    /// A sign of life younger than this refuses an override.
    pub contrary_fresh_ms: u64,
    /// The hosts.
    pub hosts: Vec<FenceHostLine>,
    /// Overrides that wait for a second person.
    pub overrides: Vec<OverrideLine>,
}

/// One host.
#[derive(Clone, Debug, Serialize)]
pub struct FenceHostLine {
    /// Its name.
    pub name: String,
    /// Its site.
    pub site: String,
    /// unknown, admitted, lost or retired.
    pub state: &'static str,
    /// Its current host epoch.
    pub host_epoch: Option<String>,
    /// Its class; empty before its first admission.
    pub class: String,
    /// eager or lazy: how its loss would be declared now with its whole site silent, as far as this agent knows.
    pub declares: &'static str,
    /// The same while other hosts of its site are heard: eager only where that brings its groups up earlier.
    pub declares_alone: &'static str,
    /// Evidence that the log has about its current admission.
    pub evidence: Vec<String>,
    /// Admissions about which evidence is missing.
    pub unproven: Vec<String>,
    /// Signs that it lives.
    pub signs: Vec<SignLine>,
    /// Fence tasks that aren't over.
    pub tasks: Vec<TaskLine>,
}

/// A fence task.
#[derive(Clone, Debug, Serialize)]
pub struct TaskLine {
    /// Its number.
    pub task: String,
    /// The admission that it is about.
    pub about: String,
    /// How long an executor may work on it.
    pub deadline_ms: u64,
    /// Why it was called off, if it was.
    pub called_off: Option<String>,
    /// Nobody can act on it any more.
    pub is_over: bool,
    /// Who took it up, and what came of it.
    pub executors: Vec<ExecutorLine>,
}

/// An executor's part in a task.
#[derive(Clone, Debug, Serialize)]
pub struct ExecutorLine {
    /// The agent.
    pub host: String,
    /// working, proven, failed or cancelled.
    pub outcome: &'static str,
    /// Why it failed.
    pub because: String,
}

/// An override that waits for a second person.
#[derive(Clone, Debug, Serialize)]
pub struct OverrideLine {
    /// The index of the entry that asked; its number.
    pub index: u64,
    /// What it vouches for.
    pub names: Vec<String>,
    /// How many people it needs.
    pub needs: u32,
    /// Who agreed.
    pub agreed: Vec<String>,
    /// Why it was asked for.
    pub reason: String,
    /// What whoever asked was shown then.
    pub shown: String,
    /// How long it may wait.
    pub span_ms: u64,
}

impl Engine {
    /// Fencing as this agent sees it at its log index.
    pub(super) fn fence_view(&self) -> FenceView {
        let policy = &self.ledger.spec().policy;
        let pending = |(index, pending): (&quorum::id::LogIndex, &quorum::ledger::PendingOverride)| OverrideLine {
            index: index.0,
            names: super::fence_order::names_of(&pending.asked.claim),
            needs: pending.permit.needs,
            agreed: pending.permit.agreed.iter().map(|decision| decision.by.to_string()).collect(),
            reason: pending.asked.by.reason.clone(),
            shown: pending.asked.by.shown.clone(),
            span_ms: millis(pending.asked.span),
        };
        FenceView {
            index: self.ledger.applied().0,
            seen_by: self.me.host.to_string(),
            as_of_ms: self.leader_age_ms(),
            approvals: policy.approvals,
            contrary_fresh_ms: millis(policy.contrary_fresh),
            hosts: self.ledger.spec().hosts.keys().map(|host| self.fence_host_line(host)).collect(),
            overrides: self.ledger.overrides().iter().map(pending).collect(),
        }
    }

    /// Fencing that doesn't succeed, and overrides that wait: each with the next command.
    pub(super) fn fence_attention(&self) -> Vec<AttentionLine> {
        let mut lines = Vec::new();
        // A pill that was sent and proves nothing, as it never does, is nothing to be attended to.
        let is_to_prove = |task: &&FenceTask| self.ledger.fence_deadline(&task.of.host).is_some();
        for task in self.ledger.tasks().values().filter(|task| task.cancelled.is_none()).filter(is_to_prove) {
            let failed: Vec<String> = task
                .executors
                .iter()
                .filter_map(|(host, outcome)| match outcome {
                    Some(FenceOutcome::Failed { because }) => Some(format!("by {host}: {because}")),
                    Some(FenceOutcome::Proven | FenceOutcome::Cancelled) | None => None,
                })
                .collect();
            if !failed.is_empty() {
                let host = &task.of.host;
                let text =
                    format!("fencing of {} has proven nothing yet; it is tried again. {}", task.of, failed.join("; "));
                let next = format!("look at the machine, then antipode fence override host {host} --dry-run");
                lines.push(AttentionLine { code: "fencing-failed", text, next });
            }
        }
        for (index, pending) in self.ledger.overrides() {
            let (agreed, needs) = (pending.permit.agreed.len(), pending.permit.needs);
            let text = format!("override {index} waits: {agreed} of {needs} people agreed");
            let next = format!("antipode approve override {index}");
            lines.push(AttentionLine { code: "override-waits", text, next });
        }
        lines
    }

    fn fence_host_line(&self, host: &HostName) -> FenceHostLine {
        let fresh = self.ledger.spec().policy.contrary_fresh;
        let state = self.ledger.host(host);
        let current = state.and_then(|state| state.incarnations.get(&state.he));
        let evidence = current.into_iter().flat_map(|current| &current.evidence);
        let tasks = self.ledger.tasks().iter().filter(|(_, task)| task.of.host == *host);
        let (mode, alone) = self.declare_modes(host, super::declare::COMMIT_SLOW);
        let told = |mode| match mode {
            Mode::Eager => "eager",
            Mode::Lazy => "lazy",
        };
        FenceHostLine {
            name: host.to_string(),
            site: self.ledger.site_of(host).map(ToString::to_string).unwrap_or_default(),
            state: match current.map(|current| &current.ended) {
                None => "unknown",
                Some(None) => "admitted",
                Some(Some(Ended::Lost { .. })) => "lost",
                Some(Some(Ended::Retired { .. } | Ended::EraOver { .. })) => "retired",
            },
            host_epoch: state.map(|state| state.he.to_string()),
            class: current.map(|current| current.class.to_string()).unwrap_or_default(),
            declares: told(mode),
            declares_alone: told(alone),
            evidence: evidence.map(|evidence| evidence.kind.as_str().to_owned()).collect(),
            unproven: self.ledger.unproven_on(host).iter().map(Incarnation::to_string).collect(),
            signs: self
                .signs_of(std::slice::from_ref(host))
                .into_iter()
                .map(|sign| SignLine::of(sign, fresh))
                .collect(),
            tasks: tasks
                .filter(|(_, task)| !task.is_over())
                .map(|(id, task)| task_line(id.to_string(), task))
                .collect(),
        }
    }
}

fn task_line(task: String, state: &FenceTask) -> TaskLine {
    let executor = |(host, outcome): (&HostName, &Option<FenceOutcome>)| {
        let (outcome, because) = match outcome {
            None => ("working", ""),
            Some(FenceOutcome::Proven) => ("proven", ""),
            Some(FenceOutcome::Failed { because }) => ("failed", because.as_str()),
            Some(FenceOutcome::Cancelled) => ("cancelled", ""),
        };
        ExecutorLine { host: host.to_string(), outcome, because: because.to_owned() }
    };
    TaskLine {
        task,
        about: state.of.to_string(),
        deadline_ms: millis(state.deadline),
        called_off: state.cancelled.as_ref().map(|(_, because)| because.clone()),
        is_over: state.is_over(),
        executors: state.executors.iter().map(executor).collect(),
    }
}

/// A span as people read it.
pub(super) fn seconds(span: Duration) -> String {
    format!("{:.1} s", span.as_secs_f64())
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
