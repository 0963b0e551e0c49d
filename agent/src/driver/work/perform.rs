//! One piece of work, from order to report.

use super::build::Built;
use super::data;
use crate::engine::{Found, Presence, Report, Work};
use crate::keeper::slice::GroupCgroup;
use crate::network::{self, Announcement};
use crate::workload::{self, Begin, StartOrder, StopOrder};
use quorum::id::{Epoch, HostEpoch, HostName};
use std::time::Duration;

const START_LIMIT: Duration = Duration::from_secs(20);
const KILL_LIMIT: Duration = Duration::from_secs(10);
const PROBE_PAUSE: Duration = Duration::from_millis(50);
const PROBE_CALL: Duration = Duration::from_millis(500);
/// A group without a probe is taken to serve once its workload is in good order within this.
const PROBE_DEFAULT: Duration = Duration::from_secs(30);

/// dispatcher: one arm a kind of work.
pub(super) async fn perform(built: &Built, work: &Work) -> Report {
    match work {
        Work::Observe => observe(built).await,
        Work::Promote { epoch, opens, generation } => data::promote(built, *epoch, *opens, *generation).await,
        Work::Start { epoch, host_epoch } => start(built, *epoch, *host_epoch).await,
        Work::Probe { .. } => probe(built).await,
        Work::Announce { .. } => match data::recover(built).await {
            Report::Done { .. } => announce(built).await,
            failed => failed,
        },
        Work::Stop { epoch, patience, drain_to } => {
            stop(built, *patience, drain_to.as_ref().map(|to| (*epoch, to))).await
        }
        Work::Kill => kill(built).await,
        Work::Tie { .. } => moved(tie(built)),
        Work::Untie { .. } => moved(untie(built)),
        Work::OpenExport { epoch, owner, is_whole } => {
            if let Err(because) = make_cgroup(built) {
                return Report::Failed { because };
            }
            data::open_export(built, (*epoch, owner), *is_whole).await
        }
        Work::CloseExport => data::close_export(built).await,
        Work::Mirror { epoch, standby, counts, waits } => {
            data::mirror(built, (*epoch, standby), (*counts, *waits)).await
        }
        Work::ReleaseWrites { .. } => data::release(built).await,
        Work::RecordGeneration { epoch, generation } => data::record(built, *epoch, *generation).await,
    }
}

async fn observe(built: &Built) -> Report {
    let copy = match data::copy(built) {
        Ok(copy) => copy,
        Err(because) => return Report::Failed { because },
    };
    let workload = match built.workload.observe().await {
        workload::Presence::Absent => Presence::Absent,
        workload::Presence::Running { epoch, .. } => Presence::Running(epoch),
        workload::Presence::Unknown { because } => {
            tracing::warn!(group = %built.config.name, %because, "something of the group may be here");
            Presence::Remnant
        }
    };
    match pinned(built).is_empty() {
        Ok(is_empty) => Report::Found(Found { workload, copy, is_tied: !is_empty }),
        Err(error) => Report::Failed { because: error.to_string() },
    }
}

/// The group's cgroup below that of the host epoch: it can only be made while the keeper has that host epoch thawed.
fn make_cgroup(built: &Built) -> Result<(), String> {
    let (root, he) = built.cgroup.as_ref().ok_or("this host has no protected slice, or isn't admitted")?;
    GroupCgroup::make(root, *he, &built.config.name).map(|_| ()).map_err(|error| error.to_string())
}

fn pinned(built: &Built) -> GroupCgroup {
    GroupCgroup::at(built.pinned.clone())
}

/// Out of the lease's reach.
fn tie(built: &Built) -> Result<(), String> {
    let (root, he) = built.cgroup.as_ref().ok_or("this host has no protected slice, or isn't admitted")?;
    let group = &built.config.name;
    let to = GroupCgroup::make_pinned(root, group).map_err(|error| error.to_string())?;
    GroupCgroup::at(root.group(*he, group)).move_all(&to).map_err(|error| error.to_string())
}

