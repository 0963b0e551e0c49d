//! Every kind of plan, interrupted at every step, in every way: it ends, or names the person's next command.

use crate::cluster::{Cluster, group, host, unsettled, until};
use antipode::cli::names_a_command;
use antipode::engine::{Answer, Move, Request};
use antipode::sim::{Place, World};
use quorum::id::{HostName, PlanId, VoterId};
use quorum::ledger::{Command, PlanKind, PlanState, StepKind};
use std::time::Duration;

/// How a step is interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interruption {
    /// The agent that executes it crashes, and is started again.
    ExecutorCrashes,
    /// The leader's agent crashes, and is started again.
    LeaderCrashes,
    /// The leader's whole host is switched off, and on again.
    LeaderLosesPower,
    /// Another voter is made to lead.
    LeaderMoves,
    /// Its work fails three times.
    Fails,
    /// Its work never ends.
    Hangs,
    /// Whatever was said of it is said again, by somebody else.
    IsRepeated,
}

const INTERRUPTIONS: [Interruption; 7] = [
    Interruption::ExecutorCrashes,
    Interruption::LeaderCrashes,
    Interruption::LeaderLosesPower,
    Interruption::LeaderMoves,
    Interruption::Fails,
    Interruption::Hangs,
    Interruption::IsRepeated,
];

/// A plan that hangs is told as overdue after its step's deadline; the longest of those that a driver can hang in is
/// the
/// stop's. Two back-offs more for it to go on.
const PATIENCE_SECS: u64 = 240;

fn names_of(kind: StepKind) -> &'static [&'static str] {
    match kind {
        StepKind::Promote => &["promote"],
        StepKind::Start => &["start"],
        StepKind::Probe => &["probe"],
        StepKind::Announce => &["announce"],
        StepKind::Stop => &["stop"],
        StepKind::Reverse => &["mirror"],
        _ => &["observe", "open-export"],
    }
}

/// Brings a settled cluster to the point where a plan of this kind begins.
fn begin(world: &mut World, kind: PlanKind) {
    let lasts = |world: &mut World, secs, what: &str, done: &dyn Fn(&World) -> bool| {
        assert!(until(world, secs, done).expect("no violation"), "not within {secs} s: {what}");
    };
    let owner = |world: &World| {
        let ledger = world.ledger()?;
        Some(ledger.group(&group("erp"))?.ticket.as_ref()?.of.host.clone())
    };
    match kind {
        PlanKind::Failover => world.power_off(&host("tk-1")),
        PlanKind::Switchover => {
            let leader = world.leader().cloned().expect("a leader");
            let wanted = Move {
                kind,
                group: group("erp"),
                toward: None,
                to: None,
                reason: "a test".into(),
                dry_run: false,
                accept_loss: false,
            };
            world.ask(&leader, Request::Move(wanted));
        }
        PlanKind::Failback => {
            world.power_off(&host("tk-1"));
            lasts(world, 60, "erp moved", &|world| owner(world) == Some(host("os-1")));
            world.power_on(&host("tk-1"));
        }
        PlanKind::Reprotect => {
            world.power_off(&host("os-1"));
            let alone = |world: &World| {
                world
                    .ledger()
                    .and_then(|ledger| ledger.group(&group("erp")))
                    .is_some_and(|state| state.in_sync.len() == 1)
            };
            lasts(world, 60, "os-1 is detached", &alone);
            world.power_on(&host("os-1"));
        }
        PlanKind::Migration | PlanKind::Restart | PlanKind::Stop | PlanKind::Drill => {
            panic!("{} plans are not begun by this version", kind.as_str())
        }
    }
}

fn open_plan(world: &World, kind: PlanKind) -> Option<&PlanState> {
    let open = world.ledger()?.open_plan(&group("erp"))?;
    (open.plan.kind == kind).then_some(open)
}

/// Runs until the plan is at this step. `None` if it passes without ever being there.
fn reach(world: &mut World, kind: PlanKind, step: StepKind) -> Option<(PlanId, Option<HostName>)> {
    for _ in 0..24_000 {
        world.run_for(Duration::from_millis(5)).expect("no violation");
        if let Some(plan) = open_plan(world, kind)
            && let Some(index) = plan.current_step()
        {
            let at = &plan.plan.steps[index];
            if at.kind == step {
                return Some((plan.id, at.host.clone()));
            }
        }
    }
    None
}

fn interrupt(world: &mut World, how: Interruption, (plan, executor): (PlanId, Option<HostName>), step: StepKind) {
    let leader = world.leader().cloned().unwrap_or_else(|| host("ng-1"));
    let executor = executor.unwrap_or_else(|| leader.clone());
    match how {
        Interruption::ExecutorCrashes => world.crash_agent(&executor),
        Interruption::LeaderCrashes => world.crash_agent(&leader),
        Interruption::LeaderLosesPower => {
            world.power_off(&leader);
            world.run_for(Duration::from_secs(3)).expect("no violation");
            world.power_on(&leader);
        }
        Interruption::LeaderMoves => {
            let to = if leader == host("os-1") { 3 } else { 2 };
            world.ask(&leader, Request::Transfer(VoterId(to)));
        }
        Interruption::Fails => {
            for name in names_of(step) {
                world.fail_work(&executor, &group("erp"), (name, 3));
            }
        }
        Interruption::Hangs => {
            for name in names_of(step) {
                world.hang_work(&executor, &group("erp"), name);
            }
        }
        Interruption::IsRepeated => {
            let Some(state) = world.ledger().and_then(|ledger| ledger.plans().get(&plan)).cloned() else { return };
            let number = state.current_step().and_then(|index| u32::try_from(index).ok()).unwrap_or_default();
            let again = [
                Command::StepStarted { plan, step: number, executor: host("ng-1") },
                Command::PlanOpened { plan: state.plan },
                Command::StepStarted { plan, step: number, executor },
            ];
            for command in again {
                world.ask(&leader, Request::Command(Box::new(command)));
            }
        }
    }
}

