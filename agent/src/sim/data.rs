//! What the running workloads write, and to which copies: the world's account of every acknowledged write.
//!
//! A workload writes all the time. Without a mirror its owner's disk answers; with one, a write is answered when both
//! copies have it, and while the mirror can't be reached nothing is answered (one write lies on the owner's copy,
//! unanswered). Nothing is counted per write: [`World::flow`] adds the time since it was called last, before anything
//! changes that decides who writes where.

use super::place::Writes;
use super::world::World;
use crate::engine::{Input, Sight};
use quorum::id::{Epoch, GroupName, HostName};
use std::time::Duration;

/// Who writes where since the account was last brought up to date.
struct Writer {
    group: GroupName,
    owner: HostName,
    epoch: Epoch,
    /// The copy that must have it, too.
    standby: Option<HostName>,
    /// Whether that copy takes it.
    is_answered: bool,
}

impl World {
    /// Brings the account of all writes up to now. Called before anything changes that decides who writes where.
    pub(super) fn flow(&mut self) {
        let span_ns = self.now_ns - self.flowed_ns;
        self.flowed_ns = self.now_ns;
        if span_ns == 0 {
            return;
        }
        for writer in self.writers() {
            self.write(&writer, span_ns);
        }
    }

    fn writers(&self) -> Vec<Writer> {
        let mut writers = Vec::new();
        for (owner, host) in &self.hosts {
            let Some(boot) = host.boot.as_ref().filter(|boot| !boot.slice_frozen && !boot.is_asleep) else { continue };
            let _ = boot;
            for (group, place) in &host.places {
                let (Some(epoch), Some(_)) = (place.running, &place.volume) else { continue };
                let standby = place.mirror.clone();
                let is_answered = standby.as_ref().is_none_or(|standby| self.takes(owner, standby, (group, epoch)));
                writers.push(Writer { group: group.clone(), owner: owner.clone(), epoch, standby, is_answered });
            }
        }
        writers
    }

    /// Whether the copy at `standby` takes the owner's writes now.
    pub(super) fn takes(&self, owner: &HostName, standby: &HostName, (group, epoch): (&GroupName, Epoch)) -> bool {
        let Some(host) = self.hosts.get(standby) else { return false };
        let is_up = host.boot.as_ref().is_some_and(|boot| !boot.is_asleep);
        let volume = host.places.get(group).and_then(|place| place.volume.as_ref());
        let open = volume.and_then(|volume| volume.export.as_ref());
        let is_open = open.is_some_and(|(open, to)| *open == epoch && to == owner);
        is_up && is_open && self.network.is_whole(owner, standby)
    }

    fn write(&mut self, writer: &Writer, span_ns: u64) {
        let Writer { group, owner, epoch, standby, is_answered } = writer;
        if !is_answered {
            let place = self.place_mut(owner, group);
            if !place.unanswered
                && let Some(volume) = &mut place.volume
            {
                volume.writes.add(*epoch, 1);
                place.unanswered = true;
            }
            return;
        }
        let waited = u64::from(std::mem::take(&mut self.place_mut(owner, group).unanswered));
        let writes = self.place_mut(owner, group).volume.as_mut().map(|volume| {
            let before = volume.writes.clone();
            volume.writes.add(*epoch, span_ns);
            before
        });
        if let Some(before) = writes {
            self.oracle.acknowledged(group, (*epoch, span_ns), &before);
        }
        if let Some(standby) = standby
            && let Some(volume) = &mut self.place_mut(standby, group).volume
        {
            // What waited for it has been answered, too.
            volume.writes.add(*epoch, span_ns + waited);
        }
    }

    pub(super) fn place_mut(&mut self, host: &HostName, group: &GroupName) -> &mut super::place::Place {
        self.hosts.get_mut(host).expect("a host").places.entry(group.clone()).or_default()
    }

    /// What a copy has now; empty if there is none.
    pub fn written(&self, host: &HostName, group: &GroupName) -> Writes {
        let place = self.hosts.get(host).and_then(|host| host.places.get(group));
        place.and_then(|place| place.volume.as_ref()).map(|volume| volume.writes.clone()).unwrap_or_default()
    }

    /// Tells owners whose mirror lost its peer, and once more when it is back.
    pub(super) fn mirrors_look(&mut self) {
        let mut away = Vec::new();
        for (owner, host) in &self.hosts {
            for (group, place) in &host.places {
                let (Some(epoch), Some(standby)) = (place.running, &place.mirror) else { continue };
                let takes = self.takes(owner, standby, (group, epoch));
                if takes == self.mirrors_away.contains(&(owner.clone(), group.clone())) {
                    away.push((owner.clone(), group.clone(), takes));
                }
            }
        }
        for (owner, group, is_back) in away {
            let key = (owner.clone(), group.clone());
            let sight = if is_back {
                self.mirrors_away.remove(&key);
                Sight::Lag { behind: Some(Duration::ZERO), bytes: 0 }
            } else {
                self.mirrors_away.insert(key);
                Sight::MirrorAway { since: Duration::ZERO }
            };
            self.tell(&owner, Input::Seen { group, sight });
        }
    }
}
