//! Claims about what a peer may say.

use super::super::check::BadMessage;
use super::super::wire::{Appended, Ballot, Body, COUNT_MAX, ENTRY_BYTES_MAX, MESSAGE_BYTES_MAX};
use super::super::*;
use super::world::*;
use crate::codec::Blob;
use crate::id::{Era, LogIndex, Term, VoterId};
use crate::roster::Membership;
use proptest::prelude::*;

/// A cluster with some history, and who leads it.
fn cluster() -> (World, u64, u64) {
    let mut world = World::new(1, 3);
    world.compact_every = 5;
    let leader = world.elect();
    for n in 0..12u8 {
        world.commit(&[n]);
    }
    world.run(ELECTION);
    (world, leader, 1 + leader % 3)
}

/// What becomes of a message on its way `(from, to)`.
fn say(world: &mut World, (from, to): (u64, u64), term: Term, body: Body) -> Result<(), BadMessage> {
    let message = Message { era: ERA, from: VoterId(from), to: VoterId(to), term, body };
    let result = world.replica(to).step(VoterId(from), message);
    world.pump(to);
    result
}

fn entry(term: u64, data: &[u8]) -> Appended {
    Appended { term: Term(term), kind: EntryKind::Normal(Blob::from(data)) }
}

#[test]
fn a_heartbeat_that_commits_what_is_not_there_is_refused_as_a_forgotten_promise() {
    let (mut world, leader, follower) = cluster();
    let term = world.replica(leader).term();
    let last = world.replica(follower).last_index();
    let beat = |commit| Body::Heartbeat { commit: LogIndex(commit), read: None };
    assert_eq!(
        say(&mut world, (leader, follower), term, beat(1_000_000_000)),
        Err(BadMessage::Forgotten { commit: LogIndex(1_000_000_000), last })
    );
    assert_eq!(say(&mut world, (leader, follower), term, beat(u64::MAX)), Err(BadMessage::Absurd(u64::MAX)));
    assert_eq!(say(&mut world, (leader, follower), term, beat(last.0)), Ok(()));
    // Of an older term it is only late.
    assert_eq!(say(&mut world, (leader, follower), Term(term.0 - 1), beat(1_000)), Ok(()));
    world.heal_and_converge();
}

#[test]
fn an_answer_about_entries_that_the_leader_does_not_have_is_refused() {
    let (mut world, leader, follower) = cluster();
    let term = world.replica(leader).term();
    let last = world.replica(leader).last_index();
    let index = LogIndex(last.0 + 1);
    let accepted = Body::AppendAccepted { last: index, commit: LogIndex(0) };
    assert_eq!(say(&mut world, (follower, leader), term, accepted), Err(BadMessage::BeyondLog { index, last }));
    let hint = Position { index, term };
    let rejected = Body::AppendRejected { prev: last, hint, commit: LogIndex(0) };
    assert_eq!(say(&mut world, (follower, leader), term, rejected), Err(BadMessage::BeyondLog { index, last }));
    let stranger = Body::AppendAccepted { last, commit: LogIndex(0) };
    assert_eq!(say(&mut world, (9, leader), term, stranger), Err(BadMessage::UnknownPeer(VoterId(9))));
    world.heal_and_converge();
}

#[test]
fn a_message_must_name_its_bringer_its_receiver_and_this_era() {
    let (mut world, leader, follower) = cluster();
    let message = |era, from, to, term| Message {
        era: Era(era),
        from: VoterId(from),
        to: VoterId(to),
        term: Term(term),
        body: Body::Heartbeat { commit: LogIndex(0), read: None },
    };
    let term = world.replica(leader).term().0;
    let replica = world.replica(follower);
    let mut step = |sender, message| replica.step(VoterId(sender), message);
    assert_eq!(step(leader, message(2, leader, follower, term)), Err(BadMessage::Era { found: Era(2), ours: ERA }));
    assert!(matches!(step(9, message(1, leader, follower, term)), Err(BadMessage::Impersonated { .. })));
    assert!(matches!(step(follower, message(1, follower, follower, term)), Err(BadMessage::Impersonated { .. })));
    assert!(matches!(step(0, message(1, 0, follower, term)), Err(BadMessage::Impersonated { .. })));
    assert_eq!(step(leader, message(1, leader, 9, term)), Err(BadMessage::NotForUs(VoterId(9))));
    assert_eq!(step(leader, message(1, leader, follower, 0)), Err(BadMessage::WrongTerm(Term(0))));
    assert_eq!(step(leader, message(1, leader, follower, COUNT_MAX + 1)), Err(BadMessage::Absurd(COUNT_MAX + 1)));
    // With the largest term there is, nobody could ever be elected again.
    assert_eq!(step(leader, message(1, leader, follower, COUNT_MAX)), Err(BadMessage::Absurd(COUNT_MAX)));
    assert_eq!(step(leader, message(1, leader, follower, term)), Ok(()));
}

