//! The leader's duties: what it remembers beside the log, and how often it looks.
//!
//! All of this is soft: a new leader builds it anew from beats and answers. What *permits* is gone with the old leader,
//! what *forbids* counts anew (protocol §7).

use super::core::Engine;
use super::fence_lead::FenceLead;
use super::message::Challenge;
use crate::detector::Judgement;
use crate::policy::{Damping, WhyNot};
use quorum::id::{Epoch, Generation, GroupName, HostEpoch, HostName, LogIndex, PlanId, Term, VoterId};
use quorum::ledger::{self, CopyCheck, Incarnation};
use quorum::moment::Moment;
use std::collections::BTreeMap;
use std::time::Duration;

/// The leader looks at everything at least twice a beat, and never more often than this for no reason.
const LOOK_MIN: Duration = Duration::from_millis(25);
/// A leader tries this often to hand over to the witness, and not before it has led that long.
const HAND_OVER_EVERY: Duration = Duration::from_secs(2);
/// A refused proposal is made again after this, doubled each time up to [`PACE_MAX`].
const PACE_MIN: Duration = Duration::from_millis(500);
const PACE_MAX: Duration = Duration::from_secs(30);

/// What a host said of its copy, and when.
#[derive(Clone, Debug)]
pub(super) struct CopyAnswer {
    pub(super) generation: Option<Generation>,
    pub(super) check: Option<CopyCheck>,
    pub(super) at: Moment,
}

/// When a voter told its last grants, and which.
pub(super) type GrantsTold = (Moment, Vec<(HostName, HostEpoch, u32)>);

/// A challenge under way.
#[derive(Clone, Debug)]
pub(super) struct Challenging {
    pub(super) challenge: Challenge,
    pub(super) drawn_at: LogIndex,
    pub(super) sent: Moment,
}

/// A leader's memory.
pub(super) struct Leading {
    pub(super) term: Term,
    pub(super) since: Moment,
    pub(super) damping: Damping,
    /// When an end of a host epoch was applied here.
    pub(super) ended_at: BTreeMap<Incarnation, Moment>,
    pub(super) challenges: BTreeMap<HostName, Challenging>,
    pub(super) copies: BTreeMap<(GroupName, HostName), CopyAnswer>,
    pub(super) asked: BTreeMap<(GroupName, HostName), Moment>,
    /// What stands against declaring a silent host lost, nothing if it is only waited for; and the same for people.
    pub(super) told: BTreeMap<HostName, (Option<WhyNot>, String)>,
    /// Why a group's data doesn't let it be activated.
    pub(super) gate_told: BTreeMap<GroupName, String>,
    pub(super) not_admitted: BTreeMap<HostName, String>,
    /// Since when a host has been healthy, for failback.
    pub(super) healthy: BTreeMap<HostName, Moment>,
    /// The state of the ledger up to which that was noted with nobody suspected: nothing changes until either does.
    healthy_until: Option<LogIndex>,
    /// When each group was last seen in sync with its standby.
    pub(super) protected: BTreeMap<GroupName, Moment>,
    pub(super) last_grants: BTreeMap<HostName, GrantsTold>,
    pub(super) fencing: FenceLead,
    /// Who goes for whom, as far as the wishes heard by this leader say.
    pub(super) replacing: BTreeMap<HostName, VoterId>,
    paces: BTreeMap<String, (Moment, u32)>,
    nonce: u64,
    looked: Option<Moment>,
    look_every: Duration,
    /// At which step each open plan was last seen, and since when.
    pub(super) at_step: BTreeMap<PlanId, (usize, Moment)>,
    /// When this leader first saw each freeze, maintenance and hold.
    begun: BTreeMap<LogIndex, Moment>,
    /// Since when each group that isn't up is granted under which epoch.
    pub(super) granted: BTreeMap<GroupName, (Epoch, Moment)>,
    handed_over: Option<Moment>,
    dirty: bool,
}

impl Leading {
    fn new(term: Term, now: Moment, seed: u64) -> Self {
        Self {
            term,
            since: now,
            damping: Damping::default(),
            ended_at: BTreeMap::new(),
            challenges: BTreeMap::new(),
            copies: BTreeMap::new(),
            asked: BTreeMap::new(),
            told: BTreeMap::new(),
            gate_told: BTreeMap::new(),
            not_admitted: BTreeMap::new(),
            healthy: BTreeMap::new(),
            healthy_until: None,
            protected: BTreeMap::new(),
            last_grants: BTreeMap::new(),
            fencing: FenceLead::default(),
            replacing: BTreeMap::new(),
            paces: BTreeMap::new(),
            nonce: seed,
            looked: None,
            look_every: LOOK_MIN,
            at_step: BTreeMap::new(),
            begun: BTreeMap::new(),
            granted: BTreeMap::new(),
            handed_over: None,
            dirty: true,
        }
    }

