//! Everything that touches the outside: clocks, sockets, files, processes. It decides nothing.
//!
//! A driver performs the engine's effects and turns what it observes into the engine's inputs.

pub mod clock;
pub mod fence;
pub mod runtime;
pub mod transport;
pub mod work;