#[test]
fn entries_have_rising_terms_and_bounded_content() {
    let (mut world, leader, follower) = cluster();
    let term = world.replica(leader).term();
    let prev = Position { index: world.replica(follower).last_index(), term };
    let mut append = |prev, entries| {
        let body = Body::Append { prev, commit: LogIndex(0), entries };
        say(&mut world, (leader, follower), term, body)
    };
    let later = Term(term.0 + 1);
    assert_eq!(append(prev, vec![entry(later.0, b"x")]), Err(BadMessage::EntryTerm(later)));
    assert_eq!(append(prev, vec![entry(term.0 - 1, b"x")]), Err(BadMessage::EntryTerm(Term(term.0 - 1))));
    assert_eq!(append(Position { term: later, ..prev }, vec![]), Err(BadMessage::EntryTerm(later)));
    let nowhere = Position { index: LogIndex(90), term: Term(0) };
    assert_eq!(append(nowhere, vec![entry(1, b"x")]), Err(BadMessage::EntryTerm(Term(0))));
    assert_eq!(append(prev, vec![entry(term.0, b"")]), Err(BadMessage::EntrySize(0)));
    let long = vec![1; ENTRY_BYTES_MAX + 1];
    assert_eq!(append(prev, vec![entry(term.0, &long)]), Err(BadMessage::EntrySize(long.len())));
    let crowd = (0..1000).map(|id| MemberStep::AddVoter(info(id))).collect();
    let change = Appended { term, kind: EntryKind::Membership(MembershipChange::Joint(crowd)) };
    assert_eq!(append(prev, vec![change]), Err(BadMessage::Membership(MembershipError::TooLong)));
    assert_eq!(append(prev, vec![entry(term.0, b"fine")]), Ok(()));
}

/// raft can't leave a joint configuration of nobody; found by `nothing_that_a_peer_says_makes_a_replica_panic`.
#[test]
fn who_has_no_members_yet_takes_the_first_ones_one_by_one() {
    let steps = || vec![MemberStep::AddVoter(info(1))];
    let one = || MembershipChange::One(steps().remove(0));
    for (change, voters) in [(MembershipChange::Joint(steps()), 0), (one(), 1)] {
        let (mut world, ..) = cluster();
        world.join(4);
        let entries = vec![Appended { term: Term(1), kind: EntryKind::Membership(change) }];
        let prev = Position { index: LogIndex(0), term: Term(0) };
        let append = Body::Append { prev, commit: LogIndex(1), entries };
        let beat = Body::Heartbeat { commit: LogIndex(1), read: None };
        let said = |body| Message { era: ERA, from: VoterId(1), to: VoterId(4), term: Term(2), body };
        // What each of them leads to is written and applied before the next.
        listen(&mut world, 4, vec![(said(append), 13), (said(beat), 13)]);
        assert_eq!(world.replica(4).applied_index(), LogIndex(1));
        assert_eq!(world.replica(4).config().membership.voters.len(), voters);
    }
}

