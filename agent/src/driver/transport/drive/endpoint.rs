//! One UDP socket with all its connections: calling, being called, ending.

use super::connection::{Connection, Inner};
use super::driver::Driver;
use crate::driver::transport::pace::Pace;
use crate::driver::transport::socket::StampedSocket;
use quinn_proto::{
    ClientConfig, ConnectError, ConnectionError, ConnectionHandle, ConnectionId, EndpointConfig, Incoming,
    ServerConfig, Transmit, VarInt,
};
use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Instant;
use tokio::sync::Notify;

/// Connections with which something is to be done, each once.
#[derive(Default)]
pub(super) struct ToDo(Mutex<Listed>);

#[derive(Default)]
struct Listed {
    connections: VecDeque<Arc<Inner>>,
    /// The driver, while it waits.
    driver: Option<Waker>,
    /// There is no driver any more.
    is_over: bool,
}

impl ToDo {
    fn listed(&self) -> MutexGuard<'_, Listed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn put(&self, connection: &Arc<Inner>) {
        if !connection.listed.swap(true, Ordering::AcqRel) {
            let mut listed = self.listed();
            if listed.is_over {
                return;
            }
            listed.connections.push_back(Arc::clone(connection));
            let driver = listed.driver.take();
            drop(listed);
            driver.into_iter().for_each(Waker::wake);
        }
    }

    /// What is changed from now on puts it on the list again.
    pub(super) fn next(&self) -> Option<Arc<Inner>> {
        let next = self.listed().connections.pop_front()?;
        next.listed.store(false, Ordering::Release);
        Some(next)
    }

    /// The driver runs, and needn't be woken. How many connections there are to look at.
    pub(super) fn begin(&self) -> usize {
        let mut listed = self.listed();
        listed.driver = None;
        listed.connections.len()
    }

    /// The driver waits to be woken; unless there is something to do, which it is told.
    pub(super) fn wait(&self, driver: &Waker) -> bool {
        let mut listed = self.listed();
        let waits = listed.connections.is_empty();
        if waits {
            listed.driver = Some(driver.clone());
        }
        waits
    }

    /// Nobody looks at the list any more, and what is on it would last for ever.
    pub(super) fn end(&self) {
        let mut listed = self.listed();
        listed.is_over = true;
        let left = std::mem::take(&mut listed.connections);
        drop(listed);
        drop(left);
    }

    fn wake(&self) {
        let driver = self.listed().driver.take();
        driver.into_iter().for_each(Waker::wake);
    }
}

/// A connection that takes up memory, and when its timers are looked at.
pub(super) struct Kept {
    pub(super) inner: Arc<Inner>,
    /// When QUIC wants to be told of the time, and when it is.
    pub(super) timer: Option<(Instant, Instant)>,
    /// That moment has come.
    pub(super) is_due: bool,
    /// It waits for room in the kernel's buffer.
    pub(super) is_unsent: bool,
}

/// What is locked as a whole.
pub(super) struct Core {
    pub(super) quic: quinn_proto::Endpoint,
    /// By handle: QUIC gives them out from zero on, and again.
    pub(super) connections: Vec<Option<Kept>>,
    pub(super) open: usize,
    /// The moments in `connections`.
    pub(super) timers: BTreeSet<(Instant, usize)>,
    pub(super) attempts: VecDeque<Incoming>,
    pub(super) is_closed: bool,
}

/// What handles and driver have in common.
pub(super) struct Shared {
    pub(super) socket: Arc<StampedSocket>,
    pub(super) pace: Arc<Pace>,
    pub(super) to_do: Arc<ToDo>,
    pub(super) attempted: Notify,
    pub(super) drained: Notify,
    core: Mutex<Core>,
}

impl Shared {
    pub(super) fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What belongs to no connection. Without room for it, it is lost: whoever called calls again.
    pub(super) fn answer(&self, transmit: &Transmit, content: &[u8]) {
        let _had_room = self.socket.send(transmit, content);
    }

    fn keep(
        &self,
        core: &mut Core,
        connection: (ConnectionHandle, quinn_proto::Connection),
        is_for_beats: bool,
    ) -> Connection {
        let inner = Arc::new(Inner::new(connection, is_for_beats, Arc::clone(&self.to_do)));
        let at = inner.handle.0;
        if core.connections.len() <= at {
            core.connections.resize_with(at + 1, || None);
        }
        let kept = Kept { inner: Arc::clone(&inner), timer: None, is_due: false, is_unsent: false };
        core.connections[at] = Some(kept);
        core.open += 1;
        self.to_do.put(&inner);
        Connection::new(inner)
    }
}

