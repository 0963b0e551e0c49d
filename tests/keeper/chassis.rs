//! The chassis itself: power, process tree, lateness.

use super::bench::*;
use serde_json::Value;

fn sleeper(name: &'static str, script: &str) -> Unit {
    let argv = ["/bin/sh", "-c", script, "@/mark"].map(str::to_owned).to_vec();
    Unit { name, argv, restarts: false }
}

fn bench(units: Vec<Unit>) -> Bench {
    Bench::start(Options { units: Some(units), ..Options::default() })
}

fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

#[test]
fn power_off_ends_everything_and_power_on_is_another_boot() {
    valid(|| {
        let daemon = "(setsid sh -c 'trap \"\" TERM; while :; do sleep 1; done' &); : > \"$0\"; exec sleep 1000";
        let bench = bench(vec![sleeper("daemon", daemon)]);
        until("the unit to run", || bench.path("mark").exists().then_some(()));
        let pids = until("two processes", || Some(bench.pids("daemon")).filter(|pids| pids.len() >= 2));
        std::fs::write(bench.path("keeper/left"), "behind").expect("written");
        let before = until("a boot id", || text(&bench.order("status"), "boot_id"));
        let off = bench.order("off");
        assert_eq!((&off["power"], &off["lab"]), (&"off".into(), &true.into()));
        assert!(pids.iter().all(|&pid| !is_alive(pid)), "off is answered when the tree is gone");
        bench.order("on");
        let after = until("another boot id", || text(&bench.order("status"), "boot_id").filter(|id| *id != before));
        assert_ne!(before, after);
        assert!(!bench.path("keeper/left").exists(), "what is volatile is empty after power-on");
        assert_eq!((bench.events("power-on").len(), bench.events("power-off").len()), (2, 1));
    });
}

fn text(value: &Value, key: &str) -> Option<String> {
    value[key].as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

#[test]
fn a_chassis_that_is_late_makes_its_run_invalid_for_ever() {
    // Not wrapped: this stall is what is wanted.
    require();
    let bench = bench(vec![sleeper("idle", ": > \"$0\"; exec sleep 1000")]);
    until("the unit to run", || bench.path("mark").exists().then_some(()));
    let pid = until("the chassis", || chassis_of(&bench));
    let signal = |signal| rustix::process::kill_process(pid, signal).expect("sent");
    signal(rustix::process::Signal::STOP);
    let begun = std::time::Instant::now();
    until("half a second", || (begun.elapsed().as_millis() > 500).then_some(()));
    signal(rustix::process::Signal::CONT);
    let status = bench.order("status");
    let why = text(&status, "invalid").expect("it says that it proves nothing");
    assert!(why.starts_with("invalid: host stalled "), "{why}");
    assert_eq!(bench.event("stalled")["verdict"].as_str().map(|verdict| verdict.starts_with("invalid")), Some(true));
}

/// The parent of the host's first process.
fn chassis_of(bench: &Bench) -> Option<rustix::process::Pid> {
    let init = bench.order("status")["pid"].as_i64()?;
    let stat = std::fs::read_to_string(format!("/proc/{init}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rustix::process::Pid::from_raw(rest.split_whitespace().nth(1)?.parse().ok()?)
}

#[test]
fn a_host_whose_chassis_dies_has_no_power() {
    require();
    let bench = bench(vec![sleeper("idle", ": > \"$0\"; exec sleep 1000")]);
    until("the unit to run", || bench.path("mark").exists().then_some(()));
    let pids = bench.pids("idle");
    assert!(!pids.is_empty());
    let chassis = until("the chassis", || chassis_of(&bench));
    rustix::process::kill_process(chassis, rustix::process::Signal::KILL).expect("sent");
    until("the host to be gone", || pids.iter().all(|&pid| !is_alive(pid)).then_some(()));
}

#[test]
fn a_unit_is_started_again_only_if_it_is_meant_to_be_and_by_hand() {
    valid(|| {
        let again = Unit { restarts: true, ..sleeper("again", "exec sleep 1000") };
        let bench = bench(vec![again, sleeper("once", "exec sleep 1000")]);
        let one = |unit: &str| until(unit, || bench.pids(unit).first().copied());
        let (again, once) = (one("again"), one("once"));
        bench.order("signal again KILL");
        bench.order("signal once KILL");
        until("the unit again", || bench.pids("again").first().filter(|&&pid| pid != again).copied());
        until("the other to end", || bench.pids("once").is_empty().then_some(()));
        bench.order("start once");
        assert_ne!(one("once"), once);
        bench.order("stop again");
        bench.order("signal again KILL");
        until("both to rest", || bench.pids("again").is_empty().then_some(()));
    });
}

#[test]
fn a_unit_can_be_ended_politely() {
    valid(|| {
        let bench = bench(vec![sleeper("polite", "exec sleep 1000")]);
        until("the unit", || bench.pids("polite").first().copied());
        bench.order("signal polite TERM");
        until("its end", || bench.pids("polite").is_empty().then_some(()));
    });
}

#[test]
fn a_host_lives_in_the_network_namespace_that_it_was_given() {
    valid(|| {
        let netns = Netns::new();
        let bench = Bench::start(Options {
            units: Some(vec![sleeper("look", "readlink /proc/self/ns/net > \"$0\"; exec sleep 1000")]),
            chassis: vec!["--netns".into(), netns.0.clone()],
            ..Options::default()
        });
        let inside = until("the unit's answer", || {
            std::fs::read_to_string(bench.path("mark")).ok().filter(|text| text.ends_with('\n'))
        });
        let here = std::fs::read_link("/proc/self/ns/net").expect("a link");
        assert!(inside.starts_with("net:["), "{inside}");
        assert_ne!(inside.trim(), here.to_string_lossy());
    });
}

/// A network namespace of this test.
struct Netns(String);

impl Netns {
    fn new() -> Self {
        let name = format!("ak{}", std::process::id());
        let added = std::process::Command::new("ip").args(["netns", "add", &name]).status();
        assert!(added.expect("this test needs iproute2").success(), "make a network namespace");
        Self(name)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        std::process::Command::new("ip").args(["netns", "del", &self.0]).status().ok();
    }
}