#[test]
fn a_snapshot_must_fit_its_place_and_have_members() {
    let (mut world, leader, follower) = cluster();
    let term = world.replica(leader).term();
    let at = |index, of: Term| Position { index: LogIndex(index), term: of };
    let snapshot = |last, config, membership| {
        let meta = SnapshotMeta { last, config: LogIndex(config), membership };
        Body::Snapshot(Snapshot { meta, data: Blob::from([0; 8].as_slice()) })
    };
    let mut send = |body| say(&mut world, (leader, follower), term, body);
    let place = |last| Err(BadMessage::SnapshotPlace(last));
    let later = at(90, Term(term.0 + 1));
    assert_eq!(send(snapshot(later, 1, members(1..=3))), place(later));
    assert_eq!(send(snapshot(at(0, term), 0, members(1..=3))), place(at(0, term)));
    assert_eq!(send(snapshot(at(90, Term(0)), 1, members(1..=3))), place(at(90, Term(0))));
    assert_eq!(send(snapshot(at(90, term), 91, members(1..=3))), place(at(90, term)));
    let nobody = Err(BadMessage::Membership(MembershipError::NoVoter));
    assert_eq!(send(snapshot(at(90, term), 1, Membership::default())), nobody);
    let mut twice = members(1..=3);
    twice.learners.insert(VoterId(2), info(2));
    let two_roles = Err(BadMessage::Membership(MembershipError::Twice(VoterId(2))));
    assert_eq!(send(snapshot(at(90, term), 1, twice)), two_roles);
    // One that doesn't name the receiver is no error; raft leaves it.
    assert_eq!(send(snapshot(at(90, term), 1, members([1, 2, 3].into_iter().filter(|id| *id != follower)))), Ok(()));
    world.heal_and_converge();
}

#[test]
fn only_the_leader_may_make_a_voter_take_over_or_answer_its_reads() {
    let (mut world, leader, follower) = cluster();
    let term = world.replica(leader).term();
    let third = 6 - leader - follower;
    let stranger = Err(BadMessage::NotTheLeader(VoterId(third)));
    assert_eq!(say(&mut world, (third, follower), term, Body::TakeOver), stranger);
    assert_eq!(
        say(&mut world, (third, follower), Term(term.0 + 1), Body::TakeOver),
        Err(BadMessage::NotTheLeader(VoterId(third))),
        "a later term doesn't make a leader"
    );
    let read = ReadContext { voter: VoterId(follower), incarnation: 1, count: 1 };
    let answer = Body::ReadIndexAnswer { read, index: LogIndex(1) };
    assert_eq!(say(&mut world, (third, follower), term, answer.clone()), stranger);
    let of_third = ReadContext { voter: VoterId(third), ..read };
    let foreign = Err(BadMessage::ForeignRead(VoterId(third)));
    assert_eq!(say(&mut world, (follower, leader), Term(0), Body::ReadIndex(of_third)), foreign);
    // Never asked for: taken from the leader, and not handed out.
    assert_eq!(say(&mut world, (leader, follower), term, answer), Ok(()));
    world.run(TICK);
    assert!(world.process(follower).answered.is_empty());
}

#[test]
fn a_snapshot_on_its_way_in_keeps_its_voter_out_of_elections() {
    let (mut world, leader, follower) = cluster();
    let term = world.replica(leader).term();
    let last = Position { index: LogIndex(1_000), term };
    let meta = SnapshotMeta { last, config: LogIndex(1), membership: members(1..=3) };
    world.nodes.get_mut(&follower).unwrap().is_stalled = true;
    let body = Body::Snapshot(Snapshot { meta, data: Blob::from([0; 8].as_slice()) });
    assert_eq!(say(&mut world, (leader, follower), term, body), Ok(()));
    assert_eq!(world.replica(follower).pending_membership(), Some(LogIndex(1_000)));
    assert_eq!(say(&mut world, (leader, follower), term, Body::TakeOver), Err(BadMessage::NotNow));
    for _ in 0..100 {
        world.replica(follower).tick();
    }
    assert_eq!(world.replica(follower).standing_now().role, Role::Follower);
}

#[test]
fn a_vote_that_nobody_asked_for_makes_no_leader_of_what_is_not_durable() {
    let (mut world, leader, follower) = cluster();
    let third = 6 - leader - follower;
    let term = world.replica(leader).term();
    let prev = Position { index: world.replica(follower).last_index(), term };
    world.nodes.get_mut(&follower).unwrap().is_stalled = true;
    let append = Body::Append { prev, commit: LogIndex(0), entries: vec![entry(term.0, b"on its way")] };
    assert_eq!(say(&mut world, (leader, follower), term, append), Ok(()));
    assert_eq!(say(&mut world, (leader, follower), term, Body::TakeOver), Ok(()));
    let next = Term(term.0 + 1);
    let granted = Body::VoteAnswer { pre: false, granted: true, committed: Position::default() };
    assert_eq!(say(&mut world, (third, follower), next, granted), Err(BadMessage::NotNow));
    assert_eq!(world.replica(follower).standing_now().role, Role::Candidate);
}

