//! What people order by name, turned into commands of the ledger: incarnations, signs and causes come from what this
//! engine knows, not from what a person typed.
//!
//! Not here: whether it is allowed. The ledger's `apply` decides that.

use super::core::Engine;
use quorum::id::{GroupName, HostName, LogIndex, PlanId, SiteName};
use quorum::ledger::{
    Claim, Command, Contrary, Decision, EndCause, FreezeScope, Override, PlaceScope, PlanOutcome, Subject,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// An override that asks for a second person waits so long for one.
const OVERRIDE_SPAN: Duration = Duration::from_secs(600);

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
    /// A person vouches that a host, or all hosts of a site, can do no harm.
    Override {
        /// A host or a site.
        scope: Scope,
        /// Don't wait for leases.
        at_once: bool,
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

fn place_scope(scope: Scope) -> Result<PlaceScope, String> {
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
                Command::Approve { subject: matter.subject(), by, contrary }
            }
            Order::Deny { matter } => Command::Deny { subject: matter.subject(), by },
            Order::ReleaseBrake => Command::BrakeReleased { by },
            Order::CancelPlan { plan } => return Ok(self.cancellation(PlanId(plan), &by)),
            Order::RemoveHost { host } => Command::HostRemoved { host, by },
            Order::RemoveGroup { group } => Command::GroupRemoved { group, by },
            Order::Override { scope, at_once } => self.override_of(scope, at_once, by)?,
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
        intent.into_iter().chain([close]).collect()
    }

    fn override_of(&self, scope: Scope, at_once: bool, mut by: Decision) -> Result<Command, String> {
        let hosts: Vec<HostName> = match place_scope(scope)? {
            PlaceScope::Host(host) => vec![host],
            PlaceScope::Site(site) => {
                let of_site = self.ledger.spec().hosts.iter().filter(|(_, host)| host.site == site);
                of_site.map(|(host, _)| host.clone()).collect()
            }
        };
        let named: Vec<_> = hosts.iter().flat_map(|host| self.ledger.unproven_on(host)).collect();
        if named.is_empty() {
            return Err("no evidence is missing about it: nothing is held up by it".to_owned());
        }
        let contrary = self.signs_of(&hosts);
        let signs: Vec<String> =
            contrary.iter().map(|sign| format!("{}: {} {} s ago", sign.host, sign.what, sign.age.as_secs())).collect();
        let names: Vec<String> = named.iter().map(ToString::to_string).collect();
        by.shown = format!("vouches for {}; against it: {}", names.join(", "), signs.join(", "));
        Ok(Command::Override(Override { claim: Claim::Inert(named), contrary, at_once, span: OVERRIDE_SPAN, by }))
    }

    fn contrary_to(&self, matter: Matter) -> Vec<Contrary> {
        let Matter::Override(index) = matter else { return Vec::new() };
        let pending = self.ledger.overrides().get(&LogIndex(index));
        let hosts: Vec<HostName> = match pending.map(|pending| &pending.asked.claim) {
            Some(Claim::Inert(named)) => named.iter().map(|of| of.host.clone()).collect(),
            Some(Claim::Absent { hosts, .. }) => hosts.clone(),
            None => Vec::new(),
        };
        self.signs_of(&hosts)
    }

    /// What this agent heard of hosts that a person is about to vouch for. Ages are rounded down: a sign is never
    /// shown older than it is.
    fn signs_of(&self, hosts: &[HostName]) -> Vec<Contrary> {
        let heard = |host: &HostName| {
            let last = self.heard.get(host)?;
            let age = self.now.moment.held_since(last.at);
            Some(Contrary { host: host.clone(), what: "a beat".to_owned(), age })
        };
        hosts.iter().filter_map(heard).collect()
    }
}
