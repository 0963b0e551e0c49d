//! Beats out and in, and what they carry along: lease requests, answers, suspicions.

use super::core::{Engine, LastBeat};
use super::effect::Effect;
use crate::detector::{Heard, Judgement};
use crate::event::Event;
use crate::heartbeat::{
    Beat, DATAGRAM_BYTES_MAX, Datagram, Echo, GroupLag, Hello, KeeperState, SUSPECTS_MAX, Suspicions,
};
use quorum::id::{HostName, VoterId};
use quorum::lease::LeaseRequest;
use quorum::ledger::Class;
use quorum::moment::Moment;
use std::collections::BTreeMap;
use std::time::Duration;

/// What every beat of this step says alike.
const PADDING_BYTES: usize = DATAGRAM_BYTES_MAX * 2 / 3;

impl Engine {
    /// Sends a beat to everybody who listens, if one is due.
    pub(super) fn beat(&mut self) {
        let Some(due) = self.schedule.poll(self.now.moment) else { return };
        self.health.woke_late(self.now.moment, due.late);
        let mut requests = self.lease_requests();
        let template = self.compose(due.seq, due.padded);
        let mut alike = Vec::new();
        for to in self.listeners() {
            let lease = requests.remove(&to);
            let seq = match self.is_replied_to(&to) {
                true => self.replies.on_schedule(self.now.moment, &to, due.seq),
                false => Some(due.seq),
            };
            match seq {
                None => {}
                Some(seq) if seq == due.seq && lease.is_none() => alike.push(to),
                Some(seq) => {
                    let beat = Beat { seq, lease, ..template.clone() };
                    self.effects.push(Effect::Datagram { to, datagram: Box::new(Datagram::Beat(Box::new(beat))) });
                }
            }
        }
        // Who replies says the same once more.
        self.said = self.vote_of(&self.me.host).is_some().then(|| template.clone());
        if !alike.is_empty() {
            let datagram = Box::new(Datagram::Beat(Box::new(template)));
            self.effects.push(Effect::Datagrams { to: alike, datagram });
        }
        // This host may be a voter itself: it asks itself without a network.
        if let Some(request) = requests.remove(&self.me.host.clone()) {
            self.answer_lease(self.me.host.clone(), &request);
        }
    }

    /// Whether beats to this host leave as replies to its own: it has no vote, and this one has. (Two voters that both
    /// waited for the other to begin would speak half as often.)
    fn is_replied_to(&self, host: &HostName) -> bool {
        self.vote_of(&self.me.host).is_some() && self.vote_of(host).is_none()
    }

    /// What the last scheduled beat said leaves for a host that has just spoken; with the log as it stands now.
    fn reply(&mut self, to: &HostName) {
        if !self.is_replied_to(to) {
            return;
        }
        let (era, position, leader) = (self.era(), self.ledger.position(), self.leader());
        let Some(said) = &self.said else { return };
        let Some(seq) = self.replies.on_beat(self.now.moment, to, said.seq) else { return };
        let beat = Beat { era, seq, applied: position.index, term: position.term, leader, ..said.clone() };
        self.effects.push(Effect::Datagram { to: to.clone(), datagram: Box::new(Datagram::Beat(Box::new(beat))) });
    }

    /// Every host speaks to the voters; a voter also speaks to every host, so that they hear the quorum.
    fn listeners(&self) -> Vec<HostName> {
        let known = match self.voting {
            Some(_) => Vec::new(),
            None => self.peers().filter(|host| self.vote_of(host).is_some()).cloned().collect(),
        };
        if known.is_empty() { self.peers().cloned().collect() } else { known }
    }

    /// The voters of the applied configuration and the hosts that they run on.
    pub(super) fn voter_hosts(&self) -> BTreeMap<VoterId, HostName> {
        self.ledger.membership().all_voters().map(|voter| (voter.id, voter.host.clone())).collect()
    }

    /// The vote of a host in the applied configuration; the older one if it has two for a while.
    pub(super) fn vote_of(&self, host: &HostName) -> Option<VoterId> {
        self.ledger.membership().all_voters().filter(|voter| voter.host == *host).map(|voter| voter.id).min()
    }

    fn lease_requests(&mut self) -> BTreeMap<HostName, LeaseRequest> {
        let membership = self.ledger.membership();
        let Some(holder) = &mut self.keeper.holder else { return BTreeMap::new() };
        holder.set_voters(membership.all_voters().map(|voter| voter.id));
        let host_of = |id| membership.all_voters().find(|voter| voter.id == id).map(|voter| voter.host.clone());
        let due = holder.requests_due(self.now.moment);
        due.into_iter().filter_map(|(voter, request)| Some((host_of(voter)?, request))).collect()
    }

    fn compose(&mut self, seq: u64, padded: bool) -> Beat {
        Beat {
            era: self.era(),
            seq,
            hello: self.hello(),
            echoes: self.echoes(),
            lease: None,
            lease_left_ms: self.lease_left_ms(),
            sickness: self.health.sickness(),
            suspicions: self.suspicions(),
            applied: self.ledger.position().index,
            term: self.ledger.position().term,
            leader: self.leader(),
            lag: self.next_lag(),
            padding: if padded { vec![0; PADDING_BYTES / 2] } else { Vec::new() },
        }
    }

