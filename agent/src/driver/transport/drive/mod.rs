//! All QUIC connections of one UDP socket, run by one task.
//!
//! ```text
//! kernel --packets--> Driver --each packet--> connection --its datagrams, with the packet's time--> whoever takes them
//!                       |  ^                     |
//!                       |  +-- to-do list -------+-- what was sent, read, closed; timers that ran out
//!                       +----> kernel
//! ```
//!
//! The protocol is quinn-proto's, which does no I/O. The library on top of it runs a task, two channels and a buffer for
//! each connection; a voter has a thousand of them, and an idle host is woken for three tasks where one does (decision
//! 0004). Run in one place, a datagram is also known to have come in the very packet that was fed in.
//!
//! Contract:
//! - Whoever changes a connection puts it on the to-do list; the driver sends what follows from it, a bounded number of
//!   packets at a time, one connection after the other.
//! - Dropping the last handle of a connection closes it. A stream is such a handle.
//! - Lock order: the endpoint, a connection, the to-do list. Wakers are called, and what may own a handle is dropped, when
//!   none of a connection is held.
//!
//! Not here: who may connect (`tls`, `admission`), what settings a connection has (`quic`), what is said on it.

mod connection;
mod driver;
mod endpoint;
mod stream;
mod waiters;

#[cfg(test)]
mod chaos;
#[cfg(test)]
mod tests;

pub(super) use connection::Connection;
pub(super) use endpoint::{Attempt, Endpoint};
pub(super) use stream::{RecvStream, SendStream, WriteError};
