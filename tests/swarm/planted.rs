//! What the swarm is worth: each of these faults, planted in the product, is noticed, and by the invariant that it
//! breaks.

use crate::hunt::{HUNTS, Hunt, TRIES};
use crate::run::{Failure, run};

/// Seeds that are run until one fails.
const SEEDS_MAX: u64 = 600;

/// Faults that are planted together, and what is noticed: invariants of the oracle, `stuck` or `liveness`.
pub const TABLE: [(&[&str], &[&str]); 7] = [
    (&["ledger.grant_without_evidence"], &["I1", "I2", "I4"]),
    (&["lease.grant_after_end"], &["I5"]),
    (
        &[
            "policy.minority_declares",
            "policy.one_domain_declares",
            "policy.ignores_who_hears",
            "ledger.minority_declares",
            "ledger.one_domain_declares",
            "ledger.heard_and_lost",
            "ledger.insider_ignored",
        ],
        &["I8"],
    ),
    (&["runner.starts_with_copies_in_sync"], &["I10"]),
    (&["engine.applies_by_the_clock"], &["I14"]),
    (&["engine.comes_home_in_trouble", "ledger.failback_while_fencing"], &["I19"]),
    (&["engine.answers_with_a_storm"], &["liveness"]),
];

fn what(failure: &Failure) -> String {
    match failure {
        Failure::Unsafe(violation) => violation.invariant.to_owned(),
        Failure::Stuck(_) => "stuck".to_owned(),
        Failure::Panicked(_) => "panicked".to_owned(),
    }
}

/// The first seed that fails with these faults planted, and how.
fn first_failure(faults: &[&str]) -> Option<(u64, Failure)> {
    let _planted: Vec<_> = faults.iter().map(|fault| quorum::mutants::plant(fault)).collect();
    (1..=SEEDS_MAX).find_map(|seed| run(seed, false).verdict.err().map(|failure| (seed, failure)))
}

#[test]
fn every_planted_fault_is_noticed_by_the_invariant_that_it_breaks() {
    let mut wrong = Vec::new();
    for (faults, expected) in TABLE {
        let name = faults.join(" + ");
        match first_failure(faults) {
            Some((seed, failure)) if expected.contains(&what(&failure).as_str()) => {
                println!("{name}: seed {seed}, {failure}");
            }
            Some((seed, failure)) => wrong.push(format!("{name}: expected {expected:?}, seed {seed} gave {failure}")),
            None => wrong.push(format!("{name}: nothing is noticed in {SEEDS_MAX} seeds, expected {expected:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The first offset at which the hunt fails, and how.
fn first_catch(hunt: &Hunt) -> Option<(u64, Failure)> {
    (0..TRIES).find_map(|offset| (hunt.play)(offset).err().map(|failure| (offset, failure)))
}

#[test]
fn every_hunt_notices_the_planted_fault_that_it_is_after() {
    let mut wrong = Vec::new();
    for hunt in &HUNTS {
        let name = hunt.faults.join(" + ");
        let caught = {
            let _planted: Vec<_> = hunt.faults.iter().map(|fault| quorum::mutants::plant(fault)).collect();
            first_catch(hunt)
        };
        match caught {
            Some((offset, failure)) if hunt.expected.contains(&what(&failure).as_str()) => {
                println!("{name}: offset {offset}, {failure}");
            }
            Some((offset, failure)) => {
                wrong.push(format!("{name}: expected {:?}, offset {offset} gave {failure}", hunt.expected));
            }
            None => wrong.push(format!("{name}: nothing is noticed at {TRIES} offsets")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_hunt_fails_without_its_fault() {
    for hunt in &HUNTS {
        let name = hunt.faults.join(" + ");
        assert_eq!(first_catch(hunt), None, "{name}");
    }
}

/// Seeds that failed before a guard was there fail again without it.
#[test]
fn a_known_seed_fails_again_without_the_guard_that_it_led_to() {
    let seeds = [(5891, "replica.withholds_votes", "stuck"), (5648, "runner.stays_one_ahead", "stuck")];
    for (seed, fault, expected) in seeds {
        let _planted = quorum::mutants::plant(fault);
        let failure = run(seed, false).verdict.expect_err(fault);
        assert_eq!(what(&failure), expected, "{fault}: {failure}");
    }
}
