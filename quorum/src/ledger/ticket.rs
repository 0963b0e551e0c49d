//! What an owner says about its ticket: that the workload is up, or down.
//!
//! Protocol §8: `Stopped` counts only under the current epoch, from an owner that isn't ended, and, if it names an
//! intent, only while that intent is open at its log position.

use super::apply::rule;
use super::command::Stopped;
use super::event::Event;
use super::evidence::Incarnation;
use super::refusal::Refusal;
use super::state::{GroupState, Ledger, Ticket, TicketState};
use crate::id::{Epoch, Generation, GroupName, HostName, IntentId};
use std::collections::BTreeSet;

impl Ledger {
    /// The group and its ticket, if `of` holds it under `epoch`, isn't ended, and hasn't stopped.
    pub(super) fn acting_owner(
        &self,
        group: &GroupName,
        epoch: Epoch,
        of: &Incarnation,
    ) -> Result<(&GroupState, &Ticket), Refusal> {
        let state = self.at_epoch(group, epoch)?;
        let ticket = state.ticket.as_ref().filter(|ticket| ticket.of == *of);
        let ticket = ticket.ok_or_else(|| Refusal::NotOwner { group: group.clone(), of: of.clone() })?;
        self.check_living(group, of)?;
        let stopped = matches!(ticket.state, TicketState::Stopped { .. });
        rule("ledger.stopped_owner_acts", !stopped, || Refusal::AlreadyStopped { group: group.clone() })?;
        Ok((state, ticket))
    }

    /// What is said about an older epoch does nothing.
    fn at_epoch(&self, group: &GroupName, epoch: Epoch) -> Result<&GroupState, Refusal> {
        let state = self.groups.get(group).ok_or_else(|| Refusal::UnknownGroup { group: group.clone() })?;
        rule("ledger.older_epoch_counts", state.epoch == epoch, || Refusal::EpochStale {
            group: group.clone(),
            said: epoch,
            now: state.epoch,
        })?;
        Ok(state)
    }

    /// What a host says after its loss or retirement does nothing.
    fn check_living(&self, group: &GroupName, of: &Incarnation) -> Result<(), Refusal> {
        let ended = self.current(of)?.ended.is_some();
        rule("ledger.ended_owner_acts", !ended, || Refusal::OwnerEnded { group: group.clone(), of: of.clone() })
    }

    pub(super) fn note_running(
        &mut self,
        group: &GroupName,
        epoch: Epoch,
        of: &Incarnation,
        events: &mut Vec<Event>,
    ) -> Result<(), Refusal> {
        let (_, ticket) = self.acting_owner(group, epoch, of)?;
        if ticket.state == TicketState::Running {
            return Ok(());
        }
        let ticket = self.group_mut(group).ticket.as_mut().expect("looked up before");
        ticket.state = TicketState::Running;
        events.push(Event::Running { group: group.clone(), of: of.clone(), epoch });
        Ok(())
    }

    pub(super) fn note_stopped(&mut self, stopped: &Stopped, events: &mut Vec<Event>) -> Result<(), Refusal> {
        let Stopped { group, epoch, of, intent, .. } = stopped;
        let state = self.at_epoch(group, *epoch)?;
        if state.ticket.as_ref().is_some_and(|ticket| ticket.of == *of) {
            self.note_owner_stopped(stopped)?;
        } else {
            self.note_target_stopped(group, of, *intent)?;
        }
        events.push(Event::Stopped {
            group: group.clone(),
            of: of.clone(),
            epoch: *epoch,
            generation: self.groups[group].generation,
            intent: *intent,
        });
        Ok(())
    }

    fn note_owner_stopped(&mut self, stopped: &Stopped) -> Result<(), Refusal> {
        let group = &stopped.group;
        let (state, _) = self.acting_owner(group, stopped.epoch, &stopped.of)?;
        if let Some(intent) = stopped.intent {
            let open = state.intent.as_ref().is_some_and(|open| open.id == intent && open.from == stopped.of);
            rule("ledger.stopped_after_abort", open, || Refusal::IntentNotOpen { group: group.clone(), intent })?;
        }
        let (generation, in_sync) = self.data_after_stop(stopped, state)?;
        let at = self.position.index;
        let state = self.group_mut(group);
        state.generation = generation;
        state.copies.retain(|host, _| !in_sync.contains(host));
        state.in_sync = in_sync;
        state.ticket.as_mut().expect("looked up before").state = TicketState::Stopped { at };
        state.owners.get_mut(&stopped.of).expect("the holder is an owner").stopped = Some(at);
        Ok(())
    }

    /// Generation and in-sync set after a clean stop: the owner's copy and those that it saw to have everything.
    /// Leaving a copy behind raises the generation.
    fn data_after_stop(
        &self,
        stopped: &Stopped,
        state: &GroupState,
    ) -> Result<(Generation, BTreeSet<HostName>), Refusal> {
        let mut in_sync = self.copy_mates(&stopped.group, &stopped.of.host);
        for host in &stopped.copies {
            in_sync.extend(self.copy_mates(&stopped.group, host));
        }
        let left_behind = state.in_sync.iter().any(|host| !in_sync.contains(host));
        let expected = if left_behind { Generation(state.generation.0 + 1) } else { state.generation };
        rule("ledger.stopped_generation", stopped.generation == expected, || Refusal::OtherGeneration {
            group: stopped.group.clone(),
            said: stopped.generation,
            expected,
        })?;
        Ok((expected, in_sync))
    }

    /// The target of an open migration has nothing of it (any more).
    fn note_target_stopped(
        &mut self,
        group: &GroupName,
        of: &Incarnation,
        intent: Option<IntentId>,
    ) -> Result<(), Refusal> {
        let state = &self.groups[group];
        if !state.owners.contains_key(of) {
            return Err(Refusal::NotOwner { group: group.clone(), of: of.clone() });
        }
        self.check_living(group, of)?;
        let open = state.intent.as_ref().filter(|open| Some(open.id) == intent && open.migration && open.to == *of);
        rule("ledger.target_stopped_after_abort", open.is_some(), || Refusal::IntentNotOpen {
            group: group.clone(),
            intent: intent.unwrap_or_default(),
        })?;
        let at = self.position.index;
        self.group_mut(group).owners.get_mut(of).expect("looked up before").stopped = Some(at);
        Ok(())
    }

    /// The machines that see the same copy of a group's data as `host`, itself included.
    pub(super) fn copy_mates(&self, group: &GroupName, host: &HostName) -> BTreeSet<HostName> {
        let mut mates = BTreeSet::from([host.clone()]);
        if let Some(spec) = self.group_spec(group) {
            mates.extend(spec.hosts().filter(|other| spec.is_same_copy(host, other)).cloned());
        }
        mates
    }
}
