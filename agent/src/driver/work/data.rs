//! A group's copies of its volumes on this host, taken together: the group's generation is that of all its volumes.

use super::build::{Built, Data};
use crate::engine::{CopyFound, Report, Resync};
use crate::replication::record::{Record, Role};
use crate::replication::resync::{Figures, STREAM_KIND};
use crate::replication::{
    AcceptedLoss, ExportBegin, ExportOrder, Manner, MirrorBegin, MirrorOrder, MirrorState, Mode, PromoteOrder,
    ReplicationError, is_whole_already,
};
use quorum::id::{Epoch, Generation, HostName};
use quorum::ledger::CopyCheck;
use quorum::mutants;
use std::net::SocketAddr;
use std::time::Duration;

/// The generation of data that no cluster has ever moved.
const FIRST: Generation = Generation(1);
/// A mirror whose standby takes nothing for this while something waits is away.
pub(super) const STALL: Duration = Duration::from_secs(2);
/// How often a mirror that is being made equal is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

type Outcome = Result<String, String>;

/// One volume after the other; the first failure ends it and names the volume.
macro_rules! each {
    ($built:expr, $data:ident, $body:block) => {{
        let mut details = Vec::new();
        for $data in &$built.data {
            let outcome: Outcome = async { $body }.await;
            match outcome {
                Ok(detail) => details.push(detail),
                Err(because) => return Report::Failed { because: format!("volume {}: {because}", $data.at.name) },
            }
        }
        Report::Done { detail: details.join(", ") }
    }};
}

/// What the copies on this host say about themselves.
///
/// # Errors
/// A record that can't be read: the copy's worth is unknown.
pub(super) fn copy(built: &Built) -> Result<Option<CopyFound>, String> {
    let mut found: Option<CopyFound> = None;
    for data in &built.data {
        let record = data.driver.record().map_err(|error| error.to_string())?;
        let (generation, check) = match &record {
            // Never used by a cluster: the ledger's first generation, for the machine that brings the data in.
            None => (FIRST, None),
            Some(record) if record.role == Role::Syncing => (Generation(0), None),
            Some(record) => (record.generation, None::<CopyCheck>),
        };
        // The oldest volume is the group's age.
        let is_older = found.is_none_or(|found| generation < found.generation);
        if is_older {
            found = Some(CopyFound { generation, check });
        }
    }
    Ok(found)
}

pub(super) async fn promote(built: &Built, epoch: Epoch, opens: Generation, generation: Generation) -> Report {
    each!(built, data, {
        let record = data.driver.record().map_err(|error| error.to_string())?;
        if record.is_none() && epoch.count() == 1 {
            let adopted = data.driver.adopt(epoch, generation).await;
            return adopted.map(|()| "adopted".into()).map_err(|error| error.to_string());
        }
        if record.is_some_and(|record| record.role == Role::Source && record.epoch == epoch) {
            return Ok("promoted before".into());
        }
        // A mixture says generation 0 of itself; a grant opens it only where a person accepted just that, on record.
        let (wanted, accepted) = match opens {
            Generation(0) => (generation, AcceptedLoss::Mixture),
            _ => (opens, AcceptedLoss::Nothing),
        };
        let order = PromoteOrder { epoch, generation: wanted, not_before: Epoch::default(), accepted };
        data.driver.promote(&order).await.map_err(|error| error.to_string())?;
        if generation != opens {
            data.driver.advance(epoch, generation).map_err(|error| error.to_string())?;
        }
        Ok("promoted".into())
    })
}

pub(super) async fn open_export(built: &Built, (epoch, owner): (Epoch, &HostName), is_whole: bool) -> Report {
    each!(built, data, {
        let record = data.driver.record().map_err(|error| error.to_string())?;
        let begin = begin(record.as_ref(), epoch, is_whole)?;
        let listen = SocketAddr::new(built.listen, data.port);
        let order = ExportOrder { epoch, from: owner.clone(), listen, begin };
        data.driver.open_export(&order).await.map(|()| "open".into()).map_err(|error| error.to_string())
    })
}

