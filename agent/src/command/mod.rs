//! The one runner for external programs: drivers that wrap a program call it through here and nowhere else.
//!
//! Contract: the argument vector is passed as it is (there is never a shell); the environment is empty but for what
//! the caller gave; the child leads its own process group, and that group is killed at the deadline, when the caller
//! loses interest, and when the leader has ended. A program that wants something to outlive the call makes it leave the
//! group (`setsid`) and, in a protected slice, stay in the cgroup. Output beyond its limit is read and thrown away.
//! Secrets travel on standard input or in a sealed memory file, never in the argument vector or the environment.
//!
//! A deadline that passes means *unknown*: the program may have done all, some or none of its work.
//!
//! Not here: what an exit code means (each kind knows its program), retries, and what is written to the journal.

mod child;
pub mod daemon;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where a bare program name is looked for, and the `PATH` that a child gets: Debian's default for root.
pub const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How much of each output stream is kept by default. A vendor's longest report fits; a runaway loop does no harm.
pub const OUTPUT_BYTES_MAX: usize = 256 * 1024;

/// Programs tend to say what went wrong in the line before their advice.
const SUMMARY_LINES: usize = 3;

/// Why a program did not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// No such program. Nothing was started.
    #[error("find program {name:?} in {SEARCH_PATH}")]
    NotFound {
        /// The name or path asked for.
        name: String,
    },
    /// It could not be started (resources, permissions, cgroup). Nothing was started.
    #[error("start {program:?}: {what}")]
    NotStarted {
        /// The program's path.
        program: PathBuf,
        /// The part of starting that failed.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// The deadline passed and the process group was killed. What it did until then is unknown.
    #[error("wait for {program:?}: no end within {limit:?}, its effect is unknown")]
    Silent {
        /// The program's path.
        program: PathBuf,
        /// The deadline it was given.
        limit: Duration,
    },
    /// The kernel refused to wait or read. The process group was killed; what it did until then is unknown.
    #[error("follow {program:?}")]
    Lost {
        /// The program's path.
        program: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
}

impl CommandError {
    /// True if it is certain that the program had no effect.
    pub fn is_without_effect(&self) -> bool {
        match self {
            CommandError::NotFound { .. } | CommandError::NotStarted { .. } => true,
            CommandError::Silent { .. } | CommandError::Lost { .. } => false,
        }
    }
}

/// A program that was found: an absolute path, looked up once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program(PathBuf);

impl Program {
    /// Finds `name`: a path with a slash must be absolute and executable, a bare name is looked for in [`SEARCH_PATH`].
    ///
    /// # Errors
    /// [`CommandError::NotFound`].
    pub fn find(name: &str) -> Result<Self, CommandError> {
        let missing = || CommandError::NotFound { name: name.to_owned() };
        if name.contains('/') {
            let path = PathBuf::from(name);
            return if path.is_absolute() && is_executable(&path) { Ok(Self(path)) } else { Err(missing()) };
        }
        SEARCH_PATH
            .split(':')
            .map(|folder| Path::new(folder).join(name))
            .find(|path| is_executable(path))
            .map(Self)
            .ok_or_else(missing)
    }

    /// Its absolute path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// One call of one program.
pub struct Invocation {
    program: Program,
    args: Vec<OsString>,
    env: BTreeMap<OsString, OsString>,
    stdin: Vec<u8>,
    secrets: Vec<(String, Vec<u8>)>,
    cgroup: Option<PathBuf>,
    deadline: Duration,
    output_bytes_max: usize,
}

impl fmt::Debug for Invocation {
    /// Standard input and secrets show their size only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invocation")
            .field("program", &self.program.0)
            .field("args", &self.args)
            .field("stdin_bytes", &self.stdin.len())
            .field("secrets", &self.secrets.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>())
            .field("cgroup", &self.cgroup)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

impl Invocation {
    /// A call of `program` that is killed after `deadline`.
    pub fn new(program: &Program, deadline: Duration) -> Self {
        let env = [("PATH", SEARCH_PATH), ("LC_ALL", "C")].map(|(name, value)| (name.into(), value.into()));
        Self {
            program: program.clone(),
            args: Vec::new(),
            env: env.into(),
            stdin: Vec::new(),
            secrets: Vec::new(),
            cgroup: None,
            deadline,
            output_bytes_max: OUTPUT_BYTES_MAX,
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments in order.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets one variable of the otherwise empty environment (`PATH` and `LC_ALL=C` are there already).
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.insert(name.as_ref().to_owned(), value.as_ref().to_owned());
        self
    }

    /// Gives these bytes on standard input, then closes it. Without them standard input is empty.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Passes a secret in a sealed memory file; the child finds its path in the variable
    /// `ANTIPODE_SECRET_<NAME>` (the name in capitals).
    #[must_use]
    pub fn secret(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.secrets.push((name.to_owned(), value.into()));
        self
    }

    /// Starts the child inside this cgroup (version 2): it enters before it becomes the program, so that nothing of
    /// it ever runs outside.
    #[must_use]
    pub fn cgroup(mut self, folder: impl Into<PathBuf>) -> Self {
        self.cgroup = Some(folder.into());
        self
    }

    /// Keeps at most so many bytes of each output stream instead of [`OUTPUT_BYTES_MAX`].
    #[must_use]
    pub fn output_bytes_max(mut self, bytes: usize) -> Self {
        self.output_bytes_max = bytes;
        self
    }

    /// Runs it to its end.
    ///
    /// Dropping the future kills the process group.
    ///
    /// # Errors
    /// [`CommandError`]; an exit code other than 0 is no error here.
    pub async fn run(&self) -> Result<Outcome, CommandError> {
        child::run(self).await
    }
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Code(code) => write!(f, "exit code {code}"),
            Ending::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// What a program that ran to its end left behind.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it ended.
    pub ending: Ending,
    /// The beginning of its standard output.
    pub stdout: Vec<u8>,
    /// The beginning of its standard error.
    pub stderr: Vec<u8>,
    /// True if more was said than kept.
    pub is_cut_short: bool,
    /// How long it took.
    pub took: Duration,
}

impl Outcome {
    /// True for exit code 0.
    pub fn is_success(&self) -> bool {
        self.ending == Ending::Code(0)
    }

    /// One line for people: the ending and the last lines said on standard error, else on standard output.
    pub fn summary(&self) -> String {
        let said = if self.stderr.trim_ascii().is_empty() { &self.stdout } else { &self.stderr };
        let text = String::from_utf8_lossy(said);
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        match &lines[lines.len().saturating_sub(SUMMARY_LINES)..] {
            [] => self.ending.to_string(),
            last => format!("{}: {}", self.ending, last.join(" / ").chars().take(400).collect::<String>()),
        }
    }
}
