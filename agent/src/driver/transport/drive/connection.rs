//! One connection, as those who use it see it.

use super::endpoint::ToDo;
use super::stream::{RecvStream, SendStream};
use super::waiters::{Waiters, What};
use crate::driver::transport::SendError;
use bytes::Bytes;
use quinn_proto::{
    ConnectionError, ConnectionHandle, ConnectionStats, Dir, Event, SendDatagramError, StreamEvent, StreamId, VarInt,
};
use quorum::moment::Moment;
use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Datagrams that wait until somebody takes them: those that came before the peer was let in. The oldest are dropped.
const UNTAKEN_MAX: usize = 64;

/// Takes the datagrams of a connection, each with the moment at which the kernel had it. Called by the driver: it must not
/// wait, nor use the connection.
pub(in super::super) type Taker = Box<dyn FnMut(Bytes, Moment) + Send>;

/// A handle; clones are the same connection. It is closed when the last one is dropped.
#[derive(Clone)]
pub(in super::super) struct Connection(Arc<Handle>);

struct Handle(Arc<Inner>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.close(VarInt::from_u32(0));
    }
}

/// A connection as the driver keeps it.
pub(super) struct Inner {
    pub(super) handle: ConnectionHandle,
    /// How its timers run out (`pace`).
    pub(super) is_for_beats: bool,
    remote: SocketAddr,
    state: Mutex<State>,
    /// It is on the to-do list.
    pub(super) listed: AtomicBool,
    to_do: Arc<ToDo>,
}

/// What is locked as a whole.
pub(super) struct State {
    pub(super) quic: quinn_proto::Connection,
    error: Option<ConnectionError>,
    is_established: bool,
    waiters: Waiters,
    untaken: VecDeque<(Bytes, Moment)>,
    taker: Option<Taker>,
    /// Woken, and dropped, when this isn't locked any more.
    woken: Vec<Waker>,
    dropped: Option<Taker>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("handle", &self.inner().handle)
            .field("remote", &self.inner().remote)
            .finish()
    }
}

impl Inner {
    pub(super) fn new(
        (handle, quic): (ConnectionHandle, quinn_proto::Connection),
        is_for_beats: bool,
        to_do: Arc<ToDo>,
    ) -> Self {
        let remote = quic.remote_address();
        let state = State {
            quic,
            error: None,
            is_established: false,
            waiters: Waiters::default(),
            untaken: VecDeque::new(),
            taker: None,
            woken: Vec::new(),
            dropped: None,
        };
        Self { handle, is_for_beats, remote, state: Mutex::new(state), listed: AtomicBool::new(false), to_do }
    }

    /// Looks at the connection, or changes it in a way of which the driver needn't know.
    pub(super) fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = look(&mut state);
        let (woken, dropped) = (std::mem::take(&mut state.woken), state.dropped.take());
        drop(state);
        woken.into_iter().for_each(Waker::wake);
        drop(dropped);
        result
    }

    /// Changes it, and has the driver do what follows.
    pub(super) fn change<T>(self: &Arc<Self>, change: impl FnOnce(&mut State) -> T) -> T {
        let result = self.with(change);
        self.to_do.put(self);
        result
    }

    pub(super) fn close(self: &Arc<Self>, code: VarInt) {
        self.change(|state| {
            if !state.quic.is_closed() {
                state.quic.close(Instant::now(), code, Bytes::new());
                state.end(ConnectionError::LocallyClosed);
            }
        });
    }
}

impl State {
    /// Hands on the datagrams of a packet that was just fed in.
    pub(super) fn take_datagrams(&mut self, received: Moment) {
        while let Some(bytes) = self.quic.datagrams().recv() {
            match &mut self.taker {
                Some(taker) => taker(bytes, received),
                None => {
                    if self.untaken.len() == UNTAKEN_MAX {
                        self.untaken.pop_front();
                    }
                    self.untaken.push_back((bytes, received));
                }
            }
        }
    }

