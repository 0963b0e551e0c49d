//! What an authority has issued and revoked: one small file for each certificate.
//!
//! Invariant: a certificate is recorded before it is handed out, so that everything in the field can be listed and
//! revoked. Records are never deleted: a serial number is never free again.
//!
//! Not here: signing the revocation list (`authority`).

use super::identity::{Identity, KeyFingerprint};
use super::{PkiError, store};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A certificate's serial number: 16 random bytes, the first bit clear (it is a positive number).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Serial(pub [u8; 16]);

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Serial {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = bytes_from_hex(text).ok_or("a serial number has hexadecimal digits only")?;
        Ok(Self(bytes.try_into().map_err(|_| "a serial number has 32 digits")?))
    }
}

impl TryFrom<String> for Serial {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Serial> for String {
    fn from(serial: Serial) -> String {
        serial.to_string()
    }
}

/// The bytes that an even number of hexadecimal digits spells.
pub(super) fn bytes_from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect::<Option<_>>()?;
    digits.len().is_multiple_of(2).then(|| digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// Why a certificate was revoked (RFC 5280 §5.3.1, those that fit).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevocationReason {
    /// Nobody said.
    Unspecified,
    /// Someone else may have the key.
    KeyCompromise,
    /// A newer certificate took its place.
    Superseded,
    /// The host was removed, the person left.
    CessationOfOperation,
    /// The role or the right was taken away.
    PrivilegeWithdrawn,
}

impl From<RevocationReason> for rcgen::RevocationReason {
    fn from(reason: RevocationReason) -> Self {
        match reason {
            RevocationReason::Unspecified => Self::Unspecified,
            RevocationReason::KeyCompromise => Self::KeyCompromise,
            RevocationReason::Superseded => Self::Superseded,
            RevocationReason::CessationOfOperation => Self::CessationOfOperation,
            RevocationReason::PrivilegeWithdrawn => Self::PrivilegeWithdrawn,
        }
    }
}

/// When and why a certificate was revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// Seconds since 1970.
    pub at: i64,
    /// Why.
    pub reason: RevocationReason,
}

/// What is known of one certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuedRecord {
    /// Its serial number.
    pub serial: Serial,
    /// Whom it speaks for.
    pub identity: Identity,
    /// Its key.
    pub key_fingerprint: KeyFingerprint,
    /// The generation of the root that signed it.
    pub root: u32,
    /// Seconds since 1970 from which it counts.
    pub not_before: i64,
    /// Seconds since 1970 up to which it counts.
    pub not_after: i64,
    /// Set once it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Revocation>,
}

/// Writes the record of a certificate that is about to be handed out.
pub(super) fn record(directory: &Path, record: &IssuedRecord) -> Result<(), PkiError> {
    store::write_new(&file(directory, record.serial), &encode(record)?)
}

/// Writes a record that changed (it was revoked).
pub(super) fn update(directory: &Path, record: &IssuedRecord) -> Result<(), PkiError> {
    store::write_over(&file(directory, record.serial), &encode(record)?)
}

fn encode(record: &IssuedRecord) -> Result<Vec<u8>, PkiError> {
    serde_json::to_vec_pretty(record).map_err(|e| store::damaged(Path::new("record"), e))
}

fn file(directory: &Path, serial: Serial) -> PathBuf {
    directory.join(format!("{serial}.json"))
}

/// The record of this serial number.
///
/// # Errors
/// [`PkiError::UnknownSerial`] if there is none.
pub(super) fn load(directory: &Path, serial: Serial) -> Result<IssuedRecord, PkiError> {
    let path = file(directory, serial);
    if !path.exists() {
        return Err(PkiError::UnknownSerial(serial));
    }
    decode(&path)
}

fn decode(path: &Path) -> Result<IssuedRecord, PkiError> {
    serde_json::from_slice(&store::read(path)?).map_err(|e| store::damaged(path, e))
}

/// All records, oldest first.
///
/// # Errors
/// [`PkiError::Damaged`] if one of them can't be understood: a list that silently misses one would let a revoked
/// certificate in.
pub(super) fn all(directory: &Path) -> Result<Vec<IssuedRecord>, PkiError> {
    let failed = |source| PkiError::File { doing: "list", path: directory.to_owned(), source };
    let mut records = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        // Temporary files of a write that was cut off begin with a dot.
        if path.extension().is_some_and(|e| e == "json") && !path.file_name().is_some_and(starts_with_dot) {
            records.push(decode(&path)?);
        }
    }
    records.sort_by_key(|r| (r.not_before, r.serial));
    Ok(records)
}

fn starts_with_dot(name: &std::ffi::OsStr) -> bool {
    name.as_encoded_bytes().first() == Some(&b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_text_is_taken_only_whole() {
        assert_eq!(bytes_from_hex("00ffA0"), Some(vec![0, 255, 160]));
        for bad in ["0", "0g", "00 0", "é0"] {
            assert_eq!(bytes_from_hex(bad), None, "{bad:?}");
        }
        assert!("00".parse::<Serial>().is_err());
    }
}
