//! Model of a ticket with two hosts: admissions, keepers that kill, starts in flight, keepers and agents that
//! restart, reboots, hosts that are declared lost although they live, planned moves, pins, a new era, and every
//! message as late as one likes.
//!
//! The ledger is the product's own (`logbook`), and so is what voters grant by (`voter::judge`). Agent and keeper are
//! modelled after protocol §2, §7, §8. What is abstracted:
//! - Time. The lease models show: when a majority of voters has said `Expired` for a host epoch, its keeper has
//!   killed and verified, or the host was reset. So `Expired` is possible only when the host is not armed with it; and
//!   as long as it is armed it may start things. An armed keeper may find its lease gone at any moment (`Kill`).
//! - A leader change between the two entries that one message leads to (retired, then evidence): the same as a loss
//!   between them.
//! - Messages stay in the air for ever: they may be delivered late, twice or never. Only answers to a nonce are
//!   delivered at once unless a run says otherwise: the ledger refuses one whose nonce is older than the admission, and
//!   instead of one that isn't the machine, still in another boot than the admitted one, can give a new one.
//! - Counters end: so many admissions, boots, keepers, grants and intents. Within these the exploration is exhaustive.

use crate::logbook::{Answered, FIRST, Halt, He, Logbook, Order, Released, View, host_epoch};
use quorum::id::{BootId, Era, HostName, KeeperInstance, LogIndex, SiteName, VoterId};
use quorum::lease::Claim;
use quorum::lease::voter::{Facts, judge};
use quorum::roster::{ConfigId, Membership, VoterInfo};
use stateright::{Model, Property};
use std::collections::BTreeMap;
use std::time::Duration;

pub const ONE: &str = "I1 at most one host runs the group";
pub const INERT: &str = "I4 evidence means that the host is inert";
pub const RETIRED: &str = "I21 a retired host epoch runs nothing";

/// The rule that a negative control breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// The keeper pets on after its kill while a start is still in flight.
    ResumesWithStartInFlight,
    /// The host goes on with its host epoch after a reboot.
    HeSurvivesReboot,
    /// A `Released` counts for whatever is admitted when it arrives.
    ReleasedNamesNoEpoch,
    /// The keeper has no latch: after its kill it arms the same host epoch again.
    RearmsTheSameEpoch,
    /// The keeper attests before it has killed.
    AttestsBeforeItKills,
    /// A restarted keeper attests for the record that it found without killing.
    RestartAttestsUnkilled,
    /// An agent starts by the ticket that it knew before it restarted.
    StaleTicket,
    /// A `Stopped` counts although its intent was aborted.
    StoppedAfterAbort,
    /// An owner that has sent `Stopped` starts again without having read the log.
    ResumesBeforeAbort,
    /// An answer counts as fresh whenever it arrives.
    LateHello,
    /// The keeper's `Released` lists a pinned group.
    ReleasedListsPinned,
}

/// How far counters go, and what may happen at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Admissions of each host.
    pub admissions: u8,
    pub boots: u8,
    pub keepers: u8,
    pub epochs: u8,
    pub intents: u8,
    pub agent_restarts: bool,
    /// Answers of the first host stay in the air; else each is delivered at once.
    pub late_answers: bool,
    pub pins: bool,
    /// A new era may begin, from a ledger that is as far behind as one likes.
    pub eras: bool,
}

impl Bounds {
    /// Two admissions of each host, two boots, no restarts of keepers or agents, three grants, no planned moves.
    pub const FAILOVER: Self = Self {
        admissions: 2,
        boots: 2,
        keepers: 0,
        epochs: 3,
        intents: 0,
        agent_restarts: false,
        late_answers: false,
        pins: false,
        eras: false,
    };
}

/// One run.
pub struct Ticket {
    pub bounds: Bounds,
    pub fault: Fault,
    pub book: Logbook,
    pub planted: &'static [&'static str],
    /// Who grants leases.
    pub membership: Membership,
}

