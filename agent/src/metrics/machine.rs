//! This host and its connections: lateness, Raft, transport, certificate.

use super::table::{Table, float};
use prometheus::{CounterVec, Gauge, GaugeVec, Histogram};

/// From far below a beat to far beyond a lease.
const LATE_SECONDS: [f64; 10] = [0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// A path to a peer.
#[derive(Clone, Debug)]
pub struct PathReading {
    /// The peer.
    pub peer: String,
    /// The path.
    pub path: String,
    /// Beats can be sent.
    pub up: bool,
    /// The round trip, in seconds, while up.
    pub rtt: Option<f64>,
}

/// What the driver reads now and then.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// The paths.
    pub paths: Vec<PathReading>,
    /// Peer (empty for strangers), path, what, and how often since the agent began.
    pub counted: Vec<(String, String, String, u64)>,
    /// Seconds since 1970 up to which this host's certificate counts.
    pub certificate_until: i64,
    /// Raft's term and commit index, if this host votes.
    pub raft: Option<(u64, u64)>,
    /// How sick this host judges itself to be, 0 to 255.
    pub sickness: u8,
    /// Proposals that wait for an outcome.
    pub proposals: u64,
}

/// The metrics of the machine.
#[derive(Debug)]
pub(super) struct MachineMetrics {
    late: Histogram,
    path_up: GaugeVec,
    path_rtt: GaugeVec,
    transport: CounterVec,
    certificate: Gauge,
    raft_term: Gauge,
    raft_commit: Gauge,
    sickness: Gauge,
    proposals: Gauge,
}

impl MachineMetrics {
    pub(super) fn new(t: &mut Table) -> Self {
        Self {
            late: t.histogram(
                "antipode_late_seconds",
                &LATE_SECONDS,
                "How much later than its deadline the agent looked at the clock: late beats, late judgement",
            ),
            path_up: t.gauges("antipode_path_up", &["peer", "path"], "1 if beats can be sent on a path"),
            path_rtt: t.gauges(
                "antipode_path_rtt_seconds",
                &["peer", "path"],
                "Round trip on a path, while it is up: as QUIC measures it, up to Δ more while nothing is under way",
            ),
            transport: t.counters(
                "antipode_transport_total",
                &["peer", "path", "what"],
                "Datagrams (beats), messages, connections and refusals; no peer for strangers",
            ),
            certificate: t.gauge(
                "antipode_certificate_expires_timestamp_seconds",
                "When this host's certificate ends, in seconds since 1970",
            ),
            raft_term: t.gauge("antipode_raft_term", "Raft's term at this voter"),
            raft_commit: t.gauge("antipode_raft_commit_index", "Raft's commit index at this voter"),
            sickness: t.gauge("antipode_sickness", "How sick this host judges itself; from 4 on it abstains"),
            proposals: t.gauge("antipode_proposals_waiting", "Proposals of this agent without an outcome yet"),
        }
    }

    pub(super) fn late(&self, seconds: f64) {
        self.late.observe(seconds);
    }

    pub(super) fn update(&self, machine: &Machine) {
        self.path_up.reset();
        self.path_rtt.reset();
        for path in &machine.paths {
            let labels = [path.peer.as_str(), path.path.as_str()];
            self.path_up.with_label_values(&labels).set(f64::from(u8::from(path.up)));
            if let Some(rtt) = path.rtt {
                self.path_rtt.with_label_values(&labels).set(rtt);
            }
        }
        self.transport.reset();
        for (peer, path, what, count) in &machine.counted {
            self.transport.with_label_values(&[peer.as_str(), path.as_str(), what.as_str()]).inc_by(float(*count));
        }
        self.certificate.set(float(u64::try_from(machine.certificate_until).unwrap_or(0)));
        if let Some((term, commit)) = machine.raft {
            self.raft_term.set(float(term));
            self.raft_commit.set(float(commit));
        }
        self.sickness.set(f64::from(machine.sickness));
        self.proposals.set(float(machine.proposals));
    }
}
