//! A target: the host that is to be proven harmless, and how a device shows that it speaks for *that* machine.
//!
//! Contract: [`ExpectedIdentity::compare`] never calls two machines equal on a value that factories put into many
//! machines (all zeros, "To be filled by O.E.M."); such a value counts as not reported.
//! Not here: what the device observed about the machine (`reading`), and what follows from it (`evidence`).

use crate::name::{DomainName, FeedName, HostName, SiteName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// A machine's UUID as SMBIOS, a BMC or a hypervisor reports it.
///
/// Vendors disagree about the byte order (SMBIOS swaps the first three fields, IPMI sends all bytes last to first), so
/// comparison accepts each of these ([`MachineUuid::is_same_machine`]); equality of the type is that of the bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MachineUuid([u8; 16]);

/// A text that isn't a UUID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} isn't a UUID (32 hexadecimal digits, with or without dashes)")]
pub struct BadUuid(pub String);

impl MachineUuid {
    /// Reads 32 hexadecimal digits; dashes, braces and surrounding space are ignored.
    ///
    /// # Errors
    /// [`BadUuid`] if there aren't exactly 32 digits or anything else is in between.
    pub fn parse(text: &str) -> Result<Self, BadUuid> {
        let bad = || BadUuid(text.to_owned());
        let inner = text.trim().trim_start_matches('{').trim_end_matches('}');
        let digits = inner.chars().filter(|c| *c != '-').map(|c| c.to_digit(16)).collect::<Option<Vec<_>>>();
        let digits = digits.ok_or_else(bad)?;
        if digits.len() != 32 {
            return Err(bad());
        }
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            *byte = u8::try_from(pair[0] * 16 + pair[1]).map_err(|_| bad())?;
        }
        Ok(Self(bytes))
    }

    /// The UUID with these bytes, in the order in which it is written.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Whether both name the same machine, in any of the byte orders in use.
    pub fn is_same_machine(self, other: Self) -> bool {
        let reversed = self.reversed();
        [self, self.swapped(), reversed, reversed.swapped()].contains(&other)
    }

    /// Whether factories put this value into many machines, so that it identifies none.
    pub fn is_placeholder(self) -> bool {
        // The last is the sample of a firmware vendor that board makers forget to replace.
        const COMMON: &str = "03000200-0400-0500-0006-000700080009";
        let one_value = self.0.iter().all(|byte| *byte == self.0[0]);
        one_value || Self::parse(COMMON).is_ok_and(|common| self.is_same_machine(common))
    }

    fn reversed(self) -> Self {
        let mut bytes = self.0;
        bytes.reverse();
        Self(bytes)
    }

    fn swapped(self) -> Self {
        let mut bytes = self.0;
        bytes[0..4].reverse();
        bytes[4..6].reverse();
        bytes[6..8].reverse();
        Self(bytes)
    }
}

impl fmt::Display for MachineUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for MachineUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for MachineUuid {
    type Error = BadUuid;
    fn try_from(text: String) -> Result<Self, BadUuid> {
        Self::parse(&text)
    }
}

impl From<MachineUuid> for String {
    fn from(uuid: MachineUuid) -> String {
        uuid.to_string()
    }
}

/// What a device said about the machine that it speaks for. Nothing said is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReportedIdentity {
    /// The machine's UUID.
    pub uuid: Option<MachineUuid>,
    /// Serial numbers (system, chassis, board), as reported, trimmed.
    pub serials: BTreeSet<String>,
}

impl ReportedIdentity {
    /// A device that says nothing about the machine.
    pub fn none() -> Self {
        Self::default()
    }

    /// The identity `uuid` and `serial`, leaving out what identifies no machine.
    pub fn of(uuid: Option<MachineUuid>, serials: impl IntoIterator<Item = String>) -> Self {
        let serials = serials.into_iter().map(|serial| serial.trim().to_owned());
        Self {
            uuid: uuid.filter(|uuid| !uuid.is_placeholder()),
            serials: serials.filter(|serial| !is_placeholder_serial(serial)).collect(),
        }
    }
}

impl fmt::Display for ReportedIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uuid = self.uuid.map(|uuid| format!("UUID {uuid}"));
        let serials = self.serials.iter().map(|serial| format!("serial {serial}"));
        let all: Vec<String> = uuid.into_iter().chain(serials).collect();
        if all.is_empty() { f.write_str("no identity") } else { f.write_str(&all.join(", ")) }
    }
}

/// What factories write where a serial number should be.
fn is_placeholder_serial(serial: &str) -> bool {
    const COMMON: [&str; 10] = [
        "",
        "none",
        "n/a",
        "unknown",
        "default string",
        "not specified",
        "not available",
        "system serial number",
        "to be filled by o.e.m.",
        "123456789",
    ];
    let lower = serial.trim().to_ascii_lowercase();
    let mut chars = lower.chars();
    let first = chars.next();
    COMMON.contains(&lower.as_str()) || chars.all(|c| Some(c) == first)
}

