//! `unknown-entry`: what a newer version would put into the log, and this one can't read.

use super::super::words::Words;
use super::{Act, Verb};
use crate::sim::SimHost;

pub(super) const VERBS: [Verb; 1] = [Verb { name: "unknown-entry", usage: "unknown-entry", read: unknown_entry }];

/// No version of an entry begins with this byte.
const OF_THE_FUTURE: [u8; 3] = [250, 1, 2];

fn unknown_entry(_words: &mut Words<'_>) -> Result<Act, String> {
    Ok(Box::new(|stage| {
        let agents = stage.world.hosts.values_mut().filter_map(SimHost::engine_mut);
        let appended =
            agents.filter(|engine| engine.is_leader()).any(|engine| engine.append_raw(OF_THE_FUTURE.to_vec()));
        if appended { Ok(()) } else { Err("nobody leads".into()) }
    }))
}
