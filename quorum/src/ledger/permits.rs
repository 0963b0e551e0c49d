//! People's permits: overrides, acceptances of losses, approvals (protocol §6, §7; product, manual override).
//!
//! A permit is bound to its targets, needs as many different keys as the policy says, and ends with the term in which
//! it was asked for. An override is refused while a fresh sign shows that its target isn't dead, at the asking and at
//! every further agreement.

use super::apply::rule;
use super::command::{AcceptLoss, Claim, Command, Contrary, Override, Subject};
use super::event::Event;
use super::evidence::Incarnation;
use super::person::{Decision, Permit};
use super::prove::attested;
use super::refusal::Refusal;
use super::state::{Ledger, LossAcceptance, PendingOverride};
use crate::id::LogIndex;
use crate::mutants;
use std::time::Duration;

impl Ledger {
    pub(super) fn apply_permit(&mut self, command: &Command, events: &mut Vec<Event>) -> Result<(), Refusal> {
        match command {
            Command::Override(asked) => self.ask_override(asked, events),
            Command::AcceptLoss(asked) => self.accept_loss(asked, events),
            Command::Approve { subject, by, contrary } => self.approve(*subject, by, contrary, events),
            Command::Deny { subject, by } => self.deny(*subject, by, events),
            Command::OverrideExpired { index, waited } => self.expire_override(*index, *waited, events),
            _ => unreachable!("the dispatcher sends only permits here"),
        }
    }

    fn permit_asked(&self, by: &Decision) -> Result<Permit, Refusal> {
        let needs = self.spec.spec.policy.approvals;
        let mut permit = Permit { index: self.position.index, term: self.position.term, needs, agreed: Vec::new() };
        agree(&mut permit, by)?;
        Ok(permit)
    }

    fn ask_override(&mut self, asked: &Override, events: &mut Vec<Event>) -> Result<(), Refusal> {
        self.check_contrary(&asked.contrary)?;
        self.check_claim(&asked.claim)?;
        let permit = self.permit_asked(&asked.by)?;
        let index = permit.index;
        events.push(Event::OverrideAsked { index, needs: permit.needs });
        if permit.is_given() {
            self.use_override(index, asked, events);
        } else {
            self.overrides.insert(index, PendingOverride { asked: asked.clone(), permit });
        }
        Ok(())
    }

    /// Fresh contrary evidence refuses: somebody is about to vouch for a host that was just heard.
    fn check_contrary(&self, contrary: &[Contrary]) -> Result<(), Refusal> {
        let limit = self.spec.spec.policy.contrary_fresh;
        match contrary.iter().find(|sign| sign.age < limit) {
            None => Ok(()),
            Some(sign) => rule("ledger.override_of_the_living", false, || Refusal::ContraryFresh {
                host: sign.host.clone(),
                what: sign.what.clone(),
                age: sign.age,
            }),
        }
    }

    /// An override names everything it vouches for: ended incarnations, or birth claims.
    fn check_claim(&self, claim: &Claim) -> Result<(), Refusal> {
        match claim {
            Claim::Inert(named) => {
                rule("ledger.override_of_nobody", !named.is_empty(), || Refusal::NoHosts {})?;
                named.iter().try_for_each(|of| self.ended_incarnation(of).map(|_| ()))
            }
            Claim::Absent { group, hosts } => {
                rule("ledger.override_of_nobody", !hosts.is_empty(), || Refusal::NoHosts {})?;
                for host in hosts {
                    let asked = !self.place_claims(group, host)?.is_empty();
                    rule("ledger.absent_unasked", asked, || Refusal::AbsentNotAsked {
                        group: group.clone(),
                        host: host.clone(),
                    })?;
                }
                Ok(())
            }
        }
    }

    /// Takes an override into effect. The caller has checked the claim.
    fn use_override(&mut self, index: LogIndex, asked: &Override, events: &mut Vec<Event>) {
        events.push(Event::OverrideUsed { index });
        match &asked.claim {
            Claim::Inert(named) => {
                let all = || self.hosts.iter().map(|(host, state)| Incarnation { host: host.clone(), he: state.he });
                let reached: Vec<_> =
                    if mutants::on("ledger.override_reaches_further") { all().collect() } else { named.clone() };
                for of in &reached {
                    self.accept_evidence(of, attested(self.position.index, asked.at_once), events);
                }
            }
            Claim::Absent { group, hosts } => {
                for host in hosts {
                    let claims = self.place_claims(group, host).unwrap_or_default();
                    self.mark_absent(group, host, claims, events);
                }
            }
        }
    }

    fn accept_loss(&mut self, asked: &AcceptLoss, events: &mut Vec<Event>) -> Result<(), Refusal> {
        let group = &asked.group;
        let state = self.groups.get(group).ok_or_else(|| Refusal::UnknownGroup { group: group.clone() })?;
        rule("ledger.acceptance_of_older_epoch", state.epoch == asked.epoch, || Refusal::EpochStale {
            group: group.clone(),
            said: asked.epoch,
            now: state.epoch,
        })?;
        let place = self.group_spec(group).is_some_and(|spec| spec.names(&asked.copy));
        rule("ledger.acceptance_off_place", place, || Refusal::NotAPlace {
            group: group.clone(),
            host: asked.copy.clone(),
        })?;
        let permit = self.permit_asked(&asked.by)?;
        let (index, given) = (permit.index, permit.is_given());
        self.losses.insert(index, LossAcceptance { asked: asked.clone(), permit });
        events.push(Event::LossAccepted { index, group: group.clone(), copy: asked.copy.clone(), given });
        Ok(())
    }

