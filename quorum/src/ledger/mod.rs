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

mod admit;
mod apply;
mod audit;
mod brake;
mod cluster;
mod command;
mod cover;
mod data;
mod era;
mod event;
mod evidence;
mod expire;
mod fence_task;
mod gate;
mod grant;
mod intent;
mod lose;
mod names;
mod owners;
mod permits;
mod person;
mod pin;
mod plan;
mod plan_rules;
mod plausible;
mod prove;
mod read;
mod refusal;
mod remembered;
mod render;
mod restrict;
mod spec;
mod spec_check;
mod state;
mod ticket;

pub use apply::Applied;
pub use audit::{AuditHead, AuditRecord, digest};
pub use cluster::{FIRST_VERSION, VERSION};
pub use command::*;
pub use cover::{Gap, Reach};
pub use event::{Event, ProofKind};
pub use evidence::*;
pub use fence_task::TASK_GRACE;
pub use person::{Decision, Initiator, Permit, Person, PersonKey};
pub use plan::{Plan, PlanKind, PlanOutcome, PlanState, Step, StepKind, StepOutcome, StepState};
pub use refusal::Refusal;
pub use spec::*;
pub use spec_check::{SpecProblem, SpecProblems};
pub use state::*;
