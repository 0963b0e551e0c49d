//! Admission and return of hosts, led by the leader: hello, challenge, retirement, evidence, admission (protocol §3,
//! §6 `returned`, §8).

use super::core::{Engine, LastBeat};
use super::effect::Effect;
use super::input::Presence;
use super::leader::Challenging;
use super::message::{Challenge, Message};
use crate::detector::Judgement;
use crate::event::Event;
use crate::heartbeat::{Hello, KeeperState};
use crate::runner::Duty;
use quorum::id::{GroupName, HostName};
use quorum::ledger::{
    Command, Evidence, HostAdmitted, Incarnation, IncarnationState, Observation, Refusal, RetiredBecause,
};
use quorum::mutants;
use std::time::Duration;

/// A challenge that isn't answered is drawn anew after this.
const CHALLENGE_AGAIN: Duration = Duration::from_millis(1_000);
/// A hello older than this says nothing about now.
pub(super) const HELLO_FRESH: Duration = Duration::from_millis(1_000);

impl Engine {
    /// Looks at every host that speaks and isn't admitted as it speaks.
    pub(super) fn admit_hosts(&mut self) {
        let now = self.now.moment;
        let fresh = |at| now.held_since(at) < HELLO_FRESH;
        // What a host said just before it fell silent is fresh for a while longer than it takes to declare it lost.
        let is_silent = |host: &HostName| {
            matches!(self.detector.judgement(host), Some(Judgement::Suspect { .. }))
                && !mutants::on("admit.silent_host_speaks")
        };
        let concerns = |host: &HostName, last: &LastBeat| {
            fresh(last.at) && !self.is_settled(host, &last.beat.hello) && !is_silent(host)
        };
        let heard = self.heard.iter().filter(|(host, last)| concerns(host, last));
        let mut hellos: Vec<(HostName, Hello)> =
            heard.map(|(host, last)| (host.clone(), last.beat.hello.clone())).collect();
        hellos.push((self.me.host.clone(), self.hello()));
        for (host, hello) in hellos {
            if self.ledger.spec().hosts.contains_key(&host) && hello.keeper.is_some() {
                self.consider(&host, &hello);
            }
        }
    }

    /// Whether a host is admitted as it speaks, and nothing of it is pinned: all that it could be asked is answered.
    fn is_settled(&self, host: &HostName, hello: &Hello) -> bool {
        let admitted = self.ledger.admitted(host);
        let is_as_admitted =
            admitted.is_some_and(|(_, state)| state.boot == Some(hello.boot) && state.instance == hello.keeper);
        is_as_admitted && self.ledger.groups_on(host).all(|(_, state)| state.pin.is_none())
    }

    fn consider(&mut self, host: &HostName, hello: &Hello) {
        let ready = matches!(hello.keeper_state, KeeperState::Idle | KeeperState::Clear | KeeperState::Armed);
        let Some(admission) = self.admission_of(host, hello) else { return };
        match self.ledger.check_admission(&admission) {
            Ok(()) if ready => {
                self.propose_paced(host.as_str(), Command::HostAdmitted(admission));
                self.challenge_about_pins(host, hello);
            }
            // A keeper that is still clearing comes back in a moment.
            Ok(()) => {}
            Err(Refusal::StillAdmitted { of }) => {
                let as_admitted = self
                    .ledger
                    .incarnation(&of)
                    .is_some_and(|state| state.boot == Some(hello.boot) && state.instance == hello.keeper);
                // Should the keeper of a host that is as admitted have retired it, the host says so itself.
                if as_admitted {
                    self.challenge_about_pins(host, hello);
                } else {
                    self.challenge(&of);
                }
            }
            // The same boot can only prove itself gone by its keeper, another boot by answering.
            Err(Refusal::AdmissionUncovered { of, .. }) => {
                if state_boot_differs(self.ledger.incarnation(&of), hello) {
                    self.challenge(&of);
                }
            }
            Err(Refusal::FenceTaskUnfinished { task, .. }) => {
                // Called off already: whoever took it up is waited for.
                if self.ledger.tasks().get(&task).is_none_or(|state| state.cancelled.is_some())
                    && !mutants::on("admit.calls_off_twice")
                {
                    return;
                }
                let because = "the host speaks again, and evidence covers what it ran".to_owned();
                self.propose_paced(&task.to_string(), Command::FenceTaskCancel { task, because });
            }
            Err(refusal) => self.tell_not_admitted(host, refusal.to_string()),
        }
    }

    /// The admission that a host which speaks so would get; none without a keeper.
    pub(super) fn admission_of(&self, host: &HostName, hello: &Hello) -> Option<HostAdmitted> {
        Some(HostAdmitted {
            of: Incarnation { host: host.clone(), he: self.ledger.next_host_epoch(host) },
            boot: hello.boot,
            instance: hello.keeper?,
            class: hello.class,
            watchdog: hello.watchdog.clone(),
            hardware: hello.hardware,
            lab: hello.lab,
        })
    }

