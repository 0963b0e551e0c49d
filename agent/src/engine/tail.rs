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

#[cfg(test)]
mod tests {
    use super::*;
    use quorum::id::{BootId, Era, HardwareId, KeeperInstance};
    use quorum::ledger::{
        Claim, Class, Decision, HostAdmitted, Lost, LostCause, Override, Person, PersonKey, RetiredBecause,
    };
    use std::time::Duration;

    fn of(count: u64) -> Incarnation {
        let host = HostName::new("tk-1").expect("a name");
        Incarnation { host, he: HostEpoch::in_era(Era(1), count) }
    }

    fn by() -> Decision {
        let by = Person { name: "op".into(), key: PersonKey::Local(0) };
        Decision { by, reason: String::new(), shown: String::new() }
    }

    fn admission(count: u64) -> Command {
        Command::HostAdmitted(HostAdmitted {
            of: of(count),
            boot: BootId([1; 16]),
            instance: KeeperInstance([1; 16]),
            class: Class::D,
            watchdog: None,
            hardware: HardwareId([1; 16]),
            lab: false,
        })
    }

    /// What ends the second admission once it is in the log, committed or not.
    fn endings() -> [Command; 4] {
        let because = RetiredBecause::KeeperAttested { boot: BootId([1; 16]), era: Era(1) };
        let inert = Override {
            claim: Claim::Inert(vec![of(2)]),
            contrary: Vec::new(),
            at_once: false,
            span: Duration::from_secs(60),
            by: by(),
        };
        [
            Command::Lost(Lost { hosts: vec![of(2)], cause: LostCause::Operator(by()) }),
            Command::Retired { of: of(2), because },
            Command::Override(inert),
            admission(3),
        ]
    }

    fn unheeded() -> Vec<&'static str> {
        let ends = |command: &Command| ended_by(command).contains(&of(2));
        endings().iter().filter(|command| !ends(command)).map(Command::name).collect()
    }

    #[test]
    fn whatever_ends_an_admission_stops_grants_from_when_it_is_in_the_log() {
        assert_eq!(unheeded(), Vec::<&str>::new());
        let at = |index, ends| (LogIndex(index), (Term(1), Says::Ends(ends)));
        let tail = Tail([at(5, vec![of(1)]), at(6, ended_by(&endings()[0]))].into());
        assert_eq!(tail.ended(&of(2).host), Some(of(2).he), "the highest counts");
        let other = HostName::new("os-1").expect("a name");
        assert_eq!(tail.ended(&other), None);
        assert!(!tail.is_undecodable());
        assert!(Tail([(LogIndex(7), (Term(1), Says::Undecodable))].into()).is_undecodable());
    }

    #[cfg(feature = "mutants")]
    #[test]
    fn a_voter_that_heeds_only_losses_is_noticed() {
        let _planted = quorum::mutants::plant("engine.only_losses_stop_grants");
        assert_eq!(unheeded().len(), 3);
    }
}
