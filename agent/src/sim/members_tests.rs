//! Stories of voters that come, go and forget.

use super::spec::varied;
pub(super) use super::stories::*;
use super::*;
use crate::engine::{Answer, Engine, MemberOrder, Request};
use quorum::id::{HostName, SiteName, VoterId};
use quorum::storage::MemoryDisk;
use std::time::Duration;

/// Osaka has a second host that doesn't vote, and the group comes home by a person's word.
pub(super) fn spec() -> String {
    let accepted = "accept = [\"self-fenced\"]\n";
    let second = "[[host]]\nname = \"os-2\"\nsite = \"osaka\"\n[[host]]\nname = \"ng-1\"";
    let by_hand = format!("{accepted}failback = {{ policy = \"manual\" }}\n");
    varied(&[("[[host]]\nname = \"ng-1\"", second), (accepted, &by_hand)])
}

/// Who votes, as a host's ledger has it: none while a change is on its way.
pub(super) fn voters_at(world: &World, at: &str) -> Option<Vec<String>> {
    let members = engine(world, at)?.ledger().membership();
    let names = members.voters.values().map(|voter| voter.host.to_string());
    (!members.is_joint()).then(|| names.collect())
}

pub(super) fn vote(world: &World, at: &str, of: &str) -> Option<VoterId> {
    let members = engine(world, at)?.ledger().membership();
    members.voters.values().find(|voter| voter.host == host(of)).map(|voter| voter.id)
}

pub(super) fn said(world: &World, text: &str) -> bool {
    world.trace.iter().any(|line| line.text().contains(text))
}

/// tk-1, os-1 and the witness vote; os-2 doesn't.
pub(super) fn settled(seed: u64) -> World {
    let hosts =
        [("tk-1", "tokyo", Some(1)), ("os-1", "osaka", Some(2)), ("os-2", "osaka", None), ("ng-1", "nagoya", Some(3))];
    settled_with(seed, &spec(), &hosts)
}

pub(super) fn settled_with(seed: u64, spec: &str, hosts: &[(&str, &str, Option<u64>)]) -> World {
    let site = |name: &str| SiteName::new(name).expect("a name");
    let of = |(name, at, vote): &(&str, &str, Option<u64>)| (host(name), site(at), vote.map(VoterId), *name == "ng-1");
    let mut world = World::new(&WorldSpec {
        seed,
        hosts: hosts.iter().map(of).collect(),
        groups: vec![(erp(), vec![host("tk-1"), host("os-1")])],
        watchdog_worst: Duration::from_millis(1_100),
        round_trip_max: Duration::from_millis(40),
    });
    for (name, ..) in hosts {
        world.power_on(&host(name));
    }
    pass(&mut world, 3);
    let apply = Request::Apply { source: spec.into(), dry_run: false, reason: "test".into() };
    let ticket = world.ask(&host("ng-1"), apply);
    must(&mut world, 10, "the spec is applied", |world| world.answers.contains_key(&ticket));
    assert!(matches!(world.answers[&ticket], Answer::Done { .. }), "{:?}", world.answers[&ticket]);
    must(&mut world, 20, "the witness leads", |world| engine(world, "ng-1").is_some_and(Engine::is_leader));
    must(&mut world, 30, "erp runs at home", |world| runs_on(world, "tk-1"));
    must(&mut world, 60, "erp is protected", is_protected);
    world
}

pub(super) fn members(world: &mut World, at: &str, order: MemberOrder) -> u64 {
    world.ask(&host(at), Request::Members { order, reason: "test".into() })
}

pub(super) fn add(name: &str, replaces: Option<&str>) -> MemberOrder {
    MemberOrder::Add { host: host(name), replaces: replaces.map(host) }
}

pub(super) fn done(world: &mut World, ticket: u64) {
    must(world, 30, "the person is answered", |world| world.answers.contains_key(&ticket));
    assert!(matches!(world.answers[&ticket], Answer::Done { .. }), "{}\n{:?}", tail(world), world.answers[&ticket]);
}

