//! The holder: an inert process that keeps the watchdog's descriptor open when the keeper ends (protocol §2).
//!
//! Contract: it never reads, writes or pets the device; it gives a copy to whoever asks under the same user, and
//! lets go only when told to by a keeper that has disarmed the device. While it holds one it ignores the signals that
//! ask it to end. Only because it outlives every end of the keeper is a keeper's death no pet, and 2·W enough.
//!
//! Run it as a unit of its own, without a start limit and without a dependency that stops it with the keeper.

use super::packet::{self, Packet};
use super::posture::{self, Rank};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The holder's socket in the keeper's directory.
pub const HOLDER_SOCKET: &str = "holder.sock";

/// The first byte of a message.
mod code {
    /// Keep the descriptor that comes with this.
    pub(super) const KEEP: u8 = b'K';
    /// Give the descriptor.
    pub(super) const GIVE: u8 = b'G';
    /// Let go: the device is disarmed.
    pub(super) const DROP: u8 = b'D';
    /// Done; a given descriptor comes with this.
    pub(super) const YES: u8 = b'y';
    /// Not done: nothing is held, or something is held already.
    pub(super) const NO: u8 = b'n';
}

/// More keepers than this at once are none of ours.
const CLIENTS_MAX: usize = 8;

/// Arguments of `antipode holder`.
#[derive(Clone, Debug, clap::Args)]
pub struct HolderArgs {
    /// Directory that holder and keeper share, on a tmpfs.
    #[arg(long, value_name = "DIR", default_value = super::args::DIRECTORY)]
    pub dir: PathBuf,
}

/// Why the holder could not begin, or ended.
#[derive(Debug, thiserror::Error)]
pub enum HolderError {
    /// Its directory could not be made.
    #[error("make {path:?}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// Its socket could not be made: most likely another holder runs.
    #[error("listen at {path:?}")]
    Listen {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        errno: Errno,
    },
    /// The kernel would not let it wait; what it held is closed by its end.
    #[error("wait for a keeper")]
    Wait(#[source] Errno),
}

/// Runs until it holds nothing and is asked to end.
///
/// # Errors
/// [`HolderError`].
pub fn run(args: &HolderArgs) -> Result<(), HolderError> {
    let mut stop = super::signals::Signals::block().map_err(HolderError::Wait)?;
    posture::assume(Rank::Keeper);
    std::fs::create_dir_all(&args.dir).map_err(|source| HolderError::Directory { path: args.dir.clone(), source })?;
    let path = args.dir.join(HOLDER_SOCKET);
    let listener = packet::listen(&path).map_err(|errno| HolderError::Listen { path, errno })?;
    let mut holder = Holder { held: None, clients: Vec::with_capacity(CLIENTS_MAX) };
    let mut asked_to_stop = false;
    while !asked_to_stop || holder.held.is_some() {
        holder.wait(listener.as_fd(), stop.as_fd()).map_err(HolderError::Wait)?;
        holder.accept(listener.as_fd());
        holder.serve();
        asked_to_stop |= stop.take().stop;
    }
    Ok(())
}

struct Holder {
    held: Option<OwnedFd>,
    clients: Vec<OwnedFd>,
}

impl Holder {
    fn wait(&self, listener: BorrowedFd<'_>, signals: BorrowedFd<'_>) -> Result<(), Errno> {
        let mut fds = Vec::with_capacity(2 + CLIENTS_MAX);
        fds.push(PollFd::from_borrowed_fd(listener, PollFlags::IN));
        fds.push(PollFd::from_borrowed_fd(signals, PollFlags::IN));
        fds.extend(self.clients.iter().map(|client| PollFd::new(client, PollFlags::IN)));
        match rustix::event::poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    fn accept(&mut self, listener: BorrowedFd<'_>) {
        while let Ok(Some(client)) = packet::accept(listener) {
            if self.clients.len() < CLIENTS_MAX && packet::is_own_user(&client) {
                self.clients.push(client);
            }
        }
    }

    fn serve(&mut self) {
        let Self { held, clients } = self;
        clients.retain(|client| {
            loop {
                match packet::receive(client.as_fd()) {
                    Ok(packet) if packet.code().is_some() => answer(held, client.as_fd(), packet),
                    Err(Errno::AGAIN) => return true,
                    Ok(_) | Err(_) => return false,
                }
            }
        });
    }
}

fn answer(held: &mut Option<OwnedFd>, client: BorrowedFd<'_>, mut packet: Packet) {
    let (code, carried) = match (packet.code(), packet.carried.take()) {
        (Some(code::KEEP), Some(device)) if held.is_none() => {
            *held = Some(device);
            (code::YES, None)
        }
        (Some(code::GIVE), _) if held.is_some() => (code::YES, held.as_ref()),
        (Some(code::DROP), _) => {
            *held = None;
            (code::YES, None)
        }
        _ => (code::NO, None),
    };
    // A keeper that is gone before its answer asks again when it is back.
    let _sent = packet::send(client, &[code], carried.map(AsFd::as_fd));
}

/// How often a keeper looks for a holder that is gone.
const RETRY: Duration = Duration::from_secs(1);
/// A holder answers at once; one that hangs must not hold up the keeper.
const ANSWER_LIMIT: Duration = Duration::from_millis(20);

/// The keeper's side: makes sure that a holder has the device too.
#[derive(Debug)]
pub struct HolderLink {
    path: Option<PathBuf>,
    socket: Option<OwnedFd>,
    /// The holder at the other end has said that it has the device. A connection alone is no promise.
    has_device: bool,
    tried_ns: Option<u64>,
}

impl HolderLink {
    /// A link to the holder at `path`; `None` for a keeper that works without one.
    pub fn new(path: Option<&Path>) -> Self {
        Self { path: path.map(Path::to_owned), socket: None, has_device: false, tried_ns: None }
    }

