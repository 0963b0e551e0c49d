//! The chassis' loop: one thread that waits for its watchdog, its button and its host, and for nothing else.
//!
//! Contract: pets that came while it slept count from when it woke (later than they came, by less than the margin, or
//! the run is invalid); only then is the countdown looked at.

use super::DOG_SOCKET;
use super::args::ChassisArgs;
use super::boot::{Boot, BootError};
use super::dog::Dog;
use super::host::{Host, HostError, cgroup_path};
use super::init::{self, InitArgs};
use super::lateness::Lateness;
use super::log::Log;
use super::panel::{LINE_BYTES_MAX, Panel, PanelError};
use crate::driver::clock;
use crate::keeper::device::lab::code;
use crate::keeper::packet;
use crate::keeper::posture::{self, Rank};
use crate::keeper::signals::Signals;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use serde_json::{Value, json};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

const LOG_FILE: &str = "log.jsonl";
/// How often the chassis wakes to see whether it can: its own lateness is measured at least this often.
const TICK: Duration = Duration::from_millis(20);
/// Before a timeout is set, the margin is that of a watchdog of one second.
const MARGIN_MIN: Duration = Duration::from_millis(100);
const CLIENTS_MAX: usize = 16;

/// Why a chassis did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ChassisError {
    /// It was not told what to run.
    #[error("start a chassis: give --boot FILE, or a program after --")]
    Args,
    /// A file of its directory could not be made.
    #[error("make {path:?}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The boot file is no good.
    #[error("start the host")]
    Boot(#[source] BootError),
    /// The host's tree can't be made or ended.
    #[error("run the host")]
    Host(#[source] HostError),
    /// The first process of the host failed: the host goes down.
    #[error("be the host's first process")]
    Init(#[source] io::Error),
    /// The panel didn't do what it was told.
    #[error("use the panel")]
    Panel(#[source] PanelError),
    /// The kernel would not let it wait.
    #[error("wait")]
    Wait(#[source] Errno),
}

/// Runs `antipode chassis`: until `quit` or SIGTERM; or sends one line to a running one.
///
/// # Errors
/// [`ChassisError`]. The host is off then.
pub fn run(args: &ChassisArgs) -> Result<(), ChassisError> {
    if let Some(line) = &args.send {
        let answer = Panel::open(&args.control).and_then(|mut panel| panel.order(line)).map_err(ChassisError::Panel)?;
        println!("{answer}");
        return Ok(());
    }
    if args.init {
        let cgroup = args.cgroup.clone().ok_or(ChassisError::Args)?;
        let (boot, argv, dir) = (args.boot.clone(), args.argv.clone(), args.dir());
        return init::run(&InitArgs { boot, argv, cgroup, dir }).map_err(ChassisError::Init);
    }
    Chassis::start(args)?.run()
}

struct Client {
    stream: UnixStream,
    line: Vec<u8>,
}

struct Chassis {
    args: ChassisArgs,
    signals: Signals,
    host: Host,
    dog: Dog,
    lateness: Lateness,
    log: Log,
    dog_listener: OwnedFd,
    opener: Option<OwnedFd>,
    panel: UnixListener,
    clients: Vec<Client>,
    /// When the power goes on again after a reset.
    on_at: Option<u64>,
    fires: u64,
    quit: bool,
}

fn now_ns() -> u64 {
    clock::now().boot_ns
}

impl Chassis {
    fn start(args: &ChassisArgs) -> Result<Self, ChassisError> {
        let signals = Signals::block().map_err(ChassisError::Wait)?;
        match &args.boot {
            Some(file) => drop(Boot::read(file).map_err(ChassisError::Boot)?),
            None if args.argv.is_empty() => return Err(ChassisError::Args),
            None => {}
        }
        let dir = args.dir();
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| ChassisError::File { path, source }
        };
        std::fs::create_dir_all(&dir).map_err(failed(&dir))?;
        let log_file = args.log.clone().unwrap_or_else(|| dir.join(LOG_FILE));
        let log = Log::open(&log_file, &args.name).map_err(failed(&log_file))?;
        let dog_socket = dir.join(DOG_SOCKET);
        let dog_listener = packet::listen(&dog_socket).map_err(|errno| failed(&dog_socket)(errno.into()))?;
        let panel = listen(&args.control).map_err(failed(&args.control))?;
        let cgroup = args.cgroup.clone().unwrap_or_else(|| format!("antipode-lab-{}", args.name).into());
        let cgroup = cgroup_path(&cgroup).map_err(ChassisError::Host)?;
        let init = init_arguments(args, &cgroup)?;
        let host = Host::new(&cgroup, args.netns.as_deref(), &args.volatile, &init).map_err(ChassisError::Host)?;
        posture::assume(Rank::Hardware);
        Ok(Self {
            args: args.clone(),
            signals,
            host,
            dog: Dog::new(args.watchdog_timeout),
            lateness: Lateness::default(),
            log,
            dog_listener,
            opener: None,
            panel,
            clients: Vec::new(),
            on_at: None,
            fires: 0,
            quit: false,
        })
    }

    fn run(mut self) -> Result<(), ChassisError> {
        if !self.args.start_off {
            self.power_on("chassis started")?;
        }
        while !self.quit {
            self.wait()?;
            if let Some(ms) = self.lateness.awake(now_ns(), self.margin()) {
                self.log.write("stalled", json!({ "ms": ms, "verdict": format!("invalid: host stalled {ms} ms") }));
            }
            self.serve_dog();
            self.look_at_dog()?;
            self.look_at_host()?;
            self.serve_panel();
            if self.on_at.is_some_and(|at| at <= now_ns()) {
                self.power_on("self test done")?;
            }
            self.quit |= self.signals.take().stop;
        }
        self.power_off("chassis ends")
    }

    /// Late beyond this, and the run proves nothing: W is 1.1 times the timeout.
    fn margin(&self) -> Duration {
        let tenth = Duration::from_millis(u64::from(self.dog.timeout_ms()) / 10);
        self.args.margin.unwrap_or_else(|| if self.dog.fires_at().is_some() { tenth } else { tenth.max(MARGIN_MIN) })
    }

    fn wait(&mut self) -> Result<(), ChassisError> {
        let now = now_ns();
        let tick = now + TICK.as_nanos() as u64;
        let until = [self.dog.fires_at(), self.on_at].into_iter().flatten().fold(tick, u64::min);
        self.lateness.expect(until.max(now));
        let mut fds = vec![
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::new(&self.dog_listener, PollFlags::IN),
            PollFd::new(&self.panel, PollFlags::IN),
        ];
        fds.extend(self.opener.iter().map(|opener| PollFd::new(opener, PollFlags::IN)));
        fds.extend(self.host.ended().map(|ended| PollFd::new(ended, PollFlags::IN)));
        fds.extend(self.clients.iter().map(|client| PollFd::new(&client.stream, PollFlags::IN)));
        let limit = Timespec::try_from(Duration::from_nanos(until.saturating_sub(now))).unwrap_or_default();
        match rustix::event::poll(&mut fds, Some(&limit)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(ChassisError::Wait(errno)),
        }
    }

    fn serve_dog(&mut self) {
        while let Ok(Some(socket)) = packet::accept(self.dog_listener.as_fd()) {
            let free = self.opener.is_none() && self.host.is_on();
            packet::send_now(socket.as_fd(), &[if free { code::OPENED } else { code::BUSY }]).ok();
            if free {
                self.dog.pet(now_ns());
                self.opener = Some(socket);
                self.log.write("opened", json!({}));
            }
        }
        while let Some(opener) = &self.opener {
            match packet::receive(opener.as_fd()) {
                Ok(packet) if packet.code().is_some() => self.hear(&packet),
                Err(Errno::AGAIN) => return,
                Ok(_) | Err(_) => {
                    self.dog.close(now_ns());
                    self.opener = None;
                    self.log.write("closed", json!({ "runs": self.dog.fires_at().is_some() }));
                }
            }
        }
    }

    fn hear(&mut self, packet: &packet::Packet) {
        let now = now_ns();
        let answer = match (packet.code(), packet.number()) {
            (Some(code::PET), _) => return self.dog.pet(now),
            (Some(code::SET_TIMEOUT), Some(millis)) if millis > 0 => {
                self.dog.set_timeout(millis, now);
                self.log.write("timeout-set", json!({ "ms": millis }));
                packet::numbered(code::TIMEOUT, millis)
            }
            (Some(code::TIME_LEFT), _) => packet::numbered(code::TIME_LEFT, self.dog.time_left_ms(now)),
            (Some(code::DISARM), _) => {
                self.dog.disarm();
                self.log.write("disarmed", json!({}));
                packet::numbered(code::DISARM, 0)
            }
            _ => packet::numbered(code::TIMEOUT, self.dog.timeout_ms()),
        };
        if let Some(opener) = &self.opener {
            packet::send_now(opener.as_fd(), &answer).ok();
        }
    }

    fn look_at_dog(&mut self) -> Result<(), ChassisError> {
        let now = now_ns();
        if self.dog.fires_at().is_none_or(|at| at > now) {
            return Ok(());
        }
        let after = now.saturating_sub(self.dog.petted_at().unwrap_or(now));
        self.log.write("pet-lost", json!({ "after_last_pet_ms": millis(after), "timeout_ms": self.dog.timeout_ms() }));
        self.fires += 1;
        let margin = self.margin();
        self.power_off("watchdog fired")?;
        let took = now_ns().saturating_sub(now);
        if let Some(ms) = self.lateness.note(took, margin) {
            self.log.write("stalled", json!({ "ms": ms, "verdict": format!("invalid: host stalled {ms} ms") }));
        }
        self.log.write("reset", json!({ "after_last_pet_ms": millis(after + took), "kill_took_ms": millis(took) }));
        if !self.args.off_after_fire {
            self.on_at = Some(now_ns() + self.args.post.as_nanos() as u64);
        }
        Ok(())
    }

    /// A host whose first process ended is down as one whose kernel panicked: its watchdog goes on, and resets it.
    fn look_at_host(&mut self) -> Result<(), ChassisError> {
        let Some(ended) = self.host.ended() else { return Ok(()) };
        let mut fds = [PollFd::new(ended, PollFlags::IN)];
        if matches!(rustix::event::poll(&mut fds, Some(&Timespec::default())), Ok(0)) {
            return Ok(());
        }
        let ending = self.host.off().map_err(ChassisError::Host)?;
        self.log.write("panicked", json!({ "because": "the host's first process ended", "how": ending }));
        self.lateness.forgive();
        Ok(())
    }

    fn power_on(&mut self, because: &str) -> Result<(), ChassisError> {
        self.on_at = None;
        if self.host.is_on() {
            return Ok(());
        }
        self.dog = Dog::new(self.args.watchdog_timeout);
        self.host.on().map_err(ChassisError::Host)?;
        self.lateness.forgive();
        self.log.write("power-on", json!({ "because": because, "pid": self.host.pid() }));
        Ok(())
    }

    fn power_off(&mut self, because: &str) -> Result<(), ChassisError> {
        self.on_at = None;
        let was_on = self.host.is_on();
        self.host.off().map_err(ChassisError::Host)?;
        self.dog.disarm();
        self.opener = None;
        self.lateness.forgive();
        if was_on {
            self.log.write("power-off", json!({ "because": because }));
        }
        Ok(())
    }

    fn serve_panel(&mut self) {
        while let Ok((stream, _)) = self.panel.accept() {
            if self.clients.len() < CLIENTS_MAX && stream.set_nonblocking(true).is_ok() {
                self.clients.push(Client { stream, line: Vec::new() });
            }
        }
        for mut client in std::mem::take(&mut self.clients) {
            if self.serve_client(&mut client) {
                self.clients.push(client);
            }
        }
    }

    /// Whether the client is still there.
    fn serve_client(&mut self, client: &mut Client) -> bool {
        let mut buffer = [0; LINE_BYTES_MAX];
        match client.stream.read(&mut buffer) {
            Ok(0) => return false,
            Ok(len) => client.line.extend_from_slice(&buffer[..len]),
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        }
        while let Some(end) = client.line.iter().position(|&b| b == b'\n') {
            let line: Vec<u8> = client.line.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line[..end]).trim().to_owned();
            let answer = self.answer(&line);
            if client.stream.write_all(format!("{answer}\n").as_bytes()).is_err() {
                return false;
            }
        }
        client.line.len() < LINE_BYTES_MAX
    }

    fn answer(&mut self, line: &str) -> Value {
        let done = self.obey(line);
        let mut answer = self.status();
        answer["ok"] = done.is_ok().into();
        if let Err(because) = done {
            answer["error"] = because.into();
        }
        answer
    }

    fn obey(&mut self, line: &str) -> Result<(), String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let chassis = |result: Result<(), ChassisError>| result.map_err(|error| chain(&error));
        match words[..] {
            ["status"] => Ok(()),
            ["on"] => chassis(self.power_on("button")),
            ["off"] => chassis(self.power_off("button")),
            ["reset"] => chassis(self.power_off("reset button").and_then(|()| self.power_on("reset button"))),
            ["start" | "stop", _] => self.host.order(line).map_err(|error| chain(&error)),
            ["signal", unit, name] => self.signal(unit, name),
            ["freeze"] => self.host.cgroup.freeze().map_err(|errno| errno.to_string()),
            ["thaw"] => self.host.cgroup.thaw().map_err(|errno| errno.to_string()),
            ["quit"] => {
                self.quit = true;
                chassis(self.power_off("button"))
            }
            _ => Err(format!("there is no order {line:?}")),
        }
    }

    fn signal(&mut self, unit: &str, name: &str) -> Result<(), String> {
        use rustix::process::Signal;
        let signal = match name {
            "KILL" => Signal::KILL,
            "STOP" => Signal::STOP,
            "CONT" => Signal::CONT,
            "TERM" => Signal::TERM,
            "HUP" => Signal::HUP,
            "USR2" => Signal::USR2,
            _ => return Err(format!("there is no signal {name:?} on this panel")),
        };
        for pid in self.host.pids(unit).map_err(|error| chain(&error))? {
            let pid = rustix::process::Pid::from_raw(pid).ok_or("a process without a number")?;
            match rustix::process::kill_process(pid, signal) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(errno) => return Err(errno.to_string()),
            }
        }
        self.log.write("signalled", json!({ "unit": unit, "signal": name }));
        Ok(())
    }

    fn status(&self) -> Value {
        let now = now_ns();
        json!({
            "api_version": 1,
            "lab": true,
            "host": self.args.name,
            "power": if self.host.is_on() { "on" } else { "off" },
            "boot_id": std::fs::read_to_string(self.args.dir().join("boot_id")).unwrap_or_default().trim(),
            "pid": self.host.pid(),
            "t_boot_ns": now,
            "watchdog": {
                "runs": self.dog.fires_at().is_some(),
                "open": self.opener.is_some(),
                "timeout_ms": self.dog.timeout_ms(),
                "left_ms": self.dog.time_left_ms(now),
                "pets": self.dog.pets(),
                "fires": self.fires,
            },
            "late_max_ms": self.lateness.worst_ms(),
            "invalid": self.lateness.invalid(),
        })
    }
}

fn millis(ns: u64) -> f64 {
    (ns as f64 / 1e3).round() / 1e3
}

fn chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |error| error.source());
    sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    // The watchdog's socket beside it was taken: no other chassis works here.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The command line of the host's first process: this program once more.
fn init_arguments(args: &ChassisArgs, cgroup: &Path) -> Result<Vec<String>, ChassisError> {
    let absolute = |path: &Path| {
        let made = std::path::absolute(path).map(|path| path.to_string_lossy().into_owned());
        made.map_err(|source| ChassisError::File { path: path.to_owned(), source })
    };
    let mut words: Vec<String> = ["chassis", "--init", "--control"].map(str::to_owned).to_vec();
    words.push(absolute(&args.control)?);
    words.extend(["--dir".to_owned(), absolute(&args.dir())?, "--cgroup".to_owned(), absolute(cgroup)?]);
    match &args.boot {
        Some(file) => words.extend(["--boot".to_owned(), absolute(file)?]),
        None => words.extend(std::iter::once("--".to_owned()).chain(args.argv.iter().cloned())),
    }
    Ok(words)
}
