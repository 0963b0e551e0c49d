//! A host's two clocks against the world's real time.

use quorum::moment::Moment;

/// Where a host's clocks stand in one boot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// Real time of the boot.
    born_ns: u64,
    /// How fast both clocks run against real time, in parts per million off.
    rate_ppm: i64,
}

/// Both clocks start here, so that nothing rests on zero.
const FIRST_NS: u64 = 1_000_000_000;

impl Clock {
    pub(super) fn new(born_ns: u64, rate_ppm: i64) -> Self {
        Self { born_ns, rate_ppm }
    }

    /// What the host reads at this real time.
    pub(super) fn read(&self, real_ns: u64) -> Moment {
        let elapsed = i128::from(real_ns.saturating_sub(self.born_ns));
        let shown = elapsed + elapsed * i128::from(self.rate_ppm) / 1_000_000;
        Moment::from_ns(FIRST_NS + u64::try_from(shown.max(0)).unwrap_or(u64::MAX))
    }

    /// The real time at which the host's clock has reached `moment`, rounded up.
    pub(super) fn real_at(&self, moment: Moment) -> u64 {
        let shown = i128::from(moment.boot_ns.saturating_sub(FIRST_NS));
        let rate = 1_000_000 + i128::from(self.rate_ppm);
        let elapsed = (shown * 1_000_000 + rate - 1) / rate;
        self.born_ns.saturating_add(u64::try_from(elapsed.max(0)).unwrap_or(u64::MAX)).saturating_add(1)
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
}
