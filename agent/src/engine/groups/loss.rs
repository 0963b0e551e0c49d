//! How much a takeover would lose: what this agent knows of copies beside the log, and what people accept.
//!
//! Intervals come from one machine's clock, rounded up (protocol §7). All of it is soft: what was not seen by this very
//! process while it happened is not known, and what is not known permits nothing.

use super::gate::compare;
use crate::engine::core::Engine;
use crate::engine::operator::Move;
use crate::heartbeat::GroupLag;
use quorum::id::{GroupName, HostName, LogIndex};
use quorum::ledger::{
    self, AcceptLoss, Command, CopyCheck, Decision, GroupState, Initiator, Person, PlanKind, PlanOutcome, PlanState,
    StepKind,
};
use quorum::moment::Moment;
use quorum::mutants;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a person's acceptance waits for the copy's host to say what its copy is.
const ACCEPT_WITHIN: Duration = Duration::from_secs(8);

/// A lag as a beat told it.
#[derive(Clone, Debug)]
struct LagHeard {
    owner: HostName,
    lag: Duration,
    at: Moment,
}

/// A person's acceptance of a loss that waits for the copy's own word.
#[derive(Clone, Debug)]
struct Accepting {
    ticket: u64,
    by: Person,
    wanted: Move,
    until: Moment,
}

/// What this process saw of groups' data.
#[derive(Debug, Default)]
pub(in crate::engine) struct DataSeen {
    lags: BTreeMap<GroupName, LagHeard>,
    /// When a copy was left behind.
    detached: BTreeMap<GroupName, Moment>,
    /// Since when a group's service is away.
    down: BTreeMap<GroupName, Moment>,
    /// What the last grant may have lost; none if nobody can say.
    granted_loss: BTreeMap<GroupName, Option<Duration>>,
    accepting: Vec<Accepting>,
}

impl DataSeen {
    /// When an acceptance gives up waiting.
    pub(in crate::engine) fn deadline(&self) -> Option<Moment> {
        self.accepting.iter().map(|waiting| waiting.until).min()
    }
}

impl Engine {
    /// A beat told how far a copy is behind. Only the group's owner knows: whoever ran it before measures nothing any
    /// more, and its word would displace what the owner said.
    pub(in crate::engine) fn on_lag(&mut self, owner: &HostName, told: &GroupLag, at: Moment) {
        let ticket = self.ledger.group(&told.group).and_then(|state| state.ticket.as_ref());
        if ticket.is_none_or(|ticket| ticket.of.host != *owner) && !mutants::on("engine.former_lag_counts") {
            return;
        }
        let lag = Duration::from_millis(u64::from(told.lag_ms));
        self.data_seen.lags.insert(told.group.clone(), LagHeard { owner: owner.clone(), lag, at });
    }

    /// What a fact says about data and service.
    pub(in crate::engine) fn data_on(&mut self, index: LogIndex, fact: &ledger::Event) {
        let now = self.now.moment;
        if let ledger::Event::Granted { group, to, .. } = fact
            && to.host != self.me.host
        {
            self.local.forget_lag(group);
        }
        // What this process only reads up on happened at some unknown time before.
        if !self.following.barrier_passed(LogIndex(index.0.saturating_sub(1))) {
            return;
        }
        match fact {
            ledger::Event::Detached { group, .. } => {
                self.data_seen.detached.insert(group.clone(), now);
            }
            ledger::Event::InSync { group, .. } => {
                self.data_seen.detached.remove(group);
            }
            ledger::Event::Granted { group, expected_loss, .. } => {
                self.data_seen.lags.remove(group);
                self.data_seen.granted_loss.insert(group.clone(), *expected_loss);
            }
            ledger::Event::HostLost { of, .. } => {
                // Service ended at the last sign of life at the earliest, and nobody can say more.
                let last = if of.host == self.me.host { None } else { self.detector.last_heard(&of.host) };
                let since = last.map_or(now, |(_, at)| at);
                let groups: Vec<GroupName> = self.ledger.groups_on(&of.host).map(|(name, _)| name.clone()).collect();
                for group in groups {
                    self.data_seen.down.insert(group, since);
                }
            }
            ledger::Event::StepStarted { plan, step, attempt: 1, .. } => {
                let plan = self.ledger.plans().get(plan).map(|plan| &plan.plan);
                let is_stop = |plan: &&ledger::Plan| {
                    plan.steps.get(*step as usize).is_some_and(|step| step.kind == StepKind::Stop)
                };
                if let Some(plan) = plan.filter(is_stop) {
                    self.data_seen.down.insert(plan.group.clone(), now);
                }
            }
            _ => {}
        }
    }

