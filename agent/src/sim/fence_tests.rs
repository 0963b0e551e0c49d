//! Stories of fencing: the production session switches the simulated world's machines off, and nobody else.

use super::spec::varied;
use super::stories::*;
use super::*;
use crate::engine::{Answer, FenceAct, Input, Matter, Order, Request, Scope};
use fencing::reading::Standing;
use quorum::id::{Era, HostEpoch, HostName, LogIndex, SiteName, VoterId};
use quorum::ledger::{Claim, Command, Decision, Incarnation, Override, Person, PersonKey};
use std::time::Duration;

const DEVICES: &str = r#"[[device]]
name = "bmc-tk-1"
kind = "command"
program = "/usr/lib/antipode/bmc"
wired = "ops-1, 2026-03-02"
[[device]]
name = "bmc-os-1"
kind = "command"
program = "/usr/lib/antipode/bmc"
wired = "ops-1, 2026-03-02"
[[group]]
"#;

/// Both hosts that may run the group have a device, whose word alone counts; the group comes home by a person's word.
fn spec() -> String {
    let tokyo = "name = \"tk-1\"\nsite = \"tokyo\"\n";
    let osaka = "name = \"os-1\"\nsite = \"osaka\"\n";
    varied(&[
        ("declare = \"eager\"", "watchdog_worst = \"2.2s\""),
        (tokyo, &format!("{tokyo}fencing = [[\"bmc-tk-1\"], [\"self\"]]\n")),
        (osaka, &format!("{osaka}fencing = [[\"bmc-os-1\"], [\"self\"]]\n")),
        ("[[group]]\n", DEVICES),
        ("accept = [\"self-fenced\"]\n", "accept = [\"powered-off\"]\nfailback = { policy = \"manual\" }\n"),
    ])
}

fn founded(seed: u64, hosts: &[&str], spec: &str) -> World {
    let site = |name: &str| SiteName::new(name).expect("a name");
    let mut world = World::new(&WorldSpec {
        seed,
        hosts: vec![
            (host("tk-1"), site("tokyo"), Some(VoterId(1)), false),
            (host("os-1"), site("osaka"), Some(VoterId(2)), false),
            (host("ng-1"), site("nagoya"), Some(VoterId(3)), true),
        ],
        groups: vec![(erp(), vec![host("tk-1"), host("os-1")])],
        watchdog_worst: Duration::from_millis(2_200),
        round_trip_max: Duration::from_millis(40),
    });
    // All founders meet once, or there is no cluster; those that aren't named are gone before it has a spec.
    let founders = ["tk-1", "os-1", "ng-1"];
    founders.iter().for_each(|name| world.power_on(&host(name)));
    pass(&mut world, 3);
    for name in founders.iter().filter(|name| !hosts.contains(name)) {
        world.power_off(&host(name));
    }
    let asked = Request::Apply { source: spec.into(), dry_run: false, reason: "test".into() };
    let ticket = world.ask(&host("ng-1"), asked);
    must(&mut world, 10, "the spec is applied", |world| world.answers.contains_key(&ticket));
    assert!(matches!(world.answers[&ticket], Answer::Done { .. }), "{:?}", world.answers[&ticket]);
    let leads = |world: &World| world.hosts[&host("ng-1")].engine().is_some_and(crate::engine::Engine::is_leader);
    must(&mut world, 20, "the witness leads", leads);
    world
}

fn settled(seed: u64, spec: &str) -> World {
    let mut world = founded(seed, &["tk-1", "os-1", "ng-1"], spec);
    must(&mut world, 30, "erp runs at home", |world| runs_on(world, "tk-1"));
    must(&mut world, 60, "erp is protected", is_protected);
    pass(&mut world, 15);
    world
}

fn cut_off(world: &mut World, name: &str, is_cut: bool) {
    let others: Vec<HostName> = world.hosts.keys().filter(|other| other.as_str() != name).cloned().collect();
    for other in others {
        world.cut(&host(name), &other, is_cut);
        world.cut(&other, &host(name), is_cut);
    }
}

