//! A made-up world for sessions: a machine with feeds, devices with quirks, virtual time, and the truth beside it.
//!
//! A read samples the truth at the moment it is asked and answers later. What a quirk turns on again stays on until
//! it is told off again, so that a false proof is one that an honest second look would have prevented.

use fencing::evidence::Finding;
use fencing::facts::{Binding, DeviceFacts, Proves, Rhythm};
use fencing::moment::Moment;
use fencing::name::{DeviceName, FeedName, HostName, VolumeName};
use fencing::plan::Plan;
use fencing::reading::{Access, Observed, Power, Reading};
use fencing::request::{FenceOrder, Stamp};
use fencing::session::{Act, Answer, CallId, Effect, Input, Note, Session};
use fencing::target::{ExpectedIdentity, MachineUuid, Place, ReportedIdentity, Target};
use fencing::topology::{Fenced, Topology};
use fencing::trouble::Trouble;
use fencing::verdict::Verdict;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How a made-up device misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quirk {
    /// It does what it is told, `0` ms after it said so.
    Honest(u64),
    /// It takes the order and nothing happens.
    AcceptsAndStaysOn,
    /// It refuses `off` when the thing is off already.
    RefusesWhenOff,
    /// It switches off, and on again `0` ms later.
    ComesBack(u64),
    /// It reports another machine's identity (and switches that one).
    WrongMachine,
    /// It reports no identity.
    Nameless,
    /// It answers nothing.
    Hangs,
    /// It answers nothing from `0` ms on.
    FallsSilent(u64),
    /// It breaks off in every second answer.
    BreaksOff,
    /// It answers garbage.
    Garbage,
    /// Its certificate changes at `0` ms.
    ChangesCertificate(u64),
    /// It refuses the login.
    RefusesLogin,
    /// It is neither on nor off after `off`.
    StaysBetween,
    /// Its answers take `0` ms.
    Slow(u64),
}

/// One made-up device.
#[derive(Clone, Debug)]
pub struct Double {
    pub facts: DeviceFacts,
    pub quirk: Quirk,
    /// Starts switched off already.
    pub off: bool,
}

/// What happened to one device.
#[derive(Clone, Debug, Default)]
pub struct Log {
    pub reads: Vec<(Moment, bool)>,
    pub offs: Vec<Moment>,
    pub logins_refused: usize,
    pub switched_before_identified: bool,
    identified: bool,
}

/// A run: the verdict and everything that a claim may want to look at.
#[derive(Debug)]
pub struct Run {
    pub verdict: Verdict,
    pub concluded: Moment,
    pub finished: Moment,
    pub logs: BTreeMap<DeviceName, Log>,
    pub notes: Vec<Note>,
    /// Two calls were out at one endpoint at the same time.
    pub crowded: bool,
    truth: Truth,
}

#[derive(Clone, Debug, Default)]
struct Truth {
    /// For each device: since when its thing is on (`true`) or off.
    switches: BTreeMap<DeviceName, Vec<(Moment, bool)>>,
}

impl Truth {
    fn set(&mut self, device: &DeviceName, at: Moment, on: bool) {
        let history = self.switches.entry(device.clone()).or_default();
        history.retain(|(when, _)| *when <= at); // a newer order replaces what an older one had in store
        history.push((at, on));
    }

    fn is_on(&self, device: &DeviceName, at: Moment) -> bool {
        let history = self.switches.get(device).map(Vec::as_slice).unwrap_or_default();
        history.iter().rev().find(|(when, _)| *when <= at).is_none_or(|(_, on)| *on)
    }
}

pub fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub fn uuid() -> MachineUuid {
    MachineUuid::parse("11111111-2222-3333-4444-0000000000aa").unwrap()
}

fn other_uuid() -> MachineUuid {
    MachineUuid::parse("99999999-2222-3333-4444-0000000000bb").unwrap()
}

