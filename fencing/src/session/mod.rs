//! A session: carries out one plan until there is evidence, or a reason why not.
//!
//! ```text
//! device:  identify ─▶ switch ─▶ watch ─▶ seen ─▶ confirm ─▶ proven
//!             │ (off)─────────────────────▲  ▲        │ (on again)
//!             │                              └─ switch ┘
//!             └─ lasting trouble in any of them ─▶ failed
//! level:   pending ─▶ running ─▶ proven (ends the session) | ended (why)
//!          waiting (self, operator, watchdog: the ledger ends it)
//! ```
//!
//! Contract: `step` is given every answer exactly once, also for calls that were stopped; it does no I/O and reads no
//! clock; same inputs, same effects. The verdict is given once; the session is finished when every call has come back.
//! A device that can report whose machine it is, is read *before* it is told to switch anything off. Off, never
//! cycle. `off`'s own answer decides nothing but whether to go on asking. All devices of a level must have shown the
//! wanted state over one common span of a settle time.
//! Not here: how a device is called (`device`), bounded concurrency, guards, the journal (`executor`).

mod device_run;
mod level_run;
mod run;

pub use run::Session;

use crate::evidence::NotEnough;
use crate::moment::Moment;
use crate::name::DeviceName;
use crate::reading::{Observed, Reading};
use crate::trouble::Trouble;
use crate::verdict::Verdict;
use serde::Serialize;

/// A call that a session asked for; counts up within the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct CallId(pub u64);

/// What a device is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// Say in which state the target is, and whose machine it is.
    Read,
    /// Make it harmless: power off, pre-empt, shut the port, write the message.
    Off,
}

/// What a call brought. `Off` accepted says that the device took the request and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To [`Act::Read`].
    Read(Result<Reading, Trouble>),
    /// To [`Act::Off`].
    Off(Result<(), Trouble>),
}

/// What a session is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Time has passed; also the first input.
    Tick,
    /// A call came back.
    Answered {
        /// Which.
        call: CallId,
        /// With what.
        answer: Answer,
    },
    /// The order was called off (overtaken, or the host is to be admitted again).
    Cancelled {
        /// Why.
        because: String,
    },
    /// The ledger has evidence from elsewhere: the lease, the keeper, a person.
    ProvenElsewhere {
        /// By what.
        by: String,
    },
}

/// What a session wants done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Call a device, and answer whatever comes of it before `limit`.
    Call {
        /// Under this number.
        call: CallId,
        /// Which device.
        device: DeviceName,
        /// To do what.
        act: Act,
        /// The call must have come back by then.
        limit: Moment,
    },
    /// End a call early; it must still be answered.
    Stop {
        /// Which.
        call: CallId,
    },
    /// Something worth writing down and showing.
    Note(Note),
    /// The session's conclusion. Given once.
    Conclude(Verdict),
}

/// What happens in a session, as the journal and a person read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "note")]
pub enum Note {
    /// A level began.
    LevelBegan {
        /// Its number.
        level: usize,
    },
    /// A device was read.
    Read {
        /// Which.
        device: DeviceName,
        /// What it showed.
        observed: Observed,
    },
    /// A device took an `off`. That proves nothing yet.
    Accepted {
        /// Which.
        device: DeviceName,
    },
    /// A device call brought trouble.
    Troubled {
        /// Which.
        device: DeviceName,
        /// To do what.
        act: Act,
        /// What happened.
        because: String,
    },
    /// A device showed the wanted state and then another one again.
    CameBack {
        /// Which.
        device: DeviceName,
        /// What it showed.
        observed: Observed,
    },
    /// A level ended without proof.
    LevelEnded {
        /// Its number.
        level: usize,
        /// Why.
        because: String,
    },
}

/// Why a level ended without proof.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LevelEnd {
    /// One of its devices can't succeed any more, and a level needs all of them.
    #[error("{device} {trouble}")]
    Device {
        /// Which.
        device: DeviceName,
        /// Why.
        trouble: Trouble,
    },
    /// All its devices were proven, and that isn't enough.
    #[error("{0}")]
    NotEnough(NotEnough),
    /// It helps the target to die and proves nothing.
    #[error("done; it proves nothing by itself")]
    Helped,
    /// Its share of the time ran out, and a later level needs the same device or endpoint.
    #[error("no proof in its share of the time; a later level needs the same device or endpoint")]
    GaveUp,
}
