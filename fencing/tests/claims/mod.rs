//! Claims about sessions, each a function that panics when it doesn't hold.
//!
//! `session.rs` runs them as they are; `mutants.rs` runs each again with the fault planted that it must catch.

pub mod world;

use fencing::evidence::EvidenceKind;
use fencing::facts::Proves;
use fencing::gate::Gate;
use fencing::moment::Moment;
use fencing::name::HostName;
use fencing::request::{AddressMove, Stamp};
use fencing::session::Note;
use fencing::verdict::{Ended, Unproven, Verdict};
use world::{Double, Quirk, Run, double, feed, ms, order, plan, run, storage, target};

fn one(quirk: Quirk) -> (Vec<Double>, Run) {
    let doubles = vec![double("bmc", Proves::Machine, quirk)];
    let run = run(plan(target(&[]), &order(20_000), &doubles, &[&[0]]), &doubles);
    (doubles, run)
}

fn unproven(run: &Run) -> &Unproven {
    match &run.verdict {
        Verdict::Unproven(unproven) => unproven,
        Verdict::Proven { evidence } => panic!("this must not be proven: {evidence:?}"),
    }
}

fn proven_kind(run: &Run) -> EvidenceKind {
    match &run.verdict {
        Verdict::Proven { evidence } => evidence.kind(),
        Verdict::Unproven(unproven) => panic!("this must be proven: {unproven}"),
    }
}

pub fn an_honest_device_proves_within_its_settle_time() {
    let (_, run) = one(Quirk::Honest(300));
    assert_eq!(proven_kind(&run), EvidenceKind::PoweredOff);
    run.must_not_be_a_false_proof(&target(&[]));
    assert!(run.concluded < Moment::from_millis(2_000), "{:?}", run.concluded);
}

pub fn a_device_that_accepts_off_and_stays_on_proves_nothing() {
    let (_, run) = one(Quirk::AcceptsAndStaysOn);
    let unproven = unproven(&run);
    assert_eq!(unproven.ended, Ended::Deadline);
    assert_eq!(unproven.contrary.len(), 1, "the reading \"on\" must be shown: {unproven:?}");
    assert!(unproven.reasons[0].text.contains("still reads: on"), "{unproven}");
}

pub fn a_machine_that_comes_back_within_the_settle_time_is_not_proven_off() {
    let (_, run) = one(Quirk::ComesBack(600));
    let unproven = unproven(&run);
    assert!(unproven.reasons[0].text.contains("came back"), "{unproven}");
    assert!(run.notes.iter().any(|note| matches!(note, Note::CameBack { .. })), "{:?}", run.notes);
}

pub fn the_two_readings_lie_a_settle_time_apart() {
    let (_, run) = one(Quirk::Honest(0));
    assert_eq!(proven_kind(&run), EvidenceKind::PoweredOff);
    run.must_not_be_a_false_proof(&target(&[]));
}

pub fn the_wrong_machine_is_never_switched_nor_taken_as_proof() {
    let (doubles, run) = one(Quirk::WrongMachine);
    let unproven = unproven(&run);
    assert_eq!(unproven.ended, Ended::Exhausted);
    assert!(unproven.reasons[0].text.contains("another machine"), "{unproven}");
    assert!(run.logs[&doubles[0].facts.name].offs.is_empty(), "the wrong machine was switched off");
}

pub fn a_device_that_names_no_machine_is_never_switched() {
    let (doubles, run) = one(Quirk::Nameless);
    assert_eq!(unproven(&run).ended, Ended::Exhausted);
    assert!(run.logs[&doubles[0].facts.name].offs.is_empty());
}

pub fn one_of_two_feeds_is_not_enough() {
    let mut order = order(10_000);
    order.allowed = ms(10_000);
    // The level covers only feed a: a configuration check refuses it, so the plan is made by hand.
    let doubles = vec![double("pdu-a", feed("a"), Quirk::Honest(0)), double("pdu-b", feed("b"), Quirk::Honest(0))];
    let mut plan = plan(target(&["a", "b"]), &order, &doubles, &[&[0, 1]]);
    plan.levels[0].devices.truncate(1);
    let run = run(plan, &doubles);
    let unproven = unproven(&run);
    assert!(unproven.reasons.iter().any(|reason| reason.text.contains("feeds")), "{unproven}");
}

