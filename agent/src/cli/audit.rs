//! `audit`: what people did, and whether the record of it is whole.

use super::look::LookArgs;
use super::options::Format;
use super::plans::head;
use super::table::Table;
use super::{Failure, Outcome, client};
use crate::admin::{AuditDocument, Exit};
use std::fmt::Write as _;

/// Verbs of the audit trail.
#[derive(Debug, clap::Subcommand)]
pub(super) enum AuditVerb {
    /// Show what people did, oldest first
    Show(LookArgs),
    /// Follow the chain to the end that the ledger has; exit 1 if anything was edited, removed or added
    Verify(LookArgs),
}

pub(super) fn run(verb: &AuditVerb) -> Result<Outcome, Failure> {
    let (AuditVerb::Show(look) | AuditVerb::Verify(look)) = verb;
    let mut document: AuditDocument = client::parse(&client::get(&look.reach, "/v1/audit")?)?;
    let is_verify = matches!(verb, AuditVerb::Verify(_));
    let exit = if is_verify && document.verdict == "broken" { Exit::Error } else { Exit::Done };
    let text = match look.shown.format {
        Format::Json => {
            if is_verify {
                document.records.clear();
            }
            format!("{}\n", serde_json::to_value(&document).expect("a document is plain data"))
        }
        Format::Text if is_verify => verdict(&document),
        Format::Text => format!("{}{}{}", head(&document.seen), records(&document), verdict(&document)),
    };
    Ok(Outcome { text, status: exit.code() })
}

fn records(document: &AuditDocument) -> String {
    let mut table = Table::new(&["RECORD", "INDEX", "WHEN", "WHO", "KEY", "DID", "BECAUSE", "WAS SHOWN"]);
    for record in &document.records {
        let at = i64::try_from(record.wall_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        let at = at.map_or_else(|| "-".to_owned(), |at| format!("{at:.0}"));
        let (who, key, action) = (record.who.clone(), record.key.clone(), record.action.clone());
        let (reason, shown) = (record.reason.clone(), record.shown.clone());
        table.row([record.number.to_string(), record.index.to_string(), at, who, key, action, reason, shown]);
    }
    format!("{table}\n")
}

fn verdict(document: &AuditDocument) -> String {
    let mut text = format!(
        "audit trail {}: the ledger counts {} records, {} compared with the log; seen by {} at index {}\n",
        document.verdict, document.length, document.compared_with_log, document.seen.seen_by, document.seen.index
    );
    for finding in &document.findings {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "! {finding}");
    }
    if document.verdict == "broken" {
        text.push_str(
            "  next: compare with another voter: antipode audit verify --host NAME; keep the file as it is\n",
        );
    }
    text
}
