//! One device within a session: from the first question to the second reading.

use super::{Act, Note};
use crate::evidence::{Pair, Proven, identify, is_wanted};
use crate::facts::{Binding, DeviceFacts, Proves};
use crate::moment::Moment;
use crate::mutants;
use crate::reading::{Observed, Power, Reading};
use crate::target::{ReportedIdentity, Target};
use crate::trouble::Trouble;
use std::time::Duration;

/// Longest pause between two attempts at a device that answers nothing.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// A device that answers more slowly than it is polled is left this part of the interval between two questions.
const BREATH: u32 = 4;

/// Where a device stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its level hasn't begun.
    Idle,
    /// It is asked whose machine it is, before anything is switched.
    Identifying,
    /// It is told to switch off.
    Switching,
    /// The wanted state is waited for.
    Watching,
    /// The wanted state was read once.
    Seen,
    /// It is read for the second time.
    Confirming,
    /// Read twice.
    Proven(Proven),
    /// It was told, and can prove nothing.
    Helped,
    /// It can't succeed in this session.
    Failed(Trouble),
}

/// One device within a session.
#[derive(Clone, Debug)]
pub(super) struct DeviceRun {
    pub(super) facts: DeviceFacts,
    pub(super) phase: Phase,
    /// The first reading of the wanted state.
    pub(super) first: Option<Reading>,
    /// When it is to be asked next, unless a call is out.
    pub(super) due: Option<Moment>,
    /// A call is out.
    pub(super) calling: bool,
    /// The newest reading, for the reasons.
    pub(super) latest: Option<Reading>,
    /// The newest trouble, cleared by an answer.
    pub(super) trouble: Option<Trouble>,
    /// Ever asked in this session.
    pub(super) asked: bool,
    /// Ever heard from in this session.
    pub(super) heard: bool,
    /// When `off` was sent last.
    off_sent: Option<Moment>,
    /// How often `off` was sent.
    pub(super) offs: u32,
    /// How often it came back from the wanted state.
    pub(super) came_back: u32,
    failures_in_a_row: u32,
}

impl DeviceRun {
    pub(super) fn new(facts: DeviceFacts) -> Self {
        Self {
            facts,
            phase: Phase::Idle,
            first: None,
            due: None,
            calling: false,
            latest: None,
            trouble: None,
            asked: false,
            heard: false,
            off_sent: None,
            offs: 0,
            came_back: 0,
            failures_in_a_row: 0,
        }
    }

    /// Begins. A device that can say whose machine it is must say so before it is told to switch anything.
    pub(super) fn begin(&mut self, now: Moment) {
        self.phase = match (&self.facts.proves, &self.facts.binding) {
            (Proves::Nothing(_), _) => Phase::Switching,
            (_, Binding::Reported) => Phase::Identifying,
            (_, Binding::Wired(_) | Binding::Claim) => Phase::Switching,
        };
        self.due = Some(now);
    }

    /// The call to make now, if one is due.
    pub(super) fn next_call(&mut self, now: Moment) -> Option<Act> {
        if self.calling || self.due.is_none_or(|due| due > now) {
            return None;
        }
        let act = match self.phase {
            Phase::Identifying | Phase::Watching | Phase::Confirming => Act::Read,
            Phase::Switching => Act::Off,
            Phase::Idle | Phase::Seen | Phase::Proven(_) | Phase::Helped | Phase::Failed(_) => return None,
        };
        if act == Act::Off {
            self.off_sent = Some(now);
            self.offs += 1;
        }
        self.calling = true;
        self.asked = true;
        self.due = None;
        Some(act)
    }

    /// The second reading is due at `at`.
    pub(super) fn confirm_at(&mut self, at: Moment) {
        self.phase = Phase::Confirming;
        self.due = Some(at);
    }

    /// Another device of the level has to start again: the second reading must come after *its* new first one.
    pub(super) fn confirm_anew(&mut self) {
        if matches!(self.phase, Phase::Proven(_) | Phase::Confirming) {
            self.phase = Phase::Seen;
            self.due = None;
        }
    }

    pub(super) fn has_failed(&self) -> Option<&Trouble> {
        match &self.phase {
            Phase::Failed(trouble) => Some(trouble),
            Phase::Idle
            | Phase::Identifying
            | Phase::Switching
            | Phase::Watching
            | Phase::Seen
            | Phase::Confirming
            | Phase::Proven(_)
            | Phase::Helped => None,
        }
    }

    /// Takes the answer to an `off`. Whatever it says, the state has to be read.
    pub(super) fn on_off(&mut self, now: Moment, target: &Target, answer: Result<(), Trouble>, notes: &mut Vec<Note>) {
        self.calling = false;
        let accepted = answer.is_ok();
        match answer {
            Ok(()) => {
                self.heard = true;
                self.trouble = None;
                notes.push(Note::Accepted { device: self.facts.name.clone() });
            }
            Err(trouble) => {
                self.note_trouble(Act::Off, &trouble, notes);
                if is_lasting(&trouble) {
                    return self.fail(trouble);
                }
                self.trouble = Some(trouble);
            }
        }
        if let Proves::Nothing(_) = self.facts.proves
            && !mutants::on("accelerator-as-proof")
        {
            // A message that wasn't taken may be taken later; one that was taken is all this device can do.
            self.phase = if accepted { Phase::Helped } else { Phase::Switching };
            self.due = (!accepted).then(|| now.plus(self.facts.rhythm.off_again));
            return;
        }
        self.phase = Phase::Watching;
        self.due = Some(now);
        if accepted && mutants::on("rc-as-proof") {
            self.believe_return_code(now, target, notes);
        }
    }

