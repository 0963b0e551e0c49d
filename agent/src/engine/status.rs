//! The status document: what `antipode status` shows, as seen by this agent at its log index.
//!
//! Field names are the JSON interface (issue: kept at least; additive). States are words that a person can read.

use super::core::Engine;
use crate::detector::Judgement;
use quorum::id::{GroupName, HostName};
use quorum::ledger::{
    CopyCheck, Ended, FreezeScope, GroupState, Initiator, PlanState, StepKind, StepState, TicketState, Tier,
};
use serde::Serialize;
use std::time::Duration;

/// Version of every JSON output.
pub const API_VERSION: u32 = 1;

/// `status -o json`.
#[derive(Clone, Debug, Serialize)]
pub struct StatusDocument {
    /// Version of this document.
    pub api_version: u32,
    /// The cluster's name; empty before it exists.
    pub cluster: String,
    /// It is a lab.
    pub lab: bool,
    /// Log index that this agent has applied.
    pub index: u64,
    /// Which host says so.
    pub seen_by: String,
    /// Age of what is shown: time since this agent last heard a leader, in milliseconds.
    pub as_of_ms: u64,
    /// Revision of the spec in force.
    pub spec_revision: u64,
    /// Versions, while releases are mixed.
    pub version: VersionLine,
    /// Freezes in force.
    pub freeze: Vec<FreezeLine>,
    /// The quorum.
    pub quorum: QuorumLine,
    /// Sites.
    pub sites: Vec<SiteLine>,
    /// Hosts.
    pub hosts: Vec<HostLine>,
    /// Groups.
    pub groups: Vec<GroupLine>,
    /// Open plans.
    pub plans: Vec<PlanLine>,
    /// What a person should look at.
    pub attention: Vec<AttentionLine>,
}

/// Which version of entries and messages is in force.
#[derive(Clone, Debug, Serialize)]
pub struct VersionLine {
    /// The cluster's.
    pub cluster: u32,
    /// The highest that this agent understands.
    pub here: u32,
    /// Voters and admitted hosts that hold the cluster back: others understand more.
    pub behind: Vec<String>,
}

/// A freeze in force.
#[derive(Clone, Debug, Serialize)]
pub struct FreezeLine {
    /// Its identity: the log index at which it began.
    pub index: u64,
    /// What is frozen.
    pub scope: String,
    /// For how long, from its beginning.
    pub span_ms: u64,
    /// Why.
    pub reason: String,
}

/// The quorum.
#[derive(Clone, Debug, Serialize)]
pub struct QuorumLine {
    /// Voters in force.
    pub voters: usize,
    /// Voters heard now, this one included if it votes.
    pub reachable: usize,
    /// How many more may be lost.
    pub can_lose: usize,
    /// The leader's host.
    pub leader: Option<String>,
    /// The voters in force.
    pub members: Vec<VoterLine>,
}

/// A voter.
#[derive(Clone, Debug, Serialize)]
pub struct VoterLine {
    /// Its identity in Raft.
    pub id: u64,
    /// Its host.
    pub host: String,
    /// It is heard here now.
    pub reachable: bool,
}

/// A site.
#[derive(Clone, Debug, Serialize)]
pub struct SiteLine {
    /// Its name.
    pub name: String,
    /// healthy, suspect, partial, lost or unknown.
    pub state: &'static str,
    /// It never runs workloads.
    pub witness: bool,
}

/// A host.
#[derive(Clone, Debug, Serialize)]
pub struct HostLine {
    /// Its name.
    pub name: String,
    /// Its site.
    pub site: String,
    /// A, B, C or D; empty if it was never admitted.
    pub class: String,
    /// admitted, suspect, lost, retired or unknown.
    pub state: &'static str,
    /// Its current or last host epoch.
    pub host_epoch: Option<String>,
    /// Time since this voter last granted it a lease.
    pub last_grant_age_ms: Option<u64>,
    /// What is left of the lease; this host's own only.
    pub lease_left_ms: Option<u32>,
}

/// A group.
#[derive(Clone, Debug, Serialize)]
pub struct GroupLine {
    /// Its name.
    pub name: String,
    /// auto, approve, manual or restore.
    pub tier: &'static str,
    /// unborn, granted, running, stopped, failing-over, held or moving.
    pub state: &'static str,
    /// The owner.
    pub host: Option<String>,
    /// The owner's site.
    pub site: Option<String>,
    /// vm or physical.
    pub shape: Option<&'static str>,
    /// The ticket's epoch.
    pub epoch: Option<String>,
    /// Its data.
    pub data: DataLine,
    /// Where it would go.
    pub would_go_to: Option<String>,
    /// The four gates.
    pub gates: GatesLine,
    /// Whether the cluster can fail it over by itself.
    pub automatic_failover: PossibleLine,
    /// It is tied to a host.
    pub pin: Option<PinLine>,
}

/// A group's tie to a host.
#[derive(Clone, Debug, Serialize)]
pub struct PinLine {
    /// To which host.
    pub host: String,
    /// To which admission of it.
    pub host_epoch: String,
    /// The host's keeper has said that it spares the group.
    pub acknowledged: bool,
    /// Its processes are out of the lease's reach; only that host itself knows.
    pub in_force: Option<bool>,
    /// Why it was pinned.
    pub reason: String,
}