pub fn feeds_must_be_off_at_the_same_time() {
    let target = target(&["a", "b"]);
    // Outlet a is off for 1.5 s and comes back; outlet b goes off only after that. Each reads off twice, never both at
    // once, and the time allowed ends before a second attempt at outlet a could be confirmed.
    let doubles =
        vec![double("pdu-a", feed("a"), Quirk::ComesBack(1_500)), double("pdu-b", feed("b"), Quirk::Honest(2_000))];
    let run = run(plan(target.clone(), &order(3_500), &doubles, &[&[0, 1]]), &doubles);
    run.must_not_be_a_false_proof(&target);
    unproven(&run);
}

pub fn all_devices_of_a_level_must_succeed() {
    // The BMC alone would do as a level of its own; whoever writes an outlet into the same level wants both.
    let doubles = vec![double("bmc", Proves::Machine, Quirk::Honest(0)), double("pdu", feed("a"), Quirk::Hangs)];
    let run = run(plan(target(&["a"]), &order(10_000), &doubles, &[&[0, 1]]), &doubles);
    let unproven = unproven(&run);
    assert_eq!(unproven.ended, Ended::Deadline);
    assert!(unproven.reasons.iter().any(|reason| reason.silent), "{unproven}");
}

pub fn two_feeds_off_together_are_proof() {
    let target = target(&["a", "b"]);
    let doubles = vec![double("pdu-a", feed("a"), Quirk::Honest(0)), double("pdu-b", feed("b"), Quirk::Honest(900))];
    let run = run(plan(target.clone(), &order(10_000), &doubles, &[&[0, 1]]), &doubles);
    assert_eq!(proven_kind(&run), EvidenceKind::PoweredOff);
    run.must_not_be_a_false_proof(&target);
}

pub fn storage_exclusion_alone_is_not_enough() {
    let doubles = vec![double("pr", storage(), Quirk::Honest(0))];
    let run = run(plan(target(&[]), &order(10_000), &doubles, &[&[0]]), &doubles);
    let unproven = unproven(&run);
    assert!(unproven.reasons.iter().any(|reason| reason.text.contains("storage exclusion alone")), "{unproven}");
}

pub fn storage_exclusion_with_network_isolation_is_enough() {
    let doubles = vec![double("pr", storage(), Quirk::Honest(0)), double("port", Proves::Network, Quirk::Honest(0))];
    let run = run(plan(target(&[]), &order(10_000), &doubles, &[&[0, 1]]), &doubles);
    assert_eq!(proven_kind(&run), EvidenceKind::StorageExcluded);
    run.must_not_be_a_false_proof(&target(&[]));
}

pub fn storage_exclusion_with_an_epoch_checked_address_move_is_enough() {
    let doubles = vec![double("pr", storage(), Quirk::Honest(0))];
    let mut order = order(10_000);
    order.address_move = AddressMove::EpochChecked;
    let run = run(plan(target(&[]), &order, &doubles, &[&[0]]), &doubles);
    assert_eq!(proven_kind(&run), EvidenceKind::StorageExcluded);
}

pub fn a_poison_pill_is_never_evidence() {
    let doubles = vec![double("sbd", Proves::Nothing("a poison pill only asks the host to die"), Quirk::Honest(0))];
    let run = run(plan(target(&[]), &order(10_000), &doubles, &[&[0]]), &doubles);
    assert_eq!(unproven(&run).ended, Ended::Exhausted);
    assert_eq!(run.logs[&doubles[0].facts.name].offs.len(), 1, "it must have been written");
}

pub fn a_poison_pill_that_was_refused_is_sent_again() {
    let mut pill = double("sbd", Proves::Nothing("a poison pill only asks the host to die"), Quirk::RefusesWhenOff);
    pill.off = true;
    let doubles = vec![pill];
    let run = run(plan(target(&[]), &order(10_000), &doubles, &[&[0]]), &doubles);
    assert_eq!(unproven(&run).ended, Ended::Deadline);
    assert!(run.logs[&doubles[0].facts.name].offs.len() > 2, "it was given up after one attempt");
}

