//! `simulate`: plays a scenario with the engine that runs in the agent, and says whether what it expects held.

use super::options::{Format, Shown};
use super::{Failure, Outcome};
use crate::admin::{ErrorDocument, Exit};
use crate::config::Problems;
use crate::engine::API_VERSION;
use crate::sim::scenario::{Fault, Line, Report, Scenario, golden};
use serde::Serialize;
use std::path::PathBuf;

/// Arguments of `simulate`.
#[derive(Debug, clap::Args)]
pub(super) struct SimulateArgs {
    /// A scenario: a folder with `cluster.toml` and `script`, or one file with both and a line `----` between
    path: PathBuf,
    #[command(flatten)]
    pub shown: Shown,
}

/// `simulate -o json`.
#[derive(Debug, Serialize)]
struct SimulationDocument<'a> {
    api_version: u32,
    scenario: &'a str,
    /// Whether everything expected held, and no invariant broke.
    held: bool,
    expectations: usize,
    simulated_ms: u64,
    fault: Option<&'a Fault>,
    lines: Vec<LineDocument<'a>>,
}

#[derive(Debug, Serialize)]
struct LineDocument<'a> {
    at_ms: i64,
    who: &'a str,
    text: &'a str,
}

impl<'a> From<&'a Line> for LineDocument<'a> {
    fn from(line: &'a Line) -> Self {
        Self { at_ms: line.at_ms, who: &line.who, text: &line.text }
    }
}

impl SimulateArgs {
    pub(super) fn run(&self) -> Result<Outcome, Failure> {
        let wrong = |Problems(problems): Problems| {
            let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
            let next = "antipode simulate --help; the language is described in tests/scenarios/README.md";
            Failure(ErrorDocument::new(Exit::Usage, "scenario-wrong", text.join("\n"), next))
        };
        let scenario = Scenario::load(&self.path).map_err(wrong)?;
        let report = scenario.play().map_err(wrong)?;
        let text = match self.shown.format {
            Format::Json => json(&scenario.name, &report),
            Format::Text => text(&scenario.name, &report),
        };
        let exit = if report.fault.is_none() { Exit::Done } else { Exit::Error };
        Ok(Outcome { text, status: exit.code() })
    }
}

fn json(name: &str, report: &Report) -> String {
    let document = SimulationDocument {
        api_version: API_VERSION,
        scenario: name,
        held: report.fault.is_none(),
        expectations: report.held,
        simulated_ms: u64::try_from(report.simulated.as_millis()).unwrap_or(u64::MAX),
        fault: report.fault.as_ref(),
        lines: report.lines.iter().map(LineDocument::from).collect(),
    };
    serde_json::to_string(&document).expect("a report is plain data") + "\n"
}

fn text(name: &str, report: &Report) -> String {
    let trace = golden::render(&report.lines);
    let (held, simulated) = (report.held, report.simulated.as_secs_f64());
    match &report.fault {
        None => format!("{trace}\n{name}: {held} expectations held in {simulated:.1} simulated seconds\n"),
        Some(Fault { line, text, because }) => {
            format!(
                "{trace}\n{name}: failed at line {line} after {simulated:.1} simulated seconds\n  {text}\n  {because}\n"
            )
        }
    }
}
