//! The source's end: a mirror job inside the guest's QEMU.
//!
//! Under `Mode::Sync` the job copies every write to the standby before the guest's write is answered. Its NBD client
//! reconnects for ever ([`RECONNECT_SECONDS`]), so that a lost standby makes writes wait and not fail: a failed request
//! would let QEMU answer writes that only this side has. Only `release` ends the waiting, or the death of the guest.
//!
//! The connection to the monitor is kept open: `yank` must get through while QEMU's main loop waits, and a monitor can't
//! be negotiated with then. The state is QEMU's alone: a new driver finds the job by its name.

use super::job::{Job, Tracker};
use super::stalls::Stalls;
use super::tls::{PRIORITY, lay_out};
use super::{Copy, export_name};
use crate::replication::{MirrorBegin, MirrorOrder, MirrorState, Mode, ReplicationError};
use crate::workload::Doing;
use crate::workload::qemu::args::volume_node;
use crate::workload::qemu::qmp::{Qmp, QmpError};
use crate::workload::qemu::runtime::QemuRuntime;
use qapi::qmp as orders;
use serde_json::json;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::Mutex;

/// How long the client goes on reconnecting: ten years, which stands for "until we say so". It is far beyond L_v, as the
/// protocol asks; a finite one near L_v would release writes by itself while `Detached` is still being committed.
const RECONNECT_SECONDS: u32 = 10 * 365 * 24 * 3600;

/// How long QEMU may take to connect when a mirror is started. Its main loop, and with it the guest, waits that long if
/// the standby goes silent between our own look at it and QEMU's.
const OPEN_SECONDS: u32 = 3;

/// How long our own look at the standby may take.
const LOOK_LIMIT: Duration = Duration::from_secs(3);

/// How long a monitor may take to answer.
const MONITOR_LIMIT: Duration = Duration::from_secs(10);

/// How long an ordered end of the job may take. It takes milliseconds.
pub(super) const RELEASE_LIMIT: Duration = Duration::from_secs(20);

pub(super) struct Source {
    copy: Copy,
    monitor: PathBuf,
    tls: PathBuf,
    connection: Mutex<Option<Arc<Qmp>>>,
    tracker: std::sync::Mutex<Tracker>,
    stalls: std::sync::Mutex<Stalls>,
}

impl Source {
    /// The source's end of this copy. All drivers of a process that serve the same copy share one: QEMU serves one client
    /// a monitor at a time, and what was seen of a mirror is seen for all of them.
    pub(super) fn of(copy: &Copy) -> Arc<Self> {
        type Key = (PathBuf, String);
        static SOURCES: OnceLock<std::sync::Mutex<BTreeMap<Key, Weak<Source>>>> = OnceLock::new();
        let fresh = Self::new(copy);
        let key = (fresh.monitor.clone(), format!("{copy:?}"));
        let mut sources =
            SOURCES.get_or_init(Default::default).lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        sources.retain(|_, source| source.strong_count() > 0);
        if let Some(source) = sources.get(&key).and_then(Weak::upgrade) {
            return source;
        }
        let source = Arc::new(fresh);
        sources.insert(key, Arc::downgrade(&source));
        source
    }

    fn new(copy: &Copy) -> Self {
        let volume = &copy.volume.name;
        Self {
            monitor: QemuRuntime::new(&copy.place.runtime).data(volume),
            tls: copy.place.runtime.join(format!("tls-mirror-{volume}")),
            connection: Mutex::new(None),
            tracker: std::sync::Mutex::default(),
            stalls: std::sync::Mutex::default(),
            copy: copy.clone(),
        }
    }

    /// What the last attempts to mirror came to.
    pub(super) fn stalls(&self) -> std::sync::MutexGuard<'_, Stalls> {
        self.stalls.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Notes an attempt that failed where the workload waited for it.
    pub(super) fn stalled(&self) {
        let mut stalls = self.stalls();
        stalls.stalled(Instant::now());
        if let Err(because) = stalls.may_try(Instant::now()) {
            tracing::warn!(group = %self.copy.place.group, %because, "a mirror could not be begun");
        }
    }

    pub(super) fn copy(&self) -> &Copy {
        &self.copy
    }

    pub(super) fn peer_node(&self) -> String {
        format!("peer-{}", self.copy.volume.name)
    }

    fn tls_object(&self) -> String {
        format!("tls-{}", self.copy.volume.name)
    }

    fn job_prefix(&self) -> String {
        format!("mirror.{}.", self.copy.volume.name)
    }

    /// The job's name says what was ordered, so that a new driver can tell its order from another.
    fn job_id(&self, order: &MirrorOrder) -> String {
        let word = match order.mode {
            Mode::Sync => "sync",
            Mode::Async => "async",
        };
        let address = order.target.to_string().replace([':', '[', ']', '%'], "-");
        format!("{}e{}.{word}.{}.{address}", self.job_prefix(), order.epoch.0, order.to)
    }

