//! What people did, chained by hash so that an edited log is seen.
//!
//! Each record's hash covers the record before it. The ledger keeps only the head; the records go to the voters'
//! journals as events, and `antipode audit verify` follows them to the head that a majority agrees on. Only what took
//! effect is chained here, because a refused command changes nothing; an agent records a refused attempt, where it
//! matters, by an `Audit` command of its own.

use super::person::Decision;
use crate::id::LogIndex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The end of the chain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditHead {
    /// How many records there are.
    pub length: u64,
    /// Hash of the last one; zeros if there is none.
    pub hash: [u8; 32],
}

/// One act of a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// Which, from 1.
    pub number: u64,
    /// The entry.
    pub index: LogIndex,
    /// The proposer's wall clock.
    pub wall_ms: u64,
    /// The command's name.
    pub action: String,
    /// Who, why, and what was shown.
    pub decision: Decision,
    /// SHA-256 of the whole command as it is in the log.
    pub command: [u8; 32],
    /// Hash of the record before.
    pub previous: [u8; 32],
    /// Hash of this one.
    pub hash: [u8; 32],
}

impl AuditRecord {
    /// Who did it, by name and key.
    pub fn by_whom(&self) -> String {
        self.decision.by.to_string()
    }

    /// What `hash` must be.
    pub fn computed_hash(&self) -> [u8; 32] {
        let covered =
            (self.number, self.index, self.wall_ms, &self.action, &self.decision, self.command, self.previous);
        digest(&covered)
    }

    /// Whether this record follows `head` and is unchanged.
    pub fn follows(&self, head: &AuditHead) -> bool {
        Some(self.number) == head.length.checked_add(1)
            && self.previous == head.hash
            && self.hash == self.computed_hash()
    }
}

impl AuditHead {
    /// Chains a record: fills in its number and hashes, and makes it the head.
    pub fn append(&mut self, mut record: AuditRecord) -> AuditRecord {
        record.number = self.length + 1;
        record.previous = self.hash;
        record.hash = record.computed_hash();
        *self = Self { length: record.number, hash: record.hash };
        record
    }
}

/// SHA-256 of a value's bincode: fixed-width, so that no two values share their bytes.
pub fn digest<T: Serialize>(value: &T) -> [u8; 32] {
    let config = bincode::config::standard().with_fixed_int_encoding();
    let mut sink = HashSink(Sha256::new());
    bincode::serde::encode_into_std_write(value, &mut sink, config).expect("every replicated type can be encoded");
    sink.0.finalize().into()
}

struct HashSink(Sha256);

impl std::io::Write for HashSink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::person::{Person, PersonKey};
    use super::*;

    fn record(index: u64) -> AuditRecord {
        let by = Person { name: "ann".into(), key: PersonKey::Local(0) };
        AuditRecord {
            number: 0,
            index: LogIndex(index),
            wall_ms: 5,
            action: "freeze".into(),
            decision: Decision { by, reason: "work".into(), shown: String::new() },
            command: [0; 32],
            previous: [0; 32],
            hash: [0; 32],
        }
    }

    #[test]
    fn an_edited_or_missing_record_breaks_the_chain() {
        let mut head = AuditHead::default();
        let first = head.append(record(7));
        let second = head.append(record(9));
        let start = AuditHead::default();
        assert!(first.follows(&start));
        let after_first = AuditHead { length: 1, hash: first.hash };
        assert!(second.follows(&after_first));
        assert!(!second.follows(&start), "a missing record shows");
        let edited = AuditRecord { wall_ms: 6, ..first };
        assert!(!edited.follows(&start), "an edited record shows");
    }
}
