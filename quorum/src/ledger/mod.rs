//! The replicated ledger: who is admitted, who holds which ticket, and what proves that nobody else does.
//!
//! Contract: [`Ledger::apply`] is a function of the log and nothing else. It reads no clock, no lease, no network;
//! elapsed time enters only as a field that the proposer measured on one clock and rounded to the safe side. Every
//! replica that applied the same entries has the same state, events and refusals. A refused command changes nothing.
//!
//! Architecture invariant: every safety rule of protocol §3 and §5–§9 that concerns replicated state is checked here,
//! in `apply`, and not where a command is proposed. A proposer that checks first does so to be polite.
//!
//! ```text
//! host epoch:   admitted ──Lost──────▶ lost ───┐
//!                  │                    ▲      ├─evidence─▶ proven ──HostAdmitted(he+1)──▶ admitted
//!                  └──Retired──▶ retired ──────┘
//! ticket:       none ──Grant──▶ granted ──Running──▶ running ──Stopped──▶ stopped ──Grant(e+1)──▶ granted …
//! ```
//! Nouns: `command` (what is asked), `evidence`, `spec`, `plan`, `person`, `state` (what the log adds up to), `event`
//! (what became so), `refusal` (why not). Not here: bytes (`codec`), Raft (`replica`), moments (`lease`).

mod audit;
mod command;
mod event;
mod evidence;
mod names;
mod person;
mod plan;
mod read;
mod refusal;
mod remembered;
mod spec;
mod state;

pub use audit::{AuditHead, AuditRecord};
pub use command::*;
pub use event::{Event, ProofKind};
pub use evidence::*;
pub use names::SpecProblem;
pub use person::{Decision, Initiator, Permit, Person, PersonKey};
pub use plan::{Plan, PlanKind, PlanOutcome, PlanState, Step, StepKind, StepOutcome, StepState};
pub use refusal::Refusal;
pub use spec::*;
pub use state::*;

/// What became of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// What became so, in order.
    pub events: Vec<Event>,
    /// Whether the command took effect; if not, why not, and nothing changed.
    pub outcome: Result<(), Refusal>,
}
