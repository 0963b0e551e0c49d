//! Model of one host's lease with three voters: grants and their delay, pauses between check and pet, the watchdog,
//! restarts of voters, drift, a lowered lease, a keeper whose death closes the watchdog device.
//!
//! Time is discrete; one tick is one nanosecond to the production functions that decide: `holder::expiry`,
//! `lease::may_pet`, `voter::judge`, `voter::has_waited`, `VoterLease`, `Timing::pet_reserve`,
//! `LeaseTerms::voter_wait`. State holds ages, not moments, so there is no horizon.
//!
//! What is abstracted, and why no behaviour is lost:
//! - Requests: the holder may send at any moment, so a request of any age may arrive at any moment; none is stored.
//! - Grants under way: one per voter. The network may lose any, and only the newest can prolong anything.
//! - An age is forgotten once no check can succeed with it any more; ages only grow.
//! - Voters are interchangeable: a state stands for all permutations of them.
//! - The soft kill is left out: a keeper that never kills is the worst one, the watchdog alone must do.
//! - Before the first start nothing protected runs and the keeper pets as it likes; no watchdog bounds how late such a
//!   pet is. So a start checks the lease itself, *after* the keeper echoed the armed set. The worst case is a free pet
//!   at that very moment: `Arm`.
//! - Drift is a number of ticks in which the holder's clock stands still or all voters' clocks count two.
//!
//! The host runs in the interval that begins now iff its watchdog has not fired: a pet at the very moment at which it
//! would fire still comes in time, so a pet can follow its check by up to W, and the reset the pet by W.

use quorum::id::{BootId, Era, HostEpoch, HostName, KeeperInstance, LogIndex, SiteName, VoterId};
use quorum::lease::holder::{Given, expiry};
use quorum::lease::voter::{Facts, VoterLease, has_waited, judge};
use quorum::lease::{Claim, may_pet};
use quorum::moment::Moment;
use quorum::roster::{ConfigId, Membership, VoterInfo};
use quorum::timing::{LeaseTerms, Measured, Timing};
use stateright::{Model, Property};
use std::collections::BTreeMap;
use std::time::Duration;

/// "No such grant", or "the watchdog has fired".
const NONE: u8 = u8::MAX;

/// Nothing protected runs yet, and the keeper pets as it likes.
const UNARMED: u8 = u8::MAX - 1;

/// All ages are counted back from here.
const NOW: u64 = 1_000;

pub const INERT: &str = "I4 evidence means that the host is inert";
pub const SILENT: &str = "I5 no grant after the end is persisted";

/// The rule that a negative control breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// The holder counts from the receipt of a grant.
    CountsFromReceipt,
    /// A restarted voter takes its last grant for long past.
    ForgetsAtRestart,
    /// A voter waits L.
    WaitsLease,
    /// A voter waits by the lease in force now, not by the largest since the admission.
    WaitsNewestLease,
    /// A voter says Expired without a Lost.
    ExpiresWithoutLost,
    /// Lost counts as committed as soon as one voter has it, and the others grant on.
    GrantsAfterLost,
    /// A voter counts its wait with one that was told of Lost before it persisted it.
    HearsayLost,
}

/// The parameters of one run.
#[derive(Clone, Debug)]
pub struct Lease {
    pub timing: Timing,
    pub fault: Fault,
    /// Ticks that the holder's clock may miss.
    pub slow: u8,
    /// Ticks that the voters' clocks may count twice.
    pub fast: u8,
    /// Whether voters restart.
    pub restarts: bool,
    /// L after it was lowered, if it may be.
    pub lowered: Option<Duration>,
    /// Whether the keeper may die and its death close the device, which pets it.
    pub close_pets: bool,
    /// Faults planted in the production functions.
    pub planted: &'static [&'static str],
    pub cast: Cast,
}

/// Who takes part; the same in every run.
#[derive(Clone, Debug)]
pub struct Cast {
    membership: Membership,
    host: HostName,
    claim: Claim,
    ids: Vec<VoterId>,
}

const fn ticks(count: u64) -> Duration {
    Duration::from_nanos(count)
}

fn count(span: Duration) -> u8 {
    u8::try_from(span.as_nanos()).expect("a model's spans are a few ticks")
}

