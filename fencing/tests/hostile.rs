//! The Redfish kind and a session against a hostile BMC: never a false proof, never past the deadline, always a reason.
//!
//! In virtual time over in-process streams, so that thousands of random behaviours take seconds; then over real TLS.

#[expect(dead_code, reason = "contract.rs and tls.rs use the rest of the double")]
mod bmc;

use bmc::{Bmc, Effect, Failure, MACHINE, Manners, OffAnswer, PASSWORD, SYSTEM, Within};
use fencing::device::redfish::{Account, Connect, Login, Redfish, tls};
use fencing::device::{Behind, Call, Device};
use fencing::evidence::EvidenceKind;
use fencing::facts::DeviceFacts;
use fencing::moment::Moment;
use fencing::name::{DeviceName, HostName};
use fencing::plan::Plan;
use fencing::process::Leash;
use fencing::reading::Reading;
use fencing::request::{FenceOrder, Stamp};
use fencing::secret::SecretRef;
use fencing::session::{Act, Answer, Effect as Wanted, Input, Session};
use fencing::target::{ExpectedIdentity, MachineUuid, Place, Target};
use fencing::topology::{Fenced, Topology};
use fencing::trouble::Trouble;
use fencing::verdict::{Unproven, Verdict};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

const SETTLE: Duration = Duration::from_secs(1);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn password() -> SecretRef {
    static FILE: LazyLock<(tempfile::TempDir, std::path::PathBuf)> = LazyLock::new(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, PASSWORD).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        (folder, path)
    });
    SecretRef::File(FILE.1.clone())
}

fn facts(name: &str) -> DeviceFacts {
    let table = format!(
        "name = '{name}'\nkind = 'redfish'\nurl = 'https://bmc{SYSTEM}'\nuser = 'admin'\npassword = {{ file = '/x' }}\npins = ['{}']",
        tls::Pin::of(b"x")
    );
    fencing::device::build(table.parse().unwrap()).unwrap().facts().clone()
}

fn redfish(facts: DeviceFacts, connect: impl Connect + 'static) -> Redfish {
    let account = Account { user: "admin".into(), password: password(), login: Login::Auto };
    Redfish::new(facts, ("bmc".into(), SYSTEM.into()), account, Box::new(connect))
}

struct Ended {
    verdict: Verdict,
    concluded: Duration,
    finished: Duration,
}

/// Drives a session of one level per device, without journal or lanes.
async fn fence(devices: Vec<Arc<dyn Device>>, allowed: Duration) -> Ended {
    let facts: Vec<DeviceFacts> = devices.iter().map(|device| device.facts().clone()).collect();
    let identity = ExpectedIdentity { uuid: MachineUuid::parse(MACHINE).ok(), serial: None };
    let host = HostName::new("tk-p1").unwrap();
    let target = Target { host: host.clone(), identity, feeds: Default::default(), place: Place::default() };
    let levels = facts.iter().map(|facts| vec![facts.name.clone()]).collect();
    let topology = Topology::new(vec![Fenced { target, levels }], facts).unwrap();
    let plan = Plan::of(&topology, &FenceOrder::new(host, 1, Stamp::default(), allowed)).unwrap();
    let devices: BTreeMap<DeviceName, Arc<dyn Device>> =
        devices.into_iter().map(|device| (device.facts().name.clone(), device)).collect();

    let start = Instant::now();
    let now = || Moment::at(start.elapsed());
    let mut session = Session::new(plan, Moment::default());
    let (answers, mut answered) = mpsc::unbounded_channel();
    let mut stops = BTreeMap::new();
    let mut concluded = None;
    let mut input = Input::Tick;
    loop {
        let mut effects = Vec::new();
        session.step(now(), input, &mut effects);
        for effect in effects {
            match effect {
                Wanted::Note(_) => {}
                Wanted::Conclude(verdict) => concluded = Some((verdict, start.elapsed())),
                Wanted::Stop { call } => {
                    let stop: &watch::Sender<bool> = &stops[&call];
                    stop.send_replace(true);
                }
                Wanted::Call { call, device, act, limit } => {
                    let (stop, stopped) = watch::channel(false);
                    stops.insert(call, stop);
                    let (device, answers) = (devices[&device].clone(), answers.clone());
                    let leash = Leash { limit: start + limit.since_start(), stop: stopped };
                    tokio::spawn(async move {
                        let answer = perform(&*device, act, leash, start).await;
                        let _ = answers.send((call, answer));
                    });
                }
            }
        }
        if session.is_finished() {
            let (verdict, concluded) = concluded.unwrap();
            return Ended { verdict, concluded, finished: start.elapsed() };
        }
        let wake = session.deadline().map(|moment| start + moment.since_start());
        let wait = async {
            match wake {
                Some(wake) => sleep_until(wake).await,
                None => std::future::pending().await,
            }
        };
        input = tokio::select! {
            biased;
            Some((call, answer)) = answered.recv() => Input::Answered { call, answer },
            () = wait => Input::Tick,
        };
    }
}

