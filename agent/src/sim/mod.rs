//! The simulator: the production engine, keeper core, replica and store in a deterministic world.
//!
//! ```text
//!   World ── queue of (real time, event) ── one at a time ──► a host
//!     Host: engine · keeper core · memory disk · places (workload, copy of the data) · clock with its own rate
//!     Network: delay, loss and cuts per direction        Oracle: looks after every event
//! ```
//! Contract: same seed, same world, same trace. Real time is the world's alone; each host reads its own clocks.
//!
//! Not here: drivers. What they do (start a guest, copy blocks) is played with spans of time and outcomes.

mod clock;
mod fence;
mod host;
mod keeper;
mod network;
mod oracle;
mod place;
mod random;
mod world;

pub use fence::FenceBench;
pub use host::SimHost;
pub use network::{Link, Network};
pub use oracle::{Oracle, Violation};
pub use place::{Place, Volume};
pub use random::Random;
pub use world::{Trace, World, WorldSpec};

#[cfg(test)]
mod fence_tests;
#[cfg(test)]
mod tests;
