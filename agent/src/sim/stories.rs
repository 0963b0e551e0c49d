//! What every story looks at and waits for.

use super::*;
use crate::engine::Engine;
use quorum::id::{GroupName, HostName};
use std::time::Duration;

/// So much of the trace is told of a story that failed.
const LINES_TOLD: usize = 400;

pub(super) fn host(name: &str) -> HostName {
    HostName::new(name).expect("a name")
}

pub(super) fn erp() -> GroupName {
    GroupName::new("erp").expect("a name")
}

pub(super) fn tail(world: &World) -> String {
    let line = |trace: &Trace| {
        let host = trace.host.as_ref().map_or_else(|| "world".into(), ToString::to_string);
        format!("{:>10.3} {host:6} {}", trace.at_ns as f64 / 1e9, trace.text())
    };
    let first = world.trace.len().saturating_sub(LINES_TOLD);
    world.trace[first..].iter().map(line).collect::<Vec<_>>().join("\n")
}

pub(super) fn must(world: &mut World, secs: u64, what: &str, done: impl Fn(&World) -> bool) {
    match world.run_until(Duration::from_secs(secs), &done) {
        Ok(true) => {}
        Ok(false) => panic!("{}\nnot within {secs} s: {what}", tail(world)),
        Err(violation) => panic!("{}\n{violation:?}", tail(world)),
    }
}

pub(super) fn pass(world: &mut World, secs: u64) {
    if let Err(violation) = world.run_for(Duration::from_secs(secs)) {
        panic!("{}\n{violation:?}", tail(world));
    }
}

pub(super) fn engine<'a>(world: &'a World, name: &str) -> Option<&'a Engine> {
    world.hosts[&host(name)].engine()
}

pub(super) fn runs_on(world: &World, name: &str) -> bool {
    world.hosts[&host(name)].places[&erp()].running.is_some()
}

/// All copies in sync, as the ledger at the witness has it.
pub(super) fn is_protected(world: &World) -> bool {
    let group = engine(world, "ng-1").and_then(|engine| engine.ledger().group(&erp()));
    group.is_some_and(|group| group.in_sync.len() == 2)
}