    /// The holder's answer, if it is "yes".
    fn ask(&self, question: u8, carried: Option<BorrowedFd<'_>>) -> Option<Packet> {
        let socket = self.socket.as_ref()?.as_fd();
        packet::send(socket, &[question], carried).ok()?;
        packet::receive(socket).ok().filter(|packet| packet.code() == Some(code::YES))
    }

    fn connect(&mut self) -> bool {
        self.has_device = false;
        self.socket = self.path.as_ref().and_then(|path| packet::connect(path, ANSWER_LIMIT).ok());
        self.socket.is_some()
    }

    /// The descriptor that it holds, if there is a holder and it holds one.
    pub fn take_over(&mut self) -> Option<OwnedFd> {
        if !self.connect() {
            return None;
        }
        let kept = self.ask(code::GIVE, None)?.carried?;
        self.has_device = true;
        Some(kept)
    }

    /// Whether a holder has `device`, which is given to it if it has none. Looks for a lost one once a second.
    pub fn has(&mut self, device: BorrowedFd<'_>, now_ns: u64) -> bool {
        let connected = self.socket.as_ref().is_some_and(|socket| packet::is_connected(socket.as_fd()));
        if connected && self.has_device {
            return true;
        }
        self.has_device = false;
        let soon = self.tried_ns.is_some_and(|tried| now_ns.saturating_sub(tried) < RETRY.as_nanos() as u64);
        if !soon {
            self.tried_ns = Some(now_ns);
            self.has_device = (connected || self.connect()) && self.has_or_takes(device);
        }
        self.has_device
    }

    /// One that it has already can only have been given by a keeper of this host: the device has one opener.
    fn has_or_takes(&self, device: BorrowedFd<'_>) -> bool {
        let has_one = self.ask(code::GIVE, None).is_some_and(|packet| packet.carried.is_some());
        has_one || self.ask(code::KEEP, Some(device)).is_some()
    }

    /// Tells it to close the device, which must be disarmed.
    pub fn drop_device(&mut self) -> bool {
        self.has_device = false;
        self.ask(code::DROP, None).is_some()
    }
}
