//! Setting up connections from this end: for beats on each path as long as the transport runs, for bulk on demand.

use super::backoff::Backoff;
use super::beat;
use super::bulk;
use super::drive::{Connection, RecvStream};
use super::event::{CloseCode, Path, Refusal, Side};
use super::frame::STREAM_VERSION;
use super::quic::{Kind, SERVER_NAME};
use super::remote::Remote;
use super::shared::{Failure, Shared};
use super::silence::{Silence, Traffic};
use super::slot::{Live, Slot};
use super::stats::Counted;
use super::tls::{self, Judged};
use crate::driver::clock;
use ring::rand::{SecureRandom, SystemRandom};
use std::sync::Arc;
use std::time::Duration;

/// A connection that held for so long was a good one: the next attempt starts without delay again.
const GOOD_AFTER: Duration = Duration::from_secs(5);

/// How often a connection that is up is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Keeps one path's connection for beats up.
pub(super) async fn keep_beats(shared: Arc<Shared>, remote: Arc<Remote>, path: Path) {
    let Some(to) = remote.path(path) else { return };
    let mut backoff = Backoff::default();
    loop {
        if wait_until_needed(&shared, &to.beats).await >= GOOD_AFTER {
            backoff.reset();
        }
        if let Some((live, _welcome)) = dial(&shared, &remote, path, Kind::Beat).await
            && to.beats.install(&live, shared.us(), &remote.peer.host)
        {
            tokio::spawn(beat::run(Arc::clone(&shared), Arc::clone(&remote), live));
        }
        tokio::time::sleep(backoff.next(random())).await;
    }
}

/// Waits until the place is empty, or who holds it has been silent, in spite of being spoken to, for as long as it may.
/// Answers for how long a connection was up.
async fn wait_until_needed(shared: &Shared, slot: &Slot) -> Duration {
    let silence_max = shared.config.limits.beat_silence_redial;
    let mut changes = slot.subscribe();
    let Some(live) = changes.borrow_and_update().clone() else { return Duration::ZERO };
    let mut silence = Silence::new(clock::now(), Traffic::of(&live.connection));
    loop {
        tokio::select! {
            biased;
            changed = changes.changed() => {
                // The place outlives this task's interest in it; an error can't happen and would mean the end.
                if changed.is_err() || changes.borrow_and_update().is_none() {
                    return clock::now().held_since(live.judged.at);
                }
                // Somebody else holds the place now: start over with that one.
                return Box::pin(wait_until_needed(shared, slot)).await;
            }
            () = shared.pace.sleep(LOOK_EVERY) => {
                let silent = silence.look(clock::now(), Traffic::of(&live.connection), LOOK_EVERY);
                if silent >= silence_max {
                    // Set up another one beside it. The old one stays until then: it may come back first.
                    return Duration::ZERO;
                }
            }
        }
    }
}

/// Sets up the bulk connection whenever somebody wants one.
pub(super) async fn keep_bulk(shared: Arc<Shared>, remote: Arc<Remote>) {
    let mut backoff = Backoff::default();
    let (mut turn, mut up_since) = (0, None);
    loop {
        wait_until_wanted(&remote).await;
        if up_since.take().is_some_and(|since| clock::now().held_since(since) >= GOOD_AFTER) {
            backoff.reset();
        }
        let Some(path) = remote.bulk_path(turn) else { return };
        turn += 1;
        if let Some((live, welcome)) = dial(&shared, &remote, path, Kind::Bulk).await
            && remote.bulk.install(&live, shared.us(), &remote.peer.host)
        {
            (turn, up_since) = (0, Some(live.judged.at));
            tokio::spawn(bulk::run(Arc::clone(&shared), Arc::clone(&remote), live, bulk::Opened::ByUs(welcome)));
        }
        // Also after success: a connection that ends at once must not be set up again at once for ever.
        tokio::time::sleep(backoff.next(random())).await;
    }
}

async fn wait_until_wanted(remote: &Remote) {
    let mut changes = remote.bulk.subscribe();
    loop {
        let empty = changes.borrow_and_update().is_none();
        if empty && remote.wants_bulk(clock::now()) {
            return;
        }
        tokio::select! {
            biased;
            _ = changes.changed() => {}
            () = remote.demand.notified(), if empty => {}
        }
    }
}

/// One attempt. The peer's identity is checked, and the peer has accepted ours: it sent its welcome.
async fn dial(shared: &Arc<Shared>, remote: &Remote, path: Path, kind: Kind) -> Option<(Arc<Live>, RecvStream)> {
    let address = remote.path(path)?.address;
    remote.count(path, Counted::Dials);
    let attempt = tokio::time::timeout(shared.config.limits.dial_max, attempt(shared, remote, path, kind));
    match attempt.await.unwrap_or(Err(Failure::Unanswered)) {
        Ok(dialled) => Some(dialled),
        Err(Failure::Refused(because, by)) => {
            shared.refused(Some(remote), (address, path), (because, by));
            None
        }
        Err(Failure::Unanswered) => {
            remote.count(path, Counted::DialsUnanswered);
            None
        }
    }
}

async fn attempt(
    shared: &Arc<Shared>,
    remote: &Remote,
    path: Path,
    kind: Kind,
) -> Result<(Arc<Live>, RecvStream), Failure> {
    let end = shared.ends.get(path.index()).ok_or(Failure::Unanswered)?;
    let address = remote.path(path).ok_or(Failure::Unanswered)?.address;
    let trust = shared.trust();
    let connection = end.endpoint.connect(trust.client(kind), (address, SERVER_NAME), kind == Kind::Beat);
    let connection = connection.map_err(|_| Failure::Unanswered)?;
    connection.established().await.map_err(|e| Failure::of(&e))?;
    let refuse = |code: CloseCode| {
        connection.close(code.var_int());
        Failure::Refused(code.as_refusal().unwrap_or(Refusal::Protocol), Side::Us)
    };
    let host = tls::identify(&connection, &shared.config.cluster).map_err(refuse)?;
    if host != remote.peer.host {
        return Err(refuse(CloseCode::WrongName));
    }
    let welcome = read_welcome(&connection).await?;
    let judged = Judged { generation: trust.generation, at: clock::now() };
    Ok((Arc::new(Live::new(connection, path, true, judged)), welcome))
}

/// Waits for the peer to say that it has accepted this host: only then is a connection up.
async fn read_welcome(connection: &Connection) -> Result<RecvStream, Failure> {
    let mut stream = connection.accept_uni().await.map_err(|e| Failure::of(&e))?;
    let mut version = [0];
    match stream.read_exact(&mut version).await {
        Ok(()) if version == [STREAM_VERSION] => Ok(stream),
        Ok(()) => Err(Failure::Refused(Refusal::Protocol, Side::Us)),
        Err(_) => Err(connection.close_reason().map_or(Failure::Unanswered, |e| Failure::of(&e))),
    }
}

fn random() -> u32 {
    let mut bytes = [0; 4];
    // Without randomness all waits are the shortest ones, which is harmless.
    let _ = SystemRandom::new().fill(&mut bytes);
    u32::from_le_bytes(bytes)
}
