//! Whatever in this product reads bytes, as a fuzzer calls it (`make fuzz`): the targets of all crates.
//!
//! Contract of a target: no bytes whatsoever make it panic; what was decoded is encoded to bytes that are decoded to the
//! same again. It answers whether the bytes were accepted, so that a target that refuses everything shows.
//!
//! Not here: the fuzzer itself (`tests/fuzz`, a workspace of its own).

mod files;
mod samples;
mod talk;
mod wire;

#[cfg(test)]
mod tests;

pub use quorum::fuzzing::Target;
pub use samples::samples;

/// This crate's targets.
const OWN: [Target; 14] = [
    ("datagram", wire::datagram, wire::datagram_seeds),
    ("message", wire::message, wire::message_seeds),
    ("entries", wire::entries, wire::entry_seeds),
    ("ledger", wire::ledger, wire::ledger_seeds),
    ("talk", talk::talk, talk::talk_seeds),
    ("stream", crate::driver::transport::fuzz::stream, crate::driver::transport::fuzz::stream_seeds),
    ("packet", crate::driver::transport::fuzz::packet, crate::driver::transport::fuzz::packet_seeds),
    ("resync", crate::replication::resync::fuzz::frames, crate::replication::resync::fuzz::frame_seeds),
    ("keeper", crate::keeper::fuzz::memory, crate::keeper::fuzz::memory_seeds),
    ("papers", crate::pki::fuzz::papers, crate::pki::fuzz::paper_seeds),
    ("requests", crate::admin::fuzz::requests, crate::admin::fuzz::request_seeds),
    ("scenario", crate::sim::scenario::fuzz::scenario, crate::sim::scenario::fuzz::scenario_seeds),
    ("config", files::config, files::config_seeds),
    ("programs", files::programs, files::program_seeds),
];

/// All targets.
pub fn targets() -> impl Iterator<Item = Target> {
    quorum::fuzzing::TARGETS.into_iter().chain(fencing::fuzzing::TARGETS).chain(OWN)
}
