//! The only place where inputs become effects: it composes the cores and routes between them.
//!
//! ```text
//!            Input ─► step(now, input) ─► Vec<Effect>          deadline() ─► the next Wake
//!                        │
//!   beats ── detector ───┤                                  every agent
//!   lease holder ─ keeper record ─ runners of local groups  hosts
//!   Raft replica ─ voter side of leases ─ log feed          voters
//!   admission ─ declaration ─ plans ─ grants                the leader
//! ```
//! Contract: same inputs, same effects. No clock, socket, file, task or randomness of its own: the moment comes with
//! each input, identities are drawn by the driver. The daemon, the simulator and `what-if` run this code.
//!
//! Invariant: nothing is *decided* for safety here. Whether a ticket moves is the ledger's `apply`; whether the dog is
//! petted is the keeper's; the engine proposes, and obeys what it sees applied.

mod admit;
mod beats;
mod core;
mod declare;
mod effect;
mod feed;
mod fence;
mod fence_lead;
mod fence_order;
mod fence_proof;
mod fence_view;
mod groups;
mod input;
mod keeper;
mod leader;
mod local;
mod log;
mod look;
mod membership;
mod memory;
mod message;
mod operator;
mod orders;
mod pieces;
mod pins;
mod proposals;
mod readmit;
mod recover;
mod status;
mod tail;
mod unread;
mod version;
mod voter;

pub use self::core::{Engine, Identity, Now, Resting, Setup};
pub use effect::{Armed, Effect, KeeperOrder, Work, WorkId};
pub use fence::{Prospect, SeenRunning};
pub use fence_order::{FenceAct, FenceDecision, FenceRefusal};
pub use fence_view::{ExecutorLine, FenceHostLine, FenceView, OverrideLine, SignLine, TaskLine};
pub use input::{
    Attestation, CopyFound, Fenced, Found, Input, KeeperPage, Machine, Presence, Report, Resync, Sight, Vote,
};
pub use log::{decode_entry, decode_ledger, decode_snapshot, encode_entry, encode_ledger};
pub use look::{ChainDocument, CheckDocument, LoggedAct, PlanDetail, PlansDocument, Seen, SpecDocument, StepLine};
pub use membership::{FOUNDING_IDS_MAX, MemberOrder};
pub use memory::Standing;
pub use message::{Challenge, Fed, MESSAGE_BYTES_MAX, Message, decode, encode};
pub use operator::{Answer, Move, Request};
pub use orders::{Matter, Order, Scope};
pub use recover::{Begun, RecoverError, Recovery, backup, begin as begin_era, read_backup, replay};
pub use status::{
    API_VERSION, AttentionLine, DataLine, FreezeLine, GateLine, GatesLine, GroupLine, HostLine, PinLine, PlanLine,
    PossibleLine, QuorumLine, SiteLine, StatusDocument, VersionLine, VoterLine,
};
