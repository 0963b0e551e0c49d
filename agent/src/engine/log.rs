//! The applied log: applying entries, feeding hosts that don't vote, and the barrier before the first start.

use super::core::{Engine, LastBeat};
use super::effect::Effect;
use super::message::{Fed, Message};
use super::voter::Asker;
use crate::event::Event;
use quorum::codec::{self, Blob, DecodeError};
use quorum::id::{HostName, LogIndex, ProposalKey};
use quorum::ledger::{self, Entry, Ledger, Position};
use quorum::moment::Moment;
use quorum::mutants;
use quorum::replica::MembershipChange;
use quorum::roster::Membership;
use std::collections::BTreeMap;
use std::time::Duration;

/// Version of an [`Entry`] in the log.
const ENTRY_VERSION: u8 = 1;
/// Version of a [`Ledger`] in a snapshot.
const LEDGER_VERSION: u8 = 1;
/// Applied entries after which a snapshot is taken.
const SNAPSHOT_EVERY: u64 = 4_096;
/// Hosts' questions for a read index that wait for their answer. One that got lost is asked again.
const READS_MAX: usize = 1_024;
/// A question that wasn't answered is asked again after this.
const ASK_AGAIN: Duration = Duration::from_millis(300);
/// A follower that heard nothing for this, although a voter says that there is more, asks again from where it stands.
const FOLLOW_AGAIN: Duration = Duration::from_millis(1_000);
/// One that has all that any voter speaks of asks again after this. Seldom: beats tell it sooner, and each question keeps a
/// connection open for a minute, of a thousand at a voter that feeds a thousand hosts.
const FOLLOW_ANYWAY: Duration = Duration::from_secs(900);
/// Bytes of a snapshot in one message to a follower.
pub(super) const PART_BYTES: usize = 768 << 10;
/// Parts of the largest snapshot.
const PARTS_MAX: usize = quorum::replica::wire::SNAPSHOT_BYTES_MAX.div_ceil(PART_BYTES);

/// Encodes an entry for the log.
///
/// # Errors
/// [`codec::EncodeError`] if it outgrew an entry.
pub fn encode_entry(entry: &Entry) -> Result<Vec<u8>, codec::EncodeError> {
    codec::encode(ENTRY_VERSION, entry, quorum::replica::wire::ENTRY_BYTES_MAX)
}

/// Decodes an entry of the log.
///
/// # Errors
/// [`DecodeError`] if it isn't one of this version.
pub fn decode_entry(bytes: &[u8]) -> Result<Entry, DecodeError> {
    codec::decode(ENTRY_VERSION, bytes, quorum::replica::wire::ENTRY_BYTES_MAX)
}

/// Encodes the ledger for a snapshot.
/// # Errors
/// [`codec::EncodeError`] if it outgrew a snapshot.
pub fn encode_ledger(ledger: &Ledger) -> Result<Vec<u8>, codec::EncodeError> {
    codec::encode(LEDGER_VERSION, ledger, quorum::replica::wire::SNAPSHOT_BYTES_MAX)
}

/// Decodes the ledger of a snapshot.
///
/// # Errors
/// [`DecodeError`] if it isn't one of this version.
pub fn decode_ledger(bytes: &[u8]) -> Result<Ledger, DecodeError> {
    let ledger: Ledger = codec::decode(LEDGER_VERSION, bytes, quorum::replica::wire::SNAPSHOT_BYTES_MAX)?;
    // No command brings such a one about: a peer made it up.
    match ledger.impossible() {
        Some(because) => Err(DecodeError::Impossible(because)),
        None => Ok(remembered(ledger)),
    }
}

/// The ledger of a replica's snapshot, which ends where the snapshot says.
///
/// # Errors
/// [`DecodeError`] if it isn't one of this version, or ends elsewhere.
pub fn decode_snapshot(snapshot: &quorum::replica::Snapshot) -> Result<Ledger, DecodeError> {
    let ledger = decode_ledger(snapshot.data.as_ref())?;
    let (last, is) = (snapshot.meta.last, ledger.position());
    if (is.index, is.term) != (last.index, last.term) {
        return Err(DecodeError::Impossible("the ledger of a snapshot ends elsewhere than the snapshot"));
    }
    Ok(ledger)
}

