//! What the owner says about copies of its data (protocol §7).
//!
//! Only the owner, under the current epoch, while it isn't ended or stopped: otherwise a link that broke with the site
//! would take the good copy out, or a late word put a bad one in. The source releases writes only when its own apply
//! accepted `Detached`.

use super::apply::rule;
use super::command::{Command, CopyCheck};
use super::event::Event;
use super::evidence::Incarnation;
use super::refusal::Refusal;
use super::state::{CopyState, GroupState, Ledger};
use crate::id::{Epoch, Generation, GroupName, HostName};
use std::collections::BTreeSet;

impl Ledger {
    pub(super) fn apply_data(&mut self, command: &Command, events: &mut Vec<Event>) -> Result<(), Refusal> {
        match command {
            Command::Detached { group, epoch, of, away, generation } => {
                self.detach((group, *epoch, of), away, *generation, events)
            }
            Command::InSync { group, epoch, of, copy, generation } => {
                self.catch_up((group, *epoch, of), copy, *generation, events)
            }
            Command::DataAttested { group, epoch, of, copy, generation, lag } => {
                let state = self.other_copy((group, *epoch, of), copy)?;
                check_generation(group, state, *generation)?;
                let attested = CopyState { generation: *generation, lag: *lag, attested_at: self.position.index };
                self.group_mut(group).copies.insert(copy.clone(), attested);
                events.push(Event::DataAttested { group: group.clone(), copy: copy.clone(), lag: *lag });
                Ok(())
            }
            Command::DataDiverged { group, copy, found, .. } => self.note_divergence(group, copy, *found, events),
            _ => unreachable!("the dispatcher sends only words about data here"),
        }
    }

    fn detach(
        &mut self,
        (group, epoch, of): (&GroupName, Epoch, &Incarnation),
        away: &[HostName],
        generation: Generation,
        events: &mut Vec<Event>,
    ) -> Result<(), Refusal> {
        let (state, _) = self.acting_owner(group, epoch, of)?;
        let own = self.copy_mates(group, &of.host);
        let mut gone = BTreeSet::new();
        for host in away {
            gone.extend(self.copy_mates(group, host));
        }
        let some = gone.iter().any(|host| state.in_sync.contains(host)) && gone.is_disjoint(&own);
        rule("ledger.owner_detached", some, || Refusal::NothingDetached { group: group.clone() })?;
        let expected = Generation(state.generation.0 + 1);
        rule("ledger.detached_generation", generation == expected, || Refusal::OtherGeneration {
            group: group.clone(),
            said: generation,
            expected,
        })?;
        let state = self.group_mut(group);
        state.generation = expected;
        state.in_sync.retain(|host| !gone.contains(host));
        events.push(Event::Detached { group: group.clone(), away: gone.into_iter().collect(), generation });
        Ok(())
    }

    fn catch_up(
        &mut self,
        owner: (&GroupName, Epoch, &Incarnation),
        copy: &HostName,
        generation: Generation,
        events: &mut Vec<Event>,
    ) -> Result<(), Refusal> {
        let group = owner.0;
        let state = self.other_copy(owner, copy)?;
        check_generation(group, state, generation)?;
        let fresh = !state.in_sync.contains(copy);
        rule("ledger.in_sync_twice", fresh, || Refusal::AlreadyInSync { group: group.clone(), host: copy.clone() })?;
        let mates = self.copy_mates(group, copy);
        let state = self.group_mut(group);
        for host in mates {
            state.copies.remove(&host);
            state.diverged.remove(&host);
            state.in_sync.insert(host);
        }
        events.push(Event::InSync { group: group.clone(), copy: copy.clone(), generation });
        Ok(())
    }

    /// The group, if its acting owner speaks about a place's copy that isn't its own.
    fn other_copy(
        &self,
        (group, epoch, of): (&GroupName, Epoch, &Incarnation),
        copy: &HostName,
    ) -> Result<&GroupState, Refusal> {
        let (state, _) = self.acting_owner(group, epoch, of)?;
        let place = self.group_spec(group).is_some_and(|spec| spec.names(copy));
        rule("ledger.copy_off_place", place, || Refusal::NotAPlace { group: group.clone(), host: copy.clone() })?;
        let own = self.copy_mates(group, &of.host).contains(copy);
        rule("ledger.own_copy_attested", !own, || Refusal::AlreadyInSync { group: group.clone(), host: copy.clone() })?;
        Ok(state)
    }

    /// A copy that doesn't fit is held, whoever noticed it. An owner's copy is what the others are compared with.
    fn note_divergence(
        &mut self,
        group: &GroupName,
        copy: &HostName,
        found: CopyCheck,
        events: &mut Vec<Event>,
    ) -> Result<(), Refusal> {
        let state = self.groups.get(group).ok_or_else(|| Refusal::UnknownGroup { group: group.clone() })?;
        let place = state.places_ever.contains(copy);
        rule("ledger.divergence_off_place", place, || Refusal::NotAPlace { group: group.clone(), host: copy.clone() })?;
        let owner = state.ticket.as_ref().map(|ticket| ticket.of.host.clone());
        let is_own = owner.is_some_and(|owner| self.copy_mates(group, &owner).contains(copy));
        let state = self.group_mut(group);
        match found {
            CopyCheck::Agrees => {
                state.diverged.remove(copy);
            }
            CopyCheck::Older(_) | CopyCheck::Ahead | CopyCheck::Diverged => {
                state.diverged.insert(copy.clone(), found);
                if !is_own {
                    state.in_sync.remove(copy);
                }
            }
        }
        events.push(Event::DataDiverged { group: group.clone(), copy: copy.clone(), found });
        Ok(())
    }
}

fn check_generation(group: &GroupName, state: &GroupState, said: Generation) -> Result<(), Refusal> {
    let expected = state.generation;
    rule("ledger.in_sync_generation", said == expected, || Refusal::OtherGeneration {
        group: group.clone(),
        said,
        expected,
    })
}
