//! When a suspicion may become a declaration: corroboration, eager or lazy, hold-off, brake and damping
//! (protocol §5).
//!
//! Pure: the leader's engine builds a [`DeclareView`] from the ledger and from the voters' latest beats and asks
//! [`declare`]. Everything checked here is checked again in the ledger's `apply` as far as the log can know it.
//!
//! Not here: what silence is (`detector`), what happens to the groups afterwards (`failover`).

mod brake;
mod damping;
mod declare;
mod members;

pub use brake::{Brake, BrakeParams};
pub use damping::{Damping, FLAPPING_FROM, TRUSTED_BELOW};
pub use declare::{Declaration, DeclareView, Declared, HostFacts, Mode, Reporter, Waiting, WhyNot, declare};
pub use members::{MembersView, Verdict, Wish, is_done, next};
