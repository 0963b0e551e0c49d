//! The watchdog behind the keeper: a real device, or the lab chassis that plays one.
//!
//! Contract of [`Watchdog`]: opening, setting the timeout and the last close are pets; so the keeper calls them only
//! where it may pet. [`Watchdog::pet`] neither blocks nor allocates. A failed pet leaves the countdown as it was.
//! Nothing here is ever closed by the keeper while the device runs: a holder has it too (`keeper::holder`).
//!
//! The keeper is the same in the lab: only the device is swapped, and it says so in [`DeviceFacts::kind`].

use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

mod conditions;
pub mod lab;
mod real;

/// Bytes of a driver's name, as the kernel has them.
pub(super) const DRIVER_BYTES: usize = 32;

/// What kind of thing resets the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum DeviceKind {
    /// Nothing does.
    #[default]
    None = 0,
    /// A watchdog of this machine.
    Real = 1,
    /// A lab chassis. Only a cluster that was created as a lab accepts evidence that rests on it.
    Lab = 2,
}

impl DeviceKind {
    pub(super) fn from_code(code: u8) -> Option<Self> {
        [Self::None, Self::Real, Self::Lab].into_iter().find(|&kind| kind as u8 == code)
    }
}

/// The best class of a host (protocol §3) that its watchdog allows. What else a class needs is not known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ClassCeiling {
    /// Hardware watchdog with all conditions met.
    A,
    /// A software or BMC watchdog with all conditions met.
    B,
    /// The machine is a guest: its watchdog stops with it.
    C,
    /// No watchdog, or a condition fails.
    D,
}

/// What was verified about the watchdog in this boot.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct DeviceFacts {
    /// What it is.
    pub kind: DeviceKind,
    /// The driver's name for itself, padded with zeros.
    pub driver: [u8; DRIVER_BYTES],
    /// The timeout, as read back.
    pub timeout: Duration,
    /// It can't be stopped by closing it.
    pub nowayout: bool,
    /// It goes on during an orderly reboot (`watchdog.stop_on_reboot=0`).
    pub survives_reboot: bool,
    /// The machine can't be put to sleep, in which the watchdog would stop.
    pub sleep_masked: bool,
    /// It is a timer of the kernel or of a BMC, not of the chipset.
    pub soft: bool,
    /// This machine is a guest of a hypervisor.
    pub guest: bool,
}

impl DeviceFacts {
    /// The driver's name.
    pub fn driver(&self) -> &str {
        let end = self.driver.iter().position(|&b| b == 0).unwrap_or(DRIVER_BYTES);
        std::str::from_utf8(&self.driver[..end]).unwrap_or("?")
    }

    /// The best class that these facts allow.
    pub fn ceiling(&self) -> ClassCeiling {
        let conditions = self.nowayout && self.survives_reboot && self.sleep_masked;
        match self.kind {
            DeviceKind::None => ClassCeiling::D,
            DeviceKind::Real if self.guest => ClassCeiling::C,
            DeviceKind::Real | DeviceKind::Lab if !conditions => ClassCeiling::D,
            DeviceKind::Real | DeviceKind::Lab if self.soft => ClassCeiling::B,
            DeviceKind::Real | DeviceKind::Lab => ClassCeiling::A,
        }
    }

    pub(super) fn bits(&self) -> u8 {
        u8::from(self.nowayout)
            | u8::from(self.survives_reboot) << 1
            | u8::from(self.sleep_masked) << 2
            | u8::from(self.soft) << 3
            | u8::from(self.guest) << 4
    }

    pub(super) fn from_bits(bits: u8) -> Self {
        let bit = |n: u8| bits >> n & 1 == 1;
        Self {
            nowayout: bit(0),
            survives_reboot: bit(1),
            sleep_masked: bit(2),
            soft: bit(3),
            guest: bit(4),
            ..Self::default()
        }
    }

    fn named(kind: DeviceKind, name: &[u8]) -> Self {
        let mut driver = [0; DRIVER_BYTES];
        let len = name.len().min(DRIVER_BYTES);
        driver[..len].copy_from_slice(&name[..len]);
        Self { kind, driver, ..Self::default() }
    }
}

impl std::fmt::Debug for DeviceFacts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceFacts")
            .field("kind", &self.kind)
            .field("driver", &self.driver())
            .field("timeout", &self.timeout)
            .field("nowayout", &self.nowayout)
            .field("survives_reboot", &self.survives_reboot)
            .field("sleep_masked", &self.sleep_masked)
            .field("soft", &self.soft)
            .field("guest", &self.guest)
            .finish()
    }
}