async fn perform(device: &dyn Device, act: Act, leash: Leash, start: Instant) -> Answer {
    let begun = Instant::now();
    let call = Call::ordered(leash.clone(), Behind::default(), BTreeMap::new(), Arc::new(|| Ok(())));
    let silent = || Trouble::Silent { limit: leash.limit - begun };
    let stopped = || Trouble::Overtaken { because: "stopped".into() };
    match act {
        Act::Off => {
            let off = timeout_at(leash.limit, device.off(&call));
            let answer = tokio::select! { answer = off => answer.unwrap_or_else(|_| Err(silent())), () = leash.stopped() => Err(stopped()) };
            Answer::Off(answer)
        }
        Act::Read => {
            let read = timeout_at(leash.limit, device.read(&call));
            let sight = tokio::select! { sight = read => sight.unwrap_or_else(|_| Err(silent())), () = leash.stopped() => Err(stopped()) };
            Answer::Read(sight.map(|sight| Reading {
                asked: Moment::at(begun - start),
                answered: Moment::at(start.elapsed()),
                observed: sight.observed,
                identity: sight.identity,
                lab: sight.lab,
            }))
        }
    }
}

fn virtual_time<T>(body: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(body)
}

fn run(manners: Manners, allowed: Duration) -> (Bmc, Ended) {
    virtual_time(async {
        let bmc = Bmc::new(manners);
        let device: Arc<dyn Device> = Arc::new(redfish(facts("bmc"), Within(bmc.clone())));
        let ended = fence(vec![device], allowed).await;
        (bmc, ended)
    })
}

fn proven((bmc, ended): (Bmc, Ended)) -> (Bmc, Duration) {
    let Verdict::Proven { evidence } = &ended.verdict else { panic!("this must be proven: {}", ended.verdict) };
    assert_eq!(evidence.kind(), EvidenceKind::PoweredOff);
    must_be_true(&bmc, &ended.verdict);
    (bmc, ended.concluded)
}

fn unproven((bmc, ended): (Bmc, Ended)) -> (Bmc, Unproven) {
    match ended.verdict {
        Verdict::Unproven(unproven) => (bmc, unproven),
        Verdict::Proven { evidence } => panic!("this must not be proven: {evidence:?}"),
    }
}

/// The oracle: proof only if the right machine was read off twice in a row, a settle time apart, and was off both times.
fn must_be_true(bmc: &Bmc, verdict: &Verdict) {
    let Verdict::Proven { .. } = verdict else { return };
    let log = bmc.log();
    let offs: Vec<_> = log.served.iter().rev().take_while(|served| served.said_off && served.right_machine).collect();
    let (Some(last), Some(first)) = (offs.first(), offs.last()) else { panic!("never read off: {:?}", log.served) };
    assert!(last.at - first.at >= SETTLE, "the readings lie too close together: {:?}", log.served);
    assert!(!last.was_on, "it was on when it was read: {:?}", log.served);
}

#[test]
fn an_honest_bmc_proves_in_the_time_of_its_change_and_the_settle_time() {
    let (_, took) = proven(run(Manners::default(), ms(20_000)));
    assert!(took < ms(300 + 250 + 1_000 + 250), "{took:?}");
}

#[test]
fn a_bmc_that_accepts_off_and_stays_on_proves_nothing() {
    let (bmc, unproven) = unproven(run(Manners { effect: Effect::None, ..Manners::default() }, ms(20_000)));
    assert!(bmc.log().offs > 1, "it must be told again");
    assert!(unproven.reasons[0].text.contains("still reads: on"), "{unproven}");
}

#[test]
fn a_conflict_because_it_is_off_already_is_settled_by_reading() {
    let manners = Manners { off_answer: OffAnswer::Status(409), ..Manners::default() };
    proven(run(manners, ms(20_000)));
    proven(run(Manners { starts_off: true, off_answer: OffAnswer::ConflictWhenOff, ..Manners::default() }, ms(20_000)));
}