#[test]
fn who_decides_alone_stands_for_nothing_that_is_not_durable() {
    let (mut world, leader, follower) = cluster();
    let term = world.replica(leader).term();
    let last = Position { index: LogIndex(1_000), term };
    let alone = || members([follower]).voters;
    let membership = Membership { voters: alone(), outgoing: alone(), ..Membership::default() };
    let meta = SnapshotMeta { last, config: LogIndex(1), membership };
    let body = Body::Snapshot(Snapshot { meta, data: Blob::from([0; 8].as_slice()) });
    assert_eq!(say(&mut world, (leader, follower), term, body), Ok(()));
    world.run(TICK);
    assert!(world.replica(follower).config().membership.is_joint(), "the snapshot is installed");
    world.nodes.get_mut(&follower).unwrap().is_stalled = true;
    let append = Body::Append { prev: last, commit: LogIndex(0), entries: vec![entry(term.0, b"on its way")] };
    assert_eq!(say(&mut world, (leader, follower), term, append), Ok(()));
    assert_eq!(say(&mut world, (leader, follower), term, Body::TakeOver), Err(BadMessage::NotNow));
}

#[test]
fn a_snapshot_that_contradicts_what_is_committed_is_refused() {
    let (mut world, leader, follower) = cluster();
    let term = world.replica(leader).term();
    assert_eq!(say(&mut world, (leader, follower), term, Body::TakeOver), Ok(()));
    world.run(ELECTION);
    world.commit(b"of a later term");
    let term = world.replica(follower).term();
    let committed = world.replica(leader).applied_index();
    let mut snapshot = |index: u64, of: u64, said: u64| {
        let last = Position { index: LogIndex(index), term: Term(of) };
        let meta = SnapshotMeta { last, config: LogIndex(1), membership: members(1..=3) };
        let body = Body::Snapshot(Snapshot { meta, data: Blob::from([0; 8].as_slice()) });
        say(&mut world, (follower, leader), Term(said), body)
    };
    let place = |index, of| Err(BadMessage::SnapshotPlace(Position { index: LogIndex(index), term: Term(of) }));
    let (at, now) = (committed.0, term.0);
    assert_eq!(snapshot(at, now - 1, now), place(at, now - 1));
    assert_eq!(snapshot(at, now + 1, now + 1), place(at, now + 1));
    assert_eq!(snapshot(at + 100, now - 1, now), place(at + 100, now - 1));
    assert_eq!(snapshot(at - 1, now - 1, now), Ok(()), "older than what is there: it changes nothing");
    assert_eq!(snapshot(at + 100, now, now), Ok(()));
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 0..40u64, 2 => any::<u64>(), 1 => Just(u64::MAX), 1 => Just(COUNT_MAX)]
}

fn position() -> impl Strategy<Value = Position> {
    (number(), prop_oneof![3 => 0..5u64, 1 => number()])
        .prop_map(|(index, term)| Position { index: LogIndex(index), term: Term(term) })
}

fn context() -> impl Strategy<Value = ReadContext> {
    (0..5u64, 0..3u64, 0..9u64).prop_map(|(voter, incarnation, count)| ReadContext {
        voter: VoterId(voter),
        incarnation,
        count,
    })
}

fn any_membership() -> impl Strategy<Value = Membership> {
    let half = || proptest::collection::btree_set(0..6u64, 0..4);
    (half(), half(), half()).prop_map(|(voters, outgoing, learners)| {
        let with_info = |ids: std::collections::BTreeSet<u64>| members(ids).voters;
        Membership { voters: with_info(voters), outgoing: with_info(outgoing), learners: with_info(learners) }
    })
}

fn any_change() -> impl Strategy<Value = MembershipChange> {
    let step = || {
        (0..7u64, 0..3u8).prop_map(|(id, kind)| match kind {
            0 => MemberStep::AddVoter(info(id)),
            1 => MemberStep::AddLearner(info(id)),
            _ => MemberStep::Remove(VoterId(id)),
        })
    };
    prop_oneof![
        step().prop_map(MembershipChange::One),
        proptest::collection::vec(step(), 0..4).prop_map(MembershipChange::Joint),
        Just(MembershipChange::Leave),
    ]
}

