//! How late the chassis itself is: the machine under a lab may stall, and then nothing it shows is proof. Pure.
//!
//! Contract: a run in which the chassis was once later than its margin is invalid for ever, whatever happens next.

use std::time::Duration;

/// A chassis' own lateness. All moments are CLOCK_BOOTTIME in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lateness {
    /// When it wanted to be awake at the latest.
    expected_ns: Option<u64>,
    worst_ns: u64,
    invalid_ns: Option<u64>,
}

impl Lateness {
    /// The chassis goes to sleep until `ns` at the latest.
    pub(super) fn expect(&mut self, ns: u64) {
        self.expected_ns = Some(ns);
    }

    /// What follows takes as long as it takes: a host being started or killed isn't a stall.
    pub(super) fn forgive(&mut self) {
        self.expected_ns = None;
    }

    /// The chassis is awake at `now_ns`. Gives the stall in milliseconds if that makes the run invalid now.
    pub(super) fn awake(&mut self, now_ns: u64, margin: Duration) -> Option<u64> {
        let late = now_ns.saturating_sub(self.expected_ns.take()?);
        self.note(late, margin)
    }

    /// Something that hardware does at once took `late_ns`.
    pub(super) fn note(&mut self, late_ns: u64, margin: Duration) -> Option<u64> {
        self.worst_ns = self.worst_ns.max(late_ns);
        if u128::from(late_ns) <= margin.as_nanos() {
            return None;
        }
        let worse = self.invalid_ns.is_none_or(|before| late_ns > before);
        self.invalid_ns = self.invalid_ns.max(Some(late_ns));
        worse.then_some(late_ns / 1_000_000)
    }

    /// The worst lateness seen, in milliseconds.
    pub(super) fn worst_ms(&self) -> f64 {
        self.worst_ns as f64 / 1e6
    }

    /// Why the run proves nothing.
    pub(super) fn invalid(&self) -> Option<String> {
        self.invalid_ns.map(|ns| format!("invalid: host stalled {} ms", ns / 1_000_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const MARGIN: Duration = Duration::from_millis(100);

    #[test]
    fn a_stall_beyond_the_margin_makes_the_run_invalid_for_ever() {
        let mut lateness = Lateness::default();
        lateness.expect(100 * MS);
        assert_eq!(lateness.awake(200 * MS, MARGIN), None);
        lateness.expect(300 * MS);
        assert_eq!(lateness.awake(550 * MS, MARGIN), Some(250));
        lateness.expect(600 * MS);
        assert_eq!(lateness.awake(600 * MS, MARGIN), None);
        assert_eq!(lateness.invalid().as_deref(), Some("invalid: host stalled 250 ms"));
    }

    #[test]
    fn a_forgiven_span_is_no_stall() {
        let mut lateness = Lateness::default();
        lateness.expect(100 * MS);
        lateness.forgive();
        assert_eq!(lateness.awake(900 * MS, MARGIN), None);
        assert_eq!(lateness.invalid(), None);
    }
}
