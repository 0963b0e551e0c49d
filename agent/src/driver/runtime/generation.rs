//! The virtual machine's generation id: another one when the machine was rolled back to a snapshot or copied
//! (protocol §2). A voter whose machine was rolled back has forgotten what it promised, and its own process can't tell.
//!
//! QEMU shows the id through fw_cfg; elsewhere `[voter] generation_id` in agent.toml names a file whose content changes.
//! A machine that shows none is watched by its peers' memory alone.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where QEMU's firmware interface shows it, with the module `qemu_fw_cfg`.
const FW_CFG: &str = "/sys/firmware/qemu_fw_cfg/by_name/etc/vmgenid_guid/raw";
/// What this host's voter was started with last.
const KEPT: &str = "voter.generation";
/// It is read this often.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Watches one source.
#[derive(Debug)]
pub struct Generation {
    source: PathBuf,
    current: Vec<u8>,
}

/// What the start found.
#[derive(Debug, PartialEq, Eq)]
pub enum AtStart {
    /// The machine is the one of the last start, or this is the first.
    Same,
    /// It was rolled back or copied since.
    Changed,
}

impl Generation {
    /// Reads the id and compares it with what `dir` keeps. `None` on a machine that shows none.
    ///
    /// # Errors
    /// A source that was named can't be read, or the folder can't be used.
    pub fn at_start(dir: &Path, named: Option<&Path>) -> std::io::Result<Option<(Self, AtStart)>> {
        let source = named.map_or_else(|| PathBuf::from(FW_CFG), Path::to_path_buf);
        let current = match std::fs::read(&source) {
            Ok(current) => current,
            Err(_) if named.is_none() => return Ok(None),
            Err(error) => return Err(error),
        };
        let kept = match std::fs::read(dir.join(KEPT)) {
            Ok(kept) => Some(kept),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let found = match kept {
            Some(kept) if kept != current => AtStart::Changed,
            Some(_) | None => AtStart::Same,
        };
        Ok(Some((Self { source, current }, found)))
    }

    /// Keeps the id for the next start: after the store that it speaks about was put aside, never before.
    ///
    /// # Errors
    /// As the file system says.
    pub fn keep(&self, dir: &Path) -> std::io::Result<()> {
        let new = dir.join(format!("{KEPT}.new"));
        std::fs::write(&new, &self.current)?;
        std::fs::File::open(&new)?.sync_all()?;
        std::fs::rename(&new, dir.join(KEPT))?;
        std::fs::File::open(dir)?.sync_all()
    }

    /// Takes the id as it is now.
    ///
    /// # Errors
    /// The source can't be read any more.
    pub fn renew(&mut self) -> std::io::Result<()> {
        self.current = std::fs::read(&self.source)?;
        Ok(())
    }

    /// Whether it is another one now. A source that can't be read for a moment says nothing.
    pub fn has_changed(&self) -> bool {
        std::fs::read(&self.source).is_ok_and(|now| now != self.current)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_was_rolled_back_is_known_at_the_next_start_and_while_it_runs() {
        let dir = tempfile::tempdir().expect("a folder");
        let source = dir.path().join("genid");
        std::fs::write(&source, b"one").expect("written");
        let look = || Generation::at_start(dir.path(), Some(&source)).expect("readable").expect("shown");
        let (first, found) = look();
        assert_eq!(found, AtStart::Same, "the first start has nothing to compare with");
        first.keep(dir.path()).expect("kept");
        assert_eq!(look().1, AtStart::Same);
        assert!(!first.has_changed());
        std::fs::write(&source, b"two").expect("written");
        assert!(first.has_changed());
        assert_eq!(look().1, AtStart::Changed);
        assert_eq!(look().1, AtStart::Changed, "until it is kept");
        look().0.keep(dir.path()).expect("kept");
        assert_eq!(look().1, AtStart::Same);
    }

    #[test]
    fn a_source_that_was_named_and_is_missing_is_an_error() {
        let dir = tempfile::tempdir().expect("a folder");
        assert!(Generation::at_start(dir.path(), Some(&dir.path().join("none"))).is_err());
    }
}
