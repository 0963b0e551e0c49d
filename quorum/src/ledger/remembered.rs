//! Proposals that took effect lately, so that one proposed again after a doubt takes effect once.
//!
//! Bounded by count, not by time: apply knows no time. A repetition that comes later than that many effective
//! proposals meets the command's own conditions (epochs, intents), which is why those never rest on this memory.

use crate::id::{LogIndex, ProposalKey};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// How many are remembered: at 1,000 proposals a second still longer than any proposer repeats one.
const REMEMBERED_MAX: usize = 8_192;

/// The last effective proposals.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    by_key: BTreeMap<ProposalKey, LogIndex>,
    in_order: VecDeque<ProposalKey>,
}

impl Remembered {
    /// Where a proposal took effect, if it is remembered.
    pub fn effect_of(&self, key: ProposalKey) -> Option<LogIndex> {
        self.by_key.get(&key).copied()
    }

    /// Notes that a proposal took effect.
    pub fn note(&mut self, key: ProposalKey, index: LogIndex) {
        if self.by_key.insert(key, index).is_some() {
            return;
        }
        self.in_order.push_back(key);
        if self.in_order.len() > REMEMBERED_MAX
            && let Some(oldest) = self.in_order.pop_front()
        {
            self.by_key.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u64) -> ProposalKey {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&n.to_le_bytes());
        ProposalKey(bytes)
    }

    #[test]
    fn memory_is_bounded_and_forgets_the_oldest_first() {
        let mut remembered = Remembered::default();
        for n in 0..=REMEMBERED_MAX as u64 {
            remembered.note(key(n), LogIndex(n + 1));
        }
        assert_eq!(remembered.effect_of(key(0)), None);
        assert_eq!(remembered.effect_of(key(1)), Some(LogIndex(2)));
        assert_eq!(remembered.by_key.len(), REMEMBERED_MAX);
    }
}