#[cfg(not(feature = "mutants"))]
fn remembered(ledger: Ledger) -> Ledger {
    ledger
}

#[cfg(feature = "mutants")]
fn remembered(ledger: Ledger) -> Ledger {
    if mutants::on("engine.snapshot_forgets_ends") { ledger.without_ends() } else { ledger }
}

/// How far this agent follows the log, and whether it is far enough to act.
#[derive(Debug, Default)]
pub(super) struct Following {
    barrier: Option<LogIndex>,
    asked: Option<Moment>,
    context: u64,
    /// A host that doesn't vote: when it last asked a voter for the log.
    followed: Option<Moment>,
    /// It has all that any voter speaks of.
    has_all: bool,
    parts: BTreeMap<u32, Vec<u8>>,
    parts_of: Option<(LogIndex, u32)>,
}

impl Following {
    /// Whether everything is applied that was committed when this process asked first.
    pub(super) fn barrier_passed(&self, applied: LogIndex) -> bool {
        self.barrier.is_some_and(|barrier| applied >= barrier) || mutants::on("engine.acts_before_barrier")
    }

    pub(super) fn barrier_at(&mut self, index: LogIndex) {
        self.barrier.get_or_insert(index);
    }

    pub(super) fn deadline(&self) -> Option<Moment> {
        let ask = self.asked.filter(|_| self.barrier.is_none()).map(|at| at.plus(ASK_AGAIN));
        let follow = self.followed.map(|at| at.plus(self.again()));
        [ask, follow].into_iter().flatten().min()
    }

    fn again(&self) -> Duration {
        if self.has_all { FOLLOW_ANYWAY } else { FOLLOW_AGAIN }
    }

    /// Takes a part of the snapshot at `index`, and gives the whole once it is there.
    fn take_part(&mut self, index: LogIndex, (part, parts): (u32, u32), bytes: &[u8]) -> Option<Vec<u8>> {
        // A sender makes parts of one size and no more of them than a snapshot can have: what is kept here is bounded.
        if part >= parts || parts as usize > PARTS_MAX || bytes.len() > PART_BYTES {
            return None;
        }
        if self.parts_of != Some((index, parts)) {
            self.parts_of = Some((index, parts));
            self.parts.clear();
        }
        self.parts.insert(part, bytes.to_vec());
        let is_whole = self.parts.len() == parts as usize;
        is_whole.then(|| std::mem::take(&mut self.parts).into_values().flatten().collect())
    }

    /// Whom the voters that are heard say they follow.
    pub(super) fn leader(&self, now: Moment, heard: &BTreeMap<HostName, LastBeat>, beat: Duration) -> Option<HostName> {
        let fresh = heard.values().filter(|last| now.held_since(last.at) < FOLLOW_AGAIN.max(beat * 3));
        fresh.max_by_key(|last| last.beat.term).and_then(|last| last.beat.leader.clone())
    }
}

impl Engine {
    pub(super) fn apply_entry(&mut self, position: Position, entry: &Entry) {
        let applied = self.ledger.apply(position, entry);
        self.wish_audited(entry.key);
        if let Some(mark) = self.proposals.applied(entry.key) {
            self.lead_decided(mark, applied.outcome.is_ok());
        }
        self.answer_waiting(entry, position.index, &applied);
        if let Err(refusal) = &applied.outcome {
            let (rule, because) = (refusal.code(), refusal.to_string());
            self.event(Event::Refused { index: position.index, command: entry.command.name(), rule, because });
        }
        if let ledger::Command::Audit { action, detail, .. } = &entry.command
            && action == super::readmit::READMIT
            && let Ok(host) = HostName::new(detail)
        {
            self.forgive(&host);
        }
        if let ledger::Command::Audit { action, detail, .. } = &entry.command
            && action == super::orders::RETRY
            && let Ok(plan) = detail.parse()
        {
            self.retry_plan(quorum::id::PlanId(plan));
        }
        self.react(position.index, applied.events);
    }

