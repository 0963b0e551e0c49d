//! Bringing an old copy up to date: what differs is sent, what only the old side had is kept first, what the running side
//! writes meanwhile isn't missed, and nobody writes into a copy that isn't being made equal.

use super::bench::{PATIENCE, epoch, until};
use super::pair::{BLOCK, Pair, SOURCE, STANDBY, VOLUME_BYTES, reign};
use antipode::replication::record::{Record, RecordFile, Role};
use antipode::replication::refusals::Refusals;
use antipode::replication::resync::kept::KeptStore;
use antipode::replication::resync::{CHUNK, Figures, ResyncError, Served, Serving, serve};
use antipode::replication::{AcceptedLoss, ExportBegin, MirrorState, PromoteOrder, Replication, ReplicationError};
use quorum::id::Generation;
use std::os::unix::fs::FileExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// More than any frame.
const PIPE_BYTES: usize = 1 << 20;

/// A source in use, and a standby that was the source of an older reign, some blocks of which differ.
struct Return {
    pair: Pair,
    quota: u64,
}

impl Return {
    async fn new(differing: &[u64]) -> Self {
        let pair = Pair::new(reign()).await;
        pair.nbd(SOURCE).adopt(reign(), Generation(2)).await.unwrap();
        pair.write_block(9, 0x99).await;
        let disk = std::fs::OpenOptions::new().write(true).open(pair.volume(STANDBY).path).unwrap();
        disk.write_all_at(&[0x99; CHUNK], 9 * BLOCK).unwrap();
        for block in differing {
            disk.write_all_at(&[0xee; CHUNK], block * BLOCK).unwrap();
        }
        disk.sync_all().unwrap();
        let old = Record::new(&"erp".parse().unwrap(), "root", Role::Source).at(Generation(1), epoch(6));
        record(&pair).write(&old).unwrap();
        Self { pair, quota: u64::MAX }
    }

    async fn open(&self) {
        self.pair.nbd(STANDBY).open_export(&self.pair.export_for(reign(), ExportBegin::Afresh)).await.unwrap();
    }

    fn kept(&self) -> KeptStore {
        KeptStore::new(self.pair.scratch.path("kept"))
    }

    /// The standby's agent at its end of `wire`.
    fn serve(&self, mut wire: DuplexStream) -> JoinHandle<Result<Served, ResyncError>> {
        let serving = Serving {
            refusals: Refusals::of(&self.pair.place(STANDBY).runtime, "root"),
            path: self.pair.volume(STANDBY).path,
            record: record(&self.pair),
            kept: self.kept(),
            kept_bytes_max: self.quota,
            host: STANDBY.parse().unwrap(),
        };
        tokio::spawn(async move { serve(&mut wire, &SOURCE.parse().unwrap(), |_| Ok(serving.clone())).await })
    }

    async fn resync(&self, mut wire: DuplexStream) -> Result<Option<Figures>, ReplicationError> {
        self.pair.nbd(SOURCE).resync(&self.pair.mirror_for(reign()), &mut wire).await
    }
}

fn record(pair: &Pair) -> RecordFile {
    RecordFile::new(RecordFile::beside(&pair.volume(STANDBY).path), &"erp".parse().unwrap(), "root")
}

/// Two pipes with a relay between them that holds back the standby's n-th answer until it is let go. Says when it holds.
fn relay(hold: usize) -> (DuplexStream, DuplexStream, oneshot::Receiver<()>, oneshot::Sender<()>) {
    let (source, near) = tokio::io::duplex(PIPE_BYTES);
    let (far, standby) = tokio::io::duplex(PIPE_BYTES);
    let (held, holds) = oneshot::channel();
    let (go, goes) = oneshot::channel();
    let (near_read, near_write) = tokio::io::split(near);
    let (far_read, far_write) = tokio::io::split(far);
    tokio::spawn(copy(near_read, far_write));
    tokio::spawn(answers(far_read, near_write, (hold, held, goes)));
    (source, standby, holds, go)
}

async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    let _ended = tokio::io::copy(&mut from, &mut to).await;
    let _ended = to.shutdown().await;
}