/// Why the watchdog did not do what was asked. Its countdown goes on unless the variant says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// It could not be opened: it does not run because of us.
    #[error("open the watchdog at {path:?}")]
    Open {
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        errno: Errno,
    },
    /// Somebody else has it open. It must be ours alone.
    #[error("open the watchdog: somebody else has it")]
    Busy,
    /// It didn't accept a pet.
    #[error("pet the watchdog")]
    Pet(#[source] Errno),
    /// It doesn't answer, or with something else than was asked.
    #[error("{asked} of the watchdog")]
    Answer {
        /// What was asked.
        asked: &'static str,
        /// What the kernel said.
        #[source]
        errno: Errno,
    },
    /// It can't count what is asked of it.
    #[error("set the watchdog's timeout to {wanted:?}: it counts in {step:?}")]
    Granularity {
        /// What was asked for.
        wanted: Duration,
        /// What it can count.
        step: Duration,
    },
    /// The timeout read back isn't the one that was set. It runs with the one read back.
    #[error("set the watchdog's timeout to {wanted:?}: it reads back {actual:?}")]
    ReadBack {
        /// What was set.
        wanted: Duration,
        /// What was read.
        actual: Duration,
    },
}

/// A watchdog that is open.
pub trait Watchdog: std::fmt::Debug {
    /// Starts its countdown anew.
    ///
    /// # Errors
    /// [`DeviceError::Pet`]: it was not petted.
    fn pet(&mut self) -> Result<(), DeviceError>;

    /// What was verified about it when it was opened or taken over.
    fn facts(&self) -> DeviceFacts;

    /// How long it would still wait; `None` if it can't say.
    fn time_left(&self) -> Option<Duration>;

    /// Its descriptor, for the holder and for the next program.
    fn descriptor(&self) -> BorrowedFd<'_>;

    /// Stops it, so that closing the last descriptor doesn't reset the host. Only for an orderly end with nothing
    /// left in the slice.
    ///
    /// # Errors
    /// [`DeviceError::Answer`] if it can't be stopped: it goes on, and the host will be reset.
    fn disarm(&mut self) -> Result<(), DeviceError>;
}

/// An open watchdog, and why it can't be trusted if it can't.
///
/// A watchdog with a fault is kept open all the same: it counts down, and closing it would only let it fire.
#[derive(Debug)]
pub struct Opened {
    /// The watchdog.
    pub dog: Box<dyn Watchdog>,
    /// What went wrong after it was open.
    pub fault: Option<DeviceError>,
}

/// Which watchdog to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchdogSpec {
    /// None: class D.
    None,
    /// The device file of a watchdog of this machine.
    Real(PathBuf),
    /// The socket of a lab chassis.
    Lab(PathBuf),
}

impl FromStr for WatchdogSpec {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::None);
        }
        let (path, lab) = text.strip_prefix("lab:").map_or((text, false), |path| (path, true));
        if !path.starts_with('/') {
            return Err(format!("a watchdog is `none`, a device's path, or `lab:` and a socket's path; not {text:?}"));
        }
        Ok(if lab { Self::Lab(path.into()) } else { Self::Real(path.into()) })
    }
}

impl WatchdogSpec {
    /// Opens and sets up the watchdog; `None` if there is none to open. This is a pet.
    ///
    /// # Errors
    /// [`DeviceError`] if it could not be opened: nothing counts down because of us.
    pub fn open(&self, timeout: Duration) -> Result<Option<Opened>, DeviceError> {
        match self {
            Self::None => Ok(None),
            Self::Real(path) => real::open(path, timeout).map(Some),
            Self::Lab(path) => lab::open(path, timeout).map(Some),
        }
    }

    /// Takes over a descriptor that was kept open; `None` if there is no watchdog to be. No pet, unless the timeout
    /// has to be set anew.
    pub fn adopt(&self, kept: OwnedFd, timeout: Duration) -> Option<Opened> {
        match self {
            Self::None => None,
            Self::Real(_) => Some(real::adopt(kept, timeout)),
            Self::Lab(_) => Some(lab::adopt(kept, timeout)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(kind: DeviceKind) -> DeviceFacts {
        DeviceFacts { kind, nowayout: true, survives_reboot: true, sleep_masked: true, ..DeviceFacts::default() }
    }

    #[test]
    fn each_failed_condition_lowers_the_class() {
        let real = good(DeviceKind::Real);
        assert_eq!(real.ceiling(), ClassCeiling::A);
        assert_eq!(DeviceFacts { soft: true, ..real }.ceiling(), ClassCeiling::B);
        assert_eq!(DeviceFacts { guest: true, ..real }.ceiling(), ClassCeiling::C);
        assert_eq!(DeviceFacts { nowayout: false, ..real }.ceiling(), ClassCeiling::D);
        assert_eq!(DeviceFacts { survives_reboot: false, ..real }.ceiling(), ClassCeiling::D);
        assert_eq!(DeviceFacts { sleep_masked: false, ..real }.ceiling(), ClassCeiling::D);
        assert_eq!(good(DeviceKind::None).ceiling(), ClassCeiling::D);
    }

    #[test]
    fn a_watchdog_is_named_by_path_or_not_at_all() {
        assert_eq!("none".parse(), Ok(WatchdogSpec::None));
        assert_eq!("/dev/watchdog1".parse(), Ok(WatchdogSpec::Real("/dev/watchdog1".into())));
        assert_eq!("lab:/dev/shm/x/dog".parse(), Ok(WatchdogSpec::Lab("/dev/shm/x/dog".into())));
        assert!("softdog".parse::<WatchdogSpec>().is_err());
    }
}
