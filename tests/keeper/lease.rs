//! What the end of a lease does to what runs under it.

use super::bench::*;
use antipode::driver::clock;
use antipode::keeper::core::Reason;
use antipode::keeper::{GroupCgroup, KeeperLink, PageState};
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::time::Duration;

#[test]
fn at_the_leases_end_everything_is_killed_verified_and_attested_and_the_host_lives_on() {
    valid(|| {
        let bench = Bench::start(Options::default());
        let mut agent = bench.agent();
        let expiry = agent.arm(1, &["erp", "web"]);
        let stubborn = bench.run_in(1, "erp", STUBBORN);
        let daemon = bench.run_in(1, "web", "(setsid sh -c 'trap \"\" TERM; sleep 1000' &) ; : > \"$0\"; sleep 1000");
        assert_eq!((bench.ended(stubborn), bench.ended(daemon)), (None, None));
        let page = bench.page_until("the attestation", |page| attested(page) == Some(epoch(1)));
        assert_eq!((page.state, page.cause), (PageState::Clean, Reason::Expired));
        assert_eq!(gone(&page), ["erp", "web"]);
        // The first refused pet comes when 2·W + δ_hw are left; within W of it all is verified.
        let at = page.attestation.expect("attested").at;
        let begun = expiry.minus(W * 2 + DELTA_HW);
        assert!(at.both_reached(begun), "killed {:?} too early", begun.held_since(at));
        assert!(at.held_since(begun) < W, "took {:?}", at.held_since(begun));
        assert_eq!((bench.ended(stubborn), bench.ended(daemon)), (Some(libc::SIGKILL), Some(libc::SIGKILL)));
        // It goes on petting: the host outlives the lease's end by far.
        until("the lease to be over", || clock::now().both_reached(expiry.plus(W)).then_some(()));
        assert_eq!(bench.fires(), 0);
        let page = bench.page().expect("a page");
        assert!(page.pet_age(clock::now()).expect("petted") < TIMEOUT);
    });
}

#[test]
fn nothing_can_start_again_until_a_larger_host_epoch_comes() {
    valid(|| {
        let bench = Bench::start(Options::default());
        let mut agent = bench.agent();
        agent.arm(1, &["erp"]);
        let way_in = GroupCgroup::make(&bench.root(), epoch(1), &name("erp")).expect("armed");
        let mut on_its_way = Command::new("/bin/true");
        way_in.join(&mut on_its_way).expect("open");
        let release = agent.record(1, &["erp"], clock::now().plus(LEASE)).release(agent.sequence);
        agent.link.write(&release);
        bench.page_until("the attestation", |page| attested(page) == Some(epoch(1)));
        // A start that was prepared while it was allowed finds its way in gone; a new one finds none.
        assert!(on_its_way.spawn().is_err());
        assert!(GroupCgroup::make(&bench.root(), epoch(1), &name("erp")).is_err());
        agent.hold(1, &["erp"]);
        bench.page_until("the refusal", |page| page.reason == Reason::RetiredEpoch);
        assert_eq!(bench.page().expect("a page").armed, None);
        agent.arm(2, &["erp"]);
        let again = bench.run_in(2, "erp", STUBBORN);
        assert_eq!(bench.ended(again), None);
    });
}

#[test]
fn an_agent_that_is_gone_and_back_within_the_slack_disturbs_nothing() {
    valid(|| {
        let bench = Bench::start(Options::default());
        let mut agent = bench.agent();
        let expiry = agent.arm(1, &["erp"]);
        let guest = bench.run_in(1, "erp", STUBBORN);
        assert!(KeeperLink::open(&bench.path("keeper")).is_err(), "two agents at once");
        let sequence = agent.sequence;
        drop(agent);
        let almost = expiry.minus(W * 2 + DELTA_HW + Duration::from_millis(400));
        until("the slack to be nearly used up", || clock::now().both_reached(almost).then_some(()));
        let mut agent = bench.agent();
        assert_eq!(agent.sequence, sequence, "it goes on from what was written before");
        agent.arm(1, &["erp"]);
        until("the first lease to be over", || clock::now().both_reached(expiry.minus(W * 2)).then_some(()));
        assert_eq!(bench.ended(guest), None);
        assert_eq!(bench.page().expect("a page").armed, Some(epoch(1)));
    });
}

#[test]
fn a_torn_record_extends_nothing_and_ends_nothing_before_its_time() {
    valid(|| {
        let bench = Bench::start(Options::default());
        let mut agent = bench.agent();
        let expiry = agent.arm(1, &["erp"]);
        let guest = bench.run_in(1, "erp", STUBBORN);
        let file = std::fs::File::options().write(true).open(bench.path("keeper/record")).expect("opened");
        let bytes = file.metadata().expect("known").len() as usize;
        // Both slots, and then the word in the header that says which of them is the latest.
        file.write_all_at(&vec![0xa5; bytes - 64], 64).expect("written");
        file.write_all_at(&40_u64.to_le_bytes(), 16).expect("written");
        let page = bench.page_until("the keeper to notice", |page| page.reason == Reason::Torn);
        assert_eq!((page.armed, bench.ended(guest)), (Some(epoch(1)), None));
        let page = bench.page_until("the attestation", |page| attested(page) == Some(epoch(1)));
        assert_eq!(gone(&page), ["erp"]);
        let at = page.attestation.expect("attested").at;
        assert!(at.both_reached(expiry.minus(W * 2 + DELTA_HW)));
        // A whole record of a larger host epoch is believed again.
        drop(agent);
        let mut agent = bench.agent();
        agent.sequence = 100;
        agent.arm(2, &["erp"]);
    });
}

