//! `unknown-entry`: what a newer version would put into the log, and this one can't read.

use super::super::words::Words;
use super::{Act, Verb};

pub(super) const VERBS: [Verb; 1] = [Verb { name: "unknown-entry", usage: "unknown-entry", read: unknown_entry }];

fn unknown_entry(_words: &mut Words<'_>) -> Result<Act, String> {
    Ok(Box::new(|stage| {
        let appended = stage.world.append_unknown();
        if appended { Ok(()) } else { Err("nobody leads".into()) }
    }))
}
