//! How voters that stand for election at once don't take each other's votes.
//!
//! Voters that lose their leader together may ask each other for a vote before either has heard of the other. Both are
//! promised one, both open the next term, both vote for themselves, and nobody leads until one of them stands again. So a
//! voter that asks and is asked by a voter of a smaller number, whom it may elect, lets that one go first: it hears no
//! promise for as long as this attempt lasts. Messages may get lost in Raft; what is safe stays so. It gives way once a
//! term: a voter that asks and never hears the answers must not keep all others waiting.

use super::node::Replica;
use super::ready::Role;
use super::wire::{Ballot, Body, Message, Position};
use crate::id::Term;
use raft::StateRole;

/// To whom this voter gives way.
#[derive(Debug, Default)]
pub(super) struct Courtesy {
    /// The last term in which it gave way.
    term: Option<Term>,
    /// It does, until it stands anew.
    lasts: bool,
}

impl Courtesy {
    fn begin(&mut self, term: Term) {
        if self.term != Some(term) || crate::mutants::on("replica.always_gives_way") {
            *self = Self { term: Some(term), lasts: true };
        }
    }
}

impl Replica {
    /// To be asked for each message before raft takes it: whether it is a promise that this voter doesn't hear.
    pub(super) fn gives_way(&mut self, message: &Message) -> bool {
        if self.standing_now().role != Role::PreCandidate || crate::mutants::on("replica.insists") {
            return false;
        }
        let term = self.term();
        match &message.body {
            Body::Vote { ballot: Ballot::Pre, last, .. } => {
                if message.from < self.id && message.term > term && self.may_elect(*last) {
                    self.courtesy.begin(term);
                }
                false
            }
            Body::VoteAnswer { pre: true, granted: true, .. } => {
                self.courtesy.lasts && self.courtesy.term == Some(term)
            }
            _ => false,
        }
    }

    fn may_elect(&self, last: Position) -> bool {
        self.node.raft.raft_log.is_up_to_date(last.index.0, last.term.0)
    }

    /// After a tick: with a new attempt the old courtesy is over.
    pub(super) fn stands_anew(&mut self) {
        if self.node.raft.election_elapsed == 0 {
            self.courtesy.lasts = false;
        }
    }

    /// Who stands has nobody's lease to wait out, only answers, which take a fraction of an election timeout: half of it
    /// counts as waited.
    pub(super) fn waits_less_when_standing(&mut self) {
        let half = self.params.election_ticks / 2;
        let raft = &mut self.node.raft;
        if matches!(raft.state, StateRole::PreCandidate | StateRole::Candidate) {
            raft.election_elapsed = raft.election_elapsed.max(half);
        }
    }
}
