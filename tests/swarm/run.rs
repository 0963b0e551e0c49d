//! One seed: settle, sixty seconds of faults, heal, converge.

use crate::aim::{self, Aim};
use crate::cluster::{Cluster, Shape, spoiled, unsettled, until};
use crate::faults::{self, Fault, Kind};
use antipode::cli::names_a_command;
use antipode::engine::{Answer, Matter, Order, Request};
use antipode::sim::{Random, Seen, Violation, World};
use quorum::id::HostName;
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

/// Faults happen for this long.
const STORM: Duration = Duration::from_secs(60);
/// Then the cluster has this long to be as it should be. Long enough for the slowest back-off and two leases.
const CONVERGE_SECS: u64 = 240;

/// Why a run failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The oracle saw this.
    Unsafe(Violation),
    /// It never became as it should be.
    Stuck(String),
    /// An assertion of the product or of the simulator.
    Panicked(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsafe(violation) => write!(f, "{}: {}", violation.invariant, violation.text),
            Self::Stuck(why) => write!(f, "stuck: {why}"),
            Self::Panicked(what) => write!(f, "panicked: {what}"),
        }
    }
}

/// What came of a run.
pub struct Outcome {
    pub verdict: Result<(), Failure>,
    pub simulated: Duration,
    pub is_on_blocks: bool,
    pub kinds: BTreeSet<&'static str>,
    pub seen: Seen,
    pub trace: Vec<String>,
}

pub fn run(seed: u64, is_traced: bool) -> Outcome {
    let whole = std::panic::AssertUnwindSafe(|| run_whole(seed, is_traced));
    std::panic::catch_unwind(whole).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default();
        Outcome {
            verdict: Err(Failure::Panicked(text)),
            simulated: Duration::ZERO,
            is_on_blocks: false,
            kinds: BTreeSet::new(),
            seen: Seen::default(),
            trace: Vec::new(),
        }
    })
}

fn run_whole(seed: u64, is_traced: bool) -> Outcome {
    let faults = faults::draw(&mut Random::new(seed ^ 0xFA_17));
    let aim = aim::of(seed, &faults[0]);
    let mut cluster = Cluster::new(seed, aim.as_ref().map(Aim::shape), is_traced);
    let kinds: Vec<Kind> = match &aim {
        Some(aim) => aim.kinds().into(),
        None => faults.iter().map(|fault| fault.kind).collect(),
    };
    let verdict = live(&mut cluster, (aim.as_ref(), &faults));
    let world = &cluster.world;
    let line = |trace: &antipode::sim::Trace| {
        let host = trace.host.as_ref().map_or_else(|| "world".to_owned(), ToString::to_string);
        format!("{:>11.6} {host:6} {}", trace.at_ns as f64 / 1e9, trace.text())
    };
    Outcome {
        verdict,
        simulated: Duration::from_nanos(world.now_ns),
        is_on_blocks: cluster.is_on_blocks,
        kinds: kinds.into_iter().map(Kind::name).collect(),
        seen: world.oracle().seen().clone(),
        trace: world.trace.iter().map(line).collect(),
    }
}

fn live(cluster: &mut Cluster, (aim, faults): (Option<&Aim>, &[Fault])) -> Result<(), Failure> {
    if !cluster.settle().map_err(Failure::Unsafe)? {
        return Err(Failure::Stuck(format!("before any fault: {}", unsettled(&cluster.world).unwrap_or_default())));
    }
    cluster.blind();
    let stormed = match aim {
        Some(aim) => aim.storm(&mut cluster.world, STORM),
        None => storm(&mut cluster.world, faults),
    };
    stormed.map_err(Failure::Unsafe)?;
    cluster.world.heal();
    converge(cluster)
}

