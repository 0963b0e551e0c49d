//! Kind `nbd`, the embedded default: the guest's own QEMU mirrors the volume to an NBD export of the standby.
//!
//! The source's QEMU runs a write-blocking mirror job; the standby's copy is served by `qemu-storage-daemon`, over
//! QEMU's own TLS with our certificates in both directions. Three facts of QEMU 7.2 shape everything here:
//! - the job acknowledges writes once its target *fails*, so a lost connection must not fail: the client reconnects for
//!   ever and requests wait ([`source`]);
//! - it doesn't pass the guest's flush on, so the export flushes each write before it answers ([`standby`]);
//! - `yank` reaches a QEMU whose requests hang, and is what releases them.
//!
//! A copy that was left behind is compared and only what differs is sent ([`catchup`]).
//!
//! A standby that *answers* a write with an error (its disk is full, or fails) ends the job, and writes answered from then
//! until `Detached` is committed are on the source only. The source reports it at once; and the standby's export logs the
//! error before it answers, so that its copy no longer passes for a standby ([`super::refusals`]), whatever becomes of the
//! source. Nothing is lost in silence.

mod catchup;
pub mod job;
pub mod source;
mod stalls;
pub mod standby;
pub mod tls;

use super::record::{Record, RecordFile, Role};
use super::refusals::Refusals;
use super::resync::door::{self, Door};
use super::resync::{Figures, Wire};
use super::rules::{Rules, refused};
use super::{
    ExportOrder, KeyProblem, Manner, MirrorOrder, MirrorState, Mode, PromoteOrder, RecordError, Replication,
    ReplicationError,
};
use crate::pki::files::IdentityFiles;
use crate::workload::{Doing, Place, VolumeAt};
use quorum::id::{Epoch, Generation, GroupName};
use quorum::mutants;
use serde::{Deserialize, Serialize};
use source::Source;
use standby::Standby;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What the cluster spec says about a volume replicated by this kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NbdSpec {
    /// When writes are answered.
    pub mode: Mode,
    /// The port on which a standby's export listens. Each volume has its own.
    pub port: u16,
    /// Where the volume is found; `{group}`, `{volume}` and `{host}` are filled in.
    pub path: String,
    /// Most bytes of diverged data that are kept before a resync overwrites them.
    #[serde(default = "ten_gib")]
    pub kept_bytes_max: u64,
}

impl NbdSpec {
    /// What is wrong with it beyond its form. What a copy is, is recorded beside it.
    pub fn problem(&self) -> Option<KeyProblem> {
        if !self.path.starts_with('/') {
            let what = format!("{:?} isn't absolute", self.path);
            return Some(KeyProblem::new("path", what, "name the image file from / on"));
        }
        if RecordFile::is_lost_at_boot(&self.path) {
            let what =
                format!("what this copy is gets recorded beside it and must outlive a reboot; {:?} doesn't", self.path);
            let remedy = "use an image file, e.g. path = \"/var/lib/antipode/disks/{group}.raw\", or kind \"command\" with a record of its own";
            return Some(KeyProblem::new("path", what, remedy));
        }
        let is_anywhere = self.port == 0;
        let what = "0 is no port on which a standby can be found".to_owned();
        is_anywhere.then(|| KeyProblem::new("port", what, "write the port of this volume's export, e.g. 10809"))
    }
}

fn ten_gib() -> u64 {
    10 << 30
}

/// One copy of one volume on this host.
#[derive(Clone, Debug)]
pub struct Copy {
    /// The group, this host, its cgroup and runtime folder.
    pub place: Place,
    /// The volume.
    pub volume: VolumeAt,
    /// Where its record lies; usually [`RecordFile::beside`] the volume.
    pub record: PathBuf,
    /// This host's certificate, key, roots and revocation lists.
    pub identity: IdentityFiles,
}

/// The driver.
pub struct Nbd {
    copy: Copy,
    rules: Rules,
    refusals: Refusals,
    source: Arc<Source>,
    standby: Standby,
    door: Arc<Door>,
}

/// The name under which a volume is exported under one epoch. A client asks for exactly one name: an older source asks
/// for a name that isn't served.
pub fn export_name(group: &GroupName, volume: &str, epoch: Epoch) -> String {
    let epoch = if mutants::on("data.export_without_epoch") { 0 } else { epoch.0 };
    format!("{group}.{volume}.e{epoch}")
}

impl Nbd {
    /// A driver for this copy.
    pub fn new(copy: Copy) -> Self {
        let rules = Rules::new(copy.record.clone(), &copy.place.group, &copy.volume.name);
        let door = door::of(&copy.volume.path);
        let refusals = Refusals::of(&copy.place.runtime, &copy.volume.name);
        Self { source: Source::of(&copy), standby: Standby::new(&copy), door, rules, refusals, copy }
    }

    /// The copy that it serves.
    pub fn copy(&self) -> &Copy {
        &self.copy
    }

