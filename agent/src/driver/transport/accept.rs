//! Connections set up from the other end: admitted, identified, given their place.

use super::admission::{Admission, Verdict};
use super::beat;
use super::bulk;
use super::drive::{Attempt, Connection, SendStream, WriteError};
use super::event::{CloseCode, Path, Refusal, Side};
use super::frame::STREAM_VERSION;
use super::quic::Kind;
use super::remote::Remote;
use super::shared::{Failure, Shared};
use super::slot::{Live, Slot};
use super::stats::Counted;
use super::tls::{self, Judged};
use crate::driver::clock;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A handshake that runs; counted from its beginning to its end, however it ends.
struct Running(Arc<AtomicUsize>);

impl Running {
    fn begin(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(count))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Takes connection attempts on one path for as long as its endpoint lives.
pub(super) async fn take_attempts(shared: Arc<Shared>, path: Path) {
    let Some(endpoint) = shared.ends.get(path.index()).map(|end| end.endpoint.clone()) else { return };
    let mut admission = Admission::new(shared.config.limits.admission, clock::now());
    let running = Arc::new(AtomicUsize::new(0));
    while let Some(attempt) = endpoint.attempt().await {
        let address = attempt.remote_address();
        let Some(kind) = Kind::of_first_id(&attempt.first_id()) else {
            shared.refused(None, (address, path), (Refusal::Protocol, Side::Us));
            continue;
        };
        let proven = attempt.is_address_proven();
        match admission.judge(clock::now(), address.ip(), proven, running.load(Ordering::Acquire)) {
            Verdict::Ignore => shared.count_stranger(path, Counted::AttemptsIgnored),
            Verdict::Retry => {
                attempt.retry();
                shared.count_stranger(path, Counted::AttemptsRetried);
            }
            Verdict::Accept => begin(&shared, (path, kind), attempt, Running::begin(&running)),
        }
    }
}

fn begin(shared: &Arc<Shared>, (path, kind): (Path, Kind), attempt: Attempt, running: Running) {
    let address = attempt.remote_address();
    let trust = shared.trust();
    let connection = attempt.accept(trust.server(kind), kind == Kind::Beat);
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let limit = shared.config.limits.handshake_max;
        let handshake = async {
            let connection = connection.map_err(|e| Failure::of(&e))?;
            connection.established().await.map_err(|e| Failure::of(&e))?;
            Ok(connection)
        };
        let done = Box::pin(tokio::time::timeout(limit, handshake)).await;
        drop(running);
        let failure = match done {
            Ok(Ok(connection)) => {
                let judged = Judged { generation: trust.generation, at: clock::now() };
                admit(&shared, (path, kind), connection, judged).await;
                return;
            }
            Ok(Err(Failure::Refused(because, by))) => (because, by),
            // The other end went away, or took too long: the same to us.
            Ok(Err(Failure::Unanswered)) | Err(_) => (Refusal::TooSlow, Side::Us),
        };
        shared.refused(shared.remote_at(address).as_deref(), (address, path), failure);
    });
}

/// The certificate is verified; now it must be that of a peer, at an address of that peer.
async fn admit(shared: &Arc<Shared>, (path, kind): (Path, Kind), connection: Connection, judged: Judged) {
    let address = connection.remote_address();
    let remote = match who(shared, &connection, path) {
        Ok(remote) => remote,
        Err(code) => {
            connection.close(code.var_int());
            let because = code.as_refusal().unwrap_or(Refusal::Protocol);
            shared.refused(shared.remote_at(address).as_deref(), (address, path), (because, Side::Us));
            return;
        }
    };
    let live = Arc::new(Live::new(connection, path, false, judged));
    if !slot(&remote, path, kind).install(&live, shared.us(), &remote.peer.host) {
        shared.refused(Some(&remote), (address, path), (Refusal::Duplicate, Side::Us));
        return;
    }
    match kind {
        Kind::Beat => {
            // If it can't be sent the connection has ended, which `run` will find.
            let _ = welcome(&live.connection).await;
            beat::run(Arc::clone(shared), remote, live).await;
        }
        Kind::Bulk => {
            let stream = welcome(&live.connection).await;
            // In a place of its own: it needs several times what beats do, and each connection's task has room for either.
            Box::pin(bulk::run(Arc::clone(shared), remote, live, bulk::Opened::ByThem(stream.ok()))).await;
        }
    }
}

fn who(shared: &Shared, connection: &Connection, path: Path) -> Result<Arc<Remote>, CloseCode> {
    let host = tls::identify(connection, &shared.config.cluster)?;
    let remote = shared.remote(&host).ok_or(CloseCode::WrongName)?;
    let address: SocketAddr = connection.remote_address();
    let expected = remote.path(path).is_some() && remote.has_address(address.ip());
    expected.then_some(remote).ok_or(CloseCode::WrongAddress)
}

fn slot(remote: &Remote, path: Path, kind: Kind) -> &Slot {
    match remote.path(path) {
        Some(to) if kind == Kind::Beat => &to.beats,
        _ => &remote.bulk,
    }
}

/// Tells the other end that it is accepted. For bulk the messages follow on the same stream.
async fn welcome(connection: &Connection) -> Result<SendStream, WriteError> {
    let mut stream = connection.open_uni().await?;
    stream.write_all(&[STREAM_VERSION]).await?;
    Ok(stream)
}
