//! Counters: what was sent, dropped and refused, for each peer and path and reason.
//!
//! Fixed arrays of atomics, made with the peer: counting never allocates or waits, and nobody outside can make it grow.
//! What can't be told to be a peer's is counted for the local path alone.
//!
//! Not here: the names of metrics (the agent's metrics table).

use super::event::{Path, Refusal};
use quorum::id::HostName;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counted {
    /// Datagrams given to QUIC.
    DatagramsSent,
    /// Datagrams handed to the engine.
    DatagramsReceived,
    /// Datagrams dropped, oldest first, because the engine didn't take them.
    DatagramsDroppedReceiving,
    /// Datagrams dropped, oldest first, because the path didn't take them.
    DatagramsDroppedSending,
    /// Datagrams not sent because they don't fit into a packet.
    DatagramsTooLarge,
    /// Datagrams not sent because there is no connection.
    DatagramsUnconnected,
    /// Messages written to a stream.
    MessagesSent,
    /// Messages handed to the engine.
    MessagesReceived,
    /// Messages refused because the queue was full.
    MessagesRefused,
    /// Messages dropped because they had waited too long.
    MessagesExpired,
    /// Streams opened by this host.
    StreamsOpened,
    /// Streams opened by the peer.
    StreamsAccepted,
    /// Connections that came up.
    ConnectionsUp,
    /// Connections that ended.
    ConnectionsDown,
    /// Bulk connections given up because nothing came back.
    BulkStalled,
    /// Attempts to connect.
    Dials,
    /// Attempts to connect that nobody answered.
    DialsUnanswered,
    /// Frames that announced too many bytes.
    FramesOversized,
    /// Streams that broke the protocol in another way.
    FramesMalformed,
    /// Datagrams and messages of peers that are none of this release's: malformed, or of another version.
    Undecodable,
    /// Packets from addresses that aren't a peer's; never read further.
    PacketsFromStrangers,
    /// Packets from known addresses that aren't of this protocol, or for connections of long ago; a restarted peer's
    /// resets are among them.
    PacketsMalformed,
    /// Packets that the kernel dropped because this agent hadn't read those before them: it got no processor for long,
    /// or too many came at once. Counted with the next packet that is read; the kernel counts damaged ones among them.
    PacketsUnread,
    /// Connection attempts ignored because there were too many.
    AttemptsIgnored,
    /// Connection attempts asked to prove their address.
    AttemptsRetried,
    /// Connections that this host refused.
    RefusedByUs(Refusal),
    /// Connections that the peer refused.
    RefusedByThem(Refusal),
}

const PLAIN: [Counted; 25] = [
    Counted::DatagramsSent,
    Counted::DatagramsReceived,
    Counted::DatagramsDroppedReceiving,
    Counted::DatagramsDroppedSending,
    Counted::DatagramsTooLarge,
    Counted::DatagramsUnconnected,
    Counted::MessagesSent,
    Counted::MessagesReceived,
    Counted::MessagesRefused,
    Counted::MessagesExpired,
    Counted::StreamsOpened,
    Counted::StreamsAccepted,
    Counted::ConnectionsUp,
    Counted::ConnectionsDown,
    Counted::BulkStalled,
    Counted::Dials,
    Counted::DialsUnanswered,
    Counted::FramesOversized,
    Counted::FramesMalformed,
    Counted::Undecodable,
    Counted::PacketsFromStrangers,
    Counted::PacketsMalformed,
    Counted::PacketsUnread,
    Counted::AttemptsIgnored,
    Counted::AttemptsRetried,
];

const REFUSALS: usize = Refusal::ALL.len();
const SLOTS: usize = PLAIN.len() + 2 * REFUSALS;

impl Counted {
    /// Everything that is counted.
    pub fn all() -> impl Iterator<Item = Self> {
        let refused = [Self::RefusedByUs as fn(Refusal) -> Self, Self::RefusedByThem];
        PLAIN.into_iter().chain(refused.into_iter().flat_map(|by| Refusal::ALL.into_iter().map(by)))
    }

    fn slot(self) -> usize {
        match self {
            Self::RefusedByUs(refusal) => PLAIN.len() + refusal as usize,
            Self::RefusedByThem(refusal) => PLAIN.len() + REFUSALS + refusal as usize,
            plain => PLAIN.iter().position(|&p| p == plain).unwrap_or(0),
        }
    }
}

/// One non-zero counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    /// Whose; `None` if it can't be told to be a peer's.
    pub peer: Option<HostName>,
    /// On which path; bulk counts for the path that its connection takes.
    pub path: Path,
    /// What.
    pub what: Counted,
    /// How often since the transport started (or since the peer was added).
    pub count: u64,
}

/// The counters of one peer, or of all strangers, on one path.
#[derive(Debug)]
pub(super) struct Counters([AtomicU64; SLOTS]);

impl Default for Counters {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Counters {
    pub(super) fn add(&self, what: Counted) {
        self.add_many(what, 1);
    }

    pub(super) fn add_many(&self, what: Counted, count: u64) {
        self.0[what.slot()].fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn report(&self, peer: Option<&HostName>, path: Path, into: &mut Vec<Counter>) {
        for what in Counted::all() {
            let count = self.0[what.slot()].load(Ordering::Relaxed);
            if count > 0 {
                into.push(Counter { peer: peer.cloned(), path, what, count });
            }
        }
    }
}

/// What is true of one path of one peer now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathState {
    /// The peer.
    pub peer: HostName,
    /// The path.
    pub path: Path,
    /// Whether beats can be sent.
    pub up: bool,
    /// QUIC's estimate of the round-trip time, while up.
    pub rtt: Option<std::time::Duration>,
    /// When the last datagram came in, if one did.
    pub heard: Option<quorum::moment::Moment>,
    /// Whether the bulk connection takes this path.
    pub carries_bulk: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn everything_counted_has_a_slot_of_its_own() {
        let slots: BTreeSet<usize> = Counted::all().map(Counted::slot).collect();
        assert_eq!((slots.len(), slots.last().copied()), (SLOTS, Some(SLOTS - 1)));
        assert_eq!(Counted::all().count(), SLOTS);
    }

    #[test]
    fn a_report_names_what_was_counted_and_nothing_else() {
        let counters = Counters::default();
        counters.add(Counted::Dials);
        counters.add_many(Counted::RefusedByUs(Refusal::Revoked), 3);
        let mut report = Vec::new();
        counters.report(None, Path(1), &mut report);
        let seen: Vec<_> = report.iter().map(|c| (c.what, c.count)).collect();
        assert_eq!(seen, [(Counted::Dials, 1), (Counted::RefusedByUs(Refusal::Revoked), 3)]);
    }
}
