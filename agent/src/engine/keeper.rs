//! This host's lease and what its keeper is told of it.
//!
//! The record is written only by an effect of the step that found the lease good (architecture, data flows): a
//! stuck engine writes nothing, and the keeper lets the lease run out.

use super::core::Engine;
use super::effect::{Effect, KeeperOrder};
use super::input::KeeperPage;
use crate::event::Event;
use crate::heartbeat::{Datagram, KeeperState};
use quorum::id::{GroupName, HostEpoch, HostName, VoterId};
use quorum::lease::{self, Claim, Holder, LeaseRequest};
use quorum::ledger::{
    Command, Ended, Evidence, GroupState, Incarnation, Observation, RetiredBecause, Ticket, TicketState,
};
use quorum::moment::Moment;
use quorum::mutants;
use std::collections::BTreeMap;

/// The holder's side of the lease and the last record.
#[derive(Default)]
pub(super) struct KeeperSide {
    pub(super) page: Option<KeeperPage>,
    pub(super) holder: Option<Holder>,
    /// Of the last record; each record's is larger than any before it, also of an earlier agent process.
    pub(super) sequence: u64,
    /// Of the first record that had the armed set in force.
    pub(super) armed_since: u64,
    pub(super) written: Option<KeeperOrder>,
    /// Groups armed as pinned, and the first record since which they are so without a break.
    pub(super) tied: BTreeMap<GroupName, u64>,
    holds: bool,
}

impl KeeperSide {
    /// The lease's own end wakes the engine, so that its loss is told when it happens.
    pub(super) fn deadline(&self) -> Option<Moment> {
        self.holder.as_ref().filter(|_| self.holds).and_then(Holder::expires_at)
    }

    /// Whether the keeper has taken over an armed set that has the group under this epoch.
    pub(super) fn is_armed(&self, group: &GroupName, epoch: quorum::id::Epoch) -> bool {
        let order = self.written.as_ref();
        let listed = order.is_some_and(|order| order.armed.get(group).is_some_and(|armed| armed.epoch == epoch));
        let page = self.page.as_ref();
        let echoed = page.is_some_and(|page| page.state == KeeperState::Armed && page.echoed >= self.armed_since);
        listed && echoed
    }
}

impl Engine {
    /// This host as it is admitted now: its admission names this boot and this keeper, and isn't over.
    pub(super) fn my_incarnation(&self) -> Option<Incarnation> {
        let (he, state) = self.ledger.admitted(&self.me.host)?;
        let page = self.keeper.page.as_ref()?;
        let is_me = state.boot == Some(self.me.boot) && state.instance == Some(page.instance);
        let is_retired =
            matches!(page.state, KeeperState::Clearing | KeeperState::Clear) && page.host_epoch == Some(he);
        (is_me && !is_retired).then(|| Incarnation { host: self.me.host.clone(), he })
    }

    pub(super) fn on_keeper(&mut self, page: KeeperPage) {
        // A restarted agent goes on from the last sequence that was ever written; a lower one is refused.
        self.keeper.sequence = self.keeper.sequence.max(page.echoed).max(page.written);
        self.keeper.page = Some(page);
    }

    /// Holder, record, attestation: everything that follows from admission and page.
    pub(super) fn keep_lease(&mut self) {
        self.forward_attestation();
        self.end_if_lost();
        let Some(me) = self.my_incarnation() else {
            if let Some(holder) = self.keeper.holder.take() {
                self.lose_lease(holder.claim().host_epoch, "the host epoch is over");
            }
            return;
        };
        self.hold_as(&me);
        self.write_record(&me);
        self.acknowledge_pins();
    }

    fn hold_as(&mut self, me: &Incarnation) {
        let Some(page) = &self.keeper.page else { return };
        let claim = Claim { era: self.ledger.era(), host_epoch: me.he, boot: self.me.boot, instance: page.instance };
        if self.keeper.holder.as_ref().is_none_or(|holder| holder.claim() != claim) {
            let holder = Holder::new(me.host.clone(), claim, self.me.agent, self.timing.asks_every());
            self.keeper.holder = Some(holder);
            self.keeper.written = None;
            self.keeper.tied.clear();
        }
        let may_pet = self.may_pet();
        if may_pet && !self.keeper.holds {
            self.keeper.holds = true;
            self.event(Event::LeaseHeld { host_epoch: me.he });
        } else if !may_pet && self.keeper.holds {
            let refused =
                self.keeper.holder.as_ref().map(|holder| format!("{:?}", holder.refused())).unwrap_or_default();
            self.lose_lease(me.he, &format!("no majority granted in time; refusals {refused}"));
        }
    }

    fn lose_lease(&mut self, host_epoch: HostEpoch, because: &str) {
        if std::mem::take(&mut self.keeper.holds) {
            self.event(Event::LeaseLost { host_epoch, because: because.to_owned() });
        }
    }

    /// Whether this host held its lease when it was last looked at.
    pub fn holds_lease(&self) -> bool {
        self.keeper.holds
    }

    /// Whether the keeper may pet now, by this engine's own count.
    pub(super) fn may_pet(&self) -> bool {
        self.keeper.holder.as_ref().is_some_and(|holder| holder.may_pet(self.now.moment, &self.timing))
    }

