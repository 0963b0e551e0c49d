//! When the next beat leaves.
//!
//! One schedule per agent: beats to all peers and paths leave in one step, so a step costs one timer. The phase is
//! fixed by the host's place in its site, so that the hosts of a site are staggered over Δ and the site as a whole
//! is sampled Δ/n apart.

use quorum::moment::Moment;
use std::time::Duration;

/// Every how many beats one is padded to the full datagram size (protocol §4).
const PADDED_EVERY: u64 = 16;

/// What is due now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// Sequence number of the beat.
    pub seq: u64,
    /// The beat is padded.
    pub padded: bool,
    /// How late this step is against the schedule: the agent's own lateness, for local health.
    pub late: Duration,
}

/// Beats that are hastened are at least this share of Δ apart.
const HASTENED_APART: u32 = 5;

/// Decides when beats leave.
#[derive(Clone, Debug)]
pub struct Schedule {
    every: Duration,
    next: Option<Moment>,
    /// When the last one left.
    left: Option<Moment>,
    seq: u64,
}

impl Schedule {
    /// A schedule with this beat interval (Δ).
    pub fn new(every: Duration) -> Self {
        Self { every, next: None, left: None, seq: 0 }
    }

    /// When [`Schedule::poll`] wants to be called; `None` before the first call.
    pub fn deadline(&self) -> Option<Moment> {
        self.next
    }

    /// The last sequence number handed out.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Changes Δ; the next beat stays where it is.
    pub fn set_every(&mut self, every: Duration) {
        self.every = every;
    }

    /// Has the next beat leave at once, since it says what can't wait; those after it follow Δ apart. Hastened ones keep a
    /// fifth of Δ between them, whatever there is to say. Observers expect the next few up to Δ too late, which is no
    /// accusation.
    pub fn hasten(&mut self, now: Moment) {
        let (Some(next), Some(left)) = (self.next, self.left) else { return };
        let soonest = left.plus(self.every / HASTENED_APART);
        let at = if now.either_reached(soonest) { now } else { soonest };
        if !at.either_reached(next) {
            self.next = Some(at);
        }
    }

    /// Says what is due at `now`, if anything. After a long pause exactly one beat is due, not the backlog.
    pub fn poll(&mut self, now: Moment) -> Option<Due> {
        let late = match self.next {
            Some(next) if !now.either_reached(next) => return None,
            Some(next) => now.held_since(next),
            None => Duration::ZERO,
        };
        let steady = self.next.filter(|_| late < self.every).map_or(now, |next| next);
        self.next = Some(steady.plus(self.every));
        self.left = Some(now);
        self.seq += 1;
        Some(Due { seq: self.seq, padded: self.seq.is_multiple_of(PADDED_EVERY), late })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Moment {
        Moment::from_ns(1_000_000_000 + ms * 1_000_000)
    }

    #[test]
    fn a_long_pause_ends_in_one_beat_and_tells_its_lateness() {
        let mut schedule = Schedule::new(Duration::from_millis(50));
        schedule.poll(ms(0));
        let due = schedule.poll(ms(2_000)).expect("a beat is due");
        assert_eq!(due.late, Duration::from_millis(1_950));
        assert_eq!(schedule.poll(ms(2_001)), None);
        assert_eq!(schedule.deadline(), Some(ms(2_050)));
    }

    #[test]
    fn a_slightly_late_step_does_not_shift_the_phase() {
        let mut schedule = Schedule::new(Duration::from_millis(50));
        schedule.poll(ms(0));
        schedule.poll(ms(53));
        assert_eq!(schedule.deadline(), Some(ms(100)));
    }

    #[test]
    fn a_hastened_beat_leaves_at_once_and_the_next_one_an_interval_later() {
        let mut schedule = Schedule::new(Duration::from_millis(50));
        schedule.poll(ms(0));
        schedule.hasten(ms(20));
        assert_eq!(schedule.poll(ms(20)).map(|due| (due.seq, due.late)), Some((2, Duration::ZERO)));
        assert_eq!(schedule.deadline(), Some(ms(70)));
        // Never nearer to the last one than a fifth of the interval.
        schedule.hasten(ms(21));
        assert_eq!(schedule.deadline(), Some(ms(30)));
        // What is due anyway isn't put off.
        schedule.hasten(ms(90));
        assert_eq!(schedule.deadline(), Some(ms(30)));
    }
}
