//! Agreement whatever the network, the disks and the processes do.

use super::super::wire::MESSAGE_BYTES_MAX;
use super::super::*;
use super::world::*;
use crate::id::VoterId;
use crate::storage::{FaultyBlocks, MemoryDisk};

#[test]
fn a_cluster_elects_one_leader_and_applies_the_same_everywhere() {
    for voters in [1, 2, 3, 5, 7] {
        let mut world = World::new(voters, voters);
        world.elect();
        for n in 0..20u8 {
            world.commit(&[n + 1]);
        }
        world.heal_and_converge();
        assert!(world.applied_anywhere() >= 22);
    }
}

/// One random misfortune, or one thing that a client does.
fn misfortune(world: &mut World) {
    let running = world.running();
    let all: Vec<u64> = world.nodes.keys().copied().collect();
    let any = |world: &mut World, of: &[u64]| of[world.random(of.len() as u64) as usize];
    match world.random(40) {
        0 if !running.is_empty() => {
            let (id, landed) = (any(world, &running), world.random(3));
            world.crash(id, landed as usize);
        }
        1 | 2 => {
            let id = any(world, &all);
            if world.nodes[&id].process.is_none() {
                world.start(id);
            }
        }
        3 => {
            // One direction only, as real networks do.
            let link = (any(world, &all), any(world, &all));
            world.cut.insert(link);
        }
        4 => {
            let id = any(world, &all);
            let others: Vec<u64> = all.iter().copied().filter(|other| *other != id).collect();
            world.partition(&[id], &others);
        }
        5..=7 => world.cut.clear(),
        8 => {
            let id = any(world, &all);
            let node = world.nodes.get_mut(&id).unwrap();
            node.is_stalled = !node.is_stalled;
        }
        9 => {
            if let Some(leader) = world.leader() {
                let to = any(world, &all);
                let _ = world.replica(leader).transfer_leader(VoterId(to));
                world.pump(leader);
            }
        }
        10..=15 if !running.is_empty() => {
            let id = any(world, &running);
            world.read(id);
        }
        _ => {
            if let Some(leader) = world.leader() {
                let data = world.random(u64::MAX).to_be_bytes();
                let _ = world.propose(leader, &data);
            }
        }
    }
}

fn suffer(world: &mut World, misfortunes: u64) {
    for _ in 0..misfortunes {
        misfortune(world);
        let pause = world.random(2 * TICK);
        world.run(pause);
    }
}

fn swarm(seed: u64, voters: u64) -> World {
    let mut world = World::new(seed, voters);
    world.chances = Chances {
        loss: world.random(30),
        twice: world.random(20),
        delay: 1 + world.random(300),
        least: 1,
        write: world.random(200),
    };
    world.compact_every = [0, 5, 20][world.random(3) as usize];
    suffer(&mut world, 400);
    world.heal_and_converge();
    world
}

#[test]
fn agreement_survives_loss_partition_stalls_and_crashes_and_is_live_again_when_they_end() {
    let (mut reads, mut snapshots) = (0, 0);
    for seed in 0..60 {
        let world = swarm(seed, 3 + 2 * (seed % 2));
        reads += world.oracle.reads_answered;
        snapshots += world.oracle.snapshots_installed;
    }
    assert!(reads > 200 && snapshots > 20, "the swarm reached {reads} reads and {snapshots} snapshots");
}

#[test]
fn the_same_seed_does_the_same_twice_and_another_does_not() {
    let trace = |seed| swarm(seed, 5).trace;
    assert_eq!(trace(7), trace(7));
    assert_ne!(trace(7), trace(8));
}

#[test]
fn agreement_survives_power_cuts_in_the_middle_of_any_block_of_the_production_store() {
    let mut cuts = 0;
    for seed in 0..8 {
        let mut world = World::with_disks(seed, 3, |_| Disk::Blocks(FaultyBlocks::default()));
        world.compact_every = 6;
        world.elect();
        for round in 0..25 {
            let id = 1 + world.random(3);
            let Disk::Blocks(blocks) = world.nodes[&id].disk.clone() else { unreachable!() };
            blocks.cut_power_after(1 + world.random(12));
            for n in 0..5u8 {
                if let Some(leader) = world.leader() {
                    let _ = world.propose(leader, &[round, n]);
                }
                world.run(TICK);
            }
            if world.nodes[&id].process.is_none() {
                cuts += 1;
            }
            world.crash(id, 0);
            blocks.restart(world.random(u64::MAX));
            world.start(id);
        }
        world.heal_and_converge();
    }
    assert!(cuts > 100, "power was cut in a write {cuts} times");
}

