//! Stories of mixed releases: an upgrade host by host, a host that was left behind, one that goes back.

use super::fuzz::{HOSTS, settled};
use super::*;
use crate::engine::Engine;
use quorum::id::HostName;
use std::time::Duration;

const RESTART: Duration = Duration::from_millis(300);

fn host(name: &str) -> HostName {
    HostName::new(name).expect("a name")
}

fn engine<'a>(world: &'a World, name: &str) -> Option<&'a Engine> {
    world.hosts[&host(name)].engine()
}

fn version(world: &World) -> u32 {
    HOSTS
        .iter()
        .filter_map(|(name, _, _)| engine(world, name))
        .map(|engine| engine.ledger().version())
        .max()
        .unwrap_or(0)
}

fn told(world: &World, text: &str) -> usize {
    world.trace.iter().filter(|line| line.text().contains(text)).count()
}

fn runs_at_home(world: &World) -> bool {
    let group = "erp".parse().expect("a name");
    world.hosts[&host("tk-1")].places[&group].running.is_some()
}

/// The agent of `name` is replaced by that of a release that understands `version`.
fn restart(world: &mut World, name: &str, version: u32) {
    world.install(&host(name), version);
    world.kill_agent(&host(name));
    world.run_for(RESTART).expect("no violation");
    world.start_agent(&host(name));
    world.run_for(Duration::from_secs(8)).expect("no violation");
}

/// Host by host to version 2, the group's own host in the middle.
fn upgraded(seed: u64) -> World {
    let mut world = settled(seed);
    assert!(runs_at_home(&world), "the story begins with a group that runs");
    for name in ["os-1", "tk-1", "ng-1"] {
        assert_eq!(version(&world), 1, "not before {name} understands it");
        restart(&mut world, name, 2);
    }
    world.run_for(Duration::from_secs(5)).expect("no violation");
    world
}

#[test]
fn an_upgrade_host_by_host_moves_nothing_and_raises_the_version_at_its_end() {
    let mut world = upgraded(21);
    assert_eq!(version(&world), 2);
    assert!(HOSTS.iter().all(|(name, _, _)| engine(&world, name).is_some_and(|engine| engine.ledger().version() == 2)));
    assert_eq!((told(&world, "halt"), told(&world, "HostLost"), told(&world, "keeper killed")), (0, 0, 0));
    assert!(runs_at_home(&world));
    let raised = told(&world, "ClusterVersionSet");
    world.run_for(Duration::from_secs(10)).expect("no violation");
    assert_eq!(told(&world, "ClusterVersionSet"), raised, "once");
}

#[test]
fn a_host_that_was_left_behind_holds_the_version_back_and_is_named() {
    let mut world = settled(22);
    for name in ["ng-1", "tk-1"] {
        restart(&mut world, name, 2);
    }
    assert_eq!(version(&world), 1);
    let status = engine(&world, "ng-1").expect("it runs").status();
    assert_eq!((status.version.cluster, status.version.here, status.version.behind), (1, 2, vec!["os-1".to_owned()]));
    assert!(status.attention.iter().any(|line| line.code == "version-behind"), "{:?}", status.attention);
    // Going back is possible as long as the version wasn't raised, and is said.
    restart(&mut world, "tk-1", 1);
    restart(&mut world, "os-1", 2);
    assert_eq!((version(&world), told(&world, "halt")), (1, 0));
    restart(&mut world, "tk-1", 2);
    assert_eq!(version(&world), 2);
    assert!(runs_at_home(&world));
}

#[test]
fn a_release_that_does_not_understand_the_version_in_force_ends_and_says_why() {
    let mut world = upgraded(23);
    restart(&mut world, "os-1", 1);
    assert!(told(&world, "the cluster is at version 2 and this release understands 1 at most") > 0);
    assert!(runs_at_home(&world), "the others go on");
    restart(&mut world, "os-1", 2);
    let ends = told(&world, "halt");
    world.run_for(Duration::from_secs(5)).expect("no violation");
    assert_eq!(told(&world, "halt"), ends, "the right release stays");
}

#[cfg(feature = "mutants")]
#[test]
fn a_version_that_is_raised_too_early_is_noticed() {
    let early = quorum::mutants::plant("engine.raises_early");
    let mut world = settled(24);
    restart(&mut world, "ng-1", 2);
    assert_eq!((version(&world), told(&world, "halt")), (1, 0), "the ledger refuses it");
    let unchecked = quorum::mutants::plant("ledger.version_unsupported");
    world.run_for(Duration::from_secs(40)).expect("no violation");
    assert!(told(&world, "halt") > 0, "hosts that don't understand it end");
    drop((early, unchecked));
}
