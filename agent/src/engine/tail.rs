//! What the part of the log says that is not applied: an end of a host epoch binds a voter from the moment it is in
//! the log, committed or not, durable or not (I5).
//!
//! It is asked at every lease request. Each entry is decoded once: index and term name it for ever.

use quorum::id::{HostEpoch, HostName, LogIndex, Term};
use quorum::ledger::{Command, Incarnation};
use quorum::replica::{EntryRef, Replica};
use std::collections::BTreeMap;

/// What one entry says.
#[derive(Debug)]
enum Says {
    /// It ends these host epochs; mostly none.
    Ends(Vec<Incarnation>),
    /// It can't be decoded.
    Undecodable,
}

/// The unapplied entries, as they were decoded.
#[derive(Debug, Default)]
pub(super) struct Tail(BTreeMap<LogIndex, (Term, Says)>);

impl Tail {
    /// Brings it up to date with the log behind `applied`.
    pub(super) fn read(&mut self, replica: &Replica, applied: LogIndex) {
        self.0.retain(|index, _| *index > applied);
        let mut last = applied;
        for entry in replica.entries_after(applied) {
            last = entry.index;
            if self.0.get(&entry.index).is_none_or(|(term, _)| *term != entry.term) {
                self.0.insert(entry.index, (entry.term, says(&entry)));
            }
        }
        // A new leader may have overwritten entries by fewer.
        self.0.retain(|index, _| *index <= last);
    }

    /// The highest host epoch of `host` that an entry ends.
    pub(super) fn ended(&self, host: &HostName) -> Option<HostEpoch> {
        let ends = self.0.values().filter_map(|(_, says)| match says {
            Says::Ends(ends) => Some(ends),
            Says::Undecodable => None,
        });
        ends.flatten().filter(|of| of.host == *host).map(|of| of.he).max()
    }

    /// Whether an entry can't be decoded: it may end anything.
    pub(super) fn is_undecodable(&self) -> bool {
        self.0.values().any(|(_, says)| matches!(says, Says::Undecodable))
    }
}

fn says(entry: &EntryRef<'_>) -> Says {
    if entry.is_membership() || entry.data().is_empty() {
        return Says::Ends(Vec::new());
    }
    match super::log::decode_entry(entry.data()) {
        Ok(entry) => Says::Ends(ended_by(&entry.command)),
        Err(_) => Says::Undecodable,
    }
}

/// The host epochs that this command ends as soon as it is in a voter's log.
fn ended_by(command: &Command) -> Vec<Incarnation> {
    let counts = !quorum::mutants::on("engine.only_losses_stop_grants") || matches!(command, Command::Lost(_));
    if counts { command.revokes() } else { Vec::new() }
}
