//! Continuous proof that fencing would work: every device is read on a schedule, and on demand.
//!
//! A good reading means: reached, logged in, speaks for its host, state understood. Nothing is ever switched here.
//! The age of the last good reading survives a restart (`proofs.json`, wall time: for people and for `doctor`, no
//! safety rests on it). After a refused login a device is left alone for longer and longer, lest its account be locked.

use super::lane::Slot;
use super::{Inner, call, clock};
use crate::device::{Call, Sight};
use crate::evidence::identify;
use crate::facts::Proves;
use crate::findings::ProofRecord;
use crate::moment::Moment;
use crate::name::DeviceName;
use crate::process::Leash;
use crate::reading::Reading;
use crate::silence::{Contact, Silence, correlate};
use crate::trouble::Trouble;
use crate::verdict::Verdict;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const FILE: &str = "proofs.json";
/// How often it is looked whether a device is due.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often the ages are written down.
const SAVE_EVERY: Duration = Duration::from_secs(30);
/// Longest pause after refused logins.
const PAUSE_MAX: Duration = Duration::from_secs(3600);

/// What came of reading one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tested {
    /// The device.
    pub device: DeviceName,
    /// Its kind.
    pub kind: &'static str,
    /// The state it shows.
    pub observed: Option<String>,
    /// Whose machine it says it is.
    pub identity: Option<String>,
    /// How long the reading took.
    pub latency: Duration,
    /// What went wrong.
    pub trouble: Option<Trouble>,
    /// There is nothing to read: its proof comes from elsewhere.
    pub waits: bool,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    wall_ms: u64,
}

/// The ages of proofs that an earlier process left behind.
pub(super) fn load(home: &Path) -> BTreeMap<DeviceName, ProofRecord> {
    let text = std::fs::read_to_string(home.join(FILE)).unwrap_or_default();
    inherited(&text, clock::wall_ms())
}

/// What the file says at this wall time; nothing if it is damaged.
pub(crate) fn inherited(text: &str, now: u64) -> BTreeMap<DeviceName, ProofRecord> {
    let kept: BTreeMap<DeviceName, Kept> = serde_json::from_str(text).unwrap_or_default();
    let record = |kept: Kept| {
        let inherited_age = Some(Duration::from_millis(now.saturating_sub(kept.wall_ms)));
        ProofRecord { inherited_age, ..ProofRecord::default() }
    };
    kept.into_iter().map(|(device, kept)| (device, record(kept))).collect()
}

fn save(inner: &Inner) {
    let (now, wall_ms) = (inner.clock.now(), clock::wall_ms());
    let kept = |record: &ProofRecord| {
        let age = u64::try_from(record.age(now)?.as_millis()).ok()?;
        Some(Kept { wall_ms: wall_ms.saturating_sub(age) })
    };
    let all: BTreeMap<DeviceName, Kept> =
        inner.state().records.iter().filter_map(|(name, record)| Some((name.clone(), kept(record)?))).collect();
    let (path, fresh) = (inner.home.join(FILE), inner.home.join(format!("{FILE}.new")));
    let text = serde_json::to_vec(&all).unwrap_or_default();
    if let Err(error) = std::fs::write(&fresh, text).and_then(|()| std::fs::rename(&fresh, &path)) {
        tracing::warn!(because = %error, "the ages of fencing proofs can't be kept");
    }
}

/// Starts the schedule; it ends with the last handle.
pub(super) fn schedule(inner: &Arc<Inner>) {
    let inner = Arc::downgrade(inner);
    tokio::spawn(async move {
        let mut due: BTreeMap<DeviceName, Instant> = BTreeMap::new();
        let mut saved = Instant::now();
        while let Some(strong) = inner.upgrade() {
            for (device, slot) in strong.due_now(&mut due) {
                let weak: Weak<Inner> = inner.clone();
                let next = strong.next_due(&device);
                due.insert(device, next);
                tokio::spawn(async move {
                    if let Some(inner) = weak.upgrade() {
                        inner.test(&slot).await;
                    }
                });
            }
            if saved.elapsed() >= SAVE_EVERY {
                save(&strong);
                saved = Instant::now();
            }
            drop(strong);
            sleep(LOOK_EVERY).await;
        }
    });
}

impl Inner {
    /// Devices whose reading is due. One that was never read is due within the first period, spread over it.
    fn due_now(&self, due: &mut BTreeMap<DeviceName, Instant>) -> Vec<(DeviceName, Slot)> {
        let (now, state) = (Instant::now(), self.state());
        due.retain(|device, _| state.slots.contains_key(device));
        let every = state.params.read_every;
        let readable =
            state.slots.iter().filter(|(_, slot)| !matches!(slot.device.facts().proves, Proves::Elsewhere(_)));
        let mut ready = Vec::new();
        for (place, (device, slot)) in readable.enumerate() {
            let at = *due.entry(device.clone()).or_insert_with(|| now + spread(every, place));
            if at <= now {
                ready.push((device.clone(), slot.clone()));
            }
        }
        ready
    }

