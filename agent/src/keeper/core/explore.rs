//! Every order in which a small world can happen around the core, searched to exhaustion.
//!
//! The world: ticks of time (δ_io = 1), a watchdog, an agent that renews, starts and releases, a start that stays on
//! its way for as long as it likes, a process that may hang in the kernel where neither freeze nor kill reaches it, a
//! keeper that may pause at any instruction (also between what it decided and what it does), die, and be restarted.
//! One start, one release, two host epochs. Without a holder the keeper's death closes the device, which is a pet.
//!
//! A planted fault must give a counterexample that names the broken property; a search that finds none is no catch.

use super::*;
use stateright::{Checker, Model, Property};

const ERA: Era = Era(1);

/// How large a world is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Bounds {
    w: u64,
    lease: u64,
    last_tick: u64,
    held: bool,
    releases: bool,
    /// How many records are written.
    records: u64,
}

const WITH_HOLDER: Bounds = Bounds { w: 2, lease: 5, last_tick: 8, held: true, releases: true, records: u64::MAX };
/// W = 3, because ticks round two pauses of less than W down by one each.
const WITHOUT_HOLDER: Bounds = Bounds { w: 3, lease: 10, last_tick: 11, held: false, releases: false, records: 1 };

fn epoch(count: u64) -> HostEpoch {
    HostEpoch::in_era(ERA, count)
}