/// One machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host {
    boot: u8,
    /// Which keeper: counts over all boots.
    keeper: u8,
    /// The host epoch that the keeper pets for. Without one, the slice is frozen and nothing is in it.
    armed: He,
    /// The highest host epoch that the keeper has latched as retired.
    latched: He,
    /// The agent's newest reading: the epoch of its ticket and the host epoch that this names. 0 if it has none.
    knows: (u8, He),
    /// The intent that the agent read and has to obey.
    told: u8,
    /// A start step is on its way, under this epoch.
    starting: u8,
    /// The group runs, under this epoch.
    running: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Message {
    Released(Released),
    Answered(Answered),
    Stopped(Halt),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct State {
    hosts: [Host; 2],
    air: Vec<Message>,
    /// The page of the ledger.
    page: u32,
    /// The page of the copy from which a new era would begin.
    behind: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The leader proposes.
    Order(Order),
    /// The keeper arms the admitted host epoch.
    Arm(u8),
    /// The keeper finds the lease gone: latch, freeze, kill, verify, attest.
    Kill(u8),
    /// The keeper is replaced by another in the same boot.
    ReplaceKeeper(u8),
    Reboot(u8),
    RestartAgent(u8),
    /// The agent reads the log up to a ReadIndex.
    Read(u8),
    /// The agent decides to start the group.
    Start(u8),
    /// The start step has done its work.
    Land(u8),
    /// The agent stops the group under an intent and says so.
    Quiesce(u8),
    /// The machine answers a nonce drawn now.
    Answer(u8),
    /// The survivors' copy of the ledger has come so far.
    Copy,
    /// A new era begins from that copy.
    Recover,
}

impl Ticket {
    pub fn new(bounds: Bounds, fault: Fault) -> Self {
        let (host, site) = (HostName::new("v").expect("a name"), SiteName::new("s").expect("a name"));
        let info = |id| (VoterId(id), VoterInfo { id: VoterId(id), host: host.clone(), site: site.clone() });
        let voters: BTreeMap<VoterId, VoterInfo> = [1, 2, 3].map(info).into();
        let membership = Membership { voters, ..Membership::default() };
        Self { bounds, fault, book: Logbook::new(), planted: &[], membership }
    }

    /// Whether a voter that has applied this view grants to the host as it is.
    fn is_granted(&self, view: &View, host: u8, machine: &Host) -> bool {
        let claim = |he: He, boot: u8, keeper: u8| Claim {
            era: Era(u16::from(he >> 4)),
            host_epoch: host_epoch(he),
            boot: BootId([boot; 16]),
            instance: KeeperInstance([keeper; 16]),
        };
        let he = view.current[usize::from(host)];
        let Some(admission) = view.admission(host, he) else { return false };
        let facts = Facts {
            era: Era(u16::from(view.era)),
            admitted: Some(claim(he, admission.boot, admission.keeper)),
            ended: (admission.ended != 0 || admission.evidence != 0).then(|| host_epoch(he)),
            configuration_pending: false,
            undecodable: false,
            config: ConfigId { era: Era(u16::from(view.era)), index: LogIndex(2) },
            membership: &self.membership,
            lease: Duration::from_secs(1),
        };
        judge(VoterId(1), claim(he, machine.boot, machine.keeper), &facts).is_ok()
    }

    fn may_arm(&self, view: &View, host: u8, machine: &Host) -> bool {
        let he = view.current[usize::from(host)];
        machine.armed == 0 && he > machine.latched && self.is_granted(view, host, machine)
    }

    /// Whether a majority of voters could have waited out the lease of the host's current admission.
    fn may_expire(&self, view: &View, host: u8, machine: &Host) -> bool {
        let he = view.current[usize::from(host)];
        let Some(admission) = view.admission(host, he) else { return false };
        // Voters of a new era never granted anything of the old one, so nothing holds them back.
        admission.ended == 3 || (admission.ended != 0 && !admission.lease_over && machine.armed != he)
    }
}

impl State {
    fn say(&mut self, message: Message) {
        if let Err(at) = self.air.binary_search(&message) {
            self.air.insert(at, message);
        }
    }

    fn runs(&self, host: usize) -> bool {
        self.hosts[host].running != 0
    }
}

impl Model for Ticket {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let waiting =
            Host { boot: 1, keeper: 1, armed: FIRST, latched: 0, knows: (0, 0), told: 0, starting: 0, running: 0 };
        vec![State { hosts: [waiting; 2], air: Vec::new(), page: 0, behind: 0 }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        crate::run::plant(self.planted);
        let view = self.book.view(state.page);
        for host in [0, 1] {
            self.host_actions(&view, host, (state, actions));
            self.leader_actions(&view, host, (state, actions));
        }
        let order = |message: &Message| Action::Order(self.delivered(&view, *message));
        actions.extend(state.air.iter().map(order));
        if view.intent_from.is_some() {
            actions.push(Action::Order(Order::Abort));
        }
        if self.bounds.eras && view.era == 1 {
            actions.extend([Action::Copy, Action::Recover]);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Order(order) => state.page = self.book.order(state.page, order),
            Action::Copy => state.behind = state.page,
            Action::Recover => {
                state.page = self.book.order(state.behind, Order::BeginEra);
                state.behind = state.page;
            }
            Action::Arm(host) => self.arm(&mut state, host),
            Action::Kill(host) => self.kill(&mut state, host),
            Action::ReplaceKeeper(host) => self.replace_keeper(&mut state, host),
            Action::Reboot(host) => self.reboot(&mut state, host),
            Action::RestartAgent(host) => {
                let machine = &mut state.hosts[usize::from(host)];
                machine.told = 0;
                if self.fault != Fault::StaleTicket {
                    machine.knows = (0, 0);
                }
            }
            Action::Read(host) => self.read(&mut state, host),
            Action::Start(host) => {
                let machine = &mut state.hosts[usize::from(host)];
                machine.starting = machine.knows.0;
            }
            Action::Land(host) => {
                let machine = &mut state.hosts[usize::from(host)];
                (machine.running, machine.starting) = (machine.starting, 0);
            }
            Action::Quiesce(host) => self.quiesce(&mut state, host),
            Action::Answer(host) => {
                let answered = self.answer(&state, host);
                if self.bounds.late_answers && host == 0 {
                    state.say(Message::Answered(answered));
                } else {
                    state.page = self.book.order(state.page, Order::Answered(answered));
                }
            }
        }
        if !self.bounds.eras {
            state.behind = 0;
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(ONE, |_: &Self, state: &State| !(state.runs(0) && state.runs(1))),
            Property::always(RETIRED, |model: &Self, state: &State| model.retired_are_silent(state)),
            Property::always(INERT, |model: &Self, state: &State| model.proven_are_inert(state)),
            Property::sometimes("the first owner runs", |_: &Self, state: &State| state.runs(0)),
            Property::sometimes("the other host runs", |_: &Self, state: &State| state.runs(1)),
        ];
        let bounds = self.bounds;
        if bounds.admissions > 1 && bounds.epochs > 1 {
            properties.push(Property::sometimes("an owner runs again at its next admission", |_, state: &State| {
                state.runs(0) && state.hosts[0].armed > FIRST
            }));
        }
        if bounds.intents > 0 {
            properties.push(Property::sometimes("a planned move ends at the other host", |model, state: &State| {
                state.runs(1) && model.book.view(state.page).current == [FIRST; 2]
            }));
        }
        properties
    }
}

impl Ticket {
    /// Whatever runs is under a keeper that pets for its host epoch, or pinned.
    fn retired_are_silent(&self, state: &State) -> bool {
        let pinned = self.book.view(state.page).pinned;
        let silent = |host: usize| {
            let exempt = pinned.is_some_and(|(at, ..)| usize::from(at) == host);
            !state.runs(host) || state.hosts[host].armed != 0 || exempt
        };
        silent(0) && silent(1)
    }

    /// Nothing runs under a host epoch about which there is evidence that covers the group.
    fn proven_are_inert(&self, state: &State) -> bool {
        let view = self.book.view(state.page);
        let inert = |host: u8| {
            let machine = &state.hosts[usize::from(host)];
            let covering = view.admission(host, machine.armed).map_or(0, |admission| admission.evidence & !4);
            let pinned = view.pinned.is_some_and(|(at, ..)| at == host);
            machine.armed == 0 || covering == 0 || machine.running == 0 || pinned
        };
        inert(0) && inert(1)
    }

    fn host_actions(&self, view: &View, host: u8, (state, actions): (&State, &mut Vec<Action>)) {
        let machine = &state.hosts[usize::from(host)];
        if self.may_arm(view, host, machine) {
            actions.push(Action::Arm(host));
        }
        if machine.armed != 0 {
            actions.push(Action::Kill(host));
        }
        if machine.keeper <= self.bounds.keepers {
            actions.push(Action::ReplaceKeeper(host));
        }
        if machine.boot < self.bounds.boots {
            actions.push(Action::Reboot(host));
        }
        if self.bounds.agent_restarts {
            actions.push(Action::RestartAgent(host));
        }
        actions.extend([Action::Read(host), Action::Answer(host)]);
        let idle = machine.starting == 0 && machine.running == 0;
        if idle && machine.knows.0 != 0 && machine.knows.1 == machine.armed && machine.told == 0 {
            actions.push(Action::Start(host));
        }
        let thawed = machine.armed != 0 || self.fault == Fault::ResumesWithStartInFlight;
        if machine.starting != 0 && thawed {
            actions.push(Action::Land(host));
        }
        if machine.told != 0 && machine.knows.0 != 0 && machine.armed == machine.knows.1 {
            actions.push(Action::Quiesce(host));
        }
    }

    fn leader_actions(&self, view: &View, host: u8, (state, actions): (&State, &mut Vec<Action>)) {
        let machine = &state.hosts[usize::from(host)];
        let current = view.current[usize::from(host)];
        let order = |order| Action::Order(order);
        if (current & 15) < self.bounds.admissions && view.admitted(host).is_none() {
            actions.push(order(Order::Admit { host, boot: machine.boot, keeper: machine.keeper }));
        }
        if view.admitted(host).is_some() || view.admission(host, current).is_some_and(|known| known.ended == 2) {
            actions.push(order(Order::Lose { host }));
        }
        if self.may_expire(view, host, machine) {
            actions.push(order(Order::Expired { host }));
        }
        if view.epoch < self.bounds.epochs {
            actions.push(order(Order::Grant { host }));
        }
        if view.intents < self.bounds.intents && view.ticket.is_some_and(|(owner, _)| owner == host) {
            actions.push(order(Order::Intend { from: host }));
        }
        if self.bounds.pins && view.ticket.is_some_and(|(owner, _)| owner == host) {
            actions.extend([order(Order::Pin { host }), order(Order::Acknowledge { host })]);
        }
        if view.pinned.is_some_and(|(at, ..)| at == host) {
            actions.push(order(Order::UnpinProven));
            // The keeper's armed set of this admission has the group: it would be killed with it.
            if machine.armed == current {
                actions.push(order(Order::UnpinRearmed { host }));
            }
        }
    }

    /// What a message leads to when it arrives.
    fn delivered(&self, view: &View, message: Message) -> Order {
        match message {
            Message::Released(mut released) => {
                if self.fault == Fault::ReleasedNamesNoEpoch {
                    released.he = view.current[usize::from(released.host)];
                    if let Some(admission) = view.admission(released.host, released.he) {
                        (released.boot, released.keeper) = (admission.boot, admission.keeper);
                    }
                }
                Order::Released(released)
            }
            Message::Answered(mut answered) => {
                if self.fault == Fault::LateHello {
                    answered.drawn = view.current[usize::from(answered.host)];
                }
                Order::Answered(answered)
            }
            Message::Stopped(halt) => {
                let intent = if self.fault == Fault::StoppedAfterAbort { 0 } else { halt.intent };
                Order::Stopped(Halt { intent, ..halt })
            }
        }
    }

    fn is_exempt(&self, state: &State, host: u8) -> bool {
        let pinned = self.book.view(state.page).pinned;
        let armed = state.hosts[usize::from(host)].armed;
        pinned.is_some_and(|(at, he, acknowledged)| (at, he, acknowledged) == (host, armed, true))
    }

    fn arm(&self, state: &mut State, host: u8) {
        let he = self.book.view(state.page).current[usize::from(host)];
        state.hosts[usize::from(host)].armed = he;
    }

    /// What the keeper does past its deadline. A pinned group goes on, and is not listed.
    fn kill(&self, state: &mut State, host: u8) {
        let exempt = self.is_exempt(state, host);
        let era = self.book.view(state.page).era;
        let machine = &mut state.hosts[usize::from(host)];
        let (he, boot, keeper) = (machine.armed, machine.boot, machine.keeper);
        let lists = !exempt || self.fault == Fault::ReleasedListsPinned;
        let early = self.fault == Fault::AttestsBeforeItKills;
        if !early {
            machine.armed = 0;
            if self.fault != Fault::RearmsTheSameEpoch {
                machine.latched = he;
            }
            if self.fault != Fault::ResumesWithStartInFlight {
                machine.starting = 0;
            }
            if !exempt {
                machine.running = 0;
            }
        }
        state.say(Message::Released(Released { host, he, boot, keeper, era, lists }));
    }

    /// Another keeper takes the watchdog over: it treats the host epoch in the record as retired.
    fn replace_keeper(&self, state: &mut State, host: u8) {
        let machine = &mut state.hosts[usize::from(host)];
        machine.keeper += 1;
        if machine.armed == 0 {
            return;
        }
        let running = machine.running;
        self.kill(state, host);
        if self.fault == Fault::RestartAttestsUnkilled {
            state.hosts[usize::from(host)].running = running;
        }
    }

    fn reboot(&self, state: &mut State, host: u8) {
        let machine = &mut state.hosts[usize::from(host)];
        let kept = *machine;
        *machine = Host {
            boot: kept.boot + 1,
            keeper: kept.keeper + 1,
            armed: 0,
            latched: 0,
            knows: (0, 0),
            told: 0,
            starting: 0,
            running: 0,
        };
        if self.fault == Fault::HeSurvivesReboot {
            (machine.armed, machine.knows) = (kept.armed, kept.knows);
        }
    }

    fn read(&self, state: &mut State, host: u8) {
        let view = self.book.view(state.page);
        let machine = &mut state.hosts[usize::from(host)];
        let mine = view.ticket.filter(|(owner, _)| *owner == host && !view.stopped);
        machine.knows = mine.map_or((0, 0), |(_, he)| (view.epoch, he));
        let bound = view.intent_from == Some(host) && mine.is_some();
        machine.told = if bound { view.intents } else { 0 };
    }

    fn quiesce(&self, state: &mut State, host: u8) {
        let machine = &mut state.hosts[usize::from(host)];
        let (epoch, he) = machine.knows;
        let intent = machine.told;
        (machine.starting, machine.running, machine.told) = (0, 0, 0);
        // A copy of the ticket stays on disk; only a sound agent asks the log before it believes it.
        if self.fault != Fault::ResumesBeforeAbort && self.fault != Fault::StaleTicket {
            machine.knows = (0, 0);
        }
        state.say(Message::Stopped(Halt { host, he, epoch, intent }));
    }

    fn answer(&self, state: &State, host: u8) -> Answered {
        let view = self.book.view(state.page);
        let machine = &state.hosts[usize::from(host)];
        let drawn = view.current[usize::from(host)];
        let armed = if self.bounds.eras { machine.armed.max(machine.latched) } else { 0 };
        let remnant = machine.running != 0;
        let (boot, keeper) = (machine.boot, machine.keeper);
        Answered { host, boot, keeper, drawn, remnant, armed }
    }
}
