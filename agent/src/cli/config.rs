//! `config`: files checked without an agent; the time spans, the spec in force and those before it at one.

use super::look::LookArgs;
use super::options::{Format, Reach, Shown, Why};
use super::table::Table;
use super::{Failure, Outcome, apply, client};
use crate::admin::{ApplyAsked, ErrorDocument, Exit, RevisionDocument, RevisionsDocument, TimingDocument};
use crate::config::{AgentConfig, Problem, check_spec, timing_of};
use crate::driver::work::kind_problems;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::PathBuf;

/// What can be asked of the configuration.
#[derive(Debug, clap::Subcommand)]
pub(super) enum ConfigVerb {
    /// Check a file: a host's agent.toml or a cluster spec
    Check(CheckArgs),
    /// Show the cluster spec in force, or an earlier revision
    Show(ShowArgs),
    /// List the revisions of the cluster spec that the agent has seen
    History(LookArgs),
    /// Put an earlier revision into force again, as a new one
    Rollback(RollbackArgs),
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

/// Arguments of `config show`.
#[derive(Debug, clap::Args)]
pub(super) struct ShowArgs {
    /// An earlier one, as `config history` lists them
    #[arg(long, value_name = "REVISION")]
    revision: Option<u64>,
    #[command(flatten)]
    look: LookArgs,
}

/// Arguments of `config rollback`.
#[derive(Debug, clap::Args)]
pub(super) struct RollbackArgs {
    /// Which, as `config history` lists them
    revision: u64,
    /// Only say what is wrong with it and what it would change
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    shown: Shown,
    #[command(flatten)]
    reach: Reach,
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

pub(super) fn run(verb: &ConfigVerb) -> Result<Outcome, Failure> {
    match verb {
        ConfigVerb::Check(args) => check(args),
        ConfigVerb::Show(args) => show(args),
        ConfigVerb::History(look) => history(look),
        ConfigVerb::Rollback(args) => rollback(args),
        ConfigVerb::Timing(args) => timing(args),
    }
}

/// A file with a site, host or group table, or a cluster's settings, is a cluster spec.
fn is_spec(text: &str) -> bool {
    let tables: [&str; 5] = ["[cluster]", "[[site]]", "[[host]]", "[[group]]", "[[device]]"];
    text.lines().any(|line| tables.iter().any(|table| line.trim_start().starts_with(table)))
}

/// What is wrong with a file, what its author should know, and which of the two files it is.
fn judge(name: &str, text: &str) -> (&'static str, Vec<Problem>, Vec<Problem>) {
    if !is_spec(text) {
        let problems = AgentConfig::parse(name, text).err().map(|found| found.0).unwrap_or_default();
        return ("agent configuration", problems, Vec::new());
    }
    let checked = check_spec(name, text, None);
    let mut problems = checked.problems;
    problems.extend(kind_problems(name, text));
    problems.sort_by_key(|problem| problem.line);
    ("cluster spec", problems, checked.warnings)
}

fn check(args: &CheckArgs) -> Result<Outcome, Failure> {
    let name = args.file.display().to_string();
    let (kind, problems, warnings) = judge(&name, &apply::read(&args.file)?);
    if !problems.is_empty() {
        return Err(wrong(problems));
    }
    Ok(Outcome::done(match args.shown.format {
        Format::Text => {
            let mut text = String::new();
            for warning in &warnings {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "warning: {warning}");
            }
            format!("{text}{name}: a good {kind}\n")
        }
        Format::Json => {
            let api_version = crate::engine::API_VERSION;
            let document = json!({"api_version": api_version, "file": name, "kind": kind, "warnings": warnings});
            format!("{document}\n")
        }
    }))
}

fn wrong(problems: Vec<Problem>) -> Failure {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let mut document = ErrorDocument::new(Exit::Error, "config-invalid", lines.join("\n"), "correct the file");
    document.problems = problems.into();
    Failure(document)
}

fn show(args: &ShowArgs) -> Result<Outcome, Failure> {
    let path = match args.revision {
        Some(revision) => format!("/v1/revisions/{revision}"),
        None => "/v1/spec".to_owned(),
    };
    let document = client::get(&args.look.reach, &path)?;
    Ok(Outcome::done(match args.look.shown.format {
        Format::Json => format!("{document}\n"),
        Format::Text => {
            let word = |key: &str| document[key].as_str().unwrap_or("-").to_owned();
            let (revision, index) = (&document["revision"], &document["at_index"]);
            let head =
                format!("# revision {revision}, log index {index}, by {}; seen by {}", word("by"), word("seen_by"));
            format!("{head}\n{}", document["source"].as_str().unwrap_or_default())
        }
    }))
}

fn history(look: &LookArgs) -> Result<Outcome, Failure> {
    let document = client::get(&look.reach, "/v1/revisions")?;
    if look.shown.format == Format::Json {
        return Ok(Outcome::done(format!("{document}\n")));
    }
    let history: RevisionsDocument = client::parse(&document)?;
    let mut table = Table::new(&["REVISION", "INDEX", "SEEN", "BY"]);
    for line in history.revisions {
        let at = i64::try_from(line.seen_wall_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        let at = at.map_or_else(|| "-".to_owned(), |at| format!("{at:.0}"));
        table.row([line.revision.to_string(), line.at_index.to_string(), at, line.by.unwrap_or_default()]);
    }
    Ok(Outcome::done(format!("{table}as seen by {}\n", history.seen_by)))
}

fn rollback(args: &RollbackArgs) -> Result<Outcome, Failure> {
    let document: Value = client::get(&args.reach, &format!("/v1/revisions/{}", args.revision))?;
    let earlier: RevisionDocument = client::parse(&document)?;
    let reason = match args.why.reason.as_str() {
        "" => format!("back to revision {}", args.revision),
        given => format!("back to revision {}: {given}", args.revision),
    };
    let asked = ApplyAsked { source: earlier.source, dry_run: args.dry_run, reason };
    apply::put_into_force(asked, (&args.reach, args.shown.format))
}

fn timing(args: &TimingArgs) -> Result<Outcome, Failure> {
    let document = match &args.spec {
        Some(file) => {
            let name = file.display().to_string();
            let checked = check_spec(&name, &apply::read(file)?, None);
            let spec = checked.spec.filter(|_| checked.problems.is_empty()).ok_or_else(|| wrong(checked.problems))?;
            serde_json::to_value(TimingDocument::of(&timing_of(&spec))).expect("a document is plain data")
        }
        None => client::get(&args.reach, "/v1/timing")?,
    };
    Ok(Outcome::done(match args.shown.format {
        Format::Json => format!("{document}\n"),
        Format::Text => document["text"].as_str().unwrap_or_default().to_owned(),
    }))
}
