//! Fencing as it stands in the cluster spec: hosts with their levels, devices as TOML tables.
//!
//! The agent parses the spec; it hands over each host's fencing keys and each `[[device]]` table as it stands.
//! Contract: [`FencingConfig::build`] gives a topology that was checked as a whole together with its devices, or every
//! problem there is, each with its key and a remedy. Building reads no secret and calls nothing.

use crate::device::{self, Device, waits};
use crate::facts::DeviceFacts;
use crate::name::{DeviceName, DomainName, FeedName, HostName, SiteName};
use crate::target::{ExpectedIdentity, MachineUuid, Place, Target};
use crate::topology::{Fenced, Problem, Topology};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use toml::{Table, Value};

/// A host's keys that concern fencing.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostFencing {
    /// Its name.
    pub name: HostName,
    /// Its site.
    pub site: Option<SiteName>,
    /// Its UUID, as its BMC or hypervisor reports it.
    pub uuid: Option<MachineUuid>,
    /// Its serial number.
    pub serial: Option<String>,
    /// Its power feeds, if it has more than one or they are switched by outlets.
    #[serde(default)]
    pub feeds: BTreeSet<FeedName>,
    /// Power circuits it hangs on.
    #[serde(default)]
    pub power: BTreeSet<DomainName>,
    /// Network segments it hangs on.
    #[serde(default)]
    pub network: BTreeSet<DomainName>,
    /// Its room or rack.
    pub room: Option<DomainName>,
    /// Its levels: each a list of device names that must all succeed.
    #[serde(default)]
    pub fencing: Vec<Vec<DeviceName>>,
}

impl HostFencing {
    fn into_fenced(self) -> Fenced {
        let identity = ExpectedIdentity { uuid: self.uuid, serial: self.serial };
        let place = Place { site: self.site, power: self.power, network: self.network, room: self.room };
        Fenced { target: Target { host: self.name, identity, feeds: self.feeds, place }, levels: self.fencing }
    }
}

/// How the executor works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params {
    /// Device calls of fence orders at the same time.
    pub calls_max: usize,
    /// Scheduled readings at the same time.
    pub readings_max: usize,
    /// Every device is read this often.
    pub read_every: Duration,
    /// A reading older than this counts as untested.
    pub stale_after: Duration,
}

impl Default for Params {
    fn default() -> Self {
        // 30 s: a path that was read well within 60 s may count for eager declaration (protocol §5), with one miss allowed.
        let (read_every, stale_after) = (Duration::from_secs(30), Duration::from_secs(3600));
        Self { calls_max: 32, readings_max: 4, read_every, stale_after }
    }
}

/// Everything the executor is told at its start and at each change of the spec.
#[derive(Clone, Debug, Default)]
pub struct FencingConfig {
    /// The hosts.
    pub hosts: Vec<HostFencing>,
    /// The devices' tables.
    pub devices: Vec<Table>,
    /// How the executor works.
    pub params: Params,
}

/// A configuration that was found good.
#[derive(Clone)]
pub struct Built {
    /// Hosts, levels and facts.
    pub topology: Topology,
    /// The devices.
    pub devices: BTreeMap<DeviceName, Arc<dyn Device>>,
}

impl FencingConfig {
    /// Reads `[[host]]` and `[[device]]` from one TOML text, for tools and tests; the agent has its own spec.
    ///
    /// # Errors
    /// Every problem of form.
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        let mut table: Table = text.parse().map_err(|error| vec![problem("spec", &error, "correct the TOML")])?;
        let mut config = Self::default();
        let mut problems = Vec::new();
        for host in tables(&mut table, "host") {
            let name = host.get("name").and_then(Value::as_str).unwrap_or("without a name").to_owned();
            match host.try_into() {
                Ok(host) => config.hosts.push(host),
                Err(error) => problems.push(problem(&format!("host {name}"), &error, "correct the key")),
            }
        }
        config.devices = tables(&mut table, "device");
        problems.extend(table.keys().map(|key| problem(key, &"isn't known", "only [[host]] and [[device]] are")));
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }

    /// Checks everything and builds the devices.
    ///
    /// # Errors
    /// Every problem there is.
    pub fn build(&self) -> Result<Built, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut devices: BTreeMap<DeviceName, Arc<dyn Device>> = BTreeMap::new();
        let mut facts: Vec<DeviceFacts> = Vec::new();
        for table in self.devices.iter().cloned().chain(self.built_ins()) {
            match device::build(table) {
                Ok(device) => {
                    facts.push(device.facts().clone());
                    devices.insert(device.facts().name.clone(), device);
                }
                Err(more) => problems.extend(more),
            }
        }
        let all_built = problems.is_empty();
        let fenced = self.hosts.iter().cloned().map(HostFencing::into_fenced).collect();
        match Topology::new(fenced, facts) {
            Ok(topology) if all_built => return Ok(Built { topology, devices }),
            Ok(_) => {}
            // A device that couldn't be built is unknown to the topology; that was told already.
            Err(more) if all_built => problems.extend(more),
            Err(more) => {
                problems.extend(more.into_iter().filter(|problem| !problem.what.starts_with("there is no device")))
            }
        }
        Err(problems)
    }

    /// `self`, `watchdog` and `operator` need no table of their own.
    fn built_ins(&self) -> Vec<Table> {
        let written =
            |name: &str| self.devices.iter().any(|table| table.get("name").and_then(Value::as_str) == Some(name));
        let named: BTreeSet<&str> =
            self.hosts.iter().flat_map(|host| &host.fencing).flatten().map(DeviceName::as_str).collect();
        let wanted = named.into_iter().filter(|name| waits::is_built_in(name) && !written(name));
        let table = |name: &str| {
            Table::from_iter([("name", name), ("kind", name)].map(|(k, v)| (k.to_owned(), Value::from(v))))
        };
        wanted.map(table).collect()
    }
}

fn tables(table: &mut Table, key: &str) -> Vec<Table> {
    match table.remove(key) {
        Some(Value::Array(values)) => values.into_iter().filter_map(|value| value.try_into().ok()).collect(),
        Some(_) | None => Vec::new(),
    }
}

fn problem(key: &str, what: &dyn std::fmt::Display, remedy: &str) -> Problem {
    Problem::new(key, what.to_string().trim().replace('\n', " "), remedy)
}
