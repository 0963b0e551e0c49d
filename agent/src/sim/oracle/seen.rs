//! What a run reached, for the coverage table.

use quorum::ledger::{EvidenceKind, PlanKind, PlanOutcome, StepKind};
use std::collections::{BTreeMap, BTreeSet};

/// What was reached.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Kinds of evidence that were accepted.
    pub evidence: BTreeSet<EvidenceKind>,
    /// Rules that refused something.
    pub refusals: BTreeSet<&'static str>,
    /// Steps that began, by kind of plan.
    pub steps: BTreeSet<(PlanKind, StepKind)>,
    /// Which marks were set (see [`World::mark`](crate::sim::World::mark)) when a step of a plan began or was under
    /// way.
    pub cells: BTreeSet<(&'static str, PlanKind, StepKind)>,
    /// How plans ended: done, cancelled, failed.
    pub outcomes: BTreeMap<(PlanKind, &'static str), u64>,
    /// Hosts that were declared lost, automatically and by a person.
    pub lost: (u64, u64),
}

impl Seen {
    /// Adds what another run reached.
    pub fn add(&mut self, other: &Self) {
        self.evidence.extend(other.evidence.iter().copied());
        self.refusals.extend(other.refusals.iter().copied());
        self.steps.extend(other.steps.iter().copied());
        self.cells.extend(other.cells.iter().copied());
        for (key, count) in &other.outcomes {
            *self.outcomes.entry(*key).or_default() += count;
        }
        self.lost = (self.lost.0 + other.lost.0, self.lost.1 + other.lost.1);
    }

    pub(super) fn ended(&mut self, kind: PlanKind, outcome: &PlanOutcome) {
        let how = match outcome {
            PlanOutcome::Done { .. } => "done",
            PlanOutcome::Cancelled { .. } => "cancelled",
            PlanOutcome::Failed { .. } => "failed",
        };
        *self.outcomes.entry((kind, how)).or_default() += 1;
    }
}
