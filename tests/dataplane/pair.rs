//! A source whose guest is paused and written through QEMU's monitor, and a standby, on one machine.

use super::bench::{LOOK_EVERY, PATIENCE, Scratch, epoch, need, order, until};
use super::workload::small_guest;
use antipode::pki::{Authority, Certified, IdentityFiles, Validity, files};
use antipode::replication::contract::Bench;
use antipode::replication::nbd::{Copy, Nbd};
use antipode::replication::record::RecordFile;
use antipode::replication::{
    ExportBegin, ExportOrder, MirrorBegin, MirrorOrder, MirrorState, Mode, Replication, ReplicationError,
};
use antipode::workload::qemu::Qemu;
use antipode::workload::qemu::args::drive_device;
use antipode::workload::qemu::qmp::Qmp;
use antipode::workload::{Begin, Doing, Place, VolumeAt, Workload, WorkloadError};
use quorum::id::{Epoch, Generation};
use serde_json::{Value, json};
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;

pub const SOURCE: &str = "tk-k1";
pub const STANDBY: &str = "os-k1";
pub const BLOCK: u64 = 64 << 10;
pub const VOLUME_BYTES: u64 = 16 << 20;

pub struct Pair {
    pub scratch: Scratch,
    pub authority: Authority,
    _guest: Qemu,
    pub address: SocketAddr,
    /// QEMU's third monitor: the test's own.
    pub monitor: Qmp,
}

impl Pair {
    /// A running source under `reign`, and a blank standby.
    pub async fn new(reign: Epoch) -> Self {
        need("qemu-storage-daemon", "qemu-utils");
        let scratch = Scratch::new();
        let authority = Authority::create(&scratch.path("ca"), &"erp-geo".parse().unwrap(), validity()).unwrap();
        let guest = Qemu::new(scratch.place(SOURCE), small_guest(""));
        let volume = scratch.volume(SOURCE, VOLUME_BYTES);
        let begin = order(reign, Begin::Paused, vec![volume]);
        // As the runner does it: any QEMU of this machine that is just ending may be this one, and then nobody can tell.
        until("the guest is begun", async || match guest.start(&begin).await {
            Err(WorkloadError::Unknown { .. }) => false,
            begun => begun.map(|_| true).unwrap(),
        })
        .await;
        let monitor = Qmp::connect(&guest.runtime().spare(), PATIENCE).await.unwrap();
        Self { address: free_address(), scratch, authority, _guest: guest, monitor }
    }

    /// A pair that is in sync under `reign`.
    pub async fn in_sync(reign: Epoch) -> Self {
        let pair = Self::new(reign).await;
        pair.nbd(SOURCE).adopt(reign, Generation(1)).await.unwrap();
        pair.nbd(STANDBY).open_export(&pair.export_for(reign, ExportBegin::Afresh)).await.unwrap();
        pair.nbd(SOURCE).start_mirror(&pair.mirror_for(reign)).await.unwrap();
        pair.until_synced().await;
        pair.nbd(STANDBY).mark_standby(reign, Generation(1)).unwrap();
        pair
    }

    pub async fn until_synced(&self) {
        let source = self.nbd(SOURCE);
        until("the mirror is even", async || {
            let state = match source.mirror_state(PATIENCE).await {
                Err(ReplicationError::Unknown { .. }) => return false,
                told => told.unwrap(),
            };
            assert!(!matches!(state, MirrorState::Detached { .. }), "{state:?}");
            matches!(state, MirrorState::Synced { pending_bytes: 0, .. })
        })
        .await;
    }

    /// Issues an identity by the pair's authority.
    pub fn identity(&self, host: &str) -> IdentityFiles {
        identity_from(&self.authority, host, self.scratch.path(&format!("pki-{host}")))
    }

    pub fn copy(&self, host: &str) -> Copy {
        let volume = self.volume(host);
        let record = RecordFile::beside(&volume.path);
        Copy { place: self.place(host), volume, record, identity: self.identity(host) }
    }

    pub fn nbd(&self, host: &str) -> Nbd {
        Nbd::new(self.copy(host))
    }

    pub fn place(&self, host: &str) -> Place {
        self.scratch.place(host)
    }

    pub fn volume(&self, host: &str) -> VolumeAt {
        self.scratch.volume(host, VOLUME_BYTES)
    }

