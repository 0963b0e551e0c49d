//! The mirror: honest zero loss, whatever the standby does, and nobody else at the export.

use super::bench::{LOOK_EVERY, PATIENCE, epoch, need, run, until};
use super::pair::{Pair, SOURCE, STANDBY, identity_from, reign};
use antipode::pki::{Authority, Validity};
use antipode::replication::contract::check;
use antipode::replication::nbd::{Copy, Nbd, export_name};
use antipode::replication::{
    AcceptedLoss, ExportBegin, ExportOrder, MirrorState, PromoteOrder, Replication, ReplicationError, is_whole_already,
};
use quorum::id::{Epoch, Generation};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const STALL: Duration = Duration::from_millis(300);

#[tokio::test]
async fn every_kind_of_replication_keeps_the_contract() {
    let pair = Pair::new(Epoch(41)).await;
    check(&pair).await.unwrap_or_else(|claim| panic!("kind nbd: {claim}"));
}

/// Takes the standby away under load and shows that no write is answered until the release.
async fn writes_wait_for_the_release(pair: &Pair, signal: &str) {
    pair.write_block(0, 1).await;
    let answered = pair.answered().await;
    let pid = pair.export_pid().to_string();
    // Load: writes under way while it happens. Those that the standby had taken may still be answered.
    for block in 1..5 {
        pair.begin_write(block, 2).await;
    }
    run(&["kill", signal, &pid]);
    let in_flight = pair.answered().await;
    for block in 5..9 {
        pair.begin_write(block, 3).await;
    }
    let source = pair.nbd(SOURCE);
    let start = Instant::now();
    until("the mirror is seen away", async || {
        matches!(source.mirror_state(STALL).await.unwrap(), MirrorState::Away { .. })
    })
    .await;
    // Watched for some more time than any time limit that a driver here has for a request.
    let mut last = 0;
    let mut look = tokio::time::interval(LOOK_EVERY);
    while start.elapsed() < Duration::from_secs(5) {
        last = pair.answered().await;
        look.tick().await;
    }
    assert!(last <= answered + 4 && last >= in_flight, "answered {last} of {answered} + 4 + 4 with the standby away");
    source.release_writes().await.unwrap();
    until("all writes are answered", async || pair.answered().await == answered + 8).await;
    assert!(matches!(source.mirror_state(STALL).await.unwrap(), MirrorState::Detached { .. }));
    pair.write_block(9, 4).await;
    assert_eq!((pair.byte_at(SOURCE, 8), pair.byte_at(SOURCE, 9)), (3, 4));
}

#[tokio::test]
async fn no_write_is_answered_while_the_standby_is_dead_until_released() {
    let pair = Pair::in_sync(reign()).await;
    writes_wait_for_the_release(&pair, "-KILL").await;
}

