//! What can go wrong, and what people do meanwhile: each kind begins, and most end by themselves after a while.

use crate::cluster::{group, host, site};
use antipode::engine::{FenceAct, Matter, Move, Order, Request, Scope};
use antipode::sim::{Point, Random, World};
use quorum::id::{HostName, VoterId};
use quorum::ledger::PlanKind;
use quorum::storage::Fault as DiskFault;
use std::time::Duration;

const HOSTS: [&str; 3] = ["tk-1", "os-1", "ng-1"];
const SITES: [&str; 3] = ["tokyo", "osaka", "nagoya"];
const WORKS: [&str; 9] =
    ["observe", "promote", "start", "probe", "announce", "stop", "open-export", "mirror", "release-writes"];

/// A kind of fault or of an operator's act. The order is that of the coverage table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    SitePower,
    AgentKilled,
    AgentCrashed,
    AgentStopped,
    AgentStoppedAtPoint,
    KeeperKilled,
    KeeperRestarted,
    KeeperStopped,
    KeeperStoppedAtPoint,
    WatchdogBroken,
    Suspended,
    ClockRate,
    Isolated,
    CutOneWay,
    CutPair,
    Lossy,
    Reordered,
    Doubled,
    Stray,
    DiskStalled,
    DiskFailed,
    DiskTorn,
    DiskFlipped,
    WorkFails,
    WorkHangs,
    WorkloadCrashed,
    LeaderMoved,
    Switchover,
    Failover,
    Freeze,
    Maintenance,
    Override,
    FenceOrdered,
    PlanCancelled,
    PlanDenied,
}

impl Kind {
    pub const ALL: [Self; 35] = [
        Self::SitePower,
        Self::AgentKilled,
        Self::AgentCrashed,
        Self::AgentStopped,
        Self::AgentStoppedAtPoint,
        Self::KeeperKilled,
        Self::KeeperRestarted,
        Self::KeeperStopped,
        Self::KeeperStoppedAtPoint,
        Self::WatchdogBroken,
        Self::Suspended,
        Self::ClockRate,
        Self::Isolated,
        Self::CutOneWay,
        Self::CutPair,
        Self::Lossy,
        Self::Reordered,
        Self::Doubled,
        Self::Stray,
        Self::DiskStalled,
        Self::DiskFailed,
        Self::DiskTorn,
        Self::DiskFlipped,
        Self::WorkFails,
        Self::WorkHangs,
        Self::WorkloadCrashed,
        Self::LeaderMoved,
        Self::Switchover,
        Self::Failover,
        Self::Freeze,
        Self::Maintenance,
        Self::Override,
        Self::FenceOrdered,
        Self::PlanCancelled,
        Self::PlanDenied,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::SitePower => "site power",
            Self::AgentKilled => "agent killed",
            Self::AgentCrashed => "agent crashed",
            Self::AgentStopped => "agent stopped",
            Self::AgentStoppedAtPoint => "agent stopped at a point",
            Self::KeeperKilled => "keeper killed",
            Self::KeeperRestarted => "keeper restarted",
            Self::KeeperStopped => "keeper stopped",
            Self::KeeperStoppedAtPoint => "keeper stopped at a point",
            Self::WatchdogBroken => "watchdog broken",
            Self::Suspended => "host suspended",
            Self::ClockRate => "clock rate",
            Self::Isolated => "site cut off",
            Self::CutOneWay => "one-way cut",
            Self::CutPair => "pair cut",
            Self::Lossy => "loss",
            Self::Reordered => "reordering",
            Self::Doubled => "duplicates",
            Self::Stray => "strays",
            Self::DiskStalled => "disk stalls",
            Self::DiskFailed => "disk fails",
            Self::DiskTorn => "disk tears",
            Self::DiskFlipped => "disk flips",
            Self::WorkFails => "work fails",
            Self::WorkHangs => "work hangs",
            Self::WorkloadCrashed => "workload crashes",
            Self::LeaderMoved => "leader moved",
            Self::Switchover => "switchover ordered",
            Self::Failover => "failover ordered",
            Self::Freeze => "freeze",
            Self::Maintenance => "maintenance",
            Self::Override => "override",
            Self::FenceOrdered => "fence ordered",
            Self::PlanCancelled => "plan cancelled",
            Self::PlanDenied => "plan denied",
        }
    }
}

/// One fault, drawn from the seed.
#[derive(Clone, Debug)]
pub struct Fault {
    pub kind: Kind,
    pub at: Duration,
    pub span: Duration,
    /// Which host, site, link.
    one: usize,
    other: usize,
    /// Everything else that is drawn.
    dice: u64,
}

/// Faults of one run: at least two; often the second comes while the first still lasts.
pub fn draw(random: &mut Random) -> Vec<Fault> {
    let count = 2 + random.below(4);
    let mut faults: Vec<Fault> = (0..count).map(|_| draw_one(random)).collect();
    // A voter whose disk forgets is a person's case; two at once would be no majority for ever.
    let mut flips = 0;
    for fault in &mut faults {
        if fault.kind == Kind::DiskFlipped {
            flips += 1;
            if flips > 1 {
                fault.kind = Kind::DiskStalled;
            }
        }
    }
    faults.sort_by_key(|fault| fault.at);
    faults
}

