//! The fire test: does the watchdog really reset this host, and how late at worst?
//!
//! Contract: with nothing protected running, the watchdog is armed and then starved in one of three ways. While it
//! counts down, a recorder writes "still alive" to a disk every few milliseconds, so that after the reset the next
//! boot can tell when it came; in the lab the chassis measures it as well. A host that survives is recorded as such.
//!
//! The figure for W is the worst of several runs of each way, times 1.1. Not here: who decides what it means.

use super::args::KeeperArgs;
use super::device::{DeviceError, Opened};
use super::holder::HolderLink;
use super::slice::{Slice, SliceError, SliceRoot};
use crate::driver::clock;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// In which way the watchdog is starved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// Nobody pets it any more; it stays open.
    Stop,
    /// The keeper is killed just before it would fire; the holder keeps it open.
    KillKeeper,
    /// Keeper and holder are killed together just before it would fire: the last close is a pet.
    KillBoth,
}

/// How the recording stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Stage {
    Petting,
    Starving,
    Survived,
}

/// What the recorder writes.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Recording {
    how: How,
    boot: String,
    driver: String,
    timeout_ms: u64,
    stage: Stage,
    last_pet_ns: u64,
    killed_ns: u64,
    alive_ns: u64,
}

/// One recording fits a sector, so that no reset tears it.
const RECORDING_BYTES: usize = 512;
/// How often the recorder writes; the measure is short by at most this and one write.
const STAMP: Duration = Duration::from_millis(5);
/// Pets before the starving begins: enough to see that petting keeps the host alive.
const PETS: u32 = 15;
/// How long a holder may take to be there and take the device.
const HOLDER_LIMIT: Duration = Duration::from_secs(10);
/// "Just before it would fire": this share of the timeout after the last pet.
const KILL_AT: f64 = 0.85;
/// A host that lives this many timeouts longer survived.
const SURVIVED_AFTER: u32 = 4;

