//! Runs that aim: a fault of one kind begins while a plan of one kind is at one step.
//!
//! Chance alone leaves cells of the coverage table empty, and those that it leaves are the short steps. So one seed in
//! eight takes its turn at one cell, and ten thousand seeds take every cell more than once.

use crate::cluster::Shape;
use crate::faults::{Fault, Kind};
use crate::table::COLUMNS;
use antipode::sim::{Violation, World};
use quorum::ledger::{PlanKind, StepKind};
use std::time::Duration;

/// A plan is ordered, or its cause happens, this long after the cluster has settled.
const OPENS_MS: u64 = 2_000;
/// The fault begins at the latest now, wherever the plan is.
const WAITS_MAX: Duration = Duration::from_secs(35);
/// A person looks this long before vouching for a host: until every sign of life is old enough.
const LOOKS: Duration = Duration::from_secs(8);

/// A cell, and the fault that is to meet it.
#[derive(Clone, Debug)]
pub struct Aim {
    pub fault: Fault,
    plan: PlanKind,
    step: StepKind,
}

/// What the seed aims at, if it does.
pub fn of(seed: u64, drawn: &Fault) -> Option<Aim> {
    let (turn, is_aimed) = ((seed / 8) as usize, seed % 8 == 6);
    let (plan, step) = COLUMNS[turn % COLUMNS.len()];
    let kind = Kind::ALL[turn / COLUMNS.len() % Kind::ALL.len()];
    let mut fault = drawn.clone();
    fault.kind = kind;
    if kind == Kind::Override {
        fault = fault.about(0);
    }
    is_aimed.then_some(Aim { fault, plan, step })
}

impl Aim {
    /// The cluster on which the cell can be met.
    pub fn shape(&self) -> Shape {
        match (self.step, self.fault.kind) {
            (StepKind::AwaitApproval, _) => Shape::Asking,
            (StepKind::AwaitEvidence, Kind::Override) => Shape::Fenced,
            _ => Shape::Plain,
        }
    }

    /// What leads to the plan: a site dies, or a person moves the group away, after which it comes home by itself.
    fn opening(&self) -> Fault {
        match self.plan {
            PlanKind::Failover | PlanKind::Restart => Fault::of(Kind::SitePower, (OPENS_MS, 45_000), 0),
            _ => Fault::of(Kind::Switchover, (OPENS_MS, 1_000), 0),
        }
    }

    fn is_met(&self, world: &World) -> bool {
        let Some(ledger) = world.ledger() else { return false };
        let mut open = ledger.plans().values().filter(|plan| plan.is_open() && plan.plan.kind == self.plan);
        open.any(|plan| plan.current_step().is_some_and(|step| plan.plan.steps[step].kind == self.step))
    }

    /// The kinds of both faults.
    pub fn kinds(&self) -> [Kind; 2] {
        [self.opening().kind, self.fault.kind]
    }

    /// Opens the plan, waits for the step, and lets the fault happen then.
    pub fn storm(&self, world: &mut World, storm: Duration) -> Result<(), Violation> {
        let began = world.now_ns;
        let left = |world: &World| storm.saturating_sub(Duration::from_nanos(world.now_ns - began));
        let opening = self.opening();
        world.run_for(opening.at)?;
        world.mark(opening.kind.name(), true);
        opening.begin(world);
        world.run_until(WAITS_MAX, |world| self.is_met(world))?;
        if self.fault.kind == Kind::Override {
            world.run_for(LOOKS)?;
        }
        world.mark(self.fault.kind.name(), true);
        self.fault.begin(world);
        world.run_for(self.fault.span.min(left(world)))?;
        self.fault.end(world);
        world.mark(self.fault.kind.name(), false);
        world.run_for((opening.at + opening.span).saturating_sub(storm - left(world)))?;
        opening.end(world);
        world.mark(opening.kind.name(), false);
        world.run_for(left(world))
    }
}
