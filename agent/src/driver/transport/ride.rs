//! Messages between a voter and a host without a vote: they ride on the connection for beats.
//!
//! A voter has a thousand such hosts, and what they say to each other is little and seldom. A second connection to each
//! would cost a handshake when all come at once, and memory for as long as it lasts.
//!
//! Beats aren't held up: QUIC puts datagrams into a packet before streams, and no more than
//! [`RIDING_BYTES_MAX`](super::quic::RIDING_BYTES_MAX) of a stream are on their way. What needs the breadth of the path (a
//! mirror, a resync) goes over streams of the bulk connection, and so does what two voters say to each other.
//!
//! Each end opens a stream when it has something to say, one at a time, and ends it after a while of silence: an idle
//! connection keeps nothing for it. Of several paths one sends; once it is silent while the peer is heard on another one, that
//! one goes on, and what was half sent is lost: whoever needs more sends again. The bulk connection helps out when there is
//! so much to say, or the path is so long, that it takes long.

use super::drive::{SendStream, WriteError};
use super::event::CloseCode;
use super::frame::{Decoder, STREAM_VERSION};
use super::messages::Messages;
use super::outbox::Turn;
use super::slot::Live;
use crate::driver::clock;
use std::convert::Infallible;
use std::time::{Duration, Instant};

/// How often it is looked whether the peer is heard on another path only.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// A stream on which nothing was said for so long is ended.
const SILENT_MAX: Duration = Duration::from_secs(2);

/// When there was something to say all the while for so long, the bulk connection is set up to go on. What waits is dropped
/// when it is old ([`Limits::message_age_max`](super::Limits)): it has to get through before.
const BUSY_MAX: Duration = Duration::from_secs(3);

/// How sending on a stream ended.
#[derive(Debug)]
enum Sent {
    /// There was nothing more to say, or the peer didn't want it.
    All,
    /// Another path, or the bulk connection, is the better one.
    Elsewhere,
    /// The connection has ended.
    Lost,
}

/// Messages both ways for as long as the connection lasts, which whoever runs it knows.
pub(super) async fn run(messages: Messages<'_>, live: &Live) -> Infallible {
    if !live.carries_messages {
        return std::future::pending().await;
    }
    tokio::select! {
        biased;
        never = send(messages, live) => never,
        never = receive(messages, live) => never,
    }
}

async fn receive(messages: Messages<'_>, live: &Live) -> Infallible {
    while let Ok(stream) = live.connection.accept_uni().await {
        if Box::pin(messages.receive(stream, Decoder::default(), || ())).await == CloseCode::Malformed {
            live.close(CloseCode::Malformed);
        }
    }
    std::future::pending().await
}

async fn send(messages: Messages<'_>, live: &Live) -> Infallible {
    if messages.remote.rides() {
        loop {
            let turn = messages.remote.outbox.turn().await;
            turn.filled().await;
            let sent =
                if is_elsewhere(messages) { Sent::Elsewhere } else { Box::pin(empty(messages, live, &turn)).await };
            drop(turn);
            match sent {
                Sent::All => {}
                // Meanwhile the other one has its turn.
                Sent::Elsewhere => tokio::time::sleep(LOOK_EVERY).await,
                Sent::Lost => break,
            }
        }
    }
    std::future::pending().await
}

/// Sends what waits and what comes until nothing came for a while.
async fn empty(messages: Messages<'_>, live: &Live, turn: &Turn<'_>) -> Sent {
    let all = async {
        let mut stream = Unfinished(Some(live.connection.open_uni().await?));
        stream.get().write_all(&[STREAM_VERSION]).await?;
        loop {
            let busy_since = clock::now();
            while let Some(message) = turn.take() {
                messages.write(stream.get(), message).await?;
                let is_long = clock::now().held_since(busy_since) >= BUSY_MAX;
                if is_long && !turn.is_empty() && messages.remote.has_bulk_or_wants_it() {
                    stream.finish_and_arrive().await;
                    return Ok(Sent::Elsewhere);
                }
            }
            let until = messages.shared.pace.moment(Instant::now() + SILENT_MAX);
            if tokio::time::timeout_at(until.into(), turn.filled()).await.is_err() {
                stream.finish();
                return Ok(Sent::All);
            }
        }
    };
    let sent: Result<Sent, WriteError> = tokio::select! {
        biased;
        sent = all => sent,
        () = heard_elsewhere(messages) => return Sent::Elsewhere,
    };
    match sent {
        Ok(sent) => sent,
        Err(WriteError::Stopped) => Sent::All,
        Err(_) => Sent::Lost,
    }
}

/// Ready as soon as the peer is heard on another path only.
async fn heard_elsewhere(messages: Messages<'_>) {
    if messages.remote.paths.len() < 2 {
        return std::future::pending().await;
    }
    while !is_elsewhere(messages) {
        messages.shared.pace.sleep(LOOK_EVERY).await;
    }
}

fn is_elsewhere(messages: Messages<'_>) -> bool {
    let silence = messages.shared.config.limits.bulk_stall_max_beside_live_path;
    messages.remote.is_heard_elsewhere_only(messages.path, clock::now(), silence)
}

/// A stream that is broken off when it is dropped: what is half said must not look like an end.
struct Unfinished(Option<SendStream>);

impl Unfinished {
    fn get(&mut self) -> &mut SendStream {
        self.0.as_mut().expect("taken out only as it ends")
    }

    fn finish(mut self) {
        if let Some(mut stream) = self.0.take() {
            stream.finish();
        }
    }

    /// The same, and waits until the peer has all of it, so that what another connection carries doesn't overtake it.
    async fn finish_and_arrive(mut self) {
        self.get().finish();
        self.get().arrived().await;
        self.0 = None;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(stream) = &mut self.0 {
            stream.reset();
        }
    }
}
