//! Model of a change of voters while a host holds its lease: {0,1,2} → joint → {0,1,3}.
//!
//! The log is a given list of entries (configurations, and one Lost at each possible place); each voter has a
//! persisted prefix and an applied prefix of it, of its own length. Commit needs a majority of the configuration in
//! force at the commit index, in a joint one of both halves, as in raft-rs. A configuration is appended only once
//! the one before it is committed.
//!
//! Production functions decide: `voter::judge` (learner, pending configuration, ended), `VoterLease` (what an applied
//! configuration or an installed snapshot does to the wait), `voter::has_waited`, `holder::expiry`,
//! `Membership::has_majority`.
//!
//! What is abstracted, and why no behaviour is lost:
//! - The watchdog: the lease model shows that the host runs at most until E_h, so here it runs exactly until E_h.
//! - A grant is delivered at once for a request sent at once: both only prolong the lease, and the holder never loses
//!   by having more.
//! - `Expired` is counted at once: a later count proves nothing that an earlier one does not.
//! - Truncated entries: a voter whose uncommitted entry is cut off is one that has not persisted it yet.
//! - A restart of a voter only makes it wait longer.
//! - Voters 0 and 1 are interchangeable.
//! - In the sound model a wait is forgotten once it cannot lead to an `Expired` that counts: after it was said, and
//!   while the voter has not applied the newest configuration in the log (applying it starts the wait again).

use quorum::id::{BootId, Era, HostEpoch, HostName, KeeperInstance, LogIndex, SiteName, VoterId};
use quorum::lease::Claim;
use quorum::lease::holder::{Given, expiry};
use quorum::lease::voter::{Facts, VoterLease, has_waited, judge};
use quorum::moment::Moment;
use quorum::roster::{ConfigId, Membership, VoterInfo};
use quorum::timing::LeaseTerms;
use stateright::{Model, Property};
use std::collections::BTreeMap;
use std::time::Duration;

/// Voters 0 to 3.
const VOTERS: usize = 4;

/// Most configurations that a run has, the first included.
const CONFIGS: usize = 5;

const NOW: u64 = 100;

pub const INERT: &str = "I4 evidence means that the host is inert";

/// The rule that a negative control breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// The holder counts grants of all configurations together.
    MixesConfigurations,
    /// A voter keeps its wait when it applies a configuration.
    KeepsWaits,
    /// A voter that has persisted a configuration goes on granting under the one that it has applied.
    GrantsWhilePending,
    /// `Expired` carries no configuration: one said before a change counts after it.
    UntaggedExpired,
    /// `Expired` of equal ids counts although another configuration is in force.
    SupersededExpired,
    /// Configurations of equal members have equal ids, and a voter that has yet to apply a change speaks.
    IdByMembers,
    /// An installed snapshot keeps waits; it may have skipped a configuration change.
    SnapshotKeepsWaits,
    /// A learner grants, and the holder counts it.
    LearnerCounts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    /// The configuration with this number comes into force.
    Config(u8),
    Lost,
}

/// One run: the configurations in order, and L in ticks.
#[derive(Clone, Debug)]
pub struct Change {
    fault: Fault,
    lease: u64,
    planted: &'static [&'static str],
    /// Steps that every run begins with; a search that begins in the middle of a change is shorter.
    begun: Vec<Action>,
    /// Where Lost may stand among the configuration entries.
    lost_at: Vec<u8>,
    configs: Vec<Membership>,
    lists: Vec<[Vec<VoterId>; 2]>,
    claim: Claim,
    host: HostName,
}

fn half(ids: &[u64]) -> BTreeMap<VoterId, VoterInfo> {
    let (host, site) = (HostName::new("v").expect("a name"), SiteName::new("s").expect("a name"));
    let info = |&id: &u64| (VoterId(id), VoterInfo { id: VoterId(id), host: host.clone(), site: site.clone() });
    ids.iter().map(info).collect()
}

fn members(voters: &[u64], outgoing: &[u64]) -> Membership {
    Membership { voters: half(voters), outgoing: half(outgoing), ..Membership::default() }
}

impl Change {
    /// Voter 2 is replaced by voter 3 through a joint configuration; Lost stands anywhere.
    pub fn replace(lease: u64, fault: Fault) -> Self {
        let (old, new): (&[u64], &[u64]) = (&[0, 1, 2], &[0, 1, 3]);
        Self::new(lease, fault, vec![members(old, &[]), members(new, old), members(new, &[])])
    }

