//! The audit trail: what people did, from the file that the agent keeps, held against the replicated ledger.
//!
//! A record's hash covers the one before it; the last one's hash is in the ledger of every voter. So an edited, missing
//! or added record shows: it breaks the chain, or the chain doesn't end where the ledger says. Acts that this voter's
//! log still has are compared with their entries as well.
//!
//! Contract: [`judge`] is pure. The file is the agent's own ([`AUDIT_FILE`]), one record a line, never cut.

use super::{ErrorDocument, Exit};
use crate::engine::{ChainDocument, Seen};
use quorum::ledger::{AuditHead, AuditRecord};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The trail's name in the data directory.
pub const AUDIT_FILE: &str = "audit.jsonl";

/// `audit show -o json` and `audit verify -o json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditDocument {
    /// Who says so.
    #[serde(flatten)]
    pub seen: Seen,
    /// intact, incomplete or broken.
    pub verdict: String,
    /// How many records the ledger counts.
    pub length: u64,
    /// Hash of the last one, in hexadecimal.
    pub hash: String,
    /// Records that were also compared with their entries in the log.
    pub compared_with_log: u64,
    /// What is wrong or missing; empty if intact.
    pub findings: Vec<String>,
    /// The records, oldest first.
    pub records: Vec<AuditLine>,
}

/// A record as shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditLine {
    /// Which, from 1.
    pub number: u64,
    /// The entry.
    pub index: u64,
    /// The proposer's wall clock.
    pub wall_ms: u64,
    /// What was done.
    pub action: String,
    /// The person's name.
    pub who: String,
    /// The person's key: what counts.
    pub key: String,
    /// Why, in the person's words.
    pub reason: String,
    /// What the person was shown.
    pub shown: String,
    /// Its hash, in hexadecimal.
    pub hash: String,
}

/// How a trail stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every record is there and unchanged.
    Intact,
    /// Nothing is wrong with what is here, but it doesn't begin with the first record.
    Incomplete,
    /// Something was edited, removed or added.
    Broken,
}

impl Verdict {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Intact => "intact",
            Self::Incomplete => "incomplete",
            Self::Broken => "broken",
        }
    }
}

/// Reads the trail in `data_dir` and holds it against the ledger's `chain`. Blocks on the disk.
pub(super) fn read(data_dir: &Path, chain: &ChainDocument) -> Result<AuditDocument, ErrorDocument> {
    let path = data_dir.join(AUDIT_FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => {
            let text = format!("read {}: {error}", path.display());
            let next = "look at the agent's data directory";
            return Err(ErrorDocument::new(Exit::Error, "audit-unreadable", text, next));
        }
    };
    let (records, mut findings) = parse(&text);
    let is_readable = findings.is_empty();
    let (mut verdict, more, compared) = judge(&records, chain);
    findings.extend(more);
    if !is_readable {
        verdict = Verdict::Broken;
    }
    Ok(AuditDocument {
        seen: chain.seen.clone(),
        verdict: verdict.as_str().to_owned(),
        length: chain.length,
        hash: chain.hash.clone(),
        compared_with_log: compared,
        findings,
        records: records.iter().map(line).collect(),
    })
}

pub(super) fn parse(text: &str) -> (Vec<AuditRecord>, Vec<String>) {
    let (mut records, mut findings) = (Vec::new(), Vec::new());
    for (number, line) in text.lines().enumerate() {
        match serde_json::from_str(line) {
            Ok(record) => records.push(record),
            Err(error) => findings.push(format!("line {} is no record: {error}", number + 1)),
        }
    }
    (records, findings)
}

/// How the records stand, what is wrong with them, and how many were compared with the log.
pub fn judge(records: &[AuditRecord], chain: &ChainDocument) -> (Verdict, Vec<String>, u64) {
    let mut findings = Vec::new();
    // Records that came after the ledger was asked are none of its business, but must be whole as well.
    let start = match records.first() {
        Some(first) if first.number > 1 => AuditHead { length: first.number - 1, hash: first.previous },
        Some(_) | None => AuditHead::default(),
    };
    let is_whole = start == AuditHead::default();
    let mut head = start;
    for record in records {
        if record.hash != record.computed_hash() {
            findings.push(format!("record {} was edited: its hash isn't that of its content", record.number));
        } else if Some(record.number) != head.length.checked_add(1) {
            findings.push(format!("record {} follows {}: others are missing", record.number, head.length));
        } else if record.previous != head.hash {
            findings
                .push(format!("record {} doesn't follow the one before it: one of them was replaced", record.number));
        }
        head = AuditHead { length: record.number, hash: record.hash };
    }
    let last = records.iter().find(|record| record.number == chain.length);
    match last {
        Some(last) if hex(&last.hash) != chain.hash => {
            findings.push(format!("record {} isn't the one that the ledger has: the trail was rewritten", last.number));
        }
        None if chain.length > 0 => {
            findings.push(format!("the ledger counts {} records, the trail ends before", chain.length));
        }
        Some(_) | None => {}
    }
    let mut compared = 0;
    for act in &chain.logged {
        let Some(record) = records.iter().find(|record| record.index.0 == act.index) else { continue };
        compared += 1;
        if hex(&record.command) != act.command {
            findings.push(format!("record {} isn't about entry {} as the log has it", record.number, act.index));
        }
    }
    let verdict = match (findings.is_empty(), is_whole) {
        (false, _) => Verdict::Broken,
        (true, false) => Verdict::Incomplete,
        (true, true) => Verdict::Intact,
    };
    if verdict == Verdict::Incomplete {
        let first = head.length.min(records[0].number);
        findings.push(format!("the trail begins with record {first}: this host joined later; ask another voter"));
    }
    (verdict, findings, compared)
}

