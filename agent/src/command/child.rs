//! One child process: spawned, fed, listened to, and ended with its whole process group.
//!
//! The leader is watched through a pidfd and reaped last, so that its process group id can't be given to anybody else
//! before the group was killed.

use super::{CommandError, Ending, Invocation, Outcome};
use rustix::process::{Pid, PidfdFlags, Signal};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;

/// A process that was sent SIGKILL ends at once unless it hangs in the kernel; then nobody waits for it here.
const REAP_LIMIT: Duration = Duration::from_secs(2);

pub(super) async fn run(invocation: &Invocation) -> Result<Outcome, CommandError> {
    let started = Instant::now();
    let mut running = Running::spawn(invocation)?;
    let lost = |source| CommandError::Lost { program: invocation.program.path().to_owned(), source };
    match tokio::time::timeout(invocation.deadline, running.converse(invocation)).await {
        Ok(Ok(())) => {}
        Ok(Err(source)) => return Err(lost(source)),
        Err(_elapsed) => {
            running.leader.kill_group();
            // Best effort: the verdict is "unknown" either way.
            let _ = tokio::time::timeout(REAP_LIMIT, running.exited()).await;
            return Err(CommandError::Silent {
                program: invocation.program.path().to_owned(),
                limit: invocation.deadline,
            });
        }
    }
    let ending = running.leader.reap().map_err(lost)?;
    let Running { out, err, .. } = &mut running;
    Ok(Outcome {
        ending,
        is_cut_short: out.is_cut_short || err.is_cut_short,
        stdout: std::mem::take(&mut out.kept),
        stderr: std::mem::take(&mut err.kept),
        took: started.elapsed(),
    })
}

/// One output stream, kept up to a limit.
struct Listener {
    pipe: pipe::Receiver,
    kept: Vec<u8>,
    bytes_max: usize,
    is_cut_short: bool,
    is_open: bool,
}

impl Listener {
    fn new(fd: OwnedFd, bytes_max: usize) -> io::Result<Self> {
        let pipe = pipe::Receiver::from_owned_fd(fd)?;
        Ok(Self { pipe, kept: Vec::new(), bytes_max, is_cut_short: false, is_open: true })
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = self.bytes_max - self.kept.len();
        self.is_cut_short |= bytes.len() > room;
        self.kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.is_open = !bytes.is_empty();
    }

    async fn listen(&mut self) -> io::Result<()> {
        let mut buffer = [0; 8192];
        let count = self.pipe.read(&mut buffer).await?;
        self.keep(&buffer[..count]);
        Ok(())
    }

    /// Takes what is there without waiting: a daemon that the program left behind may hold the pipe open for ever.
    fn drain(&mut self) {
        let mut buffer = [0; 8192];
        while self.is_open {
            match self.pipe.try_read(&mut buffer) {
                Ok(count) => self.keep(&buffer[..count]),
                Err(_) => return,
            }
        }
    }
}

/// The leader of the group. Dropped before it was reaped, it is killed with its group.
struct Leader {
    child: Option<Child>,
    pid: Pid,
}

impl Leader {
    fn new(child: Child) -> Self {
        Self { pid: Pid::from_child(&child), child: Some(child) }
    }

    fn kill_group(&self) {
        // ESRCH: nobody is left.
        let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
    }

    fn reap(&mut self) -> io::Result<Ending> {
        let mut child = self.child.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let status = child.wait()?;
        Ok(match (status.code(), status.signal()) {
            (Some(code), _) => Ending::Code(code),
            (None, signal) => Ending::Signal(signal.unwrap_or_default()),
        })
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            self.kill_group();
            // On a thread of its own: a killed process that hangs in the kernel must not hold up the caller.
            std::thread::spawn(move || child.wait());
        }
    }
}

struct Running {
    leader: Leader,
    pidfd: AsyncFd<OwnedFd>,
    input: Option<pipe::Sender>,
    out: Listener,
    err: Listener,
}

