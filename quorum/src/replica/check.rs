//! What a peer may say: everything that raft's library would take at its word, or panic about.
//!
//! raft trusts its messages; an impossible index reaches an assertion there, deep in a process whose abort stops
//! leases. So each message is held against this replica's state first. What is refused is dropped and counted; raft
//! never hears of it. Peers are no liars, but bugs, restored disks and old versions are.
//!
//! Not here: the shape of a message (`wire` can't express a bad one), who the sender is (the caller compares `from`
//! with the certificate and the roster). The sender needn't be in the membership that this replica has applied: one
//! that is far behind knows none of today's members. Only answers are accepted from known members alone.

use super::log::Log;
use super::membership::{self, MembershipError};
use super::read::ReadContext;
use super::wire::{
    Appended, Body, COUNT_MAX, ENTRY_BYTES_MAX, EntryKind, Message, Position, SNAPSHOT_BYTES_MAX, SnapshotMeta,
};
use crate::id::{Era, LogIndex, Term, VoterId};
use raft::{Raft, StateRole};
use std::cmp::Ordering;

/// Reads that a leader confirms at once for all its followers.
pub(super) const PENDING_READS_MAX: usize = 4096;

/// So many elections lie between two voters at most. One that made up the largest term would leave none for the next
/// election: everybody refuses larger ones.
const TERMS_AHEAD_MAX: u64 = 1 << 24;

/// Why a peer's message was dropped. The replica's state is what it was before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    /// It is of another era.
    #[error("accept a message of era {found} in era {ours}")]
    Era {
        /// The message's.
        found: Era,
        /// This replica's.
        ours: Era,
    },
    /// It is for somebody else.
    #[error("accept a message for {0}")]
    NotForUs(VoterId),
    /// It claims another sender than the one who brought it.
    #[error("accept a message of {claimed} from {sender}")]
    Impersonated {
        /// Whom the message names.
        claimed: VoterId,
        /// Who brought it.
        sender: VoterId,
    },
    /// A term or index is beyond anything real.
    #[error("believe {0} entries or terms")]
    Absurd(u64),
    /// The message has no term although its kind needs one, or has one although it must not.
    #[error("accept the term {0} on this kind of message")]
    WrongTerm(Term),
    /// Terms of entries fall, or exceed the message's.
    #[error("accept an entry of term {0} there")]
    EntryTerm(Term),
    /// An entry is longer than it may be, or empty although it has content.
    #[error("accept an entry of {0} bytes")]
    EntrySize(usize),
    /// An entry's membership change, or a snapshot's membership, is none.
    #[error("accept the membership")]
    Membership(#[source] MembershipError),
    /// The leader says that this voter has accepted entries that it doesn't have: **its disk has forgotten something
    /// that it promised to keep.** The caller must stop this voter for good; it comes back under a new id.
    #[error("find entry {commit}, which this voter is said to have, in a log that ends at {last}")]
    Forgotten {
        /// What the leader counts as accepted and committed.
        commit: LogIndex,
        /// Where the log ends.
        last: LogIndex,
    },
    /// A follower accepts or names entries that the leader doesn't have.
    #[error("believe an answer about {index} to a log that ends at {last}")]
    BeyondLog {
        /// What the follower names.
        index: LogIndex,
        /// Where the log ends.
        last: LogIndex,
    },
    /// The snapshot's places contradict each other or the message.
    #[error("accept a snapshot at {0:?}")]
    SnapshotPlace(Position),
    /// The snapshot is longer than it may be.
    #[error("accept a snapshot of {0} bytes")]
    SnapshotSize(usize),
    /// An answer from one who isn't a member.
    #[error("accept an answer from {0}, who is no member")]
    UnknownPeer(VoterId),
    /// Something that only the leader of this term may say, from somebody else.
    #[error("accept that from {0}, who doesn't lead this term")]
    NotTheLeader(VoterId),
    /// A read of somebody else than the sender.
    #[error("confirm a read of {0} for somebody else")]
    ForeignRead(VoterId),
    /// More reads wait to be confirmed than the leader holds.
    #[error("confirm more than {PENDING_READS_MAX} reads at once")]
    TooManyReads,
    /// It would start an election that this replica can't stand for right now.
    #[error("take over in the middle of an installation or a write")]
    NotNow,
}

