//! Between our types and raft's.
//!
//! Invariants: nothing in protobuf's encoding comes from the network or the disk. raft looks into a configuration
//! change only when its own leader proposes one; everywhere else our own type rides in the entry's context and raft's
//! data stays empty. A snapshot's data never enters raft: raft gets the metadata, the data waits beside it.
//!
//! Not here: checks (`check` made them before anything is converted towards raft).

use super::membership::{conf_state, decode_change, encode_change};
use super::read::ReadContext;
use super::wire::{Appended, Ballot, Body, Entry, EntryKind, HardState, Message, Position, Snapshot, SnapshotMeta};
use crate::codec::Blob;
use crate::id::{Era, LogIndex, Term, VoterId};
use raft::CAMPAIGN_TRANSFER;
use raft::eraftpb::{self, EntryType, MessageType};

fn position(index: u64, term: u64) -> Position {
    Position { index: LogIndex(index), term: Term(term) }
}

/// The size of an entry as raft's own limits count it.
pub(super) fn entry_size(entry: &eraftpb::Entry) -> u64 {
    (entry.data.len() + entry.context.len()) as u64 + 12
}

/// Ours to raft's.
///
/// # Panics
/// When a membership change is longer than it may be; `check` and the proposer's own check refused such.
pub(super) fn entry_to_raft(entry: &Entry) -> eraftpb::Entry {
    let mut raft = eraftpb::Entry { index: entry.index.0, term: entry.term.0, ..Default::default() };
    match &entry.kind {
        EntryKind::Empty => {}
        EntryKind::Normal(data) => raft.data = data.to_vec().into(),
        EntryKind::Membership(change) => {
            raft.entry_type = EntryType::EntryConfChangeV2;
            raft.context = encode_change(change).expect("a change was checked before").into();
        }
    }
    raft
}

/// Raft's to ours.
///
/// # Panics
/// When raft made an entry that this module didn't: it has no way to.
pub(super) fn entry_from_raft(raft: &eraftpb::Entry) -> Entry {
    let kind = match raft.entry_type {
        EntryType::EntryNormal if raft.data.is_empty() => EntryKind::Empty,
        EntryType::EntryNormal => EntryKind::Normal(Blob::from(raft.data.as_ref())),
        EntryType::EntryConfChangeV2 => {
            EntryKind::Membership(decode_change(&raft.context).expect("a change carries its own type"))
        }
        EntryType::EntryConfChange => unreachable!("changes are proposed in the second form only"),
    };
    Entry { index: LogIndex(raft.index), term: Term(raft.term), kind }
}

pub(super) fn hard_state_from_raft(raft: &eraftpb::HardState) -> HardState {
    HardState {
        term: Term(raft.term),
        vote: (raft.vote != 0).then_some(VoterId(raft.vote)),
        commit: LogIndex(raft.commit),
    }
}

pub(super) fn snapshot_to_raft(meta: &SnapshotMeta) -> eraftpb::Snapshot {
    let mut raft = eraftpb::Snapshot::default();
    let raft_meta = raft.mut_metadata();
    raft_meta.index = meta.last.index.0;
    raft_meta.term = meta.last.term.0;
    raft_meta.set_conf_state(conf_state(&meta.membership));
    raft
}

/// Whether raft's snapshot is the one that `meta` describes.
pub(super) fn is_same_snapshot(raft: &eraftpb::Snapshot, meta: &SnapshotMeta) -> bool {
    let raft = raft.get_metadata();
    (raft.index, raft.term) == (meta.last.index.0, meta.last.term.0)
}

/// Ours to raft's. A snapshot's data is left out.
pub(super) fn message_to_raft(message: &Message) -> eraftpb::Message {
    let (from, to, term) = (message.from.0, message.to.0, message.term.0);
    let mut raft = eraftpb::Message { from, to, term, ..Default::default() };
    match &message.body {
        Body::Append { prev, commit, entries } => {
            raft.msg_type = MessageType::MsgAppend;
            (raft.index, raft.log_term, raft.commit) = (prev.index.0, prev.term.0, commit.0);
            raft.entries = appended_to_raft(*prev, entries).into();
        }
        Body::AppendAccepted { last, commit } => {
            raft.msg_type = MessageType::MsgAppendResponse;
            (raft.index, raft.commit) = (last.0, commit.0);
        }
        Body::AppendRejected { prev, hint, commit } => {
            raft.msg_type = MessageType::MsgAppendResponse;
            raft.reject = true;
            (raft.index, raft.commit) = (prev.0, commit.0);
            (raft.reject_hint, raft.log_term) = (hint.index.0, hint.term.0);
        }
        Body::Heartbeat { commit, read } => {
            raft.msg_type = MessageType::MsgHeartbeat;
            set_beat(&mut raft, *commit, read.as_ref());
        }
        Body::HeartbeatAnswer { commit, read } => {
            raft.msg_type = MessageType::MsgHeartbeatResponse;
            set_beat(&mut raft, *commit, read.as_ref());
        }
        Body::Vote { ballot, last, committed, priority } => {
            raft.msg_type =
                if *ballot == Ballot::Pre { MessageType::MsgRequestPreVote } else { MessageType::MsgRequestVote };
            if *ballot == Ballot::Transfer {
                raft.context = CAMPAIGN_TRANSFER.into();
            }
            (raft.index, raft.log_term, raft.priority) = (last.index.0, last.term.0, *priority);
            (raft.commit, raft.commit_term) = (committed.index.0, committed.term.0);
        }
        Body::VoteAnswer { pre, granted, committed } => {
            raft.msg_type =
                if *pre { MessageType::MsgRequestPreVoteResponse } else { MessageType::MsgRequestVoteResponse };
            raft.reject = !granted;
            (raft.commit, raft.commit_term) = (committed.index.0, committed.term.0);
        }
        Body::Snapshot(snapshot) => {
            raft.msg_type = MessageType::MsgSnapshot;
            raft.set_snapshot(snapshot_to_raft(&snapshot.meta));
        }
        Body::TakeOver => raft.msg_type = MessageType::MsgTimeoutNow,
        Body::ReadIndex(read) => {
            raft.msg_type = MessageType::MsgReadIndex;
            raft.entries = vec![read_to_raft(read)].into();
        }
        Body::ReadIndexAnswer { read, index } => {
            raft.msg_type = MessageType::MsgReadIndexResp;
            raft.index = index.0;
            raft.entries = vec![read_to_raft(read)].into();
        }
    }
    raft
}

