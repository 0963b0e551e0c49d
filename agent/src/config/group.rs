//! A protection group as the cluster spec describes it.

use super::reader::Reader;
use quorum::id::{GroupName, HostName, SiteName};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// The evidence kinds that a group's `accept` may name, as people write them.
const ACCEPTABLE: [&str; 7] =
    ["powered-off", "self-fenced", "released", "returned", "attested", "hypervisor-off", "storage-excluded"];

/// Who starts a failover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// The cluster by itself.
    Auto,
    /// The cluster once a person said go.
    Approve,
    /// A person.
    Manual,
    /// A person, from a backup.
    Restore,
}

/// When a group goes home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailbackPolicy {
    /// By itself once its home was stable.
    Auto,
    /// When a person says so.
    Manual,
    /// Never.
    Never,
}

/// The way home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failback {
    /// Who starts it.
    pub policy: FailbackPolicy,
    /// How long the home must have been healthy and the data in sync.
    pub stable_for: Duration,
}

/// A volume and what moves its data.
#[derive(Clone, Debug, PartialEq)]
pub struct VolumeConfig {
    /// Unique in its group.
    pub name: String,
    /// The replication kind: `nbd`, `command`.
    pub replication: String,
    /// The kind's own keys.
    pub params: toml::Table,
}

/// An address that follows the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// The interface or bridge of the host on which it is announced.
    pub interface: String,
    /// The hardware address that answers for it; the host's own if absent.
    pub mac: Option<String>,
}

/// How it is seen that a group serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// A TCP connection is accepted here.
    pub tcp: SocketAddr,
    /// Within this time after the start.
    pub within: Duration,
}

/// A group's embodiment at one site.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// The workload kind: `qemu`, `command`.
    pub kind: String,
    /// Hosts that may run it, best first.
    pub hosts: Vec<HostName>,
    /// Addresses to announce.
    pub addresses: Vec<Address>,
    /// The probe.
    pub probe: Option<Probe>,
    /// The kind's own keys.
    pub params: toml::Table,
}

/// A protection group.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupConfig {
    /// Its name.
    pub name: GroupName,
    /// Who starts a failover.
    pub tier: Tier,
    /// Lower goes first.
    pub order: u64,
    /// Groups that must run before it.
    pub after: Vec<GroupName>,
    /// Evidence kinds that it accepts, besides released and returned.
    pub accept: Vec<String>,
    /// Where it is at home.
    pub home: SiteName,
    /// Largest data loss at which it may go on by itself.
    pub target_rpo: Duration,
    /// Largest time to service promised.
    pub target_rto: Option<Duration>,
    /// Wait after the suspicion before it is activated elsewhere.
    pub hold_off: Duration,
    /// The way home.
    pub failback: Failback,
    /// Its data.
    pub volumes: Vec<VolumeConfig>,
    /// Its embodiments.
    pub places: BTreeMap<SiteName, Place>,
}

impl GroupConfig {
    pub(super) fn read(table: &Reader<'_>) -> Option<Self> {
        let name: Option<GroupName> = table.required("name");
        let tiers =
            [("auto", Tier::Auto), ("approve", Tier::Approve), ("manual", Tier::Manual), ("restore", Tier::Restore)];
        let tier = table.word("tier", &tiers).unwrap_or(Tier::Manual);
        let accept: Vec<String> = table.list("accept");
        for kind in accept.iter().filter(|kind| !ACCEPTABLE.contains(&kind.as_str())) {
            table.problem(
                "accept",
                format!("{kind:?} is no kind of evidence"),
                format!("use {}", ACCEPTABLE.join(", ")),
            );
        }
        let volumes = table.tables("volume", read_volume);
        let places: BTreeMap<SiteName, Place> = table.named_tables("at", read_place).into_iter().collect();
        if places.is_empty() {
            table.problem("at", "has no place", "add [group.at.SITE] with `kind` and `hosts` for each site");
        }
        let home = table.parsed("home").or_else(|| places.keys().next().cloned());
        if home.as_ref().is_some_and(|home| !places.contains_key(home)) {
            table.problem("home", "is no place of this group", "name one of its [group.at.SITE]");
        }
        let rpo = table.span("target_rpo").unwrap_or_default();
        // Waiting is free only where nothing is lost by going on (product: the hold-off follows the price of being
        // wrong).
        let default_hold_off = if rpo.is_zero() { Duration::ZERO } else { Duration::from_secs(30) };
        Some(Self {
            tier,
            order: table.number("order").unwrap_or(100),
            after: table.list("after"),
            target_rpo: rpo,
            target_rto: table.span("target_rto"),
            hold_off: table.span("hold_off").unwrap_or(default_hold_off),
            failback: table.table("failback", read_failback).unwrap_or_default(),
            name: name?,
            home: home?,
            accept,
            volumes,
            places,
        })
    }
}

impl Default for Failback {
    fn default() -> Self {
        Self { policy: FailbackPolicy::Manual, stable_for: Duration::from_secs(600) }
    }
}

fn read_failback(table: &Reader<'_>) -> Failback {
    let words = [("auto", FailbackPolicy::Auto), ("manual", FailbackPolicy::Manual), ("never", FailbackPolicy::Never)];
    let default = Failback::default();
    Failback {
        policy: table.word("policy", &words).unwrap_or(default.policy),
        stable_for: table.span("stable_for").unwrap_or(default.stable_for),
    }
}

fn read_volume(table: &Reader<'_>) -> Option<VolumeConfig> {
    let name = table.required("name");
    let replication = table.table("replication", |kind| {
        let kind_name: Option<String> = kind.required("kind");
        let params = kind.rest();
        kind_name.map(|kind_name| (kind_name, params))
    });
    if replication.is_none() {
        table.problem("replication", "is missing", "add replication = { kind = \"nbd\", … }");
    }
    let (replication, params) = replication??;
    Some(VolumeConfig { name: name?, replication, params })
}

fn read_place(table: &Reader<'_>) -> Option<Place> {
    let kind = table.required("kind");
    let hosts: Vec<HostName> = table.list("hosts");
    if hosts.is_empty() {
        table.problem("hosts", "is missing or empty", "name the hosts that may run the group here, best first");
    }
    let addresses = table.tables("addresses", |address| {
        let ip = address.required("ip");
        let interface = address.required("interface");
        Some(Address { ip: ip?, interface: interface?, mac: address.text("mac") })
    });
    let probe = table.table("probe", |probe| {
        let tcp = probe.required("tcp");
        let within = probe.span("within").unwrap_or(Duration::from_secs(60));
        tcp.map(|tcp| Probe { tcp, within })
    });
    Some(Place { kind: kind?, hosts, addresses, probe: probe.flatten(), params: table.rest() })
}
