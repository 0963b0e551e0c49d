//! The runs of the ticket model.

use crate::logbook::{Answered, FIRST, Halt, Logbook, Order, Released};
#[cfg(feature = "mutants")]
use crate::run::breaks_planted;
use crate::run::{Name, breaks, holds};
use crate::ticket::{Bounds, Fault, INERT, ONE, RETIRED, State, Ticket};
use stateright::Model as _;
use std::collections::BTreeSet;

const fn name(variant: &'static str) -> Name {
    Name { model: "ticket", variant }
}

/// Keepers are replaced twice in the same boot while starts are in flight.
const KEEPERS: Bounds = Bounds { boots: 1, keepers: 2, ..Bounds::FAILOVER };

/// Planned moves, their abort, and agents that restart at any point of them.
const MOVES: Bounds =
    Bounds { admissions: 1, boots: 1, intents: 2, epochs: 4, agent_restarts: true, ..Bounds::FAILOVER };

/// Answers arrive as late as one likes.
const LATE: Bounds = Bounds { epochs: 2, late_answers: true, ..Bounds::FAILOVER };

const PINS: Bounds = Bounds { pins: true, epochs: 2, ..Bounds::FAILOVER };

const ERAS: Bounds = Bounds { eras: true, admissions: 1, epochs: 2, ..Bounds::FAILOVER };

fn sound(bounds: Bounds) -> Ticket {
    Ticket::new(bounds, Fault::None)
}

#[test]
fn losses_reboots_and_late_messages_never_make_two() {
    holds(name("failover, reboots, Released late"), sound(Bounds::FAILOVER));
}

#[test]
fn replaced_keepers_never_make_two() {
    holds(name("keepers replaced, starts in flight"), sound(KEEPERS));
}

#[test]
fn planned_moves_and_restarted_agents_never_make_two() {
    holds(name("planned moves, agents restart"), sound(MOVES));
}

#[test]
fn late_answers_never_make_two() {
    holds(name("answers arrive late"), sound(LATE));
}

#[test]
fn pinned_groups_never_make_two() {
    holds(name("pins"), sound(PINS));
}

#[test]
fn a_new_era_never_makes_two() {
    holds(name("a new era from a ledger that is behind"), sound(ERAS));
}

#[test]
fn a_start_in_flight_past_the_kill_is_unsafe() {
    let model = Ticket::new(Bounds::FAILOVER, Fault::ResumesWithStartInFlight);
    breaks(name("keeper resumes petting with a start in flight"), RETIRED, model);
}

#[test]
fn a_host_epoch_that_survives_a_reboot_is_unsafe() {
    let model = Ticket::new(Bounds::FAILOVER, Fault::HeSurvivesReboot);
    breaks(name("he that survives a reboot"), INERT, model);
}

#[test]
fn a_released_that_names_no_epoch_is_unsafe() {
    let model = Ticket::new(Bounds::FAILOVER, Fault::ReleasedNamesNoEpoch);
    breaks(name("Released delayed past re-admission"), INERT, model);
}

#[test]
fn a_keeper_that_arms_the_same_epoch_again_is_unsafe() {
    let model = Ticket::new(Bounds::FAILOVER, Fault::RearmsTheSameEpoch);
    breaks(name("same he armed again after Released"), INERT, model);
}

#[test]
fn attesting_before_the_kill_is_unsafe() {
    let model = Ticket::new(Bounds::FAILOVER, Fault::AttestsBeforeItKills);
    breaks(name("Released before the kill"), INERT, model);
}

#[test]
fn a_replaced_keeper_that_attests_without_killing_is_unsafe() {
    breaks(
        name("replaced keeper attests, kills nothing"),
        RETIRED,
        Ticket::new(KEEPERS, Fault::RestartAttestsUnkilled),
    );
}

#[test]
fn a_ticket_read_before_the_restart_is_unsafe() {
    breaks(name("stale ticket read after agent restart"), ONE, Ticket::new(MOVES, Fault::StaleTicket));
}

#[test]
fn a_stopped_that_counts_after_its_abort_is_unsafe() {
    breaks(name("Stopped after Abort"), ONE, Ticket::new(MOVES, Fault::StoppedAfterAbort));
}

