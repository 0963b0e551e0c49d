//! What the transport is told. Checked before anything is bound.

use super::TransportError;
use super::admission::Bounds;
use crate::pki::IdentityFiles;
use quorum::id::{ClusterName, HostName};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

/// Most local addresses (and so paths).
pub const PATHS_MAX: usize = 4;

/// This host and whom it talks to.
#[derive(Clone, Debug)]
pub struct TransportConfig {
    /// The cluster that certificates must be of.
    pub cluster: ClusterName,
    /// This host; its own certificate must say so.
    pub host: HostName,
    /// One local address for each path. An address that isn't there yet (its interface is down) is bound all the same.
    pub listen: Vec<SocketAddr>,
    /// Whom to talk to. Packets from all other addresses are dropped unread.
    pub peers: Vec<Peer>,
    /// This host's certificate, key, trusted roots and revocation lists.
    pub identity: IdentityFiles,
    /// Spans and bounds.
    pub limits: Limits,
}

/// Another host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name; its certificate must say so.
    pub host: HostName,
    /// Its addresses: position *i* is its end of local path *i*. May be shorter than the list of local addresses.
    pub addresses: Vec<SocketAddr>,
    /// Who sets up the connections for beats.
    pub dial: Dial,
}

/// Who sets up the connections for beats. Bulk is set up by whoever has something to send that needs it.
///
/// One end dials: half the handshakes, no races. If both should (two configurations disagree for a while), the
/// duplicates are settled the same way at both ends; if neither does, there is no connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dial {
    /// The host whose name sorts first. For two voters.
    #[default]
    ByName,
    /// This host. For a host without a vote towards a voter: a voter must not spend its time calling at a lost site.
    Us,
    /// The peer. The other end of [`Dial::Us`].
    Them,
}

impl Dial {
    /// One end is a voter, the other has no vote. So it is where the two configurations agree; what rides on beats because one
    /// end thinks so is taken by the other in any case.
    pub(super) fn is_between_vote_and_none(self) -> bool {
        matches!(self, Self::Us | Self::Them)
    }

    pub(super) fn is_ours(self, us: &HostName, them: &HostName) -> bool {
        match self {
            Self::ByName => us < them,
            Self::Us => true,
            Self::Them => false,
        }
    }
}

/// Spans and bounds of one transport.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Silence after which a connection for beats is given up by QUIC.
    ///
    /// Far above any ride-through `T_tol` (8 s for the slowest watchdogs, protocol §3): a connection that outlives a
    /// blip carries the first beat after it in half a round trip, a new one needs two more, and the lease is nearly
    /// spent by then. It isn't how a dead peer is noticed (beats are) nor a restarted one (stateless reset, and the
    /// newer connection wins); so it may be long.
    pub beat_idle_max: Duration,
    /// Silence in spite of sending after which the dialling end sets up another connection beside the old one.
    pub beat_silence_redial: Duration,
    /// Silence after which a bulk connection is given up by QUIC; it is kept alive four times as often.
    pub bulk_idle_max: Duration,
    /// A bulk connection that nobody used for so long is closed.
    pub bulk_unused_max: Duration,
    /// Nothing came back for so long although something was sent: the bulk connection is given up.
    pub bulk_stall_max: Duration,
    /// The same if beats of the peer are still heard on another path.
    pub bulk_stall_max_beside_live_path: Duration,
    /// How long an attempt to connect may take.
    pub dial_max: Duration,
    /// How long a peer's handshake may take.
    pub handshake_max: Duration,
    /// How long [`open_stream`](super::TransportHandle::open_stream) waits for a connection, and how long demand for
    /// one lasts after a message was queued.
    pub demand_lasts: Duration,
    /// A queued message older than this is dropped rather than sent: Raft has sent a newer one by then.
    pub message_age_max: Duration,
    /// Messages queued for one peer.
    pub messages_queued_max: usize,
    /// Bytes of messages queued for one peer.
    pub message_bytes_queued_max: usize,
    /// Datagrams of one connection held for an engine that doesn't take them.
    pub datagrams_held_max: usize,
    /// Streams that one peer may have open at once.
    pub streams_max: u32,
    /// Kernel buffer of each socket, each direction.
    pub socket_buffer_bytes: usize,
    /// What is accepted of connection attempts.
    pub admission: Bounds,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            beat_idle_max: Duration::from_secs(30),
            beat_silence_redial: Duration::from_secs(5),
            bulk_idle_max: Duration::from_secs(8),
            bulk_unused_max: Duration::from_secs(15),
            bulk_stall_max: Duration::from_secs(3),
            bulk_stall_max_beside_live_path: Duration::from_millis(600),
            dial_max: Duration::from_secs(2),
            handshake_max: Duration::from_secs(3),
            demand_lasts: Duration::from_secs(5),
            message_age_max: Duration::from_secs(5),
            messages_queued_max: 1024,
            message_bytes_queued_max: 8 << 20,
            datagrams_held_max: 64,
            streams_max: 32,
            socket_buffer_bytes: 1 << 20,
            admission: Bounds::default(),
        }
    }
}

impl TransportConfig {
    pub(super) fn check(&self) -> Result<(), TransportError> {
        let refuse = |because: String| Err(TransportError::Config(because));
        if self.listen.is_empty() || self.listen.len() > PATHS_MAX {
            return refuse(format!("{} local addresses: 1 to {PATHS_MAX} are needed", self.listen.len()));
        }
        check_peers(&self.host, &self.peers)
    }
}

pub(super) fn check_peers(host: &HostName, peers: &[Peer]) -> Result<(), TransportError> {
    let mut names = BTreeSet::new();
    for peer in peers {
        let refuse = |because: &str| Err(TransportError::Config(format!("peer {}: {because}", peer.host)));
        if &peer.host == host {
            return refuse("that is this host");
        }
        if !names.insert(&peer.host) {
            return refuse("named twice");
        }
        if peer.addresses.is_empty() {
            return refuse("no address");
        }
        if peer.addresses.iter().any(|a| a.port() == 0 || a.ip().is_unspecified() || a.ip().is_multicast()) {
            return refuse("an address that can't be called");
        }
    }
    Ok(())
}
