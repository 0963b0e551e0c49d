//! Where one group's QEMU keeps its sockets and its process id, and what they are for.

use std::path::{Path, PathBuf};

/// Longest path that a Unix socket can have, without the closing zero.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

/// The files in a group's runtime folder ([`crate::workload::Place::runtime`]).
///
/// A monitor socket serves one client at a time, so each user has its own.
#[derive(Clone, Debug)]
pub struct QemuRuntime {
    folder: PathBuf,
}

impl QemuRuntime {
    /// The files in `folder`.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Holds the process id of QEMU, and is named on its command line, which is how that is recognised as ours.
    pub fn pid_file(&self) -> PathBuf {
        self.folder.join("qemu.pid")
    }

    /// The monitor of the workload driver.
    pub fn control(&self) -> PathBuf {
        self.folder.join("control.qmp")
    }

    /// The monitor of a volume's replication driver.
    pub fn data(&self, volume: &str) -> PathBuf {
        self.folder.join(format!("data-{volume}.qmp"))
    }

    /// The monitor left free for people and for `doctor`.
    pub fn spare(&self) -> PathBuf {
        self.folder.join("spare.qmp")
    }

    /// All monitor sockets of a guest with these volumes.
    pub fn monitors<'a>(&self, volumes: impl IntoIterator<Item = &'a str>) -> Vec<PathBuf> {
        let data = volumes.into_iter().map(|volume| self.data(volume));
        [self.control(), self.spare()].into_iter().chain(data).collect()
    }
}
