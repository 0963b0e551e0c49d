//! When a host lets what comes in gather: as long as nothing that comes is waited for, and never for longer than its lease
//! bears.

use super::members_tests::*;
use super::*;
use crate::engine::Resting;
use quorum::ledger::PlanState;
use std::time::Duration;

fn rest(world: &World, at: &str) -> Option<Resting> {
    engine(world, at).expect("it runs").rest()
}

/// Whatever the beginning needed is over.
fn at_rest(seed: u64) -> World {
    let mut world = settled(seed);
    must(&mut world, 20, "os-2 rests", |world| rest(world, "os-2").is_some());
    world
}

fn is_plan_open(world: &World) -> bool {
    engine(world, "os-2").is_some_and(|engine| engine.ledger().plans().values().any(PlanState::is_open))
}

#[test]
fn a_host_without_a_vote_looks_once_a_beat_and_a_voter_at_once() {
    let world = at_rest(70);
    for voter in ["tk-1", "os-1", "ng-1"] {
        assert_eq!(rest(&world, voter).and_then(|resting| resting.look), None, "{voter}");
    }
    assert!(rest(&world, "ng-1").is_some(), "a voter's acknowledgements may wait for beats, too");
    let resting = rest(&world, "os-2").expect("it rests");
    let every = resting.look.expect("not at once");
    assert_eq!(resting.beat, every);
    let timing = engine(&world, "os-2").expect("it runs").timing();
    assert_eq!(every, timing.beat);
    let mut tight = timing.clone();
    tight.lease -= timing.lease_spare();
    assert!(every <= tight.jitter + timing.lease_spare(), "an answer lies longer than the lease bears");
}

/// All voters' agents restart and know nothing of os-2 any more. Whether os-2 has within three seconds what the
/// voters then agreed on: their beats tell that there is more.
fn has_what_is_new() -> bool {
    let mut world = at_rest(75);
    pass(&mut world, 20);
    let term = |world: &World, at: &str| engine(world, at).map(|engine| engine.ledger().position().term);
    let before = term(&world, "os-2");
    for voter in ["tk-1", "os-1", "ng-1"] {
        world.crash_agent(&host(voter));
        world.start_agent(&host(voter));
    }
    must(&mut world, 20, "another term has begun", |world| term(world, "tk-1") > before);
    world.run_until(Duration::from_secs(3), &|world: &World| term(world, "os-2") > before).expect("no violation")
}

#[test]
fn a_follower_whose_voter_forgot_it_asks_as_soon_as_beats_say_that_there_is_more() {
    assert!(has_what_is_new());
}

#[test]
#[cfg(feature = "mutants")]
fn a_follower_that_does_not_listen_to_beats_is_noticed() {
    let _planted = quorum::mutants::plant("engine.asks_late");
    assert!(!has_what_is_new());
}

#[test]
fn a_host_looks_at_once_while_a_plan_is_open() {
    let mut world = at_rest(71);
    world.isolate(&host("tk-1"), true);
    must(&mut world, 20, "a plan is open", is_plan_open);
    assert_eq!(rest(&world, "os-2"), None);
    must(&mut world, 60, "erp runs at osaka, and that plan is over", |world| {
        runs_on(world, "os-1") && !is_plan_open(world)
    });
    must(&mut world, 10, "os-2 rests again", |world| rest(world, "os-2").is_some());
}

#[test]
fn a_host_whose_lease_is_over_looks_at_once() {
    let mut world = at_rest(72);
    world.isolate(&host("os-2"), true);
    must(&mut world, 20, "its lease is over", |world| rest(world, "os-2").is_none());
}

#[test]
fn a_host_that_wishes_for_a_vote_looks_at_once() {
    let mut world = at_rest(73);
    let asked = members(&mut world, "os-2", add("os-2", None));
    assert_eq!(rest(&world, "os-2"), None, "it waits for the answer");
    done(&mut world, asked);
}

/// os-2 goes on hearing the voters while they don't hear it. How often it thinks that one of them fell silent.
fn silences_heard_by_a_mute_host() -> usize {
    let mut world = at_rest(76);
    for voter in ["tk-1", "os-1", "ng-1"] {
        world.cut(&host("os-2"), &host(voter), true);
    }
    pass(&mut world, 10);
    let by_it = world.trace.iter().filter(|line| line.host == Some(host("os-2")));
    by_it.filter(|line| line.text().contains("\"event\":\"suspect\"")).count()
}

#[test]
fn a_host_that_is_not_heard_is_sent_beats_all_the_same() {
    assert_eq!(silences_heard_by_a_mute_host(), 0);
}

#[test]
#[cfg(feature = "mutants")]
fn a_voter_that_only_replies_is_noticed() {
    let _planted = quorum::mutants::plant("heartbeat.only_replies");
    assert!(silences_heard_by_a_mute_host() > 0);
}
