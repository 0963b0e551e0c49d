//! When the next beat of one peer on one path is expected: the two-window estimator.
//!
//! Each window gives an expected arrival: the mean of `arrival − Δ·sequence` over the window, plus Δ times the next
//! sequence number. The window of one beat follows sudden changes of the path's delay, the window of a thousand
//! ignores a single late beat; the later of both counts, so neither alone can accuse.
//! Source: A. Tomsic et al., "2W-FD: A Failure Detector Algorithm with QoS", IPDPS 2015.
//!
//! The long window assumes beats that are Δ apart. Hastened ones aren't: each has all later ones come sooner than their
//! numbers say, and a window full of them would expect the next beat seconds late. What the last few beats agree on bounds
//! it.

use super::lateness::Lateness;
use quorum::moment::Moment;
use std::time::Duration;

/// Beats of one part of the long window.
const PART: usize = 64;

/// Parts of the long window, with the one under way: 961 to 1,024 beats.
const PARTS: usize = 16;

/// So many of the last beats together are no accident.
const RECENT: usize = 8;

/// The beats of one peer on one path in one life of the peer's agent.
#[derive(Clone, Debug)]
pub struct Arrivals {
    every_ns: u64,
    offsets: Offsets,
    last: Option<(u64, Moment)>,
    fresh_in_a_row: u32,
    lateness: Lateness,
    lost: u64,
}

/// `arrival − Δ·sequence` of the last beats.
#[derive(Clone, Debug, Default)]
struct Offsets {
    /// That of the first beat, in nanoseconds of BOOTTIME.
    base_ns: i64,
    /// Beats since then.
    count: usize,
    /// How much more it was for the last few, in microseconds; the newest one at `count - 1`, round and round.
    recent: [i32; RECENT],
    /// The sums of the same over each part, round and round.
    parts: [i64; PARTS],
}

impl Offsets {
    fn note(&mut self, offset_ns: i64) {
        let offset = match i32::try_from(offset_ns.saturating_sub(self.base_ns) / 1_000) {
            Ok(offset) if self.count > 0 => offset,
            // The first one; or half an hour from all others, which then say nothing about the next.
            _ => {
                *self = Self { base_ns: offset_ns, ..Self::default() };
                0
            }
        };
        self.recent[self.count % RECENT] = offset;
        let part = &mut self.parts[self.count / PART % PARTS];
        if self.count.is_multiple_of(PART) {
            *part = 0;
        }
        *part += i64::from(offset);
        self.count += 1;
    }

    /// The mean over the long window, in nanoseconds of BOOTTIME.
    fn whole_ns(&self) -> i64 {
        let before = self.count.saturating_sub(1);
        let complete = (before / PART).min(PARTS - 1);
        self.mean_ns(self.parts.iter().sum(), complete * PART + before % PART + 1)
    }

    /// The mean over the last few beats.
    fn recent_ns(&self) -> i64 {
        let len = self.count.min(RECENT);
        self.mean_ns(self.recent[..len].iter().copied().map(i64::from).sum(), len)
    }

    fn mean_ns(&self, sum: i64, len: usize) -> i64 {
        let mean = sum * 1_000 / i64::try_from(len.max(1)).unwrap_or(1);
        self.base_ns.saturating_add(mean)
    }
}

impl Arrivals {
    /// No beat heard yet; the peer's beats are `every` apart.
    pub fn new(every: Duration) -> Self {
        Self {
            every_ns: u64::try_from(every.as_nanos()).unwrap_or(u64::MAX),
            offsets: Offsets::default(),
            last: None,
            fresh_in_a_row: 0,
            lateness: Lateness::new(),
            lost: 0,
        }
    }

    /// Takes a beat with sequence number `seq` that the kernel received `at`. Returns false for a duplicate or an
    /// older one, which is counted as nothing.
    pub fn heard(&mut self, seq: u64, at: Moment) -> bool {
        if self.last.is_some_and(|(last, _)| seq <= last) {
            return false;
        }
        if let Some(expected) = self.expected() {
            let late = at.boot_ns.saturating_sub(expected.boot_ns);
            self.lateness.record(Duration::from_nanos(late));
        }
        if let Some((last, _)) = self.last {
            self.lost = self.lost.saturating_add(seq - last - 1);
        }
        let offset = i64::try_from(at.boot_ns).unwrap_or(i64::MAX)
            - i64::try_from(self.every_ns.saturating_mul(seq)).unwrap_or(i64::MAX);
        self.offsets.note(offset);
        self.fresh_in_a_row = self.fresh_in_a_row.saturating_add(1);
        self.last = Some((seq, at));
        true
    }

    /// The path fell silent: three fresh beats are needed again.
    pub fn silenced(&mut self) {
        self.fresh_in_a_row = 0;
    }

    /// Beats heard in a row since the last silence.
    pub fn fresh_in_a_row(&self) -> u32 {
        self.fresh_in_a_row
    }

    /// The last beat's sequence number and when the kernel received it.
    pub fn last(&self) -> Option<(u64, Moment)> {
        self.last
    }