/// Holds `message`, brought by `sender`, against this replica.
pub(super) fn check(raft: &Raft<Log>, era: Era, sender: VoterId, message: &Message) -> Result<(), BadMessage> {
    if message.era != era {
        return Err(BadMessage::Era { found: message.era, ours: era });
    }
    if message.from != sender || sender.0 == 0 || sender.0 == raft.id {
        return Err(BadMessage::Impersonated { claimed: message.from, sender });
    }
    if message.to.0 != raft.id {
        return Err(BadMessage::NotForUs(message.to));
    }
    let forwarded = matches!(message.body, Body::ReadIndex(_));
    if forwarded != (message.term.0 == 0) {
        return Err(BadMessage::WrongTerm(message.term));
    }
    if is_answer(&message.body) && raft.prs().get(sender.0).is_none() {
        return Err(BadMessage::UnknownPeer(sender));
    }
    numbers(message)?;
    if message.term.0 > raft.term.saturating_add(TERMS_AHEAD_MAX) {
        return Err(BadMessage::Absurd(message.term.0));
    }
    body(raft, message)
}

fn is_answer(body: &Body) -> bool {
    match body {
        Body::AppendAccepted { .. }
        | Body::AppendRejected { .. }
        | Body::HeartbeatAnswer { .. }
        | Body::VoteAnswer { .. } => true,
        Body::Append { .. }
        | Body::Heartbeat { .. }
        | Body::Vote { .. }
        | Body::Snapshot(_)
        | Body::TakeOver
        | Body::ReadIndex(_)
        | Body::ReadIndexAnswer { .. } => false,
    }
}

/// Every term and index that the message names.
fn numbers(message: &Message) -> Result<(), BadMessage> {
    let place = |at: Position| at.index.0.max(at.term.0);
    let largest = match &message.body {
        Body::Append { prev, commit, entries } => place(*prev).saturating_add(entries.len() as u64).max(commit.0),
        Body::AppendAccepted { last, commit } => last.0.max(commit.0),
        Body::AppendRejected { prev, hint, commit } => prev.0.max(place(*hint)).max(commit.0),
        Body::Heartbeat { commit, read: _ } | Body::HeartbeatAnswer { commit, read: _ } => commit.0,
        Body::Vote { ballot: _, last, committed, priority: _ } => place(*last).max(place(*committed)),
        Body::VoteAnswer { pre: _, granted: _, committed } => place(*committed),
        Body::Snapshot(snapshot) => place(snapshot.meta.last),
        Body::ReadIndexAnswer { read: _, index } => index.0,
        Body::TakeOver | Body::ReadIndex(_) => 0,
    };
    let largest = largest.max(message.term.0);
    if largest > COUNT_MAX { Err(BadMessage::Absurd(largest)) } else { Ok(()) }
}

fn body(raft: &Raft<Log>, message: &Message) -> Result<(), BadMessage> {
    match &message.body {
        Body::Append { prev, commit: _, entries } => append(*prev, message.term, entries),
        Body::Heartbeat { commit, read } => {
            read_of(read.as_ref(), None)?;
            heartbeat(raft, message.term, *commit)
        }
        Body::HeartbeatAnswer { commit: _, read } => read_of(read.as_ref(), None),
        Body::AppendAccepted { last, commit: _ } => answer(raft, message.term, *last),
        Body::AppendRejected { prev, hint, commit: _ } => answer(raft, message.term, hint.index.max(*prev)),
        Body::Snapshot(snapshot) => snapshot_place(raft, &snapshot.meta, message.term, snapshot.data.len()),
        Body::TakeOver => from_leader(raft, message),
        Body::ReadIndex(read) => read_request(raft, message.from, read),
        Body::ReadIndexAnswer { read, index: _ } => {
            read_of(Some(read), Some(message.to))?;
            from_leader(raft, message)
        }
        Body::Vote { .. } | Body::VoteAnswer { .. } => Ok(()),
    }
}

