//! What voters remember of each other, so that none acts on a disk that has forgotten (protocol §2).
//!
//! ```text
//!   start ── Standing to every member ──► a majority (at the founding: everybody) said what it remembers of me
//!              │ more than I have              │ no more than I have
//!              ▼                               ▼
//!        end of this voter                it votes and grants
//! ```
//! Only the voter itself judges, against what it has *now*: a message that was delayed can't condemn it. Until it was
//! told it neither votes nor grants. One whose vote has ended goes on as a host that follows the log, and asks to come
//! back under a new id (`membership`).
//!
//! Not here: the virtual machine's generation id (the driver watches it), storage's own checks.

use super::core::Engine;
use super::effect::Effect;
use super::log::Following;
use super::message::Message;
use super::voter::Voting;
use crate::event::Event;
use quorum::id::{Era, HostName, VoterId};
use quorum::moment::Moment;
use quorum::roster::ConfigId;
use quorum::storage::Seen;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Voters tell each other this often.
const TELL_EVERY: Duration = Duration::from_millis(1_000);

/// What one agent says of itself as a voter, and what it remembers of the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The sender's era. One of a lower era is over.
    pub era: Era,
    /// The sender's vote, if it has one, and what its disk has.
    pub voter: Option<(VoterId, Seen)>,
    /// The receiver's vote as the sender knows it, and what it remembers of it.
    pub of_you: Option<(VoterId, Seen)>,
    /// The configuration that the sender has applied.
    pub config: ConfigId,
    /// Its members, learners included.
    pub members: Vec<VoterId>,
    /// The receiver is to say how it stands.
    pub asks: bool,
}

/// A host speaks as the vote that it lost, and as its new one.
const VOTES_OF_A_HOST_MAX: usize = 2;

/// So many voters are remembered before one that no configuration knows is no longer.
const STRANGERS_MAX: usize = 256;

/// A voter's memory of the others and of itself.
pub(super) struct Memory {
    /// What its disk had when it was loaded.
    at_start: Seen,
    /// It was founded just now: everybody must have been heard before it takes part.
    is_new: bool,
    /// The most that each other voter was ever seen to have.
    seen: BTreeMap<VoterId, Seen>,
    /// Who told, in this process' life, what it remembers of this voter.
    told: BTreeSet<VoterId>,
    /// On which host a voter was heard: before the first configuration is applied nothing else says so.
    hosts: BTreeMap<VoterId, HostName>,
    acts: bool,
    tells: Option<Moment>,
}

impl Memory {
    pub(super) fn new(at_start: Seen, is_new: bool, seen: BTreeMap<VoterId, Seen>) -> Self {
        Self { at_start, is_new, seen, told: BTreeSet::new(), hosts: BTreeMap::new(), acts: false, tells: None }
    }

    pub(super) fn deadline(&self) -> Option<Moment> {
        self.tells.map(|at| at.plus(TELL_EVERY))
    }

    /// On which host a voter speaks that no configuration knows.
    pub(super) fn host_of(&self, voter: VoterId) -> Option<&HostName> {
        self.hosts.get(&voter)
    }

    /// Takes down on which host a voter speaks; of each host the newest votes, whatever it makes up.
    pub(super) fn speaks_as(&mut self, voter: VoterId, host: &HostName) {
        self.hosts.insert(voter, host.clone());
        let of_host = self.hosts.iter().filter(|(_, at)| *at == host).map(|(id, _)| *id);
        let older: Vec<VoterId> = of_host.rev().skip(VOTES_OF_A_HOST_MAX).collect();
        self.hosts.retain(|id, _| !older.contains(id));
    }

    /// Whether one more that nobody knows would be too many.
    fn is_full_of(&self, stranger: VoterId) -> bool {
        self.seen.len() >= STRANGERS_MAX && !self.seen.contains_key(&stranger)
    }
}

impl Voting {
    /// Whether it may vote and grant: enough others said that it has forgotten nothing. Once it may, it may for the
    /// life of this process.
    pub(super) fn acts(&mut self) -> bool {
        if self.memory.acts {
            return true;
        }
        let members = &self.replica.config().membership;
        let (id, told) = (self.id, &self.memory.told);
        let is_told = |voter: VoterId| voter == id || told.contains(&voter);
        self.memory.acts = if !members.is_voter(id) {
            // It has no vote that it could give twice.
            return true;
        } else if self.memory.is_new {
            members.all_voters().all(|voter| is_told(voter.id))
        } else {
            members.has_majority(is_told)
        } || quorum::mutants::on("engine.voter_acts_untold");
        self.memory.acts
    }

    /// Whether it may answer a candidate. One that isn't a voter by its own configuration may be one by a newer one, and
    /// may have been it before its disk forgot: others must have said that it wasn't.
    pub(super) fn may_vote(&mut self) -> bool {
        let members = &self.replica.config().membership;
        let told = &self.memory.told;
        let is_cleared = members.is_voter(self.id) || members.has_majority(|voter| told.contains(&voter));
        self.acts() && (is_cleared || quorum::mutants::on("engine.learner_votes_untold"))
    }

    /// What its disk has now.
    fn has(&self) -> Seen {
        let durable = self.replica.persisted_index().max(self.memory.at_start.durable);
        Seen { incarnation: self.memory.at_start.incarnation, durable }
    }

    /// What others may remember of it for ever: no entry that a new leader could still overwrite.
    fn shows(&self) -> Seen {
        Seen { incarnation: self.memory.at_start.incarnation, durable: self.replica.durable_index() }
    }
}