/// A device that proves `proves`, with limits that make runs short to read.
pub fn double(name: &str, proves: Proves, quirk: Quirk) -> Double {
    let binding = match proves {
        Proves::Machine | Proves::Hypervisor(_) => Binding::Reported,
        Proves::Feeds(_) | Proves::Network => Binding::Wired("ops-1, 2026-01-01".into()),
        Proves::Storage(_) | Proves::Nothing(_) | Proves::Elsewhere(_) => Binding::Claim,
    };
    let rhythm =
        Rhythm { read_limit: ms(2_000), off_limit: ms(4_000), poll: ms(250), settle: ms(1_000), off_again: ms(3_000) };
    let facts = DeviceFacts {
        name: DeviceName::new(name).unwrap(),
        kind: "double",
        proves,
        binding,
        rhythm,
        endpoint: String::new(),
        place: Place::default(),
        lab: false,
    };
    Double { facts, quirk, off: false }
}

pub fn feed(name: &str) -> Proves {
    Proves::Feeds(BTreeSet::from([FeedName::new(name).unwrap()]))
}

pub fn storage() -> Proves {
    Proves::Storage(BTreeSet::from([VolumeName::new("v1").unwrap()]))
}

pub fn target(feeds: &[&str]) -> Target {
    Target {
        host: HostName::new("tk-p1").unwrap(),
        identity: ExpectedIdentity { uuid: Some(uuid()), serial: None },
        feeds: feeds.iter().map(|feed| FeedName::new(*feed).unwrap()).collect(),
        place: Place::default(),
    }
}

pub fn order(allowed_ms: u64) -> FenceOrder {
    let stamp = Stamp { era: 1, term: 2, index: 30 };
    FenceOrder::new(HostName::new("tk-p1").unwrap(), 4, stamp, ms(allowed_ms))
}

/// The plan for `levels`, each a list of indices into `doubles`.
pub fn plan(target: Target, order: &FenceOrder, doubles: &[Double], levels: &[&[usize]]) -> Plan {
    let name = |index: &usize| doubles[*index].facts.name.clone();
    let levels = levels.iter().map(|level| level.iter().map(name).collect()).collect();
    let facts = doubles.iter().map(|double| double.facts.clone()).collect();
    let topology = Topology::new(vec![Fenced { target, levels }], facts).unwrap();
    Plan::of(&topology, order).unwrap()
}

/// Runs a session to its end.
pub fn run(plan: Plan, doubles: &[Double]) -> Run {
    World::new(plan, doubles).run()
}

struct World {
    session: Session,
    doubles: BTreeMap<DeviceName, Double>,
    truth: Truth,
    logs: BTreeMap<DeviceName, Log>,
    out: BTreeMap<CallId, (Moment, DeviceName, Answer)>,
    answered: u64,
    notes: Vec<Note>,
    crowded: bool,
    concluded: Option<(Moment, Verdict)>,
}

impl World {
    fn new(plan: Plan, doubles: &[Double]) -> Self {
        let session = Session::new(plan, Moment::default());
        let mut truth = Truth::default();
        for double in doubles {
            truth.set(&double.facts.name, Moment::default(), !double.off);
        }
        let doubles = doubles.iter().map(|double| (double.facts.name.clone(), double.clone())).collect();
        let (logs, out, notes) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        Self { session, doubles, truth, logs, out, answered: 0, notes, crowded: false, concluded: None }
    }

