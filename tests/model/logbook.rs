//! The product's own ledger inside a model: every order is a command that `Ledger::apply` accepts or refuses.
//!
//! A state of a model holds the number of a *view* of the ledger, not the ledger: what two ledgers must agree on to
//! decide every future order alike. Log positions, the audit chain and what is remembered of proposals are not in it:
//! the models never repeat a proposal's key, and compare positions only through what the view says of their order.
//! [`Logbook::check_merges`] tests exactly that wherever two different logs lead to the same view.

use quorum::id::{
    BootId, Epoch, Era, GroupName, HardwareId, HostEpoch, HostName, IntentId, KeeperInstance, LogIndex, ProposalKey,
    SiteName, Term, VoterId,
};
use quorum::ledger::{
    Bootstrap, Class, ClusterPolicy, Command, DataGate, Decision, Ended, Entry, EraBegun, Evidence, EvidenceKind,
    FailbackPolicy, Grant, GrantCause, Ground, GroupSpec, HostAdmitted, HostSpec, Incarnation, Intent, Ledger,
    LedgerSpec, Lost, LostCause, Observation, Person, PersonKey, PlaceSpec, Position, RetiredBecause, Scope, SetSpec,
    Shape, SiteSpec, Stopped, TicketState, Tier, UnpinGround, WatchdogAttestation,
};
use quorum::roster::{Membership, VoterInfo};
use quorum::timing::{Measured, Timing};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A host epoch in one byte: the era above, the count below.
pub type He = u8;

/// The first host epoch of the first era.
pub const FIRST: He = 0x11;

/// What a model asks of the ledger. Hosts are numbered 0 and 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Order {
    /// The next host epoch for this boot and keeper.
    Admit { host: u8, boot: u8, keeper: u8 },
    /// The current host epoch is declared lost.
    Lose { host: u8 },
    /// The keeper's word: retires the host epoch if it still is current, and is evidence.
    Released(Released),
    /// A machine's answer: retires the current host epoch if boot or keeper is another, and is evidence if the boot is.
    Answered(Answered),
    /// A majority of voters has waited out the lease.
    Expired { host: u8 },
    /// The ticket goes to a host's current admission.
    Grant { host: u8 },
    /// A planned move to the other host begins.
    Intend { from: u8 },
    /// It is given up.
    Abort,
    /// The owner says that it stopped.
    Stopped(Halt),
    /// A person ties the group to its owner.
    Pin { host: u8 },
    /// The keeper lets the pinned group run without a lease.
    Acknowledge { host: u8 },
    /// A person unties it because it is proven gone from its owner.
    UnpinProven,
    /// A person unties it because its host's keeper has it in the armed set of the current admission.
    UnpinRearmed { host: u8 },
    /// The lease's majority is lost for ever; a new era begins.
    BeginEra,
}

/// A keeper's attestation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Released {
    pub host: u8,
    pub he: He,
    pub boot: u8,
    pub keeper: u8,
    /// The era in which it was made.
    pub era: u8,
    /// Whether it lists the group.
    pub lists: bool,
}

/// A machine's answer to a nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Answered {
    pub host: u8,
    pub boot: u8,
    pub keeper: u8,
    /// The host epoch that was current when the nonce was drawn.
    pub drawn: He,
    /// Something of the group was found.
    pub remnant: bool,
    /// The highest host epoch armed in the answering boot; 0 if none. Asked for only after a new era began.
    pub armed: He,
}

/// What an owner says when it stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Halt {
    pub host: u8,
    pub he: He,
    pub epoch: u8,
    /// The how-manieth intent it obeyed, from 1; 0 if none.
    pub intent: u8,
}

/// One admission as a view shows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Admission {
    pub host: u8,
    pub he: He,
    pub boot: u8,
    pub keeper: u8,
    /// 0 admitted, 1 lost, 2 retired, 3 of an older era, 4 retired and then lost: there a later keeper's word counts.
    pub ended: u8,
    pub lease_over: bool,
    /// Bits by kind: self-fenced, released with the group, released without, returned.
    pub evidence: u8,
}