    fn write_record(&mut self, me: &Incarnation) {
        let expires = self.keeper.holder.as_ref().and_then(Holder::expires_at);
        let (Some(expires), Some(page)) = (expires, &self.keeper.page) else { return };
        let instance = page.instance;
        let armed = self.armed_set(me);
        let before = self.keeper.written.as_ref();
        let is_new_set = before.is_none_or(|order| order.armed != armed || order.host_epoch != me.he);
        if !is_new_set && before.is_some_and(|order| order.expires == expires) {
            return;
        }
        self.keeper.sequence += 1;
        if is_new_set {
            self.keeper.armed_since = self.keeper.sequence;
            let sequence = self.keeper.sequence;
            self.keeper.note_tied(&armed, sequence);
        }
        let order = KeeperOrder {
            era: self.ledger.era(),
            host_epoch: me.he,
            boot: self.me.boot,
            instance,
            expires,
            sequence: self.keeper.sequence,
            armed,
        };
        self.keeper.written = Some(order.clone());
        self.effects.push(Effect::Keeper(order));
    }

    /// Declared lost while alive: the keeper is told to end everything now, not when the lease runs out, so that its
    /// attestation can speak before the voters' waits are over (protocol §5). An expiry long past is that order.
    fn end_if_lost(&mut self) {
        let Some(page) = self.keeper.page.as_ref().filter(|page| page.state == KeeperState::Armed) else { return };
        let Some(he) = page.host_epoch else { return };
        let instance = page.instance;
        let of = Incarnation { host: self.me.host.clone(), he };
        let is_lost = self
            .ledger
            .incarnation(&of)
            .is_some_and(|state| matches!(state.ended, Some(Ended::Lost { .. })) && state.boot == Some(self.me.boot));
        let is_told = self.keeper.written.as_ref().is_some_and(|order| order.expires == Moment::default());
        if !is_lost || is_told || mutants::on("engine.lost_host_waits") {
            return;
        }
        self.keeper.sequence += 1;
        let order = KeeperOrder {
            era: self.ledger.era(),
            host_epoch: he,
            boot: self.me.boot,
            instance,
            expires: Moment::default(),
            sequence: self.keeper.sequence,
            armed: self.armed_set(&of),
        };
        self.keeper.written = Some(order.clone());
        self.effects.push(Effect::Keeper(order));
    }

    /// Says to the ledger what the keeper attests, until the ledger shows it.
    fn forward_attestation(&mut self) {
        let Some(page) = &self.keeper.page else { return };
        let Some(attested) = page.attested.clone().filter(|attested| attested.boot == self.me.boot) else { return };
        let (instance, lab) = (page.instance, page.lab);
        let era = self.ledger.era();
        let mut of = Incarnation { host: self.me.host.clone(), he: attested.host_epoch };
        if of.he.era() < era {
            // One record stands for every admission of older eras (protocol §9).
            of.he = HostEpoch::in_era(era, 0);
        }
        let Some(state) = self.ledger.incarnation(&of) else { return };
        if state.ended.is_none() {
            let because = RetiredBecause::KeeperAttested { boot: attested.boot, era };
            self.propose(Command::Retired { of, because });
            return;
        }
        let is_known = state.evidence.iter().any(|known| known.observer.as_ref() == Some(&self.me.host));
        let is_asked_for = self.ledger.groups_on(&of.host).any(|(_, group)| group.owners.contains_key(&of));
        if is_known || !is_asked_for {
            return;
        }
        let named = attested.host_epoch;
        let mut groups = attested.groups;
        groups.extend(self.never_begun(&of));
        groups.sort();
        groups.dedup();
        let observed = Observation::Released { boot: attested.boot, instance, groups, era, named };
        let observer = self.me.host.clone();
        self.propose(Command::Evidence(Evidence { of, observed, observer, lab }));
    }

    /// Groups whose grant reached this host when its keeper had that host epoch behind it. It never let them begin
    /// (protocol §2: armed before the first start step), can't name them, and nobody else could ever prove them gone
    /// where a lease proves nothing. A pinned group isn't in what the keeper ends; an adopted one ran before its grant.
    fn never_begun<'a>(&'a self, of: &'a Incarnation) -> impl Iterator<Item = GroupName> + 'a {
        let is_late = |group: &GroupState| {
            let granted = |ticket: &Ticket| ticket.of == *of && ticket.state == TicketState::Granted && !ticket.adopt;
            let spared = group.pin.is_some() || mutants::on("engine.late_grant_never_released");
            group.ticket.as_ref().is_some_and(granted) && !spared
        };
        self.ledger.groups_on(&of.host).filter(move |(_, group)| is_late(group)).map(|(name, _)| name.clone())
    }

    pub(super) fn on_lease_answer(&mut self, voter: VoterId, answer: &lease::Answer) {
        if let Some(holder) = &mut self.keeper.holder {
            // An ignored answer is counted by the holder; the network may repeat and reorder.
            let _ignored = holder.answer(self.now.moment, voter, answer);
        }
    }

    /// A request reached this voter, from the network or from itself.
    pub(super) fn answer_lease(&mut self, from: HostName, request: &LeaseRequest) {
        let Some(voting) = &mut self.voting else { return };
        if request.host != from {
            let because = "a lease request that names another host than its certificate".to_owned();
            self.event(Event::Dropped { from, because });
            return;
        }
        let answer = voting.answer(self.now.moment, request, &self.ledger);
        if from == self.me.host {
            let voter = voting.id;
            self.on_lease_answer(voter, &answer);
            return;
        }
        self.effects.push(Effect::Datagram { to: from, datagram: Box::new(Datagram::Lease(answer)) });
    }
}
