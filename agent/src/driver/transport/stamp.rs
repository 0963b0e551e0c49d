//! When a datagram arrived: from the kernel's stamps of packets to the moments of the datagrams within them. Pure.
//!
//! The kernel stamps each packet with the wall clock as it comes in, however late this process reads it. That stamp
//! becomes an age (wall clock now minus stamp) and the age a [`Moment`], so that a stall of this process doesn't look
//! like silence of the peer. The wall clock may step in between; what bounds the harm is that a packet can't be older
//! than the last time the socket was seen empty ([`arrival`]).
//!
//! QUIC hands out datagrams without saying which packet carried them. The packets of one connection are kept apart by
//! their connection id ([`ArrivalLog`] is one connection's), and a datagram fits only into a packet that is long
//! enough; matching runs backwards from the newest, so that a packet without a datagram (an acknowledgement, or one
//! that somebody forged) never shifts the moments of the following beats.
//!
//! Moments made here serve detection and metrics. No lease depends on them: a lease counts from the holder's *send*
//! moment (protocol §3).

use quorum::moment::Moment;
use std::collections::VecDeque;
use std::time::Duration;

/// Packets remembered for each connection: more than one reading of the socket delivers of one peer's beats.
const PACKETS_MAX: usize = 64;

/// Bytes that QUIC adds to a datagram, at least: flags 1, connection id 8, packet number 1, frame type 1, seal 16.
const OVERHEAD_BYTES_MIN: usize = 27;

/// Both of this machine's clocks and its wall clock, read together.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// Both clocks.
    pub now: Moment,
    /// Nanoseconds since 1970.
    pub wall_ns: u64,
}

/// When a packet stamped `stamp_ns` (wall clock, nanoseconds since 1970) arrived, read at `reading` from a socket that
/// was last seen empty at `empty_at`. `None` for the stamp gives the moment of reading.
pub fn arrival(stamp_ns: Option<u64>, reading: Reading, empty_at: Moment) -> Moment {
    // A stamp of the future means that the wall clock was set back: the age is unknown, the packet counts as just read.
    let age = Duration::from_nanos(stamp_ns.map_or(0, |stamp| reading.wall_ns.saturating_sub(stamp)));
    let at = reading.now.minus(age);
    Moment { boot_ns: at.boot_ns.max(empty_at.boot_ns), raw_ns: at.raw_ns.max(empty_at.raw_ns) }
}

#[derive(Clone, Copy, Debug)]
struct Packet {
    at: Moment,
    bytes: usize,
}

/// The packets of one connection that came in since datagrams were last taken out.
#[derive(Debug, Default)]
pub struct ArrivalLog {
    packets: VecDeque<Packet>,
}

impl ArrivalLog {
    /// A packet of `bytes` arrived at `at`. Beyond a bound the oldest is forgotten.
    pub fn record(&mut self, at: Moment, bytes: usize) {
        if self.packets.len() == PACKETS_MAX {
            self.packets.pop_front();
        }
        self.packets.push_back(Packet { at, bytes });
    }

    /// When each of these datagrams (their lengths, in the order of their arrival, all that are there) came in.
    /// `read_at` stands for those that no remembered packet can have carried. Forgets all packets.
    pub fn take(&mut self, lengths: &[usize], read_at: Moment) -> Vec<Moment> {
        let mut packets = std::mem::take(&mut self.packets);
        let mut moments = vec![read_at; lengths.len()];
        let mut following = read_at;
        for (moment, length) in moments.iter_mut().zip(lengths).rev() {
            while packets.back().is_some_and(|p| p.bytes < length + OVERHEAD_BYTES_MIN) {
                packets.pop_back();
            }
            // Without a packet of its own it came in the one that carried its follower.
            *moment = packets.pop_back().map_or(following, |p| p.at);
            following = *moment;
        }
        moments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(ms: u64) -> Moment {
        Moment::from_ns(ms * 1_000_000)
    }

    #[test]
    fn a_packet_read_late_counts_from_its_stamp() {
        let reading = Reading { now: at(5_000), wall_ns: 100 * SECOND };
        assert_eq!(arrival(Some(100 * SECOND - 300_000_000), reading, at(0)), at(4_700));
        assert_eq!(arrival(None, reading, at(0)), at(5_000));
    }

    #[test]
    fn a_stepped_wall_clock_moves_an_arrival_no_further_than_to_when_the_socket_was_empty() {
        let reading = Reading { now: at(5_000), wall_ns: 100 * SECOND };
        assert_eq!(arrival(Some(10 * SECOND), reading, at(4_960)), at(4_960));
        assert_eq!(arrival(Some(200 * SECOND), reading, at(4_960)), at(5_000));
    }

    #[test]
    fn a_suspended_machine_keeps_its_two_clocks_apart() {
        let now = Moment { boot_ns: 10 * SECOND, raw_ns: 4 * SECOND };
        let empty = Moment { boot_ns: 2 * SECOND, raw_ns: 3 * SECOND };
        let late = arrival(Some(95 * SECOND), Reading { now, wall_ns: 100 * SECOND }, empty);
        assert_eq!(late, Moment { boot_ns: 5 * SECOND, raw_ns: 3 * SECOND });
    }

    #[test]
    fn beats_read_together_after_a_stall_keep_their_own_moments() {
        let mut log = ArrivalLog::default();
        for beat in 0..5 {
            log.record(at(beat * 50), 130);
            log.record(at(beat * 50 + 1), 30);
        }
        assert_eq!(log.take(&[100; 5], at(400)), [at(0), at(50), at(100), at(150), at(200)]);
    }

    #[test]
    fn a_packet_without_a_datagram_shifts_nothing() {
        let mut log = ArrivalLog::default();
        log.record(at(0), 130);
        log.record(at(10), 130);
        assert_eq!(log.take(&[100], at(50)), [at(10)], "one of both was forged or lost; the newest is meant");
        log.record(at(60), 130);
        assert_eq!(log.take(&[100], at(90)), [at(60)], "nothing is left over from before");
    }

    #[test]
    fn datagrams_of_one_packet_share_its_moment() {
        let mut log = ArrivalLog::default();
        log.record(at(7), 260);
        assert_eq!(log.take(&[100, 100], at(9)), [at(7), at(7)]);
    }

    #[test]
    fn a_datagram_without_a_packet_counts_from_its_reading() {
        let mut log = ArrivalLog::default();
        log.record(at(1), 40);
        assert_eq!(log.take(&[100], at(9)), [at(9)]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut log = ArrivalLog::default();
        for packet in 0..10_000 {
            log.record(at(packet), 200);
        }
        assert_eq!(log.packets.len(), PACKETS_MAX);
        assert_eq!(log.take(&[100], at(20_000)), [at(9_999)]);
    }
}
