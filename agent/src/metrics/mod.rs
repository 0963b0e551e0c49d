//! The agent's metrics for Prometheus: how everything stands, what happened, how this machine does.
//!
//! Contract: names, labels and meanings are the table in `agent/docs/metrics.md`, which a test compares with
//! [`Metrics::described`]. All of it may be fed from one task and read from another.
//!
//! ```text
//! status document ─ at each scrape ─► view ────┐
//! events ────────── as they happen ─► happened ┼─► registry ─► /metrics
//! driver ────────── now and then ───► machine ─┘
//! ```
//! Not here: serving them (`admin`), alerts (`deploy/prometheus`).

mod fencing;
mod happened;
mod machine;
mod table;
mod view;

pub use machine::{Machine, PathReading};
pub use table::Described;

use crate::engine::StatusDocument;
use crate::event::Event;
use prometheus::{Registry, TextEncoder};
use quorum::ledger::Ledger;
use std::sync::atomic::{AtomicBool, Ordering};

/// All metrics of an agent.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    described: Vec<Described>,
    view: view::View,
    happened: happened::Happened,
    machine: machine::MachineMetrics,
    fencing: fencing::FencingMetrics,
    /// A scrape is about to ask the loop.
    is_wanted: AtomicBool,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Metrics of an agent that has seen nothing yet.
    pub fn new() -> Self {
        let mut table = table::Table::default();
        let view = view::View::new(&mut table);
        let happened = happened::Happened::new(&mut table);
        let machine = machine::MachineMetrics::new(&mut table);
        let fencing = fencing::FencingMetrics::new(&mut table);
        let table::Table { registry, mut described } = table;
        described.sort_by(|one, other| one.name.cmp(&other.name));
        Self { registry, described, view, happened, machine, fencing, is_wanted: AtomicBool::new(false) }
    }

    /// Every metric, sorted by name.
    pub fn described(&self) -> &[Described] {
        &self.described
    }

    /// Shows this status from now on.
    pub fn update(&self, status: &StatusDocument) {
        self.view.update(status);
    }

    /// Shows what this host's fence devices say from now on.
    pub fn update_fencing(&self, status: &::fencing::executor::Status) {
        self.fencing.update(status);
    }

    /// Counts what happened; `ledger` is as it is after it.
    pub fn event(&self, event: &Event, ledger: &Ledger) {
        self.happened.event(event, ledger);
    }

    /// Has the loop show this machine with whatever it is asked next. Reading a thousand peers costs more than hearing them:
    /// it is done for those who look.
    pub fn want(&self) {
        self.is_wanted.store(true, Ordering::Release);
    }

    /// Whether this machine is to be shown now; once for each wish.
    pub fn take_wish(&self) -> bool {
        self.is_wanted.swap(false, Ordering::AcqRel)
    }

    /// Shows this machine from now on.
    pub fn machine(&self, machine: &Machine) {
        self.machine.update(machine);
    }

    /// The agent looked at the clock so much later than it wanted to.
    pub fn late(&self, seconds: f64) {
        self.machine.late(seconds);
    }

    /// Everything in Prometheus' text format.
    pub fn render(&self) -> String {
        // Names and labels were checked when they were registered.
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}
