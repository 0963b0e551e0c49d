//! The runner of one group: what was seen here, what is under way, what failed.

use super::act::{Act, Duty, FormerDuty, MayStart, Saying, StandbyDuty, Tie, TiedDuty};
use crate::engine::{Found, Presence, Report, Resync, Sight, Work, WorkId};
use quorum::id::{Epoch, Generation, HostName};
use quorum::ledger::{StepKind, StepOutcome};
use quorum::moment::Moment;
use quorum::mutants;
use std::time::Duration;

/// After a failure the same work is tried again after this, doubled each time up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// A mirror that is away this long is detached: long enough for a lost packet's retransmission, far below the
/// connection's own patience.
const DETACH_AFTER: Duration = Duration::from_millis(1_000);
/// What was said and isn't shown by the ledger is said again after this.
const SAY_AGAIN: Duration = Duration::from_millis(500);

/// State of one group on this host.
#[derive(Clone, Debug, Default)]
pub struct GroupRunner {
    /// What was seen of the workload; `None`: look first.
    pub(super) seen: Option<Found>,
    pub(super) busy: Option<(WorkId, Work)>,
    /// Somebody wants to know what is here now, also while something waits to be tried again.
    is_asked: bool,
    pub(super) failures: u32,
    pub(super) retry_at: Option<Moment>,
    pub(super) because: String,
    pub(super) export: Option<(Epoch, HostName)>,
    /// The copy behind the open export is recorded as whole.
    pub(super) is_marked: bool,
    pub(super) recorded: Option<Generation>,
    pub(super) promoted: Option<Epoch>,
    pub(super) announced: Option<Epoch>,
    pub(super) probed: Option<Epoch>,
    pub(super) stopped: Option<(Epoch, bool, bool)>,
    pub(super) mirrored: Option<(Epoch, HostName)>,
    /// Whether writes wait for that mirror.
    pub(super) mirror_waits: bool,
    pub(super) mirror_away: Option<Moment>,
    /// That mirror is gone, so nothing waits for it.
    pub(super) mirror_ended: bool,
    pub(super) release: Option<Epoch>,
    /// The reign and generation in which the other copy was said to be in sync; whether that word arrives isn't known.
    pub(super) promised: Option<(Epoch, Generation)>,
    /// How far the copy was behind, and when that was seen.
    pub(super) lag: Option<(Duration, Moment)>,
    /// When the lag was told last, and when it is due again.
    pub(super) attested: Option<(Epoch, Generation, Moment)>,
    said: Vec<(Saying, Moment)>,
    next_id: u64,
}

impl GroupRunner {
    /// Nothing seen yet. Work ids begin after `base`, so that ids of an agent process are unique.
    pub fn new(base: u64) -> Self {
        Self { next_id: base, ..Self::default() }
    }

    /// Why the group isn't where the ledger wishes it, for people; empty if nothing is in the way.
    pub fn because(&self) -> &str {
        &self.because
    }

    /// What was last seen here.
    pub fn seen(&self) -> Option<&Found> {
        self.seen.as_ref()
    }

    /// What is under way.
    pub fn busy(&self) -> Option<&Work> {
        self.busy.as_ref().map(|(_, work)| work)
    }

    /// Whether a step of a plan was done here under this epoch, as far as this process knows. Nothing is, while
    /// something is under way.
    pub fn has_done(&self, step: StepKind, epoch: Epoch) -> bool {
        let runs = self.seen.as_ref().is_some_and(|found| found.workload == Presence::Running(epoch));
        self.busy.is_none()
            && match step {
                StepKind::Promote => self.promoted == Some(epoch) || runs,
                StepKind::Start => runs,
                StepKind::Announce => self.announced == Some(epoch),
                StepKind::Probe => self.probed == Some(epoch),
                _ => false,
            }
    }

    /// Look again before anything else.
    pub fn look_again(&mut self) {
        (self.seen, self.is_asked) = (None, true);
    }

    /// A person asked for another attempt.
    pub fn retry_now(&mut self) {
        self.retry_at = None;
        self.failures = 0;
    }

    /// The ledger accepted `Detached`: waiting writes may be answered.
    pub fn on_detached(&mut self, epoch: Epoch) {
        self.release = Some(epoch);
        self.mirrored = None;
        self.mirror_is_back();
    }

