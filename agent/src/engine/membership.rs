//! Changing the voters: a wish on its way to the leader, the leader's steps, and a host that begins to vote.
//!
//! ```text
//!   a person ─ audit entry ─► this agent ─ Members ─► leader ─ one configuration entry at a time ─► applied
//!   a host without its vote's memory ────── Members ──┘            learners that caught up are promoted
//!   applied: my host is a member and doesn't vote ─► the driver founds a store ─► Joined
//! ```
//! A wish is sent again until the sender's own applied configuration shows it done, so that a change of leader costs
//! nothing. What is decided is in `policy::members`.

use super::core::Engine;
use super::effect::Effect;
use super::input::Vote;
use super::log::Following;
use super::message::Message;
use super::operator::{Answer, PATIENCE};
use super::voter::Voting;
use crate::event::Event;
use crate::policy::{self, MembersView, Verdict, Wish};
use quorum::id::{HostName, ProposalKey, VoterId};
use quorum::ledger::{Class, Command, Decision, Ended, Incarnation};
use quorum::moment::Moment;
use quorum::replica::MemberStep;
use quorum::roster::VoterInfo;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;

/// A wish goes to the leader again after this.
const SEND_AGAIN: Duration = Duration::from_millis(1_000);
/// A wish that isn't fulfilled after this is given up, and the person told so by `quorum status`.
const WISH_OPEN: Duration = Duration::from_secs(600);
/// Founding voters have small ids, given in agent.toml. One that joins later is named by its place in the log.
pub const FOUNDING_IDS_MAX: u64 = 1_000;

/// What a person wants of the voters, by host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "members", rename_all = "kebab-case")]
pub enum MemberOrder {
    /// A host is to vote.
    Add {
        /// The host.
        host: HostName,
        /// The host whose vote goes for it.
        replaces: Option<HostName>,
    },
    /// A host is to vote no more.
    Remove {
        /// The host.
        host: HostName,
        /// Also if so few are left that none may be lost.
        anyway: bool,
    },
}

/// A wish on its way.
pub(super) struct Wishing {
    wish: Wish,
    /// Of the audit entry that must be applied first; `None` from then on.
    audit: Option<ProposalKey>,
    ticket: Option<u64>,
    answer_by: Moment,
    until: Moment,
    sent: Option<Moment>,
}

impl Wishing {
    pub(super) fn deadline(&self) -> Moment {
        let again = self.sent.map_or(self.until, |at| at.plus(SEND_AGAIN));
        if self.ticket.is_some() { again.min(self.answer_by) } else { again }
    }
}

impl Engine {
    /// A person wants the voters changed. First it is written down who and why.
    pub(super) fn on_member_order(&mut self, ticket: u64, order: MemberOrder, by: Decision) {
        if let Some(open) = &self.wishing {
            let because = format!("{:?} is under way: one change of the voters at a time", open.wish);
            return self.refuse(ticket, because, "antipode quorum status");
        }
        let (wish, detail) = match self.wish_of(order) {
            Ok(known) => known,
            Err(because) => return self.refuse(ticket, because, "antipode quorum status"),
        };
        let now = self.now.moment;
        let action = "quorum".to_owned();
        let Some(audit) = self.propose_until(Command::Audit { action, detail, by }, Some(now.plus(PATIENCE))) else {
            let because = "too many proposals are under way".into();
            return self.answer(ticket, Answer::Undecided { because });
        };
        self.wishing = Some(Wishing {
            wish,
            audit: Some(audit),
            ticket: Some(ticket),
            answer_by: now.plus(PATIENCE),
            until: now.plus(WISH_OPEN),
            sent: None,
        });
    }

    fn wish_of(&self, order: MemberOrder) -> Result<(Wish, String), String> {
        let members = self.ledger.membership();
        let on = |host: &HostName| {
            let all = members.voters.values().chain(members.learners.values());
            let found = all.filter(|member| member.host == *host).map(|member| member.id).next();
            found.ok_or_else(|| format!("{host} has no vote"))
        };
        Ok(match order {
            MemberOrder::Add { host, replaces } => {
                let gone = replaces.as_ref().map(on).transpose()?;
                let detail = match &replaces {
                    Some(replaced) => format!("{host} votes in the place of {replaced}"),
                    None => format!("{host} votes"),
                };
                (Wish::Add { host, replaces: gone }, detail)
            }
            MemberOrder::Remove { host, anyway } => {
                (Wish::Remove { voter: on(&host)?, anyway }, format!("{host} votes no more"))
            }
        })
    }

    /// The entry that says who wanted it is in the log.
    pub(super) fn wish_audited(&mut self, key: ProposalKey) {
        if let Some(open) = self.wishing.as_mut().filter(|open| open.audit == Some(key)) {
            open.audit = None;
        }
    }

