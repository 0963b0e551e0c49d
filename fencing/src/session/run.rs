//! The session itself: routes answers to devices, starts levels, concludes.

use super::device_run::{DeviceRun, Phase};
use super::level_run::{LevelRun, State};
use super::{Act, Answer, CallId, Effect, Input, Note};
use crate::facts::Proves;
use crate::moment::Moment;
use crate::name::DeviceName;
use crate::plan::Plan;
use crate::reading::Reading;
use crate::verdict::{Contrary, Ended, Reason, Unproven, Verdict};
use std::collections::{BTreeMap, BTreeSet};

/// Carries out one plan.
#[derive(Clone, Debug)]
pub struct Session {
    plan: Plan,
    deadline: Moment,
    levels: Vec<LevelRun>,
    calls: BTreeMap<CallId, (usize, usize)>,
    stopped: BTreeSet<CallId>,
    next_call: u64,
    verdict: Option<Verdict>,
}

impl Session {
    /// A session for `plan` that begins at `now`. Nothing happens before the first [`Input::Tick`].
    pub fn new(plan: Plan, now: Moment) -> Self {
        let levels = plan.levels.iter().map(LevelRun::new).collect();
        let deadline = now.plus(plan.order.allowed);
        let (calls, stopped) = (BTreeMap::new(), BTreeSet::new());
        Self { plan, deadline, levels, calls, stopped, next_call: 1, verdict: None }
    }

    /// Decides what follows from `input`.
    pub fn step(&mut self, now: Moment, input: Input, effects: &mut Vec<Effect>) {
        let mut notes = Vec::new();
        let ended = match input {
            Input::Tick => None,
            Input::Answered { call, answer } => {
                self.take_answer(now, call, answer, &mut notes);
                None
            }
            Input::Cancelled { because } => Some(Ended::Cancelled(because)),
            Input::ProvenElsewhere { by } => Some(Ended::Elsewhere(by)),
        };
        if self.verdict.is_none() {
            let verdict = self.advance(now, ended, &mut notes);
            effects.extend(notes.into_iter().map(Effect::Note));
            self.make_calls(now, verdict, effects);
        }
    }

    /// The latest moment at which `step` wants to be called again; `None` when only answers are awaited.
    pub fn deadline(&self) -> Option<Moment> {
        if self.verdict.is_some() {
            return None;
        }
        self.levels.iter().filter_map(LevelRun::next_moment).chain([self.deadline]).min()
    }

    /// The conclusion, once there is one.
    pub fn verdict(&self) -> Option<&Verdict> {
        self.verdict.as_ref()
    }

    /// Whether it has concluded and every call has come back: nothing of it can reach the target any more.
    pub fn is_finished(&self) -> bool {
        self.verdict.is_some() && self.calls.is_empty()
    }

    /// The devices that were told to switch off: the outlets a person may have to switch on again.
    pub fn told(&self) -> BTreeSet<DeviceName> {
        let told = |device: &&DeviceRun| device.offs > 0;
        self.levels
            .iter()
            .flat_map(|level| &level.devices)
            .filter(told)
            .map(|device| device.facts.name.clone())
            .collect()
    }

