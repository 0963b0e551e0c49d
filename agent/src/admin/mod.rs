//! The agent's admin API: what the command line and other tools ask a running agent, and what they are told.
//!
//! ```text
//! antipode status ─► RUN_DIR/admin.sock ─► route ─► Asked ─► the engine's loop
//!                    (HTTP/1.1, JSON)        ▲                    │
//!                                            └────── Answer ──────┘
//! ```
//! From another machine the same API is asked over mutual TLS ([`connect`], `[admin] listen`).
//!
//! Contract: who asks is what the kernel says of the socket's other end, or what the certificate says at the other end
//! of TLS, never what the request says of itself; every request takes a least role (`roles`); a
//! request that names no reason is kept without one; every error says its code, what it means for the workload and
//! the next command, and the exit status that the command line ends with.
//!
//! Not here: deciding anything (`engine`), rendering for people (`cli`).

mod api;
mod ask;
mod audit;
mod events;
mod explain;
mod fence;
pub(crate) mod fuzz;
pub mod kept;
mod metrics;
mod person;
mod remote;
mod revisions;
mod roles;
mod route;
mod socket;
mod tls;

pub use api::{
    ApplyAsked, BackupDocument, DoneDocument, ErrorDocument, ErrorLine, LiveDocument, MembersAsked, MoveAsked,
    OrderAsked, TimingComputed, TimingDocument, TimingLine,
};
pub use audit::{AUDIT_FILE, AuditDocument, AuditLine};
pub use events::EventsDocument;
pub use explain::{Explanation, Fact, Subject, explain};
pub use fence::{FenceAsked, FenceTestAsked};
pub(crate) use person::local as local_person;
pub use revisions::{RevisionDocument, RevisionLine, RevisionsDocument, keep as keep_revision};
pub use socket::{Admin, SOCKET_NAME, serve};
pub use tls::{PORT, connect};

use crate::engine::{Answer, Request};
use quorum::ledger::Person;
use tokio::sync::oneshot;

/// Something a person asks, on its way to the engine's loop. Dropping `answer` tells the person that the agent ends.
#[derive(Debug)]
pub struct Asked {
    /// Who asks.
    pub by: Person,
    /// What.
    pub request: Request,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Answer>,
}

/// How a request ends: the command line's exit status (additive, never renumbered).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// Done as asked.
    Done,
    /// Something went wrong.
    Error,
    /// The request makes no sense.
    Usage,
    /// A safety gate or a check refused it; nothing changed.
    Refused,
    /// It waits for people.
    Approval,
    /// No quorum decided, or no agent answers.
    Unreachable,
    /// It took too long and goes on.
    TimedOut,
}

impl Exit {
    /// The number.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Error => 1,
            Self::Usage => 2,
            Self::Refused => 3,
            Self::Approval => 4,
            Self::Unreachable => 5,
            Self::TimedOut => 6,
        }
    }

    /// The meaning of a number; unknown ones are errors.
    pub const fn from_code(code: u64) -> Self {
        match code {
            0 => Self::Done,
            2 => Self::Usage,
            3 => Self::Refused,
            4 => Self::Approval,
            5 => Self::Unreachable,
            6 => Self::TimedOut,
            _ => Self::Error,
        }
    }
}
