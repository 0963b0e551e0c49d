//! A moment of one machine, read from two clocks at once.
//!
//! Protocol §1: elapsed time is read from CLOCK_BOOTTIME (which counts suspend but is slewed by time
//! synchronisation) and from CLOCK_MONOTONIC_RAW (never slewed, but skips suspend), sampled as a pair in the same
//! boot. Who *holds* a right must assume that more time has passed, who *waits* for a right to end that less has.
//! A `Moment` is never sent to another machine and never compared with one of another machine.
//!
//! Not here: reading the clocks (the agent's `driver::clock`, the simulator's world).

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A reading of both clocks of this machine, in nanoseconds since its boot.
///
/// Ordered by the BOOTTIME half; use [`Moment::held_since`] and [`Moment::waited_since`] for anything that carries
/// a safety argument.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Moment {
    /// CLOCK_BOOTTIME in nanoseconds.
    pub boot_ns: u64,
    /// CLOCK_MONOTONIC_RAW in nanoseconds.
    pub raw_ns: u64,
}

impl Moment {
    /// A moment at which both clocks read `ns`.
    pub const fn from_ns(ns: u64) -> Self {
        Self { boot_ns: ns, raw_ns: ns }
    }

    /// Time since `earlier` as a *holder* of a right must count it: the larger of both clocks' differences.
    ///
    /// Zero if `earlier` is not earlier on either clock.
    pub fn held_since(self, earlier: Self) -> Duration {
        let boot = self.boot_ns.saturating_sub(earlier.boot_ns);
        let raw = self.raw_ns.saturating_sub(earlier.raw_ns);
        Duration::from_nanos(boot.max(raw))
    }

    /// Time since `earlier` as one who *waits* for a right to end must count it: the smaller of both differences.
    ///
    /// Zero if `earlier` is not earlier on one of the clocks.
    pub fn waited_since(self, earlier: Self) -> Duration {
        let boot = self.boot_ns.saturating_sub(earlier.boot_ns);
        let raw = self.raw_ns.saturating_sub(earlier.raw_ns);
        Duration::from_nanos(boot.min(raw))
    }

    /// The moment `span` after this one, on both clocks (saturating).
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        let ns = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Self { boot_ns: self.boot_ns.saturating_add(ns), raw_ns: self.raw_ns.saturating_add(ns) }
    }

    /// The moment `span` before this one, on both clocks (saturating at zero).
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        let ns = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Self { boot_ns: self.boot_ns.saturating_sub(ns), raw_ns: self.raw_ns.saturating_sub(ns) }
    }

    /// Whether *either* clock has reached `deadline`: the test of one who holds a right until `deadline`.
    pub fn either_reached(self, deadline: Self) -> bool {
        self.boot_ns >= deadline.boot_ns || self.raw_ns >= deadline.raw_ns
    }

    /// Whether *both* clocks have reached `deadline`: the test of one who waits until `deadline`.
    pub fn both_reached(self, deadline: Self) -> bool {
        self.boot_ns >= deadline.boot_ns && self.raw_ns >= deadline.raw_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUSPENDED: Moment = Moment { boot_ns: 9_000, raw_ns: 4_000 };

    #[test]
    fn a_holder_counts_the_larger_and_a_waiter_the_smaller_difference() {
        let start = Moment::from_ns(1_000);
        assert_eq!(SUSPENDED.held_since(start), Duration::from_nanos(8_000));
        assert_eq!(SUSPENDED.waited_since(start), Duration::from_nanos(3_000));
    }

    #[test]
    fn a_deadline_binds_the_holder_as_soon_as_one_clock_passes_and_frees_the_waiter_only_when_both_do() {
        let deadline = Moment::from_ns(5_000);
        assert!(SUSPENDED.either_reached(deadline));
        assert!(!SUSPENDED.both_reached(deadline));
    }

    #[test]
    fn a_clock_that_ran_backwards_counts_as_no_time() {
        assert_eq!(Moment::from_ns(1).held_since(Moment::from_ns(2)), Duration::ZERO);
    }
}
