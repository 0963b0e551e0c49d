//! The cluster spec: sites, hosts, fencing and groups, as people keep it in git.

use super::group::GroupConfig;
use super::reader::{Problems, Reader, read};
use quorum::id::{DeviceName, GroupName, HostName, SiteName};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

/// When a corroborated suspicion is declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeclarePolicy {
    /// Eager where a positive fence is ready, else lazy.
    Auto,
    /// Always at T_D.
    Eager,
    /// Always just before the lease's end.
    Lazy,
}

/// What holds for the cluster as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterConfig {
    /// Its name.
    pub name: String,
    /// Lab chassis evidence is accepted.
    pub lab: bool,
    /// Eager or lazy.
    pub declare: DeclarePolicy,
    /// Commissioned worst fire time of the slowest watchdog, with its margin.
    pub watchdog_worst: Duration,
    /// Largest round trip expected between any two sites.
    pub round_trip_max: Duration,
    /// How many people an override or an acceptance of a loss needs.
    pub approvals: u32,
    /// A sign of life younger than this refuses an override.
    pub contrary_fresh: Duration,
    /// Δ, how often every host beats: 20 ms to 5 s. Slower beats cost less and detect later (`T_D` follows).
    pub beat: Duration,
    /// Time spans set by hand, over those that follow from the two figures.
    pub timing: TimingOverrides,
}

/// Time spans of `[cluster.timing]`. Each is checked against all relations of the protocol; a weaker one is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimingOverrides {
    /// L.
    pub lease: Option<Duration>,
    /// R.
    pub renewal: Option<Duration>,
    /// T_D.
    pub detection: Option<Duration>,
    /// E.
    pub election: Option<Duration>,
    /// P.
    pub keeper_period: Option<Duration>,
    /// δ_hw.
    pub delta_hw: Option<Duration>,
    /// δ_io.
    pub delta_io: Option<Duration>,
    /// ρ in parts per million.
    pub rho_ppm: Option<u32>,
}

/// What Δ may be.
const BEATS: std::ops::RangeInclusive<Duration> = Duration::from_millis(20)..=Duration::from_secs(5);

/// A site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteConfig {
    /// Its name.
    pub name: SiteName,
    /// It never runs workloads.
    pub witness: bool,
}

/// A host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostConfig {
    /// Its name.
    pub name: HostName,
    /// Its site.
    pub site: SiteName,
    /// Where its agent is reached, one address per path.
    pub addresses: Vec<SocketAddr>,
    /// Fencing levels: each a list of devices that must all succeed.
    pub fencing: Vec<Vec<String>>,
    /// How a device must identify the machine, and what fails together with it.
    pub machine: fencing::HostFencing,
}

/// The spec, checked as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterSpec {
    /// The cluster.
    pub cluster: ClusterConfig,
    /// The sites.
    pub sites: BTreeMap<SiteName, SiteConfig>,
    /// The hosts.
    pub hosts: BTreeMap<HostName, HostConfig>,
    /// Fencing devices, with the kind's own keys; `kind` among them.
    pub devices: BTreeMap<DeviceName, toml::Table>,
    /// The groups.
    pub groups: BTreeMap<GroupName, GroupConfig>,
}

impl ClusterSpec {
    /// Reads `text`, the content of `file`.
    ///
    /// # Errors
    /// Every problem at once, also those between tables: unknown sites, hosts and devices, duplicates, places
    /// without hosts, cycles in `after`.
    pub fn parse(file: &str, text: &str) -> Result<Self, Problems> {
        read(file, text, Self::read)
    }

    pub(super) fn read(root: &Reader<'_>) -> Option<Self> {
        let cluster = root.table("cluster", read_cluster);
        if cluster.is_none() {
            root.problem("cluster", "is missing", "add [cluster] with `name`");
        }
        let sites = root.tables("site", |site| {
            let name = site.required("name");
            Some(SiteConfig { name: name?, witness: site.flag("witness").unwrap_or(false) })
        });
        let hosts = root.tables("host", read_host);
        let devices = root.tables("device", |device| {
            let name: Option<DeviceName> = device.required("name");
            if !device.has("kind") {
                device.problem("kind", "is missing", "name the device's kind, e.g. \"command\"");
            }
            let mut params = device.rest();
            if let Some(kind) = device.text("kind") {
                params.insert("kind".into(), toml::Value::String(kind));
            }
            if let Some(name) = &name {
                super::fence::check_device(device, name, &params);
            }
            name.map(|name| (name, params))
        });
        let groups = root.tables("group", GroupConfig::read);
        let spec = Self {
            cluster: cluster.flatten().unwrap_or_else(ClusterConfig::nameless),
            sites: unique(root, "site", sites, |site| site.name.clone()),
            hosts: unique(root, "host", hosts, |host| host.name.clone()),
            devices: unique(root, "device", devices, |(name, _)| name.clone())
                .into_iter()
                .map(|(name, (_, params))| (name, params))
                .collect(),
            groups: unique(root, "group", groups, |group| group.name.clone()),
        };
        spec.check_hosts(root);
        super::fence::check_whole(root, &spec);
        spec.check_groups(root);
        Some(spec)
    }

