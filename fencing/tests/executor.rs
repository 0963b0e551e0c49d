//! The executor with real processes: journal, guard, cancellation, recovery, secrets. The device is an adapter script.

use fencing::executor::{Executor, Guard, Handle, Refused, Report, StartError};
use fencing::journal;
use fencing::name::HostName;
use fencing::request::{FenceOrder, Stamp};
use fencing::verdict::{Ended, Verdict};
use fencing::{EvidenceKind, FencingConfig};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout;

/// Generous: other work shares the machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// An adapter whose machine is a file `on`. `slow`, `stuck` and `hang` in its folder change what it does.
const ADAPTER: &str = r#"#!/bin/sh
cd "$(dirname "$0")" || exit 1
read -r request
echo "$$ $*" >> argv
case $request in
*'"act":"read"'*)
  [ -e hang ] && { echo $$ >> hung; sleep 600; }
  [ -e on ] && p=on || p=off
  echo "{\"api_version\":1,\"power\":\"$p\",\"identity\":{\"uuid\":\"11111111-2222-3333-4444-0000000000aa\"}}" ;;
*'"act":"off"'*)
  echo off >> offs
  [ -e slow ] && { echo $$ > off-pid; sleep 600; }
  [ -e stuck ] || rm -f on
  echo '{"api_version":1,"accepted":true}' ;;
esac
"#;

struct Lab {
    folder: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("adapter");
        std::fs::write(&script, ADAPTER).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        let secret = folder.path().join("secret");
        std::fs::write(&secret, "hunter2\n").unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
        let lab = Self { folder };
        lab.mark("on");
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn home(&self) -> PathBuf {
        self.path("home")
    }

    fn mark(&self, name: &str) {
        std::fs::write(self.path(name), "").unwrap();
    }

