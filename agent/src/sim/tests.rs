//! The first stories of a cluster, told by the production engine.

use super::spec::varied;
pub(super) use super::stories::*;
use super::*;
use crate::engine::{Answer, Request};
use quorum::id::{HostName, SiteName, VoterId};
use std::time::Duration;

/// The group comes home by itself.
pub(super) fn spec() -> String {
    let accepted = "accept = [\"self-fenced\"]\n";
    varied(&[(accepted, &format!("{accepted}failback = {{ policy = \"auto\", stable_for = \"5s\" }}\n"))])
}

pub(super) fn world(seed: u64, more: &[&str]) -> World {
    let site = |name: &str| SiteName::new(name).expect("a name");
    let mut hosts = vec![
        (host("tk-1"), site("tokyo"), Some(VoterId(1)), false),
        (host("os-1"), site("osaka"), Some(VoterId(2)), false),
        (host("ng-1"), site("nagoya"), Some(VoterId(3)), true),
    ];
    hosts.extend(more.iter().map(|name| (host(name), site("tokyo"), None, false)));
    World::new(&WorldSpec {
        seed,
        hosts,
        groups: vec![(erp(), vec![host("tk-1"), host("os-1")])],
        watchdog_worst: Duration::from_millis(1_100),
        round_trip_max: Duration::from_millis(40),
    })
}

pub(super) fn settled(seed: u64) -> World {
    settled_with(seed, &[])
}

/// With more hosts at tokyo, which have no vote.
fn settled_with(seed: u64, more: &[&str]) -> World {
    let source = more.iter().fold(spec(), |spec, name| {
        let line = format!("[[host]]\nname = \"{name}\"\nsite = \"tokyo\"\n[[group]]");
        spec.replacen("[[group]]", &line, 1)
    });
    let mut world = begun(world(seed, more), source);
    must(&mut world, 60, "erp is protected", is_protected);
    world
}

/// This spec is in force, and the group runs at home.
pub(super) fn begun(mut world: World, source: String) -> World {
    let names: Vec<HostName> = world.hosts.keys().cloned().collect();
    names.iter().for_each(|name| world.power_on(name));
    world.run_for(Duration::from_secs(3)).expect("no violation");
    let ticket = world.ask(&host("ng-1"), Request::Apply { source, dry_run: false, reason: "test".into() });
    must(&mut world, 10, "the spec is applied", |world| world.answers.contains_key(&ticket));
    assert!(matches!(world.answers[&ticket], Answer::Done { .. }), "{:?}", world.answers[&ticket]);
    let leads = |world: &World| world.hosts[&host("ng-1")].engine().is_some_and(crate::engine::Engine::is_leader);
    must(&mut world, 20, "the witness leads", leads);
    must(&mut world, 30, "erp runs at home", |world| runs_on(world, "tk-1"));
    world
}

#[test]
fn a_lost_site_is_declared_fenced_and_taken_over_and_the_group_comes_home_by_itself() {
    let mut world = settled(1);
    world.run_for(Duration::from_secs(3)).expect("no violation");
    let killed = world.now_ns;
    world.power_off(&host("tk-1"));
    must(&mut world, 20, "erp runs at osaka", |world| runs_on(world, "os-1"));
    let took = (world.now_ns - killed) / 1_000_000;
    assert!((3_000..5_500).contains(&took), "{}\ntakeover took {took} ms", tail(&world));
    world.run_for(Duration::from_secs(3)).expect("no violation");
    world.power_on(&host("tk-1"));
    must(&mut world, 60, "erp is protected again", is_protected);
    must(&mut world, 60, "erp is home by itself", |world| runs_on(world, "tk-1"));
    must(&mut world, 60, "erp is protected at home", is_protected);
}

/// How long after the second voter's suspicion the loss of tokyo is in force at the leader, in milliseconds.
fn declared_within(seed: u64) -> u64 {
    let mut world = settled(seed);
    // Another phase of everybody's beats each time.
    world.run_for(Duration::from_millis(3_000 + 7 * seed)).expect("no violation");
    let killed = world.now_ns;
    world.power_off(&host("tk-1"));
    must(&mut world, 5, "tokyo is declared lost", |world| lost(world) > 0);
    let declared = world.now_ns;
    let suspects = |line: &&Trace| line.at_ns > killed && line.text().contains("site-suspect");
    let second = world.trace.iter().filter(suspects).nth(1).map(|line| line.at_ns);
    let second = second.unwrap_or_else(|| panic!("{}\none voter alone declared", tail(&world)));
    (declared - second) / 1_000_000
}

