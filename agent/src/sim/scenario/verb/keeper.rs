//! `keeper`, `watchdog`, `suspend`: the process with the kill switch, its device, and a host that executes nothing.

use super::super::run::Stage;
use super::super::words::Words;
use super::{Act, Verb};
use quorum::id::HostName;

pub(super) const VERBS: [Verb; 3] = [
    Verb { name: "keeper", usage: "keeper HOSTS kill|start|stop SPAN", read: keeper },
    Verb { name: "watchdog", usage: "watchdog HOSTS break", read: watchdog },
    Verb { name: "suspend", usage: "suspend HOSTS for SPAN", read: suspend },
];

fn each(hosts: Vec<HostName>, act: impl Fn(&mut Stage, &HostName) + 'static) -> Result<Act, String> {
    Ok(Box::new(move |stage| {
        hosts.iter().for_each(|host| act(stage, host));
        Ok(())
    }))
}

fn keeper(words: &mut Words<'_>) -> Result<Act, String> {
    let hosts = words.hosts()?;
    match words.next()? {
        "kill" => each(hosts, |stage, host| stage.world.kill_keeper(host)),
        "start" => each(hosts, |stage, host| stage.world.start_keeper(host)),
        "stop" => {
            let span = words.span()?;
            each(hosts, move |stage, host| stage.world.stop_keeper(host, span))
        }
        other => Err(format!("{other:?} is no act on a keeper")),
    }
}

fn watchdog(words: &mut Words<'_>) -> Result<Act, String> {
    let hosts = words.hosts()?;
    words.must("break")?;
    each(hosts, |stage, host| stage.world.break_watchdog(host))
}

/// Everything on the host stops, as in a kernel that hangs with interrupts off: only the watchdog counts on.
fn suspend(words: &mut Words<'_>) -> Result<Act, String> {
    let hosts = words.hosts()?;
    words.must("for")?;
    let span = words.span()?;
    each(hosts, move |stage, host| stage.world.suspend(host, span))
}
