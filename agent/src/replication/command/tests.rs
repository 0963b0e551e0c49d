//! The driver against adapters that say the wrong thing: scripts that answer as told and note what they were asked.

use super::*;
use crate::replication::AcceptedLoss;
use quorum::id::HostName;
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;

const REIGN: Epoch = Epoch(7);
const FIRST: Generation = Generation(1);
/// Generous: a shell has to start.
const LIMIT: Duration = Duration::from_secs(30);
const ORDER: &str = r#"{"epoch":7,"mode":"async","to":"os-1","target":{"ip":"192.0.2.7","port":9}}"#;

/// A copy whose adapter answers each verb as told; a verb without an answer is said not to be known.
struct Bench {
    folder: TempDir,
    mode: Mode,
}

impl Bench {
    fn new(answers: &[(&str, &str)]) -> Self {
        let bench = Self { folder: tempfile::tempdir().unwrap(), mode: Mode::Async };
        // What stands for the kernel's cgroups: a folder with the file through which one is entered.
        for corner in ["erp+export.root", "erp+mirror.root"] {
            fs::create_dir(bench.path(corner)).unwrap();
            fs::write(bench.path(corner).join("cgroup.procs"), "").unwrap();
        }
        fs::write(bench.path("volume"), [0; 4096]).unwrap();
        bench.answer(answers);
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn answer(&self, answers: &[(&str, &str)]) {
        let arms: String = answers.iter().map(|(verb, line)| format!("{verb}) {line};;\n")).collect();
        let heard = self.path("heard").display().to_string();
        let script = format!("#!/bin/sh\necho \"$1 $(cat)\" >> {heard}\ncase $1 in\n{arms}*) exit 3;;\nesac\n");
        let fresh = self.path("adapter.new");
        fs::write(&fresh, script).unwrap();
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(fresh, self.path("adapter")).unwrap();
    }

    fn spec(&self) -> CommandSpec {
        let spec =
            json!({ "mode": self.mode, "program": self.path("adapter"), "path": "/srv/erp", "look_seconds": 30 });
        serde_json::from_value(spec).unwrap()
    }

    fn driver(&self) -> CommandReplication {
        let place = Place {
            group: "erp".parse().unwrap(),
            host: "tk-1".parse().unwrap(),
            cgroup: self.path("erp"),
            pinned: PathBuf::new(),
            runtime: self.path("run"),
        };
        let volume = VolumeAt { name: "root".into(), path: self.path("volume") };
        let kept = KeptStore::new(self.path("kept"));
        CommandReplication::new(Copy { place, volume, record: self.path("record"), kept }, self.spec())
    }

    fn record_as(&self, role: Role, epoch: Epoch) {
        let record = Record::new(&"erp".parse().unwrap(), "root", role).at(FIRST, epoch);
        RecordFile::new(self.path("record"), &"erp".parse().unwrap(), "root").write(&record).unwrap();
    }

    fn role(&self) -> Option<(Role, Epoch)> {
        self.driver().record().unwrap().map(|record| (record.role, record.epoch))
    }

    /// The verbs that the adapter was asked.
    fn heard(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("heard")).unwrap_or_default();
        text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
    }

    /// What came with the last asking of a verb.
    fn request(&self, verb: &str) -> Value {
        let text = fs::read_to_string(self.path("heard")).unwrap();
        let line = text.lines().rfind(|line| line.starts_with(verb)).unwrap();
        serde_json::from_str(&line[verb.len()..]).unwrap()
    }
}

fn export(epoch: Epoch, begin: ExportBegin) -> ExportOrder {
    ExportOrder { epoch, from: "os-1".parse().unwrap(), listen: "192.0.2.7:9".parse().unwrap(), begin }
}

fn mirror(mode: Mode) -> MirrorOrder {
    let (to, target): (HostName, _) = ("os-1".parse().unwrap(), "192.0.2.7:9".parse().unwrap());
    MirrorOrder { epoch: REIGN, to, target, mode, begin: super::super::MirrorBegin::Whole }
}

