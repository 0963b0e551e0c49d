//! Changes of who votes, as the log carries them, and what each makes of a membership.
//!
//! Contract: [`changed`] is the one rule. The proposer asks it before proposing, every voter when applying, the ledger
//! for its own record; same membership and change, same result, everywhere. A change that it refuses is applied as
//! nothing.
//!
//! A change of several members goes through a joint configuration and leaves it by an entry of its own, which the
//! leader of the day proposes. A voter is never turned into a learner: it is removed and comes back under a new id
//! (protocol §2), so raft's `learners_next` stays empty.
//!
//! Not here: when a change is allowed (protocol §3: not while a Lost awaits lease evidence), which is the ledger's rule.

use crate::codec;
use crate::id::VoterId;
use crate::roster::{Membership, VoterInfo};
use raft::eraftpb::{ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A cluster has at most this many voters (protocol §2).
pub const VOTERS_MAX: usize = 7;

/// Learners at once: one for each voter, when all are replaced.
pub const LEARNERS_MAX: usize = VOTERS_MAX;

/// Longest encoding of one change in bytes: seven voters replaced, each with the longest names there are.
pub const CHANGE_BYTES_MAX: usize = 2048;

/// Version of [`MembershipChange`] inside raft's entry.
const CHANGE_VERSION: u8 = 1;

/// One member comes or goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MemberStep {
    /// A new voter, or a learner that becomes one.
    AddVoter(VoterInfo),
    /// A new learner.
    AddLearner(VoterInfo),
    /// A voter or learner goes, for ever under this id.
    Remove(VoterId),
}

impl MemberStep {
    /// Whom it is about.
    pub fn id(&self) -> VoterId {
        match self {
            Self::AddVoter(info) | Self::AddLearner(info) => info.id,
            Self::Remove(id) => *id,
        }
    }
}

/// What one entry of the log does to the membership.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MembershipChange {
    /// One member; majorities before and after overlap without a joint configuration.
    One(MemberStep),
    /// Several members at once, by way of a joint configuration.
    Joint(Vec<MemberStep>),
    /// Leaves the joint configuration: only the incoming half stays.
    Leave,
}

/// Why a membership, or a change of it, is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// No voter would be left.
    #[error("keep at least one voter")]
    NoVoter,
    /// More members than the protocol allows.
    #[error("keep to {VOTERS_MAX} voters and {LEARNERS_MAX} learners")]
    TooMany,
    /// An id is 0, or filed under another id.
    #[error("use a valid id: {0}")]
    BadId(VoterId),
    /// The member is already what it should become, or a voter that should become a learner.
    #[error("add {0}: it is a member already")]
    IsMember(VoterId),
    /// Nobody has this id.
    #[error("remove {0}: it is no member")]
    NoMember(VoterId),
    /// The same member twice in one change, or in two roles.
    #[error("treat {0} once")]
    Twice(VoterId),
    /// A change without a step, or a leave while not joint.
    #[error("change something")]
    Nothing,
    /// The membership is joint; only a leave may follow.
    #[error("leave the joint configuration first")]
    Joint,
    /// The change doesn't fit into an entry.
    #[error("fit the change into {CHANGE_BYTES_MAX} bytes")]
    TooLong,
}

/// What `change` makes of `membership`.
///
/// # Errors
/// [`MembershipError`] names the rule that the change breaks; the membership stays as it is.
pub fn changed(membership: &Membership, change: &MembershipChange) -> Result<Membership, MembershipError> {
    let mut next = membership.clone();
    match change {
        MembershipChange::Leave => {
            if !membership.is_joint() {
                return Err(MembershipError::Nothing);
            }
            next.outgoing.clear();
        }
        MembershipChange::One(step) => {
            refuse_joint(membership)?;
            take_step(&mut next, step)?;
        }
        MembershipChange::Joint(steps) => {
            refuse_joint(membership)?;
            if steps.is_empty() {
                return Err(MembershipError::Nothing);
            }
            // There would be no outgoing half to agree: who has no members yet is told of the first ones one by one.
            if membership.voters.is_empty() {
                return Err(MembershipError::NoVoter);
            }
            next.outgoing = membership.voters.clone();
            let mut seen = BTreeSet::new();
            for step in steps {
                if !seen.insert(step.id()) {
                    return Err(MembershipError::Twice(step.id()));
                }
                take_step(&mut next, step)?;
            }
        }
    }
    check(&next)?;
    Ok(next)
}