    pub(super) fn apply_empty(&mut self, position: Position) {
        let events = self.ledger.apply_empty(position);
        self.react(position.index, events);
    }

    pub(super) fn apply_membership(&mut self, position: Position, change: &MembershipChange) {
        let members = quorum::replica::membership::changed(self.ledger.membership(), change);
        match members {
            Ok(members) => self.adopt_membership(position, members),
            Err(_) => self.apply_empty(position),
        }
    }

    fn adopt_membership(&mut self, position: Position, members: Membership) {
        let events = self.ledger.apply_membership(position, members);
        let now = self.now.moment;
        if let Some(voting) = &mut self.voting {
            voting.lease.on_configuration_applied(now);
        }
        self.react(position.index, events);
        let members = self.ledger.membership();
        let is_member =
            |host: &HostName| members.all_voters().chain(members.learners.values()).any(|member| member.host == *host);
        if let Some(voting) = &mut self.voting {
            voting.feeding.keep(|host| !is_member(host));
        }
        self.take_roster();
        self.leave_if_removed();
    }

    /// What follows at once from what was applied; everything else follows from the state, in `settle`.
    fn react(&mut self, index: LogIndex, facts: Vec<ledger::Event>) {
        for fact in facts {
            let now = self.now.moment;
            match &fact {
                ledger::Event::HostAdmitted { of, .. } => {
                    if let Some(voting) = &mut self.voting {
                        voting.lease.on_admitted(now, &of.host);
                    }
                    self.fence_readmitted(&of.clone());
                }
                ledger::Event::HostRemoved { of } => {
                    if let Some(voting) = &mut self.voting {
                        voting.lease.forget(&of.host);
                    }
                }
                ledger::Event::SpecSet { .. }
                | ledger::Event::TimingSet { .. }
                | ledger::Event::Bootstrapped { .. } => {
                    self.take_spec();
                    self.take_roster();
                }
                ledger::Event::Detached { group, .. } => self.on_detached(&group.clone()),
                _ => {}
            }
            self.data_on(index, &fact);
            self.lead_on(&fact);
            self.event(Event::Applied { index, fact: Box::new(fact) });
        }
    }

    fn on_detached(&mut self, group: &quorum::id::GroupName) {
        let ours = self.ledger.group(group).and_then(|state| state.ticket.as_ref());
        if let Some(ticket) = ours.filter(|ticket| ticket.of.host == self.me.host) {
            let epoch = ticket.epoch;
            if let Some(runner) = self.local.runners.get_mut(group) {
                runner.on_detached(epoch);
            }
        }
    }

    /// The log behind a snapshot goes away once it is long.
    pub(super) fn compact_if_long(&mut self) {
        let applied = self.ledger.applied();
        let Some(voting) = &mut self.voting else { return };
        let length = applied.0.saturating_sub(voting.replica.snapshot_index().0);
        // A new member can't begin from a snapshot that was made before it was one.
        let wanted = voting.replica.wants_snapshot();
        if length < SNAPSHOT_EVERY && !wanted || voting.replica.applied_index() != applied {
            return;
        }
        match encode_ledger(&self.ledger) {
            Ok(bytes) => voting.replica.compact(applied, Blob::from(bytes)),
            Err(error) => self.halt(format!("write a snapshot of the ledger: {error}")),
        }
    }

    /// Asks once, at the start of this process: up to where must I have applied the log before I act?
    pub(super) fn ask_for_barrier(&mut self) {
        let now = self.now.moment;
        let again = self.following.asked.is_none_or(|at| now.held_since(at) >= ASK_AGAIN);
        if self.following.barrier.is_some() || !again {
            return;
        }
        let Some(voting) = &mut self.voting else { return };
        self.following.asked = Some(now);
        if let Ok(context) = voting.replica.read_index() {
            voting.reads.insert(context, Asker::Myself);
        }
    }

