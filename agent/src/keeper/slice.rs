//! The protected slice: the cgroup that the keeper can freeze and kill, and the agent starts everything in.
//!
//! ```text
//! <cgroup2>/<slice>/protected/<host epoch>/<group>    frozen, killed and swept as one
//! <cgroup2>/<slice>/pinned/<group>                    exempt from freeze and kill at the lease's end
//! ```
//!
//! Contract: a process enters through the cgroup of its host epoch only. Once the slice was seen frozen, empty and
//! bare, a start that is still on its way finds that cgroup gone and fails; the next host epoch has another one.
//! Nothing in [`Slice`] allocates or touches a disk after [`Slice::create`].
//!
//! Not here: when any of this is done (`core`); what runs in the groups (`workload`).

use super::core::SliceSeen;
use quorum::id::{GroupName, HostEpoch, NAME_BYTES_MAX};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

pub(crate) mod cgroup;
mod group;

use cgroup::Cgroup;
pub use group::GroupCgroup;

const PROTECTED: &str = "protected";
const PINNED: &str = "pinned";
/// Bytes of a host epoch's name: 16 hexadecimal digits, so that no allocation is needed to write it.
const EPOCH_NAME_BYTES: usize = 16;
/// Why there is no protected slice. What was created of it stays; it is empty.
#[derive(Debug, thiserror::Error)]
pub enum SliceError {
    /// No cgroup2 is mounted: this host can't protect anything.
    #[error("find a cgroup2 mount in /proc/self/mountinfo: there is none")]
    NoCgroup2,
    /// The slice was to be outside of the cgroup2 mount.
    #[error("make the slice {path:?}: it is not below the cgroup2 mount {mount:?}")]
    Elsewhere {
        /// What was asked for.
        path: PathBuf,
        /// Where it must be.
        mount: PathBuf,
    },
    /// The kernel has cgroup2 but not this control (`cgroup.kill` came with Linux 5.14).
    #[error("open {path:?}: this kernel can't do it")]
    NoControl {
        /// The control.
        path: PathBuf,
    },
    /// A cgroup could not be made or opened.
    #[error("make or open {path:?}")]
    Cgroup {
        /// The cgroup or one of its files.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        errno: Errno,
    },
    /// Processes didn't leave for the other cgroup: they begin faster than they can be moved.
    #[error("move all processes out of {path:?}")]
    Restless {
        /// Where some are left.
        path: PathBuf,
    },
}

/// Where a host's slice is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceRoot(PathBuf);

impl SliceRoot {
    /// The slice called `name`: a path below this machine's cgroup2 mount, with or without the mount point.
    ///
    /// # Errors
    /// [`SliceError::NoCgroup2`]; [`SliceError::Elsewhere`] for an absolute path that isn't below the mount.
    pub fn find(name: &str) -> Result<Self, SliceError> {
        let mount = cgroup::mount().ok_or(SliceError::NoCgroup2)?;
        let path = mount.join(name);
        if path.starts_with(&mount) { Ok(Self(path)) } else { Err(SliceError::Elsewhere { path, mount }) }
    }

    /// The directory of the whole slice.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What is frozen and killed as one.
    pub fn protected(&self) -> PathBuf {
        self.0.join(PROTECTED)
    }

    /// Where `group` runs under `he`.
    pub fn group(&self, he: HostEpoch, group: &GroupName) -> PathBuf {
        self.protected().join(format!("{:016x}", he.0)).join(group.as_str())
    }

    /// Where `group` runs while it is pinned.
    pub fn pinned(&self, group: &GroupName) -> PathBuf {
        self.0.join(PINNED).join(group.as_str())
    }
}

/// The keeper's hands on the slice.
#[derive(Debug)]
pub struct Slice {
    protected: Cgroup,
    stat: OwnedFd,
    pinned: OwnedFd,
}

impl Slice {
    /// Makes the slice if need be and opens everything that will be needed.
    ///
    /// # Errors
    /// [`SliceError`]: without it a keeper can't protect anything.
    pub fn create(root: &SliceRoot) -> Result<Self, SliceError> {
        let path = root.protected();
        let pinned = root.0.join(PINNED);
        make_all(&pinned)?;
        let protected = Cgroup::make(&path)?;
        let read_only = OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(Self {
            protected,
            stat: open(&path.join("cgroup.stat"), read_only)?,
            pinned: open(&pinned, read_only | OFlags::DIRECTORY)?,
        })
    }

