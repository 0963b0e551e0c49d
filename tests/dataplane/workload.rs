//! Workload kinds on the real thing.

use super::bench::{PATIENCE, Scratch, adapter, epoch, need, order, run};
use antipode::command::Program;
use antipode::workload::command::{CommandSpec, CommandWorkload};
use antipode::workload::contract::{Bench, check};
use antipode::workload::qemu::args::{drive_device, tap_name};
use antipode::workload::qemu::spec::{AcceleratorChoice, QemuSpec};
use antipode::workload::qemu::{Qemu, accelerator, qmp::Qmp};
use antipode::workload::{Begin, Ended, Place, Presence, StartOrder, VolumeAt, Workload, WorkloadError};
use quorum::id::Epoch;
use serde_json::json;
use std::fs;

/// A guest without an operating system: enough for everything but what only its inside can show.
pub fn small_guest(more: &str) -> QemuSpec {
    need("qemu-system-x86_64", "qemu-system-x86");
    toml::from_str(&format!("memory = \"64MiB\"\naccelerator = \"tcg\"\n{more}")).unwrap()
}

struct QemuBench<'a> {
    scratch: &'a Scratch,
}

impl Bench for QemuBench<'_> {
    fn driver(&self) -> Box<dyn Workload> {
        Box::new(Qemu::new(self.place(), small_guest("")))
    }
    fn place(&self) -> Place {
        self.scratch.place("tk-k1")
    }
    fn order(&self, epoch: Epoch, begin: Begin) -> StartOrder {
        order(epoch, begin, vec![self.scratch.volume("tk-k1", 16 << 20)])
    }
    fn hopeless_order(&self) -> StartOrder {
        let missing = VolumeAt { name: "root".into(), path: self.scratch.path("missing.raw") };
        order(epoch(50), Begin::Running, vec![missing])
    }
}

struct AdapterBench<'a> {
    scratch: &'a Scratch,
}

impl Bench for AdapterBench<'_> {
    fn driver(&self) -> Box<dyn Workload> {
        let params = json!({ "argv": ["/bin/sleep", "100000"] });
        let spec = json!({ "program": adapter("process-workload"), "params": params, "look_seconds": 60 });
        Box::new(CommandWorkload::new(self.place(), serde_json::from_value::<CommandSpec>(spec).unwrap()))
    }
    fn place(&self) -> Place {
        self.scratch.place("tk-k2")
    }
    fn order(&self, epoch: Epoch, begin: Begin) -> StartOrder {
        order(epoch, begin, vec![self.scratch.volume("tk-k2", 1 << 20)])
    }
    fn hopeless_order(&self) -> StartOrder {
        let missing = VolumeAt { name: "root".into(), path: self.scratch.path("missing.raw") };
        order(epoch(50), Begin::Running, vec![missing])
    }
}

/// Each kind of workload, listed once.
#[tokio::test]
async fn every_kind_of_workload_keeps_the_contract() {
    need("python3", "python3");
    let scratch = Scratch::new();
    let kinds: [(&str, Box<dyn Bench>); 2] = [
        ("qemu", Box::new(QemuBench { scratch: &scratch })),
        ("command", Box::new(AdapterBench { scratch: &scratch })),
    ];
    for (kind, bench) in kinds {
        check(bench.as_ref()).await.unwrap_or_else(|claim| panic!("kind {kind}: {claim}"));
    }
}

#[tokio::test]
async fn the_probe_guest_runs_under_emulation_and_an_accelerator_that_fails_it_is_not_used() {
    need("qemu-system-x86_64", "qemu-system-x86");
    let folder = tempfile::tempdir().unwrap();
    let qemu = Program::find("qemu-system-x86_64").unwrap();
    assert_eq!(accelerator::try_out(&qemu, "tcg", folder.path(), PATIENCE).await, Ok(()));
    let refused = accelerator::try_out(&qemu, "no-such-accelerator", folder.path(), PATIENCE).await.unwrap_err();
    assert!(refused.contains("no-such-accelerator did not run a guest"), "{refused}");
    // Whatever this machine's KVM is worth, the choice agrees with what the probe guest found.
    let works = accelerator::try_out(&qemu, "kvm", folder.path(), accelerator::PROBE_LIMIT).await;
    let chosen = accelerator::choose(&qemu, AcceleratorChoice::Auto, folder.path()).await.unwrap();
    assert_eq!(chosen.name, if works.is_ok() { "kvm" } else { "tcg" }, "{chosen:?}");
    assert_eq!(accelerator::choose(&qemu, AcceleratorChoice::Kvm, folder.path()).await.is_ok(), works.is_ok());
}

#[tokio::test]
async fn a_volume_in_use_is_refused_and_the_failed_start_leaves_nothing() {
    let scratch = Scratch::new();
    let volume = scratch.volume("tk-k1", 16 << 20);
    let first = Qemu::new(scratch.place("tk-k1"), small_guest(""));
    first.start(&order(epoch(1), Begin::Running, vec![volume.clone()])).await.unwrap();
    let second = Qemu::new(scratch.place("tk-k3"), small_guest(""));
    let error = second.start(&order(epoch(2), Begin::Running, vec![volume])).await.unwrap_err();
    assert!(matches!(&error, WorkloadError::Failed { because } if because.contains("lock")), "{error}");
    assert_eq!(second.observe().await, Presence::Absent);
    assert_eq!(first.kill(PATIENCE).await.unwrap(), Ended::Killed);
}

