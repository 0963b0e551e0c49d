//! A host's two clocks against the world's real time.

use quorum::moment::Moment;

/// Where a host's clocks stand in one boot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// Real time up to which `shown` counts.
    since_ns: u64,
    /// What both clocks showed then.
    shown: Moment,
    /// How fast both clocks run against real time, in parts per million off.
    rate_ppm: i64,
}

/// Both clocks start here, so that nothing rests on zero.
const FIRST_NS: u64 = 1_000_000_000;
const MILLION: i128 = 1_000_000;

impl Clock {
    pub(super) fn new(born_ns: u64, rate_ppm: i64) -> Self {
        Self { since_ns: born_ns, shown: Moment::from_ns(FIRST_NS), rate_ppm }
    }

    /// What the host reads at this real time.
    pub(super) fn read(&self, real_ns: u64) -> Moment {
        let elapsed = i128::from(real_ns.saturating_sub(self.since_ns));
        let passed = elapsed + elapsed * i128::from(self.rate_ppm) / MILLION;
        let passed = u64::try_from(passed.max(0)).unwrap_or(u64::MAX);
        Moment { boot_ns: self.shown.boot_ns.saturating_add(passed), raw_ns: self.shown.raw_ns.saturating_add(passed) }
    }

    /// The first real time at which either clock has reached `moment`, rounded up.
    pub(super) fn real_at(&self, moment: Moment) -> u64 {
        let left =
            moment.boot_ns.saturating_sub(self.shown.boot_ns).min(moment.raw_ns.saturating_sub(self.shown.raw_ns));
        let rate = MILLION + i128::from(self.rate_ppm);
        let elapsed = (i128::from(left) * MILLION + rate - 1) / rate;
        self.since_ns.saturating_add(u64::try_from(elapsed.max(0)).unwrap_or(u64::MAX)).saturating_add(1)
    }

    /// From this real time on both clocks run at another rate.
    pub(super) fn set_rate(&mut self, real_ns: u64, rate_ppm: i64) {
        *self = Self { since_ns: real_ns, shown: self.read(real_ns), rate_ppm };
    }

    /// The host was suspended until now for `span_ns`: BOOTTIME has counted it, MONOTONIC_RAW hasn't.
    pub(super) fn suspended(&mut self, real_ns: u64, span_ns: u64) {
        let slept = self.read(span_ns.saturating_add(self.since_ns)).boot_ns - self.shown.boot_ns;
        let mut shown = self.read(real_ns);
        shown.raw_ns = shown.raw_ns.saturating_sub(slept);
        *self = Self { since_ns: real_ns, shown, rate_ppm: self.rate_ppm };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_real_time_of_a_reading_is_never_too_early() {
        for rate in [-500, 0, 500] {
            let clock = Clock::new(7_000, rate);
            for real in [7_000, 8_123, 5_000_000_123] {
                let back = clock.real_at(clock.read(real));
                assert!(clock.read(back) >= clock.read(real), "rate {rate} real {real}");
                assert!(back <= real + 3, "rate {rate} real {real} back {back}");
            }
        }
    }

    #[test]
    fn a_suspended_host_counts_the_sleep_on_one_clock_only() {
        let mut clock = Clock::new(0, 100);
        clock.suspended(9_000_000, 4_000_000);
        let now = clock.read(10_000_000);
        assert_eq!(now.boot_ns - FIRST_NS, 10_001_000);
        assert_eq!(now.boot_ns - now.raw_ns, 4_000_400);
    }

    #[test]
    fn another_rate_counts_from_now_on() {
        let mut clock = Clock::new(0, 0);
        clock.set_rate(1_000_000, 1_000);
        assert_eq!(clock.read(2_000_000), Moment::from_ns(FIRST_NS + 2_001_000));
    }
}
