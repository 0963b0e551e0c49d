//! From the world's trace to the lines of a golden: what a person would want to read of it, and nothing else.
//!
//! Left out: beats, leases that go on, work that succeeds (the ledger says what became of it), proposals that turned
//! out to be repetitions. Numbers that depend on how many entries the log has (plans, tasks, intents) are counted
//! from 1 as they appear; a fact that every replica tells is told once, in the name of the ledger.

use super::super::{Trace, What};
use crate::event::Event;
use quorum::id::{HostName, LogIndex};
use quorum::ledger;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A line of the golden.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Real time in milliseconds after the end of `boot`; negative before.
    pub at_ms: i64,
    /// Who tells it: a host, `ledger`, `quorum`, or the `script`.
    pub who: String,
    /// What changed, and why.
    pub text: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, ms) = (if self.at_ms < 0 { "-" } else { "" }, self.at_ms.abs());
        let at = format!("{sign}{}.{:03}", ms / 1_000, ms % 1_000);
        write!(f, "{at:>9} {:<7} {}", self.who, self.text)
    }
}

/// Reads the trace as it grows.
#[derive(Default)]
pub(super) struct Teller {
    read: usize,
    /// Real time of the end of `boot`.
    pub(super) zero_ns: u64,
    pub(super) lines: Vec<Line>,
    tellers: BTreeMap<LogIndex, HostName>,
    leader: Option<HostName>,
    said: BTreeSet<(HostName, String)>,
    numbers: Numbers,
}

impl Teller {
    /// Reads what is new.
    pub(super) fn follow(&mut self, trace: &[Trace]) {
        while let Some(next) = trace.get(self.read) {
            self.read += 1;
            if let Some((who, text)) = self.tell(next) {
                self.push(next.at_ns, &who, &text);
            }
        }
    }

    /// Passes over what is new: the script says it already.
    pub(super) fn skip_done(&mut self, trace: &[Trace]) {
        let told: Vec<Trace> = trace[self.read..].iter().filter(|t| matches!(t.what, What::Told(_))).cloned().collect();
        self.read = trace.len();
        for next in told {
            if let Some((who, text)) = self.tell(&next) {
                self.push(next.at_ns, &who, &text);
            }
        }
    }

    pub(super) fn push(&mut self, at_ns: u64, who: &str, text: &str) {
        let at_ms = (i64::try_from(at_ns).unwrap_or(i64::MAX) - i64::try_from(self.zero_ns).unwrap_or(0)) / 1_000_000;
        let text = self.numbers.count(text);
        self.lines.push(Line { at_ms, who: who.to_owned(), text });
    }

    fn tell(&mut self, trace: &Trace) -> Option<(String, String)> {
        let host = trace.host.as_ref();
        match &trace.what {
            What::Done(text) => Some((host.map_or("world".to_owned(), ToString::to_string), text.clone())),
            What::Told(event) => self.event(host?, event),
        }
    }

