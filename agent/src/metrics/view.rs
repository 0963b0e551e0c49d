//! How everything stands: gauges made from the status document at each scrape.
//!
//! Things that are gone leave no stale series: all labelled series are made anew.

use super::table::{Table, float, seconds};
use crate::engine::{GroupLine, StatusDocument};
use prometheus::{Gauge, GaugeVec};

/// The gauges of the status.
#[derive(Debug)]
pub(super) struct View {
    build: GaugeVec,
    applied_index: Gauge,
    view_age: Gauge,
    spec_revision: Gauge,
    voters: Gauge,
    voters_reachable: Gauge,
    voters_spare: Gauge,
    leader: GaugeVec,
    lease_left: GaugeVec,
    grant_age: GaugeVec,
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
}

impl View {
    pub(super) fn new(t: &mut Table) -> Self {
        Self {
            build: t.gauges("antipode_build_info", &["version"], "Always 1"),
            applied_index: t.gauge("antipode_applied_index", "Log index that this agent has applied"),
            view_age: t.gauge("antipode_view_age_seconds", "Time since this agent last heard a leader"),
            spec_revision: t.gauge("antipode_spec_revision", "Revision of the cluster spec in force"),
            voters: t.gauge("antipode_voters", "Voters in force"),
            voters_reachable: t.gauge("antipode_voters_reachable", "Voters heard by this agent"),
            voters_spare: t.gauge("antipode_voters_spare", "Voters that may still be lost"),
            leader: t.gauges("antipode_leader", &["host"], "1 for the leader; absent without one"),
            lease_left: t.gauges("antipode_lease_left_seconds", &["host"], "What is left of this host's lease"),
            grant_age: t.gauges(
                "antipode_last_grant_age_seconds",
                &["host"],
                "Time since this voter last granted the host a lease",
            ),
            site_state: t.gauges("antipode_site_state", &["site", "state"], "1 for the state that a site is in"),
            host_state: t.gauges("antipode_host_state", &["host", "site", "state"], "1 for the state of a host"),
            group_state: t.gauges("antipode_group_state", &["group", "state"], "1 for the state of a group"),
            group_owner: t.gauges("antipode_group_owner", &["group", "host", "site"], "1 for a group's owner"),
            copies: t.gauges("antipode_group_copies_in_sync", &["group"], "Hosts whose copies have everything"),
            lag: t.gauges("antipode_group_lag_seconds", &["group"], "Data loss now; absent while unknown"),
            failover_possible: t.gauges(
                "antipode_group_failover_possible",
                &["group"],
                "1 if the cluster can fail the group over by itself",
            ),
            plans: t.gauges("antipode_plans_open", &["kind", "state"], "Open plans"),
            attention: t.gauges("antipode_attention", &["code"], "Things that a person should look at"),
            freezes: t.gauge("antipode_freezes", "Freezes in force"),
        }
    }

    pub(super) fn update(&self, status: &StatusDocument) {
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
        self.grant_age.reset();
        for host in &status.hosts {
            self.host_state.with_label_values(&[host.name.as_str(), &host.site, host.state]).set(1.0);
            if let Some(left) = host.lease_left_ms {
                self.lease_left.with_label_values(&[&host.name]).set(seconds(u64::from(left)));
            }
            if let Some(age) = host.last_grant_age_ms {
                self.grant_age.with_label_values(&[&host.name]).set(seconds(age));
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
}