    fn next_due(&self, device: &DeviceName) -> Instant {
        let state = self.state();
        let every = state.params.read_every;
        let record = state.records.get(device);
        let refused = record.is_some_and(|record| matches!(record.trouble, Some(Trouble::LoginRefused { .. })));
        let failures = record.map_or(0, |record| record.failures_in_a_row).min(10);
        Instant::now() + if refused { (every * 2u32.pow(failures)).min(PAUSE_MAX.max(every)) } else { every }
    }

    /// Reads one device, as a test of it, and remembers what came of it.
    pub(super) async fn test(self: &Arc<Self>, slot: &Slot) -> Tested {
        let facts = slot.device.facts();
        let mut tested = Tested {
            device: facts.name.clone(),
            kind: facts.kind,
            observed: None,
            identity: None,
            latency: Duration::ZERO,
            trouble: None,
            waits: matches!(facts.proves, Proves::Elsewhere(_)),
        };
        if tested.waits {
            return tested;
        }
        let _place = self.readings.clone().acquire_owned().await;
        let _lane = slot.lane.enter_for_reading().await;
        let asked = self.clock.now();
        let call = Call::reading(Leash::until(Instant::now() + facts.rhythm.read_limit));
        let sight = tokio::select! {
            biased;
            () = slot.lane.wanted_by_order() => {
                tested.trouble = Some(Trouble::Overtaken { because: "a fence order needs the device now".to_owned() });
                return tested;
            }
            sight = call::bounded(&call, slot.device.read(&call)) => sight,
        };
        tested.latency = self.clock.now().since(asked);
        let reading = self.check_reading(slot, asked, sight);
        self.remember(&facts.name, reading.as_ref().map_err(Clone::clone), asked);
        match reading {
            Ok(reading) => {
                tested.observed = Some(reading.observed.to_string());
                tested.identity = Some(reading.identity.to_string());
            }
            Err(trouble) => tested.trouble = Some(trouble),
        }
        tested
    }

    /// A reading counts as proof only if the device speaks for every host that names it.
    fn check_reading(&self, slot: &Slot, asked: Moment, sight: Result<Sight, Trouble>) -> Result<Reading, Trouble> {
        let Sight { observed, identity, lab } = sight?;
        let reading = Reading { asked, answered: self.clock.now(), observed, identity, lab };
        let facts = slot.device.facts();
        if facts.proves.is_evidence() {
            let state = self.state();
            for fenced in state.built.topology.targets().values() {
                if fenced.levels.iter().flatten().any(|name| *name == facts.name) {
                    identify(facts, &fenced.target, &reading)?;
                }
            }
        }
        Ok(reading)
    }

    /// Notes the outcome of a reading in the device's record.
    pub(super) fn remember(&self, device: &DeviceName, reading: Result<&Reading, Trouble>, asked: Moment) {
        let now = self.clock.now();
        let mut state = self.state();
        if !state.slots.contains_key(device) {
            return;
        }
        let record = state.records.entry(device.clone()).or_default();
        match reading {
            Ok(reading) => {
                let (proven_at, latency) = (Some(now), Some(now.since(asked)));
                let observed = Some(reading.observed.clone());
                *record = ProofRecord { proven_at, latency, observed, ..ProofRecord::default() };
            }
            Err(trouble) => {
                record.failures_in_a_row += 1;
                record.silent_since = trouble.is_silence().then(|| record.silent_since.unwrap_or(asked));
                record.trouble = Some(trouble);
            }
        }
    }

    /// The silences that a verdict's devices are part of.
    pub(super) fn silences(&self, verdict: &Verdict) -> Vec<Silence> {
        let Verdict::Unproven(unproven) = verdict else { return Vec::new() };
        let silent: BTreeSet<&DeviceName> = unproven
            .reasons
            .iter()
            .filter(|reason| reason.silent)
            .filter_map(|reason| reason.device.as_ref())
            .collect();
        let now = self.clock.now();
        let mut contacts: Vec<Contact> = self.view(|view| view.contacts());
        for contact in contacts.iter_mut().filter(|contact| silent.contains(&contact.device)) {
            contact.silent_since = contact.silent_since.or(Some(now));
        }
        let met = |silence: &Silence| silence.devices.iter().any(|device| silent.contains(device));
        correlate(&contacts).into_iter().filter(met).collect()
    }
}

/// Spreads first readings over the period, so that a thousand devices aren't asked at once.
fn spread(every: Duration, place: usize) -> Duration {
    const SHARES: u32 = 97;
    let share = u32::try_from(place % SHARES as usize).unwrap_or(0);
    (every / SHARES * share).min(every)
}
