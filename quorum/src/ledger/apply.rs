//! The only way in which the ledger changes: entries and configurations, in the order of the log.
//!
//! Contract: a refused command changes nothing but the position. A change of term makes permits void before the entry
//! is looked at, because a new leader can't measure their age (protocol §7).

use super::audit::{AuditRecord, digest};
use super::command::{Command, Entry, Position};
use super::event::Event;
use super::refusal::Refusal;
use super::state::Ledger;
use crate::mutants;
use crate::roster::{ConfigId, Membership};

/// What became of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// What became so, in order.
    pub events: Vec<Event>,
    /// Whether the command took effect; if not, why not, and nothing changed.
    pub outcome: Result<(), Refusal>,
}

/// Passes if a rule holds, or if the fault that removes it is planted.
pub(super) fn rule(mutant: &str, holds: bool, refusal: impl FnOnce() -> Refusal) -> Result<(), Refusal> {
    if holds || mutants::on(mutant) { Ok(()) } else { Err(refusal()) }
}

impl Ledger {
    /// Applies an entry.
    ///
    /// # Panics
    /// If `at` isn't later than everything applied before: the log was applied out of order, and nothing that follows
    /// could be trusted.
    pub fn apply(&mut self, at: Position, entry: &Entry) -> Applied {
        let mut events = self.advance(at);
        let mut caused = Vec::new();
        let outcome = self.accept(entry).and_then(|()| self.dispatch(&entry.command, &mut caused));
        if outcome.is_ok() {
            self.remembered.note(entry.key, at.index);
            self.chain_audit(entry, &mut caused);
            events.append(&mut caused);
        }
        self.extend_chain(&(entry, outcome.as_ref().map_err(Refusal::code), &events));
        Applied { events, outcome }
    }

    /// Passes over a log entry that carries no command (a new leader's empty one).
    ///
    /// # Panics
    /// As [`Ledger::apply`].
    pub fn apply_empty(&mut self, at: Position) -> Vec<Event> {
        let events = self.advance(at);
        self.extend_chain(&(at, &events));
        events
    }

    /// Puts a configuration of voters into force (each joint step is one). What was counted of leases under the one
    /// before is thrown away: a promise under one configuration says nothing about another (protocol §3).
    ///
    /// # Panics
    /// As [`Ledger::apply`].
    pub fn apply_membership(&mut self, at: Position, membership: Membership) -> Vec<Event> {
        let mut events = self.advance(at);
        self.config = ConfigId { era: self.era, index: at.index };
        self.membership = membership;
        let discarded = self.discard_counted_expiries();
        events.push(Event::ConfigChanged {
            config: self.config,
            voters: u32::try_from(self.membership.all_voters().count()).expect("a handful of voters"),
            joint: self.membership.is_joint(),
            discarded,
        });
        self.extend_chain(&(at, &self.membership.clone(), &events));
        events
    }

    /// Moves to `at`; a new term makes permits void.
    fn advance(&mut self, at: Position) -> Vec<Event> {
        assert!(at.index > self.position.index, "log applied out of order: {at:?} after {:?}", self.position);
        assert!(at.term >= self.position.term, "terms only rise: {at:?} after {:?}", self.position);
        let new_term = at.term > self.position.term;
        self.position = at;
        let mut events = Vec::new();
        if new_term {
            let voided = self.void_permits(&mut events);
            events.push(Event::LeaderChanged { term: at.term, voided });
        }
        events
    }

    /// What holds for every entry, whatever it asks for.
    fn accept(&self, entry: &Entry) -> Result<(), Refusal> {
        let begins = matches!(entry.command, Command::Bootstrap(_) | Command::EraBegun(_));
        if !begins {
            rule("ledger.not_bootstrapped", self.cluster.is_some(), || Refusal::NotBootstrapped {})?;
            let same_era = entry.era == self.era;
            rule("ledger.older_era_accepted", same_era, || Refusal::WrongEra { entry: entry.era, now: self.era })?;
        }
        match self.remembered.effect_of(entry.key) {
            Some(first) if !mutants::on("ledger.duplicate_accepted") => Err(Refusal::Duplicate { first }),
            Some(_) | None => Ok(()),
        }
    }

