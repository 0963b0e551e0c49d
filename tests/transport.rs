//! The transport on real sockets: who gets in, what goes through, what is dropped, what survives.
//!
//! Live on loopback, no root, no packages. Every wait is for a condition; `world::LIMIT` is only how long a failing
//! test waits.

#[path = "transport/world.rs"]
mod world;

#[path = "transport/flow.rs"]
mod flow;
#[path = "transport/hostile.rs"]
mod hostile;
#[path = "transport/identity.rs"]
mod identity;
