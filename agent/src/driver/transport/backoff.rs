//! How long to wait before dialling again: doubling, jittered, bounded. Pure: the randomness is given.
//!
//! After a common cause (a router, a site) thousands of peers dial at once; jitter spreads them. The bound keeps a
//! returning host's wait short: the slowest dialler tries again within [`Backoff::LONGEST`].

use std::time::Duration;

/// The waits of one dialler.
#[derive(Clone, Debug)]
pub struct Backoff {
    step: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { step: Self::SHORTEST }
    }
}

impl Backoff {
    /// The first step.
    pub const SHORTEST: Duration = Duration::from_millis(50);
    /// The last step.
    pub const LONGEST: Duration = Duration::from_secs(2);

    /// The next wait: between half of the present step and all of it, as `random` says; then the step doubles.
    pub fn next(&mut self, random: u32) -> Duration {
        let half = self.step / 2;
        self.step = (self.step * 2).min(Self::LONGEST);
        half + half.mul_f64(f64::from(random) / f64::from(u32::MAX))
    }

    /// Starts over: the last connection held for a while.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_from_the_shortest_to_the_longest_and_stay_there() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..8).map(|_| backoff.next(u32::MAX).as_millis()).collect();
        assert_eq!(waits, [50, 100, 200, 400, 800, 1600, 2000, 2000]);
        backoff.reset();
        assert_eq!(backoff.next(u32::MAX), Backoff::SHORTEST);
    }

    #[test]
    fn jitter_takes_up_to_half_of_a_step_off() {
        assert_eq!(Backoff::default().next(0), Backoff::SHORTEST / 2);
        let mut late = Backoff::default();
        (0..10).for_each(|_| _ = late.next(0));
        assert_eq!(late.next(0), Backoff::LONGEST / 2);
    }
}
