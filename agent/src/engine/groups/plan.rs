//! Making plans: which steps, from where, to where, by whom.

use crate::engine::core::Engine;
use crate::engine::operator::Move;
use crate::failover::{Route, steps};
use quorum::id::{GroupName, HostName};
use quorum::ledger::{Command, Initiator, Plan, PlanKind, Tier};

impl Engine {
    pub(super) fn route(&self, group: &GroupName, from: Option<HostName>, to: HostName) -> Route {
        let config = self.spec.as_ref().and_then(|spec| spec.groups.get(group));
        let place = config.and_then(|config| config.places.get(self.ledger.site_of(&to)?));
        let probe = place.and_then(|place| place.probe.as_ref());
        let tier = self.ledger.group_spec(group).map(|spec| spec.tier);
        Route {
            from,
            to,
            needs_approval: tier == Some(Tier::Approve),
            probe_within: probe.map(|probe| probe.within).unwrap_or_default(),
        }
    }

    pub(super) fn make_plan(
        &self,
        group: &GroupName,
        (kind, route): (PlanKind, Route),
        why: (Initiator, String),
    ) -> Option<Plan> {
        let state = self.ledger.group(group)?;
        let (initiator, because) = why;
        Some(Plan {
            kind,
            group: group.clone(),
            epoch: state.epoch,
            from: state.ticket.as_ref().map(|ticket| ticket.of.clone()),
            steps: steps(kind, &route),
            to: Some(route.to),
            initiator,
            because,
        })
    }

    pub(super) fn open_plan(&mut self, group: &GroupName, what: (PlanKind, Route), why: (Initiator, String)) {
        if let Some(plan) = self.make_plan(group, what, why) {
            self.propose_paced(group.as_str(), Command::PlanOpened { plan });
        }
    }

    /// The plan that a person asks for, or why there can be none.
    pub(in crate::engine) fn plan_for(&self, wanted: &Move, initiator: Initiator) -> Result<Plan, String> {
        if let Some(plan) = self.ledger.open_plan(&wanted.group) {
            let (id, kind) = (plan.id, plan.plan.kind.as_str());
            return Err(format!(
                "plan {id} ({kind}) of {} is under way; antipode plan cancel {id} ends it",
                wanted.group
            ));
        }
        self.new_plan(wanted, initiator)
    }

    /// As `plan_for`, whatever is under way.
    pub(super) fn new_plan(&self, wanted: &Move, initiator: Initiator) -> Result<Plan, String> {
        let group = &wanted.group;
        let state = self.ledger.group(group).ok_or_else(|| format!("there is no group {group}"))?;
        let spec = self.ledger.group_spec(group).ok_or_else(|| format!("the spec has no group {group}"))?;
        if let Some(pin) = state.pin.as_ref().filter(|_| wanted.kind != PlanKind::Reprotect) {
            return Err(format!("{group} is pinned to {}; antipode thaw --pin {group} unties it", pin.of));
        }
        let owner = state.ticket.as_ref().map(|ticket| ticket.of.host.clone());
        let home = spec.places.get(&spec.home).and_then(|place| place.hosts.first()).cloned();
        let chosen = match wanted.kind {
            PlanKind::Failback => wanted.to.clone().or(home),
            PlanKind::Reprotect => {
                wanted.to.clone().or_else(|| spec.hosts().find(|host| Some(*host) != owner.as_ref()).cloned())
            }
            _ => wanted.to.clone().or_else(|| self.would_go_to(group)),
        };
        let to = chosen.ok_or_else(|| format!("no host could take {group} now"))?;
        if !spec.names(&to) {
            return Err(format!("{to} is no place of {group}"));
        }
        if Some(&to) == owner.as_ref() {
            return Err(format!("{group} runs on {to} already"));
        }
        let route = Route { needs_approval: false, ..self.route(group, owner, to) };
        self.make_plan(group, (wanted.kind, route), (initiator, wanted.reason.clone()))
            .ok_or_else(|| format!("there is no group {group}"))
    }
}
