//! The safety argument of the protocol, checked exhaustively.
//!
//! Each model is explored until no new state is left: no depth limit, no time limit, no sampling. Each rule that the
//! models rely on is then broken, one at a time, and must give a counterexample that names the invariant (protocol
//! §10). A run that ends without one fails: a timeout is no catch.
//!
//! Where it can, a model calls the functions that the product runs (`quorum::lease`, `quorum::timing`); each file
//! says what it abstracts and why that loses no behaviour. Long runs are part of `make test-long`, which sets
//! `ANTIPODE_TEST_LONG=1`; without it they say that they did not run.
//!
//! Budget of the ordinary run: 4 CPU-minutes at opt-level 1, on one thread per model.

#[path = "model/run.rs"]
mod run;

#[path = "model/lease.rs"]
mod lease;
#[path = "model/lease_cases.rs"]
mod lease_cases;

#[path = "model/change.rs"]
mod change;
#[path = "model/change_cases.rs"]
mod change_cases;

#[path = "model/logbook.rs"]
mod logbook;
#[path = "model/ticket.rs"]
mod ticket;
#[path = "model/ticket_cases.rs"]
mod ticket_cases;
