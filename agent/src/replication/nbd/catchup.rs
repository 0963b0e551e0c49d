//! The source's end of a resync: track what the running guest writes, compare, send the tracked rest in rounds, the last
//! of them while the guest stands still, and mirror from that very moment.
//!
//! ```text
//!   bitmap on ─► compare and send what differs ─► rounds of what was written meanwhile ─► pause ─► last round
//!                                                                              ─► mirror ─► guest runs on
//! ```
//! The bitmap is this QEMU's own and lives only as long as it: a driver that died leaves one that is never used again.
//!
//! The pause runs in a task of its own: who orders a resync and then drops it doesn't leave a guest standing. Should
//! this very process end within the pause, the next driver's `recover` finds [`PAUSE_MARK`] and lets the guest go on.

use super::source::{Source, allow_refusal, failed, pause_until, unknown};
use crate::replication::resync::{Begin, Figures, ResyncError, Volume, Wire, compare_and_send};
use crate::replication::{MirrorBegin, MirrorOrder, ReplicationError};
use crate::workload::qemu::args::volume_node;
use crate::workload::qemu::qmp::{Qmp, QmpError};
use qapi::qmp as orders;
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The bitmap that tracks the running side's writes.
const BITMAP: &str = "antipode-resync";
/// A bitmap that only says: the guest stands still because of us.
const PAUSE_MARK: &str = "antipode-pause";

/// A last round this small is sent within a blink.
const LAST_ROUND_BYTES: u64 = 4 << 20;
/// What a guest may have to stand still for at most. Beyond it the whole volume is mirrored instead, which needs no pause.
const PAUSE_BYTES_MAX: u64 = 64 << 20;
/// A guest that writes as fast as rounds are sent doesn't get smaller ones.
const ROUNDS_MAX: u32 = 8;
/// A round whose standby takes nothing for this long is given up: the guest may wait for it.
const ROUND_STALL: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// A standby that took nothing within this, of what is pending, isn't taking.
const TAKES_WITHIN: Duration = Duration::from_millis(250);

#[derive(Deserialize)]
struct Node {
    #[serde(rename = "node-name", default)]
    name: String,
    #[serde(rename = "dirty-bitmaps", default)]
    bitmaps: Vec<Bitmap>,
}

#[derive(Deserialize)]
struct Bitmap {
    #[serde(default)]
    name: String,
    count: u64,
}

impl Source {
    /// Brings the standby up to date and mirrors to it. `None`: a mirror of the same order was there already.
    pub(super) async fn resync(
        self: &Arc<Self>,
        order: &MirrorOrder,
        wire: &mut dyn Wire,
    ) -> Result<Option<Figures>, ReplicationError> {
        let monitor = self.monitor().await.map_err(unknown)?;
        if self.is_in_force(&monitor, order).await? {
            return Ok(None);
        }
        self.stalls().may_try(Instant::now()).map_err(|because| ReplicationError::Failed { because })?;
        self.recover_with(&monitor).await?;
        let done = self.catch_up(&monitor, order, wire).await;
        self.forget_bitmap(&monitor, BITMAP).await?;
        match done {
            Ok(figures) => {
                self.stalls().followed();
                Ok(Some(figures))
            }
            Err(error) => {
                self.clear(&monitor).await?;
                Err(error)
            }
        }
    }

    /// Ends what a driver that died left half done.
    pub(super) async fn recover(&self) -> Result<(), ReplicationError> {
        let monitor = self.monitor().await.map_err(unknown)?;
        if self.bitmap(&monitor, PAUSE_MARK).await?.is_none() {
            return Ok(());
        }
        tracing::warn!(group = %self.copy().place.group, "an agent ended while the guest stood still for it; it runs on");
        self.run_on(&monitor).await
    }

    async fn recover_with(&self, monitor: &Qmp) -> Result<(), ReplicationError> {
        if self.bitmap(monitor, PAUSE_MARK).await?.is_some() {
            self.run_on(monitor).await?;
        }
        self.clear(monitor).await?;
        self.end_rounds(monitor).await?;
        self.forget_bitmap(monitor, BITMAP).await
    }

