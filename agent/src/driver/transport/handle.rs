//! Starting a transport, and what the engine can do with it.

use super::alarms::Alarm;
use super::config::{Peer, TransportConfig, check_peers};
use super::drive::Endpoint;
use super::event::{Channel, CloseCode, Path};
use super::ids::IdKey;
use super::pace::{Pace, Rest};
use super::quic;
use super::remote::Remote;
use super::shared::{LocalEnd, Shared};
use super::slot::Live;
use super::socket::{KnownAddresses, SocketShared, StampedSocket};
use super::stats::{Counted, Counter, PathState};
use super::stream::BiStream;
use super::tls::{OwnCertificate, Trust};
use super::{SendError, TransportError, TransportEvent, accept, dial};
use bytes::Bytes;
use quorum::id::HostName;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How long an orderly end waits for peers to be told.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// The transport. See [`Transport::start`].
#[derive(Debug)]
pub struct Transport;

/// Ends its task when dropped.
#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A running transport. Clones are the same one; it ends when the last one is dropped.
#[derive(Clone, Debug)]
pub struct TransportHandle(Arc<Running>);

#[derive(Debug)]
struct Running {
    shared: Arc<Shared>,
    runtime: tokio::runtime::Handle,
    /// The tasks of each peer.
    tasks: Mutex<BTreeMap<HostName, Vec<Task>>>,
    _accepting: Vec<Task>,
}

impl Drop for Running {
    fn drop(&mut self) {
        for end in &self.shared.ends {
            end.endpoint.close(CloseCode::Shutdown.var_int());
        }
    }
}

/// What [`TransportHandle::reload`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Connections that the new configuration distrusts, now closed.
    pub closed: Vec<(HostName, Path)>,
    /// Connections that stayed up.
    pub kept: usize,
}

impl Transport {
    /// Binds all local addresses, begins to accept, and calls the peers. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`TransportError`]; nothing is left bound.
    pub fn start(
        config: TransportConfig,
        events: mpsc::Sender<TransportEvent>,
    ) -> Result<TransportHandle, TransportError> {
        config.check()?;
        let trust = Trust::load(&config, 1)?;
        let (known, pace) =
            (Arc::new(KnownAddresses::default()), Arc::new(Pace::start().map_err(TransportError::Timer)?));
        let ends = config.listen.iter().map(|&address| local_end(address, &config, (&trust, &known, &pace)));
        let ends: Vec<LocalEnd> = ends.collect::<Result<_, _>>()?;
        let peers = config.peers.clone();
        let paths = ends.len();
        let shared = Arc::new(Shared::new(config, events, (ends, known, pace), trust));
        let take = |i: usize| Task(tokio::spawn(accept::take_attempts(Arc::clone(&shared), Path(i as u8))));
        let accepting = (0..paths).map(take).collect();
        let runtime = tokio::runtime::Handle::current();
        let running = Running { shared, runtime, tasks: Mutex::default(), _accepting: accepting };
        let handle = TransportHandle(Arc::new(running));
        handle.update_peers(peers)?;
        Ok(handle)
    }
}

fn local_end(
    address: SocketAddr,
    config: &TransportConfig,
    (trust, known, pace): (&Trust, &Arc<KnownAddresses>, &Arc<Pace>),
) -> Result<LocalEnd, TransportError> {
    let failed = |source| TransportError::Bind { address, source };
    let strangers = Arc::default();
    let shared = SocketShared {
        known: Arc::clone(known),
        counters: Arc::clone(&strangers),
        ids: IdKey::new(trust.reset_seed()),
        buffer_bytes: config.limits.socket_buffer_bytes,
    };
    let socket = StampedSocket::bind(address, shared).map_err(failed)?;
    // The settings of a kind replace these as soon as an attempt has shown its kind.
    let config = (quic::endpoint_config(trust.reset_seed()), trust.server(quic::Kind::Bulk));
    Ok(LocalEnd { endpoint: Endpoint::start(socket, config, Arc::clone(pace)), strangers })
}

impl TransportHandle {
    /// Sends a beat on one path. Never waits; a full buffer drops the oldest unsent one.
    ///
    /// # Errors
    /// [`SendError::UnknownPeer`], [`SendError::NotConnected`], or [`SendError::TooLarge`] beyond
    /// [`TransportHandle::datagram_bytes_max`].
    pub fn send_datagram(&self, to: &HostName, path: Path, bytes: Bytes) -> Result<(), SendError> {
        let remote = self.0.shared.remote(to).ok_or(SendError::UnknownPeer)?;
        let place = &remote.path(path).ok_or(SendError::UnknownPeer)?.beats;
        let count = |what| remote.count(path, what);
        let Some(live) = place.current() else {
            count(Counted::DatagramsUnconnected);
            return Err(SendError::NotConnected);
        };
        let sent = live.connection.send_datagram(bytes);
        match sent {
            Ok(true) => {}
            Ok(false) => count(Counted::DatagramsDroppedSending),
            Err(SendError::TooLarge) => count(Counted::DatagramsTooLarge),
            Err(_) => count(Counted::DatagramsUnconnected),
        }
        sent.map(|_had_room| count(Counted::DatagramsSent))
    }

