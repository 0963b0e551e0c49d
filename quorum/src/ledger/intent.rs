//! Planned moves and live migrations (protocol §7, §8).
//!
//! An intent is open from its entry to its abort or to the next grant. A migration's target is a possible owner from
//! the intent on, because from the first page something of the group may be there.

use super::apply::rule;
use super::command::Intent;
use super::cover::Reach;
use super::event::Event;
use super::plan::PlanKind;
use super::refusal::Refusal;
use super::state::{Ground, Ledger, OpenIntent, Owner};
use crate::id::{GroupName, IntentId};

impl Ledger {
    pub(super) fn open_intent(
        &mut self,
        intent: &Intent,
        migration: bool,
        events: &mut Vec<Event>,
    ) -> Result<(), Refusal> {
        self.check_intent(intent)?;
        let id = IntentId(self.position.index.0);
        let group = &intent.group;
        self.group_mut(group).intent = Some(OpenIntent {
            id,
            migration,
            from: intent.from.clone(),
            to: intent.to.clone(),
            deadline: intent.deadline,
            plan: intent.plan,
        });
        if migration && !crate::mutants::on("ledger.migration_target_forgotten") {
            self.insert_owner(group, intent.to.clone(), Owner { ground: Ground::Incoming(id), stopped: None });
        }
        events.push(Event::IntentOpened {
            group: group.clone(),
            intent: id,
            from: intent.from.clone(),
            to: intent.to.clone(),
            migration,
        });
        Ok(())
    }

    fn check_intent(&self, intent: &Intent) -> Result<(), Refusal> {
        let group = &intent.group;
        let (state, _) = self.acting_owner(group, intent.epoch, &intent.from)?;
        if let Some(open) = &state.intent {
            let id = open.id;
            rule("ledger.two_intents", false, || Refusal::IntentIsOpen { group: group.clone(), intent: id })?;
        }
        self.check_not_pinned(group)?;
        let away = intent.to.host != intent.from.host;
        rule("ledger.move_to_itself", away, || Refusal::MoveToItself {
            group: group.clone(),
            host: intent.to.host.clone(),
        })?;
        self.check_target(group, &intent.to)?;
        let Some(id) = intent.plan else { return Ok(()) };
        let plan = self.plan_that_moves(id, group, &intent.to.host)?;
        if plan.plan.kind == PlanKind::Failback && plan.plan.initiator.is_automatic() {
            self.check_quiet()?;
        }
        Ok(())
    }

    pub(super) fn abort_switch(
        &mut self,
        group: &GroupName,
        intent: IntentId,
        because: &str,
        events: &mut Vec<Event>,
    ) -> Result<(), Refusal> {
        self.check_open(group, intent, false)?;
        self.close_intent(group, because, events);
        Ok(())
    }

    /// The target leaves the possible owners only on a proof; until then the source goes on running, and the group
    /// can't be granted elsewhere without it.
    pub(super) fn abort_migration(
        &mut self,
        group: &GroupName,
        intent: IntentId,
        because: &str,
        events: &mut Vec<Event>,
    ) -> Result<(), Refusal> {
        let target = self.check_open(group, intent, true)?.to.clone();
        let proven = self.cover(group, &target, Reach::Anywhere).is_ok();
        rule("ledger.migration_aborted_unproven", proven, || Refusal::MigrationTargetUnproven {
            group: group.clone(),
            of: target.clone(),
        })?;
        self.remove_owner(group, &target);
        self.close_intent(group, because, events);
        Ok(())
    }

    fn check_open(&self, group: &GroupName, intent: IntentId, migration: bool) -> Result<&OpenIntent, Refusal> {
        let state = self.groups.get(group).ok_or_else(|| Refusal::UnknownGroup { group: group.clone() })?;
        let open = state.intent.as_ref().filter(|open| open.id == intent && open.migration == migration);
        open.ok_or_else(|| Refusal::IntentNotOpen { group: group.clone(), intent })
    }

    /// Closes whatever intent is open.
    pub(super) fn close_intent(&mut self, group: &GroupName, because: &str, events: &mut Vec<Event>) {
        if let Some(open) = self.group_mut(group).intent.take() {
            events.push(Event::IntentClosed { group: group.clone(), intent: open.id, because: because.to_owned() });
        }
    }
}
