//! What only a lab has: things that play hardware where a test machine has none.
//!
//! Architecture invariant: nothing here is used by agent or keeper; they meet it as they would meet hardware, and
//! evidence that rests on it is marked `lab`.

pub mod chassis;
