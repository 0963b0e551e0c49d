//! Writes that a standby's export answered with an error: from the first one on, its copy lacks something.
//!
//! QEMU's mirror ends when its target answers with an error (a full or failing disk), and lets the guest's writes be
//! answered from that very moment, before anybody could have committed `Detached`. So the ledger may go on counting on
//! this copy, and the source may be gone before it could say otherwise. The only other witness is this side: the export
//! logs each error that it answers, before it answers, and while there is one the copy says of itself that it is no
//! standby. The data gate then holds it.
//!
//! The log lies in the runtime folder and not beside the volume, whose disk may be full. A reboot empties that folder, so
//! what is found at a look goes into the copy's record, or takes it away where there is no room for another.

use quorum::mutants;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// What QEMU calls an error that it answers, in its trace.
pub const TRACED: &str = "nbd_co_send_structured_error";
/// A client that asks whether zeros can be written fast is told so with an error; nothing is missing then.
const NO_FAST_ZEROS: &str = "(ENOTSUP)";

/// What one volume's export refused.
#[derive(Clone, Debug)]
pub struct Refusals {
    log: PathBuf,
    before: PathBuf,
}

impl Refusals {
    /// Of the volume whose export keeps its things in this folder.
    pub fn of(runtime: &Path, volume: &str) -> Self {
        let log = runtime.join(format!("export-{volume}.refused"));
        let mut before = OsString::from(&log);
        before.push("-before");
        Self { log, before: before.into() }
    }

    /// Where an export is to log. It begins its log anew.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The first error that was answered since the copy was last compared as a whole.
    ///
    /// # Errors
    /// What keeps a log from being read: the copy's worth is unknown then.
    pub fn found(&self) -> io::Result<Option<String>> {
        if mutants::on("data.refused_write_ignored") {
            return Ok(None);
        }
        for path in [&self.before, &self.log] {
            let text = read(path)?;
            let text = String::from_utf8_lossy(&text);
            let refusal = text.lines().find(|line| line.contains(TRACED) && !line.contains(NO_FAST_ZEROS));
            if let Some(line) = refusal {
                let at = line.find("error =").unwrap_or_default();
                return Ok(Some(line[at..].trim().to_owned()));
            }
        }
        Ok(None)
    }

    /// Keeps what is logged, before an export begins its log anew.
    ///
    /// # Errors
    /// What keeps it from being kept; nothing is lost then.
    pub fn keep(&self) -> io::Result<()> {
        let logged = read(&self.log)?;
        if logged.is_empty() || mutants::on("data.refusals_lost_with_the_export") {
            return Ok(());
        }
        let mut file = OpenOptions::new().create(true).append(true).open(&self.before)?;
        file.write_all(&logged)?;
        file.sync_all()?;
        super::record::sync_folder(&self.before)?;
        fs::remove_file(&self.log)
    }

    /// The whole copy is about to be compared: what was refused before counts no more. An export that is open goes on
    /// logging.
    ///
    /// # Errors
    /// What keeps it from being forgotten.
    pub fn forget(&self) -> io::Result<()> {
        for path in [&self.before, &self.log] {
            match OpenOptions::new().write(true).truncate(true).open(path) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "nbd_co_send_structured_error Send structured error reply: handle = 9, error = 28 (ENOSPC), msg = 'writing to file failed'\n";

    #[test]
    fn what_was_refused_is_known_until_the_copy_is_compared_again() {
        let folder = tempfile::tempdir().unwrap();
        let refusals = Refusals::of(folder.path(), "root");
        assert_eq!(refusals.found().unwrap(), None, "nothing was ever served");
        fs::write(refusals.log(), LINE.replace("28 (ENOSPC)", "95 (ENOTSUP)")).unwrap();
        assert_eq!(refusals.found().unwrap(), None, "a question about fast zeros");
        fs::write(refusals.log(), LINE).unwrap();
        let found = "error = 28 (ENOSPC), msg = 'writing to file failed'";
        assert_eq!(refusals.found().unwrap().as_deref(), Some(found));
        // The export is begun anew, and its log with it.
        refusals.keep().unwrap();
        fs::write(refusals.log(), "").unwrap();
        assert_eq!(refusals.found().unwrap().as_deref(), Some(found));
        refusals.forget().unwrap();
        assert_eq!(refusals.found().unwrap(), None);
        // The export that is open writes behind what it wrote before.
        fs::write(refusals.log(), format!("{}{LINE}", "\0".repeat(LINE.len()))).unwrap();
        assert_eq!(refusals.found().unwrap().as_deref(), Some(found));
    }
}
