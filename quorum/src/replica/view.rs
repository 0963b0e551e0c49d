//! What a replica shows of itself.

use super::convert;
use super::node::Replica;
use super::ready::{Role, Standing};
use super::wire::Entry;
use crate::id::{LogIndex, Term, VoterId};
use crate::roster::{ConfigId, Membership};
use raft::eraftpb::{self, EntryType};
use raft::{ProgressState, StateRole};
use std::collections::BTreeMap;

/// A configuration and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// Its identity: the entry that made it the one in force.
    pub id: ConfigId,
    /// From which applied index on it is known to be in force: that entry, or the snapshot that brought it.
    pub since: LogIndex,
    /// Its members.
    pub membership: Membership,
}

/// An entry in the log, committed or not.
#[derive(Clone, Copy, Debug)]
pub struct EntryRef<'a> {
    /// Where it is.
    pub index: LogIndex,
    /// The term in which it was proposed.
    pub term: Term,
    raft: &'a eraftpb::Entry,
}

impl<'a> EntryRef<'a> {
    fn of(raft: &'a eraftpb::Entry) -> Self {
        Self { index: LogIndex(raft.index), term: Term(raft.term), raft }
    }

    /// The proposed content; empty for a new leader's first entry and for a membership change.
    pub fn data(&self) -> &'a [u8] {
        if self.is_membership() { &[] } else { &self.raft.data }
    }

    /// Whether it changes the membership.
    pub fn is_membership(&self) -> bool {
        self.raft.entry_type == EntryType::EntryConfChangeV2
    }

    /// A copy of it.
    pub fn to_entry(&self) -> Entry {
        convert::entry_from_raft(self.raft)
    }
}

/// A follower or learner as the leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// It has accepted everything up to here, durably.
    pub accepted: LogIndex,
    /// Of that, what is committed: this it can never again be without, unless its disk forgets. Peers remember it.
    pub durable: LogIndex,
    /// It has said something within an election timeout.
    pub is_active: bool,
    /// It waits for a snapshot.
    pub is_behind: bool,
}

impl Replica {
    /// This voter's identity.
    pub fn id(&self) -> VoterId {
        self.id
    }

    /// Role, term and leader, now.
    pub fn standing_now(&self) -> Standing {
        let role = match self.node.raft.state {
            StateRole::Follower => Role::Follower,
            StateRole::PreCandidate => Role::PreCandidate,
            StateRole::Candidate => Role::Candidate,
            StateRole::Leader => Role::Leader,
        };
        Standing { role, term: self.term(), leader: self.leader() }
    }

    /// Whether this voter leads its term, as far as it knows.
    pub fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    /// Who leads this term, as far as this voter knows.
    pub fn leader(&self) -> Option<VoterId> {
        let id = self.node.raft.leader_id;
        (id != raft::INVALID_ID).then_some(VoterId(id))
    }

    /// The term that this voter is in.
    pub fn term(&self) -> Term {
        Term(self.node.raft.term)
    }

    /// Where the log ends, persisted or not.
    pub fn last_index(&self) -> LogIndex {
        LogIndex(self.node.raft.raft_log.last_index())
    }

    /// How far this voter knows the log to be committed.
    pub fn committed(&self) -> LogIndex {
        LogIndex(self.node.raft.raft_log.committed)
    }

    /// Entries up to here are on this voter's disk. A new leader may still overwrite those that aren't committed.
    pub fn persisted_index(&self) -> LogIndex {
        LogIndex(self.node.raft.raft_log.persisted)
    }

    /// Entries up to here are on this voter's disk and committed: it can never honestly be without them again. Peers
    /// remember it.
    pub fn durable_index(&self) -> LogIndex {
        self.persisted_index().min(self.committed())
    }

    /// How far the caller said it has applied.
    pub fn applied_index(&self) -> LogIndex {
        LogIndex(self.node.raft.raft_log.applied)
    }

    /// The newest snapshot's last index; 0 if there is none.
    pub fn snapshot_index(&self) -> LogIndex {
        self.node.store().snapshot_index()
    }

    /// Whether a member waits for a newer snapshot than there is, as a new one does: it can't begin from one that was made
    /// before it was a member. The caller then compacts at the applied index, soon.
    pub fn wants_snapshot(&self) -> bool {
        self.node.store().wants_snapshot()
    }

    /// The configuration in force: the newest that was applied. Before the first snapshot of a new member it is empty.
    pub fn config(&self) -> &Configuration {
        self.configurations.last().expect("there is always one")
    }

    /// A configuration is in the log, or a snapshot has arrived, that is not applied yet: an index of it. A voter grants
    /// no lease meanwhile (protocol §3). It counts from the moment it is appended, before it is durable.
    pub fn pending_membership(&self) -> Option<LogIndex> {
        let arriving = self.node.snap().map(|snapshot| LogIndex(snapshot.get_metadata().index));
        arriving.or(self.installing).or(self.pending_membership)
    }

    /// Every entry in the log behind `index`, committed or not, persisted or not. What a new leader has overwritten is
    /// not in it any more. Entries that went behind a snapshot aren't either: the snapshot speaks for them.
    pub fn entries_after(&self, index: LogIndex) -> impl Iterator<Item = EntryRef<'_>> {
        let unstable = &self.node.raft.raft_log.unstable;
        let stable = self.node.store().range(index.0.saturating_add(1), unstable.offset);
        let behind = move |entry: &&eraftpb::Entry| entry.index > index.0;
        stable.chain(unstable.entries.iter().filter(behind)).map(EntryRef::of)
    }

    /// The other members, as the leader sees them; nobody, if this voter doesn't lead.
    pub fn peers(&self) -> BTreeMap<VoterId, Peer> {
        let mut peers = BTreeMap::new();
        if self.is_leader() {
            for (id, progress) in self.node.raft.prs().iter() {
                let accepted = LogIndex(progress.matched);
                let peer = Peer {
                    accepted,
                    durable: accepted.min(self.committed()),
                    is_active: self.answers(VoterId(*id)),
                    is_behind: progress.state == ProgressState::Snapshot,
                };
                peers.insert(VoterId(*id), peer);
            }
            peers.remove(&self.id);
        }
        peers
    }

    /// raft's own mark is of no use here: it takes it away from everybody at each look at the quorum, until they answer again.
    fn answers(&self, member: VoterId) -> bool {
        let within = self.params.election_ticks as u64;
        self.answered.get(&member).is_some_and(|at| self.ticks - at <= within)
    }

    /// Writes that wait to be persisted.
    pub fn outstanding_writes(&self) -> usize {
        self.outstanding.len()
    }
}
