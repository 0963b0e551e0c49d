//! What becomes of a host whose keeper ends, hangs, or comes back.

use super::bench::*;
use antipode::driver::clock;
use antipode::keeper::PageState;
use antipode::keeper::core::Reason;
use std::process::Command;
use std::time::Duration;

fn millis(value: &serde_json::Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// The host was reset, and within W of the last pet.
fn assert_reset_within_w(bench: &Bench) {
    let reset = bench.event("reset");
    let after = millis(&reset["after_last_pet_ms"]);
    assert!(after <= W.as_secs_f64() * 1e3 + millis(&reset["kill_took_ms"]), "reset {after} ms after the last pet");
    assert!(after >= TIMEOUT.as_secs_f64() * 1e3, "reset only {after} ms after the last pet");
}

#[test]
fn a_keeper_that_is_killed_and_stays_away_costs_the_host() {
    valid(|| {
        let bench = Bench::start(Options::default());
        let mut agent = bench.agent();
        agent.arm(1, &["erp"]);
        let guest = bench.run_in(1, "erp", STUBBORN);
        bench.order("signal keeper KILL");
        assert_reset_within_w(&bench);
        assert_eq!(bench.ended(guest), Some(libc::SIGKILL));
        // The holder kept the device open: the keeper's death was no pet.
        assert!(bench.events("closed").is_empty());
    });
}

#[test]
fn without_a_holder_the_keepers_death_is_a_pet_and_three_spans_are_kept() {
    valid(|| {
        let bench = Bench::start(Options { no_holder: true, ..Options::default() });
        let mut agent = bench.agent();
        let expiry = agent.arm(1, &["erp"]);
        assert_eq!(agent.page().spans, 3);
        bench.order("signal keeper KILL");
        bench.event("closed");
        let reset = bench.event("reset");
        let at = reset["t_boot_ns"].as_u64().expect("a moment");
        assert!(at < expiry.boot_ns, "the host lived {} ms past its lease", (at - expiry.boot_ns) / 1_000_000);
    });
}

#[test]
fn a_keeper_that_is_killed_and_back_in_time_costs_the_workloads_only() {
    valid(|| {
        let bench = Bench::start(Options { keeper_restarts: true, ..Options::default() });
        let mut agent = bench.agent();
        agent.arm(1, &["erp", "web"]);
        let first = agent.instance;
        let guest = bench.run_in(1, "erp", STUBBORN);
        bench.order("signal keeper KILL");
        let page = bench.page_until("another keeper's attestation", |page| {
            page.instance != first && attested(page) == Some(epoch(1))
        });
        assert_eq!((page.state, page.cause, page.retired), (PageState::Clean, Reason::Started, epoch(1)));
        assert_eq!(gone(&page), ["erp", "web"]);
        assert_eq!(bench.ended(guest), Some(libc::SIGKILL));
        // The agent's records for the keeper before are foreign now; the lease it holds is of no use.
        agent.hold(2, &["erp"]);
        bench.page_until("the refusal", |page| page.reason == Reason::ForeignInstance);
        agent.instance = page.instance;
        agent.arm(2, &["erp"]);
        assert_eq!((bench.fires(), bench.events("closed").len(), bench.events("opened").len()), (0, 0, 1));
    });
}

#[test]
fn a_keeper_that_hangs_costs_the_host() {
    valid(|| {
        let bench = Bench::start(Options::default());
        let mut agent = bench.agent();
        agent.arm(1, &["erp"]);
        let guest = bench.run_in(1, "erp", STUBBORN);
        bench.order("signal keeper STOP");
        assert_reset_within_w(&bench);
        assert_eq!(bench.ended(guest), Some(libc::SIGKILL));
    });
}

#[test]
fn a_host_that_stands_still_as_a_whole_is_reset() {
    valid(|| {
        let bench = Bench::start(Options::default());
        bench.order("freeze");
        assert_reset_within_w(&bench);
        // It comes back as another boot, with nothing armed.
        let page = bench.page_until("the keeper of the next boot", |page| page.state == PageState::Idle);
        assert_eq!(page.attestation, None);
    });
}

#[test]
fn a_process_that_can_not_be_killed_costs_the_host() {
    // Not wrapped: a chassis can't kill it either, and says rightly that such a reset is none.
    require();
    let bench = Bench::start(Options::default());
    let mut agent = bench.agent();
    agent.arm(1, &["erp"]);
    let guest = bench.run_in(1, "erp", STUBBORN);
    let held = Unkillable::hold(guest);
    let release = agent.record(1, &["erp"], clock::now()).release(agent.sequence);
    agent.link.write(&release);
    let unverified = [Reason::NotEmpty, Reason::NotFrozen];
    let page = bench.page_until("the reason", |page| unverified.contains(&page.reason));
    let lost = bench.event("pet-lost");
    assert!(millis(&lost["after_last_pet_ms"]) >= TIMEOUT.as_secs_f64() * 1e3);
    assert_eq!((page.state, attested(&page)), (PageState::Retired, None));
    assert_eq!(bench.page().and_then(|page| attested(&page)), None);
    drop(held);
    bench.event("reset");
}

/// A cgroup of the old freezer, in which a process can't even be killed: what a task that hangs in the kernel is like.
struct Unkillable {
    mount: std::path::PathBuf,
    group: std::path::PathBuf,
    _memory: Memory,
}

impl Unkillable {
    fn hold(running: Running) -> Self {
        use nix::mount::{MsFlags, mount};
        let memory = Memory::new();
        let point = memory.path().join("freezer");
        std::fs::create_dir(&point).expect("made");
        mount(Some("freezer"), &point, Some("cgroup"), MsFlags::empty(), Some("freezer"))
            .expect("this test needs the freezer of cgroup version 1");
        let group = point.join(memory.name());
        let held = Self { mount: point, group, _memory: memory };
        std::fs::create_dir(&held.group).expect("made");
        std::fs::write(held.group.join("cgroup.procs"), running.pid.to_string()).expect("moved");
        std::fs::write(held.group.join("freezer.state"), "FROZEN").expect("told");
        until("the process to be held", || {
            let state = std::fs::read_to_string(held.group.join("freezer.state")).ok()?;
            (state.trim() == "FROZEN").then_some(())
        });
        held
    }
}

impl Drop for Unkillable {
    fn drop(&mut self) {
        std::fs::write(self.group.join("freezer.state"), "THAWED").ok();
        let root = self.mount.join("cgroup.procs");
        let procs = std::fs::read_to_string(self.group.join("cgroup.procs")).unwrap_or_default();
        procs.split_whitespace().for_each(|pid| drop(std::fs::write(&root, pid)));
        until("the old freezer to be empty", || std::fs::remove_dir(&self.group).ok());
        nix::mount::umount(&self.mount).ok();
    }
}

#[test]
fn a_second_keeper_and_one_on_a_disk_are_refused() {
    valid(|| {
        let bench = Bench::start(Options::default());
        let run = |dir: &str| {
            let mut argv = bench.filled(&keeper_argv());
            argv[3] = dir.to_owned();
            Command::new(binary()).args(&argv[1..]).output().expect("started")
        };
        let second = run(&bench.text("keeper"));
        let said = String::from_utf8_lossy(&second.stderr).into_owned();
        assert!(!second.status.success() && said.contains("another keeper does"), "{said}");
        let disk = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let on_disk = run(&disk.path().to_string_lossy());
        let said = String::from_utf8_lossy(&on_disk.stderr).into_owned();
        assert!(!on_disk.status.success() && said.contains("must be on a tmpfs"), "{said}");
        assert_eq!(bench.fires(), 0);
    });
}

#[test]
fn a_keeper_without_a_slice_says_so_in_its_page_and_touches_no_watchdog() {
    valid(|| {
        let bench = Bench::start(Options::default());
        let memory = Memory::new();
        let mut argv = bench.filled(&keeper_argv());
        let slice = argv.iter().position(|word| word.ends_with("/slice")).expect("it is told its slice");
        argv[slice] = "/nowhere/slice".into();
        argv[3] = memory.path().to_string_lossy().into_owned();
        let refused = Command::new(binary()).args(&argv[1..]).output().expect("started");
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains("class D"), "{said}");
        let page = antipode::keeper::PageReader::open(memory.path()).expect("a page").page().expect("whole");
        assert_eq!((page.state, page.reason), (PageState::Refused, Reason::NoSlice));
        assert_eq!(bench.events("opened").len(), 1);
    });
}

