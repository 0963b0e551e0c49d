//! The swarm: the simulated cluster under random faults. Safety always; then everything is healed, and it must
//! converge.
//!
//! One seed is one run and always the same one: a cluster that has settled, sixty seconds with at least two faults, an
//! end to all of them, and the demand that every group runs, is protected and no plan is left without a person's next
//! command. `make swarm SEEDS=n` runs many in a build of its own; `make swarm SEED=n` tells one as a trace.
//! Seeds that once failed are in `tests/seeds.txt`, each with its reason, and are run first.

#[path = "swarm/aim.rs"]
mod aim;
#[path = "swarm/cluster.rs"]
mod cluster;
#[path = "swarm/faults.rs"]
mod faults;
#[cfg(feature = "mutants")]
#[path = "swarm/hunt.rs"]
mod hunt;
#[path = "swarm/interrupt.rs"]
mod interrupt;
#[cfg(feature = "mutants")]
#[path = "swarm/planted.rs"]
mod planted;
#[path = "swarm/run.rs"]
mod run;
#[path = "swarm/table.rs"]
mod table;
#[path = "swarm/unreached.rs"]
mod unreached;

use run::Failure;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;
use table::Table;

/// Runs of an ordinary test run; `make swarm` sets `ANTIPODE_SEEDS`.
const SEEDS: u64 = 24;
/// From this many on, an empty cell of the coverage table is a failure.
const SEEDS_COVERING: u64 = 10_000;
const SEEDS_TXT: &str = include_str!("seeds.txt");

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

fn known_seeds() -> Vec<u64> {
    let lines = SEEDS_TXT.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split_whitespace().next().and_then(|seed| seed.parse().ok()).expect("a seed")).collect()
}

#[test]
fn every_known_seed_has_a_reason() {
    for line in SEEDS_TXT.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        let (seed, reason) = line.split_once(' ').unwrap_or((line, ""));
        assert!(seed.parse::<u64>().is_ok() && reason.trim().len() > 20, "no seed with a reason: {line:?}");
    }
}

#[test]
fn seeds_that_once_failed_pass() {
    for seed in known_seeds() {
        if let Err(failure) = run::run(seed, false).verdict {
            panic!("seed {seed}: {failure}");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let first = run::run(4, true);
    let second = run::run(4, true);
    assert_eq!(first.trace, second.trace);
    assert_ne!(first.trace, run::run(5, true).trace);
}

#[test]
fn swarm() {
    if let Some(seed) = number("ANTIPODE_SEED") {
        let outcome = run::run(seed, true);
        println!("{}", outcome.trace.join("\n"));
        assert!(outcome.verdict.is_ok(), "seed {seed}: {}", outcome.verdict.unwrap_err());
        return;
    }
    let seeds = number("ANTIPODE_SEEDS").unwrap_or(SEEDS);
    let first = number("ANTIPODE_SEED_FIRST").unwrap_or(1);
    let keep_going = number("ANTIPODE_KEEP_GOING").is_some();
    let next = AtomicU64::new(first);
    let stop = AtomicBool::new(false);
    let table = Mutex::new(Table::default());
    let failures: Mutex<Vec<(u64, Failure)>> = Mutex::new(Vec::new());
    let began = Instant::now();
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds {
                        return;
                    }
                    let outcome = run::run(seed, false);
                    table.lock().expect("the table").add(&outcome);
                    if let Err(failure) = outcome.verdict {
                        eprintln!("seed {seed}: {failure}");
                        failures.lock().expect("the failures").push((seed, failure));
                        stop.fetch_or(!keep_going, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let table = table.into_inner().expect("the table");
    println!("{}", table.show(began.elapsed()));
    let failures = failures.into_inner().expect("the failures");
    let replay = failures.first().map(|(seed, _)| format!("make swarm SEED={seed}")).unwrap_or_default();
    assert!(failures.is_empty(), "{} of {seeds} seeds failed; replay: {replay}", failures.len());
    if seeds >= SEEDS_COVERING {
        let empty = table.empty_cells();
        assert!(empty.is_empty(), "cells that nothing reached:\n{}", empty.join("\n"));
    }
}