fn refused(world: &mut World, ticket: u64, because: &str) {
    must(world, 30, "the person is answered", |world| world.answers.contains_key(&ticket));
    let Answer::Refused { because: text, .. } = &world.answers[&ticket] else {
        panic!("{}\n{:?}", tail(world), world.answers[&ticket]);
    };
    assert!(text.contains(because), "{text}");
}

#[test]
fn who_leads_already_is_handed_nothing() {
    let mut world = settled(48);
    let vote = vote(&world, "ng-1", "ng-1").expect("it votes");
    let ticket = world.ask(&host("ng-1"), Request::Transfer(vote));
    must(&mut world, 10, "the person is answered", |world| world.answers.contains_key(&ticket));
    let answer = &world.answers[&ticket];
    assert!(matches!(answer, Answer::Done { detail, .. } if detail.contains("ng-1 already leads")), "{answer:?}");
}

#[test]
fn a_host_is_added_removed_and_added_again_while_its_cluster_works() {
    let mut world = settled(21);
    let asked = members(&mut world, "tk-1", add("os-2", None));
    done(&mut world, asked);
    let first = vote(&world, "tk-1", "os-2").expect("it votes");
    assert!(first.0 > 1_000, "{first}: a joining voter's id is its place in the log");
    must(&mut world, 10, "all agree", |world| {
        ["tk-1", "os-1", "os-2", "ng-1"].iter().all(|at| vote(world, at, "os-2") == Some(first))
    });
    // Four voters hold leases and elect: the group must not notice.
    pass(&mut world, 15);
    let asked = members(&mut world, "os-1", MemberOrder::Remove { host: host("os-2"), anyway: false });
    done(&mut world, asked);
    must(&mut world, 10, "os-2 knows that it votes no more", |world| said(world, "vote-ended"));
    pass(&mut world, 10);
    let asked = members(&mut world, "ng-1", add("os-2", None));
    done(&mut world, asked);
    let second = vote(&world, "ng-1", "os-2").expect("it votes again");
    assert_ne!(first, second, "an id is never given twice");
    assert!(runs_on(&world, "tk-1") && !said(&world, "lease-lost"), "{}", tail(&world));
}

#[test]
fn removing_one_of_three_voters_needs_a_word_and_one_that_leaves_no_majority_is_refused() {
    let mut world = settled(22);
    let remove = |anyway| MemberOrder::Remove { host: host("os-1"), anyway };
    let asked = members(&mut world, "ng-1", remove(false));
    refused(&mut world, asked, "none may be lost");
    world.power_off(&host("tk-1"));
    pass(&mut world, 30);
    let asked = members(&mut world, "ng-1", remove(true));
    refused(&mut world, asked, "could decide nothing");
    let asked = members(&mut world, "ng-1", add("xx-9", None));
    refused(&mut world, asked, "no host of the cluster spec");
}

#[test]
fn the_leader_itself_is_replaced_by_handing_over_first() {
    let mut world = settled(23);
    let asked = members(&mut world, "os-1", add("os-2", Some("ng-1")));
    must(&mut world, 60, "os-2 votes for the witness", |world| {
        voters_at(world, "os-1").is_some_and(|voters| voters == ["tk-1", "os-1", "os-2"])
    });
    must(&mut world, 30, "the person is answered", |world| world.answers.contains_key(&asked));
    pass(&mut world, 10);
    assert!(engine(&world, "ng-1").is_some_and(|engine| !engine.is_leader()));
    assert!(said(&world, "vote-ended"), "{}", tail(&world));
    assert!(runs_on(&world, "tk-1"), "{}", tail(&world));
}

