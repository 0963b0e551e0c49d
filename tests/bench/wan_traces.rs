//! False declarations in generated WAN traces: the product's detector and declaration policy, with an accrual detector
//! and a fixed timeout beside them on the very same beats.
//!
//! `cargo bench -p antipode --bench wan-traces -- [--days 60] [--seed 1]`. Prints counts, asserts nothing: a declaration
//! is *false* if no blackout of the whole site of at least T_D − Δ in the trace explains it.

#[path = "wan_traces/judges.rs"]
mod judges;
#[path = "wan_traces/trace.rs"]
mod trace;

use judges::{Counts, Judges};
use std::time::Instant;
use trace::Trace;

/// Days that one simulated world lasts; worlds differ by seed and run on all cores.
const WORLD_DAYS: u64 = 5;

fn main() {
    let days = argument("--days", 60);
    let seed = argument("--seed", 1);
    let worlds = days.div_ceil(WORLD_DAYS);
    let began = Instant::now();
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let workers: Vec<_> = (0..cores)
        .map(|core| {
            std::thread::spawn(move || {
                let mine = (core..worlds).step_by(cores as usize);
                mine.fold(Counts::default(), |all, world| all.plus(&run(seed * 1_000 + world)))
            })
        })
        .collect();
    let counts = workers
        .into_iter()
        .map(|worker| worker.join().expect("a world ends"))
        .fold(Counts::default(), |all, one| all.plus(&one));
    print!("{}", counts.text(worlds * WORLD_DAYS));
    println!("{:.0} s of real time, seed {seed}, {cores} cores", began.elapsed().as_secs_f64());
}

fn run(seed: u64) -> Counts {
    let mut judges = Judges::new();
    Trace::new(seed, WORLD_DAYS).run(&mut judges);
    judges.counts
}

fn argument(name: &str, default: u64) -> u64 {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.nth(1).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} takes a number")))
}