    /// There and back again: the first and the last configuration have the same members.
    pub fn there_and_back(lease: u64, fault: Fault) -> Self {
        let (old, new): (&[u64], &[u64]) = (&[0, 1, 2], &[0, 1, 3]);
        let there = [members(old, &[]), members(new, old), members(new, &[])];
        Self::new(lease, fault, [&there[..], &[members(old, new), members(old, &[])]].concat())
    }

    fn new(lease: u64, fault: Fault, configs: Vec<Membership>) -> Self {
        let ids = |half: &BTreeMap<VoterId, VoterInfo>| half.keys().copied().collect::<Vec<_>>();
        let claim = Claim {
            era: Era(1),
            host_epoch: HostEpoch::in_era(Era(1), 1),
            boot: BootId([1; 16]),
            instance: KeeperInstance([1; 16]),
        };
        Self {
            fault,
            lease,
            planted: &[],
            begun: Vec::new(),
            lost_at: (0..configs.len() as u8).collect(),
            lists: configs.iter().map(|config| [ids(&config.voters), ids(&config.outgoing)]).collect(),
            configs,
            claim,
            host: HostName::new("h").expect("a name"),
        }
    }

    /// Only the log in which Lost stands behind this many configuration entries.
    #[must_use]
    pub fn with_lost_behind(self, entries: u8) -> Self {
        Self { lost_at: vec![entries], ..self }
    }

    /// With faults planted in the production functions.
    #[cfg(feature = "mutants")]
    #[must_use]
    pub fn planted(self, planted: &'static [&'static str]) -> Self {
        Self { planted, ..self }
    }

    /// Begins where the first change is committed everywhere, while voters 0 and 2 have yet to apply it.
    #[must_use]
    pub fn begun_in_the_middle(self) -> Self {
        // The one of voters 0 and 1 that has less is called 0, so it is 0's turn twice.
        let everyone = [0, 0, 2, 3].map(Action::Persist).into_iter();
        let ahead = [Action::Apply(1), Action::Apply(1), Action::Apply(3), Action::Apply(3)];
        let round = || everyone.clone().chain([Action::Commit]);
        Self { begun: round().chain(round()).chain(ahead).collect(), ..self }
    }

    fn entry(&self, lost_at: u8, index: u8) -> Entry {
        match index.cmp(&lost_at) {
            std::cmp::Ordering::Less => Entry::Config(index + 1),
            std::cmp::Ordering::Equal => Entry::Lost,
            std::cmp::Ordering::Greater => Entry::Config(index),
        }
    }

    /// Entries in the whole log.
    fn entries(&self) -> u8 {
        self.configs.len() as u8
    }

    /// The configuration in force behind a prefix of the log.
    fn config_after(&self, lost_at: u8, prefix: u8) -> usize {
        usize::from(if prefix > lost_at { prefix - 1 } else { prefix })
    }

    /// What a configuration is called in grants and `Expired`.
    fn tag(&self, config: usize) -> usize {
        match self.fault {
            Fault::UntaggedExpired => 0,
            Fault::IdByMembers => {
                self.configs.iter().position(|other| *other == self.configs[config]).unwrap_or(config)
            }
            _ => config,
        }
    }

    fn facts(&self, state: &State, voter: &Voter) -> Facts<'_> {
        let config = self.config_after(state.lost_at, voter.applied);
        let newest = self.config_after(state.lost_at, voter.persisted);
        Facts {
            era: Era(1),
            admitted: Some(self.claim),
            ended: (voter.persisted > state.lost_at).then_some(self.claim.host_epoch),
            configuration_pending: newest > config && self.fault != Fault::GrantsWhilePending,
            undecodable: false,
            config: ConfigId { era: Era(1), index: LogIndex(config as u64) },
            membership: &self.configs[config],
            lease: Duration::from_nanos(self.lease),
        }
    }

    fn terms(&self) -> LeaseTerms {
        LeaseTerms { lease: Duration::from_nanos(self.lease), rho_ppm: 0, delta_io: Duration::ZERO }
    }

    fn grants(&self, state: &State, index: usize) -> bool {
        let (me, facts) = (VoterId(index as u64), self.facts(state, &state.voters[index]));
        match judge(me, self.claim, &facts) {
            Ok(()) => true,
            Err(refusal) => {
                self.fault == Fault::LearnerCounts
                    && refusal == quorum::lease::Refusal::NotVoter
                    && facts.ended.is_none()
            }
        }
    }

    /// Whether the host still holds a lease under some configuration id.
    fn is_live(&self, state: &State) -> bool {
        let alive = |age: u8| u64::from(age) < self.lease;
        if self.fault == Fault::LearnerCounts || self.fault == Fault::MixesConfigurations {
            let given = |voter: &&Voter| voter.given.iter().any(|&age| alive(age));
            return state.voters.iter().filter(given).count() >= 2;
        }
        (0..self.configs.len()).any(|config| {
            let given = |(index, voter): (usize, &Voter)| {
                let age = voter.given[config];
                let given = Given { sent: ago(age), lease: Duration::from_nanos(self.lease) };
                alive(age).then_some((VoterId(index as u64), given))
            };
            let given: BTreeMap<VoterId, Given> = state.voters.iter().enumerate().filter_map(given).collect();
            let [voters, outgoing] = &self.lists[config];
            given.len() >= 2 && expiry([voters, outgoing], &given).is_some_and(|expires| expires > Moment::from_ns(NOW))
        })
    }

    fn may_expire(&self, state: &State, index: usize) -> bool {
        let voter = &state.voters[index];
        let config = self.config_after(state.lost_at, voter.applied);
        let ended = voter.persisted > state.lost_at && state.committed > state.lost_at;
        let counts = match self.fault {
            Fault::UntaggedExpired | Fault::SupersededExpired | Fault::IdByMembers => true,
            _ => config == self.newest(state),
        };
        let unsaid = voter.said & (1 << self.tag(config)) == 0;
        let votes = self.configs[config].is_voter(VoterId(index as u64));
        ended && counts && unsaid && votes && has_waited(Moment::from_ns(NOW), ago(voter.waited), self.terms())
    }

    /// The configuration in force at the end of the log.
    fn newest(&self, state: &State) -> usize {
        let appended = state.voters.iter().map(|voter| voter.persisted).max().unwrap_or(0);
        self.config_after(state.lost_at, appended)
    }

    fn has_evidence(&self, state: &State) -> bool {
        let said = |tag: usize, config: usize| {
            self.configs[config].has_majority(|id| state.voters[id.0 as usize].said & (1 << tag) != 0)
        };
        match self.fault {
            Fault::SupersededExpired => (0..self.configs.len()).any(|config| said(config, config)),
            _ => said(self.tag(self.newest(state)), self.newest(state)),
        }
    }

    fn can_commit(&self, state: &State) -> bool {
        let next = state.committed;
        let config = &self.configs[self.config_after(state.lost_at, next)];
        next < self.entries() && config.has_majority(|id| state.voters[id.0 as usize].persisted > next)
    }

    /// Whether voter `index` may take the next entry: from the log of another, or as the leader that appends it.
    fn can_persist(&self, state: &State, index: usize) -> bool {
        let next = state.voters[index].persisted;
        if next >= self.entries() {
            return false;
        }
        let exists = state.voters.iter().any(|voter| voter.persisted > next);
        let leads = self.configs[self.config_after(state.lost_at, state.committed)].is_voter(VoterId(index as u64));
        let in_turn = match self.entry(state.lost_at, next) {
            Entry::Lost => true,
            // Every configuration entry before this one is committed.
            Entry::Config(_) => {
                self.config_after(state.lost_at, next) == self.config_after(state.lost_at, state.committed)
            }
        };
        exists || (leads && in_turn && state.voters[index].persisted >= state.committed)
    }
}