    /// dispatcher: one arm a message, each a call into the file that owns it.
    pub(super) fn on_message(&mut self, from: HostName, message: Message) {
        match message {
            Message::Raft(raft) => self.on_raft(&from, *raft),
            Message::Propose(entry) => self.on_propose(&from, *entry),
            Message::NotLeader { key, leader } => self.on_not_leader(&from, key, leader.as_ref()),
            Message::ReadIndex { context } => self.on_read_index(from, context),
            Message::ReadIndexAt { context, index } => {
                if context == self.following.context {
                    self.following.barrier_at(index);
                }
            }
            Message::Follow { after } => self.on_follow(from, after),
            Message::Committed { first, entries } => self.on_committed(&from, first, entries),
            Message::Snapshot { index, part, parts, bytes } => {
                if self.is_of_our_era(&from) {
                    self.on_snapshot_part(&from, index, (part, parts), bytes);
                }
            }
            Message::Challenge(challenge) => self.on_challenge(from, challenge),
            Message::ChallengeAnswer { challenge, hello, remnants } => {
                self.on_challenge_answer(&from, &challenge, (&hello, &remnants));
            }
            Message::AskCopy { group } => self.on_ask_copy(from, group),
            Message::CopyIs { group, generation, check } => self.on_copy_is(from, group, (generation, check)),
            Message::LastGrants { grants } => self.on_last_grants(&from, grants),
            Message::FenceAssign { task } => self.on_fence_assign(&from, task),
            Message::FenceDeclined { task, because } => self.on_fence_declined(&from, task, &because),
            Message::FenceProspects { prospects } => self.on_fence_prospects(from, prospects),
            Message::Standing(standing) => self.on_standing(&from, standing),
            Message::Members(wish) => self.on_wish(&from, &wish),
            Message::MembersRefused { wish, because } => self.on_wish_refused(&wish, because),
        }
    }

    pub(super) fn on_link(&mut self, peer: HostName, up: bool) {
        self.links.insert(peer.clone(), up);
        if !up && let Some(voting) = &mut self.voting {
            let ids = self.ledger.membership().all_voters();
            for voter in ids.filter(|voter| voter.host == peer) {
                voting.replica.report_unreachable(voter.id);
            }
            voting.feeding.forget(&peer);
        }
        if up {
            self.proposals.leader_changed();
            if self.all_voter_hosts().values().any(|host| *host == peer) || self.voting.is_some() {
                self.tell(peer);
            }
        }
    }

    fn on_read_index(&mut self, from: HostName, context: u64) {
        let Some(voting) = &mut self.voting else { return };
        if let Ok(read) = voting.replica.read_index() {
            // What got lost is asked for again.
            while voting.reads.len() >= READS_MAX {
                voting.reads.pop_first();
            }
            voting.reads.insert(read, Asker::Host(from, context));
        }
    }

    /// Indexes of an older era's log mean other entries: whoever feeds this host must have beaten in its era.
    fn is_of_our_era(&self, from: &HostName) -> bool {
        self.heard.get(from).is_some_and(|last| last.beat.era == self.era())
    }

    fn on_committed(&mut self, from: &HostName, first: LogIndex, entries: Vec<Fed>) {
        if self.voting.is_some() || !self.is_of_our_era(from) {
            return;
        }
        self.following.followed = Some(self.now.moment);
        for (offset, fed) in (0u64..).zip(entries) {
            // Beyond the largest number there is, and so beyond any gap.
            let index = LogIndex(first.0.saturating_add(offset));
            if index.0 <= self.ledger.applied().0 {
                continue;
            }
            if index.0 != self.ledger.applied().0 + 1 {
                // A gap: the next question asks from where this host stands.
                self.following.followed = None;
                return;
            }
            let (Fed::Empty(term) | Fed::Membership(term, _) | Fed::Entry(term, _)) = &fed;
            if *term < self.ledger.position().term {
                let because =
                    format!("entry {index} is of an earlier term than the one before it: no log is like that");
                return self.could_not_read(from.clone(), because);
            }
            match fed {
                Fed::Empty(term) => self.apply_empty(Position { index, term }),
                Fed::Membership(term, change) => self.apply_membership(Position { index, term }, &change),
                Fed::Entry(term, data) => match decode_entry(data.as_ref()) {
                    Ok(entry) => self.apply_entry(Position { index, term }, &entry),
                    Err(error) => {
                        let because = format!("decode entry {index}: {error}; this host follows the log no further");
                        return self.could_not_read(from.clone(), because);
                    }
                },
            }
        }
    }