    /// What the kernel shows of it; `None` if it doesn't.
    pub fn see(&self) -> Option<SliceSeen> {
        let (empty, frozen) = self.protected.empty_and_frozen()?;
        let mut buffer = [0; 256];
        let bare = field(read(self.stat.as_fd(), &mut buffer)?, b"nr_descendants")? == 0;
        Some(SliceSeen { empty, frozen, bare })
    }

    /// Tells the kernel to freeze it; [`Slice::see`] tells when that is done.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn freeze(&self) -> Result<(), Errno> {
        self.protected.freeze()
    }

    /// Kills everything in it, frozen or not, and what is being forked in it.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn kill(&self) -> Result<(), Errno> {
        self.protected.kill()
    }

    /// Makes the way in for `he` and thaws the slice.
    ///
    /// # Errors
    /// What the kernel said; the slice may be frozen or not then, and is empty.
    pub fn thaw_for(&self, he: HostEpoch) -> Result<(), Errno> {
        let mut name = [0; EPOCH_NAME_BYTES + 1];
        match rustix::fs::mkdirat(self.protected.directory(), epoch_name(he, &mut name), Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => self.protected.thaw(),
            Err(errno) => Err(errno),
        }
    }

    /// Removes every cgroup in it that has no process.
    ///
    /// # Errors
    /// What the kernel said; [`Errno::BUSY`] if a process is left somewhere.
    pub fn sweep(&self) -> Result<(), Errno> {
        self.protected.sweep()
    }

    /// Whether a process is in the pinned cgroup of `group`; `None` if the kernel doesn't tell.
    pub fn is_pinned_populated(&self, group: &str) -> Option<bool> {
        const FILE: &[u8] = b"/cgroup.events\0";
        let mut path = [0; NAME_BYTES_MAX + FILE.len()];
        path.get_mut(..group.len())?.copy_from_slice(group.as_bytes());
        path.get_mut(group.len()..group.len() + FILE.len())?.copy_from_slice(FILE);
        let path = CStr::from_bytes_until_nul(&path).ok()?;
        let file = match rustix::fs::openat(&self.pinned, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::NODEV) => return Some(false),
            Err(_) => return None,
        };
        let mut buffer = [0; 256];
        Some(field(read(file.as_fd(), &mut buffer)?, b"populated")? != 0)
    }
}

fn epoch_name(he: HostEpoch, name: &mut [u8; EPOCH_NAME_BYTES + 1]) -> &CStr {
    for (digit, byte) in name.iter_mut().take(EPOCH_NAME_BYTES).enumerate() {
        let nibble = (he.0 >> (60 - 4 * digit)) as usize & 0xf;
        *byte = b"0123456789abcdef"[nibble];
    }
    CStr::from_bytes_until_nul(name).unwrap_or_default()
}

fn make_all(path: &Path) -> Result<(), SliceError> {
    std::fs::create_dir_all(path).map_err(|error| failed(path, io_errno(&error)))
}

fn io_errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

fn failed(path: &Path, errno: Errno) -> SliceError {
    SliceError::Cgroup { path: path.to_owned(), errno }
}

fn open(path: &Path, flags: OFlags) -> Result<OwnedFd, SliceError> {
    rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::NOENT => SliceError::NoControl { path: path.to_owned() },
        errno => failed(path, errno),
    })
}

fn read<'a>(file: BorrowedFd<'_>, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    let len = rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut *buffer, 0)).ok()?;
    buffer.get(..len)
}

/// The number after `name` in lines of "name number".
fn field(text: &[u8], name: &[u8]) -> Option<u64> {
    let line = text.split(|&b| b == b'\n').find_map(|line| line.strip_prefix(name)?.strip_prefix(b" "))?;
    std::str::from_utf8(line).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorum::id::Era;

    #[test]
    fn the_kernels_lines_are_read_by_name() {
        let text = b"populated 0\nfrozen 1\n";
        assert_eq!((field(text, b"populated"), field(text, b"frozen")), (Some(0), Some(1)));
        assert_eq!(field(text, b"pop"), None);
        assert_eq!(field(b"nr_descendants 12\nnr_dying_descendants 3\n", b"nr_descendants"), Some(12));
    }

    #[test]
    fn a_host_epoch_has_the_same_name_for_keeper_and_agent() {
        let he = HostEpoch::in_era(Era(3), 0xabc);
        let mut name = [0; EPOCH_NAME_BYTES + 1];
        let group = GroupName::new("erp").expect("name");
        let path = SliceRoot("/x".into()).group(he, &group);
        let keeper = epoch_name(he, &mut name).to_str().expect("text");
        assert_eq!(path, PathBuf::from(format!("/x/protected/{keeper}/erp")));
    }
}
