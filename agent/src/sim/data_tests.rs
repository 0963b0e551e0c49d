//! What guards the data, and what is seen to happen without each guard.

use super::tests::{begun, erp, host, is_protected, must, runs_on, settled, spec, tail, world};
use super::*;
use crate::engine::{Move, Request};
use quorum::id::Generation;
use quorum::ledger::{Command, CopyCheck, GroupState, PlanKind};
use std::time::Duration;

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// The group as the witness has it.
fn state(world: &World) -> GroupState {
    let engine = world.hosts[&host("ng-1")].engine().expect("it runs");
    engine.ledger().group(&erp()).expect("the group").clone()
}

/// Why the group doesn't go on, as the witness says it.
fn why(world: &World) -> String {
    let status = world.hosts[&host("ng-1")].engine().expect("it runs").status();
    status.groups[0].gates.activate.because.clone()
}

fn is_held(world: &mut World) -> Result<bool, Violation> {
    world.run_for(seconds(20))?;
    Ok(!runs_on(world, "tk-1") && !runs_on(world, "os-1"))
}

fn cut_pair(world: &mut World, is_cut: bool) {
    world.cut(&host("tk-1"), &host("os-1"), is_cut);
    world.cut(&host("os-1"), &host("tk-1"), is_cut);
}

/// The standby's disk refuses a write, the owner answers some more, and dies before it could say so.
fn refused_and_lost(seed: u64) -> Result<World, Violation> {
    let mut world = settled(seed);
    // What the owner says from here on reaches nobody.
    world.isolate(&host("tk-1"), true);
    world.refuse_write(&host("tk-1"), &erp());
    world.run_for(Duration::from_millis(200))?;
    world.power_off(&host("tk-1"));
    world.isolate(&host("tk-1"), false);
    Ok(world)
}

#[test]
fn a_copy_that_refused_a_write_is_held_although_the_ledger_counts_on_it() {
    let mut world = refused_and_lost(1).expect("no violation");
    assert!(is_held(&mut world).expect("no violation"), "{}", tail(&world));
    assert!(state(&world).in_sync.contains(&host("os-1")), "the owner could not say so: {}", tail(&world));
    assert!(why(&world).contains("os-1's copy"), "{}", why(&world));
    // Its owner comes back with everything.
    world.power_on(&host("tk-1"));
    must(&mut world, 60, "erp runs at home", |world| runs_on(world, "tk-1"));
    must(&mut world, 90, "erp is protected again", is_protected);
}

#[test]
fn a_person_can_take_a_copy_that_refused_a_write_and_nobody_says_how_much_is_lost() {
    let mut world = refused_and_lost(2).expect("no violation");
    assert!(is_held(&mut world).expect("no violation"), "{}", tail(&world));
    let order = Move {
        kind: PlanKind::Failover,
        group: erp(),
        toward: None,
        to: Some(host("os-1")),
        reason: "the data mends itself".into(),
        accept_loss: true,
        dry_run: false,
    };
    let leader = world.leader().cloned().expect("somebody leads");
    world.ask(&leader, Request::Move(order));
    must(&mut world, 30, "erp runs at osaka", |world| runs_on(world, "os-1"));
    let shown = world.hosts[&host("ng-1")].engine().expect("it runs").ledger().losses().values().next().cloned();
    assert!(shown.is_none_or(|loss| loss.asked.expected_loss.is_none()), "{}", tail(&world));
}

#[test]
#[cfg(feature = "mutants")]
fn a_refused_write_that_the_copy_keeps_quiet_about_is_seen_to_be_lost() {
    let _planted = quorum::mutants::plant("data.refused_write_ignored");
    let violation = refused_and_lost(1).and_then(|mut world| is_held(&mut world)).expect_err("a lost write");
    assert_eq!(violation.invariant, "I10", "{violation:?}");
}

#[test]
#[cfg(feature = "mutants")]
fn a_copy_that_is_offered_whatever_it_says_of_itself_is_noticed_as_held_without_a_reason() {
    let _planted = quorum::mutants::plant("gate.disagreeing_copy_offered");
    let mut world = refused_and_lost(1).expect("no violation");
    // The ledger's own gate holds it still; nobody is told why.
    assert!(is_held(&mut world).expect("no violation"), "{}", tail(&world));
    assert!(!why(&world).contains("os-1's copy"), "{}", why(&world));
}