    /// Beats that the sequence numbers say were sent and that never came.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// One beat in ten thousand is later than this; `None` while samples are few.
    pub fn far_lateness(&self) -> Option<Duration> {
        self.lateness.far_quantile()
    }

    /// The later of both windows' expectations of the next beat; `None` before the first.
    pub fn expected(&self) -> Option<Moment> {
        let (seq, at) = self.last?;
        let short = at.plus(Duration::from_nanos(self.every_ns));
        // A peer chooses its numbers.
        let every = i128::from(self.every_ns);
        let (whole, recent) = (i128::from(self.offsets.whole_ns()), i128::from(self.offsets.recent_ns()));
        let long = whole.min(recent + every) + every * (i128::from(seq) + 1);
        let long = u64::try_from(long).unwrap_or_default();
        Some(short.plus(Duration::from_nanos(long.saturating_sub(short.boot_ns))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_millis(50);

    fn ms(ms: u64) -> Moment {
        Moment::from_ns(ms * 1_000_000)
    }

    #[test]
    fn a_peer_that_makes_up_its_numbers_is_expected_at_some_moment() {
        for seq in [u64::MAX, u64::MAX - 1, u64::MAX / 2] {
            let mut arrivals = Arrivals::new(EVERY);
            arrivals.heard(1, ms(10_050));
            assert!(arrivals.heard(seq, ms(10_100)), "{seq}");
            let expected = arrivals.expected().expect("beats were heard");
            assert!((ms(10_150)..=ms(10_200)).contains(&expected), "{seq}: {expected:?}");
            assert!(!arrivals.heard(2, ms(10_150)), "an older one");
        }
    }

    #[test]
    fn the_later_of_both_windows_is_expected() {
        let mut arrivals = Arrivals::new(EVERY);
        for seq in 1..=100 {
            arrivals.heard(seq, ms(10_000 + seq * 50));
        }
        assert_eq!(arrivals.expected(), Some(ms(15_050)));
        // One beat 40 ms early must not pull the expectation forward.
        arrivals.heard(101, ms(15_010));
        let expected = arrivals.expected().expect("beats were heard");
        assert!(expected >= ms(15_099), "{expected:?}");
        // A path that became 30 ms slower is followed at once.
        arrivals.heard(102, ms(15_130));
        assert_eq!(arrivals.expected(), Some(ms(15_180)));
    }

    #[test]
    fn beats_that_were_hastened_again_and_again_keep_nobody_from_noticing_the_silence_after_them() {
        let mut arrivals = Arrivals::new(EVERY);
        let mut at = 10_000;
        for seq in 1..=1_000 {
            // Every tenth leaves 40 ms sooner, and those after it follow.
            at += if seq % 10 == 0 { 10 } else { 50 };
            arrivals.heard(seq, ms(at));
        }
        let expected = arrivals.expected().expect("beats were heard");
        assert!(expected >= ms(at + 50) && expected <= ms(at + 140), "{expected:?} after {at}");
    }

    #[test]
    fn beats_from_before_a_jump_of_hours_say_nothing_about_the_next() {
        let mut arrivals = Arrivals::new(EVERY);
        for seq in 1..=100 {
            arrivals.heard(seq, ms(10_000 + seq * 50));
        }
        // The observer was suspended; beats that were counted on meanwhile were never sent.
        for seq in 101..=103 {
            arrivals.heard(seq, ms(10_000_000 + seq * 50));
        }
        assert_eq!(arrivals.expected(), Some(ms(10_005_200)));
        // A peer that counts on without sending: its beats come hours before their numbers.
        arrivals.heard(1_000_000, ms(10_005_200));
        assert_eq!(arrivals.expected(), Some(ms(10_005_250)));
    }

    #[test]
    fn a_thousand_beats_are_remembered_and_those_before_them_forgotten() {
        let mut arrivals = Arrivals::new(EVERY);
        for seq in 1..=700 {
            arrivals.heard(seq, ms(10_030 + seq * 50));
        }
        // From now on the path is 30 ms faster. A single old beat that counts has the next one expected later.
        let mut forgotten = None;
        for beat in 1..=2_000 {
            arrivals.heard(700 + beat, ms(45_000 + beat * 50));
            if forgotten.is_none() && arrivals.expected() == Some(ms(45_050 + beat * 50)) {
                forgotten = Some(beat);
            }
        }
        let forgotten = forgotten.expect("in the end");
        assert!((961..=1_024).contains(&forgotten), "{forgotten}");
    }

    #[test]
    fn duplicates_and_reordered_beats_count_for_nothing() {
        let mut arrivals = Arrivals::new(EVERY);
        assert!(arrivals.heard(5, ms(1_000)));
        assert!(!arrivals.heard(5, ms(1_001)));
        assert!(!arrivals.heard(4, ms(1_002)));
        assert!(arrivals.heard(8, ms(1_150)));
        assert_eq!((arrivals.lost(), arrivals.fresh_in_a_row()), (2, 2));
    }
}
