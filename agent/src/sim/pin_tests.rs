//! Stories of a group that is tied to its host through work on the network.

use super::members_tests::*;
use super::*;
use crate::engine::{Answer, Order, Request};
use quorum::id::{Era, HostEpoch};
use quorum::ledger::{EvidenceKind, Incarnation, Scope};

fn order(world: &mut World, at: &str, order: Order) -> u64 {
    world.ask(&host(at), Request::Order { order, reason: "the switches of tokyo are replaced".into() })
}

fn place<'a>(world: &'a World, at: &str) -> &'a Place {
    &world.hosts[&host(at)].places[&erp()]
}

fn is_tied(world: &World) -> bool {
    place(world, "tk-1").is_tied
}

fn he(world: &World, of: &str) -> u64 {
    let ledger = engine(world, "ng-1").expect("it runs").ledger();
    ledger.admitted(&host(of)).map_or(0, |(he, _)| he.count())
}

/// erp runs at tokyo, protected, and is tied to it.
fn pinned(seed: u64) -> World {
    let mut world = settled(seed);
    let ticket = order(&mut world, "ng-1", Order::Pin { group: erp() });
    done(&mut world, ticket);
    must(&mut world, 10, "erp is out of the lease's reach", is_tied);
    world
}

fn untied(world: &mut World) {
    let ticket = order(world, "tk-1", Order::Unpin { group: erp() });
    done(world, ticket);
    assert!(!is_tied(world), "{}", tail(world));
}

/// tokyo hears nobody for so long that everything but erp is over there.
fn cut_off(world: &mut World) {
    world.isolate(&host("tk-1"), true);
    must(world, 20, "tokyo is lost", |world| he(world, "tk-1") == 0);
    pass(world, 30);
}

#[test]
fn what_is_pinned_goes_on_through_the_work_and_comes_back_under_its_lease() {
    let mut world = pinned(60);
    let began = place(&world, "tk-1").started_under;
    cut_off(&mut world);
    assert!(runs_on(&world, "tk-1") && !runs_on(&world, "os-1"), "{}", tail(&world));
    assert!(world.hosts[&host("tk-1")].is_powered(), "{}", tail(&world));
    world.isolate(&host("tk-1"), false);
    must(&mut world, 30, "tokyo is admitted again", |world| he(world, "tk-1") == 2);
    pass(&mut world, 5);
    assert!(runs_on(&world, "tk-1") && is_tied(&world), "{}", tail(&world));
    untied(&mut world);
    assert!(runs_on(&world, "tk-1"), "it was moved, not started: {}", tail(&world));
    let ticket = engine(&world, "ng-1").and_then(|engine| engine.ledger().group(&erp())?.ticket.clone());
    assert_eq!(ticket.expect("a ticket").of.he.count(), 2);
    assert_ne!(place(&world, "tk-1").started_under, began);
    // From here on the lease counts again.
    must(&mut world, 60, "erp is protected again", is_protected);
    world.isolate(&host("tk-1"), true);
    must(&mut world, 30, "erp runs at osaka", |world| runs_on(world, "os-1"));
    assert!(!runs_on(&world, "tk-1"));
}

#[test]
fn an_agent_that_is_restarted_meanwhile_ends_nothing() {
    let mut world = pinned(61);
    world.crash_agent(&host("tk-1"));
    pass(&mut world, 10);
    assert!(is_tied(&world) && runs_on(&world, "tk-1"), "{}", tail(&world));
    world.isolate(&host("tk-1"), true);
    pass(&mut world, 10);
    world.crash_agent(&host("tk-1"));
    pass(&mut world, 20);
    assert!(is_tied(&world) && runs_on(&world, "tk-1"), "{}", tail(&world));
    world.isolate(&host("tk-1"), false);
    must(&mut world, 30, "tokyo is admitted again", |world| he(world, "tk-1") > 0);
    untied(&mut world);
    assert!(runs_on(&world, "tk-1"), "{}", tail(&world));
}

#[test]
fn a_keeper_that_is_restarted_meanwhile_ends_nothing_that_is_pinned() {
    let mut world = pinned(62);
    world.kill_keeper(&host("tk-1"));
    world.start_keeper(&host("tk-1"));
    must(&mut world, 30, "tokyo is admitted again", |world| he(world, "tk-1") == 2);
    assert!(is_tied(&world) && runs_on(&world, "tk-1"), "{}", tail(&world));
    untied(&mut world);
    assert!(runs_on(&world, "tk-1"), "{}", tail(&world));
}

#[test]
fn a_pinned_group_whose_host_lost_its_power_is_untied_by_proof_and_granted_again() {
    let mut world = pinned(63);
    world.power_off(&host("tk-1"));
    must(&mut world, 20, "tokyo is lost", |world| he(world, "tk-1") == 0);
    pass(&mut world, 20);
    assert!(!runs_on(&world, "os-1"), "the lease proves nothing about it: {}", tail(&world));
    let ticket = order(&mut world, "ng-1", Order::Unpin { group: erp() });
    pass(&mut world, 1);
    assert!(matches!(&world.answers[&ticket], Answer::Refused { because, .. } if because.contains("tk-1")));
    // From another boot it answers that nothing is left.
    world.power_on(&host("tk-1"));
    let returned = |world: &World| {
        let ledger = engine(world, "ng-1").expect("it runs").ledger();
        ledger.covering_evidence(&erp()).iter().all(|(_, proof)| proof.is_ok())
    };
    must(&mut world, 30, "its return proves it gone", returned);
    let ticket = order(&mut world, "ng-1", Order::Unpin { group: erp() });
    done(&mut world, ticket);
    must(&mut world, 60, "erp runs again", |world| runs_on(world, "tk-1") || runs_on(world, "os-1"));
}