    fn approve(
        &mut self,
        subject: Subject,
        by: &Decision,
        contrary: &[Contrary],
        events: &mut Vec<Event>,
    ) -> Result<(), Refusal> {
        match subject {
            Subject::Plan(plan) => {
                self.open_plan_by_id(plan)?;
                let state = self.plans.get_mut(&plan).expect("looked up before");
                rule("ledger.denied_plan_approved", state.denied.is_none(), || Refusal::PlanDenied { plan })?;
                let permit = state.approval.as_mut().ok_or(Refusal::SubjectUnknown { subject: LogIndex(plan.0) })?;
                agree(permit, by)?;
                events.push(approved(permit));
            }
            Subject::Override(index) => {
                self.check_contrary(contrary)?;
                let pending = self.overrides.get(&index).ok_or(Refusal::SubjectUnknown { subject: index })?;
                let mut permit = pending.permit.clone();
                let asked = pending.asked.clone();
                self.check_claim(&asked.claim)?;
                agree(&mut permit, by)?;
                events.push(approved(&permit));
                if permit.is_given() {
                    if !mutants::on("ledger.override_used_twice") {
                        self.overrides.remove(&index);
                    }
                    self.use_override(index, &asked, events);
                } else {
                    self.overrides.insert(index, PendingOverride { asked, permit });
                }
            }
            Subject::Loss(index) => {
                let loss = self.losses.get_mut(&index).ok_or(Refusal::SubjectUnknown { subject: index })?;
                agree(&mut loss.permit, by)?;
                events.push(approved(&loss.permit));
            }
        }
        Ok(())
    }

    fn deny(&mut self, subject: Subject, by: &Decision, events: &mut Vec<Event>) -> Result<(), Refusal> {
        let index = match subject {
            Subject::Plan(plan) => {
                let state = self.open_plan_by_id(plan)?;
                rule("ledger.denied_past_pivot", state.pivot.is_none(), || Refusal::PastPivot { plan })?;
                self.plans.get_mut(&plan).expect("looked up before").denied = Some(by.clone());
                LogIndex(plan.0)
            }
            Subject::Override(index) => {
                self.overrides.remove(&index).ok_or(Refusal::SubjectUnknown { subject: index })?;
                index
            }
            Subject::Loss(index) => {
                self.losses.remove(&index).ok_or(Refusal::SubjectUnknown { subject: index })?;
                index
            }
        };
        events.push(Event::Denied { subject: index, by: by.by.to_string() });
        Ok(())
    }

    fn expire_override(&mut self, index: LogIndex, waited: Duration, events: &mut Vec<Event>) -> Result<(), Refusal> {
        let pending = self.overrides.get(&index).ok_or(Refusal::SubjectUnknown { subject: index })?;
        let span = pending.asked.span;
        rule("ledger.override_expires_early", waited >= span, || Refusal::StillRuns { waited, span })?;
        self.overrides.remove(&index);
        events.push(Event::OverrideVoid { index, because: "nobody else agreed in time".to_owned() });
        Ok(())
    }

    /// A new leader can't measure how old a permit is: it counts as expired. Plans stay and ask again.
    pub(super) fn void_permits(&mut self, events: &mut Vec<Event>) -> u32 {
        if mutants::on("ledger.permits_survive_leaders") {
            return 0;
        }
        let mut voided = 0;
        for index in std::mem::take(&mut self.overrides).into_keys() {
            events.push(Event::OverrideVoid { index, because: "the leader changed".to_owned() });
            voided += 1;
        }
        voided += u32::try_from(std::mem::take(&mut self.losses).len()).unwrap_or(u32::MAX);
        for plan in self.plans.values_mut().filter(|plan| plan.is_open() && plan.pivot.is_none()) {
            if let Some(permit) = plan.approval.as_mut().filter(|permit| !permit.agreed.is_empty()) {
                permit.agreed.clear();
                permit.term = self.position.term;
                voided += 1;
            }
        }
        voided
    }
}

fn approved(permit: &Permit) -> Event {
    let agreed = u32::try_from(permit.agreed.len()).unwrap_or(u32::MAX);
    Event::Approved { subject: permit.index, agreed, given: permit.is_given() }
}

/// Two names on one key are one person; the local socket is one person, and never one of two.
fn agree(permit: &mut Permit, by: &Decision) -> Result<(), Refusal> {
    let key = &by.by.key;
    let pairs = permit.needs <= 1 || key.may_pair();
    rule("ledger.local_socket_pairs", pairs, || Refusal::LocalCannotPair { key: key.to_string() })?;
    let fresh = permit.agreed.iter().all(|other| other.by.key != *key);
    rule("ledger.one_person_twice", fresh, || Refusal::SamePerson { key: key.to_string() })?;
    permit.agreed.push(by.clone());
    Ok(())
}
