//! The standby's end of a comparison: hashes on request, and replaces chunks after keeping what only this side has.

use super::door::{self, Door};
use super::kept::{KeptStore, KeptWriter, Origin};
use super::source::RANGE;
use super::wire::{Ask, Begin, Tell, Wire, receive, send};
use super::{ResyncError, Volume};
use crate::replication::record::{Record, RecordFile, Role};
use crate::replication::refusals::Refusals;
use quorum::codec::Blob;
use quorum::id::HostName;
use quorum::mutants;
use std::path::PathBuf;
use std::sync::Arc;

/// Replaced chunks that are kept, forced and written together: 2 MiB.
const BATCH: usize = 32;

/// What serves a comparison on this host.
#[derive(Clone, Debug)]
pub struct Serving {
    /// This host's copy.
    pub path: PathBuf,
    /// Its record.
    pub record: RecordFile,
    /// What its export refused.
    pub refusals: Refusals,
    /// Where differing data is kept.
    pub kept: KeptStore,
    /// Most bytes that are kept of this volume.
    pub kept_bytes_max: u64,
    /// This host.
    pub host: HostName,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// Bytes that were replaced.
    pub replaced_bytes: u64,
    /// The kept set, if anything had to be kept.
    pub kept: Option<(String, u64)>,
}

struct Session {
    door: Arc<Door>,
    number: u64,
    begin: Begin,
    serving: Serving,
    volume: Arc<Volume>,
    batch: Vec<(u64, Blob)>,
    kept: Option<KeptWriter>,
    replaced_bytes: u64,
}

/// Answers a source, `from` by its certificate, until it ends. `find` says what this host has of a group's volume.
///
/// # Errors
/// [`ResyncError`]; it was told to the source as far as it listens.
pub async fn serve(
    wire: &mut dyn Wire,
    from: &HostName,
    find: impl Fn(&Begin) -> Result<Serving, String>,
) -> Result<Served, ResyncError> {
    let begin = match receive(wire).await? {
        Ask::Begin(begin) => begin,
        other => return Err(ResyncError::Wire(format!("it began with {other:?}"))),
    };
    let served = match Session::enter(from, begin, find).await {
        Ok(session) => session.run(wire).await,
        Err(error) => Err(error),
    };
    if let Err(error @ (ResyncError::Refused(_) | ResyncError::Volume(_))) = &served {
        let because = error.to_string();
        // It may have gone already; then there is nobody to tell.
        let _gone = send(wire, &Tell::Refused { because }).await;
    }
    served
}

impl Session {
    async fn enter(
        from: &HostName,
        begin: Begin,
        find: impl Fn(&Begin) -> Result<Serving, String>,
    ) -> Result<Self, ResyncError> {
        let serving = find(&begin).map_err(ResyncError::Refused)?;
        let door = door::of(&serving.path);
        let Some(number) = door.enter(begin.epoch, from).await else {
            let because = format!("no export is open here for {from} under epoch {}", begin.epoch);
            return Err(ResyncError::Refused(because));
        };
        let path = serving.path.clone();
        let opened = tokio::task::spawn_blocking(move || Volume::open(&path, true)).await;
        let volume = opened.map_err(|error| error.to_string()).and_then(|opened| opened.map_err(|e| e.to_string()));
        let volume = Arc::new(volume.map_err(ResyncError::Volume)?);
        if volume.bytes() != begin.bytes {
            let because = format!("this copy has {} bytes, the source's {}", volume.bytes(), begin.bytes);
            return Err(ResyncError::Refused(because));
        }
        let session = Self { door, number, begin, serving, volume, batch: Vec::new(), kept: None, replaced_bytes: 0 };
        session.record()?;
        // Everything is compared from here on, what an earlier mirror could not write, too.
        session.serving.refusals.forget().map_err(|error| ResyncError::Volume(error.to_string()))?;
        Ok(session)
    }

    /// The record as it is now; an error unless it says that the copy is a mixture under this very epoch.
    fn record(&self) -> Result<Record, ResyncError> {
        let there = self.serving.record.read().map_err(|error| ResyncError::Volume(error.to_string()))?;
        match there {
            Some(record) if record.role == Role::Syncing && record.epoch == self.begin.epoch => Ok(record),
            Some(record) if mutants::on("data.replaces_in_a_standby") => Ok(record),
            other => {
                let because = format!("this copy isn't being made equal under epoch {}: {other:?}", self.begin.epoch);
                Err(ResyncError::Refused(because))
            }
        }
    }