/// A group's data.
#[derive(Clone, Debug, Serialize)]
pub struct DataLine {
    /// Hosts whose copies have everything.
    pub in_sync: Vec<String>,
    /// The generation.
    pub generation: u64,
    /// How far the furthest copy is behind; 0 when in sync, null when nobody knows.
    pub lag_ms: Option<u64>,
    /// Time since that was attested.
    pub attested_ms_ago: Option<u64>,
    /// The most that a takeover by the best other copy would lose now; null when nobody can say.
    pub expected_loss_ms: Option<u64>,
}

/// One gate.
#[derive(Clone, Debug, Serialize)]
pub struct GateLine {
    /// open, waiting or closed.
    pub state: &'static str,
    /// Why.
    pub because: String,
}

/// The four gates.
#[derive(Clone, Debug, Serialize)]
pub struct GatesLine {
    /// Is it heard?
    pub detect: GateLine,
    /// Is its host declared lost?
    pub declare: GateLine,
    /// Is every possible owner proven harmless?
    pub fence: GateLine,
    /// May it be activated?
    pub activate: GateLine,
}

/// Whether something is possible.
#[derive(Clone, Debug, Serialize)]
pub struct PossibleLine {
    /// Whether.
    pub possible: bool,
    /// Why not, or on what it rests.
    pub because: String,
}

/// An open plan.
#[derive(Clone, Debug, Serialize)]
pub struct PlanLine {
    /// Its identity.
    pub id: u64,
    /// What for.
    pub kind: &'static str,
    /// Which group.
    pub group: String,
    /// waiting, running or failed.
    pub state: &'static str,
    /// The current step.
    pub step: String,
    /// How long its attempt may take.
    pub deadline_ms: u64,
    /// The person's next command, if it waits for one.
    pub next: String,
}

/// What a person should look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AttentionLine {
    /// A stable word.
    pub code: &'static str,
    /// What happened and what it means.
    pub text: String,
    /// The next command.
    pub next: String,
}

