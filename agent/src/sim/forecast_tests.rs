//! Forecasts held against what then happens in the world that they were made of.

use super::members_tests::*;
use super::*;
use crate::engine::{Answer, Order, Request, Scope};
use std::time::Duration;

fn site(name: &str) -> quorum::id::SiteName {
    quorum::id::SiteName::new(name).expect("a name")
}

/// What the witness answers to whoever asks for the state.
fn live(world: &mut World) -> Live {
    let ticket = world.ask(&host("ng-1"), Request::Live);
    let Some(Answer::Live { ledger, heard, unfenceable, .. }) = world.answers.get(&ticket) else {
        panic!("{:?}", world.answers.get(&ticket))
    };
    Live {
        ledger: crate::engine::decode_ledger(ledger).expect("a ledger"),
        heard: heard.iter().cloned().collect(),
        unfenceable: unfenceable.iter().cloned().collect(),
    }
}

fn of(world: &mut World, disaster: &Disaster) -> GroupForecast {
    let live = live(world);
    let forecast = what_if(&live, disaster).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(forecast.groups.len(), 1);
    forecast.groups[0].clone()
}

fn ordered(world: &mut World, order: Order) {
    let ticket = world.ask(&host("ng-1"), Request::Order { order, reason: "test".into() });
    done(world, ticket);
}

#[test]
fn what_is_foretold_of_a_lost_site_is_what_happens() {
    let mut world = settled(80);
    must(&mut world, 60, "erp is protected", is_protected);
    let index = world.ledger().expect("a ledger").applied();
    let told = of(&mut world, &Disaster::SiteLoss(site("tokyo")));
    assert_eq!(world.ledger().expect("a ledger").applied(), index, "a forecast is no entry of the log");
    assert_eq!((told.outcome, told.to.as_deref()), (Outcome::Moves, Some("os-1")), "{told:?}");
    assert_eq!(told.expected_rpo_ms, Some(0), "{told:?}");
    assert!(!told.protected && told.proven_by.iter().any(|by| by.contains("self-fenced")), "{told:?}");
    let began = world.now_ns;
    world.power_off(&host("tk-1"));
    let is_up = |world: &World| {
        let group = engine(world, "ng-1").and_then(|engine| engine.ledger().group(&erp()));
        let ticket = group.and_then(|group| group.ticket.as_ref());
        ticket.is_some_and(|ticket| {
            ticket.of.host == host("os-1") && ticket.state == quorum::ledger::TicketState::Running
        })
    };
    must(&mut world, 30, "erp is up at osaka", is_up);
    let took = Duration::from_nanos(world.now_ns - began);
    let foretold = Duration::from_millis(told.expected_rto_ms.expect("a time"));
    assert!(took.abs_diff(foretold) < Duration::from_secs(2), "foretold {foretold:?}, took {took:?}");
}

#[test]
fn nothing_moves_when_another_host_or_a_link_is_lost() {
    let mut world = settled(81);
    must(&mut world, 60, "erp is protected", is_protected);
    let told = of(&mut world, &Disaster::HostLoss(host("os-1")));
    assert_eq!((told.outcome, told.protected), (Outcome::Stays, false), "{told:?}");
    assert!(told.because.contains("second copy"), "{told:?}");
    let told = of(&mut world, &Disaster::LinkLoss(site("tokyo"), site("osaka")));
    assert_eq!((told.outcome, told.to.as_deref()), (Outcome::Stays, Some("tk-1")), "{told:?}");
    let told = of(&mut world, &Disaster::SiteLoss(site("osaka")));
    assert_eq!(told.outcome, Outcome::Stays, "{told:?}");
}

#[test]
fn a_copy_that_is_not_whole_now_takes_over_nothing() {
    let mut world = settled(82);
    must(&mut world, 60, "erp is protected", is_protected);
    world.power_off(&host("os-1"));
    must(&mut world, 60, "the mirror is detached", |world| !is_protected(world));
    pass(&mut world, 10);
    let told = of(&mut world, &Disaster::HostLoss(host("tk-1")));
    assert_eq!(told.outcome, Outcome::Held, "{told:?}");
    assert!(told.to.is_none() && !told.next.is_empty() && !told.because.is_empty(), "{told:?}");
    // Nor when its host is back and still has to be made equal.
    world.fail_work(&host("tk-1"), &erp(), ("mirror", 1_000));
    world.power_on(&host("os-1"));
    pass(&mut world, 20);
    let told = of(&mut world, &Disaster::SiteLoss(site("tokyo")));
    assert_eq!((told.outcome, told.to), (Outcome::Held, None));
}

#[test]
fn what_people_ordered_counts() {
    let mut world = settled(83);
    must(&mut world, 60, "erp is protected", is_protected);
    ordered(&mut world, Order::Pin { group: erp() });
    must(&mut world, 10, "erp is tied", |world| world.hosts[&host("tk-1")].places[&erp()].is_tied);
    let told = of(&mut world, &Disaster::SiteLoss(site("tokyo")));
    assert_eq!(told.outcome, Outcome::Held, "{told:?}");
    assert!(told.next.contains("thaw --pin erp"), "{told:?}");
    let ticket = world.ask(&host("tk-1"), Request::Order { order: Order::Unpin { group: erp() }, reason: "".into() });
    done(&mut world, ticket);
    let told = of(&mut world, &Disaster::SiteLoss(site("tokyo")));
    assert_eq!(told.outcome, Outcome::Moves, "{told:?}");
    ordered(&mut world, Order::Freeze { scope: Scope::Cluster, span_ms: 3_600_000, hold_activation: false });
    let told = of(&mut world, &Disaster::SiteLoss(site("tokyo")));
    assert_eq!((told.outcome, told.to.as_deref()), (Outcome::Held, None), "{told:?}");
}

#[test]
fn without_a_majority_the_way_out_is_named() {
    let mut world = settled(84);
    must(&mut world, 60, "erp is protected", is_protected);
    world.power_off(&host("os-1"));
    must(&mut world, 60, "the mirror is detached", |world| !is_protected(world));
    pass(&mut world, 10);
    let told = of(&mut world, &Disaster::SiteLoss(site("nagoya")));
    assert_eq!(told.outcome, Outcome::Held, "{told:?}");
    assert!(told.next.contains("quorum recover"), "{told:?}");
}

#[test]
fn a_place_that_the_spec_does_not_name_is_no_disaster() {
    let mut world = settled(85);
    let live = live(&mut world);
    let told = what_if(&live, &Disaster::SiteLoss(site("kyoto")));
    assert!(matches!(told, Err(NoForecast::Unknown(name)) if name == "kyoto"));
}