fn set_beat(raft: &mut eraftpb::Message, commit: LogIndex, read: Option<&ReadContext>) {
    raft.commit = commit.0;
    if let Some(read) = read {
        raft.context = read.to_bytes().into();
    }
}

fn appended_to_raft(prev: Position, entries: &[Appended]) -> Vec<eraftpb::Entry> {
    let with_index = |(index, entry): (u64, &Appended)| {
        entry_to_raft(&Entry { index: LogIndex(index), term: entry.term, kind: entry.kind.clone() })
    };
    (prev.index.0 + 1..).zip(entries).map(with_index).collect()
}

/// As raft carries a read: in the data of an entry.
fn read_to_raft(read: &ReadContext) -> eraftpb::Entry {
    eraftpb::Entry { data: read.to_bytes().into(), ..Default::default() }
}

fn read_from_raft(raft: &eraftpb::Message) -> Option<ReadContext> {
    ReadContext::from_bytes(raft.entries.first()?.data.as_ref())
}

/// Raft's to ours, with `snapshot` as what a snapshot message carries. None for what has no place on the wire: raft
/// would have a follower forward proposals and transfers, which this crate doesn't.
pub(super) fn message_from_raft(era: Era, raft: &eraftpb::Message, snapshot: Option<&Snapshot>) -> Option<Message> {
    let commit = LogIndex(raft.commit);
    let committed = position(raft.commit, raft.commit_term);
    let body = match raft.msg_type {
        MessageType::MsgAppend => Body::Append {
            prev: position(raft.index, raft.log_term),
            commit,
            entries: raft.entries.iter().map(appended_from_raft).collect(),
        },
        MessageType::MsgAppendResponse if raft.reject => {
            Body::AppendRejected { prev: LogIndex(raft.index), hint: position(raft.reject_hint, raft.log_term), commit }
        }
        MessageType::MsgAppendResponse => Body::AppendAccepted { last: LogIndex(raft.index), commit },
        MessageType::MsgHeartbeat => Body::Heartbeat { commit, read: ReadContext::from_bytes(&raft.context) },
        MessageType::MsgHeartbeatResponse => {
            Body::HeartbeatAnswer { commit, read: ReadContext::from_bytes(&raft.context) }
        }
        MessageType::MsgRequestPreVote | MessageType::MsgRequestVote => Body::Vote {
            ballot: ballot_from_raft(raft),
            last: position(raft.index, raft.log_term),
            committed,
            priority: raft.priority,
        },
        MessageType::MsgRequestPreVoteResponse => Body::VoteAnswer { pre: true, granted: !raft.reject, committed },
        MessageType::MsgRequestVoteResponse => Body::VoteAnswer { pre: false, granted: !raft.reject, committed },
        MessageType::MsgSnapshot => Body::Snapshot(snapshot?.clone()),
        MessageType::MsgTimeoutNow => Body::TakeOver,
        MessageType::MsgReadIndex => Body::ReadIndex(read_from_raft(raft)?),
        MessageType::MsgReadIndexResp => {
            Body::ReadIndexAnswer { read: read_from_raft(raft)?, index: LogIndex(raft.index) }
        }
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgPropose
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum
        | MessageType::MsgTransferLeader => return None,
    };
    Some(Message { era, from: VoterId(raft.from), to: VoterId(raft.to), term: Term(raft.term), body })
}

fn ballot_from_raft(raft: &eraftpb::Message) -> Ballot {
    match raft.msg_type {
        MessageType::MsgRequestPreVote => Ballot::Pre,
        _ if raft.context.as_ref() == CAMPAIGN_TRANSFER => Ballot::Transfer,
        _ => Ballot::Real,
    }
}

fn appended_from_raft(raft: &eraftpb::Entry) -> Appended {
    let Entry { term, kind, index: _ } = entry_from_raft(raft);
    Appended { term, kind }
}
