//! Claims about changes of the membership.

use super::super::*;
use super::world::*;
use crate::id::{LogIndex, VoterId};

/// Proposes until the steps are taken and the joint configuration is left.
fn change(world: &mut World, steps: &[MemberStep], members: &[u64]) {
    let expected: Vec<VoterId> = members.iter().map(|id| VoterId(*id)).collect();
    world.until(200 * ELECTION, "the change is in force at the leader", |world| {
        let Some(leader) = world.leader() else { return false };
        let config = world.replica(leader).config().clone();
        if !config.membership.is_joint() && config.membership.voters.keys().eq(&expected) {
            return true;
        }
        let _ = world.replica(leader).propose_membership(steps.to_vec());
        world.pump(leader);
        false
    });
}

fn replace(old: u64, new: u64) -> Vec<MemberStep> {
    vec![MemberStep::Remove(VoterId(old)), MemberStep::AddVoter(info(new))]
}

#[test]
fn a_voter_is_replaced_by_way_of_a_joint_configuration() {
    let mut world = World::new(1, 3);
    let leader = world.elect();
    let old = 1 + leader % 3;
    world.compact_every = 5;
    world.join(4);
    for n in 0..20u8 {
        world.commit(&[n]);
    }
    let before = world.replica(leader).config().id;
    let members: Vec<u64> = (1..=4).filter(|id| *id != old).collect();
    change(&mut world, &replace(old, 4), &members);
    let after = world.replica(leader).config().id;
    assert!(after.index.0 >= before.index.0 + 2, "one entry into the joint configuration, one out of it");
    world
        .until(20 * ELECTION, "the new one has it all", |world| world.process(4).applied.0 == world.applied_anywhere());
    assert_eq!(world.replica(4).config().id, after);
    world.crash(old, 0);
    world.nodes.remove(&old);
    world.heal_and_converge();
}

#[test]
fn a_configuration_takes_effect_and_gets_its_name_when_it_is_applied_not_before() {
    let mut world = World::new(1, 3);
    let leader = world.elect();
    let follower = 1 + leader % 3;
    world.commit(b"before");
    world.run(ELECTION);
    let before = world.replica(follower).config().clone();
    assert_eq!(before.id.index, LogIndex(1));
    assert_eq!(world.replica(follower).pending_membership(), None);
    world.nodes.get_mut(&follower).unwrap().is_stalled = true;
    let step = MemberStep::AddLearner(info(9));
    let proposed = world.replica(leader).propose_membership(vec![step]).unwrap();
    world.pump(leader);
    world.run(ELECTION);
    assert_eq!(world.replica(leader).config().id.index, proposed.index);
    assert_eq!(world.replica(follower).config(), &before);
    assert_eq!(world.replica(follower).pending_membership(), Some(proposed.index), "in its log, and not applied");
    world.nodes.get_mut(&follower).unwrap().is_stalled = false;
    world.run(ELECTION);
    assert_eq!(world.replica(follower).config().id.index, proposed.index);
    assert_eq!(world.replica(follower).pending_membership(), None);
}

#[test]
fn a_snapshot_carries_the_configurations_name_with_it() {
    let mut world = World::new(1, 3);
    let leader = world.elect();
    let late = 1 + leader % 3;
    world.crash(late, 0);
    world.replica(leader).propose_membership(vec![MemberStep::AddLearner(info(9))]).unwrap();
    world.pump(leader);
    world.compact_every = 10;
    for n in 0..40u8 {
        world.commit(&[n]);
    }
    let id = world.replica(leader).config().id;
    world.start(late);
    assert_ne!(world.replica(late).config().id, id);
    world.until(20 * ELECTION, "it has the snapshot", |world| world.oracle.snapshots_installed == 1);
    assert_eq!(world.replica(late).config().id, id);
    assert!(world.replica(late).config().since > id.index);
    world.crash(late, 0);
    world.start(late);
    assert_eq!(world.replica(late).config().id, id, "after a restart too");
}

#[test]
fn a_change_under_any_partition_ends_and_leaves_one_cluster() {
    for seed in 0..40 {
        let mut world = World::new(seed, 3);
        world.chances.delay = 1 + world.random(200);
        world.chances.loss = world.random(15);
        world.compact_every = [0, 4][world.random(2) as usize];
        let leader = world.elect();
        world.join(4);
        world.join(5);
        let old = 1 + (leader + world.random(3)) % 3;
        let mut steps = replace(old, 4);
        if seed % 2 == 0 {
            steps.push(MemberStep::AddLearner(info(5)));
        }
        let _ = world.replica(leader).propose_membership(steps.clone());
        world.pump(leader);
        let pause = world.random(4 * TICK);
        world.run(pause);
        // Cut where it hurts: the leader, the new one, or halves of the joint configuration.
        let all: Vec<u64> = (1..=5).collect();
        for _ in 0..3 {
            let side: Vec<u64> = all.iter().copied().filter(|_| world.random(2) == 0).collect();
            let rest: Vec<u64> = all.iter().copied().filter(|id| !side.contains(id)).collect();
            world.partition(&side, &rest);
            let pause = world.random(6 * ELECTION);
            world.run(pause);
            if world.random(2) == 0 {
                let id = 1 + world.random(5);
                world.crash(id, 1);
                world.start(id);
            }
            world.cut.clear();
            let pause = world.random(2 * ELECTION);
            world.run(pause);
        }
        let members: Vec<u64> = (1..=4).filter(|id| *id != old).collect();
        change(&mut world, &steps, &members);
        world.crash(old, 0);
        world.nodes.remove(&old);
        if seed % 2 == 1 {
            world.nodes.remove(&5);
        }
        world.heal_and_converge();
    }
}