fn millis(span: std::time::Duration) -> u64 {
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
    pub(super) fn leader_age_ms(&self) -> u64 {
        let Some(leader) = self.leader() else { return millis(self.now.moment.held_since(self.started)) };
        let last = self.heard.get(&leader).map(|last| millis(self.now.moment.held_since(last.at)));
        last.unwrap_or(0)
    }

    fn version_line(&self) -> VersionLine {
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

    pub(super) fn quorum_line(&self) -> QuorumLine {
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

    fn is_suspect(&self, host: &HostName) -> bool {
        matches!(self.detector.judgement(host), Some(Judgement::Suspect { .. }))
    }

    fn site_lines(&self) -> Vec<SiteLine> {
        let spec = self.ledger.spec();
        let line = |(name, site): (&quorum::id::SiteName, &quorum::ledger::SiteSpec)| {
            let hosts: Vec<&HostName> =
                spec.hosts.iter().filter(|(_, host)| host.site == *name).map(|(host, _)| host).collect();
            let lost = hosts.iter().filter(|host| self.host_state(host) == "lost").count();
            let suspect = hosts.iter().filter(|host| self.is_suspect(host)).count();
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
            Some(None) if self.is_suspect(host) => "suspect",
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
        let detect = if is_ended || self.is_suspect(owner) {
            gate("open", format!("{owner} is silent here, or its host epoch is over"))
        } else {
            gate("closed", format!("{owner} is heard"))
        };
        let told = self.leading.as_ref().and_then(|leading| leading.told.get(owner));
        let declare = match (is_ended, told) {
            (true, _) => gate("open", format!("the host epoch of {} is over", ticket.of)),
            (false, Some(because)) => gate("waiting", because.clone()),
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

    fn attention(&self) -> Vec<AttentionLine> {
        let mut lines = Vec::new();
        if let Some(brake) = self.ledger.brake() {
            lines.push(AttentionLine {
                code: "brake",
                text: format!("the brake is set: {}; nothing is activated automatically", brake.because),
                next: "antipode brake release".into(),
            });
        }
        let quorum = self.quorum_line();
        if quorum.leader.is_none() && quorum.reachable < quorum::roster::majority(quorum.voters) {
            lines.push(AttentionLine {
                code: "no-majority",
                text: format!(
                    "{} of {} voters are heard, too few to decide anything: no group is started or moved, and those whose \
                     lease ends are stopped. It ends when another voter is heard; recover only if they are gone for ever",
                    quorum.reachable, quorum.voters
                ),
                next: "antipode quorum recover".into(),
            });
        } else if quorum.leader.is_none() {
            lines.push(AttentionLine {
                code: "no-leader",
                text: format!(
                    "no leader; {} of {} voters are heard. Nothing can be decided",
                    quorum.reachable, quorum.voters
                ),
                next: "antipode quorum status".into(),
            });
        } else if quorum.can_lose == 0 && quorum.voters > 1 {
            lines.push(AttentionLine {
                code: "no-spare-voter",
                text: "the quorum can lose no more voter: automatic failover is suspended if it does".into(),
                next: "antipode quorum status".into(),
            });
        }
        lines.extend(self.version_attention());
        lines.extend(self.host_attention());
        lines.extend(self.fence_attention());
        lines.extend(self.group_attention());
        lines
    }

    fn version_attention(&self) -> Option<AttentionLine> {
        let VersionLine { cluster, behind, .. } = self.version_line();
        let first = behind.first()?;
        let text =
            format!("releases are mixed: the cluster stays at version {cluster} until {} follow", behind.join(", "));
        Some(AttentionLine { code: "version-behind", text, next: format!("install the newer release on {first}") })
    }

    fn group_attention(&self) -> Vec<AttentionLine> {
        let mut lines = Vec::new();
        for group in self.ledger.spec().groups.keys() {
            let Some(state) = self.ledger.group(group) else { continue };
            let Some(ticket) = &state.ticket else { continue };
            lines.extend(state.diverged.iter().map(|(copy, found)| AttentionLine {
                code: "data-diverged",
                text: format!("{group}: {copy}'s copy doesn't fit the log ({found:?}): two sides may have written"),
                next: format!("look at both copies; bring {} back, its copy goes on", ticket.of.host),
            }));
            if let Some(line) = self.pin_attention(group, state) {
                lines.push(line);
                continue;
            }
            if self.ledger.is_ended(&ticket.of) {
                let gaps = self.ledger.covering_evidence(group);
                let gap = gaps.iter().find_map(|(of, proof)| proof.as_ref().err().map(|gap| format!("{of}: {gap}")));
                let held = self.leading.as_ref().and_then(|leading| leading.gate_told.get(group));
                if let (None, Some(because)) = (&gap, held) {
                    lines.push(AttentionLine {
                        code: "data-held",
                        text: format!("{group} is down and held: {because}"),
                        next: format!("bring {} back, or antipode failover {group} --accept-loss", ticket.of.host),
                    });
                    continue;
                }
                let (because, next) = match (gap, self.activation_held(group)) {
                    (None, Some((because, next))) => (because, next),
                    (gap, _) => {
                        (gap.unwrap_or_else(|| "it is taken over".into()), format!("antipode explain group {group}"))
                    }
                };
                let text = format!("{group} has lost its owner {}: {because}", ticket.of);
                lines.push(AttentionLine { code: "group-down", text, next });
            } else if ticket.state == TicketState::Granted {
                let text = format!("{group} was granted to {} and isn't up there yet", ticket.of);
                lines.push(AttentionLine {
                    code: "group-starting",
                    text,
                    next: format!("antipode explain group {group}"),
                });
            } else if state.in_sync.len() < 2
                && !state.copies.keys().any(|host| super::groups::is_following(state, host))
                && !self.ledger.spec().groups[group].volumes.is_empty()
            {
                lines.push(AttentionLine {
                    code: "unprotected",
                    text: format!("{group} has no second copy in sync: losing {} would lose data", ticket.of.host),
                    next: format!("antipode reprotect {group}"),
                });
            }
        }
        lines
    }
}

impl Engine {
    fn plan_line(&self, plan: &PlanState) -> PlanLine {
        let current = plan.current_step();
        let step = current.map(|index| &plan.plan.steps[index]);
        let state = match current.map(|index| &plan.steps[index]) {
            None => "running",
            Some(StepState::Waiting) => "waiting",
            Some(StepState::Started { .. }) => "running",
            Some(StepState::Ended { .. }) => "failed",
        };
        PlanLine {
            id: plan.id.0,
            kind: plan.plan.kind.as_str(),
            group: plan.plan.group.to_string(),
            state,
            step: step.map(|step| format!("{:?}", step.kind)).unwrap_or_default(),
            deadline_ms: step.map(|step| millis(step.deadline)).unwrap_or_default(),
            next: self.next_for(plan),
        }
    }

    /// What a person can do for a plan that waits for somebody, or whose step failed.
    pub(super) fn next_for(&self, plan: &PlanState) -> String {
        let group = &plan.plan.group;
        let current = plan.current_step();
        let failed = current.is_some_and(|index| matches!(plan.steps[index], StepState::Ended { .. }));
        let by_itself = plan.plan.initiator == Initiator::Automatic;
        match (current.map(|index| plan.plan.steps[index].kind), &plan.plan.from) {
            (Some(StepKind::AwaitApproval), _) if !plan.is_approved() => format!("antipode approve plan {}", plan.id),
            (Some(StepKind::AwaitEvidence), Some(from)) => {
                format!(
                    "antipode explain group {group}; if {0} is off for sure: antipode fence override host {0}",
                    from.host
                )
            }
            (Some(StepKind::Grant), _) if plan.pivot.is_none() => match self.activation_held(group) {
                Some((_, next)) if by_itself => next,
                _ => format!(
                    "antipode explain group {group}; if its data is held: antipode failover {group} --accept-loss"
                ),
            },
            _ if failed => format!("antipode explain group {group}; it is tried again by itself"),
            _ => String::new(),
        }
    }
}
