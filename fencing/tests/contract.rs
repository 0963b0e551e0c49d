//! The contract suite: what every kind of device must hold, run against a stand-in of each.
//!
//! A new kind passes by being listed in `contract/kinds.rs`. The claims follow the contract in `fencing::device`.

#[expect(dead_code, reason = "hostile.rs uses the rest of the double")]
mod bmc;
#[path = "contract/kinds.rs"]
mod kinds;
#[path = "contract/rigs.rs"]
mod rigs;
mod unit;

use fencing::device::{Behind, Call, KINDS, Sight};
use fencing::facts::{Binding, Proves};
use fencing::params::COMMON_KEYS;
use fencing::process::Leash;
use fencing::session::Act;
use fencing::target::{Comparison, ExpectedIdentity, MachineUuid};
use fencing::trouble::Trouble;
use kinds::{Bench, CASES, Case, Fault, MACHINE, PASSWORD};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// Generous: other work shares the machine.
const LIMIT: Duration = Duration::from_secs(60);

fn call(bench: &Bench, limit: Duration, allowed: bool) -> Call {
    let leash = Leash::until(Instant::now() + limit);
    let check = Arc::new(move || if allowed { Ok(()) } else { Err("a newer task".to_owned()) });
    Call::ordered(leash, Behind::default(), bench.claims.clone(), check)
}

async fn read(bench: &Bench) -> Result<Sight, Trouble> {
    bench.device.read(&call(bench, LIMIT, true)).await
}

async fn off(bench: &Bench) -> Result<(), Trouble> {
    bench.device.off(&call(bench, LIMIT, true)).await
}

/// The kinds that are called, each on a fresh bench; those that show `fault`, with it begun.
fn benches(fault: Option<Fault>) -> impl Iterator<Item = (&'static str, Bench)> {
    CASES.iter().filter(move |case| fault.is_none_or(|fault| case.faults.contains(&fault))).filter_map(move |case| {
        let bench = case.bench?();
        if let Some(fault) = fault {
            bench.rig.begin(fault);
        }
        Some((case.kind, bench))
    })
}

fn gives_evidence(bench: &Bench) -> bool {
    bench.device.facts().proves.is_evidence()
}

#[test]
fn every_kind_is_under_the_suite() {
    let mut listed: Vec<&str> = CASES.iter().map(|case: &Case| case.kind).collect();
    let mut known: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
    listed.sort_unstable();
    known.sort_unstable();
    assert_eq!(listed, known, "list the kind in tests/contract/kinds.rs");
}

#[test]
fn every_kind_has_a_page_that_tells_each_of_its_keys() {
    for kind in KINDS {
        let path = format!("{}/docs/{}.md", env!("CARGO_MANIFEST_DIR"), kind.name);
        let page = std::fs::read_to_string(&path).unwrap_or_else(|_| panic!("{path} is missing"));
        for part in ["**Proves", "**Test"].iter().take(if kind.keys.is_empty() { 1 } else { 2 }) {
            assert!(page.contains(part), "{path} doesn't say {part}");
        }
        for key in kind.keys {
            assert!(page.contains(&format!("`{}`", key.name)), "{path} doesn't tell of `{}`", key.name);
        }
    }
    let common = std::fs::read_to_string(format!("{}/docs/README.md", env!("CARGO_MANIFEST_DIR"))).unwrap();
    for key in COMMON_KEYS {
        assert!(common.contains(&format!("`{}`", key.name)), "docs/README.md doesn't tell of `{}`", key.name);
    }
}

#[test]
fn an_unknown_key_is_refused_with_a_suggestion() {
    for kind in KINDS {
        let table = format!("name = 'a'\nkind = '{}'\nsettel = '1s'", kind.name);
        let problems = fencing::device::build(table.parse().unwrap()).err().unwrap_or_else(|| panic!("{}", kind.name));
        let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
        // A kind that has nothing to settle doesn't know the key at all; it says which ones it knows.
        let told = text
            .iter()
            .any(|line| line.contains("settel") && (line.contains("`settle`") || line.contains("known keys")));
        assert!(told, "{}: {text:?}", kind.name);
    }
}

#[tokio::test]
async fn what_is_on_reads_on_and_what_is_off_reads_off() {
    for (kind, bench) in benches(None).filter(|(_, bench)| gives_evidence(bench)) {
        let on = read(&bench).await.unwrap_or_else(|trouble| panic!("{kind}: it {trouble}"));
        assert!(on.observed.is_contrary() && !on.observed.is_harmless(), "{kind}: {on:?}");
        bench.rig.set_on(false);
        let off = read(&bench).await.unwrap_or_else(|trouble| panic!("{kind}: it {trouble}"));
        assert!(off.observed.is_harmless(), "{kind}: {off:?}");
        assert_eq!(bench.rig.offs(), 0, "{kind}: a reading changed something");
    }
}

#[tokio::test]
async fn off_takes_effect_and_may_be_repeated() {
    for (kind, bench) in benches(None) {
        off(&bench).await.unwrap_or_else(|trouble| panic!("{kind}: it {trouble}"));
        assert!(!bench.rig.is_on(), "{kind}: still on");
        // Refused or taken the second time: either is fine, as long as nothing comes back.
        let _ = off(&bench).await;
        assert!(!bench.rig.is_on(), "{kind}: it came back");
        let sight = read(&bench).await.unwrap_or_else(|trouble| panic!("{kind}: it {trouble}"));
        assert_eq!(sight.observed.is_harmless(), gives_evidence(&bench), "{kind}: {sight:?}");
    }
}

