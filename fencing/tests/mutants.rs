//! Each planted fault is caught by a named claim, and the claim holds without the fault.

#[expect(dead_code, reason = "session.rs runs the claims that guard against no planted fault")]
mod claims;

use fencing::mutants;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Fault, and the claims that catch it.
const CAUGHT_BY: [(&str, &str, fn()); 12] = {
    macro_rules! row {
        ($fault:literal, $claim:ident) => {
            ($fault, stringify!($claim), claims::$claim as fn())
        };
    }
    [
        row!("rc-as-proof", a_device_that_accepts_off_and_stays_on_proves_nothing),
        row!("skip-second-read", a_machine_that_comes_back_within_the_settle_time_is_not_proven_off),
        row!("skip-settle", the_two_readings_lie_a_settle_time_apart),
        row!("skip-identity", the_wrong_machine_is_never_switched_nor_taken_as_proof),
        row!("ignore-feed", one_of_two_feeds_is_not_enough),
        row!("feeds-apart", feeds_must_be_off_at_the_same_time),
        row!("storage-alone", storage_exclusion_alone_is_not_enough),
        row!("accelerator-as-proof", a_poison_pill_is_never_evidence),
        row!("between-as-off", a_state_between_on_and_off_is_not_off),
        row!("one-device-of-level", all_devices_of_a_level_must_succeed),
        row!("stale-stamp", an_overtaken_task_may_not_call_devices),
        row!("login-again", a_refused_login_is_not_tried_again),
    ]
};

#[test]
fn every_planted_fault_is_caught_by_its_claim() {
    for (fault, claim, check) in CAUGHT_BY {
        check();
        let caught = catch_unwind(AssertUnwindSafe(|| mutants::with(fault, check))).is_err();
        assert!(caught, "the fault {fault} was planted and {claim} still held");
        println!("{fault:24} caught by {claim}");
    }
}

#[test]
fn every_fault_that_can_be_planted_is_listed() {
    let known: Vec<&str> = mutants::ALL.iter().map(|(fault, _)| *fault).collect();
    let listed: Vec<&str> = CAUGHT_BY.iter().map(|(fault, _, _)| *fault).collect();
    assert_eq!(known, listed);
}

#[test]
fn the_documentation_tells_each_fault_with_the_claim_that_catches_it() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/README.md")).unwrap();
    for (fault, claim, _) in CAUGHT_BY {
        let told =
            page.lines().any(|line| line.contains(&format!("| `{fault}`:")) && line.contains(&format!("`{claim}`")));
        assert!(told, "docs/README.md doesn't tell that {claim} catches {fault}");
    }
}
