//! The runs of the voter change model.

use crate::change::{Change, Fault, INERT};
#[cfg(feature = "mutants")]
use crate::run::breaks_planted;
use crate::run::{Name, breaks, holds, long_run_wanted};

const fn name(variant: &'static str) -> Name {
    Name { model: "change", variant }
}

#[test]
fn a_change_of_voters_at_a_lease_of_1_is_safe() {
    holds(name("{0,1,2} -> joint -> {0,1,3}, L1"), Change::replace(1, Fault::None));
}

#[test]
fn a_change_of_voters_at_a_lease_of_2_is_safe() {
    let name = name("{0,1,2} -> joint -> {0,1,3}, L2");
    if long_run_wanted(name) {
        holds(name, Change::replace(2, Fault::None));
    }
}

fn replace(fault: Fault) -> Change {
    Change::replace(1, fault)
}

#[test]
fn counting_grants_of_all_configurations_together_is_unsafe() {
    breaks(name("change that keeps old grants (no id)"), INERT, replace(Fault::MixesConfigurations));
}

#[test]
fn keeping_waits_across_a_change_is_unsafe() {
    breaks(name("change that keeps old waits"), INERT, replace(Fault::KeepsWaits));
}

#[test]
fn granting_under_the_applied_configuration_while_one_is_pending_is_unsafe() {
    breaks(name("grants tagged with the applied configuration"), INERT, replace(Fault::GrantsWhilePending));
}

#[test]
fn expired_without_a_configuration_is_unsafe() {
    // In one change no voter but the new one could profit, and that one has to wait after it applied the change.
    let model = Change::there_and_back(1, Fault::UntaggedExpired).with_lost_behind(2).begun_in_the_middle();
    breaks(name("Expired without a configuration id"), INERT, model);
}

#[test]
fn expired_of_a_superseded_configuration_is_unsafe() {
    breaks(name("Expired with equal but superseded ids"), INERT, replace(Fault::SupersededExpired));
}

#[test]
fn a_snapshot_that_keeps_waits_is_unsafe() {
    breaks(name("snapshot that skips a configuration change"), INERT, replace(Fault::SnapshotKeepsWaits));
}

#[test]
fn counting_a_learners_grant_is_unsafe() {
    breaks(name("a learner's grant counted"), INERT, replace(Fault::LearnerCounts));
}

#[test]
fn an_id_made_of_the_members_is_unsafe() {
    let model = Change::there_and_back(1, Fault::IdByMembers).with_lost_behind(2).begun_in_the_middle();
    breaks(name("configuration id by member set"), INERT, model);
}

/// The same model over the product's functions with a fault planted in them.
#[cfg(feature = "mutants")]
#[test]
fn faults_planted_in_the_products_own_functions_are_seen() {
    for (variant, planted) in [
        (
            "planted: a configuration keeps waits",
            &["lease.configuration_keeps_grants", "lease.snapshot_keeps_grants"][..],
        ),
        ("planted: a snapshot keeps waits", &["lease.snapshot_keeps_grants"]),
        ("planted: grants while pending", &["lease.grant_while_pending"]),
        ("planted: grants after the end", &["lease.grant_after_end"]),
    ] {
        breaks_planted(name(variant), INERT, (planted, replace(Fault::None).planted(planted)));
    }
}
