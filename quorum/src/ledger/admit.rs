//! Admission: the only way in which a host epoch comes to be, and the ways in which it ends without a loss.
//!
//! Protocol §3: `HostAdmitted(h, he+1)` is valid iff (h, he) doesn't exist or is lost or retired, every group naming h
//! has evidence covering it (local evidence suffices; pinned groups excepted), and no fence task can still strike h.

use super::apply::rule;
use super::command::{HostAdmitted, RetiredBecause};
use super::cover::Reach;
use super::event::Event;
use super::evidence::{Class, Incarnation};
use super::refusal::Refusal;
use super::state::{Ended, Ground, IncarnationState, Ledger};
use std::collections::BTreeSet;

impl Ledger {
    pub(super) fn admit(&mut self, admission: &HostAdmitted, events: &mut Vec<Event>) -> Result<(), Refusal> {
        self.check_admission(admission)?;
        let terms = self.timing().expect("checked before every command").lease_terms();
        let of = &admission.of;
        let host = self.hosts.entry(of.host.clone()).or_default();
        host.he = of.he;
        host.incarnations.insert(
            of.he,
            Box::new(IncarnationState {
                admitted_at: self.position.index,
                boot: Some(admission.boot),
                instance: Some(admission.instance),
                hardware: Some(admission.hardware),
                class: admission.class,
                lab: admission.lab,
                ended: None,
                terms,
                expired: BTreeSet::new(),
                lease_over: None,
                evidence: Vec::new(),
            }),
        );
        self.tombstones.hosts.remove(&of.host);
        self.tasks.retain(|_, task| task.of.host != of.host);
        self.forget_incarnations(&of.host);
        events.push(Event::HostAdmitted { of: of.clone(), class: admission.class });
        Ok(())
    }

    /// Whether the admission would be accepted now.
    ///
    /// # Errors
    /// The rule that refuses it.
    pub fn check_admission(&self, admission: &HostAdmitted) -> Result<(), Refusal> {
        let of = &admission.of;
        let host = &of.host;
        let Some(spec) = self.spec.spec.hosts.get(host) else {
            return Err(Refusal::UnknownHost { host: host.clone() });
        };
        let next = self.next_host_epoch(host);
        rule("ledger.host_epoch_skipped", of.he == next, || Refusal::HostEpochNotNext { of: of.clone(), next })?;
        if let Some((he, _)) = self.admitted(host) {
            let current = Incarnation { host: host.clone(), he };
            rule("ledger.admitted_while_alive", false, || Refusal::StillAdmitted { of: current })?;
        }
        let right_machine = spec.hardware.is_none_or(|hardware| hardware == admission.hardware);
        rule("ledger.other_machine_admitted", right_machine, || Refusal::WrongHardware { host: host.clone() })?;
        self.check_lab(admission.lab, || format!("the watchdog of {host}"))?;
        self.check_watchdog(admission)?;
        self.check_left_behind(of)?;
        self.check_fence_tasks(host)
    }

    /// Only a lab accepts what a process of a lab plays.
    pub(super) fn check_lab(&self, lab: bool, what: impl FnOnce() -> String) -> Result<(), Refusal> {
        let is_lab = self.cluster.as_ref().is_some_and(|cluster| cluster.lab);
        rule("ledger.lab_evidence_accepted", !lab || is_lab, || Refusal::LabOnly { what: what() })
    }

    /// Classes A and B rest on a watchdog that was seen to fire, in the time on which every lease is computed.
    fn check_watchdog(&self, admission: &HostAdmitted) -> Result<(), Refusal> {
        match admission.class {
            Class::C | Class::D => return Ok(()),
            Class::A | Class::B => {}
        }
        let of = || admission.of.clone();
        let missing = || Refusal::WatchdogMissing { of: of(), class: admission.class };
        let Some(watchdog) = &admission.watchdog else {
            return rule("ledger.watchdog_missing", false, missing);
        };
        let attested = watchdog.conditions_hold && watchdog.fire_tests > 0;
        rule("ledger.watchdog_missing", attested, missing)?;
        let allowed = self.timing().expect("checked before every command").watchdog_worst;
        rule("ledger.watchdog_slower", watchdog.worst <= allowed, || Refusal::WatchdogSlower {
            of: of(),
            worst: watchdog.worst,
            allowed,
        })
    }

