//! What follows from the facts that replicas apply, held against what really is.

use super::Oracle;
use crate::event::Event;
use quorum::id::{Epoch, GroupName, HostName, LogIndex, PlanId, VoterId};
use quorum::lease::Grant;
use quorum::ledger::{self, EvidenceKind, Incarnation, Ledger, PlanKind, Scope};
use quorum::roster::majority;
use quorum::timing::Timing;
use std::collections::BTreeSet;
use std::time::Duration;

/// A suspicion that lasts this long was known when a plan was proposed, however long its commit took.
const LASTING_NS: u64 = 5_000_000_000;

impl Oracle {
    /// An agent tells an event.
    pub(in crate::sim) fn told(&mut self, host: &HostName, event: &Event, (ledger, now_ns): (Option<&Ledger>, u64)) {
        match event {
            Event::Applied { index, fact } => {
                let Some(ledger) = ledger else { return };
                if ledger.era().0 > self.heard.0.0 {
                    // A new era begins with a configuration of its own, which no entry of it has brought.
                    self.membership = ledger.membership().clone();
                }
                if self.is_news(host, (ledger.era().0, index.0), now_ns) {
                    if matches!(**fact, ledger::Event::ConfigChanged { .. }) {
                        self.membership = ledger.membership().clone();
                        self.configured_ns = now_ns;
                    }
                    self.touches_production(fact);
                    self.fact(*index, fact, now_ns);
                    self.seen_of_plan(fact, ledger);
                }
            }
            Event::Refused { rule, .. } => {
                self.seen.refusals.insert(*rule);
            }
            Event::Suspect { peer, .. } => {
                let key = (host.clone(), peer.clone());
                self.suspects.insert(key.clone(), now_ns);
                self.suspected.insert(key);
            }
            Event::Trusted { peer } => {
                self.suspects.remove(&(host.clone(), peer.clone()));
            }
            Event::AgentStarted { .. } => self.suspects.retain(|(observer, _), _| observer != host),
            _ => {}
        }
    }

    /// Every replica tells every fact; each is taken in once, from whoever applies it first.
    fn is_news(&mut self, host: &HostName, at: (u16, u64), now_ns: u64) -> bool {
        if at > self.heard.0 {
            self.heard = (at, Some((host.clone(), now_ns)));
            self.is_committed(at.1);
            return true;
        }
        // One index may bring several facts, all in one step of one agent. An agent that was restarted tells it all
        // again.
        at == self.heard.0 && self.heard.1.as_ref().is_some_and(|(from, at)| from == host && *at == now_ns)
    }

    /// What is applied anywhere is on the disks of a majority (I9, I15).
    fn is_committed(&mut self, index: u64) {
        let voters = self.membership.all_voters().map(|voter| (voter.id, &voter.host));
        let has = |(_, host): &(VoterId, &HostName)| self.persisted.get(*host).is_some_and(|last| *last >= index);
        let have: BTreeSet<VoterId> = voters.filter(has).map(|(id, _)| id).collect();
        if !self.membership.has_majority(|id| have.contains(&id)) {
            self.breaks("I9", format!("index {index} was applied when only {have:?} of the voters had it on disk"));
        }
    }

    /// dispatcher: one arm a fact that says something about safety.
    fn fact(&mut self, index: LogIndex, fact: &ledger::Event, now_ns: u64) {
        match fact {
            ledger::Event::HostAdmitted { of, .. } => self.admits(of),
            ledger::Event::HostLost { of, because } => {
                if because == "automatic" {
                    self.seen.lost.0 += 1;
                    self.is_corroborated(of);
                } else {
                    self.seen.lost.1 += 1;
                }
                self.ended.entry(of.clone()).or_insert(index.0);
            }
            ledger::Event::HostRetired { of, .. } => {
                self.ended.entry(of.clone()).or_insert(index.0);
            }
            ledger::Event::ExpiredCounted { of, voter, .. } => self.expires(of, *voter, now_ns),
            ledger::Event::EvidenceAccepted { of, kind, scope, .. } => self.proves(of, *kind, scope),
            ledger::Event::FenceTaskOpened { task, of, .. } => {
                self.open_tasks.insert(*task);
                if !self.ended.contains_key(of) {
                    self.breaks("I13", format!("fence task {task} aims at {of}, which isn't lost"));
                }
            }
            ledger::Event::FenceTaskOver { task, .. } | ledger::Event::FenceTaskCancelled { task, .. } => {
                self.open_tasks.remove(task);
            }
            ledger::Event::Granted { group, to, epoch, expected_loss, .. } => {
                let most_ns = expected_loss.map(|loss| u64::try_from(loss.as_nanos()).unwrap_or(u64::MAX));
                if most_ns != Some(0) {
                    self.lossy.insert((group.clone(), *epoch), most_ns);
                }
                self.grants(group, to, *epoch);
            }
            ledger::Event::Pinned { group, of } => {
                self.pins.insert(group.clone(), of.clone());
            }
            ledger::Event::PinAcknowledged { group, .. } => {
                self.noted_pins.insert(group.clone());
            }
            ledger::Event::Unpinned { group, owner } => self.unpins(group, owner.as_ref()),
            ledger::Event::Stopped { group, epoch, .. } => {
                self.stopped.insert((group.clone(), *epoch));
            }
            ledger::Event::PlanOpened { plan, kind, group, because } => {
                self.drill(*plan, *kind, group);
                self.plans(*plan, *kind, (group, because), now_ns);
            }
            _ => {}
        }
    }

