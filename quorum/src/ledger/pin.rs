//! Pins: a group tied to its host through network work (protocol §5, last paragraph).
//!
//! From the pin's entry nobody else can be granted the group; then its keeper lets it run without a lease. So the
//! lease proves nothing about it any more, and neither does the keeper's general kill.

use super::apply::rule;
use super::command::UnpinGround;
use super::cover::Reach;
use super::event::Event;
use super::evidence::Incarnation;
use super::person::Decision;
use super::refusal::Refusal;
use super::state::{Ledger, Owner, PinState};
use crate::id::GroupName;

impl Ledger {
    pub(super) fn pin(
        &mut self,
        group: &GroupName,
        of: &Incarnation,
        by: &Decision,
        events: &mut Vec<Event>,
    ) -> Result<(), Refusal> {
        let epoch = self.groups.get(group).map(|state| state.epoch).unwrap_or_default();
        let (state, _) = self.acting_owner(group, epoch, of)?;
        if let Some(open) = &state.intent {
            let intent = open.id;
            rule("ledger.pinned_mid_move", false, || Refusal::IntentIsOpen { group: group.clone(), intent })?;
        }
        self.check_not_pinned(group)?;
        let at = self.position.index;
        self.group_mut(group).pin = Some(PinState { of: of.clone(), at, acknowledged: None, by: by.clone() });
        events.push(Event::Pinned { group: group.clone(), of: of.clone() });
        Ok(())
    }

    pub(super) fn acknowledge_pin(
        &mut self,
        group: &GroupName,
        of: &Incarnation,
        sequence: u64,
        events: &mut Vec<Event>,
    ) -> Result<(), Refusal> {
        let state = self.groups.get(group).ok_or_else(|| Refusal::UnknownGroup { group: group.clone() })?;
        let pinned = state.pin.as_ref().is_some_and(|pin| pin.of == *of);
        rule("ledger.another_pin_acknowledged", pinned, || Refusal::NotPinned { group: group.clone() })?;
        if let Some(pin) = self.group_mut(group).pin.as_mut() {
            // Acknowledgements may come out of order, and the latest word of the keeper is the one that counts.
            pin.acknowledged = pin.acknowledged.max(Some(sequence));
        }
        events.push(Event::PinAcknowledged { group: group.clone(), of: of.clone() });
        Ok(())
    }

    pub(super) fn unpin(
        &mut self,
        group: &GroupName,
        ground: &UnpinGround,
        events: &mut Vec<Event>,
    ) -> Result<(), Refusal> {
        let state = self.groups.get(group).ok_or_else(|| Refusal::UnknownGroup { group: group.clone() })?;
        let Some(pin) = &state.pin else { return Err(Refusal::NotPinned { group: group.clone() }) };
        let pinned = pin.of.clone();
        match ground {
            UnpinGround::Proof => {
                let unproven = |why: String| Refusal::UnpinUnproven { group: group.clone(), why };
                if let Err(gap) = self.cover(group, &pinned, Reach::Anywhere) {
                    rule("ledger.unpinned_unproven", false, || unproven(gap.to_string()))?;
                }
            }
            UnpinGround::Rearmed { of, sequence } => {
                self.check_rearmed(group, &pinned, of)?;
                self.check_newest_word(group, *sequence)?;
                self.carry_over(group, &pinned, of);
            }
        }
        let state = self.group_mut(group);
        state.pin = None;
        let owner = state.ticket.as_ref().map(|ticket| ticket.of.clone());
        events.push(Event::Unpinned { group: group.clone(), owner });
        Ok(())
    }

    /// The host is admitted, in the very boot in which the group has been running: in another boot it isn't, and its
    /// return proves so.
    fn check_rearmed(&self, group: &GroupName, pinned: &Incarnation, of: &Incarnation) -> Result<(), Refusal> {
        let unproven = |why: &str| Refusal::UnpinUnproven { group: group.clone(), why: why.to_owned() };
        let living = of.host == pinned.host && self.admitted(&of.host).is_some_and(|(he, _)| he == of.he);
        rule("ledger.unpinned_to_the_ended", living, || unproven("that host isn't admitted"))?;
        let boot = |of| self.incarnation(of).and_then(|state| state.boot);
        let same_boot = boot(of).is_some() && boot(of) == boot(pinned);
        rule("ledger.unpinned_across_boots", same_boot, || unproven("the host was rebooted meanwhile"))?;
        let stopped =
            self.groups.get(group).and_then(|state| state.owners.get(pinned)).is_none_or(|o| o.stopped.is_some());
        rule("ledger.stopped_pin_rearmed", !stopped, || Refusal::AlreadyStopped { group: group.clone() })
    }

    /// An untying that was given up may still be under way when its host has tied the group again: what its keeper
    /// said before it acknowledged the pin says nothing about now.
    fn check_newest_word(&self, group: &GroupName, sequence: u64) -> Result<(), Refusal> {
        let pin = self.groups.get(group).and_then(|state| state.pin.as_ref());
        let newest = pin.is_none_or(|pin| pin.acknowledged.is_none_or(|acknowledged| sequence > acknowledged));
        rule("ledger.unpinned_on_an_old_word", newest, || Refusal::UnpinUnproven {
            group: group.clone(),
            why: "its keeper has acknowledged the pin since".to_owned(),
        })
    }

    /// Ticket and possible ownership go over to the admission in which the keeper has the group armed again.
    fn carry_over(&mut self, group: &GroupName, pinned: &Incarnation, of: &Incarnation) {
        if pinned == of {
            return;
        }
        let state = self.group_mut(group);
        if let Some(ticket) = state.ticket.as_mut().filter(|ticket| ticket.of == *pinned) {
            ticket.of = of.clone();
        }
        let owner: Option<Owner> = state.owners.get(pinned).cloned();
        if let Some(owner) = owner {
            self.insert_owner(group, of.clone(), owner);
            self.remove_owner(group, pinned);
        }
    }
}
