//! What the kernel has received, on its way to an engine that shares the transport's thread.
//!
//! A packet goes through the task of its socket, and at times another one, before what it carries is an event. When a host
//! that was stopped goes on, its timers run out at the same instant as its socket becomes readable; an engine that looked at
//! the clock first would take its own pause for its peers' silence.

use super::TransportEvent;
use tokio::sync::mpsc;

/// Turns after which the rest has to wait: whoever floods this host must not keep it from looking at the clock.
const TURNS_MAX: usize = 8;

/// Gives the transport's tasks their turn until none brings anything more, and answers what they brought.
pub async fn catch_up(events: &mut mpsc::Receiver<TransportEvent>) -> Vec<TransportEvent> {
    let mut came = Vec::new();
    for _ in 0..TURNS_MAX {
        tokio::task::yield_now().await;
        let before = came.len();
        while let Ok(event) = events.try_recv() {
            came.push(event);
        }
        if came.len() == before {
            break;
        }
    }
    came
}