#[test]
fn a_machine_that_comes_back_is_not_off() {
    let manners =
        Manners { effect: Effect::ComesBack(ms(700)), off_answer: OffAnswer::Status(200), ..Manners::default() };
    let (_, unproven) = unproven(run(manners, ms(20_000)));
    assert!(unproven.reasons[0].text.contains("came back"), "{unproven}");
}

#[test]
fn a_machine_that_flips_between_the_readings_is_never_proven() {
    let (bmc, unproven) = unproven(run(Manners { effect: Effect::Flips, ..Manners::default() }, ms(30_000)));
    assert!(bmc.log().served.iter().any(|served| served.said_off), "it was never seen off");
    assert!(unproven.reasons[0].text.contains("came back"), "{unproven}");
}

#[test]
fn a_bmc_of_another_machine_is_never_told_anything() {
    let manners = Manners { other_machine: Some((0, u32::MAX)), ..Manners::default() };
    let (bmc, unproven) = unproven(run(manners, ms(20_000)));
    assert_eq!(bmc.log().offs, 0);
    assert!(unproven.reasons[0].text.contains("another machine"), "{unproven}");
}

#[test]
fn a_bmc_that_turns_into_another_machine_between_the_readings_proves_nothing() {
    for from in 3..8 {
        let manners = Manners { other_machine: Some((from, u32::MAX)), ..Manners::default() };
        unproven(run(manners, ms(20_000)));
    }
}

#[test]
fn a_silent_slow_endless_or_senseless_bmc_ends_by_the_deadline_with_a_reason() {
    let failures = [
        Failure::Hang,
        Failure::CloseMidAnswer,
        Failure::SlowLoris,
        Failure::NoHttp,
        Failure::NoJson,
        Failure::NoSense,
        Failure::Endless,
        Failure::Status(500),
        Failure::Status(503),
        Failure::RefuseConnection,
    ];
    for failure in failures {
        // A connection that stands isn't refused, so that failure can only be there from the beginning.
        let latest = if failure == Failure::RefuseConnection { 1 } else { 5 };
        for from in 1..=latest {
            let run = run(Manners { falls: Some((from, failure)), ..Manners::default() }, ms(12_000));
            assert!(run.1.concluded <= ms(12_000), "{failure:?}: {:?}", run.1.concluded);
            must_be_true(&run.0, &run.1.verdict);
            let (_, unproven) = unproven(run);
            assert!(!unproven.reasons[0].text.is_empty() && !unproven.reasons[0].remedy.is_empty());
        }
    }
}

#[test]
fn one_lost_answer_costs_time_and_no_proof() {
    for number in 1..7 {
        for failure in [Failure::CloseMidAnswer, Failure::NoHttp, Failure::Status(503)] {
            let manners = Manners { failures: vec![(number, failure)], ..Manners::default() };
            let run = run(manners, ms(30_000));
            // A login that fails with an odd status is not tried again; everything else is.
            if number != 2 {
                proven(run);
            }
        }
    }
}

#[test]
fn a_changed_certificate_ends_it_before_any_password_is_sent() {
    let (bmc, unproven) = unproven(run(Manners { other_certificate: Some(1), ..Manners::default() }, ms(20_000)));
    assert_eq!((bmc.logins(), bmc.log().served.len()), (0, 0));
    assert!(unproven.reasons[0].text.contains("another certificate"), "{unproven}");
}

#[test]
fn a_lockout_is_not_provoked_and_the_password_is_not_shown() {
    for sessions in [true, false] {
        let (bmc, unproven) =
            unproven(run(Manners { locks_after: Some(0), sessions, ..Manners::default() }, ms(20_000)));
        assert_eq!(bmc.log().refused_logins, 1);
        assert!(unproven.reasons[0].text.contains("refuses the login"), "{unproven}");
        assert!(!format!("{unproven:?}").contains(PASSWORD), "{unproven:?}");
    }
}

#[test]
fn a_session_that_ends_is_opened_anew_and_a_service_without_sessions_works() {
    proven(run(Manners { token_lasts: 1, ..Manners::default() }, ms(20_000)));
    proven(run(Manners { sessions: false, ..Manners::default() }, ms(20_000)));
}