#[tokio::test]
async fn no_write_is_answered_while_the_standby_is_silent_until_released() {
    let pair = Pair::in_sync(reign()).await;
    writes_wait_for_the_release(&pair, "-STOP").await;
    // It can be closed although it doesn't react.
    pair.nbd(STANDBY).close_export(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_standby_that_comes_back_gets_what_waited_for_it() {
    let pair = Pair::in_sync(reign()).await;
    let answered = pair.answered().await;
    run(&["kill", "-KILL", &pair.export_pid().to_string()]);
    pair.begin_write(3, 0x33).await;
    let source = pair.nbd(SOURCE);
    until("the mirror is seen away", async || {
        matches!(source.mirror_state(STALL).await.unwrap(), MirrorState::Away { .. })
    })
    .await;
    assert_eq!(pair.answered().await, answered);
    pair.nbd(STANDBY).open_export(&pair.export_for(reign(), ExportBegin::Continue)).await.unwrap();
    until("the write is answered", async || pair.answered().await == answered + 1).await;
    assert_eq!(pair.byte_at(STANDBY, 3), 0x33);
    drop(source);
    pair.until_synced().await;
    pair.assert_identical();
}

/// Whether a new life of the source's agent takes up its mirror: where there is none, once it is whole, and when the standby
/// of a whole one is dead and a write waits for it.
async fn is_taken_up() -> [bool; 3] {
    let pair = Pair::new(reign()).await;
    pair.nbd(SOURCE).adopt(reign(), Generation(1)).await.unwrap();
    pair.nbd(STANDBY).open_export(&pair.export_for(reign(), ExportBegin::Afresh)).await.unwrap();
    let order = pair.mirror_for(reign());
    let take_up = async || is_whole_already(&pair.nbd(SOURCE), &order, STALL).await;
    let none = take_up().await;
    pair.nbd(SOURCE).start_mirror(&order).await.unwrap();
    pair.until_synced().await;
    let whole = take_up().await;
    run(&["kill", "-KILL", &pair.export_pid().to_string()]);
    pair.begin_write(3, 0x33).await;
    let source = pair.nbd(SOURCE);
    until("the mirror is seen away", async || {
        matches!(source.mirror_state(STALL).await.unwrap(), MirrorState::Away { was_whole: true, .. })
    })
    .await;
    let answered = pair.answered().await;
    let away = take_up().await;
    assert_eq!(pair.answered().await, answered, "the write waits all the while");
    [none, whole, away]
}

#[tokio::test]
async fn a_new_life_of_the_agent_takes_up_a_whole_mirror_though_its_standby_is_dead() {
    assert_eq!(is_taken_up().await, [false, true, true]);
}

#[tokio::test]
#[cfg(feature = "mutants")]
async fn a_new_life_of_the_agent_that_lets_a_whole_mirror_go_is_noticed() {
    let _planted = quorum::mutants::plant("data.waiting_mirror_let_go");
    assert_eq!(is_taken_up().await, [false; 3]);
}

#[tokio::test]
async fn every_write_is_flushed_at_the_standby_before_it_is_answered() {
    need("strace", "strace");
    let pair = Pair::in_sync(reign()).await;
    let log = pair.scratch.path("strace");
    let mut strace = Command::new("strace")
        .args(["-f", "-e", "trace=pwrite64,pwritev,fdatasync,sendto,sendmsg", "-o"])
        .args([log.as_os_str(), "-p".as_ref(), pair.export_pid().to_string().as_ref()])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = String::new();
    let said = strace.stderr.as_mut().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(said), &mut ready).unwrap();
    assert!(ready.contains("attached"), "{ready}");
    for block in 0..6 {
        pair.write_block(block, 0x77).await;
    }
    run(&["kill", "-INT", &strace.id().to_string()]);
    strace.wait().unwrap();
    let trace = std::fs::read_to_string(&log).unwrap();
    assert_flushed_before_each_answer(&trace, 6);
}

/// In the trace each write to the image is followed by a finished flush before the next answer is sent.
fn assert_flushed_before_each_answer(trace: &str, writes: usize) {
    let (mut dirty, mut written, mut flushed) = (false, 0, 0);
    for line in trace.lines().filter(|line| !line.contains("--- SIG") && !line.contains("+++")) {
        let is_end = !line.contains("<unfinished");
        if line.contains("pwrite") && is_end {
            (dirty, written) = (true, written + 1);
        } else if line.contains("fdatasync") && is_end {
            (dirty, flushed) = (false, flushed + 1);
        } else if line.contains("send") {
            assert!(!dirty, "an answer was sent before the flush:\n{trace}");
        }
    }
    assert!(written >= writes && flushed >= writes, "{written} writes, {flushed} flushes, {writes} expected:\n{trace}");
}

#[tokio::test]
async fn a_promotion_cuts_a_source_that_still_writes() {
    let pair = Pair::in_sync(reign()).await;
    let order = PromoteOrder {
        epoch: epoch(8),
        generation: Generation(1),
        not_before: reign(),
        accepted: AcceptedLoss::Nothing,
    };
    pair.begin_write(1, 0x11).await;
    pair.nbd(STANDBY).promote(&order).await.unwrap();
    let before = pair.byte_at(STANDBY, 2);
    pair.begin_write(2, 0x22).await;
    let source = pair.nbd(SOURCE);
    until("the source sees it away", async || {
        matches!(source.mirror_state(STALL).await.unwrap(), MirrorState::Away { .. })
    })
    .await;
    assert_eq!(pair.byte_at(STANDBY, 2), before);
}

async fn assert_unreachable(pair: &Pair, source: &Nbd, why: &str) {
    let tried = source.start_mirror(&pair.mirror_for(reign())).await;
    assert!(matches!(tried, Err(ReplicationError::Unreachable { .. })), "{why}: {tried:?}");
    // The failed attempt holds up nothing and leaves nothing.
    assert_eq!(source.mirror_state(STALL).await.unwrap(), MirrorState::Detached { because: None });
    pair.write_block(0, 9).await;
    assert_eq!(pair.byte_at(STANDBY, 0), 0, "{why}: something reached the standby");
}

#[tokio::test]
async fn an_export_of_another_epoch_is_not_served() {
    let pair = Pair::new(reign()).await;
    pair.nbd(SOURCE).adopt(reign(), Generation(1)).await.unwrap();
    pair.nbd(STANDBY).open_export(&pair.export_for(epoch(8), ExportBegin::Afresh)).await.unwrap();
    assert_unreachable(&pair, &pair.nbd(SOURCE), "an older epoch").await;
}

#[tokio::test]
async fn a_certificate_of_another_authority_or_host_is_refused_at_both_ends() {
    let pair = Pair::new(reign()).await;
    pair.nbd(SOURCE).adopt(reign(), Generation(1)).await.unwrap();
    let day = Validity::from_now(Duration::from_secs(24 * 3600));
    let other = Authority::create(&pair.scratch.path("other-ca"), &"erp-geo".parse().unwrap(), day).unwrap();
    let with = |host: &str, identity| Nbd::new(Copy { identity, ..pair.copy(host) });
    let stranger = |host: &str| identity_from(&other, host, pair.scratch.path(&format!("stranger-{host}")));

    // The standby's server is one of another authority; then one that isn't the host it should be.
    for (identity, why) in [(stranger(STANDBY), "a strange server"), (pair.identity("os-k9"), "another host's server")]
    {
        let order = pair.export_for(reign(), ExportBegin::Afresh);
        with(STANDBY, identity).open_export(&order).await.unwrap();
        assert_unreachable(&pair, &pair.nbd(SOURCE), why).await;
    }
    // The client is one of another authority.
    pair.nbd(STANDBY).open_export(&pair.export_for(reign(), ExportBegin::Afresh)).await.unwrap();
    assert_unreachable(&pair, &with(SOURCE, stranger(SOURCE)), "a strange client").await;
    // The client is of ours, but not the host that is to be let in.
    let order = ExportOrder { from: "tk-k2".parse().unwrap(), ..pair.export_for(reign(), ExportBegin::Afresh) };
    pair.nbd(STANDBY).open_export(&order).await.unwrap();
    assert_unreachable(&pair, &pair.nbd(SOURCE), "another host").await;
}

#[tokio::test]
async fn plain_text_is_refused() {
    let pair = Pair::in_sync(reign()).await;
    let name = export_name(&"erp".parse().unwrap(), "root", reign());
    let output = Command::new("qemu-img").args(["info", &format!("nbd://{}/{name}", pair.address)]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("TLS"), "{said}");
    // It disturbed nobody.
    pair.write_block(1, 0x44).await;
    assert_eq!(pair.byte_at(STANDBY, 1), 0x44);
}

#[tokio::test]
async fn a_standby_that_is_silent_at_the_start_holds_up_the_guest_for_seconds_at_most() {
    let pair = Pair::new(reign()).await;
    pair.nbd(SOURCE).adopt(reign(), Generation(1)).await.unwrap();
    pair.nbd(STANDBY).open_export(&pair.export_for(reign(), ExportBegin::Afresh)).await.unwrap();
    run(&["kill", "-STOP", &pair.export_pid().to_string()]);
    let start = Instant::now();
    assert_unreachable(&pair, &pair.nbd(SOURCE), "a silent standby").await;
    assert!(start.elapsed() < PATIENCE / 2);
}