async fn answers(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    (hold, held, goes): (usize, oneshot::Sender<()>, oneshot::Receiver<()>),
) {
    let mut waiting = Some((held, goes));
    for number in 1.. {
        let Ok(length) = from.read_u32_le().await else { return };
        let mut body = vec![0; length as usize];
        let Ok(_) = from.read_exact(&mut body).await else { return };
        if number == hold
            && let Some((held, goes)) = waiting.take()
        {
            let _gone = held.send(());
            let _gone = goes.await;
        }
        let written = async {
            to.write_u32_le(length).await?;
            to.write_all(&body).await
        };
        let Ok(()) = written.await else { return };
    }
}

#[tokio::test]
async fn what_differs_is_sent_and_what_only_the_old_side_had_is_kept_first() {
    let case = Return::new(&[3, 100]).await;
    case.open().await;
    let (source, standby) = tokio::io::duplex(PIPE_BYTES);
    let serving = case.serve(standby);
    let figures = case.resync(source).await.unwrap().expect("a resync was needed");
    let served = serving.await.unwrap().unwrap();
    case.pair.until_synced().await;
    let differing = 2 * CHUNK as u64;
    assert_eq!((figures.compared_bytes, figures.differing_bytes), (VOLUME_BYTES, differing));
    assert_eq!((figures.copied_bytes, figures.kept_bytes, served.replaced_bytes), (differing, differing, differing));
    case.pair.assert_identical();
    // What the old side alone had lies in the kept set, at its own place.
    let sets = case.kept().list().unwrap();
    assert_eq!(sets.len(), 1, "{sets:?}");
    assert_eq!((sets[0].bytes, sets[0].origin.generation), (differing, Generation(1)));
    let data = std::fs::read(sets[0].path.join("data")).unwrap();
    let at = |block: u64| data[usize::try_from(block * BLOCK).unwrap()];
    assert_eq!((at(3), at(100), at(9)), (0xee, 0xee, 0));
    // And it is mirrored from then on.
    case.pair.write_block(4, 0x44).await;
    assert_eq!(case.pair.byte_at(STANDBY, 4), 0x44);
}

#[tokio::test]
async fn what_is_written_after_its_chunk_was_compared_is_sent_in_the_last_round() {
    let case = Return::new(&[3]).await;
    case.open().await;
    // Ready, hashes, settled, ended: at the fourth everything is compared.
    let (source, standby, holds, go) = relay(4);
    let _serving = case.serve(standby);
    let writing = async {
        holds.await.unwrap();
        case.pair.write_block(20, 0x20).await;
        assert_eq!(case.pair.byte_at(STANDBY, 20), 0, "nothing is mirrored yet");
        go.send(()).unwrap();
    };
    let (figures, ()) = tokio::join!(case.resync(source), writing);
    let figures = figures.unwrap().unwrap();
    assert_eq!(figures.copied_bytes - figures.differing_bytes, CHUNK as u64);
    case.pair.until_synced().await;
    assert_eq!(case.pair.byte_at(STANDBY, 20), 0x20);
    case.pair.assert_identical();
}

#[tokio::test]
async fn a_copy_that_is_promoted_meanwhile_is_written_no_more() {
    let case = Return::new(&[3]).await;
    case.open().await;
    let (source, standby, holds, go) = relay(2);
    let serving = case.serve(standby);
    let promoting = async {
        holds.await.unwrap();
        let accepted = AcceptedLoss::Mixture;
        let order = PromoteOrder { epoch: epoch(8), generation: Generation(2), not_before: reign(), accepted };
        case.pair.nbd(STANDBY).promote(&order).await.unwrap();
        go.send(()).unwrap();
    };
    let (resynced, ()) = tokio::join!(case.resync(source), promoting);
    assert!(resynced.is_err(), "{resynced:?}");
    assert!(matches!(serving.await.unwrap(), Err(ResyncError::Refused(_))));
    assert_eq!(case.pair.byte_at(STANDBY, 3), 0xee);
    // The failed attempt left no mirror, and nothing waits.
    let state = case.pair.nbd(SOURCE).mirror_state(PATIENCE).await.unwrap();
    assert_eq!(state, MirrorState::Detached { because: None });
    case.pair.write_block(5, 5).await;
}