    fn run(mut self) -> Run {
        let mut now = Moment::default();
        let mut input = Input::Tick;
        for _ in 0..100_000 {
            let mut effects = Vec::new();
            self.session.step(now, input, &mut effects);
            effects.into_iter().for_each(|effect| self.perform(now, effect));
            if self.session.is_finished() {
                let (concluded, verdict) = self.concluded.expect("finished without a verdict");
                let (logs, notes) = (self.logs, self.notes);
                return Run {
                    verdict,
                    concluded,
                    finished: now,
                    logs,
                    notes,
                    crowded: self.crowded,
                    truth: self.truth,
                };
            }
            let answer = self.out.iter().map(|(call, (at, _, _))| (*at, *call)).min();
            let wake = self.session.deadline();
            (now, input) = match (answer, wake) {
                (Some((at, call)), wake) if wake.is_none_or(|wake| at <= wake) => {
                    let (_, _, answer) = self.out.remove(&call).unwrap();
                    (at, Input::Answered { call, answer })
                }
                (_, Some(wake)) => (wake.max(now), Input::Tick),
                (_, None) => panic!("the session waits for nothing: {:?}", self.session),
            };
        }
        panic!("the session never ends: {:?}", self.session)
    }

    fn perform(&mut self, now: Moment, effect: Effect) {
        match effect {
            Effect::Note(note) => self.notes.push(note),
            Effect::Conclude(verdict) => {
                assert!(self.concluded.is_none(), "two verdicts");
                self.concluded = Some((now, verdict));
            }
            Effect::Stop { call } => {
                if let Some((at, _, _)) = self.out.get_mut(&call) {
                    *at = (*at).min(now.plus(ms(10)));
                }
            }
            Effect::Call { call, device, act, limit } => {
                let endpoint = self.doubles[&device].facts.endpoint.clone();
                let busy = |(_, other, _): &(Moment, DeviceName, Answer)| {
                    *other == device || (!endpoint.is_empty() && self.doubles[other].facts.endpoint == endpoint)
                };
                self.crowded |= self.out.values().any(busy);
                self.answered += 1;
                let (at, answer) = self.answer(now, &device, act, limit);
                self.out.insert(call, (at, device, answer));
            }
        }
    }

    fn answer(&mut self, now: Moment, device: &DeviceName, act: Act, limit: Moment) -> (Moment, Answer) {
        let double = self.doubles[device].clone();
        let delay = match double.quirk {
            Quirk::Slow(delay) => ms(delay),
            _ => ms(40),
        };
        let log = self.logs.entry(device.clone()).or_default();
        if act == Act::Off {
            log.offs.push(now);
            log.switched_before_identified |= double.facts.binding == Binding::Reported && !log.identified;
        }
        let silent = (limit, Trouble::Silent { limit: limit.since(now) });
        let trouble = match double.quirk {
            Quirk::Hangs => Some(silent),
            Quirk::FallsSilent(from) if now >= Moment::from_millis(from) => Some(silent),
            Quirk::BreaksOff if self.answered.is_multiple_of(2) => {
                Some((now.plus(delay), Trouble::BrokeOff { because: "connection reset".into() }))
            }
            Quirk::Garbage => Some((now.plus(delay), Trouble::Garbled { because: "not JSON".into() })),
            Quirk::ChangesCertificate(from) if now >= Moment::from_millis(from) => {
                Some((now.plus(delay), Trouble::Untrusted { because: "another pin".into() }))
            }
            Quirk::RefusesLogin => {
                log.logins_refused += 1;
                Some((now.plus(delay), Trouble::LoginRefused { because: "401".into() }))
            }
            _ if now.plus(delay) > limit => Some(silent),
            _ => None,
        };
        let (at, trouble) = trouble.map_or((now.plus(delay), None), |(at, trouble)| (at.min(limit), Some(trouble)));
        match act {
            Act::Off => {
                let answer = self.switch(now, at, &double, trouble);
                (at, Answer::Off(answer))
            }
            Act::Read => (at, Answer::Read(trouble.map_or_else(|| Ok(self.read(now, at, &double)), Err))),
        }
    }

