//! Reads this machine's clocks and what tells its boots and its hardware apart.
//!
//! Contract: [`now`] is the only place of the agent that reads a clock on which a right depends (protocol §1): both
//! clocks as a pair, in the same boot. The two halves of a pair were read within [`PAIR_SPREAD_MAX`] of each other
//! unless the process was paused between them again and again; such a pair is still safe (a holder takes the larger,
//! a waiter the smaller difference), only less exact.
//!
//! Not here: wall-clock time (nothing that decides may depend on it) and the arithmetic (`quorum::moment`).

use quorum::id::{BootId, HardwareId};
use quorum::moment::Moment;
use rustix::time::{ClockId, clock_gettime};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How far apart the two readings of a pair may lie before the pair is read again.
///
/// Both calls together take well under a microsecond; a pair this far apart was split by a pause, and would look like
/// a rate error of the clocks to those who compare them.
pub const PAIR_SPREAD_MAX: Duration = Duration::from_micros(20);

/// How often a split pair is read again before the tightest one seen is taken.
const PAIR_TRIES: usize = 4;

const BOOT_ID_FILE: &str = "/proc/sys/kernel/random/boot_id";

/// Where firmware tells which machine this is. The first two are SMBIOS (x86, arm64 servers), the last is for machines
/// that boot with a device tree.
const HARDWARE_FILES: [&str; 4] = [
    "/sys/class/dmi/id/product_uuid",
    "/sys/class/dmi/id/product_serial",
    "/sys/class/dmi/id/board_serial",
    "/sys/firmware/devicetree/base/serial-number",
];

/// Texts that manufacturers leave in place of a serial number: equal on many machines, so they identify none.
const PLACEHOLDERS: [&str; 9] = [
    "none",
    "not specified",
    "not applicable",
    "default string",
    "to be filled by o.e.m.",
    "system serial number",
    "0",
    "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
];

/// Why this machine could not say who it is. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ClockError {
    /// The file could not be read.
    #[error("read {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// The text is not a boot id (32 hexadecimal digits, dashes allowed).
    #[error("parse {0:?} as a boot id")]
    BootId(String),
    /// Neither SMBIOS nor the device tree gives a serial number or UUID of its own to this machine.
    #[error("find a serial number or UUID of this machine in its firmware")]
    NoHardwareId,
}

/// Both clocks of this machine, now.
pub fn now() -> Moment {
    let mut best = pair();
    for _ in 1..PAIR_TRIES {
        if best.1 <= PAIR_SPREAD_MAX {
            break;
        }
        let next = pair();
        if next.1 < best.1 {
            best = next;
        }
    }
    best.0
}

/// One reading of both clocks, and how long the reading took: BOOTTIME is read again after the pair.
fn pair() -> (Moment, Duration) {
    let boot_ns = read_ns(ClockId::Boottime);
    let raw_ns = read_ns(ClockId::MonotonicRaw);
    let after_ns = read_ns(ClockId::Boottime);
    (Moment { boot_ns, raw_ns }, Duration::from_nanos(after_ns.saturating_sub(boot_ns)))
}

fn read_ns(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

/// The id of this boot of the kernel.
///
/// # Errors
/// [`ClockError::Read`] where `/proc` isn't mounted, [`ClockError::BootId`] if it holds something else.
pub fn boot_id() -> Result<BootId, ClockError> {
    parse_boot_id(&read_text(Path::new(BOOT_ID_FILE))?)
}

/// A boot id as the kernel prints it: 32 hexadecimal digits, dashes and surrounding white space ignored.
///
/// # Errors
/// [`ClockError::BootId`] if `text` is anything else.
pub fn parse_boot_id(text: &str) -> Result<BootId, ClockError> {
    let refuse = || ClockError::BootId(text.chars().take(80).collect());
    let digits: Vec<u32> = text
        .trim()
        .chars()
        .filter(|&c| c != '-')
        .map(|c| c.to_digit(16).ok_or_else(refuse))
        .collect::<Result<_, _>>()?;
    if digits.len() != 32 {
        return Err(refuse());
    }
    let mut id = [0_u8; 16];
    for (byte, nibbles) in id.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = (nibbles[0] << 4 | nibbles[1]) as u8;
    }
    Ok(BootId(id))
}

/// What makes this machine this machine: a hash of its firmware's UUID and serial numbers. Needs root for SMBIOS.
///
/// # Errors
/// [`ClockError::NoHardwareId`] if the firmware tells nothing that is this machine's own; evidence of kind *returned*
/// is then impossible for it.
pub fn hardware_id() -> Result<HardwareId, ClockError> {
    let words: Vec<String> = HARDWARE_FILES.iter().filter_map(|file| read_text(Path::new(file)).ok()).collect();
    hardware_id_of(&words).ok_or(ClockError::NoHardwareId)
}

/// The hardware id made of these identifying `words` (a lab gives its own); `None` if all are empty or placeholders.
pub fn hardware_id_of<T: AsRef<str>>(words: &[T]) -> Option<HardwareId> {
    let mut hash = Sha256::new_with_prefix(b"antipode hardware 1\0");
    let mut own = 0;
    for word in words {
        let word = word.as_ref().trim_matches(|c: char| c.is_whitespace() || c == '\0').to_ascii_lowercase();
        if !word.is_empty() && !PLACEHOLDERS.contains(&word.as_str()) {
            own += 1;
            hash.update(word.as_bytes());
        }
        // The position counts, so that a serial number can't pass for a UUID.
        hash.update([0]);
    }
    let digest = hash.finalize();
    let mut id = [0_u8; 16];
    id.copy_from_slice(&digest[..16]);
    (own > 0).then_some(HardwareId(id))
}

fn read_text(path: &Path) -> Result<String, ClockError> {
    std::fs::read_to_string(path).map_err(|source| ClockError::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_clocks_only_go_forward() {
        let mut last = now();
        for _ in 0..1000 {
            let next = now();
            assert!(next.boot_ns >= last.boot_ns && next.raw_ns >= last.raw_ns, "{last:?} then {next:?}");
            last = next;
        }
    }

    #[test]
    fn this_kernel_says_the_same_boot_id_twice() {
        assert_eq!(boot_id().expect("boot id"), boot_id().expect("boot id again"));
    }

    #[test]
    fn a_boot_id_is_exactly_thirty_two_digits() {
        let id = parse_boot_id("00112233-4455-6677-8899-aabbccddeeff\n").expect("well formed");
        assert_eq!(id.to_string(), "00112233445566778899aabbccddeeff");
        for bad in ["", "0011", "00112233-4455-6677-8899-aabbccddeeff00", "zz112233-4455-6677-8899-aabbccddeeff"] {
            assert!(matches!(parse_boot_id(bad), Err(ClockError::BootId(_))), "{bad:?}");
        }
    }

    #[test]
    fn placeholders_identify_no_machine() {
        assert_eq!(hardware_id_of(&["", "To Be Filled By O.E.M.\n", "0"]), None);
        assert_eq!(hardware_id_of::<&str>(&[]), None);
    }

    #[test]
    fn a_hardware_id_depends_on_every_word_and_its_place() {
        let id = hardware_id_of(&["uuid-1", "serial-1"]);
        assert!(id.is_some());
        assert_eq!(id, hardware_id_of(&["UUID-1\n", "serial-1"]));
        assert_ne!(id, hardware_id_of(&["serial-1", "uuid-1"]));
        assert_ne!(id, hardware_id_of(&["uuid-1", "serial-2"]));
        assert_ne!(hardware_id_of(&["", "x"]), hardware_id_of(&["x", ""]));
    }
}