/// A mirror that ended is begun anew by an agent that was restarted meanwhile, while the ledger counts on the copy; its
/// owner is lost when it is half done.
fn restarted_after_a_refusal(seed: u64) -> Result<World, Violation> {
    let mut world = settled(seed);
    world.kill_agent(&host("tk-1"));
    world.refuse_write(&host("tk-1"), &erp());
    world.run_for(Duration::from_millis(300))?;
    world.start_agent(&host("tk-1"));
    world.run_for(seconds(10))?;
    Ok(world)
}

#[cfg(feature = "mutants")]
fn detachments(world: &World) -> usize {
    world.trace.iter().filter(|line| line.host == Some(host("ng-1")) && line.text().contains("\"Detached\"")).count()
}

#[test]
fn a_mirror_that_ended_unseen_is_detached_before_it_is_begun_anew() {
    let mut world = restarted_after_a_refusal(3).expect("no violation");
    assert!(state(&world).generation > Generation(1), "{}", tail(&world));
    must(&mut world, 60, "erp is protected again", is_protected);
}

#[test]
#[cfg(feature = "mutants")]
fn a_counted_mirror_that_is_begun_anew_is_noticed() {
    let before = detachments(&restarted_after_a_refusal(3).expect("no violation"));
    let _planted = quorum::mutants::plant("data.counted_mirror_begun");
    let world = restarted_after_a_refusal(3).expect("no violation");
    assert!(detachments(&world) < before, "{}", tail(&world));
}

/// The pair is cut, the owner goes on as far as it may, and is lost.
fn cut_and_lost(seed: u64) -> Result<World, Violation> {
    let mut world = settled(seed);
    cut_pair(&mut world, true);
    // Too short for the detachment to be said.
    world.run_for(Duration::from_millis(900))?;
    // What it says from here on reaches nobody.
    world.cut(&host("tk-1"), &host("ng-1"), true);
    world.run_for(Duration::from_millis(900))?;
    world.power_off(&host("tk-1"));
    world.cut(&host("tk-1"), &host("ng-1"), false);
    Ok(world)
}

#[test]
fn writes_that_wait_for_an_uncommitted_detachment_are_missed_by_nobody() {
    let mut world = cut_and_lost(4).expect("no violation");
    must(&mut world, 20, "erp runs at osaka", |world| runs_on(world, "os-1"));
}

#[test]
#[cfg(feature = "mutants")]
fn a_release_before_the_detachment_is_committed_is_seen_to_lose_writes() {
    let _planted = quorum::mutants::plant("runner.releases_unasked");
    let lost = cut_and_lost(4).and_then(|mut world| world.run_for(seconds(20)).map(|()| world));
    let violation = lost.err().expect("a lost write");
    assert_eq!(violation.invariant, "I10", "{violation:?}");
}

/// A copy that says more than the log knows.
fn ahead(world: &mut World) {
    // Until its own agent has recorded that it is whole.
    world.run_for(seconds(2)).expect("no violation");
    let volume = world.hosts.get_mut(&host("os-1")).and_then(|host| host.places.get_mut(&erp()));
    volume.and_then(|place| place.volume.as_mut()).expect("a copy").generation = Generation(9);
}

fn ahead_and_lost(seed: u64) -> World {
    let mut world = settled(seed);
    ahead(&mut world);
    world.power_off(&host("tk-1"));
    world.run_for(seconds(20)).expect("no violation");
    world
}

#[test]
fn a_copy_that_is_ahead_is_held_and_on_record() {
    let world = ahead_and_lost(5);
    assert!(!runs_on(&world, "os-1"), "{}", tail(&world));
    assert_eq!(state(&world).diverged.get(&host("os-1")), Some(&CopyCheck::Ahead), "{}", tail(&world));
}

#[test]
#[cfg(feature = "mutants")]
fn a_copy_that_is_ahead_and_offered_all_the_same_is_noticed() {
    let _gate = quorum::mutants::plant("gate.foreign_copy_offered");
    let _agrees = quorum::mutants::plant("gate.disagreeing_copy_offered");
    assert!(state(&ahead_and_lost(5)).diverged.is_empty(), "nobody is alarmed, and the ledger alone holds it");
    let _ledger = quorum::mutants::plant("ledger.disagreeing_copy_granted");
    assert_eq!(state(&ahead_and_lost(5)).ticket.expect("a ticket").of.host, host("os-1"));
}

