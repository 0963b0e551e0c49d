//! The voter under measurement: the product's binary on loopback, with a spec that names every host.

use super::host;
use antipode::pki::authority::Holder;
use antipode::pki::files::{Trust, write_identity};
use antipode::pki::{Authority, Validity};
use quorum::id::{ClusterName, HostName, SiteName};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Where the voter listens.
pub const ADDRESS: &str = "127.0.0.1:17600";

/// What is measured: the program that `ANTIPODE_BIN` names.
fn program() -> PathBuf {
    std::env::var_os("ANTIPODE_BIN").map_or_else(|| env!("CARGO_BIN_EXE_antipode").into(), PathBuf::from)
}

const DAY: Duration = Duration::from_secs(86_400);

/// What the process has cost so far.
pub struct Cost {
    /// Processor time.
    pub seconds: f64,
    /// Resident memory.
    pub resident_mb: f64,
}

/// The running process; dropped, it is killed.
pub struct Voter {
    child: Child,
    socket: PathBuf,
}

impl Drop for Voter {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Voter {
    /// Certificates for everybody, configuration, process, spec in force.
    pub fn start(folder: &Path, hosts: usize) -> Self {
        certificates(folder, hosts);
        let config = folder.join("agent.toml");
        std::fs::write(&config, agent_toml(folder)).expect("a writable folder");
        let log = std::fs::File::create(folder.join("voter.log")).expect("a writable folder");
        let child = Command::new(program())
            .args(["agent", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        let voter = Self { child, socket: folder.join("run/admin.sock") };
        let spec = folder.join("cluster.toml");
        std::fs::write(&spec, cluster_toml(hosts)).expect("a writable folder");
        voter.apply(&spec);
        voter
    }

    fn apply(&self, spec: &Path) {
        let began = Instant::now();
        loop {
            let applied = Command::new(program())
                .args(["apply", "--reason", "benchmark"])
                .arg(spec)
                .arg("--socket")
                .arg(&self.socket)
                .output()
                .expect("the binary starts");
            if applied.status.success() {
                return;
            }
            let said = String::from_utf8_lossy(&applied.stderr).into_owned();
            assert!(began.elapsed() < Duration::from_secs(30), "the spec isn't taken: {said}");
            std::thread::park_timeout(Duration::from_millis(200));
        }
    }

    /// By /proc.
    pub fn cost(&self) -> Cost {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/{}/{name}", self.child.id())).expect("it runs");
        let stat = read("stat");
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks: f64 = fields[11..13].iter().map(|field| field.parse::<f64>().expect("a number")).sum();
        let status = read("status");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("resident memory");
        let kilobytes: f64 = resident.trim().trim_end_matches(" kB").trim().parse().expect("a number");
        // SAFETY: asks for a number.
        let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
        Cost { seconds: ticks / per_second, resident_mb: kilobytes / 1_000.0 }
    }
}

fn certificates(folder: &Path, hosts: usize) {
    let cluster = ClusterName::new("thousand").expect("a name");
    let authority =
        Authority::create(&folder.join("authority"), &cluster, Validity::from_now(DAY * 30)).expect("an authority");
    let trust = Trust::of(&authority).expect("an authority");
    let names = std::iter::once(("voter".to_owned(), "w")).chain((0..hosts).map(|n| (host::name(n), host::site(n))));
    for (name, site) in names {
        let holder =
            Holder::Host { host: HostName::new(&name).expect("a name"), site: SiteName::new(site).expect("a name") };
        let certified = authority.issue(&holder, Validity::from_now(DAY)).expect("a certificate");
        write_identity(&folder.join("tls").join(&name), &certified, None, &trust).expect("a writable folder");
    }
}

fn agent_toml(folder: &Path) -> String {
    let at = folder.display();
    format!(
        r#"cluster = "thousand"
host = "voter"
site = "w"
data_dir = "{at}/data"
run_dir = "{at}/run"
[network]
listen = ["{ADDRESS}"]
[tls]
ca = "{at}/tls/voter/ca.pem"
cert = "{at}/tls/voter/identity.pem"
key = "{at}/tls/voter/identity.pem"
[voter]
id = 1
"#
    )
}

fn cluster_toml(hosts: usize) -> String {
    let mut text = String::from(
        "[cluster]\nname = \"thousand\"\nlab = true\nbeat = \"1s\"\nround_trip_max = \"40ms\"\n\
         [[site]]\nname = \"a\"\n[[site]]\nname = \"b\"\n[[site]]\nname = \"w\"\nwitness = true\n",
    );
    let _ = writeln!(text, "[[host]]\nname = \"voter\"\nsite = \"w\"\naddresses = [\"{ADDRESS}\"]");
    for n in 0..hosts {
        let (name, site, address) = (host::name(n), host::site(n), host::address(n));
        let _ = writeln!(
            text,
            "[[host]]\nname = \"{name}\"\nsite = \"{site}\"\naddresses = [\"{address}\"]\nfencing = [[\"self\"]]"
        );
    }
    text
}
