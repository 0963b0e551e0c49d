//! The ledger from outside: stories told in data cases, and random runs under invariants.

mod cases;
mod frozen;
#[cfg(feature = "mutants")]
mod mutants;
mod script;