fn ago(age: u8) -> Moment {
    Moment::from_ns(NOW - u64::from(age))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Voter {
    /// Length of its log.
    persisted: u8,
    /// How much of it is applied.
    applied: u8,
    /// Age of the holder's newest counted request to it, per configuration.
    given: [u8; CONFIGS],
    /// Time since its last grant, or since whatever restarted its wait.
    waited: u8,
    /// The `Expired` that it has said, one bit per configuration.
    said: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    voters: [Voter; VOTERS],
    committed: u8,
    /// Where Lost stands in the log.
    lost_at: u8,
    proven: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Grant(usize),
    Persist(usize),
    Commit,
    Apply(usize),
    /// Takes over everything that is committed at once.
    Install(usize),
    Expire(usize),
    Tick,
}

impl Model for Change {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let age = self.lease as u8;
        let voter = Voter { persisted: 0, applied: 0, given: [age; CONFIGS], waited: age, said: 0 };
        let state = |&lost_at: &u8| State { voters: [voter; VOTERS], committed: 0, lost_at, proven: false };
        let step = |state: State, action: &Action| {
            let mut allowed = Vec::new();
            self.actions(&state, &mut allowed);
            assert!(allowed.contains(action), "{action:?} is not possible in {state:?}");
            self.next_state(&state, *action).expect("it changes something")
        };
        self.lost_at.iter().map(|at| self.begun.iter().fold(state(at), step)).collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        crate::run::plant(self.planted);
        for index in 0..VOTERS {
            let voter = &state.voters[index];
            if self.grants(state, index) {
                actions.push(Action::Grant(index));
            }
            if self.can_persist(state, index) {
                actions.push(Action::Persist(index));
            }
            if voter.applied < voter.persisted.min(state.committed) {
                actions.push(Action::Apply(index));
            }
            if voter.applied < state.committed {
                actions.push(Action::Install(index));
            }
            if !state.proven && self.may_expire(state, index) {
                actions.push(Action::Expire(index));
            }
        }
        if self.can_commit(state) {
            actions.push(Action::Commit);
        }
        actions.push(Action::Tick);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Grant(index) => {
                let voter = &mut state.voters[index];
                let config = self.config_after(last.lost_at, voter.applied);
                voter.given[self.grant_book(config)] = 0;
                voter.waited = 0;
            }
            Action::Persist(index) => state.voters[index].persisted += 1,
            Action::Commit => state.committed += 1,
            Action::Apply(index) => self.apply(&mut state, index),
            Action::Install(index) => self.install(&mut state, index),
            Action::Expire(index) => {
                let config = self.config_after(last.lost_at, last.voters[index].applied);
                state.voters[index].said |= 1 << self.tag(config);
            }
            Action::Tick => {
                for voter in &mut state.voters {
                    voter.given.iter_mut().for_each(|age| *age = age.saturating_add(1));
                    voter.waited = voter.waited.saturating_add(1);
                }
            }
        }
        state.proven |= self.has_evidence(&state);
        self.canonical(&mut state);
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let last = |model: &Self, state: &State| state.committed == model.entries();
        vec![
            Property::always(INERT, |model: &Self, state: &State| !(state.proven && model.is_live(state))),
            Property::sometimes("self-fenced is proven", |_: &Self, state: &State| state.proven),
            Property::sometimes("the whole log is committed", last),
            Property::sometimes("a lease is held under the last configuration", |model: &Self, state: &State| {
                let config = model.configs.len() - 1;
                let given = |id: VoterId| u64::from(state.voters[id.0 as usize].given[config]) < model.lease;
                model.configs[config].has_majority(given)
            }),
            Property::sometimes("a lease outlives the configuration", |model: &Self, state: &State| {
                model.is_live(state) && state.committed == model.entries() && state.lost_at != model.entries() - 1
            }),
        ]
    }
}