/// Why there is no result. Unless said otherwise, nothing was armed.
#[derive(Debug, thiserror::Error)]
pub enum FireError {
    /// The slice can't be looked at.
    #[error("look whether anything protected runs")]
    Slice(#[source] SliceError),
    /// Something protected runs.
    #[error("starve the watchdog: processes run in the protected slice; move them away first")]
    Populated,
    /// There is no watchdog to test.
    #[error("starve the watchdog: this keeper has none")]
    NoWatchdog,
    /// The watchdog could not be set up. If it was opened, it counts down.
    #[error("set up the watchdog for its test")]
    Device(#[source] DeviceError),
    /// There is no holder to give the device to, but the way of starving needs one.
    #[error("give the watchdog to the holder: there is none")]
    NoHolder,
    /// The recording could not be written or read.
    #[error("record in {path:?}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// The recording isn't one.
    #[error("read the recording: it is malformed")]
    Malformed(#[source] serde_json::Error),
    /// The process that pets could not be started, or ended.
    #[error("run the process that pets")]
    Petter(#[source] std::io::Error),
    /// The host lives: this watchdog proves nothing.
    #[error("be reset by the watchdog: the host is alive {0:?} after the last pet")]
    Survived(Duration),
}

/// What the last fire test recorded.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FireReport {
    /// In which way the watchdog was starved.
    pub how: How,
    /// The driver.
    pub driver: String,
    /// What the watchdog was set to.
    pub timeout_ms: u64,
    /// This is another boot than the test's, and the test had not seen itself survive.
    pub fired: bool,
    /// From the last pet to the last sign of life, in milliseconds; the reset came at most a stamp later.
    pub alive_after_pet_ms: f64,
    /// From the kill to the last sign of life, for the two ways that kill.
    pub alive_after_kill_ms: Option<f64>,
    /// How much later than the last sign of life the reset can have come.
    pub resolution_ms: f64,
}

/// Arms the watchdog and starves it. Comes back only with an error: the host survived, or nothing was armed.
///
/// # Errors
/// [`FireError`].
pub(super) fn test(args: &KeeperArgs, how: How, file: &Path) -> Result<(), FireError> {
    let slice = SliceRoot::find(&args.slice).and_then(|root| Slice::create(&root)).map_err(FireError::Slice)?;
    if !slice.see().is_some_and(|seen| seen.empty) {
        return Err(FireError::Populated);
    }
    let recorder = Recorder::create(args, how, file)?;
    let petter = Petter::fork(args, how)?;
    recorder.follow(petter)
}

/// The process that has the device open and pets it.
struct Petter {
    pid: rustix::process::Pid,
    stamps: File,
    holder: Option<rustix::process::Pid>,
}

impl Petter {
    /// Forks it: killing it must not end the recorder.
    fn fork(args: &KeeperArgs, how: How) -> Result<Self, FireError> {
        let failed = |errno: rustix::io::Errno| FireError::Petter(errno.into());
        let (stamps, to_recorder) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(failed)?;
        let holder = match how {
            How::Stop => None,
            How::KillKeeper | How::KillBoth => Some(holder_pid(args)?),
        };
        // SAFETY: this process has one thread, so the child may use everything that it could.
        match unsafe { libc::fork() } {
            -1 => Err(FireError::Petter(std::io::Error::last_os_error())),
            0 => {
                drop(stamps);
                let ended = pet_then_starve(args, how, &mut to_recorder.into());
                if let Err(error) = ended {
                    eprintln!("antipode keeper: {error}");
                }
                std::process::exit(1)
            }
            pid => {
                let no_pid = || FireError::Petter(std::io::Error::other("the kernel gave no pid"));
                let pid = rustix::process::Pid::from_raw(pid).ok_or_else(no_pid)?;
                Ok(Self { pid, stamps: stamps.into(), holder })
            }
        }
    }

    /// The moment of its next pet; `None` when it said that it was the last.
    fn next_pet(&mut self) -> Result<Option<u64>, FireError> {
        let mut stamp = [0; 8];
        self.stamps.read_exact(&mut stamp).map_err(FireError::Petter)?;
        Ok(Some(u64::from_le_bytes(stamp)).filter(|&ns| ns != 0))
    }

    fn kill(&self, how: How) {
        let both = if how == How::KillBoth { self.holder } else { None };
        for pid in both.into_iter().chain([self.pid]) {
            // Whoever is gone already needs no kill.
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
        }
    }
}

fn holder_pid(args: &KeeperArgs) -> Result<rustix::process::Pid, FireError> {
    let path = args.holder().ok_or(FireError::NoHolder)?;
    let begun = clock::now();
    loop {
        // At boot both begin at the same time.
        match super::packet::connect(&path, Duration::from_secs(1)) {
            Ok(socket) => {
                let cred = rustix::net::sockopt::socket_peercred(&socket);
                return cred.map(|cred| cred.pid).map_err(|_| FireError::NoHolder);
            }
            Err(_) if clock::now().held_since(begun) < HOLDER_LIMIT => std::thread::sleep(STAMP),
            Err(_) => return Err(FireError::NoHolder),
        }
    }
}

/// What the petter does: everything a keeper does with its device, and then nothing for ever.
fn pet_then_starve(args: &KeeperArgs, how: How, recorder: &mut File) -> Result<(), FireError> {
    let mut holder = HolderLink::new(args.holder().as_deref());
    let opened = match holder.take_over() {
        Some(kept) => args.watchdog.adopt(kept, args.timeout),
        None => args.watchdog.open(args.timeout).map_err(FireError::Device)?,
    };
    let Opened { mut dog, fault } = opened.ok_or(FireError::NoWatchdog)?;
    if let Some(fault) = fault {
        return Err(FireError::Device(fault));
    }
    let begun = clock::now();
    let mut pets = 0;
    loop {
        let now = clock::now();
        dog.pet().map_err(FireError::Device)?;
        recorder.write_all(&now.boot_ns.to_le_bytes()).map_err(FireError::Petter)?;
        pets += 1;
        if pets >= PETS && (how == How::Stop || holder.has(dog.descriptor(), now.boot_ns)) {
            break;
        }
        if now.held_since(begun) > HOLDER_LIMIT {
            return Err(FireError::NoHolder);
        }
        std::thread::sleep(args.period);
    }
    recorder.write_all(&[0; 8]).map_err(FireError::Petter)?;
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// Writes to the disk what the next boot must know.
struct Recorder {
    file: File,
    path: PathBuf,
    timeout: Duration,
    recording: Recording,
}

impl Recorder {
    fn create(args: &KeeperArgs, how: How, path: &Path) -> Result<Self, FireError> {
        let failed = |source| FireError::File { path: path.to_owned(), source };
        let boot = clock::boot_id().map_err(|error| failed(std::io::Error::other(error)))?;
        let file = File::options().create(true).truncate(true).write(true).open(path).map_err(failed)?;
        let recording = Recording {
            how,
            boot: boot.to_string(),
            driver: format!("{:?}", args.watchdog),
            timeout_ms: args.timeout.as_millis() as u64,
            stage: Stage::Petting,
            last_pet_ns: 0,
            killed_ns: 0,
            alive_ns: clock::now().boot_ns,
        };
        let recorder = Self { file, path: path.to_owned(), timeout: args.timeout, recording };
        recorder.write()?;
        Ok(recorder)
    }

    fn write(&self) -> Result<(), FireError> {
        let mut text = serde_json::to_vec(&self.recording).map_err(FireError::Malformed)?;
        text.resize(RECORDING_BYTES - 1, b' ');
        text.push(b'\n');
        let written = self.file.write_all_at(&text, 0).and_then(|()| self.file.sync_data());
        written.map_err(|source| FireError::File { path: self.path.clone(), source })
    }

    fn follow(mut self, mut petter: Petter) -> Result<(), FireError> {
        while let Some(pet) = petter.next_pet()? {
            self.recording.last_pet_ns = pet;
            self.recording.alive_ns = clock::now().boot_ns;
            self.write()?;
        }
        self.recording.stage = Stage::Starving;
        let last_pet = self.recording.last_pet_ns;
        let kill_after = self.timeout.mul_f64(KILL_AT).as_nanos() as u64;
        loop {
            let now = clock::now().boot_ns;
            let starved = Duration::from_nanos(now.saturating_sub(last_pet));
            let kills = self.recording.how != How::Stop && self.recording.killed_ns == 0;
            if kills && starved.as_nanos() as u64 >= kill_after {
                self.recording.killed_ns = clock::now().boot_ns;
                petter.kill(self.recording.how);
            }
            self.recording.alive_ns = now;
            if starved > self.timeout * SURVIVED_AFTER + Duration::from_secs(2) {
                self.recording.stage = Stage::Survived;
                self.write()?;
                petter.kill(How::KillKeeper);
                return Err(FireError::Survived(starved));
            }
            self.write()?;
            std::thread::sleep(STAMP);
        }
    }
}

/// Reads what the last fire test recorded.
///
/// # Errors
/// [`FireError::File`], [`FireError::Malformed`].
pub fn report(path: &Path) -> Result<FireReport, FireError> {
    let failed = |source| FireError::File { path: path.to_owned(), source };
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let recording: Recording = serde_json::from_str(text.trim_end()).map_err(FireError::Malformed)?;
    let boot = clock::boot_id().map_err(|error| failed(std::io::Error::other(error)))?;
    let since = |ns: u64| recording.alive_ns.saturating_sub(ns) as f64 / 1e6;
    Ok(FireReport {
        how: recording.how,
        fired: recording.stage == Stage::Starving && recording.boot != boot.to_string(),
        alive_after_pet_ms: since(recording.last_pet_ns),
        alive_after_kill_ms: (recording.killed_ns != 0).then(|| since(recording.killed_ns)),
        resolution_ms: STAMP.as_secs_f64() * 2e3,
        driver: recording.driver,
        timeout_ms: recording.timeout_ms,
    })
}

/// Prints [`report`] as JSON.
pub(super) fn print_report(path: &Path) -> Result<(), FireError> {
    let report = report(path)?;
    println!("{:#}", serde_json::to_value(&report).map_err(FireError::Malformed)?);
    Ok(())
}
