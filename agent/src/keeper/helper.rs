//! Programs that do what the keeper can't do itself: withdraw addresses, drop a storage role, flush and close.
//!
//! A helper is started before anything is armed and then only triggered and timed. Its contract, in lines:
//!
//! ```text
//! helper → keeper   ready            once, when it has locked its memory and opened all it needs
//! keeper → helper   release <he>     the host epoch as a decimal number
//! helper → keeper   done             everything it stands for is gone, and it has looked; ready for the next
//! ```
//!
//! It runs outside the slice, survives an exec upgrade of the keeper, and ends when its input is closed. Anything
//! else it says, or its end before it was done, makes it lost: then nothing is petted once a host epoch is retired.
//!
//! Contract here: nothing allocates or blocks after [`Helpers::start`].

use super::core::Helpers as Progress;
use super::signals::Signals;
use quorum::id::HostEpoch;
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Longest line a helper may say.
const LINE_BYTES_MAX: usize = 16;

/// Why the helpers are not ready. Those that were started end, because their input is closed.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    /// The program could not be started.
    #[error("start helper {program:?}")]
    Start {
        /// The program.
        program: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// The program did not say `ready` in time.
    #[error("start helper {program:?}: not ready after {limit:?}")]
    NotReady {
        /// The program.
        program: PathBuf,
        /// How long was waited.
        limit: Duration,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Starting,
    Ready,
    Running,
    Done,
    Spent,
    Lost,
}

impl State {
    const ALL: [Self; 6] = [Self::Starting, Self::Ready, Self::Running, Self::Done, Self::Spent, Self::Lost];
}

#[derive(Debug)]
struct Helper {
    to: OwnedFd,
    from: OwnedFd,
    state: State,
    line: [u8; LINE_BYTES_MAX],
    line_bytes: usize,
}

impl Helper {
    fn start(program: &Path) -> std::io::Result<Self> {
        let mut command = Command::new(program);
        let piped = Signals::unblocked(&mut command).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = piped.spawn()?;
        let missing = || std::io::Error::other("a piped end is missing");
        let to: OwnedFd = child.stdin.take().ok_or_else(missing)?.into();
        let from: OwnedFd = child.stdout.take().ok_or_else(missing)?.into();
        // The child is not waited for: the keeper lives as long as it, and its end shows as the end of its output.
        Self::over(to, from, State::Starting)
    }

    fn over(to: OwnedFd, from: OwnedFd, state: State) -> std::io::Result<Self> {
        for fd in [&to, &from] {
            let flags = rustix::fs::fcntl_getfl(fd)?;
            rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK)?;
        }
        Ok(Self { to, from, state, line: [0; LINE_BYTES_MAX], line_bytes: 0 })
    }

    /// Reads what it said.
    fn poll(&mut self) {
        let mut buffer = [0; 64];
        loop {
            match rustix::io::read(&self.from, &mut buffer) {
                Ok(0) => return self.ended(),
                Ok(len) => buffer[..len].iter().for_each(|&byte| self.said(byte)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => return self.ended(),
            }
        }
    }

    fn said(&mut self, byte: u8) {
        if byte != b'\n' {
            match self.line.get_mut(self.line_bytes) {
                Some(place) => (*place, self.line_bytes) = (byte, self.line_bytes + 1),
                None => self.state = State::Lost,
            }
            return;
        }
        let line = &self.line[..std::mem::take(&mut self.line_bytes)];
        self.state = match (self.state, line) {
            (State::Starting, b"ready") => State::Ready,
            (State::Running, b"done") => State::Done,
            _ => State::Lost,
        };
    }

    fn ended(&mut self) {
        self.state = match self.state {
            State::Done | State::Spent => State::Spent,
            State::Starting | State::Ready | State::Running | State::Lost => State::Lost,
        };
    }

    fn trigger(&mut self, he: HostEpoch) {
        let mut order = [0; 40];
        let mut rest = &mut order[..];
        if writeln!(rest, "release {}", he.0).is_err() {
            self.state = State::Lost;
            return;
        }
        let len = 40 - rest.len();
        self.state = match rustix::io::write(&self.to, &order[..len]) {
            Ok(written) if written == len => State::Running,
            Ok(_) | Err(_) => State::Lost,
        };
    }
}

/// A helper's ends and state, for the next program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) to: RawFd,
    pub(super) from: RawFd,
    pub(super) state: u8,
}

/// All helpers of a keeper.
#[derive(Debug, Default)]
pub struct Helpers {
    all: Vec<Helper>,
    /// They were triggered since they were made ready. Without any, that alone is done.
    triggered: bool,
}

impl Helpers {
    /// Starts `programs` and waits until each is ready.
    ///
    /// # Errors
    /// [`HelperError`].
    pub fn start(programs: &[PathBuf], limit: Duration) -> Result<Self, HelperError> {
        let mut helpers = Self::default();
        for program in programs {
            let started = Helper::start(program);
            helpers.all.push(started.map_err(|source| HelperError::Start { program: program.clone(), source })?);
        }
        let begun = Instant::now();
        for (helper, program) in helpers.all.iter_mut().zip(programs) {
            while helper.state == State::Starting {
                let left = limit.checked_sub(begun.elapsed());
                let left = left.ok_or_else(|| HelperError::NotReady { program: program.clone(), limit })?;
                wait_readable(helper.from.as_fd(), left);
                helper.poll();
            }
        }
        Ok(helpers)
    }

