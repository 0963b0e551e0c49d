//! What else must hold on a machine for its watchdog to be worth anything (protocol §2), verified at every boot.
//!
//! Contract: what can't be read counts as not holding. Nothing is changed.

use std::path::{Path, PathBuf};

/// Drivers whose timer isn't in the chipset: the kernel's own, and the BMC's, which a reset of the BMC forgets.
const SOFT_DRIVERS: [&str; 2] = ["software watchdog", "ipmi"];

/// The targets that systemd would put the machine to sleep by.
const SLEEP_TARGETS: [&str; 4] = ["sleep.target", "suspend.target", "hibernate.target", "hybrid-sleep.target"];

const UNIT_DIRECTORIES: [&str; 2] = ["/etc/systemd/system", "/run/systemd/system"];

fn word(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// Whether the watchdog with this directory in sysfs can't be stopped.
pub(super) fn nowayout(sysfs: &Path) -> bool {
    word(&sysfs.join("nowayout")).as_deref() == Some("1")
}

/// Whether the kernel leaves watchdogs running during an orderly reboot.
pub(super) fn survives_reboot() -> bool {
    word(Path::new("/sys/module/watchdog/parameters/stop_on_reboot")).as_deref() == Some("0")
}

/// Whether the machine can't be put to sleep: the kernel knows no sleep state, or all of systemd's ways are masked.
pub(super) fn sleep_masked() -> bool {
    let no_states =
        !Path::new("/sys/power/state").exists() || word(Path::new("/sys/power/state")).as_deref() == Some("");
    no_states || SLEEP_TARGETS.iter().all(|target| is_masked(target))
}

fn is_masked(target: &str) -> bool {
    UNIT_DIRECTORIES.iter().any(|directory| {
        std::fs::read_link(PathBuf::from(directory).join(target)).is_ok_and(|to| to == Path::new("/dev/null"))
    })
}

/// Whether this driver's timer is one of the kernel or of a BMC.
pub(super) fn is_soft(driver: &str) -> bool {
    let driver = driver.to_ascii_lowercase();
    SOFT_DRIVERS.iter().any(|soft| driver.contains(soft))
}

/// Whether this machine is a guest: the processor says that a hypervisor is present.
pub(super) fn is_guest() -> bool {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flagged = cpuinfo
        .lines()
        .filter(|line| line.starts_with("flags"))
        .any(|line| line.split_whitespace().any(|flag| flag == "hypervisor"));
    flagged || Path::new("/sys/hypervisor/type").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softdog_and_bmc_timers_are_soft_and_chipset_timers_are_not() {
        for soft in ["Software Watchdog", "IPMI"] {
            assert!(is_soft(soft), "{soft}");
        }
        for hard in ["iTCO_wdt", "i6300ESB timer", "SP5100 TCO timer", "SBSA Generic Watchdog"] {
            assert!(!is_soft(hard), "{hard}");
        }
    }

    #[test]
    fn what_can_not_be_read_does_not_hold() {
        assert!(!nowayout(Path::new("/nonexistent")));
    }
}