    pub(super) fn deadline(&self) -> Option<Moment> {
        self.looked.map(|at| at.plus(self.look_every))
    }

    /// A number never used before by this leader.
    pub(super) fn fresh_nonce(&mut self) -> u64 {
        self.nonce = self.nonce.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.nonce
    }

    /// Whether a proposal with this mark (kind and subject) may be made now: a refused one waits.
    fn may_propose(&self, now: Moment, mark: &str) -> bool {
        self.paces.get(mark).is_none_or(|(until, _)| now.either_reached(*until))
    }

    /// A marked proposal was decided. One that is refused again and again is made ever more slowly.
    fn decided(&mut self, now: Moment, mark: String, is_accepted: bool) {
        if is_accepted {
            self.paces.remove(&mark);
            return;
        }
        let pace = self.paces.entry(mark).or_insert((now, 0));
        pace.1 += 1;
        let wait = PACE_MIN.saturating_mul(1 << pace.1.min(8)).min(PACE_MAX);
        pace.0 = now.plus(wait);
    }
}

impl Engine {
    /// Everything that the leader does of its own accord.
    pub(super) fn lead(&mut self) {
        let now = self.now.moment;
        let Some(term) = self.voting.as_ref().filter(|voting| voting.is_leader()).map(|voting| voting.replica.term())
        else {
            if self.leading.take().is_some() {
                self.proposals.drop_marked();
            }
            return;
        };
        if self.leading.as_ref().is_none_or(|leading| leading.term != term) {
            let seed = u64::from_le_bytes(self.me.agent.0[..8].try_into().unwrap_or_default()) ^ term.0;
            self.leading = Some(Leading::new(term, now, seed));
        }
        let leading = self.leading.as_mut().expect("just made");
        let due = leading.looked.is_none_or(|at| now.held_since(at) >= leading.look_every);
        if !due && !leading.dirty {
            return;
        }
        leading.looked = Some(now);
        leading.look_every = (self.timing.beat / 2).max(LOOK_MIN);
        leading.dirty = false;
        // Reports count only after an entry of this leader's own term is applied: until then the state may lack what
        // its predecessor committed.
        if self.ledger.position().term != term || self.ledger.cluster().is_none() {
            return;
        }
        self.note_health();
        self.prefer_witness();
        self.declare_lost();
        self.admit_hosts();
        self.lead_fencing();
        self.lead_members();
        self.raise_version();
        self.lead_groups();
        self.end_what_elapsed();
    }

    /// What the leader remembers of a fact that was applied.
    pub(super) fn lead_on(&mut self, fact: &ledger::Event) {
        let now = self.now.moment;
        if matches!(fact, ledger::Event::HostLost { .. }) {
            self.last_loss = Some(now);
        }
        self.fence_lead_on(fact);
        let Some(leading) = &mut self.leading else { return };
        leading.dirty = true;
        match fact {
            ledger::Event::HostLost { of, .. } => {
                leading.ended_at.insert(of.clone(), now);
                leading.damping.lost(now, &of.host);
                leading.healthy.remove(&of.host);
            }
            ledger::Event::PlanClosed { plan, .. } => {
                leading.at_step.remove(plan);
            }
            ledger::Event::HostRetired { of, .. } => {
                leading.ended_at.insert(of.clone(), now);
                leading.healthy.remove(&of.host);
            }
            _ => {}
        }
    }

    /// A proposal of this leader was decided.
    pub(super) fn lead_decided(&mut self, mark: String, is_accepted: bool) {
        let now = self.now.moment;
        if let Some(leading) = &mut self.leading {
            leading.decided(now, mark, is_accepted);
        }
    }

    /// Look again in this very step.
    pub(super) fn stir_leader(&mut self) {
        if let Some(leading) = &mut self.leading {
            leading.dirty = true;
        }
    }

    /// What was refused about this subject may be proposed again at once.
    pub(super) fn forget_paces(&mut self, subject: &str) {
        if let Some(leading) = &mut self.leading {
            leading.paces.retain(|mark, _| !mark.split([' ', '/']).any(|part| part == subject));
            leading.dirty = true;
        }
    }