    /// Takes a reading, or the trouble that came instead.
    pub(super) fn on_read(
        &mut self,
        now: Moment,
        target: &Target,
        answer: Result<Reading, Trouble>,
        notes: &mut Vec<Note>,
    ) {
        self.calling = false;
        let checked = answer.and_then(|reading| identify(&self.facts, target, &reading).map(|_| reading));
        match checked {
            Err(trouble) => {
                self.note_trouble(Act::Read, &trouble, notes);
                if is_lasting(&trouble) {
                    return self.fail(trouble);
                }
                self.failures_in_a_row += 1;
                // While this call was out the device may have been set back to waiting for the others.
                let is_read = matches!(self.phase, Phase::Identifying | Phase::Watching | Phase::Confirming);
                self.due = is_read.then(|| now.plus(self.pause()));
                self.trouble = Some(trouble);
            }
            Ok(reading) => {
                self.heard = true;
                self.failures_in_a_row = 0;
                self.trouble = None;
                notes.push(Note::Read { device: self.facts.name.clone(), observed: reading.observed.clone() });
                self.latest = Some(reading.clone());
                self.take_reading(now, target, reading, notes);
            }
        }
    }

    fn take_reading(&mut self, now: Moment, target: &Target, reading: Reading, notes: &mut Vec<Note>) {
        let wanted = is_wanted(&self.facts, &reading);
        match (&self.phase, wanted) {
            (Phase::Identifying | Phase::Watching, true) => {
                self.first = Some(reading);
                self.phase = Phase::Seen;
                self.due = None;
                if mutants::on("skip-second-read") {
                    self.confirm(now, target, None, notes);
                }
            }
            (Phase::Identifying, false) => self.switch(now),
            (Phase::Watching, false) => {
                let waited = self.off_sent.is_none_or(|sent| now.since(sent) >= self.facts.rhythm.off_again);
                // Counted from when it was asked: a slow answer doesn't stretch the interval. Never without a breath.
                let poll = self.facts.rhythm.poll;
                let next = reading.asked.plus(poll).max(now.plus(poll / BREATH));
                if waited { self.switch(now) } else { self.due = Some(next) }
            }
            (Phase::Confirming, true) => self.confirm(now, target, Some(reading), notes),
            (Phase::Confirming, false) => {
                self.came_back += 1;
                self.first = None;
                let device = self.facts.name.clone();
                notes.push(Note::CameBack { device, observed: reading.observed });
                self.switch(now);
            }
            // The device failed or was proven while this answer was under way: it changes nothing.
            (
                Phase::Idle | Phase::Switching | Phase::Seen | Phase::Proven(_) | Phase::Helped | Phase::Failed(_),
                true | false,
            ) => {}
        }
    }

    fn confirm(&mut self, now: Moment, target: &Target, second: Option<Reading>, notes: &mut Vec<Note>) {
        let Some(first) = self.first.clone() else { return self.switch(now) };
        let second = second.unwrap_or_else(|| first.clone());
        match Proven::of(&self.facts, target, Pair { first: &first, second: &second }) {
            Ok(proven) => {
                self.phase = Phase::Proven(proven);
                self.due = None;
            }
            Err(not_proof) => {
                // The device contradicts itself in a way that isn't simply "on": start from the beginning.
                self.first = None;
                self.phase = Phase::Watching;
                self.due = Some(now.plus(self.facts.rhythm.poll));
                let (device, because) = (self.facts.name.clone(), not_proof.to_string());
                notes.push(Note::Troubled { device, act: Act::Read, because });
            }
        }
    }

    fn switch(&mut self, now: Moment) {
        self.phase = Phase::Switching;
        // The first one at once; later ones leave the device its time, or it would never get anywhere.
        let rest = self.off_sent.map(|sent| sent.plus(self.facts.rhythm.off_again));
        self.due = Some(rest.map_or(now, |rest| rest.max(now)));
    }

    fn fail(&mut self, trouble: Trouble) {
        self.trouble = Some(trouble.clone());
        self.phase = Phase::Failed(trouble);
        self.due = None;
        self.first = None;
    }

    fn pause(&self) -> Duration {
        let doublings = self.failures_in_a_row.saturating_sub(1).min(4);
        (self.facts.rhythm.poll * 2u32.pow(doublings)).min(PAUSE_MAX.max(self.facts.rhythm.poll))
    }

    fn note_trouble(&mut self, act: Act, trouble: &Trouble, notes: &mut Vec<Note>) {
        self.heard |= !trouble.is_silence();
        notes.push(Note::Troubled { device: self.facts.name.clone(), act, because: trouble.to_string() });
    }

    /// Only under the mutant `rc-as-proof`: what a naive fencer does.
    fn believe_return_code(&mut self, now: Moment, target: &Target, notes: &mut Vec<Note>) {
        let observed = Observed::Power(Power::Off);
        let identity = self.latest.as_ref().map_or_else(ReportedIdentity::none, |latest| latest.identity.clone());
        let asked = now.plus(self.facts.rhythm.settle);
        let believed = Reading { asked, answered: now, observed, identity, lab: false };
        self.first = Some(believed.clone());
        self.confirm(now, target, Some(believed), notes);
    }
}

fn is_lasting(trouble: &Trouble) -> bool {
    let again = matches!(trouble, Trouble::LoginRefused { .. }) && mutants::on("login-again");
    trouble.is_lasting() && !again
}
