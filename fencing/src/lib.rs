//! Make sure that it is dead, and say how we know.
//!
//! The pure part decides: [`topology`], [`plan`], [`session`], [`evidence`], [`verdict`], [`gate`].

pub mod evidence;
pub mod facts;
pub mod findings;
pub mod gate;
pub mod key;
pub mod moment;
pub mod mutants;
pub mod name;
pub mod plan;
pub mod reading;
pub mod relay;
pub mod request;
pub mod session;
pub mod silence;
pub mod target;
pub mod topology;
pub mod trouble;
pub mod verdict;
