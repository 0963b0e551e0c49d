//! What people order about fencing: to fence, to vouch, to call off. One decision is made, shown, and carried out.
//!
//! A dry run, the refusal, the record in the audit chain and the answer are renderings of the same
//! [`FenceDecision`]: nobody is shown something else than what is done.
//!
//! Invariant: an override that the ledger would refuse commits nothing, the loss that has to come first included.
//!
//! Not here: whether it is allowed. The ledger's `apply` checks signs, persons and targets again.

use super::core::Engine;
use super::fence_view::{SignLine, seconds};
use super::operator::Answer;
use super::orders::{Matter, Scope, place_scope};
use crate::detector::Judgement;
use quorum::id::{HostName, LogIndex, TaskId};
use quorum::ledger::{
    Claim, Command, Contrary, Decision, Ended, Ground, Incarnation, Initiator, Lost, LostCause, Override, PlaceScope,
    Subject,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// An override that asks for a second person waits so long for one, and no longer whatever was asked for.
const OVERRIDE_SPAN: Duration = Duration::from_secs(600);

/// What a person wants done about a host or a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "kebab-case")]
pub enum FenceAct {
    /// Vouch that it can do no harm.
    Override {
        /// Don't wait for leases.
        at_once: bool,
        /// How long it may wait for a second person, in milliseconds; ten minutes if absent, and at most.
        #[serde(default)]
        span_ms: Option<u64>,
    },
    /// Declare it lost and fence it by its devices.
    Run,
    /// Call off what is under way against it.
    Release,
}

/// What a person's order about fencing comes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FenceDecision {
    /// override, run or release.
    pub act: &'static str,
    /// The host or site.
    pub target: String,
    /// The admissions that it is about.
    pub names: Vec<String>,
    /// Those of them that it declares lost first.
    pub declares_lost: Vec<String>,
    /// What speaks for its being harmless.
    pub evidence_for: Vec<String>,
    /// What speaks against it, with its age.
    pub evidence_against: Vec<SignLine>,
    /// Groups that could be taken over then, and where they would go.
    pub releases: Vec<String>,
    /// How many people it needs.
    pub approvals: u32,
    /// What follows, for people.
    pub then: String,
    /// Why it would be refused.
    pub refused: Option<FenceRefusal>,
}

/// Why an order about fencing is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FenceRefusal {
    /// A stable word.
    pub code: &'static str,
    /// Why.
    pub because: String,
    /// What to do.
    pub next: String,
}

impl FenceDecision {
    /// All of it in one line, as the audit chain keeps it.
    pub fn shown(&self) -> String {
        let against: Vec<String> = self.evidence_against.iter().map(ToString::to_string).collect();
        format!(
            "{} of {}: about {}; declares lost first: {}; for it: {}; against it: {}; releases: {}; needs {} person(s)",
            self.act,
            self.target,
            list(&self.names),
            list(&self.declares_lost),
            list(&self.evidence_for),
            list(&against),
            list(&self.releases),
            self.approvals
        )
    }
}

fn list(items: &[String]) -> String {
    if items.is_empty() { "none".to_owned() } else { items.join("; ") }
}

impl Engine {
    pub(super) fn on_fence_order(
        &mut self,
        ticket: u64,
        by: Decision,
        (scope, act, dry_run): (&Scope, FenceAct, bool),
    ) {
        let (decision, mut commands) = match self.fence_decision(scope, act, by.clone()) {
            Ok(decided) => decided,
            Err(because) => return self.refuse(ticket, because, "antipode fence status"),
        };
        if dry_run {
            return self.answer(ticket, Answer::FenceDecision(Box::new(decision)));
        }
        if let Some(FenceRefusal { code, because, next }) = decision.refused.clone() {
            // A refused attempt to vouch for a live host matters: the chain keeps what was shown.
            let by = Decision { shown: format!("{}; refused: {because}", decision.shown()), ..by };
            let action = format!("fence-{}-refused", decision.act);
            self.propose(Command::Audit { action, detail: because.clone(), by });
            let workload = "nothing changes for any workload";
            return self.answer(ticket, Answer::Refused { code, because, workload, next });
        }
        let last = commands.pop().expect("an order is at least one command");
        for command in commands {
            self.propose(command);
        }
        self.ask(ticket, last);
    }

