//! Kind `command` with the replicator of `examples/adapters`: real bytes from one folder to another over TLS, by real
//! processes; and what the contract says of one that was broken on purpose.

use super::bench::{PATIENCE, Scratch, adapter, epoch, need, run};
use super::pair::{BLOCK, SOURCE, STANDBY, free_address, identity_from};
use antipode::pki::{Authority, Validity};
use antipode::replication::command::{CommandReplication, CommandSpec, Copy};
use antipode::replication::contract::{Bench, check};
use antipode::replication::record::{RecordFile, Role};
use antipode::replication::resync::CHUNK;
use antipode::replication::resync::kept::KeptStore;
use antipode::replication::{
    AcceptedLoss, ExportBegin, ExportOrder, MirrorBegin, MirrorOrder, MirrorState, Mode, PromoteOrder, Replication,
    ReplicationError,
};
use antipode::workload::{Doing, VolumeAt};
use quorum::id::{Epoch, Generation};
use serde_json::json;
use std::fs::{self, OpenOptions};
use std::net::SocketAddr;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::time::Duration;

const VOLUME_BYTES: u64 = 4 << 20;
const FIRST: Generation = Generation(1);
const STALL: Duration = Duration::from_millis(200);
/// Longer than a living standby takes to answer, however busy the machine.
const CUT_OFF: Duration = Duration::from_secs(10);

/// Two hosts on one machine, each with a copy that the adapter serves.
struct Hosts {
    scratch: Scratch,
    program: String,
    address: SocketAddr,
    /// Where the volumes lie, if not in the scratch folder.
    disk: Option<PathBuf>,
}

impl Hosts {
    fn new(program: String, scratch: Scratch) -> Self {
        need("python3", "python3");
        let day = Validity::from_now(Duration::from_secs(24 * 3600));
        let authority = Authority::create(&scratch.path("ca"), &"erp-geo".parse().unwrap(), day).unwrap();
        for host in [SOURCE, STANDBY] {
            identity_from(&authority, host, scratch.path(&format!("pki-{host}")));
        }
        Self { program, address: free_address(), scratch, disk: None }
    }

    fn honest() -> Self {
        Self::new(adapter("ship-rounds"), Scratch::new())
    }

    /// The example with a part of it replaced.
    fn broken(changes: &[(&str, &str)]) -> Self {
        let scratch = Scratch::new();
        let mut text = fs::read_to_string(adapter("ship-rounds")).unwrap();
        for (honest, broken) in changes {
            assert!(text.contains(honest), "the adapter has changed: {honest}");
            text = text.replace(honest, broken);
        }
        let path = scratch.path("broken-ship-rounds");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self::new(path.display().to_string(), scratch)
    }

    fn volume(&self, host: &str) -> VolumeAt {
        let Some(disk) = &self.disk else { return self.scratch.volume(host, VOLUME_BYTES) };
        let path = disk.join(format!("{host}.raw"));
        if !path.exists() {
            fs::File::create(&path).unwrap().set_len(VOLUME_BYTES).unwrap();
        }
        VolumeAt { name: "root".into(), path }
    }

    fn driver(&self, host: &str) -> CommandReplication {
        let pki = self.scratch.path("pki-{host}");
        let file = |name: &str| pki.join(name);
        // Rounds are sent when they are asked for, and hardly ever by themselves.
        let params = json!({ "identity": file("identity.pem"), "ca": file("ca.pem"), "crl": file("crl.pem"),
            "every_seconds": 600 });
        let spec =
            json!({ "mode": "async", "program": self.program, "path": "/", "look_seconds": 60, "params": params });
        let spec: CommandSpec = serde_json::from_value(spec).unwrap();
        let volume = self.volume(host);
        let (record, kept) =
            (RecordFile::beside(&volume.path), KeptStore::new(self.scratch.path(&format!("kept-{host}"))));
        CommandReplication::new(Copy { place: self.scratch.place(host), volume, record, kept }, spec)
    }

    fn write_at(&self, host: &str, block: u64, byte: u8) {
        let file = OpenOptions::new().write(true).open(self.volume(host).path).unwrap();
        file.write_all_at(&vec![byte; usize::try_from(BLOCK).unwrap()], block * BLOCK).unwrap();
    }