/// How an export goes on, given what the copy says of itself and whether the ledger counts on it. The record alone
/// doesn't tell: it says the same after the source went on without this copy.
fn begin(record: Option<&Record>, epoch: Epoch, is_whole: bool) -> Result<ExportBegin, String> {
    match record {
        _ if !is_whole => Ok(ExportBegin::Afresh),
        Some(record) if record.epoch == epoch && record.role == Role::Standby => Ok(ExportBegin::Continue),
        // It was made equal, and its agent ended before it could say so.
        Some(record) if record.epoch == epoch && record.role == Role::Syncing => Ok(ExportBegin::Afresh),
        _ if mutants::on("data.absent_copy_counted") => Ok(ExportBegin::Afresh),
        // Its disk may be another one. The source waits for it, and goes on without it once that is committed.
        other => Err(format!("the ledger counts on this copy under epoch {epoch}, but it is {other:?}")),
    }
}

pub(super) async fn close_export(built: &Built) -> Report {
    each!(built, data, {
        data.driver.close_export(CLOSE_LIMIT).await.map(|()| "closed".into()).map_err(|error| error.to_string())
    })
}

/// The generation rose or was confirmed: recorded as what this host is.
pub(super) async fn record(built: &Built, epoch: Epoch, generation: Generation) -> Report {
    each!(built, data, {
        let record = data.driver.record().map_err(|error| error.to_string())?;
        let done: Result<(), ReplicationError> = match record.map(|record| record.role) {
            Some(Role::Source) => data.driver.advance(epoch, generation),
            Some(Role::Syncing | Role::Standby) | None => data.driver.mark_standby(epoch, generation),
        };
        done.map(|()| format!("generation {generation}")).map_err(|error| error.to_string())
    })
}

/// Brings the standby's copies up to date, volume after volume, and waits until they follow. Where that fails and the
/// ledger doesn't count on the standby, nothing may go on waiting for it: its mirrors are ended.
pub(super) async fn mirror(built: &Built, order: (Epoch, &HostName), (counts, waits): (bool, bool)) -> Report {
    if waits != built.data.iter().all(|data| data.mode == Mode::Sync) {
        // What is said of the mirror afterwards follows from what was ordered.
        return Report::Failed { because: "the spec changed between the order and its execution".into() };
    }
    if counts && let Some(because) = is_missing(built, order.1).await {
        return Report::Failed { because };
    }
    let mut resync: Option<Resync> = None;
    for data in &built.data {
        let is_there = match mirror_order(built, data, order, data.mode) {
            Ok(order) => waits && is_whole_already(data.driver.as_ref(), &order, STALL).await,
            Err(_) => false,
        };
        if is_there {
            continue;
        }
        match mirror_one(built, data, order, data.mode).await {
            Ok(None) => {}
            Ok(Some(figures)) => resync = Some(sum(resync.unwrap_or_default(), &figures)),
            Err(because) => {
                let mut because = format!("volume {}: {because}", data.at.name);
                if !counts && let Report::Failed { because: then } = release(built).await {
                    because = format!("{because}; then {then}");
                }
                return Report::Failed { because };
            }
        }
    }
    Report::Mirrored { resync }
}

/// The ledger counts on the standby, so its mirrors must be there: what is answered while one is begun anew, and was
/// since it ended, isn't all at the standby. It is detached first, and begun when nobody counts on it.
async fn is_missing(built: &Built, standby: &HostName) -> Option<String> {
    for data in &built.data {
        if let Ok(MirrorState::Detached { because }) = data.driver.mirror_state(STALL).await
            && !mutants::on("data.counted_mirror_begun")
        {
            let (volume, because) = (&data.at.name, because.unwrap_or_else(|| "it is gone".into()));
            return Some(format!(
                "the mirror of volume {volume} to {standby}, on whose copy the ledger counts, ended: {because}"
            ));
        }
    }
    None
}

fn mirror_order(
    built: &Built,
    data: &Data,
    (epoch, standby): (Epoch, &HostName),
    mode: Mode,
) -> Result<MirrorOrder, String> {
    let target = built.export_of(standby, data)?;
    Ok(MirrorOrder { epoch, to: standby.clone(), target, mode, begin: MirrorBegin::Whole })
}

