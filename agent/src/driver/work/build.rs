//! From the spec to the drivers of one group on this host.

use super::Order;
use crate::config::{ClusterSpec, GroupConfig, Place as PlaceConfig, VolumeConfig};
use crate::driver::transport::TransportHandle;
use crate::keeper::slice::SliceRoot;
use crate::pki::files::IdentityFiles;
use crate::replication::command::{self, CommandReplication};
use crate::replication::nbd::{self, Nbd, NbdSpec};
use crate::replication::record::RecordFile;
use crate::replication::refusals::Refusals;
use crate::replication::resync::kept::KeptStore;
use crate::replication::resync::{Begin, Serving};
use crate::replication::{Mode, Replication};
use crate::workload::command::{CommandSpec, CommandWorkload};
use crate::workload::qemu::Qemu;
use crate::workload::qemu::spec::QemuSpec;
use crate::workload::{Place, VolumeAt, Workload};
use quorum::id::{GroupName, HostEpoch, HostName};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What all groups of this host share.
#[derive(Clone)]
pub struct Site {
    /// This host.
    pub host: HostName,
    /// Folder that a reboot empties.
    pub run_dir: PathBuf,
    /// Name or path of the protected slice.
    pub slice: Option<PathBuf>,
    /// This host's certificate and whom it trusts.
    pub identity: IdentityFiles,
    /// Where this host is reached, by the first path.
    pub address: IpAddr,
    /// Where the others are reached, by the first path.
    pub peers: BTreeMap<HostName, IpAddr>,
    /// Streams to the other agents.
    pub transport: TransportHandle,
    /// What was kept of copies on this host before it was overwritten.
    pub kept: KeptStore,
    /// The spec in force.
    pub spec: Option<Arc<ClusterSpec>>,
}

/// A volume's driver.
pub(super) struct Data {
    pub(super) driver: Box<dyn Replication>,
    pub(super) mode: Mode,
    /// Where a standby's export listens.
    pub(super) port: u16,
    /// How long sending a stopped workload's last writes may take.
    pub(super) drain_limit: Duration,
    pub(super) at: VolumeAt,
}

/// The drivers of one group on this host.
pub(super) struct Built {
    pub(super) config: GroupConfig,
    pub(super) place: PlaceConfig,
    pub(super) cgroup: Option<(SliceRoot, HostEpoch)>,
    /// The group's pinned cgroup.
    pub(super) pinned: PathBuf,
    pub(super) workload: Box<dyn Workload>,
    pub(super) data: Vec<Data>,
    pub(super) listen: IpAddr,
    pub(super) peers: BTreeMap<HostName, IpAddr>,
    pub(super) transport: TransportHandle,
}

impl Built {
    /// The drivers as the spec says.
    ///
    /// # Errors
    /// What is missing or wrong, for people.
    pub(super) fn make(site: &Site, order: &Order) -> Result<Self, String> {
        let group = &order.group;
        let spec = site.spec.as_ref().ok_or("no cluster spec is known here yet")?;
        let config = spec.groups.get(group).ok_or_else(|| format!("the spec has no group {group}"))?.clone();
        let place = config.places.values().find(|place| place.hosts.contains(&site.host));
        let place = place.ok_or_else(|| format!("{} is no place of {group}", site.host))?.clone();
        let root =
            site.slice.as_ref().map(|slice| SliceRoot::find(&slice.to_string_lossy()).map_err(|e| e.to_string()));
        let root = root.transpose()?;
        let cgroup = root.clone().zip(order.host_epoch);
        let at = Place {
            group: group.clone(),
            host: site.host.clone(),
            cgroup: cgroup.as_ref().map(|(root, he)| root.group(*he, group)).unwrap_or_default(),
            pinned: root.as_ref().map(|root| root.pinned(group)).unwrap_or_default(),
            runtime: site.runtime(group),
        };
        let workload: Box<dyn Workload> = match place.kind.as_str() {
            "qemu" => Box::new(Qemu::new(at.clone(), keys::<QemuSpec>(&place.params, "[group.at]")?)),
            "command" => Box::new(CommandWorkload::new(at.clone(), keys::<CommandSpec>(&place.params, "[group.at]")?)),
            other => return Err(format!("workload kind {other:?} is not known to this version")),
        };
        let data = volumes(site, &config, &at)?;
        let (listen, peers, transport) = (site.address, site.peers.clone(), site.transport.clone());
        Ok(Self { config, place, cgroup, pinned: at.pinned, workload, data, listen, peers, transport })
    }