    /// Keeps a wish going, whoever leads; and begins one of its own for a host whose vote has ended.
    pub(super) fn pursue_wish(&mut self) {
        let now = self.now.moment;
        self.wish_to_return();
        let Some(open) = &mut self.wishing else { return };
        if policy::is_done(&open.wish, self.ledger.membership()) {
            let (ticket, detail) = (open.ticket, format!("{:?}: done", open.wish));
            self.wishing = None;
            if let Some(ticket) = ticket {
                self.answer(ticket, Answer::Done { index: self.ledger.config_id().index, detail });
            }
            return;
        }
        if let Some(ticket) = open.ticket.filter(|_| now.either_reached(open.answer_by)) {
            open.ticket = None;
            let because = match open.audit {
                Some(_) => "no leader committed it in time".to_owned(),
                None => "it goes on: a new voter first receives the log; antipode quorum status shows it".to_owned(),
            };
            self.answer(ticket, Answer::Undecided { because });
        }
        let Some(open) = &mut self.wishing else { return };
        if now.either_reached(open.until) || open.audit.is_some() && open.ticket.is_none() {
            self.wishing = None;
            return;
        }
        if open.audit.is_some() || open.sent.is_some_and(|at| now.held_since(at) < SEND_AGAIN) {
            return;
        }
        open.sent = Some(now);
        let wish = open.wish.clone();
        let me = self.me.host.clone();
        match self.leader() {
            Some(leader) if leader == me => self.on_wish(&me, &wish),
            Some(leader) => {
                self.effects.push(Effect::Message { to: leader, message: Box::new(Message::Members(wish)) });
            }
            None => {}
        }
    }

    /// A host that is listed as a voter and has no vote any more asks to come back under a new id (protocol §2).
    fn wish_to_return(&mut self) {
        if self.voting.is_some() || self.wishing.is_some() {
            return;
        }
        let members = self.ledger.membership();
        let mine = |info: &&VoterInfo| info.host == self.me.host;
        let lost = members.voters.values().filter(mine).find(|info| self.ended_votes.contains(&info.id));
        let Some(lost) = lost.map(|info| info.id) else { return };
        let now = self.now.moment;
        let wish = Wish::Add { host: self.me.host.clone(), replaces: Some(lost) };
        let until = now.plus(WISH_OPEN);
        self.wishing = Some(Wishing { wish, audit: None, ticket: None, answer_by: now, until, sent: None });
    }

    /// The leader's side of a wish.
    pub(super) fn on_wish(&mut self, from: &HostName, wish: &Wish) {
        if !self.is_leader() || self.leading.is_none() {
            return;
        }
        let info = match wish {
            Wish::Add { host, .. } => self.as_new_member(host),
            Wish::Remove { .. } => None,
        };
        // Only of a host of the spec: others are refused, and nothing is kept of them.
        if let (Wish::Add { host, replaces: Some(gone) }, Some(leading), Some(_)) = (wish, &mut self.leading, &info) {
            leading.replacing.insert(host.clone(), *gone);
        }
        let by_itself = matches!(wish, Wish::Add { host, .. } if host == from);
        match policy::next(&self.members_view(), wish, info.as_ref(), by_itself) {
            Verdict::Propose(steps) => self.propose_members(steps),
            Verdict::Wait(_) | Verdict::Done => {}
            Verdict::Refuse(because) => self.refuse_wish(from, wish.clone(), because),
        }
    }

    fn refuse_wish(&mut self, from: &HostName, wish: Wish, because: String) {
        if *from == self.me.host {
            self.on_wish_refused(&wish, because);
        } else {
            let message = Box::new(Message::MembersRefused { wish, because });
            self.effects.push(Effect::Message { to: from.clone(), message });
        }
    }

    pub(super) fn on_wish_refused(&mut self, wish: &Wish, because: String) {
        let Some(open) = self.wishing.take_if(|open| open.wish == *wish) else { return };
        match open.ticket {
            Some(ticket) => self.refuse(ticket, because, "antipode quorum status"),
            None => self.event(Event::Dropped { from: self.me.host.clone(), because }),
        }
    }

    /// A host of the spec as a new member. Its id is its place in the log: never given twice in an era.
    fn as_new_member(&self, host: &HostName) -> Option<VoterInfo> {
        let site = self.ledger.site_of(host)?.clone();
        let voting = self.voting.as_ref()?;
        let id = VoterId(FOUNDING_IDS_MAX + voting.replica.last_index().0 + 1);
        Some(VoterInfo { id, host: host.clone(), site })
    }