pub fn a_state_between_on_and_off_is_not_off() {
    let (_, run) = one(Quirk::StaysBetween);
    assert!(unproven(&run).reasons[0].text.contains("powering off"));
}

pub fn a_refused_login_is_not_tried_again() {
    let (doubles, run) = one(Quirk::RefusesLogin);
    assert_eq!(unproven(&run).ended, Ended::Exhausted);
    assert_eq!(run.logs[&doubles[0].facts.name].logins_refused, 1, "a lockout was provoked");
}

pub fn an_overtaken_task_may_not_call_devices() {
    let host = HostName::new("tk-p1").unwrap();
    let at = |index| Stamp { era: 1, term: 1, index };
    let mut gate = Gate::default();
    gate.admit(&host, 4, at(10)).unwrap();
    gate.admit(&host, 4, at(11)).unwrap();
    assert!(gate.check(&host, 4, at(10)).is_err(), "an overtaken task passed");
}

pub fn already_off_counts_by_state_and_nothing_is_sent() {
    let mut doubles = vec![double("bmc", Proves::Machine, Quirk::RefusesWhenOff)];
    doubles[0].off = true;
    let run = run(plan(target(&[]), &order(10_000), &doubles, &[&[0]]), &doubles);
    assert_eq!(proven_kind(&run), EvidenceKind::PoweredOff);
    assert!(run.logs[&doubles[0].facts.name].offs.is_empty());
}

pub fn a_refusal_because_already_off_is_settled_by_reading() {
    let mut doubles = vec![double("pdu", feed("a"), Quirk::RefusesWhenOff)];
    doubles[0].off = true;
    let run = run(plan(target(&["a"]), &order(10_000), &doubles, &[&[0]]), &doubles);
    assert_eq!(proven_kind(&run), EvidenceKind::PoweredOff);
    run.must_not_be_a_false_proof(&target(&["a"]));
}

pub fn independent_levels_run_together_and_the_first_evidence_ends_the_rest() {
    let doubles = vec![double("bmc", Proves::Machine, Quirk::Hangs), double("pdu", feed("a"), Quirk::Honest(0))];
    let run = run(plan(target(&["a"]), &order(20_000), &doubles, &[&[0], &[1]]), &doubles);
    let Verdict::Proven { evidence } = &run.verdict else { panic!("{}", run.verdict) };
    assert_eq!(evidence.level(), 2);
    assert!(run.concluded < Moment::from_millis(2_000), "level 2 waited for level 1: {:?}", run.concluded);
    assert!(run.finished.since(run.concluded) <= ms(10), "the rest wasn't ended cleanly");
}

pub fn levels_at_one_endpoint_never_run_together_and_the_second_gets_its_share() {
    let mut doubles = vec![
        double("bmc-ipmi", Proves::Machine, Quirk::Hangs),
        double("bmc-redfish", Proves::Machine, Quirk::Honest(0)),
    ];
    for double in &mut doubles {
        double.facts.endpoint = "10.0.0.9".into();
    }
    let run = run(plan(target(&[]), &order(20_000), &doubles, &[&[0], &[1]]), &doubles);
    assert_eq!(proven_kind(&run), EvidenceKind::PoweredOff);
    assert!(!run.crowded, "two calls met at one endpoint");
}

pub fn a_level_that_waits_yields_no_evidence_and_ends_with_the_deadline() {
    let doubles = vec![double("self", Proves::Elsewhere("the lease to run out"), Quirk::Honest(0))];
    let run = run(plan(target(&[]), &order(5_000), &doubles, &[&[0]]), &doubles);
    let unproven = unproven(&run);
    assert_eq!(unproven.ended, Ended::Deadline);
    assert_eq!(unproven.waits_for, ["the lease to run out"]);
    assert!(run.logs.is_empty(), "a level that waits called a device");
}

pub fn a_whole_site_that_is_silent_is_said_to_be() {
    let doubles = vec![double("bmc", Proves::Machine, Quirk::Hangs), double("pdu", feed("a"), Quirk::Hangs)];
    let run = run(plan(target(&["a"]), &order(8_000), &doubles, &[&[0], &[1]]), &doubles);
    assert!(unproven(&run).is_all_silent());
}
