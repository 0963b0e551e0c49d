//! The owner's side of a group: bring it up, keep it mirrored, stop it for a planned move.

use super::act::{Act, MayStart, OwnerDuty, Saying};
use super::group::GroupRunner;
use crate::engine::{Found, Presence, Work};
use quorum::id::Generation;
use quorum::moment::Moment;
use quorum::mutants;

impl GroupRunner {
    pub(super) fn step_owner(
        &mut self,
        now: Moment,
        duty: &OwnerDuty,
        (found, may_start): (&Found, &MayStart),
        acts: &mut Vec<Act>,
    ) {
        if duty.is_stopped {
            self.stay_stopped(duty, found, acts);
            return;
        }
        if let Some(intent) = duty.stop_for {
            self.stop_for(now, (duty, intent), found, acts);
            return;
        }
        // A newer grant, or an intent that was aborted, ends what was stopped under the one before.
        self.stopped.take_if(|(epoch, ..)| *epoch != duty.epoch);
        match found.workload {
            Presence::Running(epoch) if epoch == duty.epoch => self.serve(now, duty, acts),
            Presence::Running(_) if duty.adopts => self.serve(now, duty, acts),
            Presence::Running(_) | Presence::Remnant => self.order(Work::Kill, acts),
            Presence::Absent => self.bring_up(now, duty, may_start, acts),
        }
    }

    fn stay_stopped(&mut self, duty: &OwnerDuty, found: &Found, acts: &mut Vec<Act>) {
        if found.workload != Presence::Absent {
            self.order(Work::Kill, acts);
        } else if self.is_behind(duty) && !mutants::on("runner.stays_one_behind") {
            // It is granted back only if its copy says what the ledger says; nothing was answered in between.
            self.order(Work::RecordGeneration { epoch: duty.epoch, generation: duty.generation }, acts);
        }
    }

    /// A planned move: from the moment `Stopped` is sent until an abort or a newer grant is applied, nothing of the
    /// group runs here.
    fn stop_for(
        &mut self,
        now: Moment,
        (duty, intent): (&OwnerDuty, quorum::id::IntentId),
        found: &Found,
        acts: &mut Vec<Act>,
    ) {
        if found.workload == Presence::Absent && self.promoted != Some(duty.epoch) && !duty.is_recorded_running {
            // Nothing was opened for writing under this epoch: every copy that counts as in sync has everything.
            self.stopped = Some((duty.epoch, true, true));
        }
        let already = self.stopped.filter(|(epoch, ..)| *epoch == duty.epoch);
        match (already, found.workload) {
            (Some((epoch, is_drained, untouched)), Presence::Absent) => {
                let drained = if is_drained { duty.in_sync.clone() } else { Vec::new() };
                let raised = Generation(duty.generation.0 + 1);
                if drained.len() < duty.in_sync.len() && self.recorded.is_some_and(|recorded| recorded < raised) {
                    // A copy is left behind: this one says so of itself before the ledger does.
                    self.order(Work::RecordGeneration { epoch, generation: raised }, acts);
                    return;
                }
                self.say(now, Saying::Stopped { epoch, intent, drained, untouched }, acts);
            }
            (None, _) => self.order(Work::Stop { epoch: duty.epoch, patience: duty.patience }, acts),
            (Some(_), Presence::Running(_) | Presence::Remnant) => self.order(Work::Kill, acts),
        }
    }

    fn bring_up(&mut self, now: Moment, duty: &OwnerDuty, may_start: &MayStart, acts: &mut Vec<Act>) {
        if let MayStart::No(because) = may_start {
            self.because.clone_from(because);
            return;
        }
        let (epoch, opens, generation) = (duty.epoch, duty.opens, duty.generation);
        if self.promoted != Some(epoch) {
            self.order(Work::Promote { epoch, opens, generation }, acts);
        } else if !duty.in_sync.is_empty() && !mutants::on("runner.starts_with_copies_in_sync") {
            // A workload begins without a mirror: no copy may pass for the latest once it writes. The set stayed whole
            // until here, so that a promotion that fails can still go back.
            self.because = "the other copies leave the in-sync set before the first write".into();
            self.say_others_left(now, duty, acts);
        } else if self.is_behind(duty) {
            self.order(Work::RecordGeneration { epoch, generation }, acts);
        } else {
            self.order(Work::Start { epoch, host_epoch: duty.host_epoch }, acts);
        }
    }

    /// The generation rose by a detachment: this copy is the one that goes on, and doesn't say so yet.
    fn is_behind(&self, duty: &OwnerDuty) -> bool {
        self.recorded.is_some_and(|recorded| recorded < duty.generation)
    }

    fn serve(&mut self, now: Moment, duty: &OwnerDuty, acts: &mut Vec<Act>) {
        if self.release == Some(duty.epoch) {
            // Recorded before a write is answered that no other copy has: a crash in between would leave a copy that
            // calls itself older than it is.
            let (epoch, generation) = (duty.epoch, duty.generation);
            let work = if self.is_behind(duty) {
                Work::RecordGeneration { epoch, generation }
            } else {
                Work::ReleaseWrites { epoch }
            };
            self.order(work, acts);
            return;
        }
        if !duty.is_recorded_running {
            self.say(now, Saying::Running(duty.epoch), acts);
        }
        self.detach_if_away(now, duty, acts);
        if self.announced != Some(duty.epoch) {
            self.order(Work::Announce { epoch: duty.epoch }, acts);
        } else if self.probed != Some(duty.epoch) {
            self.order(Work::Probe { epoch: duty.epoch }, acts);
        } else if self.is_behind(duty) {
            self.order(Work::RecordGeneration { epoch: duty.epoch, generation: duty.generation }, acts);
        } else {
            self.mirror(now, duty, acts);
        }
    }

    fn mirror(&mut self, now: Moment, duty: &OwnerDuty, acts: &mut Vec<Act>) {
        let Some(standby) = duty.mirror_to.clone() else { return };
        if self.mirrored.as_ref() != Some(&(duty.epoch, standby.clone())) {
            let counts = duty.in_sync.contains(&standby);
            self.order(Work::Mirror { epoch: duty.epoch, standby, counts }, acts);
        } else if !duty.in_sync.contains(&standby) && self.mirror_away.is_none() {
            let (epoch, generation) = (duty.epoch, duty.generation);
            self.say(now, Saying::InSync { epoch, copy: standby, generation }, acts);
        }
    }
}