    /// Tells those who wait what has come about.
    pub(super) fn tell(&mut self) {
        while let Some(event) = self.quic.poll() {
            match event {
                Event::Connected => {
                    self.is_established = true;
                    self.wake(What::Established);
                }
                Event::ConnectionLost { reason } => self.end(reason),
                Event::Stream(StreamEvent::Opened { dir }) => self.wake(What::Opened(dir)),
                Event::Stream(StreamEvent::Available { dir }) => self.wake(What::Available(dir)),
                Event::Stream(StreamEvent::Readable { id }) => self.wake(What::Readable(id)),
                Event::Stream(StreamEvent::Writable { id }) => self.wake(What::Writable(id)),
                Event::Stream(StreamEvent::Finished { id }) => self.wake(What::Arrived(id)),
                Event::Stream(StreamEvent::Stopped { id, .. }) => {
                    self.wake(What::Writable(id));
                    self.wake(What::Arrived(id));
                }
                // Datagrams are taken with their packet, and never wait for room.
                Event::HandshakeDataReady | Event::DatagramReceived | Event::DatagramsUnblocked => {}
            }
        }
    }

    /// It is over, for the reason given first.
    fn end(&mut self, error: ConnectionError) {
        self.error.get_or_insert(error);
        self.waiters.take_all(&mut self.woken);
        self.dropped = self.taker.take();
    }

    fn wake(&mut self, what: What) {
        self.waiters.take(what, &mut self.woken);
    }

    /// Why nothing more can be done with it.
    pub(super) fn error(&self) -> Option<ConnectionError> {
        self.error.clone()
    }

    /// The user of a stream waits.
    pub(super) fn wait(&mut self, what: What, cx: &Context<'_>) {
        let old = self.waiters.wait(what, 0, cx.waker());
        self.woken.extend(old);
    }

    /// The user of a stream waits no more.
    pub(super) fn leave(&mut self, what: What) {
        let old = self.waiters.leave(what, 0);
        self.woken.extend(old);
    }
}

/// One who waits, until it is dropped.
struct Wait<'a> {
    inner: &'a Arc<Inner>,
    what: What,
    number: Option<u64>,
}

impl Wait<'_> {
    fn poll<T>(&mut self, cx: &Context<'_>, look: impl FnOnce(&mut State) -> Option<T>) -> Poll<T> {
        self.inner.with(|state| {
            if let Some(found) = look(state) {
                return Poll::Ready(found);
            }
            let number = *self.number.get_or_insert_with(|| state.waiters.number());
            let old = state.waiters.wait(self.what, number, cx.waker());
            state.woken.extend(old);
            Poll::Pending
        })
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            drop(self.inner.with(|state| state.waiters.leave(self.what, number)));
        }
    }
}

