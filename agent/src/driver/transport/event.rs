//! What the transport tells, and the words for why.

use super::stream::BiStream;
use bytes::Bytes;
use quorum::id::HostName;
use quorum::moment::Moment;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// One of the local addresses, by its position in [`TransportConfig::listen`](super::TransportConfig::listen); the
/// same position in a peer's addresses is its end of that path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(pub u8);

impl Path {
    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which of the peer's parts a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Channel(pub u8);

/// What came in, and what became of connections. Names of senders come from verified certificates.
#[derive(Debug)]
pub enum TransportEvent {
    /// A beat.
    Datagram {
        /// Its sender.
        from: HostName,
        /// The path it took.
        path: Path,
        /// Its content.
        bytes: Bytes,
        /// When the kernel of this machine had it.
        received: Moment,
    },
    /// A message. Messages of one sender come in the order sent; some may be missing after a connection was replaced.
    Message {
        /// Its sender.
        from: HostName,
        /// Which part it is for.
        channel: Channel,
        /// Its content.
        bytes: Bytes,
    },
    /// A peer opened a stream.
    Stream {
        /// The peer.
        from: HostName,
        /// What it is for.
        kind: u8,
        /// Both of its directions.
        stream: BiStream,
    },
    /// Beats can be sent to `peer` on `path`. May come again without a [`TransportEvent::PathDown`] between when a
    /// newer connection took the place of an older one.
    PathUp {
        /// The peer.
        peer: HostName,
        /// The path.
        path: Path,
        /// Round-trip time of the handshake.
        rtt: Duration,
    },
    /// The connection for beats has ended. Never a proof of anything; at most a reason to look closer.
    PathDown {
        /// The peer.
        peer: HostName,
        /// The path.
        path: Path,
        /// Why.
        because: Ended,
    },
    /// Somebody was refused, or refused us. Sampled: under a flood only the counters are complete.
    Refused {
        /// The peer that was meant or claimed, if it is one of ours.
        peer: Option<HostName>,
        /// Where it came from, or where we called.
        address: SocketAddr,
        /// The local end.
        path: Path,
        /// Why.
        because: Refusal,
        /// Who refused: this host, or the other one.
        by: Side,
    },
}

/// One of the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// This host.
    Us,
    /// The peer.
    Them,
}

/// Why a connection was refused, or closed because it would be refused now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// Its certificate isn't signed by a root that is trusted here.
    UnknownAuthority,
    /// Its certificate is of another cluster.
    WrongCluster,
    /// Its certificate names a host that isn't a peer, or not the one that was called.
    WrongName,
    /// It comes from an address that isn't among those of the host that it is.
    WrongAddress,
    /// Its certificate speaks for nobody, or not for a host.
    NotAHost,
    /// Its certificate has expired or isn't valid yet.
    Expired,
    /// Its certificate was revoked.
    Revoked,
    /// It showed no certificate.
    NoCertificate,
    /// Its certificate is malformed, badly signed, or not meant for this use.
    BadCertificate,
    /// It doesn't speak this protocol.
    Protocol,
    /// It didn't finish its handshake in time.
    TooSlow,
    /// Another connection to the same peer is the better one.
    Duplicate,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::UnknownAuthority,
        Self::WrongCluster,
        Self::WrongName,
        Self::WrongAddress,
        Self::NotAHost,
        Self::Expired,
        Self::Revoked,
        Self::NoCertificate,
        Self::BadCertificate,
        Self::Protocol,
        Self::TooSlow,
        Self::Duplicate,
    ];

    /// The word for logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownAuthority => "unknown_authority",
            Self::WrongCluster => "wrong_cluster",
            Self::WrongName => "wrong_name",
            Self::WrongAddress => "wrong_address",
            Self::NotAHost => "not_a_host",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::NoCertificate => "no_certificate",
            Self::BadCertificate => "bad_certificate",
            Self::Protocol => "protocol",
            Self::TooSlow => "too_slow",
            Self::Duplicate => "duplicate",
        }
    }
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Nothing was heard for the idle timeout.
    Silent,
    /// The peer has lost the connection's state: it was restarted.
    Restarted,
    /// This host closed it.
    ByUs(CloseCode),
    /// The peer closed it.
    ByThem(CloseCode),
    /// It broke in another way.
    Broken(String),
}