#[test]
fn a_dead_voter_is_replaced_during_its_sites_loss_and_after_the_lease_is_waited_out() {
    let mut world = settled(24);
    world.power_off(&host("tk-1"));
    must(&mut world, 10, "tokyo is lost", |world| said(world, "HostLost"));
    let asked = members(&mut world, "os-1", add("os-2", Some("tk-1")));
    must(&mut world, 30, "erp runs at osaka", |world| runs_on(world, "os-1"));
    must(&mut world, 30, "os-2 votes for tk-1", |world| {
        voters_at(world, "ng-1").is_some_and(|voters| voters == ["os-1", "ng-1", "os-2"])
    });
    done(&mut world, asked);
    // The configuration changed only after the lease's end was evidence: else its wait would have begun anew.
    let place = |text: &str| world.trace.iter().position(|line| line.text().contains(text));
    let (evidence, changed) = (place("SelfFenced"), place("members-proposed"));
    assert!(evidence.is_some() && evidence < changed, "{evidence:?} {changed:?}\n{}", tail(&world));
    // The replaced voter comes back, learns that it votes no more, and is a host like any other.
    world.power_on(&host("tk-1"));
    must(&mut world, 30, "tk-1 knows", |world| said(world, "vote-ended"));
    must(&mut world, 60, "erp is protected again", is_protected);
}

/// A voter that began a snapshot when a host epoch was over, and begins again from it.
#[cfg(feature = "mutants")]
fn begun_from_a_snapshot() -> Result<(), Violation> {
    let mut world = settled(24);
    world.power_off(&host("tk-1"));
    must(&mut world, 10, "tokyo is lost", |world| said(world, "HostLost"));
    let asked = members(&mut world, "os-1", add("os-2", Some("tk-1")));
    must(&mut world, 60, "os-2 votes for tk-1", |world| {
        voters_at(world, "ng-1").is_some_and(|voters| voters == ["os-1", "ng-1", "os-2"])
    });
    done(&mut world, asked);
    ["ng-1", "os-1"].iter().for_each(|name| world.crash_agent(&host(name)));
    world.run_for(Duration::from_secs(10))
}

#[test]
#[cfg(feature = "mutants")]
fn a_snapshot_that_forgets_what_is_over_is_seen_to_do_so() {
    assert_eq!(begun_from_a_snapshot(), Ok(()));
    let _planted = quorum::mutants::plant("engine.snapshot_forgets_ends");
    let violation = begun_from_a_snapshot().expect_err("an end was forgotten");
    assert_eq!(violation.invariant, "I16", "{violation:?}");
}

pub(super) fn isolate(world: &mut World, name: &str, is_cut: bool) {
    let others: Vec<HostName> = world.hosts.keys().filter(|other| other.as_str() != name).cloned().collect();
    for other in others {
        world.cut(&host(name), &other, is_cut);
        world.cut(&other, &host(name), is_cut);
    }
}

#[test]
fn a_voter_that_was_removed_while_it_was_away_is_told_when_it_is_back() {
    let mut world = settled(25);
    let asked = members(&mut world, "ng-1", add("os-2", None));
    done(&mut world, asked);
    isolate(&mut world, "os-2", true);
    pass(&mut world, 3);
    let asked = members(&mut world, "ng-1", MemberOrder::Remove { host: host("os-2"), anyway: false });
    done(&mut world, asked);
    pass(&mut world, 10);
    assert!(!said(&world, "vote-ended"), "nobody could tell it");
    isolate(&mut world, "os-2", false);
    must(&mut world, 20, "os-2 is told", |world| said(world, "vote-ended"));
}

