//! What travels between voters and lies on their disks: our own types, never raft's.
//!
//! The types are narrower than raft's message of sixteen optional fields: a local-only message, a proposal, an entry
//! out of sequence or a configuration change in foreign bytes can't be written down, so none can arrive. What can be
//! written down and is still absurd is refused by [`check`](super::check) before raft sees it.
//!
//! Evolution: a new field or variant is a new version of the envelope; readers know the versions they know
//! ([`MESSAGE_VERSION`], [`RECORD_VERSION`]), and frozen bytes in `quorum/testdata/wire/` hold them to it. Variants are
//! only ever added at the end.
//!
//! Not here: checks against a replica's state, conversion to raft's types (`convert`).

use super::membership::MembershipChange;
use super::read::ReadContext;
use crate::codec::{self, Blob, DecodeError, EncodeError};
use crate::id::{Era, LogIndex, Term, VoterId};
use crate::roster::Membership;
use serde::{Deserialize, Serialize};

/// Version of [`Message`] on the wire.
pub const MESSAGE_VERSION: u8 = 1;

/// Version of every record on disk.
pub const RECORD_VERSION: u8 = 1;

/// Longest content of one entry in bytes. A proposal beyond it is refused.
pub const ENTRY_BYTES_MAX: usize = 1 << 20;

/// Raft stops filling an append at this many bytes of entries.
pub const APPEND_BYTES_MAX: usize = 1 << 20;

/// Longest encoded message in bytes, but for a snapshot: one full append, the framing of thousands of tiny entries,
/// and room to spare.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// Longest snapshot data in bytes. Smaller than a frame by what surrounds it.
pub const SNAPSHOT_BYTES_MAX: usize = codec::FRAME_BYTES_MAX - (1 << 20);

/// Terms and indices beyond this come from no cluster that ever ran; below it nothing overflows.
pub const COUNT_MAX: u64 = 1 << 48;

/// A place in the log together with the term of the entry there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// Where.
    pub index: LogIndex,
    /// The term in which the entry there was proposed.
    pub term: Term,
}

/// What a voter must never forget about elections, and how far it knows the log to be committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HardState {
    /// The newest term it has seen.
    pub term: Term,
    /// For whom it voted in that term.
    pub vote: Option<VoterId>,
    /// Highest index it knows to be committed. Losing the newest value of this field alone is harmless.
    pub commit: LogIndex,
}

/// What an entry is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EntryKind {
    /// A new leader's first entry. It changes nothing.
    Empty,
    /// Content that was proposed; its encoding is the proposer's business.
    Normal(Blob),
    /// A step of a change of the membership.
    Membership(MembershipChange),
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Entry {
    /// Where it is.
    pub index: LogIndex,
    /// The term in which it was proposed.
    pub term: Term,
    /// What it is.
    pub kind: EntryKind,
}

impl Entry {
    /// Its place.
    pub fn position(&self) -> Position {
        Position { index: self.index, term: self.term }
    }
}

/// Everything about a snapshot but its data.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SnapshotMeta {
    /// The last entry that the data includes.
    pub last: Position,
    /// Index of the entry whose application made `membership` the one in force.
    pub config: LogIndex,
    /// The membership in force at `last`.
    pub membership: Membership,
}

/// The state that the entries up to an index led to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Snapshot {
    /// Where it stands in the log, and who the members were.
    pub meta: SnapshotMeta,
    /// The state machine's own encoding.
    pub data: Blob,
}

/// One entry inside an append: its index follows from its place.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Appended {
    /// The term in which it was proposed.
    pub term: Term,
    /// What it is.
    pub kind: EntryKind,
}

/// Which kind of vote a candidate asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Ballot {
    /// Would you vote for me? Costs nobody a term.
    Pre,
    /// Vote for me.
    Real,
    /// Vote for me although the leader lives: it told me to take over.
    Transfer,
}

/// What a message says. Each is one of raft's, with the fields that it really uses.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Body {
    /// Leader: append these behind `prev`.
    Append {
        /// The entry before the first of `entries`.
        prev: Position,
        /// How far the leader knows the log to be committed.
        commit: LogIndex,
        /// May be empty, to probe or to tell `commit`.
        entries: Vec<Appended>,
    },
    /// Follower: my log agrees with yours up to `last`, durably.
    AppendAccepted {
        /// Index of the last entry that agrees.
        last: LogIndex,
        /// How far the follower knows the log to be committed.
        commit: LogIndex,
    },
    /// Follower: I don't have the entry before.
    AppendRejected {
        /// The index of `prev` in the append.
        prev: LogIndex,
        /// Where the logs may still agree.
        hint: Position,
        /// How far the follower knows the log to be committed.
        commit: LogIndex,
    },
    /// Leader: I am still here.
    Heartbeat {
        /// Never beyond what the follower has accepted.
        commit: LogIndex,
        /// A read that waits for the leader to be confirmed.
        read: Option<ReadContext>,
    },
    /// Follower: you are.
    HeartbeatAnswer {
        /// How far the follower knows the log to be committed.
        commit: LogIndex,
        /// The read that the heartbeat carried.
        read: Option<ReadContext>,
    },
    /// Candidate: a vote, please.
    Vote {
        /// For what.
        ballot: Ballot,
        /// The candidate's last entry.
        last: Position,
        /// How far the candidate knows the log to be committed.
        committed: Position,
        /// Others with a higher one refuse, all else being equal.
        priority: i64,
    },
    /// Voter: here, or no.
    VoteAnswer {
        /// Whether a pre-vote was asked for.
        pre: bool,
        /// Whether it is granted.
        granted: bool,
        /// How far a voter that refuses knows the log to be committed.
        committed: Position,
    },
    /// Leader: take this instead of entries that I no longer have.
    Snapshot(Snapshot),
    /// Leader: take over, now.
    TakeOver,
    /// Follower: from which index on may I answer this read?
    ReadIndex(ReadContext),
    /// Leader: from this one on.
    ReadIndexAnswer {
        /// The read that was asked for.
        read: ReadContext,
        /// The index to apply before answering.
        index: LogIndex,
    },
}

/// One message from one voter to another.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Message {
    /// The era of the sender. Another one is refused.
    pub era: Era,
    /// Who sent it; compared with the certificate it came under.
    pub from: VoterId,
    /// For whom it is.
    pub to: VoterId,
    /// The sender's term; of a pre-vote, the term that the candidate would open. 0 in a forwarded read only.
    pub term: Term,
    /// What it says.
    pub body: Body,
}

impl Message {
    /// Whether it is so large that it should travel on a connection of its own.
    pub fn is_bulk(&self) -> bool {
        matches!(self.body, Body::Snapshot(_))
    }

    /// The longest encoding that a reader accepts for this kind of message, in bytes.
    pub fn bytes_max(&self) -> usize {
        if self.is_bulk() { codec::FRAME_BYTES_MAX } else { MESSAGE_BYTES_MAX }
    }

    /// Encodes it for the wire.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`] for a snapshot beyond [`SNAPSHOT_BYTES_MAX`]; nothing else gets that long.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        codec::encode(MESSAGE_VERSION, self, self.bytes_max())
    }

    /// Decodes one frame. `limit` is [`MESSAGE_BYTES_MAX`], or [`codec::FRAME_BYTES_MAX`] on the connection for bulk.
    ///
    /// # Errors
    /// [`DecodeError`] when the frame is anything but one message. The message is not checked any further here.
    pub fn decode(frame: &[u8], limit: usize) -> Result<Self, DecodeError> {
        codec::decode(MESSAGE_VERSION, frame, limit)
    }
}
