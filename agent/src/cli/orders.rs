//! The verbs that order something by name: freezes, maintenance, approvals, plans, overrides, removals.

use super::options::{Format, Reach, Shown, Why};
use super::{Failure, Outcome, apply, client};
use crate::admin::{Exit, OrderAsked};
use crate::engine::{Matter, Order, Scope};
use quorum::id::{GroupName, HostName, SiteName};
use std::time::Duration;

/// How an order is given and its answer shown.
#[derive(Debug, clap::Args)]
pub(super) struct Given {
    #[command(flatten)]
    pub why: Why,
    #[command(flatten)]
    pub shown: Shown,
    #[command(flatten)]
    pub reach: Reach,
}

impl Given {
    pub(super) fn order(&self, order: Order) -> Result<Outcome, Failure> {
        let asked = OrderAsked { order, reason: self.why.reason.clone() };
        apply::done(&client::post(&self.reach, "/v1/order", &asked)?, self.shown.format)
    }
}

/// Reads a span as 30s, 30m, 2h or 1d, in milliseconds.
pub(super) fn span_ms(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no span of time; write e.g. 30m or 2h");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let seconds = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let count: u64 = digits.parse().map_err(|_| wrong())?;
    let span = count.checked_mul(seconds).map(Duration::from_secs).filter(|span| !span.is_zero()).ok_or_else(wrong)?;
    u64::try_from(span.as_millis()).map_err(|_| wrong())
}

/// Arguments of `freeze`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub(super) struct FreezeArgs {
    #[command(subcommand)]
    what: Option<FreezeWhat>,
    /// Tie this group to the host that runs it, through work on the network: it goes on without a lease
    #[arg(long, value_name = "GROUP")]
    pin: Option<GroupName>,
    #[command(flatten)]
    given: Given,
}

#[derive(Debug, clap::Subcommand)]
enum FreezeWhat {
    /// Everything
    Cluster(FreezeHow),
    /// A site's hosts and the groups that run there
    Site {
        /// The site
        name: SiteName,
        #[command(flatten)]
        how: FreezeHow,
    },
    /// One group
    Group {
        /// The group
        name: GroupName,
        #[command(flatten)]
        how: FreezeHow,
    },
}

#[derive(Debug, clap::Args)]
struct FreezeHow {
    /// For how long, as 30m or 2h; it ends by itself
    #[arg(long = "for", value_name = "SPAN", value_parser = span_ms)]
    span_ms: u64,
    /// Activations that are under way wait, too
    #[arg(long)]
    hold_activation: bool,
    #[command(flatten)]
    given: Given,
}

impl FreezeArgs {
    pub(super) fn run(&self) -> Result<Outcome, Failure> {
        let (scope, how) = match (&self.what, &self.pin) {
            (Some(FreezeWhat::Cluster(how)), _) => (Scope::Cluster, how),
            (Some(FreezeWhat::Site { name, how }), _) => (Scope::Site(name.clone()), how),
            (Some(FreezeWhat::Group { name, how }), _) => (Scope::Group(name.clone()), how),
            (None, Some(group)) => return self.given.order(Order::Pin { group: group.clone() }),
            (None, None) => {
                let next = "antipode freeze cluster --for 30m, or --pin GROUP";
                return Err(Failure::new(Exit::Usage, "nothing-named", "name what to freeze", next));
            }
        };
        let order = Order::Freeze { scope, span_ms: how.span_ms, hold_activation: how.hold_activation };
        how.given.order(order)
    }
}

/// Arguments of `thaw`.
#[derive(Debug, clap::Args)]
pub(super) struct ThawArgs {
    /// The freeze's log index, as `status` shows it
    #[arg(required_unless_present = "pin")]
    index: Option<u64>,
    /// Untie this group; its host is asked, unless evidence covers it
    #[arg(long, value_name = "GROUP", conflicts_with = "index")]
    pin: Option<GroupName>,
    #[command(flatten)]
    given: Given,
}