/// The keeper's word about tokyo's first admission names erp.
fn is_attested_gone(world: &World) -> bool {
    let of = Incarnation { host: host("tk-1"), he: HostEpoch::in_era(Era(1), 1) };
    let ledger = engine(world, "ng-1").expect("it runs").ledger();
    let evidence = &ledger.incarnation(&of).expect("known").evidence;
    let names_it = |scope: &Scope| matches!(scope, Scope::Groups(groups) if groups.contains(&erp()));
    evidence.iter().any(|known| known.kind == EvidenceKind::Released && names_it(&known.scope))
}

/// What moves it back hangs: the person is told, and it stays what it was, pinned.
#[test]
fn an_untying_that_hangs_is_given_up_and_leaves_it_pinned() {
    let mut world = pinned(64);
    world.hang_work(&host("tk-1"), &erp(), "untie");
    let ticket = order(&mut world, "tk-1", Order::Unpin { group: erp() });
    pass(&mut world, 15);
    assert!(matches!(&world.answers[&ticket], Answer::Refused { because, .. } if because.contains("stays pinned")));
    let is_pinned = |world: &World| {
        let group = engine(world, "ng-1").and_then(|engine| engine.ledger().group(&erp()));
        group.is_some_and(|group| group.pin.is_some())
    };
    assert!(is_pinned(&world) && is_tied(&world), "{}", tail(&world));
    cut_off(&mut world);
    assert!(runs_on(&world, "tk-1") && !runs_on(&world, "os-1"), "{}", tail(&world));
    world.isolate(&host("tk-1"), false);
    must(&mut world, 30, "tokyo is admitted again", |world| he(world, "tk-1") == 2);
    assert!(!is_attested_gone(&world), "its keeper attested what runs: {}", tail(&world));
    world.mend_work(&host("tk-1"), &erp());
    must(&mut world, 30, "what hung has ended", |world| !is_tied(world) || runs_on(world, "tk-1"));
    pass(&mut world, 5);
    untied(&mut world);
    assert!(runs_on(&world, "tk-1"), "{}", tail(&world));
}

#[test]
fn a_pinned_group_is_not_moved_and_says_so() {
    let mut world = pinned(65);
    let wanted = crate::engine::Move {
        kind: quorum::ledger::PlanKind::Switchover,
        group: erp(),
        toward: None,
        to: Some(host("os-1")),
        reason: "test".into(),
        dry_run: false,
        accept_loss: false,
    };
    let ticket = world.ask(&host("ng-1"), Request::Move(wanted));
    pass(&mut world, 1);
    let Answer::Refused { because, .. } = &world.answers[&ticket] else { panic!("{:?}", world.answers[&ticket]) };
    assert!(because.contains("thaw --pin"), "{because}");
    let status = engine(&world, "tk-1").expect("it runs").status();
    let line = status.groups[0].pin.as_ref().expect("it is shown");
    assert_eq!((line.host.as_str(), line.acknowledged, line.in_force), ("tk-1", true, Some(true)));
    assert!(status.attention.iter().any(|line| line.code == "pinned" && line.next.contains("thaw --pin erp")));
}

/// Each guard is taken away once: the story that watches it must notice.
#[cfg(feature = "mutants")]
#[test]
fn every_guard_of_the_pins_is_watched_by_a_story() {
    /// Faults that are planted together, and the story that notices.
    type Watched = (&'static [&'static str], fn());
    let through: fn() = what_is_pinned_goes_on_through_the_work_and_comes_back_under_its_lease;
    let hanging: fn() = an_untying_that_hangs_is_given_up_and_leaves_it_pinned;
    let lost: fn() = a_pinned_group_whose_host_lost_its_power_is_untied_by_proof_and_granted_again;
    let stories: [Watched; 5] = [
        (&["engine.forgets_the_pin_of_another_boot"], lost),
        (&["engine.ties_unacknowledged"], through),
        (&["engine.kills_the_tied"], through),
        // The agent's guard and the keeper's: it takes both to be wrong.
        (&["engine.unties_unmoved", "keeper.echoes_unsettled"], hanging),
        (&["engine.unties_unmoved", "keeper.attests_unsettled"], cut_off_while_untying),
    ];
    for (mutants, story) in stories {
        let planted: Vec<_> = mutants.iter().map(|mutant| quorum::mutants::plant(mutant)).collect();
        assert!(std::panic::catch_unwind(story).is_err(), "{mutants:?} goes unnoticed");
        drop(planted);
    }
    let _planted = quorum::mutants::plant("engine.unties_unmoved");
    cut_off_while_untying();
}

/// The lease ends while the record says that it is untied and something is still in its pinned cgroup: the keeper looks
/// before it attests.
#[cfg(feature = "mutants")]
fn cut_off_while_untying() {
    let mut world = pinned(66);
    world.hang_work(&host("tk-1"), &erp(), "untie");
    order(&mut world, "tk-1", Order::Unpin { group: erp() });
    pass(&mut world, 1);
    cut_off(&mut world);
    world.isolate(&host("tk-1"), false);
    pass(&mut world, 10);
    assert!(!is_attested_gone(&world), "its keeper attested what runs: {}", tail(&world));
}