/// The standby's agent starts again and finds that its copy says more than the log counts on.
fn ahead_at_the_standby(seed: u64) -> World {
    let mut world = settled(seed);
    ahead(&mut world);
    world.crash_agent(&host("os-1"));
    world.run_for(seconds(15)).expect("no violation");
    world
}

#[test]
fn a_standby_that_is_ahead_is_not_written_over() {
    let world = ahead_at_the_standby(6);
    let said = world.hosts[&host("os-1")].places[&erp()].volume.as_ref().map(|volume| volume.generation);
    assert_eq!(said, Some(Generation(9)), "{}", tail(&world));
}

#[test]
#[cfg(feature = "mutants")]
fn a_standby_that_is_ahead_and_written_over_is_noticed() {
    let _planted = quorum::mutants::plant("runner.overwrites_ahead");
    let world = ahead_at_the_standby(6);
    let said = world.hosts[&host("os-1")].places[&erp()].volume.as_ref().map(|volume| volume.generation);
    assert_ne!(said, Some(Generation(9)), "{}", tail(&world));
}

/// A group for whose copy no write waits, and which may lose half a minute.
fn asynchronous(seed: u64) -> World {
    asynchronous_of(seed, spec())
}

fn asynchronous_of(seed: u64, source: String) -> World {
    let source = source.replace("mode = \"sync\"", "mode = \"async\"");
    let source = source.replace("tier = \"auto\"", "tier = \"auto\"\ntarget_rpo = \"15s\"\nhold_off = \"0s\"");
    let mut world = begun(world(seed, &[]), source);
    must(&mut world, 60, "osaka's copy is measured", |world| {
        let state = state(world);
        state.copies.get(&host("os-1")).is_some_and(|copy| copy.generation == state.generation)
    });
    world.run_for(seconds(5)).expect("no violation");
    world
}

/// The copy is cut off for so long before its owner is lost.
fn behind_and_lost(seed: u64, behind: Duration) -> Result<World, Violation> {
    let mut world = asynchronous(seed);
    cut_pair(&mut world, true);
    world.run_for(behind)?;
    world.power_off(&host("tk-1"));
    world.run_for(seconds(25))?;
    Ok(world)
}

#[test]
fn a_copy_that_lags_less_than_the_target_takes_over_and_lacks_no_more_than_was_counted() {
    let world = behind_and_lost(7, Duration::ZERO).expect("no violation");
    assert!(runs_on(&world, "os-1"), "{}", tail(&world));
}

#[test]
fn a_copy_that_lags_more_than_the_target_is_held() {
    let world = behind_and_lost(8, seconds(30)).expect("no violation");
    assert!(!runs_on(&world, "os-1"), "{}", tail(&world));
    assert!(why(&world).contains("the target is"), "{}", why(&world));
}

/// The group is moved to osaka as planned, is protected there, and osaka is lost.
fn moved_and_lost(seed: u64) -> Result<World, Violation> {
    let mut world = asynchronous_of(seed, spec().replace("policy = \"auto\"", "policy = \"manual\""));
    let wanted = Move {
        kind: PlanKind::Switchover,
        group: erp(),
        toward: None,
        to: Some(host("os-1")),
        reason: "a test".into(),
        accept_loss: false,
        dry_run: false,
    };
    world.ask(&host("ng-1"), Request::Move(wanted));
    must(&mut world, 60, "erp runs at osaka", |world| runs_on(world, "os-1"));
    let home = host("tk-1");
    must(&mut world, 60, "tokyo's copy is measured", |world| state(world).copies.contains_key(&home));
    world.run_for(seconds(5))?;
    world.power_off(&host("os-1"));
    world.run_for(seconds(25))?;
    Ok(world)
}

/// What the former owner measured last is older with every beat, and says nothing of its own copy.
#[test]
fn the_former_owner_takes_over_although_it_told_a_lag_when_it_ran_the_group() {
    let world = moved_and_lost(13).expect("no violation");
    assert!(runs_on(&world, "tk-1"), "{}: {}", why(&world), tail(&world));
}