/// A handle; clones are the same one. It lasts until it is closed.
#[derive(Clone)]
pub(in super::super) struct Endpoint(Arc<Shared>);

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("socket", &self.0.socket).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// Starts the driver. Must be called within a tokio runtime.
    pub(in super::super) fn start(
        socket: StampedSocket,
        (config, server): (EndpointConfig, Arc<ServerConfig>),
        pace: Arc<Pace>,
    ) -> Self {
        let quic = quinn_proto::Endpoint::new(Arc::new(config), Some(server), !socket.may_fragment(), None);
        let core = Core {
            quic,
            connections: Vec::new(),
            open: 0,
            timers: BTreeSet::new(),
            attempts: VecDeque::new(),
            is_closed: false,
        };
        let shared = Arc::new(Shared {
            socket: Arc::new(socket),
            pace,
            to_do: Arc::default(),
            attempted: Notify::new(),
            drained: Notify::new(),
            core: Mutex::new(core),
        });
        tokio::spawn(Driver::new(Arc::clone(&shared)));
        Self(shared)
    }

    /// Calls `address`. Whether the connection comes up is told by [`Connection::established`].
    ///
    /// # Errors
    /// [`ConnectError`]; nothing was sent.
    pub(in super::super) fn connect(
        &self,
        config: ClientConfig,
        (address, name): (SocketAddr, &str),
        is_for_beats: bool,
    ) -> Result<Connection, ConnectError> {
        let mut core = self.0.core();
        if core.is_closed {
            return Err(ConnectError::EndpointStopping);
        }
        let connection = core.quic.connect(Instant::now(), config, address, name)?;
        Ok(self.0.keep(&mut core, connection, is_for_beats))
    }

    /// Waits for somebody to call; `None` once this is closed.
    pub(in super::super) async fn attempt(&self) -> Option<Attempt> {
        loop {
            let attempted = self.0.attempted.notified();
            {
                let mut core = self.0.core();
                if let Some(incoming) = core.attempts.pop_front() {
                    return Some(Attempt { shared: Arc::clone(&self.0), incoming: Some(incoming) });
                }
                if core.is_closed {
                    return None;
                }
            }
            attempted.await;
        }
    }

    /// For attempts from now on.
    pub(in super::super) fn set_server_config(&self, config: Arc<ServerConfig>) {
        self.0.core().quic.set_server_config(Some(config));
    }

    /// Ends all connections, and takes no more.
    pub(in super::super) fn close(&self, code: VarInt) {
        let mut core = self.0.core();
        core.is_closed = true;
        while let Some(incoming) = core.attempts.pop_front() {
            core.quic.ignore(incoming);
        }
        let open: Vec<_> = core.connections.iter().flatten().map(|kept| Arc::clone(&kept.inner)).collect();
        drop(core);
        open.iter().for_each(|inner| inner.close(code));
        self.0.attempted.notify_waiters();
        self.0.to_do.wake();
    }

    /// Waits until all connections are wound up.
    pub(in super::super) async fn idle(&self) {
        loop {
            let drained = self.0.drained.notified();
            if self.0.core().open == 0 {
                return;
            }
            drained.await;
        }
    }

    /// Connections that are up, being set up, or being wound up.
    pub(in super::super) fn open_connections(&self) -> usize {
        self.0.core().open
    }

    #[cfg(test)]
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.0
    }

    pub(in super::super) fn local_address(&self) -> io::Result<SocketAddr> {
        self.0.socket.local_address()
    }
}

/// Somebody calls. Dropped, it is ignored.
pub(in super::super) struct Attempt {
    shared: Arc<Shared>,
    incoming: Option<Incoming>,
}

impl Attempt {
    fn incoming(&self) -> &Incoming {
        self.incoming.as_ref().expect("taken out only as it ends")
    }

    pub(in super::super) fn remote_address(&self) -> SocketAddr {
        self.incoming().remote_address()
    }

    /// Whether the other end has shown that it receives what is sent to its address.
    pub(in super::super) fn is_address_proven(&self) -> bool {
        self.incoming().remote_address_validated()
    }

    /// The connection id that the other end chose.
    pub(in super::super) fn first_id(&self) -> ConnectionId {
        *self.incoming().orig_dst_cid()
    }

    /// Has the other end show that it receives what is sent to its address. Nothing is kept of this attempt.
    pub(in super::super) fn retry(mut self) {
        if let Some(incoming) = self.incoming.take() {
            let mut core = self.shared.core();
            let mut content = Vec::new();
            match core.quic.retry(incoming, &mut content) {
                Ok(transmit) => self.shared.answer(&transmit, &content),
                Err(proven) => core.quic.ignore(proven.into_incoming()),
            }
        }
    }

    /// Begins the handshake.
    ///
    /// # Errors
    /// Why it can't even begin; the other end is told if QUIC says so.
    pub(in super::super) fn accept(
        mut self,
        config: Arc<ServerConfig>,
        is_for_beats: bool,
    ) -> Result<Connection, ConnectionError> {
        let Some(incoming) = self.incoming.take() else { return Err(ConnectionError::LocallyClosed) };
        let mut core = self.shared.core();
        if core.is_closed {
            core.quic.ignore(incoming);
            return Err(ConnectionError::LocallyClosed);
        }
        let mut content = Vec::new();
        match core.quic.accept(incoming, Instant::now(), &mut content, Some(config)) {
            Ok(connection) => Ok(self.shared.keep(&mut core, connection, is_for_beats)),
            Err(error) => {
                if let Some(transmit) = error.response {
                    self.shared.answer(&transmit, &content);
                }
                Err(error.cause)
            }
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(incoming) = self.incoming.take() {
            self.shared.core().quic.ignore(incoming);
        }
    }
}
