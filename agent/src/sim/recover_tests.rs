//! Stories of a majority that was lost for ever, and of the era that begins after it.

use super::members_tests::*;
use super::*;
use crate::engine::{Answer, Engine, FenceAct, Order, RecoverError, Request, Scope};
use quorum::id::{Era, HostEpoch};
use quorum::ledger::{AcceptLoss, Command, CopyCheck, Decision, Person, PersonKey};

fn decision() -> Decision {
    let by = Person { name: "operator".into(), key: PersonKey::Local(0) };
    Decision { by, reason: "test".into(), shown: String::new() }
}

fn attention(world: &mut World, at: &str) -> Vec<String> {
    let ticket = world.ask(&host(at), Request::Status);
    let Some(Answer::Status(status)) = world.answers.get(&ticket) else { panic!("a status is answered at once") };
    status.attention.iter().map(|line| format!("{}: {} -> {}", line.code, line.text, line.next)).collect()
}

fn era_at(world: &World, at: &str) -> Era {
    engine(world, at).map_or(Era(0), |engine| engine.ledger().era())
}

/// The witness, then tokyo.
fn majority_lost(seed: u64) -> World {
    let mut world = settled(seed);
    world.power_off(&host("ng-1"));
    pass(&mut world, 10);
    assert!(runs_on(&world, "tk-1"), "what runs goes on without the witness: {}", tail(&world));
    world.power_off(&host("tk-1"));
    world
}

fn accept_loss(world: &mut World, at: &str, copy: &str) -> u64 {
    let epoch = engine(world, at).and_then(|engine| engine.ledger().group(&erp())).expect("known").epoch;
    let accept = AcceptLoss {
        group: erp(),
        epoch,
        copy: host(copy),
        own: CopyCheck::Agrees,
        expected_loss: None,
        by: decision(),
    };
    world.ask(&host(at), Request::Command(Box::new(Command::AcceptLoss(accept))))
}

/// A new era begins frozen; a person who has looked ends that.
fn thaw(world: &mut World, at: &str) {
    let ledger = engine(world, at).expect("it lives").ledger();
    let freeze = ledger.freezes().keys().next().expect("a new era begins frozen").0;
    let ticket = world.ask(&host(at), Request::Order { order: Order::Thaw { freeze }, reason: "looked".into() });
    done(world, ticket);
}

fn recovered(world: &mut World) {
    world.power_off(&host("os-1"));
    world.recover(&host("os-1")).expect("the majority is lost");
    world.power_on(&host("os-1"));
    must(world, 20, "os-1 leads alone", |world| engine(world, "os-1").is_some_and(Engine::is_leader));
    assert_eq!(era_at(world, "os-1"), Era(2));
}

#[test]
fn the_witness_lost_then_a_site_starts_nothing_until_a_person_recovers_proves_and_accepts() {
    let mut world = majority_lost(41);
    pass(&mut world, 60);
    assert!(!runs_on(&world, "os-1"), "{}", tail(&world));
    let said = attention(&mut world, "os-1");
    assert!(
        said.iter().any(|line| line.contains("no-majority") && line.contains("antipode quorum recover")),
        "{said:?}"
    );
    recovered(&mut world);
    let begun = world.now_ns;
    pass(&mut world, 30);
    assert!(!runs_on(&world, "os-1"), "tk-1 isn't proven, and the data is in doubt: {}", tail(&world));
    // Nobody is declared lost by one voter alone, however silent.
    let since: Vec<_> = world.trace.iter().filter(|line| line.at_ns > begun).collect();
    assert!(!since.iter().any(|line| line.text().contains("HostLost")), "{}", tail(&world));
    // What can't be proven by a lease is not said again and again.
    assert!(since.len() < 2_000, "{} events in 30 quiet seconds", since.len());
    let accepted = accept_loss(&mut world, "os-1", "os-1");
    done(&mut world, accepted);
    pass(&mut world, 20);
    assert!(!runs_on(&world, "os-1"), "accepted, and tk-1 still not proven: {}", tail(&world));
    let act = FenceAct::Override { at_once: true, span_ms: None };
    let (scope, reason) = (Scope::Host(host("tk-1")), "burned down".into());
    let vouched = world.ask(&host("os-1"), Request::Fence { scope, act, reason, dry_run: false });
    done(&mut world, vouched);
    must(&mut world, 30, "erp runs at osaka", |world| runs_on(world, "os-1"));
    let ticket = engine(&world, "os-1").and_then(|e| e.ledger().group(&erp())?.ticket.clone()).expect("a ticket");
    assert_eq!((ticket.epoch.era(), ticket.of.he.era()), (Era(2), Era(2)), "every token is of the new era");
}