    fn on_snapshot_part(&mut self, from: &HostName, index: LogIndex, (part, parts): (u32, u32), bytes: Blob) {
        if self.voting.is_some() || index <= self.ledger.applied() {
            return;
        }
        self.following.followed = Some(self.now.moment);
        let Some(whole) = self.following.take_part(index, (part, parts), &bytes) else { return };
        match decode_ledger(&whole) {
            Ok(ledger) if ledger.era() < self.newest_era => {}
            Ok(ledger) => {
                self.ledger = ledger;
                self.take_spec();
                self.take_roster();
            }
            Err(error) => {
                let because =
                    format!("read the snapshot of the ledger at {index}: {error}; this host stays where it is");
                self.could_not_read(from.clone(), because);
            }
        }
    }

    /// A host that doesn't vote asks a voter for the log and for its barrier.
    pub(super) fn follow(&mut self) {
        if self.voting.is_some() {
            return;
        }
        let now = self.now.moment;
        let spoken_of = self.heard.values().map(|last| last.beat.applied).max();
        // Indexes of an older era's log say nothing about a newer one's.
        self.following.has_all = self.ledger.era() == self.era()
            && spoken_of.is_some_and(|applied| applied <= self.ledger.applied())
            || mutants::on("engine.asks_late");
        let due = |at: Option<Moment>, span| at.is_none_or(|at: Moment| now.held_since(at) >= span);
        let asks = self.following.barrier.is_none() && due(self.following.asked, ASK_AGAIN);
        let follows = due(self.following.followed, self.following.again());
        if !asks && !follows {
            return;
        }
        let Some(voter) = self.nearest_voter() else { return };
        if follows {
            self.following.followed = Some(now);
            let message = Message::Follow { after: self.ledger.applied() };
            self.effects.push(Effect::Message { to: voter.clone(), message: Box::new(message) });
        }
        if asks {
            self.following.asked = Some(now);
            self.following.context += 1;
            let message = Message::ReadIndex { context: self.following.context };
            self.effects.push(Effect::Message { to: voter, message: Box::new(message) });
        }
    }

    /// The leader if it is linked, else any linked voter.
    fn nearest_voter(&self) -> Option<HostName> {
        let is_linked = |host: &HostName| self.links.get(host) == Some(&true);
        let voters: Vec<HostName> = self.voter_hosts().into_values().collect();
        let candidates = if voters.is_empty() { self.roster().into_keys().collect() } else { voters };
        let leader = self.leader().filter(is_linked);
        leader.or_else(|| candidates.into_iter().find(is_linked))
    }

    /// Somebody who doesn't lead was asked. One answer moves one proposal, and only to another leader: if each answer
    /// sent everything anew, two proposals and a leader that has just restarted would double the messages every round
    /// trip.
    fn on_not_leader(&mut self, from: &HostName, key: ProposalKey, leader: Option<&HostName>) {
        if mutants::on("engine.answers_with_a_storm") {
            self.proposals.leader_changed();
        } else if leader.is_some() && leader != Some(from) && leader == self.leader().as_ref() {
            self.proposals.send_again(key);
        }
    }

    fn on_propose(&mut self, from: &HostName, entry: Entry) {
        if entry.proposer != *from {
            let because = format!("a proposal in the name of {}", entry.proposer);
            self.event(Event::Dropped { from: from.clone(), because });
            return;
        }
        if !self.is_leader() {
            let message = Message::NotLeader { key: entry.key, leader: self.leader() };
            self.effects.push(Effect::Message { to: from.clone(), message: Box::new(message) });
            return;
        }
        self.append(&entry);
    }