#[test]
fn what_two_voters_suspect_waits_for_no_beat_that_is_due_later() {
    let slowest = (1..=8).map(declared_within).max();
    // The report's way, then a commit: three times 20 ms, and the disks.
    assert!(slowest.is_some_and(|slowest| slowest < 80), "declared {slowest:?} ms after the suspicion");
}

fn lost(world: &World) -> usize {
    world.trace.iter().filter(|line| line.text().contains("HostLost")).count()
}

#[test]
fn a_cut_between_the_two_sites_that_the_witness_sees_both_of_moves_nothing() {
    let mut world = settled(3);
    for is_cut in [true, false] {
        world.cut(&host("tk-1"), &host("os-1"), is_cut);
        world.cut(&host("os-1"), &host("tk-1"), is_cut);
        if is_cut {
            must(&mut world, 20, "the mirror is detached", |world| !is_protected(world));
            world.run_for(Duration::from_secs(20)).expect("no violation");
        }
    }
    must(&mut world, 60, "the pair heals", is_protected);
    assert!(runs_on(&world, "tk-1"), "{}", tail(&world));
    assert_eq!(lost(&world), 0, "{}", tail(&world));
}

#[test]
fn an_agent_that_is_back_within_the_slack_leaves_its_guest_untouched() {
    let mut world = settled(5);
    world.kill_agent(&host("tk-1"));
    world.run_for(Duration::from_millis(300)).expect("no violation");
    world.start_agent(&host("tk-1"));
    world.run_for(Duration::from_secs(10)).expect("no violation");
    let killed = world.trace.iter().any(|line| line.text().contains("keeper killed"));
    assert!(runs_on(&world, "tk-1") && !killed, "{}", tail(&world));
    assert_eq!(lost(&world), 0, "{}", tail(&world));
}

#[test]
fn an_agent_that_stays_away_costs_the_workload_and_never_the_host() {
    let mut world = settled(6);
    world.kill_agent(&host("tk-1"));
    must(&mut world, 20, "erp runs at osaka", |world| runs_on(world, "os-1"));
    let reset = world.trace.iter().any(|line| line.text().contains("watchdog reset"));
    assert!(!reset, "{}", tail(&world));
    world.start_agent(&host("tk-1"));
    must(&mut world, 90, "erp is home by itself", |world| runs_on(world, "tk-1"));
}

#[test]
fn all_power_lost_and_back_in_any_order_brings_the_group_up_once() {
    for (seed, order) in [(7, ["tk-1", "os-1", "ng-1"]), (8, ["ng-1", "os-1", "tk-1"]), (9, ["os-1", "tk-1", "ng-1"])] {
        let mut world = settled(seed);
        for name in ["tk-1", "os-1", "ng-1"] {
            world.power_off(&host(name));
        }
        world.run_for(Duration::from_secs(5)).expect("no violation");
        for name in order {
            world.power_on(&host(name));
            world.run_for(Duration::from_secs(4)).expect("no violation");
        }
        must(&mut world, 90, "erp runs again", |world| runs_on(world, "tk-1") || runs_on(world, "os-1"));
        must(&mut world, 90, "erp is protected again", is_protected);
    }
}

/// The home site is lost, comes back, and the group is on its way there: stopped at osaka, not yet running at home.
fn on_the_way_home(seed: u64) -> World {
    let mut world = settled(seed);
    world.power_off(&host("tk-1"));
    must(&mut world, 20, "erp runs at osaka", |world| runs_on(world, "os-1"));
    world.power_on(&host("tk-1"));
    must(&mut world, 60, "erp is protected again", is_protected);
    must(&mut world, 60, "erp has stopped for the way home", |world| !runs_on(world, "os-1"));
    world
}

#[test]
fn a_standby_says_what_it_has_as_soon_as_it_is_in_sync() {
    let mut world = on_the_way_home(20);
    let stopped = world.now_ns;
    must(&mut world, 60, "erp runs at home", |world| runs_on(world, "tk-1"));
    let gap = (world.now_ns - stopped) / 1_000_000;
    assert!(gap < 2_000, "{}\nnobody ran it for {gap} ms", tail(&world));
}