/// The identity that a device must report before its word about the target counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpectedIdentity {
    /// The machine's UUID (SMBIOS system UUID; for a VM, its own).
    pub uuid: Option<MachineUuid>,
    /// The machine's serial number.
    pub serial: Option<String>,
}

/// The outcome of comparing what was reported with what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// At least one value is equal, none differs. Says which.
    Same(String),
    /// A value differs: the device speaks for another machine.
    Other {
        /// What the target should have.
        expected: String,
        /// What the device said.
        reported: String,
    },
    /// No value that both sides have: nothing can be said.
    Unsaid,
}

impl ExpectedIdentity {
    /// Whether anything is expected at all.
    pub fn is_empty(&self) -> bool {
        self.uuid.is_none() && self.serial.is_none()
    }

    /// Compares with what a device said. One difference outweighs any agreement.
    pub fn compare(&self, reported: &ReportedIdentity) -> Comparison {
        let other = |expected: String| Comparison::Other { expected, reported: reported.to_string() };
        let mut same = Vec::new();
        if let (Some(expected), Some(uuid)) = (self.uuid, reported.uuid) {
            if !expected.is_same_machine(uuid) {
                return other(format!("UUID {expected}"));
            }
            same.push(format!("UUID {expected}"));
        }
        if let Some(expected) = &self.serial
            && !reported.serials.is_empty()
        {
            if !reported.serials.iter().any(|serial| serial.eq_ignore_ascii_case(expected.trim())) {
                return other(format!("serial {expected}"));
            }
            same.push(format!("serial {expected}"));
        }
        if same.is_empty() { Comparison::Unsaid } else { Comparison::Same(same.join(", ")) }
    }
}

/// Where something stands: what fails together with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The site.
    pub site: Option<SiteName>,
    /// Power circuits it hangs on.
    #[serde(default)]
    pub power: BTreeSet<DomainName>,
    /// Network segments through which it is reached.
    #[serde(default)]
    pub network: BTreeSet<DomainName>,
    /// The room or rack.
    pub room: Option<DomainName>,
}

/// A host as fencing sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Target {
    /// The host.
    pub host: HostName,
    /// What a device must report before its word counts.
    pub identity: ExpectedIdentity,
    /// Its power feeds; empty means one feed that needs no name.
    pub feeds: BTreeSet<FeedName>,
    /// Where it stands.
    pub place: Place,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uuid(text: &str) -> MachineUuid {
        MachineUuid::parse(text).unwrap()
    }

    #[test]
    fn a_uuid_in_another_byte_order_is_the_same_machine() {
        let smbios = uuid("33221100-5544-7766-8899-aabbccddeeff");
        assert!(smbios.is_same_machine(uuid("00112233-4455-6677-8899-AABBCCDDEEFF")));
        assert!(smbios.is_same_machine(uuid("ffeeddcc-bbaa-9988-6677-445500112233")));
        assert!(!smbios.is_same_machine(uuid("00112233-4455-6677-8899-aabbccddee00")));
    }

    #[test]
    fn a_value_that_many_machines_have_identifies_none() {
        let zero = uuid("00000000-0000-0000-0000-000000000000");
        let expected = ExpectedIdentity { uuid: Some(zero), serial: Some("0000000".into()) };
        let reported = ReportedIdentity::of(Some(zero), ["0000000".to_owned(), "To be filled by O.E.M.".to_owned()]);
        assert_eq!(reported, ReportedIdentity::none());
        assert_eq!(expected.compare(&reported), Comparison::Unsaid);
    }

    #[test]
    fn one_differing_value_outweighs_an_equal_one() {
        let id = uuid("11111111-2222-3333-4444-555555555555");
        let expected = ExpectedIdentity { uuid: Some(id), serial: Some("AB12".into()) };
        let reported = ReportedIdentity::of(Some(id), ["XY99".to_owned()]);
        assert!(matches!(expected.compare(&reported), Comparison::Other { .. }));
        let reported = ReportedIdentity::of(Some(id), ["board-7".to_owned(), "ab12".to_owned()]);
        assert!(matches!(expected.compare(&reported), Comparison::Same(_)));
    }

    #[test]
    fn a_uuid_is_32_hexadecimal_digits_and_nothing_else() {
        assert!(MachineUuid::parse("{11111111-2222-3333-4444-555555555555}").is_ok());
        for text in ["", "1111", "g1111111-2222-3333-4444-555555555555", "11111111-2222-3333-4444-5555555555556"] {
            assert!(MachineUuid::parse(text).is_err(), "{text:?} was taken");
        }
    }
}
