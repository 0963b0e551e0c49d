//! What people order by name, turned into commands of the ledger: incarnations, signs and causes come from what this
//! engine knows, not from what a person typed.
//!
//! Not here: whether it is allowed. The ledger's `apply` decides that.

use super::core::Engine;
use super::fence_order::hosts_of_claim;
use quorum::id::{GroupName, HostName, LogIndex, PlanId, SiteName};
use quorum::ledger::{
    Command, Contrary, Decision, EndCause, FreezeScope, Incarnation, PlaceScope, PlanOutcome, StepOutcome, Subject,
    UnpinGround,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What the audit entry of a retry is called; every agent that applies it stops waiting.
pub(super) const RETRY: &str = "plan retry";

/// What an order is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "name", rename_all = "kebab-case")]
pub enum Scope {
    /// Everything.
    Cluster,
    /// A site.
    Site(SiteName),
    /// A host.
    Host(HostName),
    /// A group.
    Group(GroupName),
}

/// With what a person agrees or disagrees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "id", rename_all = "kebab-case")]
pub enum Matter {
    /// A plan, by its number.
    Plan(u64),
    /// An override, by the log index at which it was asked for.
    Override(u64),
}

/// An order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "kebab-case")]
pub enum Order {
    /// Stop new declarations and new plans for a while.
    Freeze {
        /// The cluster, a site or a group.
        scope: Scope,
        /// For how long, in milliseconds.
        span_ms: u64,
        /// Activations that are under way wait, too.
        hold_activation: bool,
    },
    /// End a freeze.
    Thaw {
        /// Its log index, as `status` shows it.
        freeze: u64,
    },
    /// Begin work on a host or site.
    Maintenance {
        /// A host or a site.
        scope: Scope,
        /// For how long, in milliseconds.
        span_ms: u64,
    },
    /// End work on a host or site.
    EndMaintenance {
        /// A host or a site.
        scope: Scope,
    },
    /// Agree.
    Approve {
        /// With what.
        matter: Matter,
    },
    /// Refuse.
    Deny {
        /// What.
        matter: Matter,
    },
    /// Let automatic activation go on.
    ReleaseBrake,
    /// Give a plan up before its pivot.
    CancelPlan {
        /// Its number.
        plan: u64,
    },
    /// Try the current step of a plan again now.
    RetryPlan {
        /// Its number.
        plan: u64,
    },
    /// Go on without the current step of a plan.
    SkipStep {
        /// Its number.
        plan: u64,
    },
    /// Tie a group to the host that runs it, through work on the network.
    Pin {
        /// Which.
        group: GroupName,
    },
    /// Untie a group.
    Unpin {
        /// Which.
        group: GroupName,
    },
    /// A host that was away, or kept getting lost, may serve again.
    ReadmitHost {
        /// Which.
        host: HostName,
    },
    /// A host ends.
    RemoveHost {
        /// Which.
        host: HostName,
    },
    /// A group ends.
    RemoveGroup {
        /// Which.
        group: GroupName,
    },
}

fn freeze_scope(scope: Scope) -> Result<FreezeScope, String> {
    match scope {
        Scope::Cluster => Ok(FreezeScope::Cluster),
        Scope::Site(site) => Ok(FreezeScope::Site(site)),
        Scope::Group(group) => Ok(FreezeScope::Group(group)),
        Scope::Host(host) => Err(format!("{host} is a host: freeze its site, or put it in maintenance")),
    }
}

pub(super) fn place_scope(scope: Scope) -> Result<PlaceScope, String> {
    match scope {
        Scope::Site(site) => Ok(PlaceScope::Site(site)),
        Scope::Host(host) => Ok(PlaceScope::Host(host)),
        Scope::Cluster => Err("name a host or a site".to_owned()),
        Scope::Group(group) => Err(format!("{group} is a group: name a host or a site")),
    }
}

impl Matter {
    const fn subject(self) -> Subject {
        match self {
            Self::Plan(id) => Subject::Plan(PlanId(id)),
            Self::Override(index) => Subject::Override(LogIndex(index)),
        }
    }
}

impl Engine {
    /// The commands that an order is, the last of which decides the answer; or why it makes no sense.
    pub(super) fn commands_for(&self, order: Order, by: Decision) -> Result<Vec<Command>, String> {
        let command = match order {
            Order::Freeze { scope, span_ms, hold_activation } => {
                let span = Duration::from_millis(span_ms);
                Command::Freeze { scope: freeze_scope(scope)?, span, hold_activation, by }
            }
            Order::Thaw { freeze } => Command::Thaw { freeze: LogIndex(freeze), cause: EndCause::Person(by) },
            Order::Maintenance { scope, span_ms } => {
                Command::Maintenance { scope: place_scope(scope)?, span: Duration::from_millis(span_ms), by }
            }
            Order::EndMaintenance { scope } => {
                Command::MaintenanceEnded { scope: place_scope(scope)?, cause: EndCause::Person(by) }
            }
            Order::Approve { matter } => {
                let contrary = self.contrary_to(matter);
                let shown = self.shown_at_agreement(matter, &contrary);
                Command::Approve { subject: matter.subject(), by: Decision { shown, ..by }, contrary }
            }
            Order::Deny { matter } => Command::Deny { subject: matter.subject(), by },
            Order::ReleaseBrake => Command::BrakeReleased { by },
            Order::CancelPlan { plan } => return Ok(self.cancellation(PlanId(plan), &by)),
            Order::RetryPlan { plan } => self.retry(PlanId(plan), by)?,
            Order::SkipStep { plan } => {
                let (step, attempt) = self.current_step_of(PlanId(plan))?;
                Command::StepEnded { plan: PlanId(plan), step, attempt, outcome: StepOutcome::Skipped { by } }
            }
            Order::Pin { group } => Command::Pin { of: self.owner_of(&group)?, group, by },
            Order::Unpin { group } => self.unpin(group, by)?,
            // Taken by `on_order`: which commands it is depends on where the host stands.
            Order::ReadmitHost { host } => return Err(format!("{host} is readmitted by its name only")),
            Order::RemoveHost { host } => Command::HostRemoved { host, by },
            Order::RemoveGroup { group } => Command::GroupRemoved { group, by },
        };
        Ok(vec![command])
    }

    /// A planned move that has begun is first given up, then its plan.
    fn cancellation(&self, plan: PlanId, by: &Decision) -> Vec<Command> {
        let because = format!("cancelled by {}: {}", by.by, by.reason);
        let group = self.ledger.plans().get(&plan).map(|state| state.plan.group.clone());
        let intent = group.and_then(|group| {
            let state = self.ledger.group(&group)?;
            let intent = state.intent.as_ref().filter(|intent| intent.plan == Some(plan))?.id;
            Some(Command::SwitchAbort { group, intent, because: because.clone() })
        });
        let close = Command::PlanClosed { plan, outcome: PlanOutcome::Cancelled { because } };
        let (action, detail) = ("plan cancel".to_owned(), format!("plan {plan}"));
        let audit = Command::Audit { action, detail, by: by.clone() };
        [audit].into_iter().chain(intent).chain([close]).collect()
    }

    fn retry(&self, plan: PlanId, by: Decision) -> Result<Command, String> {
        let _open = self.current_step_of(plan)?;
        Ok(Command::Audit { action: RETRY.to_owned(), detail: plan.to_string(), by })
    }

    fn owner_of(&self, group: &GroupName) -> Result<Incarnation, String> {
        let ticket = self.ledger.group(group).and_then(|state| state.ticket.as_ref());
        ticket.map(|ticket| ticket.of.clone()).ok_or_else(|| format!("{group} has no owner"))
    }

    /// Whether it is for this host to take the group back under its lease, step by step.
    pub(super) fn unties_here(&self, group: &GroupName) -> bool {
        let pin = self.ledger.group(group).and_then(|state| self.pin_here(state));
        let of = pin.map(|pin| pin.of.clone());
        let is_proven = |of: &Incarnation| {
            self.ledger.covering_evidence(group).iter().any(|(owner, proof)| owner == of && proof.is_ok())
        };
        of.is_some_and(|of| !is_proven(&of))
    }

    /// With proof from anywhere; without it by the host itself, see [`Engine::unties_here`].
    fn unpin(&self, group: GroupName, by: Decision) -> Result<Command, String> {
        let pin = self.ledger.group(&group).and_then(|state| state.pin.as_ref());
        let pinned = pin.map(|pin| pin.of.clone()).ok_or_else(|| format!("{group} is not pinned"))?;
        let is_proven = self.ledger.covering_evidence(&group).iter().any(|(of, proof)| *of == pinned && proof.is_ok());
        if is_proven {
            return Ok(Command::Unpin { group, ground: UnpinGround::Proof, by });
        }
        let host = &pinned.host;
        Err(format!(
            "only {host} can take {group} back under its lease: ask it with --host {host}; if {host} is off, prove that first: antipode fence status"
        ))
    }

    fn contrary_to(&self, matter: Matter) -> Vec<Contrary> {
        let Matter::Override(index) = matter else { return Vec::new() };
        let pending = self.ledger.overrides().get(&LogIndex(index));
        let hosts = pending.map(|pending| hosts_of_claim(&pending.asked.claim)).unwrap_or_default();
        self.signs_of(&hosts)
    }
}