    /// Reads what they said, and gives how far they are as a whole.
    pub fn poll(&mut self) -> Progress {
        self.all.iter_mut().for_each(Helper::poll);
        let any = |state: State| self.all.iter().any(|helper| helper.state == state);
        if any(State::Lost) || any(State::Starting) {
            Progress::Lost
        } else if any(State::Running) || (any(State::Ready) && (any(State::Done) || any(State::Spent))) {
            Progress::Running
        } else if any(State::Spent) {
            Progress::Spent
        } else if any(State::Done) || (self.all.is_empty() && self.triggered) {
            Progress::Done
        } else {
            Progress::Ready
        }
    }

    /// Tells those that wait to release what `he` had.
    pub fn trigger(&mut self, he: HostEpoch) {
        self.triggered = true;
        self.all.iter_mut().filter(|helper| helper.state == State::Ready).for_each(|helper| helper.trigger(he));
    }

    /// Makes those that are done wait for the next trigger.
    pub fn rearm(&mut self) {
        self.triggered = false;
        self.all.iter_mut().filter(|helper| helper.state == State::Done).for_each(|helper| helper.state = State::Ready);
    }

    /// Whether they were triggered since they were made ready.
    pub(super) fn is_triggered(&self) -> bool {
        self.triggered
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// What the next program needs to take them over.
    pub(super) fn kept(&self) -> impl Iterator<Item = Kept> + '_ {
        self.all.iter().map(|helper| Kept {
            to: helper.to.as_raw_fd(),
            from: helper.from.as_raw_fd(),
            state: State::ALL.iter().position(|&state| state == helper.state).unwrap_or(0) as u8,
        })
    }

    /// Takes over what an earlier program kept: its ends and their states.
    pub(super) fn resume(kept: impl Iterator<Item = (OwnedFd, OwnedFd, u8)>, triggered: bool) -> std::io::Result<Self> {
        let mut all = Vec::new();
        for (to, from, state) in kept {
            let state = State::ALL.get(usize::from(state)).copied().unwrap_or(State::Lost);
            all.push(Helper::over(to, from, state)?);
        }
        Ok(Self { all, triggered })
    }
}

fn wait_readable(fd: std::os::fd::BorrowedFd<'_>, limit: Duration) {
    let mut fds = [rustix::event::PollFd::from_borrowed_fd(fd, rustix::event::PollFlags::IN)];
    let limit = rustix::event::Timespec::try_from(limit).ok();
    // An interrupted or failed wait only makes the caller look again.
    let _woken = rustix::event::poll(&mut fds, limit.as_ref());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const LIMIT: Duration = Duration::from_secs(60);

    fn script(dir: &Path, body: &str) -> PathBuf {
        let path = dir.join("helper");
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("executable");
        path
    }

    fn until(helpers: &mut Helpers, wanted: Progress) {
        let begun = Instant::now();
        while helpers.poll() != wanted {
            assert!(begun.elapsed() < LIMIT, "never {wanted:?}, but {:?}", helpers.poll());
            wait_readable(helpers.all[0].from.as_fd(), Duration::from_millis(20));
        }
    }

    #[test]
    fn a_helper_is_ready_runs_is_done_and_waits_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let body = "echo ready; while read verb he; do echo \"$verb $he\" >> $0.log; echo done; done";
        let program = script(dir.path(), body);
        let mut helpers = Helpers::start(&[program], LIMIT).expect("started");
        assert_eq!(helpers.poll(), Progress::Ready);
        for he in [7, 8] {
            helpers.trigger(HostEpoch(he));
            until(&mut helpers, Progress::Done);
            helpers.rearm();
            assert_eq!(helpers.poll(), Progress::Ready);
        }
        let log = std::fs::read_to_string(dir.path().join("helper.log")).expect("a log");
        assert_eq!(log, "release 7\nrelease 8\n");
    }

    #[test]
    fn what_a_helper_did_stands_after_its_end_but_it_never_waits_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let program = script(dir.path(), "echo ready; read order; echo done");
        let mut helpers = Helpers::start(&[program], LIMIT).expect("started");
        helpers.trigger(HostEpoch(1));
        until(&mut helpers, Progress::Spent);
        helpers.rearm();
        assert_eq!(helpers.poll(), Progress::Spent);
    }

    #[test]
    fn a_helper_that_ends_or_says_something_else_is_lost() {
        let dir = tempfile::tempdir().expect("a directory");
        for body in ["echo ready; read order", "echo ready; read order; echo perhaps; read more"] {
            let program = script(dir.path(), body);
            let mut helpers = Helpers::start(&[program], LIMIT).expect("started");
            helpers.trigger(HostEpoch(1));
            until(&mut helpers, Progress::Lost);
        }
    }

    #[test]
    fn a_helper_that_never_gets_ready_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let program = script(dir.path(), "read order");
        let refused = Helpers::start(&[program], Duration::from_millis(50));
        assert!(matches!(refused, Err(HelperError::NotReady { .. })), "{refused:?}");
    }
}
