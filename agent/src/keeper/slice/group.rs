//! The agent's side of the slice: a group's own cgroup, the only way in for its processes.
//!
//! Contract: it is made after the keeper has echoed the sequence that arms the group, and its host epoch's cgroup is
//! the keeper's to make: if that is gone, so is the right to start, and making the group's fails.
//! Not here: freezing and killing, which only the keeper does.

use super::{SliceError, SliceRoot, failed, field, io_errno, make_all, open, read};
use quorum::id::{GroupName, HostEpoch};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Moving races with forks; each pass moves all that were there when it began.
const MOVES_MAX: usize = 1000;

/// A group's cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupCgroup(PathBuf);

impl GroupCgroup {
    /// Makes the cgroup of `group` under `he`.
    ///
    /// # Errors
    /// [`SliceError::Cgroup`] with `NOENT` if the keeper has not made, or has removed, the cgroup of that host epoch.
    pub fn make(root: &SliceRoot, he: HostEpoch, group: &GroupName) -> Result<Self, SliceError> {
        let path = root.group(he, group);
        match std::fs::create_dir(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(failed(&path, io_errno(&error))),
            Ok(()) | Err(_) => Ok(Self(path)),
        }
    }

    /// Makes the pinned cgroup of `group`, which neither freeze nor kill at the lease's end reach.
    ///
    /// # Errors
    /// [`SliceError::Cgroup`].
    pub fn make_pinned(root: &SliceRoot, group: &GroupName) -> Result<Self, SliceError> {
        let path = root.pinned(group);
        make_all(&path)?;
        Ok(Self(path))
    }

    /// One that exists at `path` already.
    pub(crate) fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Lets `command` begin its life in this cgroup, before its program is loaded. If the slice is frozen by then,
    /// the child freezes there and `spawn` returns only when the keeper has killed it; if the cgroup is gone, `spawn`
    /// fails.
    ///
    /// # Errors
    /// [`SliceError`] if the cgroup is gone already.
    pub fn join(&self, command: &mut Command) -> Result<(), SliceError> {
        let procs = open(&self.0.join("cgroup.procs"), OFlags::WRONLY | OFlags::CLOEXEC)?;
        let enter = move || rustix::io::write(&procs, b"0").map(drop).map_err(std::io::Error::from);
        // SAFETY: between fork and exec the closure makes one system call on a descriptor opened before the fork.
        unsafe { command.pre_exec(enter) };
        Ok(())
    }

    /// Whether no process is in it.
    ///
    /// # Errors
    /// [`SliceError`] if the kernel doesn't tell; a cgroup that is gone is empty.
    pub fn is_empty(&self) -> Result<bool, SliceError> {
        let path = self.0.join("cgroup.events");
        let file = match open(&path, OFlags::RDONLY | OFlags::CLOEXEC) {
            Ok(file) => file,
            Err(SliceError::NoControl { .. }) => return Ok(true),
            Err(error) => return Err(error),
        };
        let mut buffer = [0; 256];
        let populated = read(file.as_fd(), &mut buffer).and_then(|text| field(text, b"populated"));
        populated.map(|n| n == 0).ok_or_else(|| failed(&path, Errno::IO))
    }

    /// Moves every process from here to `other`: how a group is pinned and unpinned.
    ///
    /// # Errors
    /// [`SliceError::Restless`] if some were always left; those are still here.
    pub fn move_all(&self, other: &Self) -> Result<(), SliceError> {
        let procs = other.0.join("cgroup.procs");
        for _ in 0..MOVES_MAX {
            let list = self.0.join("cgroup.procs");
            let pids = std::fs::read_to_string(&list).map_err(|error| failed(&list, io_errno(&error)))?;
            for pid in pids.split_whitespace() {
                // A process may have ended since it was listed; whoever is left is listed again.
                match std::fs::write(&procs, pid).map_err(|error| io_errno(&error)) {
                    Ok(()) | Err(Errno::SRCH) => {}
                    Err(errno) => return Err(failed(&procs, errno)),
                }
            }
            if self.is_empty()? {
                return Ok(());
            }
        }
        Err(SliceError::Restless { path: self.0.clone() })
    }

    /// Removes it.
    ///
    /// # Errors
    /// [`SliceError::Cgroup`] with `BUSY` if a process is left in it.
    pub fn remove(&self) -> Result<(), SliceError> {
        match rustix::fs::rmdir(&self.0) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(failed(&self.0, errno)),
        }
    }
}