/// Home is lost again this long after the group ran there again; then it comes back.
fn lost_again(seed: u64, after: Duration) -> Result<World, Violation> {
    let mut world = on_the_way_home(seed);
    must(&mut world, 60, "erp runs at home", |world| runs_on(world, "tk-1"));
    world.run_for(after)?;
    world.power_off(&host("tk-1"));
    // The other copy may lack what was written since: then nobody starts from it.
    world.run_for(Duration::from_secs(10))?;
    world.power_on(&host("tk-1"));
    world.run_for(Duration::from_secs(20))?;
    Ok(world)
}

#[test]
fn a_home_that_is_lost_right_after_the_way_home_loses_no_answered_write() {
    for (seed, after_ms) in [(21, 100), (22, 1_000), (23, 2_500), (24, 3_500), (25, 6_000)] {
        let mut world = lost_again(seed, Duration::from_millis(after_ms)).expect("no violation");
        must(&mut world, 90, "erp runs again", |world| runs_on(world, "tk-1") || runs_on(world, "os-1"));
    }
}

#[test]
#[cfg(feature = "mutants")]
fn an_owner_that_starts_while_other_copies_pass_for_whole_is_seen_to_lose_writes() {
    let _planted = quorum::mutants::plant("runner.starts_with_copies_in_sync");
    let violation = lost_again(21, Duration::from_secs(1)).err().expect("a lost write");
    assert_eq!(violation.invariant, "I10", "{violation:?}");
}

#[test]
fn a_new_owner_that_is_lost_before_its_first_mirror_is_waited_for() {
    let mut world = settled(26);
    world.power_off(&host("tk-1"));
    must(&mut world, 20, "erp runs at osaka", |world| runs_on(world, "os-1"));
    world.power_on(&host("tk-1"));
    world.run_for(Duration::from_millis(1_500)).expect("no violation");
    world.power_off(&host("os-1"));
    world.run_for(Duration::from_secs(20)).unwrap_or_else(|violation| panic!("{}\n{violation:?}", tail(&world)));
    assert!(!runs_on(&world, "tk-1"), "{}", tail(&world));
    world.power_on(&host("os-1"));
    must(&mut world, 90, "erp runs again", |world| runs_on(world, "os-1"));
    must(&mut world, 90, "erp is protected again", is_protected);
}

/// A host without a vote is lost for a while, with its whole site so that this is declared early, and comes back: its
/// host epoch a while after.
fn host_epoch_on_return(seed: u64) -> (String, World) {
    let mut world = settled_with(seed, &["tk-2"]);
    let tokyo = ["tk-1", "tk-2"].map(host);
    tokyo.iter().for_each(|host| world.power_off(host));
    must(&mut world, 20, "tokyo is lost", |world| lost(world) > 0);
    world.run_for(Duration::from_secs(3)).expect("no violation");
    tokyo.iter().for_each(|host| world.power_on(host));
    world.run_for(Duration::from_secs(15)).expect("no violation");
    let ledger = world.hosts[&host("ng-1")].engine().expect("it runs").ledger();
    let he = ledger.host(&host("tk-2")).expect("it was admitted").he.to_string();
    (he, world)
}

#[test]
fn a_loss_and_a_return_cost_one_host_epoch() {
    for seed in 30..34 {
        let (he, world) = host_epoch_on_return(seed);
        assert_eq!(he, "2", "{}\nseed {seed}", tail(&world));
    }
}

#[test]
#[cfg(feature = "mutants")]
fn what_a_host_said_before_it_fell_silent_is_seen_to_admit_it_dead() {
    let _planted = quorum::mutants::plant("admit.silent_host_speaks");
    assert!((30..34).any(|seed| host_epoch_on_return(seed).0 != "2"));
}

