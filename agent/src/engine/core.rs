//! The engine's state and its one entry point.

use super::effect::Effect;
use super::fence::FenceDuty;
use super::groups::DataSeen;
use super::input::{Input, KeeperPage, Vote};
use super::keeper::KeeperSide;
use super::leader::Leading;
use super::local::Local;
use super::log::Following;
use super::membership::Wishing;
use super::operator::Waiting;
use super::pins::Untying;
use super::proposals::Proposals;
use super::unread::Unread;
use super::voter::Voting;
use crate::config::ClusterSpec;
use crate::detector::{Detector, Health, Params};
use crate::event::Event;
use crate::heartbeat::{Beat, Replies, Schedule};
use quorum::id::{AgentInstance, BootId, Era, GroupName, HardwareId, HostName, ProposalKey, SiteName, VoterId};
use quorum::ledger::{Command, Entry, Ledger, PlanState, VERSION};
use quorum::moment::Moment;
use quorum::timing::Timing;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Something that was due and could not be done (no leader, an unanswered proposal) is tried again after this.
const WAITS_FOR_OTHERS: Duration = Duration::from_millis(10);

/// So many effects of a step are room enough for those of the next.
const EFFECTS_USUAL_MAX: usize = 64;
/// Looking more often than this is no rest.
const REST_MIN: Duration = Duration::from_millis(5);
/// How often a voter at rest looks within Δ.
const VOTERS_LOOKS: u32 = 50;

/// The moment of an input, and the wall clock for people's eyes only.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// Both monotonic clocks.
    pub moment: Moment,
    /// Milliseconds since 1970. Written into the log for people; never compared.
    pub wall_ms: u64,
}

/// Who this agent is in this life.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The host.
    pub host: HostName,
    /// Its site.
    pub site: SiteName,
    /// The kernel's boot id.
    pub boot: BootId,
    /// The machine.
    pub hardware: HardwareId,
    /// Drawn by the driver when this process began.
    pub agent: AgentInstance,
}

/// What an engine is made from.
pub struct Setup {
    /// Who it is.
    pub identity: Identity,
    /// Peers known before the cluster spec says more.
    pub peers: BTreeMap<HostName, SiteName>,
    /// Time spans until the ledger has some.
    pub timing: Timing,
    /// The voter's side, if it votes.
    pub voting: Option<Vote>,
    /// Ids under which this host voted once and must never vote again.
    pub ended_votes: BTreeSet<VoterId>,
}

/// What was last heard from a peer.
#[derive(Clone, Debug)]
pub(super) struct LastBeat {
    pub(super) beat: Beat,
    pub(super) at: Moment,
}

/// One agent.
pub struct Engine {
    pub(super) me: Identity,
    pub(super) now: Now,
    pub(super) started: Moment,
    /// When a loss was last applied here, whoever led then: a new leader knows it from having followed.
    pub(super) last_loss: Option<Moment>,
    pub(super) unread: Option<Unread>,
    pub(super) effects: Vec<Effect>,
    pub(super) ledger: Ledger,
    pub(super) spec: Option<Arc<ClusterSpec>>,
    pub(super) timing: Timing,
    pub(super) seeds: BTreeMap<HostName, SiteName>,
    pub(super) schedule: Schedule,
    pub(super) replies: Replies,
    /// What the last scheduled beat said.
    pub(super) said: Option<Beat>,
    pub(super) detector: Detector,
    pub(super) health: Health,
    pub(super) heard: BTreeMap<HostName, LastBeat>,
    pub(super) keeper: KeeperSide,
    pub(super) voting: Option<Voting>,
    pub(super) following: Following,
    pub(super) proposals: Proposals,
    pub(super) waiting: BTreeMap<ProposalKey, Waiting>,
    pub(super) local: Local,
    pub(super) leading: Option<Leading>,
    pub(super) links: BTreeMap<HostName, bool>,
    pub(super) fence: FenceDuty,
    pub(super) data_seen: DataSeen,
    /// A change of the voters that this agent wants.
    pub(super) wishing: Option<Wishing>,
    /// The id for which a store was ordered.
    pub(super) joining: Option<VoterId>,
    /// Groups that a person wants untied from this host.
    pub(super) untying: BTreeMap<GroupName, Untying>,
    pub(super) ended_votes: BTreeSet<VoterId>,
    /// The newest era that a peer spoke of: what is of an older one counts no more.
    pub(super) newest_era: Era,
    /// The highest cluster version that this release understands.
    pub(super) understood: u32,
}

