//! The watchdog that a lab chassis plays: a connected socket is the open device.
//!
//! Contract: as of the kernel's interface with `nowayout`: connecting, setting the timeout and the last close start
//! the countdown anew; whoever holds a copy of the socket holds the device open; one opener at a time. The chassis
//! stops it only when told to by [`code::DISARM`], the lab's magic close.

use super::{DeviceError, DeviceFacts, DeviceKind, Opened, Watchdog};
use crate::keeper::packet;
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// The first byte of a message.
pub mod code {
    /// To the chassis: a pet. No answer.
    pub const PET: u8 = b'p';
    /// To the chassis, with milliseconds: set the timeout. Answered by [`TIMEOUT`].
    pub const SET_TIMEOUT: u8 = b'T';
    /// To the chassis: read the timeout. Back: the timeout in milliseconds.
    pub const TIMEOUT: u8 = b't';
    /// To the chassis: read what is left. Back: milliseconds.
    pub const TIME_LEFT: u8 = b'l';
    /// To the chassis: stop. Back: it is stopped.
    pub const DISARM: u8 = b'D';
    /// From the chassis, first of all: it is open and counts down.
    pub const OPENED: u8 = b'o';
    /// From the chassis, first of all: somebody else has it.
    pub const BUSY: u8 = b'b';
}

/// The chassis' name for itself.
const DRIVER: &[u8] = b"antipode lab chassis";

/// The chassis answers in microseconds; one that doesn't for this long is as good as broken.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// A connection to the chassis.
#[derive(Debug)]
pub(super) struct LabDog {
    socket: OwnedFd,
    facts: DeviceFacts,
}

/// Connects to the chassis at `path` and sets its watchdog up.
pub(super) fn open(path: &Path, timeout: Duration) -> Result<Opened, DeviceError> {
    let refused = |errno| DeviceError::Open { path: path.to_owned(), errno };
    let socket = packet::connect(path, ANSWER_LIMIT).map_err(refused)?;
    let greeting = packet::receive(socket.as_fd()).map_err(refused)?;
    match greeting.code() {
        Some(code::OPENED) => Ok(adopt(socket, timeout)),
        Some(code::BUSY) => Err(DeviceError::Busy),
        Some(_) | None => Err(refused(Errno::PROTO)),
    }
}

/// Takes over an open connection.
pub(super) fn adopt(socket: OwnedFd, timeout: Duration) -> Opened {
    let facts = DeviceFacts {
        nowayout: true,
        survives_reboot: true,
        sleep_masked: true,
        ..DeviceFacts::named(DeviceKind::Lab, DRIVER)
    };
    let mut dog = LabDog { socket, facts };
    let fault = dog.set_up(timeout).err();
    Opened { dog: Box::new(dog), fault }
}

impl LabDog {
    fn set_up(&mut self, timeout: Duration) -> Result<(), DeviceError> {
        let step = Duration::from_millis(1);
        let wanted = u32::try_from(timeout.as_millis()).ok().filter(|&ms| ms > 0);
        let wanted = wanted.ok_or(DeviceError::Granularity { wanted: timeout, step })?;
        if self.ask("read the timeout", &packet::numbered(code::TIMEOUT, 0), code::TIMEOUT)? != wanted {
            self.ask("set the timeout", &packet::numbered(code::SET_TIMEOUT, wanted), code::TIMEOUT)?;
        }
        let actual = self.ask("read the timeout", &packet::numbered(code::TIMEOUT, 0), code::TIMEOUT)?;
        self.facts.timeout = Duration::from_millis(actual.into());
        let wanted = Duration::from_millis(wanted.into());
        if self.facts.timeout == wanted {
            return Ok(());
        }
        Err(DeviceError::ReadBack { wanted, actual: self.facts.timeout })
    }

    fn ask(&self, asked: &'static str, question: &[u8], answer: u8) -> Result<u32, DeviceError> {
        let failed = |errno| DeviceError::Answer { asked, errno };
        packet::send(self.socket.as_fd(), question, None).map_err(failed)?;
        let packet = packet::receive(self.socket.as_fd()).map_err(failed)?;
        packet.number().filter(|_| packet.code() == Some(answer)).ok_or_else(|| failed(Errno::PROTO))
    }
}

impl Watchdog for LabDog {
    fn pet(&mut self) -> Result<(), DeviceError> {
        packet::send_now(self.socket.as_fd(), &[code::PET]).map_err(DeviceError::Pet)
    }

    fn facts(&self) -> DeviceFacts {
        self.facts
    }

    fn time_left(&self) -> Option<Duration> {
        let left = self.ask("read what is left", &packet::numbered(code::TIME_LEFT, 0), code::TIME_LEFT).ok()?;
        Some(Duration::from_millis(left.into()))
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn disarm(&mut self) -> Result<(), DeviceError> {
        self.ask("stop", &packet::numbered(code::DISARM, 0), code::DISARM).map(drop)
    }
}
