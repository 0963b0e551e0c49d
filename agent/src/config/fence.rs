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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Problems, ledger_spec};
    use fencing::name::DeviceName as FenceDevice;

    const SPEC: &str = r#"
[cluster]
name = "demo"
approvals = 2
[[site]]
name = "tokyo"
[[site]]
name = "osaka"
[[host]]
name = "tk-1"
site = "tokyo"
serial = "AB12"
power = ["ups-1"]
fencing = [["bmc"], ["self"]]
[[host]]
name = "os-1"
site = "osaka"
[[device]]
name = "bmc"
kind = "command"
program = "/usr/lib/antipode/bmc"
secrets = { password = { file = "/etc/antipode/secrets/bmc" } }
settle = "2s"
off_limit = "7s"
off_within = "1500ms"
lab = true
"#;

    fn parse(text: &str) -> Result<ClusterSpec, Problems> {
        ClusterSpec::parse("spec.toml", text)
    }

    #[test]
    fn a_device_goes_with_its_kinds_rhythm_to_the_ledger_and_with_all_its_keys_to_the_executor() {
        let spec = parse(SPEC).unwrap_or_else(|problems| panic!("{problems}"));
        let ledger = ledger_spec(&spec);
        let device = &ledger.devices[&DeviceName::new("bmc").expect("a name")];
        assert_eq!((device.settle, device.deadline), (Duration::from_secs(2), Duration::from_secs(7)));
        assert!(device.lab && device.kind == "command" && ledger.policy.approvals == 2);
        // "self" is counted by the ledger itself, it asks no device for it.
        let host = &ledger.hosts[&HostName::new("tk-1").expect("a name")];
        assert_eq!(host.fencing, [[DeviceName::new("bmc").expect("a name")]]);
        let built = fencing_config(&spec).build().unwrap_or_else(|problems| panic!("{problems:?}"));
        let target = built.topology.targets().values().next().expect("one host has levels");
        assert_eq!((target.levels.len(), target.target.identity.serial.as_deref()), (2, Some("AB12")));
        assert!(built.devices.contains_key(&FenceDevice::new("bmc").expect("a name")));
        assert_eq!(
            switches_within(&spec.devices[&DeviceName::new("bmc").expect("a name")]),
            Some(Duration::from_millis(1_500))
        );
    }

    #[test]
    fn a_misspelt_key_is_refused_with_a_suggestion_whoever_owns_it() {
        let text = SPEC
            .replace("off_limit", "off_limti")
            .replace("serial", "seriell")
            .replace("approvals = 2", "approvals = 3");
        let Problems(problems) = parse(&text).expect_err("three problems");
        let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
        for part in ["did you mean `off_limit`?", "did you mean `serial`?", "3 is neither 1 nor 2"] {
            assert!(said.iter().any(|line| line.contains(part)), "{part} in {said:#?}");
        }
    }

    #[test]
    fn a_secret_in_plain_text_is_refused_and_never_repeated() {
        let text = SPEC.replace("{ file = \"/etc/antipode/secrets/bmc\" }", "\"hunter2\"");
        let said = parse(&text).expect_err("a secret must be a reference").to_string();
        assert!(said.contains("secrets.password") && !said.contains("hunter2"), "{said}");
    }

    #[test]
    fn an_empty_level_and_a_device_that_nobody_described_are_refused() {
        let empty = parse(&SPEC.replace("[\"self\"]", "[]")).expect_err("an empty level").to_string();
        assert!(empty.contains("the level is empty"), "{empty}");
        let unknown = parse(&SPEC.replace("[[\"bmc\"]", "[[\"bcm\"]")).expect_err("an unknown device").to_string();
        assert!(unknown.contains("bcm"), "{unknown}");
    }
}