impl Running {
    fn spawn(invocation: &Invocation) -> Result<Self, CommandError> {
        let program = invocation.program.path();
        let failed = |what| move |source| CommandError::NotStarted { program: program.to_owned(), what, source };
        let mut command = Command::new(program);
        command.args(&invocation.args).env_clear().envs(&invocation.env).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let secrets = lend_secrets(&mut command, invocation).map_err(failed("secrets"))?;
        enter_cgroup(&mut command, invocation).map_err(failed("cgroup"))?;
        let leader = Leader::new(command.spawn().map_err(failed("spawn"))?);
        drop(secrets);
        Self::follow(leader, invocation.output_bytes_max)
            .map_err(|source| CommandError::Lost { program: program.to_owned(), source })
    }

    fn follow(mut leader: Leader, bytes_max: usize) -> io::Result<Self> {
        let missing = || io::Error::from(io::ErrorKind::BrokenPipe);
        let pidfd = rustix::process::pidfd_open(leader.pid, PidfdFlags::empty())?;
        // SAFETY: the descriptor is owned by the `AsyncFd`: it stays open and the same until that is dropped.
        let pidfd = unsafe { AsyncFd::register(pidfd) }?;
        let child = leader.child.as_mut().ok_or_else(missing)?;
        let input = pipe::Sender::from_owned_fd(child.stdin.take().ok_or_else(missing)?.into())?;
        let out = Listener::new(child.stdout.take().ok_or_else(missing)?.into(), bytes_max)?;
        let err = Listener::new(child.stderr.take().ok_or_else(missing)?.into(), bytes_max)?;
        Ok(Self { leader, pidfd, input: Some(input), out, err })
    }

    /// Feeds and listens until the leader has ended, then ends what is left of its group.
    async fn converse(&mut self, invocation: &Invocation) -> io::Result<()> {
        let input = self.input.take();
        let mut feed = std::pin::pin!(async move {
            if let Some(mut pipe) = input {
                // A program that doesn't read its input to the end is none of our business.
                let _ = pipe.write_all(&invocation.stdin).await;
            }
        });
        let mut is_fed = false;
        loop {
            tokio::select! {
                biased;
                exit = self.pidfd.readable() => { exit?.retain_ready(); break }
                () = &mut feed, if !is_fed => is_fed = true,
                heard = self.out.listen(), if self.out.is_open => heard?,
                heard = self.err.listen(), if self.err.is_open => heard?,
            }
        }
        self.leader.kill_group();
        self.out.drain();
        self.err.drain();
        Ok(())
    }

    async fn exited(&self) -> io::Result<()> {
        self.pidfd.readable().await?.retain_ready();
        Ok(())
    }
}

/// Makes each secret a sealed memory file that the child inherits; returns them to be held until it was spawned.
fn lend_secrets(command: &mut Command, invocation: &Invocation) -> io::Result<Vec<OwnedFd>> {
    use rustix::fs::{MemfdFlags, SealFlags};
    let mut held = Vec::new();
    for (name, value) in &invocation.secrets {
        let memory = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        let mut file = std::fs::File::from(memory);
        file.write_all(value)?;
        rustix::fs::fcntl_add_seals(&file, SealFlags::SEAL | SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK)?;
        let variable = format!("ANTIPODE_SECRET_{}", name.to_uppercase());
        command.env(variable, format!("/proc/self/fd/{}", file.as_raw_fd()));
        held.push(OwnedFd::from(file));
    }
    let numbers: Vec<RawFd> = held.iter().map(AsRawFd::as_raw_fd).collect();
    if !numbers.is_empty() {
        // SAFETY: between fork and exec only fcntl is called, which is async-signal-safe; nothing is allocated.
        unsafe {
            command.pre_exec(move || {
                for &number in &numbers {
                    if libc::fcntl(number, libc::F_SETFD, 0) < 0 {
                        return Err(io::Error::last_os_error());
                    }
                }
                Ok(())
            });
        }
    }
    Ok(held)
}

/// Lets the child enter its cgroup before it becomes the program. The folder is opened here, so that a wrong one is an
/// error that the caller sees before anything was forked.
fn enter_cgroup(command: &mut Command, invocation: &Invocation) -> io::Result<()> {
    let Some(folder) = &invocation.cgroup else { return Ok(()) };
    let list = std::fs::OpenOptions::new().write(true).open(folder.join("cgroup.procs"))?;
    // SAFETY: between fork and exec only write is called on a descriptor opened before, which is async-signal-safe.
    unsafe {
        command.pre_exec(move || match libc::write(list.as_raw_fd(), b"0".as_ptr().cast(), 1) {
            1 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
    Ok(())
}