#[test]
fn a_service_that_wants_its_version_back_gets_it() {
    let (bmc, _) = proven(run(Manners { wants_etag: true, ..Manners::default() }, ms(20_000)));
    assert_eq!(bmc.log().reset_types, ["ForceOff"]);
}

#[test]
fn a_site_whose_bmcs_all_fall_silent_is_said_to_be_silent() {
    for endpoints in [["a", "b", "c"], ["a", "a", "a"]] {
        let ended = virtual_time(async {
            let device = |endpoint: &str, number: usize| {
                let bmc = Bmc::new(Manners { falls: Some((1, Failure::Hang)), ..Manners::default() });
                let facts = DeviceFacts { endpoint: endpoint.into(), ..facts(&format!("bmc-{number}")) };
                Arc::new(redfish(facts, Within(bmc))) as Arc<dyn Device>
            };
            let devices = endpoints.iter().enumerate().map(|(number, endpoint)| device(endpoint, number));
            fence(devices.collect(), ms(15_000)).await
        });
        let Verdict::Unproven(unproven) = ended.verdict else { panic!("{}", ended.verdict) };
        assert!(unproven.is_all_silent(), "{unproven}");
    }
}

fn failure() -> impl Strategy<Value = Failure> {
    prop_oneof![
        Just(Failure::Hang),
        Just(Failure::CloseMidAnswer),
        Just(Failure::SlowLoris),
        Just(Failure::NoHttp),
        Just(Failure::NoJson),
        Just(Failure::NoSense),
        Just(Failure::Endless),
        Just(Failure::RefuseConnection),
        prop::sample::select(vec![200u16, 202, 204, 301, 400, 401, 403, 404, 409, 412, 429, 500, 503])
            .prop_map(Failure::Status),
    ]
}

fn rarely<T: std::fmt::Debug + Clone + 'static>(
    strategy: impl Strategy<Value = T> + 'static,
) -> impl Strategy<Value = Option<T>> {
    prop::option::weighted(0.25, strategy)
}

prop_compose! {
    fn power()(
        effect in prop_oneof![
            4 => (0u64..6_000).prop_map(|after| Effect::Off(ms(after))),
            1 => Just(Effect::None),
            1 => Just(Effect::Flips),
            3 => (0u64..5_000).prop_map(|after| Effect::ComesBack(ms(after))),
        ],
        off_answer in prop_oneof![
            prop::sample::select(vec![200u16, 202, 204, 400, 409, 500]).prop_map(OffAnswer::Status),
            Just(OffAnswer::ConflictWhenOff),
        ],
        between in prop::bool::weighted(0.2),
        starts_off in prop::bool::weighted(0.2),
        nameless in prop::bool::weighted(0.1),
        wants_etag in prop::bool::weighted(0.2),
    ) -> Manners {
        Manners { effect, off_answer, between, starts_off, nameless, wants_etag, ..Manners::default() }
    }
}

prop_compose! {
    fn manners()(
        power in power(),
        failures in prop::collection::vec((1u32..12, failure()), 0..3),
        falls in rarely((1u32..15, failure())),
        other_machine in rarely((1u32..12, 1u32..4)),
        locks_after in rarely(0u32..4),
        sessions in prop::bool::weighted(0.7),
        token_lasts in prop_oneof![3 => Just(u32::MAX), 1 => 0u32..4],
        other_certificate in rarely(1u32..4),
    ) -> Manners {
        Manners { failures, falls, other_machine, locks_after, sessions, token_lasts, other_certificate, ..power }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_random_behaviour_yields_a_false_proof_a_hang_or_silence_about_the_reason(
        manners in manners(),
        allowed in 2_000u64..40_000,
    ) {
        let (bmc, ended) = run(manners, ms(allowed));
        must_be_true(&bmc, &ended.verdict);
        let log = bmc.log();
        prop_assert!(ended.concluded <= ms(allowed), "concluded after {:?}", ended.concluded);
        prop_assert!(ended.finished - ended.concluded <= ms(100), "calls outlived the verdict: {:?}", ended.finished);
        prop_assert!(log.refused_logins <= 1, "a refused login was tried again");
        prop_assert!(log.reset_types.iter().all(|kind| kind == "ForceOff"), "{:?}", log.reset_types);
        if let Verdict::Unproven(unproven) = &ended.verdict {
            prop_assert!(unproven.reasons.iter().all(|reason| !reason.text.is_empty()) && !unproven.reasons.is_empty());
            prop_assert!(!unproven.to_string().contains(PASSWORD));
        }
    }
}
