//! `events` and `history`: what happened at the agent, and what the cluster decided.

use super::options::{Format, Reach};
use super::{Failure, Outcome, client};
use crate::admin::{EventsDocument, Exit};
use serde_json::{Map, Value};
use std::io::Write;
use std::time::Duration;

/// How often a following command looks.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// Arguments of `events` and `history`.
#[derive(Debug, clap::Args)]
pub(super) struct EventsArgs {
    /// Go on showing what happens
    #[arg(long)]
    follow: bool,
    /// How to show it: text, or json for one object a line
    #[arg(
        short = 'o',
        long = "output",
        value_name = "FORMAT",
        value_enum,
        default_value = "text",
        hide_possible_values = true
    )]
    format: Format,
    #[command(flatten)]
    reach: Reach,
}

/// Shows the agent's journal; with `only`, no other event than that.
pub(super) fn run(args: &EventsArgs, only: Option<&str>) -> Result<Outcome, Failure> {
    let mut next = 0;
    loop {
        let document = client::get(&args.reach, &format!("/v1/events?after={next}"))?;
        let piece: EventsDocument = serde_json::from_value(document)
            .map_err(|error| Failure::new(Exit::Error, "strange-answer", error.to_string(), "antipode version"))?;
        next = piece.next;
        let mut out = std::io::stdout().lock();
        for event in piece.events.iter().filter(|event| only.is_none_or(|only| event["event"] == only)) {
            let line = if args.format == Format::Json { event.to_string() } else { text(event) };
            // A reader that went away wants no more.
            if writeln!(out, "{line}").is_err() {
                return Ok(Outcome::done(""));
            }
        }
        drop(out);
        if piece.is_end && !args.follow {
            return Ok(Outcome::done(""));
        }
        if piece.is_end {
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// Time, host, event, and the rest as `key=value`.
fn text(event: &Value) -> String {
    let empty = Map::new();
    let fields = event.as_object().unwrap_or(&empty);
    let wall = fields.get("wall_ms").and_then(Value::as_i64).and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let wall = wall.map_or_else(|| "-".to_owned(), |at| format!("{at:.3}"));
    let word = |key: &str| fields.get(key).and_then(Value::as_str).unwrap_or("-").to_owned();
    let shown = ["t_boot_ns", "wall_ms", "host", "event"];
    let rest =
        fields.iter().filter(|(key, _)| !shown.contains(&key.as_str())).map(|(key, value)| format!("{key}={value}"));
    let rest: Vec<String> = rest.collect();
    format!("{wall} {:8} {:14} {}", word("host"), word("event"), rest.join(" ")).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_with_its_time_in_utc() {
        let event = serde_json::json!({
            "t_boot_ns": 5, "wall_ms": 1_500, "host": "tk-1", "event": "suspect", "peer": "os-1", "because": "silent",
        });
        let expected = "1970-01-01T00:00:01.500Z tk-1     suspect        because=\"silent\" peer=\"os-1\"";
        assert_eq!(text(&event), expected);
    }
}
