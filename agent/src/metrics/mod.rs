//! The agent's metrics: a rendering of the status document for Prometheus.
//!
//! Contract: names, labels and meanings are the table in `agent/docs/metrics.md`, which a test compares with
//! [`Metrics::names`]. Things that are gone leave no stale series: all labelled series are made anew at each update.
//!
//! Not here: serving them (`admin`), alerts (`deploy/prometheus`).

mod fencing;

use self::fencing::FencingMetrics;
use crate::engine::{GroupLine, StatusDocument};
use prometheus::{Gauge, GaugeVec, Opts, Registry, TextEncoder};

/// All metrics of an agent.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    build: GaugeVec,
    applied_index: Gauge,
    view_age: Gauge,
    spec_revision: Gauge,
    voters: Gauge,
    voters_reachable: Gauge,
    voters_spare: Gauge,
    leader: GaugeVec,
    lease_left: GaugeVec,
    site_state: GaugeVec,
    host_state: GaugeVec,
    group_state: GaugeVec,
    group_owner: GaugeVec,
    copies: GaugeVec,
    lag: GaugeVec,
    failover_possible: GaugeVec,
    plans: GaugeVec,
    attention: GaugeVec,
    freezes: Gauge,
    fencing: FencingMetrics,
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::new(name, help).expect("a fixed name is a good one");
    registry.register(Box::new(gauge.clone())).expect("each name is registered once");
    gauge
}

fn labelled(registry: &Registry, (name, labels): (&str, &[&str]), help: &str) -> GaugeVec {
    let gauge = GaugeVec::new(Opts::new(name, help), labels).expect("a fixed name is a good one");
    registry.register(Box::new(gauge.clone())).expect("each name is registered once");
    gauge
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has only floating point; 2^53 is far away")]
const fn float(count: u64) -> f64 {
    count as f64
}

fn seconds(ms: u64) -> f64 {
    float(ms) / 1e3
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Metrics of an agent that has seen nothing yet.
    pub fn new() -> Self {
        let r = Registry::new();
        Self {
            build: labelled(&r, ("antipode_build_info", &["version"]), "Always 1"),
            applied_index: gauge(&r, "antipode_applied_index", "Log index that this agent has applied"),
            view_age: gauge(&r, "antipode_view_age_seconds", "Time since this agent last heard a leader"),
            spec_revision: gauge(&r, "antipode_spec_revision", "Revision of the cluster spec in force"),
            voters: gauge(&r, "antipode_voters", "Voters in force"),
            voters_reachable: gauge(&r, "antipode_voters_reachable", "Voters heard by this agent"),
            voters_spare: gauge(&r, "antipode_voters_spare", "Voters that may still be lost"),
            leader: labelled(&r, ("antipode_leader", &["host"]), "1 for the leader; absent without one"),
            lease_left: labelled(&r, ("antipode_lease_left_seconds", &["host"]), "What is left of this host's lease"),
            site_state: labelled(&r, ("antipode_site_state", &["site", "state"]), "1 for the state that a site is in"),
            host_state: labelled(&r, ("antipode_host_state", &["host", "site", "state"]), "1 for the state of a host"),
            group_state: labelled(&r, ("antipode_group_state", &["group", "state"]), "1 for the state of a group"),
            group_owner: labelled(&r, ("antipode_group_owner", &["group", "host", "site"]), "1 for a group's owner"),
            copies: labelled(&r, ("antipode_group_copies_in_sync", &["group"]), "Hosts whose copies have everything"),
            lag: labelled(&r, ("antipode_group_lag_seconds", &["group"]), "Data loss now; absent while unknown"),
            failover_possible: labelled(
                &r,
                ("antipode_group_failover_possible", &["group"]),
                "1 if the cluster can fail the group over by itself",
            ),
            plans: labelled(&r, ("antipode_plans_open", &["kind", "state"]), "Open plans"),
            attention: labelled(&r, ("antipode_attention", &["code"]), "Things that a person should look at"),
            freezes: gauge(&r, "antipode_freezes", "Freezes in force"),
            fencing: FencingMetrics::new(&r),
            registry: r,
        }
    }

    /// Shows this status from now on.
    pub fn update(&self, status: &StatusDocument) {
        self.build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
        self.applied_index.set(float(status.index));
        self.view_age.set(seconds(status.as_of_ms));
        self.spec_revision.set(float(status.spec_revision));
        self.freezes.set(float(status.freeze.len() as u64));
        self.update_quorum(status);
        self.update_places(status);
        for labelled in [&self.group_state, &self.group_owner, &self.copies, &self.lag, &self.failover_possible] {
            labelled.reset();
        }
        status.groups.iter().for_each(|group| self.update_group(group));
        self.plans.reset();
        for plan in &status.plans {
            self.plans.with_label_values(&[plan.kind, plan.state]).inc();
        }
        self.attention.reset();
        for line in &status.attention {
            self.attention.with_label_values(&[line.code]).inc();
        }
    }

    /// Shows what this host's fence devices say from now on.
    pub fn update_fencing(&self, status: &::fencing::executor::Status) {
        self.fencing.update(status);
    }

    fn update_quorum(&self, status: &StatusDocument) {
        self.voters.set(float(status.quorum.voters as u64));
        self.voters_reachable.set(float(status.quorum.reachable as u64));
        self.voters_spare.set(float(status.quorum.can_lose as u64));
        self.leader.reset();
        if let Some(leader) = &status.quorum.leader {
            self.leader.with_label_values(&[leader]).set(1.0);
        }
    }

    fn update_places(&self, status: &StatusDocument) {
        self.site_state.reset();
        for site in &status.sites {
            self.site_state.with_label_values(&[site.name.as_str(), site.state]).set(1.0);
        }
        self.host_state.reset();
        self.lease_left.reset();
        for host in &status.hosts {
            self.host_state.with_label_values(&[host.name.as_str(), &host.site, host.state]).set(1.0);
            if let Some(left) = host.lease_left_ms {
                self.lease_left.with_label_values(&[&host.name]).set(seconds(u64::from(left)));
            }
        }
    }

    fn update_group(&self, group: &GroupLine) {
        let name = group.name.as_str();
        self.group_state.with_label_values(&[name, group.state]).set(1.0);
        if let (Some(host), Some(site)) = (&group.host, &group.site) {
            self.group_owner.with_label_values(&[name, host, site]).set(1.0);
        }
        self.copies.with_label_values(&[name]).set(float(group.data.in_sync.len() as u64));
        if let Some(lag) = group.data.lag_ms {
            self.lag.with_label_values(&[name]).set(seconds(lag));
        }
        let possible = f64::from(u8::from(group.automatic_failover.possible));
        self.failover_possible.with_label_values(&[name]).set(possible);
    }

    /// Everything in Prometheus' text format.
    pub fn render(&self) -> String {
        // Names and labels were checked when they were registered.
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}
