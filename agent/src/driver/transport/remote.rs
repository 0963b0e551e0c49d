//! What is kept for each peer: its places for connections, its queue of messages, its counters.

use super::config::{Limits, Peer};
use super::event::{Channel, Path};
use super::frame::FRAME_BYTES_MAX;
use super::outbox::{Outbox, Queued};
use super::slot::{Heard, Slot, Told};
use super::stats::{Counted, Counters, PathState};
use super::{SendError, TransportConfig};
use crate::driver::clock;
use bytes::Bytes;
use quorum::moment::Moment;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// One path to a peer.
#[derive(Debug)]
pub(super) struct PathTo {
    pub(super) address: SocketAddr,
    pub(super) beats: Slot,
    pub(super) heard: Heard,
    pub(super) counters: Counters,
    /// Locked while the engine is being told about this path.
    pub(super) told: tokio::sync::Mutex<Told>,
}

/// One peer.
#[derive(Debug)]
pub(super) struct Remote {
    pub(super) peer: Peer,
    /// Whether this host sets up the connections for beats.
    pub(super) we_dial: bool,
    pub(super) paths: Vec<PathTo>,
    pub(super) bulk: Slot,
    /// Wakes whoever sets up the bulk connection.
    pub(super) demand: Notify,
    wanted_until: Mutex<Option<Moment>>,
    pub(super) outbox: Outbox,
    /// Whether messages to it ride on its connections for beats, as far as is known.
    rides: AtomicBool,
    demand_lasts: Duration,
}

impl Remote {
    pub(super) fn new(peer: Peer, config: &TransportConfig) -> Self {
        let Limits { messages_queued_max, message_bytes_queued_max, demand_lasts, .. } = config.limits;
        let path_to = |&address| PathTo {
            address,
            beats: Slot::default(),
            heard: Heard::default(),
            counters: Counters::default(),
            told: tokio::sync::Mutex::default(),
        };
        Self {
            we_dial: peer.dial.is_ours(&config.host, &peer.host),
            paths: peer.addresses.iter().take(config.listen.len()).map(path_to).collect(),
            bulk: Slot::default(),
            demand: Notify::new(),
            wanted_until: Mutex::new(None),
            rides: AtomicBool::new(peer.dial.is_between_vote_and_none()),
            outbox: Outbox::new(messages_queued_max, message_bytes_queued_max),
            demand_lasts,
            peer,
        }
    }

    pub(super) fn path(&self, path: Path) -> Option<&PathTo> {
        self.paths.get(path.index())
    }

    /// Counts for a path; what isn't on a path of this peer counts for its first one.
    pub(super) fn count(&self, path: Path, what: Counted) {
        if let Some(to) = self.path(path).or(self.paths.first()) {
            to.counters.add(what);
        }
    }

    pub(super) fn has_address(&self, address: IpAddr) -> bool {
        self.peer.addresses.iter().any(|a| a.ip().to_canonical() == address.to_canonical())
    }

    /// Whether messages to it ride on its connections for beats. Before the first of those is up they wait for it.
    pub(super) fn rides(&self) -> bool {
        self.rides.load(Ordering::Acquire)
    }

    /// A connection for beats came up, on which messages can ride or can't (a release that doesn't know of it).
    pub(super) fn note_whether_messages_ride(&self, can: bool) {
        self.rides.store(can && self.peer.dial.is_between_vote_and_none(), Ordering::Release);
        if !self.rides() && !self.outbox.is_empty() {
            self.want_bulk();
        }
    }

    /// Queues a message, and has a bulk connection set up if it needs one and there is none. Never waits.
    pub(super) fn enqueue(&self, channel: Channel, bytes: Bytes) -> Result<(), SendError> {
        if bytes.len() > FRAME_BYTES_MAX {
            return Err(SendError::TooLarge);
        }
        let queued = self.outbox.push(Queued { channel, bytes, since: clock::now() });
        if !self.rides() {
            self.want_bulk();
        }
        queued.inspect_err(|_| self.count(Path(0), Counted::MessagesRefused))
    }

    /// Says that a bulk connection is wanted now, and for a while.
    pub(super) fn want_bulk(&self) {
        let until = clock::now().plus(self.demand_lasts);
        *self.wanted_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
        self.demand.notify_one();
    }

