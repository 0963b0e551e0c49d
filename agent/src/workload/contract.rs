//! What every kind of workload must do, tried on the real thing.
//!
//! A kind passes by giving a [`Bench`]; nothing here knows any kind. Run by `tests/dataplane.rs`; an operator's own
//! adapter can be put through the same steps.

use super::{Begin, Ended, Place, Presence, StartOrder, StopOrder, Workload, WorkloadError};
use quorum::id::Epoch;
use std::time::Duration;

/// A kind set up to be tried: one group at one place.
pub trait Bench: Sync {
    /// A new driver for the place; drivers made before are no longer used.
    fn driver(&self) -> Box<dyn Workload>;
    /// The place.
    fn place(&self) -> Place;
    /// An order that can be carried out.
    fn order(&self, epoch: Epoch, begin: Begin) -> StartOrder;
    /// An order that must be refused before anything is begun, such as one for a volume that doesn't exist.
    fn hopeless_order(&self) -> StartOrder;
}

/// Puts a kind through the contract of [`Workload`].
///
/// # Errors
/// The first claim that doesn't hold, with what was seen.
pub async fn check(bench: &dyn Bench) -> Result<(), String> {
    nothing_is_there_at_first(bench).await?;
    a_start_is_seen_and_can_be_repeated(bench).await?;
    another_epoch_is_kept_out(bench).await?;
    a_new_driver_finds_it(bench).await?;
    a_stop_leaves_nothing(bench).await?;
    a_paused_start_waits_for_resume(bench).await?;
    a_kill_leaves_nothing(bench).await?;
    a_refused_start_begins_nothing(bench).await
}

const STOP: StopOrder =
    StopOrder { ask: Duration::from_millis(500), quit: Duration::from_secs(30), kill: Duration::from_secs(30) };

const FIRST: Epoch = Epoch(41);
const SECOND: Epoch = Epoch(42);

fn claim(holds: bool, claim: &str, seen: &dyn std::fmt::Debug) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("{claim}; seen: {seen:?}")) }
}

fn is_running(seen: &Presence, wanted: Epoch, how: Begin) -> bool {
    matches!(seen, Presence::Running { epoch, begin, .. } if *epoch == wanted && *begin == how)
}

fn cgroup_count(bench: &dyn Bench) -> usize {
    let list = std::fs::read_to_string(bench.place().cgroup.join("cgroup.procs")).unwrap_or_default();
    list.split_whitespace().count()
}

async fn nothing_is_there_at_first(bench: &dyn Bench) -> Result<(), String> {
    let driver = bench.driver();
    let seen = driver.observe().await;
    claim(seen == Presence::Absent, "a group that was never started is absent", &seen)?;
    let ended = driver.stop(&STOP).await;
    claim(matches!(ended, Ok(Ended::WasAbsent)), "stopping an absent group succeeds", &ended)?;
    let ended = driver.kill(STOP.kill).await;
    claim(matches!(ended, Ok(Ended::WasAbsent)), "killing an absent group succeeds", &ended)?;
    let resumed = driver.resume().await;
    claim(matches!(resumed, Err(WorkloadError::Refused { .. })), "an absent group can't be resumed", &resumed)?;
    let checked = driver.preflight(&bench.order(FIRST, Begin::Running).volumes).await;
    claim(checked.is_ok(), "the preflight of a good order passes", &checked)
}

async fn a_start_is_seen_and_can_be_repeated(bench: &dyn Bench) -> Result<(), String> {
    let driver = bench.driver();
    let order = bench.order(FIRST, Begin::Running);
    for claimed in ["a start succeeds", "the same start said twice succeeds"] {
        let started = driver.start(&order).await;
        claim(started.is_ok(), claimed, &started)?;
        let seen = driver.observe().await;
        claim(is_running(&seen, FIRST, Begin::Running), "a started group is seen with its epoch", &seen)?;
    }
    let count = cgroup_count(bench);
    claim(count > 0, "what was started runs in the group's cgroup", &count)?;
    let probed = driver.probe().await;
    claim(probed.is_ok(), "a started group is in good order", &probed)
}

async fn another_epoch_is_kept_out(bench: &dyn Bench) -> Result<(), String> {
    let driver = bench.driver();
    let started = driver.start(&bench.order(SECOND, Begin::Running)).await;
    let is_occupied = matches!(started, Err(WorkloadError::Occupied { epoch }) if epoch == FIRST);
    claim(is_occupied, "a start under another epoch finds the place occupied", &started)?;
    let seen = driver.observe().await;
    claim(is_running(&seen, FIRST, Begin::Running), "and leaves what is there alone", &seen)
}

async fn a_new_driver_finds_it(bench: &dyn Bench) -> Result<(), String> {
    let driver = bench.driver();
    let seen = driver.observe().await;
    claim(is_running(&seen, FIRST, Begin::Running), "a new driver finds what an older one started", &seen)?;
    let probed = driver.probe().await;
    claim(probed.is_ok(), "and can talk to it", &probed)
}

async fn a_stop_leaves_nothing(bench: &dyn Bench) -> Result<(), String> {
    let driver = bench.driver();
    let ended = driver.stop(&STOP).await;
    claim(matches!(ended, Ok(Ended::ByItself | Ended::Flushed)), "an orderly stop needs no kill", &ended)?;
    let seen = (driver.observe().await, cgroup_count(bench));
    claim(seen == (Presence::Absent, 0), "after a stop nothing is left", &seen)
}

async fn a_paused_start_waits_for_resume(bench: &dyn Bench) -> Result<(), String> {
    let driver = bench.driver();
    let started = driver.start(&bench.order(SECOND, Begin::Paused)).await;
    claim(started.is_ok(), "a paused start succeeds", &started)?;
    let seen = driver.observe().await;
    claim(is_running(&seen, SECOND, Begin::Paused), "a paused start is seen paused", &seen)?;
    for claimed in ["a paused group can be resumed", "resuming twice succeeds"] {
        let resumed = driver.resume().await;
        claim(resumed.is_ok(), claimed, &resumed)?;
    }
    let seen = driver.observe().await;
    claim(is_running(&seen, SECOND, Begin::Running), "a resumed group is seen running", &seen)
}

async fn a_kill_leaves_nothing(bench: &dyn Bench) -> Result<(), String> {
    let driver = bench.driver();
    let ended = driver.kill(STOP.kill).await;
    claim(matches!(ended, Ok(Ended::Killed)), "a kill succeeds", &ended)?;
    let seen = (driver.observe().await, cgroup_count(bench));
    claim(seen == (Presence::Absent, 0), "after a kill nothing is left", &seen)?;
    let again = driver.kill(STOP.kill).await;
    claim(matches!(again, Ok(Ended::WasAbsent)), "a kill said twice succeeds", &again)
}

async fn a_refused_start_begins_nothing(bench: &dyn Bench) -> Result<(), String> {
    let driver = bench.driver();
    let started = driver.start(&bench.hopeless_order()).await;
    claim(matches!(started, Err(WorkloadError::Refused { .. })), "a hopeless start is refused", &started)?;
    let seen = (driver.observe().await, cgroup_count(bench));
    claim(seen == (Presence::Absent, 0), "a refused start leaves nothing", &seen)
}