    /// Who this host is in this life.
    pub(super) fn hello(&self) -> Hello {
        let page = self.keeper.page.as_ref();
        Hello {
            boot: self.me.boot,
            agent: self.me.agent,
            keeper: page.map(|page| page.instance),
            hardware: self.me.hardware,
            class: page.map_or(Class::D, |page| page.class),
            lab: page.is_some_and(|page| page.lab),
            host_epoch: self.keeper.holder.as_ref().map(|holder| holder.claim().host_epoch),
            keeper_state: page.map_or(KeeperState::Absent, |page| page.state),
            watchdog: page.and_then(|page| page.watchdog.clone()),
        }
    }

    fn echoes(&self) -> Vec<Echo> {
        let echo = |voter: &HostName| {
            let (seq, at) = self.detector.last_heard(voter)?;
            let age_ms = u32::try_from(self.now.moment.held_since(at).as_millis()).unwrap_or(u32::MAX);
            Some(Echo { voter: voter.clone(), seq, age_ms })
        };
        self.ledger.membership().all_voters().filter_map(|voter| echo(&voter.host)).collect()
    }

    fn suspicions(&self) -> Suspicions {
        if self.voting.is_none() {
            return Suspicions::default();
        }
        let (mut sites, mut hosts) = self.detector.suspects();
        sites.truncate(SUSPECTS_MAX);
        hosts.truncate(SUSPECTS_MAX);
        Suspicions { abstains: self.health.abstains(), sites, hosts }
    }

    fn next_lag(&mut self) -> Option<GroupLag> {
        self.local.next_lag(self.now.moment)
    }

    pub(super) fn lease_left_ms(&self) -> u32 {
        let left = self.keeper.holder.as_ref().map(|holder| holder.left(self.now.moment)).unwrap_or_default();
        u32::try_from(left.as_millis()).unwrap_or(u32::MAX)
    }

    pub(super) fn on_datagram(&mut self, from: HostName, path: u8, datagram: Datagram, received: Moment) {
        match datagram {
            Datagram::Beat(beat) => self.on_beat(from, path, *beat, received),
            Datagram::Lease(answer) => {
                if let Some(voter) = self.vote_of(&from) {
                    self.on_lease_answer(voter, &answer);
                }
            }
        }
    }

    fn on_beat(&mut self, from: HostName, path: u8, beat: Beat, received: Moment) {
        let era = self.era();
        if beat.era < era {
            let because = format!("a beat of era {}, this is era {era}", beat.era);
            self.event(Event::Dropped { from, because });
            return;
        }
        if beat.era > era {
            self.older_era(beat.era);
        }
        let heard = Heard { path, agent: beat.hello.agent, seq: beat.seq, at: received };
        let is_news = self.detector.heard(&from, heard);
        // A request may come on the slower path only; the nonce makes a duplicate harmless.
        if let Some(request) = &beat.lease {
            self.answer_lease(from.clone(), request);
        }
        let is_stranger = self.site_of_peer(&from).is_none();
        if is_stranger || !is_news {
            return;
        }
        if let Some(lag) = &beat.lag {
            self.on_lag(&from, lag, received);
        }
        self.take_echo(&from, &beat, received);
        self.reply(&from);
        let said = beat.suspicions.clone();
        let before = self.heard.insert(from, LastBeat { beat, at: received });
        if before.is_none_or(|before| before.beat.suspicions != said) {
            self.stir_leader();
        }
    }

    /// Only a voter is echoed, and only a host that is admitted owes the quorum its hearing; whoever hears again is told.
    fn take_echo(&mut self, from: &HostName, beat: &Beat, received: Moment) {
        if self.vote_of(&self.me.host).is_none() {
            return;
        }
        let echo = beat.echoes.iter().find(|echo| echo.voter == self.me.host);
        let age = echo.map(|echo| Duration::from_millis(echo.age_ms.into()));
        if beat.hello.host_epoch.is_some() || age.is_some_and(|age| age <= self.timing.detection) {
            self.detector.echoed(from, age, received);
        }
    }

    /// Turns silence into judgements. What a voter says of others waits for no beat that is due later: a declaration
    /// waits for it.
    pub(super) fn judge_peers(&mut self) {
        let changes = self.detector.judge(self.now.moment, &self.health);
        if !changes.is_empty() && self.voting.is_some() {
            self.stir_leader();
            self.schedule.hasten(self.now.moment);
            self.beat();
        }
        let silent_sites = if changes.is_empty() { Vec::new() } else { self.detector.suspects().0 };
        for change in changes {
            match change.judgement {
                Judgement::Suspect { .. } => {
                    self.event(Event::Suspect { peer: change.peer.clone(), because: change.because });
                    let site = self.site_of_peer(&change.peer).cloned();
                    if let Some(site) = site.filter(|site| silent_sites.contains(site)) {
                        self.event(Event::SiteSuspect { site });
                    }
                }
                Judgement::Trusted => self.event(Event::Trusted { peer: change.peer }),
                Judgement::Awaited => {}
            }
        }
    }
}
