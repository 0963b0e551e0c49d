//! The simulator: the production engine, keeper core, replica and store in a deterministic world.
//!
//! ```text
//!   World ── queue of (real time, event) ── one at a time ──► a host
//!     Host: engine · keeper core · disk · places (workload, copy of the data) · two clocks · watchdog
//!     Network: delay, loss, copies, strays and cuts per direction        Oracle: looks after every event
//!   verbs: what tests and scenarios do to it; `heal` ends every fault
//! ```
//! Contract: same seed, same world, same trace. Real time is the world's alone; each host reads its own clocks.
//!
//! Not here: drivers. What they do (start a guest, copy blocks) is played with spans of time and outcomes.

mod clock;
mod data;
mod disk;
mod effects;
mod fence;
mod forecast;
pub(crate) mod fuzz;
mod host;
mod keeper;
mod life;
mod live;
mod network;
mod oracle;
mod place;
mod random;
pub mod scenario;
mod spec;
mod verbs;
mod votes;
mod watch;
mod world;

pub use fence::FenceBench;
pub use forecast::{Disaster, Forecast, GroupForecast, NoForecast, Outcome, UNKNOWN, what_if};
pub use host::SimHost;
pub use live::Live;
pub use network::{Link, Network};
pub use oracle::{Oracle, Seen, Violation};
pub use place::{Place, Volume, Whole, WorkFault, Writes};
pub use random::Random;
pub use watch::Point;
pub use world::{Trace, Tuning, What, World, WorldSpec};

#[cfg(test)]
mod data_tests;
#[cfg(test)]
mod fence_tests;
#[cfg(test)]
mod forecast_tests;
#[cfg(test)]
mod hearing_tests;
#[cfg(test)]
mod members_tests;
#[cfg(test)]
mod pin_tests;
#[cfg(test)]
mod readmit_tests;
#[cfg(test)]
mod recover_tests;
#[cfg(test)]
mod release_tests;
#[cfg(test)]
mod rest_tests;
#[cfg(test)]
mod stories;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod version_tests;
