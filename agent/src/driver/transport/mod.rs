//! How agents talk: QUIC with mutual TLS, beats and everything else on connections of their own.
//!
//! ```text
//! engine --send_datagram--> path 0 beat connection ==datagrams==>  peer --Datagram{received}--> its engine
//!                           path 1 beat connection ==datagrams==>
//!        --send_message---> bulk connection *)     ==frames=====>       --Message------------->
//!        --open_stream----> (the best path)        ==bytes======>       --Stream-------------->
//! ```
//!
//! *) Between a voter and a host without a vote: the connection for beats (`ride`).
//!
//! Contract:
//! - A peer is who its verified certificate says, at an address configured for it; anybody else is refused and counted.
//! - Nothing that is sent ever makes the caller wait (opening a stream does). Every queue has a bound; beats drop the
//!   oldest, messages are refused.
//! - New certificates, roots and lists are taken up without ending a connection, except those that they distrust.
//! - Losing a connection proves nothing about the peer. The engine judges by beats.
//!
//! All connections of one local address are run by one task (`drive`).
//!
//! Connections are set up by one end ([`Dial`]); duplicates are settled alike at both ends (`slot`).
//!
//! Not here: what beats and messages say, when to send them, what silence means (`heartbeat`, `detector`, `engine`).

mod accept;
mod admission;
mod alarms;
mod backoff;
mod beat;
mod bulk;
mod config;
mod dial;
mod drive;
mod event;
pub mod frame;
pub(crate) mod fuzz;
mod handle;
mod ids;
mod messages;
mod outbox;
mod pace;
mod quic;
mod remote;
mod ride;
mod shared;
mod silence;
mod slot;
mod socket;
mod stamp;
mod stats;
mod stream;
mod tls;
mod turn;

pub use admission::Bounds;
pub use alarms::Alarm;
pub use config::{Dial, Limits, PATHS_MAX, Peer, TransportConfig};
pub use event::{Channel, CloseCode, Ended, Path, Refusal, Side, TransportEvent};
pub use frame::FRAME_BYTES_MAX;
pub use handle::{Reloaded, Transport, TransportHandle};
pub use pace::{Grid, Rest};
pub use quic::DATAGRAM_BYTES_MAX;
pub use stats::{Counted, Counter, PathState};
pub use stream::BiStream;
pub use tls::{OwnCertificate, SameForServers, client_verifier};
pub use turn::catch_up;

use crate::pki::{Identity, PkiError};
use std::net::SocketAddr;

/// Why a transport could not be started or changed. What ran before goes on as it was.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The configuration contradicts itself.
    #[error("accept the transport's configuration: {0}")]
    Config(String),
    /// The kernel gave no timer.
    #[error("get a timer from the kernel")]
    Timer(#[source] std::io::Error),
    /// A local address could not be bound.
    #[error("bind {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// The identity's files could not be read.
    #[error("load this host's identity")]
    Pki(#[from] PkiError),
    /// The certificate is somebody else's.
    #[error("use the certificate of {0} for this host")]
    Identity(Identity),
    /// Certificate and key don't belong together, or TLS refuses them for another reason.
    #[error("set up TLS")]
    Tls(#[from] rustls::Error),
    /// The revocation lists don't fit the roots.
    #[error("honour the revocation lists: {0}")]
    Lists(String),
}

/// Why something was not sent. It is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The host isn't a peer, or has no such path.
    #[error("find the peer or path")]
    UnknownPeer,
    /// There is no connection now.
    #[error("send without a connection")]
    NotConnected,
    /// It doesn't fit: a datagram into a packet, a message into a frame.
    #[error("send something so large")]
    TooLarge,
    /// The queue is full: the peer, or the path to it, is too slow.
    #[error("queue more: the peer is too slow")]
    Backpressure,
}
