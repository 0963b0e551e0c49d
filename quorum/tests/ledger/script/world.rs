//! A ledger under test: where it is in the log, and the verbs that aren't commands.

use super::args::{Args, host, index, list, site};
use super::spec::standard_spec;
use quorum::id::{Era, LogIndex, ProposalKey, Term, VoterId};
use quorum::ledger::{Applied, Command, Entry, Event, Ledger, LedgerSpec, Position};
use quorum::roster::{Membership, VoterInfo};
use std::collections::BTreeMap;
use std::fmt::Write;

/// What became of a line.
pub enum Answer {
    /// An entry was applied.
    Applied(Box<Entry>, Applied),
    /// Something else happened, or was asked.
    Text(String),
}

/// A ledger and where it is in the log.
pub struct World {
    pub ledger: Ledger,
    pub spec: LedgerSpec,
    pub index: u64,
    pub term: u64,
    last: Option<Entry>,
    shows_audit: bool,
}

impl World {
    pub fn new() -> Self {
        let ledger = Ledger::founded_by(members(&["1", "2", "3"]));
        Self { ledger, spec: standard_spec(), index: 0, term: 1, last: None, shows_audit: false }
    }

    /// Does what a line says and tells what became of it, one line of text for each event.
    pub fn say(&mut self, line: &str) -> String {
        match self.run(line) {
            Answer::Text(text) => text,
            Answer::Applied(entry, applied) => self.render(&entry, &applied),
        }
    }

    fn render(&self, entry: &Entry, applied: &Applied) -> String {
        let mut text = String::new();
        for event in &applied.events {
            if self.shows_audit || !matches!(event, Event::Audited { .. }) {
                writeln!(text, "{} {event}", self.index).expect("writing to a string");
            }
        }
        match &applied.outcome {
            Err(refusal) => writeln!(text, "{} refused {}: {}", self.index, refusal.code(), refusal.text()),
            Ok(()) if text.is_empty() => writeln!(text, "{} {} accepted", self.index, entry.command.name()),
            Ok(()) => Ok(()),
        }
        .expect("writing to a string");
        text
    }

    /// Does what a line says.
    pub fn run(&mut self, line: &str) -> Answer {
        let args = Args::new(line);
        let answer = match args.verb() {
            "begin" => {
                for line in BEGINNING {
                    let Answer::Applied(_, applied) = self.run(line) else { continue };
                    assert_eq!(applied.outcome, Ok(()), "{line}");
                }
                Answer::Text(format!("{} ready\n", self.index))
            }
            "fresh" => Answer::Text(String::new()),
            "again" => {
                let entry = self.last.clone().expect("something came before");
                self.apply(entry)
            }
            "leader" => {
                self.term += 1;
                self.index += 1;
                let events = self.ledger.apply_empty(self.position());
                Answer::Text(self.lines(&events))
            }
            "voters" => {
                let mut to = members(&list(args.word(0)));
                to.outgoing = members(&list(args.get("outgoing").unwrap_or_default())).voters;
                to.learners = members(&list(args.get("learners").unwrap_or_default())).voters;
                self.index += 1;
                let events = self.ledger.apply_membership(self.position(), to);
                Answer::Text(self.lines(&events))
            }
            "show-audit" => {
                self.shows_audit = true;
                Answer::Text(String::new())
            }
            "ask" => Answer::Text(self.ask(&args)),
            _ => {
                let command = self.command(&args);
                let entry = self.entry(&args, command);
                self.last = Some(entry.clone());
                self.apply(entry)
            }
        };
        args.finish();
        answer
    }

    /// Looks at the state.
    fn ask(&self, args: &Args<'_>) -> String {
        match args.word(0) {
            "owners" => {
                let group = super::args::group(args.word(1));
                let owners = self.ledger.covering_evidence(&group);
                let line = |(of, cover): (_, Result<_, _>)| match cover {
                    Ok(proof) => format!("{of}: {proof}\n"),
                    Err(gap) => format!("{of}: not proven, {gap}\n"),
                };
                owners.into_iter().map(line).collect()
            }
            "data" => {
                let state = self.ledger.group(&super::args::group(args.word(1))).expect("group");
                let in_sync: Vec<_> = state.in_sync.iter().map(ToString::to_string).collect();
                format!("generation={} in_sync={} diverged={:?}\n", state.generation, in_sync.join(","), state.diverged)
            }
            "wait" => format!("{:?}\n", self.ledger.largest_lease_wait(&self.incarnation(args.word(1)))),
            "unproven" => format!("{:?}\n", self.ledger.unproven_on(&host(args.word(1)))),
            "remembered" => {
                let known =
                    self.ledger.host(&host(args.word(1))).map(|state| state.incarnations.keys().collect::<Vec<_>>());
                format!("{known:?}\n")
            }
            "may-change-voters" => match self.ledger.may_change_voters() {
                Ok(()) => "yes\n".to_owned(),
                Err(refusal) => format!("no: {}\n", refusal.text()),
            },
            "lease-proves" => {
                let proves = self.ledger.lease_would_prove(&super::args::group(args.word(1)), &host(args.word(2)));
                format!("{proves}\n")
            }
            what => panic!("nobody knows how to ask for {what}"),
        }
    }

    pub fn position(&self) -> Position {
        Position { index: LogIndex(self.index), term: Term(self.term) }
    }

    fn lines(&self, events: &[Event]) -> String {
        events.iter().map(|event| format!("{} {event}\n", self.index)).collect()
    }

    fn entry(&self, args: &Args<'_>, command: Command) -> Entry {
        let era = Era(u16::try_from(args.number("entry-era", u64::from(self.ledger.era().0))).expect("era"));
        let mut key = [0; 16];
        key[..8].copy_from_slice(&(self.index + 1).to_le_bytes());
        Entry { key: ProposalKey(key), proposer: host("os1"), era, wall_ms: 1_000 * self.index, command }
    }

    pub fn apply(&mut self, entry: Entry) -> Answer {
        self.index += 1;
        let applied = self.ledger.apply(self.position(), &entry);
        Answer::Applied(Box::new(entry), applied)
    }
}

/// Voter 1 is tk1 in tokyo, 2 os1 in osaka, 3 ng1 in nagoya, 4 os2 in osaka, 5 tk2 in tokyo.
pub fn members(ids: &[&str]) -> Membership {
    let places = [("tk1", "tokyo"), ("os1", "osaka"), ("ng1", "nagoya"), ("os2", "osaka"), ("tk2", "tokyo")];
    let voters: BTreeMap<VoterId, VoterInfo> = ids
        .iter()
        .map(|id| {
            let id = index(id).0;
            let (name, at) = places[usize::try_from(id).expect("small") - 1];
            (VoterId(id), VoterInfo { id: VoterId(id), host: host(name), site: site(at) })
        })
        .collect();
    Membership { voters, ..Membership::default() }
}

/// From nothing to two running groups: `erp` on tk1, mirrored to os1, and `web` on tk2.
const BEGINNING: [&str; 17] = [
    "bootstrap",
    "spec",
    "admit tk1",
    "admit tk2",
    "admit os1",
    "admit os2",
    "admit ng1",
    "created erp source=tk1",
    "absent erp os1",
    "grant erp to=tk1 cause=in-place adopt",
    "running erp",
    "in-sync erp copy=os1",
    "created web source=tk2",
    "absent web tk2",
    "absent web os2",
    "grant web to=tk2 cause=in-place",
    "running web",
];