impl Engine {
    /// An agent that just began. Its first step should be a `Wake`.
    pub fn new(now: Now, setup: Setup) -> Self {
        let timing = setup.timing;
        let agent = setup.identity.agent;
        let again = timing.rtt_max * 4 + Duration::from_millis(100);
        let (voting, ledger) = match setup.voting {
            Some(vote) => {
                let ledger = vote.ledger.clone();
                (Some(Voting::new(now.moment, vote)), ledger)
            }
            None => (None, Ledger::default()),
        };
        let mut engine = Self {
            now,
            started: now.moment,
            last_loss: None,
            unread: None,
            effects: vec![Effect::Event(Event::AgentStarted { instance: agent })],
            spec: None,
            schedule: Schedule::new(timing.beat),
            replies: Replies::new(timing.beat),
            said: None,
            detector: Detector::new(detector_params(&timing)),
            health: Health::new(timing.beat),
            heard: BTreeMap::new(),
            keeper: KeeperSide::default(),
            voting,
            following: Following::default(),
            proposals: Proposals::new(agent, again),
            waiting: BTreeMap::new(),
            local: Local::new(agent),
            leading: None,
            links: BTreeMap::new(),
            fence: FenceDuty::default(),
            data_seen: DataSeen::default(),
            wishing: None,
            joining: None,
            untying: BTreeMap::new(),
            ended_votes: setup.ended_votes,
            newest_era: Era(1),
            understood: VERSION,
            seeds: setup.peers,
            me: setup.identity,
            ledger,
            timing,
        };
        engine.take_spec();
        engine.take_roster();
        engine
    }

    /// Takes one input and returns what is to be done, in order.
    pub fn step(&mut self, now: Now, input: Input) -> Vec<Effect> {
        self.now = now;
        self.take(input);
        self.settle();
        // Steps are alike: the next one has about as many, if it isn't one that speaks to everybody.
        let next = Vec::with_capacity(self.effects.len().min(EFFECTS_USUAL_MAX));
        std::mem::replace(&mut self.effects, next)
    }

    /// Takes one of several inputs that came together. What follows from all of them is done by the [`Engine::step`] that
    /// must follow at once.
    pub fn hear(&mut self, now: Now, input: Input) {
        self.now = now;
        self.take(input);
    }

    /// dispatcher: one arm an input, each a call into the file that owns it.
    fn take(&mut self, input: Input) {
        match input {
            Input::Wake => {}
            Input::Datagram { from, path, datagram, received } => self.on_datagram(from, path, *datagram, received),
            Input::Message { from, message } => self.on_message(from, *message),
            Input::Link { peer, up } => self.on_link(peer, up),
            Input::Persisted(persisted) => self.on_persisted(*persisted),
            Input::Joined(vote) => self.on_joined(*vote),
            Input::RolledBack { because } => self.end_vote(because),
            Input::Keeper(page) => self.on_keeper(page),
            Input::Work { id, report } => self.on_work(id, report),
            Input::Seen { group, sight } => self.on_sight(&group, &sight),
            Input::Fenced { task, fenced } => self.on_fenced(task, fenced),
            Input::Prospects(prospects) => self.on_prospects(prospects),
            Input::Operator { ticket, by, request } => self.on_request(ticket, by, *request),
            Input::Health(reading) => self.health.measured(self.now.moment, reading),
        }
    }

