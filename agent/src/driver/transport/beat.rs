//! One connection for beats: hands datagrams to the engine with the moment of their arrival. Messages ride along (`ride`).
//!
//! The engine may be slow; beats then wait here, a bounded number of them, and the oldest are dropped and counted: the
//! newest beat says all that an older one said.

use super::TransportEvent;
use super::event::{CloseCode, Ended, Path};
use super::messages::Messages;
use super::remote::Remote;
use super::ride;
use super::shared::Shared;
use super::slot::Live;
use super::stats::Counted;
use bytes::Bytes;
use quinn_proto::ConnectionError;
use quorum::moment::Moment;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio::sync::mpsc::error::TrySendError;

/// Runs until the connection ends, then clears its place.
pub(super) async fn run(shared: Arc<Shared>, remote: Arc<Remote>, live: Arc<Live>) {
    remote.count(live.path, Counted::ConnectionsUp);
    judge_again_if_changed(&shared, &live);
    remote.note_whether_messages_ride(live.carries_messages);
    shared.tell_up(&remote, &live).await;
    let (held, more) = (Mutex::default(), Notify::new());
    let beats = Beats { shared: Arc::clone(&shared), remote: Arc::clone(&remote), path: live.path, held, more };
    let beats = Arc::new(beats);
    let taker = Arc::clone(&beats);
    live.connection.take_datagrams(Box::new(move |bytes, received| taker.take(bytes, received)));
    let messages = Messages { shared: &shared, remote: &remote, path: live.path };
    let error = tokio::select! {
        biased;
        error = live.connection.closed() => error,
        () = beats.pass_on() => {
            live.close(CloseCode::Shutdown);
            ConnectionError::LocallyClosed
        }
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

/// Takes the datagrams of one connection, for as long as that lasts.
struct Beats {
    shared: Arc<Shared>,
    remote: Arc<Remote>,
    path: Path,
    held: Mutex<VecDeque<TransportEvent>>,
    more: Notify,
}

impl Beats {
    fn held(&self) -> MutexGuard<'_, VecDeque<TransportEvent>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes a datagram on, or holds it while the engine takes nothing more. Never waits.
    fn take(&self, bytes: Bytes, received: Moment) {
        let Self { shared, remote, path, .. } = self;
        if let Some(to) = remote.path(*path) {
            to.heard.note(received);
        }
        let event = TransportEvent::Datagram { from: remote.peer.host.clone(), path: *path, bytes, received };
        let mut held = self.held();
        let event = if held.is_empty() {
            match shared.events.try_send(event) {
                Ok(()) => return remote.count(*path, Counted::DatagramsReceived),
                Err(TrySendError::Full(event) | TrySendError::Closed(event)) => event,
            }
        } else {
            event
        };
        if held.len() >= shared.config.limits.datagrams_held_max.max(1) {
            held.pop_front();
            remote.count(*path, Counted::DatagramsDroppedReceiving);
        }
        held.push_back(event);
        self.more.notify_one();
    }

    /// Passes on what is held as the engine takes it, until the engine is gone, and the agent with it.
    async fn pass_on(&self) {
        loop {
            while !self.held().is_empty() {
                let Ok(permit) = self.shared.events.reserve().await else { return };
                if let Some(event) = self.held().pop_front() {
                    permit.send(event);
                    self.remote.count(self.path, Counted::DatagramsReceived);
                }
            }
            self.more.notified().await;
        }
    }
}
