//! The standby's end: one `qemu-storage-daemon` per volume, serving exactly one export of one epoch to one host.
//!
//! Durable before answered: the image bypasses the page cache (`cache.direct`), and the export flushes every write before
//! it answers (`writethrough`). An error that it answers is logged first. The export's name carries the epoch, and the
//! epoch in force is read back from the daemon's own command line.
//!
//! Closing is killing: the daemon is sent SIGKILL and waited for until its last thread is gone, so that no write of it
//! is under way. Its listening socket and connections end with it; the source sees a lost connection and waits.

use super::tls::{PRIORITY, distinguished_name, lay_out};
use super::{Copy, export_name};
use crate::command::daemon::{self, Daemon};
use crate::command::{Invocation, Program};
use crate::replication::refusals::{Refusals, TRACED};
use crate::replication::{ExportBegin, ExportOrder, ReplicationError};
use crate::workload::qemu::args::is_volume_name;
use quorum::id::Epoch;
use serde_json::json;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The program that serves a copy, from Debian's package `qemu-system-common` or `qemu-utils`.
pub const STORAGE_DAEMON: &str = "qemu-storage-daemon";

/// How long a killed daemon may take to be gone: its last write has to come back from the disk.
pub const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// How long a daemon may take to listen. It needs some 30 ms.
const OPEN_LIMIT: Duration = Duration::from_secs(20);

/// A source has one connection, and perhaps some that it lost and that aren't known to be lost here.
const CONNECTIONS_MAX: u32 = 100;

pub(super) struct Standby {
    copy: Copy,
    pid_file: PathBuf,
    tls: PathBuf,
    refusals: Refusals,
}

impl Standby {
    pub(super) fn new(copy: &Copy) -> Self {
        let (folder, volume) = (&copy.place.runtime, &copy.volume.name);
        let pid_file = folder.join(format!("export-{volume}.pid"));
        let refusals = Refusals::of(folder, volume);
        Self { refusals, pid_file, tls: folder.join(format!("tls-export-{volume}")), copy: copy.clone() }
    }

    fn find(&self) -> Result<Vec<Daemon>, String> {
        daemon::find(STORAGE_DAEMON.get(..15).unwrap_or(STORAGE_DAEMON), "--pidfile", &self.pid_file)
    }

    /// Ends whatever serves this volume.
    pub(super) async fn close(&self, limit: Duration) -> Result<(), ReplicationError> {
        let closed = daemon::end_all(limit, || self.find()).await;
        closed
            .map(drop)
            .map_err(|because| ReplicationError::Unknown { because: format!("close the export: {because}") })
    }

    /// Ends whatever serves this volume under another epoch.
    pub(super) async fn close_all_but(&self, epoch: Epoch) -> Result<(), ReplicationError> {
        let name = self.export_argument(epoch);
        let others = || {
            let found = self.find()?;
            Ok(found.into_iter().filter(|daemon| daemon.arg_after("--export") != Some(name.as_str())).collect())
        };
        let closed = daemon::end_all(CLOSE_LIMIT, others).await;
        closed.map(drop).map_err(|because| ReplicationError::Unknown { because: format!("close an export: {because}") })
    }

    /// Serves the volume as ordered. One that continues leaves a daemon that does just that alone; one that begins afresh
    /// always has a new daemon: nothing that an older connection still holds may reach the copy.
    pub(super) async fn open(&self, order: &ExportOrder) -> Result<(), ReplicationError> {
        let args = self.command_line(order)?;
        if order.begin == ExportBegin::Continue {
            let found = self.find().map_err(|because| ReplicationError::Unknown { because })?;
            if found.iter().any(|daemon| is_same_line(&daemon.args, &args)) {
                return Ok(());
            }
        }
        self.close(CLOSE_LIMIT).await?;
        let failed = |because: String| ReplicationError::Failed { because: format!("open the export: {because}") };
        std::fs::create_dir_all(&self.copy.place.runtime).map_err(|error| failed(error.to_string()))?;
        self.refusals.keep().map_err(|error| failed(format!("keep what it refused before: {error}")))?;
        lay_out(&self.tls, &self.copy.identity).map_err(failed)?;
        let program = Program::find(STORAGE_DAEMON).map_err(|error| failed(error.to_string()))?;
        let call = Invocation::new(&program, OPEN_LIMIT).args(args).cgroup(&self.copy.place.cgroup);
        let because = match call.run().await {
            Ok(outcome) if outcome.is_success() => return Ok(()),
            Ok(outcome) => outcome.summary(),
            Err(error) => error.to_string(),
        };
        self.close(CLOSE_LIMIT).await?;
        Err(failed(because))
    }

    fn export_argument(&self, epoch: Epoch) -> String {
        let name = export_name(&self.copy.place.group, &self.copy.volume.name, epoch);
        format!("type=nbd,id=copy,node-name=copy,name={name},writable=on,writethrough=on")
    }

    fn command_line(&self, order: &ExportOrder) -> Result<Vec<String>, ReplicationError> {
        let volume = &self.copy.volume;
        if !is_volume_name(&volume.name) {
            return Err(super::refused(format!("{:?} can't be a volume's name", volume.name)));
        }
        let unreadable = |error| super::refused(format!("volume {}: {error}", volume.path.display()));
        let kind = std::fs::metadata(&volume.path).map_err(unreadable)?.file_type();
        let driver = if kind.is_block_device() { "host_device" } else { "file" };
        let cache = json!({ "direct": true, "no-flush": false });
        let protocol = json!({ "driver": driver, "node-name": "image", "filename": volume.path, "locking": "on",
            "cache": cache });
        let format = json!({ "driver": "raw", "node-name": "copy", "file": "image", "cache": cache });
        let server = json!({ "addr": { "type": "inet", "host": order.listen.ip().to_string(),
            "port": order.listen.port().to_string() }, "tls-creds": "tls", "tls-authz": "source",
            "max-connections": CONNECTIONS_MAX });
        let tls = format!(
            "tls-creds-x509,id=tls,endpoint=server,verify-peer=on,priority={PRIORITY},dir={}",
            escape(&self.tls)
        );
        let authz = format!("authz-simple,id=source,identity={}", distinguished_name(&order.from));
        let trace = format!("enable={TRACED},file={}", escape(self.refusals.log()));
        let line = [
            ("--trace", trace),
            ("--object", tls),
            ("--object", authz),
            ("--blockdev", protocol.to_string()),
            ("--blockdev", format.to_string()),
            ("--nbd-server", server.to_string()),
            ("--export", self.export_argument(order.epoch)),
            ("--pidfile", self.pid_file.display().to_string()),
        ];
        let mut args: Vec<String> = line.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect();
        args.push("--daemonize".into());
        Ok(args)
    }
}

/// True if a process was started with these arguments.
fn is_same_line(line: &[String], args: &[String]) -> bool {
    line.get(1..=args.len()) == Some(args)
}

fn escape(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}