/// Begins and ends each fault at its time, marked for coverage while it lasts.
pub fn storm(world: &mut World, faults: &[Fault]) -> Result<(), Violation> {
    let began = world.now_ns;
    let mut edges: Vec<(Duration, bool, &Fault)> = Vec::new();
    for fault in faults {
        edges.push((fault.at, true, fault));
        edges.push((fault.at + fault.span, false, fault));
    }
    edges.sort_by_key(|(at, is_begin, _)| (*at, !is_begin));
    for (at, is_begin, fault) in edges.into_iter().filter(|(at, ..)| *at < STORM) {
        let passed = Duration::from_nanos(world.now_ns - began);
        world.run_for(at.saturating_sub(passed))?;
        if is_begin {
            world.mark(fault.kind.name(), true);
            fault.begin(world);
        } else {
            fault.end(world);
            world.mark(fault.kind.name(), false);
        }
    }
    let passed = Duration::from_nanos(world.now_ns - began);
    world.run_for(STORM.saturating_sub(passed))?;
    for fault in faults {
        world.mark(fault.kind.name(), false);
    }
    Ok(())
}

/// Everything works again: the cluster gets well by itself, but for what a person has to say.
fn converge(cluster: &mut Cluster) -> Result<(), Failure> {
    for _ in 0..CONVERGE_SECS / 5 {
        person_says(cluster);
        let is_well = |world: &World| unsettled(world).is_none();
        if until(&mut cluster.world, 5, is_well).map_err(Failure::Unsafe)? {
            return Ok(());
        }
    }
    let why = unsettled(&cluster.world).unwrap_or_default();
    if spoiled(&cluster.world) > 0 && has_next_command(&mut cluster.world)? {
        return Ok(());
    }
    Err(Failure::Stuck(format!("{CONVERGE_SECS} s after everything was healed: {why}")))
}

/// The next commands that status names, given by a person who read it; who was proven dead is switched on again.
fn person_says(cluster: &mut Cluster) {
    let world = &mut cluster.world;
    for host in proven_and_off(world) {
        world.power_on(&host);
    }
    let (Some(leader), Some(ledger)) = (world.leader().cloned(), world.ledger()) else { return };
    let mut orders = Vec::new();
    if ledger.brake().is_some() {
        orders.push(Order::ReleaseBrake);
    }
    if cluster.shape == Shape::Asking {
        let open = ledger.plans().values().filter(|plan| plan.is_open() && plan.denied.is_none());
        orders.extend(open.map(|plan| Order::Approve { matter: Matter::Plan(plan.id.0) }));
    }
    for order in orders {
        world.ask(&leader, Request::Order { order, reason: "read it in status".into() });
    }
}

/// Hosts that a fence device switched off, after the proof: nothing of the product's switches them on.
fn proven_and_off(world: &World) -> Vec<HostName> {
    let Some(ledger) = world.ledger() else { return Vec::new() };
    let is_proven = |host: &HostName| {
        let state = ledger.host(host).and_then(|state| state.incarnations.get(&state.he));
        state.is_some_and(|incarnation| !incarnation.evidence.is_empty())
    };
    world.hosts.iter().filter(|(host, at)| !at.is_powered() && is_proven(host)).map(|(host, _)| host.clone()).collect()
}

/// Where a machine can't be repaired by itself, status tells a person what to do, by commands that there are.
fn has_next_command(world: &mut World) -> Result<bool, Failure> {
    let Some(leader) = world.leader().cloned() else { return Ok(spoiled(world) > 1) };
    let ticket = world.ask(&leader, Request::Status);
    world.run_for(Duration::from_millis(500)).map_err(Failure::Unsafe)?;
    let Some(Answer::Status(status)) = world.answers.get(&ticket) else { return Ok(false) };
    let mut named = status.attention.iter().map(|line| line.next.as_str()).filter(|next| next.contains("antipode "));
    if let Some(unknown) = named.clone().find(|next| !names_a_command(next)) {
        return Err(Failure::Stuck(format!("status names a command that there isn't: {unknown:?}")));
    }
    Ok(named.next().is_some())
}