impl Connection {
    /// How many wait for something of it.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.inner().with(|state| state.waiters.len())
    }

    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self(Arc::new(Handle(inner)))
    }

    pub(super) fn inner(&self) -> &Arc<Inner> {
        &self.0.0
    }

    async fn wait<T>(&self, what: What, mut look: impl FnMut(&mut State) -> Option<T>) -> T {
        let mut wait = Wait { inner: self.inner(), what, number: None };
        poll_fn(|cx| wait.poll(cx, &mut look)).await
    }

    /// Waits for the end of the handshake.
    pub(in super::super) async fn established(&self) -> Result<(), ConnectionError> {
        let look = |state: &mut State| match state.error() {
            Some(error) => Some(Err(error)),
            None => state.is_established.then_some(Ok(())),
        };
        self.wait(What::Established, look).await
    }

    /// Waits for the end, and says why.
    pub(in super::super) async fn closed(&self) -> ConnectionError {
        self.wait(What::Closed, |state| state.error()).await
    }

    /// Why it ended, if it did.
    pub(in super::super) fn close_reason(&self) -> Option<ConnectionError> {
        self.inner().with(|state| state.error())
    }

    /// Ends it. What isn't sent yet never is.
    pub(in super::super) fn close(&self, code: VarInt) {
        self.inner().close(code);
    }

    /// From now on `taker` gets the datagrams, first those that came before; until the end of the connection.
    pub(in super::super) fn take_datagrams(&self, mut taker: Taker) {
        self.inner().with(|state| {
            for (bytes, received) in std::mem::take(&mut state.untaken) {
                taker(bytes, received);
            }
            match state.error {
                Some(_) => state.dropped = Some(taker),
                None => state.taker = Some(taker),
            }
        });
    }

    /// Sends a datagram, in place of the oldest unsent ones if there is no room; answers whether there was.
    ///
    /// # Errors
    /// [`SendError::TooLarge`] and [`SendError::NotConnected`]; nothing is sent.
    pub(in super::super) fn send_datagram(&self, bytes: Bytes) -> Result<bool, SendError> {
        self.inner().change(|state| {
            if state.error.is_some() {
                return Err(SendError::NotConnected);
            }
            let mut datagrams = state.quic.datagrams();
            let had_room = datagrams.send_buffer_space() >= bytes.len();
            match datagrams.send(bytes, true) {
                Ok(()) => Ok(had_room),
                Err(SendDatagramError::TooLarge) => Err(SendError::TooLarge),
                // Room is made; the peer wants none.
                Err(
                    SendDatagramError::Blocked(_) | SendDatagramError::UnsupportedByPeer | SendDatagramError::Disabled,
                ) => Err(SendError::NotConnected),
            }
        })
    }

    pub(in super::super) fn max_datagram_size(&self) -> Option<usize> {
        self.inner().with(|state| state.quic.datagrams().max_size())
    }

    pub(in super::super) fn rtt(&self) -> Duration {
        self.inner().with(|state| state.quic.rtt())
    }

    pub(in super::super) fn stats(&self) -> ConnectionStats {
        self.inner().with(|state| state.quic.stats())
    }

    pub(in super::super) fn remote_address(&self) -> SocketAddr {
        self.inner().remote
    }

    /// The peer's certificates, as rustls has them.
    pub(in super::super) fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.inner().with(|state| state.quic.crypto_session().peer_identity())
    }

    /// What the handshake agreed upon.
    pub(in super::super) fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.inner().with(|state| state.quic.crypto_session().handshake_data())
    }

    /// Waits until the peer takes one more stream.
    async fn open(&self, dir: Dir) -> Result<StreamId, ConnectionError> {
        self.wait(What::Available(dir), |state| match state.error() {
            Some(error) => Some(Err(error)),
            None => state.quic.streams().open(dir).map(Ok),
        })
        .await
    }

    async fn accept(&self, dir: Dir) -> Result<StreamId, ConnectionError> {
        let accepted = self
            .wait(What::Opened(dir), |state| match state.quic.streams().accept(dir) {
                Some(id) => Some(Ok(id)),
                None => state.error().map(Err),
            })
            .await;
        // The peer may open another one in its place, and is told so.
        self.inner().change(|_| ());
        accepted
    }

    pub(in super::super) async fn open_uni(&self) -> Result<SendStream, ConnectionError> {
        Ok(SendStream::new(self.clone(), self.open(Dir::Uni).await?))
    }

    pub(in super::super) async fn open_bi(&self) -> Result<(SendStream, RecvStream), ConnectionError> {
        let id = self.open(Dir::Bi).await?;
        Ok((SendStream::new(self.clone(), id), RecvStream::new(self.clone(), id)))
    }

    pub(in super::super) async fn accept_uni(&self) -> Result<RecvStream, ConnectionError> {
        Ok(RecvStream::new(self.clone(), self.accept(Dir::Uni).await?))
    }

    pub(in super::super) async fn accept_bi(&self) -> Result<(SendStream, RecvStream), ConnectionError> {
        let id = self.accept(Dir::Bi).await?;
        Ok((SendStream::new(self.clone(), id), RecvStream::new(self.clone(), id)))
    }
}