impl Engine {
    /// Tells every other member, now and then; and a leader remembers what its followers have accepted.
    pub(super) fn tell_voters(&mut self) {
        let now = self.now.moment;
        let Some(voting) = &mut self.voting else { return };
        if voting.memory.tells.is_some_and(|at| now.held_since(at) < TELL_EVERY) {
            return;
        }
        voting.memory.tells = Some(now);
        for (id, peer) in voting.replica.peers() {
            let seen = voting.memory.seen.entry(id).or_default();
            seen.durable = seen.durable.max(peer.durable);
        }
        let me = self.me.host.clone();
        let hosts: BTreeSet<HostName> = self.all_voter_hosts().into_values().filter(|host| *host != me).collect();
        for host in hosts {
            self.tell(host);
        }
    }

    /// Says to `host` how this agent stands, and what it remembers of that host's vote.
    pub(super) fn tell(&mut self, host: HostName) {
        let theirs = self.all_voter_hosts().into_iter().filter(|(_, at)| *at == host).map(|(id, _)| id).max();
        let remembered = |id: VoterId| {
            let seen = self.voting.as_ref().and_then(|voting| voting.memory.seen.get(&id));
            (id, seen.copied().unwrap_or_default())
        };
        let members = self.ledger.membership();
        let standing = Standing {
            era: self.era(),
            voter: self.voting.as_ref().map(|voting| (voting.id, voting.shows())),
            of_you: theirs.filter(|_| self.voting.is_some()).map(remembered),
            config: self.ledger.config_id(),
            members: members.all_voters().chain(members.learners.values()).map(|member| member.id).collect(),
            asks: false,
        };
        self.effects.push(Effect::Message { to: host, message: Box::new(Message::Standing(standing)) });
    }

    pub(super) fn on_standing(&mut self, from: &HostName, told: Standing) {
        let era = self.era();
        if told.asks {
            return self.tell(from.clone());
        }
        if told.era > era && told.voter.is_some() {
            self.older_era(told.era);
            return;
        }
        if told.era < era {
            // Its era is over; it learns so from the answer.
            self.tell(from.clone());
            return;
        }
        let removed = self.is_removed(&told);
        let known = self.all_voter_hosts();
        let Some((theirs, shown)) = told.voter else { return };
        if !known.contains_key(&theirs) && told.config < self.ledger.config_id() {
            // It may have been removed without learning of it.
            self.tell(from.clone());
        }
        let Some(voting) = &mut self.voting else { return };
        if known.get(&theirs).is_some_and(|host| host != from) {
            let because = format!("it speaks as voter {theirs}, which is on another host");
            return self.event(Event::Dropped { from: from.clone(), because });
        }
        if !known.contains_key(&theirs) && voting.memory.is_full_of(theirs) {
            let because = format!("it speaks as voter {theirs}, which nobody knows, after too many others");
            return self.event(Event::Dropped { from: from.clone(), because });
        }
        voting.memory.speaks_as(theirs, from);
        let before = voting.memory.seen.get(&theirs).copied().unwrap_or_default();
        let seen = before.max(shown);
        voting.memory.seen.insert(theirs, seen);
        if let Some((mine, remembered)) = told.of_you.filter(|(mine, _)| *mine == voting.id) {
            let has = voting.has();
            if has.is_behind(&remembered) && !quorum::mutants::on("engine.forgotten_voter_goes_on") {
                let because = format!(
                    "{from} remembers start {} and entry {} of voter {mine}; its disk has start {} and entry {}",
                    remembered.incarnation, remembered.durable, has.incarnation, has.durable
                );
                return self.end_vote(because);
            }
            voting.memory.told.insert(theirs);
        }
        if removed && !quorum::mutants::on("engine.removed_voter_goes_on") {
            return self.end_vote(format!("configuration {} leaves it out", told.config));
        }
        if seen.incarnation > before.incarnation {
            self.effects.push(Effect::Remember { voter: theirs, seen });
            self.tell(from.clone());
        }
    }

    /// Whether a later configuration leaves this voter out for ever. One that is older than its own membership says
    /// nothing.
    fn is_removed(&self, told: &Standing) -> bool {
        let Some(voting) = &self.voting else { return false };
        let mine = voting.replica.config();
        let members = &mine.membership;
        let was_member = members.is_voter(voting.id) || members.learners.contains_key(&voting.id);
        was_member && told.config > mine.id && !told.members.contains(&voting.id)
    }

    /// What this voter has applied says that it is removed.
    pub(super) fn leave_if_removed(&mut self) {
        let Some(voting) = &self.voting else { return };
        let members = self.ledger.membership();
        if !members.is_voter(voting.id) && !members.learners.contains_key(&voting.id) {
            let because = format!("configuration {} leaves it out", self.ledger.config_id());
            self.end_vote(because);
        }
    }

    /// A newer era began without this agent: nothing that it knows counts any more, its vote least of all.
    pub(super) fn older_era(&mut self, newer: Era) {
        self.newest_era = self.newest_era.max(newer);
        if self.voting.is_some() {
            self.end_vote(format!("era {newer} began without it; what it knows is of era {}", self.era()));
        }
        // A ledger of an older era can't be continued by entries of a newer one: it is taken whole.
        self.ledger = quorum::ledger::Ledger::default();
        self.following = Following::default();
        self.take_roster();
    }

    /// This agent votes no more under this id. The host goes on and follows the log.
    pub(super) fn end_vote(&mut self, because: String) {
        let Some(voting) = self.voting.take() else { return };
        self.leading = None;
        self.proposals.drop_marked();
        self.following = Following::default();
        self.take_roster();
        self.vote_lost(voting.id, because);
    }

    /// Nobody votes here under this id any more.
    pub(super) fn vote_lost(&mut self, voter: VoterId, because: String) {
        self.ended_votes.insert(voter);
        self.event(Event::VoteEnded { voter, because: because.clone() });
        self.effects.push(Effect::VoteEnded { voter, because });
    }
}
