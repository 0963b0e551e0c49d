//! `apply`: a cluster spec from a file into force.

use super::options::{Format, Reach, Shown, Why};
use super::{Failure, Outcome, client};
use crate::admin::{ApplyAsked, DoneDocument, Exit};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Arguments of `apply`.
#[derive(Debug, clap::Args)]
pub(super) struct ApplyArgs {
    /// The cluster spec; `-` reads standard input
    file: PathBuf,
    /// Only check it
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    pub shown: Shown,
    #[command(flatten)]
    reach: Reach,
}

pub(super) fn apply(args: &ApplyArgs) -> Result<Outcome, Failure> {
    let source = read(&args.file)?;
    let asked = ApplyAsked { source, dry_run: args.dry_run, reason: args.why.reason.clone() };
    let answer = client::post(&args.reach, "/v1/apply", &asked)?;
    done(&answer, args.shown.format)
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
    let done: DoneDocument = serde_json::from_value(answer.clone())
        .map_err(|error| Failure::new(Exit::Error, "strange-answer", error.to_string(), "antipode version"))?;
    let at = if done.index == 0 { String::new() } else { format!(" (log index {})", done.index) };
    Ok(Outcome::done(format!("{}{at}\n", done.detail)))
}