/// The plan ended, or a person is told what to do next.
fn verdict(world: &mut World, plan: PlanId) -> Result<(), String> {
    let is_over = |world: &World| {
        world.ledger().is_some_and(|ledger| ledger.plans().get(&plan).is_none_or(|plan| !plan.is_open()))
    };
    if until(world, PATIENCE_SECS, is_over).map_err(|violation| format!("{violation:?}"))? {
        return Ok(());
    }
    let leader = world.leader().cloned().ok_or("nobody leads")?;
    let ticket = world.ask(&leader, Request::Status);
    world.run_for(Duration::from_millis(200)).map_err(|violation| format!("{violation:?}"))?;
    let Some(Answer::Status(status)) = world.answers.get(&ticket) else { return Err("status isn't answered".into()) };
    let line = status.plans.iter().find(|line| line.id == plan.0).ok_or("status doesn't name the plan")?;
    if line.next.starts_with("antipode ") && names_a_command(&line.next) {
        return Ok(());
    }
    Err(format!("plan {plan} stays at {} ({}) and names no next command", line.step, line.state))
}

/// What hangs for ever is mended by a person; after that the cluster must get well.
fn gets_well(world: &mut World) -> Result<(), String> {
    world.heal();
    let is_well = |world: &World| unsettled(world).is_none();
    if until(world, PATIENCE_SECS, is_well).map_err(|violation| format!("{violation:?}"))? {
        return Ok(());
    }
    Err(format!("doesn't get well: {}", unsettled(world).unwrap_or_default()))
}

fn one(kind: PlanKind, step: StepKind, how: Interruption) -> Result<bool, String> {
    let mut cluster = Cluster::plain(77, std::env::var("ANTIPODE_TRACE").is_ok());
    let result = (|| {
        assert!(cluster.settle().map_err(|violation| format!("{violation:?}"))?, "the cluster settles");
        let world = &mut cluster.world;
        begin(world, kind);
        let Some(reached) = reach(world, kind, step) else { return Ok(false) };
        let plan = reached.0;
        interrupt(world, how, reached, step);
        verdict(world, plan)?;
        gets_well(world)?;
        Ok(true)
    })();
    if result.is_err() {
        for line in &cluster.world.trace {
            println!(
                "{:>11.6} {} {}",
                line.at_ns as f64 / 1e9,
                line.host.as_ref().map_or("world", HostName::as_str),
                line.text()
            );
        }
    }
    result
}

fn every_step(kind: PlanKind, steps: &[StepKind]) {
    let wanted = std::env::var("ANTIPODE_CASE").unwrap_or_default();
    let mut failures = Vec::new();
    let mut reached = 0;
    for step in steps {
        let mut here = 0;
        for how in INTERRUPTIONS {
            let case = format!("{} {step:?} {how:?}", kind.as_str());
            if !case.contains(&wanted) {
                continue;
            }
            match one(kind, *step, how) {
                Ok(is_reached) => here += usize::from(is_reached),
                Err(because) => failures.push(format!("{case}: {because}")),
            }
        }
        reached += here;
        if here == 0 && wanted.is_empty() && failures.is_empty() {
            failures.push(format!("{} never was at {step:?}", kind.as_str()));
        }
    }
    println!("{}: {reached} interruptions ended, or named the next command", kind.as_str());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

const BRING_UP: [StepKind; 5] =
    [StepKind::Grant, StepKind::Promote, StepKind::Start, StepKind::Announce, StepKind::Probe];

#[test]
fn a_failover_interrupted_anywhere_ends_or_names_the_next_command() {
    every_step(PlanKind::Failover, &[&[StepKind::AwaitEvidence][..], &BRING_UP].concat());
}

#[test]
fn a_switchover_interrupted_anywhere_ends_or_names_the_next_command() {
    every_step(PlanKind::Switchover, &[&[StepKind::Preflight, StepKind::Stop][..], &BRING_UP].concat());
}

#[test]
fn a_failback_interrupted_anywhere_ends_or_names_the_next_command() {
    every_step(PlanKind::Failback, &[&[StepKind::Preflight, StepKind::Stop][..], &BRING_UP].concat());
}

#[test]
fn a_reprotection_interrupted_anywhere_ends_or_names_the_next_command() {
    every_step(PlanKind::Reprotect, &[StepKind::Reverse, StepKind::AwaitInSync]);
}

#[test]
fn every_driver_step_has_work_that_can_fail() {
    let known = ["observe", "promote", "start", "probe", "announce", "stop", "open-export", "mirror"];
    for step in BRING_UP.into_iter().chain([StepKind::Stop, StepKind::Reverse]) {
        assert!(names_of(step).iter().all(|name| known.contains(name)), "{step:?}");
    }
    assert_eq!(Place::name(&antipode::engine::Work::Kill), "kill");
}