    /// The open connection to QEMU, or a new one.
    pub(super) async fn monitor(&self) -> Result<Arc<Qmp>, QmpError> {
        let mut connection = self.connection.lock().await;
        if let Some(open) = connection.as_ref().filter(|open| open.is_open()) {
            return Ok(Arc::clone(open));
        }
        let fresh = Arc::new(Qmp::connect(&self.monitor, MONITOR_LIMIT).await?);
        *connection = Some(Arc::clone(&fresh));
        Ok(fresh)
    }

    async fn job(&self, monitor: &Qmp) -> Result<Option<Job>, QmpError> {
        self.job_named(monitor, &self.job_prefix()).await
    }

    /// The job whose name begins like this.
    pub(super) async fn job_named(&self, monitor: &Qmp, prefix: &str) -> Result<Option<Job>, QmpError> {
        let jobs: Vec<Job> = monitor.query("query-jobs", json!({})).await?;
        Ok(jobs.into_iter().find(|job| job.id.starts_with(prefix)))
    }

    /// Whether a mirror of this very order is there already; another one is refused.
    pub(super) async fn is_in_force(&self, monitor: &Qmp, order: &MirrorOrder) -> Result<bool, ReplicationError> {
        match self.job(monitor).await.map_err(unknown)? {
            Some(job) if job.is_over() => Ok(false),
            Some(job) if job.id == self.job_id(order) => Ok(true),
            Some(job) => Err(super::refused(format!("another mirror is in force: {}", job.id))),
            None => Ok(false),
        }
    }

    pub(super) async fn start(&self, order: &MirrorOrder) -> Result<(), ReplicationError> {
        let monitor = self.monitor().await.map_err(unknown)?;
        if self.is_in_force(&monitor, order).await? {
            return Ok(());
        }
        // What an interrupted start or an ended job left behind.
        self.clear(&monitor).await?;
        let begun = async {
            self.connect(&monitor, order).await?;
            self.mirror(&monitor, order).await
        };
        if let Err(error) = begun.await {
            self.clear(&monitor).await?;
            return Err(error);
        }
        Ok(())
    }

    /// Connects QEMU to the standby's export.
    pub(super) async fn connect(&self, monitor: &Qmp, order: &MirrorOrder) -> Result<(), ReplicationError> {
        look_at(order.target).await?;
        lay_out(&self.tls, &self.copy.identity).map_err(|because| ReplicationError::Failed { because })?;
        let creds = json!({ "qom-type": "tls-creds-x509", "id": self.tls_object(), "endpoint": "client",
            "dir": self.tls, "verify-peer": true, "priority": PRIORITY });
        monitor.call("object-add", creds).await.map_err(failed)?;
        let (group, volume) = (&self.copy.place.group, &self.copy.volume.name);
        let peer = json!({ "driver": "nbd", "node-name": self.peer_node(),
            "server": { "type": "inet", "host": order.target.ip().to_string(), "port": order.target.port().to_string() },
            "export": export_name(group, volume, order.epoch), "tls-creds": self.tls_object(),
            "tls-hostname": order.to, "reconnect-delay": RECONNECT_SECONDS, "open-timeout": OPEN_SECONDS });
        monitor.call("blockdev-add", peer).await.map(drop).map_err(|error| {
            // QEMU's main loop waited for it.
            self.stalled();
            match error.is_refusal() {
                true => ReplicationError::Unreachable { because: text(&error) },
                false => unknown(error),
            }
        })
    }

    /// Begins the mirror job over the connection.
    pub(super) async fn mirror(&self, monitor: &Qmp, order: &MirrorOrder) -> Result<(), ReplicationError> {
        let sync = match order.begin {
            MirrorBegin::Whole => "full",
            MirrorBegin::Identical => "none",
        };
        let copy_mode = match order.mode {
            Mode::Sync => "write-blocking",
            Mode::Async => "background",
        };
        let (id, device) = (self.job_id(order), volume_node(&self.copy.volume.name));
        // An error that isn't a lost connection ends the job and is kept until it is dismissed: `ignore` would go on with
        // copies that differ, and an automatic end would be forgotten.
        let job = json!({ "job-id": id, "device": device, "target": self.peer_node(), "sync": sync,
            "copy-mode": copy_mode, "on-target-error": "report", "auto-dismiss": false });
        monitor.call("blockdev-mirror", job).await.map(drop).map_err(failed)
    }

