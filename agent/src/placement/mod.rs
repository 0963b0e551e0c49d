//! Where a group would go, with a reason for every host that it wouldn't.
//!
//! Pure: the leader builds the candidates from ledger and view; `status`, `explain` and `what-if` show the same
//! reasons. Not here: whether it may go at all (`ledger`), whether its data is fresh enough there (the data gate).

mod choose;

pub use choose::{Candidate, Choice, Rejection, choose};