/// How many losses it costs that the agent of erp's host stands still for a second, while others of its site speak.
fn losses_of_a_pause(others: &[&str], accept: &str) -> usize {
    let source = others.iter().fold(spec(), |spec, name| {
        let line = format!("[[host]]\nname = \"{name}\"\nsite = \"tokyo\"\n[[group]]");
        spec.replacen("[[group]]", &line, 1)
    });
    let mut world = begun(world(31, others), source.replace("[\"self-fenced\"]", accept));
    must(&mut world, 60, "erp is protected", is_protected);
    world.stop_agent(&host("tk-1"), Duration::from_secs(1));
    world.run_for(Duration::from_secs(8)).expect("no violation");
    assert!(runs_on(&world, "tk-1") || lost(&world) > 0, "{}", tail(&world));
    lost(&world)
}

#[test]
fn a_host_that_is_silent_alone_is_given_until_its_lease_ends_where_its_groups_wait_for_that() {
    assert_eq!(losses_of_a_pause(&["tk-2"], "[\"self-fenced\"]"), 0);
    assert!(losses_of_a_pause(&[], "[\"self-fenced\"]") > 0, "as a whole site it isn't");
    assert!(losses_of_a_pause(&["tk-2"], "[\"powered-off\"]") > 0, "it is to be proven dead soon");
}

#[test]
#[cfg(feature = "mutants")]
fn haste_with_a_single_host_is_noticed() {
    let _planted = quorum::mutants::plant("policy.single_host_in_haste");
    assert!(losses_of_a_pause(&["tk-2"], "[\"self-fenced\"]") > 0);
}

#[test]
fn why_a_silent_host_is_not_declared_is_told_until_it_is_heard() {
    let mut world = settled_with(32, &["tk-2"]);
    let gate = |world: &World| {
        let status = world.hosts[&host("ng-1")].engine().expect("it runs").status();
        status.groups[0].gates.declare.state
    };
    // Its neighbour is silent to the leader all the while, and is never declared: the others hear it.
    world.cut(&host("tk-2"), &host("ng-1"), true);
    world.run_for(Duration::from_secs(2)).expect("no violation");
    world.stop_agent(&host("tk-1"), Duration::from_secs(1));
    must(&mut world, 2, "tk-1 is waited for", |world| gate(world) == "waiting");
    must(&mut world, 5, "tk-1 is heard again", |world| gate(world) == "closed");
    assert_eq!(lost(&world), 0, "{}", tail(&world));
}

#[test]
fn without_the_witness_failover_is_suspended_and_a_minority_names_the_way_out() {
    let status = |world: &World| world.hosts[&host("os-1")].engine().expect("it runs").status();
    let mut world = settled(27);
    world.power_off(&host("ng-1"));
    must(&mut world, 20, "failover is said to be suspended", |world| {
        !status(world).groups[0].automatic_failover.possible
    });
    world.run_for(Duration::from_secs(10)).expect("no violation");
    assert!(runs_on(&world, "tk-1"), "{}", tail(&world));
    world.power_off(&host("tk-1"));
    must(&mut world, 20, "the way out is named", |world| {
        status(world).attention.iter().any(|line| line.next == "antipode quorum recover")
    });
    world.run_for(Duration::from_secs(20)).expect("no violation");
    assert!(!runs_on(&world, "os-1"), "{}", tail(&world));
}

#[test]
fn a_brake_that_is_set_is_told_with_the_failover_that_it_stops() {
    let mut world = settled(28);
    world.power_off(&host("tk-1"));
    must(&mut world, 20, "tokyo is lost", |world| lost(world) > 0);
    world.power_on(&host("tk-1"));
    must(&mut world, 60, "erp is protected again", is_protected);
    world.power_off(&host("ng-1"));
    must(&mut world, 20, "the brake is told", |world| {
        let status = world.hosts[&host("os-1")].engine().expect("it runs").status();
        let line = &status.groups[0].automatic_failover;
        !line.possible && line.because.contains("brake")
    });
}

/// The group is granted to osaka, whose keeper is stopped before it can take the group into its armed set.
fn granted_before_it_is_armed() -> World {
    let mut world = settled(29);
    world.power_off(&host("tk-1"));
    must(&mut world, 20, "erp is granted to osaka", |world| {
        let ticket = world.ledger().and_then(|ledger| ledger.group(&erp())?.ticket.as_ref());
        ticket.is_some_and(|ticket| ticket.of.host == host("os-1"))
    });
    world.stop_keeper(&host("os-1"), Duration::from_millis(900));
    world.run_for(Duration::from_millis(800)).expect("no violation");
    world
}

