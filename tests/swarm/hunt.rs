//! Plans made for planted faults that chance rarely meets: each leads to the one moment at which the fault shows.
//!
//! A hunt is tried at several offsets, because the moment depends on beats and boots. Without the fault none of them
//! may fail.

use crate::cluster::{Cluster, Shape, group, host, until};
use crate::faults::{Fault, Kind};
use crate::run::{Failure, storm};
use antipode::engine::{Move, Request};
use antipode::sim::World;
use quorum::id::{Epoch, GroupName};
use quorum::ledger::{Incarnation, PlanKind, TicketState};
use std::time::Duration;

/// Offsets that are tried.
pub const TRIES: u64 = 20;

/// A way to one moment.
pub struct Hunt {
    /// Planted together.
    pub faults: &'static [&'static str],
    /// What is noticed then: one of these.
    pub expected: &'static [&'static str],
    /// One try at this offset.
    pub play: fn(u64) -> Result<(), Failure>,
}

/// All of them. `lease.restart_forgets` alone shows nothing: a voter that starts again applies the admissions and the
/// configuration of its log again, and each begins the wait anew. So these two guards are taken away with it.
pub const HUNTS: [Hunt; 13] = [
    Hunt { faults: &["runner.says_stopped_running"], expected: &["I1"], play: stopped_in_words },
    Hunt { faults: &["lease.voter_wait_is_lease", "timing.voter_wait"], expected: &["I6"], play: waited_out },
    Hunt {
        faults: &["lease.restart_forgets", "lease.admission_keeps_grants", "lease.configuration_keeps_grants"],
        expected: &["I6"],
        play: restarted_while_waiting,
    },
    Hunt { faults: &["engine.owns_by_name", "engine.starts_unarmed"], expected: &["I11"], play: admitted_anew },
    Hunt { faults: &["sim.watchdog_sleeps"], expected: &["I12"], play: stopped_for_long },
    Hunt { faults: &["engine.drills_for_real", "ledger.grant_by_another_plan"], expected: &["I20"], play: drilled },
    Hunt { faults: &["keeper.pets_at_w"], expected: &["I7"], play: late_pet },
    Hunt { faults: &["lease.pet_trusts_one_clock"], expected: &["I7", "I12"], play: slept },
    Hunt { faults: &["ledger.one_voter_expires"], expected: &["I4"], play: one_voter_deaf },
    Hunt { faults: &["engine.acts_before_barrier"], expected: &["I1", "I3", "I11"], play: behind_the_log },
    Hunt { faults: &["engine.retired_is_never_lost"], expected: &["stuck"], play: retired_and_gone },
    Hunt { faults: &["replica.sends_before_durable"], expected: &["I9"], play: slow_disks },
    Hunt { faults: &["lease.grant_undecodable"], expected: &["I17"], play: of_the_future },
];

fn settled(shape: Shape, seed: u64) -> Result<Cluster, Failure> {
    let mut cluster = Cluster::of(seed, shape);
    let is_settled = cluster.settle().map_err(Failure::Unsafe)?;
    if is_settled { Ok(cluster) } else { Err(Failure::Stuck("before any fault".into())) }
}

fn play(faults: &[Fault]) -> Result<(), Failure> {
    let mut cluster = settled(Shape::Plain, 1)?;
    storm(&mut cluster.world, faults).map_err(Failure::Unsafe)
}

/// Tokyo, where the group runs, is cut off; its keeper is stopped between a late check and the pet.
fn late_pet(offset: u64) -> Result<(), Failure> {
    play(&[
        Fault::of(Kind::Isolated, (10_000, 20_000), 0),
        Fault::of(Kind::KeeperStoppedAtPoint, (12_600 + 100 * offset, 1_000), 0),
    ])
}

/// The host sleeps, and one of its clocks with it.
fn slept(offset: u64) -> Result<(), Failure> {
    let nap = |at| Fault::of(Kind::Suspended, (at, 900), 0);
    play(&[
        Fault::of(Kind::Isolated, (10_000, 20_000), 0),
        nap(10_300),
        nap(11_600),
        nap(12_900),
        Fault::of(Kind::KeeperStoppedAtPoint, (13_900 + 100 * offset, 1_000), 0),
    ])
}

