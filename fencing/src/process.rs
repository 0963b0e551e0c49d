//! Runs the program of a device kind: no shell, a process group of its own, a hard deadline, bounded output.
//!
//! Contract: when `run` returns (or its future is dropped) no process of the group is left. The deadline holds twice:
//! here, where the whole group is killed, and in the kernel (`alarm` in the program itself), so that a program also
//! ends when this process is paused or dead. Secrets go in by standard input or by the environment of this one child,
//! never by argument. The environment is otherwise empty but for a few harmless names.
//! Not here: what the output means (the kinds), masking (`secret::Mask`, applied by the kinds to every text they show).

use crate::secret::Secret;
use crate::trouble::Trouble;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// Most bytes kept of each output stream; what comes beyond is read and dropped.
const OUTPUT_BYTES_MAX: usize = 256 * 1024;
/// How long a program may clean up after SIGTERM before SIGKILL.
const GRACE: Duration = Duration::from_secs(1);
/// How long output may still come after the program has ended and its group was killed.
const DRAIN: Duration = Duration::from_millis(500);

/// A program to run.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    args: Vec<String>,
    env: Vec<(String, Secret)>,
    input: Secret,
}

/// What a program left behind.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Its standard output, as text.
    pub stdout: String,
    /// Its standard error, as text.
    pub stderr: String,
}

impl Finished {
    /// How it ended, for a message.
    pub fn ending(&self) -> String {
        match (self.code, self.signal) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "no exit code".to_owned(),
        }
    }

    /// The last words on standard error, or on standard output if that is empty: usually the reason.
    pub fn last_words(&self) -> &str {
        let last = |text: &str| text.trim_end().rfind('\n').map_or(0, |at| at + 1);
        let text = if self.stderr.trim().is_empty() { &self.stdout } else { &self.stderr };
        text[last(text)..].trim()
    }
}

/// Until when a program may run, and who may end it earlier.
#[derive(Clone, Debug)]
pub struct Leash {
    /// The hard deadline.
    pub limit: Instant,
    /// Becomes `true` when the call is to end early.
    pub stop: watch::Receiver<bool>,
}

impl Leash {
    /// A leash without anybody who could pull it.
    pub fn until(limit: Instant) -> Self {
        Self { limit, stop: watch::channel(false).1 }
    }