    /// This copy's record. A standby that answered a write with an error lacks it: it is a mixture from then on.
    fn own_record(&self) -> Result<Option<Record>, RecordError> {
        let there = self.rules.read()?;
        let Some(standby) = there.as_ref().filter(|there| there.role == Role::Standby) else { return Ok(there) };
        let Some(because) = self.refused_write()? else { return Ok(there) };
        tracing::error!(group = %self.copy.place.group, volume = %self.copy.volume.name, %because,
            "this copy refused a write of the source and is no standby until it was compared again");
        self.rules.demote(standby)
    }

    fn refused_write(&self) -> Result<Option<String>, RecordError> {
        let path = || self.refusals.log().to_owned();
        self.refusals.found().map_err(|source| RecordError::File { doing: "read", path: path(), source })
    }

    async fn open_it(&self, order: &ExportOrder) -> Result<(), ReplicationError> {
        // A source of an older epoch is cut off even if this one is refused.
        self.door.shut().await;
        self.standby.close_all_but(order.epoch).await?;
        let record = self.rules.of_export(self.own_record()?, order)?;
        if let Some(record) = &record {
            self.rules.write(record)?;
        }
        self.standby.open(order).await?;
        if record.is_some() {
            // Only a copy that is a mixture anyway may be written beside the export.
            self.door.open(order.epoch, &order.from).await;
        }
        Ok(())
    }

    async fn promote_it(&self, order: &PromoteOrder) -> Result<(), ReplicationError> {
        self.door.shut().await;
        self.standby.close(standby::CLOSE_LIMIT).await?;
        let record = self.rules.of_promotion(self.own_record()?.as_ref(), order)?;
        Ok(self.rules.write(&record)?)
    }
}

impl Replication for Nbd {
    fn record(&self) -> Result<Option<Record>, RecordError> {
        self.own_record()
    }

    fn manner(&self) -> Manner {
        Manner::WithWorkload
    }

    fn adopt(&self, epoch: Epoch, generation: Generation) -> Doing<'_, Result<(), ReplicationError>> {
        Box::pin(async move {
            let record = self.rules.of_birth(epoch, generation)?;
            Ok(record.map_or(Ok(()), |record| self.rules.write(&record))?)
        })
    }

    fn open_export<'a>(&'a self, order: &'a ExportOrder) -> Doing<'a, Result<(), ReplicationError>> {
        Box::pin(self.open_it(order))
    }

    fn mark_standby(&self, epoch: Epoch, generation: Generation) -> Result<(), ReplicationError> {
        if let Some(because) = self.refused_write()? {
            return Err(refused(format!("this copy refused a write of the source, and lacks it: {because}")));
        }
        let record = self.rules.of_standby(epoch, generation)?;
        Ok(self.rules.write(&record)?)
    }

    fn close_export(&self, limit: Duration) -> Doing<'_, Result<(), ReplicationError>> {
        Box::pin(async move {
            self.door.shut().await;
            self.standby.close(limit).await
        })
    }

    fn promote<'a>(&'a self, order: &'a PromoteOrder) -> Doing<'a, Result<(), ReplicationError>> {
        Box::pin(self.promote_it(order))
    }

    fn advance(&self, epoch: Epoch, generation: Generation) -> Result<(), ReplicationError> {
        let record = self.rules.of_reign(epoch)?.at(generation, epoch);
        Ok(self.rules.write(&record)?)
    }

    fn start_mirror<'a>(&'a self, order: &'a MirrorOrder) -> Doing<'a, Result<(), ReplicationError>> {
        Box::pin(async {
            self.rules.of_reign(order.epoch)?;
            self.source.start(order).await
        })
    }

    fn resync<'a>(
        &'a self,
        order: &'a MirrorOrder,
        wire: &'a mut dyn Wire,
    ) -> Doing<'a, Result<Option<Figures>, ReplicationError>> {
        Box::pin(async {
            self.rules.of_reign(order.epoch)?;
            self.source.resync(order, wire).await
        })
    }

    fn recover(&self) -> Doing<'_, Result<(), ReplicationError>> {
        Box::pin(self.source.recover())
    }

    fn mirror_state(&self, stall: Duration) -> Doing<'_, Result<MirrorState, ReplicationError>> {
        Box::pin(self.source.state(stall))
    }

    fn even_out(&self, limit: Duration) -> Doing<'_, Result<bool, ReplicationError>> {
        Box::pin(async move {
            let source = Arc::clone(&self.source);
            // In a task of its own: whoever gives up waiting doesn't leave a guest standing still.
            let evening = tokio::spawn(async move { source.even_out(limit).await });
            evening.await.map_err(|error| ReplicationError::Unknown { because: error.to_string() })?
        })
    }

    fn release_writes(&self) -> Doing<'_, Result<(), ReplicationError>> {
        Box::pin(self.source.release())
    }
}