fn draw_one(random: &mut Random) -> Fault {
    let kind = Kind::ALL[random.below(Kind::ALL.len() as u64) as usize];
    let span_ms = match random.below(3) {
        0 => 100 + random.below(1_500),
        1 => 1_500 + random.below(6_000),
        _ => 6_000 + random.below(20_000),
    };
    let one = random.below(3) as usize;
    Fault {
        kind,
        at: Duration::from_millis(random.below(50_000)),
        span: Duration::from_millis(span_ms),
        one,
        other: (one + 1 + random.below(2) as usize) % 3,
        dice: random.draw(),
    }
}

impl Fault {
    /// A fault at this time for so long, both in milliseconds, about the host and site of this number.
    pub const fn of(kind: Kind, (at_ms, span_ms): (u64, u64), one: usize) -> Self {
        let (at, span) = (Duration::from_millis(at_ms), Duration::from_millis(span_ms));
        Self { kind, at, span, one, other: (one + 1) % 3, dice: 0 }
    }

    /// The same about another host and site.
    pub const fn about(self, one: usize) -> Self {
        Self { one, other: (one + 1) % 3, ..self }
    }

    /// The same with another peer.
    #[cfg(feature = "mutants")]
    pub const fn toward(self, other: usize) -> Self {
        Self { other, ..self }
    }

    fn host(&self) -> HostName {
        host(HOSTS[self.one])
    }

    fn peer(&self) -> HostName {
        host(HOSTS[self.other])
    }

    fn short(&self) -> Duration {
        self.span.min(Duration::from_millis(4_000))
    }

    /// dispatcher: one arm a kind. Begins it.
    pub fn begin(&self, world: &mut World) {
        let (one, other) = (self.host(), self.peer());
        match self.kind {
            Kind::SitePower => world.site_power_off(&site(SITES[self.one])),
            Kind::AgentKilled => world.kill_agent(&one),
            Kind::AgentCrashed => world.crash_agent(&one),
            Kind::AgentStopped => world.stop_agent(&one, self.span),
            Kind::AgentStoppedAtPoint => {
                let point = if self.dice.is_multiple_of(4) { Point::AgentReads } else { Point::AgentActs };
                world.stop_at(&one, point, self.short());
            }
            Kind::KeeperKilled | Kind::KeeperRestarted => world.kill_keeper(&one),
            Kind::KeeperStopped => world.stop_keeper(&one, self.short()),
            Kind::KeeperStoppedAtPoint => {
                let points = [
                    Point::KeeperPets,
                    Point::KeeperPets,
                    Point::KeeperFreezes,
                    Point::KeeperKills,
                    Point::KeeperAttests,
                    Point::KeeperThaws,
                ];
                world.stop_at(&one, points[(self.dice % 6) as usize], self.short());
            }
            Kind::WatchdogBroken => world.break_watchdog(&one),
            Kind::Suspended => world.suspend(&one, self.short()),
            Kind::ClockRate => world.set_clock_rate(&one, if self.dice.is_multiple_of(2) { 490 } else { -490 }),
            Kind::Isolated => world.isolate_site(&site(SITES[self.one]), true),
            Kind::CutOneWay => world.cut(&one, &other, true),
            Kind::CutPair => {
                world.cut(&one, &other, true);
                world.cut(&other, &one, true);
            }
            Kind::Lossy | Kind::Reordered | Kind::Doubled | Kind::Stray => self.shape(world),
            Kind::DiskStalled => world.stall_disk(&one, self.span),
            Kind::DiskFailed => {
                let fault = [DiskFault::ErrorBefore, DiskFault::ErrorAfter, DiskFault::Full][(self.dice % 3) as usize];
                world.fail_disk(&one, fault);
            }
            Kind::DiskTorn => world.tear_disk(&one, 1 + self.dice % 6),
            Kind::DiskFlipped => {
                // A bit that flips is found at the next start: there is one.
                world.power_off(&one);
                world.flip_disk(&one);
                world.power_on(&one);
            }
            Kind::WorkFails | Kind::WorkHangs | Kind::WorkloadCrashed => self.spoil_work(world),
            Kind::LeaderMoved
            | Kind::Switchover
            | Kind::Failover
            | Kind::Freeze
            | Kind::Maintenance
            | Kind::Override
            | Kind::FenceOrdered
            | Kind::PlanCancelled
            | Kind::PlanDenied => self.order(world),
        }
    }

    fn shape(&self, world: &mut World) {
        for (from, to) in [(self.host(), self.peer()), (self.peer(), self.host())] {
            world.shape(&from, &to, |link| match self.kind {
                Kind::Lossy => link.loss_per_mille = 50 + self.dice % 700,
                Kind::Reordered => {
                    link.jitter = Duration::from_millis(50 + self.dice % 900);
                    link.delay = Duration::from_millis(10 + self.dice % 190);
                }
                Kind::Doubled => link.twice_per_mille = 300,
                _ => {
                    link.stray_per_mille = 200;
                    link.stray_after = Duration::from_millis(1_000 + self.dice % 40_000);
                }
            });
        }
    }

