//! `apply`: a cluster spec from a file into force, after saying what it changes and what it can't keep.

use super::options::{Format, Reach, Shown, Why};
use super::{Failure, Outcome, client};
use crate::admin::{ApplyAsked, DoneDocument, Exit};
use crate::engine::CheckDocument;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Arguments of `apply`.
#[derive(Debug, clap::Args)]
pub(super) struct ApplyArgs {
    /// The cluster spec; `-` reads standard input
    file: PathBuf,
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

pub(super) fn apply(args: &ApplyArgs) -> Result<Outcome, Failure> {
    let source = read(&args.file)?;
    let asked = ApplyAsked { source, dry_run: args.dry_run, reason: args.why.reason.clone() };
    put_into_force(asked, (&args.reach, args.shown.format))
        .map_err(|failure| in_file(failure, &args.file.display().to_string()))
}

/// The agent knows the spec's text only; its problems are in this file.
fn in_file(mut failure: Failure, file: &str) -> Failure {
    if !failure.0.problems.is_empty() {
        failure.0.problems.iter_mut().for_each(|problem| problem.file = file.to_owned());
        let lines: Vec<String> = failure.0.problems.iter().map(ToString::to_string).collect();
        failure.0.error.text = lines.join("\n");
    }
    failure
}

/// Checks, shows, and unless only that was asked for, applies.
pub(super) fn put_into_force(asked: ApplyAsked, (reach, format): (&Reach, Format)) -> Result<Outcome, Failure> {
    let only_check = ApplyAsked { dry_run: true, ..asked.clone() };
    let checked: CheckDocument = client::parse(&client::post(reach, "/v1/apply", &only_check)?)?;
    if asked.dry_run {
        return Ok(Outcome::done(match format {
            Format::Json => format!("{}\n", to_value(&checked)),
            Format::Text => text(&checked),
        }));
    }
    let answer = client::post(reach, "/v1/apply", &asked)?;
    if format == Format::Json {
        let mut answer = answer;
        answer["checked"] = to_value(&checked);
        return Ok(Outcome::done(format!("{answer}\n")));
    }
    let mut outcome = done(&answer, format)?;
    outcome.text = format!("{}{}", text(&checked), outcome.text);
    Ok(outcome)
}

fn to_value(checked: &CheckDocument) -> Value {
    serde_json::to_value(checked).unwrap_or_else(|_| json!({}))
}

fn text(checked: &CheckDocument) -> String {
    let mut text = String::new();
    for change in &checked.changes {
        let sign = match (&change.is, &change.becomes) {
            (None, Some(_)) => '+',
            (Some(_), None) => '-',
            _ => '~',
        };
        let values: Vec<&str> = [&change.is, &change.becomes].into_iter().flatten().map(String::as_str).collect();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{sign} {} = {}", change.key, values.join(" -> "));
    }
    for warning in &checked.warnings {
        let _ = writeln!(text, "! {}: {}\n  next: {}", warning.key, warning.what, warning.remedy);
    }
    let _ = writeln!(text, "{}   seen by {} at index {}", checked.detail, checked.seen.seen_by, checked.seen.index);
    text
}

/// The text of a file, or of standard input for `-`.
pub(super) fn read(file: &Path) -> Result<String, Failure> {
    let text =
        if file.as_os_str() == "-" { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(file) };
    text.map_err(|error| {
        let text = format!("read {}: {error}", file.display());
        Failure::new(Exit::Error, "file-unreadable", text, "name a readable file")
    })
}

/// Shows a done document.
pub(super) fn done(answer: &Value, format: Format) -> Result<Outcome, Failure> {
    if format == Format::Json {
        return Ok(Outcome::done(format!("{answer}\n")));
    }
    let done: DoneDocument = client::parse(answer)?;
    let at = if done.index == 0 { String::new() } else { format!(" (log index {})", done.index) };
    Ok(Outcome::done(format!("{}{at}\n", done.detail)))
}
