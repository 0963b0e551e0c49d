//! What people asked for and nothing else: an override reaches what it names, once (I18); a drill touches nothing of
//! production (I20).

use super::Oracle;
use crate::engine::{Answer, FenceAct, Request, Scope};
use quorum::id::{GroupName, HostEpoch, HostName, PlanId};
use quorum::ledger::{self, Claim, Command, Incarnation, Ledger, PlanKind, StepKind};
use std::collections::{BTreeMap, BTreeSet};

/// A person's word that hosts can do no harm: their admissions up to these, each once.
#[derive(Clone, Debug, Default)]
pub(super) struct Voucher {
    ticket: u64,
    named: BTreeMap<HostName, HostEpoch>,
    used: BTreeSet<Incarnation>,
}

impl Voucher {
    fn covers(&self, of: &Incarnation) -> bool {
        self.named.get(&of.host).is_some_and(|he| of.he <= *he) && !self.used.contains(of)
    }
}

impl Oracle {
    /// A person asks an agent, whose state is this.
    pub(in crate::sim) fn asked(&mut self, ticket: u64, request: &Request, ledger: &Ledger) {
        let named = match request {
            Request::Fence { scope, act: FenceAct::Override { .. }, dry_run: false, .. } => named_by(scope, ledger),
            Request::Command(command) => match &**command {
                Command::Override(asked) => match &asked.claim {
                    Claim::Inert(named) => named.iter().map(|of| (of.host.clone(), of.he)).collect(),
                    Claim::Absent { .. } => return,
                },
                _ => return,
            },
            _ => return,
        };
        self.vouchers.push(Voucher { ticket, named, used: BTreeSet::new() });
    }

    /// An agent answers a person.
    pub(in crate::sim) fn answered(&mut self, ticket: u64, answer: &Answer) {
        if matches!(answer, Answer::Refused { .. }) {
            self.vouchers.retain(|voucher| voucher.ticket != ticket);
        }
    }

    /// An operator's word counts as evidence about `of`.
    pub(super) fn vouched(&mut self, of: &Incarnation) {
        match self.vouchers.iter_mut().find(|voucher| voucher.covers(of)) {
            Some(voucher) => {
                voucher.used.insert(of.clone());
            }
            None => self.breaks("I18", format!("an override counts for {of}, for which nobody vouched, or once only")),
        }
    }

    pub(super) fn drill(&mut self, plan: PlanId, kind: PlanKind, group: &GroupName) {
        if kind == PlanKind::Drill {
            self.drills.insert(plan, group.clone());
        }
    }

    /// A step of a plan begins, and a drill's is one that reaches production.
    pub(super) fn drill_steps(&mut self, plan: PlanId, step: StepKind) {
        let reaches = match step {
            StepKind::Quiesce
            | StepKind::Stop
            | StepKind::Grant
            | StepKind::Announce
            | StepKind::Reverse
            | StepKind::Migrate
            | StepKind::Retire => true,
            // What may be done with a copy of its own, in a network of its own.
            StepKind::Preflight
            | StepKind::AwaitEvidence
            | StepKind::AwaitApproval
            | StepKind::AwaitInSync
            | StepKind::Promote
            | StepKind::Start
            | StepKind::Probe
            | StepKind::Snapshot
            | StepKind::CleanUp
            | StepKind::Measure => false,
        };
        if let Some(group) = self.drills.get(&plan).filter(|_| reaches) {
            let text = format!("plan {plan}, a drill of {group}, begins the step {step:?}");
            self.breaks("I20", text);
        }
    }

    /// What becomes of a group while a drill of it is under way.
    pub(super) fn touches_production(&mut self, fact: &ledger::Event) {
        let (group, what) = match fact {
            ledger::Event::Granted { group, .. } => (group, "its ticket moves"),
            ledger::Event::IntentOpened { group, .. } => (group, "its owner is to stop"),
            ledger::Event::Stopped { group, .. } => (group, "it was stopped"),
            ledger::Event::PlanClosed { plan, .. } => {
                self.drills.remove(plan);
                return;
            }
            _ => return,
        };
        if let Some((plan, _)) = self.drills.iter().find(|(_, drilled)| *drilled == group) {
            let text = format!("plan {plan} is a drill of {group}, and {what}");
            self.breaks("I20", text);
        }
    }
}

fn named_by(scope: &Scope, ledger: &Ledger) -> BTreeMap<HostName, HostEpoch> {
    let is_meant = |host: &HostName| match scope {
        Scope::Host(named) => named == host,
        Scope::Site(site) => ledger.site_of(host) == Some(site),
        Scope::Cluster | Scope::Group(_) => false,
    };
    let hosts = ledger.spec().hosts.keys().filter(|host| is_meant(host));
    hosts.filter_map(|host| Some((host.clone(), ledger.host(host)?.he))).collect()
}
