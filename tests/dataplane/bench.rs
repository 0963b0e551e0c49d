//! A scratch place for one test: a folder, a cgroup, and the certainty that nothing outlives the test.

use antipode::workload::{Begin, Place, StartOrder, VolumeAt};
use quorum::id::{Epoch, Era, HostEpoch};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Generous: the machine may be busy with other work. Waits end with their condition.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How often a condition is looked at.
pub const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Fails the test with the package's name if a program is missing.
pub fn need(program: &str, package: &str) {
    let found = antipode::command::Program::find(program);
    assert!(found.is_ok(), "program {program} is missing: install Debian's package {package}");
}

/// Waits for a condition.
pub async fn until<F: AsyncFnMut() -> bool>(what: &str, mut condition: F) {
    let start = Instant::now();
    let mut look = tokio::time::interval(LOOK_EVERY);
    while !condition().await {
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain: {what}");
        look.tick().await;
    }
}

/// Runs a program to its end and returns what it printed; anything but success fails the test.
pub fn run(line: &[&str]) -> String {
    let output = Command::new(line[0]).args(&line[1..]).output().unwrap_or_else(|e| panic!("{line:?}: {e}"));
    assert!(output.status.success(), "{line:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// One test's scratch place. Dropping it kills everything in its cgroup.
pub struct Scratch {
    pub folder: tempfile::TempDir,
    cgroups: PathBuf,
}

impl Scratch {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        assert!(rustix_is_root(), "the data plane's tests need root");
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let cgroups = cgroup_mount().join(format!("antipode-test-{}-{number}", std::process::id()));
        fs::create_dir(&cgroups).unwrap_or_else(|e| panic!("make cgroup {}: {e}", cgroups.display()));
        let folder = tempfile::Builder::new().prefix("apd-").tempdir().unwrap();
        Self { folder, cgroups }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A cgroup of its own for one side of the test.
    pub fn cgroup(&self, name: &str) -> PathBuf {
        let folder = self.cgroups.join(name);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    /// The place of group `erp` on a host of this name.
    pub fn place(&self, host: &str) -> Place {
        Place {
            group: "erp".parse().unwrap(),
            host: host.parse().unwrap(),
            cgroup: self.cgroup(host),
            pinned: self.cgroup(&format!("pinned-{host}")),
            runtime: self.path(&format!("run-{host}")),
        }
    }

    /// A blank raw volume.
    pub fn volume(&self, host: &str, bytes: u64) -> VolumeAt {
        let path = self.path(&format!("{host}.raw"));
        if !path.exists() {
            fs::File::create(&path).unwrap().set_len(bytes).unwrap();
        }
        VolumeAt { name: "root".into(), path }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        end_cgroup(&self.cgroups);
    }
}

fn end_cgroup(folder: &Path) {
    let _ = fs::write(folder.join("cgroup.kill"), "1");
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            end_cgroup(&entry.path());
        }
    }
    // A cgroup can be removed once the last of the killed is gone.
    let start = Instant::now();
    while fs::remove_dir(folder).is_err() && folder.exists() && start.elapsed() < Duration::from_secs(10) {
        std::thread::park_timeout(LOOK_EVERY);
    }
}

fn rustix_is_root() -> bool {
    fs::read_to_string("/proc/self/status").unwrap().lines().any(|line| line.starts_with("Uid:\t0\t0"))
}

/// Where cgroup version 2 is mounted: `/sys/fs/cgroup`, or beside version 1.
fn cgroup_mount() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let found = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|words| words[2] == "cgroup2");
    PathBuf::from(found.expect("a mounted cgroup version 2")[1])
}

/// An epoch of the first era.
pub fn epoch(count: u64) -> Epoch {
    Epoch::in_era(Era(1), count)
}

/// An order that can be carried out.
pub fn order(epoch: Epoch, begin: Begin, volumes: Vec<VolumeAt>) -> StartOrder {
    StartOrder { epoch, host_epoch: HostEpoch::in_era(Era(1), 3), volumes, begin, limit: PATIENCE }
}

/// The path of an example adapter in this repository, made executable.
pub fn adapter(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/adapters").join(name);
    let mode = fs::metadata(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).permissions().mode();
    assert!(mode & 0o111 != 0, "{} is not executable", path.display());
    path.canonicalize().unwrap().display().to_string()
}
