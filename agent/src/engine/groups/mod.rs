//! The leader's care for each group: born, granted, kept, recovered; one file a concern.
//!
//! Here only the choice of what a group needs now; whether it may be is checked again by the ledger.

mod birth;
mod drive;
mod gate;
mod loss;
mod place;
mod plan;
mod protect;

pub(super) use loss::{DataSeen, follows_this_grant, is_following};

use crate::engine::core::Engine;
use quorum::id::GroupName;
use quorum::ledger::{Ended, GroupSpec, GroupState, Initiator, PlanKind, Ticket, TicketState, Tier};
use std::time::Duration;

/// An owner that doesn't bring its group up within this lets another host try.
const UP_WITHIN: Duration = Duration::from_secs(60);

impl Engine {
    /// Looks at every group in the order of the spec.
    pub(in crate::engine) fn lead_groups(&mut self) {
        let spec = self.ledger.spec();
        let mut groups: Vec<(i32, GroupName)> =
            spec.groups.iter().map(|(name, group)| (group.order, name.clone())).collect();
        groups.sort();
        for (_, group) in groups {
            self.lead_group(&group);
        }
    }

    fn lead_group(&mut self, group: &GroupName) {
        let Some(state) = self.ledger.group(group).cloned() else {
            self.create(group);
            return;
        };
        let Some(spec) = self.ledger.group_spec(group).cloned() else { return };
        if let Some(plan) = self.ledger.open_plan(group).cloned() {
            self.drive(&plan, &state, &spec);
            return;
        }
        match &state.ticket {
            None => self.grant_first(group, &state),
            Some(ticket) if !self.ledger.is_ended(&ticket.of) => self.keep(group, (&state, ticket), &spec),
            Some(ticket) => self.recover(group, (&state, ticket), &spec),
        }
    }

    /// The owner lives: protect the group, and bring it home when it is time.
    fn keep(&mut self, group: &GroupName, (state, ticket): (&GroupState, &Ticket), spec: &GroupSpec) {
        match ticket.state {
            // A planned move that ended after the stop: the owner needs a new grant.
            TicketState::Stopped { .. } if state.intent.is_none() => {
                let owner = ticket.of.host.clone();
                self.grant_in_place(group, state, &owner);
            }
            TicketState::Stopped { .. } => {}
            TicketState::Granted => self.move_on(group, (state, ticket), spec),
            TicketState::Running => {
                if state.intent.is_none() && !self.reprotect(group, (state, ticket), spec) && state.pin.is_none() {
                    self.fail_back(group, (state, ticket), spec);
                }
            }
        }
    }

    /// The owner was granted the group and doesn't bring it up, whatever is in the way there (a keeper that can't arm,
    /// a
    /// driver that fails): it goes to a host that could run it. As long as the others count as in sync, the owner
    /// hasn't
    /// written anything.
    fn move_on(&mut self, group: &GroupName, (state, ticket): (&GroupState, &Ticket), spec: &GroupSpec) {
        let now = self.now.moment;
        let Some(leading) = &mut self.leading else { return };
        let since = leading.granted.entry(group.clone()).or_insert((ticket.epoch, now));
        if since.0 != ticket.epoch {
            *since = (ticket.epoch, now);
        }
        let waited = now.waited_since(since.1);
        if waited < UP_WITHIN || state.intent.is_some() || spec.tier != Tier::Auto {
            return;
        }
        let Some(target) = self.would_go_to(group) else { return };
        if target == ticket.of.host || !(spec.volumes.is_empty() || state.in_sync.contains(&target)) {
            return;
        }
        let route = self.route(group, Some(ticket.of.host.clone()), target);
        let because = format!("{} didn't bring it up within {UP_WITHIN:?}", ticket.of);
        self.open_plan(group, (PlanKind::Switchover, route), (Initiator::Automatic, because));
    }

    /// The owner's host epoch is over: back in place if its host returned, else a failover if it was lost.
    fn recover(&mut self, group: &GroupName, (state, ticket): (&GroupState, &Ticket), spec: &GroupSpec) {
        let owner = ticket.of.host.clone();
        if self.ledger.admitted(&owner).is_some() {
            self.grant_in_place(group, state, &owner);
            return;
        }
        let is_lost = matches!(self.ledger.incarnation(&ticket.of).and_then(|of| of.ended), Some(Ended::Lost { .. }));
        let by_itself = matches!(spec.tier, Tier::Auto | Tier::Approve);
        if !is_lost || !by_itself {
            return;
        }
        let Some(target) = self.would_go_to(group) else { return };
        let route = self.route(group, Some(owner), target);
        let because = format!("{} was declared lost", ticket.of);
        self.open_plan(group, (PlanKind::Failover, route), (Initiator::Automatic, because));
    }
}
