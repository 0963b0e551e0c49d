//! The spec of the scripts' cluster, and the line that changes it.
//!
//! tokyo: tk1 (a BMC, or two power feeds) and tk2; osaka: os1 and os2; nagoya, the witness: ng1. `erp` has a
//! synchronously mirrored volume and runs in tokyo on tk1, in osaka on os1; `web` has no data and runs on tk2 or os2.

use super::args::{Args, group, host, list, site, span};
use quorum::id::{DeviceName, HostName};
use quorum::ledger::{
    ClusterPolicy, Command, DeviceSpec, EvidenceKind, FailbackPolicy, GroupSpec, HostSpec, LedgerSpec, PlaceSpec,
    Replication, SetSpec, Shape, SiteSpec, Tier, VolumeSpec,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

fn device(text: &str) -> DeviceName {
    DeviceName::new(text).expect("device name")
}

pub fn standard_spec() -> LedgerSpec {
    let mut spec = LedgerSpec { policy: ClusterPolicy::default(), ..LedgerSpec::default() };
    for (name, witness) in [("tokyo", false), ("osaka", false), ("nagoya", true)] {
        spec.sites.insert(site(name), SiteSpec { witness });
    }
    for (name, at) in [("tk1", "tokyo"), ("tk2", "tokyo"), ("os1", "osaka"), ("os2", "osaka"), ("ng1", "nagoya")] {
        add_host(&mut spec, name, at);
    }
    for feed in ["psu-a", "psu-b"] {
        spec.devices.insert(device(feed), bmc());
    }
    let feeds = vec![device("psu-a"), device("psu-b")];
    spec.hosts.get_mut(&host("tk1")).expect("just made").fencing.push(feeds);
    spec.groups.insert(group("erp"), group_spec("erp", "tk1", "os1"));
    let web = GroupSpec { volumes: Vec::new(), ..group_spec("web", "tk2", "os2") };
    spec.groups.insert(group("web"), web);
    spec
}

fn bmc() -> DeviceSpec {
    DeviceSpec {
        kind: "redfish".to_owned(),
        settle: Duration::from_secs(1),
        deadline: Duration::from_secs(10),
        lab: false,
    }
}

fn add_host(spec: &mut LedgerSpec, name: &str, at: &str) {
    let own = device(&format!("bmc-{name}"));
    spec.devices.insert(own.clone(), bmc());
    spec.hosts.insert(host(name), HostSpec { site: site(at), hardware: None, fencing: vec![vec![own]] });
}

fn group_spec(name: &str, tokyo: &str, osaka: &str) -> GroupSpec {
    let place = |name| PlaceSpec { shape: Shape::Vm, hosts: vec![host(name)], shared_storage: false };
    GroupSpec {
        tier: Tier::Auto,
        order: 0,
        after: Vec::new(),
        accept: BTreeSet::from([EvidenceKind::PoweredOff, EvidenceKind::SelfFenced]),
        target_rpo: Duration::ZERO,
        target_rto: Duration::from_secs(60),
        hold_off: Duration::ZERO,
        places: BTreeMap::from([(site("tokyo"), place(tokyo)), (site("osaka"), place(osaka))]),
        volumes: volumes("sync", name),
        failback: FailbackPolicy { automatic: true, stable_for: Duration::from_secs(600) },
        home: site("tokyo"),
    }
}

fn volumes(kind: &str, group: &str) -> Vec<VolumeSpec> {
    let usual_lag = Duration::from_secs(2);
    let (replication, shared, persistent_reservations) = match kind {
        "none" => return Vec::new(),
        "sync" => (Replication::Synchronous { gated: true }, false, false),
        "sync-ungated" => (Replication::Synchronous { gated: false }, false, false),
        "async" => (Replication::Asynchronous { usual_lag, gated: true }, false, false),
        "async-ever" => (Replication::Asynchronous { usual_lag: Duration::MAX, gated: false }, false, false),
        "async-ungated" => (Replication::Asynchronous { usual_lag, gated: false }, false, false),
        "shared" => (Replication::None, true, false),
        "reserved" => (Replication::None, true, true),
        other => panic!("data {other:?}"),
    };
    let volume = |name: &str| VolumeSpec {
        name: name.to_owned(),
        backend: format!("{group}-{name}"),
        replication,
        persistent_reservations,
        shared,
    };
    vec![volume("root"), volume("log")]
}

/// `spec KEY=VALUE…`: changes the scripts' spec and proposes it as the next revision. A refused change stays in the
/// scripts' spec unless the line says `back`.
pub fn set_spec(current: &mut LedgerSpec, next: u64, args: &Args<'_>) -> Command {
    let before = current.clone();
    for (key, value) in args.pairs() {
        change(current, key, value);
    }
    let set = SetSpec {
        revision: args.number("revision", next),
        spec: current.clone(),
        source: args.line.to_owned(),
        by: super::people::decision(args),
    };
    if args.has("back") {
        *current = before;
    }
    Command::SetSpec(set)
}

fn change(spec: &mut LedgerSpec, key: &str, value: &str) {
    match key {
        "revision" | "by" | "entry-era" => {}
        "approvals" => spec.policy.approvals = value.parse().expect("number"),
        "software-watchdog" => spec.policy.trust_software_watchdog = value == "trusted",
        "brake-window" => spec.policy.brake_window = span(value),
        "drop-group" => drop(spec.groups.remove(&group(value))),
        "drop-host" => drop(spec.hosts.remove(&host(value))),
        "drop-site" => drop(spec.sites.remove(&site(value))),
        "drop-device" => drop(spec.devices.remove(&device(value))),
        "lab-device" => spec.devices.get_mut(&device(value)).expect("device").lab = true,
        "site" => drop(spec.sites.insert(site(value), SiteSpec { witness: false })),
        "host" => {
            let (name, at) = value.split_once(':').expect("host:site");
            add_host(spec, name, at);
        }
        "hardware" => {
            let (name, machine) = value.split_once(':').expect("host:machine");
            let hardware = quorum::id::HardwareId(super::args::stamp(machine));
            spec.hosts.get_mut(&host(name)).expect("host").hardware = Some(hardware);
        }
        "settle" => {
            let (name, settle) = value.split_once(':').expect("device:span");
            spec.devices.get_mut(&device(name)).expect("device").settle = span(settle);
        }
        "group" => {
            let mut copy = group_spec(value, "tk1", "os1");
            copy.volumes = volumes("sync", value);
            spec.groups.insert(group(value), copy);
        }
        _ => {
            let (name, key) = key.split_once('.').unwrap_or_else(|| panic!("spec key {key:?}"));
            let groups = spec.groups.get_mut(&group(name)).expect("group");
            change_group(groups, name, (key, value));
        }
    }
}

fn change_group(spec: &mut GroupSpec, name: &str, (key, value): (&str, &str)) {
    let hosts = |text: &str| -> Vec<HostName> { list(text).into_iter().map(host).collect() };
    match key {
        "tier" => {
            spec.tier = match value {
                "auto" => Tier::Auto,
                "approve" => Tier::Approve,
                "manual" => Tier::Manual,
                other => panic!("tier {other:?}"),
            }
        }
        "accept" => {
            spec.accept = list(value).into_iter().map(|kind| EvidenceKind::parse(kind).expect("kind")).collect()
        }
        "rpo" => spec.target_rpo = span(value),
        "hold-off" => spec.hold_off = span(value),
        "data" => spec.volumes = volumes(value, name),
        "backend" => spec.volumes[0].backend = value.to_owned(),
        "after" => spec.after = list(value).into_iter().map(group).collect(),
        "home" => spec.home = site(value),
        "drop" => drop(spec.places.remove(&site(value))),
        "at" => {
            let (at, named) = value.split_once(':').expect("site:hosts");
            let place = PlaceSpec { shape: Shape::Vm, hosts: hosts(named), shared_storage: false };
            spec.places.insert(site(at), place);
        }
        "physical-at" => spec.places.get_mut(&site(value)).expect("place").shape = Shape::Physical,
        "shared-at" => spec.places.get_mut(&site(value)).expect("place").shared_storage = true,
        other => panic!("group key {other:?}"),
    }
}