/// One voter heard nothing of the host for long, the other until just now.
fn one_voter_deaf(offset: u64) -> Result<(), Failure> {
    play(&[
        Fault::of(Kind::CutPair, (5_000, 40_000), 0).toward(2),
        Fault::of(Kind::Isolated, (16_000 + 100 * offset, 20_000), 0),
    ])
}

/// The disks of two voters stall while a move is decided.
fn slow_disks(offset: u64) -> Result<(), Failure> {
    play(&[
        Fault::of(Kind::DiskStalled, (10_000, 5_000), 0),
        Fault::of(Kind::DiskStalled, (10_000, 5_000), 1),
        Fault::of(Kind::Switchover, (10_100 + 100 * offset, 1_000), 0),
    ])
}

/// A leader of a newer version wrote something that these voters can't read.
fn of_the_future(_offset: u64) -> Result<(), Failure> {
    let mut cluster = settled(Shape::Plain, 1)?;
    if !cluster.world.append_unknown() {
        return Err(Failure::Stuck("nobody leads".into()));
    }
    cluster.world.run_for(Duration::from_secs(20)).map_err(Failure::Unsafe)
}

fn owner(world: &World, name: &GroupName) -> Option<(Epoch, Incarnation)> {
    let ticket = world.ledger()?.group(name)?.ticket.as_ref()?;
    Some((ticket.epoch, ticket.of.clone()))
}

/// A site is cut off, and its lease waited out.
fn waited_out(offset: u64) -> Result<(), Failure> {
    play(&[Fault::of(Kind::Isolated, (10_000 + 100 * offset, 20_000), 0)])
}

/// The site is cut off, and its keeper stopped for so long that only the watchdog can end what runs there.
fn stopped_for_long(offset: u64) -> Result<(), Failure> {
    let mut cluster = settled(Shape::Plain, 1 + offset)?;
    let world = &mut cluster.world;
    let Some((_, of)) = owner(world, &group("erp")) else { return Ok(()) };
    world.isolate(&of.host, true);
    world.run_for(Duration::from_millis(500 + 100 * offset)).map_err(Failure::Unsafe)?;
    world.stop_keeper(&of.host, Duration::from_secs(20));
    world.run_for(Duration::from_secs(15)).map_err(Failure::Unsafe)
}

/// The host where the group runs is cut off and lost; a voter starts again while it waits the lease out.
fn restarted_while_waiting(offset: u64) -> Result<(), Failure> {
    let mut cluster = settled(Shape::Plain, 1 + offset)?;
    let world = &mut cluster.world;
    let Some((_, of)) = owner(world, &group("erp")) else { return Ok(()) };
    world.isolate(&of.host, true);
    let is_lost = |world: &World| world.ledger().is_some_and(|ledger| ledger.lost_or_retired(&of));
    let limit = Duration::from_secs(20);
    if !world.run_until(limit, is_lost).map_err(Failure::Unsafe)? {
        return Ok(());
    }
    world.run_for(Duration::from_millis(50 * offset)).map_err(Failure::Unsafe)?;
    let others: Vec<_> = world.hosts.keys().filter(|name| **name != of.host).cloned().collect();
    others.iter().for_each(|name| world.crash_agent(name));
    world.run_for(limit).map_err(Failure::Unsafe)
}

fn moved(group: &GroupName, kind: PlanKind) -> Request {
    Request::Move(Move {
        kind,
        group: group.clone(),
        toward: None,
        to: None,
        reason: "the swarm's".into(),
        accept_loss: false,
        dry_run: false,
    })
}

/// A group without data is moved away, and its old owner hears nothing more from the moment at which it said that it
/// stopped.
fn stopped_in_words(offset: u64) -> Result<(), Failure> {
    let mut cluster = settled(Shape::Two, 1 + offset)?;
    let world = &mut cluster.world;
    let (web, old, limit) = (group("web"), host("os-1"), Duration::from_secs(20));
    let Some(leader) = world.leader().cloned().filter(|leader| *leader != old) else { return Ok(()) };
    world.ask(&leader, moved(&web, PlanKind::Switchover));
    let has_stopped = |world: &World| {
        let ticket = world.ledger().and_then(|ledger| ledger.group(&group("web"))?.ticket.as_ref());
        ticket.is_some_and(|ticket| matches!(ticket.state, TicketState::Stopped { .. }))
    };
    if !world.run_until(limit, has_stopped).map_err(Failure::Unsafe)? {
        return Ok(());
    }
    world.isolate(&old, true);
    world.run_for(limit).map_err(Failure::Unsafe)
}