/// What decides about every future order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct View {
    pub era: u8,
    pub current: [He; 2],
    pub admissions: Vec<Admission>,
    /// The count within the era.
    pub epoch: u8,
    /// Host, host epoch.
    pub ticket: Option<(u8, He)>,
    pub stopped: bool,
    /// Host, host epoch, what kind of claim, whether it said that it stopped.
    owners: Vec<(u8, He, u8, bool)>,
    /// How many intents were ever opened; whether the last is open, and from which host.
    pub intents: u8,
    pub intent_from: Option<u8>,
    pub pinned: Option<(u8, He, bool)>,
    last_owner: Option<u8>,
}

impl View {
    /// A host's current admission if it is neither lost nor retired.
    pub fn admitted(&self, host: u8) -> Option<&Admission> {
        self.admission(host, self.current[usize::from(host)]).filter(|admission| admission.ended == 0)
    }

    /// What is known of an admission.
    pub fn admission(&self, host: u8, he: He) -> Option<&Admission> {
        self.admissions.iter().find(|admission| (admission.host, admission.he) == (host, he))
    }
}

#[derive(Clone)]
struct Page {
    ledger: Ledger,
    intents: Vec<IntentId>,
}

#[derive(Default)]
struct Pages {
    numbers: BTreeMap<Arc<View>, u32>,
    pages: Vec<(Arc<View>, Page)>,
    turned: BTreeMap<(u32, Order), u32>,
    /// Ledgers that led to a view which was known already.
    merged: Vec<(u32, Page)>,
    keeps_merged: bool,
}

/// All views that were reached, and what each order makes of each.
pub struct Logbook {
    pages: Mutex<Pages>,
}

const HOSTS: [&str; 2] = ["a", "b"];
const BITS: [(EvidenceKind, u8); 3] =
    [(EvidenceKind::SelfFenced, 1), (EvidenceKind::Released, 2), (EvidenceKind::Returned, 8)];

fn host_name(host: u8) -> HostName {
    HostName::new(HOSTS[usize::from(host)]).expect("a name")
}

fn site(name: &str) -> SiteName {
    SiteName::new(name).expect("a name")
}

fn group() -> GroupName {
    GroupName::new("g").expect("a name")
}

/// The ledger's form of a host epoch.
pub fn host_epoch(he: He) -> HostEpoch {
    HostEpoch::in_era(Era(u16::from(he >> 4)), u64::from(he & 15))
}

fn short(he: HostEpoch) -> He {
    (he.era().0 as u8) << 4 | he.count() as u8
}

fn incarnation(host: u8, he: He) -> Incarnation {
    Incarnation { host: host_name(host), he: host_epoch(he) }
}

fn decision() -> Decision {
    let by = Person { name: "op".to_owned(), key: PersonKey::Local(0) };
    Decision { by, reason: String::new(), shown: String::new() }
}

fn unpin(ground: UnpinGround) -> Command {
    Command::Unpin { group: group(), ground, by: decision() }
}

fn spec() -> LedgerSpec {
    let hosts = |host: &str| {
        (HostName::new(host).expect("a name"), HostSpec { site: site(host), hardware: None, fencing: Vec::new() })
    };
    let place = |host: &str| {
        let hosts = vec![HostName::new(host).expect("a name")];
        (site(host), PlaceSpec { shape: Shape::Physical, hosts, shared_storage: false })
    };
    let of_group = GroupSpec {
        tier: Tier::Auto,
        order: 0,
        after: Vec::new(),
        accept: BTreeSet::from([EvidenceKind::SelfFenced]),
        target_rpo: Duration::ZERO,
        target_rto: Duration::from_secs(60),
        hold_off: Duration::ZERO,
        places: HOSTS.map(place).into(),
        volumes: Vec::new(),
        failback: FailbackPolicy { automatic: false, stable_for: Duration::ZERO },
        home: site("a"),
    };
    let sites = [("a", false), ("b", false), ("w", true)].map(|(name, witness)| (site(name), SiteSpec { witness }));
    LedgerSpec {
        sites: sites.into(),
        hosts: HOSTS.map(hosts).into(),
        devices: BTreeMap::new(),
        groups: [(group(), of_group)].into(),
        policy: ClusterPolicy::default(),
    }
}

fn timing() -> Timing {
    Timing::derive(Measured::new(Duration::from_millis(1_100), Duration::from_millis(40)))
}

