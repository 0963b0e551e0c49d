//! The voter's side: Raft, promises of leases, and the wait after them.

use super::core::Engine;
use super::effect::Effect;
use super::feed::Feeding;
use super::input::Vote;
use super::log::decode_snapshot;
use super::memory::Memory;
use super::message::Message;
use super::tail::Tail;
use crate::event::Event;
use quorum::id::{HostEpoch, HostName, LogIndex, VoterId};
use quorum::lease::{self, Claim, Ended, Facts, LeaseRequest, VoterLease};
use quorum::ledger::{Class, Command, Ended as Over, Incarnation, Ledger};
use quorum::moment::Moment;
use quorum::mutants;
use quorum::replica::wire::Body;
use quorum::replica::{BadMessage, Entry as LogEntry, EntryKind, ReadContext, Replica, Standing, Ticker};
use std::collections::BTreeMap;
use std::time::Duration;

/// Raft ticks ten times an election timeout.
const TICKS_PER_ELECTION: u32 = 10;

/// Who asked for a read index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// This agent's own barrier.
    Myself,
    /// A host that doesn't vote, with its context.
    Host(HostName, u64),
}

/// The voter's state besides the ledger.
pub(super) struct Voting {
    pub(super) id: VoterId,
    pub(super) replica: Replica,
    pub(super) lease: VoterLease,
    pub(super) reads: BTreeMap<ReadContext, Asker>,
    pub(super) feeding: Feeding,
    /// An entry could not be decoded: nothing is granted, nothing more is applied.
    pub(super) undecodable: Option<LogIndex>,
    tail: Tail,
    /// What others remember of it, and it of them.
    pub(super) memory: Memory,
    ticker: Option<Ticker>,
    ticks_every: Duration,
    standing: Option<Standing>,
    waits: Vec<Ended>,
    /// The applied state of which those are: reading a thousand hosts after every beat would cost more than the beat.
    waits_of: Option<LogIndex>,
}

impl Voting {
    /// A voter process that begins at `started` with what its store held.
    pub(super) fn new(started: Moment, vote: Vote) -> Self {
        let id = vote.replica.id();
        Self {
            id,
            replica: vote.replica,
            lease: VoterLease::new(id, started),
            memory: Memory::new(vote.seen, vote.is_new, vote.remembered),
            reads: BTreeMap::new(),
            feeding: Feeding::default(),
            undecodable: None,
            tail: Tail::default(),
            ticker: None,
            ticks_every: Duration::ZERO,
            standing: None,
            waits: Vec::new(),
            waits_of: None,
        }
    }

    pub(super) fn is_leader(&self) -> bool {
        self.replica.is_leader()
    }

    pub(super) fn deadline(&self) -> Option<Moment> {
        let tick = self.ticker.as_ref().map(Ticker::deadline);
        [tick, self.lease.deadline(&self.waits), self.memory.deadline(), self.feeding.deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Answers a lease request by what log and applied state say right now.
    pub(super) fn answer(&mut self, now: Moment, request: &LeaseRequest, ledger: &Ledger) -> lease::Answer {
        self.tail.read(&self.replica, ledger.applied());
        let acts = self.acts();
        let mut facts = facts(&self.replica, &self.tail, ledger, &request.host);
        facts.undecodable |= self.undecodable.is_some();
        // Until others said that it forgot nothing, it doesn't know its own configuration either.
        facts.configuration_pending |= !acts;
        self.lease.request(now, request, &facts)
    }
}

/// What a voter's log and applied state say about one host.
fn facts<'a>(replica: &Replica, tail: &Tail, ledger: &'a Ledger, host: &HostName) -> Facts<'a> {
    let admitted = ledger.host(host).and_then(|state| {
        let current = state.incarnations.get(&state.he)?;
        let (boot, instance) = (current.boot?, current.instance?);
        Some(Claim { era: ledger.era(), host_epoch: state.he, boot, instance })
    });
    let lease = admitted
        .and_then(|claim| ledger.lease_to_grant(&Incarnation { host: host.clone(), he: claim.host_epoch }))
        .unwrap_or_default();
    Facts {
        era: ledger.era(),
        admitted,
        ended: tail.ended(host).max(ended_applied(ledger, host)),
        configuration_pending: replica.pending_membership().is_some(),
        undecodable: tail.is_undecodable(),
        config: ledger.config_id(),
        membership: ledger.membership(),
        lease,
    }
}

/// The highest host epoch for which the applied state has an end or evidence.
fn ended_applied(ledger: &Ledger, host: &HostName) -> Option<HostEpoch> {
    let state = ledger.host(host)?;
    let is_over = |incarnation: &quorum::ledger::IncarnationState| {
        incarnation.ended.is_some() || !incarnation.evidence.is_empty() || incarnation.lease_over.is_some()
    };
    state.incarnations.iter().filter(|(_, incarnation)| is_over(incarnation)).map(|(he, _)| *he).max()
}

