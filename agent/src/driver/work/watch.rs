//! Watches a running workload and its mirrors, and tells what the engine didn't ask for.

use super::build::Built;
use super::data::STALL;
use crate::driver::runtime::Incoming;
use crate::engine::Sight;
use crate::replication::MirrorState;
use crate::workload::Presence;
use std::time::Duration;
use tokio::sync::mpsc;

const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Looks until it is aborted. A workload that was seen running and then absent has ended; a group one of whose mirrors
/// was seen in step and then isn't is away, which is told once per change.
pub(super) async fn watch(built: &Built, inbox: &mpsc::Sender<Incoming>) {
    let group = built.config.name.clone();
    let (mut was_running, mut was_synced, mut is_away) = (false, false, false);
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        match built.workload.observe().await {
            Presence::Running { .. } => was_running = true,
            Presence::Absent if was_running => {
                let sight = Sight::Exited { because: "its process is gone".into() };
                let _gone = inbox.send(Incoming::Seen(group, sight)).await;
                return;
            }
            Presence::Absent | Presence::Unknown { .. } => continue,
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
        if let Some(sight) = sight
            && inbox.send(Incoming::Seen(group.clone(), sight)).await.is_err()
        {
            return;
        }
    }
}

/// The group's mirrors taken together: one that is away makes the group's away; all in step, the worst lag counts.
/// `None` while they are being made equal, or can't be asked.
async fn mirrors(built: &Built, was_synced: bool) -> Option<Sight> {
    let mut lag: Option<(Duration, u64)> = None;
    let mut is_open = false;
    let mut away: Option<Duration> = None;
    for data in &built.data {
        match data.driver.mirror_state(STALL).await {
            Ok(MirrorState::Synced { pending_bytes, behind }) => {
                let (worst, bytes) = lag.unwrap_or_default();
                lag = Some((worst.max(behind), bytes + pending_bytes));
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