    /// Every event by name: a new one must be told or left out on purpose.
    fn event(&mut self, host: &HostName, event: &Event) -> Option<(String, String)> {
        let told = |text: String| Some((host.to_string(), text));
        match event {
            Event::AgentStarted { .. } | Event::WorkStarted { .. } => None,
            Event::Suspect { peer, .. } => told(format!("suspects {peer}")),
            Event::Trusted { peer } => told(format!("hears {peer} again")),
            Event::SiteSuspect { site } => told(format!("suspects all of {site}")),
            Event::Leader { leader, .. } => self.leader(leader.as_ref()?),
            Event::LeaseHeld { host_epoch } => told(format!("holds a lease he={host_epoch}")),
            Event::LeaseLost { host_epoch, because } => {
                let because = because.split(';').next().unwrap_or_default();
                told(format!("lost its lease he={host_epoch} because={because:?}"))
            }
            Event::LeaseWaitedOut { of, .. } => told(format!("has waited out the lease of {of}")),
            Event::Applied { index, fact } => {
                let teller = self.tellers.entry(*index).or_insert_with(|| host.clone());
                (teller == host && is_telling(fact)).then(|| ("ledger".to_owned(), fact.to_string()))
            }
            Event::Refused { index, command, because, rule: _ } => {
                let teller = self.tellers.entry(*index).or_insert_with(|| host.clone());
                let is_repetition = because.ends_with("nothing to do") || because.contains("; nothing to do: ");
                let tells = teller == host && !is_repetition;
                tells.then(|| ("ledger".to_owned(), format!("refused {command}: {because}")))
            }
            Event::WorkEnded { group, work, outcome } => {
                let work = work.split([' ', '{']).next().unwrap_or_default();
                let text = format!("{group} {work} {outcome}");
                (outcome.starts_with("Failed") && self.said.insert((host.clone(), text.clone()))).then_some(())?;
                told(text)
            }
            Event::ResyncDone { group, copy, .. } => told(format!("{group} made the copy at {copy} equal")),
            Event::DataKept { group, .. } => told(format!("{group} kept what only this copy had")),
            Event::NotDeclared { host: peer, because } => {
                // How long it still waits changes all the time; that it waits is told once.
                let because = because.split(';').next().unwrap_or_default();
                let text = format!("doesn't declare {peer} because={because:?}");
                self.said.insert((host.clone(), text.clone())).then_some(())?;
                told(text)
            }
            Event::MembersProposed { index: _, steps } => told(format!("proposes a change of the voters: {steps}")),
            Event::VoteEnded { voter, because } => told(format!("votes no more as {voter} because={because:?}")),
            Event::NotAdmitted { host: peer, because } => {
                let text = format!("doesn't admit {peer} because={because:?}");
                self.said.insert((host.clone(), text.clone())).then_some(())?;
                told(text)
            }
            Event::Dropped { from, because } => {
                let text = format!("dropped a message of {from} because={because:?}");
                self.said.insert((host.clone(), text.clone())).then_some(())?;
                told(text)
            }
        }
    }

    fn leader(&mut self, leader: &HostName) -> Option<(String, String)> {
        let is_new = self.leader.as_ref() != Some(leader);
        self.leader = Some(leader.clone());
        is_new.then(|| ("quorum".to_owned(), format!("{leader} leads")))
    }
}

/// Steps that begin, and steps that end well, are in the plan's record; the group's own facts tell the story.
fn is_telling(fact: &ledger::Event) -> bool {
    match fact {
        ledger::Event::LeaderChanged { .. }
        | ledger::Event::StepStarted { .. }
        | ledger::Event::Supports { .. }
        | ledger::Event::Audited { .. }
        | ledger::Event::DataAttested { .. } => false,
        ledger::Event::StepEnded { outcome, .. } => !matches!(outcome, ledger::StepOutcome::Done { .. }),
        _ => true,
    }
}

/// Names that count on: each kind from 1, in the order of appearance.
#[derive(Default)]
struct Numbers(BTreeMap<(String, String), usize>);

const NUMBERED: [&str; 7] = ["plan", "task", "intent", "override", "freeze", "acceptance", "index"];

impl Numbers {
    fn count(&mut self, text: &str) -> String {
        let mut kind: Option<String> = None;
        let mut said = Vec::new();
        for word in text.split(' ') {
            let (key, value) = word.split_once('=').map_or((None, word), |(key, value)| (Some(key), value));
            let of = key.map(str::to_owned).or(kind.take()).filter(|of| NUMBERED.contains(&of.as_str()));
            let digits = value.trim_end_matches(|c: char| !c.is_ascii_digit());
            let is_number = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit() || c == '.');
            match of.filter(|_| is_number) {
                Some(of) => {
                    let next = self.0.keys().filter(|(kind, _)| *kind == of).count() + 1;
                    let number = *self.0.entry((of, digits.to_owned())).or_insert(next);
                    let prefix = key.map(|key| format!("{key}=")).unwrap_or_default();
                    said.push(format!("{prefix}{number}{}", &value[digits.len()..]));
                }
                None => said.push(word.to_owned()),
            }
            kind = (key.is_none()).then(|| word.to_owned());
        }
        said.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_the_log_are_counted_from_one() {
        let mut numbers = Numbers::default();
        assert_eq!(numbers.count("plan 1234 opened failover erp"), "plan 1 opened failover erp");
        assert_eq!(
            numbers.count("tk-1@1 to be fenced task=1.77 deadline=10s"),
            "tk-1@1 to be fenced task=1 deadline=10s"
        );
        assert_eq!(numbers.count("plan 1250 closed done, after plan 1234"), "plan 2 closed done, after plan 1");
        assert_eq!(numbers.count("erp granted epoch=2"), "erp granted epoch=2");
    }
}