impl Change {
    /// Under which id the holder counts a grant.
    fn grant_book(&self, config: usize) -> usize {
        if self.fault == Fault::IdByMembers { self.tag(config) } else { config }
    }

    /// The voter's wait as the product restarts it; `told` says of what.
    fn restarted(&self, waited: u8, told: impl Fn(&mut VoterLease, Moment)) -> u8 {
        let mut lease = VoterLease::new(VoterId(0), ago(waited));
        told(&mut lease, Moment::from_ns(NOW));
        let since = Moment::from_ns(NOW).waited_since(lease.last_grant(&self.host));
        since.as_nanos() as u8
    }

    fn apply(&self, state: &mut State, index: usize) {
        let voter = &mut state.voters[index];
        let entry = self.entry(state.lost_at, voter.applied);
        voter.applied += 1;
        if matches!(entry, Entry::Config(_)) && self.fault != Fault::KeepsWaits {
            voter.waited = self.restarted(voter.waited, VoterLease::on_configuration_applied);
        }
    }

    fn install(&self, state: &mut State, index: usize) {
        let voter = &mut state.voters[index];
        voter.applied = state.committed;
        voter.persisted = voter.persisted.max(state.committed);
        if self.fault != Fault::SnapshotKeepsWaits && self.fault != Fault::KeepsWaits {
            voter.waited = self.restarted(voter.waited, VoterLease::on_snapshot_installed);
        }
    }

    fn canonical(&self, state: &mut State) {
        let dead = self.lease as u8;
        let sound = self.fault == Fault::None && self.planted.is_empty();
        let newest = self.newest(state);
        for voter in &mut state.voters {
            voter.given.iter_mut().for_each(|age| *age = (*age).min(dead));
            voter.waited = voter.waited.min(dead);
            if sound {
                voter.said &= 1 << newest;
                let behind = self.config_after(state.lost_at, voter.applied) != newest;
                if voter.said != 0 || behind {
                    voter.waited = 0;
                }
            }
            if state.proven {
                (voter.waited, voter.said) = (0, 0);
            }
        }
        if state.voters[1] < state.voters[0] {
            state.voters.swap(0, 1);
        }
    }
}