    fn spoil_work(&self, world: &mut World) {
        let work = WORKS[(self.dice % WORKS.len() as u64) as usize];
        for name in ["tk-1", "os-1"] {
            match self.kind {
                Kind::WorkFails => world.fail_work(&host(name), &group("erp"), (work, 1 + (self.dice >> 8) as u32 % 3)),
                Kind::WorkHangs => world.hang_work(&host(name), &group("erp"), work),
                _ => world.crash_workload(&host(name), &group("erp")),
            }
        }
    }

    /// What a person does, over an agent that runs.
    fn order(&self, world: &mut World) {
        let Some(at) = HOSTS.iter().map(|name| host(name)).find(|name| world.engine(name).is_some()) else { return };
        let span_ms = u64::try_from(self.span.as_millis()).unwrap_or(1_000);
        let order = |order| Request::Order { order, reason: "the swarm's".into() };
        let fence = |act| {
            let scope = Scope::Host(self.host());
            Request::Fence { scope, act, reason: "the swarm's".into(), dry_run: false }
        };
        let move_by = |kind| {
            Request::Move(Move {
                kind,
                group: group("erp"),
                toward: None,
                to: None,
                reason: "the swarm's".into(),
                accept_loss: false,
                dry_run: false,
            })
        };
        let plan = world.ledger().and_then(|ledger| ledger.open_plan(&group("erp"))).map(|plan| plan.id.0);
        let request = match self.kind {
            Kind::LeaderMoved => Request::Transfer(VoterId(self.one as u64 + 1)),
            Kind::Switchover => move_by(PlanKind::Switchover),
            Kind::Failover => move_by(PlanKind::Failover),
            Kind::Freeze => {
                let scope =
                    if self.dice.is_multiple_of(2) { Scope::Cluster } else { Scope::Site(site(SITES[self.one])) };
                order(Order::Freeze { scope, span_ms, hold_activation: self.dice.is_multiple_of(3) })
            }
            Kind::Maintenance => {
                let scope = if self.dice.is_multiple_of(2) {
                    Scope::Host(self.host())
                } else {
                    Scope::Site(site(SITES[self.one]))
                };
                order(Order::Maintenance { scope, span_ms })
            }
            Kind::Override => {
                // A person vouches for what is off, and for nothing else.
                if world.hosts[&self.host()].is_powered() {
                    return;
                }
                fence(FenceAct::Override { at_once: self.dice.is_multiple_of(2), span_ms: None })
            }
            Kind::FenceOrdered => fence(FenceAct::Run),
            Kind::PlanCancelled => match plan {
                Some(plan) => order(Order::CancelPlan { plan }),
                None => return,
            },
            Kind::PlanDenied => match plan {
                Some(plan) => order(Order::Deny { matter: Matter::Plan(plan) }),
                None => return,
            },
            _ => return,
        };
        // To the leader, if a person finds it.
        let to = world.leader().cloned().unwrap_or(at);
        world.ask(&to, request);
    }

    /// dispatcher: one arm a kind. Ends it; what ends by itself is left alone.
    pub fn end(&self, world: &mut World) {
        let (one, other) = (self.host(), self.peer());
        match self.kind {
            Kind::SitePower => world.site_power_on(&site(SITES[self.one])),
            Kind::AgentKilled => world.start_agent(&one),
            Kind::KeeperRestarted => world.start_keeper(&one),
            Kind::Isolated => world.isolate_site(&site(SITES[self.one]), false),
            Kind::CutOneWay | Kind::CutPair => {
                world.cut(&one, &other, false);
                world.cut(&other, &one, false);
            }
            Kind::Lossy | Kind::Reordered | Kind::Doubled | Kind::Stray => {
                for (from, to) in [(&one, &other), (&other, &one)] {
                    let is_cut = world.network.seen(from, to).is_cut;
                    world.shape(from, to, |link| *link = antipode::sim::Link { is_cut, ..Default::default() });
                }
            }
            Kind::ClockRate => world.set_clock_rate(&one, 0),
            Kind::WorkFails | Kind::WorkHangs => {
                for name in ["tk-1", "os-1"] {
                    world.mend_work(&host(name), &group("erp"));
                }
            }
            Kind::AgentCrashed
            | Kind::AgentStopped
            | Kind::AgentStoppedAtPoint
            | Kind::KeeperKilled
            | Kind::KeeperStopped
            | Kind::KeeperStoppedAtPoint
            | Kind::WatchdogBroken
            | Kind::Suspended
            | Kind::DiskStalled
            | Kind::DiskFailed
            | Kind::DiskTorn
            | Kind::DiskFlipped
            | Kind::WorkloadCrashed
            | Kind::LeaderMoved
            | Kind::Switchover
            | Kind::Failover
            | Kind::Freeze
            | Kind::Maintenance
            | Kind::Override
            | Kind::FenceOrdered
            | Kind::PlanCancelled
            | Kind::PlanDenied => {}
        }
    }
}