    fn check_hosts(&self, root: &Reader<'_>) {
        for host in self.hosts.values().filter(|host| !self.sites.contains_key(&host.site)) {
            let what = format!("is at site {}, which is not in the spec", host.site);
            root.problem_at(&["host", host.name.as_str(), "site"], what, "add the [[site]] or correct `site`");
        }
        for host in self.hosts.values() {
            for device in host.fencing.iter().flatten() {
                let known = fencing::device::waits::is_built_in(device)
                    || DeviceName::new(device).is_ok_and(|device| self.devices.contains_key(&device));
                if !known {
                    let at = ["host", host.name.as_str(), "fencing"];
                    let what = format!("names {device}, which is not in the spec");
                    root.problem_at(&at, what, "add the [[device]], or use \"self\" or \"operator\"");
                }
            }
        }
    }

    fn check_groups(&self, root: &Reader<'_>) {
        for group in self.groups.values() {
            let name = group.name.as_str();
            self.check_places(root, group);
            for before in group.after.iter().filter(|before| !self.groups.contains_key(*before)) {
                let what = format!("names {before}, which is not in the spec");
                root.problem_at(&["group", name, "after"], what, "correct `after`");
            }
            if self.is_after_itself(&group.name) {
                root.problem_at(&["group", name, "after"], "leads back to the group itself", "break the cycle");
            }
        }
    }

    fn check_places(&self, root: &Reader<'_>, group: &GroupConfig) {
        for (site, place) in &group.places {
            let at = ["group", group.name.as_str(), "at", site.as_str()];
            match self.sites.get(site) {
                None => root.problem_at(&at, "is no site of the spec", "add the [[site]] or remove the place"),
                Some(site) if site.witness => {
                    root.problem_at(&at, "is at a witness", "a witness never runs workloads: choose another site");
                }
                Some(_) => {}
            }
            for host in place.hosts.iter().filter(|host| self.hosts.get(*host).is_none_or(|h| h.site != *site)) {
                let at = ["group", group.name.as_str(), "at", site.as_str(), "hosts"];
                let what = format!("names {host}, which is not a host of {site}");
                root.problem_at(&at, what, "correct `hosts` or add the [[host]]");
            }
        }
    }

    fn is_after_itself(&self, name: &GroupName) -> bool {
        let mut seen = BTreeSet::new();
        let mut open: Vec<&GroupName> =
            self.groups.get(name).map(|group| group.after.iter().collect()).unwrap_or_default();
        while let Some(next) = open.pop() {
            if next == name {
                return true;
            }
            if seen.insert(next) {
                open.extend(self.groups.get(next).into_iter().flat_map(|group| &group.after));
            }
        }
        false
    }
}

impl ClusterConfig {
    fn nameless() -> Self {
        Self {
            name: String::new(),
            lab: false,
            declare: DeclarePolicy::Auto,
            watchdog_worst: Duration::from_millis(1_100),
            round_trip_max: Duration::from_millis(80),
            approvals: 1,
            contrary_fresh: Duration::from_secs(60),
            beat: Duration::from_millis(50),
            timing: TimingOverrides::default(),
        }
    }
}

fn read_cluster(table: &Reader<'_>) -> Option<ClusterConfig> {
    let words = [("auto", DeclarePolicy::Auto), ("eager", DeclarePolicy::Eager), ("lazy", DeclarePolicy::Lazy)];
    let default = ClusterConfig::nameless();
    let name = table.required("name");
    let beat = table.span("beat").unwrap_or(default.beat);
    if !BEATS.contains(&beat) {
        table.problem(
            "beat",
            format!("is {beat:?}"),
            "choose between 20ms and 5s; 50ms suits up to some hundred hosts",
        );
    }
    Some(ClusterConfig {
        name: name?,
        beat,
        lab: table.flag("lab").unwrap_or(false),
        declare: table.word("declare", &words).unwrap_or(default.declare),
        watchdog_worst: table.span("watchdog_worst").unwrap_or(default.watchdog_worst),
        round_trip_max: table.span("round_trip_max").unwrap_or(default.round_trip_max),
        approvals: super::fence::read_approvals(table).unwrap_or(default.approvals),
        contrary_fresh: table.span("contrary_fresh").unwrap_or(default.contrary_fresh),
        timing: table.table("timing", read_timing).unwrap_or_default(),
    })
}

