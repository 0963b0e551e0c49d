//! Both sides against each other in real time: random loss, delay, clock rates within ρ, restarts.
//!
//! Claim: when the m-th voter has said `Expired`, the watchdog of a host that petted as late as it was allowed to has
//! fired and the host has stopped. Real time is known only to this test.

use super::*;
use crate::lease::holder::Holder;
use crate::lease::voter::{Ended, Facts, VoterLease};
use crate::roster::majority;
use crate::timing::{Measured, Timing};
use proptest::prelude::*;

const PPM: i128 = 1_000_000;

/// A machine's pair of clocks: offset and rate of each, in parts per million off.
#[derive(Clone, Copy, Debug)]
struct Clocks {
    offset: [u64; 2],
    off_ppm: [i64; 2],
}

impl Clocks {
    /// What they show at this real time.
    fn read(&self, real: u64) -> Moment {
        let show = |which: usize| {
            let passed = i128::from(real) * (PPM + i128::from(self.off_ppm[which])) / PPM;
            self.offset[which] + u64::try_from(passed).unwrap()
        };
        Moment { boot_ns: show(0), raw_ns: show(1) }
    }

    /// The last real time, at or after `from`, at which `holds` is true of what they show. It is true at `from` and
    /// never again once it is false.
    fn last(&self, from: u64, holds: impl Fn(Moment) -> bool) -> u64 {
        let (mut yes, mut no) = (from, from + 100_000_000_000);
        while no - yes > 1 {
            let middle = yes + (no - yes) / 2;
            if holds(self.read(middle)) { yes = middle } else { no = middle }
        }
        yes
    }
}

/// One request's way to one voter and back, in real nanoseconds; `None` is lost.
type Trip = Option<(u64, u64)>;

#[derive(Clone, Debug)]
struct Case {
    rho_ppm: u32,
    holder: Clocks,
    voters: Vec<Clocks>,
    /// Per round, per voter.
    trips: Vec<Vec<Trip>>,
    /// When each voter persists Lost.
    lost: Vec<u64>,
    /// When each voter restarts, if it does.
    restarts: Vec<Option<u64>>,
}

const MS: u64 = 1_000_000;

fn clocks(rho: i64) -> impl Strategy<Value = Clocks> {
    let rate = prop_oneof![Just(-rho), Just(rho), -rho..=rho];
    let rates = prop_oneof![rate.clone().prop_map(|rate| [rate; 2]), [rate.clone(), rate]];
    ([0..10_000 * MS, 0..10_000 * MS], rates).prop_map(|(offset, off_ppm)| Clocks { offset, off_ppm })
}

fn case() -> impl Strategy<Value = Case> {
    let shape = (prop_oneof![Just(3_usize), Just(5)], prop_oneof![Just(1_000_u32), Just(50_000)]);
    shape.prop_flat_map(|(voters, rho_ppm)| {
        let leg = prop_oneof![3 => Just(0), 3 => 0..200 * MS, 1 => 0..20_000 * MS];
        let trip = proptest::option::weighted(0.8, (leg.clone(), leg));
        let moment = prop_oneof![1 => Just(0), 6 => 0..8_000 * MS];
        (
            clocks(i64::from(rho_ppm)),
            proptest::collection::vec(clocks(i64::from(rho_ppm)), voters),
            proptest::collection::vec(proptest::collection::vec(trip, voters), 1..12),
            proptest::collection::vec(moment.clone(), voters),
            proptest::collection::vec(proptest::option::weighted(0.3, moment), voters),
        )
            .prop_map(move |(holder, voters, trips, lost, restarts)| Case {
                rho_ppm,
                holder,
                voters,
                trips,
                lost,
                restarts,
            })
    })
}

enum Event {
    /// The holder asks every voter.
    Round(usize),
    /// A voter persists Lost, and it is committed at once: the earliest that the protocol allows.
    Lost(usize),
    Restart(usize),
    Request(usize, LeaseRequest, u64),
    Answer(usize, Answer),
}

/// The world: the only place that knows real time.
struct Race<'a> {
    case: &'a Case,
    timing: Timing,
    membership: Membership,
    queue: BTreeMap<(u64, usize), Event>,
    pushed: usize,
    holder: Holder,
    voters: Vec<VoterLease>,
    lost: Vec<bool>,
    spoken: Vec<u64>,
    last_check: Option<u64>,
}

impl<'a> Race<'a> {
    fn new(case: &'a Case) -> Self {
        let mut timing = Timing::derive(Measured::new(Duration::from_millis(1_100), Duration::from_millis(40)));
        timing.rho_ppm = case.rho_ppm;
        let ids: Vec<u64> = (1..=case.voters.len() as u64).collect();
        let mut holder = Holder::new(host(), claim(), AgentInstance([9; 16]), Duration::ZERO);
        holder.set_voters(ids.iter().copied().map(VoterId));
        let voters = ids.iter().zip(&case.voters);
        let mut race = Self {
            case,
            timing,
            membership: members(&ids, &[], &[]),
            queue: BTreeMap::new(),
            pushed: 0,
            holder,
            voters: voters.map(|(&id, clocks)| VoterLease::new(VoterId(id), clocks.read(0))).collect(),
            lost: vec![false; ids.len()],
            spoken: vec![u64::MAX; ids.len()],
            last_check: None,
        };
        for round in 0..case.trips.len() {
            race.push(round as u64 * 500 * MS, Event::Round(round));
        }
        for voter in 0..ids.len() {
            race.push(case.lost[voter], Event::Lost(voter));
            if let Some(restart) = case.restarts[voter] {
                race.push(restart, Event::Restart(voter));
            }
        }
        race
    }