/// Under the lease again.
fn untie(built: &Built) -> Result<(), String> {
    make_cgroup(built)?;
    let (root, he) = built.cgroup.as_ref().ok_or("this host isn't admitted")?;
    let to = GroupCgroup::at(root.group(*he, &built.config.name));
    pinned(built).move_all(&to).and_then(|()| pinned(built).remove()).map_err(|error| error.to_string())
}

fn moved(outcome: Result<(), String>) -> Report {
    match outcome {
        Ok(()) => Report::Done { detail: "moved".into() },
        Err(because) => Report::Failed { because },
    }
}

async fn start(built: &Built, epoch: Epoch, host_epoch: HostEpoch) -> Report {
    if let Err(because) = make_cgroup(built) {
        return Report::Failed { because };
    }
    let order = StartOrder { epoch, host_epoch, volumes: built.volumes(), begin: Begin::Running, limit: START_LIMIT };
    match built.workload.start(&order).await {
        Ok(()) => Report::Done { detail: format!("started under epoch {epoch}") },
        Err(error) => Report::Failed { because: error.to_string() },
    }
}

async fn stop(built: &Built, patience: Duration, drain_to: Option<(Epoch, &HostName)>) -> Report {
    if let Some(order) = drain_to
        && let Err(because) = data::drain(built, order).await
    {
        // Nothing was stopped: a group isn't taken down for a move that would lose something.
        return Report::Failed { because };
    }
    // Seen while the workload still runs: under a synchronous mirror that follows, every answered write is there, also
    // those that the stop itself makes.
    let drained = data::is_drained(built, drain_to.is_some()).await;
    let order = StopOrder { ask: patience, quit: KILL_LIMIT, kill: KILL_LIMIT };
    match built.workload.stop(&order).await {
        Ok(ended) => {
            let drained = drained && data::is_sent(&built.data).await;
            tracing::info!(group = %built.config.name, ?ended, drained, "stopped");
            Report::Stopped { is_drained: drained, untouched: false }
        }
        Err(error) => Report::Failed { because: error.to_string() },
    }
}

async fn kill(built: &Built) -> Report {
    match built.workload.kill(KILL_LIMIT).await {
        Ok(ended) => Report::Done { detail: format!("{ended:?}") },
        Err(error) => Report::Failed { because: error.to_string() },
    }
}

async fn announce(built: &Built) -> Report {
    for address in &built.place.addresses {
        let mac = address.mac.as_deref().map(str::parse).transpose();
        let mac = match mac {
            Ok(mac) => mac,
            Err(because) => return Report::Failed { because },
        };
        let announcement = Announcement { ip: address.ip, interface: address.interface.clone(), mac };
        if let Err(error) = network::announce_once(&announcement) {
            return Report::Failed { because: format!("{error}") };
        }
        // The repetitions go on beside the next steps: nothing is concluded from them.
        tokio::spawn(async move { network::announce(&announcement).await });
    }
    Report::Done { detail: format!("{} addresses", built.place.addresses.len()) }
}

/// Until the service answers: a connection to the probe's address, or the workload's own good order.
async fn probe(built: &Built) -> Report {
    let within = built.place.probe.as_ref().map_or(PROBE_DEFAULT, |probe| probe.within);
    let until = tokio::time::Instant::now() + within;
    let mut because = String::from("it was not asked yet");
    while tokio::time::Instant::now() < until {
        match &built.place.probe {
            Some(probe) => match tokio::time::timeout(PROBE_CALL, tokio::net::TcpStream::connect(probe.tcp)).await {
                Ok(Ok(_)) => return Report::Done { detail: format!("{} answers", probe.tcp) },
                Ok(Err(error)) => because = format!("{}: {error}", probe.tcp),
                Err(_) => because = format!("{} did not answer", probe.tcp),
            },
            None => match built.workload.probe().await {
                Ok(()) => return Report::Done { detail: "in good order".into() },
                Err(error) => because = error.to_string(),
            },
        }
        tokio::time::sleep(PROBE_PAUSE).await;
    }
    Report::Failed { because: format!("not within {within:?}: {because}") }
}
