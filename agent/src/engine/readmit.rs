//! The way back of a host, as a person sees and orders it: what comes by itself, and what only a person can do.
//!
//! A readmission creates no evidence. What has to be proven before a host is admitted is proven by its keeper, by its
//! return from another boot, by a device or by an override (protocol §6); here a person is told which of them is
//! missing. What a person can give by a word is trust: a host that kept getting lost is held, and let off.
//!
//! Not here: admission (`admit`), whether a hold may end (`ledger::restrict`).

use super::admit::HELLO_FRESH;
use super::core::Engine;
use super::operator::Answer;
use super::status::AttentionLine;
use crate::detector::Judgement;
use crate::heartbeat::{Hello, KeeperState};
use quorum::id::{GroupName, HostName, LogIndex};
use quorum::ledger::{Command, Decision, EndCause, Incarnation, PlaceScope, Refusal};

/// What the audit entry of a readmission is called; every agent that applies it forgets the host's losses.
pub(super) const READMIT: &str = "host readmit";

/// What stands between a host and its service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WayBack {
    /// It is admitted.
    Admitted,
    /// It comes back by itself; what is waited for.
    ByItself(String),
    /// Something only a person can do.
    Person {
        /// What is in the way.
        because: String,
        /// What to do.
        next: String,
    },
}

fn person(because: String, next: String) -> WayBack {
    WayBack::Person { because, next }
}

impl Engine {
    /// What a host says of itself, if it speaks.
    fn hello_of(&self, host: &HostName) -> Option<Hello> {
        if *host == self.me.host {
            return Some(self.hello());
        }
        let is_silent = matches!(self.detector.judgement(host), Some(Judgement::Suspect { .. }));
        let last = self.heard.get(host).filter(|last| self.now.moment.held_since(last.at) < HELLO_FRESH);
        last.filter(|_| !is_silent).map(|last| last.beat.hello.clone())
    }

    /// What stands between a host of the spec and its service.
    pub(super) fn way_back(&self, host: &HostName) -> WayBack {
        let me = &self.me.host;
        let Some(hello) = self.hello_of(host) else {
            let because = format!("{host} isn't heard by {me}");
            return person(
                because,
                "start its agent (antipode doctor there), or ask a host that hears it: --host".to_owned(),
            );
        };
        if let Some((_, state)) = self.ledger.admitted(host) {
            let is_the_same = state.boot == Some(hello.boot) && state.instance == hello.keeper;
            let other = "it speaks from another boot or keeper than the one admitted, which is to be ended first";
            return if is_the_same { WayBack::Admitted } else { WayBack::ByItself(other.to_owned()) };
        }
        let Some(admission) = self.admission_of(host, &hello) else {
            let because = format!("no keeper runs on {host}: nothing could be protected there");
            return person(because, "systemctl start antipode-keeper there, then antipode doctor".to_owned());
        };
        match self.ledger.check_admission(&admission) {
            Ok(()) if hello.keeper_state == KeeperState::Clearing => {
                WayBack::ByItself("its keeper is ending what is left of its last admission".to_owned())
            }
            Ok(()) => WayBack::ByItself("the leader admits it".to_owned()),
            Err(Refusal::FenceTaskUnfinished { task, .. }) => {
                WayBack::ByItself(format!("fence task {task} could still strike it: its executor ends first"))
            }
            Err(Refusal::AdmissionUncovered { of, group }) => self.unproven(&of, &group, &hello),
            Err(refusal) => person(refusal.text(), refusal.next()),
        }
    }

    /// Nothing proves yet that a group is gone from the host's last admission: who could.
    fn unproven(&self, of: &Incarnation, group: &GroupName, hello: &Hello) -> WayBack {
        let host = &of.host;
        let known = self.ledger.incarnation(of);
        let hardware = known.and_then(|state| state.hardware);
        if hardware.is_some_and(|hardware| hardware != hello.hardware) {
            let because = format!(
                "another machine answers under the name {host}: nothing proves that {group} is gone from the one that was {of}"
            );
            let next = format!(
                "stop the agent on the new machine, make sure that the old one is off for good, antipode fence override host {host}, start the agent"
            );
            return person(because, next);
        }
        if known.is_some_and(|state| state.boot != Some(hello.boot)) {
            let what = format!("it was asked to answer from its new boot that nothing of {group} is left of {of}");
            return WayBack::ByItself(what);
        }
        match hello.keeper_state {
            KeeperState::Clearing | KeeperState::Armed => {
                WayBack::ByItself(format!("its keeper is to attest that {group} is gone from {of}"))
            }
            KeeperState::Clear | KeeperState::Idle | KeeperState::Absent => {
                let because = format!(
                    "{host} runs in the boot in which it was {of}, and its keeper doesn't attest that {group} is gone"
                );
                let next = format!("stop what is left of {group} there and reboot {host}: another boot proves it");
                person(because, next)
            }
        }
    }

    /// A person lets a host back.
    pub(super) fn on_readmit(&mut self, ticket: u64, host: &HostName, by: Decision) {
        if !self.ledger.spec().hosts.contains_key(host) {
            return self.refuse(ticket, format!("the spec has no host {host}"), "antipode status lists the hosts");
        }
        match self.way_back(host) {
            WayBack::Admitted => {
                let scope = PlaceScope::Host(host.clone());
                if self.ledger.holds().contains_key(&scope) {
                    self.propose(Command::HoldEnded { scope, cause: EndCause::Person(by.clone()) });
                }
                self.ask(ticket, Command::Audit { action: READMIT.to_owned(), detail: host.to_string(), by });
            }
            WayBack::ByItself(what) => {
                let detail = format!("{host} comes back by itself: {what}");
                self.answer(ticket, Answer::Done { index: LogIndex(0), detail });
            }
            WayBack::Person { because, next } => {
                let workload = "the host runs nothing until then; what ran there stays where it is";
                self.answer(ticket, Answer::Refused { code: "not-readmitted", because, workload, next });
            }
        }
    }

    /// Every agent forgets the host's losses: whoever leads next, too.
    pub(super) fn forgive(&mut self, host: &HostName) {
        if let Some(leading) = &mut self.leading {
            leading.damping.forgive(host);
        }
        self.stir_leader();
    }

    /// Hosts that don't serve although they speak, and what to do.
    pub(super) fn host_attention(&self) -> Vec<AttentionLine> {
        let mut lines = Vec::new();
        for host in self.ledger.spec().hosts.keys() {
            let next = format!("antipode host readmit {host}");
            if let Some(left) = self.held_for(host) {
                let text =
                    format!("{host} kept getting lost: it is chosen for nothing for {} min more", left.as_secs() / 60);
                lines.push(AttentionLine { code: "host-held", text, next });
            } else if self.hello_of(host).is_some()
                && let WayBack::Person { because, .. } = self.way_back(host)
            {
                let text = format!("{host} speaks and isn't admitted: {because}");
                lines.push(AttentionLine { code: "host-not-admitted", text, next });
            }
        }
        lines
    }

    /// How long a host is held yet, as this agent knows: by the log, or by its own count of losses if it leads.
    fn held_for(&self, host: &HostName) -> Option<std::time::Duration> {
        let flapping = self.leading.as_ref().and_then(|leading| leading.damping.held_for(self.now.moment, host));
        flapping.or_else(|| self.ledger.hold_of(host).map(|hold| hold.span))
    }
}