    async fn catch_up(
        self: &Arc<Self>,
        monitor: &Arc<Qmp>,
        order: &MirrorOrder,
        wire: &mut dyn Wire,
    ) -> Result<Figures, ReplicationError> {
        let volume = &self.copy().volume;
        self.add_bitmap(monitor, BITMAP).await?;
        let path = volume.path.clone();
        let opened = tokio::task::spawn_blocking(move || Volume::open(&path, false)).await;
        let unreadable = |because: String| ReplicationError::Failed { because: format!("read the volume: {because}") };
        let opened = opened.map_err(|error| unreadable(error.to_string()))?.map_err(|e| unreadable(e.to_string()))?;
        let begin = Begin {
            group: self.copy().place.group.clone(),
            volume: volume.name.clone(),
            epoch: order.epoch,
            bytes: opened.bytes(),
        };
        let mut figures = compare_and_send(wire, &begin, &Arc::new(opened)).await.map_err(because_of)?;
        self.connect(monitor, order).await?;
        for _ in 0..ROUNDS_MAX {
            let dirty = self.dirty_bytes(monitor).await?;
            if dirty <= LAST_ROUND_BYTES {
                break;
            }
            self.round(monitor).await?;
            figures.copied_bytes += dirty;
        }
        if self.dirty_bytes(monitor).await? > PAUSE_BYTES_MAX {
            let whole = MirrorOrder { begin: MirrorBegin::Whole, ..order.clone() };
            self.mirror(monitor, &whole).await?;
            figures.copied_bytes += begin.bytes;
            return Ok(figures);
        }
        let (source, monitor, order) = (Arc::clone(self), Arc::clone(monitor), order.clone());
        let last = tokio::spawn(async move {
            let done = source.last_round(&monitor, &order).await;
            if done.is_err() {
                source.stalled();
            }
            done
        });
        let (copied, pause) =
            last.await.map_err(|error| ReplicationError::Unknown { because: error.to_string() })??;
        figures.copied_bytes += copied;
        figures.pause = pause;
        Ok(figures)
    }

    /// The rest, and the mirror's beginning, with the guest standing still.
    async fn last_round(&self, monitor: &Qmp, order: &MirrorOrder) -> Result<(u64, Duration), ReplicationError> {
        let was_running = monitor.execute(orders::query_status {}).await.map_err(unknown)?.running;
        let since = Instant::now();
        if was_running {
            self.add_bitmap(monitor, PAUSE_MARK).await?;
            monitor.execute(orders::stop {}).await.map(drop).map_err(unknown)?;
        }
        let done = async {
            let dirty = self.dirty_bytes(monitor).await?;
            if dirty > 0 {
                self.round(monitor).await?;
            }
            // Nothing is written between the last round and the mirror's beginning, so both copies are identical now.
            let order = MirrorOrder { begin: MirrorBegin::Identical, ..order.clone() };
            self.mirror(monitor, &order).await?;
            Ok(dirty)
        };
        let done: Result<u64, ReplicationError> = done.await;
        if was_running {
            self.run_on(monitor).await?;
        }
        Ok((done?, since.elapsed()))
    }