#[tokio::test]
async fn without_an_open_export_nobody_is_let_in() {
    let case = Return::new(&[3]).await;
    let (source, standby) = tokio::io::duplex(PIPE_BYTES);
    let serving = case.serve(standby);
    let resynced = case.resync(source).await;
    assert!(matches!(&resynced, Err(ReplicationError::Failed { because }) if because.contains("no export is open")));
    assert!(matches!(serving.await.unwrap(), Err(ResyncError::Refused(_))));
    assert_eq!(case.pair.byte_at(STANDBY, 3), 0xee);
}

#[tokio::test]
async fn a_full_quota_stops_the_resync_before_anything_is_lost() {
    let mut case = Return::new(&[3, 4]).await;
    case.quota = CHUNK as u64;
    case.open().await;
    let (source, standby) = tokio::io::duplex(PIPE_BYTES);
    let serving = case.serve(standby);
    let resynced = case.resync(source).await;
    assert!(matches!(&resynced, Err(ReplicationError::Failed { because }) if because.contains("antipode kept delete")));
    assert!(serving.await.unwrap().is_err());
    assert_eq!((case.pair.byte_at(STANDBY, 3), case.pair.byte_at(STANDBY, 4)), (0xee, 0xee));
}

#[tokio::test]
async fn a_broken_wire_leaves_no_mirror_and_another_attempt_succeeds() {
    let case = Return::new(&[3]).await;
    case.open().await;
    let (source, standby) = tokio::io::duplex(PIPE_BYTES);
    drop(standby);
    let resynced = case.resync(source).await;
    assert!(matches!(resynced, Err(ReplicationError::Unreachable { .. })), "{resynced:?}");
    let (source, standby) = tokio::io::duplex(PIPE_BYTES);
    let _serving = case.serve(standby);
    case.resync(source).await.unwrap().expect("a resync was needed");
    case.pair.until_synced().await;
    case.pair.assert_identical();
    let again = case.pair.nbd(SOURCE);
    let (source, _standby) = tokio::io::duplex(PIPE_BYTES);
    let mut source = source;
    let nothing = again.resync(&case.pair.mirror_for(reign()), &mut source).await.unwrap();
    assert_eq!(nothing, None, "a mirror that follows is left as it is");
    until("it follows", async || {
        matches!(again.mirror_state(PATIENCE).await, Ok(MirrorState::Synced { pending_bytes: 0, .. }))
    })
    .await;
}

/// A copy that became a standby while its door was still open, and what becomes of a comparison with it.
async fn resynced_as_a_standby() -> u8 {
    let case = Return::new(&[3]).await;
    case.open().await;
    case.pair.nbd(STANDBY).mark_standby(reign(), Generation(2)).unwrap();
    let (source, standby) = tokio::io::duplex(PIPE_BYTES);
    let _serving = case.serve(standby);
    let _outcome = case.resync(source).await;
    case.pair.byte_at(STANDBY, 3)
}

#[tokio::test]
async fn a_copy_that_passes_for_whole_is_not_written_chunk_by_chunk() {
    assert_eq!(resynced_as_a_standby().await, 0xee);
}

#[tokio::test]
#[cfg(feature = "mutants")]
async fn a_resync_that_writes_where_it_should_not_is_noticed() {
    {
        let _planted = quorum::mutants::plant("data.replaces_in_a_standby");
        assert_ne!(resynced_as_a_standby().await, 0xee);
    }
    let _planted = quorum::mutants::plant("data.nothing_kept");
    let case = Return::new(&[3]).await;
    case.open().await;
    let (source, standby) = tokio::io::duplex(PIPE_BYTES);
    let _serving = case.serve(standby);
    case.resync(source).await.unwrap();
    assert!(case.kept().list().unwrap().is_empty(), "what only the old side had is gone");
}
