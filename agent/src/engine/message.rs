//! What agents tell each other over the stream connection: Raft between voters, proposals to the leader, the log's
//! feed to hosts that don't vote, and the challenge that proves a reboot.
//!
//! Identity is the certificate's; a message never names its sender. Everything here is input from the network: the
//! limits below hold before anything is decoded.

use super::fence::Prospect;
use quorum::codec::{self, Blob, DecodeError, EncodeError};
use quorum::id::{Era, Generation, GroupName, HostEpoch, HostName, LogIndex, ProposalKey, TaskId, Term};
use quorum::ledger::{CopyCheck, Entry};
use quorum::replica::{MembershipChange, Message as RaftMessage};
use serde::{Deserialize, Serialize};

use super::memory::Standing;
use crate::heartbeat::Hello;
use crate::policy::Wish;

/// Largest message on the stream connection in bytes: one of Raft's, and the envelope around it.
pub const MESSAGE_BYTES_MAX: usize = quorum::replica::wire::MESSAGE_BYTES_MAX + 64;
const VERSION: u8 = 1;

/// A message between two agents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Message {
    /// Raft's own, between voters.
    Raft(Box<RaftMessage>),
    /// To the leader: please propose. Sent again until the sender sees its key applied; the key makes it take effect
    /// once.
    Propose(Box<Entry>),
    /// The receiver of a proposal doesn't lead.
    NotLeader {
        /// The proposal.
        key: ProposalKey,
        /// Who leads, as far as the receiver knows.
        leader: Option<HostName>,
    },
    /// To a voter: up to which index must I have applied to know all that is committed now?
    ReadIndex {
        /// Chosen by the asker, never used twice.
        context: u64,
    },
    /// The answer, once a majority confirmed the leader.
    ReadIndexAt {
        /// The asker's context.
        context: u64,
        /// Everything committed when the question arrived is at or below this index.
        index: LogIndex,
    },
    /// From a host that doesn't vote, to a voter: send me the log after this index.
    Follow {
        /// The last index that the follower applied.
        after: LogIndex,
    },
    /// Committed entries, to a follower. Consecutive, without gaps.
    Committed {
        /// Index of the first.
        first: LogIndex,
        /// The entries as they stand in the log.
        entries: Vec<Fed>,
    },
    /// A part of the ledger as of an index, to a follower whose place in the log is compacted away.
    Snapshot {
        /// The ledger's index.
        index: LogIndex,
        /// Which part.
        part: u32,
        /// Of how many.
        parts: u32,
        /// Bytes of the part.
        bytes: Blob,
    },
    /// From the leader: who are you now? The nonce was drawn after the leader applied the admission in question.
    Challenge(Challenge),
    /// The answer.
    ChallengeAnswer {
        /// The challenge, word for word.
        challenge: Challenge,
        /// Who the host is now.
        hello: Hello,
        /// Groups of which something is still present on the host; empty after a clean boot.
        remnants: Vec<GroupName>,
    },
    /// From the leader: what does your copy of this group's data say about itself?
    AskCopy {
        /// The group.
        group: GroupName,
    },
    /// The answer.
    CopyIs {
        /// The group.
        group: GroupName,
        /// The generation recorded beside the copy; `None` if there is no copy.
        generation: Option<Generation>,
        /// What the host's own check says beyond the generation.
        check: Option<CopyCheck>,
    },
    /// A voter tells the leader when it last granted `host` a lease, so that the lazy wait and the data gate count
    /// from the latest of all.
    LastGrants {
        /// Host, host epoch, and how long ago by the sender's clock, in milliseconds.
        grants: Vec<(HostName, HostEpoch, u32)>,
    },
    /// From the leader: carry this fence task out. Said again until the log shows that it was taken up.
    FenceAssign {
        /// The task.
        task: TaskId,
    },
    /// The answer of an agent that won't.
    FenceDeclined {
        /// The task.
        task: TaskId,
        /// Why.
        because: String,
    },
    /// To the leader: what the sender's fence devices could prove now.
    FenceProspects {
        /// Host by host.
        prospects: Vec<Prospect>,
    },
    /// Between voters: how the sender stands, and what it remembers of the receiver.
    Standing(Standing),
    /// To the leader: change the voters. Sent again until the sender sees it done.
    Members(Wish),
    /// The leader won't.
    MembersRefused {
        /// What was wished.
        wish: Wish,
        /// Why.
        because: String,
    },
}

/// Asks a machine to prove that it isn't the one that was admitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    /// The era of the asker.
    pub era: Era,
    /// The host epoch in question.
    pub host_epoch: HostEpoch,
    /// Drawn for this challenge alone.
    pub nonce: u64,
}

/// One committed entry as it is fed to a follower.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fed {
    /// Raft's own entry without a command.
    Empty(Term),
    /// An encoded [`Entry`].
    Entry(Term, Blob),
    /// A change of the voters.
    Membership(Term, MembershipChange),
}

/// Encodes a message.
///
/// # Errors
/// [`EncodeError`] if it outgrows [`MESSAGE_BYTES_MAX`].
pub fn encode(message: &Message) -> Result<Vec<u8>, EncodeError> {
    codec::encode(VERSION, message, MESSAGE_BYTES_MAX)
}

/// Decodes a message from the network.
///
/// # Errors
/// [`DecodeError`] for anything malformed, oversized or of another version; the caller counts and drops it.
pub fn decode(bytes: &[u8]) -> Result<Message, DecodeError> {
    codec::decode(VERSION, bytes, MESSAGE_BYTES_MAX)
}
