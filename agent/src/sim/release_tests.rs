//! Stories of what a keeper proves gone, and of what it never let begin.

use super::members_tests::{engine, erp, host, isolate, must, pass, runs_on, said, spec, tail};
use super::*;
use crate::engine::{Engine, Request};
use quorum::id::{SiteName, VoterId};
use quorum::ledger::Class;
use std::time::Duration;

/// A host whose lease proves nothing is granted the group at the moment at which its keeper ends its host epoch: the
/// keeper can't name a group that it was never told of, and no lease speaks for it. It comes home all the same.
#[test]
fn a_grant_that_came_too_late_to_be_armed_is_released_too() {
    let site = |name: &str| SiteName::new(name).expect("a name");
    let hosts =
        [("tk-1", "tokyo", Some(1)), ("os-1", "osaka", Some(2)), ("os-2", "osaka", None), ("ng-1", "nagoya", Some(3))];
    let of = |(name, at, vote): (&str, &str, Option<u64>)| (host(name), site(at), vote.map(VoterId), name == "ng-1");
    let mut world = World::new(&WorldSpec {
        seed: 51,
        hosts: hosts.into_iter().map(of).collect(),
        groups: vec![(erp(), vec![host("tk-1"), host("os-1")])],
        watchdog_worst: Duration::from_millis(1_100),
        round_trip_max: Duration::from_millis(40),
    });
    world.hosts.get_mut(&host("tk-1")).expect("a host").spec.class = Class::C;
    for (name, ..) in hosts {
        world.power_on(&host(name));
    }
    pass(&mut world, 3);
    let source = spec().replace("accept = [\"self-fenced\"]", "accept = [\"self-fenced\", \"powered-off\"]");
    let _ticket = world.ask(&host("ng-1"), Request::Apply { source, dry_run: false, reason: "test".into() });
    let is_granted = |world: &World, at: &str| {
        let group = engine(world, at).and_then(|engine| engine.ledger().group(&erp()));
        group.is_some_and(|group| group.ticket.is_some())
    };
    let is_absent = |world: &World| {
        let group = engine(world, "ng-1").and_then(|engine| engine.ledger().group(&erp()));
        group.is_some_and(|group| group.owners.is_empty() && group.ticket.is_none())
    };
    // What the leader has just proposed is on its way; that it was committed never reaches tk-1.
    must(&mut world, 30, "nothing of erp runs anywhere", is_absent);
    isolate(&mut world, "tk-1", true);
    must(&mut world, 10, "erp is granted to tk-1", |world| is_granted(world, "ng-1"));
    pass(&mut world, 20);
    assert!(!is_granted(&world, "tk-1"), "it hasn't heard of it: {}", tail(&world));
    assert!(said(&world, "HostLost") && !runs_on(&world, "os-1"), "its lease proves nothing: {}", tail(&world));
    isolate(&mut world, "tk-1", false);
    must(&mut world, 60, "erp runs at home", |world| runs_on(world, "tk-1"));
    assert!(engine(&world, "ng-1").is_some_and(Engine::is_leader));
}

/// The guard is taken away once: the story that watches it must notice.
#[cfg(feature = "mutants")]
#[test]
fn the_release_of_a_late_grant_is_watched_by_a_story() {
    let _planted = quorum::mutants::plant("engine.late_grant_never_released");
    let noticed = std::panic::catch_unwind(a_grant_that_came_too_late_to_be_armed_is_released_too);
    assert!(noticed.is_err(), "it goes unnoticed");
}