    /// Nothing is known to be wrong with the mirror.
    pub(super) fn mirror_is_back(&mut self) {
        (self.mirror_away, self.mirror_ended) = (None, false);
    }

    /// When [`GroupRunner::step`] wants to be called although nothing happened.
    pub fn deadline(&self) -> Option<Moment> {
        let again = self.said.iter().map(|(_, at)| at.plus(SAY_AGAIN)).min();
        let detach = self.mirror_away.map(|at| at.plus(DETACH_AFTER));
        let attest = self.attested.map(|(_, _, due)| due);
        [self.retry_at, again, detach, attest].into_iter().flatten().min()
    }

    /// Takes what a driver saw by itself.
    pub fn sight(&mut self, now: Moment, sight: &Sight) {
        match sight {
            Sight::Exited { because } => {
                self.because = format!("the workload ended: {because}");
                self.seen = None;
                self.announced = None;
                self.probed = None;
                self.mirrored = None;
            }
            Sight::MirrorAway { since } => {
                self.mirror_away.get_or_insert(now.minus(*since));
            }
            Sight::MirrorEnded { .. } => {
                self.mirror_away.get_or_insert(now);
                self.mirror_ended = true;
            }
            Sight::Lag { behind, .. } => {
                self.mirror_is_back();
                self.lag = behind.map(|behind| (behind, now)).or(self.lag);
            }
            Sight::Kept { .. } => {}
        }
    }

    /// Takes the end of a piece of work; an overtaken one's is ignored.
    pub fn report(&mut self, now: Moment, id: WorkId, report: Report) -> Vec<Act> {
        let Some((_, work)) = self.busy.take_if(|(busy, _)| *busy == id) else { return Vec::new() };
        let mut acts = Vec::new();
        let outcome = match report {
            Report::Found(found) => {
                self.recorded = found.copy.map(|copy| copy.generation);
                self.seen = Some(found);
                None
            }
            Report::Stopped { is_drained, untouched } => {
                if let Work::Stop { epoch, .. } = work {
                    self.stopped = Some((epoch, is_drained, untouched));
                }
                self.seen = None;
                self.succeeded();
                Some(StepOutcome::Done { detail: "stopped, flushed and released".into() })
            }
            Report::Done { detail } => {
                self.done(&work);
                self.succeeded();
                Some(StepOutcome::Done { detail })
            }
            Report::Mirrored { resync } => {
                self.done(&work);
                self.succeeded();
                Some(StepOutcome::Done { detail: resync.map_or("it follows already".into(), |resync| told(&resync)) })
            }
            Report::Failed { because } => {
                self.failed(now, &work, &because);
                Some(StepOutcome::Failed { because })
            }
        };
        if let (Some(kind), Some(outcome)) = (step_of(&work), outcome) {
            acts.push(Act::Say(Saying::StepEnded(kind, outcome)));
        }
        acts
    }

    fn succeeded(&mut self) {
        self.failures = 0;
        self.retry_at = None;
        self.because.clear();
    }

    fn failed(&mut self, now: Moment, work: &Work, because: &str) {
        self.failures += 1;
        let backoff = RETRY_MIN.saturating_mul(1 << self.failures.min(6)).min(RETRY_MAX);
        self.retry_at = Some(now.plus(backoff));
        self.because = because.to_owned();
        if matches!(work, Work::Mirror { counts: true, .. }) {
            // Writes may wait for a copy that the ledger counts on: only a committed detachment lets them go.
            self.mirror_away.get_or_insert(now);
        }
        if matches!(work, Work::Stop { .. }) {
            // Draining may have ended the mirror.
            self.mirrored = None;
        }
        // A failed attempt may have left anything: look before the next one.
        if !matches!(work, Work::Mirror { .. } | Work::Probe { .. } | Work::Announce { .. }) {
            self.seen = None;
        }
    }

