//! The source's end of a comparison.

use super::volume::hash;
use super::wire::{Ask, Begin, Tell, Wire, receive, send};
use super::{CHUNK, Figures, ResyncError, Volume};
use quorum::codec::Blob;
use std::sync::Arc;

/// Chunks that are hashed, and then settled, together: 16 MiB.
pub(super) const RANGE: u32 = 256;

/// Compares the standby's copy with `volume`, which may be in use, and sends what differs.
///
/// # Errors
/// [`ResyncError`]; some chunks may have been replaced.
pub async fn compare_and_send(
    wire: &mut dyn Wire,
    begin: &Begin,
    volume: &Arc<Volume>,
) -> Result<Figures, ResyncError> {
    send(wire, &Ask::Begin(begin.clone())).await?;
    match receive(wire).await? {
        Tell::Ready => {}
        other => return Err(unexpected(other)),
    }
    let mut figures = Figures::default();
    let chunks = volume.chunks();
    let ranges = (0..chunks).step_by(RANGE as usize);
    let count = |first: u64| u32::try_from((chunks - first).min(u64::from(RANGE))).unwrap_or(RANGE);
    let mut asked = ranges.clone();
    // The standby hashes the next range while this one is compared.
    for first in asked.by_ref().take(2) {
        send(wire, &Ask::Hash { first, count: count(first) }).await?;
    }
    for first in ranges {
        let theirs = match receive(wire).await? {
            Tell::Hashes { first: said, hashes } if said == first && hashes.len() == count(first) as usize => hashes,
            other => return Err(unexpected(other)),
        };
        let differing = compare(volume, first, theirs).await?;
        for (chunk, bytes) in &differing {
            figures.differing_bytes += bytes.len() as u64;
            send(wire, &Ask::Replace { chunk: *chunk, bytes: bytes.clone() }).await?;
        }
        figures.compared_bytes += u64::from(count(first)) * CHUNK as u64;
        if let Some(next) = asked.next() {
            send(wire, &Ask::Hash { first: next, count: count(next) }).await?;
        }
    }
    figures.compared_bytes = figures.compared_bytes.min(volume.bytes());
    figures.copied_bytes = figures.differing_bytes;
    send(wire, &Ask::Settle).await?;
    match receive(wire).await? {
        Tell::Settled => {}
        other => return Err(unexpected(other)),
    }
    send(wire, &Ask::End).await?;
    match receive(wire).await? {
        Tell::Ended { kept_bytes } => figures.kept_bytes = kept_bytes,
        other => return Err(unexpected(other)),
    }
    Ok(figures)
}

/// The chunks of a range whose hash isn't the one said, with what they hold here.
async fn compare(volume: &Arc<Volume>, first: u64, theirs: Vec<[u8; 32]>) -> Result<Vec<(u64, Blob)>, ResyncError> {
    let volume = Arc::clone(volume);
    let comparing = tokio::task::spawn_blocking(move || {
        let mut differing = Vec::new();
        for (chunk, theirs) in (first..).zip(theirs) {
            let bytes = volume.read(chunk)?;
            if hash(&bytes) != theirs {
                differing.push((chunk, Blob::from(bytes)));
            }
        }
        Ok::<_, std::io::Error>(differing)
    });
    let compared = comparing.await.map_err(|error| ResyncError::Volume(error.to_string()))?;
    compared.map_err(|error| ResyncError::Volume(error.to_string()))
}

fn unexpected(told: Tell) -> ResyncError {
    match told {
        Tell::Refused { because } => ResyncError::Refused(because),
        Tell::Ready => ResyncError::Wire("it began anew".into()),
        Tell::Hashes { first, .. } => ResyncError::Wire(format!("hashes of chunk {first} were not asked for")),
        Tell::Settled => ResyncError::Wire("it settled what was not asked".into()),
        Tell::Ended { .. } => ResyncError::Wire("it ended too early".into()),
    }
}