    /// Whether the bulk connection is up; if not, it is wanted from now on.
    pub(super) fn has_bulk_or_wants_it(&self) -> bool {
        let is_up = self.bulk.current().is_some_and(|live| live.connection.close_reason().is_none());
        if !is_up {
            self.want_bulk();
        }
        is_up
    }

    pub(super) fn wants_bulk(&self, now: Moment) -> bool {
        let until = *self.wanted_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| !now.either_reached(until))
    }

    /// The path to try for bulk at the `turn`th attempt: the one on which beats were heard last comes first.
    pub(super) fn bulk_path(&self, turn: usize) -> Option<Path> {
        let mut order: Vec<usize> = (0..self.paths.len()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(self.paths[i].heard.last()));
        // Never both unheard and heard alike: equal ones keep their order, so the first path is the usual one.
        order.get(turn % order.len().max(1)).map(|&i| Path(i as u8))
    }

    /// Whether this path is silent while another one isn't.
    pub(super) fn is_heard_elsewhere_only(&self, path: Path, now: Moment, silence: Duration) -> bool {
        let quiet = |to: &PathTo| to.heard.last().is_none_or(|at| now.waited_since(at) >= silence);
        let here = self.path(path).is_none_or(quiet);
        here && self.paths.iter().enumerate().any(|(i, to)| i != path.index() && !quiet(to))
    }

    pub(super) fn states(&self) -> impl Iterator<Item = PathState> + '_ {
        let bulk = self.bulk.current().map(|live| live.path);
        self.paths.iter().enumerate().map(move |(i, to)| {
            let (path, live) = (Path(i as u8), to.beats.current());
            PathState {
                peer: self.peer.host.clone(),
                path,
                up: live.is_some(),
                rtt: live.map(|l| l.connection.rtt()),
                heard: to.heard.last(),
                carries_bulk: bulk == Some(path),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::transport::Dial;
    use crate::pki::IdentityFiles;

    fn remote(limits: Limits) -> Remote {
        let config = TransportConfig {
            cluster: "c".parse().expect("name"),
            host: "a".parse().expect("name"),
            listen: vec!["127.0.0.1:0".parse().expect("address"); 2],
            peers: vec![],
            identity: IdentityFiles::in_directory(std::path::Path::new(".")),
            limits,
        };
        let addresses = vec!["127.0.0.1:1".parse().expect("address"), "127.0.0.2:1".parse().expect("address")];
        Remote::new(Peer { host: "b".parse().expect("name"), addresses, dial: Dial::ByName }, &config)
    }

    #[test]
    fn the_queue_is_bounded_in_messages_and_in_bytes() {
        let message = Bytes::from_static(&[0; 100]);
        let few = remote(Limits { messages_queued_max: 3, ..Limits::default() });
        let queued = (0..10).filter(|_| few.enqueue(Channel(0), message.clone()).is_ok()).count();
        assert_eq!(queued, 3);
        let small = remote(Limits { message_bytes_queued_max: 250, ..Limits::default() });
        let queued = (0..10).filter(|_| small.enqueue(Channel(0), message.clone()).is_ok()).count();
        assert_eq!(queued, 2);
        let huge = Bytes::from(vec![0; FRAME_BYTES_MAX + 1]);
        assert_eq!(small.enqueue(Channel(0), huge), Err(SendError::TooLarge));
    }

    #[test]
    fn bulk_prefers_the_path_that_was_heard_last() {
        let remote = remote(Limits::default());
        assert_eq!((remote.bulk_path(0), remote.bulk_path(1)), (Some(Path(0)), Some(Path(1))));
        remote.paths[1].heard.note(Moment::from_ns(5));
        assert_eq!((remote.bulk_path(0), remote.bulk_path(1)), (Some(Path(1)), Some(Path(0))));
        assert_eq!(remote.bulk_path(2), Some(Path(1)));
    }

    #[test]
    fn a_path_is_given_up_for_another_one_only_if_that_one_is_heard() {
        let remote = remote(Limits::default());
        let (now, silence) = (Moment::from_ns(10_000_000_000), Duration::from_secs(1));
        assert!(!remote.is_heard_elsewhere_only(Path(0), now, silence));
        remote.paths[1].heard.note(now);
        assert!(remote.is_heard_elsewhere_only(Path(0), now, silence));
        remote.paths[0].heard.note(now);
        assert!(!remote.is_heard_elsewhere_only(Path(0), now, silence));
    }
}