impl ThawArgs {
    pub(super) fn run(&self) -> Result<Outcome, Failure> {
        self.given.order(match (&self.pin, self.index) {
            (Some(group), _) => Order::Unpin { group: group.clone() },
            (None, index) => Order::Thaw { freeze: index.unwrap_or_default() },
        })
    }
}

/// A host or a site.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Place {
    /// host or site
    #[arg(value_parser = ["host", "site"], hide_possible_values = true)]
    kind: String,
    /// Its name
    pub name: String,
}

impl Place {
    pub(super) fn scope(&self) -> Result<Scope, Failure> {
        let name = &self.name;
        let wrong = |error: quorum::id::NameError| Failure::new(Exit::Usage, "bad-name", error.to_string(), "");
        match self.kind.as_str() {
            "host" => HostName::new(name).map(Scope::Host).map_err(wrong),
            _ => SiteName::new(name).map(Scope::Site).map_err(wrong),
        }
    }
}

/// Arguments of `maintenance`.
#[derive(Debug, clap::Args)]
pub(super) struct MaintenanceArgs {
    #[command(flatten)]
    place: Place,
    /// For how long, as 30m or 2h; it ends by itself
    #[arg(long = "for", value_name = "SPAN", value_parser = span_ms, required_unless_present = "end")]
    span_ms: Option<u64>,
    /// The work is over
    #[arg(long, conflicts_with = "span_ms")]
    end: bool,
    #[command(flatten)]
    given: Given,
}

impl MaintenanceArgs {
    pub(super) fn run(&self) -> Result<Outcome, Failure> {
        let scope = self.place.scope()?;
        self.given.order(match self.span_ms {
            Some(span_ms) => Order::Maintenance { scope, span_ms },
            None => Order::EndMaintenance { scope },
        })
    }
}

/// Arguments of `approve` and `deny`.
#[derive(Debug, clap::Args)]
pub(super) struct MatterArgs {
    /// plan or override
    #[arg(value_parser = ["plan", "override"], hide_possible_values = true)]
    kind: String,
    /// Its number
    id: u64,
    #[command(flatten)]
    given: Given,
}

impl MatterArgs {
    fn matter(&self) -> Matter {
        if self.kind == "plan" { Matter::Plan(self.id) } else { Matter::Override(self.id) }
    }

    pub(super) fn approve(&self) -> Result<Outcome, Failure> {
        if self.kind == "override" && self.given.shown.format == Format::Text {
            // Whoever agrees sees first with what; the agent records the same.
            eprint!("{}", super::fence::pending_text(&client::get(&self.given.reach, "/v1/fence")?, self.id));
        }
        self.given.order(Order::Approve { matter: self.matter() })
    }

    pub(super) fn deny(&self) -> Result<Outcome, Failure> {
        self.given.order(Order::Deny { matter: self.matter() })
    }
}

/// Verbs of the brake.
#[derive(Debug, clap::Subcommand)]
pub(super) enum BrakeVerb {
    /// Let automatic activation go on
    Release(Given),
}

/// Verbs of hosts.
#[derive(Debug, clap::Subcommand)]
pub(super) enum HostVerb {
    /// Let a host serve again that was away or kept getting lost, or say what stands in its way
    Readmit {
        /// The host
        name: HostName,
        #[command(flatten)]
        given: Given,
    },
    /// Take a host out of the cluster for good
    Remove {
        /// The host
        name: HostName,
        #[command(flatten)]
        given: Given,
    },
}

/// Verbs of groups.
#[derive(Debug, clap::Subcommand)]
pub(super) enum GroupVerb {
    /// End a group; its data stays
    Remove {
        /// The group
        name: GroupName,
        #[command(flatten)]
        given: Given,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_has_a_unit_and_is_more_than_nothing() {
        assert_eq!(span_ms("30m"), Ok(1_800_000));
        assert_eq!(span_ms("2h"), Ok(7_200_000));
        for bad in ["", "30", "m", "0s", "-1s", "1.5h", "99999999999999999999d", "1ms"] {
            assert!(span_ms(bad).is_err(), "{bad:?}");
        }
    }
}
