//! Who is silent: the two-window failure detector and the site judgement built on it (protocol §4).
//!
//! ```text
//!            first beat                silence > expectation + α on all paths
//!  Awaited ───────────────► Trusted ─────────────────────────────────────────► Suspect
//!     │                        ▲                                                  │
//!     │ grace over             └───────────── three fresh beats in a row ─────────┘
//!     └──────────────────────────────────────────────────────────────────────► Suspect
//! ```
//! A peer whose beats arrive and say, for longer than T_D, that it doesn't hear this observer is suspect as well: no
//! grant reaches it, so its lease ends as if it were silent. It is trusted again as soon as it hears.
//!
//! A judgement is one observer's own and never more than a suspicion: only the quorum declares.
//! Invariant: silence is measured between *kernel receive moments* of this machine, so an observer that paused does
//! not take its own pause for a peer's silence.
//!
//! Not here: sending (`heartbeat`), declaring (`policy`), local measurements (`driver::health` feeds [`Health`]).

mod arrivals;
mod health;
mod lateness;
mod view;

pub use arrivals::Arrivals;
pub use health::{ABSTAIN_FROM, Health, Reading};
pub use view::{Change, Detector, Heard, Judgement, Params};