    /// The plan that is carried out.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    fn take_answer(&mut self, now: Moment, call: CallId, answer: Answer, notes: &mut Vec<Note>) {
        let Some((level, device)) = self.calls.remove(&call) else { return };
        if self.stopped.remove(&call) || self.levels[level].is_over() {
            self.levels[level].devices[device].calling = false;
            return; // asked to stop: what it says, or fails to say, decides nothing
        }
        let device = &mut self.levels[level].devices[device];
        match answer {
            Answer::Read(answer) => device.on_read(now, &self.plan.target, answer, notes),
            Answer::Off(answer) => device.on_off(now, &self.plan.target, answer, notes),
        }
    }

    /// Moves levels on; gives the verdict if there is one.
    fn advance(&mut self, now: Moment, ended: Option<Ended>, notes: &mut Vec<Note>) -> Option<Verdict> {
        // Evidence that is complete counts even if the order is called off in the same step.
        for level in &mut self.levels {
            if let Some(evidence) = level.advance(now, &self.plan, notes) {
                return Some(Verdict::Proven { evidence });
            }
        }
        if let Some(ended) = ended {
            return Some(self.unproven(ended));
        }
        if now >= self.deadline {
            return Some(self.unproven(Ended::Deadline));
        }
        self.begin_levels(now, notes);
        let over = self.levels.iter().all(LevelRun::is_over);
        over.then(|| self.unproven(Ended::Exhausted))
    }

    fn begin_levels(&mut self, now: Moment, notes: &mut Vec<Note>) {
        for index in 0..self.levels.len() {
            let level = &self.levels[index];
            let free = level.after.iter().all(|number| self.is_out_of_the_way(*number));
            if level.state == State::Pending && free {
                let gives_up = self.give_up_moment(now, level.number);
                self.levels[index].begin(now, gives_up, notes);
            }
        }
    }

    /// A level is out of the way when it ended and its last call came back: two calls never meet at one endpoint.
    fn is_out_of_the_way(&self, number: usize) -> bool {
        let of_number = |level: &&LevelRun| level.number == number;
        self.levels
            .iter()
            .filter(of_number)
            .all(|level| level.is_over() && !level.devices.iter().any(|device| device.calling))
    }

    /// A level that others wait for gets an equal share of the time left; one that none waits for may use all of it.
    fn give_up_moment(&self, now: Moment, number: usize) -> Option<Moment> {
        let waiting = self.chain_behind(number);
        let left = self.deadline.since(now);
        (waiting > 0).then(|| now.plus(left / (waiting + 1)))
    }

    /// Length of the longest chain of levels that wait for this one.
    fn chain_behind(&self, number: usize) -> u32 {
        let waits = |level: &&LevelRun| level.after.contains(&number);
        self.levels.iter().filter(waits).map(|level| 1 + self.chain_behind(level.number)).max().unwrap_or(0)
    }

    /// Turns what is due into calls, or what is under way into stops, and tells the verdict.
    fn make_calls(&mut self, now: Moment, verdict: Option<Verdict>, effects: &mut Vec<Effect>) {
        if let Some(verdict) = verdict {
            self.stop_calls(|_| true, effects);
            self.verdict = Some(verdict.clone());
            effects.push(Effect::Conclude(verdict));
            return;
        }
        let over: BTreeSet<usize> =
            self.levels.iter().enumerate().filter(|(_, level)| level.is_over()).map(|(index, _)| index).collect();
        self.stop_calls(|level| over.contains(&level), effects);
        for (level_index, level) in
            self.levels.iter_mut().enumerate().filter(|(_, level)| level.state == State::Running)
        {
            for (device_index, device) in level.devices.iter_mut().enumerate() {
                let Some(act) = device.next_call(now) else { continue };
                let rhythm = device.facts.rhythm;
                let allowed = match act {
                    Act::Read => rhythm.read_limit,
                    Act::Off => rhythm.off_limit,
                };
                let call = CallId(self.next_call);
                self.next_call += 1;
                self.calls.insert(call, (level_index, device_index));
                let limit = now.plus(allowed).min(self.deadline);
                effects.push(Effect::Call { call, device: device.facts.name.clone(), act, limit });
            }
        }
    }

    fn stop_calls(&mut self, of_level: impl Fn(usize) -> bool, effects: &mut Vec<Effect>) {
        for (call, (level, _)) in &self.calls {
            if of_level(*level) && self.stopped.insert(*call) {
                effects.push(Effect::Stop { call: *call });
            }
        }
    }

    fn unproven(&self, ended: Ended) -> Verdict {
        let mut unproven = Unproven { ended, reasons: Vec::new(), contrary: Vec::new(), waits_for: Vec::new() };
        for level in &self.levels {
            if let State::Waiting(what) = level.state {
                unproven.waits_for.push(what);
                unproven.reasons.push(reason_of_level(level, format!("waits for {what}")));
                continue;
            }
            if let State::Ended(super::LevelEnd::NotEnough(not_enough)) = &level.state {
                unproven.reasons.push(reason_of_level(level, not_enough.to_string()));
            }
            for device in &level.devices {
                unproven.reasons.push(reason_of_device(level.number, device));
                let latest = device.latest.as_ref().filter(|reading| reading.observed.is_contrary());
                unproven.contrary.extend(latest.map(|reading| contrary(device, reading)));
            }
        }
        Verdict::Unproven(unproven)
    }
}

fn reason_of_device(level: usize, device: &DeviceRun) -> Reason {
    let state = device.latest.as_ref().map(|reading| state_in_words(device, reading));
    let (text, remedy) = match (&device.trouble, state) {
        (Some(trouble), Some((text, _))) if device.has_failed().is_some() => {
            (format!("{trouble} (before that: {text})"), trouble.remedy())
        }
        (Some(trouble), Some((text, remedy))) => (format!("{text}; then it {trouble}"), remedy),
        (Some(trouble), None) => (trouble.to_string(), trouble.remedy()),
        (None, Some((text, remedy))) => (text, remedy),
        (None, None) if device.phase == Phase::Helped => {
            let why = match device.facts.proves {
                Proves::Nothing(why) => why,
                Proves::Machine
                | Proves::Feeds(_)
                | Proves::Hypervisor(_)
                | Proves::Storage(_)
                | Proves::Network
                | Proves::Elsewhere(_) => "it gives no evidence",
            };
            (format!("took the order: {why}"), "wait for another level's evidence: this one only hastens the end")
        }
        (None, None) if device.asked => {
            ("gave no reading in the time it had".to_owned(), "allow more time, or check the device")
        }
        (None, None) => ("was not asked".to_owned(), "allow more time, or ask for this level alone"),
    };
    let silent = device.asked && !device.heard;
    Reason { level, device: Some(device.facts.name.clone()), text, remedy: remedy.to_owned(), silent }
}

/// What the newest reading says, and what to do about it.
fn state_in_words(device: &DeviceRun, reading: &Reading) -> (String, &'static str) {
    let observed = &reading.observed;
    if device.came_back > 0 {
        let times = device.came_back;
        let text = format!("came back {times} times after it had read off; now: {observed}");
        (text, "look for a power restore policy, or another manager that switches it on again")
    } else if observed.is_harmless() {
        (format!("reads: {observed}; not confirmed in time"), "allow more time")
    } else {
        let text = format!("still reads: {observed} (told off {} times)", device.offs);
        (text, "the device takes the order and doesn't carry it out: look at the machine")
    }
}

fn reason_of_level(level: &LevelRun, text: String) -> Reason {
    Reason { level: level.number, device: None, text, remedy: String::new(), silent: false }
}

fn contrary(device: &DeviceRun, reading: &Reading) -> Contrary {
    Contrary { device: device.facts.name.clone(), observed: reading.observed.clone(), at: reading.answered }
}
