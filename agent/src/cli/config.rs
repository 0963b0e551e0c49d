//! `config`: files checked without an agent, and the time spans in force at one.

use super::options::{Format, Reach, Shown};
use super::{Failure, Outcome, apply, client};
use crate::admin::{ErrorDocument, Exit, TimingDocument};
use crate::config::{AgentConfig, ClusterSpec, Problems, timing_of};
use std::path::PathBuf;

/// What can be asked of the configuration.
#[derive(Debug, clap::Subcommand)]
pub(super) enum ConfigVerb {
    /// Check a file: a host's agent.toml or a cluster spec
    Check(CheckArgs),
    /// Show the time spans and every relation between them
    Timing(TimingArgs),
}

/// Arguments of `config check`.
#[derive(Debug, clap::Args)]
pub(super) struct CheckArgs {
    /// The file; `-` reads standard input
    file: PathBuf,
    #[command(flatten)]
    shown: Shown,
}

/// Arguments of `config timing`.
#[derive(Debug, clap::Args)]
pub(super) struct TimingArgs {
    /// Of this cluster spec, instead of those in force at the agent
    #[arg(long, value_name = "FILE")]
    spec: Option<PathBuf>,
    #[command(flatten)]
    shown: Shown,
    #[command(flatten)]
    reach: Reach,
}

impl ConfigVerb {
    pub(super) fn format(&self) -> Format {
        match self {
            Self::Check(args) => args.shown.format,
            Self::Timing(args) => args.shown.format,
        }
    }
}

pub(super) fn run(verb: &ConfigVerb) -> Result<Outcome, Failure> {
    match verb {
        ConfigVerb::Check(args) => check(args),
        ConfigVerb::Timing(args) => timing(args),
    }
}

/// A file with a site, host or group table, or a cluster's settings, is a cluster spec.
fn is_spec(text: &str) -> bool {
    let tables: [&str; 5] = ["[cluster]", "[[site]]", "[[host]]", "[[group]]", "[[device]]"];
    text.lines().any(|line| tables.iter().any(|table| line.trim_start().starts_with(table)))
}

fn check(args: &CheckArgs) -> Result<Outcome, Failure> {
    let text = apply::read(&args.file)?;
    let name = args.file.display().to_string();
    let (what, found) = if is_spec(&text) {
        ("cluster spec", spec(&name, &text).map(|_| ()))
    } else {
        ("agent configuration", AgentConfig::parse(&name, &text).map(|_| ()).map_err(|problems| wrong(&problems)))
    };
    found?;
    Ok(Outcome::done(match args.shown.format {
        Format::Text => format!("{name}: a good {what}\n"),
        Format::Json => {
            let document = serde_json::json!({"api_version": crate::engine::API_VERSION, "file": name, "kind": what});
            format!("{document}\n")
        }
    }))
}

fn spec(name: &str, text: &str) -> Result<ClusterSpec, Failure> {
    let spec = ClusterSpec::parse(name, text).map_err(|problems| wrong(&problems))?;
    let violations: Vec<String> = timing_of(&spec).check().iter().map(ToString::to_string).collect();
    if violations.is_empty() {
        return Ok(spec);
    }
    Err(Failure::new(Exit::Error, "timing-too-weak", violations.join("\n"), "correct [cluster]"))
}

fn wrong(problems: &Problems) -> Failure {
    Failure(ErrorDocument::new(Exit::Error, "config-invalid", problems.to_string(), "correct the file").meaning(""))
}

fn timing(args: &TimingArgs) -> Result<Outcome, Failure> {
    let document = match &args.spec {
        Some(file) => {
            let spec = spec(&file.display().to_string(), &apply::read(file)?)?;
            serde_json::to_value(TimingDocument::of(&timing_of(&spec))).expect("a document is plain data")
        }
        None => client::get(&args.reach, "/v1/timing")?,
    };
    Ok(Outcome::done(match args.shown.format {
        Format::Json => format!("{document}\n"),
        Format::Text => document["text"].as_str().unwrap_or_default().to_owned(),
    }))
}
