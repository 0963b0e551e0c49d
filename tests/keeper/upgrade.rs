//! The exec upgrade: nothing is disarmed, nothing is forgotten.

use super::bench::*;
use antipode::keeper::PageState;
use antipode::keeper::core::Reason;

/// Orders the upgrade and waits until the keeper is the next program.
fn upgrade(bench: &Bench, signal: &str) {
    bench.order(&format!("signal keeper {signal}"));
    let pid = bench.pids("keeper")[0];
    until("the next program", || {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let resumed = words.split(|&b| b == 0).any(|word| word.starts_with(b"--resume="));
        resumed.then_some(())
    });
    let written = bench.page().expect("a page").written;
    bench.page_until("the next program's page", |page| page.written > written);
}

#[test]
fn an_upgrade_keeps_process_instance_lease_and_workloads() {
    valid(|| {
        let bench = Bench::start(Options::default());
        let mut agent = bench.agent();
        agent.arm(1, &["erp"]);
        let guest = bench.run_in(1, "erp", STUBBORN);
        let (before, pids) = (agent.page(), bench.pids("keeper"));
        upgrade(&bench, "USR2");
        let after = agent.page();
        assert_eq!((after.instance, after.pid, after.armed), (before.instance, before.pid, before.armed));
        assert_eq!((bench.pids("keeper"), after.echoed), (pids, before.echoed));
        assert_eq!((bench.ended(guest), bench.fires(), bench.events("closed").len()), (None, 0, 0));
        // It renews and ends as before.
        agent.arm(1, &["erp", "web"]);
        let page = bench.page_until("the attestation", |page| attested(page) == Some(epoch(1)));
        assert_eq!((page.instance, gone(&page)), (before.instance, vec!["erp", "web"]));
        assert_eq!((bench.ended(guest), bench.fires()), (Some(libc::SIGKILL), 0));
    });
}

#[test]
fn an_upgrade_remembers_what_was_retired_and_attested() {
    valid(|| {
        let bench = Bench::start(Options::default());
        let mut agent = bench.agent();
        agent.arm(1, &["erp"]);
        let release = agent.record(1, &["erp"], antipode::driver::clock::now()).release(agent.sequence);
        agent.link.write(&release);
        bench.page_until("the attestation", |page| attested(page) == Some(epoch(1)));
        upgrade(&bench, "HUP");
        let page = bench.page().expect("a page");
        assert_eq!((page.state, page.retired, attested(&page)), (PageState::Clean, epoch(1), Some(epoch(1))));
        assert_eq!(gone(&page), ["erp"]);
        agent.hold(1, &["erp"]);
        bench.page_until("the refusal", |page| page.reason == Reason::RetiredEpoch);
        agent.arm(2, &["erp"]);
        // And once more, from an upgraded program.
        upgrade(&bench, "HUP");
        assert_eq!((agent.page().armed, bench.fires()), (Some(epoch(2)), 0));
    });
}