#[test]
fn an_orderly_stop_is_refused_while_armed_and_disarms_when_all_is_released() {
    valid(|| {
        let bench = Bench::start(Options { keeper: vec!["--allow-disarm".into()], ..Options::default() });
        let mut agent = bench.agent();
        agent.arm(1, &["erp"]);
        let guest = bench.run_in(1, "erp", STUBBORN);
        bench.order("signal keeper TERM");
        bench.page_until("the refusal", |page| page.order == Reason::StopWhileArmed);
        assert_eq!((bench.ended(guest), bench.page().expect("a page").armed), (None, Some(epoch(1))));
        let release = agent.record(1, &["erp"], clock::now()).release(agent.sequence);
        agent.link.write(&release);
        bench.page_until("the attestation", |page| attested(page) == Some(epoch(1)));
        bench.order("signal keeper TERM");
        bench.page_until("the stop", |page| page.state == PageState::Stopped);
        bench.event("disarmed");
        let over = clock::now().plus(W * 2);
        until("two spans", || clock::now().both_reached(over).then_some(()));
        assert_eq!(bench.fires(), 0);
    });
}

#[test]
fn an_orderly_stop_is_refused_when_the_watchdog_may_not_be_disarmed() {
    valid(|| {
        let bench = Bench::start(Options::default());
        bench.order("signal keeper TERM");
        bench.page_until("the refusal", |page| page.order == Reason::StopWouldReset);
        let later = clock::now().plus(TIMEOUT + Duration::from_millis(200));
        until("the watchdog's time", || clock::now().both_reached(later).then_some(()));
        assert_eq!(bench.fires(), 0);
    });
}