#[test]
fn a_removed_leader_steps_down_and_disturbs_nobody() {
    let mut world = World::new(3, 3);
    let leader = world.elect();
    let rest: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    world.replica(leader).propose_membership(vec![MemberStep::Remove(VoterId(leader))]).unwrap();
    world.pump(leader);
    world.until(ELECTION, "it no longer leads", |world| !world.replica(leader).is_leader());
    assert!(!world.replica(leader).config().membership.is_voter(VoterId(leader)));
    let new = world.elect();
    assert!(rest.contains(&new));
    let term = world.replica(new).term();
    world.commit(b"without it");
    world.run(10 * ELECTION);
    assert_eq!((world.leader(), world.replica(new).term()), (Some(new), term));
}

#[test]
fn one_change_at_a_time_and_only_one_that_keeps_the_rules() {
    let mut world = World::new(3, 3);
    let leader = world.elect();
    let follower = 1 + leader % 3;
    let try_steps = |world: &mut World, steps: Vec<MemberStep>| world.replica(leader).propose_membership(steps);
    let refused = |error| Err(ProposeError::Membership(error));
    let (known, unknown) = (VoterId(follower), VoterId(8));
    assert_eq!(try_steps(&mut world, vec![]), refused(MembershipError::Nothing));
    assert_eq!(try_steps(&mut world, vec![MemberStep::Remove(unknown)]), refused(MembershipError::NoMember(unknown)));
    assert_eq!(
        try_steps(&mut world, vec![MemberStep::AddVoter(info(follower))]),
        refused(MembershipError::IsMember(known))
    );
    assert_eq!(
        try_steps(&mut world, vec![MemberStep::AddLearner(info(follower))]),
        refused(MembershipError::IsMember(known)),
        "a voter never becomes a learner"
    );
    let all_go = (1..=3).map(|id| MemberStep::Remove(VoterId(id))).collect();
    assert_eq!(try_steps(&mut world, all_go), refused(MembershipError::NoVoter));
    let crowd = (4..=8).map(|id| MemberStep::AddVoter(info(id))).collect();
    assert_eq!(try_steps(&mut world, crowd), refused(MembershipError::TooMany));
    assert!(matches!(
        world.replica(follower).propose_membership(replace(1, 4)),
        Err(ProposeError::NotLeader { leader: Some(id) }) if id.0 == leader
    ));

    world.replica(leader).propose_membership(vec![MemberStep::AddLearner(info(6))]).unwrap();
    let second = try_steps(&mut world, vec![MemberStep::AddLearner(info(7))]);
    assert_eq!(second, Err(ProposeError::Pending));
}

mod rule {
    //! Our rule and raft's are one.

    use super::super::super::membership::{self, changed, conf_change, conf_state};
    use super::super::world::{info, members};
    use super::*;
    use crate::roster::Membership;
    use proptest::prelude::*;
    use raft::{RawNode, storage::MemStorage};

    fn step() -> impl Strategy<Value = MemberStep> {
        (1..10u64, 0..3u8).prop_map(|(id, kind)| match kind {
            0 => MemberStep::AddVoter(info(id)),
            1 => MemberStep::AddLearner(info(id)),
            _ => MemberStep::Remove(VoterId(id)),
        })
    }

    fn any_change() -> impl Strategy<Value = MembershipChange> {
        prop_oneof![
            2 => step().prop_map(MembershipChange::One),
            3 => proptest::collection::vec(step(), 0..5).prop_map(MembershipChange::Joint),
            2 => Just(MembershipChange::Leave),
        ]
    }

    proptest! {
        #[test]
        fn what_our_rule_takes_raft_takes_and_makes_the_same_of(
            changes in proptest::collection::vec(any_change(), 1..30),
        ) {
            let start = members(1..=3);
            let storage = MemStorage::new_with_conf_state(conf_state(&start));
            let config = raft::Config { id: 1, ..Default::default() };
            let logger = slog::Logger::root(slog::Discard, slog::o!());
            let mut node = RawNode::new(&config, storage, &logger).unwrap();
            let mut membership: Membership = start;
            for change in changes {
                if let Ok(next) = changed(&membership, &change) {
                    let state = node.apply_conf_change(&conf_change(&change)).unwrap();
                    prop_assert!(membership::is_same(&state, &next), "{state:?} {next:?}");
                    membership::check(&next).unwrap();
                    membership = next;
                    // And raft can begin from it.
                    let storage = MemStorage::new_with_conf_state(conf_state(&membership));
                    node = RawNode::new(&config, storage, &logger).unwrap();
                }
            }
        }
    }

    #[test]
    fn the_largest_change_fits_into_an_entry() {
        let long = |id: u64| crate::roster::VoterInfo {
            id: VoterId(u64::MAX - id),
            host: crate::id::HostName::new(&"h".repeat(63)).unwrap(),
            site: crate::id::SiteName::new(&"s".repeat(63)).unwrap(),
        };
        let replaced =
            (0..7).flat_map(|id| [MemberStep::Remove(VoterId(u64::MAX - 99 - id)), MemberStep::AddVoter(long(id))]);
        let change = MembershipChange::Joint(replaced.collect());
        let too_long = membership::encode_change(&change);
        assert!(too_long.is_ok(), "{too_long:?}");
    }
}
