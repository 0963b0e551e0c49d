//! Elections after a leader's loss: won at the first attempt, whoever stands at the same time.

use super::super::wire::{Ballot, Body};
use super::super::*;
use super::world::*;
use crate::id::{LogIndex, Term, VoterId};

const SEEDS: u64 = 400;

/// What the survivors of a leader did until they had another.
struct Election {
    /// Terms that were opened.
    terms: u64,
    /// Requests for a promise to a voter that runs, and answers to them.
    asked: usize,
    answered: usize,
    /// Voters that asked.
    stood: usize,
}

fn election(seed: u64) -> Election {
    let mut world = World::new(seed, 3);
    // The same for all: between two voters messages keep their order, as on a stream.
    (world.chances.least, world.chances.delay) = (TICK / 2, 0);
    let lost = world.elect();
    world.run(3 * TICK + seed % TICK);
    let term = world.replica(lost).term();
    world.recorded = Some(Vec::new());
    world.crash(lost, 0);
    world.until(40 * ELECTION, "another leader", |world| world.leader().is_some());
    let leader = world.leader().unwrap();
    let terms = world.replica(leader).term().0 - term.0;
    // What is still under way arrives.
    world.run(2 * TICK);
    let messages = world.recorded.take().unwrap().into_iter().filter(|(_, to, _)| *to != lost);
    let messages: Vec<Message> =
        messages.map(|(_, _, frame)| Message::decode(&frame, crate::codec::FRAME_BYTES_MAX).unwrap()).collect();
    let is_request = |message: &&Message| matches!(message.body, Body::Vote { ballot: Ballot::Pre, .. });
    let asked: Vec<&Message> = messages.iter().filter(is_request).collect();
    let answered = messages.iter().filter(|message| matches!(message.body, Body::VoteAnswer { pre: true, .. })).count();
    let stood = asked.iter().map(|message| message.from).collect::<std::collections::BTreeSet<_>>().len();
    Election { terms, asked: asked.len(), answered, stood }
}

/// Seeds of which the election opened more than one term.
fn split() -> Vec<u64> {
    (0..SEEDS).filter(|seed| election(*seed).terms != 1).collect()
}

/// Requests that found a voter still waiting for the lost leader.
fn unanswered() -> usize {
    (0..SEEDS).map(election).map(|election| election.asked.saturating_sub(election.answered)).sum()
}

/// What voter 3 is told while it stands in term 1: voter 1 asks too, and voter 2 promises.
fn asked_and_promised(replica: &mut Replica) {
    let last = Position { index: LogIndex(1), term: Term(1) };
    let request = Body::Vote { ballot: Ballot::Pre, last, committed: last, priority: 0 };
    let promise = Body::VoteAnswer { pre: true, granted: true, committed: last };
    for (from, body) in [(1, request), (2, promise)] {
        let message = Message { era: ERA, from: VoterId(from), to: VoterId(3), term: Term(2), body };
        replica.step(VoterId(from), message).unwrap();
    }
}

/// What becomes of voter 3 in each of two attempts at which voter 1 asks too and never hears.
fn two_attempts() -> [Role; 2] {
    let mut world = World::new(1, 3);
    let replica = world.replica(3);
    [(); 2].map(|()| {
        for _ in 0..16 {
            replica.tick();
        }
        assert_eq!(replica.standing_now().role, Role::PreCandidate);
        asked_and_promised(replica);
        replica.standing_now().role
    })
}

#[test]
fn two_voters_that_lost_their_leader_never_split_their_votes() {
    let both = (0..SEEDS).filter(|seed| election(*seed).stood == 2).count();
    assert!(both > 20, "both stood in {both} of {SEEDS} only: this shows nothing");
    assert_eq!(split(), Vec::<u64>::new());
}

#[test]
fn who_stands_first_is_answered() {
    assert_eq!(unanswered(), 0);
}

#[test]
fn a_voter_gives_way_once_a_term_to_one_that_asks_and_never_hears() {
    assert_eq!(two_attempts(), [Role::PreCandidate, Role::Candidate]);
}

#[test]
#[cfg(feature = "mutants")]
fn every_planted_fault_of_elections_is_noticed() {
    {
        let _planted = crate::mutants::plant("replica.insists");
        assert!(!split().is_empty());
    }
    {
        let _planted = crate::mutants::plant("replica.stands_early");
        assert!(unanswered() > 0);
    }
    let _planted = crate::mutants::plant("replica.always_gives_way");
    assert_eq!(two_attempts(), [Role::PreCandidate; 2]);
}
