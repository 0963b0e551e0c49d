//! Stories of hosts that come back: by themselves, or by a person's word.

use super::members_tests::*;
use super::*;
use crate::engine::{Answer, Order, Request, StatusDocument};
use std::time::Duration;

fn readmit(world: &mut World, of: &str) -> Answer {
    let order = Order::ReadmitHost { host: host(of) };
    let ticket = world.ask(&host("ng-1"), Request::Order { order, reason: "its power supply was replaced".into() });
    must(world, 30, "the person is answered", |world| world.answers.contains_key(&ticket));
    world.answers[&ticket].clone()
}

fn status(world: &World) -> StatusDocument {
    engine(world, "ng-1").expect("it runs").status()
}

fn attention<'a>(status: &'a StatusDocument, code: &str) -> Option<&'a crate::engine::AttentionLine> {
    status.attention.iter().find(|line| line.code == code)
}

fn is_admitted(world: &World, of: &str) -> bool {
    engine(world, "ng-1").is_some_and(|engine| engine.ledger().admitted(&host(of)).is_some())
}

/// osaka's host is lost three times in an hour.
fn flapping(seed: u64) -> World {
    let mut world = settled(seed);
    for _ in 0..3 {
        world.power_off(&host("os-1"));
        must(&mut world, 30, "os-1 is lost", |world| !is_admitted(world, "os-1"));
        world.power_on(&host("os-1"));
        must(&mut world, 30, "os-1 is back", |world| is_admitted(world, "os-1"));
        must(&mut world, 60, "erp is protected again", is_protected);
    }
    world
}

#[test]
fn a_host_that_kept_getting_lost_is_held_until_a_person_lets_it_back() {
    let mut world = flapping(70);
    let before = status(&world);
    assert_eq!(before.groups[0].would_go_to, None, "{}", tail(&world));
    let line = attention(&before, "host-held").expect("it is said");
    assert_eq!(line.next, "antipode host readmit os-1");
    let answer = readmit(&mut world, "os-1");
    assert!(matches!(answer, Answer::Done { .. }), "{answer:?}");
    let after = status(&world);
    assert_eq!(after.groups[0].would_go_to.as_deref(), Some("os-1"));
    assert!(attention(&after, "host-held").is_none());
    // Two sites lost within a minute would set the brake.
    pass(&mut world, 90);
    world.power_off(&host("tk-1"));
    must(&mut world, 30, "erp runs at osaka", |world| runs_on(world, "os-1"));
}

#[test]
fn a_host_that_serves_is_readmitted_without_an_effect() {
    let mut world = settled(71);
    let answer = readmit(&mut world, "os-1");
    assert!(matches!(answer, Answer::Done { .. }), "{answer:?}");
    pass(&mut world, 5);
    assert!(runs_on(&world, "tk-1") && is_admitted(&world, "os-1"));
}

#[test]
fn a_host_that_is_silent_is_not_readmitted_by_a_word() {
    let mut world = settled(72);
    world.isolate(&host("tk-1"), true);
    must(&mut world, 30, "tk-1 is lost", |world| !is_admitted(world, "tk-1"));
    let answer = readmit(&mut world, "tk-1");
    let Answer::Refused { code, because, .. } = &answer else { panic!("{answer:?}") };
    assert_eq!(*code, "not-readmitted");
    assert!(because.contains("isn't heard"), "{because}");
    assert!(!is_admitted(&world, "tk-1"));
}

/// Everything that is waited for ends without a person, and whoever asks meanwhile is told what that is.
#[test]
fn a_host_on_its_way_back_says_what_it_waits_for() {
    let mut world = settled(73);
    world.power_off(&host("tk-1"));
    must(&mut world, 30, "erp runs at osaka", |world| runs_on(world, "os-1"));
    world.power_on(&host("tk-1"));
    let mut told = Vec::new();
    for _ in 0..200 {
        if let Err(violation) = world.run_for(Duration::from_millis(50)) {
            panic!("{}\n{violation:?}", tail(&world));
        }
        if is_admitted(&world, "tk-1") {
            break;
        }
        if let Answer::Done { detail, .. } = readmit(&mut world, "tk-1") {
            told.push(detail);
        }
    }
    assert!(is_admitted(&world, "tk-1"), "{}", tail(&world));
    assert!(told.iter().any(|detail| detail.contains("by itself")), "{told:?}");
}

#[test]
fn a_host_that_the_spec_does_not_name_is_refused() {
    let mut world = settled(74);
    let answer = readmit(&mut world, "tk-9");
    assert!(matches!(&answer, Answer::Refused { because, .. } if because.contains("tk-9")), "{answer:?}");
}
