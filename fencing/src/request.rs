//! An order to make a host harmless, as the ledger's committed fence task says it.
//!
//! Contract: an order is bound to one host epoch and carries the position of the decision behind it. The executor
//! keeps the highest position it has seen per target and refuses lower ones (`gate`).
//! Not here: whether the order is right: the agent asks the ledger, and gives the executor a guard that asks again
//! last thing before each device call.

use crate::key::VolumeClaim;
use crate::name::{HostName, VolumeName};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

/// Where in the history of decisions an order stands. Compares by era, then term, then log index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stamp {
    /// Era of the cluster.
    pub era: u64,
    /// Raft's term of the task's entry.
    pub term: u64,
    /// Log index of the task's entry.
    pub index: u64,
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "era {} term {} index {}", self.era, self.term, self.index)
    }
}

/// Which levels of the target's topology are to be used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Levels {
    /// All of them, by order, the independent ones at the same time.
    #[default]
    All,
    /// Only these (counted from 1, as people see them).
    Only(BTreeSet<usize>),
}

/// How the group's addresses move: what storage exclusion needs beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AddressMove {
    /// Nothing checks the epoch: the old instance could still answer clients.
    #[default]
    Unchecked,
    /// The addresses' way is switched by something that refuses an older epoch.
    EpochChecked,
}

/// An order to fence one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FenceOrder {
    /// The task's number in the ledger.
    pub task: u64,
    /// The host that is to be proven harmless.
    pub target: HostName,
    /// Its host epoch: evidence is about this one only.
    pub he: u64,
    /// Where the decision stands.
    pub stamp: Stamp,
    /// Which levels.
    pub levels: Levels,
    /// Time allowed from the moment the executor takes the order.
    pub allowed: Duration,
    /// For levels with reservations: who claims which volume, whom that excludes.
    pub claims: BTreeMap<VolumeName, VolumeClaim>,
    /// How the addresses move.
    pub address_move: AddressMove,
}

impl FenceOrder {
    /// An order for all levels without storage claims.
    pub fn new(target: HostName, he: u64, stamp: Stamp, allowed: Duration) -> Self {
        let claims = BTreeMap::new();
        let address_move = AddressMove::default();
        Self { task: stamp.index, target, he, stamp, levels: Levels::All, allowed, claims, address_move }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_era_outranks_any_term_and_index() {
        let old = Stamp { era: 1, term: 99, index: 999 };
        let new = Stamp { era: 2, term: 1, index: 1 };
        assert!(new > old);
        assert!(Stamp { era: 2, term: 2, index: 1 } > new);
    }
}