    /// Says why a host isn't admitted, once per reason.
    fn tell_not_admitted(&mut self, host: &HostName, because: String) {
        let Some(leading) = &mut self.leading else { return };
        if leading.not_admitted.get(host) != Some(&because) {
            leading.not_admitted.insert(host.clone(), because.clone());
            self.event(Event::NotAdmitted { host: host.clone(), because });
        }
    }

    /// Asks the host that speaks to prove itself: a hello that nobody asked for proves nothing, it may be an old one
    /// delivered late.
    pub(super) fn challenge(&mut self, of: &Incarnation) {
        let now = self.now.moment;
        let (era, drawn_at) = (self.ledger.era(), self.ledger.applied());
        let Some(leading) = &mut self.leading else { return };
        let open = leading.challenges.get(&of.host);
        let is_open =
            open.is_some_and(|open| open.challenge.host_epoch == of.he && now.held_since(open.sent) < CHALLENGE_AGAIN);
        if is_open {
            return;
        }
        let challenge = Challenge { era, host_epoch: of.he, nonce: leading.fresh_nonce() };
        let open = Challenging { challenge: challenge.clone(), drawn_at, sent: now };
        leading.challenges.insert(of.host.clone(), open);
        if of.host == self.me.host {
            self.local.challenge = Some((of.host.clone(), challenge));
        } else {
            let message = Box::new(Message::Challenge(challenge));
            self.effects.push(Effect::Message { to: of.host.clone(), message });
        }
    }

    /// The host's side: remembered until everything that could be a remnant was looked at.
    pub(super) fn on_challenge(&mut self, from: HostName, challenge: Challenge) {
        self.local.challenge = Some((from, challenge));
    }

    /// Answers a challenge once every group that could be here was looked at in this process' life.
    pub(super) fn answer_challenge(&mut self) {
        let Some((from, challenge)) = self.local.challenge.clone() else { return };
        if !self.following.barrier_passed(self.ledger.applied()) {
            return;
        }
        let concerned = self.concerned_groups();
        let seen = |group: &GroupName| self.local.runners.get(group).and_then(|runner| runner.seen().cloned());
        if concerned.iter().any(|group| seen(group).is_none()) {
            return;
        }
        // What is tied to this host, or was granted to it in this admission, isn't left over from anything.
        let is_rightful = |group: &GroupName, workload: Presence| match self.duty(group) {
            Duty::Tied(_) => true,
            Duty::Owner(owner) => workload == Presence::Running(owner.epoch),
            Duty::None | Duty::Former(_) | Duty::SayAbsent | Duty::Standby(_) => false,
        };
        let is_here = |group: &&GroupName| {
            let workload = seen(group).map_or(Presence::Remnant, |found| found.workload);
            workload != Presence::Absent && !is_rightful(group, workload)
        };
        let remnants: Vec<GroupName> = concerned.iter().filter(is_here).cloned().collect();
        if !remnants.is_empty() {
            // The runners are killing it; the answer waits for that.
            return;
        }
        self.local.challenge = None;
        let hello = self.hello();
        if from == self.me.host {
            self.on_challenge_answer(&from, &challenge, (&hello, &remnants));
            return;
        }
        let message = Box::new(Message::ChallengeAnswer { challenge, hello, remnants });
        self.effects.push(Effect::Message { to: from, message });
    }

    pub(super) fn on_challenge_answer(
        &mut self,
        from: &HostName,
        challenge: &Challenge,
        (hello, remnants): (&Hello, &[GroupName]),
    ) {
        let Some(leading) = &self.leading else { return };
        let Some(open) = leading.challenges.get(from).filter(|open| open.challenge == *challenge).cloned() else {
            let because = "an answer to a challenge that isn't open".to_owned();
            self.event(Event::Dropped { from: from.clone(), because });
            return;
        };
        let of = Incarnation { host: from.clone(), he: challenge.host_epoch };
        let Some(state) = self.ledger.incarnation(&of) else { return };
        let Some(instance) = hello.keeper else { return };
        let (lab, drawn_at, boot) = (hello.lab, open.drawn_at, hello.boot);
        if state.ended.is_none() {
            let because = RetiredBecause::Answered { boot, instance, drawn_at };
            self.propose_paced(from.as_str(), Command::Retired { of: of.clone(), because });
        }
        if state_boot_differs(self.ledger.incarnation(&of), hello) {
            let armed = hello.host_epoch.filter(|_| hello.keeper_state != KeeperState::Idle);
            let observed =
                Observation::Returned { boot, hardware: hello.hardware, drawn_at, remnants: remnants.to_vec(), armed };
            let evidence = Evidence { of, observed, observer: from.clone(), lab };
            // Behind the retirement in the log: both are proposed now, in this order.
            self.propose_paced(from.as_str(), Command::Evidence(evidence));
        }
    }
}

fn state_boot_differs(state: Option<&IncarnationState>, hello: &Hello) -> bool {
    state.is_some_and(|state| state.boot != Some(hello.boot))
}
