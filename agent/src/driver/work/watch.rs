//! Watches a running workload and its mirrors, and tells what the engine didn't ask for.

use super::build::Built;
use super::data::STALL;
use crate::driver::runtime::Incoming;
use crate::engine::{Sight, Work};
use crate::replication::{MirrorState, Mode};
use crate::workload::Presence;
use std::time::Duration;
use tokio::sync::mpsc;

/// An asynchronous mirror that wasn't seen even for this long is evened out.
const EVEN_WITHIN: Duration = Duration::from_secs(2);
/// The workload stands still for it at most this long: some round trips.
const EVEN_PAUSE_MAX: Duration = Duration::from_millis(400);
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Whether a workload lives, by what is seen of it.
pub(super) struct Life {
    was_running: bool,
}

impl Life {
    /// Before a start nothing has to be there. Whatever else is ordered is ordered of what was seen running: it may end
    /// before it is looked at again.
    pub(super) fn at(work: &Work) -> Self {
        Self { was_running: !matches!(work, Work::Start { .. }) }
    }

    /// Whether it ran and is gone.
    fn is_over(&mut self, seen: &Presence) -> bool {
        self.was_running |= matches!(seen, Presence::Running { .. });
        self.was_running && matches!(seen, Presence::Absent)
    }
}

/// Looks until it is aborted. Tells when a workload that ran has ended; a group one of whose mirrors was seen in step and
/// then isn't is away, which is told once per change.
pub(super) async fn watch(built: &Built, mut life: Life, inbox: &mpsc::Sender<Incoming>) {
    let group = built.config.name.clone();
    let (mut was_synced, mut is_away) = (false, false);
    let mut evening = Evening::default();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let seen = built.workload.observe().await;
        if life.is_over(&seen) {
            let sight = Sight::Exited { because: "its process is gone".into() };
            let _gone = inbox.send(Incoming::Seen(group, sight)).await;
            return;
        }
        if !matches!(seen, Presence::Running { .. }) {
            continue;
        }
        let sight = match mirrors(built, was_synced).await {
            Some(sight @ Sight::Lag { .. }) => {
                (was_synced, is_away) = (true, false);
                Some(sight)
            }
            Some(sight) if !is_away => {
                is_away = true;
                Some(sight)
            }
            Some(_) | None => None,
        };
        if let Some(Sight::Lag { behind, .. }) = &sight {
            evening.follow(built, *behind).await;
        }
        if let Some(sight) = sight
            && inbox.send(Incoming::Seen(group.clone(), sight)).await.is_err()
        {
            return;
        }
    }
}

/// Evens asynchronous mirrors out that are never seen even: under steady writing their lag would be unknown for ever.
#[derive(Default)]
struct Evening {
    failures: u32,
    next: Option<tokio::time::Instant>,
}

impl Evening {
    async fn follow(&mut self, built: &Built, behind: Option<Duration>) {
        let now = tokio::time::Instant::now();
        let is_due = behind.is_none_or(|behind| behind >= EVEN_WITHIN) && self.next.is_none_or(|next| now >= next);
        if !is_due {
            return;
        }
        let mut is_even = true;
        for data in built.data.iter().filter(|data| data.spec.mode == Mode::Async) {
            is_even &= matches!(data.driver.even_out(EVEN_PAUSE_MAX).await, Ok(true));
        }
        self.failures = if is_even { 0 } else { self.failures.saturating_add(1) };
        // A standby that is slow costs the workload ever fewer pauses.
        self.next = Some(now + EVEN_WITHIN.saturating_mul(1 << self.failures.min(5)));
    }
}

/// The group's mirrors taken together: one that is away makes the group's away; all in step, the worst lag counts.
/// `None` while they are being made equal, or can't be asked.
async fn mirrors(built: &Built, was_synced: bool) -> Option<Sight> {
    let mut lag: Option<(Option<Duration>, u64)> = None;
    let mut is_open = false;
    let mut away: Option<Duration> = None;
    for data in &built.data {
        match data.driver.mirror_state(STALL).await {
            Ok(MirrorState::Synced { pending_bytes, behind }) => {
                // What is pending under a synchronous mirror was answered to nobody.
                let behind = if data.spec.mode == Mode::Sync { Some(Duration::ZERO) } else { behind };
                let (worst, bytes) = lag.unwrap_or((Some(Duration::ZERO), 0));
                lag = Some((worst.zip(behind).map(|(worst, behind)| worst.max(behind)), bytes + pending_bytes));
            }
            Ok(MirrorState::Away { since, .. }) => away = Some(away.unwrap_or_default().max(since)),
            Ok(MirrorState::Detached { .. }) if was_synced => away = Some(away.unwrap_or_default()),
            Ok(MirrorState::Detached { .. } | MirrorState::Copying { .. }) | Err(_) => is_open = true,
        }
    }
    match (away, lag) {
        (Some(since), _) => Some(Sight::MirrorAway { since }),
        (None, Some((behind, bytes))) if !is_open => Some(Sight::Lag { behind, bytes }),
        (None, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Begin;
    use quorum::id::{Epoch, HostEpoch};

    #[test]
    fn a_workload_that_ended_before_it_was_looked_at_again_is_noticed_and_one_that_starts_is_waited_for() {
        let epoch = Epoch(1);
        let mut served = Life::at(&Work::Probe { epoch });
        assert!(served.is_over(&Presence::Absent), "it was seen running before it was probed");
        let mut starts = Life::at(&Work::Start { epoch, host_epoch: HostEpoch(1) });
        assert!(!starts.is_over(&Presence::Absent), "it isn't there yet");
        assert!(!starts.is_over(&Presence::Unknown { because: "busy".into() }));
        assert!(!starts.is_over(&Presence::Running { epoch, host_epoch: HostEpoch(1), begin: Begin::Running }));
        assert!(starts.is_over(&Presence::Absent));
    }
}