    fn done(&mut self, work: &Work) {
        match work {
            Work::Promote { epoch, opens, .. } => {
                self.promoted = Some(*epoch);
                // What was promoted before may say less than the ledger by now.
                self.recorded = Some(*opens);
                self.export = None;
            }
            Work::Start { .. } => {
                // A new instance has no mirror and nothing that waits for one.
                (self.seen, self.mirrored, self.release) = (None, None, None);
                self.mirror_is_back();
            }
            Work::Kill | Work::Tie { .. } | Work::Untie { .. } => self.seen = None,
            Work::Announce { epoch } => self.announced = Some(*epoch),
            Work::Probe { epoch } => self.probed = Some(*epoch),
            Work::OpenExport { epoch, owner, is_whole } => {
                self.export = Some((*epoch, owner.clone()));
                // An export that begins anew makes the copy a mixture, whatever was recorded before.
                (self.recorded, self.is_marked) = (None, *is_whole);
            }
            Work::CloseExport => self.export = None,
            Work::Mirror { epoch, standby, waits, .. } => {
                (self.mirrored, self.mirror_waits) = (Some((*epoch, standby.clone())), *waits);
                // What was seen of another mirror says nothing about this one.
                (self.lag, self.attested) = (None, None);
                self.mirror_is_back();
            }
            Work::ReleaseWrites { .. } => self.release = None,
            Work::RecordGeneration { generation, .. } => (self.recorded, self.is_marked) = (Some(*generation), true),
            Work::Observe | Work::Stop { .. } => {}
        }
    }

    /// Compares the duty with what was seen and says what to do next.
    pub fn step(&mut self, now: Moment, duty: &Duty, may_start: &MayStart) -> Vec<Act> {
        let mut acts = Vec::new();
        self.said.retain(|(_, at)| now.held_since(*at) < SAY_AGAIN);
        if self.busy.as_ref().is_some_and(|(_, work)| !serves(work, duty)) {
            self.busy = None;
            self.seen = None;
            acts.push(Act::Overtaken);
        }
        if self.busy.is_some() {
            // Writes that wait for a committed detachment can't wait for other work.
            self.say_detached(now, duty, &mut acts);
            return acts;
        }
        if self.retry_at.is_some_and(|at| !now.either_reached(at)) {
            self.say_detached(now, duty, &mut acts);
            if std::mem::take(&mut self.is_asked) && self.seen.is_none() {
                self.order(Work::Observe, &mut acts);
            }
            return acts;
        }
        (self.retry_at, self.is_asked) = (None, false);
        let Some(found) = self.seen.clone() else {
            self.order(Work::Observe, &mut acts);
            return acts;
        };
        match duty {
            Duty::None => self.step_nobody(&found, &mut acts),
            Duty::Former(duty) => self.step_former(duty, &found, &mut acts),
            // Never a kill: what runs before a group is born was not started by this cluster.
            Duty::SayAbsent if found.workload == Presence::Absent => self.say(now, Saying::Absent, &mut acts),
            Duty::SayAbsent => {
                self.because = "something of the group runs here already: stop it, or attest where it may run".into();
                self.retry_at = Some(now.plus(RETRY_MAX));
                self.seen = None;
            }
            Duty::Standby(duty) => self.step_standby(duty, &found, &mut acts),
            Duty::Tied(duty) => self.step_tied(now, duty, &found, &mut acts),
            Duty::Owner(duty) => self.step_owner(now, duty, (&found, may_start), &mut acts),
        }
        acts
    }

    fn say_detached(&mut self, now: Moment, duty: &Duty, acts: &mut Vec<Act>) {
        if let Duty::Owner(duty) = duty {
            self.detach_if_away(now, duty, acts);
        }
    }

    /// Ends the mirror's absence by asking the ledger to go on without it.
    pub(super) fn detach_if_away(&mut self, now: Moment, duty: &super::OwnerDuty, acts: &mut Vec<Act>) {
        // A mirror that ended keeps nothing waiting: what is answered now is missing at a copy that counts.
        let away_long = self.mirror_away.is_some_and(|at| self.mirror_ended || now.held_since(at) >= DETACH_AFTER);
        if !away_long || duty.is_stopped {
            return;
        }
        if duty.in_sync.is_empty() {
            self.count_on_what_waits(now, duty, acts);
            return;
        }
        self.because = "the mirror is away; writes wait until the detachment is committed".into();
        self.say_others_left(now, duty, acts);
    }

