//! Time as this crate's pure part sees it: how long ago the executor started.
//!
//! Invariant: a `Moment` is only ever compared with another one of the same executor process. It is no wall clock,
//! it is never sent to another machine, and it is never written as a fact that outlives the process.
//! Not here: reading a clock (`executor::clock`), and any safety argument about leases: that is the agent's ledger.
//! What rests on a `Moment` here is only "a settle time apart" and "not past the deadline".

use serde::Serialize;
use std::time::Duration;

/// Time since the executor started, monotonic, not counting suspend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Moment(Duration);

impl Moment {
    /// The moment `since_start` after the executor started.
    pub const fn at(since_start: Duration) -> Self {
        Self(since_start)
    }

    /// The moment `ms` milliseconds after the executor started.
    pub const fn from_millis(ms: u64) -> Self {
        Self(Duration::from_millis(ms))
    }

    /// Time since the executor started.
    pub const fn since_start(self) -> Duration {
        self.0
    }

    /// Time since `earlier`; zero if that isn't earlier.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// The moment `span` after this one (saturating).
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_since_a_later_moment_is_zero() {
        assert_eq!(Moment::from_millis(5).since(Moment::from_millis(9)), Duration::ZERO);
        assert_eq!(Moment::from_millis(9).since(Moment::from_millis(5)), Duration::from_millis(4));
    }
}
