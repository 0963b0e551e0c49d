//! A cgroup2 that can be frozen, killed and swept as one: the part that slice and lab chassis share.
//!
//! Contract: everything that is needed later is opened by [`Cgroup::make`]; after that nothing here allocates, but
//! for [`Cgroup::wait_empty`] and [`Cgroup::remove`], which only a lab uses.

use super::{SliceError, failed, field, io_errno, make_all, open, read};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir};
use rustix::io::Errno;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A hypervisor nests cgroups a few levels deep; a deeper tree is refused rather than searched.
const DEPTH_MAX: usize = 16;
/// A directory's listing may skip entries while others are removed; this many passes have always been enough.
const SWEEPS_MAX: usize = 64;

/// This machine's first cgroup2 mount.
pub(crate) fn mount() -> Option<PathBuf> {
    mount_in(&std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
}

/// The first cgroup2 mount point in the text of a mountinfo file.
fn mount_in(mounts: &str) -> Option<PathBuf> {
    let of_cgroup2 = |line: &&str| line.split_once(" - ").is_some_and(|(_, fs)| fs.starts_with("cgroup2 "));
    let line = mounts.lines().find(of_cgroup2)?;
    Some(unescaped(line.split(' ').nth(4)?).into())
}

/// mountinfo writes blanks and backslashes in octal.
fn unescaped(text: &str) -> String {
    let mut out = text.to_owned();
    for (octal, plain) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        out = out.replace(octal, plain);
    }
    out
}

/// A cgroup and the hands on it.
#[derive(Debug)]
pub(crate) struct Cgroup {
    path: PathBuf,
    directory: OwnedFd,
    freeze: OwnedFd,
    kill: OwnedFd,
    events: OwnedFd,
}

impl Cgroup {
    /// Makes it, and those above it, if need be.
    pub(crate) fn make(path: &Path) -> Result<Self, SliceError> {
        make_all(path)?;
        let (read_only, write_only) = (OFlags::RDONLY | OFlags::CLOEXEC, OFlags::WRONLY | OFlags::CLOEXEC);
        Ok(Self {
            freeze: open(&path.join("cgroup.freeze"), write_only)?,
            kill: open(&path.join("cgroup.kill"), write_only)?,
            events: open(&path.join("cgroup.events"), read_only)?,
            directory: open(path, read_only | OFlags::DIRECTORY)?,
            path: path.to_owned(),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What a process writes "0" to in order to enter it.
    pub(crate) fn entrance(&self) -> Result<OwnedFd, Errno> {
        rustix::fs::openat(&self.directory, c"cgroup.procs", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
    }

    pub(super) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Whether no process is in it, and whether it is frozen; `None` if the kernel doesn't tell.
    pub(crate) fn empty_and_frozen(&self) -> Option<(bool, bool)> {
        let mut buffer = [0; 256];
        let events = read(self.events.as_fd(), &mut buffer)?;
        Some((field(events, b"populated")? == 0, field(events, b"frozen")? == 1))
    }

    pub(crate) fn freeze(&self) -> Result<(), Errno> {
        write(&self.freeze, b"1")
    }

    pub(crate) fn thaw(&self) -> Result<(), Errno> {
        write(&self.freeze, b"0")
    }

    /// Kills everything in it, frozen or not, and what is being forked in it.
    pub(crate) fn kill(&self) -> Result<(), Errno> {
        write(&self.kill, b"1")
    }

    /// Removes every cgroup in it; [`Errno::BUSY`] if a process is left somewhere.
    pub(crate) fn sweep(&self) -> Result<(), Errno> {
        sweep(self.directory.as_fd(), DEPTH_MAX)
    }

    /// Waits until no process is in it.
    pub(crate) fn wait_empty(&self, limit: Duration) -> Result<(), Errno> {
        let begun = Instant::now();
        while !self.empty_and_frozen().is_some_and(|(empty, _)| empty) {
            let left = limit.checked_sub(begun.elapsed()).ok_or(Errno::TIMEDOUT)?;
            // The kernel reports a change of this file as an exceptional condition; a miss only costs a tenth of a
            // second.
            let mut fds = [PollFd::new(&self.events, PollFlags::PRI)];
            let limit = Timespec::try_from(left.min(Duration::from_millis(100))).unwrap_or_default();
            rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&limit)))?;
        }
        Ok(())
    }

    /// Removes the cgroup itself, which must be empty and bare.
    pub(crate) fn remove(&self) -> Result<(), SliceError> {
        std::fs::remove_dir(&self.path).map_err(|error| failed(&self.path, io_errno(&error)))
    }
}

fn write(file: &OwnedFd, byte: &[u8]) -> Result<(), Errno> {
    rustix::io::retry_on_intr(|| rustix::io::write(file, byte)).map(drop)
}

fn sweep(directory: BorrowedFd<'_>, depth: usize) -> Result<(), Errno> {
    if depth == 0 {
        return Err(Errno::LOOP);
    }
    for _ in 0..SWEEPS_MAX {
        if sweep_once(directory, depth)? == 0 {
            return Ok(());
        }
    }
    Err(Errno::BUSY)
}

/// Removes what it finds; gives how many cgroups it found.
fn sweep_once(directory: BorrowedFd<'_>, depth: usize) -> Result<usize, Errno> {
    rustix::fs::seek(directory, rustix::fs::SeekFrom::Start(0))?;
    let mut buffer = [MaybeUninit::<u8>::uninit(); 1024];
    let mut entries = RawDir::new(directory, &mut buffer);
    let mut found = 0;
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type() != FileType::Directory || name == c"." || name == c".." {
            continue;
        }
        found += 1;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match rustix::fs::openat(directory, name, flags, Mode::empty()) {
            Ok(child) => sweep(child.as_fd(), depth - 1)?,
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(errno),
        }
        match rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup2_mount_is_found_in_a_hybrid_hierarchy() {
        let mounts = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      41 31 0:38 / /sys/fs/cgroup/uni\\040fied rw shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(mount_in(mounts), Some("/sys/fs/cgroup/uni fied".into()));
        assert_eq!(mount_in("32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"), None);
    }
}
