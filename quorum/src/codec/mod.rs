//! Envelopes for everything that is sent or stored: a version byte, then the value in bincode, within a limit.
//!
//! ```text
//! on the wire   version (1 byte, never 0) | bincode, standard configuration
//! on disk       version | bincode | CRC-32 of all before it, little endian
//! ```
//!
//! Contract, against any bytes whatsoever: the frame is compared with its limit before anything is looked at; no
//! memory is set aside on the word of a length prefix; nesting and the number of elements are bounded; trailing bytes
//! are an error; nothing panics. What remains the caller's duty: element types that are not much larger in memory than
//! on the wire, because a frame may be full of the smallest of them.
//!
//! bincode stays behind this module: another encoding is one more version here, not a change elsewhere. Bytes of
//! every version are frozen in `quorum/testdata/wire/`.
//!
//! Not here: the types (each module owns its own), reading frames from streams (the agent's driver).

mod blob;
mod guard;

pub use blob::Blob;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// No frame is ever longer, whatever limit a caller names: a quarter of a gibibyte, four times the snapshot of a
/// ledger with 100,000 groups.
pub const FRAME_BYTES_MAX: usize = 256 << 20;

/// Length of the checksum at the end of what is stored.
const CRC_BYTES: usize = 4;

/// Room for a beat, which is what is encoded most.
const USUAL_BYTES: usize = 256;

/// Why a value was not encoded. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The encoded value is longer than its reader would accept.
    #[error("encode {len} bytes within {limit}")]
    TooLong {
        /// Length of the whole envelope in bytes.
        len: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The value has something that the encoding can't express. It is a fault of the type.
    #[error("encode the value")]
    Value(#[source] bincode::error::EncodeError),
}

/// Why bytes are not a value. Nothing of them was used.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The frame is longer than this kind of message may be.
    #[error("read a frame of {len} bytes within {limit}")]
    TooLong {
        /// Length of the frame in bytes.
        len: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The frame has no room for an envelope.
    #[error("find an envelope in {0} bytes")]
    TooShort(usize),
    /// The writer uses a version that this reader doesn't know, or another one than was asked for.
    #[error("read version {found}, this reader knows version {wanted}")]
    Version {
        /// The version that the bytes claim.
        found: u8,
        /// The version that was asked for.
        wanted: u8,
    },
    /// The checksum of stored bytes doesn't match: they are not what was written.
    #[error("verify the checksum: stored {stored:08x}, computed {computed:08x}")]
    Checksum {
        /// What is stored.
        stored: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// The value ended before the frame did.
    #[error("use the whole frame: {0} bytes are left over")]
    Trailing(usize),
    /// The bytes don't describe a value of this type.
    #[error("decode the value")]
    Value(#[source] bincode::error::DecodeError),
    /// A value of this type, but one that no writer makes.
    #[error("accept the value: {0}")]
    Impossible(&'static str),
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<FRAME_BYTES_MAX>()
}

/// Encodes `value` for the wire as `version`.
///
/// # Errors
/// [`EncodeError::TooLong`] when the envelope exceeds `limit` bytes: a reader would refuse it.
///
/// # Panics
/// When `version` is 0, which no reader accepts.
pub fn encode<T: Serialize + ?Sized>(version: u8, value: &T, limit: usize) -> Result<Vec<u8>, EncodeError> {
    assert!(version != 0, "0 is never a version");
    let mut bytes = Vec::with_capacity(USUAL_BYTES);
    bytes.push(version);
    bincode::serde::encode_into_std_write(value, &mut bytes, config()).map_err(EncodeError::Value)?;
    let limit = limit.min(FRAME_BYTES_MAX);
    if bytes.len() > limit {
        return Err(EncodeError::TooLong { len: bytes.len(), limit });
    }
    Ok(bytes)
}

/// The version that `bytes` claim, so that a reader of several versions can choose.
///
/// # Errors
/// [`DecodeError::TooShort`] when there is not even a version.
pub fn version_of(bytes: &[u8]) -> Result<u8, DecodeError> {
    bytes.first().copied().ok_or(DecodeError::TooShort(0))
}

/// Decodes what [`encode`] wrote as `version`.
///
/// # Errors
/// [`DecodeError`] for anything that is not exactly one envelope of this version within `limit` bytes.
pub fn decode<T: DeserializeOwned>(version: u8, bytes: &[u8], limit: usize) -> Result<T, DecodeError> {
    let limit = limit.min(FRAME_BYTES_MAX);
    if bytes.len() > limit {
        return Err(DecodeError::TooLong { len: bytes.len(), limit });
    }
    let found = version_of(bytes)?;
    if found != version || found == 0 {
        return Err(DecodeError::Version { found, wanted: version });
    }
    let body = &bytes[1..];
    let budget = guard::Budget::of(body);
    let (value, used) = bincode::serde::seed_decode_from_slice(guard::root::<T>(&budget), body, config())
        .map_err(DecodeError::Value)?;
    if used != body.len() {
        return Err(DecodeError::Trailing(body.len() - used));
    }
    Ok(value)
}

/// Encodes `value` for the disk as `version`: as [`encode`], with a checksum behind it.
///
/// # Errors
/// As [`encode`]; the checksum counts towards `limit`.
///
/// # Panics
/// When `version` is 0.
pub fn seal<T: Serialize + ?Sized>(version: u8, value: &T, limit: usize) -> Result<Vec<u8>, EncodeError> {
    let limit = limit.min(FRAME_BYTES_MAX);
    let mut bytes = encode(version, value, limit.saturating_sub(CRC_BYTES))?;
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    Ok(bytes)
}

/// Decodes what [`seal`] wrote as `version`, after its checksum was verified.
///
/// # Errors
/// [`DecodeError`] for anything that is not exactly one sealed envelope of this version within `limit` bytes.
pub fn open<T: DeserializeOwned>(version: u8, bytes: &[u8], limit: usize) -> Result<T, DecodeError> {
    if bytes.len() > limit.min(FRAME_BYTES_MAX) {
        return Err(DecodeError::TooLong { len: bytes.len(), limit: limit.min(FRAME_BYTES_MAX) });
    }
    let Some((body, crc)) = bytes.split_last_chunk::<CRC_BYTES>() else {
        return Err(DecodeError::TooShort(bytes.len()));
    };
    let (stored, computed) = (u32::from_le_bytes(*crc), crc32fast::hash(body));
    if stored != computed {
        return Err(DecodeError::Checksum { stored, computed });
    }
    decode(version, body, limit)
}

#[cfg(test)]
mod tests;