    /// Puts an entry into the leader's log; a refusal to take it now is repaired by proposing again.
    fn append(&mut self, entry: &Entry) {
        let Some(voting) = &mut self.voting else { return };
        if let Ok(bytes) = encode_entry(entry) {
            let _busy = voting.replica.propose(bytes);
        }
    }

    /// Puts bytes into the leader's log as they are: what a leader of a newer version would write. For the simulator.
    /// Returns whether this agent leads.
    pub(crate) fn append_raw(&mut self, bytes: Vec<u8>) -> bool {
        let is_leader = self.is_leader();
        if let Some(voting) = self.voting.as_mut().filter(|_| is_leader) {
            let _busy = voting.replica.propose(bytes);
        }
        is_leader
    }

    /// Hands what is due to whoever leads.
    pub(super) fn send_proposals(&mut self) {
        self.follow();
        if self.proposals.waiting() == 0 {
            return;
        }
        if self.is_leader() {
            for entry in self.proposals.due(self.now.moment) {
                self.append(&entry);
            }
        } else if let Some(leader) = self.leader() {
            for entry in self.proposals.due(self.now.moment) {
                let message = Box::new(Message::Propose(Box::new(entry)));
                self.effects.push(Effect::Message { to: leader.clone(), message });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heartbeat::{Beat, Hello, KeeperState, Suspicions};
    use quorum::id::{AgentInstance, BootId, Era, HardwareId, Term};
    use quorum::ledger::Class;

    #[test]
    fn parts_of_a_snapshot_come_in_any_order_and_never_pile_up() {
        let mut following = Following::default();
        let at = LogIndex(7);
        assert_eq!(following.take_part(at, (1, 2), b"b"), None);
        assert_eq!(following.take_part(at, (0, 2), b"a"), Some(b"ab".to_vec()));
        for part in 0..10_000 {
            assert_eq!(following.take_part(at, (part, u32::MAX), b"x"), None, "more parts than a snapshot has");
            assert_eq!(following.take_part(at, (part, part), b"x"), None, "a part behind the last");
        }
        assert_eq!(following.take_part(at, (0, 2), &vec![0; PART_BYTES + 1]), None, "a part beyond its size");
        assert!(following.parts.is_empty());
        // Another snapshot begins anew.
        following.take_part(at, (0, 3), b"a");
        following.take_part(LogIndex(8), (0, 2), b"c");
        assert_eq!(following.parts.len(), 1);
    }

    #[test]
    fn who_leads_is_known_from_one_beat_to_the_next_however_long_beats_are() {
        let name = |text: &str| HostName::new(text).expect("a name");
        let hello = Hello {
            boot: BootId([1; 16]),
            agent: AgentInstance([1; 16]),
            keeper: None,
            hardware: HardwareId([1; 16]),
            class: Class::D,
            lab: true,
            host_epoch: None,
            keeper_state: KeeperState::Absent,
            watchdog: None,
        };
        let beat = Beat {
            era: Era(1),
            seq: 1,
            hello,
            echoes: Vec::new(),
            lease: None,
            lease_left_ms: 0,
            sickness: 0,
            suspicions: Suspicions::default(),
            applied: LogIndex(1),
            term: Term(1),
            leader: Some(name("ng-1")),
            lag: None,
            padding: Vec::new(),
        };
        let at = |ms: u64| Moment::from_ns(1_000_000_000 + ms * 1_000_000);
        let heard = BTreeMap::from([(name("tk-1"), LastBeat { beat, at: at(0) })]);
        let leader = |ms, beat_ms| Following::default().leader(at(ms), &heard, Duration::from_millis(beat_ms));
        assert_eq!(leader(999, 50), Some(name("ng-1")));
        assert_eq!(leader(1_000, 50), None, "silent for twenty beats");
        assert_eq!(leader(2_900, 1_000), Some(name("ng-1")), "two beats of three may be lost");
        assert_eq!(leader(3_000, 1_000), None);
    }
}