    pub fn export_for(&self, epoch: Epoch, begin: ExportBegin) -> ExportOrder {
        ExportOrder { epoch, from: SOURCE.parse().unwrap(), listen: self.address, begin }
    }

    pub fn mirror_for(&self, epoch: Epoch) -> MirrorOrder {
        let to = STANDBY.parse().unwrap();
        MirrorOrder { epoch, to, target: self.address, mode: Mode::Sync, begin: MirrorBegin::Whole }
    }

    /// The process that serves the standby's copy.
    pub fn export_pid(&self) -> i32 {
        let file = self.place(STANDBY).runtime.join("export-root.pid");
        fs::read_to_string(file).unwrap().trim().parse().unwrap()
    }

    /// Begins a write through the guest's drive and returns at once.
    pub async fn begin_write(&self, block: u64, byte: u8) {
        let at = block * BLOCK;
        let line = format!("qemu-io -d {} \"aio_write -q -P {byte} {at} {BLOCK}\"", drive_device("root"));
        let said = self.monitor.call("human-monitor-command", json!({ "command-line": line })).await.unwrap();
        assert_eq!(said, json!(""), "qemu-io");
    }

    /// How many writes of the guest's drive were answered so far.
    pub async fn answered(&self) -> u64 {
        let stats: Vec<Value> = self.monitor.query("query-blockstats", json!({})).await.unwrap();
        stats.iter().filter_map(|drive| drive.pointer("/stats/wr_operations")?.as_u64()).sum()
    }

    pub async fn write_block(&self, block: u64, byte: u8) {
        let before = self.answered().await;
        self.begin_write(block, byte).await;
        let start = std::time::Instant::now();
        let mut look = tokio::time::interval(LOOK_EVERY);
        while self.answered().await == before {
            assert!(start.elapsed() < PATIENCE, "a write isn't answered");
            look.tick().await;
        }
    }

    /// The byte that a block of a host's copy begins with, read past the page cache.
    pub fn byte_at(&self, host: &str, block: u64) -> u8 {
        let path = self.volume(host).path;
        let file = fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path).unwrap();
        let mut buffer = vec![0_u8; 8192];
        let start = buffer.as_ptr().align_offset(4096);
        let count =
            std::os::unix::fs::FileExt::read_at(&file, &mut buffer[start..start + 4096], block * BLOCK).unwrap();
        assert_eq!(count, 4096);
        buffer[start]
    }

    /// Both images are equal, says qemu-img. The guest must not be writing.
    pub fn assert_identical(&self) {
        need("qemu-img", "qemu-utils");
        let (a, b) = (self.volume(SOURCE).path, self.volume(STANDBY).path);
        let output = std::process::Command::new("qemu-img")
            .args(["compare", "-U", "-f", "raw", "-F", "raw"])
            .args([&a, &b])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

impl Bench for Pair {
    fn source(&self) -> Box<dyn Replication> {
        Box::new(self.nbd(SOURCE))
    }
    fn standby(&self) -> Box<dyn Replication> {
        Box::new(self.nbd(STANDBY))
    }
    fn export(&self, epoch: Epoch, begin: ExportBegin) -> ExportOrder {
        self.export_for(epoch, begin)
    }
    fn mirror(&self, epoch: Epoch, begin: MirrorBegin) -> MirrorOrder {
        MirrorOrder { begin, ..self.mirror_for(epoch) }
    }
    fn write(&self, block: u64, byte: u8) -> Doing<'_, Result<(), String>> {
        Box::pin(async move {
            self.write_block(block, byte).await;
            Ok(())
        })
    }
    fn standby_byte(&self, block: u64) -> u8 {
        self.byte_at(STANDBY, block)
    }
}

fn validity() -> Validity {
    Validity::from_now(Duration::from_secs(24 * 3600))
}

pub fn identity_from(authority: &Authority, host: &str, folder: PathBuf) -> IdentityFiles {
    use antipode::pki::authority::Holder;
    use antipode::pki::files::Trust;
    if folder.exists() {
        return IdentityFiles::in_directory(&folder);
    }
    let holder = Holder::Host { host: host.parse().unwrap(), site: "tokyo".parse().unwrap() };
    let certified: Certified = authority.issue(&holder, validity()).unwrap();
    files::write_identity(&folder, &certified, None, &Trust::of(authority).unwrap()).unwrap()
}

pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

pub const REIGN: u64 = 7;

pub fn reign() -> Epoch {
    epoch(REIGN)
}