    /// What a plan that moved a ticket cost: how long the service was away, and what may have been lost.
    pub(super) fn measured(&mut self, plan: &PlanState) -> (Option<Duration>, Option<Duration>) {
        if plan.pivot.is_none() {
            return (None, None);
        }
        let now = self.now.moment;
        let down = self.data_seen.down.remove(&plan.plan.group);
        let lost = self.data_seen.granted_loss.get(&plan.plan.group).copied().flatten();
        (down.map(|at| now.held_since(at)), lost)
    }

    /// How far the copy that follows asynchronously is behind, and how long ago that was told. Beats don't say whose copy
    /// they mean: with several that follow, nothing is known.
    pub(in crate::engine) fn lag_heard(&self, group: &GroupName, state: &GroupState) -> Option<(Duration, Duration)> {
        let now = self.now.moment;
        let ticket = state.ticket.as_ref()?;
        if state.copies.keys().filter(|host| is_following(state, host)).count() > 1 {
            return None;
        }
        if ticket.of.host == self.me.host {
            let lag = self.local.lag_of(group, now)?;
            return Some((Duration::from_millis(u64::from(lag.lag_ms)), Duration::ZERO));
        }
        let heard = self.data_seen.lags.get(group).filter(|heard| heard.owner == ticket.of.host)?;
        Some((heard.lag, now.held_since(heard.at)))
    }

    /// The most that would be lost if `host`, whose copy is `own`, took over now; `None` if nobody here can say.
    pub(in crate::engine) fn expected_loss(
        &self,
        (group, state): (&GroupName, &GroupState),
        host: &HostName,
        own: CopyCheck,
    ) -> Option<Duration> {
        let ticket = state.ticket.as_ref()?;
        if state.in_sync.contains(host) {
            // A copy that counts and says otherwise of itself lacks something since nobody knows when.
            return (own == CopyCheck::Agrees).then_some(Duration::ZERO);
        }
        if is_following(state, host) {
            return self.lag_heard(group, state).map(|(lag, since)| lag + since);
        }
        let now = self.now.moment;
        let since = now.held_since(*self.data_seen.detached.get(group)?);
        // L after its last grant the old owner has stopped answering, and it got none after its end was committed.
        let ended = self.leading.as_ref().and_then(|leading| leading.ended_at.get(&ticket.of));
        let over = ended.map(|at| now.waited_since(*at)).unwrap_or_default();
        Some(since.saturating_sub(over.saturating_sub(self.timing.lease)))
    }

    /// A person takes over with a loss: the copy is asked first what it is, so that what is accepted is what is lost.
    pub(in crate::engine) fn accept_loss(&mut self, ticket: u64, by: Person, wanted: Move) {
        if self.leading.is_none() {
            let leader = self.leader().map_or_else(|| "no leader is known".to_owned(), |host| format!("{host} leads"));
            let next = "give the command on the leader's host: antipode quorum status";
            return self.refuse(ticket, format!("only the leader compares the copies; {leader}"), next);
        }
        let until = self.now.moment.plus(ACCEPT_WITHIN);
        self.data_seen.accepting.push(Accepting { ticket, by, wanted, until });
    }

    /// Goes on with acceptances whose copies have spoken.
    pub(in crate::engine) fn progress_acceptances(&mut self) {
        for waiting in std::mem::take(&mut self.data_seen.accepting) {
            if let Err(because) = self.progress_acceptance(&waiting) {
                self.refuse(waiting.ticket, because, "antipode explain group shows its gates");
            }
        }
    }