fn refuse_joint(membership: &Membership) -> Result<(), MembershipError> {
    if membership.is_joint() { Err(MembershipError::Joint) } else { Ok(()) }
}

fn take_step(next: &mut Membership, step: &MemberStep) -> Result<(), MembershipError> {
    let id = step.id();
    match step {
        MemberStep::AddVoter(info) => {
            next.learners.remove(&id);
            match next.voters.insert(id, info.clone()) {
                None => Ok(()),
                Some(_) => Err(MembershipError::IsMember(id)),
            }
        }
        MemberStep::AddLearner(info) => {
            if next.is_voter(id) || next.learners.insert(id, info.clone()).is_some() {
                return Err(MembershipError::IsMember(id));
            }
            Ok(())
        }
        MemberStep::Remove(_) => match next.voters.remove(&id).or_else(|| next.learners.remove(&id)) {
            Some(_) => Ok(()),
            None => Err(MembershipError::NoMember(id)),
        },
    }
}

/// Whether `membership` is one that a cluster can have.
///
/// # Errors
/// [`MembershipError`] names the rule that it breaks.
pub fn check(membership: &Membership) -> Result<(), MembershipError> {
    if membership.voters.is_empty() {
        return Err(MembershipError::NoVoter);
    }
    let too_many = |half: &BTreeMap<_, _>| half.len() > VOTERS_MAX;
    if too_many(&membership.voters) || too_many(&membership.outgoing) || membership.learners.len() > LEARNERS_MAX {
        return Err(MembershipError::TooMany);
    }
    for (id, info) in membership.voters.iter().chain(&membership.outgoing).chain(&membership.learners) {
        if id.0 == 0 || info.id != *id {
            return Err(MembershipError::BadId(*id));
        }
    }
    match membership.learners.keys().find(|id| membership.is_voter(**id)) {
        Some(id) => Err(MembershipError::Twice(*id)),
        None => Ok(()),
    }
}

/// As raft keeps it.
pub(super) fn conf_state(membership: &Membership) -> ConfState {
    let ids = |half: &BTreeMap<VoterId, VoterInfo>| half.keys().map(|id| id.0).collect();
    ConfState {
        voters: ids(&membership.voters),
        voters_outgoing: ids(&membership.outgoing),
        learners: ids(&membership.learners),
        ..Default::default()
    }
}

/// Whether raft's configuration has exactly these members.
pub(super) fn is_same(raft: &ConfState, membership: &Membership) -> bool {
    let same = |raft: &[u64], half: &BTreeMap<VoterId, VoterInfo>| {
        raft.len() == half.len() && raft.iter().all(|id| half.contains_key(&VoterId(*id)))
    };
    same(&raft.voters, &membership.voters)
        && same(&raft.voters_outgoing, &membership.outgoing)
        && same(&raft.learners, &membership.learners)
        && raft.learners_next.is_empty()
}

/// As raft applies it.
pub(super) fn conf_change(change: &MembershipChange) -> ConfChangeV2 {
    let single = |step: &MemberStep| {
        let change_type = match step {
            MemberStep::AddVoter(_) => ConfChangeType::AddNode,
            MemberStep::AddLearner(_) => ConfChangeType::AddLearnerNode,
            MemberStep::Remove(_) => ConfChangeType::RemoveNode,
        };
        ConfChangeSingle { node_id: step.id().0, change_type, ..Default::default() }
    };
    let mut raft = ConfChangeV2::default();
    match change {
        // Of one change raft makes a simple one, of none a leave.
        MembershipChange::One(step) => raft.changes = vec![single(step)].into(),
        MembershipChange::Joint(steps) => {
            raft.changes = steps.iter().map(single).collect();
            // Explicit: raft 0.7 forgets to leave by itself when the leader changes at the wrong moment.
            raft.transition = ConfChangeTransition::Explicit;
        }
        MembershipChange::Leave => {}
    }
    raft
}

/// Encodes a change for raft's entry.
pub(super) fn encode_change(change: &MembershipChange) -> Result<Vec<u8>, MembershipError> {
    codec::encode(CHANGE_VERSION, change, CHANGE_BYTES_MAX).map_err(|_| MembershipError::TooLong)
}

/// Decodes what [`encode_change`] wrote in this process.
pub(super) fn decode_change(bytes: &[u8]) -> Result<MembershipChange, codec::DecodeError> {
    codec::decode(CHANGE_VERSION, bytes, CHANGE_BYTES_MAX)
}