fn params(bounds: Bounds, instance: u8) -> Params {
    Params {
        boot: BootId([1; 16]),
        instance: KeeperInstance([instance; 16]),
        watchdog_worst: Duration::from_nanos(bounds.w),
        delta_hw: Duration::ZERO,
        delta_io: Duration::from_nanos(1),
        lease_max: Duration::from_nanos(bounds.last_tick * 2),
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    bounds: Bounds,
    now: u64,
    core: Core,
    alive: bool,
    /// Decided, and not done yet.
    pending: Option<Action>,
    /// When the watchdog was last petted; `None` before it was opened.
    petted: Option<u64>,
    reset: bool,
    frozen: bool,
    helpers: Helpers,
    /// The cgroup of this host epoch is there.
    cgroup: Option<u64>,
    /// A process that was started under this host epoch is in the slice.
    process: Option<u64>,
    /// It hangs in the kernel.
    hangs: bool,
    /// A start under this host epoch was decided and its process is not in the slice yet.
    on_its_way: Option<u64>,
    started: bool,
    /// The host epoch that the ledger has admitted, and with which keeper.
    admitted: (u64, u8),
    /// E_h of each host epoch, as the voters must assume it.
    lease_end: [u64; 3],
    record: RecordView,
    sequence: u64,
    released: bool,
    /// What the page says: echoed sequence, attested host epoch.
    page: (u64, Option<HostEpoch>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Event {
    Tick,
    KeeperDecides,
    KeeperDoes,
    KeeperDies,
    KeeperRestarts,
    AgentRenews,
    AgentReleases,
    AgentStarts,
    StartArrives,
    StartArrivesAndHangs,
    Admitted,
}

impl World {
    fn moment(&self) -> Moment {
        Moment::from_ns(self.now)
    }

    fn running(&self) -> Option<u64> {
        self.process.filter(|_| (!self.frozen || self.hangs) && !self.reset)
    }

    fn facts(&self) -> Facts {
        let slice = SliceSeen {
            empty: self.process.is_none(),
            frozen: self.frozen && !self.hangs,
            bare: self.cgroup.is_none(),
        };
        Facts {
            slice: Some(slice),
            helpers: self.helpers,
            device: if self.petted.is_some() { Device::Good } else { Device::Unset },
            may_close_late: !self.bounds.held,
            pins_settled: match self.record {
                RecordView::Whole(head) => head.sequence,
                RecordView::Absent | RecordView::Torn => 0,
            },
        }
    }

    fn write(&mut self, expiry: u64) {
        self.sequence += 1;
        self.record = RecordView::Whole(Head {
            era: ERA,
            he: epoch(self.admitted.0),
            boot: BootId([1; 16]),
            instance: KeeperInstance([self.admitted.1; 16]),
            expiry: Moment::from_ns(expiry),
            sequence: self.sequence,
        });
    }

    fn instance(&self) -> u8 {
        self.core.params().instance.0[0]
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::SetUp | Action::Pet => self.petted = Some(self.now),
            Action::Freeze => self.frozen = true,
            Action::Kill => {
                self.process = self.process.filter(|_| self.hangs);
                self.helpers = Helpers::Done;
            }
            Action::Sweep if self.process.is_none() => self.cgroup = None,
            Action::Attest(he) => self.page.1 = Some(he),
            Action::Thaw(he) => {
                (self.frozen, self.helpers) = (false, Helpers::Ready);
                self.cgroup = self.cgroup.or(Some(he.count()));
            }
            Action::Sweep | Action::Withhold => {}
        }
        // The page is written after what it says was done.
        self.page.0 = self.core.echoed();
    }

    /// The agent starts what is armed and echoed while its own check passes.
    fn may_start(&self) -> bool {
        let end = self.lease_end[self.admitted.0 as usize];
        let echoed = self.page.0 != 0 && self.page.0 == self.sequence && self.admitted.1 == self.instance();
        !self.started && echoed && self.now + 2 * self.bounds.w <= end
    }

    fn is_possible(&self, event: &Event) -> bool {
        let (he, instance) = self.admitted;
        let renewable = he > 0 && !self.released && instance == self.instance() && self.sequence < self.bounds.records;
        match event {
            Event::Tick => self.now < self.bounds.last_tick,
            Event::KeeperDecides => self.alive && self.pending.is_none(),
            Event::KeeperDoes => self.alive && self.pending.is_some(),
            Event::KeeperDies => self.alive && self.instance() == 1,
            Event::KeeperRestarts => !self.alive,
            Event::AgentRenews => renewable && self.lease_end[he as usize] < self.now + self.bounds.lease,
            Event::AgentReleases => renewable && he == 1 && self.sequence > 0 && self.bounds.releases,
            Event::AgentStarts => self.may_start(),
            Event::StartArrives | Event::StartArrivesAndHangs => self.on_its_way.is_some(),
            // Evidence must cover what ran: only an attestation gives it here.
            Event::Admitted => he == 0 || (he == 1 && self.page.1 == Some(epoch(1))),
        }
    }

    fn happen(&mut self, event: &Event) {
        match event {
            Event::Tick => {
                self.now += 1;
                self.reset |= self.petted.is_some_and(|petted| self.now >= petted + self.bounds.w);
            }
            Event::KeeperDecides => {
                self.pending = Some(self.core.step(self.moment(), self.record, &self.facts()));
            }
            Event::KeeperDoes => {
                let action = self.pending.take().expect("decided");
                self.perform(action);
            }
            Event::KeeperDies => {
                (self.alive, self.pending) = (false, None);
                if !self.bounds.held {
                    // Its close is a pet; whoever comes next has to open the device, which is one as well.
                    self.petted = self.petted.map(|_| self.now);
                }
            }
            Event::KeeperRestarts => {
                let found = match self.record {
                    RecordView::Whole(head) => Some(head),
                    RecordView::Absent | RecordView::Torn => None,
                };
                self.core = Core::restarted(params(self.bounds, 2), found, HostEpoch::default());
                (self.alive, self.helpers) = (true, Helpers::Ready);
            }
            Event::AgentRenews => {
                let end = self.now + self.bounds.lease;
                self.lease_end[self.admitted.0 as usize] = end;
                self.write(end);
            }
            Event::AgentReleases => {
                self.released = true;
                self.write(0);
            }
            Event::AgentStarts => (self.started, self.on_its_way) = (true, Some(self.admitted.0)),
            Event::StartArrives | Event::StartArrivesAndHangs => {
                let he = self.on_its_way.take();
                // Its cgroup is gone: the kernel refuses.
                if self.cgroup == he {
                    self.process = he;
                    self.hangs = *event == Event::StartArrivesAndHangs;
                }
            }
            Event::Admitted => {
                self.admitted = (self.admitted.0 + 1, self.instance());
                self.released = false;
            }
        }
    }
}

/// The world with one fault planted, in whatever thread searches it.
struct Search {
    bounds: Bounds,
    fault: Option<&'static str>,
}

impl Model for Search {
    type State = World;
    type Action = Event;

    fn init_states(&self) -> Vec<World> {
        vec![World {
            bounds: self.bounds,
            now: 0,
            core: Core::restarted(params(self.bounds, 1), None, HostEpoch::default()),
            alive: true,
            pending: None,
            petted: None,
            reset: false,
            frozen: false,
            helpers: Helpers::Ready,
            cgroup: None,
            process: None,
            hangs: false,
            on_its_way: None,
            started: false,
            admitted: (0, 0),
            lease_end: [0; 3],
            record: RecordView::Absent,
            sequence: 0,
            released: false,
            page: (0, None),
        }]
    }

    fn actions(&self, world: &World, events: &mut Vec<Event>) {
        // A host that was reset does nothing more in this boot.
        if world.reset {
            return;
        }
        let all = [
            Event::Tick,
            Event::KeeperDecides,
            Event::KeeperDoes,
            Event::KeeperDies,
            Event::KeeperRestarts,
            Event::AgentRenews,
            Event::AgentReleases,
            Event::AgentStarts,
            Event::StartArrives,
            Event::StartArrivesAndHangs,
            Event::Admitted,
        ];
        events.extend(all.into_iter().filter(|event| world.is_possible(event)));
    }

    fn next_state(&self, world: &World, event: Event) -> Option<World> {
        #[cfg(feature = "mutants")]
        let _planted = self.fault.map(mutants::plant);
        #[cfg(not(feature = "mutants"))]
        assert!(self.fault.is_none(), "faults can be planted only with the feature `mutants`");
        let mut next = world.clone();
        next.happen(&event);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("I1: nothing runs past the end of its lease", |_, world: &World| {
                world.running().is_none_or(|he| world.now < world.lease_end[he as usize])
            }),
            Property::always("I4: nothing runs after it was attested gone", |_, world: &World| {
                world.running().is_none_or(|he| world.page.1 < Some(epoch(he)))
            }),
            Property::always("I21: a retired host epoch is never armed", |_, world: &World| {
                world.core.armed_epoch().is_none_or(|he| he > world.core.retired())
            }),
            Property::always("nothing runs under another host epoch", |_, world: &World| {
                let armed = world.core.armed_epoch();
                world.running().is_none_or(|he| armed.is_none_or(|armed| armed == epoch(he)))
            }),
            Property::sometimes("something runs", |_, world: &World| world.running() == Some(1)),
            Property::sometimes("a second host epoch is armed", |_, world: &World| {
                world.core.armed_epoch() == Some(epoch(2)) && world.core.retired() == epoch(1)
            }),
            Property::sometimes("a restarted keeper attests what it found", |_, world: &World| {
                world.instance() == 2 && world.page.1 == Some(epoch(1)) && !world.reset
            }),
            Property::sometimes("the watchdog ends the host", |_, world: &World| world.reset),
        ]
    }
}

#[test]
fn no_order_of_events_breaks_the_keepers_promises() {
    let checker = Search { bounds: WITH_HOLDER, fault: None }.checker().threads(2).spawn_bfs().join();
    println!("keeper: {} states, {} unique, exhausted", checker.state_count(), checker.unique_state_count());
    assert!(checker.is_done());
    checker.assert_properties();
}

#[test]
fn without_a_holder_three_spans_are_enough() {
    let checker = Search { bounds: WITHOUT_HOLDER, fault: None }.checker().threads(2).spawn_bfs().join();
    println!("no holder: {} states, {} unique, exhausted", checker.state_count(), checker.unique_state_count());
    assert!(checker.is_done());
    assert_eq!(failures(&checker), Vec::<&str>::new());
}

/// The broken promises (what must sometimes happen isn't one).
fn failures(checker: &impl Checker<Search>) -> Vec<&'static str> {
    let broken = |name: &&str| name.starts_with('I') || name.starts_with("nothing runs under");
    checker.discoveries().into_keys().filter(broken).collect()
}