    /// Whatever an older admission of the host may still run must be proven gone. Birth claims are excepted: a host
    /// answers them only after it is admitted. So are pinned groups: they go on running through it.
    fn check_left_behind(&self, of: &Incarnation) -> Result<(), Refusal> {
        for (name, group) in self.groups_on(&of.host) {
            for (owner, claim) in group.owners.iter().filter(|(owner, _)| owner.host == of.host) {
                let pinned = group.pin.as_ref().is_some_and(|pin| pin.of == *owner);
                if pinned || claim.ground == Ground::Place {
                    continue;
                }
                let covered = self.cover(name, owner, Reach::OnItself).is_ok();
                rule("ledger.admitted_uncovered", covered, || Refusal::AdmissionUncovered {
                    of: owner.clone(),
                    group: name.clone(),
                })?;
            }
        }
        Ok(())
    }

    /// An executor that may still act would strike the host after its return.
    pub(super) fn check_fence_tasks(&self, host: &crate::id::HostName) -> Result<(), Refusal> {
        let unfinished = self.tasks.iter().find(|(_, task)| task.of.host == *host && !task.is_over());
        let Some((task, _)) = unfinished else { return Ok(()) };
        rule("ledger.admitted_under_fencing", false, || Refusal::FenceTaskUnfinished {
            task: *task,
            host: host.clone(),
        })
    }

    /// Ends a host epoch on its keeper's word, or because the machine answers from another boot or with another
    /// keeper. An unsolicited hello proves nothing: the answer must be to a nonce drawn after the admission.
    pub(super) fn retire(
        &mut self,
        of: &Incarnation,
        because: &RetiredBecause,
        events: &mut Vec<Event>,
    ) -> Result<(), Refusal> {
        let state = self.current(of)?;
        rule("ledger.retired_twice", state.ended.is_none(), || Refusal::AlreadyLost { of: of.clone() })?;
        let (founded, text) = match because {
            RetiredBecause::KeeperAttested { boot, era } => {
                (state.boot == Some(*boot) && *era == self.era, "its keeper attested it")
            }
            RetiredBecause::Answered { boot, instance, drawn_at } => {
                let fresh = *drawn_at >= state.admitted_at;
                rule("ledger.late_hello_retires", fresh, || Refusal::NonceTooOld { of: of.clone() })?;
                (state.boot != Some(*boot) || state.instance != Some(*instance), "another boot or keeper answers")
            }
        };
        rule("ledger.retired_unfounded", founded, || Refusal::RetireUnfounded { of: of.clone() })?;
        let at = self.position.index;
        self.incarnation_mut(of).ended = Some(Ended::Retired { at });
        events.push(Event::HostRetired { of: of.clone(), because: text.to_owned() });
        Ok(())
    }

    /// The state of an admission that must be the current one of its host.
    pub(super) fn current(&self, of: &Incarnation) -> Result<&IncarnationState, Refusal> {
        let not_current = || Refusal::NotCurrent { of: of.clone() };
        let host = self.hosts.get(&of.host).ok_or_else(not_current)?;
        rule("ledger.superseded_epoch_counts", host.he == of.he, not_current)?;
        host.incarnations.get(&of.he).map(AsRef::as_ref).ok_or_else(not_current)
    }

    /// An admission that the caller has just looked up.
    pub(super) fn incarnation_mut(&mut self, of: &Incarnation) -> &mut IncarnationState {
        let host = self.hosts.get_mut(&of.host).expect("looked up before");
        host.incarnations.get_mut(&of.he).expect("looked up before")
    }

    /// Forgets older admissions of a host that no possible owner names any more: evidence about them is no longer
    /// asked for.
    pub(super) fn forget_incarnations(&mut self, host: &crate::id::HostName) {
        let mut named = BTreeSet::new();
        for (_, group) in self.groups_on(host) {
            named.extend(group.owners.keys().filter(|owner| owner.host == *host).map(|owner| owner.he));
        }
        if let Some(state) = self.hosts.get_mut(host) {
            let current = state.he;
            state.incarnations.retain(|he, _| *he == current || named.contains(he));
        }
    }
}