    pub(super) fn state(&self, stall: Duration) -> Doing<'_, Result<MirrorState, ReplicationError>> {
        Box::pin(async move {
            let monitor = self.monitor().await.map_err(unknown)?;
            let job = self.job(&monitor).await.map_err(unknown)?;
            let mut tracker = self.tracker.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            Ok(tracker.look(job.as_ref(), Instant::now(), stall))
        })
    }

    /// How much the mirror has taken, and how much is pending.
    pub(super) async fn progress(&self, monitor: &Qmp) -> Result<Option<(u64, u64)>, QmpError> {
        Ok(self.job(monitor).await?.map(|job| (job.current, job.pending())))
    }

    /// Looks, and says whether nothing is pending.
    pub(super) async fn is_even(&self, monitor: &Qmp) -> Result<bool, ReplicationError> {
        let job = self.job(monitor).await.map_err(unknown)?;
        let mut tracker = self.tracker.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let state = tracker.look(job.as_ref(), Instant::now(), RELEASE_LIMIT);
        Ok(matches!(state, MirrorState::Synced { pending_bytes: 0, .. }))
    }

    pub(super) async fn release(&self) -> Result<(), ReplicationError> {
        let monitor = self.monitor().await.map_err(unknown)?;
        self.clear(&monitor).await
    }

    /// Ends the job, whatever it waits for, and removes what belongs to it.
    pub(super) async fn clear(&self, monitor: &Qmp) -> Result<(), ReplicationError> {
        let until = Instant::now() + RELEASE_LIMIT;
        while let Some(job) = self.job(monitor).await.map_err(unknown)? {
            if job.is_over() {
                allow_refusal(monitor.execute(orders::job_dismiss { id: job.id }).await.map(drop))?;
                continue;
            }
            // First the connection, so that waiting requests fail at once and the cancel has nothing to wait for.
            self.yank(monitor).await?;
            let cancel = orders::block_job_cancel { device: job.id, force: Some(true) };
            allow_refusal(monitor.execute(cancel).await.map(drop))?;
            pause_until(until, "the mirror job hasn't ended").await?;
        }
        loop {
            let gone = monitor.call("blockdev-del", json!({ "node-name": self.peer_node() })).await;
            match gone {
                Ok(_) => break,
                // The job's end may still hold it for a moment.
                Err(QmpError::Refused { text, .. }) if text.contains("in use") => {
                    pause_until(until, "the mirror's node is still in use").await?;
                }
                Err(error) if error.is_refusal() => break,
                Err(error) => return Err(unknown(error)),
            }
        }
        allow_refusal(monitor.call("object-del", json!({ "id": self.tls_object() })).await.map(drop))
    }

    /// Breaks the connection to the standby from this side, though QEMU's main loop may wait for it.
    pub(super) async fn yank(&self, monitor: &Qmp) -> Result<(), ReplicationError> {
        let node = orders::YankInstance::block_node(orders::YankInstanceBlockNode { node_name: self.peer_node() });
        allow_refusal(monitor.execute_at_once(orders::yank { instances: vec![node] }).await.map(drop))
    }
}

/// What isn't there needs no removing.
pub(super) fn allow_refusal(done: Result<(), QmpError>) -> Result<(), ReplicationError> {
    match done {
        Err(error) if !error.is_refusal() => Err(unknown(error)),
        _ => Ok(()),
    }
}

pub(super) async fn pause_until(until: Instant, because: &str) -> Result<(), ReplicationError> {
    if Instant::now() >= until {
        return Err(ReplicationError::Unknown { because: because.into() });
    }
    tokio::time::sleep(Duration::from_millis(10)).await;
    Ok(())
}

/// Looks whether an NBD server answers, so that QEMU's own attempt, for which the guest waits, is all but sure to succeed.
async fn look_at(target: SocketAddr) -> Result<(), ReplicationError> {
    let unreachable = |because: String| ReplicationError::Unreachable { because: format!("{target}: {because}") };
    let look = async {
        let mut greeting = [0; 16];
        TcpStream::connect(target).await?.read_exact(&mut greeting).await?;
        Ok::<_, std::io::Error>(greeting)
    };
    match tokio::time::timeout(LOOK_LIMIT, look).await {
        Ok(Ok(greeting)) if greeting.starts_with(b"NBDMAGIC") => Ok(()),
        Ok(Ok(_)) => Err(unreachable("that is no NBD server".into())),
        Ok(Err(error)) => Err(unreachable(error.to_string())),
        Err(_) => Err(unreachable(format!("no greeting within {LOOK_LIMIT:?}"))),
    }
}

fn text(error: &QmpError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

pub(super) fn unknown(error: QmpError) -> ReplicationError {
    ReplicationError::Unknown { because: text(&error) }
}

/// QEMU's own refusal leaves things as they were; anything else is open.
pub(super) fn failed(error: QmpError) -> ReplicationError {
    if error.is_refusal() { ReplicationError::Failed { because: text(&error) } } else { unknown(error) }
}
