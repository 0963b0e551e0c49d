//! When a packet arrived: from the kernel's stamp to a moment. Pure.
//!
//! The kernel stamps each packet with the wall clock as it comes in, however late this process reads it. That stamp
//! becomes an age (wall clock now minus stamp) and the age a [`Moment`], so that a stall of this process doesn't look
//! like silence of the peer. The wall clock may step in between; what bounds the harm is that a packet can't be older
//! than the last time the socket was seen empty ([`arrival`]).
//!
//! Moments made here serve detection and metrics. No lease depends on them: a lease counts from the holder's *send*
//! moment (protocol §3).

use quorum::moment::Moment;
use std::time::Duration;

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
}
