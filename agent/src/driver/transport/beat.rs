//! One connection for beats: hands datagrams to the engine with the moment of their arrival. Messages ride along (`ride`).
//!
//! The engine may be slow; beats then wait here, a bounded number of them, and the oldest are dropped and counted: the
//! newest beat says all that an older one said.

use super::TransportEvent;
use super::event::{CloseCode, Ended};
use super::messages::Messages;
use super::remote::Remote;
use super::ride;
use super::shared::Shared;
use super::slot::Live;
use super::stats::Counted;
use crate::driver::clock;
use bytes::Bytes;
use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tokio::sync::mpsc::error::TrySendError;

/// Runs until the connection ends, then clears its place.
pub(super) async fn run(shared: Arc<Shared>, remote: Arc<Remote>, live: Arc<Live>) {
    remote.count(live.path, Counted::ConnectionsUp);
    judge_again_if_changed(&shared, &live);
    remote.note_whether_messages_ride(live.carries_messages);
    shared.tell_up(&remote, &live).await;
    let messages = Messages { shared: &shared, remote: &remote, path: live.path };
    let error = tokio::select! {
        biased;
        error = read(&shared, &remote, &live) => error,
        never = ride::run(messages, &live) => match never {},
    };
    remote.count(live.path, Counted::ConnectionsDown);
    if let Some(to) = remote.path(live.path)
        && to.beats.clear(&live)
    {
        shared.tell_down(&remote, live.path, Ended::from_error(&error, live.closed_as())).await;
    }
}

/// A certificate may have been revoked between the handshake and the taking of the place: then neither the handshake
/// nor the walk over all live connections has seen it.
pub(super) fn judge_again_if_changed(shared: &Shared, live: &Live) {
    let trust = shared.trust();
    if trust.generation != live.judged.generation && trust.judge_again(&live.connection).is_err() {
        live.close(CloseCode::Distrusted);
    }
}

async fn read(shared: &Shared, remote: &Remote, live: &Live) -> quinn::ConnectionError {
    let mut held: VecDeque<TransportEvent> = VecDeque::new();
    loop {
        tokio::select! {
            biased;
            permit = shared.events.reserve(), if !held.is_empty() => {
                let Ok(permit) = permit else {
                    // The engine is gone, and the agent with it.
                    live.close(CloseCode::Shutdown);
                    return quinn::ConnectionError::LocallyClosed;
                };
                if let Some(event) = held.pop_front() {
                    permit.send(event);
                    remote.count(live.path, Counted::DatagramsReceived);
                }
            }
            datagram = live.connection.read_datagram() => match datagram {
                Ok(first) => take_in(first, &mut held, (shared, remote, live)),
                Err(error) => return error,
            },
        }
    }
}

/// Takes this datagram and all others that are there, stamps them, and passes on or holds them.
fn take_in(first: Bytes, held: &mut VecDeque<TransportEvent>, (shared, remote, live): (&Shared, &Remote, &Live)) {
    let mut datagrams = vec![first];
    while let Some(next) = ready_now(&live.connection) {
        datagrams.push(next);
    }
    let read_at = clock::now();
    let lengths: Vec<usize> = datagrams.iter().map(Bytes::len).collect();
    let moments = match &live.arrivals {
        Some(followed) => followed.take(&lengths, read_at),
        None => vec![read_at; lengths.len()],
    };
    for (bytes, received) in datagrams.into_iter().zip(moments) {
        if let Some(to) = remote.path(live.path) {
            to.heard.note(received);
        }
        let event = TransportEvent::Datagram { from: remote.peer.host.clone(), path: live.path, bytes, received };
        hold_or_send(event, held, (shared, remote, live));
    }
}

fn hold_or_send(
    event: TransportEvent,
    held: &mut VecDeque<TransportEvent>,
    (shared, remote, live): (&Shared, &Remote, &Live),
) {
    let event = if held.is_empty() {
        match shared.events.try_send(event) {
            Ok(()) => return remote.count(live.path, Counted::DatagramsReceived),
            Err(TrySendError::Full(event) | TrySendError::Closed(event)) => event,
        }
    } else {
        event
    };
    if held.len() >= shared.config.limits.datagrams_held_max.max(1) {
        held.pop_front();
        remote.count(live.path, Counted::DatagramsDroppedReceiving);
    }
    held.push_back(event);
}

/// The next datagram, if one is there already.
fn ready_now(connection: &quinn::Connection) -> Option<Bytes> {
    let waiting = std::pin::pin!(connection.read_datagram());
    match waiting.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(datagram)) => Some(datagram),
        Poll::Ready(Err(_)) | Poll::Pending => None,
    }
}