    /// What an order comes to, and the commands that it is; the last one decides the answer.
    pub(super) fn fence_decision(
        &self,
        scope: &Scope,
        act: FenceAct,
        mut by: Decision,
    ) -> Result<(FenceDecision, Vec<Command>), String> {
        let place = place_scope(scope.clone())?;
        let hosts = self.hosts_of(&place)?;
        let mut decision = self.decision_about(&place, &hosts, act);
        let admitted: Vec<Incarnation> = hosts.iter().filter_map(|host| self.current_unlost(host, act)).collect();
        decision.declares_lost = admitted.iter().map(ToString::to_string).collect();
        let refusal = |code, because: String, next: &str| Some(FenceRefusal { code, because, next: next.to_owned() });
        let commands = match act {
            FenceAct::Override { at_once, span_ms } => {
                let claims = self.claims_about(&hosts, &admitted);
                decision.names = claims.iter().flat_map(names_of).collect();
                decision.refused = self.override_refusal(&decision, &by);
                by.shown = decision.shown();
                let contrary = self.signs_of(&hosts);
                let span = span_ms.map_or(OVERRIDE_SPAN, |ms| Duration::from_millis(ms).min(OVERRIDE_SPAN));
                let asked = |claim| {
                    let (contrary, by) = (contrary.clone(), by.clone());
                    Command::Override(Override { claim, contrary, at_once, span, by })
                };
                self.losing(admitted, &by).into_iter().chain(claims.into_iter().map(asked)).collect()
            }
            FenceAct::Run => {
                let again = self.unfenced(&hosts);
                decision.names = admitted.iter().chain(&again).map(ToString::to_string).collect();
                if decision.names.is_empty() {
                    let because = format!("nothing about {} is left to be fenced", decision.target);
                    decision.refused = refusal("nothing-to-fence", because, "antipode fence status");
                }
                by.shown = decision.shown();
                let open = |of: Incarnation| {
                    let deadline = self.ledger.fence_deadline(&of.host)?;
                    Some(Command::FenceTaskOpened { of, deadline, initiator: Initiator::Person(by.clone()) })
                };
                self.losing(admitted, &by).into_iter().chain(again.into_iter().filter_map(open)).collect()
            }
            FenceAct::Release => {
                let tasks = self.open_tasks(&hosts);
                decision.names = tasks.iter().map(|(task, of)| format!("task {task} about {of}")).collect();
                let overrides = self.overrides_about(&hosts);
                decision.names.extend(overrides.iter().map(|index| format!("override {index}")));
                if decision.names.is_empty() {
                    let because = format!("nothing is under way against {}", decision.target);
                    decision.refused = refusal("nothing-to-release", because, "antipode fence status");
                }
                by.shown = decision.shown();
                self.releasing((tasks, overrides), &by)
            }
        };
        Ok((decision, commands))
    }

    fn hosts_of(&self, place: &PlaceScope) -> Result<Vec<HostName>, String> {
        let spec = self.ledger.spec();
        match place {
            PlaceScope::Host(host) if spec.hosts.contains_key(host) || self.ledger.host(host).is_some() => {
                Ok(vec![host.clone()])
            }
            PlaceScope::Host(host) => Err(format!("there is no host {host}")),
            PlaceScope::Site(site) => {
                let of_site = spec.hosts.iter().filter(|(_, host)| host.site == *site);
                let hosts: Vec<HostName> = of_site.map(|(host, _)| host.clone()).collect();
                if hosts.is_empty() { Err(format!("there is no host at {site}")) } else { Ok(hosts) }
            }
        }
    }