    /// The largest datagram that this path takes now; at least [`DATAGRAM_BYTES_MAX`](super::DATAGRAM_BYTES_MAX) while
    /// it is up. A beat padded to it fills a packet.
    pub fn datagram_bytes_max(&self, to: &HostName, path: Path) -> Option<usize> {
        let remote = self.0.shared.remote(to)?;
        remote.path(path)?.beats.current()?.connection.max_datagram_size()
    }

    /// Queues a message, and sets up a bulk connection if it needs one and there is none. Never waits. Messages of one peer
    /// arrive at most once, and in order as long as one connection carries them; those that are under way when a connection
    /// ends, or that wait for one too long, are lost.
    ///
    /// # Errors
    /// [`SendError::UnknownPeer`], [`SendError::TooLarge`] beyond [`FRAME_BYTES_MAX`](super::FRAME_BYTES_MAX),
    /// [`SendError::Backpressure`] when the queue is full.
    pub fn send_message(&self, to: &HostName, channel: Channel, bytes: Bytes) -> Result<(), SendError> {
        self.0.shared.remote(to).ok_or(SendError::UnknownPeer)?.enqueue(channel, bytes)
    }

    /// Counts something that `from` sent and this release can't read.
    pub fn count_undecodable(&self, from: &HostName, path: Path) {
        if let Some(remote) = self.0.shared.remote(from) {
            remote.count(path, Counted::Undecodable);
        }
    }

    /// Opens a stream; the peer's engine gets its end with `kind`. Waits for a bulk connection if there is none.
    ///
    /// # Errors
    /// [`SendError::UnknownPeer`]; [`SendError::NotConnected`] if no connection came up within
    /// [`Limits::demand_lasts`](super::Limits); [`SendError::Backpressure`] if the peer has too many streams open.
    pub async fn open_stream(&self, to: &HostName, kind: u8) -> Result<BiStream, SendError> {
        let remote = self.0.shared.remote(to).ok_or(SendError::UnknownPeer)?;
        let limit = self.0.shared.config.limits.demand_lasts;
        let live = tokio::time::timeout(limit, wait_for_bulk(&remote)).await.map_err(|_| SendError::NotConnected)?;
        let in_use = [Arc::clone(&live.in_use), self.0.shared.pace.stream()];
        let opened = tokio::time::timeout(limit, live.connection.open_bi()).await;
        let stream = opened.map_err(|_| SendError::Backpressure)?.map_err(|_| SendError::NotConnected)?;
        let mut stream = BiStream::new(to.clone(), stream, in_use);
        stream.parts().0.write_all(&[kind]).await.map_err(|_| SendError::NotConnected)?;
        remote.count(live.path, Counted::StreamsOpened);
        Ok(stream)
    }

    /// Ready at `at`, together with what the transport does then: the process is woken once for both.
    pub fn alarm(&self, at: Instant) -> Alarm {
        self.0.shared.pace.alarm(at)
    }

    /// Lets what comes in gather, and QUIC's timers wait; `None`, as at the beginning: all is done at once. Times of arrival
    /// stay the kernel's. While a stream is open all is done at once.
    pub fn rest(&self, rest: Option<Rest>) {
        self.0.shared.pace.set(rest);
    }

    /// Replaces the list of peers. Peers that stay as they are keep their connections; others are closed or called.
    ///
    /// # Errors
    /// [`TransportError::Config`]; the old list stays.
    pub fn update_peers(&self, peers: Vec<Peer>) -> Result<(), TransportError> {
        let shared = &self.0.shared;
        check_peers(shared.us(), &peers)?;
        let mut tasks = self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        // Known before anyone is called: answers would be dropped otherwise.
        let addresses = peers.iter().flat_map(|p| &p.addresses).map(|a| a.ip().to_canonical()).collect();
        shared.known.replace(addresses);
        for old in shared.remotes() {
            if !peers.contains(&old.peer) {
                tasks.remove(&old.peer.host);
                shared.remove(&old.peer.host);
                close(&old, CloseCode::Removed);
            }
        }
        for peer in peers {
            if shared.remote(&peer.host).is_none() {
                let remote = Arc::new(Remote::new(peer, &shared.config));
                shared.insert(Arc::clone(&remote));
                tasks.insert(remote.peer.host.clone(), self.keep(&remote));
            }
        }
        Ok(())
    }