    /// Resolves when the call is to end early; never if nobody can say so any more.
    pub async fn stopped(&self) {
        let mut stop = self.stop.clone();
        if stop.wait_for(|stop| *stop).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Program {
    /// The program at `path`; without a slash it is looked for in the usual places.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self { path: find(path.as_ref()), args: Vec::new(), env: Vec::new(), input: Secret::new("") }
    }

    /// One more argument. Never a secret.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// More arguments. Never a secret.
    #[must_use]
    pub fn args<T: Into<String>>(mut self, args: impl IntoIterator<Item = T>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// A variable in the environment of this child.
    #[must_use]
    pub fn env(mut self, name: &str, value: Secret) -> Self {
        self.env.push((name.to_owned(), value));
        self
    }

    /// What it reads from its standard input.
    #[must_use]
    pub fn input(mut self, input: Secret) -> Self {
        self.input = input;
        self
    }

    /// The command line as a person may see it: secrets aren't in it, variables are named with masked values.
    pub fn shown(&self) -> String {
        let mut text = String::new();
        for (name, _) in &self.env {
            let _ = write!(text, "{name}={} ", crate::secret::MASKED);
        }
        let _ = write!(text, "{}", self.path.display());
        for arg in &self.args {
            let plain = arg.chars().all(|c| c.is_ascii_alphanumeric() || "-_./:=,@+?&%".contains(c)) && !arg.is_empty();
            let _ = if plain { write!(text, " {arg}") } else { write!(text, " '{}'", arg.replace('\'', r"'\''")) };
        }
        text
    }

    /// Runs it to its end, or ends it.
    ///
    /// # Errors
    /// [`Trouble::Unusable`] if it can't be started, [`Trouble::Silent`] if the deadline came first,
    /// [`Trouble::Overtaken`] if it was stopped. No process of it is left in any case.
    pub async fn run(&self, leash: &Leash) -> Result<Finished, Trouble> {
        self.stand_by(leash.limit)?.run(&self.input, leash).await
    }

    /// Starts it without its input: one that reads what it shall do from there gets ready, and does nothing yet.
    ///
    /// # Errors
    /// [`Trouble::Unusable`] if it can't be started.
    pub fn stand_by(&self, until: Instant) -> Result<Standby, Trouble> {
        Ok(Standby { running: self.start(until)?, until })
    }

    fn start(&self, limit: Instant) -> Result<Running, Trouble> {
        let because = |error: std::io::Error| Trouble::Unusable {
            because: format!("{} can't be started: {error}", self.path.display()),
        };
        let mut command = Command::new(&self.path);
        command.args(&self.args).env_clear().envs(plain_environment());
        command.envs(self.env.iter().map(|(name, value)| (name, value.expose())));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.current_dir("/").process_group(0).kill_on_drop(true);
        let seconds = limit.saturating_duration_since(Instant::now()).as_secs().saturating_add(2);
        let seconds = libc::c_uint::try_from(seconds).unwrap_or(libc::c_uint::MAX);
        // SAFETY: `alarm` is async-signal-safe, touches no memory, and survives exec with the default action (terminate).
        unsafe {
            command.pre_exec(move || {
                libc::alarm(seconds);
                Ok(())
            });
        }
        let child = command.spawn().map_err(because)?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        let group = group.ok_or_else(|| because(std::io::Error::other("it ended at once")))?;
        let mut running = Running { child, group, ended: None };
        running.ended = Some(watch_end(group).map_err(because)?);
        Ok(running)
    }
}

/// A program that waits for its input. Dropping it ends it.
pub struct Standby {
    running: Running,
    until: Instant,
}

impl Standby {
    /// Whether the kernel lets it run at least until then.
    pub fn lasts(&self, until: Instant) -> bool {
        self.until >= until
    }

    /// Gives it its input and runs it to its end, or ends it.
    ///
    /// # Errors
    /// As [`Program::run`].
    pub async fn run(mut self, input: &Secret, leash: &Leash) -> Result<Finished, Trouble> {
        let begun = Instant::now();
        let running = &mut self.running;
        let group = running.group;
        let end = {
            let mut finish = std::pin::pin!(running.finish(input));
            tokio::select! {
                biased;
                finished = &mut finish => return finished,
                () = tokio::time::sleep_until(leash.limit) => Trouble::Silent { limit: leash.limit - begun },
                () = leash.stopped() => {
                    // Politely first, so that it can close its session with the device; its output is still taken, or
                    // its last words would kill it before it has cleaned up (SIGPIPE).
                    kill(group, Signal::SIGTERM);
                    let _ = timeout(GRACE, &mut finish).await;
                    Trouble::Overtaken { because: "the call was stopped".into() }
                }
            }
        };
        self.running.end().await;
        Err(end)
    }
}

/// A running program. Dropping it kills its whole group.
struct Running {
    child: Child,
    group: Pid,
    ended: Option<AsyncFd<OwnedFd>>,
}

impl Running {
    async fn finish(&mut self, input: &Secret) -> Result<Finished, Trouble> {
        let stdin = self.child.stdin.take();
        let feed = async {
            if let Some(mut stdin) = stdin {
                // A program that doesn't read its input is no trouble by itself.
                let _ = stdin.write_all(input.expose().as_bytes()).await;
            }
        };
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let (out, err) = (self.child.stdout.take(), self.child.stderr.take());
        {
            let mut read = std::pin::pin!(async {
                tokio::join!(read_bounded(out, &mut stdout), read_bounded(err, &mut stderr), feed);
            });
            let mut ended = std::pin::pin!(async {
                if let Some(ended) = &self.ended {
                    let _ = ended.readable().await;
                }
                // The leader is still a zombie here, so its number can't have been given to another group.
                kill(self.group, Signal::SIGKILL);
            });
            tokio::select! {
                () = &mut read => ended.await,
                () = &mut ended => drop(timeout(DRAIN, read).await),
            }
        }
        let status = self.child.wait().await;
        let status = status.map_err(|error| Trouble::Unusable { because: format!("its end was missed: {error}") })?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Finished { code: status.code(), signal: status.signal(), stdout: text(stdout), stderr: text(stderr) })
    }

    /// Ends the group, unless it has ended.
    async fn end(&mut self) {
        // Without a number it was reaped, and its group was killed before that.
        if self.child.id().is_some() {
            kill(self.group, Signal::SIGKILL);
            let _ = self.child.wait().await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // `id` is None once the leader was reaped; its group was killed before that.
        if self.child.id().is_some() {
            kill(self.group, Signal::SIGKILL);
        }
    }
}

fn kill(group: Pid, signal: Signal) {
    // ESRCH means that nobody of the group is left, which is what was wanted.
    let _ = killpg(group, signal);
}

fn watch_end(leader: Pid) -> std::io::Result<AsyncFd<OwnedFd>> {
    let pid = rustix::process::Pid::from_raw(leader.as_raw()).ok_or_else(|| std::io::Error::other("no process id"))?;
    let fd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::NONBLOCK)?;
    // SAFETY: the descriptor is owned by the `AsyncFd` and is neither replaced nor closed before it.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}

async fn read_bounded(stream: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>) {
    let Some(mut stream) = stream else { return };
    let mut buffer = [0; 8192];
    while let Ok(count) = stream.read(&mut buffer).await {
        if count == 0 {
            return;
        }
        let room = OUTPUT_BYTES_MAX.saturating_sub(into.len()).min(count);
        into.extend_from_slice(&buffer[..room]);
    }
}

/// Agents and tools need little: where programs are, and a language whose words we know.
fn plain_environment() -> Vec<(OsString, OsString)> {
    let pair = |name: &str, value: &str| (OsString::from(name), OsString::from(value));
    vec![pair("PATH", SEARCH.join(":").as_str()), pair("LC_ALL", "C"), pair("HOME", "/nonexistent")]
}

const SEARCH: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

fn find(program: &Path) -> PathBuf {
    if program.components().count() > 1 {
        return program.to_owned();
    }
    let places = SEARCH.iter().map(|folder| Path::new(folder).join(program));
    places.into_iter().find(|path| path.is_file()).unwrap_or_else(|| program.to_owned())
}

/// Whether `program` is there to be run.
pub fn is_installed(program: &Path) -> bool {
    find(program).is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Program {
        Program::new("/bin/sh").args(["-c", script])
    }

    fn leash(ms: u64) -> Leash {
        Leash::until(Instant::now() + Duration::from_millis(ms))
    }

    /// Whether a process lives (a zombie that nobody reaped yet doesn't).
    fn is_alive(pid: &str) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        !status.is_empty() && !status.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z')
    }

    async fn until_gone(pid: &str) -> bool {
        for _ in 0..500 {
            if !is_alive(pid) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }

    #[tokio::test]
    async fn output_and_exit_code_come_back() {
        let program = shell("read line; echo \"got $line\"; echo oops >&2; exit 3").input(Secret::new("word\n"));
        let finished = program.run(&leash(30_000)).await.unwrap();
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(3), "got word\n"));
        assert_eq!(finished.last_words(), "oops");
    }