    /// One line for each command: the rules are in the verb files.
    fn dispatch(&mut self, command: &Command, events: &mut Vec<Event>) -> Result<(), Refusal> {
        match command {
            Command::Noop | Command::Audit { .. } => Ok(()),
            Command::Bootstrap(bootstrap) => self.bootstrap(bootstrap, events),
            Command::SetTiming { timing, .. } => self.set_timing(timing, events),
            Command::SetSpec(set) => self.set_spec(set, events),
            Command::Supports { host, version } => self.supports_version(host, *version, events),
            Command::ClusterVersion { version, .. } => self.raise_version(*version, events),
            Command::EraBegun(begun) => self.begin_era(begun, events),
            Command::HostAdmitted(admission) => self.admit(admission, events),
            Command::Lost(lost) => self.lose(lost, events),
            Command::Retired { of, because } => self.retire(of, because, events),
            Command::Expired { voter, of, config } => self.expire(*voter, of, *config, events),
            Command::Evidence(evidence) => self.prove(evidence, events),
            Command::HostRemoved { host, .. } => self.remove_host(host, events),
            Command::FenceTaskOpened { .. }
            | Command::FenceTaskStarted { .. }
            | Command::FenceTaskFinished { .. }
            | Command::FenceTaskCancel { .. }
            | Command::FenceTaskExpired { .. } => self.apply_fence_task(command, events),
            Command::GroupCreated { group, source, .. } => self.create_group(group, source, events),
            Command::Absent { group, of } => self.note_absent(group, of, events),
            Command::Grant(grant) => self.grant(grant, events),
            Command::Running { group, epoch, of } => self.note_running(group, *epoch, of, events),
            Command::Stopped(stopped) => self.note_stopped(stopped, events),
            Command::GroupRemoved { group, .. } => self.remove_group(group, events),
            Command::SwitchIntent(intent) => self.open_intent(intent, false, events),
            Command::MigrateIntent(intent) => self.open_intent(intent, true, events),
            Command::SwitchAbort { group, intent, because } => self.abort_switch(group, *intent, because, events),
            Command::MigrateAbort { group, intent, because } => self.abort_migration(group, *intent, because, events),
            Command::Detached { .. }
            | Command::InSync { .. }
            | Command::DataAttested { .. }
            | Command::DataDiverged { .. } => self.apply_data(command, events),
            Command::PlanOpened { plan } => self.open_plan_entry(plan, events),
            Command::StepStarted { plan, step, executor } => self.start_step(*plan, *step, executor, events),
            Command::StepEnded { plan, step, attempt, outcome } => {
                self.end_step(*plan, (*step, *attempt), outcome, events)
            }
            Command::PlanClosed { plan, outcome } => self.close_plan(*plan, outcome, events),
            Command::Approve { .. }
            | Command::Deny { .. }
            | Command::Override(_)
            | Command::OverrideExpired { .. }
            | Command::AcceptLoss(_) => self.apply_permit(command, events),
            Command::Freeze { .. }
            | Command::Thaw { .. }
            | Command::Maintenance { .. }
            | Command::MaintenanceEnded { .. }
            | Command::Held { .. }
            | Command::HoldEnded { .. }
            | Command::BrakeSet { .. }
            | Command::BrakeReleased { .. } => self.apply_restriction(command, events),
            Command::Pin { group, of, by } => self.pin(group, of, by, events),
            Command::PinAcknowledged { group, of, sequence } => self.acknowledge_pin(group, of, *sequence, events),
            Command::Unpin { group, ground, .. } => self.unpin(group, ground, events),
        }
    }

    /// Chains what a person did.
    fn chain_audit(&mut self, entry: &Entry, events: &mut Vec<Event>) {
        let Some(decision) = entry.command.decision() else { return };
        let record = self.audit.append(AuditRecord {
            number: 0,
            index: self.position.index,
            wall_ms: entry.wall_ms,
            action: entry.command.action().to_owned(),
            decision: decision.clone(),
            command: digest(&entry.command),
            previous: [0; 32],
            hash: [0; 32],
        });
        events.push(Event::Audited { record });
    }

    fn extend_chain(&mut self, with: &impl serde::Serialize) {
        self.chain = digest(&(self.chain, with));
    }
}
