//! While the owner lives: a copy in sync elsewhere, and the way home (protocol §8, I19).

use super::is_following;
use crate::engine::core::Engine;
use crate::failover::Route;
use quorum::id::{GroupName, HostName};
use quorum::ledger::{GroupSpec, GroupState, Initiator, PlanKind, Ticket};
use quorum::moment::Moment;
use quorum::mutants;
use std::time::Duration;

/// Groups are reprotected one after the other's standby has been healthy this long.
const STANDBY_SETTLED: Duration = Duration::from_secs(1);

impl Engine {
    /// Opens a reprotection if no other copy is in sync and a host could hold one. Returns whether one is needed.
    pub(super) fn reprotect(
        &mut self,
        group: &GroupName,
        (state, ticket): (&GroupState, &Ticket),
        spec: &GroupSpec,
    ) -> bool {
        let now = self.now.moment;
        let owner = &ticket.of.host;
        let is_safe = |host: &&HostName| *host != owner && (state.in_sync.contains(*host) || is_following(state, host));
        if spec.volumes.is_empty() || spec.hosts().any(|host| is_safe(&host)) {
            return false;
        }
        let settled = |host: &HostName| {
            let since = self.leading.as_ref().and_then(|leading| leading.healthy.get(host));
            since.is_some_and(|at| now.waited_since(*at) >= STANDBY_SETTLED)
        };
        let elsewhere = |host: &&HostName| *host != owner && !spec.is_same_copy(owner, host) && settled(host);
        let Some(standby) = spec.hosts().find(elsewhere).cloned() else { return true };
        let route =
            Route { from: Some(owner.clone()), to: standby, needs_approval: false, probe_within: Duration::ZERO };
        let because = "no other copy is in sync".to_owned();
        self.open_plan(group, (PlanKind::Reprotect, route), (Initiator::Automatic, because));
        true
    }

    /// Opens the way home by policy: automatic, home stable and in sync for long enough, no site suspect, no other
    /// failback under way, nothing being fenced (I19).
    pub(super) fn fail_back(&mut self, group: &GroupName, (state, ticket): (&GroupState, &Ticket), spec: &GroupSpec) {
        let now = self.now.moment;
        let owner = &ticket.of.host;
        if !spec.failback.automatic || self.ledger.site_of(owner) == Some(&spec.home) {
            if let Some(leading) = &mut self.leading {
                leading.protected.remove(group);
            }
            return;
        }
        let home = spec.places.get(&spec.home).into_iter().flat_map(|place| &place.hosts);
        let Some(target) =
            home.into_iter().find(|host| state.in_sync.contains(*host) || is_following(state, host)).cloned()
        else {
            return;
        };
        let Some(leading) = &mut self.leading else { return };
        let since = *leading.protected.entry(group.clone()).or_insert(now);
        let healthy = leading.healthy.get(&target).copied();
        let is_flapping = leading.damping.is_flapping(now, &target);
        let stable = |at: Moment| now.waited_since(at) >= spec.failback.stable_for;
        if is_flapping || !stable(since) || !healthy.is_some_and(stable) || !self.is_quiet() {
            return;
        }
        let route = self.route(group, Some(owner.clone()), target);
        let because = format!("{} has been stable and in sync for {:?}", spec.home, spec.failback.stable_for);
        self.open_plan(group, (PlanKind::Failback, route), (Initiator::Automatic, because));
    }

    /// No site or host suspect, nothing being fenced, no other group on its way home.
    pub(super) fn is_quiet(&self) -> bool {
        let (sites, hosts) = self.detector.suspects();
        let fencing = self.ledger.tasks().values().any(|task| !task.is_over());
        let moving = self.ledger.plans().values().any(|plan| plan.is_open() && plan.plan.kind == PlanKind::Failback);
        mutants::on("engine.comes_home_in_trouble") || sites.is_empty() && hosts.is_empty() && !fencing && !moving
    }
}