#[test]
fn an_owner_that_resumes_before_it_read_the_abort_is_unsafe() {
    breaks(name("owner resumes before it applied Abort"), ONE, Ticket::new(MOVES, Fault::ResumesBeforeAbort));
}

#[test]
fn an_older_boots_late_hello_is_unsafe() {
    breaks(name("hello of an older boot delivered late"), INERT, Ticket::new(LATE, Fault::LateHello));
}

#[test]
fn a_released_that_lists_a_pinned_group_is_unsafe() {
    breaks(name("Released of a host with a pin"), RETIRED, Ticket::new(PINS, Fault::ReleasedListsPinned));
}

/// Two ledgers that look alike to the models decide every order alike, so a view may stand for both.
#[test]
fn ledgers_with_equal_views_decide_alike() {
    let compared =
        [Bounds { epochs: 2, ..Bounds::FAILOVER }, MOVES, Bounds { admissions: 1, ..PINS }, ERAS].map(|bounds| {
            let model = Ticket { book: Logbook::suspicious(), ..sound(bounds) };
            walk(&model);
            model.book.check_merges(&every_order(), 200)
        });
    println!("ledgers compared: {compared:?}");
    assert!(compared.iter().all(|count| *count > 50), "{compared:?}");
}

/// Visits every state of a model in this thread.
fn walk(model: &Ticket) {
    let mut open = model.init_states();
    let mut seen: BTreeSet<State> = open.iter().cloned().collect();
    while let Some(state) = open.pop() {
        for next in model.next_states(&state) {
            if seen.insert(next.clone()) {
                open.push(next);
            }
        }
    }
}

fn every_order() -> Vec<Order> {
    let mut orders = vec![Order::Abort, Order::BeginEra, Order::UnpinProven];
    for host in [0, 1] {
        orders.extend([
            Order::Lose { host },
            Order::Expired { host },
            Order::Grant { host },
            Order::Intend { from: host },
            Order::Pin { host },
            Order::Acknowledge { host },
            Order::UnpinRearmed { host },
        ]);
        for (boot, keeper, he) in [(1, 1, FIRST), (1, 2, FIRST), (2, 2, FIRST), (2, 2, FIRST + 1), (2, 3, 0x21)] {
            orders.push(Order::Admit { host, boot, keeper });
            let era = he >> 4;
            orders.extend([true, false].map(|lists| Order::Released(Released { host, he, boot, keeper, era, lists })));
            let answered = Answered { host, boot, keeper, drawn: he, remnant: false, armed: 0 };
            orders.push(Order::Answered(answered));
            orders.extend([0, 1, 2].map(|intent| Order::Stopped(Halt { host, he, epoch: intent + 1, intent })));
        }
    }
    orders
}

/// The same model over the product's ledger and voters with a fault planted in them.
#[cfg(feature = "mutants")]
#[test]
fn faults_planted_in_the_products_own_rules_are_seen() {
    let run = |variant, invariant, (bounds, planted): (Bounds, &'static [&'static str])| {
        let model = Ticket { planted, ..sound(bounds) };
        breaks_planted(name(variant), invariant, (planted, model));
    };
    run("planted: grant without evidence", ONE, (Bounds::FAILOVER, &["ledger.grant_without_evidence"]));
    run("planted: a late hello counts", INERT, (LATE, &["ledger.late_hello_returns", "ledger.late_hello_retires"]));
    run("planted: Stopped after Abort", ONE, (MOVES, &["ledger.stopped_after_abort"]));
    run("planted: evidence of another group", RETIRED, (PINS, &["ledger.evidence_of_another_group"]));
    run("planted: a pin and the lease", RETIRED, (PINS, &["ledger.pin_and_lease"]));
    run("planted: self-fenced across eras", ONE, (ERAS, &["ledger.lease_across_eras"]));
    run("planted: recover keeps the old owners", ONE, (ERAS, &["ledger.era_keeps_owners"]));
    // Each of the two rules alone covers a reboot, because a reboot brings another keeper as well.
    let neither: &[&str] = &["lease.grant_other_boot", "lease.grant_other_instance"];
    run("planted: voters grant to another boot", INERT, (Bounds::FAILOVER, neither));
    run("planted: voters grant after the end", INERT, (Bounds::FAILOVER, &["lease.grant_after_end"]));
}
