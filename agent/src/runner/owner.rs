//! The owner's side of a group: bring it up, keep it mirrored, stop it for a planned move.

use super::act::{Act, MayStart, OwnerDuty, Saying};
use super::group::GroupRunner;
use crate::engine::{Found, Presence, Work};
use quorum::id::Generation;
use quorum::moment::Moment;

impl GroupRunner {
    pub(super) fn step_owner(
        &mut self,
        now: Moment,
        duty: &OwnerDuty,
        (found, may_start): (&Found, &MayStart),
        acts: &mut Vec<Act>,
    ) {
        if duty.is_stopped {
            self.stay_stopped(found, acts);
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
            Presence::Absent => self.bring_up(duty, may_start, acts),
        }
    }

    fn stay_stopped(&mut self, found: &Found, acts: &mut Vec<Act>) {
        if found.workload != Presence::Absent {
            self.order(Work::Kill, acts);
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

    fn bring_up(&mut self, duty: &OwnerDuty, may_start: &MayStart, acts: &mut Vec<Act>) {
        if let MayStart::No(because) = may_start {
            self.because.clone_from(because);
            return;
        }
        if self.promoted == Some(duty.epoch) {
            self.order(Work::Start { epoch: duty.epoch, host_epoch: duty.host_epoch }, acts);
        } else {
            let (epoch, opens, generation) = (duty.epoch, duty.opens, duty.generation);
            self.order(Work::Promote { epoch, opens, generation }, acts);
        }
    }

    fn serve(&mut self, now: Moment, duty: &OwnerDuty, acts: &mut Vec<Act>) {
        if self.release == Some(duty.epoch) {
            self.order(Work::ReleaseWrites { epoch: duty.epoch }, acts);
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
        } else if self.recorded.is_some_and(|recorded| recorded < duty.generation) {
            // The generation rose by a detachment: the copy here is the one that goes on.
            self.order(Work::RecordGeneration { epoch: duty.epoch, generation: duty.generation }, acts);
        } else {
            self.mirror(now, duty, acts);
        }
    }

    fn mirror(&mut self, now: Moment, duty: &OwnerDuty, acts: &mut Vec<Act>) {
        let Some(standby) = duty.mirror_to.clone() else { return };
        if self.mirrored.as_ref() != Some(&(duty.epoch, standby.clone())) {
            self.order(Work::Mirror { epoch: duty.epoch, standby }, acts);
        } else if !duty.in_sync.contains(&standby) && self.mirror_away.is_none() {
            let (epoch, generation) = (duty.epoch, duty.generation);
            self.say(now, Saying::InSync { epoch, copy: standby, generation }, acts);
        }
    }
}
