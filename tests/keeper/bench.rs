//! A lab host with a holder and a keeper, and the agent's hands on it.
//!
//! Everything that a bench started ends with it, also when its test fails.

use antipode::driver::clock;
use antipode::keeper::core::Head;
use antipode::keeper::{ArmedGroup, ArmedSet, GroupCgroup, KeeperLink, Page, PageReader, PageState, Record, SliceRoot};
use antipode::lab::chassis::Panel;
use quorum::id::{Epoch, Era, GroupName, HostEpoch, KeeperInstance};
use quorum::moment::Moment;
use serde_json::Value;
use std::cell::RefCell;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// What the lab's watchdog is set to.
pub const TIMEOUT: Duration = Duration::from_millis(1000);
/// W: the timeout and a tenth.
pub const W: Duration = Duration::from_millis(1100);
/// δ_hw of the keepers here.
pub const DELTA_HW: Duration = Duration::from_millis(50);
/// L for this W (protocol §3).
pub const LEASE: Duration = Duration::from_millis(3700);
/// Longest wait for something that happens at once on a quiet machine.
pub const LIMIT: Duration = Duration::from_secs(60);
/// Ignores every signal that can be ignored, and says so by making a file.
pub const STUBBORN: &str = "trap '' TERM HUP INT QUIT; : > \"$0\"; while :; do sleep 1; done";

static COUNT: AtomicU32 = AtomicU32::new(0);

thread_local! {
    /// Why the run in this thread proves nothing.
    static INVALID: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `test`, again if the hardware's player was late: at most twice.
pub fn valid(test: impl Fn()) {
    require();
    for _ in 0..3 {
        INVALID.take();
        let outcome = catch_unwind(AssertUnwindSafe(&test));
        match (outcome, INVALID.take()) {
            (Ok(()), None) => return,
            (Err(panic), None) => resume_unwind(panic),
            (Ok(()) | Err(_), Some(why)) => eprintln!("{why}: once more"),
        }
    }
    panic!("three runs in a row were invalid: this machine stalls too long to prove anything");
}

/// Fails with the name of what this machine lacks.
pub fn require() {
    assert!(rustix::process::geteuid().is_root(), "these tests need root");
    let root = SliceRoot::find("").expect("these tests need a cgroup2 mount");
    let probe = root.path().join(format!("antipode-probe-{}", std::process::id()));
    std::fs::create_dir_all(&probe).expect("these tests make cgroups");
    let able = probe.join("cgroup.kill").exists() && probe.join("cgroup.freeze").exists();
    std::fs::remove_dir(&probe).ok();
    assert!(able, "these tests need cgroup.kill and cgroup.freeze (Linux 5.14)");
}

/// Waits until `ready` gives something; fails saying `what` never came.
pub fn until<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = ready() {
            return found;
        }
        assert!(begun.elapsed() < LIMIT, "waited {LIMIT:?} for {what}");
        std::thread::park_timeout(Duration::from_millis(3));
    }
}

/// A directory in memory that goes with the value.
pub struct Memory(PathBuf);