impl Engine {
    /// The leader that this agent follows, by host name.
    pub(super) fn leader(&self) -> Option<HostName> {
        match &self.voting {
            Some(voting) => {
                let leader = voting.replica.leader()?;
                let known = self.ledger.membership().all_voters().find(|voter| voter.id == leader);
                known.map(|voter| voter.host.clone()).or_else(|| (leader == voting.id).then(|| self.me.host.clone()))
            }
            None => self.following.leader(self.now.moment, &self.heard, self.timing.beat),
        }
    }

    pub(super) fn tick_raft(&mut self) {
        let every = self.timing.election / TICKS_PER_ELECTION;
        let Some(voting) = &mut self.voting else { return };
        if voting.ticks_every != every {
            voting.ticks_every = every;
            voting.ticker = Some(Ticker::new(every, self.now.moment));
        }
        let due = voting.ticker.as_mut().map_or(0, |ticker| ticker.ticks_due(self.now.moment));
        if due > 0 && voting.acts() {
            voting.replica.tick();
        }
    }

    pub(super) fn on_raft(&mut self, from: &HostName, message: quorum::replica::Message) {
        // A host may have two ids for a while: that of the vote it lost, and its new one. One that no configuration
        // here knows (a new member knows none) speaks for itself.
        let owner = self.all_voter_hosts().remove(&message.from);
        let Some(voting) = &mut self.voting else { return };
        if owner.as_ref().is_some_and(|host| host != from) {
            let because = format!("a message of voter {}, which is on another host", message.from);
            return self.event(Event::Dropped { from: from.clone(), because });
        }
        let may = if matches!(message.body, Body::Vote { .. }) { voting.may_vote() } else { voting.acts() };
        if !may {
            return;
        }
        let sender = message.from;
        // Raft would keep it before anybody reads it, and this voter would never get past it.
        if let Body::Snapshot(snapshot) = &message.body
            && let Err(error) = decode_snapshot(snapshot)
        {
            let because = format!("read its snapshot of the ledger: {error}; this voter stays where it is");
            return self.could_not_read(from.clone(), because);
        }
        match voting.replica.step(sender, message) {
            Ok(()) if owner.is_none() => voting.memory.speaks_as(sender, from),
            Ok(()) => {}
            Err(bad @ BadMessage::Forgotten { .. }) if !quorum::mutants::on("engine.forgotten_voter_goes_on") => {
                self.end_vote(format!("{from} leads and says: {bad}"));
            }
            Err(bad) => self.event(Event::Dropped { from: from.clone(), because: format!("{bad}") }),
        }
    }

    /// Takes out everything that the replica wants done.
    pub(super) fn drain_raft(&mut self) {
        while let Some(ready) = self.voting.as_mut().and_then(|voting| voting.replica.ready()) {
            self.send_raft(ready.send_now);
            self.effects.push(Effect::Persist(Box::new(ready.write)));
        }
        let Some(voting) = &mut self.voting else { return };
        let standing = voting.replica.standing_now();
        let before = voting.standing.replace(standing);
        if before.is_none_or(|before| before.leader != standing.leader || before.term != standing.term) {
            self.proposals.leader_changed();
            let leader = self.leader();
            self.event(Event::Leader { leader, term: standing.term });
        }
    }

    fn send_raft(&mut self, messages: Vec<quorum::replica::Message>) {
        let hosts = self.all_voter_hosts();
        for message in messages {
            let heard = self.voting.as_ref().and_then(|voting| voting.memory.host_of(message.to));
            if let Some(to) = hosts.get(&message.to).or(heard).cloned() {
                self.effects.push(Effect::Message { to, message: Box::new(Message::Raft(Box::new(message))) });
            }
        }
    }

    /// Voters and learners of the ledger's configuration and of the replica's own, either of which may be ahead.
    pub(super) fn all_voter_hosts(&self) -> BTreeMap<VoterId, HostName> {
        let applied = self.ledger.membership();
        let own = self.voting.as_ref().map(|voting| &voting.replica.config().membership);
        let halves = [Some(applied), own].into_iter().flatten();
        let members = halves.flat_map(|members| members.all_voters().chain(members.learners.values()));
        members.map(|member| (member.id, member.host.clone())).collect()
    }

    pub(super) fn on_persisted(&mut self, persisted: quorum::storage::Persisted) {
        let Some(voting) = &mut self.voting else { return };
        let after = voting.replica.persisted(persisted);
        self.send_raft(after.send);
        if let Some(snapshot) = after.snapshot {
            self.install_snapshot(&snapshot);
        }
        for entry in after.committed {
            self.apply_log_entry(entry);
        }
        for read in after.reads {
            let asker = self.voting.as_mut().and_then(|voting| voting.reads.remove(&read.context));
            match asker {
                Some(Asker::Myself) => self.following.barrier_at(read.index),
                Some(Asker::Host(host, context)) => {
                    let message = Message::ReadIndexAt { context, index: read.index };
                    self.effects.push(Effect::Message { to: host, message: Box::new(message) });
                }
                None => {}
            }
        }
        self.compact_if_long();
    }

