//! What the running workloads write, and to which copies: the world's account of every acknowledged write.
//!
//! A workload writes all the time. Without a mirror its owner's disk answers; with one, a write is answered when both
//! copies have it, and while the mirror can't be reached nothing is answered (one write lies on the owner's copy,
//! unanswered). A mirror for which no write waits has everything while it is reached, and catches up when it is reached
//! again. Nothing is counted per write: [`World::flow`] adds the time since it was called last, before anything
//! changes that decides who writes where.

use super::place::Writes;
use super::world::{Happening, World};
use crate::engine::{Input, Sight};
use quorum::id::{Epoch, GroupName, HostName};
use quorum::mutants;
use std::time::Duration;

/// How often a mirror for which no write waits is looked at.
const MEASURED_EVERY_NS: u64 = 500_000_000;

/// Who writes where since the account was last brought up to date.
struct Writer {
    group: GroupName,
    owner: HostName,
    epoch: Epoch,
    /// The copy that must have it, too.
    standby: Option<HostName>,
    /// Whether that copy takes it.
    is_taken: bool,
    /// Whether a write is answered only when it does.
    waits: bool,
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
            let Some(boot) = host.boot.as_ref().filter(|boot| !boot.is_asleep) else { continue };
            for (group, place) in host.places.iter().filter(|(_, place)| place.is_tied || !boot.slice_frozen) {
                let (Some(epoch), Some(_)) = (place.running, &place.volume) else { continue };
                let standby = place.mirror.clone();
                let is_taken = standby.as_ref().is_none_or(|standby| self.takes(owner, standby, (group, epoch)));
                let (group, owner, waits) = (group.clone(), owner.clone(), !place.is_mirror_behind);
                writers.push(Writer { group, owner, epoch, standby, is_taken, waits });
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
        let Writer { group, owner, epoch, standby, is_taken, waits } = writer;
        if !is_taken && *waits {
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
        if let Some(standby) = standby.as_ref().filter(|_| *is_taken)
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
                self.mirror_catches_up(&owner, &group);
                Sight::Lag { behind: Some(Duration::ZERO), bytes: 0 }
            } else {
                self.mirrors_away.insert(key);
                Sight::MirrorAway { since: Duration::ZERO }
            };
            self.tell(&owner, Input::Seen { group, sight });
        }
    }

    /// A mirror for which no write waited takes what it missed.
    fn mirror_catches_up(&mut self, owner: &HostName, group: &GroupName) {
        let place = self.place_mut(owner, group);
        let Some(standby) = place.mirror.clone().filter(|_| place.is_mirror_behind) else { return };
        let writes = self.written(owner, group);
        if let Some(volume) = &mut self.place_mut(&standby, group).volume {
            volume.writes = writes;
        }
    }

    /// A mirror for which no write waits is looked at regularly.
    pub(super) fn mirror_is_measured(&mut self, owner: &HostName, group: &GroupName) {
        let place = self.place_mut(owner, group);
        let (Some(epoch), Some(standby)) = (place.running, place.mirror.clone().filter(|_| place.is_mirror_behind))
        else {
            return;
        };
        if self.takes(owner, &standby, (group, epoch)) {
            let sight = Sight::Lag { behind: Some(Duration::ZERO), bytes: 0 };
            self.tell(owner, Input::Seen { group: group.clone(), sight });
        }
        self.measure_later(owner, group);
    }

    pub(super) fn measure_later(&mut self, owner: &HostName, group: &GroupName) {
        self.at(self.now_ns + MEASURED_EVERY_NS, Happening::MirrorMeasured(owner.clone(), group.clone()));
    }

    /// The standby of `group` answers a write with an error: the mirror ends, and the owner's writes are answered without
    /// it from now on. What the standby's driver knows of it, its copy says of itself.
    pub fn refuse_write(&mut self, owner: &HostName, group: &GroupName) {
        self.flow();
        let place = self.place_mut(owner, group);
        let Some(standby) = place.mirror.take() else { return };
        place.unanswered = false;
        self.note(Some(&standby), format!("a write of {group} is refused"));
        if let Some(volume) = &mut self.place_mut(&standby, group).volume
            && !mutants::on("data.refused_write_ignored")
        {
            volume.has_refused = true;
        }
        self.mirrors_away.remove(&(owner.clone(), group.clone()));
        let sight = Sight::MirrorEnded { because: "No space left on device".into() };
        self.tell(owner, Input::Seen { group: group.clone(), sight });
    }
}