    #[tokio::test]
    async fn at_the_deadline_the_whole_group_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let pids = folder.path().join("pids");
        // A grandchild that ignores SIGTERM, as some vendors' tools do.
        let script = format!(
            "sh -c 'trap \"\" TERM; echo $$ >> {0}; while :; do sleep 1; done' & echo $$ >> {0}; wait",
            pids.display()
        );
        let trouble = shell(&script).run(&leash(1_500)).await.unwrap_err();
        assert!(matches!(trouble, Trouble::Silent { .. }), "{trouble}");
        for pid in std::fs::read_to_string(&pids).unwrap().lines() {
            assert!(until_gone(pid).await, "process {pid} outlived its deadline");
        }
    }

    #[tokio::test]
    async fn a_stopped_program_may_clean_up_first() {
        let folder = tempfile::tempdir().unwrap();
        let (started, cleaned) = (folder.path().join("started"), folder.path().join("cleaned"));
        let script = format!(
            "trap 'echo bye > {}; exit 0' TERM; echo on > {}; while :; do sleep 0.05; done",
            cleaned.display(),
            started.display()
        );
        let (stop, stopped) = watch::channel(false);
        let leash = Leash { limit: Instant::now() + Duration::from_secs(30), stop: stopped };
        let waiting = async {
            while !started.exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            stop.send(true).unwrap();
        };
        let program = shell(&script);
        let (end, ()) = tokio::join!(program.run(&leash), waiting);
        assert!(matches!(end, Err(Trouble::Overtaken { .. })), "{end:?}");
        assert!(cleaned.exists(), "it was killed before it could clean up");
    }

    #[tokio::test]
    async fn dropping_a_run_kills_its_group() {
        let folder = tempfile::tempdir().unwrap();
        let pid = folder.path().join("pid");
        let script = format!("echo $$ > {}; sleep 600", pid.display());
        let program = shell(&script);
        let leash = leash(600_000);
        let run = program.run(&leash);
        let seen = async {
            while std::fs::read_to_string(&pid).unwrap_or_default().trim().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! { _ = run => panic!("it ended by itself"), () = seen => {} }
        assert!(until_gone(&std::fs::read_to_string(&pid).unwrap()).await, "it outlived its future");
    }

    #[tokio::test]
    async fn a_grandchild_that_keeps_the_output_open_does_not_hold_us_up() {
        let begun = Instant::now();
        let finished = shell("sleep 600 & echo done").run(&leash(60_000)).await.unwrap();
        assert_eq!(finished.stdout, "done\n");
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn the_child_sees_only_the_environment_it_is_given() {
        let program = Program::new("env").env("IPMI_PASSWORD", Secret::new("hunter2"));
        let finished = program.run(&leash(30_000)).await.unwrap();
        let mut names: Vec<&str> = finished.stdout.lines().filter_map(|line| line.split('=').next()).collect();
        names.sort_unstable();
        assert_eq!(names, ["HOME", "IPMI_PASSWORD", "LC_ALL", "PATH"]);
        assert!(!program.shown().contains("hunter2"), "{}", program.shown());
    }

    #[tokio::test]
    async fn a_program_that_stands_by_does_nothing_until_it_is_told_and_ends_when_it_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let (pid, told) = (folder.path().join("pid"), folder.path().join("told"));
        let program = shell(&format!("echo $$ > {0}; read word; echo $word > {1}", pid.display(), told.display()));
        let until = Instant::now() + Duration::from_secs(30);
        let number = || std::fs::read_to_string(&pid).unwrap_or_default();
        for is_told in [true, false] {
            let standby = program.stand_by(until).unwrap();
            assert!(standby.lasts(until) && !standby.lasts(until + Duration::from_secs(1)));
            while number().trim().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert!(!told.exists() && is_alive(&number()));
            if is_told {
                let finished = standby.run(&Secret::new("go\n"), &leash(30_000)).await.unwrap();
                assert_eq!(finished.code, Some(0));
                assert_eq!(std::fs::read_to_string(&told).unwrap(), "go\n");
                std::fs::remove_file(&told).unwrap();
                std::fs::remove_file(&pid).unwrap();
            } else {
                drop(standby);
                assert!(until_gone(&number()).await, "it outlived the one that forgot it");
                assert!(!told.exists());
            }
        }
    }

    #[tokio::test]
    async fn a_missing_program_is_said_to_be_missing() {
        let trouble = Program::new("/no/such/program").run(&leash(1_000)).await.unwrap_err();
        assert!(matches!(trouble, Trouble::Unusable { .. }), "{trouble}");
    }
}
