//! The spec's hosts and devices as the fencing crate wants them, and what the ledger needs to know of a device.
//!
//! Contract: kind-specific keys are checked by the kind itself, in the fencing crate; secrets stay references. Building
//! reads no secret and calls nothing.
//!
//! Not here: driving devices (`driver::fence`).

use super::reader::Reader;
use super::spec_file::ClusterSpec;
use fencing::topology::Problem;
use fencing::{FencingConfig, HostFencing};
use quorum::id::{DeviceName, HostName};
use quorum::ledger::DeviceSpec;
use std::collections::BTreeSet;
use std::str::FromStr;
use std::time::Duration;
use toml::{Table, Value};

/// The fencing configuration of the whole cluster: every agent that executes fence tasks has the same.
pub fn fencing_config(spec: &ClusterSpec) -> FencingConfig {
    let name = |text: &str| fencing::name::HostName::new(text).ok();
    let hosts = spec.hosts.values().filter(|host| !host.fencing.is_empty()).filter_map(|host| {
        let levels = host.fencing.iter().map(|level| level.iter().filter_map(|name| name.parse().ok()).collect());
        Some(HostFencing {
            name: name(host.name.as_str())?,
            site: fencing::name::SiteName::new(host.site.as_str()).ok(),
            fencing: levels.collect(),
            ..host.machine.clone()
        })
    });
    let devices = spec.devices.iter().map(|(name, params)| device_table(name, params));
    FencingConfig { hosts: hosts.collect(), devices: devices.collect(), ..FencingConfig::default() }
}

/// How long a device takes at worst from the order to the state, as its owner measured it. This key of `[[device]]` is
/// the agent's, not the kind's: without it the device never makes a declaration eager.
const OFF_WITHIN: &str = "off_within";

/// What the spec says of how long a device takes to switch.
pub fn switches_within(params: &Table) -> Option<Duration> {
    super::reader::parse_span(params.get(OFF_WITHIN)?.as_str()?)
}

/// A device's table as the fencing crate reads it: the spec keeps its name apart.
pub(super) fn device_table(name: &DeviceName, params: &Table) -> Table {
    let mut table = params.clone();
    table.remove(OFF_WITHIN);
    table.insert("name".into(), Value::String(name.to_string()));
    table
}

/// What the ledger's rules need to know of a device, and whether its readings are evidence at all.
pub(super) fn device_spec(name: &DeviceName, params: &Table) -> (DeviceSpec, bool) {
    match fencing::device::build(device_table(name, params)) {
        Ok(device) => {
            let facts = device.facts();
            let (settle, deadline) = (facts.rhythm.settle, facts.rhythm.off_limit);
            (DeviceSpec { kind: facts.kind.to_owned(), settle, deadline, lab: facts.lab }, facts.proves.is_evidence())
        }
        // A spec with such a device isn't accepted; who converts it all the same gets a device that proves nothing.
        Err(_problems) => {
            let spec =
                DeviceSpec { kind: "unknown".into(), settle: Duration::MAX, deadline: Duration::ZERO, lab: true };
            (spec, false)
        }
    }
}

/// A host's keys that say how a device must identify the machine, and what fails together with it.
pub(super) fn read_machine(host: &Reader<'_>, name: &HostName) -> HostFencing {
    let uuid = host.text("uuid").and_then(|text| match fencing::target::MachineUuid::parse(&text) {
        Ok(uuid) => Some(uuid),
        Err(error) => {
            host.problem("uuid", error.to_string(), "copy it from `dmidecode -s system-uuid` or from the BMC");
            None
        }
    });
    HostFencing {
        name: fencing::name::HostName::new(name.as_str()).expect("both crates have one rule for names"),
        site: None,
        uuid,
        serial: host.text("serial"),
        feeds: names(host, "feeds"),
        power: names(host, "power"),
        network: names(host, "network"),
        room: host.parsed("room"),
        fencing: Vec::new(),
    }
}

fn names<T: FromStr<Err: std::fmt::Display> + Ord>(host: &Reader<'_>, key: &'static str) -> BTreeSet<T> {
    host.list(key).into_iter().collect()
}

/// How many people an override needs: `approvals` of `[cluster]`.
pub(super) fn read_approvals(cluster: &Reader<'_>) -> Option<u32> {
    match cluster.number("approvals")? {
        1 => Some(1),
        2 => Some(2),
        other => {
            cluster.problem("approvals", format!("{other} is neither 1 nor 2"), "write how many people must agree");
            None
        }
    }
}

/// Lets the device's kind check its own keys.
pub(super) fn check_device(device: &Reader<'_>, name: &DeviceName, params: &Table) {
    if params.contains_key(OFF_WITHIN) && switches_within(params).is_none() {
        device.problem(OFF_WITHIN, "is no span of time", "write e.g. \"2s\": how long switching off takes at worst");
    }
    let Err(problems) = fencing::device::build(device_table(name, params)) else { return };
    for problem in problems {
        // The fencing crate says `device NAME: key`; the reader knows the table already.
        let key = problem.key.rsplit(": ").next().unwrap_or(&problem.key);
        device.problem(key, problem.what, problem.remedy);
    }
}

/// Checks hosts and devices together: shared devices, empty levels, feeds that nobody switches.
pub(super) fn check_whole(root: &Reader<'_>, spec: &ClusterSpec) {
    let config = fencing_config(spec);
    let is_told = |problem: &Problem| {
        config.devices.iter().any(|table| {
            let Err(problems) = fencing::device::build(table.clone()) else { return false };
            problems.contains(problem)
        })
    };
    for problem in config.build().err().into_iter().flatten() {
        if !is_told(&problem) && !problem.what.starts_with("there is no device") {
            root.problem("host", format!("{}: {}", problem.key, problem.what), problem.remedy);
        }
    }
}
