//! One bulk connection: messages in both directions, streams on demand, and the look-out for a dead path.
//!
//! Each end opens one stream for the messages that it sends (`messages`). A message that was being written when the
//! connection ended may be lost: whoever needs more sends again (Raft does).

use super::TransportEvent;
use super::drive::{RecvStream, SendStream};
use super::event::CloseCode;
use super::frame::{Decoder, STREAM_VERSION};
use super::messages::Messages;
use super::remote::Remote;
use super::shared::Shared;
use super::silence::{Silence, Traffic};
use super::slot::Live;
use super::stats::Counted;
use super::stream::BiStream;
use crate::driver::clock;
use bytes::Bytes;
use quorum::moment::Moment;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How often the look-out looks.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// How long a peer may take to say what a stream is for.
const KIND_MAX: Duration = Duration::from_secs(3);

/// Who set the connection up, and the stream that did it.
pub(super) enum Opened {
    /// This host; the stream is the peer's, its version byte read.
    ByUs(RecvStream),
    /// The peer; the stream is ours, its version byte written. `None` if that failed: the connection has ended.
    ByThem(Option<SendStream>),
}

/// When the connection was last used.
#[derive(Debug)]
struct Used(AtomicU64);

impl Used {
    fn now(&self) {
        self.0.store(clock::now().boot_ns, Ordering::Relaxed);
    }

    fn ago(&self, now: Moment) -> Duration {
        Duration::from_nanos(now.boot_ns.saturating_sub(self.0.load(Ordering::Relaxed)))
    }
}

/// Everything that the parts of one bulk connection need.
struct Bulk {
    shared: Arc<Shared>,
    remote: Arc<Remote>,
    live: Arc<Live>,
    used: Used,
}

/// Runs until the connection ends or is given up, then clears its place.
pub(super) async fn run(shared: Arc<Shared>, remote: Arc<Remote>, live: Arc<Live>, opened: Opened) {
    remote.count(live.path, Counted::ConnectionsUp);
    super::beat::judge_again_if_changed(&shared, &live);
    let bulk = Bulk { shared, remote, live, used: Used(AtomicU64::new(clock::now().boot_ns)) };
    let (peer, path) = (&bulk.remote.peer.host, bulk.live.path);
    tracing::info!(%peer, %path, state = "up", because = "handshake", "bulk changed");
    let code = tokio::select! {
        biased;
        _ = bulk.live.connection.closed() => CloseCode::Shutdown,
        code = bulk.messages(opened) => code,
        code = bulk.streams() => code,
        code = bulk.look_out() => code,
    };
    bulk.live.close(code);
    tracing::info!(%peer, %path, state = "down", because = ?bulk.live.connection.close_reason(), "bulk changed");
    bulk.remote.count(path, Counted::ConnectionsDown);
    bulk.remote.bulk.clear(&bulk.live);
}

impl Bulk {
    fn carried(&self) -> Messages<'_> {
        Messages { shared: &self.shared, remote: &self.remote, path: self.live.path }
    }

    /// Messages both ways, until one of the ways breaks.
    async fn messages(&self, opened: Opened) -> CloseCode {
        let (connection, carried) = (&self.live.connection, self.carried());
        let mut decoder = Decoder::default();
        let (sending, receiving) = match opened {
            Opened::ByUs(receiving) => {
                // The version byte was read as the welcome.
                let _ = decoder.feed(&mut Bytes::from_static(&[STREAM_VERSION]));
                (self.open().await, Some(receiving))
            }
            Opened::ByThem(sending) => (sending, connection.accept_uni().await.ok()),
        };
        match (sending, receiving) {
            (Some(sending), Some(receiving)) => tokio::select! {
                code = self.send(sending) => code,
                code = carried.receive(receiving, decoder, || self.used.now()) => code,
            },
            _ => CloseCode::Malformed,
        }
    }

    async fn open(&self) -> Option<SendStream> {
        let mut stream = self.live.connection.open_uni().await.ok()?;
        stream.write_all(&[STREAM_VERSION]).await.ok()?;
        Some(stream)
    }

    async fn send(&self, mut stream: SendStream) -> CloseCode {
        // Only one connection drains the queue; one that was put out of its place lets go of it as it ends.
        let outbox = self.remote.outbox.turn().await;
        loop {
            let message = outbox.next().await;
            self.used.now();
            if self.carried().write(&mut stream, message).await.is_err() {
                return CloseCode::Shutdown;
            }
        }
    }

    /// Hands streams that the peer opens to the engine. Their number is bounded by QUIC.
    async fn streams(&self) -> CloseCode {
        let mut starting = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                biased;
                Some(_) = starting.join_next(), if !starting.is_empty() => {}
                stream = self.live.connection.accept_bi() => match stream {
                    Ok(stream) => {
                        self.used.now();
                        let (shared, remote) = (Arc::clone(&self.shared), Arc::clone(&self.remote));
                        starting.spawn(hand_over(shared, remote, Arc::clone(&self.live), stream));
                    }
                    Err(_) => return CloseCode::Shutdown,
                },
            }
        }
    }

    /// Gives the connection up when nothing comes back on it, or nobody wants it.
    async fn look_out(&self) -> CloseCode {
        let limits = &self.shared.config.limits;
        let connection = &self.live.connection;
        let mut silence = Silence::new(clock::now(), Traffic::of(connection));
        loop {
            self.shared.pace.sleep(LOOK_EVERY).await;
            let now = clock::now();
            let silent = silence.look(now, Traffic::of(connection), LOOK_EVERY);
            let elsewhere = limits.bulk_stall_max_beside_live_path;
            let moved = silent >= elsewhere && self.remote.is_heard_elsewhere_only(self.live.path, now, elsewhere);
            if silent >= limits.bulk_stall_max || moved {
                self.remote.count(self.live.path, Counted::BulkStalled);
                return CloseCode::Stalled;
            }
            // One count is this connection's own; the others are streams and those who are about to open one.
            let in_use = Arc::strong_count(&self.live.in_use) > 1;
            if !in_use && self.used.ago(now) >= limits.bulk_unused_max {
                return CloseCode::Unused;
            }
        }
    }
}

/// Reads what a stream is for and passes it on.
async fn hand_over(shared: Arc<Shared>, remote: Arc<Remote>, live: Arc<Live>, stream: (SendStream, RecvStream)) {
    let in_use = [Arc::clone(&live.in_use), shared.pace.stream()];
    let mut stream = BiStream::new(remote.peer.host.clone(), stream, in_use);
    let mut kind = [0];
    let read = tokio::time::timeout(KIND_MAX, stream.parts().1.read_exact(&mut kind)).await;
    if !matches!(read, Ok(Ok(()))) {
        remote.count(live.path, Counted::FramesMalformed);
        return;
    }
    let from = remote.peer.host.clone();
    if shared.events.send(TransportEvent::Stream { from, kind: kind[0], stream }).await.is_ok() {
        remote.count(live.path, Counted::StreamsAccepted);
    }
}