/// A keeper is started anew, and its host admitted again under the next host epoch; the leader falls silent before it
/// can grant the group back, whose ticket still names the one before.
fn admitted_anew(offset: u64) -> Result<(), Failure> {
    let mut cluster = settled(Shape::Two, 1 + offset)?;
    let world = &mut cluster.world;
    let web = group("web");
    let Some((_, before)) = owner(world, &web) else { return Ok(()) };
    let Some(leader) = world.leader().cloned().filter(|leader| *leader != before.host) else { return Ok(()) };
    world.kill_keeper(&before.host);
    world.run_for(Duration::from_millis(300)).map_err(Failure::Unsafe)?;
    world.start_keeper(&before.host);
    let is_back = |world: &World| {
        let admitted = world.ledger().and_then(|ledger| ledger.admitted(&before.host));
        admitted.is_some_and(|(he, _)| he > before.he)
    };
    if !world.run_until(Duration::from_secs(20), is_back).map_err(Failure::Unsafe)? {
        return Ok(());
    }
    world.stop_agent(&leader, Duration::from_secs(6));
    world.run_for(Duration::from_secs(20)).map_err(Failure::Unsafe)
}

/// A person asks for a rehearsal, which this version doesn't have.
fn drilled(offset: u64) -> Result<(), Failure> {
    let mut cluster = settled(Shape::Plain, 1 + offset)?;
    let world = &mut cluster.world;
    let Some(leader) = world.leader().cloned() else { return Ok(()) };
    world.ask(&leader, moved(&group("erp"), PlanKind::Drill));
    world.run_for(Duration::from_secs(20)).map_err(Failure::Unsafe)
}

/// A group without data is moved away; its old owner no longer hears the leader, whose log it needs, but the voter whose
/// lease it needs. Then its agent starts again, and what it last knew is that the group is its own.
fn behind_the_log(offset: u64) -> Result<(), Failure> {
    let mut cluster = settled(Shape::Two, 1 + offset)?;
    let (web, old, new, leader) = (group("web"), host("os-1"), host("tk-1"), host("ng-1"));
    let world = &mut cluster.world;
    if world.leader() != Some(&leader) {
        return Ok(());
    }
    world.ask(&leader, moved(&web, PlanKind::Switchover));
    let knows = |world: &World| {
        let state = world.engine(&host("os-1")).and_then(|engine| engine.ledger().group(&group("web")));
        state.is_some_and(|state| state.intent.is_some())
    };
    let limit = Duration::from_secs(20);
    if !world.run_until(limit, knows).map_err(Failure::Unsafe)? {
        return Ok(());
    }
    world.cut(&leader, &old, true);
    let is_moved = |world: &World| owner(world, &web).is_some_and(|(_, of)| of.host == new);
    if !world.run_until(limit, is_moved).map_err(Failure::Unsafe)? {
        return Ok(());
    }
    world.crash_agent(&old);
    world.run_for(Duration::from_secs(8)).map_err(Failure::Unsafe)?;
    world.heal();
    world.run_for(limit).map_err(Failure::Unsafe)
}

/// A keeper is started anew, which ends its host's admission; before there is another one the site dies for good.
fn retired_and_gone(offset: u64) -> Result<(), Failure> {
    let mut cluster = settled(Shape::Plain, 1 + offset)?;
    let (erp, old) = (group("erp"), host("tk-1"));
    let world = &mut cluster.world;
    let Some((_, before)) = owner(world, &erp).filter(|(_, of)| of.host == old) else { return Ok(()) };
    world.kill_keeper(&old);
    world.run_for(Duration::from_millis(300)).map_err(Failure::Unsafe)?;
    world.start_keeper(&old);
    let is_over = |world: &World| world.ledger().is_some_and(|ledger| ledger.is_ended(&before));
    if !world.run_until(Duration::from_secs(10), is_over).map_err(Failure::Unsafe)? {
        return Ok(());
    }
    world.power_off(&old);
    let runs = |world: &World| {
        let place = world.hosts[&host("os-1")].places.get(&erp);
        place.is_some_and(|place| place.running.is_some())
    };
    let is_up = until(world, 120, runs).map_err(Failure::Unsafe)?;
    if is_up { Ok(()) } else { Err(Failure::Stuck("erp runs nowhere, 120 s after its site died".into())) }
}
