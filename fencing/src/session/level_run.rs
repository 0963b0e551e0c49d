//! One level within a session: all of its devices, and whether together they are evidence.

use super::device_run::{DeviceRun, Phase};
use super::{LevelEnd, Note};
use crate::evidence::{Evidence, LevelView, Proven};
use crate::moment::Moment;
use crate::mutants;
use crate::plan::{Plan, PlannedLevel, Starts};
use std::time::Duration;

/// Where a level stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Earlier levels use the same device or endpoint.
    Pending,
    /// Its devices are at work.
    Running,
    /// Its proof comes from elsewhere.
    Waiting(&'static str),
    /// It ended without proof.
    Ended(LevelEnd),
}

/// One level within a session.
#[derive(Clone, Debug)]
pub(super) struct LevelRun {
    pub(super) number: usize,
    pub(super) after: Vec<usize>,
    pub(super) state: State,
    pub(super) devices: Vec<DeviceRun>,
    /// When it makes room for a later level that needs the same device or endpoint.
    pub(super) gives_up: Option<Moment>,
}

impl LevelRun {
    pub(super) fn new(planned: &PlannedLevel) -> Self {
        let (state, after) = match &planned.starts {
            Starts::AtOnce => (State::Pending, Vec::new()),
            Starts::After(levels) => (State::Pending, levels.clone()),
            Starts::Waits(what) => (State::Waiting(what), Vec::new()),
        };
        let devices = planned.devices.iter().cloned().map(DeviceRun::new).collect();
        Self { number: planned.number, after, state, devices, gives_up: None }
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Ended(_))
    }

    pub(super) fn begin(&mut self, now: Moment, gives_up: Option<Moment>, notes: &mut Vec<Note>) {
        self.state = State::Running;
        self.gives_up = gives_up;
        for device in &mut self.devices {
            device.begin(now);
        }
        notes.push(Note::LevelBegan { level: self.number });
    }

    /// Moves the level on after anything about its devices changed; gives the evidence if it is complete.
    pub(super) fn advance(&mut self, now: Moment, plan: &Plan, notes: &mut Vec<Note>) -> Option<Evidence> {
        if self.state != State::Running {
            return None;
        }
        if let Some(end) = self.failure(now) {
            self.end(end, notes);
            return None;
        }
        // Without a device that could prove anything there is only the order itself to be taken: `failure` tells that.
        self.evidence_devices().next()?;
        self.ask_for_confirmation();
        let proofs = self.complete_proofs()?;
        let facts: Vec<_> = self.devices.iter().map(|device| &device.facts).collect();
        let view = LevelView { number: self.number, devices: &facts };
        match Evidence::combine(&plan.order, &plan.target, view, proofs) {
            Ok(evidence) => Some(evidence),
            Err(not_enough) => {
                self.end(LevelEnd::NotEnough(not_enough), notes);
                None
            }
        }
    }

    pub(super) fn next_moment(&self) -> Option<Moment> {
        if self.state != State::Running {
            return None;
        }
        let dues = self.devices.iter().filter(|device| !device.calling).filter_map(|device| device.due);
        dues.chain(self.gives_up.filter(|_| !self.is_confirming())).min()
    }

    fn end(&mut self, end: LevelEnd, notes: &mut Vec<Note>) {
        notes.push(Note::LevelEnded { level: self.number, because: end.to_string() });
        self.state = State::Ended(end);
    }

    /// The devices whose state is evidence. The others hasten the end and are waited for by nobody.
    fn evidence_devices(&self) -> impl Iterator<Item = &DeviceRun> {
        let all = mutants::on("accelerator-as-proof");
        self.devices.iter().filter(move |device| all || device.facts.proves.is_evidence())
    }

    fn failure(&self, now: Moment) -> Option<LevelEnd> {
        let failed =
            |device: &DeviceRun| device.has_failed().cloned().map(|trouble| (device.facts.name.clone(), trouble));
        if let Some((device, trouble)) = self.evidence_devices().find_map(failed) {
            return Some(LevelEnd::Device { device, trouble });
        }
        if self.evidence_devices().next().is_none() {
            let done = |device: &DeviceRun| device.phase == Phase::Helped || device.has_failed().is_some();
            if self.devices.iter().all(done) {
                return Some(LevelEnd::Helped);
            }
        }
        let late = self.gives_up.is_some_and(|at| at <= now);
        (late && !self.is_confirming()).then_some(LevelEnd::GaveUp)
    }

    /// Every evidence device (and there is one) has shown the wanted state once: a level this far isn't given up.
    fn is_confirming(&self) -> bool {
        let seen = |device: &DeviceRun| matches!(device.phase, Phase::Seen | Phase::Confirming | Phase::Proven(_));
        let mut devices = self.evidence_devices().peekable();
        devices.peek().is_some() && devices.all(seen)
    }

    fn ask_for_confirmation(&mut self) {
        if mutants::on("feeds-apart") || mutants::on("one-device-of-level") {
            return self.confirm_each_on_its_own();
        }
        if !self.is_confirming() {
            // One of them fell back: what the others confirmed must be confirmed again after its new first reading.
            self.devices.iter_mut().for_each(DeviceRun::confirm_anew);
            return;
        }
        let firsts = self.evidence_devices().filter_map(|device| device.first.as_ref().map(|first| first.answered));
        let Some(last_first) = firsts.max() else { return };
        let settle = self.evidence_devices().map(|device| device.facts.rhythm.settle).max();
        let settle = settle.filter(|_| !mutants::on("skip-settle")).unwrap_or(Duration::ZERO);
        for device in self.devices.iter_mut().filter(|device| device.phase == Phase::Seen) {
            device.confirm_at(last_first.plus(settle));
        }
    }

    /// Only under the mutants `feeds-apart` and `one-device-of-level`.
    fn confirm_each_on_its_own(&mut self) {
        for device in self.devices.iter_mut().filter(|device| device.phase == Phase::Seen) {
            let Some(first) = device.first.as_ref().map(|first| first.answered) else { continue };
            device.confirm_at(first.plus(device.facts.rhythm.settle));
        }
    }

    fn complete_proofs(&self) -> Option<Vec<Proven>> {
        let proof = |device: &DeviceRun| match &device.phase {
            Phase::Proven(proven) => Some(proven.clone()),
            Phase::Idle
            | Phase::Identifying
            | Phase::Switching
            | Phase::Watching
            | Phase::Seen
            | Phase::Confirming
            | Phase::Helped
            | Phase::Failed(_) => None,
        };
        if mutants::on("one-device-of-level") {
            let proofs: Vec<Proven> = self.evidence_devices().filter_map(proof).collect();
            return (!proofs.is_empty()).then_some(proofs);
        }
        self.evidence_devices().map(proof).collect()
    }
}