    async fn run(mut self, wire: &mut dyn Wire) -> Result<Served, ResyncError> {
        send(wire, &Tell::Ready).await?;
        loop {
            match receive(wire).await? {
                Ask::Begin(_) => return Err(ResyncError::Wire("it began twice".into())),
                Ask::Hash { first, count } => {
                    let hashes = self.hashes(first, count).await?;
                    send(wire, &Tell::Hashes { first, hashes }).await?;
                }
                Ask::Replace { chunk, bytes } => {
                    self.batch.push((chunk, bytes));
                    if self.batch.len() >= BATCH {
                        self.settle().await?;
                    }
                }
                Ask::Settle => {
                    self.settle().await?;
                    send(wire, &Tell::Settled).await?;
                }
                Ask::End => {
                    self.settle().await?;
                    let kept = self.kept.take().map(KeptWriter::finish).transpose().map_err(ResyncError::Volume)?;
                    let kept_bytes = kept.as_ref().map_or(0, |(_, bytes)| *bytes);
                    send(wire, &Tell::Ended { kept_bytes }).await?;
                    return Ok(Served { replaced_bytes: self.replaced_bytes, kept });
                }
            }
        }
    }

    async fn hashes(&self, first: u64, count: u32) -> Result<Vec<[u8; 32]>, ResyncError> {
        if count > RANGE {
            return Err(ResyncError::Wire(format!("{count} hashes were asked for at once; {RANGE} is the most")));
        }
        let end = first.checked_add(u64::from(count)).filter(|end| *end <= self.volume.chunks());
        let end = end.ok_or_else(|| ResyncError::Wire("hashes behind the end were asked for".into()))?;
        let volume = Arc::clone(&self.volume);
        let hashing = tokio::task::spawn_blocking(move || (first..end).map(|chunk| volume.hash(chunk)).collect());
        let hashed: std::io::Result<_> = hashing.await.map_err(|error| ResyncError::Volume(error.to_string()))?;
        hashed.map_err(|error| ResyncError::Volume(error.to_string()))
    }

    /// Keeps and replaces the batch while the door is held.
    async fn settle(&mut self) -> Result<(), ResyncError> {
        let batch = std::mem::take(&mut self.batch);
        if batch.is_empty() {
            return Ok(());
        }
        let out = || ResyncError::Refused("the export was closed, or a newer comparison began".into());
        let held = self.door.hold(self.number).await.ok_or_else(out)?;
        let record = self.record()?;
        if record.was_source && self.kept.is_none() && !mutants::on("data.nothing_kept") {
            self.kept = Some(self.begin_keeping(&record).map_err(ResyncError::Volume)?);
        }
        let volume = Arc::clone(&self.volume);
        let mut kept = self.kept.take();
        let quota = self.serving.kept_bytes_max;
        // The guard goes along: a session that is dropped doesn't open the door in the middle of a write.
        let working = tokio::task::spawn_blocking(move || {
            let _held = held;
            let done = replace(&volume, &batch, (kept.as_mut(), quota));
            (kept, done)
        });
        let (kept, done) = working.await.map_err(|error| ResyncError::Volume(error.to_string()))?;
        self.kept = kept;
        self.replaced_bytes += done.map_err(ResyncError::Volume)?;
        Ok(())
    }

    fn begin_keeping(&self, record: &Record) -> Result<KeptWriter, String> {
        self.serving.kept.begin(Origin {
            group: self.begin.group.clone(),
            volume: self.begin.volume.clone(),
            host: self.serving.host.clone(),
            generation: record.generation,
            replaced_under: self.begin.epoch,
            volume_bytes: self.volume.bytes(),
        })
    }
}

fn replace(
    volume: &Volume,
    batch: &[(u64, Blob)],
    (kept, quota): (Option<&mut KeptWriter>, u64),
) -> Result<u64, String> {
    if let Some(kept) = kept {
        for (chunk, _) in batch {
            let old = volume.read(*chunk).map_err(|error| error.to_string())?;
            kept.keep(*chunk, &old, quota)?;
        }
        kept.force()?;
    }
    let mut replaced = 0;
    for (chunk, bytes) in batch {
        volume.write(*chunk, bytes).map_err(|error| error.to_string())?;
        replaced += bytes.len() as u64;
    }
    Ok(replaced)
}
