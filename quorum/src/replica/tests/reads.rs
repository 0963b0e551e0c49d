//! Claims about reads.

use super::super::wire::Body;
use super::super::*;
use super::world::*;
use crate::id::VoterId;

fn answer(world: &mut World, id: u64) -> Option<ReadState> {
    world.process(id).answered.pop()
}

#[test]
fn a_read_is_confirmed_at_the_leader_and_through_a_follower() {
    let mut world = World::new(1, 3);
    let leader = world.elect();
    for id in 1..=3 {
        let proposed = world.commit(&[id as u8]);
        let context = world.read(id).unwrap();
        world.until(ELECTION, "it is confirmed", |world| !world.process(id).answered.is_empty());
        let read = answer(&mut world, id).unwrap();
        assert_eq!(read.context, context);
        assert!(read.index >= proposed.index);
    }
    assert_eq!(world.leader(), Some(leader));
}

#[test]
fn a_read_waits_for_a_majority_and_for_the_leaders_first_commit() {
    let mut world = World::new(1, 3);
    assert_eq!(world.replica(1).read_index(), Err(ReadError::NoLeader));
    world.until(10 * ELECTION, "a leader", |world| world.leader().is_some());
    let leader = world.leader().unwrap();
    assert_eq!(world.replica(leader).read_index(), Err(ReadError::NewLeader));
    world.elect();
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    world.partition(&[leader], &others);
    world.read(leader).unwrap();
    world.run(5 * ELECTION);
    assert_eq!(answer(&mut world, leader), None);
}

/// The shape of etcd-io/etcd#20418: a leader is deposed while it sleeps, and answers to an older read, still on their
/// way, look like answers to a new one.
#[test]
fn late_answers_to_an_old_read_confirm_no_new_one() {
    let mut world = World::new(1, 3);
    let old = world.elect();
    world.commit(b"old");
    world.recorded = Some(Vec::new());
    let first = world.read(old).unwrap();
    world.until(ELECTION, "it is confirmed", |world| answer(world, old).is_some());
    let late: Vec<_> = world.recorded.take().unwrap().into_iter().filter(|(_, to, _)| *to == old).collect();
    let is_answer = |frame: &[u8]| {
        let message = Message::decode(frame, wire::MESSAGE_BYTES_MAX).unwrap();
        matches!(message.body, Body::HeartbeatAnswer { read: Some(read), .. } if read == first)
    };
    assert!(late.iter().any(|(_, _, frame)| is_answer(frame)));

    // The old leader sleeps: nothing reaches it, and no tick passes. The others go on without it.
    let others: Vec<u64> = (1..=3).filter(|id| *id != old).collect();
    world.partition(&[old], &others);
    world.process(old).sleep();
    world.until(20 * ELECTION, "another leads", |world| world.leader() != Some(old));
    let newer = world.commit(b"new");
    assert!(world.replica(old).is_leader(), "it doesn't know yet");

    let second = world.read(old).unwrap();
    assert_ne!(first, second);
    assert!(world.replica(old).committed() < newer.index);
    for (from, _, frame) in &late {
        let message = Message::decode(frame, wire::MESSAGE_BYTES_MAX).unwrap();
        let _ = world.replica(old).step(VoterId(*from), message);
        world.pump(old);
    }
    world.run(TICK);
    assert_eq!(answer(&mut world, old), None);

    // Behind the guard's back: raft itself confirms a context that is used again. It is the context that saves us.
    world.replica(old).node.read_index(first.to_bytes());
    for (from, _, frame) in &late {
        let message = Message::decode(frame, wire::MESSAGE_BYTES_MAX).unwrap();
        let _ = world.replica(old).step(VoterId(*from), message);
    }
    let stale: Vec<u64> = world.replica(old).node.raft.read_states.iter().map(|state| state.index).collect();
    assert!(!stale.is_empty(), "if this fails, raft was mended and the guard may go");
    assert!(stale.iter().all(|index| *index < newer.index.0));
}

#[test]
fn an_answer_to_a_read_of_an_earlier_run_is_not_handed_out() {
    let mut world = World::new(1, 3);
    let leader = world.elect();
    let follower = 1 + leader % 3;
    world.recorded = Some(Vec::new());
    let before = world.read(follower).unwrap();
    world.until(ELECTION, "it is confirmed", |world| answer(world, follower).is_some());
    let recorded = world.recorded.take().unwrap();
    world.crash(follower, 9);
    world.start(follower);
    let after = world.read(follower);
    assert!(after.is_none_or(|after| after != before), "another run, another context");
    world.run(ELECTION);
    world.process(follower).answered.clear();
    for (from, to, frame) in recorded {
        world.send_frame(from, to, frame);
    }
    world.run(ELECTION);
    assert_eq!(answer(&mut world, follower), None);
}
