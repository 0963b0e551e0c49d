//! Signals as something to read between two steps, never in the middle of one.
//!
//! Contract: the signals below are blocked from [`Signals::block`] on, in this thread and in those it starts; a
//! process that needs them must be single-threaded. Nothing allocates after that.

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// What was asked for since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// SIGTERM or SIGINT: end in an orderly way.
    pub stop: bool,
    /// SIGHUP or SIGUSR2: go on as the program that is installed now.
    pub upgrade: bool,
    /// SIGCHLD: a child has ended.
    pub child: bool,
}

/// The blocked signals.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// Blocks them.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn block() -> Result<Self, Errno> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR2, Signal::SIGCHLD] {
            set.add(signal);
        }
        let errno = |errno: nix::errno::Errno| Errno::from_raw_os_error(errno as i32);
        set.thread_block().map_err(errno)?;
        SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).map(Self).map_err(errno)
    }

    /// A program started from here begins with no signal blocked: what is blocked is inherited, and a program that
    /// can't be ended politely, or can't end its own children so, would be killed for that.
    pub fn unblocked(command: &mut Command) -> &mut Command {
        let unblock = || SigSet::empty().thread_set_mask().map_err(std::io::Error::from);
        // SAFETY: between fork and exec the closure makes one system call on memory of its own.
        unsafe { command.pre_exec(unblock) }
    }

    /// What was asked for since the last call.
    pub fn take(&mut self) -> Asked {
        let mut asked = Asked::default();
        while let Ok(Some(signal)) = self.0.read_signal() {
            match signal.ssi_signo as i32 {
                libc::SIGTERM | libc::SIGINT => asked.stop = true,
                libc::SIGHUP | libc::SIGUSR2 => asked.upgrade = true,
                libc::SIGCHLD => asked.child = true,
                _ => {}
            }
        }
        asked
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
