//! The power button and its lamp: lines in, one JSON object a line out.
//!
//! ```text
//! status                  power, watchdog, lateness, units
//! on · off · reset        answered when it is done; off is answered when the tree was seen gone
//! start U · stop U        start a unit that has ended · don't start it again when it ends
//! signal U NAME           KILL, STOP, CONT, TERM, HUP or USR2 to every process of a unit
//! freeze · thaw           the whole host stands still, its watchdog goes on
//! quit                    off, and the chassis ends
//! ```
//!
//! Contract: every answer has `"ok"`, `"lab": true` and the host's name; a refusal says why in `"error"`.

use serde_json::Value;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest line a chassis reads.
pub(super) const LINE_BYTES_MAX: usize = 256;

/// Why the panel gave no answer. What was ordered may or may not have happened.
#[derive(Debug, thiserror::Error)]
pub enum PanelError {
    /// Nobody answers.
    #[error("use the chassis panel at {path:?}")]
    Silent {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The answer is none.
    #[error("read the answer of the chassis at {path:?}")]
    Answer {
        /// The socket.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The chassis refused.
    #[error("have the chassis do {line:?}: {because}")]
    Refused {
        /// What was ordered.
        line: String,
        /// Why not.
        because: String,
    },
}

/// A hand at the panel of a chassis.
#[derive(Debug)]
pub struct Panel {
    path: PathBuf,
    stream: BufReader<UnixStream>,
}

impl Panel {
    /// Steps up to the chassis that listens at `control`.
    ///
    /// # Errors
    /// [`PanelError::Silent`].
    pub fn open(control: &Path) -> Result<Self, PanelError> {
        let path = control.to_owned();
        let connected = UnixStream::connect(&path).and_then(|stream| {
            stream.set_read_timeout(Some(Duration::from_secs(120)))?;
            Ok(stream)
        });
        match connected {
            Ok(stream) => Ok(Self { path, stream: BufReader::new(stream) }),
            Err(source) => Err(PanelError::Silent { path, source }),
        }
    }

    /// Orders `line`; gives the chassis' answer.
    ///
    /// # Errors
    /// [`PanelError`].
    pub fn order(&mut self, line: &str) -> Result<Value, PanelError> {
        let silent = |source| PanelError::Silent { path: self.path.clone(), source };
        self.stream.get_mut().write_all(format!("{line}\n").as_bytes()).map_err(silent)?;
        let mut answer = String::new();
        self.stream.read_line(&mut answer).map_err(silent)?;
        let answer: Value =
            serde_json::from_str(&answer).map_err(|source| PanelError::Answer { path: self.path.clone(), source })?;
        if answer["ok"] == true {
            return Ok(answer);
        }
        let because = answer["error"].as_str().unwrap_or("no reason given").to_owned();
        Err(PanelError::Refused { line: line.to_owned(), because })
    }
}
