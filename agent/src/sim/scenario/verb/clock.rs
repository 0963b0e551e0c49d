//! `clock`: how fast a host's clocks run, and what its wall clock says.

use super::super::words::{Words, parse_span};
use super::{Act, Verb};

pub(super) const VERBS: [Verb; 1] =
    [Verb { name: "clock", usage: "clock HOSTS rate PPM · wall +|-SPAN", read: clock }];

fn clock(words: &mut Words<'_>) -> Result<Act, String> {
    let hosts = words.hosts()?;
    match words.next()? {
        "rate" => {
            let ppm = words.number()?;
            Ok(Box::new(move |stage| {
                hosts.iter().for_each(|host| stage.world.set_clock_rate(host, ppm));
                Ok(())
            }))
        }
        "wall" => {
            let word = words.next()?;
            let (sign, span) = word.split_at_checked(1).ok_or("a step has a sign and a span")?;
            let span = parse_span(span).ok_or_else(|| format!("{word:?} is no step; write +1h or -1h"))?;
            let step = i64::try_from(span.as_millis()).unwrap_or(i64::MAX) * if sign == "-" { -1 } else { 1 };
            Ok(Box::new(move |stage| {
                for host in &hosts {
                    let host = stage.world.hosts.get_mut(host).ok_or("the host is gone")?;
                    host.spec.wall_off_ms += step;
                }
                Ok(())
            }))
        }
        other => Err(format!("{other:?} is nothing that happens to a clock")),
    }
}