/// Who told a device to switch whom off.
fn shots(world: &World) -> Vec<(String, String)> {
    let shot = |line: &Trace| {
        let text = line.text();
        let (_, target) = text.split_once(" told to switch ")?;
        Some((line.host.as_ref()?.to_string(), target.trim_end_matches(" off").to_owned()))
    };
    world.trace.iter().filter_map(shot).collect()
}

fn count(world: &World, text: &str) -> usize {
    world.trace.iter().filter(|line| line.text().contains(text)).count()
}

#[test]
fn a_host_that_is_cut_off_is_switched_off_and_taken_over_without_waiting_for_its_lease() {
    let mut world = settled(1, &spec());
    let at = world.now_ns;
    cut_off(&mut world, "tk-1", true);
    must(&mut world, 20, "erp runs at osaka", |world| runs_on(world, "os-1"));
    let took = Duration::from_nanos(world.now_ns - at);
    // Declared eagerly, because the device was read well; the lease alone would take longer than L_v.
    assert!(took < world.timing().voter_wait(), "{}\ntook {took:?}", tail(&world));
    assert!(!shots(&world).is_empty() && shots(&world).iter().all(|(_, target)| target == "tk-1"), "{}", tail(&world));
    assert!(!world.hosts[&host("tk-1")].is_powered());
}

