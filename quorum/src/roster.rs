//! Who votes: the membership that the log has applied, and the arithmetic of majorities over it.
//!
//! Invariant: a [`ConfigId`] names a position in the log, never a set of members. The same members at two positions
//! are two configurations, because a promise made under the first says nothing about the second (protocol §3).
//!
//! Not here: changing the membership (`ledger`, `replica`), talking to voters.

use crate::id::{Era, HostName, LogIndex, SiteName, VoterId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Identity of a configuration: the era and the log index of the entry whose application made it the one in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ConfigId {
    /// The era; those of older eras compare smaller.
    pub era: Era,
    /// Where in the log the configuration was applied.
    pub index: LogIndex,
}

impl fmt::Display for ConfigId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.era, self.index)
    }
}

/// A voter or learner and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VoterInfo {
    /// Identity in Raft, never reused.
    pub id: VoterId,
    /// The machine it runs on.
    pub host: HostName,
    /// The failure domain it is in.
    pub site: SiteName,
}

/// The members of one configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Membership {
    /// Those who vote; in a joint configuration the incoming half.
    pub voters: BTreeMap<VoterId, VoterInfo>,
    /// In a joint configuration the half that is going, else empty.
    pub outgoing: BTreeMap<VoterId, VoterInfo>,
    /// Those who receive the log and have no vote, and no voice in leases.
    pub learners: BTreeMap<VoterId, VoterInfo>,
}

/// How many of `members` are a majority: more than half. Of none it is one, so that nobody decides nothing.
pub const fn majority(members: usize) -> usize {
    members / 2 + 1
}

impl Membership {
    /// Whether this is the joint step of a change.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether `id` votes, in either half. A learner does not.
    pub fn is_voter(&self, id: VoterId) -> bool {
        self.voters.contains_key(&id) || self.outgoing.contains_key(&id)
    }

    /// Every voter of either half, each once, in order.
    pub fn all_voters(&self) -> impl Iterator<Item = &VoterInfo> + Clone {
        let going = self.outgoing.values().filter(|voter| !self.voters.contains_key(&voter.id));
        self.voters.values().chain(going)
    }

    /// Whether those for which `counted` is true are a majority, in a joint configuration in both halves.
    pub fn has_majority(&self, counted: impl Fn(VoterId) -> bool) -> bool {
        let reached = |half: &BTreeMap<VoterId, VoterInfo>| {
            half.keys().filter(|id| counted(**id)).count() >= majority(half.len())
        };
        reached(&self.voters) && (self.outgoing.is_empty() || reached(&self.outgoing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn half(ids: &[u64]) -> BTreeMap<VoterId, VoterInfo> {
        let info = |id: u64| VoterInfo {
            id: VoterId(id),
            host: HostName::new(&format!("h{id}")).unwrap(),
            site: SiteName::new("s").unwrap(),
        };
        ids.iter().map(|&id| (VoterId(id), info(id))).collect()
    }

    #[test]
    fn a_majority_is_more_than_half() {
        assert_eq!([0, 1, 2, 3, 4, 5, 7].map(majority), [1, 1, 2, 2, 3, 3, 4]);
    }

    #[test]
    fn a_joint_configuration_needs_both_halves() {
        let joint = Membership { voters: half(&[1, 2, 4]), outgoing: half(&[1, 2, 3]), learners: half(&[5]) };
        assert!(joint.has_majority(|id| [1, 2].contains(&id.0)));
        assert!(!joint.has_majority(|id| [1, 4].contains(&id.0)));
        assert!(!joint.has_majority(|id| [3, 1].contains(&id.0)));
        assert_eq!(joint.all_voters().map(|voter| voter.id.0).collect::<Vec<_>>(), [1, 2, 4, 3]);
    }

    #[test]
    fn an_empty_membership_decides_nothing_and_a_learner_has_no_voice() {
        assert!(!Membership::default().has_majority(|_| true));
        let members = Membership { voters: half(&[1]), learners: half(&[2]), ..Membership::default() };
        assert!(!members.is_voter(VoterId(2)));
        assert!(!members.has_majority(|id| id == VoterId(2)));
    }

    #[test]
    fn a_configuration_of_an_older_era_compares_smaller() {
        let old = ConfigId { era: Era(1), index: LogIndex(900) };
        assert!(old < ConfigId { era: Era(2), index: LogIndex(1) });
    }
}