#[tokio::test]
async fn an_off_that_was_accepted_and_had_no_effect_still_reads_on() {
    for (kind, bench) in benches(Some(Fault::AcceptAndStayOn)) {
        let _ = off(&bench).await;
        assert!(bench.rig.is_on(), "{kind}: the rig doesn't show the fault");
        let sight = read(&bench).await.unwrap_or_else(|trouble| panic!("{kind}: it {trouble}"));
        assert!(!sight.observed.is_harmless(), "{kind}: {sight:?}");
    }
}

fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.trim_start().starts_with('Z'))
}

#[tokio::test]
async fn a_device_that_hangs_is_given_up_and_leaves_no_process_behind() {
    for (kind, bench) in benches(Some(Fault::Hang)) {
        for act in [Act::Read, Act::Off] {
            let call = call(&bench, Duration::from_millis(700), true);
            // A kind may leave the limit to its caller, as long as dropping its future ends everything.
            let ended = match act {
                Act::Read => {
                    timeout(Duration::from_millis(900), bench.device.read(&call)).await.map(|read| read.is_ok())
                }
                Act::Off => timeout(Duration::from_millis(900), bench.device.off(&call)).await.map(|off| off.is_ok()),
            };
            assert_ne!(ended, Ok(true), "{kind}: {act:?} succeeded on a device that hangs");
        }
        let gone = async {
            while bench.rig.hanging().iter().any(|pid| is_alive(pid)) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(LIMIT, gone).await.unwrap_or_else(|_| panic!("{kind}: processes are left: {:?}", bench.rig.hanging()));
    }
}

#[tokio::test]
async fn what_cannot_be_understood_is_trouble_and_never_off() {
    for fault in [Fault::Garbage, Fault::BreakOff] {
        for (kind, bench) in benches(Some(fault)) {
            let trouble = read(&bench).await.expect_err(kind);
            assert!(!trouble.to_string().is_empty() && !trouble.remedy().is_empty(), "{kind}: {trouble:?}");
        }
    }
}

#[tokio::test]
async fn a_refused_login_is_told_as_such_and_lasting() {
    for (kind, bench) in benches(Some(Fault::RefuseLogin)) {
        let trouble = read(&bench).await.expect_err(kind);
        assert!(matches!(trouble, Trouble::LoginRefused { .. }) && trouble.is_lasting(), "{kind}: it {trouble}");
    }
}

#[tokio::test]
async fn another_machine_is_reported_as_another() {
    let expected = ExpectedIdentity { uuid: MachineUuid::parse(MACHINE).ok(), serial: None };
    for (kind, bench) in benches(None) {
        if bench.device.facts().binding == Binding::Reported {
            let sight = read(&bench).await.unwrap();
            assert!(matches!(expected.compare(&sight.identity), Comparison::Same(_)), "{kind}: {sight:?}");
        }
    }
    for (kind, bench) in benches(Some(Fault::OtherMachine)) {
        match read(&bench).await {
            Ok(sight) => {
                let comparison = expected.compare(&sight.identity);
                assert!(matches!(comparison, Comparison::Other { .. }), "{kind}: {sight:?}");
            }
            Err(trouble) => assert!(matches!(trouble, Trouble::WrongMachine { .. }), "{kind}: it {trouble}"),
        }
    }
}

#[tokio::test]
async fn a_check_that_refuses_keeps_anything_from_being_sent() {
    for (kind, bench) in benches(None) {
        let refused = bench.device.off(&call(&bench, LIMIT, false)).await.expect_err(kind);
        assert!(matches!(refused, Trouble::Overtaken { .. }), "{kind}: it {refused}");
        let unordered = bench.device.off(&Call::reading(Leash::until(Instant::now() + LIMIT))).await;
        assert!(unordered.is_err(), "{kind}: switched off without an order");
        assert!(bench.rig.is_on() && bench.rig.offs() == 0, "{kind}: something was sent");
    }
}

#[tokio::test]
async fn no_secret_is_seen_outside() {
    for (kind, bench) in benches(None) {
        off(&bench).await.unwrap();
        let preview = format!("{:?} {:?}", bench.device.preview(Act::Read), bench.device.preview(Act::Off));
        let texts = [bench.rig.seen_outside(), preview, format!("{:?}", bench.device.facts())];
        assert!(texts.iter().all(|text| !text.contains(PASSWORD)), "{kind}: {texts:?}");
    }
    for (kind, bench) in benches(Some(Fault::RefuseLogin)) {
        let trouble = read(&bench).await.expect_err(kind);
        // libvirt has no password of ours: what stands in its script isn't one.
        let ours = kind != "libvirt";
        assert!(!(ours && format!("{trouble:?} {trouble}").contains(PASSWORD)), "{kind}: {trouble:?}");
    }
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    for (kind, bench) in benches(None) {
        for act in [Act::Read, Act::Off] {
            let shown = bench.device.preview(act);
            assert!(!shown.is_empty() && shown.iter().all(|line| !line.is_empty()), "{kind}: {act:?}");
        }
        assert!(bench.rig.seen_outside().is_empty() && bench.rig.offs() == 0, "{kind}: a dry run did something");
    }
}

#[tokio::test]
async fn a_kind_that_waits_has_nothing_to_call() {
    for case in CASES.iter().filter(|case| case.bench.is_none()) {
        let table = format!("name = 'a'\nkind = '{}'", case.kind);
        let device = fencing::device::build(table.parse().unwrap()).unwrap_or_else(|problems| panic!("{problems:?}"));
        assert!(matches!(device.facts().proves, Proves::Elsewhere(_)), "{}", case.kind);
        let call = Call::reading(Leash::until(Instant::now() + LIMIT));
        assert!(device.read(&call).await.is_err() && device.off(&call).await.is_err(), "{}", case.kind);
    }
}