impl Page {
    /// Hosts a and b are admitted and have nothing of the group; it is granted to a.
    fn first() -> Self {
        let info = |(id, name): (u64, &str)| {
            let host = HostName::new(name).expect("a name");
            (VoterId(id), VoterInfo { id: VoterId(id), host, site: site(name) })
        };
        let voters = [(1, "a"), (2, "b"), (3, "w")].map(info).into();
        let mut page = Self { ledger: Ledger::new(), intents: Vec::new() };
        let bootstrap = Bootstrap { cluster: site("model"), lab: false, timing: timing(), by: decision() };
        page.must(Command::Bootstrap(bootstrap));
        let at = page.next();
        page.ledger.apply_membership(at, Membership { voters, ..Membership::default() });
        page.must(Command::SetSpec(SetSpec { revision: 1, spec: spec(), source: String::new(), by: decision() }));
        for host in [0, 1] {
            page.must(page.admission(host, 1, 1));
        }
        page.must(Command::GroupCreated { group: group(), source: host_name(0), by: decision() });
        for host in [0, 1] {
            page.must(Command::Absent { group: group(), of: incarnation(host, FIRST) });
        }
        page.must(page.grant(0));
        page
    }

    fn next(&self) -> Position {
        Position { index: LogIndex(self.ledger.applied().0 + 1), term: Term(1) }
    }

    fn must(&mut self, command: Command) {
        let text = format!("{command:?}");
        if let Err(refusal) = self.try_apply(command) {
            panic!("the first page needs {text}: {refusal}");
        }
    }

    fn try_apply(&mut self, command: Command) -> Result<(), quorum::ledger::Refusal> {
        let at = self.next();
        let mut key = [0; 16];
        key[..8].copy_from_slice(&at.index.0.to_le_bytes());
        let era = self.ledger.era();
        let entry = Entry { key: ProposalKey(key), proposer: host_name(1), era, wall_ms: 0, command };
        self.ledger.apply(at, &entry).outcome
    }

    fn current(&self, host: u8) -> He {
        self.ledger.host(&host_name(host)).map_or(0, |state| short(state.he))
    }

    fn admission(&self, host: u8, boot: u8, keeper: u8) -> Command {
        let driver = "model".to_owned();
        let worst = timing().watchdog_worst;
        Command::HostAdmitted(HostAdmitted {
            of: Incarnation { host: host_name(host), he: self.ledger.next_host_epoch(&host_name(host)) },
            boot: BootId([boot; 16]),
            instance: KeeperInstance([keeper; 16]),
            class: Class::A,
            watchdog: Some(WatchdogAttestation { driver, worst, fire_tests: 3, conditions_hold: true }),
            hardware: HardwareId([host; 16]),
            lab: false,
        })
    }

    fn grant(&self, host: u8) -> Command {
        Command::Grant(Grant {
            group: group(),
            to: incarnation(host, self.current(host)),
            epoch: self.ledger.next_epoch(&group()).expect("the group exists"),
            gate: DataGate::NoVolumes,
            adopt: false,
            cause: GrantCause::Operator(decision()),
            plan: None,
        })
    }

    /// What a leader proposes for an order, one command after the other.
    fn obey(&mut self, order: Order) {
        let commands = match order {
            Order::Admit { host, boot, keeper } => vec![self.admission(host, boot, keeper)],
            Order::Lose { host } => {
                let hosts = vec![incarnation(host, self.current(host))];
                vec![Command::Lost(Lost { hosts, cause: LostCause::Operator(decision()) })]
            }
            Order::Released(released) => self.released(released),
            Order::Answered(answered) => self.answered(answered),
            Order::Expired { host } => {
                let (of, config) = (incarnation(host, self.current(host)), self.ledger.config_id());
                [1, 3].map(|voter| Command::Expired { voter: VoterId(voter), of: of.clone(), config }).into()
            }
            Order::Grant { host } => vec![self.grant(host)],
            Order::Intend { from } => vec![self.intent(from)],
            Order::Abort => {
                let intent = self.intents.last().copied().unwrap_or_default();
                vec![Command::SwitchAbort { group: group(), intent, because: String::new() }]
            }
            Order::Stopped(halt) => vec![self.stopped(halt)],
            Order::Pin { host } => {
                vec![Command::Pin { group: group(), of: incarnation(host, self.current(host)), by: decision() }]
            }
            Order::Acknowledge { host } => {
                let of = incarnation(host, self.current(host));
                vec![Command::PinAcknowledged { group: group(), of, sequence: 1 }]
            }
            Order::UnpinProven => vec![unpin(UnpinGround::Proof)],
            Order::UnpinRearmed { host } => {
                vec![unpin(UnpinGround::Rearmed { of: incarnation(host, self.current(host)), sequence: 2 })]
            }
            Order::BeginEra => vec![self.era()],
        };
        for command in commands {
            let opens = matches!(command, Command::SwitchIntent(_));
            if self.try_apply(command).is_ok() && opens {
                self.intents.push(IntentId(self.ledger.applied().0));
            }
        }
    }