impl Memory {
    pub fn new() -> Self {
        let name = format!("antipode-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new("/dev/shm").join(name);
        std::fs::create_dir_all(&path).expect("these tests need a tmpfs at /dev/shm");
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn name(&self) -> &str {
        self.0.file_name().and_then(|name| name.to_str()).expect("it has one")
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// A unit of the host.
pub struct Unit {
    pub name: &'static str,
    pub argv: Vec<String>,
    pub restarts: bool,
}

/// How a bench differs from the usual.
#[derive(Default)]
pub struct Options {
    /// Added to the keeper's arguments.
    pub keeper: Vec<String>,
    /// The keeper is started again when it ends.
    pub keeper_restarts: bool,
    /// There is no holder.
    pub no_holder: bool,
    /// Instead of holder and keeper.
    pub units: Option<Vec<Unit>>,
    /// Added to the chassis' arguments.
    pub chassis: Vec<String>,
}

/// A lab host.
pub struct Bench {
    pub memory: Memory,
    chassis: Option<Child>,
    children: RefCell<Vec<Child>>,
}

pub fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_antipode")
}

impl Bench {
    /// A host that is on; its keeper rests.
    pub fn start(options: Options) -> Self {
        let (own_units, held) = (options.units.is_some(), !options.no_holder);
        let bench = Self::plugged_in(options);
        if !own_units {
            let rests = |page: &Page| page.state == PageState::Idle && page.posture.held == held;
            bench.page_until("the keeper to rest", rests);
        }
        bench
    }

    /// A host whose power is on.
    pub fn plugged_in(options: Options) -> Self {
        let memory = Memory::new();
        let mut bench = Self { memory, chassis: None, children: RefCell::default() };
        let units = bench.units(&options);
        std::fs::write(bench.path("boot.toml"), boot_file(&units)).expect("written");
        let mut command = Command::new(binary());
        command.arg("chassis").arg("--name").arg("host").arg("--control").arg(bench.path("control"));
        command.arg("--boot").arg(bench.path("boot.toml")).arg("--cgroup").arg(bench.cgroup());
        command.arg("--volatile").arg(bench.path("keeper")).arg("--post").arg("100ms");
        command.args(&options.chassis).stdin(Stdio::null());
        // SAFETY: one system call between fork and exec. A test that is killed takes its hardware with it.
        unsafe {
            command.pre_exec(|| nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).map_err(Into::into))
        };
        bench.chassis = Some(command.spawn().expect("a chassis"));
        until("the chassis to answer", || Panel::open(&bench.path("control")).ok());
        bench
    }

    fn units(&self, options: &Options) -> Vec<Unit> {
        if let Some(units) = &options.units {
            let copy = |unit: &Unit| Unit { name: unit.name, argv: self.filled(&unit.argv), restarts: unit.restarts };
            return units.iter().map(copy).collect();
        }
        let dir = self.text("keeper");
        let mut units = Vec::new();
        if !options.no_holder {
            let argv = [binary(), "holder", "--dir", &dir].map(str::to_owned).to_vec();
            units.push(Unit { name: "holder", argv, restarts: true });
        }
        let mut argv = self.filled(&keeper_argv());
        argv.extend(self.filled(&options.keeper));
        if options.no_holder {
            argv.extend(["--holder", "none"].map(str::to_owned));
        }
        units.push(Unit { name: "keeper", argv, restarts: options.keeper_restarts });
        units
    }

    /// `@` stands for the bench's directory, `%` for its cgroup.
    pub fn filled(&self, argv: &[String]) -> Vec<String> {
        let fill =
            |word: &String| word.replace('@', &self.memory.path().to_string_lossy()).replace('%', &self.cgroup());
        argv.iter().map(fill).collect()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.memory.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).to_string_lossy().into_owned()
    }

    pub fn cgroup(&self) -> String {
        self.memory.name().to_owned()
    }

    pub fn root(&self) -> SliceRoot {
        SliceRoot::find(&format!("{}/slice", self.cgroup())).expect("a cgroup2 mount")
    }

    /// Presses a button of the chassis.
    pub fn order(&self, line: &str) -> Value {
        let mut panel = Panel::open(&self.path("control")).expect("the chassis answers");
        panel.order(line).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The processes of a unit, as this machine counts them.
    pub fn pids(&self, unit: &str) -> Vec<i32> {
        let host = SliceRoot::find(&self.cgroup()).expect("a cgroup2 mount");
        let procs = host.path().join("units").join(unit).join("cgroup.procs");
        let text = std::fs::read_to_string(procs).unwrap_or_default();
        text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    }

    /// What the chassis logged under this name.
    pub fn events(&self, name: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path("control.d/log.jsonl")).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["event"] == name).collect()
    }

    /// Waits for the chassis to log this.
    pub fn event(&self, name: &str) -> Value {
        until(name, || self.events(name).into_iter().next())
    }

    /// How often the watchdog fired.
    pub fn fires(&self) -> u64 {
        self.order("status")["watchdog"]["fires"].as_u64().expect("a number")
    }

    pub fn page(&self) -> Option<Page> {
        PageReader::open(&self.path("keeper")).ok()?.page().ok()
    }

    /// Waits for a page of which `is` holds.
    pub fn page_until(&self, what: &str, is: impl Fn(&Page) -> bool) -> Page {
        let mut last = None;
        let found = catch_unwind(AssertUnwindSafe(|| {
            until(what, || {
                last = self.page();
                last.clone().filter(|page| is(page))
            })
        }));
        found.unwrap_or_else(|panic| {
            eprintln!("the last page was {last:#?}\n{}", self.output());
            resume_unwind(panic)
        })
    }

    /// What the units said.
    pub fn output(&self) -> String {
        let read =
            |name: &str| std::fs::read_to_string(self.path(&format!("control.d/{name}.log"))).unwrap_or_default();
        ["holder", "keeper", "fire"].map(|name| format!("{name}: {}", read(name))).join("\n")
    }

    /// Becomes the agent.
    pub fn agent(&self) -> Agent {
        let link = until("a keeper to link to", || KeeperLink::open(&self.path("keeper")).ok());
        let mut agent = Agent { link, sequence: 0, instance: KeeperInstance::default() };
        agent.sequence = agent.link.last().ok().flatten().map_or(0, |record| record.head.sequence);
        agent.instance = agent.page().instance;
        agent
    }