#[test]
fn a_voter_may_be_restarted_at_every_write_whether_it_landed_or_not() {
    let scenario = |world: &mut World| {
        for n in 0..6u8 {
            if let Some(leader) = world.leader() {
                let _ = world.propose(leader, &[n + 1]);
            }
            world.run(3 * TICK);
        }
    };
    let count = |id: u64| {
        let mut world = World::new(3, 3);
        world.compact_every = 4;
        world.run(2 * ELECTION);
        scenario(&mut world);
        world.nodes[&id].persisted
    };
    for id in 1..=3 {
        let writes = count(id);
        assert!(writes > 10, "{id} wrote {writes} times");
        for (at, landed) in (0..writes).flat_map(|at| [(at, 0), (at, 1)]) {
            let mut world = World::new(3, 3);
            world.compact_every = 4;
            world.until(200 * ELECTION, "the write", |world| {
                if world.now > 2 * ELECTION && world.now.is_multiple_of(3 * TICK) {
                    let leader = world.leader();
                    leader.map(|leader| world.propose(leader, &[1]));
                }
                world.nodes[&id].persisted >= at
            });
            world.crash(id, landed);
            world.run(TICK);
            world.start(id);
            scenario(&mut world);
            world.heal_and_converge();
        }
    }
}

#[test]
fn everything_ever_said_may_be_said_again_at_any_time() {
    for seed in 0..6 {
        let mut world = World::new(seed, 3);
        world.recorded = Some(Vec::new());
        world.compact_every = 7;
        for round in 0..60 {
            suffer(&mut world, 5);
            let recorded = world.recorded.take().unwrap();
            for _ in 0..recorded.len().min(20) {
                let at = world.random(recorded.len() as u64) as usize;
                let (from, to, frame) = recorded[at].clone();
                assert!(frame.len() <= MESSAGE_BYTES_MAX);
                world.send_frame(from, to, frame);
            }
            // Sending them again is no news.
            world.recorded = Some(recorded);
            if round % 20 == 19 {
                world.heal_and_converge();
            }
        }
    }
}

#[test]
fn a_voter_whose_disk_fails_falls_silent_and_the_others_go_on() {
    let mut world = World::new(11, 3);
    let leader = world.elect();
    let Disk::Memory(disk) = world.nodes[&leader].disk.clone() else { unreachable!() };
    disk.inject(crate::storage::Fault::ErrorAfter);
    let _ = world.propose(leader, b"lost or not");
    world.until(ELECTION, "the disk fails", |world| world.nodes[&leader].process.is_none());
    world.commit(b"by another");
    assert_ne!(world.leader(), Some(leader));
    world.heal_and_converge();
}

#[test]
fn who_answers_is_active_at_every_moment_and_who_died_is_not_for_long() {
    let mut world = World::new(23, 3);
    world.chances.least = TICK / 2;
    let leader = world.elect();
    world.run(2 * TICK);
    let active = |world: &mut World| {
        world.replica(leader).peers().into_iter().filter(|(_, peer)| peer.is_active).map(|(id, _)| id.0).collect()
    };
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    for at in 0..4 * ELECTION {
        let seen: Vec<u64> = active(&mut world);
        assert_eq!(seen, others, "after {at}");
        world.step();
    }
    world.crash(others[0], 0);
    world.run(ELECTION + 3 * TICK);
    assert_eq!(active(&mut world), others[1..], "one died");
}

#[test]
fn a_late_voter_gets_a_snapshot_and_then_the_rest() {
    let mut world = World::new(5, 3);
    world.compact_every = 10;
    let leader = world.elect();
    let late = 1 + leader % 3;
    world.crash(late, 0);
    for n in 0..60u8 {
        world.commit(&[n]);
    }
    world.start(late);
    world.commit(b"behind the snapshot");
    world.until(20 * ELECTION, "it has caught up", |world| world.process(late).applied.0 == world.applied_anywhere());
    assert_eq!(world.oracle.snapshots_installed, 1);
    // And it can start from it.
    world.crash(late, 0);
    world.start(late);
    assert!(world.process(late).applied.0 >= 50);
    world.heal_and_converge();
}

#[test]
fn a_snapshot_that_got_lost_is_sent_again() {
    let mut world = World::new(6, 3);
    world.compact_every = 10;
    for id in 1..=3 {
        world.crash(id, 0);
        world.nodes.get_mut(&id).unwrap().params.snapshot_retry_ticks = 15;
        world.start(id);
    }
    let leader = world.elect();
    let late = 1 + leader % 3;
    world.crash(late, 0);
    for n in 0..60u8 {
        world.commit(&[n]);
    }
    world.start(late);
    world.until(10 * ELECTION, "the snapshot is on its way", |world| {
        world.replica(leader).peers()[&VoterId(late)].is_behind
    });
    world.partition(&[leader], &[late]);
    world.run(TICK);
    world.cut.clear();
    assert_eq!(world.oracle.snapshots_installed, 0, "it got lost");
    world.until(30 * TICK, "it is sent again", |world| world.oracle.snapshots_installed == 1);
}

