//! Finding and ending the QEMU processes of one group.
//!
//! A process is ours if its command line names our process id file; its epoch is read from the same command line, so
//! that an agent that was started anew knows what runs without remembering anything. Every process is held through a
//! pidfd that was opened before it was looked at: a recycled process id can't be mistaken for it.
//!
//! Invariant: an empty list means that no process of the group exists. Whatever can't be read is a doubt, not a "no".

use super::args::SMBIOS_PREFIX;
use super::runtime::QemuRuntime;
use quorum::id::{Epoch, HostEpoch};
use rustix::process::{Pid, PidfdFlags, Signal};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;
use tokio::io::unix::AsyncFd;

/// One running QEMU of the group.
#[derive(Debug)]
pub struct QemuProcess {
    /// Its process id.
    pub pid: i32,
    /// The epoch it was started with.
    pub epoch: Epoch,
    /// The host epoch it was started with.
    pub host_epoch: HostEpoch,
    pidfd: OwnedFd,
}

impl QemuProcess {
    /// Sends SIGKILL. A process that has just ended is fine.
    pub fn kill(&self) {
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// Waits until all its threads are gone; false if it still exists after `limit`.
    pub async fn is_gone_within(&self, limit: Duration) -> bool {
        let Ok(pidfd) = self.pidfd.try_clone() else { return false };
        // SAFETY: the descriptor is owned by the `AsyncFd`: it stays open and the same until that is dropped.
        let Ok(watched) = (unsafe { AsyncFd::register(pidfd) }) else { return false };
        // A pidfd becomes readable when the last thread has ended: no write of it is under way any more.
        tokio::time::timeout(limit, watched.readable()).await.is_ok_and(|ready| ready.is_ok())
    }
}

/// All QEMU processes of the group whose runtime folder this is.
///
/// # Errors
/// What could not be read or told apart: there may be one that isn't in a list.
pub fn find(runtime: &QemuRuntime, cgroup: &Path) -> Result<Vec<QemuProcess>, String> {
    let mut found = Vec::new();
    let entries = fs::read_dir("/proc").map_err(|e| format!("list processes: {e}"))?;
    for entry in entries {
        let name = entry.map_err(|e| format!("list processes: {e}"))?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        found.extend(look_at(pid, runtime)?);
    }
    if found.is_empty() {
        no_stranger_in(cgroup)?;
    }
    Ok(found)
}

fn look_at(pid: i32, runtime: &QemuRuntime) -> Result<Option<QemuProcess>, String> {
    let Some(raw) = Pid::from_raw(pid) else { return Ok(None) };
    let Ok(pidfd) = rustix::process::pidfd_open(raw, PidfdFlags::empty()) else { return Ok(None) };
    let line = match fs::read(format!("/proc/{pid}/cmdline")) {
        Ok(line) => line,
        Err(error) if is_gone(&error) => return Ok(None),
        Err(error) => return Err(format!("read the command line of process {pid}: {error}")),
    };
    if line.is_empty() {
        return is_not_dying_qemu(pid).map(|()| None);
    }
    let args: Vec<String> = line.split(|&b| b == 0).map(|arg| String::from_utf8_lossy(arg).into_owned()).collect();
    let after = |name: &str| args.windows(2).find(|pair| pair[0] == name).map(|pair| pair[1].as_str());
    if after("-pidfile").is_none_or(|path| Path::new(path) != runtime.pid_file()) {
        return Ok(None);
    }
    let token = |name: &str| {
        let mark = format!("value={SMBIOS_PREFIX}{name}=");
        after("-smbios")?.split(',').find_map(|part| part.strip_prefix(&mark))?.parse::<u64>().ok()
    };
    match (token("epoch"), token("host_epoch")) {
        (Some(epoch), Some(host_epoch)) => {
            Ok(Some(QemuProcess { pid, epoch: Epoch(epoch), host_epoch: HostEpoch(host_epoch), pidfd }))
        }
        _ => Err(format!("process {pid} is this group's QEMU but doesn't say its epoch")),
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// A process that ends has no command line any more while its last thread may still wait for the disk.
fn is_not_dying_qemu(pid: i32) -> Result<(), String> {
    let Ok(name) = fs::read_to_string(format!("/proc/{pid}/comm")) else { return Ok(()) };
    let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    if name.starts_with("qemu-system") && threads > 1 {
        return Err(format!("process {pid}, a QEMU, is ending but not gone"));
    }
    Ok(())
}

/// In the group's cgroup there may be a QEMU that we can't name, or a child of an agent on its way to becoming one.
fn no_stranger_in(cgroup: &Path) -> Result<(), String> {
    let pids = match fs::read_to_string(cgroup.join("cgroup.procs")) {
        Ok(pids) => pids,
        Err(error) if is_gone(&error) => return Ok(()),
        Err(error) => return Err(format!("list the processes in {}: {error}", cgroup.display())),
    };
    let own = fs::read_link("/proc/self/exe").ok();
    for pid in pids.split_whitespace() {
        let Ok(program) = fs::read_link(format!("/proc/{pid}/exe")) else { continue };
        let name = program.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if Some(&program) == own.as_ref() || name.starts_with("qemu-system") {
            return Err(format!("process {pid} ({name}) is in the group's cgroup and not known"));
        }
    }
    Ok(())
}