    fn seen_of_plan(&mut self, fact: &ledger::Event, ledger: &Ledger) {
        match fact {
            ledger::Event::StepStarted { plan, step, .. } => {
                let Some(state) = ledger.plans().get(plan) else { return };
                let Some(step) = state.plan.steps.get(*step as usize) else { return };
                self.seen.steps.insert((state.plan.kind, step.kind));
                self.drill_steps(*plan, step.kind);
                let cells = self.marks.iter().map(|mark| (*mark, state.plan.kind, step.kind));
                self.seen.cells.extend(cells);
            }
            ledger::Event::PlanClosed { plan, outcome } => {
                if let Some(state) = ledger.plans().get(plan) {
                    self.seen.ended(state.plan.kind, outcome);
                }
            }
            _ => {}
        }
    }

    fn admits(&mut self, of: &Incarnation) {
        if let Some(before) = self.admitted.insert(of.host.clone(), of.clone()) {
            if before.he >= of.he {
                self.breaks("I3", format!("{of} was admitted after {before}"));
            }
            // A new era ends everything of the older ones.
            if before.he.era() == of.he.era() && !self.ended.contains_key(&before) {
                self.breaks("I3", format!("{of} was admitted while {before} wasn't over"));
            }
        }
        self.suspected.retain(|(_, peer)| *peer != of.host);
        let now: Vec<_> = self.suspects.keys().filter(|(_, peer)| *peer == of.host).cloned().collect();
        self.suspected.extend(now);
    }

    /// An automatic loss was seen by a majority, in two failure domains besides the lost one (I8).
    fn is_corroborated(&mut self, of: &Incarnation) {
        let voters = &self.membership;
        let own_site = voters.all_voters().find(|voter| voter.host == of.host).map(|voter| &voter.site);
        let suspects = |host: &HostName| self.suspected.contains(&(host.clone(), of.host.clone()));
        let observers: Vec<_> = voters.all_voters().filter(|voter| suspects(&voter.host)).collect();
        let domains: BTreeSet<_> =
            observers.iter().map(|voter| &voter.site).filter(|site| Some(*site) != own_site).collect();
        let is_majority = voters.has_majority(|id| observers.iter().any(|voter| voter.id == id));
        if !is_majority || domains.len() < 2 {
            let text = format!(
                "{of} was declared lost although only {} voters in {} other domains ever missed it",
                observers.len(),
                domains.len()
            );
            self.breaks("I8", text);
        }
    }

    /// A voter says that its promises are over: L_v after its last grant and the last configuration, in real time, too (I6).
    /// Nothing follows from when its process began: what is counted now may have been said before.
    fn expires(&mut self, of: &Incarnation, voter: VoterId, now_ns: u64) {
        let Some((granted_ns, wait_ns)) = self.lease_grants.get(&(voter, of.clone())).copied() else { return };
        let since = [("last grant", granted_ns), ("configuration", self.configured_ns)];
        if let Some((what, at_ns)) = since.into_iter().find(|(_, at_ns)| now_ns < at_ns + wait_ns) {
            let after = (now_ns - at_ns) / 1_000_000;
            let text = format!("voter {voter} said {after} ms after its {what} that the lease of {of} is over");
            self.breaks("I6", text);
        }
    }

    fn proves(&mut self, of: &Incarnation, kind: EvidenceKind, scope: &Scope) {
        self.seen.evidence.insert(kind);
        if kind == EvidenceKind::Attested {
            self.vouched(of);
        }
        // The record that stands for a host's older admissions is over from its birth.
        let is_of_older_eras = of.he.count() == 0;
        if !is_of_older_eras && !self.ended.contains_key(of) {
            self.breaks("I2", format!("{kind:?} was accepted for {of}, which is neither lost nor retired"));
        }
        self.believes(of, kind, scope);
    }

    pub(super) fn believes(&mut self, of: &Incarnation, kind: EvidenceKind, scope: &Scope) {
        match scope {
            Scope::Host => {
                self.inert.entry(of.clone()).or_insert(kind);
            }
            Scope::Groups(groups) => {
                for group in groups {
                    self.inert_for.entry((of.clone(), group.clone())).or_insert(kind);
                }
            }
        }
    }

