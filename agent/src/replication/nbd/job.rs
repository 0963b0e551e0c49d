//! What QEMU's mirror job says, and what that means for the mirror. Pure.
//!
//! QEMU has no word for "the other side is away": requests just take longer. So it is inferred: bytes are pending and none
//! was taken for a while. A write-blocking job counts a write as pending from its beginning, so nothing that a guest
//! waits for is missed.

use crate::replication::MirrorState;
use serde::Deserialize;
use std::time::{Duration, Instant};

/// A job as `query-jobs` shows it.
#[derive(Clone, Debug, Deserialize)]
pub struct Job {
    /// Its id.
    pub id: String,
    /// Its state.
    pub status: String,
    /// Bytes done.
    #[serde(rename = "current-progress")]
    pub current: u64,
    /// Bytes known to be done in all.
    #[serde(rename = "total-progress")]
    pub total: u64,
    /// Why it ended.
    #[serde(default)]
    pub error: Option<String>,
}

impl Job {
    /// True once the job does nothing any more and only waits to be dismissed.
    pub fn is_over(&self) -> bool {
        self.status == "concluded"
    }

    /// True once everything was copied; from then on the job only follows.
    fn is_whole(&self) -> bool {
        matches!(self.status.as_str(), "ready" | "standby")
    }

    pub(super) fn pending(&self) -> u64 {
        self.total.saturating_sub(self.current)
    }
}

/// Watches one job's progress from look to look.
#[derive(Debug, Default)]
pub struct Tracker {
    seen: Option<Seen>,
}

#[derive(Debug)]
struct Seen {
    id: String,
    current: u64,
    /// When it was last seen to have taken something, or to have nothing to take.
    moved: Instant,
    /// When nothing was pending last; none if that was never seen.
    even: Option<Instant>,
}

impl Tracker {
    /// What the mirror is like, given the job seen now (none: there is no such job).
    pub fn look(&mut self, job: Option<&Job>, now: Instant, stall: Duration) -> MirrorState {
        let Some(job) = job else {
            self.seen = None;
            return MirrorState::Detached { because: None };
        };
        if job.is_over() {
            self.seen = None;
            let because = job.error.clone().unwrap_or_else(|| "the mirror job ended".into());
            return MirrorState::Detached { because: Some(because) };
        }
        let pending_bytes = job.pending();
        let seen = self.follow(job, now);
        let still = now.saturating_duration_since(seen.moved);
        if still >= stall && pending_bytes > 0 {
            return MirrorState::Away { since: still, pending_bytes, was_whole: job.is_whole() };
        }
        if !job.is_whole() {
            return MirrorState::Copying { done_bytes: job.current, total_bytes: job.total };
        }
        MirrorState::Synced { pending_bytes, behind: seen.even.map(|even| now.saturating_duration_since(even)) }
    }

    fn follow(&mut self, job: &Job, now: Instant) -> &Seen {
        let fresh = || Seen { id: job.id.clone(), current: job.current, moved: now, even: None };
        let seen = self.seen.get_or_insert_with(fresh);
        if seen.id != job.id {
            *seen = fresh();
        }
        if job.current != seen.current || job.pending() == 0 {
            (seen.current, seen.moved) = (job.current, now);
        }
        if job.pending() == 0 {
            seen.even = Some(now);
        }
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALL: Duration = Duration::from_millis(300);

    fn job(status: &str, current: u64, total: u64) -> Job {
        Job { id: "m".into(), status: status.into(), current, total, error: None }
    }

    #[test]
    fn a_mirror_is_away_only_when_something_waits_and_nothing_moves() {
        let mut tracker = Tracker::default();
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let even = |state: &MirrorState| matches!(state, MirrorState::Synced { pending_bytes: 0, .. });
        // Idle for an hour: nothing waits, so nothing is wrong.
        assert!(even(&tracker.look(Some(&job("ready", 10, 10)), at(0), STALL)));
        assert!(even(&tracker.look(Some(&job("ready", 10, 10)), at(3_600_000), STALL)));
        // A write begins: it has the stall from then on.
        let mut now = 3_600_010;
        let state = tracker.look(Some(&job("ready", 10, 14)), at(now), STALL);
        assert_eq!(state, MirrorState::Synced { pending_bytes: 4, behind: Some(Duration::from_millis(10)) });
        now += 299;
        let state = tracker.look(Some(&job("ready", 10, 14)), at(now), STALL);
        assert!(matches!(state, MirrorState::Away { was_whole: true, .. }), "{state:?}");
        // Something is taken: it is back, though not yet even.
        let state = tracker.look(Some(&job("ready", 12, 14)), at(now + 1), STALL);
        assert!(matches!(state, MirrorState::Synced { pending_bytes: 2, .. }), "{state:?}");
    }

    #[test]
    fn a_lag_that_was_never_seen_even_is_unknown_and_not_zero() {
        let mut tracker = Tracker::default();
        let state = tracker.look(Some(&job("ready", 10, 14)), Instant::now(), STALL);
        assert_eq!(state, MirrorState::Synced { pending_bytes: 4, behind: None });
    }

    #[test]
    fn a_job_that_ended_is_detached_and_says_why() {
        let mut tracker = Tracker::default();
        let over = Job { error: Some("Input/output error".into()), ..job("concluded", 1, 2) };
        let state = tracker.look(Some(&over), Instant::now(), STALL);
        assert_eq!(state, MirrorState::Detached { because: Some("Input/output error".into()) });
        assert_eq!(tracker.look(None, Instant::now(), STALL), MirrorState::Detached { because: None });
    }

    #[test]
    fn a_copy_that_hangs_is_away_too() {
        let mut tracker = Tracker::default();
        let start = Instant::now();
        let copying = tracker.look(Some(&job("running", 5, 100)), start, STALL);
        assert_eq!(copying, MirrorState::Copying { done_bytes: 5, total_bytes: 100 });
        let away = tracker.look(Some(&job("running", 5, 100)), start + STALL, STALL);
        assert!(matches!(away, MirrorState::Away { was_whole: false, .. }), "{away:?}");
    }
}
