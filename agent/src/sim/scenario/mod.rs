//! The scenario language: a cluster, a script of one verb a line, and the trace that it must give.
//!
//! ```text
//!   cluster.toml ── cluster ──► ClusterSpec + [sim] ──► World
//!   script       ── script ───► lines ── run ──► world acts, oracle after every event, conditions after every event
//!   World.trace  ── tell ─────► golden lines: time, who, what changed, why ── golden ──► same as `expect`?
//! ```
//! Contract: same scenario, same trace. Everything wrong with a scenario is reported at once, each with file, line,
//! verb and remedy. A script without an expectation is wrong: a golden that was blessed proves nothing by itself.
//!
//! Golden lines are rendered from typed events, never from log text. Times and measured spans may differ by
//! [`golden::SLACK`]: a change that makes an agent speak a little earlier is no change of what is told.
//!
//! Not here: what is true at any time (`sim::oracle`).

mod cluster;
mod condition;
mod folder;
pub(crate) mod fuzz;
pub mod golden;
mod run;
mod script;
mod tell;
mod verb;
mod words;

pub use cluster::Cluster;
pub use folder::Scenario;
pub use run::{Fault, Report};
pub use tell::Line;