fn promotion(epoch: Epoch) -> PromoteOrder {
    PromoteOrder { epoch, generation: FIRST, not_before: Epoch(0), accepted: AcceptedLoss::Nothing }
}

const CLOSED: (&str, &str) = ("close-export", r#"echo '{"result":"closed"}'"#);
const RELEASED: (&str, &str) = ("release", r#"echo '{"result":"released"}'"#);
const NONE: (&str, &str) = ("mirror-state", r#"echo '{"result":"none"}'"#);
const ASYNC: (&str, &str) = ("describe", r#"echo '{"result":"ok","modes":["async"]}'"#);

/// Whether an outcome is as expected.
type Fits = fn(&Result<(), ReplicationError>) -> bool;

fn is_unknown<T>(outcome: &Result<T, ReplicationError>) -> bool {
    matches!(outcome, Err(ReplicationError::Unknown { .. }))
}

fn is_refused<T>(outcome: &Result<T, ReplicationError>) -> bool {
    matches!(outcome, Err(ReplicationError::Refused { .. }))
}

fn seen(answer: &str, epoch: Epoch, mode: Mode) -> Result<MirrorState, String> {
    answer::understand(answer.as_bytes())?.mirror_state((Some(epoch), mode), Duration::from_millis(40))
}

fn with_order(rest: &str) -> String {
    format!("{{\"order\":{ORDER},{rest}}}")
}

#[test]
fn a_lag_is_made_longer_by_the_time_that_the_answer_took() {
    let synced = with_order(r#""result":"synced","pending_bytes":5,"behind_ms":12,"later":"key""#);
    let behind = Some(Duration::from_millis(52));
    assert_eq!(seen(&synced, REIGN, Mode::Async), Ok(MirrorState::Synced { pending_bytes: 5, behind }));
    let never = with_order(r#""result":"synced","pending_bytes":5"#);
    assert_eq!(seen(&never, REIGN, Mode::Async), Ok(MirrorState::Synced { pending_bytes: 5, behind: None }));
    let ended = seen(r#"{"result":"ended"}"#, REIGN, Mode::Async);
    assert!(matches!(ended, Ok(MirrorState::Detached { because: Some(_) })), "{ended:?}");
}

#[test]
fn what_an_answer_lacks_or_contradicts_is_a_doubt() {
    let synced = with_order(r#""result":"synced","pending_bytes":0,"behind_ms":1"#);
    assert!(seen(&synced, REIGN, Mode::Async).is_ok());
    assert!(seen(&synced, Epoch(8), Mode::Async).is_err(), "a mirror of another epoch");
    assert!(seen(&synced, REIGN, Mode::Sync).is_err(), "a mirror for which no write waits");
    let doubts = [
        "".to_owned(),
        "synced".to_owned(),
        "{}".to_owned(),
        "[]".to_owned(),
        r#"{"result":7}"#.to_owned(),
        r#"{"result":"synced","pending_bytes":0,"behind_ms":1}"#.to_owned(),
        with_order(r#""result":"synced""#),
        with_order(r#""result":"synced","pending_bytes":-1"#),
        with_order(r#""result":"synced","pending_bytes":0,"behind_ms":-5"#),
        with_order(r#""result":"synced","pending_bytes":0,"behind_ms":1e99"#),
        with_order(r#""result":"copying","done_bytes":1"#),
        with_order(r#""result":"away","was_whole":true"#),
        with_order(r#""result":"away","since_ms":9"#),
        with_order(r#""result":"SYNCED","pending_bytes":0"#),
        with_order(r#""result":"unknown""#),
    ];
    for answer in doubts {
        assert!(seen(&answer, REIGN, Mode::Async).is_err(), "{answer}");
        assert!(
            !answer::understand(answer.as_bytes()).is_ok_and(|answer| { answer.order_in_force() == Ok(None) }),
            "taken for no mirror at all: {answer}"
        );
    }
}

#[test]
#[cfg(feature = "mutants")]
fn a_mirror_of_another_epoch_that_passes_for_ours_is_noticed() {
    let _planted = quorum::mutants::plant("data.another_mirror_speaks");
    let synced = with_order(r#""result":"synced","pending_bytes":0,"behind_ms":1"#);
    assert!(seen(&synced, Epoch(8), Mode::Async).is_ok());
}

#[tokio::test]
async fn an_adapter_that_fails_or_talks_nonsense_is_unknown_and_changes_nothing() {
    for said in
        ["exit 1", "echo nonsense", "true", r#"echo '{"result":"sure"}'"#, r#"echo '{"result":"closed"}'; exit 1"#]
    {
        let verbs = ["close-export", "promote", "mirror-state", "even-out", "release", "recover", "open-export"];
        let bench = Bench::new(&verbs.map(|verb| (verb, said)));
        bench.record_as(Role::Standby, REIGN);
        let driver = bench.driver();
        assert!(is_unknown(&driver.close_export(LIMIT).await), "{said}");
        assert!(is_unknown(&driver.promote(&promotion(Epoch(8))).await), "{said}");
        assert!(is_unknown(&driver.mirror_state(LIMIT).await), "{said}");
        assert!(is_unknown(&driver.even_out(LIMIT).await), "{said}");
        assert!(is_unknown(&driver.release_writes().await), "{said}");
        assert!(is_unknown(&driver.recover().await), "{said}");
        assert!(is_unknown(&driver.open_export(&export(Epoch(8), ExportBegin::Afresh)).await), "{said}");
        assert_eq!(bench.role(), Some((Role::Standby, REIGN)), "{said}");
    }
}

#[tokio::test]
async fn an_order_that_the_record_contradicts_never_reaches_the_adapter() {
    let bench = Bench::new(&[CLOSED, NONE, RELEASED, ASYNC]);
    bench.record_as(Role::Source, REIGN);
    let driver = bench.driver();
    for epoch in [Epoch(6), REIGN] {
        assert!(is_refused(&driver.open_export(&export(epoch, ExportBegin::Afresh)).await));
    }
    assert!(is_refused(&driver.promote(&promotion(Epoch(6))).await));
    assert!(is_refused(&driver.adopt(Epoch(8), FIRST).await));
    let later = MirrorOrder { epoch: Epoch(8), ..mirror(Mode::Async) };
    assert!(is_refused(&driver.start_mirror(&later).await));
    let heard = bench.heard();
    assert!(heard.iter().all(|verb| verb == "close-export"), "{heard:?}");
    assert_eq!(bench.role(), Some((Role::Source, REIGN)));
}

#[tokio::test]
async fn a_volume_whose_writes_wait_is_refused_to_an_adapter_that_cannot_hold_them() {
    let mut bench = Bench::new(&[NONE, ASYNC, RELEASED]);
    bench.mode = Mode::Sync;
    bench.record_as(Role::Source, REIGN);
    let started = bench.driver().start_mirror(&mirror(Mode::Sync)).await;
    assert!(
        matches!(&started, Err(ReplicationError::Refused { because }) if because.contains("mode = \"async\"")),
        "{started:?}"
    );
    assert!(!bench.heard().contains(&"start-mirror".to_owned()), "{:?}", bench.heard());
    assert!(bench.spec().mode_problem().await.is_some(), "and `apply` is told");
    // Nor does an order in another mode than the spec's begin one.
    assert!(is_refused(&bench.driver().start_mirror(&mirror(Mode::Async)).await));
    // One that doesn't say what it can is taken for one that can't.
    for said in [r#"echo '{"result":"ok"}'"#, "exit 1", r#"echo '{"result":"ok","modes":["fast"]}'"#] {
        bench.answer(&[NONE, ("describe", said)]);
        assert!(is_refused(&bench.driver().start_mirror(&mirror(Mode::Sync)).await), "{said}");
    }
    bench.answer(&[
        NONE,
        ("describe", r#"echo '{"result":"ok","modes":["sync"]}'"#),
        ("start-mirror", r#"echo '{"result":"started"}'"#),
    ]);
    assert!(bench.driver().start_mirror(&mirror(Mode::Sync)).await.is_ok());
    assert_eq!(bench.spec().mode_problem().await, None);
}

#[tokio::test]
async fn a_mirror_that_is_there_or_may_be_is_never_given_up_by_an_attempt_to_start_one() {
    let other = ORDER.replace("os-1", "os-2");
    let there = format!(r#"echo '{{"result":"away","since_ms":9,"order":{other}}}'"#);
    let same = there.replace("os-2", "os-1");
    let cases: [(&str, Fits); 3] = [("exit 1", is_unknown), (&there, is_refused), (&same, Result::is_ok)];
    for (state, fits) in cases {
        let bench = Bench::new(&[("mirror-state", state), RELEASED, ASYNC]);
        bench.record_as(Role::Source, REIGN);
        let started = bench.driver().start_mirror(&mirror(Mode::Async)).await;
        assert!(fits(&started), "{state}: {started:?}");
        assert_eq!(bench.heard(), ["mirror-state"], "{state}");
    }
    // Where there was none, nothing of a failed attempt is left.
    let bench = Bench::new(&[NONE, RELEASED, ASYNC, ("start-mirror", "exit 1")]);
    bench.record_as(Role::Source, REIGN);
    let started = bench.driver().start_mirror(&mirror(Mode::Async)).await;
    assert!(matches!(started, Err(ReplicationError::Failed { .. })), "{started:?}");
    assert!(bench.heard().contains(&"release".to_owned()));
}

#[tokio::test]
async fn a_release_counts_only_when_no_mirror_is_seen_afterwards() {
    let there = format!(r#"echo '{{"result":"away","since_ms":9,"order":{ORDER}}}'"#);
    let bench = Bench::new(&[("mirror-state", &there), RELEASED]);
    bench.record_as(Role::Source, REIGN);
    assert!(is_unknown(&bench.driver().release_writes().await));
    bench.answer(&[NONE, RELEASED]);
    assert!(bench.driver().release_writes().await.is_ok());
}

#[tokio::test]
async fn the_record_follows_the_adapters_word_for_the_better_and_goes_before_it_for_the_worse() {
    let refuses = ("promote", r#"echo '{"result":"refused","because":"a round is torn"}'"#);
    let bench = Bench::new(&[CLOSED, refuses]);
    assert!(is_refused(&bench.driver().adopt(REIGN, FIRST).await));
    assert_eq!(bench.role(), None, "not born");
    bench.record_as(Role::Standby, REIGN);
    assert!(is_refused(&bench.driver().promote(&promotion(Epoch(8))).await));
    assert_eq!(bench.role(), Some((Role::Standby, REIGN)), "not promoted");
    bench.answer(&[CLOSED, ("promote", r#"echo '{"result":"promoted"}'"#)]);
    bench.driver().promote(&promotion(Epoch(8))).await.unwrap();
    assert_eq!(bench.role(), Some((Role::Source, Epoch(8))));
    assert_eq!(bench.request("promote")["was"], json!("standby"));
    // It is a mixture before the adapter may overwrite it, also if that fails.
    bench.answer(&[
        CLOSED,
        (
            "open-export",
            &format!(r#"grep -q syncing {} && exit 1; echo '{{"result":"open"}}'"#, bench.path("record").display()),
        ),
    ]);
    let opened = bench.driver().open_export(&export(Epoch(9), ExportBegin::Afresh)).await;
    assert!(matches!(opened, Err(ReplicationError::Failed { .. })), "{opened:?}");
    assert_eq!(bench.role(), Some((Role::Syncing, Epoch(9))));
}

#[tokio::test]
async fn an_older_export_is_closed_before_the_copy_changes_hands_and_one_that_stays_open_stops_it() {
    let bench = Bench::new(&[
        ("close-export", r#"echo '{"result":"unknown"}'"#),
        ("open-export", r#"echo '{"result":"open"}'"#),
    ]);
    bench.record_as(Role::Standby, REIGN);
    assert!(is_unknown(&bench.driver().open_export(&export(Epoch(8), ExportBegin::Afresh)).await));
    assert_eq!((bench.role(), bench.heard()), (Some((Role::Standby, REIGN)), vec!["close-export".to_owned()]));
    // One that goes on is left alone.
    bench.driver().open_export(&export(REIGN, ExportBegin::Continue)).await.unwrap();
    assert_eq!(bench.heard(), ["close-export", "open-export"]);
}

#[tokio::test]
async fn a_copy_whose_adapter_says_that_it_lacks_something_is_no_standby() {
    let bench = Bench::new(&[]);
    bench.record_as(Role::Standby, REIGN);
    fs::create_dir(bench.path("run")).unwrap();
    fs::write(bench.path("run/export-root.lacks"), "a write was refused: disk full\n").unwrap();
    assert_eq!(bench.role(), Some((Role::Syncing, REIGN)));
    assert!(is_refused(&bench.driver().mark_standby(REIGN, FIRST)));
    fs::remove_file(bench.path("run/export-root.lacks")).unwrap();
    bench.driver().mark_standby(REIGN, FIRST).unwrap();
    assert_eq!(bench.role(), Some((Role::Standby, REIGN)));
}

#[tokio::test]
async fn what_only_an_old_source_has_is_to_be_kept_and_an_empty_set_is_dropped() {
    let bench = Bench::new(&[CLOSED, ("open-export", r#"echo '{"result":"open"}'"#)]);
    bench.record_as(Role::Source, REIGN);
    let store = KeptStore::new(bench.path("kept"));
    for _ in 0..2 {
        // Said again after an interruption, it still has to be kept.
        bench.driver().open_export(&export(Epoch(8), ExportBegin::Afresh)).await.unwrap();
        let keep = &bench.request("open-export")["keep"];
        assert!(Path::new(keep["folder"].as_str().unwrap()).join("chunks").exists(), "{keep}");
        assert_eq!(keep["bytes_max"], json!(10_u64 << 30));
    }
    let sets = store.list().unwrap();
    fs::write(sets[0].path.join("chunks"), 0_u64.to_le_bytes()).unwrap();
    bench.driver().mark_standby(Epoch(8), FIRST).unwrap();
    let left: Vec<String> = store.list().unwrap().into_iter().map(|set| set.id).collect();
    assert_eq!(left, [sets[0].id.clone()]);
    // A copy that never ran has nothing of its own.
    bench.driver().open_export(&export(Epoch(9), ExportBegin::Afresh)).await.unwrap();
    assert_eq!(bench.request("open-export")["keep"], Value::Null);
}

#[test]
fn a_spec_that_cannot_work_is_told_with_a_remedy() {
    let spec = |change: Value| {
        let mut spec = json!({ "mode": "async", "program": "ship-rounds", "path": "/srv/erp.img" });
        spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        serde_json::from_value::<CommandSpec>(spec).unwrap().problem()
    };
    assert_eq!(spec(json!({})), None);
    assert_eq!(spec(json!({ "path": "/dev/drbd0", "record": "/var/lib/antipode/erp.record" })), None);
    let wrong = [
        (json!({ "path": "/dev/drbd0" }), "record"),
        (json!({ "record": "/run/erp.record" }), "record"),
        (json!({ "path": "erp.img" }), "path"),
        (json!({ "program": "./ship-rounds" }), "program"),
        (json!({ "look_seconds": 0 }), "look_seconds"),
        (json!({ "drain_seconds": 100_000 }), "drain_seconds"),
    ];
    for (change, expected) in wrong {
        let said = spec(change.clone());
        assert_eq!(said.as_ref().map(|said| said.key), Some(expected), "{change}: {said:?}");
    }
}
