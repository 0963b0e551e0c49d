//! Runs a script against its world, line by line; the oracle looks after every event.

use super::super::{Violation, World};
use super::cluster::Cluster;
use super::condition::{Condition, answer_as_words};
use super::script::{ScriptLine, Step};
use super::tell::{Line, Teller};
use quorum::storage::MemoryDisk;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// Why a run ended early.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The script's line, from 1.
    pub line: usize,
    /// That line.
    pub text: String,
    /// What is the matter.
    pub because: String,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// The golden lines.
    pub lines: Vec<Line>,
    /// Why it failed; `None` if everything held.
    pub fault: Option<Fault>,
    /// How many conditions of the script held.
    pub held: usize,
    /// How much simulated time passed.
    pub simulated: Duration,
}

/// What conditions see beside the world.
pub(super) struct Seen<'a> {
    pub(super) lines: &'a [Line],
    pub(super) asked: Option<u64>,
}

/// What verbs act on.
pub(super) struct Stage {
    pub(super) world: World,
    pub(super) cluster: Cluster,
    /// The last request's ticket.
    pub(super) asked: Option<u64>,
    /// Disks put aside, by name.
    pub(super) disks: BTreeMap<String, MemoryDisk>,
    pub(super) teller: Teller,
    /// Lines before this one don't count for `event`.
    pub(super) marked: usize,
    answered: Option<u64>,
    never: Vec<String>,
    checked: usize,
}

/// What `until` and `hold` look for.
enum Watch<'a> {
    Nothing,
    Until(&'a Condition),
    Hold(&'a Condition),
}

impl Stage {
    pub(super) fn new(cluster: Cluster) -> Self {
        Self {
            world: cluster.world(),
            cluster,
            asked: None,
            disks: BTreeMap::new(),
            teller: Teller::default(),
            marked: 0,
            answered: None,
            never: Vec::new(),
            checked: 0,
        }
    }

    /// Lets the world run until the condition holds. For verbs that take their time.
    pub(super) fn until(&mut self, what: &str, limit: Duration, done: impl Fn(&World) -> bool) -> Result<(), String> {
        match self.world.run_until(limit, done) {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!("not within {limit:?}: {what}")),
            Err(violation) => Err(broken(&violation)),
        }
    }

    /// The ends of `boot`: time and trace count from here.
    pub(super) fn begin(&mut self) {
        self.teller.follow(&self.world.trace);
        self.teller.lines.clear();
        self.teller.zero_ns = self.world.now_ns;
        self.marked = 0;
        self.checked = 0;
    }

    fn tell(&mut self, text: &str) {
        self.teller.follow(&self.world.trace);
        self.teller.push(self.world.now_ns, "script", text);
    }

    fn run(&mut self, line: &ScriptLine) -> Result<(), String> {
        if let Some(at) = line.at {
            let due = self.teller.zero_ns + u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
            let left = due.checked_sub(self.world.now_ns).ok_or_else(|| {
                let late = Duration::from_nanos(self.world.now_ns - due);
                format!("it is {late:?} later already; use a later time, or leave `at` out")
            })?;
            self.watch(Duration::from_nanos(left), &Watch::Nothing)?;
        }
        match &line.step {
            Step::Act(act) => {
                self.tell(&line.text);
                let result = act(self);
                self.teller.skip_done(&self.world.trace);
                result
            }
            Step::Wait(span) => self.watch(*span, &Watch::Nothing),
            Step::Until(condition, limit) => self.watch(*limit, &Watch::Until(condition)),
            Step::Hold(condition, span) => self.watch(*span, &Watch::Hold(condition)),
            Step::Expect(condition) => {
                self.teller.follow(&self.world.trace);
                if condition.holds(&self.world, &self.seen()) { Ok(()) } else { Err(self.not_so("it isn't so")) }
            }
            Step::Never(text) => {
                self.teller.follow(&self.world.trace);
                self.checked = self.teller.lines.len();
                self.never.push(text.clone());
                Ok(())
            }
            Step::Mark => {
                self.teller.follow(&self.world.trace);
                self.marked = self.teller.lines.len();
                Ok(())
            }
        }
    }

    fn seen(&self) -> Seen<'_> {
        Seen { lines: &self.teller.lines[self.marked..], asked: self.asked }
    }

    fn not_so(&self, how: &str) -> String {
        match answer_as_words(self.asked.and_then(|ticket| self.world.answers.get(&ticket))) {
            ("nothing", _) => how.to_owned(),
            (word, said) => format!("{how}; the last request was answered {word}: {said}"),
        }
    }

    /// Runs the world event by event, for `span` or until the watch is satisfied or broken.
    fn watch(&mut self, span: Duration, watch: &Watch<'_>) -> Result<(), String> {
        let end = self.world.now_ns + u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        let mut is_over = false;
        loop {
            self.teller.follow(&self.world.trace);
            self.tell_answer();
            self.nothing_forbidden()?;
            match watch {
                Watch::Until(condition) if condition.holds(&self.world, &self.seen()) => return Ok(()),
                Watch::Until(_) if is_over => return Err(self.not_so(&format!("not within {span:?}"))),
                Watch::Hold(condition) if !condition.holds(&self.world, &self.seen()) => {
                    let at = Duration::from_nanos(self.world.now_ns - self.teller.zero_ns);
                    return Err(self.not_so(&format!("it is no longer so at {at:?}")));
                }
                Watch::Nothing | Watch::Until(_) | Watch::Hold(_) if is_over => return Ok(()),
                Watch::Nothing | Watch::Until(_) | Watch::Hold(_) => {}
            }
            let mut events = 0;
            let left = Duration::from_nanos(end - self.world.now_ns);
            let stopped = self.world.run_until(left, |_| {
                events += 1;
                events > 1
            });
            is_over = !stopped.map_err(|violation| broken(&violation))?;
        }
    }

    /// The answer to the last request is part of the trace.
    fn tell_answer(&mut self) {
        let Some(ticket) = self.asked.filter(|ticket| self.answered != Some(*ticket)) else { return };
        if let Some(answer) = self.world.answers.get(&ticket) {
            let (word, said) = answer_as_words(Some(answer));
            self.answered = Some(ticket);
            let text = format!("{word}: {}", said.replace('\n', "; "));
            self.teller.push(self.world.now_ns, "answer", &text);
        }
    }

    fn nothing_forbidden(&mut self) -> Result<(), String> {
        let new = &self.teller.lines[self.checked.min(self.teller.lines.len())..];
        for line in new.iter().filter(|line| line.who != "script") {
            if let Some(text) = self.never.iter().find(|text| line.text.contains(text.as_str())) {
                return Err(format!("never {text}: {line}"));
            }
        }
        self.checked = self.teller.lines.len();
        Ok(())
    }
}

fn broken(violation: &Violation) -> String {
    format!("the oracle saw {} broken: {}", violation.invariant, violation.text)
}

/// Runs a whole script.
pub(super) fn run(cluster: Cluster, script: &[ScriptLine]) -> Report {
    let mut stage = Stage::new(cluster);
    let (mut fault, mut held) = (None, 0);
    for line in script {
        match stage.run(line) {
            Ok(()) => held += usize::from(matches!(line.step, Step::Until(..) | Step::Hold(..) | Step::Expect(..))),
            Err(because) => {
                fault = Some(Fault { line: line.number, text: line.text.clone(), because });
                break;
            }
        }
    }
    stage.teller.follow(&stage.world.trace);
    Report { lines: stage.teller.lines, fault, held, simulated: Duration::from_nanos(stage.world.now_ns) }
}