    fn progress_acceptance(&mut self, waiting: &Accepting) -> Result<(), String> {
        let group = &waiting.wanted.group;
        let state = self.ledger.group(group).cloned().ok_or_else(|| format!("there is no group {group}"))?;
        let open = self.ledger.open_plan(group).cloned();
        let planned = open.as_ref().filter(|plan| plan.plan.kind == PlanKind::Failover);
        let planned = planned.and_then(|plan| plan.plan.to.clone());
        let to = waiting.wanted.to.clone().or(planned).or_else(|| self.would_go_to(group));
        let to = to.ok_or_else(|| format!("no host could take {group} now"))?;
        let overtaken = open.as_ref().filter(|plan| !serves(plan, &to));
        if let Some(because) = overtaken.and_then(|plan| is_in_the_way(plan, &state)) {
            return Err(because);
        }
        let Some(answer) = self.copy_of((group, &state), &to) else {
            if self.now.moment.either_reached(waiting.until) {
                return Err(format!("{to} doesn't say what its copy is"));
            }
            self.data_seen.accepting.push(waiting.clone());
            return Ok(());
        };
        let own = compare(&answer, &state).ok_or_else(|| format!("{to} has no copy of {group}"))?;
        if matches!(own, CopyCheck::Ahead | CopyCheck::Diverged) {
            // What it has is of another history: nobody could say what is lost by opening it.
            let owner = state.ticket.as_ref().map(|ticket| ticket.of.host.to_string()).unwrap_or_default();
            return Err(format!(
                "{to}'s copy doesn't fit the log ({own:?}): bring {owner} back, its copy is the one that fits"
            ));
        }
        let expected_loss = self.expected_loss((group, &state), &to, own);
        let figure = expected_loss.map_or("nobody can say how much".to_owned(), |loss| format!("at most {loss:?}"));
        let shown = format!("{to}'s copy: {own:?}; lost: {figure}");
        let by = Decision { by: waiting.by.clone(), reason: waiting.wanted.reason.clone(), shown };
        let accept = AcceptLoss {
            group: group.clone(),
            epoch: state.epoch,
            copy: to.clone(),
            own,
            expected_loss,
            by: by.clone(),
        };
        if open.is_some() && overtaken.is_none() {
            self.ask(waiting.ticket, Command::AcceptLoss(accept));
            return Ok(());
        }
        let wanted = Move { to: Some(to.clone()), kind: PlanKind::Failover, ..waiting.wanted.clone() };
        let plan = self.new_plan(&wanted, Initiator::Person(by))?;
        if let Some(plan) = overtaken.map(|plan| plan.id) {
            let because = format!("a person accepted the loss of a takeover by {to}");
            self.propose(Command::PlanClosed { plan, outcome: PlanOutcome::Cancelled { because } });
        }
        self.propose(Command::AcceptLoss(accept));
        self.ask(waiting.ticket, Command::PlanOpened { plan });
        Ok(())
    }
}

/// Whether a plan does already what a person wants who accepts the loss of a takeover by `to`: an automatic one may wait
/// for its hold-off, for approval or for the brake, and these don't bind a person.
fn serves(plan: &PlanState, to: &HostName) -> bool {
    let by_person = matches!(plan.plan.initiator, Initiator::Person(_));
    by_person && plan.plan.kind == PlanKind::Failover && plan.plan.to.as_ref() == Some(to)
}

/// Why a plan isn't overtaken by a person's, with the command that ends it.
pub(super) fn is_in_the_way(plan: &PlanState, state: &GroupState) -> Option<String> {
    let (id, kind, group) = (plan.id, plan.plan.kind.as_str(), &plan.plan.group);
    let is_mid_move = state.intent.as_ref().is_some_and(|intent| intent.plan == Some(id));
    if plan.pivot.is_some() {
        return Some(format!(
            "plan {id} ({kind}) has moved {group} already; it ends by itself: antipode plan show {id}"
        ));
    }
    let by_itself = plan.plan.initiator == Initiator::Automatic && !is_mid_move;
    (!by_itself).then(|| format!("plan {id} ({kind}) of {group} is under way: antipode plan cancel {id} ends it"))
}

/// The copy follows asynchronously at the data's generation: it isn't in sync, and its lag is told.
pub(in crate::engine) fn is_following(state: &GroupState, host: &HostName) -> bool {
    state.copies.get(host).is_some_and(|copy| copy.generation == state.generation)
}

/// The copy was said to follow under this very grant. One that followed under an earlier one is older than what is written
/// now, and its own record says so: it is made equal anew.
pub(in crate::engine) fn follows_this_grant(state: &GroupState, host: &HostName) -> bool {
    let granted_at = state.ticket.as_ref().map(|ticket| ticket.granted_at);
    let said_at = state.copies.get(host).map(|copy| copy.attested_at);
    is_following(state, host) && (said_at > granted_at || mutants::on("engine.follows_any_grant"))
}
