//! What one host does about one group: from the ledger's wish to the next piece of work (protocol §7, "X starts g
//! iff").
//!
//! ```text
//!  owner     Absent ──promote──► promoted ──start──► Running ──announce, probe──► serving ──mirror──► protected
//!               ▲                                        │ intent, or the ticket went elsewhere
//!               └────────────────── stop or kill ◄───────┘
//!  standby   whatever runs is killed ──► export open to the owner's epoch, to no older one
//!  tied      Running ──► goes on, moved between the pinned cgroup and the lease's; nothing is started or replaced
//!  neither   whatever runs is killed, export closed
//! ```
//! Level-triggered: each step compares the wish with what was *seen* here, so a restarted agent that finds the
//! workload running under its ticket's epoch adopts it, and nothing depends on having heard every entry as it came.
//!
//! Invariant: work that can bring a group up is only ordered while [`MayStart`] holds in the same step.
//!
//! Not here: who is to be owner (`ledger`, `failover`), doing the work (`workload`, `replication`, `network`).

mod act;
mod group;
mod owner;

pub use act::{Act, Duty, FormerDuty, MayStart, OwnerDuty, Saying, StandbyDuty, Tie, TiedDuty};
pub use group::GroupRunner;