/// Each fault, the world it is searched in, and the promise that its counterexample must break.
#[cfg(feature = "mutants")]
#[test]
fn every_planted_fault_has_a_counterexample_that_names_what_it_breaks() {
    const FAULTS: [(&str, Bounds, &str); 6] = [
        ("keeper.pets_at_w", WITH_HOLDER, "I1"),
        ("keeper.forgets_latch", WITH_HOLDER, "I21"),
        ("keeper.rests_open", WITH_HOLDER, "I4"),
        ("keeper.skips_verify", WITH_HOLDER, "I4"),
        ("keeper.pets_before_verify", WITH_HOLDER, "I1"),
        ("keeper.close_keeps_two", WITHOUT_HOLDER, "I1"),
    ];
    for (fault, bounds, broken) in FAULTS {
        let wanted = broken_by(bounds, broken);
        let checker = Search { bounds, fault: Some(fault) }
            .checker()
            .threads(2)
            .finish_when(stateright::HasDiscoveries::AllOf([wanted].into()))
            .spawn_bfs()
            .join();
        println!("{fault}: breaks {:?} after {} states", failures(&checker), checker.unique_state_count());
        assert!(failures(&checker).contains(&wanted), "{fault} must break {wanted}");
    }
}

/// The full name of the promise that begins with `short`.
#[cfg(feature = "mutants")]
fn broken_by(bounds: Bounds, short: &str) -> &'static str {
    let properties = Search { bounds, fault: None }.properties();
    properties.into_iter().map(|property| property.name).find(|name| name.starts_with(short)).expect("a promise")
}
