//! A language for the ledger: one command a line, answered by what became of it.
//!
//! Everything a line doesn't say follows from the ledger's state, so that a line says only what its case is about.
//! The same language drives the data cases, the random runs and the table of mutants.

mod args;
mod commands;
mod groups;
mod hosts;
mod people;
mod spec;
mod world;

pub use world::{Answer, World};
