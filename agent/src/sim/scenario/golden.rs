//! Compares a run with its golden: the same lines, each near its time.

use super::tell::Line;
use super::words::parse_span;
use std::time::Duration;

/// A line may be so much earlier or later than in the golden, and a measured span in its text so much shorter or
/// longer. An engine that speaks a round trip earlier is no other engine; a declaration that needs a lease more is.
pub const SLACK: Duration = Duration::from_millis(150);

/// The lines as a golden file has them.
pub fn render(lines: &[Line]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Reads a golden file.
///
/// # Errors
/// The first line that is none, with its number.
pub fn parse(text: &str) -> Result<Vec<Line>, String> {
    let line = |(number, line): (usize, &str)| {
        let wrong = || format!("line {number} is no golden line: {line:?}");
        let (at, rest) = line.trim_start().split_once(' ').ok_or_else(wrong)?;
        let (who, text) = rest.split_once(' ').ok_or_else(wrong)?;
        let (seconds, millis) = at.trim_start_matches('-').split_once('.').ok_or_else(wrong)?;
        let (seconds, millis): (i64, i64) =
            (seconds.parse().map_err(|_| wrong())?, millis.parse().map_err(|_| wrong())?);
        let at_ms = seconds.checked_mul(1_000).and_then(|ms| ms.checked_add(millis)).ok_or_else(wrong)?;
        let at_ms = if at.starts_with('-') { at_ms.saturating_neg() } else { at_ms };
        Ok(Line { at_ms, who: who.to_owned(), text: text.trim_start().to_owned() })
    };
    (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()).map(line).collect()
}

/// What differs, as lines with `-` (wanted) and `+` (found) in the order of time; empty if nothing does.
pub fn differences(wanted: &[Line], found: &[Line]) -> Vec<String> {
    let mut is_matched = vec![false; found.len()];
    let mut differing: Vec<(i64, String)> = Vec::new();
    for line in wanted {
        let candidates = (0..found.len()).filter(|n| !is_matched[*n] && is_same(line, &found[*n]));
        match candidates.min_by_key(|n| (found[*n].at_ms - line.at_ms).abs()) {
            Some(n) => is_matched[n] = true,
            None => differing.push((line.at_ms, format!("-{line}"))),
        }
    }
    let surplus = found.iter().zip(is_matched).filter(|(_, matched)| !matched);
    differing.extend(surplus.map(|(line, _)| (line.at_ms, format!("+{line}"))));
    differing.sort_by_key(|(at, _)| *at);
    differing.into_iter().map(|(_, text)| text).collect()
}

fn slack_ms() -> i64 {
    i64::try_from(SLACK.as_millis()).unwrap_or(i64::MAX)
}

fn is_same(wanted: &Line, found: &Line) -> bool {
    let near = (wanted.at_ms - found.at_ms).abs() <= slack_ms();
    let (mut left, mut right) = (wanted.text.split(' '), found.text.split(' '));
    near && wanted.who == found.who
        && loop {
            match (left.next(), right.next()) {
                (None, None) => break true,
                (Some(left), Some(right)) if is_same_word(left, right) => {}
                _ => break false,
            }
        }
}

fn is_same_word(wanted: &str, found: &str) -> bool {
    let span = |word: &str| {
        let value = word.rsplit('=').next().unwrap_or(word).trim_matches(|c: char| !c.is_alphanumeric());
        parse_span(value)
    };
    let key = |word: &str| word.rsplit_once('=').map(|(key, _)| key.to_owned());
    wanted == found
        || match (span(wanted), span(found)) {
            (Some(left), Some(right)) => key(wanted) == key(found) && left.abs_diff(right) <= SLACK,
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &str = "    0.350 os-1    suspects tk-1\n    4.100 ledger  plan 1 closed done measured_rto=4.1s\n";

    fn differ(found: &str) -> Vec<String> {
        differences(&parse(GOLDEN).expect("golden"), &parse(found).expect("found"))
    }

    #[test]
    fn a_golden_is_read_as_it_was_written() {
        assert_eq!(render(&parse(GOLDEN).expect("golden")), GOLDEN);
        assert!(parse("0.350").is_err() && parse("soon os-1 what").is_err());
    }

    #[test]
    fn a_little_earlier_is_the_same_and_more_is_not() {
        assert!(differ(&GOLDEN.replace("0.350", "0.300")).is_empty());
        assert!(differ(&GOLDEN.replace("4.1s", "4.0s")).is_empty());
        assert_eq!(differ(&GOLDEN.replace("0.350", "0.850")).len(), 2);
        assert_eq!(differ(&GOLDEN.replace("4.1s", "5.1s")).len(), 2);
    }

    #[test]
    fn another_word_another_teller_and_a_line_too_many_are_told() {
        assert_eq!(differ(&GOLDEN.replace("suspects", "hears")).len(), 2);
        assert_eq!(differ(&GOLDEN.replace("os-1", "ng-1")).len(), 2);
        let twice = format!("{GOLDEN}    4.200 ledger  plan 1 closed done measured_rto=4.1s\n");
        assert_eq!(differ(&twice).len(), 1);
        assert_eq!(differ("").len(), 2);
    }
}