/// Two voters are removed while they are cut off together with the host that asks them for leases. They go on granting:
/// of a configuration of which they are no majority.
#[test]
fn removed_voters_that_do_not_know_it_grant_to_nobodys_profit() {
    let spec =
        spec().replace("name = \"tk-1\"\nsite", "name = \"tk-2\"\nsite = \"tokyo\"\n[[host]]\nname = \"tk-1\"\nsite");
    let voters =
        [("tk-1", "tokyo", 1), ("os-1", "osaka", 2), ("ng-1", "nagoya", 3), ("os-2", "osaka", 4), ("tk-2", "tokyo", 5)];
    let mut world = settled_with(35, &spec, &voters.map(|(name, site, id)| (name, site, Some(id))));
    let tokyo = ["tk-1", "tk-2"];
    for name in tokyo {
        for other in ["os-1", "os-2", "ng-1"] {
            world.cut(&host(name), &host(other), true);
            world.cut(&host(other), &host(name), true);
        }
    }
    must(&mut world, 30, "erp runs at osaka", |world| runs_on(world, "os-1"));
    for name in tokyo {
        let remove = MemberOrder::Remove { host: host(name), anyway: true };
        let asked = members(&mut world, "ng-1", remove);
        done(&mut world, asked);
    }
    pass(&mut world, 20);
    let believes = engine(&world, "tk-2").expect("it lives").ledger().membership().voters.len();
    assert_eq!(believes, 5, "it was never told");
    assert!(!runs_on(&world, "tk-1"), "{}", tail(&world));
    let granted = world.trace.iter().rev().take_while(|line| !line.text().contains("members-proposed"));
    assert!(!granted.clone().any(|line| line.text().contains("lease-held") && line.host == Some(host("tk-1"))));
}

#[test]
fn a_learner_has_no_voice_in_leases_or_elections() {
    let mut world = settled(26);
    // It can receive nothing from the leader, so it stays a learner.
    world.cut(&host("ng-1"), &host("os-2"), true);
    let _asked = members(&mut world, "ng-1", add("os-2", None));
    must(&mut world, 20, "os-2 is a learner", |world| {
        engine(world, "ng-1").is_some_and(|engine| !engine.ledger().membership().learners.is_empty())
    });
    // tk-1 hears the learner, and no voter: were the learner counted, it would hold a majority with its own vote.
    for other in ["os-1", "ng-1"] {
        world.cut(&host("tk-1"), &host(other), true);
        world.cut(&host(other), &host("tk-1"), true);
    }
    must(&mut world, 30, "erp runs at osaka", |world| runs_on(world, "os-1"));
    assert!(!runs_on(&world, "tk-1"), "{}", tail(&world));
}

/// The host goes on without its vote, and comes back under a new id.
fn comes_back(world: &mut World, name: &str, old: VoterId) {
    must(world, 60, "it votes under a new id, and the old one is gone", |world| {
        let others = ["tk-1", "os-1", "ng-1"].into_iter().filter(|at| *at != name);
        others.into_iter().all(|at| {
            let voters = voters_at(world, at).unwrap_or_default();
            voters.len() == 3 && vote(world, at, name).is_some_and(|id| id != old)
        })
    });
}

#[test]
fn a_voter_that_lost_its_disk_never_votes_under_its_id_again_and_returns_under_a_new_one() {
    let mut world = settled(27);
    world.power_off(&host("os-1"));
    world.replace_disk(&host("os-1"), MemoryDisk::default()).expect("no power");
    world.power_on(&host("os-1"));
    comes_back(&mut world, "os-1", VoterId(2));
    assert!(said(&world, "vote-ended") && runs_on(&world, "tk-1"), "{}", tail(&world));
}

#[test]
fn a_voter_whose_disk_was_rolled_back_to_a_backup_is_told_by_its_peers() {
    let mut world = settled(28);
    world.power_off(&host("os-1"));
    let backup = world.back_up_disk(&host("os-1")).expect("in memory");
    world.power_on(&host("os-1"));
    pass(&mut world, 5);
    let apply = Request::Apply { source: spec(), dry_run: false, reason: "once more".into() };
    let ticket = world.ask(&host("ng-1"), apply);
    done(&mut world, ticket);
    pass(&mut world, 3);
    world.power_off(&host("os-1"));
    world.replace_disk(&host("os-1"), backup).expect("no power");
    world.power_on(&host("os-1"));
    comes_back(&mut world, "os-1", VoterId(2));
    assert!(said(&world, "vote-ended"), "{}", tail(&world));
}

