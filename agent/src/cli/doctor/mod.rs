//! `doctor`: is this machine fit to carry an agent? Looks only; changes nothing but a scratch file in the data folder.
//!
//! Each check is a function from what it looks at to findings; a check that can't look says so and is no success.

mod identity;
mod machine;
mod versions;

use super::options::{Format, Reach, Shown};
use super::table::Table;
use super::{Failure, Outcome, apply, client};
use crate::admin::{ErrorDocument, Exit};
use crate::config::AgentConfig;
use crate::engine::API_VERSION;
use serde::Serialize;
use serde_json::Value;
use std::path::PathBuf;

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
pub(super) struct DoctorArgs {
    /// This host's configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/antipode/agent.toml")]
    pub(super) config: PathBuf,
    #[command(flatten)]
    shown: Shown,
    #[command(flatten)]
    pub(super) reach: Reach,
}

impl DoctorArgs {
    pub(super) const fn shown_format(&self) -> Format {
        self.shown.format
    }
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum State {
    /// As it should be.
    Good,
    /// It works, with less than it could.
    Weak,
    /// It could not be looked at.
    Unknown,
    /// It must be put right.
    Bad,
}

impl State {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Weak => "weak",
            Self::Unknown => "unknown",
            Self::Bad => "bad",
        }
    }
}

/// What a check found.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Finding {
    /// What was looked at.
    check: &'static str,
    /// How it is.
    state: State,
    /// What was seen, and what it means.
    text: String,
    /// What to do; empty if nothing.
    next: String,
}

impl Finding {
    fn good(check: &'static str, text: impl Into<String>) -> Self {
        Self { check, state: State::Good, text: text.into(), next: String::new() }
    }

    fn other(check: &'static str, state: State, (text, next): (impl Into<String>, impl Into<String>)) -> Self {
        Self { check, state, text: text.into(), next: next.into() }
    }
}

/// `doctor -o json`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct DoctorDocument {
    api_version: u32,
    /// The host of the configuration; none if it can't be read.
    host: Option<String>,
    /// The worst of all findings.
    state: State,
    findings: Vec<Finding>,
}

pub(super) fn run(args: &DoctorArgs) -> Result<Outcome, Failure> {
    let document = examine(args);
    let exit = if document.state == State::Bad { Exit::Error } else { Exit::Done };
    let text = match args.shown.format {
        Format::Json => format!("{}\n", serde_json::to_value(&document).expect("a document is plain data")),
        Format::Text => {
            let mut table = Table::new(&["CHECK", "IS", "SEEN", "NEXT"]);
            for finding in &document.findings {
                let (text, next) = (finding.text.clone(), finding.next.clone());
                table.row([finding.check.to_owned(), finding.state.as_str().to_owned(), text, next]);
            }
            table.to_string()
        }
    };
    Ok(Outcome { text, status: exit.code() })
}

/// Everything that can be looked at from here.
pub(super) fn examine(args: &DoctorArgs) -> DoctorDocument {
    let mut findings = Vec::new();
    let config = configuration(args, &mut findings);
    let status = agent(args, &mut findings);
    let timing = client::get(&args.reach, "/v1/timing").ok();
    if let Some(config) = &config {
        findings.extend(identity::certificates(config));
        findings.extend(machine::disk(config, timing.as_ref()));
        findings.extend(machine::ports(config, status.is_some()));
    }
    findings.extend(machine::clocks());
    findings.extend(machine::watchdog(config.as_ref()));
    findings.extend(machine::kernel());
    if args.reach.agent.is_none() {
        findings.extend(machine::memory(&args.reach.socket));
    }
    let host = config.as_ref().map(|config| config.host.as_str());
    findings.extend(versions::releases(host, status.as_ref()));
    findings.extend(config.as_ref().and_then(versions::keeper));
    findings.extend(status.as_ref().map(attention).unwrap_or_default());
    let state = findings.iter().map(|finding| finding.state).max().unwrap_or(State::Unknown);
    let host = config.map(|config| config.host.to_string());
    DoctorDocument { api_version: API_VERSION, host, state, findings }
}

fn configuration(args: &DoctorArgs, findings: &mut Vec<Finding>) -> Option<AgentConfig> {
    let name = args.config.display().to_string();
    let wrong = |text: String| {
        Finding::other("configuration", State::Bad, (text, "correct the file, or name it with --config"))
    };
    let text = match apply::read(&args.config) {
        Ok(text) => text,
        Err(failure) => {
            findings.push(wrong(failure.0.error.text));
            return None;
        }
    };
    match AgentConfig::parse(&name, &text) {
        Ok(config) => {
            findings.push(Finding::good("configuration", format!("{name} is good")));
            Some(config)
        }
        Err(problems) => {
            findings.extend(problems.0.iter().map(|problem| wrong(problem.to_string())));
            None
        }
    }
}

fn agent(args: &DoctorArgs, findings: &mut Vec<Finding>) -> Option<Value> {
    match client::get(&args.reach, "/v1/status") {
        Ok(status) => {
            let (host, index) = (status["seen_by"].as_str().unwrap_or("-"), &status["index"]);
            findings.push(Finding::good("agent", format!("{host} answers, at log index {index}")));
            Some(status)
        }
        Err(Failure(ErrorDocument { error, .. })) => {
            findings.push(Finding::other("agent", State::Weak, (error.text, error.next)));
            None
        }
    }
}

/// What the agent wants a person to look at: about fencing devices as well, whose last proof is too old or failed.
fn attention(status: &Value) -> Vec<Finding> {
    let lines = status["attention"].as_array().into_iter().flatten();
    let word = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
    // What the versions come to for this host is said by their own check.
    lines
        .filter(|line| word(line, "code") != versions::ATTENTION)
        .map(|line| {
            let check = if word(line, "code").starts_with("fence") { "fencing" } else { "cluster" };
            let text = format!("{}: {}", word(line, "code"), word(line, "text"));
            Finding::other(check, State::Weak, (text, word(line, "next")))
        })
        .collect()
}
