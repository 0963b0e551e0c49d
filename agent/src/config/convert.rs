//! From the spec as people write it to the ledger's checked form and the time spans that follow from it.

use super::group::{FailbackPolicy, GroupConfig, Tier};
use super::spec_file::{ClusterSpec, DeclarePolicy};
use quorum::id::DeviceName;
use quorum::ledger::{
    self, ClusterPolicy, Declare, DeviceSpec, EvidenceKind, GroupSpec, HostSpec, LedgerSpec, PlaceSpec, Replication,
    Shape, SiteSpec, VolumeSpec,
};
use quorum::timing::{Measured, Timing};
use std::collections::BTreeMap;
use std::time::Duration;

/// The time spans that follow from the spec's two measured figures and its beat, and those set by hand. Lease requests
/// ride on beats, so leases are renewed no more often than there are beats.
pub fn timing_of(spec: &ClusterSpec) -> Timing {
    let mut timing = Timing::derive(Measured::new(spec.cluster.watchdog_worst, spec.cluster.round_trip_max));
    timing.beat = spec.cluster.beat;
    timing.renewal = timing.renewal.max(timing.beat);
    timing.fit();
    let by_hand = &spec.cluster.timing;
    Timing {
        lease: by_hand.lease.unwrap_or(timing.lease),
        renewal: by_hand.renewal.unwrap_or(timing.renewal),
        detection: by_hand.detection.unwrap_or(timing.detection),
        election: by_hand.election.unwrap_or(timing.election),
        keeper_period: by_hand.keeper_period.unwrap_or(timing.keeper_period),
        delta_hw: by_hand.delta_hw.unwrap_or(timing.delta_hw),
        delta_io: by_hand.delta_io.unwrap_or(timing.delta_io),
        rho_ppm: by_hand.rho_ppm.unwrap_or(timing.rho_ppm),
        ..timing
    }
}

/// The part of the spec that `apply` checks its rules against.
pub fn ledger_spec(spec: &ClusterSpec) -> LedgerSpec {
    let sites = spec.sites.values().map(|site| (site.name.clone(), SiteSpec { witness: site.witness })).collect();
    let known = |(name, params)| (DeviceName::clone(name), super::fence::device_spec(name, params));
    let devices_known: BTreeMap<DeviceName, (DeviceSpec, bool)> = spec.devices.iter().map(known).collect();
    let hosts = spec.hosts.values().map(|host| {
        let fencing = host.fencing.iter().map(|level| {
            // Of a level the ledger asks evidence of those devices that give any: "self" and "operator" it counts by
            // itself, and an accelerator proves nothing.
            let devices = level.iter().filter_map(|name| DeviceName::new(name).ok());
            devices.filter(|name| devices_known.get(name).is_some_and(|(_, proves)| *proves)).collect::<Vec<_>>()
        });
        let fencing = fencing.filter(|level| !level.is_empty()).collect();
        (host.name.clone(), HostSpec { site: host.site.clone(), hardware: None, fencing })
    });
    LedgerSpec {
        sites,
        hosts: hosts.collect(),
        devices: devices_known.iter().map(|(name, (device, _))| (name.clone(), device.clone())).collect(),
        groups: spec.groups.values().map(|group| (group.name.clone(), group_spec(group))).collect(),
        policy: ClusterPolicy {
            declare: match spec.cluster.declare {
                DeclarePolicy::Auto => Declare::Measured,
                DeclarePolicy::Eager => Declare::Eager,
                DeclarePolicy::Lazy => Declare::Lazy,
            },
            approvals: spec.cluster.approvals,
            contrary_fresh: spec.cluster.contrary_fresh,
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
