//! Sessions in a made-up world: every claim by name, then thousands of random worlds.

mod claims;

use claims::world::{Double, Quirk, double, feed, ms, order, plan, run, storage, target};
use fencing::facts::Proves;
use fencing::moment::Moment;
use fencing::verdict::Verdict;
use proptest::prelude::*;

macro_rules! claims {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            claims::$name();
        }
    )*};
}

claims! {
    an_honest_device_proves_within_its_settle_time
    a_device_that_accepts_off_and_stays_on_proves_nothing
    a_machine_that_comes_back_within_the_settle_time_is_not_proven_off
    the_two_readings_lie_a_settle_time_apart
    the_wrong_machine_is_never_switched_nor_taken_as_proof
    a_device_that_names_no_machine_is_never_switched
    one_of_two_feeds_is_not_enough
    feeds_must_be_off_at_the_same_time
    all_devices_of_a_level_must_succeed
    two_feeds_off_together_are_proof
    storage_exclusion_alone_is_not_enough
    storage_exclusion_with_network_isolation_is_enough
    storage_exclusion_with_an_epoch_checked_address_move_is_enough
    a_poison_pill_is_never_evidence
    a_poison_pill_that_was_refused_is_sent_again
    a_state_between_on_and_off_is_not_off
    a_refused_login_is_not_tried_again
    an_overtaken_task_may_not_call_devices
    already_off_counts_by_state_and_nothing_is_sent
    a_refusal_because_already_off_is_settled_by_reading
    independent_levels_run_together_and_the_first_evidence_ends_the_rest
    levels_at_one_endpoint_never_run_together_and_the_second_gets_its_share
    a_level_that_waits_yields_no_evidence_and_ends_with_the_deadline
    a_whole_site_that_is_silent_is_said_to_be
}

fn quirk() -> impl Strategy<Value = Quirk> {
    prop_oneof![
        4 => (0u64..5_000).prop_map(Quirk::Honest),
        1 => Just(Quirk::AcceptsAndStaysOn),
        1 => Just(Quirk::RefusesWhenOff),
        3 => (0u64..4_000).prop_map(Quirk::ComesBack),
        1 => Just(Quirk::WrongMachine),
        1 => Just(Quirk::Nameless),
        1 => Just(Quirk::Hangs),
        2 => (0u64..8_000).prop_map(Quirk::FallsSilent),
        1 => Just(Quirk::BreaksOff),
        1 => Just(Quirk::Garbage),
        2 => (0u64..8_000).prop_map(Quirk::ChangesCertificate),
        1 => Just(Quirk::RefusesLogin),
        1 => Just(Quirk::StaysBetween),
        2 => (0u64..6_000).prop_map(Quirk::Slow),
    ]
}

#[derive(Clone, Copy, Debug)]
enum Shape {
    Machine,
    TwoFeeds,
    StorageAndPort,
    StorageAlone,
    Pill,
    MachineAndPill,
    Waits,
}

fn shape() -> impl Strategy<Value = Shape> {
    prop_oneof![
        Just(Shape::Machine),
        Just(Shape::TwoFeeds),
        Just(Shape::StorageAndPort),
        Just(Shape::StorageAlone),
        Just(Shape::Pill),
        Just(Shape::MachineAndPill),
        Just(Shape::Waits),
    ]
}

fn devices_of(shape: Shape) -> Vec<Proves> {
    let pill = Proves::Nothing("a poison pill only asks the host to die");
    match shape {
        Shape::Machine => vec![Proves::Machine],
        Shape::TwoFeeds => vec![feed("a"), feed("b")],
        Shape::StorageAndPort => vec![storage(), Proves::Network],
        Shape::StorageAlone => vec![storage()],
        Shape::Pill => vec![pill],
        Shape::MachineAndPill => vec![Proves::Machine, pill],
        Shape::Waits => vec![Proves::Elsewhere("the lease to run out")],
    }
}

fn level() -> impl Strategy<Value = (Shape, Vec<(Quirk, bool, bool)>)> {
    (shape(), prop::collection::vec((quirk(), prop::bool::weighted(0.2), prop::bool::weighted(0.4)), 2))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_random_world_yields_a_false_proof_a_hang_or_silence_about_the_reason(
        levels in prop::collection::vec(level(), 1..4),
        allowed in 1_000u64..30_000,
    ) {
        let mut doubles: Vec<Double> = Vec::new();
        let mut indices: Vec<Vec<usize>> = Vec::new();
        for (shape, quirks) in &levels {
            let first = doubles.len();
            for (proves, (quirk, off, shared)) in devices_of(*shape).into_iter().zip(quirks) {
                let mut double = double(&format!("d{}", doubles.len()), proves, *quirk);
                double.off = *off;
                // Devices of one level stay apart from each other, or the level could never run.
                double.facts.endpoint = if *shared { format!("bus-{}", doubles.len() - first) } else { String::new() };
                doubles.push(double);
            }
            indices.push((first..doubles.len()).collect());
        }
        let levels: Vec<&[usize]> = indices.iter().map(Vec::as_slice).collect();
        let target = target(&["a", "b"]);
        let run = run(plan(target.clone(), &order(allowed), &doubles, &levels), &doubles);

        run.must_not_be_a_false_proof(&target);
        prop_assert!(run.concluded <= Moment::from_millis(allowed), "concluded {:?} after {allowed} ms", run.concluded);
        prop_assert!(run.finished.since(run.concluded) <= ms(10), "calls outlived the verdict");
        prop_assert!(!run.crowded, "two calls met at one device or endpoint");
        for (device, log) in &run.logs {
            prop_assert!(log.logins_refused <= 1, "{device}: login tried again after it was refused");
            prop_assert!(!log.switched_before_identified, "{device}: switched before it said whose machine it is");
        }
        if let Verdict::Unproven(unproven) = &run.verdict {
            prop_assert!(!unproven.reasons.is_empty());
            prop_assert!(unproven.reasons.iter().all(|reason| !reason.text.is_empty()));
        }
    }
}