    /// What proves that `of` doesn't run `group`. In a newer era one record stands for every older admission of a host.
    pub(super) fn proves_inert(&self, of: &Incarnation, group: &GroupName) -> Option<EvidenceKind> {
        let of_its_host = |(proven, _): &(&Incarnation, &EvidenceKind)| {
            proven.host == of.host && proven.he.count() == 0 && proven.he.era() > of.he.era()
        };
        let stands = self.inert.iter().find(of_its_host).map(|(_, kind)| *kind);
        let for_group = |((proven, named), kind): (&(Incarnation, GroupName), &EvidenceKind)| {
            (named == group && of_its_host(&(proven, kind))).then_some(*kind)
        };
        let exact = self.inert.get(of).or_else(|| self.inert_for.get(&(of.clone(), group.clone()))).copied();
        exact.or(stands).or_else(|| self.inert_for.iter().find_map(for_group))
    }

    fn grants(&mut self, group: &GroupName, to: &Incarnation, epoch: Epoch) {
        if self.ended.contains_key(to) || self.admitted.get(&to.host) != Some(to) {
            self.breaks("I11", format!("{group} was granted to {to}, which isn't admitted"));
        }
        if let Some(of) = self.pins.get(group).cloned() {
            self.breaks("I2", format!("{group} was granted to {to} while it is pinned to {of}"));
        }
        if let Some((before, owner)) = self.tickets.get(group).cloned() {
            if epoch <= before {
                self.breaks("I3", format!("epoch {epoch} of {group} was granted after epoch {before}"));
            }
            let is_stopped = self.stopped.contains(&(group.clone(), before));
            let is_proven = self.proves_inert(&owner, group).is_some();
            if !is_stopped && !is_proven {
                self.breaks(
                    "I2",
                    format!("{group} was granted to {to} while nothing proves that {owner} doesn't run it"),
                );
            }
        }
        self.tickets.insert(group.clone(), (epoch, to.clone()));
        self.granted.insert((group.clone(), epoch), to.clone());
    }

    /// From here on the lease's end counts for the group again, under the admission that it was armed in.
    fn unpins(&mut self, group: &GroupName, owner: Option<&Incarnation>) {
        self.pins.remove(group);
        self.noted_pins.remove(group);
        if let (Some(of), Some((epoch, owner))) = (owner, self.tickets.get_mut(group)) {
            owner.clone_from(of);
            self.granted.insert((group.clone(), *epoch), of.clone());
        }
    }

    /// No way home while anything is suspect or being fenced (I19).
    fn plans(&mut self, plan: PlanId, kind: PlanKind, (group, because): (&GroupName, &str), now_ns: u64) {
        if kind != PlanKind::Failback || !because.contains("stable") {
            return;
        }
        if !self.open_tasks.is_empty() {
            self.breaks("I19", format!("plan {plan} brings {group} home while a host is being fenced"));
        }
        let need = majority(self.membership.voters.len());
        let lasting = |peer: &HostName| {
            let observers = self.suspects.iter().filter(|((_, of), since)| of == peer && now_ns - **since > LASTING_NS);
            observers.count() >= need
        };
        let peers: BTreeSet<HostName> = self.suspects.keys().map(|(_, peer)| peer.clone()).collect();
        if let Some(peer) = peers.iter().find(|peer| lasting(peer)) {
            self.breaks("I19", format!("plan {plan} brings {group} home while {peer} is suspect"));
        }
    }

    /// A voter promised something (I5).
    pub(in crate::sim) fn granted_lease(&mut self, grant: &Grant, ledger: Option<&Ledger>, now_ns: u64) {
        let of = Incarnation { host: grant.host.clone(), he: grant.host_epoch };
        if ledger.is_some_and(|ledger| ledger.is_ended(&of)) {
            self.breaks("I5", format!("voter {} granted to {of} after it had applied its end", grant.voter));
        }
        let of_voter = self.membership.all_voters().find(|voter| voter.id == grant.voter);
        let host = of_voter.map(|voter| voter.host.clone());
        if let Some((host, index)) = host.and_then(|host| Some((host.clone(), *self.unknown.get(&host)?))) {
            self.breaks("I17", format!("{host} granted to {of} with entry {index} on its disk, which it can't read"));
        }
        let wait_ns = ledger.and_then(Ledger::timing).map_or(0, |timing| wait_of(grant.lease, timing));
        self.lease_grants.insert((grant.voter, of), (now_ns, wait_ns));
    }
}

/// What of L_v passes in real time at least: its L is stretched for a holder whose clock is slow and a voter whose clock
/// is fast, and the voter's may really be.
fn wait_of(lease: Duration, timing: &Timing) -> u64 {
    let ppm = |span: Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX) / 1_000_000;
    let rho = u64::from(timing.rho_ppm);
    ppm(lease) * (1_000_000 + rho) + ppm(timing.delta_io) * (1_000_000 - rho)
}