    fn decision_about(&self, place: &PlaceScope, hosts: &[HostName], act: FenceAct) -> FenceDecision {
        let policy = &self.ledger.spec().policy;
        let (word, approvals, then) = match act {
            FenceAct::Override { at_once: true, .. } => {
                ("override", policy.approvals, "groups are granted elsewhere at once, without waiting for leases")
            }
            FenceAct::Override { at_once: false, .. } => {
                ("override", policy.approvals, "groups are granted elsewhere once the leases of these hosts are over")
            }
            FenceAct::Run => ("run", 1, "its devices switch it off; groups move on evidence only"),
            FenceAct::Release => ("release", 1, "no device is told to switch it off any more; it may come back"),
        };
        let fresh = |sign: Contrary| SignLine::of(sign, policy.contrary_fresh);
        FenceDecision {
            act: word,
            target: match place {
                PlaceScope::Host(host) => format!("host {host}"),
                PlaceScope::Site(site) => format!("site {site}"),
            },
            names: Vec::new(),
            declares_lost: Vec::new(),
            evidence_for: hosts.iter().flat_map(|host| self.signs_for(host)).collect(),
            evidence_against: self.signs_of(hosts).into_iter().map(fresh).collect(),
            releases: self.would_release(hosts),
            approvals,
            then: then.to_owned(),
            refused: None,
        }
    }

    /// The current admission of a host as far as it would have to be declared lost first.
    fn current_unlost(&self, host: &HostName, act: FenceAct) -> Option<Incarnation> {
        let he = self.ledger.host(host)?.he;
        let of = Incarnation { host: host.clone(), he };
        let ended = self.ledger.incarnation(&of)?.ended.as_ref();
        let must_be_lost = match act {
            // A retired one is ended; one that no group names holds nothing up.
            FenceAct::Override { .. } => ended.is_none() && self.ledger.groups_on(host).next().is_some(),
            FenceAct::Run => matches!(ended, None | Some(Ended::Retired { .. })),
            FenceAct::Release => false,
        };
        must_be_lost.then_some(of)
    }

    /// What a person vouches for: that admissions can do no harm, and that nothing of a newborn group is on a host that
    /// never said so.
    fn claims_about(&self, hosts: &[HostName], admitted: &[Incarnation]) -> Vec<Claim> {
        let mut inert: Vec<Incarnation> = hosts.iter().flat_map(|host| self.ledger.unproven_on(host)).collect();
        inert.extend(admitted.iter().filter(|of| !inert.contains(of)).cloned().collect::<Vec<_>>());
        let mut claims: Vec<Claim> = if inert.is_empty() { Vec::new() } else { vec![Claim::Inert(inert)] };
        for (group, state) in self.ledger.groups() {
            let silent = |(owner, claim): &(&Incarnation, &quorum::ledger::Owner)| {
                claim.ground == Ground::Place && hosts.contains(&owner.host)
            };
            let mut hosts: Vec<HostName> =
                state.owners.iter().filter(silent).map(|(owner, _)| owner.host.clone()).collect();
            hosts.dedup();
            if !hosts.is_empty() {
                claims.push(Claim::Absent { group: group.clone(), hosts });
            }
        }
        claims
    }

    fn losing(&self, hosts: Vec<Incarnation>, by: &Decision) -> Option<Command> {
        let lost = Lost { hosts, cause: LostCause::Operator(by.clone()) };
        (!lost.hosts.is_empty()).then_some(Command::Lost(lost))
    }

    /// Lost hosts for which no task is open and no evidence is complete.
    fn unfenced(&self, hosts: &[HostName]) -> Vec<Incarnation> {
        let lost = |host: &HostName| {
            let of = Incarnation { host: host.clone(), he: self.ledger.host(host)?.he };
            let ended = self.ledger.incarnation(&of)?.ended.as_ref();
            let is_lost = matches!(ended, Some(Ended::Lost { .. } | Ended::EraOver { .. }));
            let has_device = self.ledger.fence_deadline(host).is_some();
            (is_lost && has_device && self.open_tasks(std::slice::from_ref(host)).is_empty()).then_some(of)
        };
        hosts.iter().filter_map(lost).collect()
    }

