//! The clusters that the swarm runs on: a few shapes, beats slow enough for many runs.

use antipode::engine::{Answer, Engine, Request};
use antipode::sim::{Random, Tuning, Violation, World, WorldSpec};
use quorum::id::{GroupName, HostName, SiteName, VoterId};
use quorum::ledger::{Class, Command, Decision, Person, PersonKey};
use quorum::timing::{Measured, Timing};
use std::collections::BTreeMap;
use std::time::Duration;

/// Which groups there are, and how they are protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One group with data, automatic both ways.
    Plain,
    /// One with data and one without, at home at different sites.
    Two,
    /// One that waits for a person's word before it is moved.
    Asking,
    /// As `Plain`, but leases prove nothing: devices do, or a person.
    Fenced,
}

/// One run's cluster.
pub struct Cluster {
    pub shape: Shape,
    pub is_on_blocks: bool,
    /// The network of the fence devices is cut until everything is healed.
    pub is_blind: bool,
    pub world: World,
}

pub fn host(name: &str) -> HostName {
    HostName::new(name).expect("a name")
}

pub fn site(name: &str) -> SiteName {
    SiteName::new(name).expect("a name")
}

pub fn group(name: &str) -> GroupName {
    GroupName::new(name).expect("a name")
}

const HEAD: &str = r#"
[cluster]
name = "swarm"
declare = "eager"
watchdog_worst = "2200ms"
round_trip_max = "40ms"
[[site]]
name = "tokyo"
[[site]]
name = "osaka"
[[site]]
name = "nagoya"
witness = true
[[host]]
name = "tk-1"
site = "tokyo"
[[host]]
name = "os-1"
site = "osaka"
[[host]]
name = "ng-1"
site = "nagoya"
"#;

/// Devices of the two hosts that run groups, and how long a sign of life speaks against an override.
const DEVICES: &str = r#"
[[device]]
name = "bmc-tk-1"
kind = "command"
program = "/usr/lib/antipode/bmc"
wired = "ops-1, 2026-03-02"
[[device]]
name = "bmc-os-1"
kind = "command"
program = "/usr/lib/antipode/bmc"
wired = "ops-1, 2026-03-02"
"#;

/// The spec in which each of them has a device.
fn fenced(spec: &str) -> String {
    let fencing = |name: &str| format!("name = \"{name}\"\nfencing = [[\"bmc-{name}\"]]\n");
    let spec = spec.replace("name = \"tk-1\"\n", &fencing("tk-1")).replace("name = \"os-1\"\n", &fencing("os-1"));
    let spec = spec.replace("name = \"swarm\"\n", "name = \"swarm\"\ncontrary_fresh = \"5s\"\n");
    spec.replace("accept = [", "accept = [\"powered-off\", ") + DEVICES
}

fn group_toml(name: &str, (tier, home): (&str, &str), has_data: bool) -> String {
    let volume = "[[group.volume]]\nname = \"root\"\nreplication = { kind = \"nbd\", mode = \"sync\" }\n";
    format!(
        r#"
[[group]]
name = "{name}"
tier = "{tier}"
home = "{home}"
accept = ["self-fenced", "released", "returned"]
hold_off = "0s"
failback = {{ policy = "auto", stable_for = "5s" }}
{}[group.at.tokyo]
kind = "qemu"
hosts = ["tk-1"]
[group.at.osaka]
kind = "qemu"
hosts = ["os-1"]
"#,
        if has_data { volume } else { "" }
    )
}

fn spec_of(shape: Shape) -> String {
    let groups = match shape {
        Shape::Plain => group_toml("erp", ("auto", "tokyo"), true),
        Shape::Two => group_toml("erp", ("auto", "tokyo"), true) + &group_toml("web", ("auto", "osaka"), false),
        Shape::Asking => group_toml("erp", ("approve", "tokyo"), true),
        Shape::Fenced => return fenced(&(HEAD.to_owned() + &group_toml("erp", ("auto", "tokyo"), true))),
    };
    HEAD.to_owned() + &groups
}

/// Slow beats: a run costs by the beat, and nothing in the protocol depends on how many there are.
pub fn slow() -> Timing {
    let mut timing = Timing::derive(Measured::new(Duration::from_millis(2_200), Duration::from_millis(40)));
    timing.beat = Duration::from_millis(200);
    timing.detection = Duration::from_millis(1_300);
    timing.election = Duration::from_millis(2_000);
    assert!(timing.check().is_empty(), "{:?}", timing.check());
    timing
}

impl Cluster {
    /// A cluster of this seed, everything off; of this shape, if one is asked for.
    pub fn new(seed: u64, asked: Option<Shape>, is_traced: bool) -> Self {
        let mut random = Random::new(seed ^ 0xC1_05_7E_12);
        let drawn = match random.below(5) {
            _ if seed % 8 == 2 => Shape::Fenced,
            0 => Shape::Two,
            1 => Shape::Asking,
            _ => Shape::Plain,
        };
        let shape = asked.unwrap_or(drawn);
        // At least one in twenty on the production store.
        let mut cluster = Self::of_shape(seed, (shape, seed.is_multiple_of(16)), is_traced);
        cluster.is_blind = shape == Shape::Fenced && (asked.is_some() || seed % 16 == 2);
        cluster
    }