fn appended() -> impl Strategy<Value = Appended> {
    let kind = prop_oneof![
        Just(EntryKind::Empty),
        proptest::collection::vec(any::<u8>(), 0..9).prop_map(|data| EntryKind::Normal(data.into())),
        any_change().prop_map(EntryKind::Membership),
    ];
    (0..5u64, kind).prop_map(|(term, kind)| Appended { term: Term(term), kind })
}

fn any_body() -> impl Strategy<Value = Body> {
    let index = || number().prop_map(LogIndex);
    let read = || proptest::option::of(context());
    prop_oneof![
        4 => (position(), index(), proptest::collection::vec(appended(), 0..4))
            .prop_map(|(prev, commit, entries)| Body::Append { prev, commit, entries }),
        1 => (index(), index()).prop_map(|(last, commit)| Body::AppendAccepted { last, commit }),
        1 => (index(), position(), index()).prop_map(|(prev, hint, commit)| Body::AppendRejected { prev, hint, commit }),
        2 => (index(), read()).prop_map(|(commit, read)| Body::Heartbeat { commit, read }),
        1 => (index(), read()).prop_map(|(commit, read)| Body::HeartbeatAnswer { commit, read }),
        2 => (0..3u8, position(), position(), any::<i64>()).prop_map(|(kind, last, committed, priority)| Body::Vote {
            ballot: [Ballot::Pre, Ballot::Real, Ballot::Transfer][usize::from(kind)],
            last,
            committed,
            priority,
        }),
        2 => (any::<bool>(), any::<bool>(), position())
            .prop_map(|(pre, granted, committed)| Body::VoteAnswer { pre, granted, committed }),
        2 => (position(), 0..40u64, any_membership()).prop_map(|(last, config, membership)| Body::Snapshot(Snapshot {
            meta: SnapshotMeta { last, config: LogIndex(config), membership },
            data: Blob::from([0; 8].as_slice()),
        })),
        1 => Just(Body::TakeOver),
        1 => context().prop_map(Body::ReadIndex),
        1 => (context(), index()).prop_map(|(read, index)| Body::ReadIndexAnswer { read, index }),
    ]
}

fn any_message() -> impl Strategy<Value = Message> {
    let term = prop_oneof![8 => 0..6u64, 1 => number()];
    (0..6u64, term, any_body()).prop_map(|(from, term, body)| Message {
        era: ERA,
        from: VoterId(from),
        to: VoterId(0),
        term: Term(term),
        body,
    })
}

/// What a lying peer can make of a replica is no cluster any more; but the process lives, and its store opens again.
fn listen(world: &mut World, id: u64, messages: Vec<(Message, u8)>) {
    for (message, then) in messages {
        let message = Message { to: VoterId(id), ..message };
        let frame = message.encode().unwrap();
        let message = Message::decode(&frame, MESSAGE_BYTES_MAX).unwrap();
        let node = world.nodes.get_mut(&id).unwrap();
        let process = node.process.as_mut().unwrap();
        let _ = process.replica.step(message.from, message);
        match then % 8 {
            0 => (0..then / 16).for_each(|_| process.replica.tick()),
            1 => {
                let _ = process.replica.propose(vec![then]);
            }
            2 => {
                let _ = process.replica.propose_membership(vec![MemberStep::AddLearner(info(u64::from(then)))]);
            }
            3 => {
                let _ = process.replica.read_index();
            }
            4 if process.replica.applied_index() == process.applied
                && process.replica.pending_membership().is_none() =>
            {
                process.replica.compact(process.applied, Blob::from([0; 8].as_slice()));
            }
            _ => {}
        }
        if then % 3 > 0 {
            process.begin_writes();
        }
        (0..then % 5).for_each(|_| process.finish_write());
        if then % 7 > 1 {
            process.replica.applied(process.applied);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn nothing_that_a_peer_says_makes_a_replica_panic(
        role in 0..3usize,
        messages in proptest::collection::vec((any_message(), any::<u8>()), 1..60),
    ) {
        let (mut world, leader, follower) = cluster();
        let id = match role {
            0 => leader,
            1 => follower,
            _ => {
                world.join(4);
                4
            }
        };
        listen(&mut world, id, messages);
        world.crash(id, 9);
        world.start(id);
    }
}
