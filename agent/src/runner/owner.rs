//! The owner's side of a group: bring it up, keep it mirrored, stop it for a planned move.

use super::act::{Act, MayStart, OwnerDuty, Saying};
use super::group::GroupRunner;
use crate::engine::{Found, Presence, Work};
use quorum::id::{Generation, HostName};
use quorum::moment::Moment;
use quorum::mutants;
use std::time::Duration;

/// A mirror for which no write waits and that is away this long is begun anew.
const MIRROR_ANEW: Duration = Duration::from_secs(10);

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
            Presence::Running(epoch) if epoch == duty.epoch => {
                if !self.moves(found, (duty.tie, epoch), acts) {
                    self.serve(now, duty, acts);
                }
            }
            Presence::Running(_) if duty.adopts => self.serve(now, duty, acts),
            Presence::Running(_) | Presence::Remnant => self.order(Work::Kill, acts),
            Presence::Absent => self.bring_up(now, duty, may_start, acts),
        }
    }

    fn stay_stopped(&mut self, duty: &OwnerDuty, found: &Found, acts: &mut Vec<Act>) {
        if found.workload != Presence::Absent && !mutants::on("runner.says_stopped_running") {
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
        let (already, workload) = if mutants::on("runner.says_stopped_running") {
            (Some((duty.epoch, true, false)), Presence::Absent)
        } else {
            (already, found.workload)
        };
        match (already, workload) {
            (Some((epoch, is_drained, untouched)), Presence::Absent) => {
                let mut drained = if is_drained { duty.in_sync.clone() } else { Vec::new() };
                // A copy for which no write waited has everything now.
                let follower = duty.mirror_to.clone().filter(|_| is_drained && duty.attest_every.is_some());
                drained.extend(follower.filter(|host| !duty.in_sync.contains(host)));
                let raised = Generation(duty.generation.0 + 1);
                if drained.len() < duty.in_sync.len() && self.recorded.is_some_and(|recorded| recorded < raised) {
                    // A copy is left behind: this one says so of itself before the ledger does.
                    self.order(Work::RecordGeneration { epoch, generation: raised }, acts);
                    return;
                }
                self.say(now, Saying::Stopped { epoch, intent, drained, untouched }, acts);
            }
            (None, _) => {
                let (epoch, patience) = (duty.epoch, duty.patience);
                let drain_to = duty.mirror_to.clone().filter(|_| duty.attest_every.is_some());
                self.order(Work::Stop { epoch, patience, drain_to }, acts);
            }
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
        if mutants::on("runner.releases_unasked") && self.mirror_away.is_some() {
            self.on_detached(duty.epoch);
        }
        if self.release == Some(duty.epoch) {
            // Recorded before a write is answered that no other copy has: a crash in between would leave a copy that
            // calls itself older than it is.
            let (epoch, generation) = (duty.epoch, duty.generation);
            let work = if self.is_behind(duty) && !mutants::on("runner.releases_before_record") {
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
        let waits = duty.attest_every.is_none();
        if !waits && !duty.in_sync.is_empty() && !mutants::on("runner.stops_waiting_first") {
            // A copy got every write so far, and by the spec in force writes don't wait for it any more.
            self.because = "the other copies leave the in-sync set before writes stop waiting for them".into();
            self.say_others_left(now, duty, acts);
            return;
        }
        let Some(standby) = duty.mirror_to.clone() else { return };
        if self.mirror_ended && self.mirror_away.is_some_and(|at| now.held_since(at) >= MIRROR_ANEW) {
            // Nobody counts on that copy, or the mirror would be detached by now.
            self.mirrored = None;
            self.mirror_is_back();
        }
        let is_begun = self.mirrored.as_ref() == Some(&(duty.epoch, standby.clone()));
        let generation = duty.generation;
        let is_promised = self.promised == Some((duty.epoch, generation)) && !self.mirror_ended;
        if is_begun && self.mirror_waits && !waits && is_promised && !mutants::on("runner.stops_waiting_promised") {
            // The word that this copy has everything may still be under way, and count on it after writes stopped waiting.
            // It is said again until it counts; then the copy leaves the set first, as above.
            self.because =
                format!("{standby} is counted on, and leaves the in-sync set before writes stop waiting for it");
            self.say_in_sync(now, duty, standby, acts);
        } else if is_begun && self.mirror_waits != waits {
            // Begun under another spec: it is ended and begun anew, and nothing is said of it meanwhile.
            self.mirrored = None;
            self.order(Work::ReleaseWrites { epoch: duty.epoch }, acts);
        } else if !is_begun {
            let counts = duty.in_sync.contains(&standby);
            self.order(Work::Mirror { epoch: duty.epoch, standby, counts, waits }, acts);
        } else if let Some(every) = duty.attest_every {
            self.attest(now, (duty, standby), every, acts);
        } else if !duty.in_sync.contains(&standby) && self.mirror_away.is_none() {
            self.say_in_sync(now, duty, standby, acts);
        }
    }

    /// This copy has everything that is answered from here on, until a detachment is committed.
    pub(super) fn say_in_sync(&mut self, now: Moment, duty: &OwnerDuty, copy: HostName, acts: &mut Vec<Act>) {
        let (epoch, generation) = (duty.epoch, duty.generation);
        self.promised = Some((epoch, generation));
        self.say(now, Saying::InSync { epoch, copy, generation }, acts);
    }

    /// No write waits for this copy, so it is never in sync while the workload runs: how far it is behind is told.
    fn attest(&mut self, now: Moment, (duty, copy): (&OwnerDuty, HostName), every: Duration, acts: &mut Vec<Act>) {
        if self.mirror_away.is_some_and(|at| now.held_since(at) >= MIRROR_ANEW) {
            // Nothing waits for it, so nobody has to be asked before it is begun anew.
            self.mirrored = None;
            self.mirror_is_back();
            return;
        }
        let (epoch, generation) = (duty.epoch, duty.generation);
        let told = self.attested.filter(|(at_epoch, at, _)| (*at_epoch, *at) == (epoch, generation));
        let is_due = told.is_none_or(|(_, _, due)| now.either_reached(due));
        let Some((behind, seen)) = self.lag.filter(|_| is_due && self.mirror_away.is_none()) else { return };
        self.attested = Some((epoch, generation, now.plus(every)));
        let lag = behind + now.held_since(seen);
        acts.push(Act::Say(Saying::Attested { epoch, copy, generation, lag }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Sight;
    use crate::runner::{Duty, Tie};
    use quorum::id::{Epoch, HostEpoch};

    const EVERY: Duration = Duration::from_secs(2);

    fn at(ms: u64) -> Moment {
        Moment::default().plus(Duration::from_secs(100) + Duration::from_millis(ms))
    }

    /// A runner whose workload serves and whose mirror follows, for whose copy no write waits.
    fn following() -> (GroupRunner, Duty) {
        let (epoch, generation) = (Epoch(7), Generation(3));
        let standby: HostName = "os-1".parse().unwrap();
        let mut runner = GroupRunner::new(0);
        runner.seen = Some(Found { workload: Presence::Running(epoch), copy: None, is_tied: false });
        (runner.announced, runner.probed, runner.recorded) = (Some(epoch), Some(epoch), Some(generation));
        runner.mirrored = Some((epoch, standby.clone()));
        let duty = OwnerDuty {
            epoch,
            host_epoch: HostEpoch(1),
            opens: generation,
            generation,
            adopts: false,
            is_recorded_running: true,
            is_stopped: false,
            stop_for: None,
            mirror_to: Some(standby),
            in_sync: Vec::new(),
            patience: Duration::ZERO,
            attest_every: Some(EVERY),
            tie: Tie::Out,
        };
        (runner, Duty::Owner(duty))
    }

    fn lag_told(runner: &mut GroupRunner, now: Moment, duty: &Duty) -> Option<Duration> {
        let acts = runner.step(now, duty, &MayStart::Yes);
        let in_sync = acts.iter().any(|act| matches!(act, Act::Say(Saying::InSync { .. })));
        assert!(!in_sync, "a copy for which no write waits was said to be in sync: {acts:?}");
        acts.iter().find_map(|act| match act {
            Act::Say(Saying::Attested { lag, .. }) => Some(*lag),
            _ => None,
        })
    }

    #[test]
    fn a_copy_for_which_no_write_waits_is_measured_and_never_in_sync() {
        let (mut runner, duty) = following();
        assert_eq!(lag_told(&mut runner, at(0), &duty), None, "nothing was measured yet");
        runner.sight(at(0), &Sight::Lag { behind: Some(Duration::from_millis(300)), bytes: 1 });
        assert_eq!(lag_told(&mut runner, at(100), &duty), Some(Duration::from_millis(400)), "a measure grows older");
        assert_eq!(lag_told(&mut runner, at(200), &duty), None, "not more often than needed");
        assert_eq!(lag_told(&mut runner, at(2_100), &duty), Some(Duration::from_millis(2_400)));
        runner.sight(at(4_000), &Sight::MirrorAway { since: Duration::ZERO });
        assert_eq!(lag_told(&mut runner, at(5_000), &duty), None, "a mirror that is away isn't measured");
    }

    #[test]
    fn a_lag_that_is_unknown_is_not_told_as_none() {
        let (mut runner, duty) = following();
        runner.sight(at(0), &Sight::Lag { behind: None, bytes: 1 });
        assert_eq!(lag_told(&mut runner, at(100), &duty), None);
    }

    fn owner(duty: &mut Duty) -> &mut OwnerDuty {
        match duty {
            Duty::Owner(owner) => owner,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_copy_leaves_the_set_before_writes_stop_waiting_for_it() {
        let (mut runner, mut duty) = following();
        // The mirror was begun when writes waited for it; then the spec changed.
        runner.mirror_waits = true;
        owner(&mut duty).in_sync = vec!["os-1".parse().unwrap()];
        let acts = runner.step(at(0), &duty, &MayStart::Yes);
        assert!(matches!(acts.as_slice(), [Act::Say(Saying::Detached { .. })]), "{acts:?}");
        // The same where nothing is mirrored yet, as after a restart of the agent.
        runner.mirrored = None;
        let acts = runner.step(at(5_000), &duty, &MayStart::Yes);
        assert!(matches!(acts.as_slice(), [Act::Say(Saying::Detached { .. })]), "{acts:?}");
        // Detached: only now the mirror is begun anew, and no write waits for it.
        owner(&mut duty).in_sync = Vec::new();
        let acts = runner.step(at(6_000), &duty, &MayStart::Yes);
        let begun = |act: &Act| matches!(act, Act::Work(_, Work::Mirror { waits: false, counts: false, .. }));
        assert!(acts.iter().any(begun), "{acts:?}");
    }

    /// What is done, step by step, when the spec stops asking writes to wait just after the copy was said to be in sync.
    fn spec_overtakes_the_word() -> Vec<Vec<Act>> {
        let (mut runner, mut duty) = waiting(&[]);
        let mut done = vec![runner.step(at(0), &duty, &MayStart::Yes)];
        owner(&mut duty).attest_every = Some(EVERY);
        done.push(runner.step(at(600), &duty, &MayStart::Yes));
        owner(&mut duty).in_sync = vec!["os-1".parse().unwrap()];
        done.push(runner.step(at(700), &duty, &MayStart::Yes));
        owner(&mut duty).in_sync = Vec::new();
        owner(&mut duty).generation = Generation(4);
        runner.recorded = Some(Generation(4));
        done.push(runner.step(at(1_300), &duty, &MayStart::Yes));
        done
    }

    #[test]
    fn a_word_under_way_is_waited_for_before_writes_stop_waiting() {
        let done = spec_overtakes_the_word();
        for said in &done[..2] {
            assert!(matches!(said.as_slice(), [Act::Say(Saying::InSync { .. })]), "{said:?}");
        }
        assert!(matches!(done[2].as_slice(), [Act::Say(Saying::Detached { .. })]), "{done:?}");
        assert!(matches!(done[3].as_slice(), [Act::Work(_, Work::ReleaseWrites { .. })]), "{done:?}");
    }

    #[test]
    #[cfg(feature = "mutants")]
    fn writes_that_stop_waiting_while_the_word_is_under_way_are_noticed() {
        let _planted = mutants::plant("runner.stops_waiting_promised");
        let done = spec_overtakes_the_word();
        assert!(matches!(done[1].as_slice(), [Act::Work(_, Work::ReleaseWrites { .. })]), "{done:?}");
    }

    #[test]
    fn a_mirror_for_which_no_write_waited_is_begun_anew_before_it_counts() {
        let (mut runner, mut duty) = following();
        owner(&mut duty).attest_every = None;
        let acts = runner.step(at(0), &duty, &MayStart::Yes);
        let [Act::Work(id, Work::ReleaseWrites { .. })] = acts.as_slice() else { panic!("{acts:?}") };
        runner.report(at(10), *id, crate::engine::Report::Done { detail: String::new() });
        let acts = runner.step(at(20), &duty, &MayStart::Yes);
        let begun = |act: &Act| matches!(act, Act::Work(_, Work::Mirror { waits: true, .. }));
        assert!(acts.iter().any(begun), "{acts:?}");
    }

    /// As [`following`], with a mirror for which writes wait, and on whose copy the ledger counts as told.
    fn waiting(in_sync: &[&str]) -> (GroupRunner, Duty) {
        let (mut runner, mut duty) = following();
        runner.mirror_waits = true;
        let owner = owner(&mut duty);
        owner.attest_every = None;
        owner.in_sync = in_sync.iter().map(|host| host.parse().unwrap()).collect();
        (runner, duty)
    }

    fn away() -> Sight {
        Sight::MirrorAway { since: Duration::ZERO }
    }

    fn ended() -> Sight {
        Sight::MirrorEnded { because: "No space left on device".into() }
    }

    /// What is said and done when the mirror went away before the ledger counted on its copy, and then counts on it.
    fn let_go() -> (Vec<Act>, Vec<Act>) {
        let (mut runner, mut duty) = waiting(&[]);
        runner.sight(at(0), &away());
        assert_eq!(runner.step(at(500), &duty, &MayStart::Yes), [], "a lost packet costs nothing");
        // The plan that wanted the copy may be over by then.
        owner(&mut duty).mirror_to = None;
        let first = runner.step(at(1_100), &duty, &MayStart::Yes);
        owner(&mut duty).in_sync = vec!["os-1".parse().unwrap()];
        (first, runner.step(at(1_200), &duty, &MayStart::Yes))
    }

    #[test]
    fn writes_that_wait_for_a_copy_on_which_nobody_counts_are_let_go_through_the_log() {
        let (first, then) = let_go();
        assert!(matches!(first.as_slice(), [Act::Say(Saying::InSync { .. })]), "{first:?}");
        assert!(matches!(then.as_slice(), [Act::Say(Saying::Detached { .. })]), "{then:?}");
    }

    #[test]
    #[cfg(feature = "mutants")]
    fn writes_that_wait_for_a_copy_on_which_nobody_counts_are_noticed_to_wait_for_ever() {
        let _planted = mutants::plant("runner.waits_uncounted");
        assert_eq!(let_go().0, []);
    }

    #[test]
    fn a_mirror_that_ended_is_detached_at_once_and_never_passes_for_in_sync() {
        let (mut runner, duty) = waiting(&["os-1"]);
        runner.sight(at(0), &ended());
        let acts = runner.step(at(1), &duty, &MayStart::Yes);
        assert!(matches!(acts.as_slice(), [Act::Say(Saying::Detached { .. })]), "{acts:?}");
        // On one that nobody counts on nothing waits: it is begun anew after a while.
        let (mut runner, duty) = waiting(&[]);
        runner.sight(at(0), &ended());
        assert_eq!(runner.step(at(1_100), &duty, &MayStart::Yes), []);
        let acts = runner.step(at(10_100), &duty, &MayStart::Yes);
        assert!(acts.iter().any(|act| matches!(act, Act::Work(_, Work::Mirror { counts: false, .. }))), "{acts:?}");
    }

    /// The work that follows a committed detachment.
    fn after_detached() -> Vec<Work> {
        let (mut runner, mut duty) = waiting(&[]);
        owner(&mut duty).generation = Generation(4);
        runner.on_detached(Epoch(7));
        let mut done = Vec::new();
        for ms in 0..2 {
            let acts = runner.step(at(ms), &duty, &MayStart::Yes);
            let work = acts.into_iter().find_map(|act| match act {
                Act::Work(id, work) => Some((id, work)),
                Act::Overtaken | Act::Say(_) => None,
            });
            let (id, work) = work.expect("something to do");
            runner.report(at(ms), id, crate::engine::Report::Done { detail: String::new() });
            done.push(work);
        }
        done
    }

    #[test]
    fn a_copy_says_its_new_generation_before_a_write_is_answered_that_no_other_has() {
        let done = after_detached();
        let [Work::RecordGeneration { generation, .. }, Work::ReleaseWrites { .. }] = done.as_slice() else {
            panic!("{done:?}")
        };
        assert_eq!(*generation, Generation(4));
    }

    #[test]
    #[cfg(feature = "mutants")]
    fn writes_released_before_the_copy_says_its_generation_are_noticed() {
        let _planted = mutants::plant("runner.releases_before_record");
        assert!(matches!(after_detached().first(), Some(Work::ReleaseWrites { .. })));
    }

    #[test]
    #[cfg(feature = "mutants")]
    fn writes_that_stop_waiting_for_a_copy_that_still_counts_are_noticed() {
        let _planted = mutants::plant("runner.stops_waiting_first");
        let (mut runner, mut duty) = following();
        runner.mirror_waits = true;
        owner(&mut duty).in_sync = vec!["os-1".parse().unwrap()];
        let acts = runner.step(at(0), &duty, &MayStart::Yes);
        assert!(matches!(acts.as_slice(), [Act::Work(_, Work::ReleaseWrites { .. })]), "{acts:?}");
    }

    /// What the last owner of a group orders for its copy, which says so much less than the ledger counts.
    fn as_the_former(behind: u64) -> Vec<Act> {
        let (mut runner, _) = following();
        runner.seen = Some(Found { workload: Presence::Absent, copy: None, is_tied: false });
        runner.recorded = Some(Generation(5 - behind));
        let duty = crate::runner::FormerDuty { epoch: Epoch(7), generation: Generation(5) };
        runner.step(at(0), &Duty::Former(duty), &MayStart::No(String::new()))
    }

    #[test]
    fn a_copy_that_is_one_generation_behind_its_own_detachment_says_what_it_is() {
        let acts = as_the_former(1);
        assert!(matches!(acts.as_slice(), [Act::Work(_, Work::RecordGeneration { .. })]), "{acts:?}");
        assert_eq!(as_the_former(2), [], "that is another one's doing");
    }

    #[test]
    #[cfg(feature = "mutants")]
    fn a_copy_that_stays_one_generation_behind_is_noticed() {
        let _planted = mutants::plant("runner.stays_one_behind");
        assert_eq!(as_the_former(1), []);
    }
}