#[test]
fn a_voter_whose_machine_was_rolled_back_under_it_ends_its_vote_at_once() {
    let mut world = settled(29);
    world.roll_back(&host("os-1"));
    comes_back(&mut world, "os-1", VoterId(2));
    assert!(runs_on(&world, "tk-1") && !said(&world, "lease-lost"), "{}", tail(&world));
}

#[test]
fn a_voter_with_a_flipped_bit_on_its_disk_comes_back_under_a_new_id_whichever_bit_it_is() {
    for (seed, bit) in [(30, 77), (31, 50_021), (32, 400_003)] {
        let mut world = settled(seed);
        world.power_off(&host("os-1"));
        world.hosts[&host("os-1")].disk.flip_bit(bit);
        world.power_on(&host("os-1"));
        comes_back(&mut world, "os-1", VoterId(2));
    }
}

#[test]
fn a_voter_that_restarts_again_and_again_keeps_its_id_and_its_promises() {
    let mut world = settled(33);
    for round in 0..8 {
        let name = ["os-1", "ng-1"][round % 2];
        world.kill_agent(&host(name));
        world.run_for(Duration::from_millis(400)).expect("no violation");
        world.start_agent(&host(name));
        pass(&mut world, 4);
    }
    assert_eq!(vote(&world, "tk-1", "os-1"), Some(VoterId(2)));
    assert!(!said(&world, "vote-ended"), "{}", tail(&world));
    assert!(runs_on(&world, "tk-1"), "{}", tail(&world));
}

/// A voter that joined later and lost its disk has nothing to be founded from, and its old id must not be taken again.
#[test]
fn a_later_voter_that_lost_its_disk_is_never_founded_again_under_its_id() {
    let mut world = settled(36);
    let asked = members(&mut world, "ng-1", add("os-2", None));
    done(&mut world, asked);
    let first = vote(&world, "ng-1", "os-2").expect("it votes");
    world.power_off(&host("os-2"));
    world.replace_disk(&host("os-2"), MemoryDisk::default()).expect("no power");
    world.power_on(&host("os-2"));
    must(&mut world, 60, "it votes under a third id", |world| {
        ["tk-1", "os-1", "ng-1"].iter().all(|at| {
            let voters = voters_at(world, at).unwrap_or_default();
            voters.len() == 4 && vote(world, at, "os-2").is_some_and(|id| id != first)
        })
    });
    assert!(said(&world, "its store is gone"), "{}", tail(&world));
    assert!(runs_on(&world, "tk-1") && !said(&world, "lease-lost"), "{}", tail(&world));
}

/// Which store was damaged can't be read from it: only the founding vote's id is ever presumed, and only once.
#[test]
fn a_later_votes_damaged_store_ends_that_vote_and_no_other() {
    let mut world = settled(37);
    world.power_off(&host("os-1"));
    world.replace_disk(&host("os-1"), MemoryDisk::default()).expect("no power");
    world.power_on(&host("os-1"));
    comes_back(&mut world, "os-1", VoterId(2));
    let second = vote(&world, "ng-1", "os-1").expect("it votes");
    world.power_off(&host("os-1"));
    world.hosts[&host("os-1")].disk.flip_bit(50_021);
    world.power_on(&host("os-1"));
    comes_back(&mut world, "os-1", second);
    assert_eq!(world.hosts[&host("os-1")].ended.iter().copied().collect::<Vec<_>>(), [VoterId(2), second]);
}