    fn keep(&self, remote: &Arc<Remote>) -> Vec<Task> {
        let shared = &self.0.shared;
        let bulk = dial::keep_bulk(Arc::clone(shared), Arc::clone(remote));
        let mut tasks = vec![Task(self.0.runtime.spawn(bulk))];
        for i in (0..remote.paths.len()).filter(|_| remote.we_dial) {
            let beats = dial::keep_beats(Arc::clone(shared), Arc::clone(remote), Path(i as u8));
            tasks.push(Task(self.0.runtime.spawn(beats)));
        }
        tasks
    }

    /// Takes up the identity's files as they are now: certificate, key, roots, revocation lists. Connections stay up
    /// unless their certificates wouldn't be accepted any more (a date in the past alone is no reason).
    ///
    /// # Errors
    /// [`TransportError`] if the files can't be used; the old configuration stays in force.
    pub fn reload(&self) -> Result<Reloaded, TransportError> {
        let shared = &self.0.shared;
        let _replacing = shared.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        let trust = Trust::load(&shared.config, shared.trust().generation + 1)?;
        for end in &shared.ends {
            end.endpoint.set_server_config(trust.server(quic::Kind::Bulk));
        }
        // In force before the walk: a connection that takes its place during the walk judges itself by the new one.
        shared.set_trust(trust);
        let trust = shared.trust();
        let mut done = Reloaded::default();
        for remote in shared.remotes() {
            for live in connections(&remote) {
                match trust.judge_again(&live.connection) {
                    Ok(()) => done.kept += 1,
                    Err(because) => {
                        live.close(CloseCode::Distrusted);
                        let from = (live.connection.remote_address(), live.path);
                        shared.refused(Some(&remote), from, (because, super::Side::Us));
                        done.closed.push((remote.peer.host.clone(), live.path));
                    }
                }
            }
        }
        Ok(done)
    }

    /// This host's own certificate, for its date of expiry.
    pub fn own_certificate(&self) -> OwnCertificate {
        self.0.shared.trust().own().clone()
    }

    /// Closes all connections to a peer. It is called again at once if it is still among the peers.
    ///
    /// # Errors
    /// [`SendError::UnknownPeer`].
    pub fn close_peer(&self, host: &HostName) -> Result<(), SendError> {
        let remote = self.0.shared.remote(host).ok_or(SendError::UnknownPeer)?;
        close(&remote, CloseCode::Requested);
        Ok(())
    }

    /// All counters that aren't zero.
    pub fn stats(&self) -> Vec<Counter> {
        self.0.shared.counters()
    }

    /// How all paths to all peers are now.
    pub fn paths(&self) -> Vec<PathState> {
        self.0.shared.remotes().iter().flat_map(|r| r.states().collect::<Vec<_>>()).collect()
    }

    /// Connections that take up memory now: those that are up, being set up, and being wound up.
    pub fn open_connections(&self) -> usize {
        self.0.shared.ends.iter().map(|end| end.endpoint.open_connections()).sum()
    }

    /// The addresses that were bound, one for each path.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn local_addresses(&self) -> std::io::Result<Vec<SocketAddr>> {
        self.0.shared.ends.iter().map(|end| end.endpoint.local_address()).collect()
    }

    /// Ends in an orderly way: peers are told, for a bounded time.
    pub async fn shutdown(self) {
        self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner).clear();
        for end in &self.0.shared.ends {
            end.endpoint.close(CloseCode::Shutdown.var_int());
        }
        let goodbye = async {
            for end in &self.0.shared.ends {
                end.endpoint.idle().await;
            }
        };
        // Who didn't hear it will find out by silence.
        let _ = tokio::time::timeout(GOODBYE_MAX, goodbye).await;
    }
}

async fn wait_for_bulk(remote: &Remote) -> Arc<Live> {
    let mut changes = remote.bulk.subscribe();
    loop {
        if let Some(live) = changes.borrow_and_update().clone()
            && live.connection.close_reason().is_none()
        {
            return live;
        }
        remote.want_bulk();
        // Ends only with the peer itself, and then the caller's limit ends the wait.
        if changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn connections(remote: &Remote) -> Vec<Arc<Live>> {
    let beats = remote.paths.iter().filter_map(|to| to.beats.current());
    beats.chain(remote.bulk.current()).collect()
}

fn close(remote: &Remote, code: CloseCode) {
    remote.paths.iter().for_each(|to| to.beats.close(code));
    remote.bulk.close(code);
}
