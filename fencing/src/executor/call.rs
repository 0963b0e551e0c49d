//! One device call of a fence order: queue, journal, call, limit, stop.

use super::Inner;
use super::lane::Slot;
use crate::device::{Behind, Call, Check};
use crate::journal::{Event, TaskKey};
use crate::moment::Moment;
use crate::process::Leash;
use crate::reading::Reading;
use crate::request::FenceOrder;
use crate::session::{Act, Answer};
use crate::trouble::Trouble;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

/// How long a stopped call may go on to end cleanly.
const STOP_GRACE: Duration = Duration::from_millis(1500);
/// How much longer than its limit the kernel lets a program run (`process`: `alarm` counts whole seconds).
const ALARM_SLACK: Duration = Duration::from_secs(2);

/// The agent's say in whether an order still stands. Asked last thing before each irreversible step.
pub type Guard = Arc<dyn Fn(&FenceOrder) -> Result<(), String> + Send + Sync>;

/// What a call needs to know about its order.
#[derive(Clone)]
pub(super) struct Errand {
    pub(super) order: Arc<FenceOrder>,
    pub(super) key: TaskKey,
    pub(super) guard: Guard,
    /// CLOCK_BOOTTIME by which the order is over, suspend counted.
    pub(super) over_boottime: Duration,
}

impl Errand {
    /// The check that goes with each call: the gate, the order's own time, the agent's guard.
    fn check(&self, inner: &Arc<Inner>) -> Check {
        let (errand, inner) = (self.clone(), inner.clone());
        Arc::new(move || {
            inner.check_gate(&errand.key)?;
            if super::clock::boottime() >= errand.over_boottime {
                return Err("the order's time is over".to_owned());
            }
            (errand.guard)(&errand.order)
        })
    }
}

/// Calls a device and gives its answer, whatever happens.
pub(super) async fn perform(
    inner: Arc<Inner>,
    errand: Errand,
    slot: Slot,
    (act, limit, stop): (Act, Moment, watch::Receiver<bool>),
) -> Answer {
    // A panic in a kind's code must not leave the session waiting for an answer.
    let task = tokio::spawn(async move {
        match act {
            Act::Read => Answer::Read(read(&inner, &errand, &slot, (limit, stop)).await),
            Act::Off => Answer::Off(off(&inner, &errand, &slot, (limit, stop)).await),
        }
    });
    task.await.unwrap_or_else(|error| {
        let trouble = Trouble::Unusable { because: format!("its driver failed: {error}") };
        match act {
            Act::Read => Answer::Read(Err(trouble)),
            Act::Off => Answer::Off(Err(trouble)),
        }
    })
}

type Bounds = (Moment, watch::Receiver<bool>);

async fn read(inner: &Arc<Inner>, errand: &Errand, slot: &Slot, bounds: Bounds) -> Result<Reading, Trouble> {
    let call = errand.call(inner, bounds);
    let _turn = take_turn(inner, slot, &call).await?;
    call.check()?;
    let asked = inner.clock.now();
    let sight = bounded(&call, slot.device.read(&call)).await;
    let answered = inner.clock.now();
    let reading = sight.map(|sight| Reading {
        asked,
        answered,
        observed: sight.observed,
        identity: sight.identity,
        lab: sight.lab,
    });
    let device = &slot.device.facts().name;
    if !matches!(reading, Err(Trouble::Overtaken { .. })) {
        inner.remember(device, reading.as_ref().map_err(Clone::clone), asked);
    }
    reading
}

async fn off(inner: &Arc<Inner>, errand: &Errand, slot: &Slot, bounds: Bounds) -> Result<(), Trouble> {
    let call = errand.call(inner, bounds);
    let _turn = take_turn(inner, slot, &call).await?;
    let left = call.leash.limit.saturating_duration_since(Instant::now());
    let until = super::clock::boottime() + left + ALARM_SLACK;
    let until_boottime_ms = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
    let event = Event::Calling { device: &slot.device.facts().name, act: Act::Off, until_boottime_ms };
    // No attempt without its record.
    let written = inner.scribe.record(Some(&errand.key), &event).await;
    written.map_err(|because| Trouble::Unusable { because: format!("the attempt can't be recorded: {because}") })?;
    call.check()?;
    bounded(&call, slot.device.off(&call)).await
}

impl Errand {
    fn call(&self, inner: &Arc<Inner>, (limit, stop): Bounds) -> Call {
        let leash = Leash { limit: inner.clock.instant(limit), stop };
        let FenceOrder { target, he, stamp, claims, .. } = &*self.order;
        let behind = Behind { target: target.to_string(), he: *he, stamp: *stamp };
        Call::ordered(leash, behind, claims.clone(), self.check(inner))
    }
}

/// Waits for a free place among all calls and for the device's lane.
async fn take_turn(inner: &Inner, slot: &Slot, call: &Call) -> Result<impl Drop + use<>, Trouble> {
    let turn = async {
        let place = inner.calls.clone().acquire_owned().await.ok();
        Turn { _lane: slot.lane.enter_for_order().await, _place: place }
    };
    tokio::select! {
        biased;
        turn = turn => Ok(turn),
        () = sleep_until(call.leash.limit) => {
            // Not the device's silence: it wasn't asked.
            Err(Trouble::Refused { because: "not asked in time: other calls were before it at this executor".to_owned() })
        }
        () = call.leash.stopped() => Err(Trouble::Overtaken { because: "the call was stopped".to_owned() }),
    }
}

struct Turn {
    _lane: tokio::sync::OwnedMutexGuard<()>,
    _place: Option<tokio::sync::OwnedSemaphorePermit>,
}

impl Drop for Turn {
    fn drop(&mut self) {}
}

/// Holds a kind to its limit even if it doesn't watch its leash.
pub(super) async fn bounded<T>(call: &Call, future: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
    let begun = Instant::now();
    tokio::pin!(future);
    tokio::select! {
        biased;
        result = &mut future => result,
        () = sleep_until(call.leash.limit) => {
            Err(Trouble::Silent { limit: call.leash.limit.saturating_duration_since(begun) })
        }
        () = call.leash.stopped() => {
            let stopped = Trouble::Overtaken { because: "the call was stopped".to_owned() };
            timeout(STOP_GRACE, future).await.unwrap_or(Err(stopped))
        }
    }
}
