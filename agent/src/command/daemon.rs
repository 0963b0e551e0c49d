//! Programs that outlive the call that started them: found again, and ended.
//!
//! A daemon is recognised by its own command line, which names its process id file; so an agent that was started anew
//! knows what runs without remembering anything, and a stale or missing file misleads nobody. Every process is held
//! through a pidfd that was opened before it was looked at: a recycled process id can't be mistaken for it.
//!
//! Invariant: an empty list means that no such process exists. Whatever can't be read is a doubt, not a "no".

use rustix::process::{Pid, PidfdFlags, Signal};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;

/// One running daemon.
#[derive(Debug)]
pub struct Daemon {
    /// Its process id.
    pub pid: i32,
    /// Its command line.
    pub args: Vec<String>,
    pidfd: OwnedFd,
}

impl Daemon {
    /// The argument after `name`.
    pub fn arg_after(&self, name: &str) -> Option<&str> {
        self.args.windows(2).find(|pair| pair[0] == name).map(|pair| pair[1].as_str())
    }

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

/// All processes whose command line names `pid_file` after `flag`. `program` is how the kernel's short name of such a
/// process begins.
///
/// # Errors
/// What could not be read or told apart: there may be one that isn't in a list.
pub fn find(program: &str, flag: &str, pid_file: &Path) -> Result<Vec<Daemon>, String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").map_err(|error| format!("list processes: {error}"))? {
        let name = entry.map_err(|error| format!("list processes: {error}"))?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        let Some(daemon) = look_at(pid, program)? else { continue };
        if daemon.arg_after(flag).is_some_and(|path| Path::new(path) == pid_file) {
            found.push(daemon);
        }
    }
    Ok(found)
}

/// Kills what `look` finds until it finds nothing more; true if there was something.
///
/// # Errors
/// Why it can't be said that nothing is left after `limit`.
pub async fn end_all<L>(limit: Duration, look: L) -> Result<bool, String>
where
    L: Fn() -> Result<Vec<Daemon>, String> + Send,
{
    let until = Instant::now() + limit;
    let mut was_there = false;
    loop {
        let found = look();
        match &found {
            Ok(none) if none.is_empty() => return Ok(was_there),
            Ok(_) | Err(_) if Instant::now() >= until => {
                return Err(found.err().unwrap_or_else(|| "it was killed and is still there".into()));
            }
            Ok(some) => {
                was_there = true;
                some.iter().for_each(Daemon::kill);
                for daemon in some.iter() {
                    daemon.is_gone_within(until.saturating_duration_since(Instant::now())).await;
                }
            }
            // Something is on its way out (or in): look again.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

fn look_at(pid: i32, program: &str) -> Result<Option<Daemon>, String> {
    let Some(raw) = Pid::from_raw(pid) else { return Ok(None) };
    let Ok(pidfd) = rustix::process::pidfd_open(raw, PidfdFlags::empty()) else { return Ok(None) };
    let line = match fs::read(format!("/proc/{pid}/cmdline")) {
        Ok(line) => line,
        Err(error) if is_gone(&error) => return Ok(None),
        Err(error) => return Err(format!("read the command line of process {pid}: {error}")),
    };
    if line.is_empty() {
        return is_not_dying(pid, program).map(|()| None);
    }
    let args = line.split(|&byte| byte == 0).map(|arg| String::from_utf8_lossy(arg).into_owned()).collect();
    Ok(Some(Daemon { pid, args, pidfd }))
}

/// True for the errors of a process that ended while it was looked at.
pub fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// A process that ends has no command line any more while its last thread may still wait for the disk.
fn is_not_dying(pid: i32, program: &str) -> Result<(), String> {
    let Ok(name) = fs::read_to_string(format!("/proc/{pid}/comm")) else { return Ok(()) };
    let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    if name.starts_with(program) && threads > 1 {
        return Err(format!("process {pid}, {}, is ending but not gone", name.trim()));
    }
    Ok(())
}