#[test]
#[cfg(feature = "mutants")]
fn a_former_lag_that_counts_is_noticed_as_a_group_that_is_held() {
    let _planted = quorum::mutants::plant("engine.former_lag_counts");
    let world = moved_and_lost(13).expect("no violation");
    assert!(!runs_on(&world, "tk-1"), "{}", tail(&world));
    assert!(why(&world).contains("nobody here can say"), "{}", why(&world));
}

/// The owner's keeper dies, and its host is granted the group anew: what the other copy is told to go on from.
fn exported_anew(seed: u64) -> String {
    let mut world = asynchronous(seed);
    let home = host("tk-1");
    let before = state(&world).epoch;
    world.kill_keeper(&home);
    world.run_for(Duration::from_millis(100)).expect("no violation");
    world.start_keeper(&home);
    must(&mut world, 60, "erp is granted anew", |world| state(world).epoch > before && runs_on(world, "tk-1"));
    let export = format!("OpenExport {{ epoch: {:?}", state(&world).epoch);
    let opened = |world: &World| {
        let orders = world.trace.iter().filter(|trace| trace.host == Some(host("os-1")));
        orders.map(|trace| trace.text()).find(|text| text.contains("work-started") && text.contains(&export))
    };
    must(&mut world, 60, "osaka's export is opened anew", |world| opened(world).is_some());
    opened(&world).unwrap_or_default()
}

/// It followed under the older grant: its driver refuses to go on from there, so it has to be told to begin afresh.
#[test]
fn a_copy_that_followed_under_an_older_grant_is_made_equal_anew() {
    let order = exported_anew(12);
    assert!(order.contains("is_whole: false"), "{order}");
}

#[test]
#[cfg(feature = "mutants")]
fn a_copy_of_an_older_grant_that_is_told_to_go_on_is_noticed() {
    let _planted = quorum::mutants::plant("engine.follows_any_grant");
    let order = exported_anew(12);
    assert!(order.contains("is_whole: true"), "{order}");
}

/// The owner is cut off and answers on until its lease ends.
fn behind_and_cut_off(seed: u64) -> Result<World, Violation> {
    let mut world = asynchronous(seed);
    world.isolate(&host("tk-1"), true);
    world.run_for(seconds(25))?;
    Ok(world)
}

#[test]
fn what_an_owner_answers_until_its_lease_ends_is_counted() {
    let world = behind_and_cut_off(11).expect("no violation");
    assert!(runs_on(&world, "os-1"), "{}", tail(&world));
}

#[test]
#[cfg(feature = "mutants")]
fn a_lag_counted_without_the_time_since_it_was_measured_is_seen_to_lose_more_than_was_counted() {
    let _planted = quorum::mutants::plant("gate.lag_without_time");
    let violation = behind_and_cut_off(11).err().expect("more lost than counted");
    assert_eq!(violation.invariant, "I10", "{violation:?}");
}

/// The keeper at home is killed, which ends its host's admission, and then the site; what the owner had said of its
/// copies before arrives after that.
fn said_too_late(seed: u64) -> World {
    let mut world = settled(seed);
    let home = host("tk-1");
    let before = state(&world);
    let of = before.ticket.expect("a ticket").of;
    world.kill_keeper(&home);
    world.run_for(Duration::from_millis(100)).expect("no violation");
    world.start_keeper(&home);
    must(&mut world, 10, "its admission is over", |world| {
        world.ledger().is_some_and(|ledger| ledger.lost_or_retired(&of))
    });
    world.power_off(&home);
    let (group, epoch, away) = (erp(), before.epoch, vec![host("os-1")]);
    let late = Command::Detached { group, epoch, of, away, generation: Generation(before.generation.0 + 1) };
    world.ask(&host("ng-1"), Request::Command(Box::new(late)));
    world.run_for(seconds(40)).expect("no violation");
    world
}

#[test]
fn what_an_owner_said_of_its_copies_takes_no_good_copy_out_once_its_keeper_was_killed() {
    let world = said_too_late(9);
    assert!(runs_on(&world, "os-1"), "{}", tail(&world));
}

#[test]
#[cfg(feature = "mutants")]
fn a_detachment_that_counts_after_its_owner_is_over_is_noticed() {
    let _planted = quorum::mutants::plant("ledger.ended_owner_acts");
    let world = said_too_late(9);
    assert!(!runs_on(&world, "os-1"), "{}", tail(&world));
}
