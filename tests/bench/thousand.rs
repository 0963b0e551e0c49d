//! What a thousand hosts cost one voter: real connections with distinct certificates from another process, leases on.
//!
//! `cargo bench -p antipode --bench thousand -- [--hosts 1000] [--seconds 60] [--rest 150] [--storms 1]`. The voter is the
//! program that `ANTIPODE_BIN` names, the one built with the bench without it; this process plays the hosts: the
//! production engine and transport each, only the keeper's page is made up. Prints the voter's share of a core and its
//! resident memory: right after all hosts came, when they have rested (connections that only coming needed are closed
//! after a minute, memory goes back within another), and both again after each reconnect storm, in which every host's
//! process "restarts" at once. Asserts nothing but that the cluster came up.

#[path = "thousand/host.rs"]
mod host;
#[path = "thousand/voter.rs"]
mod voter;

use host::Hosts;
use std::time::{Duration, Instant};
use voter::Voter;

/// All hosts must hold leases within this.
const UP_WITHIN: Duration = Duration::from_secs(300);

fn main() {
    let count = argument("--hosts", 1_000);
    let span = Duration::from_secs(argument("--seconds", 60) as u64);
    let rest = Duration::from_secs(argument("--rest", 150) as u64);
    let storms = argument("--storms", 1);
    // Each host has a socket; the voter's connections are within one.
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let limit = rustix::process::Rlimit { current: most, maximum: most };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).expect("as many open files as allowed");
    let folder = tempfile::tempdir().expect("a scratch folder");
    let voter = Voter::start(folder.path(), count);
    let mut hosts = Hosts::start(folder.path(), count);
    println!("{count} hosts, one voter, beats and lease requests at 1 Hz, {} s a measurement", span.as_secs());
    println!("{:<34}{:>14}{:>16}{:>8}", "voter", "% of a core", "MB resident", "leases");
    measure("just connected", (&voter, &hosts, count), span);
    pass(rest);
    measure("at rest", (&voter, &hosts, count), span);
    for number in 1..=storms {
        drop(hosts);
        let began = Instant::now();
        hosts = Hosts::start(folder.path(), count);
        wait_for_leases(&hosts, count);
        let took = began.elapsed().as_secs_f64();
        println!("storm {number}: all hosts restarted at once, all with a lease again after {took:.1} s");
        measure(&format!("just after storm {number}"), (&voter, &hosts, count), span);
        pass(rest);
        measure(&format!("at rest after storm {number}"), (&voter, &hosts, count), span);
    }
}

fn wait_for_leases(hosts: &Hosts, count: usize) {
    let began = Instant::now();
    while hosts.with_lease() < count {
        assert!(began.elapsed() < UP_WITHIN, "only {} of {count} hosts hold a lease", hosts.with_lease());
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

fn measure(name: &str, (voter, hosts, count): (&Voter, &Hosts, usize), span: Duration) {
    wait_for_leases(hosts, count);
    let before = voter.cost();
    let began = Instant::now();
    pass(span);
    let after = voter.cost();
    let share = 100.0 * (after.seconds - before.seconds) / began.elapsed().as_secs_f64();
    println!("{name:<34}{share:>14.2}{:>16.1}{:>8}", after.resident_mb, hosts.with_lease());
}

fn pass(span: Duration) {
    let began = Instant::now();
    while began.elapsed() < span {
        std::thread::park_timeout(span.saturating_sub(began.elapsed()));
    }
}

fn argument(name: &str, default: usize) -> usize {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.nth(1).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} takes a number")))
}