/// How tk-1, which a quick device reaches, and os-1, which none does, would be declared: with their sites, and alone.
fn declared_as(declare: &str, accept: &str) -> [[&'static str; 2]; 2] {
    let without = spec().replace("[[\"bmc-os-1\"], [\"self\"]]", "[[\"self\"]]").replace("[\"powered-off\"]", accept);
    let mut world = settled(4, &without.replacen("[cluster]\n", &format!("[cluster]\ndeclare = \"{declare}\"\n"), 1));
    let ticket = world.ask(&host("ng-1"), Request::FenceStatus);
    must(&mut world, 5, "the answer", |world| world.answers.contains_key(&ticket));
    let Answer::Fencing(view) = &world.answers[&ticket] else { panic!("{:?}", world.answers[&ticket]) };
    ["tk-1", "os-1"].map(|name| {
        let line = view.hosts.iter().find(|line| line.name == name).expect("a line");
        [line.declares, line.declares_alone]
    })
}

#[test]
fn a_host_alone_is_declared_eagerly_only_where_that_brings_its_groups_up_earlier() {
    let both = "[\"self-fenced\", \"powered-off\"]";
    let (eager, lazy) = (["eager"; 2], ["lazy"; 2]);
    assert_eq!(declared_as("auto", both), [eager, lazy]);
    assert_eq!(declared_as("lazy", both), [lazy, lazy]);
    assert_eq!(declared_as("eager", both), [eager, ["eager", "lazy"]]);
}

#[test]
fn two_sides_of_a_partition_never_shoot_each_other() {
    for (seed, minority) in [(2, "tk-1"), (3, "os-1")] {
        let mut world = settled(seed, &spec());
        // Both sides still reach every device: only the quorum tells who may use one.
        cut_off(&mut world, minority, true);
        pass(&mut world, 30);
        let wrong: Vec<_> =
            shots(&world).into_iter().filter(|(by, target)| by == minority || target != minority).collect();
        assert!(wrong.is_empty() && !shots(&world).is_empty(), "{}\n{wrong:?}", tail(&world));
        let begun = world.trace.iter().filter(|line| line.text().starts_with("fencing ")).collect::<Vec<_>>();
        assert!(begun.iter().all(|line| line.host.as_ref().is_some_and(|host| host.as_str() != minority)), "{begun:?}");
        world.power_on(&host(minority));
        cut_off(&mut world, minority, false);
        must(&mut world, 90, "it is admitted again", |world| !lost(world, minority));
        pass(&mut world, 30);
        assert!(world.hosts.values().all(SimHost::is_powered), "{}", tail(&world));
        assert!(count(&world, "FenceTaskOver") > 0, "{}", tail(&world));
    }
}

fn local() -> Person {
    Person { name: "root".into(), key: PersonKey::Local(0) }
}

fn person(name: &str, key: u8) -> Person {
    Person { name: name.into(), key: PersonKey::Certificate([key; 32]) }
}

/// Asks at the witness in somebody's name, and waits for the answer.
fn ask(world: &mut World, by: Person, request: Request) -> Answer {
    let ticket = 1_000 + world.answers.len() as u64;
    world.input(&host("ng-1"), Input::Operator { ticket, by, request: Box::new(request) });
    must(world, 20, "an answer", |world| world.answers.contains_key(&ticket));
    world.answers[&ticket].clone()
}

fn fence(act: FenceAct) -> Request {
    Request::Fence { scope: Scope::Host(host("tk-1")), act, reason: "it is off, I looked".into(), dry_run: false }
}

fn vouch() -> Request {
    fence(FenceAct::Override { at_once: false, span_ms: Some(60_000) })
}

fn approve(index: LogIndex) -> Request {
    let order = Order::Approve { matter: Matter::Override(index.0) };
    Request::Order { order, reason: "I looked, too".into() }
}

fn refused(answer: &Answer, code: &str) -> String {
    match answer {
        Answer::Refused { code: said, because, .. } if *said == code => because.clone(),
        other => panic!("not refused as {code}: {other:?}"),
    }
}

fn lost(world: &World, name: &str) -> bool {
    let engine = world.hosts[&host("ng-1")].engine().expect("the witness runs");
    engine.ledger().admitted(&host(name)).is_none()
}

/// Nobody reaches the processor of tk-1.
fn cut_management(world: &mut World) {
    for executor in ["os-1", "ng-1", "tk-1"] {
        world.fences.cut.insert((host(executor), host("tk-1")));
    }
}

/// tk-1 without power, declared lost, and nothing that could prove it; its last beat is older than `contrary_fresh`.
fn unproven(seed: u64, spec: &str) -> World {
    let mut world = settled(seed, spec);
    cut_management(&mut world);
    pass(&mut world, 11);
    world.power_off(&host("tk-1"));
    must(&mut world, 30, "tk-1 is declared lost", |world| lost(world, "tk-1"));
    pass(&mut world, 20);
    assert!(!runs_on(&world, "os-1"), "{}", tail(&world));
    world
}

fn two_people() -> String {
    spec().replace("[cluster]\n", "[cluster]\napprovals = 2\ncontrary_fresh = \"5s\"\n")
}

#[test]
fn an_override_of_a_live_host_is_refused_and_names_the_heartbeat_and_its_age() {
    let mut world = settled(10, &spec());
    let answer = ask(&mut world, local(), vouch());
    let because = refused(&answer, "contrary-fresh");
    assert!(because.contains("a heartbeat heard by") && because.contains(" s ago"), "{because}");
    pass(&mut world, 5);
    assert!(!lost(&world, "tk-1") && runs_on(&world, "tk-1"), "{}", tail(&world));
    // The attempt, and what was shown, is in the audit chain.
    assert!(count(&world, "a heartbeat heard by") > 0 && count(&world, "; refused: host tk-1 may be alive") > 0);
}

#[test]
fn an_override_is_refused_while_a_fence_device_reads_on() {
    let spec = spec().replace("[cluster]\n", "[cluster]\ncontrary_fresh = \"15s\"\n");
    let mut world = settled(11, &spec);
    world.fences.stubborn.insert(host("tk-1"));
    cut_off(&mut world, "tk-1", true);
    must(&mut world, 60, "tk-1 is declared lost", |world| lost(world, "tk-1"));
    pass(&mut world, 30);
    let because = refused(&ask(&mut world, local(), vouch()), "contrary-fresh");
    assert!(because.contains("bmc-tk-1 says \"on\"") && because.contains(" s ago"), "{because}");
    assert!(!runs_on(&world, "os-1"), "{}", tail(&world));
    // Once somebody pulled its plugs, the processor reads off: no sign is left, and the fence itself succeeds.
    world.fences.stubborn.clear();
    must(&mut world, 120, "erp runs at osaka", |world| runs_on(world, "os-1"));
}

#[test]
fn where_two_people_are_needed_one_is_not_enough_however_often_they_ask() {
    let mut world = unproven(12, &two_people());
    refused(&ask(&mut world, local(), vouch()), "local-cannot-pair");
    let index = asked_by_ann(&mut world);
    refused(&ask(&mut world, person("bob", 1), approve(index)), "same-person");
    refused(&ask(&mut world, local(), approve(index)), "local-cannot-pair");
    pass(&mut world, 10);
    assert!(!runs_on(&world, "os-1"), "{}", tail(&world));
    let agreed = ask(&mut world, person("bob", 2), approve(index));
    assert!(matches!(agreed, Answer::Done { .. }), "{agreed:?}");
    must(&mut world, 20, "erp runs at osaka", |world| runs_on(world, "os-1"));
    // What both were shown is in the audit chain.
    assert!(count(&world, "override of host tk-1: about tk-1@1;") > 0, "{}", tail(&world));
    assert!(count(&world, "agrees with override") > 0, "{}", tail(&world));
    refused(&ask(&mut world, person("ann", 1), vouch()), "nothing-missing");
}

/// Ann's override of a dead tk-1, which waits for a second person.
fn asked_by_ann(world: &mut World) -> LogIndex {
    let asked = ask(world, person("ann", 1), vouch());
    let Answer::Waits { index, .. } = asked else { panic!("{asked:?}") };
    index
}

/// tk-1 lives again while ann's override waits: cut off, so that nobody hears it, but its processor reads "on".
fn alive_while_an_override_waits(seed: u64) -> (World, LogIndex) {
    let mut world = unproven(seed, &two_people());
    let index = asked_by_ann(&mut world);
    world.fences.stubborn.insert(host("tk-1"));
    cut_off(&mut world, "tk-1", true);
    world.power_on(&host("tk-1"));
    world.fences.cut.clear();
    pass(&mut world, 14);
    (world, index)
}

#[test]
fn an_agreement_is_refused_while_the_target_shows_a_sign_of_life() {
    let (mut world, index) = alive_while_an_override_waits(21);
    let because = refused(&ask(&mut world, person("bob", 2), approve(index)), "contrary-fresh");
    assert!(because.contains("bmc-tk-1 says \"on\""), "{because}");
    assert!(!runs_on(&world, "os-1"), "{}", tail(&world));
}

/// The leader changes while ann's override waits.
fn led_anew_while_an_override_waits(seed: u64) -> (World, LogIndex) {
    let mut world = unproven(seed, &two_people());
    let index = asked_by_ann(&mut world);
    let term = |world: &World| world.ledger().map(|ledger| ledger.position().term);
    let before = term(&world);
    let leader = world.leader().expect("a leader").clone();
    world.kill_agent(&leader);
    pass(&mut world, 2);
    world.start_agent(&leader);
    must(&mut world, 60, "another term", |world| term(world) > before && world.leader().is_some());
    pass(&mut world, 5);
    (world, index)
}

#[test]
fn an_override_that_waits_is_void_with_the_next_leader() {
    let (mut world, index) = led_anew_while_an_override_waits(22);
    refused(&ask(&mut world, person("bob", 2), approve(index)), "subject-unknown");
    assert!(!runs_on(&world, "os-1"), "{}", tail(&world));
}

#[test]
fn an_override_waits_only_so_long_for_a_second_person() {
    let mut world = unproven(13, &two_people());
    let index = asked_by_ann(&mut world);
    pass(&mut world, 70);
    refused(&ask(&mut world, person("bob", 2), approve(index)), "subject-unknown");
    assert!(!runs_on(&world, "os-1"), "{}", tail(&world));
}

#[test]
fn an_override_ends_with_the_incarnation_that_it_names_and_can_not_be_replayed() {
    let spec = spec().replace("[cluster]\n", "[cluster]\ncontrary_fresh = \"5s\"\n");
    let mut world = unproven(14, &spec);
    let vouched = ask(&mut world, local(), vouch());
    assert!(matches!(vouched, Answer::Done { .. }), "{vouched:?}");
    must(&mut world, 20, "erp runs at osaka", |world| runs_on(world, "os-1"));
    world.power_on(&host("tk-1"));
    must(&mut world, 60, "tk-1 is admitted again", |world| !lost(world, "tk-1"));
    must(&mut world, 90, "erp is protected again", is_protected);
    let engine = |world: &World| {
        world.hosts[&host("ng-1")].engine().is_some_and(|engine| engine.ledger().open_plan(&erp()).is_none())
    };
    must(&mut world, 90, "no plan is under way", engine);
    let moved = crate::engine::Move {
        kind: quorum::ledger::PlanKind::Failback,
        group: erp(),
        toward: None,
        to: None,
        reason: "home".into(),
        dry_run: false,
        accept_loss: false,
    };
    let moved = ask(&mut world, local(), Request::Move(moved));
    assert!(matches!(moved, Answer::Done { .. }), "{moved:?}");
    must(&mut world, 60, "erp is home", |world| runs_on(world, "tk-1"));
    must(&mut world, 60, "erp is protected at home", is_protected);
    world.power_off(&host("tk-1"));
    must(&mut world, 60, "tk-1 is declared lost again", |world| lost(world, "tk-1"));
    pass(&mut world, 20);
    assert!(!runs_on(&world, "os-1"), "the old override was used again\n{}", tail(&world));
    let of = Incarnation { host: host("tk-1"), he: HostEpoch::in_era(Era(1), 1) };
    let by = Decision { by: local(), reason: "again".into(), shown: String::new() };
    let (contrary, span) = (Vec::new(), Duration::from_secs(60));
    let again = Override { claim: Claim::Inert(vec![of]), contrary, at_once: true, span, by };
    let answer = ask(&mut world, local(), Request::Command(Box::new(Command::Override(again))));
    assert!(matches!(answer, Answer::Refused { .. }), "{answer:?}");
    pass(&mut world, 5);
    assert!(!runs_on(&world, "os-1"), "{}", tail(&world));
}

#[test]
fn a_person_fences_a_live_host_and_calls_off_what_can_not_succeed() {
    let mut world = settled(15, &spec());
    let answer = ask(&mut world, local(), fence(FenceAct::Run));
    assert!(matches!(answer, Answer::Done { .. }), "{answer:?}");
    must(&mut world, 20, "erp runs at osaka", |world| runs_on(world, "os-1"));
    assert!(shots(&world).iter().all(|(_, target)| target == "tk-1"), "{}", tail(&world));

    let mut world = settled(16, &spec());
    cut_management(&mut world);
    let answer = ask(&mut world, local(), fence(FenceAct::Run));
    assert!(matches!(answer, Answer::Done { .. }), "{answer:?}");
    let answer = ask(&mut world, local(), fence(FenceAct::Release));
    assert!(matches!(answer, Answer::Done { .. }), "{answer:?}");
    must(&mut world, 120, "tk-1 is admitted again", |world| !lost(world, "tk-1"));
    world.fences.cut.clear();
    pass(&mut world, 60);
    assert!(shots(&world).is_empty() && world.hosts[&host("tk-1")].is_powered(), "{}", tail(&world));
}

#[test]
fn the_next_executor_is_asked_when_one_dies_and_a_restarted_one_does_not_go_on() {
    let mut world = settled(17, &spec());
    cut_management(&mut world);
    pass(&mut world, 11);
    cut_off(&mut world, "tk-1", true);
    must(&mut world, 60, "somebody took the task up", |world| count(world, "FenceTaskStarted") > 0);
    world.kill_agent(&host("os-1"));
    world.fences.cut.clear();
    must(&mut world, 60, "tk-1 is off", |world| !world.hosts[&host("tk-1")].is_powered());
    world.start_agent(&host("os-1"));
    must(&mut world, 120, "erp runs at osaka", |world| runs_on(world, "os-1"));
    assert!(shots(&world).iter().all(|(by, target)| by == "ng-1" && target == "tk-1"), "{}", tail(&world));
}

/// An executor took a task up, can't reach the device, and is then cut off itself; after its lease the device answers.
fn cut_off_executor() -> World {
    let mut world = settled(18, &spec());
    cut_management(&mut world);
    pass(&mut world, 11);
    cut_off(&mut world, "tk-1", true);
    must(&mut world, 60, "somebody took the task up", |world| count(world, "FenceTaskStarted") > 0);
    // No two of the three hear each other now: nobody is on a majority's side.
    cut_off(&mut world, "os-1", true);
    pass(&mut world, 12);
    world.fences.cut.clear();
    pass(&mut world, 15);
    world
}

#[test]
fn an_executor_that_is_cut_off_itself_calls_no_device_any_more() {
    let world = cut_off_executor();
    assert!(shots(&world).is_empty() && world.hosts[&host("tk-1")].is_powered(), "{}", tail(&world));
}

#[test]
fn a_newborn_group_waits_for_a_host_that_never_was_there_until_a_person_vouches_for_it() {
    let spec = spec().replace("[cluster]\n", "[cluster]\ncontrary_fresh = \"5s\"\n");
    let mut world = founded(20, &["tk-1", "ng-1"], &spec);
    pass(&mut world, 30);
    assert!(!runs_on(&world, "tk-1"), "{}", tail(&world));
    let vouched = Request::Fence {
        scope: Scope::Host(host("os-1")),
        act: FenceAct::Override { at_once: false, span_ms: None },
        reason: "it isn't delivered yet".into(),
        dry_run: false,
    };
    let answer = ask(&mut world, local(), vouched);
    assert!(matches!(answer, Answer::Done { .. }), "{answer:?}");
    must(&mut world, 30, "erp runs at home", |world| runs_on(world, "tk-1"));
    assert!(count(&world, "nothing of erp on os-1") > 0, "{}", tail(&world));
}

/// tk-1 comes back before os-1, which took the task against it up and then lost its power. How long tk-1 waited.
fn back_before_its_executor() -> (World, Duration) {
    let mut world = settled(19, &spec());
    cut_management(&mut world);
    pass(&mut world, 11);
    cut_off(&mut world, "tk-1", true);
    let took_up = |world: &World| count(world, "FenceTaskStarted") > 0 && count(world, "\"executor\":\"os-1\"") > 0;
    must(&mut world, 60, "os-1 took the task up", took_up);
    world.power_off(&host("os-1"));
    cut_off(&mut world, "tk-1", false);
    must(&mut world, 60, "the task is called off", |world| count(world, "FenceTaskCancelled") > 0);
    let called_off = world.now_ns;
    must(&mut world, 120, "tk-1 is admitted again", |world| !lost(world, "tk-1"));
    let waited = Duration::from_nanos(world.now_ns - called_off);
    (world, waited)
}

#[test]
fn a_host_that_returns_waits_out_an_executor_that_is_never_heard_of_again() {
    let (world, waited) = back_before_its_executor();
    // Twice the device's 20 s and its settle time, and 10 s: only then is os-1 harmless, wherever it is.
    assert!(waited >= Duration::from_secs(50), "{}\nwaited {waited:?}", tail(&world));
    // And it is called off once: the leader doesn't ask again for what the log has.
    assert_eq!(count(&world, "fence-task-cancel"), 0, "{}", tail(&world));
    // os-1 is lost itself by then, and fenced; nobody shoots the one that came back.
    assert!(shots(&world).iter().all(|(_, target)| target == "os-1"), "{}", tail(&world));
}

/// As `spec`, the devices being hypervisors that speak of erp's VM.
fn hypervisors() -> String {
    let spec = spec().replace("accept = [\"powered-off\"]", "accept = [\"hypervisor-off\"]");
    spec.replace("wired = ", "proves = \"hypervisor\"\ngroup = \"erp\"\nwired = ")
}

#[test]
fn a_vm_is_taken_over_once_its_hypervisor_says_that_it_is_off_and_stays_so() {
    let mut world = settled(24, &hypervisors());
    // Off, but registered: whoever has the hypervisor could start it again.
    world.fences.standing =
        Standing { source: "vc-1".into(), agent_contained: true, automatic_start_off: true, ..Standing::default() };
    cut_off(&mut world, "tk-1", true);
    must(&mut world, 60, "the VM is switched off", |world| !shots(world).is_empty());
    pass(&mut world, 30);
    assert!(!runs_on(&world, "os-1"), "{}", tail(&world));
    world.fences.standing.detached = true;
    must(&mut world, 120, "erp runs at osaka", |world| runs_on(world, "os-1"));
    assert!(count(&world, "hypervisor-off") + count(&world, "HypervisorOff") > 0, "{}", tail(&world));
}

/// Every host has a poison pill and its lease, and nothing that could be read.
fn pills() -> String {
    let mut spec = spec().replace("accept = [\"powered-off\"]", "accept = [\"self-fenced\"]");
    for name in ["tk-1", "os-1"] {
        let panel = format!("name = \"bmc-{name}\"\nkind = \"command\"\nprogram = \"/usr/lib/antipode/bmc\"\n");
        let pill = format!("name = \"bmc-{name}\"\nkind = \"sbd\"\ndevices = [\"/dev/sbd\"]\nnode = \"{name}\"\n");
        spec = spec.replace(&(panel + "wired = \"ops-1, 2026-03-02\"\n"), &pill);
    }
    spec
}

#[test]
fn a_host_with_nothing_but_a_pill_is_sent_it_and_proven_by_its_lease() {
    let mut world = settled(23, &pills());
    // tk-1 doesn't read its slot: the message alone changes nothing.
    world.fences.stubborn.insert(host("tk-1"));
    cut_off(&mut world, "tk-1", true);
    must(&mut world, 30, "the pill was sent", |world| !shots(world).is_empty());
    assert!(shots(&world).iter().all(|(by, target)| by != "tk-1" && target == "tk-1"), "{}", tail(&world));
    must(&mut world, 30, "erp runs at osaka", |world| runs_on(world, "os-1"));
    let of = Incarnation { host: host("tk-1"), he: HostEpoch::in_era(Era(1), 1) };
    let ledger = world.ledger().expect("a ledger");
    let kinds: Vec<&str> =
        ledger.incarnation(&of).expect("known").evidence.iter().map(|evidence| evidence.kind.as_str()).collect();
    assert_eq!(kinds, ["self-fenced"], "{}", tail(&world));
    must(&mut world, 60, "the task is over", |world| count(world, "FenceTaskOver") > 0);
    let sent = shots(&world).len();
    pass(&mut world, 60);
    assert_eq!(shots(&world).len(), sent, "{}", tail(&world));
}

/// The stories above see it when a guard is gone.
#[cfg(feature = "mutants")]
mod guards_are_watched {
    use super::*;
    use quorum::mutants::plant;

    #[test]
    fn an_executor_that_does_not_ask_for_its_lease_shoots_from_a_minority() {
        let _planted = plant("fence.without_lease");
        assert!(!shots(&cut_off_executor()).is_empty());
    }

    #[test]
    fn an_override_that_asks_for_no_signs_vouches_for_a_live_host() {
        let _planted = plant("fence.signs_ignored");
        let mut world = settled(10, &spec());
        let (ticket, by, request) = (1_000, local(), Box::new(vouch()));
        world.input(&host("ng-1"), Input::Operator { ticket, by, request });
        let answered = world.run_until(Duration::from_secs(20), |world| world.answers.contains_key(&ticket));
        // The oracle sees it before the person does: erp still runs where it was vouched to be gone.
        let violation = format!("{:?}", answered.expect_err("a live host was vouched for"));
        assert!(violation.contains("I4"), "{violation}");
    }

    #[test]
    fn a_task_that_goes_on_though_it_was_called_off_is_seen_to_shoot() {
        let _planted = plant("fence.called_off_goes_on");
        let mut world = settled(16, &spec());
        // It is told to switch off and stays on, so it will be told again.
        world.fences.stubborn.insert(host("tk-1"));
        ask(&mut world, local(), fence(FenceAct::Run));
        must(&mut world, 20, "it is told once", |world| !shots(world).is_empty());
        ask(&mut world, local(), fence(FenceAct::Release));
        let violation = world.run_for(Duration::from_secs(120)).expect_err("it shot");
        assert_eq!(violation.invariant, "I13", "{violation:?}");
    }

    /// What becomes of an override of tk-1 that is given.
    fn overridden() -> Violation {
        let spec = spec().replace("[cluster]\n", "[cluster]\ncontrary_fresh = \"5s\"\n");
        let mut world = unproven(14, &spec);
        let (ticket, by, request) = (1_000, local(), Box::new(vouch()));
        world.input(&host("ng-1"), Input::Operator { ticket, by, request });
        world.run_for(Duration::from_secs(20)).expect_err("it reaches others")
    }

    #[test]
    fn an_override_that_reaches_what_it_does_not_name_is_seen_to_do_so() {
        let _planted = plant("ledger.override_reaches_further");
        assert_eq!(overridden().invariant, "I18");
    }

    #[test]
    fn an_override_that_is_used_again_is_seen_to_be() {
        let _planted = plant("ledger.override_used_twice");
        let mut world = unproven(12, &two_people());
        let index = asked_by_ann(&mut world);
        ask(&mut world, person("bob", 2), approve(index));
        let (ticket, by, request) = (2_000, person("eve", 3), Box::new(approve(index)));
        world.input(&host("ng-1"), Input::Operator { ticket, by, request });
        let violation = world.run_for(Duration::from_secs(10)).expect_err("it was used again");
        assert_eq!(violation.invariant, "I18", "{violation:?}");
    }

    #[test]
    fn one_person_with_two_names_is_heard_twice() {
        let _planted = plant("ledger.one_person_twice");
        let mut world = unproven(12, &two_people());
        let index = asked_by_ann(&mut world);
        let agreed = ask(&mut world, person("mallory", 1), approve(index));
        assert!(matches!(agreed, Answer::Done { .. }), "{agreed:?}");
        // The permit counts its keys once more: this guard gone alone frees nothing.
        pass(&mut world, 20);
        assert!(!runs_on(&world, "os-1"), "{}", tail(&world));
    }

    #[test]
    fn the_local_socket_is_heard_as_one_of_two() {
        let _planted = plant("ledger.local_socket_pairs");
        let mut world = unproven(12, &two_people());
        let index = asked_by_ann(&mut world);
        let agreed = ask(&mut world, local(), approve(index));
        assert!(matches!(agreed, Answer::Done { .. }), "{agreed:?}");
        // The permit counts its keys once more: this guard gone alone frees nothing.
        pass(&mut world, 20);
        assert!(!runs_on(&world, "os-1"), "{}", tail(&world));
    }

    #[test]
    fn an_agreement_that_asks_for_no_signs_vouches_for_the_living() {
        let _planted = plant("ledger.override_of_the_living");
        let (mut world, index) = alive_while_an_override_waits(21);
        let agreed = ask(&mut world, person("bob", 2), approve(index));
        assert!(matches!(agreed, Answer::Done { .. }), "{agreed:?}");
    }

    #[test]
    fn an_override_that_survives_its_leader_is_completed_by_the_next() {
        let _planted = plant("ledger.permits_survive_leaders");
        let (mut world, index) = led_anew_while_an_override_waits(22);
        let agreed = ask(&mut world, person("bob", 2), approve(index));
        assert!(matches!(agreed, Answer::Done { .. }), "{agreed:?}");
    }

    #[test]
    fn a_task_that_is_called_off_at_each_look_is_refused_again_and_again() {
        let _planted = plant("admit.calls_off_twice");
        assert!(count(&back_before_its_executor().0, "fence-task-cancel") > 0);
    }
}