    /// The guest stands still until the mirror has taken everything, or the limit is over.
    pub(super) async fn even_out(&self, limit: Duration) -> Result<bool, ReplicationError> {
        let monitor = self.monitor().await.map_err(unknown)?;
        if !monitor.execute(orders::query_status {}).await.map_err(unknown)?.running {
            return Ok(false);
        }
        if !self.is_taking(&monitor).await? {
            return Ok(false);
        }
        self.add_bitmap(&monitor, PAUSE_MARK).await?;
        let stopped = self.stop_within(&monitor, limit).await;
        let until = Instant::now() + limit;
        let mut is_even = Ok(false);
        while stopped.is_ok() && Instant::now() < until {
            is_even = self.is_even(&monitor).await;
            if !matches!(is_even, Ok(false)) {
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.run_on(&monitor).await?;
        stopped.and(is_even)
    }

    /// Whether the standby takes something just now: for one that doesn't nobody stands still.
    async fn is_taking(&self, monitor: &Qmp) -> Result<bool, ReplicationError> {
        let before = self.progress(monitor).await.map_err(unknown)?;
        tokio::time::sleep(TAKES_WITHIN).await;
        let after = self.progress(monitor).await.map_err(unknown)?;
        Ok(before.zip(after).is_some_and(|((before, _), (after, pending))| after > before || pending == 0))
    }

    /// Stops the guest. QEMU first waits for what is on its way to the standby; where that takes longer than `limit`, the
    /// connection is broken from this side, or the guest would wait for a standby on which nobody waits.
    async fn stop_within(&self, monitor: &Qmp, limit: Duration) -> Result<(), ReplicationError> {
        let mut stopping = std::pin::pin!(monitor.execute(orders::stop {}));
        let stopped = match tokio::time::timeout(limit, &mut stopping).await {
            Ok(stopped) => stopped,
            Err(_elapsed) => {
                let because = "it took nothing while the workload stood still";
                tracing::warn!(group = %self.copy().place.group, because, "the mirror's connection is broken");
                self.yank(monitor).await?;
                stopping.await
            }
        };
        stopped.map(drop).map_err(unknown)
    }

    async fn run_on(&self, monitor: &Qmp) -> Result<(), ReplicationError> {
        monitor.execute(orders::cont {}).await.map(drop).map_err(unknown)?;
        self.forget_bitmap(monitor, PAUSE_MARK).await
    }

    /// Sends what the bitmap says; what is written meanwhile is in the bitmap afterwards.
    async fn round(&self, monitor: &Qmp) -> Result<(), ReplicationError> {
        let id = self.round_id();
        let job = json!({ "job-id": id, "device": volume_node(&self.copy().volume.name), "target": self.peer_node(),
            "sync": "bitmap", "bitmap": BITMAP, "bitmap-mode": "on-success", "on-target-error": "report",
            "auto-dismiss": false });
        monitor.call("blockdev-backup", job).await.map(drop).map_err(failed)?;
        let (mut taken, mut moved) = (0, Instant::now());
        loop {
            let Some(job) = self.job_named(monitor, &id).await.map_err(unknown)? else {
                return Err(ReplicationError::Failed { because: "a round of the resync vanished".into() });
            };
            if job.is_over() {
                allow_refusal(monitor.execute(orders::job_dismiss { id: job.id }).await.map(drop))?;
                return job.error.map_or(Ok(()), |because| Err(ReplicationError::Failed { because }));
            }
            if job.current != taken {
                (taken, moved) = (job.current, Instant::now());
            }
            if moved.elapsed() >= ROUND_STALL {
                self.end_rounds(monitor).await?;
                return Err(ReplicationError::Unreachable { because: "the standby stopped taking a resync".into() });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn round_id(&self) -> String {
        format!("resync.{}", self.copy().volume.name)
    }

    /// Ends a round that is under way, whatever it waits for.
    async fn end_rounds(&self, monitor: &Qmp) -> Result<(), ReplicationError> {
        let until = Instant::now() + super::source::RELEASE_LIMIT;
        while let Some(job) = self.job_named(monitor, &self.round_id()).await.map_err(unknown)? {
            if job.is_over() {
                allow_refusal(monitor.execute(orders::job_dismiss { id: job.id }).await.map(drop))?;
                continue;
            }
            self.yank(monitor).await?;
            let cancel = orders::block_job_cancel { device: job.id, force: Some(true) };
            allow_refusal(monitor.execute(cancel).await.map(drop))?;
            pause_until(until, "a round of the resync hasn't ended").await?;
        }
        Ok(())
    }

    async fn bitmap(&self, monitor: &Qmp, name: &str) -> Result<Option<u64>, ReplicationError> {
        let nodes: Vec<Node> =
            monitor.query("query-named-block-nodes", json!({ "flat": true })).await.map_err(unknown)?;
        let node = volume_node(&self.copy().volume.name);
        let own = nodes.into_iter().filter(|found| found.name == node).flat_map(|found| found.bitmaps);
        Ok(own.filter(|bitmap| bitmap.name == name).map(|bitmap| bitmap.count).next())
    }

    /// Bytes that the guest wrote and that no round has sent.
    async fn dirty_bytes(&self, monitor: &Qmp) -> Result<u64, ReplicationError> {
        let count = self.bitmap(monitor, BITMAP).await?;
        count.ok_or_else(|| ReplicationError::Failed { because: "the tracking of writes is gone".into() })
    }

    async fn add_bitmap(&self, monitor: &Qmp, name: &str) -> Result<(), ReplicationError> {
        let bitmap = json!({ "node": volume_node(&self.copy().volume.name), "name": name, "persistent": false,
            "granularity": crate::replication::resync::CHUNK });
        monitor.call("block-dirty-bitmap-add", bitmap).await.map(drop).map_err(failed)
    }

    async fn forget_bitmap(&self, monitor: &Qmp, name: &str) -> Result<(), ReplicationError> {
        let bitmap = json!({ "node": volume_node(&self.copy().volume.name), "name": name });
        let gone: Result<_, QmpError> = monitor.call("block-dirty-bitmap-remove", bitmap).await;
        allow_refusal(gone.map(drop))
    }
}

fn because_of(error: ResyncError) -> ReplicationError {
    let because = error.to_string();
    match error {
        ResyncError::Wire(_) => ReplicationError::Unreachable { because },
        ResyncError::Refused(_) | ResyncError::Volume(_) => ReplicationError::Failed { because },
    }
}
