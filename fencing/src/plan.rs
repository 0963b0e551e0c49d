//! What a fence order will do: which level starts when, and what each would prove.
//!
//! A plan is data: the session carries it out, `fence run --dry-run` prints it.

use crate::evidence::{EvidenceKind, NotEnough, Scope, foresee};
use crate::facts::{DeviceFacts, Proves};
use crate::name::HostName;
use crate::request::{FenceOrder, Levels};
use crate::target::Target;
use crate::topology::{Topology, are_independent};
use serde::Serialize;

/// When a level starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Starts {
    /// At once.
    AtOnce,
    /// When these levels (counted from 1) have ended without proof: they share a device or an endpoint with it.
    After(Vec<usize>),
    /// It starts nothing: its proof comes from elsewhere, and it waits for that.
    Waits(&'static str),
}

/// One level of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedLevel {
    /// Its number in the topology, counted from 1.
    pub number: usize,
    /// Its devices.
    pub devices: Vec<DeviceFacts>,
    /// When it starts.
    pub starts: Starts,
    /// What it would prove.
    pub hope: Result<(EvidenceKind, Scope), NotEnough>,
}

/// What an order will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The order.
    pub order: FenceOrder,
    /// The host.
    pub target: Target,
    /// The levels asked for, in order.
    pub levels: Vec<PlannedLevel>,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPlan {
    /// The topology doesn't know the host.
    #[error("{0} has no fencing configured here")]
    UnknownTarget(HostName),
    /// None of the levels asked for exists.
    #[error("{0} has none of the levels asked for")]
    NoLevel(HostName),
}

impl Plan {
    /// Plans `order` on `topology`.
    ///
    /// # Errors
    /// [`NoPlan`] if the topology has nothing to offer for it.
    pub fn of(topology: &Topology, order: &FenceOrder) -> Result<Self, NoPlan> {
        let fenced =
            topology.targets().get(&order.target).ok_or_else(|| NoPlan::UnknownTarget(order.target.clone()))?;
        let mut levels: Vec<PlannedLevel> = Vec::new();
        for (index, level) in fenced.levels.iter().enumerate() {
            let number = index + 1;
            if matches!(&order.levels, Levels::Only(numbers) if !numbers.contains(&number)) {
                continue;
            }
            let devices = topology.level_facts(level);
            let starts = starts(&devices, &levels);
            let hope = foresee(order, &fenced.target, &devices);
            levels.push(PlannedLevel { number, devices: devices.into_iter().cloned().collect(), starts, hope });
        }
        if levels.is_empty() {
            return Err(NoPlan::NoLevel(order.target.clone()));
        }
        Ok(Self { order: order.clone(), target: fenced.target.clone(), levels })
    }
}

fn starts(devices: &[&DeviceFacts], earlier: &[PlannedLevel]) -> Starts {
    // A level waits as a whole if any of its devices does: it needs all of them.
    for facts in devices {
        if let Proves::Elsewhere(what) = facts.proves {
            return Starts::Waits(what);
        }
    }
    let clashes = |level: &&PlannedLevel| {
        let others: Vec<&DeviceFacts> = level.devices.iter().collect();
        !matches!(level.starts, Starts::Waits(_)) && !are_independent(devices, &others)
    };
    let after: Vec<usize> = earlier.iter().filter(clashes).map(|level| level.number).collect();
    if after.is_empty() { Starts::AtOnce } else { Starts::After(after) }
}