    /// One of this shape, untraced.
    #[cfg(feature = "mutants")]
    pub fn of(seed: u64, shape: Shape) -> Self {
        Self::of_shape(seed, (shape, false), false)
    }

    /// The plainest one.
    pub fn plain(seed: u64, is_traced: bool) -> Self {
        Self::of_shape(seed, (Shape::Plain, false), is_traced)
    }

    fn of_shape(seed: u64, (shape, is_on_blocks): (Shape, bool), is_traced: bool) -> Self {
        let data = |name: &str| (group(name), vec![host("tk-1"), host("os-1")]);
        let spec = WorldSpec {
            seed,
            hosts: vec![
                (host("tk-1"), site("tokyo"), Some(VoterId(1)), false),
                (host("os-1"), site("osaka"), Some(VoterId(2)), false),
                (host("ng-1"), site("nagoya"), Some(VoterId(3)), true),
            ],
            groups: vec![data("erp")],
            watchdog_worst: Duration::from_millis(2_200),
            round_trip_max: Duration::from_millis(40),
        };
        let classes = match shape {
            Shape::Fenced => [(host("tk-1"), Class::C), (host("os-1"), Class::C)].into(),
            Shape::Plain | Shape::Two | Shape::Asking => BTreeMap::new(),
        };
        let tuning = Tuning { timing: Some(slow()), is_on_blocks, is_silent: !is_traced, classes };
        let world = World::tuned(&spec, &tuning);
        Self { shape, is_on_blocks, is_blind: false, world }
    }

    /// Before any fault: cuts the network of the fence devices, if that is this run's lot.
    pub fn blind(&mut self) {
        let hosts: Vec<HostName> = self.world.hosts.keys().cloned().collect();
        if self.is_blind {
            let pairs = hosts.iter().flat_map(|one| hosts.iter().map(move |other| (one.clone(), other.clone())));
            self.world.fences.cut.extend(pairs);
        }
    }

    /// Boots everything and waits until every group runs and is protected.
    pub fn settle(&mut self) -> Result<bool, Violation> {
        for name in ["tk-1", "os-1", "ng-1"] {
            self.world.power_on(&host(name));
        }
        if !until(&mut self.world, 30, |world| world.leader().is_some())? {
            return Ok(false);
        }
        let source = spec_of(self.shape);
        let apply = Request::Apply { source, dry_run: false, reason: "the swarm's".into() };
        let by = Decision {
            by: Person { name: "operator".into(), key: PersonKey::Local(0) },
            reason: "slow beats".into(),
            shown: String::new(),
        };
        for request in [apply, Request::Command(Box::new(Command::SetTiming { timing: slow(), by }))] {
            let ticket = self.world.ask(&host("ng-1"), request);
            if !until(&mut self.world, 20, |world| world.answers.contains_key(&ticket))? {
                return Ok(false);
            }
            assert!(matches!(self.world.answers[&ticket], Answer::Done { .. }), "{:?}", self.world.answers[&ticket]);
        }
        until(&mut self.world, 60, |world| unsettled(world).is_none())
    }
}

/// Runs for at most `secs` seconds until `done`, which is asked now and then.
pub fn until(world: &mut World, secs: u64, done: impl Fn(&World) -> bool) -> Result<bool, Violation> {
    for _ in 0..secs * 10 {
        if done(world) {
            return Ok(true);
        }
        world.run_for(Duration::from_millis(100))?;
    }
    Ok(done(world))
}

/// What keeps the cluster from being as it should be, if anything.
pub fn unsettled(world: &World) -> Option<String> {
    let Some(ledger) = world.ledger() else { return Some("no agent runs".into()) };
    if world.leader().is_none() {
        return Some("nobody leads".into());
    }
    for (name, spec) in &ledger.spec().groups {
        let Some(state) = ledger.group(name) else { return Some(format!("{name} isn't born")) };
        let Some(ticket) = &state.ticket else { return Some(format!("{name} has no owner")) };
        let place = world.hosts.get(&ticket.of.host).and_then(|host| host.places.get(name));
        let runs = place.is_some_and(|place| place.running == Some(ticket.epoch));
        if !runs {
            return Some(format!("{name} doesn't run on {}, its owner", ticket.of));
        }
        if !spec.volumes.is_empty() && state.in_sync.len() < 2 && spoiled(world) == 0 {
            return Some(format!("{name} has no copy in sync"));
        }
        if let Some(plan) = ledger.open_plan(name).filter(|_| spoiled(world) == 0) {
            return Some(format!("plan {} of {name} is open", plan.id));
        }
        if let Some(intent) = &state.intent {
            return Some(format!("intent {} of {name} is open", intent.id));
        }
    }
    let silent = world.hosts.iter().filter(|(_, host)| host.spoiled().is_none());
    for (name, _) in silent {
        let behind = world.engine(name).is_none_or(|engine: &Engine| engine.ledger().applied() < ledger.applied());
        if behind {
            return Some(format!("{name} hasn't applied what others have"));
        }
        if ledger.admitted(name).is_none() {
            return Some(format!("{name} isn't admitted"));
        }
    }
    None
}

/// Voters whose store refuses: a person must replace them.
pub fn spoiled(world: &World) -> usize {
    world.hosts.values().filter(|host| host.spoiled().is_some()).count()
}
