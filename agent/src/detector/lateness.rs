//! How late beats come on one path: a decaying histogram from which the margin α takes its far quantile.

use std::time::Duration;

const STEP: Duration = Duration::from_millis(5);
const STEPS: usize = 256;
/// Samples after which all counts are halved: about a day of beats at 50 ms.
const HALVE_AT: u32 = 1_728_000;
/// Below this many samples a 99.99 % quantile says nothing.
const SAMPLES_MIN: u32 = 20_000;

/// Histogram of lateness against the expected arrival, in steps of 5 ms up to 1.28 s.
#[derive(Clone, Debug)]
pub(super) struct Lateness {
    /// Up to the latest of them: on a quiet path a few steps, and a voter has a thousand peers.
    counts: Vec<u32>,
    total: u32,
}

impl Lateness {
    pub(super) fn new() -> Self {
        Self { counts: Vec::new(), total: 0 }
    }

    /// Records one beat's lateness; early counts as on time.
    pub(super) fn record(&mut self, late: Duration) {
        let step = usize::try_from(late.as_micros() / STEP.as_micros()).unwrap_or(STEPS).min(STEPS - 1);
        if step >= self.counts.len() {
            self.counts.resize(step + 1, 0);
        }
        self.counts[step] += 1;
        self.total += 1;
        if self.total >= HALVE_AT {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().sum();
        }
    }

    /// The lateness that one beat in ten thousand exceeds, rounded up to a step; `None` while samples are few.
    pub(super) fn far_quantile(&self) -> Option<Duration> {
        if self.total < SAMPLES_MIN {
            return None;
        }
        let beyond_max = self.total / 10_000;
        let mut beyond = 0;
        for (step, count) in self.counts.iter().enumerate().rev() {
            beyond += count;
            if beyond > beyond_max {
                return Some(STEP * (u32::try_from(step).unwrap_or(u32::MAX) + 1));
            }
        }
        Some(STEP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_far_quantile_ignores_one_beat_in_ten_thousand() {
        let mut lateness = Lateness::new();
        for n in 0..40_000u32 {
            let late = if n % 20_000 == 0 { 400 } else { 12 };
            lateness.record(Duration::from_millis(late));
        }
        assert_eq!(lateness.far_quantile(), Some(Duration::from_millis(15)));
    }

    #[test]
    fn few_samples_say_nothing() {
        let mut lateness = Lateness::new();
        lateness.record(Duration::from_millis(1));
        assert_eq!(lateness.far_quantile(), None);
    }
}