    /// Writes wait for a copy on which the ledger doesn't count: the word that it has everything was lost, as the mirror
    /// was. It still has everything that was answered, so that is said again, and then it can be detached. To let the
    /// writes go at once would be wrong: the first word may still be under way, and count on the copy afterwards.
    fn count_on_what_waits(&mut self, now: Moment, duty: &super::OwnerDuty, acts: &mut Vec<Act>) {
        let waits = self.mirror_waits && !self.mirror_ended && !mutants::on("runner.waits_uncounted");
        let begun = self.mirrored.as_ref().filter(|(epoch, _)| waits && *epoch == duty.epoch);
        let Some((_, copy)) = begun.cloned() else { return };
        self.because = format!("writes wait for {copy}, whose mirror is away before its copy was counted on");
        self.say_in_sync(now, duty, copy, acts);
    }

    /// No other copy has everything from here on.
    pub(super) fn say_others_left(&mut self, now: Moment, duty: &super::OwnerDuty, acts: &mut Vec<Act>) {
        let generation = Generation(duty.generation.0 + 1);
        self.say(now, Saying::Detached { epoch: duty.epoch, away: duty.in_sync.clone(), generation }, acts);
    }

    fn step_nobody(&mut self, found: &Found, acts: &mut Vec<Act>) {
        if self.is_cleared(found, acts) && self.export.is_some() {
            self.order(Work::CloseExport, acts);
        }
    }

    /// This host owned the group last, and its end came between what its copy says and what the ledger says. Either it
    /// detached the others and its copy doesn't say so yet; or it stopped for a move that left a copy behind, said that
    /// of its own copy, and the ledger never counted the stop. No write was answered in between, so its copy has
    /// everything that the ledger counts on; the driver refuses unless the copy reigned under this very epoch.
    fn step_former(&mut self, duty: &FormerDuty, found: &Found, acts: &mut Vec<Act>) {
        let (epoch, generation) = (duty.epoch, duty.generation);
        let is_one_behind = self.recorded.is_some_and(|recorded| recorded.0 + 1 == generation.0);
        let is_one_ahead = self.recorded.is_some_and(|recorded| recorded.0 == generation.0 + 1);
        let is_off = (is_one_behind && !mutants::on("runner.stays_one_behind"))
            || (is_one_ahead && !mutants::on("runner.stays_one_ahead"));
        if self.is_cleared(found, acts) && is_off {
            self.order(Work::RecordGeneration { epoch, generation }, acts);
        }
    }

    fn step_standby(&mut self, duty: &StandbyDuty, found: &Found, acts: &mut Vec<Act>) {
        if !self.is_cleared(found, acts) {
            return;
        }
        let ahead = self.recorded.zip(duty.in_sync).filter(|(mine, theirs)| mine > theirs);
        if let Some((recorded, counted)) = ahead.filter(|_| !mutants::on("runner.overwrites_ahead")) {
            // It has something that the log doesn't know of. Its own word is left as it is: the gate holds such a copy.
            self.because = format!(
                "this copy says generation {recorded}, the log counts on {counted}: nothing is written over it"
            );
            return;
        }
        // A copy that was left behind under the same owner is made equal anew: it isn't whole any more.
        let is_whole = duty.in_sync.is_some();
        let is_open = self.export.as_ref() == Some(&(duty.epoch, duty.owner.clone()));
        if !is_open || (self.is_marked && !is_whole) {
            self.order(Work::OpenExport { epoch: duty.epoch, owner: duty.owner.clone(), is_whole }, acts);
        } else if let Some(generation) = duty.in_sync.filter(|generation| self.recorded != Some(*generation)) {
            self.order(Work::RecordGeneration { epoch: duty.epoch, generation }, acts);
        }
    }

    /// What this host was tied to goes on. Nothing is started: that takes a grant, and a grant that the pin be gone.
    fn step_tied(&mut self, now: Moment, duty: &TiedDuty, found: &Found, acts: &mut Vec<Act>) {
        match found.workload {
            Presence::Running(epoch) if epoch == duty.epoch => {
                self.moves(found, (duty.tie, epoch), acts);
            }
            Presence::Running(_) => self.order(Work::Kill, acts),
            Presence::Absent => {
                self.because = "it is pinned here and doesn't run any more; it is started once it is untied".into();
            }
            // A look that failed is no reason to end what was promised to go on.
            Presence::Remnant => {
                self.because = "it is pinned here and can't be told to run".into();
                self.retry_at = Some(now.plus(RETRY_MAX));
                self.seen = None;
            }
        }
    }

