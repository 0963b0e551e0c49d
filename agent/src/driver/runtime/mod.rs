//! The daemon around the engine: one task owns it, everything else sends it inputs and performs its effects.
//!
//! ```text
//!  transport ─┐                                     ┌─► transport
//!  disk ──────┤                                     ├─► disk thread
//!  keeper ────┼─► inbox ─► Engine::step ─► effects ─┼─► keeper's record
//!  workers ───┤                                     ├─► workers (workload, replication, addresses)
//!  admin ─────┘                                     └─► journal, answers
//! ```
//! Effects are performed in order. Nothing here decides anything. Loop and transport have a thread to themselves; the
//! workers, the admin's side and whatever else may wait for a disk have others (`beside`).

mod audit;
mod beside;
mod encoded;
mod generation;
mod journal;
mod keeper;
mod measure;
mod memory;
mod notify;
mod peers;
pub mod recovery;
mod resting;
mod start;
mod step;
mod store;

pub use start::{RunError, run};
pub use step::Incoming;
