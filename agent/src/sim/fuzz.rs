//! A cluster's history as fuzzers and frozen bytes need it: a real log, and the ledger that it leads to.

use super::spec::DEMO;
use super::{World, WorldSpec};
use crate::engine::{Request, decode_entry};
use quorum::id::{HostName, SiteName, VoterId};
use quorum::ledger::{Entry, Ledger};
use quorum::replica::EntryKind;
use std::time::Duration;

/// The three hosts: name, site, vote. The witness comes last and leads.
pub(crate) const HOSTS: [(&str, &str, u64); 3] = [("tk-1", "tokyo", 1), ("os-1", "osaka", 2), ("ng-1", "nagoya", 3)];

fn host(name: &str) -> HostName {
    HostName::new(name).expect("a name")
}

fn go(world: &mut World, secs: u64) {
    world.run_for(Duration::from_secs(secs)).expect("no violation");
}

/// That cluster with the group up at home and protected.
pub(crate) fn settled(seed: u64) -> World {
    let hosts = HOSTS.map(|(name, site, vote)| {
        (host(name), SiteName::new(site).expect("a name"), Some(VoterId(vote)), name == "ng-1")
    });
    let mut world = World::new(&WorldSpec {
        seed,
        hosts: hosts.into(),
        groups: vec![("erp".parse().expect("a name"), vec![host("tk-1"), host("os-1")])],
        watchdog_worst: Duration::from_millis(1_100),
        round_trip_max: Duration::from_millis(40),
    });
    HOSTS.iter().for_each(|(name, _, _)| world.power_on(&host(name)));
    go(&mut world, 3);
    let apply = Request::Apply { source: DEMO.into(), dry_run: false, reason: "a test".into() };
    let _ticket = world.ask(&host("ng-1"), apply);
    go(&mut world, 25);
    world
}

/// Entries from the first on, in the order of the log, and the ledger after them: a cluster is founded, takes its spec,
/// protects a group, loses the group's site and moves it.
pub(crate) fn history() -> (Vec<Entry>, Ledger) {
    let mut world = settled(11);
    world.power_off(&host("tk-1"));
    go(&mut world, 12);
    let witness = &world.hosts[&host("ng-1")];
    let ledger = witness.engine().expect("the witness runs").ledger().clone();
    let mut store = witness.disk.open().expect("a whole disk");
    let loaded = store.load().expect("a whole disk");
    let entries = loaded.entries.iter().filter_map(|entry| match &entry.kind {
        EntryKind::Normal(data) => decode_entry(data).ok(),
        EntryKind::Empty | EntryKind::Membership(_) => None,
    });
    (entries.collect(), ledger)
}