/// A learner that was made a voter, and whose disk went back to when it was a learner, might vote twice in one term.
#[test]
fn a_voter_whose_disk_is_that_of_the_learner_it_was_votes_for_nobody_before_it_is_told() {
    let mut world = settled(38);
    let _asked = members(&mut world, "ng-1", add("os-2", None));
    must(&mut world, 20, "os-2 is a learner, with a store", |world| {
        engine(world, "os-2").is_some_and(|engine| engine.raft_position().is_some())
    });
    assert!(vote(&world, "ng-1", "os-2").is_none(), "it votes already");
    let learner = world.back_up_disk(&host("os-2")).expect("in memory");
    // It votes, and is gone before it told anybody what it has since then: none can say that its disk is an older one.
    must(&mut world, 60, "os-2 votes", |world| {
        ["tk-1", "os-1", "ng-1"].iter().all(|at| vote(world, at, "os-2").is_some())
    });
    world.power_off(&host("os-2"));
    world.power_off(&host("ng-1"));
    world.replace_disk(&host("os-2"), learner).expect("no power");
    world.power_on(&host("os-2"));
    // Three of four are a majority only with the vote of the one that forgot.
    pass(&mut world, 30);
    let leads = |at| engine(&world, at).is_some_and(Engine::is_leader);
    assert!(!leads("tk-1") && !leads("os-1"), "{}", tail(&world));
}

/// A cluster is founded when all its voters have met once: one that comes with an empty disk might have voted before.
#[test]
fn a_new_cluster_waits_for_all_its_founders() {
    let site = |name: &str| SiteName::new(name).expect("a name");
    let mut world = World::new(&WorldSpec {
        seed: 34,
        hosts: vec![
            (host("tk-1"), site("tokyo"), Some(VoterId(1)), false),
            (host("os-1"), site("osaka"), Some(VoterId(2)), false),
            (host("ng-1"), site("nagoya"), Some(VoterId(3)), true),
        ],
        groups: vec![],
        watchdog_worst: Duration::from_millis(1_100),
        round_trip_max: Duration::from_millis(40),
    });
    world.power_on(&host("tk-1"));
    world.power_on(&host("os-1"));
    pass(&mut world, 20);
    let leads = |world: &World| ["tk-1", "os-1"].iter().any(|at| engine(world, at).is_some_and(Engine::is_leader));
    assert!(!leads(&world), "{}", tail(&world));
    world.power_on(&host("ng-1"));
    must(&mut world, 20, "somebody leads", |world| {
        leads(world) || engine(world, "ng-1").is_some_and(Engine::is_leader)
    });
}

/// Each guard is taken away once: the story that watches it must notice.
#[cfg(feature = "mutants")]
#[test]
fn every_guard_of_the_voters_is_watched_by_a_story() {
    let stories: [(&str, fn()); 7] = [
        ("engine.voter_acts_untold", a_new_cluster_waits_for_all_its_founders),
        (
            "engine.forgotten_voter_goes_on",
            a_voter_that_lost_its_disk_never_votes_under_its_id_again_and_returns_under_a_new_one,
        ),
        ("engine.forgotten_voter_goes_on", a_voter_whose_disk_was_rolled_back_to_a_backup_is_told_by_its_peers),
        ("engine.removed_voter_goes_on", a_voter_that_was_removed_while_it_was_away_is_told_when_it_is_back),
        (
            "engine.members_change_while_awaited",
            a_dead_voter_is_replaced_during_its_sites_loss_and_after_the_lease_is_waited_out,
        ),
        ("engine.voter_without_store_joins", a_later_voter_that_lost_its_disk_is_never_founded_again_under_its_id),
        (
            "engine.learner_votes_untold",
            a_voter_whose_disk_is_that_of_the_learner_it_was_votes_for_nobody_before_it_is_told,
        ),
    ];
    for (mutant, story) in stories {
        let planted = quorum::mutants::plant(mutant);
        assert!(std::panic::catch_unwind(story).is_err(), "{mutant} goes unnoticed");
        drop(planted);
    }
}