#[test]
fn the_leadership_is_handed_over_without_an_election_timeout() {
    let mut world = World::new(9, 3);
    let leader = world.elect();
    let to = 1 + leader % 3;
    assert_eq!(world.replica(leader).transfer_leader(VoterId(9)), Err(TransferError::NotVoter(VoterId(9))));
    let to_itself = world.replica(leader).transfer_leader(VoterId(leader));
    assert_eq!(to_itself, Err(TransferError::AlreadyLeads(VoterId(leader))));
    assert!(matches!(world.replica(to).transfer_leader(VoterId(leader)), Err(TransferError::NotLeader { .. })));
    world.replica(leader).transfer_leader(VoterId(to)).unwrap();
    assert_eq!(world.replica(leader).propose(vec![1]), Err(ProposeError::Busy));
    world.pump(leader);
    world.until(ELECTION / 2, "the other leads", |world| world.leader() == Some(to));
    world.heal_and_converge();
}

#[test]
fn a_preferred_voter_usually_leads_and_a_sick_one_hardly_ever() {
    let mut led = [0; 3];
    for seed in 0..30 {
        let mut world = World::new(seed, 3);
        for (id, priority) in [(1, -1), (2, 0), (3, 10)] {
            world.crash(id, 0);
            world.nodes.get_mut(&id).unwrap().params.priority = priority;
            world.start(id);
        }
        led[world.elect() as usize - 1] += 1;
    }
    assert!(led[2] > 20 && led[0] < 3, "{led:?}");
}

#[test]
fn a_preferred_voter_that_is_gone_is_not_waited_for() {
    for seed in 0..10 {
        let mut world = World::new(seed, 3);
        world.replica(2).set_priority(10);
        world.elect();
        world.partition(&[2], &[1, 3]);
        world.until(10 * ELECTION, "another leads", |world| world.leader().is_some_and(|id| id != 2));
        world.commit(b"without it");
        world.heal_and_converge();
    }
}

#[test]
fn a_leaders_stalled_disk_delays_neither_its_beats_nor_the_others() {
    let mut world = World::new(4, 3);
    let leader = world.elect();
    let term = world.replica(leader).term();
    world.nodes.get_mut(&leader).unwrap().is_stalled = true;
    let mut proposed = Vec::new();
    for n in 0..5u8 {
        proposed.push(world.propose(leader, &[n]).unwrap());
        world.run(ELECTION);
    }
    assert_eq!((world.leader(), world.replica(leader).term()), (Some(leader), term), "nobody stood for election");
    assert!(world.replica(leader).outstanding_writes() > 5);
    let last = proposed.last().unwrap().index;
    for follower in (1..=3).filter(|id| *id != leader) {
        assert!(world.process(follower).applied >= last, "the others have it on two disks");
    }
    assert!(world.process(leader).applied < proposed[0].index, "what isn't on its own disk it doesn't apply");
    world.heal_and_converge();
}

#[test]
fn a_follower_promises_nothing_while_its_disk_is_stalled() {
    let mut world = World::new(4, 3);
    let leader = world.elect();
    world.commit(b"before");
    for follower in (1..=3).filter(|id| *id != leader) {
        world.nodes.get_mut(&follower).unwrap().is_stalled = true;
    }
    let proposed = world.propose(leader, b"on one disk only").unwrap();
    world.run(ELECTION / 2);
    assert!(world.replica(leader).committed() < proposed.index);
    world.heal_and_converge();
}

#[test]
fn a_disk_that_lied_about_a_sync_is_found_out_by_what_others_remember() {
    let mut world = World::new(2, 3);
    let leader = world.elect();
    let liar = 1 + leader % 3;
    world.commit(b"held");
    let Disk::Memory(disk) = world.nodes[&liar].disk.clone() else { unreachable!() };
    for _ in 0..20 {
        disk.inject(crate::storage::Fault::Lie);
    }
    for n in 0..4u8 {
        world.commit(&[n]);
    }
    world.until(ELECTION, "the leader counts on it", |world| {
        world.replica(leader).peers()[&VoterId(liar)].durable.0 == world.applied_anywhere()
    });
    let remembered =
        crate::storage::Seen { incarnation: 1, durable: world.replica(leader).peers()[&VoterId(liar)].durable };
    world.crash(liar, 0);
    disk.crash();
    let shown = Disk::Memory(disk).open().unwrap().load().unwrap().seen();
    assert!(shown.is_behind(&remembered), "{shown:?} after {remembered:?}");
}

#[test]
fn a_backup_of_a_disk_brought_back_is_behind_what_others_remember() {
    let mut world = World::new(2, 3);
    world.elect();
    let Disk::Memory(disk) = world.nodes[&1].disk.clone() else { unreachable!() };
    let backup: MemoryDisk = disk.backup();
    world.crash(1, 0);
    let mut store = world.nodes[&1].disk.open().unwrap();
    let remembered = store.load().unwrap().seen();
    let mut restored = Disk::Memory(backup.clone()).open().unwrap();
    assert!(!restored.load().unwrap().seen().is_behind(&remembered), "an honest restart of the same state");
    let mut again = Disk::Memory(backup).open().unwrap();
    let _ = store.load().unwrap();
    let twice = store.load().unwrap().seen();
    assert!(again.load().unwrap().seen().is_behind(&twice), "it had started more often");
}
