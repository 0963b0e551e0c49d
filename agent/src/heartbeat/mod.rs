//! Beats: what they carry and when they leave.
//!
//! A beat is one QUIC datagram per peer and path, lost if lost (protocol §4). Lease requests ride on it, every R; the
//! voters' answers are datagrams of their own. A voter's beat to a host without a vote leaves as a reply to that host's.
//! Beats between voters carry what each of them suspects, so that the leader can declare from reports no older than T_D
//! without a second kind of message.
//!
//! Not here: identity (it comes from the certificate, never from the message), sockets (`driver::transport`), what
//! silence means (`detector`).

mod beat;
mod reply;
mod schedule;

pub use beat::{
    BadDatagram, Beat, DATAGRAM_BYTES_MAX, Datagram, Echo, GroupLag, Hello, KeeperState, SUSPECTS_MAX, Suspicions,
    decode, encode,
};
pub use reply::Replies;
pub use schedule::{Due, Schedule};
