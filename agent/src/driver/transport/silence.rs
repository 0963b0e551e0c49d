//! How long the other end has been silent in spite of being spoken to. Pure.
//!
//! QUIC itself waits out its idle timeout and meanwhile probes ever more slowly; two cheap counters tell earlier. A late
//! look (this process was stopped or starved) starts over: what the peer said meanwhile may still lie unread.

use super::drive::Connection;
use quorum::moment::Moment;
use std::time::Duration;

/// What is known of one connection.
#[derive(Clone, Debug)]
pub(super) struct Silence {
    received: u64,
    /// What had been sent when something was last received.
    sent_then: u64,
    since: Moment,
    looked: Moment,
}

/// Counters of a connection: packets received, and frames sent that ask for an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Traffic {
    pub(super) received: u64,
    pub(super) asked: u64,
}

impl Traffic {
    pub(super) fn of(connection: &Connection) -> Self {
        let stats = connection.stats();
        let sent = stats.frame_tx;
        let asked = sent.datagram + sent.stream + sent.ping + sent.crypto + sent.max_data + sent.max_stream_data;
        Self { received: stats.udp_rx.datagrams, asked }
    }
}

impl Silence {
    /// Nothing is known before `now`.
    pub(super) fn new(now: Moment, traffic: Traffic) -> Self {
        Self { received: traffic.received, sent_then: traffic.asked, since: now, looked: now }
    }

    /// Looks again, `period` after the last look if all went well; answers how long questions have been unanswered.
    pub(super) fn look(&mut self, now: Moment, traffic: Traffic, period: Duration) -> Duration {
        let late = now.held_since(self.looked) > period * 3;
        self.looked = now;
        if late || traffic.received != self.received || traffic.asked == self.sent_then {
            (self.received, self.since) = (traffic.received, now);
            self.sent_then = traffic.asked;
        }
        now.waited_since(self.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_millis(100);

    fn at(ms: u64) -> Moment {
        Moment::from_ns(ms * 1_000_000)
    }

    fn look(silence: &mut Silence, ms: u64, received: u64, asked: u64) -> u128 {
        silence.look(at(ms), Traffic { received, asked }, PERIOD).as_millis()
    }

    #[test]
    fn silence_counts_only_while_something_was_asked() {
        let mut silence = Silence::new(at(0), Traffic { received: 0, asked: 0 });
        assert_eq!(look(&mut silence, 100, 0, 0), 0);
        assert_eq!(look(&mut silence, 200, 0, 0), 0);
        assert_eq!(look(&mut silence, 300, 0, 1), 100);
        assert_eq!(look(&mut silence, 400, 0, 5), 200);
        assert_eq!(look(&mut silence, 500, 1, 6), 0, "an answer ends it");
        assert_eq!(look(&mut silence, 600, 1, 7), 100);
    }

    #[test]
    fn a_late_look_starts_over() {
        let mut silence = Silence::new(at(0), Traffic { received: 0, asked: 0 });
        assert_eq!(look(&mut silence, 100, 0, 1), 100);
        assert_eq!(look(&mut silence, 5_000, 0, 90), 0, "this process was stopped, not the peer");
        assert_eq!(look(&mut silence, 5_100, 0, 91), 100);
    }
}
