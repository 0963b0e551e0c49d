//! What all runs together reached: simulated time, faults against plan steps, evidence, refusals.

use crate::faults::Kind;
use crate::run::Outcome;
use crate::unreached;
use antipode::sim::Seen;
use quorum::ledger::{EvidenceKind, PlanKind, Refusal, StepKind};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// The sum of all runs.
#[derive(Default)]
pub struct Table {
    runs: u64,
    on_blocks: u64,
    failed: u64,
    simulated: Duration,
    kinds: BTreeMap<&'static str, u64>,
    seen: Seen,
}

/// The steps that plans of this version have, as columns of the table.
pub const COLUMNS: [(PlanKind, StepKind); 23] = [
    (PlanKind::Failover, StepKind::AwaitEvidence),
    (PlanKind::Failover, StepKind::AwaitApproval),
    (PlanKind::Failover, StepKind::Grant),
    (PlanKind::Failover, StepKind::Promote),
    (PlanKind::Failover, StepKind::Start),
    (PlanKind::Failover, StepKind::Announce),
    (PlanKind::Failover, StepKind::Probe),
    (PlanKind::Switchover, StepKind::Preflight),
    (PlanKind::Switchover, StepKind::Stop),
    (PlanKind::Switchover, StepKind::Grant),
    (PlanKind::Switchover, StepKind::Promote),
    (PlanKind::Switchover, StepKind::Start),
    (PlanKind::Switchover, StepKind::Announce),
    (PlanKind::Switchover, StepKind::Probe),
    (PlanKind::Failback, StepKind::Preflight),
    (PlanKind::Failback, StepKind::Stop),
    (PlanKind::Failback, StepKind::Grant),
    (PlanKind::Failback, StepKind::Promote),
    (PlanKind::Failback, StepKind::Start),
    (PlanKind::Failback, StepKind::Announce),
    (PlanKind::Failback, StepKind::Probe),
    (PlanKind::Reprotect, StepKind::Reverse),
    (PlanKind::Reprotect, StepKind::AwaitInSync),
];

impl Table {
    /// Adds a run.
    pub fn add(&mut self, outcome: &Outcome) {
        self.runs += 1;
        self.on_blocks += u64::from(outcome.is_on_blocks);
        self.failed += u64::from(outcome.verdict.is_err());
        self.simulated += outcome.simulated;
        for kind in &outcome.kinds {
            *self.kinds.entry(kind).or_default() += 1;
        }
        self.seen.add(&outcome.seen);
    }

    /// As shown to people.
    pub fn show(&self, took: Duration) -> String {
        let mut text = String::new();
        let hours = self.simulated.as_secs_f64() / 3_600.0;
        let speed = hours / took.as_secs_f64();
        let share = 100.0 * self.on_blocks as f64 / self.runs.max(1) as f64;
        let _ = writeln!(
            text,
            "{} seeds ({} failed), {hours:.1} simulated hours in {:.0} s: {speed:.2} h/s; {share:.1} % on the production store",
            self.runs,
            self.failed,
            took.as_secs_f64()
        );
        let _ = writeln!(text, "\nfault kind x plan step (seeds with the fault; . not reached)");
        for kind in Kind::ALL {
            let cells: String =
                COLUMNS.into_iter().map(|column| if self.has(kind, column) { 'x' } else { '.' }).collect();
            let runs = self.kinds.get(kind.name()).copied().unwrap_or_default();
            let _ = writeln!(text, "  {:26} {runs:7}  {cells}", kind.name());
        }
        for (n, (plan, step)) in COLUMNS.into_iter().enumerate() {
            let _ = writeln!(text, "    column {:2}: {} {step:?}", n + 1, plan.as_str());
        }
        let _ = writeln!(text, "\nevidence accepted: {:?}", self.seen.evidence);
        let _ = writeln!(text, "hosts lost automatically {}, by a person {}", self.seen.lost.0, self.seen.lost.1);
        let ends = self.seen.outcomes.iter().map(|((kind, how), count)| format!("{} {how} {count}", kind.as_str()));
        let _ = writeln!(text, "plans: {}", ends.collect::<Vec<_>>().join(", "));
        let (reached, rest): (Vec<&str>, Vec<&str>) =
            Refusal::CODES.iter().copied().partition(|code| self.seen.refusals.contains(code));
        let _ = writeln!(text, "refusal rules reached ({} of {}): {reached:?}", reached.len(), Refusal::CODES.len());
        let listed = rest.iter().filter(|code| unreached::rule(code).is_some()).count();
        let _ = writeln!(text, "refusal rules out of reach, each with its reason and its story: {listed}");
        text
    }

    fn has(&self, kind: Kind, (plan, step): (PlanKind, StepKind)) -> bool {
        self.seen.cells.contains(&(kind.name(), plan, step))
    }

    /// Cells that no run reached and that aren't known to be out of reach.
    pub fn empty_cells(&self) -> Vec<String> {
        let mut empty = Vec::new();
        for kind in Kind::ALL {
            for column in COLUMNS.into_iter().filter(|column| !self.has(kind, *column)) {
                empty.push(format!("{} x {} {:?}", kind.name(), column.0.as_str(), column.1));
            }
        }
        let evidence = EvidenceKind::ALL.into_iter().filter(|kind| !self.seen.evidence.contains(kind));
        let evidence = evidence.filter(|kind| unreached::evidence(*kind).is_none());
        empty.extend(evidence.map(|kind| format!("evidence {kind:?}")));
        let rules = Refusal::CODES.iter().filter(|code| !self.seen.refusals.contains(*code));
        empty.extend(rules.filter(|code| unreached::rule(code).is_none()).map(|code| format!("refusal {code}")));
        empty
    }
}
