//! Attempts that let the workload stand still for nothing: each makes the next one wait longer.
//!
//! QEMU's main loop waits while it connects to a standby that went silent, and the guest waits in a last round that isn't
//! taken. On a path that loses much, attempts every few seconds would cost more than the missing copy does.

use std::time::{Duration, Instant};

/// The first wait, doubled with each attempt in vain.
const FIRST: Duration = Duration::from_secs(5);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(300);

/// What the last attempts came to.
#[derive(Debug, Default)]
pub(super) struct Stalls {
    in_vain: u32,
    next: Option<Instant>,
}

impl Stalls {
    /// Whether an attempt may be made now; if not, why and when.
    pub(super) fn may_try(&self, now: Instant) -> Result<(), String> {
        let Some(left) = self.next.map(|next| next.saturating_duration_since(now)).filter(|left| !left.is_zero())
        else {
            return Ok(());
        };
        let (times, left) = (self.in_vain, left.as_secs() + 1);
        Err(format!("{times} attempts in a row let the workload stand still in vain; the next one is in {left} s"))
    }

    /// An attempt failed at a point where the workload waited for it.
    pub(super) fn stalled(&mut self, now: Instant) {
        let wait = FIRST.saturating_mul(1 << self.in_vain.min(8)).min(LONGEST);
        self.in_vain = self.in_vain.saturating_add(1);
        self.next = Some(now + wait);
    }

    /// The mirror follows.
    pub(super) fn followed(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_in_vain_become_rarer_up_to_a_limit_and_a_good_one_ends_that() {
        let start = Instant::now();
        let mut stalls = Stalls::default();
        assert!(stalls.may_try(start).is_ok());
        let mut waits = Vec::new();
        let mut now = start;
        for _ in 0..9 {
            stalls.stalled(now);
            let because = stalls.may_try(now).expect_err("too early");
            assert!(because.contains("stand still"), "{because}");
            let mut wait = 0;
            while stalls.may_try(now + Duration::from_secs(wait)).is_err() {
                wait += 1;
            }
            waits.push(wait);
            now += Duration::from_secs(wait);
        }
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
        stalls.followed();
        assert!(stalls.may_try(now).is_ok());
        stalls.stalled(now);
        assert!(stalls.may_try(now + FIRST).is_ok(), "counted from the beginning");
    }
}