    /// After every input: everything that follows from the state as it is now, until nothing more does.
    fn settle(&mut self) {
        if self.ends_outdated() {
            return;
        }
        self.announce_version();
        self.beat();
        self.judge_peers();
        self.join_if_named();
        self.tell_voters();
        self.pursue_wish();
        self.tick_raft();
        self.drain_raft();
        self.voter_duties();
        self.lead();
        self.fence_duties();
        self.keep_lease();
        self.run_groups();
        self.progress_untying();
        self.progress_acceptances();
        self.answer_late();
        self.send_proposals();
        self.drain_raft();
        self.ends_outdated();
    }

    /// The latest moment at which [`Engine::step`] wants to be called again.
    pub fn deadline(&self) -> Option<Moment> {
        let moments = [
            self.schedule.deadline(),
            self.detector.deadline(),
            self.proposals.deadline(),
            self.keeper.deadline(),
            self.voting.as_ref().and_then(Voting::deadline),
            self.local.deadline(),
            self.leading.as_ref().and_then(Leading::deadline),
            self.following.deadline(),
            self.fence.deadline(),
            self.data_seen.deadline(),
            self.wishing.as_ref().map(Wishing::deadline),
            self.untying_deadline(),
        ];
        // Whatever was due has just been tried: what is still due waits for something else, and spinning won't bring it.
        let now = self.now.moment;
        let later = |at: Moment| if now.either_reached(at) { now.plus(WAITS_FOR_OTHERS) } else { at };
        moments.into_iter().flatten().map(later).min()
    }

    /// When the next beat leaves; `None` before the first.
    pub fn next_beat(&self) -> Option<Moment> {
        self.schedule.deadline()
    }

    /// How this agent rests, if nothing that peers say next is waited for: nothing is under way in the cluster or here, and a
    /// host without a vote holds its lease.
    pub fn rest(&self) -> Option<Resting> {
        let is_at_rest = self.wishing.is_none()
            && (self.voting.is_some() || self.lease_left_ms() > 0)
            && self.local.is_at_rest()
            && !self.ledger.plans().values().any(PlanState::is_open);
        let (look, beat) = (look_every(&self.timing, self.voting.is_some()), self.timing.beat);
        is_at_rest.then_some(Resting { look, beat })
    }

    /// The keeper's page as last read.
    pub fn keeper_page(&self) -> Option<&KeeperPage> {
        self.keeper.page.as_ref()
    }

    /// The replicated state as this agent has applied it.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Time spans in force here.
    pub fn timing(&self) -> &Timing {
        &self.timing
    }

    /// Whether this agent leads the voters now.
    pub fn is_leader(&self) -> bool {
        self.voting.as_ref().is_some_and(Voting::is_leader)
    }

    pub(super) fn event(&mut self, event: Event) {
        self.effects.push(Effect::Event(event));
    }

    /// The era in which this agent speaks: the first one until the log says otherwise.
    pub(super) fn era(&self) -> Era {
        self.ledger.era().max(self.newest_era).max(Era(1))
    }

    /// Hands a command to whoever leads, until it is seen applied.
    pub(super) fn propose(&mut self, command: Command) -> Option<ProposalKey> {
        self.propose_until(command, None)
    }

    /// As `propose`, given up at `until`.
    pub(super) fn propose_until(&mut self, command: Command, until: Option<Moment>) -> Option<ProposalKey> {
        let (proposer, era, wall_ms) = (self.me.host.clone(), self.era(), self.now.wall_ms);
        self.proposals.add_until(command, until, |key, command| Entry { key, proposer, era, wall_ms, command })
    }

    /// Everybody whom this agent may hear, by site, itself left out.
    pub(super) fn roster(&self) -> BTreeMap<HostName, SiteName> {
        let mut roster = match &self.spec {
            Some(spec) => spec.hosts.values().map(|host| (host.name.clone(), host.site.clone())).collect(),
            None => self.seeds.clone(),
        };
        roster.remove(&self.me.host);
        roster
    }

    /// Everybody whom this agent may hear; as `roster`, without a copy.
    pub(super) fn peers(&self) -> impl Iterator<Item = &HostName> {
        let (spec, seeds) = match &self.spec {
            Some(spec) => (Some(spec.hosts.keys()), None),
            None => (None, Some(self.seeds.keys())),
        };
        let known = spec.into_iter().flatten().chain(seeds.into_iter().flatten());
        known.filter(|host| **host != self.me.host)
    }

