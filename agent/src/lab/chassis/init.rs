//! The first process of a lab host: starts its units, reaps, starts again what is to be started again.
//!
//! Contract: runs as pid 1 of the host's namespace with a `/proc` and a boot id of its own; each unit begins in a
//! cgroup of its own; orders come as lines on standard input (`start NAME`, `stop NAME`), and the end of the input
//! means that the chassis is gone. It never ends by itself.

use super::boot::{Boot, Restart, Unit};
use crate::keeper::signals::Signals;
use crate::keeper::slice::GroupCgroup;
use nix::mount::{MsFlags, mount};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, WaitOptions};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The cgroup of all units, in the host's.
pub(super) const UNITS: &str = "units";

/// What the first process is told: what to run, the host's cgroup, and where the units' output goes.
#[derive(Clone, Debug)]
pub(super) struct InitArgs {
    pub(super) boot: Option<PathBuf>,
    pub(super) argv: Vec<String>,
    pub(super) cgroup: PathBuf,
    pub(super) dir: PathBuf,
}

struct Running {
    unit: Unit,
    cgroup: GroupCgroup,
    pid: Option<Pid>,
    /// When it is to be started, if it isn't running.
    due: Option<Instant>,
    restart: Restart,
}

/// Runs the host until its power goes.
pub(super) fn run(args: &InitArgs) -> io::Result<()> {
    let mut signals = Signals::block()?;
    // The chassis is exempt; its host is not, and the keeper exempts itself.
    std::fs::write("/proc/self/oom_score_adj", "0").ok();
    settle(&args.dir)?;
    let boot = match &args.boot {
        Some(file) => Boot::read(file).map_err(io::Error::other)?,
        None => Boot::of_one(&args.argv),
    };
    let mut units = Vec::new();
    for unit in boot.units {
        let cgroup = args.cgroup.join(UNITS).join(&unit.name);
        std::fs::create_dir_all(&cgroup)?;
        let restart = unit.restart;
        units.push(Running { unit, cgroup: GroupCgroup::at(cgroup), pid: None, due: Some(Instant::now()), restart });
    }
    let mut orders = Orders { input: File::from(io::stdin().as_fd().try_clone_to_owned()?), line: Vec::new() };
    loop {
        start_due(&mut units, &args.dir);
        wait(&signals, &orders, &units)?;
        signals.take();
        reap(&mut units);
        for line in orders.take()? {
            follow(&mut units, &line);
        }
    }
}

/// A `/proc` that shows this host's processes, and a boot id that no host before it had.
fn settle(dir: &Path) -> io::Result<()> {
    const NONE: Option<&str> = None;
    // Later mounts of the machine still arrive; ours stay here.
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SLAVE, NONE)?;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), NONE)?;
    let boot_id = dir.join("boot_id");
    std::fs::write(&boot_id, std::fs::read("/proc/sys/kernel/random/uuid")?)?;
    mount(Some(&boot_id), "/proc/sys/kernel/random/boot_id", NONE, MsFlags::MS_BIND, NONE)?;
    show_own_interfaces(dir)
}

/// The interfaces of the host's own network namespace where programs look for them: sysfs shows those of the namespace
/// in which it was mounted. Only these two folders are replaced, because cgroups are mounted below the machine's.
fn show_own_interfaces(dir: &Path) -> io::Result<()> {
    const NONE: Option<&str> = None;
    let own = dir.join("sysfs");
    std::fs::create_dir_all(&own)?;
    mount(Some("sysfs"), &own, Some("sysfs"), MsFlags::MS_RDONLY, NONE)?;
    for folder in ["devices/virtual/net", "class/net"] {
        let shown = own.join(folder);
        if shown.is_dir() {
            mount(Some(&shown), &Path::new("/sys").join(folder), NONE, MsFlags::MS_BIND, NONE)?;
        }
    }
    Ok(())
}

fn start_due(units: &mut [Running], dir: &Path) {
    let now = Instant::now();
    for running in units.iter_mut().filter(|running| running.due.is_some_and(|due| due <= now)) {
        running.due = None;
        match start(running, dir) {
            Ok(pid) => running.pid = pid,
            Err(error) => {
                eprintln!("start unit {}: {error}", running.unit.name);
                running.due = (running.restart == Restart::Always).then(|| now + Duration::from_secs(1));
            }
        }
    }
}

fn start(running: &Running, dir: &Path) -> io::Result<Option<Pid>> {
    let unit = &running.unit;
    let output = File::options().create(true).append(true).open(dir.join(format!("{}.log", unit.name)))?;
    let mut command = Command::new(&unit.argv[0]);
    command.args(&unit.argv[1..]).stdin(Stdio::null());
    command.env("ANTIPODE_LAB_WATCHDOG", format!("lab:{}", dir.join(super::DOG_SOCKET).display())).envs(&unit.env);
    command.stdout(output.try_clone()?).stderr(output);
    Signals::unblocked(&mut command);
    running.cgroup.join(&mut command).map_err(io::Error::other)?;
    let child = command.spawn()?;
    Ok(Pid::from_raw(child.id() as i32))
}

fn wait(signals: &Signals, orders: &Orders, units: &[Running]) -> io::Result<()> {
    let mut fds = [PollFd::new(signals, PollFlags::IN), PollFd::new(&orders.input, PollFlags::IN)];
    let next = units.iter().filter_map(|running| running.due).min();
    let left = next.map(|due| due.saturating_duration_since(Instant::now()));
    let limit = left.and_then(|left| Timespec::try_from(left).ok());
    match rustix::event::poll(&mut fds, limit.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Everything whose parent is gone is this process' child: all are reaped, units or not.
fn reap(units: &mut [Running]) {
    while let Ok(Some((pid, _status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if let Some(running) = units.iter_mut().find(|running| running.pid == Some(pid)) {
            running.pid = None;
            let after = Duration::from_millis(running.unit.restart_after_ms);
            running.due = (running.restart == Restart::Always).then(|| Instant::now() + after);
        }
    }
}

fn follow(units: &mut [Running], line: &str) {
    let Some((verb, name)) = line.split_once(' ') else { return };
    let Some(running) = units.iter_mut().find(|running| running.unit.name == name) else { return };
    match verb {
        "start" => {
            running.restart = running.unit.restart;
            running.due = running.due.or_else(|| running.pid.is_none().then(Instant::now));
        }
        // What ends from now on stays ended; ending it is a signal's business.
        "stop" => (running.restart, running.due) = (Restart::Never, None),
        _ => {}
    }
}

struct Orders {
    input: File,
    line: Vec<u8>,
}

impl Orders {
    /// The whole lines that have come.
    fn take(&mut self) -> io::Result<Vec<String>> {
        let mut lines = Vec::new();
        while is_readable(&self.input)? {
            let mut buffer = [0; 256];
            let len = self.input.read(&mut buffer)?;
            if len == 0 {
                return Err(io::Error::other("the chassis is gone"));
            }
            self.line.extend_from_slice(&buffer[..len]);
            while let Some(end) = self.line.iter().position(|&b| b == b'\n') {
                let line: Vec<u8> = self.line.drain(..=end).collect();
                lines.push(String::from_utf8_lossy(&line[..end]).into_owned());
            }
        }
        Ok(lines)
    }
}

fn is_readable(input: &File) -> io::Result<bool> {
    let mut fds = [PollFd::new(input, PollFlags::IN)];
    Ok(rustix::event::poll(&mut fds, Some(&Timespec::default()))? > 0)
}