fn line(record: &AuditRecord) -> AuditLine {
    AuditLine {
        number: record.number,
        index: record.index.0,
        wall_ms: record.wall_ms,
        action: record.action.clone(),
        who: record.decision.by.name.clone(),
        key: record.decision.by.key.to_string(),
        reason: record.decision.reason.clone(),
        shown: record.decision.shown.clone(),
        hash: hex(&record.hash),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::LoggedAct;
    use quorum::id::LogIndex;
    use quorum::ledger::{Decision, Person, PersonKey};

    fn trail(count: u64) -> (Vec<AuditRecord>, ChainDocument) {
        let mut head = AuditHead::default();
        let mut records = Vec::new();
        for index in 1..=count {
            let by = Person { name: "ann".into(), key: PersonKey::Local(0) };
            records.push(head.append(AuditRecord {
                number: 0,
                index: LogIndex(index * 10),
                wall_ms: index,
                action: "freeze".into(),
                decision: Decision { by, reason: "work".into(), shown: String::new() },
                command: [7; 32],
                previous: [0; 32],
                hash: [0; 32],
            }));
        }
        let seen = Seen { api_version: 1, seen_by: "a".into(), index: 1, as_of_ms: 0 };
        let logged = vec![LoggedAct { index: 20, action: "freeze".into(), command: hex(&[7; 32]) }];
        (records, ChainDocument { seen, length: head.length, hash: hex(&head.hash), logged })
    }

    #[test]
    fn a_whole_trail_is_intact_and_was_compared_with_the_log() {
        let (records, chain) = trail(3);
        assert_eq!(judge(&records, &chain), (Verdict::Intact, Vec::new(), 1));
        assert_eq!(judge(&[], &trail(0).1).0, Verdict::Intact);
    }

    #[test]
    fn an_edited_record_is_named() {
        let (mut records, chain) = trail(3);
        records[1].decision.reason = "nothing to see".into();
        let (verdict, findings, _) = judge(&records, &chain);
        assert_eq!(verdict, Verdict::Broken);
        assert!(findings[0].starts_with("record 2 was edited"), "{findings:?}");
    }

    #[test]
    fn a_trail_that_was_rewritten_as_a_whole_does_not_end_where_the_ledger_says() {
        let (_, chain) = trail(3);
        let (mut records, _) = trail(3);
        let mut head = AuditHead::default();
        for record in &mut records {
            record.decision.by.name = "bob".into();
            *record = head.append(record.clone());
        }
        let (verdict, findings, _) = judge(&records, &chain);
        assert_eq!(verdict, Verdict::Broken);
        assert!(findings[0].contains("the trail was rewritten"), "{findings:?}");
    }

    #[test]
    fn removed_records_show_wherever_they_were() {
        let (records, chain) = trail(3);
        let without = |n: usize| records.iter().enumerate().filter(|(i, _)| *i != n).map(|(_, r)| r.clone()).collect();
        let verdict = |records: Vec<AuditRecord>| judge(&records, &chain).0;
        assert_eq!(verdict(without(1)), Verdict::Broken);
        assert_eq!(verdict(without(2)), Verdict::Broken);
        // The first ones may be missing honestly: a host that joined later never had them.
        assert_eq!(verdict(without(0)), Verdict::Incomplete);
        assert_eq!(verdict(Vec::new()), Verdict::Broken);
    }

    #[test]
    fn a_record_about_another_command_than_the_log_has_is_found() {
        let (records, mut chain) = trail(3);
        chain.logged[0].command = hex(&[8; 32]);
        assert_eq!(judge(&records, &chain).0, Verdict::Broken);
    }
}