#[tokio::test]
async fn a_guest_that_does_not_answer_is_killed_all_the_same() {
    let scratch = Scratch::new();
    let place = scratch.place("tk-k1");
    let guest = Qemu::new(place.clone(), small_guest(""));
    let start = order(epoch(1), Begin::Running, vec![scratch.volume("tk-k1", 16 << 20)]);
    guest.start(&start).await.unwrap();
    let pid = fs::read_to_string(place.cgroup.join("cgroup.procs")).unwrap();
    run(&["kill", "-STOP", pid.trim()]);
    assert!(matches!(guest.observe().await, Presence::Running { .. }), "a silent guest is not absent");
    let stop = antipode::workload::StopOrder {
        ask: std::time::Duration::from_millis(100),
        quit: std::time::Duration::from_millis(100),
        kill: PATIENCE,
    };
    assert_eq!(guest.stop(&stop).await.unwrap(), Ended::Killed);
    assert_eq!(guest.observe().await, Presence::Absent);
}

#[tokio::test]
async fn a_guests_card_is_on_its_bridge_and_vanishes_with_the_guest() {
    need("ip", "iproute2");
    let scratch = Scratch::new();
    let bridge = format!("apb{}", std::process::id() % 100_000);
    run(&["ip", "link", "add", &bridge, "type", "bridge"]);
    let outcome = async {
        let nic = format!("nics = [{{ bridge = \"{bridge}\", mac = \"52:54:00:00:00:07\" }}]");
        let guest = Qemu::new(scratch.place("tk-k1"), small_guest(&nic));
        let order = order(epoch(1), Begin::Running, vec![scratch.volume("tk-k1", 16 << 20)]);
        guest.start(&order).await.map_err(|e| e.to_string())?;
        let tap = tap_name("erp", 0);
        let shown = run(&["ip", "-o", "link", "show", &tap]);
        guest.kill(PATIENCE).await.map_err(|e| e.to_string())?;
        Ok::<_, String>((shown, fs::exists(format!("/sys/class/net/{tap}")).unwrap()))
    };
    let outcome = outcome.await;
    run(&["ip", "link", "del", &bridge]);
    let (shown, is_left) = outcome.unwrap();
    assert!(shown.contains(&format!("master {bridge}")) && shown.contains(",UP"), "{shown}");
    assert!(!is_left, "a dead guest's tap goes with it");
}

#[tokio::test]
async fn a_wrong_bridge_and_a_wrong_kernel_are_both_named_by_the_preflight() {
    let scratch = Scratch::new();
    let nic = "nics = [{ bridge = \"no-such-br\", mac = \"52:54:00:00:00:07\" }]\nkernel = \"/no/such/kernel\"";
    let guest = Qemu::new(scratch.place("tk-k1"), small_guest(nic));
    let error = guest.preflight(&[scratch.volume("tk-k1", 1 << 20)]).await.unwrap_err().to_string();
    assert!(error.contains("no-such-br") && error.contains("/no/such/kernel"), "{error}");
}

#[tokio::test]
async fn what_a_guest_writes_is_on_the_volume_after_a_kill() {
    let scratch = Scratch::new();
    let volume = scratch.volume("tk-k1", 16 << 20);
    let guest = Qemu::new(scratch.place("tk-k1"), small_guest(""));
    guest.start(&order(epoch(1), Begin::Paused, vec![volume.clone()])).await.unwrap();
    let monitor = Qmp::connect(&guest.runtime().spare(), PATIENCE).await.unwrap();
    let line = format!("qemu-io -d {} \"write -P 0xab 64k 64k\"", drive_device("root"));
    monitor.call("human-monitor-command", json!({ "command-line": line })).await.unwrap();
    guest.kill(PATIENCE).await.unwrap();
    let bytes = fs::read(&volume.path).unwrap();
    assert!(bytes[65536..131072].iter().all(|&byte| byte == 0xab) && bytes[131072] == 0);
}

#[tokio::test]
async fn an_adapter_that_says_absent_is_not_believed_while_its_cgroup_has_processes() {
    let scratch = Scratch::new();
    let liar = scratch.path("liar");
    let script = "#!/bin/sh\ncase $1 in\nstart) setsid sleep 100000 >/dev/null 2>&1 & sleep 0.1; echo '{\"result\":\"started\"}';;\n\
                  *) echo '{\"result\":\"absent\"}';;\nesac\n";
    fs::write(&liar, script).unwrap();
    fs::set_permissions(&liar, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let spec = serde_json::from_value(json!({ "program": liar, "look_seconds": 60 })).unwrap();
    let workload = CommandWorkload::new(scratch.place("tk-k2"), spec);
    workload.start(&order(epoch(1), Begin::Running, vec![])).await.unwrap();
    let seen = workload.observe().await;
    assert!(matches!(seen, Presence::Unknown { .. }), "{seen:?}");
    // The kernel ends what the adapter doesn't.
    assert_eq!(workload.kill(PATIENCE).await.unwrap(), Ended::Killed);
    assert_eq!(workload.observe().await, Presence::Absent);
}
