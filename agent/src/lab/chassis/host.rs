//! The host's process tree: begun as one, ended as one, and seen empty.
//!
//! Contract: the tree lives in a pid and a mount namespace of its own and in a cgroup of its own, and begins in both
//! at once; its first process dies with the chassis. [`Host::off`] comes back only when the kernel shows both empty.
//!
//! Not here: what the first process does (`init`).

use crate::keeper::slice::SliceError;
use crate::keeper::slice::cgroup::{self, Cgroup};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A tree that isn't dead after this was not killed by any hardware either.
const OFF_LIMIT: Duration = Duration::from_secs(60);

/// Why the host's tree is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Its cgroup can't be made or used.
    #[error("use the host's cgroup")]
    Cgroup(#[source] SliceError),
    /// Its network namespace can't be opened.
    #[error("open the network namespace {path:?}")]
    Netns {
        /// Where it should be.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// A volatile directory could not be emptied. The power is off.
    #[error("empty {path:?}")]
    Volatile {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// Its first process could not be started. The power is off.
    #[error("start the host's first process")]
    Start(#[source] Errno),
    /// It could not be killed and seen dead: nothing is known about it.
    #[error("kill the host's process tree and see it gone")]
    Off(#[source] Errno),
    /// There is no such unit, or no process in it.
    #[error("find a process of unit {0:?}")]
    NoUnit(String),
}

/// A host's place, and its tree while the power is on.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) cgroup: Cgroup,
    netns: Option<OwnedFd>,
    volatile: Vec<PathBuf>,
    program: CString,
    arguments: Vec<CString>,
    tree: Option<Tree>,
}

#[derive(Debug)]
struct Tree {
    /// Refers to the first process, whatever becomes of its number.
    pidfd: OwnedFd,
    pid: i32,
    orders: File,
}

impl Host {
    /// A host whose power is off. What an earlier chassis left in the cgroup is killed.
    pub(super) fn new(
        cgroup: &Path,
        netns: Option<&Path>,
        volatile: &[PathBuf],
        init: &[String],
    ) -> Result<Self, HostError> {
        let cgroup = Cgroup::make(cgroup).map_err(HostError::Cgroup)?;
        let start = |error: std::io::Error| HostError::Start(Errno::from_io_error(&error).unwrap_or(Errno::IO));
        let nul = |_| HostError::Start(Errno::INVAL);
        let program = std::env::current_exe().map_err(start)?;
        let program = CString::new(program.into_os_string().into_vec()).map_err(nul)?;
        let arguments = init.iter().map(|argument| CString::new(argument.as_str())).collect::<Result<_, _>>();
        let host = Self {
            cgroup,
            netns: netns.map(open_netns).transpose()?,
            volatile: volatile.to_vec(),
            arguments: arguments.map_err(nul)?,
            program,
            tree: None,
        };
        host.clear()?;
        Ok(host)
    }

    /// Whether the power is on.
    pub(super) fn is_on(&self) -> bool {
        self.tree.is_some()
    }

    /// The number of the first process, as the chassis sees it.
    pub(super) fn pid(&self) -> Option<i32> {
        self.tree.as_ref().map(|tree| tree.pid)
    }

    /// What becomes readable when the first process has ended, and its whole tree with it.
    pub(super) fn ended(&self) -> Option<&OwnedFd> {
        self.tree.as_ref().map(|tree| &tree.pidfd)
    }

    /// Starts the host.
    pub(super) fn on(&mut self) -> Result<(), HostError> {
        for path in &self.volatile {
            emptied(path).map_err(|source| HostError::Volatile { path: path.clone(), source })?;
        }
        let (from_chassis, orders) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(HostError::Start)?;
        let (pid, pidfd) = self.clone_first(&from_chassis).map_err(HostError::Start)?;
        self.tree = Some(Tree { pidfd, pid, orders: orders.into() });
        Ok(())
    }

    fn clone_first(&self, orders: &OwnedFd) -> Result<(i32, OwnedFd), Errno> {
        let mut argv: Vec<*const libc::c_char> = vec![self.program.as_ptr()];
        argv.extend(self.arguments.iter().map(|argument| argument.as_ptr()));
        argv.push(std::ptr::null());
        // Not CLONE_INTO_CGROUP: Linux 6.18 kills what is born into a cgroup that was ever killed.
        let cgroup = self.cgroup.entrance()?;
        let place = Place {
            cgroup: cgroup.as_raw_fd(),
            netns: self.netns.as_ref().map_or(-1, AsRawFd::as_raw_fd),
            orders: orders.as_raw_fd(),
        };
        let mut pidfd: RawFd = -1;
        // SAFETY: the struct is plain numbers, for which all zeros is a value.
        let mut how: libc::clone_args = unsafe { std::mem::zeroed() };
        let flags = libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_PIDFD;
        how.flags = flags as u64;
        how.pidfd = &raw mut pidfd as u64;
        how.exit_signal = libc::SIGCHLD as u64;
        // SAFETY: without CLONE_VM this is a fork: the child has a copy of everything, and this process has one
        // thread. The kernel reads `how` and writes `pidfd`, which both live through the call.
        let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const how, size_of::<libc::clone_args>()) };
        match pid {
            0 => become_first(&self.program, &argv, &place),
            -1 => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
            // SAFETY: the kernel has just made this descriptor for us.
            pid => Ok((pid as i32, unsafe { OwnedFd::from_raw_fd(pidfd) })),
        }
    }

    /// Kills the whole tree and waits until it is seen gone. Gives how its first process ended, if it was on.
    pub(super) fn off(&mut self) -> Result<Option<String>, HostError> {
        let Some(tree) = self.tree.take() else { return self.clear().map(|()| None) };
        // Both at once: the namespace for what hides from the cgroup, the cgroup for what forks fastest.
        let killed = rustix::process::pidfd_send_signal(&tree.pidfd, rustix::process::Signal::KILL);
        self.cgroup.kill().map_err(HostError::Off)?;
        match killed {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(errno) => return Err(HostError::Off(errno)),
        }
        wait_ended(&tree.pidfd).map_err(HostError::Off)?;
        // Reaps it; the kernel lets its number go only now.
        let status = rustix::process::waitid(
            rustix::process::WaitId::PidFd(std::os::fd::AsFd::as_fd(&tree.pidfd)),
            rustix::process::WaitIdOptions::EXITED,
        );
        let status = status.map_err(HostError::Off)?;
        self.clear()?;
        Ok(status.map(|status| ending(&status)))
    }

    /// Makes sure that nothing is left in the cgroup, and no cgroup in it.
    fn clear(&self) -> Result<(), HostError> {
        self.cgroup.kill().map_err(HostError::Off)?;
        self.cgroup.wait_empty(OFF_LIMIT).map_err(HostError::Off)?;
        self.cgroup.sweep().map_err(HostError::Off)
    }

    /// Says a line to the first process.
    pub(super) fn order(&mut self, line: &str) -> Result<(), HostError> {
        let tree = self.tree.as_mut().ok_or_else(|| HostError::NoUnit(line.to_owned()))?;
        let written = tree.orders.write_all(format!("{line}\n").as_bytes());
        written.map_err(|error| HostError::Off(Errno::from_io_error(&error).unwrap_or(Errno::IO)))
    }

    /// The processes of a unit, as the chassis sees them.
    pub(super) fn pids(&self, unit: &str) -> Result<Vec<i32>, HostError> {
        let list = self.cgroup.path().join(super::init::UNITS).join(unit).join("cgroup.procs");
        let text = std::fs::read_to_string(list).map_err(|_| HostError::NoUnit(unit.to_owned()))?;
        let pids: Vec<i32> =
            text.split_whitespace().filter_map(|pid| pid.parse().ok()).filter(|&pid| pid > 0).collect();
        if pids.is_empty() { Err(HostError::NoUnit(unit.to_owned())) } else { Ok(pids) }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // The chassis is ending: its host loses power. What can't be killed now dies with the parent all the same.
        if self.off().is_ok() {
            self.cgroup.remove().ok();
        }
    }
}

/// Where a host's cgroup is: an absolute path as it is, anything else below the cgroup2 mount.
pub(super) fn cgroup_path(name: &Path) -> Result<PathBuf, HostError> {
    let mount = cgroup::mount().ok_or(HostError::Cgroup(SliceError::NoCgroup2))?;
    Ok(mount.join(name))
}

fn open_netns(netns: &Path) -> Result<OwnedFd, HostError> {
    let path = if netns.as_os_str().as_bytes().contains(&b'/') {
        netns.to_owned()
    } else {
        Path::new("/run/netns").join(netns)
    };
    File::open(&path).map(OwnedFd::from).map_err(|source| HostError::Netns { path, source })
}

fn emptied(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => std::fs::create_dir_all(path),
    }
}