    /// Starts a process in the cgroup of `group` under `he`, and waits until it runs.
    pub fn run_in(&self, he: u64, group: &str, script: &str) -> Running {
        let cgroup = GroupCgroup::make(&self.root(), epoch(he), &name(group)).expect("the group's cgroup");
        let flag = self.path(&format!("flag-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(script).arg(&flag).stdin(Stdio::null());
        cgroup.join(&mut command).expect("the way in is open");
        let child = command.spawn().expect("started");
        let pid = child.id() as i32;
        self.children.borrow_mut().push(child);
        until("the process to run", || flag.exists().then_some(()));
        Running { pid }
    }

    /// How a process of [`Bench::run_in`] ended, if it did: the signal that killed it.
    pub fn ended(&self, running: Running) -> Option<i32> {
        use std::os::unix::process::ExitStatusExt;
        let mut children = self.children.borrow_mut();
        let child = children.iter_mut().find(|child| child.id() as i32 == running.pid).expect("one of ours");
        child.try_wait().expect("asked").map(|status| status.signal().unwrap_or(0))
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Ok(mut panel) = Panel::open(&self.path("control"))
            && let Ok(status) = panel.order("status")
        {
            if let Some(why) = status["invalid"].as_str() {
                INVALID.with_borrow_mut(|invalid| *invalid = Some(why.to_owned()));
            }
            panel.order("quit").ok();
        }
        if let Some(mut chassis) = self.chassis.take() {
            // Whatever state it is in: without its chassis a host has no power.
            chassis.kill().ok();
            chassis.wait().ok();
        }
        for child in self.children.borrow_mut().iter_mut() {
            child.kill().ok();
            child.wait().ok();
        }
        self.remove_cgroup();
    }
}

impl Bench {
    fn remove_cgroup(&self) {
        let Ok(host) = SliceRoot::find(&self.cgroup()) else { return };
        std::fs::write(host.path().join("cgroup.kill"), "1").ok();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(10) && remove_all(host.path()).is_err() {
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

fn remove_all(cgroup: &Path) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(cgroup) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_all(&entry.path())?;
        }
    }
    std::fs::remove_dir(cgroup)
}

/// A process in the slice.
#[derive(Clone, Copy)]
pub struct Running {
    pub pid: i32,
}

/// The keeper's usual command line.
pub fn keeper_argv() -> Vec<String> {
    let words = [
        binary(),
        "keeper",
        "--dir",
        "@/keeper",
        "--watchdog",
        "lab:@/control.d/dog.sock",
        "--slice",
        "%/slice",
        "--timeout",
        "1s",
    ];
    words.map(str::to_owned).to_vec()
}

fn boot_file(units: &[Unit]) -> String {
    let mut file = Vec::new();
    for unit in units {
        let restart = if unit.restarts { "always" } else { "never" };
        writeln!(file, "[[unit]]\nname = {:?}\nargv = {:?}\nrestart = {restart:?}", unit.name, unit.argv)
            .expect("memory");
    }
    String::from_utf8(file).expect("text")
}

pub fn name(group: &str) -> GroupName {
    GroupName::new(group).expect("a name")
}

pub fn epoch(count: u64) -> HostEpoch {
    HostEpoch::in_era(Era(1), count)
}

/// The agent's side of the link.
pub struct Agent {
    pub link: KeeperLink,
    pub sequence: u64,
    pub instance: KeeperInstance,
}

impl Agent {
    pub fn page(&mut self) -> Page {
        until("a readable page", || self.link.page().ok())
    }

    /// The next record: `groups` (a `!` before a name pins it) until `expiry`.
    pub fn record(&mut self, he: u64, groups: &[&str], expiry: Moment) -> Record {
        self.sequence += 1;
        let mut armed = ArmedSet::default();
        for group in groups {
            let entry = ArmedGroup::new(
                &name(group.trim_start_matches('!')),
                Epoch::in_era(Era(1), he),
                group.starts_with('!'),
            );
            armed.push(entry).expect("room");
        }
        let boot = self.page().boot;
        let head = Head { era: Era(1), he: epoch(he), boot, instance: self.instance, expiry, sequence: self.sequence };
        Record { head, armed }
    }

    /// Holds a lease of [`LEASE`] from now on; gives its end.
    pub fn hold(&mut self, he: u64, groups: &[&str]) -> Moment {
        let expiry = clock::now().plus(LEASE);
        let record = self.record(he, groups, expiry);
        self.link.write(&record);
        expiry
    }

    /// Holds a lease and waits until its armed set is in force.
    pub fn arm(&mut self, he: u64, groups: &[&str]) -> Moment {
        let expiry = self.hold(he, groups);
        let sequence = self.sequence;
        until("the keeper's echo", || Some(()).filter(|()| self.page().echoed == sequence));
        expiry
    }
}

/// The names in the page's attestation.
pub fn gone(page: &Page) -> Vec<&str> {
    page.attestation
        .as_ref()
        .map(|attestation| attestation.gone.iter().map(|group| group.name()).collect())
        .unwrap_or_default()
}

/// The host epoch that the page attests.
pub fn attested(page: &Page) -> Option<HostEpoch> {
    page.attestation.as_ref().map(|attestation| attestation.he)
}