    fn install_snapshot(&mut self, snapshot: &quorum::replica::Snapshot) {
        let index = snapshot.meta.last.index;
        if index <= self.ledger.applied() {
            // A host that had followed the log before it began to vote is further already.
            if let Some(voting) = &mut self.voting {
                voting.lease.on_snapshot_installed(self.now.moment);
                voting.replica.applied(index);
            }
            return;
        }
        match decode_snapshot(snapshot) {
            Ok(ledger) => {
                self.ledger = ledger;
                let now = self.now.moment;
                if let Some(voting) = &mut self.voting {
                    voting.lease.on_snapshot_installed(now);
                    voting.replica.applied(index);
                }
                self.take_spec();
                self.take_roster();
                self.leave_if_removed();
            }
            Err(error) => self.halt(format!("read a snapshot of the ledger: {error}")),
        }
    }

    pub(super) fn halt(&mut self, because: String) {
        self.effects.push(Effect::Halt { because });
    }

    fn apply_log_entry(&mut self, entry: LogEntry) {
        let halted = self.voting.as_ref().is_some_and(|voting| voting.undecodable.is_some());
        if halted {
            return;
        }
        let position = quorum::ledger::Position { index: entry.index, term: entry.term };
        if entry.index <= self.ledger.applied() {
            if let Some(voting) = &mut self.voting {
                if matches!(entry.kind, EntryKind::Membership(_)) {
                    voting.lease.on_configuration_applied(self.now.moment);
                }
                voting.replica.applied(entry.index);
            }
            return;
        }
        if position.term < self.ledger.position().term {
            return self.apply_no_more(entry.index, "it is of an earlier term than the one before it");
        }
        match &entry.kind {
            EntryKind::Empty => self.apply_empty(position),
            EntryKind::Normal(data) => match super::log::decode_entry(data.as_ref()) {
                Ok(mut decoded) => {
                    if mutants::on("engine.applies_by_the_clock") {
                        decoded.wall_ms = self.now.wall_ms;
                    }
                    self.apply_entry(position, &decoded);
                }
                Err(error) => return self.apply_no_more(entry.index, &error.to_string()),
            },
            EntryKind::Membership(change) => self.apply_membership(position, change),
        }
        if let Some(voting) = &mut self.voting {
            voting.replica.applied(entry.index);
        }
        self.feed_followers();
    }

    /// An entry that can't be applied halts apply and granting, and is never skipped (I17).
    fn apply_no_more(&mut self, index: LogIndex, why: &str) {
        let because = format!("decode entry {index}: {why}; this voter grants nothing more");
        self.could_not_read(self.me.host.clone(), because);
        if let Some(voting) = &mut self.voting {
            voting.undecodable = Some(index);
        }
    }

    /// Waits of this voter that ended, and the leader's reads.
    pub(super) fn voter_duties(&mut self) {
        self.feed_waiting();
        let now = self.now.moment;
        let applied = self.ledger.applied();
        let is_news = self.voting.as_ref().is_some_and(|voting| voting.waits_of != Some(applied));
        let waits = is_news.then(|| self.waits());
        let me = self.me.host.clone();
        let Some(voting) = &mut self.voting else { return };
        if let Some(waits) = waits {
            (voting.waits, voting.waits_of) = (waits, Some(applied));
        }
        let acts = voting.acts();
        let mut due = Vec::new();
        if !voting.waits.is_empty() {
            voting.tail.read(&voting.replica, self.ledger.applied());
            let mut facts = facts(&voting.replica, &voting.tail, &self.ledger, &me);
            facts.undecodable |= voting.undecodable.is_some();
            facts.configuration_pending |= !acts;
            due = voting.lease.expired_due(now, &voting.waits, &facts);
        }
        for expired in due {
            let of = Incarnation { host: expired.host, he: expired.host_epoch };
            let command = Command::Expired { voter: expired.voter, of: of.clone(), config: expired.config };
            if !self.proposals.is_under_way(&command) {
                let granted = self.voting.as_ref().map_or(now, |voting| voting.lease.last_grant(&of.host));
                self.event(Event::LeaseWaitedOut { of, waited: now.waited_since(granted) });
            }
            self.propose(command);
        }
        self.ask_for_barrier();
    }

    /// Host epochs that are over, whose lease would be evidence, and that this voter hasn't been counted for.
    fn waits(&self) -> Vec<Ended> {
        let Some(voting) = &self.voting else { return Vec::new() };
        let mut waits = Vec::new();
        for (host, state) in self.ledger.hosts() {
            for (he, incarnation) in &state.incarnations {
                let counts =
                    matches!(incarnation.class, Class::A | Class::B) || mutants::on("engine.waits_for_any_class");
                // The lease of an older era proves nothing: to speak of it again and again would only fill the log.
                let ended = matches!(incarnation.ended, Some(Over::Lost { .. } | Over::Retired { .. }));
                let is_open = ended && incarnation.lease_over.is_none();
                if counts && is_open && !incarnation.expired.contains(&voting.id) {
                    waits.push(Ended { host: host.clone(), host_epoch: *he, terms: incarnation.terms });
                }
            }
        }
        waits
    }
}