impl Lease {
    /// Three voters, watchdog W, lease L, exact clocks, no restarts.
    pub fn new(watchdog: u64, lease: u64) -> Self {
        let mut timing = Timing::derive(Measured::new(ticks(watchdog), ticks(0)));
        (timing.delta_hw, timing.delta_io, timing.rho_ppm) = (ticks(0), ticks(0), 0);
        (timing.watchdog_worst, timing.lease) = (ticks(watchdog), ticks(lease));
        let host = HostName::new("h").expect("a name");
        let site = SiteName::new("s").expect("a name");
        let ids: Vec<VoterId> = (0..3).map(VoterId).collect();
        let info = |&id: &VoterId| (id, VoterInfo { id, host: host.clone(), site: site.clone() });
        let membership = Membership { voters: ids.iter().map(info).collect(), ..Membership::default() };
        let claim = Claim {
            era: Era(1),
            host_epoch: HostEpoch::in_era(Era(1), 1),
            boot: BootId([1; 16]),
            instance: KeeperInstance([1; 16]),
        };
        Self {
            timing,
            fault: Fault::None,
            slow: 0,
            fast: 0,
            restarts: false,
            lowered: None,
            close_pets: false,
            planted: &[],
            cast: Cast { membership, host, claim, ids },
        }
    }

    /// The oldest request with which a check can still succeed.
    fn reach(&self) -> u8 {
        count(self.timing.lease.saturating_sub(self.timing.pet_reserve()))
    }

    fn facts(&self, lost: bool) -> Facts<'_> {
        Facts {
            era: Era(1),
            admitted: Some(self.cast.claim),
            ended: lost.then_some(self.cast.claim.host_epoch),
            configuration_pending: false,
            undecodable: false,
            config: ConfigId { era: Era(1), index: LogIndex(1) },
            membership: &self.cast.membership,
            lease: self.timing.lease,
        }
    }

    /// L under which a voter grants now.
    fn lease_now(&self, state: &State) -> Duration {
        match self.lowered {
            Some(lowered) if state.lowered => lowered,
            _ => self.timing.lease,
        }
    }

    /// What a voter waits by.
    fn terms(&self, state: &State) -> LeaseTerms {
        let first = self.timing.lease_terms();
        let now = LeaseTerms { lease: self.lease_now(state), ..first };
        match self.fault {
            Fault::WaitsNewestLease => now,
            _ => now.widest(first),
        }
    }

    fn wait(&self, state: &State) -> u8 {
        match self.fault {
            Fault::WaitsLease => count(self.timing.lease),
            _ => count(self.terms(state).voter_wait()),
        }
    }

    fn check_passes(&self, state: &State) -> bool {
        let lease = |short: bool| if short { self.lowered.unwrap_or_default() } else { self.timing.lease };
        let voters = self.cast.ids.iter().zip(&state.voters).filter(|(_, voter)| voter.sent != NONE);
        let given = |voter: &Voter| Given { sent: ago(voter.sent), lease: lease(voter.short) };
        let given: BTreeMap<VoterId, Given> = voters.map(|(&id, voter)| (id, given(voter))).collect();
        let expires = expiry([&self.cast.ids, &[]], &given);
        expires.is_some_and(|expires| may_pet(Moment::from_ns(NOW), expires, self.timing.pet_reserve()))
    }

    fn may_expire(&self, state: &State, voter: &Voter) -> bool {
        let committed = state.voters.iter().filter(|voter| voter.lost).count() >= 2;
        let ended = match self.fault {
            Fault::ExpiresWithoutLost => true,
            Fault::HearsayLost => committed,
            _ => voter.lost && committed,
        };
        let waited = match self.fault {
            Fault::WaitsLease => voter.waited >= self.wait(state),
            _ => has_waited(Moment::from_ns(NOW), ago(voter.waited), self.terms(state)),
        };
        ended && waited
    }
}

fn ago(age: u8) -> Moment {
    Moment::from_ns(NOW - u64::from(age))
}