fn append(prev: Position, term: Term, entries: &[Appended]) -> Result<(), BadMessage> {
    let mut newest = prev.term;
    // raft takes term 0 for "I have none there", and would find that both sides agree about nothing.
    if newest > term || (prev.term.0 == 0) != (prev.index.0 == 0) {
        return Err(BadMessage::EntryTerm(newest));
    }
    for entry in entries {
        if entry.term < newest || entry.term > term || entry.term.0 == 0 {
            return Err(BadMessage::EntryTerm(entry.term));
        }
        newest = entry.term;
        match &entry.kind {
            EntryKind::Empty => {}
            EntryKind::Normal(data) if data.is_empty() || data.len() > ENTRY_BYTES_MAX => {
                return Err(BadMessage::EntrySize(data.len()));
            }
            EntryKind::Normal(_) => {}
            EntryKind::Membership(change) => {
                membership::encode_change(change).map_err(BadMessage::Membership)?;
            }
        }
    }
    Ok(())
}

/// raft commits what a heartbeat says without looking; a leader says no more than was accepted from here.
fn heartbeat(raft: &Raft<Log>, term: Term, commit: LogIndex) -> Result<(), BadMessage> {
    let last = raft.raft_log.last_index();
    if term.0 >= raft.term && commit.0 > last {
        return Err(BadMessage::Forgotten { commit, last: LogIndex(last) });
    }
    Ok(())
}

/// raft would count entries that nobody has as replicated, and tell them to the follower as committed.
fn answer(raft: &Raft<Log>, term: Term, index: LogIndex) -> Result<(), BadMessage> {
    let last = raft.raft_log.last_index();
    if raft.state == StateRole::Leader && term.0 == raft.term && index.0 > last {
        return Err(BadMessage::BeyondLog { index, last: LogIndex(last) });
    }
    Ok(())
}

fn snapshot_place(raft: &Raft<Log>, meta: &SnapshotMeta, term: Term, len: usize) -> Result<(), BadMessage> {
    if len > SNAPSHOT_BYTES_MAX {
        return Err(BadMessage::SnapshotSize(len));
    }
    if meta.last.index.0 == 0 || meta.last.term.0 == 0 || meta.last.term > term || meta.config > meta.last.index {
        return Err(BadMessage::SnapshotPlace(meta.last));
    }
    // What is committed here is in every later log.
    let committed = raft.raft_log.committed;
    let term_there = raft.raft_log.term(committed).unwrap_or_default();
    let contradicts = match meta.last.index.0.cmp(&committed) {
        Ordering::Less => false,
        Ordering::Equal => meta.last.term.0 != term_there,
        Ordering::Greater => meta.last.term.0 < term_there,
    };
    if contradicts {
        return Err(BadMessage::SnapshotPlace(meta.last));
    }
    membership::check(&meta.membership).map_err(BadMessage::Membership)
}

fn from_leader(raft: &Raft<Log>, message: &Message) -> Result<(), BadMessage> {
    if message.term.0 == raft.term && message.from.0 == raft.leader_id {
        return Ok(());
    }
    Err(BadMessage::NotTheLeader(message.from))
}

fn read_request(raft: &Raft<Log>, from: VoterId, read: &ReadContext) -> Result<(), BadMessage> {
    read_of(Some(read), Some(from))?;
    if raft.pending_read_count() >= PENDING_READS_MAX {
        return Err(BadMessage::TooManyReads);
    }
    Ok(())
}

/// Whether a read names a voter, and the one that it must.
fn read_of(read: Option<&ReadContext>, owner: Option<VoterId>) -> Result<(), BadMessage> {
    match read {
        Some(read) if read.voter.0 == 0 || owner.is_some_and(|owner| owner != read.voter) => {
            Err(BadMessage::ForeignRead(read.voter))
        }
        _ => Ok(()),
    }
}
