//! When to tick, and how long this voter waits before it stands for election.
//!
//! raft counts ticks. After a pause of the process it must not count the ticks it missed: a burst of them would make
//! every paused voter stand for election at once, and a leader depose itself for answers that it had no time to read.
//! So there is one tick after a pause, however long (protocol §2).
//!
//! raft's library draws election timeouts from the thread's generator; here they follow from a seed, so that a
//! simulated cluster does the same thing twice.

use super::ready::{Role, Standing};
use crate::id::VoterId;
use crate::moment::Moment;
use std::ops::Range;
use std::time::Duration;

/// Tells when a tick is due.
#[derive(Debug)]
pub struct Ticker {
    period: Duration,
    next: Moment,
}

impl Ticker {
    /// The first tick is due one `period` after `now`.
    ///
    /// # Panics
    /// When `period` is zero.
    pub fn new(period: Duration, now: Moment) -> Self {
        assert!(!period.is_zero(), "a tick takes time");
        Self { period, next: now.plus(period) }
    }

    /// When to ask again.
    pub fn deadline(&self) -> Moment {
        self.next
    }

    /// How many ticks are due: none or one. A tick that comes less than a period late keeps the beat; after a pause
    /// the beat starts anew.
    pub fn ticks_due(&mut self, now: Moment) -> u32 {
        if !now.either_reached(self.next) {
            return 0;
        }
        let on_beat = self.next.plus(self.period);
        self.next = if now.either_reached(on_beat) { now.plus(self.period) } else { on_beat };
        1
    }
}

/// The election timeouts to draw from, if a leader's lease lasts for `lease` ticks. One that ran out as soon would find
/// others that still wait for the leader, and say nothing.
pub(super) fn timeouts(lease: usize) -> Range<usize> {
    let first = if crate::mutants::on("replica.stands_early") { lease } else { lease + 1 };
    first..lease + lease / 2 + 1
}

/// Draws election timeouts.
#[derive(Debug)]
pub(super) struct Jitter {
    state: u64,
    last: Option<(Role, u64)>,
    drawn: usize,
    range: Range<usize>,
}

impl Jitter {
    /// Timeouts in `range` ticks.
    pub(super) fn new(seed: u64, id: VoterId, range: Range<usize>) -> Self {
        Self { state: seed ^ id.0.wrapping_mul(0xD6E8_FEB8_6659_FD93), last: None, drawn: range.start, range }
    }

    /// The timeout in force: another one whenever role or term changed.
    pub(super) fn timeout(&mut self, standing: &Standing, priority: i64) -> usize {
        let now = Some((standing.role, standing.term.0));
        if self.last != now {
            self.last = now;
            let range = self.part(priority);
            let width = (range.end - range.start) as u64;
            self.drawn = range.start + (self.draw() % width) as usize;
        }
        self.drawn
    }

    /// Preferred voters stand in the first third of the range, sick ones in the last. raft's own use of the priority, to
    /// withhold a vote, is turned off: see `votes_priority`.
    fn part(&self, priority: i64) -> Range<usize> {
        let third = (self.range.end - self.range.start).div_ceil(3);
        match priority.signum() {
            1 => self.range.start..self.range.start + third,
            -1 => self.range.end - third..self.range.end,
            _ => self.range.clone(),
        }
    }

    /// SplitMix64: a full period, and neighbouring seeds give unrelated sequences.
    fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Term;

    const MS: u64 = 1_000_000;

    fn at(ms: u64) -> Moment {
        Moment::from_ns(ms * MS)
    }

    #[test]
    fn a_pause_of_any_length_is_one_tick() {
        let mut ticker = Ticker::new(Duration::from_millis(100), at(0));
        assert_eq!(ticker.ticks_due(at(99)), 0);
        assert_eq!(ticker.ticks_due(at(100)), 1);
        assert_eq!(ticker.ticks_due(at(60_000)), 1);
        assert_eq!(ticker.ticks_due(at(60_000)), 0);
        assert_eq!(ticker.ticks_due(at(60_099)), 0);
        assert_eq!(ticker.ticks_due(at(60_100)), 1);
    }

    #[test]
    fn small_lateness_does_not_stretch_the_beat() {
        let mut ticker = Ticker::new(Duration::from_millis(100), at(0));
        let ticks: u32 = (0..=1000).step_by(7).map(|ms| ticker.ticks_due(at(ms))).sum();
        assert_eq!(ticks, 9, "the tenth is due at 1000, and 994 was the last look");
        assert_eq!(ticker.deadline(), at(1000));
    }

    #[test]
    fn timeouts_follow_from_the_seed_and_change_with_role_and_term() {
        let standing = |term| Standing { role: Role::Follower, term: Term(term), leader: None };
        let draws = |seed, id| {
            let mut jitter = Jitter::new(seed, VoterId(id), 10..20);
            (0..50).map(|term| jitter.timeout(&standing(term), 0)).collect::<Vec<_>>()
        };
        assert_eq!(draws(7, 1), draws(7, 1));
        assert_ne!(draws(7, 1), draws(7, 2));
        assert_ne!(draws(7, 1), draws(8, 1));
        assert!(draws(7, 1).iter().all(|ticks| (10..20).contains(ticks)));
        let mut jitter = Jitter::new(1, VoterId(1), 10..20);
        assert_eq!(jitter.timeout(&standing(1), 0), jitter.timeout(&standing(1), 0));
        assert!((0..50).all(|term| jitter.timeout(&standing(term), 1) < 14));
        assert!((50..100).all(|term| jitter.timeout(&standing(term), -1) >= 16));
    }
}