    fn released(&self, released: Released) -> Vec<Command> {
        let Released { host, he, boot, keeper, era, lists } = released;
        let of_older_era = u16::from(he >> 4) < self.ledger.era().0;
        let of = if of_older_era { incarnation(host, self.current(host)) } else { incarnation(host, he) };
        let (boot, era) = (BootId([boot; 16]), Era(u16::from(era)));
        let observed = Observation::Released {
            boot,
            instance: KeeperInstance([keeper; 16]),
            groups: if lists { vec![group()] } else { Vec::new() },
            era,
            named: host_epoch(he),
        };
        let because = RetiredBecause::KeeperAttested { boot, era };
        let evidence = Evidence { of: of.clone(), observed, observer: host_name(host), lab: false };
        vec![Command::Retired { of, because }, Command::Evidence(evidence)]
    }

    fn answered(&self, answered: Answered) -> Vec<Command> {
        let Answered { host, boot, keeper, drawn, remnant, armed } = answered;
        let he = self.current(host);
        let of = incarnation(host, he);
        let admitted_at = self.ledger.incarnation(&of).map_or(LogIndex(0), |state| state.admitted_at);
        let drawn_at = if drawn >= he { admitted_at } else { LogIndex(0) };
        let boot = BootId([boot; 16]);
        let because = RetiredBecause::Answered { boot, instance: KeeperInstance([keeper; 16]), drawn_at };
        let observed = Observation::Returned {
            boot,
            hardware: HardwareId([host; 16]),
            drawn_at,
            remnants: if remnant { vec![group()] } else { Vec::new() },
            armed: (armed != 0).then(|| host_epoch(armed)),
        };
        let evidence = Evidence { of: of.clone(), observed, observer: host_name(host), lab: false };
        vec![Command::Retired { of, because }, Command::Evidence(evidence)]
    }

    fn intent(&self, from: u8) -> Command {
        Command::SwitchIntent(Intent {
            group: group(),
            epoch: self.ledger.group(&group()).map(|state| state.epoch).unwrap_or_default(),
            from: incarnation(from, self.current(from)),
            to: incarnation(1 - from, self.current(1 - from)),
            deadline: Duration::from_secs(60),
            plan: None,
        })
    }

    fn stopped(&self, halt: Halt) -> Command {
        let state = self.ledger.group(&group()).expect("the group exists");
        let left_behind = state.in_sync.iter().any(|host| *host != host_name(halt.host));
        let generation = quorum::id::Generation(state.generation.0 + u64::from(left_behind));
        let intent = halt.intent.checked_sub(1).and_then(|at| self.intents.get(usize::from(at)).copied());
        Command::Stopped(Stopped {
            group: group(),
            epoch: Epoch::in_era(self.ledger.era(), u64::from(halt.epoch)),
            of: incarnation(halt.host, halt.he),
            intent,
            generation,
            copies: Vec::new(),
        })
    }

    fn era(&self) -> Command {
        Command::EraBegun(EraBegun {
            era: Era(self.ledger.era().0 + 1),
            places: BTreeMap::new(),
            unreachable: vec![VoterId(1), VoterId(2)],
            survivors: vec![VoterId(3)],
            by: decision(),
        })
    }