    /// Whatever the answer, the order may have been carried out.
    fn switch(&mut self, now: Moment, at: Moment, double: &Double, trouble: Option<Trouble>) -> Result<(), Trouble> {
        let device = &double.facts.name;
        let was_on = self.truth.is_on(device, now);
        match double.quirk {
            Quirk::AcceptsAndStaysOn | Quirk::WrongMachine | Quirk::Hangs | Quirk::StaysBetween => {}
            Quirk::RefusesWhenOff if !was_on => return Err(Trouble::Refused { because: "409 Conflict".into() }),
            Quirk::ComesBack(after) => {
                self.truth.set(device, at, false);
                self.truth.set(device, at.plus(ms(after)), true);
            }
            Quirk::Honest(after) => self.truth.set(device, at.plus(ms(after)), false),
            _ if trouble.is_some() => {}
            _ => self.truth.set(device, at, false),
        }
        trouble.map_or(Ok(()), Err)
    }

    fn read(&mut self, now: Moment, at: Moment, double: &Double) -> Reading {
        let on = self.truth.is_on(&double.facts.name, now);
        let identity = match (&double.facts.binding, double.quirk) {
            (_, Quirk::WrongMachine) => ReportedIdentity::of(Some(other_uuid()), []),
            (_, Quirk::Nameless) => ReportedIdentity::none(),
            (Binding::Reported, _) => ReportedIdentity::of(Some(uuid()), []),
            (Binding::Wired(_) | Binding::Claim, _) => ReportedIdentity::none(),
        };
        let log = self.logs.entry(double.facts.name.clone()).or_default();
        log.identified |= identity.uuid == Some(uuid());
        log.reads.push((now, on));
        // A device of the wrong machine says truly that *its* machine is off.
        let shown_on = on && double.quirk != Quirk::WrongMachine;
        let told = !log.offs.is_empty();
        let observed = match &double.facts.proves {
            Proves::Storage(volumes) => {
                let access = || if shown_on { Access::Possible("key 0xa1".into()) } else { Access::Excluded };
                Observed::Storage(volumes.iter().map(|volume| (volume.clone(), access())).collect())
            }
            Proves::Network => Observed::Isolated(!shown_on),
            Proves::Nothing(_) | Proves::Elsewhere(_) => Observed::Note("off".into()),
            Proves::Machine | Proves::Feeds(_) | Proves::Hypervisor(_) => {
                Observed::Power(match (shown_on, double.quirk) {
                    (true, Quirk::StaysBetween) if told => Power::Between("powering off".into()),
                    (true, _) => Power::On,
                    (false, _) => Power::Off,
                })
            }
        };
        Reading { asked: now, answered: at, observed, identity, lab: false }
    }
}

impl Run {
    /// Panics if evidence was given that the truth doesn't bear out.
    pub fn must_not_be_a_false_proof(&self, target: &Target) {
        let Verdict::Proven { evidence } = &self.verdict else { return };
        let mut feeds_off = BTreeSet::new();
        let (mut machine, mut writes, mut service) = (false, false, false);
        let common = evidence.seen().iter().map(|proof| proof.second()).min().unwrap();
        for proof in evidence.seen() {
            let device = proof.device();
            let log = &self.logs[device];
            let off_reads: Vec<Moment> = log.reads.iter().filter(|(_, on)| !on).map(|(at, _)| *at).collect();
            let last = log.reads.last().unwrap_or_else(|| panic!("{device} was never read"));
            assert!(!last.1, "{device}: its last reading was taken while its thing was on");
            let span = off_reads.last().unwrap().since(off_reads[0]);
            assert!(off_reads.len() >= 2 && span >= ms(1_000), "{device}: off wasn't read twice, a settle time apart");
            assert!(!self.truth.is_on(device, common), "{device}: on at the moment that the proof is about");
            match proof.finding() {
                Finding::MachineOff | Finding::VmOff { .. } => machine = true,
                Finding::FeedsOff(feeds) => feeds_off.extend(feeds.iter().cloned()),
                Finding::Excluded(_) => writes = true,
                Finding::Isolated => service = true,
            }
        }
        let feeds = !feeds_off.is_empty() && target.feeds.is_subset(&feeds_off);
        assert!(machine || feeds || (writes && service), "what was read isn't enough: {evidence:?}");
    }
}