    /// The site of somebody whom this agent may hear; as `roster`, without the whole list.
    pub(super) fn site_of_peer(&self, host: &HostName) -> Option<&SiteName> {
        let known = match &self.spec {
            Some(spec) => spec.hosts.get(host).map(|host| &host.site),
            None => self.seeds.get(host),
        };
        known.filter(|_| *host != self.me.host)
    }

    pub(super) fn take_roster(&mut self) {
        let roster = self.roster();
        // Everybody beats to who votes; to others voters do, and everybody until it is known who votes.
        let to_all = self.voting.is_some() || roster.keys().all(|host| self.vote_of(host).is_none());
        let membership = self.ledger.membership();
        let votes = |host: &HostName| membership.all_voters().any(|voter| voter.host == *host);
        self.detector.roster(self.now.moment, &roster, |host| to_all || votes(host));
        self.heard.retain(|host, _| roster.contains_key(host));
        self.replies.keep(|host| roster.contains_key(host));
    }

    /// The spec in force changed, or the agent began with one.
    pub(super) fn take_spec(&mut self) {
        if let Some(timing) = self.ledger.timing().cloned() {
            self.schedule.set_every(timing.beat);
            self.replies.set_every(timing.beat);
            if let Some(holder) = &mut self.keeper.holder {
                holder.set_renewal(timing.asks_every());
            }
            self.detector.tune(detector_params(&timing));
            self.timing = timing;
        }
        let revision = self.ledger.spec_revision();
        if revision.revision == 0 {
            return;
        }
        match ClusterSpec::parse("the spec in force", &revision.source) {
            Ok(spec) => {
                let spec = Arc::new(spec);
                self.spec = Some(Arc::clone(&spec));
                self.effects.push(Effect::Spec(spec));
            }
            Err(problems) => {
                let because = format!("read the spec in force (revision {}): {problems}", revision.revision);
                self.event(Event::Dropped { from: self.me.host.clone(), because });
            }
        }
    }
}

fn detector_params(timing: &Timing) -> Params {
    Params { beat: timing.beat, detection: timing.detection, delay: timing.rtt_max / 2 }
}

/// How an agent rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resting {
    /// How often it is enough to look at what peers say; `None`: at once.
    pub look: Option<Duration>,
    /// Δ: beats are acknowledged with the next ones.
    pub beat: Duration,
}

/// How often who has nothing to wait for looks at what came in; `None`: at once.
///
/// A voter: a fiftieth of Δ, where that is worth it (Δ is long where hosts are many). Others: Δ, or a share of it. So long
/// at most lies an answer to a lease request, here and before at the voter, and the lease must allow for that as for jitter.
fn look_every(timing: &Timing, votes: bool) -> Option<Duration> {
    let worth = |every: Duration| (every >= REST_MIN).then_some(every);
    let at_voter = worth(timing.beat / VOTERS_LOOKS);
    if votes {
        return at_voter;
    }
    let allowed = timing.jitter.saturating_add(timing.lease_spare()).saturating_sub(at_voter.unwrap_or_default());
    let looks = timing.beat.as_nanos().div_ceil(allowed.as_nanos().max(1));
    worth(timing.beat / u32::try_from(looks).unwrap_or(u32::MAX).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorum::timing::Measured;

    #[test]
    fn what_lies_at_a_voter_and_here_is_no_longer_than_the_lease_bears() {
        let ms = Duration::from_millis;
        let mut timing = Timing::derive(Measured::new(ms(1_100), ms(40)));
        assert_eq!(look_every(&timing, true), None, "beats that are quick need quick voters");
        for beat in [ms(500), ms(1_000), ms(2_000)] {
            (timing.beat, timing.renewal) = (beat, beat);
            timing.fit();
            let (voter, host) = (look_every(&timing, true).expect("long"), look_every(&timing, false).expect("long"));
            assert_eq!(voter, beat / 50);
            assert!(voter + host <= timing.jitter + timing.lease_spare(), "{voter:?} {host:?}");
        }
    }
}