#[test]
fn a_pinned_group_lives_on_and_is_not_attested() {
    valid(|| {
        let bench = Bench::start(Options::default());
        let mut agent = bench.agent();
        agent.arm(1, &["erp", "web", "old"]);
        let (pinned, other) = (bench.run_in(1, "erp", STUBBORN), bench.run_in(1, "web", STUBBORN));
        agent.arm(1, &["!erp", "web", "!old"]);
        let from = GroupCgroup::make(&bench.root(), epoch(1), &name("erp")).expect("armed");
        let to = GroupCgroup::make_pinned(&bench.root(), &name("erp")).expect("made");
        from.move_all(&to).expect("moved");
        let page = bench.page_until("the attestation", |page| attested(page) == Some(epoch(1)));
        // `old` is pinned too, but nothing of it is left.
        assert_eq!(gone(&page), ["web", "old"]);
        assert_eq!((bench.ended(pinned), bench.ended(other)), (None, Some(libc::SIGKILL)));
        // Unpinned under the next host epoch: acknowledged only when it has left its pinned cgroup.
        agent.hold(2, &["erp"]);
        let sequence = agent.sequence;
        bench.page_until("the next host epoch", |page| page.armed == Some(epoch(2)));
        bench.page_until("the reason", |page| page.reason == Reason::PinsUnsettled);
        assert_ne!(agent.page().echoed, sequence);
        let back = GroupCgroup::make(&bench.root(), epoch(2), &name("erp")).expect("armed");
        to.move_all(&back).expect("moved back");
        until("the echo", || (agent.page().echoed == sequence).then_some(()));
        assert_eq!((bench.ended(pinned), bench.fires()), (None, 0));
        let release = agent.record(2, &["erp"], clock::now()).release(agent.sequence);
        agent.link.write(&release);
        bench.page_until("the second attestation", |page| attested(page) == Some(epoch(2)));
        assert_eq!(bench.ended(pinned), Some(libc::SIGKILL));
    });
}

#[test]
fn a_group_that_is_still_in_its_pinned_cgroup_is_not_attested_whatever_the_record_says() {
    valid(|| {
        let bench = Bench::start(Options::default());
        let mut agent = bench.agent();
        agent.arm(1, &["erp", "web"]);
        let left = bench.run_in(1, "erp", STUBBORN);
        let from = GroupCgroup::make(&bench.root(), epoch(1), &name("erp")).expect("armed");
        let to = GroupCgroup::make_pinned(&bench.root(), &name("erp")).expect("made");
        from.move_all(&to).expect("moved");
        // The record says that it is untied, and the lease ends before anybody has moved it back.
        agent.hold(1, &["erp", "web"]);
        bench.page_until("the reason", |page| page.reason == Reason::PinsUnsettled);
        let page = bench.page_until("the attestation", |page| attested(page) == Some(epoch(1)));
        assert_eq!(gone(&page), ["web"]);
        assert_eq!((bench.ended(left), bench.fires()), (None, 0));
    });
}

/// A helper that answers only when its flag file is there.
fn helper(bench: &Memory, body: &str) -> String {
    use std::os::unix::fs::PermissionsExt;
    let path = bench.path().join("helper");
    std::fs::write(&path, format!("#!/bin/sh\necho ready\nwhile read verb he; do\n{body}\ndone\n")).expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("executable");
    path.to_string_lossy().into_owned()
}

#[test]
fn a_helper_begins_with_no_signal_blocked() {
    valid(|| {
        let memory = Memory::new();
        let program = helper(&memory, "grep SigBlk: /proc/self/status >> \"$0.log\"; echo done");
        let bench = Bench::start(Options { keeper: vec!["--helper".into(), program], ..Options::default() });
        bench.agent().arm(1, &["erp"]);
        // It was triggered at the start, to clean up after whatever was before.
        let log = std::fs::read_to_string(memory.path().join("helper.log")).expect("a log");
        let mask = log.split_whitespace().nth(1).and_then(|mask| u64::from_str_radix(mask, 16).ok());
        assert_eq!(mask, Some(0), "{log}");
    });
}

#[test]
fn helpers_are_triggered_with_the_host_epoch_and_waited_for() {
    valid(|| {
        let memory = Memory::new();
        let program = helper(&memory, "echo \"$verb $he\" >> \"$0.log\"; echo done");
        let bench = Bench::start(Options { keeper: vec!["--helper".into(), program], ..Options::default() });
        let mut agent = bench.agent();
        agent.arm(1, &["erp"]);
        let release = agent.record(1, &["erp"], clock::now()).release(agent.sequence);
        agent.link.write(&release);
        bench.page_until("the attestation", |page| attested(page) == Some(epoch(1)));
        let log = std::fs::read_to_string(memory.path().join("helper.log")).expect("a log");
        // Once at the start, to clean up after whatever was before, and once for the host epoch.
        assert_eq!(log, format!("release 0\nrelease {}\n", epoch(1).0));
        agent.arm(2, &["erp"]);
    });
}

#[test]
fn a_helper_that_does_not_finish_costs_the_host() {
    valid(|| {
        let memory = Memory::new();
        let body = "if [ \"$he\" = 0 ]; then echo done; else sleep 1000; fi";
        let program = helper(&memory, body);
        let bench = Bench::start(Options { keeper: vec!["--helper".into(), program], ..Options::default() });
        let mut agent = bench.agent();
        agent.arm(1, &["erp"]);
        let release = agent.record(1, &["erp"], clock::now()).release(agent.sequence);
        agent.link.write(&release);
        bench.page_until("the reason", |page| page.reason == Reason::HelperUnfinished);
        let lost = bench.event("pet-lost");
        assert!(lost["after_last_pet_ms"].as_f64().expect("a number") <= W.as_secs_f64() * 1e3);
        bench.event("reset");
    });
}