/// One voter, and what the holder has from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Voter {
    /// Age of the newest counted request, on the holder's clock.
    sent: u8,
    /// Whether the grant for it was under the lowered lease.
    short: bool,
    /// Age of the request whose grant is under way.
    under_way: u8,
    under_way_short: bool,
    /// Time since its last grant, on its own clock.
    waited: u8,
    /// Lost is persisted.
    lost: bool,
    /// It has said Expired, and that was counted.
    expired: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Keeper {
    /// Has not passed a check since its last pet.
    Idle,
    /// Has passed a check and has not petted yet: it may be paused here for long.
    Checked,
    /// Killed; the kernel has still to close the device.
    Dying,
    /// The device is closed.
    Dead,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    voters: [Voter; 3],
    keeper: Keeper,
    /// Ticks since the last pet; `UNARMED` before the first start, `NONE` once the host was reset.
    dog: u8,
    slow: u8,
    fast: u8,
    lowered: bool,
    /// A voter granted although it had persisted Lost.
    broke_silence: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Voter grants a request of this age; the grant is under way.
    Grant(usize, u8),
    /// The holder receives it.
    Deliver(usize),
    /// The keeper echoes the armed set, and the first start passes its check.
    Arm,
    /// The keeper passes its check.
    Check,
    /// The keeper pets, however long after the check.
    Pet,
    KeeperDies,
    /// The kernel closes the device, which pets it.
    Close,
    PersistLost(usize),
    Expire(usize),
    Restart(usize),
    Lower,
    Tick,
    /// A tick that the holder's clock misses.
    SlowTick,
    /// A tick that the voters' clocks count twice.
    FastTick,
}

impl State {
    fn is_proven(&self) -> bool {
        self.voters.iter().filter(|voter| voter.expired).count() >= 2
    }

    fn runs(&self, model: &Lease) -> bool {
        self.dog < count(model.timing.watchdog_worst)
    }

    fn is_reset(&self) -> bool {
        self.dog == NONE
    }
}

impl Model for Lease {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let waited = count(self.timing.voter_wait());
        let voter = Voter {
            sent: NONE,
            short: false,
            under_way: NONE,
            under_way_short: false,
            // Long past: no voter starts with a promise that it would have to wait out.
            waited,
            lost: false,
            expired: false,
        };
        vec![State {
            voters: [voter; 3],
            keeper: Keeper::Idle,
            dog: UNARMED,
            slow: 0,
            fast: 0,
            lowered: false,
            broke_silence: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        crate::run::plant(self.planted);
        if state.is_reset() && state.is_proven() {
            return;
        }
        self.voter_actions(state, actions);
        if !state.is_reset() {
            self.host_actions(state, actions);
        }
        if self.lowered.is_some() && !state.lowered {
            actions.push(Action::Lower);
        }
        actions.push(Action::Tick);
        if state.slow < self.slow && !state.is_reset() {
            actions.push(Action::SlowTick);
        }
        if state.fast < self.fast {
            actions.push(Action::FastTick);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Grant(voter, age) => self.grant(&mut state, voter, age),
            Action::Deliver(voter) => {
                let voter = &mut state.voters[voter];
                voter.sent = if self.fault == Fault::CountsFromReceipt { 0 } else { voter.under_way };
                (voter.short, voter.under_way) = (voter.under_way_short, NONE);
            }
            Action::Arm => state.dog = 0,
            Action::Check => state.keeper = Keeper::Checked,
            Action::Pet => (state.keeper, state.dog) = (Keeper::Idle, 0),
            Action::KeeperDies => state.keeper = Keeper::Dying,
            Action::Close => (state.keeper, state.dog) = (Keeper::Dead, 0),
            Action::PersistLost(voter) => state.voters[voter].lost = true,
            Action::Expire(voter) => state.voters[voter].expired = true,
            Action::Restart(voter) => self.restart(&mut state.voters[voter]),
            Action::Lower => state.lowered = true,
            Action::Tick => self.tick(&mut state, 1, 1),
            Action::SlowTick => {
                state.slow += 1;
                self.tick(&mut state, 0, 1);
            }
            Action::FastTick => {
                state.fast += 1;
                self.tick(&mut state, 1, 2);
            }
        }
        self.canonical(&mut state);
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(INERT, |model: &Self, state: &State| !(state.is_proven() && state.runs(model))),
            Property::always(SILENT, |_: &Self, state: &State| !state.broke_silence),
            Property::sometimes("the host is reset", |_: &Self, state: &State| state.is_reset()),
            Property::sometimes("a lease is held", |_: &Self, state: &State| state.keeper == Keeper::Checked),
            Property::sometimes("self-fenced is proven", |_: &Self, state: &State| state.is_proven()),
            Property::sometimes("a pet hangs while Lost is committed", |_: &Self, state: &State| {
                state.keeper == Keeper::Checked && state.voters.iter().filter(|voter| voter.lost).count() >= 2
            }),
        ];
        if self.close_pets {
            properties.push(Property::sometimes("a dying keeper pets", |_: &Self, state: &State| {
                state.keeper == Keeper::Dead
            }));
        }
        properties
    }
}

