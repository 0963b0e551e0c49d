//! `/dev/watchdog*`: the kernel's watchdog interface.
//!
//! Contract: the timeout is set, read back, and must be equal; whole seconds only, because the kernel counts in them.
//! The letter that stops the device is written by [`Watchdog::disarm`] alone.

use super::{DeviceError, DeviceFacts, DeviceKind, Opened, Watchdog, conditions};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `struct watchdog_info` of the kernel.
#[repr(C)]
#[derive(Default)]
struct Info {
    options: u32,
    firmware_version: u32,
    identity: [u8; super::DRIVER_BYTES],
}

/// The device can set its timeout.
const WDIOF_SETTIMEOUT: u32 = 0x0080;
/// The device can be petted.
const WDIOF_KEEPALIVEPING: u32 = 0x8000;

nix::ioctl_read!(get_support, b'W', 0, Info);
nix::ioctl_readwrite!(set_timeout, b'W', 6, libc::c_int);
nix::ioctl_read!(get_timeout, b'W', 7, libc::c_int);
nix::ioctl_read!(get_time_left, b'W', 10, libc::c_int);

/// An open watchdog device.
#[derive(Debug)]
pub(super) struct RealDog {
    fd: OwnedFd,
    facts: DeviceFacts,
}

fn answered(asked: &'static str, result: nix::Result<libc::c_int>) -> Result<(), DeviceError> {
    result.map(drop).map_err(|errno| DeviceError::Answer { asked, errno: Errno::from_raw_os_error(errno as i32) })
}

fn whole_seconds(timeout: Duration) -> Result<libc::c_int, DeviceError> {
    let step = Duration::from_secs(1);
    let granularity = DeviceError::Granularity { wanted: timeout, step };
    if timeout.subsec_nanos() != 0 || timeout < step {
        return Err(granularity);
    }
    libc::c_int::try_from(timeout.as_secs()).map_err(|_| granularity)
}

/// Opens and sets up the device at `path`.
pub(super) fn open(path: &Path, timeout: Duration) -> Result<Opened, DeviceError> {
    // Before anything runs: a timeout that can't be counted must not start a countdown.
    whole_seconds(timeout)?;
    let opened = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
    let fd = opened.map_err(|errno| match errno {
        Errno::BUSY => DeviceError::Busy,
        errno => DeviceError::Open { path: path.to_owned(), errno },
    })?;
    Ok(adopt(fd, timeout))
}

/// Takes over an open device.
pub(super) fn adopt(fd: OwnedFd, timeout: Duration) -> Opened {
    let mut dog = RealDog { fd, facts: DeviceFacts::named(DeviceKind::Real, b"") };
    let fault = dog.set_up(timeout).err();
    Opened { dog: Box::new(dog), fault }
}

impl RealDog {
    fn set_up(&mut self, timeout: Duration) -> Result<(), DeviceError> {
        let mut info = Info::default();
        // SAFETY: `info` is laid out as the kernel's struct and lives through the call.
        answered("ask the name", unsafe { get_support(self.fd.as_raw_fd(), &mut info) })?;
        self.facts = facts(&self.fd, &info);
        let needed = WDIOF_SETTIMEOUT | WDIOF_KEEPALIVEPING;
        if info.options & needed != needed {
            return Err(DeviceError::Answer { asked: "ask for a settable timeout", errno: Errno::OPNOTSUPP });
        }
        if self.read_timeout()? != timeout {
            let mut seconds = whole_seconds(timeout)?;
            // SAFETY: the kernel reads and writes one int, which lives through the call.
            answered("set the timeout", unsafe { set_timeout(self.fd.as_raw_fd(), &mut seconds) })?;
        }
        let actual = self.read_timeout()?;
        self.facts.timeout = actual;
        if actual == timeout { Ok(()) } else { Err(DeviceError::ReadBack { wanted: timeout, actual }) }
    }

    fn read_timeout(&self) -> Result<Duration, DeviceError> {
        let mut seconds = 0;
        // SAFETY: the kernel writes one int, which lives through the call.
        answered("read the timeout", unsafe { get_timeout(self.fd.as_raw_fd(), &mut seconds) })?;
        Ok(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
    }
}

fn facts(fd: &OwnedFd, info: &Info) -> DeviceFacts {
    let named = DeviceFacts::named(DeviceKind::Real, &info.identity);
    DeviceFacts {
        nowayout: sysfs_directory(fd).is_some_and(|sysfs| conditions::nowayout(&sysfs)),
        survives_reboot: conditions::survives_reboot(),
        sleep_masked: conditions::sleep_masked(),
        soft: conditions::is_soft(named.driver()),
        guest: conditions::is_guest(),
        ..named
    }
}

/// `/dev/watchdog` is an old name of the first watchdog with a number of its own (misc 130).
fn sysfs_directory(fd: &OwnedFd) -> Option<PathBuf> {
    let device = rustix::fs::fstat(fd).ok()?.st_rdev;
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    if (major, minor) == (10, 130) {
        return Some("/sys/class/watchdog/watchdog0".into());
    }
    std::fs::canonicalize(format!("/sys/dev/char/{major}:{minor}")).ok()
}

impl Watchdog for RealDog {
    fn pet(&mut self) -> Result<(), DeviceError> {
        // Any byte but 'V', which would stop a device without nowayout at its next close.
        rustix::io::retry_on_intr(|| rustix::io::write(&self.fd, b"p")).map(drop).map_err(DeviceError::Pet)
    }

    fn facts(&self) -> DeviceFacts {
        self.facts
    }

    fn time_left(&self) -> Option<Duration> {
        let mut seconds = 0;
        // SAFETY: the kernel writes one int, which lives through the call.
        unsafe { get_time_left(self.fd.as_raw_fd(), &mut seconds) }.ok()?;
        Some(Duration::from_secs(u64::try_from(seconds).ok()?))
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn disarm(&mut self) -> Result<(), DeviceError> {
        let asked = "stop";
        if self.facts.nowayout {
            return Err(DeviceError::Answer { asked, errno: Errno::PERM });
        }
        rustix::io::write(&self.fd, b"V").map(drop).map_err(|errno| DeviceError::Answer { asked, errno })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_that_the_kernel_can_not_count_is_refused_before_anything_runs() {
        for bad in [Duration::ZERO, Duration::from_millis(1500), Duration::from_secs(u64::MAX)] {
            assert!(matches!(whole_seconds(bad), Err(DeviceError::Granularity { .. })), "{bad:?}");
        }
        assert_eq!(whole_seconds(Duration::from_secs(2)).expect("whole"), 2);
    }

    #[test]
    fn a_file_that_is_no_watchdog_is_not_trusted() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let opened = open(file.path(), Duration::from_secs(1)).expect("a file can be opened");
        assert!(matches!(opened.fault, Some(DeviceError::Answer { .. })), "{opened:?}");
    }
}