    /// The volumes in the spec's order.
    pub(super) fn volumes(&self) -> Vec<VolumeAt> {
        self.data.iter().map(|data| data.at.clone()).collect()
    }

    /// Where a standby's export of a volume listens.
    pub(super) fn export_of(&self, standby: &HostName, data: &Data) -> Result<SocketAddr, String> {
        let ip = self.peers.get(standby).ok_or_else(|| format!("no address of {standby} is known"))?;
        Ok(SocketAddr::new(*ip, data.port))
    }
}

fn volumes(site: &Site, config: &GroupConfig, at: &Place) -> Result<Vec<Data>, String> {
    let volume = |volume: &VolumeConfig| match volume.replication.as_str() {
        "nbd" => nbd_data((site, at), volume),
        "command" => command_data((site, at), volume),
        other => Err(format!("replication kind {other:?} is not known to this version")),
    };
    config.volumes.iter().map(volume).collect()
}

fn nbd_data((site, at): (&Site, &Place), volume: &VolumeConfig) -> Result<Data, String> {
    let spec: NbdSpec = keys(&own_keys(&volume.params), "replication")?;
    let volume = VolumeAt { name: volume.name.clone(), path: fill(&spec.path, (&at.group, &volume.name), &site.host) };
    let record = RecordFile::beside(&volume.path);
    let copy = nbd::Copy { place: at.clone(), volume: volume.clone(), record, identity: site.identity.clone() };
    let driver = Box::new(Nbd::new(copy));
    Ok(Data { driver, mode: spec.mode, port: spec.port, drain_limit: Duration::ZERO, at: volume })
}

fn command_data((site, at): (&Site, &Place), volume: &VolumeConfig) -> Result<Data, String> {
    let spec: command::CommandSpec = keys(&own_keys(&volume.params), "replication")?;
    let fill = |pattern: &str| fill(pattern, (&at.group, &volume.name), &site.host);
    let volume = VolumeAt { name: volume.name.clone(), path: fill(&spec.path) };
    let record = fill(&spec.record_at(&volume.path).to_string_lossy());
    let copy = command::Copy { place: at.clone(), volume: volume.clone(), record, kept: site.kept.clone() };
    let (mode, port, drain_limit) = (spec.mode, spec.port, Duration::from_secs(spec.drain_seconds));
    Ok(Data { driver: Box::new(CommandReplication::new(copy, spec)), mode, port, drain_limit, at: volume })
}

impl Site {
    /// Where what runs of a group keeps its sockets and logs.
    fn runtime(&self, group: &GroupName) -> PathBuf {
        self.run_dir.join("groups").join(group.as_str())
    }

    /// What this host has of the volume that a source wants to compare.
    ///
    /// # Errors
    /// What is missing, for people.
    pub(super) fn serving(&self, begin: &Begin) -> Result<Serving, String> {
        let spec = self.spec.as_ref().ok_or("no cluster spec is known here yet")?;
        let group = spec.groups.get(&begin.group).ok_or_else(|| format!("the spec has no group {}", begin.group))?;
        let volume = group.volumes.iter().find(|volume| volume.name == begin.volume && volume.replication == "nbd");
        let volume = volume.ok_or_else(|| format!("{} has no volume {:?} of kind nbd", begin.group, begin.volume))?;
        let nbd: NbdSpec = keys(&own_keys(&volume.params), "replication")?;
        let path = fill(&nbd.path, (&begin.group, &volume.name), &self.host);
        let record = RecordFile::new(RecordFile::beside(&path), &begin.group, &volume.name);
        let (kept, host) = (self.kept.clone(), self.host.clone());
        let refusals = Refusals::of(&self.runtime(&begin.group), &volume.name);
        Ok(Serving { path, record, refusals, kept, kept_bytes_max: nbd.kept_bytes_max, host })
    }
}

fn fill(pattern: &str, (group, volume): (&GroupName, &str), host: &HostName) -> PathBuf {
    let filled = pattern.replace("{group}", group.as_str()).replace("{volume}", volume);
    filled.replace("{host}", host.as_str()).into()
}

/// The keys of a volume that its kind reads: the others are the ledger's (`config::ledger_spec`).
pub(super) fn own_keys(params: &toml::Table) -> toml::Table {
    let of_ledger = ["backend", "usual_lag"];
    params.iter().filter(|(key, _)| !of_ledger.contains(&key.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect()
}

pub(super) fn keys<T: serde::de::DeserializeOwned>(params: &toml::Table, of: &str) -> Result<T, String> {
    params.clone().try_into().map_err(|error| format!("{of}: {error}"))
}