async fn mirror_one(
    built: &Built,
    data: &Data,
    (epoch, standby): (Epoch, &HostName),
    mode: Mode,
) -> Result<Option<Figures>, String> {
    let order = mirror_order(built, data, (epoch, standby), mode)?;
    let figures = match data.driver.manner() {
        Manner::WithWorkload => {
            let wire = built.transport.open_stream(standby, STREAM_KIND).await;
            data.driver.resync(&order, &mut wire.map_err(|error| error.to_string())?).await
        }
        Manner::ByItself => data.driver.start_mirror(&order).await.map(|()| None),
    };
    let figures = figures.map_err(|error| error.to_string())?;
    until_synced(data).await?;
    Ok(figures)
}

/// Before a planned stop: volumes for whose copies no write waits are mirrored synchronously, so that the standby has
/// every write, those of the stop itself included. A mirror that outlives the workload sends these afterwards
/// ([`is_sent`]); here it sends what there is, so that a standby that takes nothing keeps the workload from being stopped.
///
/// # Errors
/// What stood in the way; an asynchronous mirror that is part of the workload is gone then, and has to be begun anew.
pub(super) async fn drain(built: &Built, order: (Epoch, &HostName)) -> Result<(), String> {
    for data in built.data.iter().filter(|data| data.mode == Mode::Async) {
        let failed = |because: String| format!("drain volume {}: {because}", data.at.name);
        if data.driver.manner() == Manner::ByItself {
            // Under steady writing it is never even for long: that it takes everything up to some moment is enough here.
            match data.driver.even_out(data.drain_limit).await {
                Ok(true) => continue,
                Ok(false) => return Err(failed("the standby didn't take everything".into())),
                Err(error) => return Err(failed(error.to_string())),
            }
        }
        data.driver.release_writes().await.map_err(|error| failed(error.to_string()))?;
        let drained = mirror_one(built, data, order, Mode::Sync).await;
        if let Err(because) = drained {
            // Nothing may go on waiting for a copy on which nobody counts.
            data.driver.release_writes().await.map_err(|error| failed(error.to_string()))?;
            return Err(failed(because));
        }
    }
    Ok(())
}

fn sum(so_far: Resync, more: &Figures) -> Resync {
    Resync {
        compared_bytes: so_far.compared_bytes.saturating_add(more.compared_bytes),
        differing_bytes: so_far.differing_bytes.saturating_add(more.differing_bytes),
        copied_bytes: so_far.copied_bytes.saturating_add(more.copied_bytes),
        // The standby says so.
        kept_bytes: so_far.kept_bytes.saturating_add(more.kept_bytes),
        pause: so_far.pause + more.pause,
    }
}

/// What an agent that ended in the middle of its work left behind is put right: no guest stands still for a driver that
/// is gone.
pub(super) async fn recover(built: &Built) -> Report {
    each!(built, data, { data.driver.recover().await.map(|()| "ready".into()).map_err(|error| error.to_string()) })
}

async fn until_synced(data: &Data) -> Outcome {
    loop {
        match data.driver.mirror_state(STALL).await.map_err(|error| error.to_string())? {
            MirrorState::Synced { .. } => return Ok(format!("{} follows", data.at.name)),
            MirrorState::Copying { .. } => tokio::time::sleep(LOOK_EVERY).await,
            MirrorState::Away { .. } => return Err(format!("the standby of {} went away while copying", data.at.name)),
            MirrorState::Detached { because } => {
                return Err(format!("the mirror of {} ended: {}", data.at.name, because.unwrap_or_default()));
            }
        }
    }
}

pub(super) async fn release(built: &Built) -> Report {
    each!(built, data, {
        data.driver.release_writes().await.map(|()| "released".into()).map_err(|error| error.to_string())
    })
}

/// Whether every volume's mirror has every answered write, now and until somebody commits its detachment: a mirror in
/// synchronous mode that follows answers nothing that the standby doesn't have, and one that goes away answers nothing.
pub(super) async fn is_drained(built: &Built, is_drained: bool) -> bool {
    for data in &built.data {
        let is_following = matches!(data.driver.mirror_state(STALL).await, Ok(MirrorState::Synced { .. }));
        if !(is_drained || data.mode == Mode::Sync) || !is_following {
            return false;
        }
    }
    !built.data.is_empty()
}

