//! Plans: which steps each kind has, who executes them, how long they may take (protocol §7, §8).
//!
//! ```text
//!  failover     await evidence · [await approval] · GRANT · promote · start · announce · probe
//!  switchover   preflight · stop · GRANT · promote · start · announce · probe
//!  failback     as switchover, home
//!  reprotect    reverse · await in sync
//! ```
//! GRANT is the pivot: before it a plan can be given up and undone, after it only retried.
//!
//! Not here: opening and driving plans (`engine::plans`), the rules about them (`ledger`).

mod steps;

pub use steps::{Route, steps};