    /// The byte that a block begins with, read past the page cache.
    fn byte_at(&self, host: &str, block: u64) -> u8 {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(self.volume(host).path).unwrap();
        let mut buffer = vec![0_u8; 8192];
        let start = buffer.as_ptr().align_offset(4096);
        file.read_exact_at(&mut buffer[start..start + 4096], block * BLOCK).unwrap();
        buffer[start]
    }

    fn export_from(&self, from: &str, epoch: Epoch, begin: ExportBegin) -> ExportOrder {
        ExportOrder { epoch, from: from.parse().unwrap(), listen: self.address, begin }
    }

    fn mirror_to(&self, to: &str, epoch: Epoch) -> MirrorOrder {
        let to = to.parse().unwrap();
        MirrorOrder { epoch, to, target: self.address, mode: Mode::Async, begin: MirrorBegin::Whole }
    }

    /// The source mirrors to the standby, which has everything.
    async fn in_sync(&self) {
        self.driver(SOURCE).adopt(epoch(1), FIRST).await.unwrap();
        let order = self.export_from(SOURCE, epoch(1), ExportBegin::Afresh);
        self.driver(STANDBY).open_export(&order).await.unwrap();
        self.driver(SOURCE).start_mirror(&self.mirror_to(STANDBY, epoch(1))).await.unwrap();
        assert!(self.driver(SOURCE).even_out(PATIENCE).await.unwrap());
        self.driver(STANDBY).mark_standby(epoch(1), FIRST).unwrap();
    }

    /// Whether something of the standby's receiving end is alive.
    fn is_received(&self) -> bool {
        let cgroup = self.scratch.place(STANDBY).cgroup.with_file_name(format!("{STANDBY}+export.root"));
        fs::read_to_string(cgroup.join("cgroup.events")).unwrap().lines().any(|line| line == "populated 1")
    }

    fn assert_identical(&self) {
        let (a, b) = (fs::read(self.volume(SOURCE).path).unwrap(), fs::read(self.volume(STANDBY).path).unwrap());
        assert!(a == b, "the copies differ");
    }
}

impl Bench for Hosts {
    fn source(&self) -> Box<dyn Replication> {
        Box::new(self.driver(SOURCE))
    }
    fn standby(&self) -> Box<dyn Replication> {
        Box::new(self.driver(STANDBY))
    }
    fn export(&self, epoch: Epoch, begin: ExportBegin) -> ExportOrder {
        self.export_from(SOURCE, epoch, begin)
    }
    fn mirror(&self, epoch: Epoch, begin: MirrorBegin) -> MirrorOrder {
        MirrorOrder { begin, ..self.mirror_to(STANDBY, epoch) }
    }
    fn write(&self, block: u64, byte: u8) -> Doing<'_, Result<(), String>> {
        Box::pin(async move {
            self.write_at(SOURCE, block, byte);
            Ok(())
        })
    }
    fn standby_byte(&self, block: u64) -> u8 {
        self.byte_at(STANDBY, block)
    }
}

fn promotion(count: u64) -> PromoteOrder {
    PromoteOrder { epoch: epoch(count), generation: FIRST, not_before: Epoch(0), accepted: AcceptedLoss::Nothing }
}

#[tokio::test]
async fn the_replicator_of_the_examples_keeps_the_contract() {
    check(&Hosts::honest()).await.unwrap_or_else(|claim| panic!("{claim}"));
}

/// Parts of the example, and what stands there instead.
type Changes = &'static [(&'static str, &'static str)];

/// What the suite is worth: an adapter that breaks a promise breaks the claim that is about it.
const BROKEN: [(&str, Changes, &str); 3] = [
    ("lets in a source of any epoch", &[("\"epoch\": self.ask[\"epoch\"], ", "")], "an older source finds nothing"),
    (
        "says that a round is on disk which it never wrote",
        &[("self.stage.settle(Busy(line).tick)", "os.unlink(self.stage.path)")],
        "what was there before is at the standby",
    ),
    (
        "says that it is less behind than it is",
        &[("behind = math.ceil((now() - self.even_at) * 1000)", "behind = 0"), ("asked = now()", "asked = 0.0")],
        "what is written later is at the standby",
    ),
];

