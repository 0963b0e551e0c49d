//! `agent`: the agent's process; keeper and workloads go on without it. `health` is what it measures of its machine.

use super::super::run::Stage;
use super::super::words::Words;
use super::{Act, Verb};
use crate::detector::Reading;
use crate::engine::Input;
use crate::sim::Point;
use quorum::id::HostName;

pub(super) const VERBS: [Verb; 3] = [
    Verb { name: "agent", usage: "agent HOSTS kill|crash|start|stop SPAN", read: agent },
    Verb { name: "stop-at", usage: "stop-at HOSTS POINT for SPAN", read: stop_at },
    Verb { name: "health", usage: "health HOSTS fsync SPAN cpu PERCENT steal PERCENT", read: health },
];

fn each(hosts: Vec<HostName>, act: impl Fn(&mut Stage, &HostName) + 'static) -> Result<Act, String> {
    Ok(Box::new(move |stage| {
        hosts.iter().for_each(|host| act(stage, host));
        Ok(())
    }))
}

fn agent(words: &mut Words<'_>) -> Result<Act, String> {
    let hosts = words.hosts()?;
    match words.next()? {
        "kill" => each(hosts, |stage, host| stage.world.kill_agent(host)),
        "crash" => each(hosts, |stage, host| stage.world.crash_agent(host)),
        "start" => each(hosts, |stage, host| stage.world.start_agent(host)),
        "stop" => {
            let span = words.span()?;
            each(hosts, move |stage, host| stage.world.stop_agent(host, span))
        }
        other => Err(format!("{other:?} is no act on an agent")),
    }
}

/// A process is stopped the next time it comes to this instruction.
fn stop_at(words: &mut Words<'_>) -> Result<Act, String> {
    let hosts = words.hosts()?;
    let word = words.next()?;
    let name = |point: &Point| {
        let mut name = String::new();
        for c in format!("{point:?}").chars() {
            if c.is_ascii_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.push(c.to_ascii_lowercase());
        }
        name
    };
    let point = Point::ALL.into_iter().find(|point| name(point) == word).ok_or_else(|| {
        let names: Vec<String> = Point::ALL.iter().map(name).collect();
        format!("{word:?} is no point; points are {}", names.join(", "))
    })?;
    words.must("for")?;
    let span = words.span()?;
    each(hosts, move |stage, host| stage.world.stop_at(host, point, span))
}

fn health(words: &mut Words<'_>) -> Result<Act, String> {
    let hosts = words.hosts()?;
    let mut reading = Reading::default();
    while !words.is_over() {
        match words.next()? {
            "fsync" => reading.fsync_age = words.span()?,
            "cpu" => reading.cpu_pressure_percent = percent(words)?,
            "steal" => reading.steal_percent = percent(words)?,
            other => return Err(format!("{other:?} isn't measured")),
        }
    }
    Ok(Box::new(move |stage| {
        for host in &hosts {
            stage.world.tell(host, Input::Health(reading));
        }
        Ok(())
    }))
}

fn percent(words: &mut Words<'_>) -> Result<u8, String> {
    let percent = u8::try_from(words.number()?).ok().filter(|percent| *percent <= 100);
    percent.ok_or_else(|| "a share is 0 to 100 percent".to_owned())
}