fn read_timing(table: &Reader<'_>) -> TimingOverrides {
    let rho_ppm = table.number("rho_ppm").map(|rho| u32::try_from(rho).unwrap_or(u32::MAX));
    TimingOverrides {
        lease: table.span("lease"),
        renewal: table.span("renewal"),
        detection: table.span("detection"),
        election: table.span("election"),
        keeper_period: table.span("keeper_period"),
        delta_hw: table.span("delta_hw"),
        delta_io: table.span("delta_io"),
        rho_ppm,
    }
}

fn read_host(table: &Reader<'_>) -> Option<HostConfig> {
    let (name, site) = (table.required("name"), table.required("site"));
    let addresses = table.list("addresses");
    let fencing = table.levels("fencing");
    let name = name?;
    let machine = super::fence::read_machine(table, &name);
    Some(HostConfig { name, site: site?, addresses, fencing, machine })
}

fn unique<K: Ord + std::fmt::Display, T>(
    root: &Reader<'_>,
    key: &str,
    items: Vec<T>,
    name: impl Fn(&T) -> K,
) -> BTreeMap<K, T> {
    let mut map = BTreeMap::new();
    for item in items {
        if let Some(twice) = map.insert(name(&item), item) {
            root.problem(key, format!("{} is there twice", name(&twice)), "give each its own name");
        }
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
[cluster]
name = "demo"
lab = true
declare = "eager"
[[site]]
name = "tokyo"
[[site]]
name = "osaka"
[[site]]
name = "nagoya"
witness = true
[[host]]
name = "tk-1"
site = "tokyo"
addresses = ["127.0.0.1:7600"]
fencing = [["self"]]
[[host]]
name = "os-1"
site = "osaka"
[[group]]
name = "erp"
tier = "auto"
home = "tokyo"
accept = ["self-fenced"]
failback = { policy = "auto", stable_for = "10s" }
[[group.volume]]
name = "root"
replication = { kind = "nbd", mode = "sync", port = 10809 }
[group.at.tokyo]
kind = "qemu"
hosts = ["tk-1"]
memory = "96MiB"
addresses = [{ ip = "10.0.0.1", interface = "br0" }]
probe = { tcp = "10.0.0.1:80", within = "60s" }
[group.at.osaka]
kind = "qemu"
hosts = ["os-1"]
"#;

    #[test]
    fn a_complete_spec_is_read_with_the_kinds_own_keys_kept() {
        let spec = ClusterSpec::parse("spec.toml", GOOD).unwrap_or_else(|problems| panic!("{problems}"));
        let group = spec.groups.values().next().expect("one group");
        assert_eq!(group.volumes[0].params["port"].as_integer(), Some(10_809));
        let tokyo = &group.places[&SiteName::new("tokyo").expect("a name")];
        assert_eq!(tokyo.params["memory"].as_str(), Some("96MiB"));
        assert_eq!(group.hold_off, Duration::ZERO);
    }

    #[test]
    fn slower_beats_detect_later_and_their_span_is_checked() {
        let text = GOOD.replace("declare = \"eager\"", "beat = \"1s\"");
        let spec = ClusterSpec::parse("spec.toml", &text).unwrap_or_else(|problems| panic!("{problems}"));
        let timing = super::super::timing_of(&spec);
        assert_eq!((timing.beat, timing.renewal), (Duration::from_secs(1), Duration::from_secs(1)));
        assert!(timing.detection >= Duration::from_secs(6) && timing.check().is_empty(), "{timing:?}");
        let problems = ClusterSpec::parse("spec.toml", &text.replace("1s", "6s")).expect_err("too slow");
        assert!(problems.to_string().contains("beat"), "{problems}");
    }

    #[test]
    fn problems_between_tables_are_found_together() {
        let text = GOOD
            .replace("hosts = [\"os-1\"]", "hosts = [\"tk-1\"]")
            .replace("site = \"osaka\"", "site = \"kyoto\"")
            .replace("fencing = [[\"self\"]]", "fencing = [[\"bmc\"]]");
        let Problems(problems) = ClusterSpec::parse("spec.toml", &text).expect_err("three problems");
        assert_eq!(problems.len(), 3, "{problems:#?}");
    }

    #[test]
    fn a_cycle_of_groups_is_refused() {
        let text = GOOD.replace("home = \"tokyo\"", "home = \"tokyo\"\nafter = [\"erp\"]");
        let problems = ClusterSpec::parse("spec.toml", &text).expect_err("a cycle");
        assert!(problems.to_string().contains("leads back to the group itself"), "{problems}");
    }
}