    fn note_health(&mut self) {
        let now = self.now.moment;
        let Some(leading) = &mut self.leading else { return };
        let quiet_at = (!self.detector.suspects_anybody()).then(|| self.ledger.applied());
        if quiet_at.is_some() && quiet_at == leading.healthy_until {
            return;
        }
        leading.healthy_until = quiet_at;
        for host in self.ledger.hosts().keys() {
            let is_silent = matches!(self.detector.judgement(host), Some(Judgement::Suspect { .. }));
            if is_silent || self.ledger.admitted(host).is_none() {
                leading.healthy.remove(host);
            } else if !leading.healthy.contains_key(host) {
                leading.healthy.insert(host.clone(), now);
            }
        }
    }

    /// A leader at a site with workloads hands over to a voter at a witness: it is then never lost with a site whose
    /// loss it has to declare.
    fn prefer_witness(&mut self) {
        let now = self.now.moment;
        let is_witness = |site| self.ledger.spec().sites.get(site).is_some_and(|site: &ledger::SiteSpec| site.witness);
        let (Some(leading), Some(voting)) = (&mut self.leading, &mut self.voting) else { return };
        let due = leading.handed_over.is_none_or(|at| now.held_since(at) >= HAND_OVER_EVERY);
        if !due || is_witness(&self.me.site) || now.waited_since(leading.since) < HAND_OVER_EVERY {
            return;
        }
        let peers = voting.replica.peers();
        let committed = voting.replica.committed();
        let fits = |id| peers.get(id).is_some_and(|peer| peer.is_active && peer.accepted >= committed);
        let members = &self.ledger.membership().voters;
        let better = members.values().find(|voter| is_witness(&voter.site) && fits(&voter.id)).map(|voter| voter.id);
        if let Some(to) = better {
            leading.handed_over = Some(now);
            let _not_now = voting.replica.transfer_leader(to);
        }
    }

    pub(super) fn on_last_grants(&mut self, from: &HostName, grants: Vec<(HostName, HostEpoch, u32)>) {
        let now = self.now.moment;
        if let Some(leading) = &mut self.leading {
            leading.last_grants.insert(from.clone(), (now, grants));
        }
    }

    /// Freezes, maintenance and holds end when their span has passed on this leader's clock.
    fn end_what_elapsed(&mut self) {
        let now = self.now.moment;
        let Some(leading) = &mut self.leading else { return };
        let standing: Vec<LogIndex> = (self.ledger.freezes().keys().copied())
            .chain(self.ledger.maintenance().values().map(|restriction| restriction.at))
            .chain(self.ledger.holds().values().map(|restriction| restriction.at))
            .collect();
        leading.begun.retain(|index, _| standing.contains(index));
        // Counted from when this leader saw it first: at the latest a look after it was applied, or after it took over.
        let mut waited = |at: LogIndex| now.waited_since(*leading.begun.entry(at).or_insert(now));
        let mut commands = Vec::new();
        for (index, freeze) in self.ledger.freezes() {
            let waited = waited(*index);
            if waited >= freeze.span {
                let cause = ledger::EndCause::Elapsed { waited };
                commands.push((index.to_string(), ledger::Command::Thaw { freeze: *index, cause }));
            }
        }
        for (scope, restriction) in self.ledger.maintenance() {
            let waited = waited(restriction.at);
            if waited >= restriction.span {
                let cause = ledger::EndCause::Elapsed { waited };
                let command = ledger::Command::MaintenanceEnded { scope: scope.clone(), cause };
                commands.push((format!("{scope:?}"), command));
            }
        }
        for (scope, restriction) in self.ledger.holds() {
            let waited = waited(restriction.at);
            if waited >= restriction.span {
                let cause = ledger::EndCause::Elapsed { waited };
                commands.push((format!("{scope:?}"), ledger::Command::HoldEnded { scope: scope.clone(), cause }));
            }
        }
        for (subject, command) in commands {
            self.propose_paced(&subject, command);
        }
    }

    /// Proposes unless the like was refused a moment ago or is under way.
    pub(super) fn propose_paced(&mut self, subject: &str, command: ledger::Command) {
        let now = self.now.moment;
        let Some(leading) = &self.leading else { return };
        let mark = format!("{} {subject}", command.name());
        if !leading.may_propose(now, &mark) || self.proposals.is_marked(&mark) {
            return;
        }
        // What a leader proposes rests on what it saw just now: given up with the term, and after a while anyway.
        let until = now.plus(self.timing.election * 2);
        if let Some(proposal) = self.propose_until(command, Some(until)) {
            self.proposals.mark(proposal, mark);
        }
    }
}