impl Lease {
    fn voter_actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (index, voter) in state.voters.iter().enumerate() {
            let granting = self.fault == Fault::GrantsAfterLost
                || judge(self.cast.ids[index], self.cast.claim, &self.facts(voter.lost)).is_ok();
            if granting && !state.is_reset() {
                actions.extend((0..=self.reach()).map(|age| Action::Grant(index, age)));
            }
            if voter.under_way != NONE && !state.is_reset() {
                actions.push(Action::Deliver(index));
            }
            if !voter.lost {
                actions.push(Action::PersistLost(index));
            }
            if !voter.expired && self.may_expire(state, voter) {
                actions.push(Action::Expire(index));
            }
            if self.restarts && !voter.expired {
                actions.push(Action::Restart(index));
            }
        }
    }

    fn host_actions(&self, state: &State, actions: &mut Vec<Action>) {
        match state.keeper {
            Keeper::Idle if self.check_passes(state) => {
                actions.push(if state.dog == UNARMED { Action::Arm } else { Action::Check });
            }
            Keeper::Checked => actions.push(Action::Pet),
            Keeper::Dying => actions.push(Action::Close),
            Keeper::Idle | Keeper::Dead => {}
        }
        if self.close_pets && state.dog != UNARMED && matches!(state.keeper, Keeper::Idle | Keeper::Checked) {
            actions.push(Action::KeeperDies);
        }
    }

    fn grant(&self, state: &mut State, voter: usize, age: u8) {
        let short = state.lowered;
        let voter = &mut state.voters[voter];
        state.broke_silence |= voter.lost;
        (voter.under_way, voter.under_way_short, voter.waited) = (age, short, 0);
    }

    fn restart(&self, voter: &mut Voter) {
        let start = VoterLease::new(self.cast.ids[0], Moment::from_ns(NOW));
        let since = Moment::from_ns(NOW).waited_since(start.last_grant(&self.cast.host));
        voter.waited = match self.fault {
            Fault::ForgetsAtRestart => NONE,
            _ => u8::try_from(since.as_nanos()).unwrap_or(NONE),
        };
    }

    fn tick(&self, state: &mut State, holder: u8, voters: u8) {
        if !state.is_reset() && state.dog != UNARMED {
            state.dog = if state.runs(self) { state.dog + 1 } else { NONE };
        }
        for voter in &mut state.voters {
            voter.sent = voter.sent.saturating_add(holder);
            voter.under_way = voter.under_way.saturating_add(holder);
            voter.waited = voter.waited.saturating_add(voters);
        }
    }

    /// Forgets what can make no difference any more, and orders the voters.
    fn canonical(&self, state: &mut State) {
        let reach = self.reach();
        let wait = self.wait(state).max(count(self.timing.lease));
        let receipt = self.fault == Fault::CountsFromReceipt;
        for voter in &mut state.voters {
            if voter.sent > reach || state.dog == NONE {
                (voter.sent, voter.short) = (NONE, false);
            }
            if state.dog == NONE || (voter.under_way > reach && !receipt) {
                voter.under_way = NONE;
            }
            if receipt && voter.under_way != NONE {
                voter.under_way = 0;
            }
            if voter.under_way == NONE {
                voter.under_way_short = false;
            }
            voter.waited = if voter.expired { 0 } else { voter.waited.min(wait) };
        }
        if state.dog == NONE {
            (state.keeper, state.slow) = (Keeper::Idle, 0);
        }
        state.voters.sort_unstable();
    }
}