impl Ended {
    pub(super) fn from_error(error: &quinn_proto::ConnectionError, ours: Option<CloseCode>) -> Self {
        use quinn_proto::ConnectionError as E;
        match error {
            E::TimedOut => Self::Silent,
            E::Reset => Self::Restarted,
            E::LocallyClosed => Self::ByUs(ours.unwrap_or(CloseCode::Shutdown)),
            E::ApplicationClosed(close) => Self::ByThem(CloseCode::from_wire(close.error_code.into_inner())),
            E::VersionMismatch | E::TransportError(_) | E::ConnectionClosed(_) | E::CidsExhausted => {
                Self::Broken(error.to_string())
            }
        }
    }
}

macro_rules! close_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// Why one end closed a connection, as told to the other one. Numbers are part of the wire format.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum CloseCode {
            $($(#[$doc])* $name,)*
            /// A code of a newer version.
            Other(u64),
        }

        impl CloseCode {
            /// The number on the wire.
            pub fn to_wire(self) -> u64 {
                match self {
                    $(Self::$name => $code,)*
                    Self::Other(code) => code,
                }
            }

            /// The code with this number.
            pub fn from_wire(code: u64) -> Self {
                match code {
                    $($code => Self::$name,)*
                    other => Self::Other(other),
                }
            }
        }
    };
}

close_codes! {
    /// The agent is going down in an orderly way.
    Shutdown = 0,
    /// Another connection to the same peer is the better one.
    Duplicate = 1,
    /// A newer connection took its place.
    Superseded = 2,
    /// The certificate names a host that isn't a peer, or not the one that was called.
    WrongName = 3,
    /// The certificate is of another cluster.
    WrongCluster = 4,
    /// The certificate speaks for nobody, or not for a host.
    NotAHost = 5,
    /// The address isn't one of that host's.
    WrongAddress = 6,
    /// The certificate isn't trusted any more: revoked, or its root was retired.
    Distrusted = 7,
    /// The host isn't a peer any more.
    Removed = 8,
    /// Nothing comes back on this path; another connection is tried.
    Stalled = 9,
    /// It has not been used for a while.
    Unused = 10,
    /// What came was not in the protocol.
    Malformed = 11,
    /// The engine asked for it.
    Requested = 12,
}

impl CloseCode {
    pub(super) fn var_int(self) -> quinn_proto::VarInt {
        quinn_proto::VarInt::from_u64(self.to_wire()).unwrap_or(quinn_proto::VarInt::MAX)
    }

    /// The refusal that the other end meant by this code, if it is one.
    pub(super) fn as_refusal(self) -> Option<Refusal> {
        match self {
            Self::Duplicate => Some(Refusal::Duplicate),
            Self::WrongName => Some(Refusal::WrongName),
            Self::WrongCluster => Some(Refusal::WrongCluster),
            Self::NotAHost => Some(Refusal::NotAHost),
            Self::WrongAddress => Some(Refusal::WrongAddress),
            Self::Distrusted => Some(Refusal::Revoked),
            Self::Malformed => Some(Refusal::Protocol),
            Self::Shutdown
            | Self::Superseded
            | Self::Removed
            | Self::Stalled
            | Self::Unused
            | Self::Requested
            | Self::Other(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_reads_back_from_the_wire() {
        for code in 0..40 {
            assert_eq!(CloseCode::from_wire(code).to_wire(), code);
        }
        assert_eq!(CloseCode::from_wire(7), CloseCode::Distrusted);
    }
}
