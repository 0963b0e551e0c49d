//! Who may decide: words, arithmetic, the host lease, the replicated ledger, and Raft behind a sans-I/O face.
//!
//! Nothing in this crate is async, and nothing but [`storage`] touches a file. Every core is a function of its
//! inputs: the same code runs in the daemon, in the simulator, in `what-if` and under the model checker.
//!
//! Architecture invariant: this crate knows neither `fencing` nor the agent.

pub mod codec;
#[doc(hidden)]
pub mod fuzzing;
pub mod id;
pub mod lease;
pub mod ledger;
pub mod moment;
pub mod mutants;
pub mod replica;
pub mod roster;
pub mod storage;
pub mod timing;