#[tokio::test]
async fn an_adapter_that_breaks_a_promise_fails_the_contract() {
    let mut wrong = Vec::new();
    for (fault, changes, expected) in BROKEN {
        match check(&Hosts::broken(changes)).await {
            Err(claim) if claim.contains(expected) => println!("{fault}: {claim}"),
            other => wrong.push(format!("{fault}: expected {expected:?}, got {other:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// An adapter whose receiving end outlives its word.
const NEVER_CLOSES: (&str, &str) = ("    Daemon(ask, \"export\").kill(limit_of(ask))\n    Stage", "    Stage");

/// Whether a write arrives at a copy whose export was closed. It is waited for until it did, or the source is cut off.
async fn arrives_after_close(hosts: &Hosts) -> bool {
    hosts.in_sync().await;
    hosts.driver(STANDBY).close_export(PATIENCE).await.unwrap();
    hosts.write_at(SOURCE, 3, 0xbb);
    let (source, other) = (hosts.driver(SOURCE), hosts.driver(SOURCE));
    let is_there = || hosts.byte_at(STANDBY, 3) == 0xbb;
    let is_known = super::bench::until("the write arrived, or the source is cut off", async || {
        is_there() || matches!(other.mirror_state(CUT_OFF).await, Ok(MirrorState::Away { .. }))
    });
    tokio::select! {
        biased;
        () = is_known => {}
        evened = source.even_out(PATIENCE) => println!("evened out: {evened:?}"),
    }
    is_there()
}

#[tokio::test]
async fn an_export_that_its_adapter_only_says_is_closed_is_closed_by_the_kernel() {
    assert!(!arrives_after_close(&Hosts::broken(&[NEVER_CLOSES])).await);
}

#[tokio::test]
#[cfg(feature = "mutants")]
async fn an_export_that_is_taken_for_closed_on_the_adapters_word_alone_is_noticed() {
    let _planted = quorum::mutants::plant("data.closed_by_word_alone");
    assert!(arrives_after_close(&Hosts::broken(&[NEVER_CLOSES])).await);
}

#[tokio::test]
async fn a_round_that_was_interrupted_is_there_as_a_whole_or_not_at_all() {
    // The receiver dies in the middle of a round: while it stages it, and when it is staged and half written.
    let die = "os.kill(os.getpid(), signal.SIGKILL)";
    let while_staged = (
        "                file.write(data)\n            if whole",
        &format!("                {die}\n            if whole"),
    );
    let half_written = (
        "                if number % FORCE_EVERY == 0:",
        &format!(
            "                if number == 1 and sys.argv[1:] == ['--export']: {die}\n                if number % FORCE_EVERY == 0:"
        ),
    );
    for ((honest, broken), is_there) in [(while_staged, false), (half_written, true)] {
        let hosts = Hosts::broken(&[(honest, broken)]);
        hosts.driver(SOURCE).adopt(epoch(1), FIRST).await.unwrap();
        let order = hosts.export_from(SOURCE, epoch(1), ExportBegin::Afresh);
        hosts.driver(STANDBY).open_export(&order).await.unwrap();
        hosts.write_at(SOURCE, 1, 0xc1);
        hosts.write_at(SOURCE, 2, 0xc2);
        let started = hosts.driver(SOURCE).start_mirror(&hosts.mirror_to(STANDBY, epoch(1))).await;
        println!("{is_there}: {started:?}");
        super::bench::until("the receiver died", async || !hosts.is_received()).await;
        hosts.driver(STANDBY).close_export(PATIENCE).await.unwrap();
        let found = [hosts.byte_at(STANDBY, 1), hosts.byte_at(STANDBY, 2)];
        assert_eq!(found, if is_there { [0xc1, 0xc2] } else { [0, 0] });
    }
}

#[tokio::test]
async fn a_source_that_comes_back_as_a_standby_keeps_what_only_it_has() {
    let hosts = Hosts::honest();
    hosts.in_sync().await;
    // The source is lost; what it wrote last never left it.
    hosts.write_at(SOURCE, 4, 0xd4);
    hosts.driver(STANDBY).promote(&promotion(2)).await.unwrap();
    hosts.write_at(STANDBY, 5, 0xd5);
    hosts.driver(SOURCE).open_export(&hosts.export_from(STANDBY, epoch(2), ExportBegin::Afresh)).await.unwrap();
    // The mirror of its own reign is gone with that.
    assert_eq!(hosts.driver(SOURCE).mirror_state(STALL).await.unwrap(), MirrorState::Detached { because: None });
    let back = hosts.driver(STANDBY);
    back.start_mirror(&hosts.mirror_to(SOURCE, epoch(2))).await.unwrap();
    assert!(back.even_out(PATIENCE).await.unwrap());
    hosts.driver(SOURCE).mark_standby(epoch(2), FIRST).unwrap();
    hosts.assert_identical();
    let sets = KeptStore::new(hosts.scratch.path(&format!("kept-{SOURCE}"))).list().unwrap();
    assert_eq!(sets.len(), 1, "{sets:?}");
    assert_eq!((sets[0].bytes, sets[0].origin.replaced_under), (2 * CHUNK as u64, epoch(2)));
    let kept = fs::read(sets[0].path.join("data")).unwrap();
    let at = |block: u64| kept[usize::try_from(block * BLOCK).unwrap()];
    assert_eq!((at(4), at(5)), (0xd4, 0));
}

#[tokio::test]
async fn a_stranger_and_a_host_that_is_not_the_source_are_not_let_in() {
    let hosts = Hosts::honest();
    hosts.driver(SOURCE).adopt(epoch(1), FIRST).await.unwrap();
    hosts.write_at(SOURCE, 1, 0xee);
    let start = hosts.mirror_to(STANDBY, epoch(1));
    // The export waits for another host; then the source's certificate is one of another authority.
    hosts.driver(STANDBY).open_export(&hosts.export_from("tk-k9", epoch(1), ExportBegin::Afresh)).await.unwrap();
    let refused = hosts.driver(SOURCE).start_mirror(&start).await;
    assert!(matches!(refused, Err(ReplicationError::Unreachable { .. })), "{refused:?}");
    hosts.driver(STANDBY).open_export(&hosts.export_from(SOURCE, epoch(1), ExportBegin::Afresh)).await.unwrap();
    let day = Validity::from_now(Duration::from_secs(24 * 3600));
    let other = Authority::create(&hosts.scratch.path("other-ca"), &"erp-geo".parse().unwrap(), day).unwrap();
    let pki = hosts.scratch.path(&format!("pki-{SOURCE}"));
    fs::rename(&pki, hosts.scratch.path("own")).unwrap();
    identity_from(&other, SOURCE, pki.clone());
    fs::copy(hosts.scratch.path("own/ca.pem"), pki.join("ca.pem")).unwrap();
    fs::copy(hosts.scratch.path("own/crl.pem"), pki.join("crl.pem")).unwrap();
    let refused = hosts.driver(SOURCE).start_mirror(&start).await;
    assert!(matches!(refused, Err(ReplicationError::Unreachable { .. })), "{refused:?}");
    assert_eq!(hosts.byte_at(STANDBY, 1), 0, "nothing of it arrived");
    assert_eq!(hosts.driver(STANDBY).record().unwrap().map(|record| record.role), Some(Role::Syncing));
}

/// A file system with reflinks: a round is had while the volume is written without a pause.
struct Xfs(PathBuf);

impl Drop for Xfs {
    fn drop(&mut self) {
        let _gone = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_volume_that_is_written_all_the_time_has_rounds_where_reflinks_are() {
    need("mkfs.xfs", "xfsprogs");
    let mut hosts = Hosts::honest();
    let (image, disk) = (hosts.scratch.path("xfs.img"), hosts.scratch.path("xfs"));
    fs::File::create(&image).unwrap().set_len(400 << 20).unwrap();
    fs::create_dir(&disk).unwrap();
    run(&["mkfs.xfs", "-q", "-m", "reflink=1", &image.to_string_lossy()]);
    run(&["mount", "-o", "loop", &image.to_string_lossy(), &disk.to_string_lossy()]);
    let _mounted = Xfs(disk.clone());
    hosts.disk = Some(disk);
    assert!(evened_under_writing(&hosts).await);
    hosts.driver(SOURCE).release_writes().await.unwrap();
    hosts.driver(STANDBY).close_export(PATIENCE).await.unwrap();
}

async fn evened_under_writing(hosts: &Hosts) -> bool {
    hosts.in_sync().await;
    let path = hosts.volume(SOURCE).path;
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let writing = std::thread::spawn(move || {
        let file = OpenOptions::new().write(true).open(path).unwrap();
        let mut count = 0_u64;
        while let Err(std::sync::mpsc::TryRecvError::Empty) = stopped.try_recv() {
            count += 1;
            file.write_all_at(&count.to_le_bytes(), 7 * BLOCK).unwrap();
        }
    });
    let source = hosts.driver(SOURCE);
    let is_even = source.even_out(PATIENCE).await;
    drop(stop);
    writing.join().unwrap();
    is_even.unwrap()
}