/// After a planned stop that was drained: whether the copies for which no write waited, and whose mirrors outlive the
/// workload, have its last writes too.
pub(super) async fn is_sent(data: &[Data]) -> bool {
    let late = data.iter().filter(|data| data.mode == Mode::Async && data.driver.manner() == Manner::ByItself);
    for data in late {
        let sent = data.driver.even_out(data.drain_limit).await;
        if !matches!(sent, Ok(true)) && !mutants::on("data.last_writes_not_sent") {
            tracing::warn!(volume = data.at.name, ?sent, "the standby lacks a stopped workload's last writes");
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(role: Role, epoch: u64) -> Record {
        Record::new(&"erp".parse().unwrap(), "root", role).at(Generation(2), Epoch(epoch))
    }

    #[test]
    fn a_copy_on_which_the_ledger_counts_and_that_is_not_there_is_not_taken_for_whole() {
        let say = |record: Option<&Record>, is_whole| begin(record, Epoch(7), is_whole);
        assert_eq!(say(Some(&record(Role::Standby, 7)), true), Ok(ExportBegin::Continue));
        assert_eq!(say(Some(&record(Role::Syncing, 7)), true), Ok(ExportBegin::Afresh));
        let strange =
            [None, Some(record(Role::Standby, 6)), Some(record(Role::Syncing, 6)), Some(record(Role::Source, 6))];
        for copy in &strange {
            assert!(say(copy.as_ref(), true).is_err(), "{copy:?}");
            assert_eq!(say(copy.as_ref(), false), Ok(ExportBegin::Afresh), "{copy:?}");
        }
        assert_eq!(say(Some(&record(Role::Standby, 7)), false), Ok(ExportBegin::Afresh), "it was left behind");
    }

    /// A volume whose adapter answers like this when it is to send a stopped workload's last writes.
    fn sends(folder: &tempfile::TempDir, answer: &str) -> Data {
        use crate::replication::command::{CommandReplication, Copy};
        use std::os::unix::fs::PermissionsExt;
        let path = folder.path().join(answer);
        std::fs::write(&path, format!("#!/bin/sh\necho '{{\"result\":\"{answer}\"}}'\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let spec = serde_json::json!({ "mode": "async", "program": path, "path": "/srv/erp", "look_seconds": 30 });
        let place = crate::workload::Place {
            group: "erp".parse().unwrap(),
            host: "tk-1".parse().unwrap(),
            cgroup: folder.path().join("erp"),
            pinned: folder.path().join("pinned"),
            runtime: folder.path().to_owned(),
        };
        let at = crate::workload::VolumeAt { name: "root".into(), path: folder.path().join("volume") };
        let kept = crate::replication::resync::kept::KeptStore::new(folder.path().join("kept"));
        let copy = Copy { place, volume: at.clone(), record: folder.path().join("record"), kept };
        let driver = Box::new(CommandReplication::new(copy, serde_json::from_value(spec).unwrap()));
        Data { driver, mode: Mode::Async, port: 0, drain_limit: Duration::from_secs(30), at }
    }

    #[tokio::test]
    async fn a_stop_whose_last_writes_are_not_seen_to_arrive_is_not_drained() {
        let folder = tempfile::tempdir().unwrap();
        assert!(is_sent(&[sends(&folder, "even")]).await);
        for answer in ["not-even", "unknown", "sure"] {
            assert!(!is_sent(&[sends(&folder, "even"), sends(&folder, answer)]).await, "{answer}");
        }
        assert!(is_sent(&[]).await, "what is part of the workload was drained before");
    }

    #[tokio::test]
    #[cfg(feature = "mutants")]
    async fn last_writes_that_are_taken_for_sent_are_noticed() {
        let _planted = mutants::plant("data.last_writes_not_sent");
        let folder = tempfile::tempdir().unwrap();
        assert!(is_sent(&[sends(&folder, "not-even")]).await);
    }

    #[test]
    #[cfg(feature = "mutants")]
    fn an_absent_copy_that_is_taken_for_whole_is_noticed() {
        let _planted = mutants::plant("data.absent_copy_counted");
        assert_eq!(begin(None, Epoch(7), true), Ok(ExportBegin::Afresh));
    }
}