#[test]
fn nothing_is_started_that_the_keeper_has_not_armed() {
    let mut world = granted_before_it_is_armed();
    assert!(!runs_on(&world, "os-1"), "{}", tail(&world));
    must(&mut world, 20, "erp runs at osaka", |world| runs_on(world, "os-1"));
}

#[test]
#[cfg(feature = "mutants")]
fn a_start_before_the_keeper_has_armed_the_group_is_noticed() {
    let _planted = quorum::mutants::plant("engine.starts_unarmed");
    assert!(runs_on(&granted_before_it_is_armed(), "os-1"));
}

/// How often a group without data is begun that ended by itself at a host that is cut off, after its lease allows no more
/// pets and before its watchdog fires; its keeper is stopped meanwhile.
fn starts_without_a_lease() -> usize {
    let volume = "[[group.volume]]\nname = \"root\"\nreplication = { kind = \"nbd\", mode = \"sync\" }\n";
    let mut world = begun(world(30, &[]), spec().replace(volume, ""));
    world.run_for(Duration::from_secs(5)).expect("no violation");
    world.isolate(&host("tk-1"), true);
    world.run_for(Duration::from_millis(1_050)).expect("no violation");
    world.stop_keeper(&host("tk-1"), Duration::from_secs(5));
    // Wherever the cut fell between two requests for the lease.
    world.run_for(Duration::from_millis(400)).expect("no violation");
    let begun = |line: &&Trace| line.text().contains("work-started") && line.text().contains("\"Start {");
    let before = world.trace.iter().filter(begun).count();
    world.crash_workload(&host("tk-1"), &erp());
    world.run_for(Duration::from_millis(250)).expect("no violation");
    world.trace.iter().filter(begun).count() - before
}

#[test]
fn nothing_is_started_where_the_lease_is_too_short() {
    assert_eq!(starts_without_a_lease(), 0);
}

#[test]
#[cfg(feature = "mutants")]
fn a_start_without_a_lease_is_noticed() {
    let _planted = quorum::mutants::plant("engine.starts_without_lease");
    assert_eq!(starts_without_a_lease(), 1);
}

#[test]
fn a_takeover_that_the_brake_holds_names_the_brake_s_release() {
    let mut world = settled(28);
    world.power_off(&host("ng-1"));
    must(&mut world, 20, "nagoya is lost", |world| lost(world) > 0);
    world.power_on(&host("ng-1"));
    must(&mut world, 50, "all are there again", |world| {
        let status = world.hosts[&host("os-1")].engine().expect("it runs").status();
        status.hosts.iter().all(|host| host.state == "admitted")
    });
    world.power_off(&host("tk-1"));
    must(&mut world, 30, "plan, gate and attention all name the brake", |world| {
        let status = world.hosts[&host("os-1")].engine().expect("it runs").status();
        let plan =
            status.plans.iter().any(|plan| plan.kind == "failover" && plan.next.starts_with("antipode brake release"));
        let gate = &status.groups[0].gates.activate;
        let down = status.attention.iter().find(|line| line.code == "group-down");
        let told =
            down.is_some_and(|line| line.text.contains("brake") && line.next.starts_with("antipode brake release"));
        plan && told && gate.state == "waiting" && gate.because.contains("brake")
    });
}

#[test]
fn same_seed_same_trace() {
    let run = |seed| {
        let mut world = settled(seed);
        world.power_off(&host("tk-1"));
        world.run_for(Duration::from_secs(10)).expect("no violation");
        world.trace
    };
    assert_eq!(run(11), run(11));
    assert_ne!(run(11), run(12));
}
#[test]
fn a_site_that_is_cut_off_but_alive_is_ended_by_its_keeper_before_the_takeover() {
    let mut world = settled(2);
    world.isolate(&host("tk-1"), true);
    must(&mut world, 20, "erp runs at osaka", |world| runs_on(world, "os-1"));
    assert!(!runs_on(&world, "tk-1"), "{}", tail(&world));
    world.isolate(&host("tk-1"), false);
    must(&mut world, 60, "erp is protected again", is_protected);
    must(&mut world, 60, "erp is home by itself", |world| runs_on(world, "tk-1"));
}