    fn members_view(&self) -> MembersView<'_> {
        let (mut active, mut caught_up) = (BTreeSet::new(), BTreeSet::new());
        let mut is_pending = true;
        if let Some(voting) = &self.voting {
            is_pending = voting.replica.pending_membership().is_some();
            active.insert(voting.id);
            caught_up.insert(voting.id);
            let committed = voting.replica.committed();
            for (id, peer) in voting.replica.peers() {
                if peer.is_active {
                    active.insert(id);
                }
                if !peer.is_behind && peer.accepted >= committed {
                    caught_up.insert(id);
                }
            }
        }
        let awaited = self.lease_awaited().map(|of| of.to_string());
        MembersView { membership: self.ledger.membership(), is_pending, active, caught_up, awaited }
    }

    /// A lost or retired admission whose lease's end is what its groups wait for. After twice its span something else
    /// is wrong, and the quorum comes first (protocol §3: unless needed to keep it).
    fn lease_awaited(&self) -> Option<Incarnation> {
        if quorum::mutants::on("engine.members_change_while_awaited") {
            return None;
        }
        let now = self.now.moment;
        let patience = self.timing.voter_wait().saturating_mul(2);
        let leading = self.leading.as_ref()?;
        for host in self.ledger.hosts().keys() {
            for (he, state) in &self.ledger.hosts()[host].incarnations {
                let ended = matches!(state.ended, Some(Ended::Lost { .. } | Ended::Retired { .. }));
                if !ended || state.lease_over.is_some() || !state.evidence.is_empty() {
                    continue;
                }
                let of = Incarnation { host: host.clone(), he: *he };
                let is_wanted = self.ledger.groups_on(host).any(|(_, group)| group.owners.contains_key(&of));
                let since = leading.ended_at.get(&of).copied().unwrap_or(leading.since);
                if is_wanted && matches!(state.class, Class::A | Class::B) && now.held_since(since) < patience {
                    return Some(of);
                }
            }
        }
        None
    }

    /// Learners that have caught up become voters, whoever asked for them.
    pub(super) fn lead_members(&mut self) {
        let replacing = self.leading.as_ref().map(|leading| leading.replacing.clone()).unwrap_or_default();
        let promotion = self.members_view().promotion(|host| replacing.get(host).copied());
        if let Some(steps) = promotion {
            self.propose_members(steps);
        }
    }

    fn propose_members(&mut self, steps: Vec<MemberStep>) {
        let view = self.members_view();
        let fit = |id: &VoterId| view.active.contains(id) && view.membership.voters.contains_key(id);
        let successor = view.caught_up.iter().find(|id| fit(id) && !steps.contains(&MemberStep::Remove(**id))).copied();
        let text = format!("{steps:?}");
        let Some(voting) = &mut self.voting else { return };
        if steps.contains(&MemberStep::Remove(voting.id)) {
            // Once it is gone it can tell nobody that this is committed: another leader does it.
            if let Some(successor) = successor {
                let _not_now = voting.replica.transfer_leader(successor);
            }
            return;
        }
        match voting.replica.propose_membership(steps) {
            Ok(at) => self.event(Event::MembersProposed { index: at.index, steps: text }),
            Err(error) => {
                let because = format!("{error}: {text}");
                self.event(Event::Dropped { from: self.me.host.clone(), because });
            }
        }
    }

    /// The applied configuration has this host as a member that it isn't yet: the driver makes the store.
    pub(super) fn join_if_named(&mut self) {
        if self.voting.is_some() {
            return;
        }
        let members = self.ledger.membership();
        let mine = |info: &&VoterInfo| info.host == self.me.host && !self.ended_votes.contains(&info.id);
        // A member votes only after it has shown that it has the log. Where there is a vote and no store, the store is
        // gone, and with it what it had promised.
        let lost: Vec<VoterId> = members.all_voters().filter(mine).map(|info| info.id).collect();
        let learner = members.learners.values().filter(mine).map(|info| info.id).max();
        if !quorum::mutants::on("engine.voter_without_store_joins") {
            for voter in lost {
                self.vote_lost(voter, "its store is gone".to_owned());
            }
        } else if learner.is_none() && self.joining.is_none() {
            self.joining = lost.first().copied();
            self.effects.extend(lost.first().map(|voter| Effect::Join { voter: *voter, era: self.era() }));
        }
        let Some(voter) = learner else { return };
        if self.joining != Some(voter) {
            self.joining = Some(voter);
            self.effects.push(Effect::Join { voter, era: self.era() });
        }
    }

    /// The store is founded and loaded. What was applied by following stays: the log is the same one.
    pub(super) fn on_joined(&mut self, vote: Vote) {
        let voting = Voting::new(self.now.moment, vote);
        self.joining = None;
        if self.voting.is_some() || self.ended_votes.contains(&voting.id) {
            return;
        }
        self.voting = Some(voting);
        self.following = Following::default();
        self.take_roster();
        self.tell_voters();
    }
}