    fn view(&self) -> View {
        let ledger = &self.ledger;
        let number = |host: &HostName| u8::from(*host == host_name(1));
        let admissions = ledger.hosts().iter().flat_map(|(host, state)| {
            let host = number(host);
            state.incarnations.iter().map(move |(he, state)| view_of(host, *he, state))
        });
        let state = ledger.group(&group()).expect("the group exists");
        let owner = |(of, owner): (&Incarnation, &quorum::ledger::Owner)| {
            let ground = match owner.ground {
                Ground::Place => 0,
                Ground::Granted(_) => 1,
                Ground::Incoming(_) => 2,
                Ground::OlderEra => 3,
            };
            (number(&of.host), short(of.he), ground, owner.stopped.is_some())
        };
        let stopped = |ticket: &quorum::ledger::Ticket| matches!(ticket.state, TicketState::Stopped { .. });
        let intent = state.intent.as_ref();
        View {
            era: ledger.era().0 as u8,
            current: [self.current(0), self.current(1)],
            admissions: admissions.collect(),
            epoch: state.epoch.count() as u8,
            ticket: state.ticket.as_ref().map(|ticket| (number(&ticket.of.host), short(ticket.of.he))),
            stopped: state.ticket.as_ref().is_some_and(stopped),
            owners: state.owners.iter().map(owner).collect(),
            intents: self.intents.len() as u8,
            intent_from: intent.map(|open| number(&open.from.host)),
            pinned: state.pin.as_ref().map(|pin| (number(&pin.of.host), short(pin.of.he), pin.acknowledged.is_some())),
            last_owner: state.last_owner.as_ref().map(number),
        }
    }
}

fn view_of(host: u8, he: HostEpoch, state: &quorum::ledger::IncarnationState) -> Admission {
    let bit = |evidence: &quorum::ledger::AcceptedEvidence| {
        let bit = BITS.iter().find(|(kind, _)| *kind == evidence.kind).map_or(16, |(_, bit)| *bit);
        match &evidence.scope {
            Scope::Groups(groups) if groups.is_empty() => 4,
            Scope::Groups(_) | Scope::Host => bit,
        }
    };
    Admission {
        host,
        he: short(he),
        boot: state.boot.map_or(0, |boot| boot.0[0]),
        keeper: state.instance.map_or(0, |keeper| keeper.0[0]),
        ended: match state.ended {
            None => 0,
            Some(Ended::Lost { was_retired: false, .. }) => 1,
            Some(Ended::Lost { was_retired: true, .. }) => 4,
            Some(Ended::Retired { .. }) => 2,
            Some(Ended::EraOver { .. }) => 3,
        },
        lease_over: state.lease_over.is_some(),
        evidence: state.evidence.iter().map(bit).fold(0, |all, bit| all | bit),
    }
}

impl Logbook {
    /// A book with its first page: number 0.
    pub fn new() -> Self {
        let mut pages = Pages::default();
        pages.number(Page::first());
        Self { pages: Mutex::new(pages) }
    }

    /// What a page shows.
    pub fn view(&self, number: u32) -> Arc<View> {
        let pages = self.pages.lock().expect("nobody panics with it");
        Arc::clone(&pages.pages[number as usize].0)
    }

    /// The page to which an order leads; the same one if it is refused or changes nothing that matters.
    pub fn order(&self, number: u32, order: Order) -> u32 {
        let mut pages = self.pages.lock().expect("nobody panics with it");
        if let Some(next) = pages.turned.get(&(number, order)) {
            return *next;
        }
        let mut page = pages.pages[number as usize].1.clone();
        page.obey(order);
        let next = pages.number(page);
        pages.turned.insert((number, order), next);
        next
    }

    /// A book that remembers every ledger whose view was known already, for [`Logbook::check_merges`].
    pub fn suspicious() -> Self {
        let book = Self::new();
        book.pages.lock().expect("nobody panics with it").keeps_merged = true;
        book
    }

    /// Checks that ledgers with equal views decide every one of `orders` alike: `most` of those that were met, evenly
    /// spread. Returns how many there were.
    pub fn check_merges(&self, orders: &[Order], most: usize) -> usize {
        let pages = self.pages.lock().expect("nobody panics with it");
        for (known, page) in pages.merged.iter().step_by(pages.merged.len() / most + 1) {
            for order in orders {
                let (mut one, mut other) = (pages.pages[*known as usize].1.clone(), page.clone());
                one.obey(*order);
                other.obey(*order);
                assert_eq!(one.view(), other.view(), "{order:?} tells apart what looks alike: {:?}", page.view());
            }
        }
        pages.merged.len()
    }
}

impl Pages {
    fn number(&mut self, page: Page) -> u32 {
        let view = Arc::new(page.view());
        if let Some(known) = self.numbers.get(&view) {
            if self.keeps_merged {
                self.merged.push((*known, page));
            }
            return *known;
        }
        let number = self.pages.len() as u32;
        self.numbers.insert(Arc::clone(&view), number);
        self.pages.push((view, page));
        number
    }
}
