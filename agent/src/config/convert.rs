//! From the spec as people write it to the ledger's checked form and the time spans that follow from it.

use super::group::{FailbackPolicy, GroupConfig, Tier};
use super::spec_file::{ClusterSpec, DeclarePolicy};
use quorum::id::DeviceName;
use quorum::ledger::{
    self, ClusterPolicy, Declare, DeviceSpec, EvidenceKind, GroupSpec, HostSpec, LedgerSpec, PlaceSpec, Replication,
    Shape, SiteSpec, VolumeSpec,
};
use quorum::timing::{Measured, Timing};
use std::time::Duration;

/// The time spans that follow from the spec's two measured figures.
pub fn timing_of(spec: &ClusterSpec) -> Timing {
    Timing::derive(Measured::new(spec.cluster.watchdog_worst, spec.cluster.round_trip_max))
}

/// The part of the spec that `apply` checks its rules against.
pub fn ledger_spec(spec: &ClusterSpec) -> LedgerSpec {
    let sites = spec.sites.values().map(|site| (site.name.clone(), SiteSpec { witness: site.witness })).collect();
    let hosts = spec.hosts.values().map(|host| {
        let fencing = host.fencing.iter().map(|level| {
            // "self" and "operator" are no devices: the ledger counts leases and overrides by itself.
            let devices = level.iter().filter(|name| !matches!(name.as_str(), "self" | "operator"));
            devices.filter_map(|name| DeviceName::new(name).ok()).collect::<Vec<_>>()
        });
        let fencing = fencing.filter(|level| !level.is_empty()).collect();
        (host.name.clone(), HostSpec { site: host.site.clone(), hardware: None, fencing })
    });
    let devices = spec.devices.iter().map(|(name, params)| {
        let text = |key: &str| params.get(key).and_then(|value| value.as_str());
        let span = |key: &str, default: Duration| text(key).and_then(super::reader::parse_span).unwrap_or(default);
        let device = DeviceSpec {
            kind: text("kind").unwrap_or_default().to_owned(),
            settle: span("settle", Duration::from_secs(1)),
            deadline: span("deadline", Duration::from_secs(10)),
            lab: params.get("lab").and_then(toml::Value::as_bool).unwrap_or(false),
        };
        (name.clone(), device)
    });
    LedgerSpec {
        sites,
        hosts: hosts.collect(),
        devices: devices.collect(),
        groups: spec.groups.values().map(|group| (group.name.clone(), group_spec(group))).collect(),
        policy: ClusterPolicy {
            declare: match spec.cluster.declare {
                DeclarePolicy::Auto => Declare::Measured,
                DeclarePolicy::Eager => Declare::Eager,
                DeclarePolicy::Lazy => Declare::Lazy,
            },
            ..ClusterPolicy::default()
        },
    }
}

fn group_spec(group: &GroupConfig) -> GroupSpec {
    let places = group.places.iter().map(|(site, place)| {
        let shape = if place.kind == "physical" { Shape::Physical } else { Shape::Vm };
        (site.clone(), PlaceSpec { shape, hosts: place.hosts.clone(), shared_storage: false })
    });
    let volumes = group.volumes.iter().map(|volume| {
        let text = |key: &str| volume.params.get(key).and_then(|value| value.as_str());
        let is_async = text("mode") == Some("async");
        let usual_lag = text("usual_lag").and_then(super::reader::parse_span).unwrap_or(Duration::from_secs(1));
        VolumeSpec {
            name: volume.name.clone(),
            backend: text("backend").map_or_else(|| format!("{}/{}", group.name, volume.name), str::to_owned),
            replication: if is_async {
                Replication::Asynchronous { usual_lag, gated: false }
            } else {
                Replication::Synchronous { gated: true }
            },
            persistent_reservations: false,
            shared: false,
        }
    });
    GroupSpec {
        tier: match group.tier {
            Tier::Auto => ledger::Tier::Auto,
            Tier::Approve => ledger::Tier::Approve,
            Tier::Manual => ledger::Tier::Manual,
            Tier::Restore => ledger::Tier::Restore,
        },
        order: i32::try_from(group.order).unwrap_or(i32::MAX),
        after: group.after.clone(),
        accept: group.accept.iter().filter_map(|kind| EvidenceKind::parse(kind)).collect(),
        target_rpo: group.target_rpo,
        target_rto: group.target_rto.unwrap_or(Duration::from_secs(60)),
        hold_off: group.hold_off,
        places: places.collect(),
        volumes: volumes.collect(),
        failback: ledger::FailbackPolicy {
            automatic: group.failback.policy == FailbackPolicy::Auto,
            stable_for: group.failback.stable_for,
        },
        home: group.home.clone(),
    }
}
