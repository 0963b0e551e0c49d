//! Raft without I/O: entries of opaque bytes, replicated to every voter in the same order.
//!
//! ```text
//!   step(from, message)   tick()   propose(bytes)   read_index()   applied(index)
//!                              |
//!                           ready() --> Ready { send_now, write }
//!                                                          |
//!                                       store.persist(write) --> Persisted      (only a store makes one)
//!                                                                    |
//!                                                 persisted(it) --> After { send, snapshot, committed, reads }
//! ```
//!
//! Contract for the caller:
//! - Call `ready` after every input until it gives nothing. Send `send_now` at once; persist writes in order.
//!   Several may be outstanding: a slow disk delays promises, not beats.
//! - Give every `Persisted` back in order; send, install, apply, answer what `After` says; then call `applied`.
//! - An error of the store is the end of this process: what is on disk is unknown (protocol §2).
//! - Compact from time to time, and when `wants_snapshot` says so.
//! - Tick when [`Ticker`] says so, never to catch up.
//!
//! Invariants, each with a test of its name in `tests`: nothing that promises durability leaves before it is durable
//! (the types, see [`ready`](self::ready)); a configuration takes effect when it is applied, and [`Replica::config`]
//! names the entry; no peer's message makes this code panic; same inputs and seed, same outputs.
//!
//! Not here: what entries mean (`ledger`), transport, identities, time. No leader lease and no read without a majority:
//! raft's LeaseBased reads are never used (protocol §2).

mod campaign;
mod check;
mod convert;
mod flow;
mod log;
pub mod membership;
mod node;
pub mod read;
pub mod ready;
mod tick;
mod view;
pub mod wire;

pub use check::BadMessage;
pub use membership::{MemberStep, MembershipChange, MembershipError};
pub use node::{Delivery, Params, ProposeError, Proposed, ReadError, Replica, StartError, TransferError};
pub use read::{ReadContext, ReadState};
pub use ready::{After, Ready, Role, SnapshotWrite, Standing, Write};
pub use tick::Ticker;
pub use view::{Configuration, EntryRef, Peer};
pub use wire::{Entry, EntryKind, HardState, Message, Position, Snapshot, SnapshotMeta};

#[cfg(test)]
mod tests;