    fn push(&mut self, real: u64, event: Event) {
        self.pushed += 1;
        self.queue.insert((real, self.pushed), event);
    }

    /// Runs to the end, and returns whether the host had stopped, with its I/O, before a majority said that it had.
    fn run_until_host_stopped_first(mut self) -> bool {
        while let Some(((real, _), event)) = self.queue.pop_first() {
            self.step(real, event);
        }
        self.spoken.sort_unstable();
        let proof = self.spoken[majority(self.spoken.len()) - 1];
        let reserve = self.timing.watchdog_worst * 2 + self.timing.delta_hw + self.timing.delta_io;
        let stopped = |check: u64| check + u64::try_from(reserve.as_nanos()).unwrap();
        self.last_check.is_none_or(|check| stopped(check) <= proof)
    }

    fn step(&mut self, real: u64, event: Event) {
        match event {
            Event::Round(round) => {
                for (to, request) in self.holder.requests_due(self.case.holder.read(real)) {
                    let voter = to.0 as usize - 1;
                    if let Some((there, back)) = self.case.trips[round][voter] {
                        self.push(real + there, Event::Request(voter, request, back));
                    }
                }
            }
            Event::Lost(voter) => {
                self.lost[voter] = true;
                self.spoken[voter] = self.speaks_from(voter, real);
            }
            Event::Restart(voter) => {
                let start = self.case.voters[voter].read(real);
                self.voters[voter] = VoterLease::new(VoterId(voter as u64 + 1), start);
                if self.lost[voter] && self.spoken[voter] > real {
                    self.spoken[voter] = self.speaks_from(voter, real);
                }
            }
            Event::Request(voter, request, back) => {
                let facts = facts(&self.membership, self.lost[voter], self.timing.lease);
                let answer = self.voters[voter].request(self.case.voters[voter].read(real), &request, &facts);
                self.push(real + back, Event::Answer(voter, answer));
            }
            Event::Answer(voter, answer) => self.answer(real, voter, &answer),
        }
    }

    fn answer(&mut self, real: u64, voter: usize, answer: &Answer) {
        let now = self.case.holder.read(real);
        let _ = self.holder.answer(now, VoterId(voter as u64 + 1), answer);
        if self.holder.may_pet(now, &self.timing) {
            let last = self.case.holder.last(real, |now| self.holder.may_pet(now, &self.timing));
            self.last_check = self.last_check.max(Some(last));
        }
    }

    /// The first real time, from `real` on, at which the voter says `Expired`.
    fn speaks_from(&self, voter: usize, real: u64) -> u64 {
        let ended = [Ended { host: host(), host_epoch: he(7), terms: self.timing.lease_terms() }];
        let facts = facts(&self.membership, true, self.timing.lease);
        let silent = |now: Moment| self.voters[voter].expired_due(now, &ended, &facts).is_empty();
        let clocks = self.case.voters[voter];
        if silent(clocks.read(real)) { clocks.last(real, silent) + 1 } else { real }
    }
}

fn facts(membership: &Membership, lost: bool, lease: Duration) -> Facts<'_> {
    Facts {
        era: Era(1),
        admitted: Some(claim()),
        ended: lost.then(|| he(7)),
        configuration_pending: false,
        undecodable: false,
        config: config(4),
        membership,
        lease,
    }
}

/// Runs the claim over the same cases every time.
pub(super) fn broken_claims() -> Vec<&'static str> {
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
    let config = Config { cases: 2_000, failure_persistence: None, max_shrink_iters: 0, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let result = runner.run(&case(), |case| {
        prop_assert!(Race::new(&case).run_until_host_stopped_first());
        Ok(())
    });
    let claim = "no_majority_expires_before_the_host_has_stopped";
    if result.is_err() { vec![claim] } else { Vec::new() }
}

#[test]
fn no_majority_expires_before_the_host_has_stopped() {
    assert_eq!(broken_claims(), Vec::<&str>::new());
}

/// The claim above says nothing if the cases never come to the point.
#[test]
fn the_random_cases_do_hold_leases_and_come_close() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let (mut held, mut spoken) = (0, 0);
    for _ in 0..500 {
        let case = case().new_tree(&mut runner).unwrap().current();
        let mut race = Race::new(&case);
        while let Some(((real, _), event)) = race.queue.pop_first() {
            race.step(real, event);
        }
        held += usize::from(race.last_check.is_some());
        spoken += usize::from(race.spoken.iter().all(|&at| at < u64::MAX));
    }
    assert!(held > 250, "only {held} of 500 cases hold a lease at all");
    assert_eq!(spoken, 500, "every voter speaks in the end");
}
