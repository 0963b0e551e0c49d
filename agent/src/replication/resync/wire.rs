//! What the two agents of a comparison tell each other: frames of a length and one bounded envelope.

use super::ResyncError;
use quorum::codec::{self, Blob};
use quorum::id::{Epoch, GroupName};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What a stream for a comparison says that it is for.
pub const STREAM_KIND: u8 = 0x52;

const VERSION: u8 = 1;
/// One chunk, or the hashes of a range, and the envelope around it.
const FRAME_BYTES_MAX: usize = super::CHUNK + 512;
/// The other end reads, hashes or writes at most a range before it says something.
const PATIENCE: Duration = Duration::from_secs(60);

/// A way to the other agent.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// What is to be compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// The group.
    pub group: GroupName,
    /// The volume.
    pub volume: String,
    /// The epoch of the source's grant.
    pub epoch: Epoch,
    /// The size of the source's volume.
    pub bytes: u64,
}

/// From the source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Ask {
    Begin(Begin),
    /// Read and hash this many chunks from this one on.
    Hash {
        first: u64,
        count: u32,
    },
    /// Keep what this chunk holds, then make it this.
    Replace {
        chunk: u64,
        bytes: Blob,
    },
    /// Say when everything that was replaced so far is on disk.
    Settle,
    End,
}

/// From the standby.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Tell {
    Ready,
    Hashes { first: u64, hashes: Vec<[u8; 32]> },
    Settled,
    Ended { kept_bytes: u64 },
    Refused { because: String },
}

/// Sends one frame.
pub(super) async fn send<T: Serialize>(wire: &mut dyn Wire, message: &T) -> Result<(), ResyncError> {
    let broken = |error: &dyn std::fmt::Display| ResyncError::Wire(error.to_string());
    let body = codec::encode(VERSION, message, FRAME_BYTES_MAX).map_err(|error| broken(&error))?;
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
    let sending = async {
        wire.write_all(&length).await?;
        wire.write_all(&body).await?;
        wire.flush().await
    };
    let sent = tokio::time::timeout(PATIENCE, sending).await;
    sent.map_err(|_| ResyncError::Wire(format!("it took nothing for {PATIENCE:?}")))?.map_err(|error| broken(&error))
}

/// Receives one frame.
pub(super) async fn receive<T: DeserializeOwned>(wire: &mut dyn Wire) -> Result<T, ResyncError> {
    let broken = |error: &dyn std::fmt::Display| ResyncError::Wire(error.to_string());
    let receiving = async {
        let mut length = [0; 4];
        wire.read_exact(&mut length).await?;
        let length = u32::from_le_bytes(length) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(std::io::Error::other(format!("a frame of {length} bytes")));
        }
        let mut body = vec![0; length];
        wire.read_exact(&mut body).await?;
        Ok(body)
    };
    let received = tokio::time::timeout(PATIENCE, receiving).await;
    let body = received
        .map_err(|_| ResyncError::Wire(format!("it said nothing for {PATIENCE:?}")))?
        .map_err(|e| broken(&e))?;
    codec::decode(VERSION, &body, FRAME_BYTES_MAX).map_err(|error| broken(&error))
}
