//! Watches a running workload and its mirror, and tells what the engine didn't ask for.

use super::build::Built;
use super::data::STALL;
use crate::driver::runtime::Incoming;
use crate::engine::Sight;
use crate::replication::MirrorState;
use crate::workload::Presence;
use std::time::Duration;
use tokio::sync::mpsc;

const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Looks until it is aborted. A workload that was seen running and then absent has ended; a mirror that was seen in
/// step and then isn't is away. Each is told once per change.
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
        for data in &built.data {
            let state = data.driver.mirror_state(STALL).await;
            let sight = match state {
                Ok(MirrorState::Synced { pending_bytes, behind }) => {
                    was_synced = true;
                    is_away = false;
                    Some(Sight::Lag { behind, bytes: pending_bytes })
                }
                Ok(MirrorState::Away { since, .. }) if !is_away => {
                    is_away = true;
                    Some(Sight::MirrorAway { since })
                }
                Ok(MirrorState::Detached { .. }) if was_synced && !is_away => {
                    is_away = true;
                    Some(Sight::MirrorAway { since: Duration::ZERO })
                }
                Ok(MirrorState::Away { .. } | MirrorState::Detached { .. } | MirrorState::Copying { .. }) | Err(_) => {
                    None
                }
            };
            if let Some(sight) = sight
                && inbox.send(Incoming::Seen(group.clone(), sight)).await.is_err()
            {
                return;
            }
        }
    }
}
