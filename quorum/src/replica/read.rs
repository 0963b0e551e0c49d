//! Reads that are confirmed by a majority before they are answered.
//!
//! Invariant: a context is used once in the life of the cluster. raft confirms a read by the answers to heartbeats that
//! carried its context; with a context used again, late answers to its first use would let a deposed leader confirm the
//! second and hand out a stale index. So a context names the voter, its incarnation (which rises with every start and
//! is durable before the first read) and a count within it; it is accepted back once, and only if it was asked for by
//! this very process.
//!
//! Not here: waiting until the index is applied (the caller), retrying (the caller, with a *new* read).

use crate::id::{LogIndex, VoterId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Reads that a voter waits for at once. Beyond it the oldest is given up: its answer was lost long ago.
pub const READS_MAX: usize = 1024;

/// Identity of one read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ReadContext {
    /// Who reads.
    pub voter: VoterId,
    /// Which run of its process.
    pub incarnation: u64,
    /// Which read of that run.
    pub count: u64,
}

impl ReadContext {
    const BYTES: usize = 24;

    /// As raft carries it.
    pub(super) fn to_bytes(self) -> Vec<u8> {
        [self.voter.0, self.incarnation, self.count].iter().flat_map(|part| part.to_be_bytes()).collect()
    }

    /// Reads back what [`Self::to_bytes`] wrote; nothing else has its length.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::BYTES] = bytes.try_into().ok()?;
        let (parts, _) = bytes.as_chunks::<8>();
        let [voter, incarnation, count] = [0, 1, 2].map(|part| u64::from_be_bytes(parts[part]));
        Some(Self { voter: VoterId(voter), incarnation, count })
    }
}

/// A read that a majority has confirmed: it may be answered once `index` is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadState {
    /// Which read.
    pub context: ReadContext,
    /// What must be applied first.
    pub index: LogIndex,
}

/// The reads of this process that wait for an answer.
#[derive(Debug)]
pub(super) struct Reads {
    next: ReadContext,
    waiting: BTreeSet<ReadContext>,
}

impl Reads {
    pub(super) fn new(voter: VoterId, incarnation: u64) -> Self {
        Self { next: ReadContext { voter, incarnation, count: 1 }, waiting: BTreeSet::new() }
    }

    /// A context that was never used and never will be again.
    pub(super) fn open(&mut self) -> ReadContext {
        let context = self.next;
        self.next.count += 1;
        self.waiting.insert(context);
        if self.waiting.len() > READS_MAX {
            self.waiting.pop_first();
        }
        context
    }

    /// Whether `context` is awaited; it isn't any more.
    pub(super) fn close(&mut self, context: &ReadContext) -> bool {
        self.waiting.remove(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_never_the_same_twice_and_comes_back_once() {
        let mut reads = Reads::new(VoterId(3), 7);
        let (first, second) = (reads.open(), reads.open());
        assert_ne!(first, second);
        assert_ne!(first, Reads::new(VoterId(3), 8).open());
        assert!(reads.close(&first));
        assert!(!reads.close(&first));
        assert!(!reads.close(&Reads::new(VoterId(3), 6).open()));
        assert_eq!(ReadContext::from_bytes(&second.to_bytes()), Some(second));
        assert_eq!(ReadContext::from_bytes(&[0; 23]), None);
    }

    #[test]
    fn reads_that_are_never_answered_do_not_pile_up() {
        let mut reads = Reads::new(VoterId(1), 1);
        let first = reads.open();
        let newest = (0..READS_MAX).map(|_| reads.open()).last().unwrap();
        assert_eq!(reads.waiting.len(), READS_MAX);
        assert!(!reads.close(&first));
        assert!(reads.close(&newest));
    }
}
