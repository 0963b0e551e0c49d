//! What the metrics show of this machine: read from transport and engine for each scrape.

use crate::driver::transport::{Counted, TransportHandle};
use crate::engine::Engine;
use crate::metrics::{Machine, PathReading};

/// How this machine does now.
pub(super) fn machine(transport: &TransportHandle, engine: &Engine) -> Machine {
    let paths = transport.paths().into_iter().map(|state| PathReading {
        peer: state.peer.to_string(),
        path: state.path.0.to_string(),
        up: state.up,
        rtt: state.rtt.map(|rtt| rtt.as_secs_f64()),
    });
    let counted = transport.stats().into_iter().map(|counter| {
        let peer = counter.peer.map(|peer| peer.to_string()).unwrap_or_default();
        (peer, counter.path.0.to_string(), word(counter.what), counter.count)
    });
    Machine {
        paths: paths.collect(),
        counted: counted.collect(),
        certificate_until: transport.own_certificate().not_after,
        raft: engine.raft_position(),
        sickness: engine.sickness(),
        proposals: engine.proposals_waiting(),
    }
}

/// `datagrams-sent`, `refused-by-us revoked`.
fn word(what: Counted) -> String {
    let dashed = |name: &str| {
        let mut out = String::new();
        for c in name.chars() {
            if c.is_ascii_uppercase() && !out.is_empty() {
                out.push('-');
            }
            out.push(c.to_ascii_lowercase());
        }
        out
    };
    match what {
        Counted::RefusedByUs(refusal) => format!("refused-by-us {}", refusal.as_str()),
        Counted::RefusedByThem(refusal) => format!("refused-by-them {}", refusal.as_str()),
        plain => dashed(&format!("{plain:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::transport::Refusal;

    #[test]
    fn what_is_counted_has_a_word_that_alerts_can_name() {
        assert_eq!(word(Counted::DatagramsSent), "datagrams-sent");
        assert!(word(Counted::RefusedByUs(Refusal::Revoked)).starts_with("refused-by-us "));
    }
}
