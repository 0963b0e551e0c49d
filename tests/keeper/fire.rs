//! The fire test in its three ways, measured by the chassis and by what the host left on its disk.

use super::bench::*;
use serde_json::Value;

/// Starves the watchdog in this way; gives the chassis' reset and the host's own report.
fn starve(how: &str) -> (Value, Value) {
    let mut argv = keeper_argv();
    argv.extend(["--fire-test", how, "--fire-file", "@/fire.json"].map(str::to_owned));
    let holder = [binary(), "holder", "--dir", "@/keeper"].map(str::to_owned).to_vec();
    let units =
        vec![Unit { name: "holder", argv: holder, restarts: true }, Unit { name: "fire", argv, restarts: false }];
    let bench =
        Bench::start(Options { units: Some(units), chassis: vec!["--off-after-fire".into()], ..Options::default() });
    let reset = bench.event("reset");
    let said = std::process::Command::new(binary())
        .args(["keeper", "--fire-report", "--fire-file", &bench.text("fire.json")])
        .output()
        .expect("started");
    assert!(said.status.success(), "{}\n{}", String::from_utf8_lossy(&said.stderr), bench.output());
    (reset, serde_json::from_slice(&said.stdout).expect("JSON"))
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn a_watchdog_that_nobody_pets_resets_the_host_and_the_next_boot_can_tell() {
    valid(|| {
        let (reset, report) = starve("stop");
        assert_eq!((&report["fired"], &report["how"]), (&true.into(), &"stop".into()));
        let (chassis, host) = (number(&reset["after_last_pet_ms"]), number(&report["alive_after_pet_ms"]));
        assert!((1000.0..=1200.0).contains(&chassis), "the chassis measured {chassis} ms");
        // The host's last sign of life is a little earlier than its end.
        assert!(host <= chassis + 5.0 && host >= chassis - 150.0, "host {host} ms, chassis {chassis} ms");
    });
}

#[test]
fn a_keeper_killed_just_before_the_watchdog_fires_changes_nothing() {
    valid(|| {
        let (reset, report) = starve("kill-keeper");
        assert_eq!(report["fired"], true);
        let after = number(&reset["after_last_pet_ms"]);
        assert!((1000.0..=1200.0).contains(&after), "{after} ms after the last pet");
        assert!(number(&report["alive_after_pet_ms"]) <= 1200.0);
        assert!(number(&report["alive_after_kill_ms"]) >= 0.0);
    });
}

#[test]
fn keeper_and_holder_killed_together_close_the_device_and_it_fires_all_the_same() {
    valid(|| {
        let (reset, report) = starve("kill-both");
        assert_eq!(report["fired"], true);
        // The close was a pet: the chassis counts from it, the host from its own last pet.
        assert!((1000.0..=1200.0).contains(&number(&reset["after_last_pet_ms"])));
        let own = number(&report["alive_after_pet_ms"]);
        assert!((1500.0..=2200.0).contains(&own), "{own} ms after the last real pet");
        assert!(number(&report["alive_after_kill_ms"]) <= 1250.0);
    });
}
