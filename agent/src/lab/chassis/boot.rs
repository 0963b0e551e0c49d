//! What a lab host runs at power-on: units in the order of a TOML file.
//!
//! ```toml
//! [[unit]]
//! name = "keeper"
//! argv = ["/usr/bin/antipode", "keeper", "--dir", "/dev/shm/lab/keeper"]
//! restart = "always"          # or "never", the default
//! restart_after_ms = 0
//! env = { RUST_BACKTRACE = "1" }
//! ```
//!
//! Contract: an unknown key, a unit without a program, or two of one name are errors.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Whether a unit that ended is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    /// It stays ended until `start` is said on the panel.
    #[default]
    Never,
    /// It is, without a limit.
    Always,
}

/// A program of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unit {
    /// Its name on the panel, and of its cgroup and log file.
    pub name: String,
    /// The program and its arguments. Never a shell's line.
    pub argv: Vec<String>,
    /// Whether it is started again when it ends.
    #[serde(default)]
    pub restart: Restart,
    /// How long that waits.
    #[serde(default)]
    pub restart_after_ms: u64,
    /// Added to the chassis' own environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

/// Everything that a host runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Boot {
    /// The units, in the order in which they are started.
    #[serde(default, rename = "unit")]
    pub units: Vec<Unit>,
}

/// Why a host can't be started from this file.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// It can't be read.
    #[error("read {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// It isn't what it should be.
    #[error("read {path:?} as a boot file: {text}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        text: String,
    },
}

impl Boot {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// [`BootError`].
    pub fn read(path: &Path) -> Result<Self, BootError> {
        let text = std::fs::read_to_string(path).map_err(|source| BootError::Read { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|text| BootError::Malformed { path: path.to_owned(), text })
    }

    /// A host that runs one program.
    pub fn of_one(argv: &[String]) -> Self {
        let (restart, env) = (Restart::Never, BTreeMap::new());
        Self { units: vec![Unit { name: "host".into(), argv: argv.to_vec(), restart, restart_after_ms: 0, env }] }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let boot: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        let mut names = BTreeSet::new();
        for unit in &boot.units {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            if unit.name.is_empty() || !unit.name.chars().all(plain) {
                return Err(format!("unit name {:?} has characters that a cgroup's name can't have", unit.name));
            }
            if unit.argv.is_empty() {
                return Err(format!("unit {:?} has an empty argv", unit.name));
            }
            if !names.insert(&unit.name) {
                return Err(format!("two units are called {:?}", unit.name));
            }
        }
        Ok(boot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_keep_their_order_and_defaults() {
        let boot = Boot::parse("[[unit]]\nname='b'\nargv=['/b']\n[[unit]]\nname='a'\nargv=['/a']\nrestart='always'");
        let boot = boot.expect("well formed");
        assert_eq!(boot.units[0].name, "b");
        assert_eq!((boot.units[0].restart, boot.units[1].restart), (Restart::Never, Restart::Always));
    }

    #[test]
    fn what_can_not_be_started_is_refused() {
        for bad in [
            "[[unit]]\nname='a'\nargv=[]",
            "[[unit]]\nname='a/b'\nargv=['/a']",
            "[[unit]]\nname='a'\nargv=['/a']\n[[unit]]\nname='a'\nargv=['/a']",
            "[[unit]]\nname='a'\nargv=['/a']\nretsart='always'",
        ] {
            assert!(Boot::parse(bad).is_err(), "{bad}");
        }
    }
}