#[test]
fn voters_of_an_older_era_that_come_back_are_wiped_of_their_votes_and_added_again() {
    let mut world = majority_lost(42);
    recovered(&mut world);
    world.power_on(&host("tk-1"));
    world.power_on(&host("ng-1"));
    must(&mut world, 30, "they follow the new era", |world| {
        ["tk-1", "ng-1", "os-2"].iter().all(|at| era_at(world, at) == Era(2))
    });
    let ended = world.trace.iter().filter(|line| line.text().contains("vote-ended")).count();
    assert_eq!(ended, 2, "{}", tail(&world));
    must(&mut world, 30, "tk-1 is admitted by what it answers", |world| {
        let he = engine(world, "os-1").and_then(|engine| Some(engine.ledger().admitted(&host("tk-1"))?.0));
        he.is_some_and(|he| he > HostEpoch::in_era(Era(2), 0))
    });
    pass(&mut world, 10);
    assert!(!runs_on(&world, "tk-1") && !runs_on(&world, "os-1"), "all copies are in doubt: {}", tail(&world));
    let accepted = accept_loss(&mut world, "os-1", "tk-1");
    done(&mut world, accepted);
    must(&mut world, 30, "erp runs where the person said", |world| runs_on(world, "tk-1"));
    thaw(&mut world, "os-1");
    for name in ["ng-1", "tk-1"] {
        let asked = members(&mut world, "os-1", add(name, None));
        done(&mut world, asked);
    }
    must(&mut world, 60, "the quorum is whole again", |world| {
        voters_at(world, "tk-1").is_some_and(|voters| voters.len() == 3)
    });
    must(&mut world, 60, "erp is protected again", is_protected);
}

/// The old majority was only cut off: it goes on in its era. When they meet the older era gives way, whoever is more;
/// and at no instant is the group on two sides.
#[test]
fn a_majority_that_was_not_lost_gives_way_to_the_newer_era_without_ever_running_twice() {
    let mut world = settled(43);
    isolate(&mut world, "os-1", true);
    pass(&mut world, 20);
    assert!(runs_on(&world, "tk-1"));
    recovered(&mut world);
    let accepted = accept_loss(&mut world, "os-1", "os-1");
    done(&mut world, accepted);
    pass(&mut world, 20);
    assert!(runs_on(&world, "tk-1") && !runs_on(&world, "os-1"), "tk-1 isn't proven: {}", tail(&world));
    isolate(&mut world, "os-1", false);
    must(&mut world, 60, "all are of the new era", |world| {
        ["tk-1", "ng-1", "os-2"].iter().all(|at| era_at(world, at) == Era(2))
    });
    must(&mut world, 60, "erp runs where the person said", |world| runs_on(world, "os-1"));
    assert!(!runs_on(&world, "tk-1"), "{}", tail(&world));
}

#[test]
fn a_voter_that_is_a_majority_by_itself_is_not_recovered() {
    let mut world = settled(44);
    world.kill_agent(&host("os-1"));
    assert!(world.recover(&host("os-1")).is_ok(), "looking for the others is the command's part");
    let again = world.recover(&host("os-1"));
    assert!(matches!(again, Err(RecoverError::Refused(_))), "{again:?}");
}
