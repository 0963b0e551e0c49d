//! A cgroup of its own for each end of a volume's replication, beside the group's: what an adapter began there can be
//! ended, and seen ended, without asking it.
//!
//! Beside and not inside, because the workload's cgroup being empty is how its end is seen, and because a mirror goes on
//! when the workload was stopped. The keeper freezes and kills both alike at the lease's end.

use quorum::mutants;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Which end.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    /// The receiving end of a standby.
    Export,
    /// The sending end of a source.
    Mirror,
}

/// One end's cgroup.
#[derive(Debug)]
pub(super) struct Corner {
    /// `None` on a host without a protected slice, where nothing can be begun.
    path: Option<PathBuf>,
}

impl Corner {
    /// Beside the group's cgroup.
    pub(super) fn of(group: &Path, end: End, volume: &str) -> Self {
        let word = match end {
            End::Export => "export",
            End::Mirror => "mirror",
        };
        let path = group.file_name().map(|name| {
            // No group's name has a plus sign.
            let mut name = OsString::from(name);
            name.push(format!("+{word}.{volume}"));
            group.with_file_name(name)
        });
        Self { path }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        self.path.as_deref().unwrap_or(Path::new(""))
    }

    /// Makes it, unless the cgroup around it is gone: then so is the right to begin anything.
    pub(super) fn make(&self) -> io::Result<()> {
        let path = self
            .path
            .as_ref()
            .ok_or_else(|| io::Error::other("this host has no protected slice, or isn't admitted"))?;
        match fs::create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
        }
    }

    /// Kills whatever is in it and waits until the kernel shows it empty.
    ///
    /// # Errors
    /// Why it can't be said that it is empty.
    pub(super) async fn clear(&self, limit: Duration) -> Result<(), String> {
        let Some(path) = &self.path else { return Ok(()) };
        let until = Instant::now() + limit;
        let events = path.join("cgroup.events");
        loop {
            let told = match fs::read_to_string(&events) {
                _ if mutants::on("data.closed_by_word_alone") => return Ok(()),
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV) => {
                    return Ok(());
                }
                Err(error) => return Err(format!("read {}: {error}", events.display())),
            };
            if told.lines().any(|line| line == "populated 0") {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(format!("something in {} was killed and is still there", path.display()));
            }
            let killed = fs::write(path.join("cgroup.kill"), "1");
            killed.map_err(|error| format!("kill what is in {}: {error}", path.display()))?;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
