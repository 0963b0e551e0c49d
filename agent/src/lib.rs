//! Observe, decide, act: the agent that runs on every host.
//!
//! Pure cores (`heartbeat`, `detector`, `policy`, `placement`, `failover`, `engine`) decide; `driver`, `workload`,
//! `replication`, `network`, `admin` and `cli` act. See ARCHITECTURE.md for who may import whom.

pub mod admin;
pub mod cli;
pub mod command;
pub mod config;
pub mod detector;
pub mod driver;
pub mod engine;
pub mod event;
pub mod failover;
#[doc(hidden)]
pub mod fuzzing;
pub mod heartbeat;
pub mod keeper;
pub mod lab;
pub mod metrics;
pub mod network;
pub mod pki;
pub mod placement;
pub mod policy;
pub mod replication;
pub mod runner;
pub mod sim;
pub mod workload;