    fn open_tasks(&self, hosts: &[HostName]) -> Vec<(TaskId, Incarnation)> {
        let tasks = self.ledger.tasks().iter();
        let open = tasks.filter(|(_, task)| task.cancelled.is_none() && hosts.contains(&task.of.host));
        open.map(|(id, task)| (*id, task.of.clone())).collect()
    }

    fn overrides_about(&self, hosts: &[HostName]) -> Vec<LogIndex> {
        let about = |claim: &Claim| hosts_of_claim(claim).iter().any(|named| hosts.contains(named));
        let pending = self.ledger.overrides().iter();
        pending.filter(|(_, pending)| about(&pending.asked.claim)).map(|(index, _)| *index).collect()
    }

    fn releasing(
        &self,
        (tasks, overrides): (Vec<(TaskId, Incarnation)>, Vec<LogIndex>),
        by: &Decision,
    ) -> Vec<Command> {
        let because = format!("called off by {}: {}", by.by, by.reason);
        let audit = Command::Audit { action: "fence-release".into(), detail: because.clone(), by: by.clone() };
        let deny = |index| Command::Deny { subject: Subject::Override(index), by: by.clone() };
        let cancel = |(task, _)| Command::FenceTaskCancel { task, because: because.clone() };
        let denied = overrides.into_iter().map(deny);
        [audit].into_iter().chain(denied).chain(tasks.into_iter().map(cancel)).collect()
    }

    /// What somebody who agrees is shown, as the audit chain keeps it: for an override, all that whoever asked was shown,
    /// as it is now.
    pub(super) fn shown_at_agreement(&self, matter: Matter, contrary: &[Contrary]) -> String {
        let (word, id) = match matter {
            Matter::Plan(id) => ("plan", id),
            Matter::Override(id) => ("override", id),
        };
        let pending = self.ledger.overrides().get(&LogIndex(id));
        let Some(pending) = pending.filter(|_| matches!(matter, Matter::Override(_))) else {
            return format!("agrees with {word} {id}");
        };
        let fresh = self.ledger.spec().policy.contrary_fresh;
        let against: Vec<String> = contrary.iter().map(|sign| SignLine::of(sign.clone(), fresh).to_string()).collect();
        let speaks_for: Vec<String> =
            hosts_of_claim(&pending.asked.claim).iter().flat_map(|host| self.signs_for(host)).collect();
        let (names, asked) = (names_of(&pending.asked.claim), &pending.asked.by);
        format!(
            "agrees with {word} {id} asked for by {} ({}): about {}; for it: {}; against it: {}",
            asked.by,
            asked.reason,
            list(&names),
            list(&speaks_for),
            list(&against)
        )
    }

    fn override_refusal(&self, decision: &FenceDecision, by: &Decision) -> Option<FenceRefusal> {
        let target = &decision.target;
        if decision.names.is_empty() {
            let because = format!("no evidence is missing about {target}: nothing is held up by it");
            return Some(FenceRefusal { code: "nothing-missing", because, next: "antipode fence status".into() });
        }
        if let Some(sign) = decision.evidence_against.iter().filter(|sign| sign.is_fresh).min_by_key(|sign| sign.age_ms)
        {
            let limit = seconds(self.ledger.spec().policy.contrary_fresh);
            let because = format!("{target} may be alive: {sign}, and a sign younger than {limit} refuses an override");
            let next = "make that sign go away first: switch the machine off and look again (`antipode fence status`)";
            return Some(FenceRefusal { code: "contrary-fresh", because, next: next.into() });
        }
        if decision.approvals > 1 && !by.by.key.may_pair() {
            let because = format!("{} came over the local socket, which can't be one of two people", by.by);
            let next = "ask with a personal certificate: --host and --cert";
            return Some(FenceRefusal { code: "local-cannot-pair", because, next: next.into() });
        }
        if decision.approvals > 1 && !decision.declares_lost.is_empty() {
            let because = format!(
                "{} isn't declared lost yet, and one person alone can't do that by an override where two are needed",
                decision.declares_lost.join(", ")
            );
            let next = format!("antipode fence run {target}: it declares the loss and tries the devices first");
            return Some(FenceRefusal { code: "not-lost-yet", because, next });
        }
        None
    }

