//! The script: what happens, and what must be so. One verb a line.
//!
//! ```text
//! [at SPAN] VERB …              act, at that time after the end of `boot` or now
//! wait SPAN                     let time pass
//! until CONDITION within SPAN   let time pass until it is so; fails if it isn't in time
//! hold CONDITION for SPAN       let time pass; fails at the first event after which it isn't so
//! expect CONDITION              fails if it isn't so now
//! never TEXT                    fails as soon as a line of the trace has the text, from here on
//! mark                          `expect event` and `between` count from here
//! ```
//! The verbs that act are in `verb/`, the conditions in `condition.rs`.

use super::condition::Condition;
use super::verb::{self, Act};
use super::words::{Cast, Words};
use crate::config::{Problem, Problems};
use std::time::Duration;

/// One line.
pub(super) struct ScriptLine {
    pub(super) number: usize,
    pub(super) text: String,
    pub(super) at: Option<Duration>,
    pub(super) step: Step,
}

/// What a line does.
pub(super) enum Step {
    Act(Act),
    Wait(Duration),
    Until(Condition, Duration),
    Hold(Condition, Duration),
    Expect(Condition),
    Never(String),
    Mark,
}

const WAIT: &str = "wait SPAN";
const UNTIL: &str = "until CONDITION within SPAN";
const HOLD: &str = "hold CONDITION for SPAN";
const EXPECT: &str = "expect CONDITION";
const NEVER: &str = "never TEXT";

/// Reads the whole script.
///
/// # Errors
/// Every problem, each with its line.
pub(super) fn parse(file: &str, text: &str, cast: &Cast) -> Result<Vec<ScriptLine>, Problems> {
    let (mut lines, mut problems) = (Vec::new(), Vec::new());
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split(" #").next().unwrap_or_default().trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match parse_line(line, cast) {
            Ok((at, step)) => lines.push(ScriptLine { number, text: line.to_owned(), at, step }),
            Err(Wrong { verb, what, remedy }) => {
                problems.push(Problem { file: file.to_owned(), line: number, key: verb, what, remedy });
            }
        }
    }
    let expects = |line: &ScriptLine| matches!(line.step, Step::Until(..) | Step::Hold(..) | Step::Expect(..));
    if problems.is_empty() && !lines.iter().any(expects) {
        let (what, remedy) = ("nothing is expected".to_owned(), "say with `expect` what must be so".to_owned());
        problems.push(Problem { file: file.to_owned(), line: 0, key: "expect".to_owned(), what, remedy });
    }
    if problems.is_empty() { Ok(lines) } else { Err(Problems(problems)) }
}

struct Wrong {
    verb: String,
    what: String,
    remedy: String,
}

fn parse_line(line: &str, cast: &Cast) -> Result<(Option<Duration>, Step), Wrong> {
    let mut words = Words::new(line, cast);
    let wrong = |verb: &str, usage: &str, what: String| Wrong {
        verb: verb.to_owned(),
        what,
        remedy: format!("write `{usage}`"),
    };
    let at =
        if words.took("at") { Some(words.span().map_err(|what| wrong("at", "at SPAN VERB …", what))?) } else { None };
    let verb = words.next().map_err(|what| wrong("at", "at SPAN VERB …", what))?;
    let step = match verb {
        "wait" => words.span().map(Step::Wait).map_err(|what| wrong(verb, WAIT, what)),
        "until" => timed(&mut words, "within").map(|(c, s)| Step::Until(c, s)).map_err(|w| wrong(verb, UNTIL, w)),
        "hold" => timed(&mut words, "for").map(|(c, s)| Step::Hold(c, s)).map_err(|w| wrong(verb, HOLD, w)),
        "expect" => Condition::read(&mut words).map(Step::Expect).map_err(|what| wrong(verb, EXPECT, what)),
        "never" => words.rest().map(|text| Step::Never(text.to_owned())).map_err(|what| wrong(verb, NEVER, what)),
        "mark" => Ok(Step::Mark),
        _ => match verb::find(verb) {
            Ok(known) => (known.read)(&mut words).map(Step::Act).map_err(|what| wrong(verb, known.usage, what)),
            Err(remedy) => Err(Wrong { verb: verb.to_owned(), what: "is no verb".to_owned(), remedy }),
        },
    }?;
    words.end().map_err(|what| wrong(verb, "one verb a line", what))?;
    Ok((at, step))
}

/// A condition, then a word, then a span. The condition ends at the last such word of the line.
fn timed(words: &mut Words<'_>, word: &str) -> Result<(Condition, Duration), String> {
    let rest = words.rest()?;
    let (condition, span) =
        rest.rsplit_once(&format!(" {word} ")).ok_or_else(|| format!("`{word} SPAN` is missing"))?;
    let span = Words::new(span, words.cast).span()?;
    let mut inner = Words::new(condition, words.cast);
    let condition = Condition::read(&mut inner)?;
    inner.end()?;
    Ok((condition, span))
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorum::id::{GroupName, HostName, SiteName};

    fn cast() -> Cast {
        let host =
            |name: &str, site: &str| (HostName::new(name).expect("a name"), SiteName::new(site).expect("a name"));
        Cast {
            hosts: [host("tk-1", "tokyo"), host("os-1", "osaka")].into(),
            groups: [GroupName::new("erp").expect("a name")].into(),
        }
    }

    fn problems(text: &str) -> String {
        parse("script", text, &cast()).map(|_| ()).expect_err("something is wrong").to_string()
    }

    #[test]
    fn a_line_that_is_wrong_is_named_with_its_verb_and_a_remedy() {
        let text = "boot\npower tk-9 off\nuntil lost tk-1\nexplode\nat soon mark\nexpect runs erp tk-1 now\n";
        let said = problems(text);
        let wanted = [
            "script:2: power: no host \"tk-9\"; hosts are os-1, tk-1; write `power HOSTS on|off`",
            "script:3: until: `within SPAN` is missing; write `until CONDITION within SPAN`",
            "script:4: explode: is no verb; verbs are ",
            "script:5: at: \"soon\" is no span; write 250ms, 1.5s, 3m or 1h; write `at SPAN VERB …`",
            "script:6: expect: \"now\" is too much; write `one verb a line`",
        ];
        assert_eq!(said.lines().count(), wanted.len(), "{said}");
        for (said, wanted) in said.lines().zip(wanted) {
            assert!(said.starts_with(wanted), "{said}\nwanted: {wanted}");
        }
    }

    #[test]
    fn a_script_that_expects_nothing_is_refused() {
        assert!(problems("boot\npower tk-1 off\n").contains("nothing is expected"));
        assert!(parse("script", "boot\nexpect runs erp tk-1\n", &cast()).is_ok());
    }
}