    /// Moves what runs to where it belongs. Returns whether it has to.
    pub(super) fn moves(&mut self, found: &Found, (tie, epoch): (Tie, Epoch), acts: &mut Vec<Act>) -> bool {
        let work = match (tie, found.is_tied) {
            (Tie::In, false) => Work::Tie { epoch },
            (Tie::Out, true) => Work::Untie { epoch },
            (Tie::In, true) | (Tie::Out, false) | (Tie::Stay, _) => return false,
        };
        self.order(work, acts);
        true
    }

    /// Orders a kill if anything of the workload is here.
    fn is_cleared(&mut self, found: &Found, acts: &mut Vec<Act>) -> bool {
        let is_absent = found.workload == Presence::Absent;
        if !is_absent {
            self.order(Work::Kill, acts);
        }
        is_absent
    }

    pub(super) fn order(&mut self, work: Work, acts: &mut Vec<Act>) {
        self.next_id += 1;
        let id = WorkId(self.next_id);
        if let Some(kind) = step_of(&work) {
            acts.push(Act::Say(Saying::StepBegan(kind)));
        }
        self.busy = Some((id, work.clone()));
        acts.push(Act::Work(id, work));
    }

    pub(super) fn say(&mut self, now: Moment, saying: Saying, acts: &mut Vec<Act>) {
        if !self.said.iter().any(|(said, _)| *said == saying) {
            self.said.push((saying.clone(), now));
            acts.push(Act::Say(saying));
        }
    }
}

/// What a resync took, for people.
fn told(resync: &Resync) -> String {
    let Resync { compared_bytes, differing_bytes, copied_bytes, kept_bytes, pause } = resync;
    format!(
        "{compared_bytes} bytes compared, {differing_bytes} differed ({kept_bytes} kept), {copied_bytes} copied, paused {} ms",
        pause.as_millis()
    )
}

/// The step of a plan that a piece of work is, if any.
fn step_of(work: &Work) -> Option<StepKind> {
    match work {
        Work::Promote { .. } => Some(StepKind::Promote),
        Work::Start { .. } => Some(StepKind::Start),
        Work::Probe { .. } => Some(StepKind::Probe),
        Work::Announce { .. } => Some(StepKind::Announce),
        Work::Stop { .. } => Some(StepKind::Stop),
        Work::Mirror { .. } => Some(StepKind::Reverse),
        Work::Observe
        | Work::Kill
        | Work::Tie { .. }
        | Work::Untie { .. }
        | Work::OpenExport { .. }
        | Work::CloseExport
        | Work::ReleaseWrites { .. }
        | Work::RecordGeneration { .. } => None,
    }
}

/// Whether work under way still serves the duty; what doesn't is overtaken.
fn serves(work: &Work, duty: &Duty) -> bool {
    let owner = match duty {
        Duty::Owner(owner) if !owner.is_stopped => Some(owner),
        Duty::Owner(_) | Duty::Tied(_) | Duty::None | Duty::Former(_) | Duty::SayAbsent | Duty::Standby(_) => None,
    };
    match work {
        Work::Observe | Work::Kill | Work::CloseExport | Work::RecordGeneration { .. } => true,
        // Never two at once: one that was overtaken could still be moving when the keeper's word is taken.
        Work::Tie { .. } | Work::Untie { .. } => true,
        Work::Promote { epoch, .. }
        | Work::Start { epoch, .. }
        | Work::Probe { epoch }
        | Work::Announce { epoch }
        | Work::ReleaseWrites { epoch } => owner.is_some_and(|owner| owner.epoch == *epoch),
        Work::Stop { epoch, .. } => owner.is_some_and(|owner| owner.epoch == *epoch && owner.stop_for.is_some()),
        Work::Mirror { epoch, standby, .. } => owner.is_some_and(|owner| {
            owner.epoch == *epoch && owner.stop_for.is_none() && owner.mirror_to.as_ref() == Some(standby)
        }),
        Work::OpenExport { epoch, .. } => match duty {
            Duty::Standby(standby) => standby.epoch == *epoch,
            Duty::None | Duty::Former(_) | Duty::SayAbsent | Duty::Owner(_) | Duty::Tied(_) => false,
        },
    }
}