    /// What this agent knows that speaks for a host's being harmless.
    fn signs_for(&self, host: &HostName) -> Vec<String> {
        let mut signs = Vec::new();
        if let Some(Judgement::Suspect { since, deaf: false }) = self.detector.judgement(host) {
            signs.push(format!("{host} is silent here for {}", seconds(self.now.moment.held_since(since))));
        }
        let incarnations = self.ledger.host(host).into_iter().flat_map(|state| &state.incarnations);
        for (he, state) in incarnations {
            match &state.ended {
                Some(Ended::Lost { at, .. }) => signs.push(format!("{host}@{he} is declared lost (index {at})")),
                Some(Ended::Retired { .. }) => signs.push(format!("{host}@{he} is retired")),
                Some(Ended::EraOver { .. }) => signs.push(format!("{host}@{he} is of an older era")),
                None => {}
            }
            if state.lease_over.is_some() {
                signs.push(format!("the lease of {host}@{he} is over on a majority of voters"));
            }
            for evidence in &state.evidence {
                signs.push(format!("{host}@{he}: {} evidence (index {})", evidence.kind.as_str(), evidence.index));
            }
        }
        signs
    }

    /// Signs that hosts live, as far as this agent knows: beats heard here or by another voter, and fence devices that
    /// read "on". Ages are rounded down: a sign is never shown older than it is.
    pub(super) fn signs_of(&self, hosts: &[HostName]) -> Vec<Contrary> {
        let hosts = hosts.iter().filter(|_| !quorum::mutants::on("fence.signs_ignored"));
        hosts.flat_map(|host| self.signs_of_one(host)).collect()
    }

    fn signs_of_one(&self, host: &HostName) -> Vec<Contrary> {
        let now = self.now.moment;
        let sign = |what: String, age| Contrary { host: host.clone(), what, age };
        let mut signs = Vec::new();
        if *host == self.me.host {
            signs.push(sign("this agent itself runs there".to_owned(), Duration::ZERO));
        }
        if let Some(last) = self.heard.get(host) {
            signs.push(sign(format!("a heartbeat heard by {}", self.me.host), now.held_since(last.at)));
        }
        let site = self.ledger.site_of(host);
        let voters = self.voter_hosts();
        for voter in voters.values().filter(|voter| *voter != host && **voter != self.me.host) {
            let Some(last) = self.heard.get(voter) else { continue };
            let said = &last.beat.suspicions;
            let is_silent = said.hosts.contains(host) || site.is_some_and(|site| said.sites.contains(site));
            if !said.abstains && !is_silent {
                signs.push(sign(format!("a heartbeat heard by {voter}"), now.held_since(last.at)));
            }
        }
        for (from, prospect) in self.prospects_of(host) {
            if let Some(running) = prospect.running {
                let age = Duration::from_millis(u64::from(running.ms_ago));
                signs.push(sign(format!("{} says \"on\", as read by {from}", running.device), age));
            }
        }
        signs
    }

    fn would_release(&self, hosts: &[HostName]) -> Vec<String> {
        let mut groups: Vec<String> = Vec::new();
        for host in hosts {
            for (group, _) in self.ledger.groups_on(host) {
                let to = self.would_go_to(group).map_or_else(|| "nowhere now".to_owned(), |to| format!("to {to}"));
                groups.push(format!("{group} ({to})"));
            }
        }
        groups.sort();
        groups.dedup();
        groups
    }
}

/// What a claim is about, as people read it.
pub(super) fn names_of(claim: &Claim) -> Vec<String> {
    match claim {
        Claim::Inert(named) => named.iter().map(ToString::to_string).collect(),
        Claim::Absent { group, hosts } => hosts.iter().map(|host| format!("nothing of {group} on {host}")).collect(),
    }
}

/// The hosts that a claim is about.
pub(super) fn hosts_of_claim(claim: &Claim) -> Vec<HostName> {
    match claim {
        Claim::Inert(named) => named.iter().map(|of| of.host.clone()).collect(),
        Claim::Absent { hosts, .. } => hosts.clone(),
    }
}
