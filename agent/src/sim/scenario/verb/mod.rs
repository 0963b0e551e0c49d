//! The verbs that act. A file has the verbs of one thing; `VERBS` names them all.

mod agent;
mod ask;
mod boot;
mod clock;
mod data;
mod device;
mod disk;
mod keeper;
mod log;
mod network;
mod power;

use super::run::Stage;
use super::words::Words;

/// Something to be done to a world, with everything known that the line said.
pub(super) type Act = Box<dyn Fn(&mut Stage) -> Result<(), String>>;

/// A verb.
pub(super) struct Verb {
    pub(super) name: &'static str,
    pub(super) usage: &'static str,
    pub(super) read: fn(&mut Words<'_>) -> Result<Act, String>,
}

const VERBS: [&[Verb]; 11] = [
    &boot::VERBS,
    &power::VERBS,
    &agent::VERBS,
    &keeper::VERBS,
    &clock::VERBS,
    &network::VERBS,
    &disk::VERBS,
    &data::VERBS,
    &device::VERBS,
    &log::VERBS,
    &ask::VERBS,
];

/// Words that `script.rs` reads itself.
const OTHERS: [&str; 7] = ["at", "wait", "until", "hold", "expect", "never", "mark"];

/// The verb of this name, or what to write instead.
pub(super) fn find(name: &str) -> Result<&'static Verb, String> {
    let all = || VERBS.iter().flat_map(|verbs| verbs.iter());
    if let Some(verb) = all().find(|verb| verb.name == name) {
        return Ok(verb);
    }
    let mut names: Vec<&str> = all().map(|verb| verb.name).chain(OTHERS).collect();
    names.sort_unstable();
    Err(format!("verbs are {}", names.join(", ")))
}