fn wait_ended(pidfd: &OwnedFd) -> Result<(), Errno> {
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    let limit = Timespec::try_from(OFF_LIMIT).unwrap_or_default();
    match rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&limit)))? {
        0 => Err(Errno::TIMEDOUT),
        _ => Ok(()),
    }
}

/// Where a first process belongs: descriptors that its birth leaves open.
struct Place {
    cgroup: RawFd,
    /// -1 for the chassis' own.
    netns: RawFd,
    orders: RawFd,
}

/// How a first process ended, in words; 101 to 106 are what [`become_first`] says.
fn ending(status: &rustix::process::WaitIdStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(101), _) => "its life could not be tied to the chassis'".into(),
        (Some(102), _) => "its network namespace could not be entered".into(),
        (Some(103), _) => "its input could not be wired".into(),
        (Some(104), _) => "it could not begin a session".into(),
        (Some(105), _) => "its program could not be loaded".into(),
        (Some(106), _) => "its cgroup could not be entered".into(),
        (Some(code), _) => format!("exit {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown".into(),
    }
}

/// In the child: ties its life to the chassis', takes its place, and becomes the first process. Allocates nothing.
fn become_first(program: &CString, argv: &[*const libc::c_char], place: &Place) -> ! {
    // SAFETY: plain system calls on numbers and on texts that live through them; `argv` ends with a null pointer.
    unsafe {
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
            libc::_exit(101);
        }
        if libc::write(place.cgroup, c"0".as_ptr().cast(), 1) != 1 {
            libc::_exit(106);
        }
        if place.netns >= 0 && libc::setns(place.netns, libc::CLONE_NEWNET) != 0 {
            libc::_exit(102);
        }
        if libc::dup2(place.orders, 0) != 0 {
            libc::_exit(103);
        }
        if libc::setsid() < 0 {
            libc::_exit(104);
        }
        libc::execv(program.as_ptr(), argv.as_ptr());
        libc::_exit(105)
    }
}