    fn lines(&self, name: &str) -> Vec<String> {
        std::fs::read_to_string(self.path(name)).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    fn config(&self) -> FencingConfig {
        let mut config = FencingConfig::parse(&format!(
            r#"
            [[host]]
            name = "tk-p1"
            uuid = "11111111-2222-3333-4444-0000000000aa"
            fencing = [["cut"], ["self"]]
            [[device]]
            name = "cut"
            kind = "command"
            program = "{}"
            poll = "50ms"
            read_limit = "30s"
            off_limit = "30s"
            secrets = {{ password = {{ file = "{}" }} }}
            "#,
            self.path("adapter").display(),
            self.path("secret").display()
        ))
        .unwrap();
        config.params.read_every = Duration::from_secs(3600); // tests read when they want to
        config
    }

    fn start(&self) -> Handle {
        Executor::start(&self.config(), &self.home()).unwrap()
    }

    fn journal(&self) -> String {
        std::fs::read_to_string(self.home().join(journal::FILE)).unwrap_or_default()
    }
}

fn host() -> HostName {
    HostName::new("tk-p1").unwrap()
}

fn stamp(index: u64) -> Stamp {
    Stamp { era: 1, term: 2, index }
}

fn order(index: u64) -> FenceOrder {
    FenceOrder::new(host(), 4, stamp(index), Duration::from_secs(40))
}

fn yes() -> Guard {
    Arc::new(|_| Ok(()))
}

/// All reports up to the last, and the verdict among them.
async fn to_the_end(mut reports: UnboundedReceiver<Report>) -> Verdict {
    let all = async {
        let mut verdict = None;
        while let Some(report) = reports.recv().await {
            match report {
                Report::Concluded { verdict: given, .. } => verdict = Some(given),
                Report::Finished { .. } => return verdict.expect("finished without a verdict"),
                Report::Noted { .. } => {}
            }
        }
        panic!("the reports ended without an end");
    };
    timeout(PATIENCE, all).await.expect("the order takes too long")
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        let mut look = tokio::time::interval(Duration::from_millis(10));
        while !condition() {
            look.tick().await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("waited in vain until {what}"));
}

fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.trim_start().starts_with('Z'))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_carried_out_and_every_attempt_is_in_the_journal() {
    let lab = Lab::new();
    let handle = lab.start();
    let verdict = to_the_end(handle.run(order(10), yes()).await.unwrap()).await;
    let Verdict::Proven { evidence } = verdict else { panic!("{verdict}") };
    assert_eq!((evidence.kind(), evidence.he(), evidence.level()), (EvidenceKind::PoweredOff, 4, 1));
    let journal = lab.journal();
    for event in ["\"ordered\"", "\"calling\"", "\"noted\"", "\"concluded\"", "\"finished\""] {
        assert!(journal.contains(event), "{event} isn't in\n{journal}");
    }
    let before_off = journal.find("\"calling\"").unwrap();
    assert!(before_off < journal.find("accepted").unwrap(), "the attempt was recorded after it was made");
    assert_eq!(handle.history(1000).await.unwrap().len(), journal.lines().count());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_arguments_journal_status_or_dry_run() {
    let lab = Lab::new();
    lab.mark("stuck");
    let handle = lab.start();
    let mut order = order(10);
    order.allowed = Duration::from_secs(4);
    let verdict = to_the_end(handle.run(order.clone(), yes()).await.unwrap()).await;
    let dry = handle.dry_run(&order).unwrap();
    let status = serde_json::to_string(&handle.status()).unwrap();
    let texts = [lab.journal(), lab.lines("argv").join("\n"), format!("{verdict:?} {dry:?}"), status];
    for text in texts {
        assert!(!text.contains("hunter2"), "a secret is in\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_cancel_returns_nothing_of_the_order_is_left() {
    let lab = Lab::new();
    lab.mark("slow");
    let handle = lab.start();
    let reports = handle.run(order(10), yes()).await.unwrap();
    until("the device is being switched off", || !lab.lines("off-pid").is_empty()).await;
    timeout(PATIENCE, handle.cancel(&host(), stamp(10), "the host came back")).await.unwrap().unwrap();
    let pid = lab.lines("off-pid").remove(0);
    assert!(!is_alive(&pid), "a call outlived its cancellation");
    let Verdict::Unproven(unproven) = to_the_end(reports).await else { panic!("it was cancelled") };
    assert_eq!(unproven.ended, Ended::Cancelled("the host came back".into()));
    let again = handle.run(order(10), yes()).await.unwrap_err();
    assert!(matches!(again, Refused::Gate(_)), "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_that_changes_its_mind_keeps_the_off_from_being_sent() {
    let lab = Lab::new();
    let handle = lab.start();
    // It lets the order begin and the machine be identified, and refuses before anything is switched.
    let reading_done = Arc::new(AtomicBool::new(false));
    let seen = reading_done.clone();
    let argv = lab.path("argv");
    let guard: Guard = Arc::new(move |_| {
        let read_once = std::fs::read_to_string(&argv).unwrap_or_default().lines().count() >= 1;
        seen.store(read_once, Ordering::SeqCst);
        if read_once { Err("the host was admitted again".to_owned()) } else { Ok(()) }
    });
    let mut order = order(10);
    order.allowed = Duration::from_secs(4); // level 2 waits until then
    let verdict = to_the_end(handle.run(order, guard).await.unwrap()).await;
    let Verdict::Unproven(unproven) = verdict else { panic!("{verdict}") };
    assert!(reading_done.load(Ordering::SeqCst));
    assert!(unproven.reasons[0].text.contains("admitted again"), "{unproven}");
    assert!(lab.lines("offs").is_empty(), "it was switched off all the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_task_ends_an_older_one_and_the_older_stays_refused_after_a_restart() {
    let lab = Lab::new();
    lab.mark("hang");
    let handle = lab.start();
    let older = handle.run(order(10), yes()).await.unwrap();
    until("the older one is at work", || !lab.lines("hung").is_empty()).await;
    std::fs::remove_file(lab.path("hang")).unwrap();
    let newer = handle.run(order(20), yes()).await.unwrap();
    assert!(matches!(to_the_end(older).await, Verdict::Unproven(_)));
    assert!(matches!(to_the_end(newer).await, Verdict::Proven { .. }));
    drop(handle);
    let handle = lab.start();
    assert!(matches!(handle.run(order(10), yes()).await, Err(Refused::Gate(_))));
    assert!(handle.run(order(21), yes()).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_admitted_again_is_not_hit_by_an_order_about_its_older_epoch() {
    let lab = Lab::new();
    lab.mark("hang");
    let handle = lab.start();
    let reports = handle.run(order(10), yes()).await.unwrap();
    until("the order is at work", || !lab.lines("hung").is_empty()).await;
    handle.admitted(&host(), 5).await.unwrap();
    assert!(matches!(to_the_end(reports).await, Verdict::Unproven(_)));
    assert!(matches!(handle.run(order(11), yes()).await, Err(Refused::Gate(_))), "it is about epoch 4");
    drop(handle);
    assert!(matches!(lab.start().run(order(11), yes()).await, Err(Refused::Gate(_))), "forgotten over a restart");
    assert!(lab.lines("offs").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crashed_predecessor_began_is_waited_for() {
    let lab = Lab::new();
    let boot = fencing::executor::clock::boot_id();
    let (mut journal, _) = journal::Journal::open(&lab.home(), &boot).unwrap();
    let now_ms = u64::try_from(fencing::executor::clock::boottime().as_millis()).unwrap();
    let when = journal::When { wall_ms: 1, boot, boottime_ms: now_ms };
    let key = journal::TaskKey { target: host(), he: 4, stamp: stamp(10) };
    let device = fencing::name::DeviceName::new("cut").unwrap();
    let until_boottime_ms = now_ms + 1_500;
    let act = fencing::session::Act::Off;
    journal.write(&when, Some(&key), &journal::Event::Ordered { order: &order(10) }).unwrap();
    let calling = journal::Event::Calling { device: &device, act, until_boottime_ms };
    journal.write_durably(&when, Some(&key), &calling).unwrap();
    drop(journal);

    let handle = lab.start();
    assert_eq!(handle.interrupted().len(), 1);
    timeout(PATIENCE, handle.quiet(&host(), stamp(10))).await.unwrap();
    let now_ms = u64::try_from(fencing::executor::clock::boottime().as_millis()).unwrap();
    assert!(now_ms >= until_boottime_ms, "a call of the predecessor may still act");
    assert!(handle.interrupted().is_empty());
    assert!(lab.lines("offs").is_empty(), "the interrupted task was taken up again");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_recorded_is_not_attempted() {
    let lab = Lab::new();
    std::fs::create_dir_all(lab.home()).unwrap();
    // A file that can be opened and read, and never written.
    let sealed = rustix::fs::memfd_create("journal", rustix::fs::MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::fcntl_add_seals(&sealed, rustix::fs::SealFlags::WRITE | rustix::fs::SealFlags::GROW).unwrap();
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&sealed));
    std::os::unix::fs::symlink(path, lab.home().join(journal::FILE)).unwrap();
    let handle = lab.start();
    let refused = handle.run(order(10), yes()).await.unwrap_err();
    assert!(matches!(refused, Refused::Journal(_)), "{refused}");
    assert!(lab.lines("offs").is_empty(), "a device was told to switch off"); // being read on schedule is no attempt
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_from_elsewhere_ends_an_order_cleanly() {
    let lab = Lab::new();
    lab.mark("stuck");
    let handle = lab.start();
    let reports = handle.run(order(10), yes()).await.unwrap();
    until("the device took the order", || !lab.lines("offs").is_empty()).await;
    handle.proven_elsewhere(&host(), stamp(10), "self-fenced");
    let Verdict::Unproven(unproven) = to_the_end(reports).await else { panic!("the device stayed on") };
    assert_eq!(unproven.ended, Ended::Elsewhere("self-fenced".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_reads_every_device_and_switches_none() {
    let lab = Lab::new();
    let handle = lab.start();
    let tested = timeout(PATIENCE, handle.probe_all()).await.unwrap();
    let cut = tested.iter().find(|tested| tested.device.as_str() == "cut").unwrap();
    assert_eq!((cut.observed.as_deref(), &cut.trouble), (Some("on"), &None));
    assert!(tested.iter().any(|tested| tested.waits), "`self` has nothing to read");
    assert!(lab.lines("offs").is_empty(), "a test switched something off");
    let status = handle.status();
    assert!(status.outlook[0].ready, "{:?}", status.outlook);
    assert_eq!(status.attention, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_takes_the_device_from_a_reading_under_way() {
    let lab = Lab::new();
    lab.mark("hang");
    let handle = lab.start();
    let probe = tokio::spawn({
        let handle = handle.clone();
        async move { handle.probe_all().await }
    });
    until("the reading hangs", || !lab.lines("hung").is_empty()).await;
    std::fs::remove_file(lab.path("hang")).unwrap();
    let verdict = to_the_end(handle.run(order(10), yes()).await.unwrap()).await;
    assert!(matches!(verdict, Verdict::Proven { .. }), "{verdict}");
    let tested = timeout(PATIENCE, probe).await.unwrap().unwrap();
    let cut = tested.iter().find(|tested| tested.device.as_str() == "cut").unwrap();
    assert!(cut.trouble.as_ref().is_some_and(|trouble| trouble.to_string().contains("fence order")), "{cut:?}");
    assert!(!is_alive(&lab.lines("hung")[0]), "the reading's process was left behind");
}

#[test]
fn a_bad_configuration_is_refused_with_every_problem() {
    let config = FencingConfig::parse(
        "[[host]]\nname = 'a'\nfencing = [['cat']]\n[[device]]\nname = 'cut'\nkind = 'comand'\n[[device]]\nname = 'b'\nkind = 'command'\nprogramm = '/x'",
    )
    .unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let error = runtime.block_on(async { Executor::start(&config, Path::new("/nonexistent")).err() });
    let Some(StartError::Config(problems)) = error else { panic!("it was taken") };
    let text = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(text.contains("did you mean \"command\"?"), "{text}");
    assert!(text.contains("did you mean `program`?") && text.contains("program: is missing"), "{text}");
}
