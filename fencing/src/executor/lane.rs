//! Lanes: one call at a time at each endpoint, and a fence order before any scheduled reading.

use crate::device::Device;
use crate::facts::DeviceFacts;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, watch};

/// The way to one endpoint.
#[derive(Debug)]
pub(super) struct Lane {
    busy: Arc<AsyncMutex<()>>,
    wanted: watch::Sender<usize>,
}

impl Lane {
    fn new() -> Self {
        Self { busy: Arc::new(AsyncMutex::new(())), wanted: watch::channel(0).0 }
    }

    /// Waits for the lane on behalf of a fence order; readings under way are asked to make room.
    pub(super) async fn enter_for_order(&self) -> OwnedMutexGuard<()> {
        let _wish = Wish::new(&self.wanted);
        self.busy.clone().lock_owned().await
    }

    /// Waits for the lane on behalf of a scheduled reading.
    pub(super) async fn enter_for_reading(&self) -> OwnedMutexGuard<()> {
        self.busy.clone().lock_owned().await
    }

    /// Resolves when an order wants the lane.
    pub(super) async fn wanted_by_order(&self) {
        let mut wanted = self.wanted.subscribe();
        // The sender lives in `self`, so waiting can't fail.
        let _ = wanted.wait_for(|orders| *orders > 0).await;
    }
}

/// Counts an order that waits; taken back also when the waiting is given up.
struct Wish<'a>(&'a watch::Sender<usize>);

impl<'a> Wish<'a> {
    fn new(wanted: &'a watch::Sender<usize>) -> Self {
        wanted.send_modify(|orders| *orders += 1);
        Self(wanted)
    }
}

impl Drop for Wish<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|orders| *orders -= 1);
    }
}

/// A device with its lane.
#[derive(Clone)]
pub(super) struct Slot {
    pub(super) device: Arc<dyn Device>,
    pub(super) lane: Arc<Lane>,
}

/// The lanes by endpoint; they outlive a change of the configuration.
#[derive(Debug, Default)]
pub(super) struct Lanes(Mutex<BTreeMap<String, Arc<Lane>>>);

impl Lanes {
    pub(super) fn of(&self, facts: &DeviceFacts) -> Arc<Lane> {
        let key = if facts.endpoint.is_empty() { format!("device {}", facts.name) } else { facts.endpoint.clone() };
        let mut lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.entry(key).or_insert_with(|| Arc::new(Lane::new())).clone()
    }
}
