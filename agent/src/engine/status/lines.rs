//! Fills the status document: versions, freezes, the quorum, sites, hosts, groups and their gates.

use super::document::{
    API_VERSION, DataLine, FreezeLine, GateLine, GatesLine, GroupLine, HostLine, QuorumLine, SiteLine, StatusDocument,
    VersionLine, VoterLine,
};
use crate::detector::Judgement;
use crate::engine::core::Engine;
use quorum::id::{GroupName, HostName};
use quorum::ledger::{CopyCheck, Ended, FreezeScope, GroupState, TicketState, Tier};
use std::time::Duration;

pub(super) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl Engine {
    /// Everything at a glance.
    pub fn status(&self) -> StatusDocument {
        let cluster = self.ledger.cluster();
        StatusDocument {
            api_version: API_VERSION,
            cluster: cluster.map(|cluster| cluster.name.to_string()).unwrap_or_default(),
            lab: cluster.is_some_and(|cluster| cluster.lab),
            index: self.ledger.applied().0,
            seen_by: self.me.host.to_string(),
            as_of_ms: self.leader_age_ms(),
            spec_revision: self.ledger.spec_revision().revision,
            version: self.version_line(),
            freeze: self.freeze_lines(),
            quorum: self.quorum_line(),
            sites: self.site_lines(),
            hosts: self.ledger.spec().hosts.keys().map(|host| self.host_line(host)).collect(),
            groups: self.ledger.spec().groups.keys().map(|group| self.group_line(group)).collect(),
            plans: self
                .ledger
                .plans()
                .values()
                .filter(|plan| plan.is_open())
                .map(|plan| self.plan_line(plan))
                .collect(),
            attention: self.attention(),
        }
    }

    /// Zero on the leader; elsewhere the time since the leader's last beat.
    pub(in crate::engine) fn leader_age_ms(&self) -> u64 {
        let Some(leader) = self.leader() else { return millis(self.now.moment.held_since(self.started)) };
        let last = self.heard.get(&leader).map(|last| millis(self.now.moment.held_since(last.at)));
        last.unwrap_or(0)
    }

    pub(super) fn version_line(&self) -> VersionLine {
        VersionLine {
            cluster: self.ledger.version(),
            here: self.understood,
            behind: self.ledger.behind().into_iter().map(ToString::to_string).collect(),
        }
    }

    fn freeze_lines(&self) -> Vec<FreezeLine> {
        let line = |(index, freeze): (&quorum::id::LogIndex, &quorum::ledger::Freeze)| FreezeLine {
            index: index.0,
            scope: match &freeze.scope {
                FreezeScope::Cluster => "cluster".to_owned(),
                FreezeScope::Site(site) => format!("site {site}"),
                FreezeScope::Group(group) => format!("group {group}"),
            },
            span_ms: millis(freeze.span),
            reason: freeze.by.reason.clone(),
        };
        self.ledger.freezes().iter().map(line).collect()
    }

    pub(in crate::engine) fn quorum_line(&self) -> QuorumLine {
        let voters = self.voter_hosts();
        let is_reachable = |host: &&HostName| {
            **host == self.me.host || matches!(self.detector.judgement(host), Some(Judgement::Trusted))
        };
        let reachable = voters.values().filter(is_reachable).count();
        let majority = quorum::roster::majority(voters.len());
        let member = |(id, host): (&quorum::id::VoterId, &HostName)| VoterLine {
            id: id.0,
            host: host.to_string(),
            reachable: is_reachable(&host),
        };
        QuorumLine {
            voters: voters.len(),
            reachable,
            can_lose: reachable.saturating_sub(majority),
            leader: self.leader().map(|leader| leader.to_string()),
            members: voters.iter().map(member).collect(),
        }
    }

    fn site_lines(&self) -> Vec<SiteLine> {
        let spec = self.ledger.spec();
        let line = |(name, site): (&quorum::id::SiteName, &quorum::ledger::SiteSpec)| {
            let hosts: Vec<&HostName> =
                spec.hosts.iter().filter(|(_, host)| host.site == *name).map(|(host, _)| host).collect();
            let lost = hosts.iter().filter(|host| self.host_state(host) == "lost").count();
            let suspect = hosts.iter().filter(|host| self.is_silent(host)).count();
            let state = match hosts.len() {
                0 => "unknown",
                n if lost == n => "lost",
                n if suspect == n => "suspect",
                _ if lost + suspect > 0 => "partial",
                _ => "healthy",
            };
            SiteLine { name: name.to_string(), state, witness: site.witness }
        };
        spec.sites.iter().map(line).collect()
    }

    fn host_state(&self, host: &HostName) -> &'static str {
        let current = self.ledger.host(host).and_then(|state| state.incarnations.get(&state.he));
        match current.map(|current| current.ended) {
            None => "unknown",
            Some(None) if self.is_silent(host) => "suspect",
            Some(None) => "admitted",
            Some(Some(Ended::Lost { .. })) => "lost",
            Some(Some(Ended::Retired { .. } | Ended::EraOver { .. })) => "retired",
        }
    }

    fn host_line(&self, host: &HostName) -> HostLine {
        let state = self.ledger.host(host);
        let current = state.and_then(|state| state.incarnations.get(&state.he));
        let grant = self.voting.as_ref().map(|voting| voting.lease.last_grant(host));
        let is_me = *host == self.me.host;
        HostLine {
            name: host.to_string(),
            site: self.ledger.site_of(host).map(ToString::to_string).unwrap_or_default(),
            class: current.map(|current| current.class.to_string()).unwrap_or_default(),
            state: self.host_state(host),
            host_epoch: state.map(|state| state.he.to_string()),
            last_grant_age_ms: grant.map(|at| millis(self.now.moment.waited_since(at))),
            lease_left_ms: is_me.then(|| self.lease_left_ms()),
        }
    }

    fn group_line(&self, group: &GroupName) -> GroupLine {
        let spec = &self.ledger.spec().groups[group];
        let state = self.ledger.group(group);
        let ticket = state.and_then(|state| state.ticket.as_ref());
        let host = ticket.map(|ticket| ticket.of.host.clone());
        let site = host.as_ref().and_then(|host| self.ledger.site_of(host));
        let shape = site.and_then(|site| spec.places.get(site)).map(|place| match place.shape {
            quorum::ledger::Shape::Vm => "vm",
            quorum::ledger::Shape::Physical => "physical",
        });
        GroupLine {
            name: group.to_string(),
            tier: match spec.tier {
                Tier::Auto => "auto",
                Tier::Approve => "approve",
                Tier::Manual => "manual",
                Tier::Restore => "restore",
            },
            state: self.group_state(group, state),
            site: site.map(ToString::to_string),
            shape,
            epoch: ticket.map(|ticket| ticket.epoch.to_string()),
            data: self.data_line(group, state),
            would_go_to: self.would_go_to(group).map(|host| host.to_string()),
            gates: self.gates(group, state),
            automatic_failover: self.automatic_failover(group),
            pin: state.and_then(|state| self.pin_line(group, state)),
            host: host.map(|host| host.to_string()),
        }
    }

    fn group_state(&self, group: &GroupName, state: Option<&GroupState>) -> &'static str {
        let Some(ticket) = state.and_then(|state| state.ticket.as_ref()) else { return "unborn" };
        if let Some(plan) = self.ledger.open_plan(group) {
            match plan.plan.kind {
                quorum::ledger::PlanKind::Failover => return "failing-over",
                quorum::ledger::PlanKind::Switchover | quorum::ledger::PlanKind::Failback => return "moving",
                _ => {}
            }
        }
        if self.ledger.is_ended(&ticket.of) {
            return "held";
        }
        match ticket.state {
            TicketState::Granted => "granted",
            TicketState::Running => "running",
            TicketState::Stopped { .. } => "stopped",
        }
    }

    fn data_line(&self, group: &GroupName, state: Option<&GroupState>) -> DataLine {
        let in_sync: Vec<String> =
            state.into_iter().flat_map(|state| &state.in_sync).map(ToString::to_string).collect();
        let is_protected = in_sync.len() > 1;
        let ticket = state.and_then(|state| state.ticket.as_ref());
        let heard = state.and_then(|state| self.lag_heard(group, state));
        let (lag, since) = if is_protected { (Some(Duration::ZERO), Some(Duration::ZERO)) } else { heard.unzip() };
        let owner = ticket.map(|ticket| &ticket.of.host);
        let spec = self.ledger.group_spec(group).filter(|spec| !spec.volumes.is_empty());
        let others = spec.into_iter().flat_map(|spec| spec.hosts()).filter(|host| Some(*host) != owner);
        let losses = others.filter_map(|host| self.expected_loss((group, state?), host, CopyCheck::Agrees));
        DataLine {
            generation: state.map(|state| state.generation.0).unwrap_or_default(),
            lag_ms: lag.map(millis),
            attested_ms_ago: since.map(millis),
            expected_loss_ms: losses.min().map(millis),
            in_sync,
        }
    }

    fn gates(&self, group: &GroupName, state: Option<&GroupState>) -> GatesLine {
        let gate = |state, because: String| GateLine { state, because };
        let Some(ticket) = state.and_then(|state| state.ticket.as_ref()) else {
            let nothing = || gate("closed", "the group has no owner yet".into());
            return GatesLine { detect: nothing(), declare: nothing(), fence: nothing(), activate: nothing() };
        };
        let owner = &ticket.of.host;
        let is_ended = self.ledger.is_ended(&ticket.of);
        let detect = if is_ended || self.is_silent(owner) {
            gate("open", format!("{owner} is silent here, or its host epoch is over"))
        } else {
            gate("closed", format!("{owner} is heard"))
        };
        let told = self.leading.as_ref().and_then(|leading| leading.told.get(owner));
        let declare = match (is_ended, told) {
            (true, _) => gate("open", format!("the host epoch of {} is over", ticket.of)),
            (false, Some((_, because))) => gate("waiting", because.clone()),
            (false, None) => gate("closed", format!("{} is admitted", ticket.of)),
        };
        let proofs = self.ledger.covering_evidence(group);
        let missing = proofs.iter().find_map(|(of, proof)| proof.as_ref().err().map(|gap| format!("{of}: {gap}")));
        let fence = match missing {
            None => gate("open", "every possible owner is proven harmless".into()),
            Some(because) if is_ended => gate("waiting", because),
            Some(because) => gate("closed", because),
        };
        GatesLine { detect, declare, fence, activate: self.activate_gate(group, is_ended) }
    }

    fn activate_gate(&self, group: &GroupName, is_ended: bool) -> GateLine {
        let mut because = self.local.runners.get(group).map(|runner| runner.because().to_owned()).unwrap_or_default();
        if let Some(held) = self.leading.as_ref().and_then(|leading| leading.gate_told.get(group)).filter(|_| is_ended)
        {
            because.clone_from(held);
        }
        if let (true, true, Some((held, _))) = (is_ended, because.is_empty(), self.activation_held(group)) {
            because = held;
        }
        match self.would_go_to(group) {
            _ if !is_ended && because.is_empty() => {
                GateLine { state: "closed", because: "it is not to be moved".into() }
            }
            _ if !because.is_empty() => GateLine { state: "waiting", because },
            Some(host) => GateLine { state: "open", because: format!("{host} could run it") },
            None => GateLine { state: "closed", because: "no other host could run it now".into() },
        }
    }
}
