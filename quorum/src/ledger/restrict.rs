//! Freezes, maintenance and holds: what people and policy keep from happening, always with an end.
//!
//! What forbids starts anew with a new leader: an end comes as an entry of its own, with the time that its proposer
//! measured itself.

use super::apply::rule;
use super::command::{Command, EndCause, FreezeScope, PlaceScope};
use super::event::Event;
use super::person::Decision;
use super::refusal::Refusal;
use super::state::{Freeze, Ledger, Restriction};
use crate::id::LogIndex;
use std::time::Duration;

impl Ledger {
    pub(super) fn apply_restriction(&mut self, command: &Command, events: &mut Vec<Event>) -> Result<(), Refusal> {
        match command {
            Command::Freeze { scope, span, hold_activation, by } => {
                let freeze =
                    Freeze { scope: scope.clone(), span: *span, hold_activation: *hold_activation, by: by.clone() };
                self.freeze(freeze, events)
            }
            Command::Thaw { freeze, cause } => self.thaw(*freeze, cause, events),
            Command::Maintenance { scope, span, by } => self.begin_maintenance(scope, *span, by, events),
            Command::Held { scope, span, because } => {
                let hold = self.restriction(scope, *span, because)?;
                self.holds.insert(scope.clone(), hold);
                events.push(Event::Held { scope: scope.clone(), span: *span, because: because.clone() });
                Ok(())
            }
            Command::MaintenanceEnded { scope, cause } => {
                check_end(self.maintenance.get(scope), cause)?;
                self.maintenance.remove(scope);
                events.push(Event::MaintenanceEnded { scope: scope.clone(), cause: cause.clone() });
                Ok(())
            }
            Command::HoldEnded { scope, cause } => {
                check_end(self.holds.get(scope), cause)?;
                self.holds.remove(scope);
                events.push(Event::HoldEnded { scope: scope.clone(), cause: cause.clone() });
                Ok(())
            }
            other => self.apply_brake(other, events),
        }
    }

    fn freeze(&mut self, freeze: Freeze, events: &mut Vec<Event>) -> Result<(), Refusal> {
        check_span(freeze.span)?;
        match &freeze.scope {
            FreezeScope::Cluster => {}
            FreezeScope::Site(site) => {
                let known = self.spec.spec.sites.contains_key(site);
                rule("ledger.unknown_scope", known, || Refusal::UnknownSite { site: site.clone() })?;
            }
            FreezeScope::Group(group) => {
                let known = self.spec.spec.groups.contains_key(group);
                rule("ledger.unknown_scope", known, || Refusal::UnknownGroup { group: group.clone() })?;
            }
        }
        let index = self.position.index;
        events.push(Event::Frozen { freeze: index, scope: freeze.scope.clone(), span: freeze.span });
        self.freezes.insert(index, freeze);
        Ok(())
    }

    fn thaw(&mut self, freeze: LogIndex, cause: &EndCause, events: &mut Vec<Event>) -> Result<(), Refusal> {
        let frozen = self.freezes.get(&freeze).ok_or(Refusal::NothingToEnd {})?;
        check_elapsed(frozen.span, cause)?;
        self.freezes.remove(&freeze);
        events.push(Event::Thawed { freeze, cause: cause.clone() });
        Ok(())
    }

    fn begin_maintenance(
        &mut self,
        scope: &PlaceScope,
        span: Duration,
        by: &Decision,
        events: &mut Vec<Event>,
    ) -> Result<(), Refusal> {
        let work = self.restriction(scope, span, &by.reason)?;
        self.maintenance.insert(scope.clone(), work);
        events.push(Event::MaintenanceBegun { scope: scope.clone(), span });
        Ok(())
    }

    fn restriction(&self, scope: &PlaceScope, span: Duration, because: &str) -> Result<Restriction, Refusal> {
        check_span(span)?;
        match scope {
            PlaceScope::Host(host) => {
                let known = self.spec.spec.hosts.contains_key(host);
                rule("ledger.unknown_scope", known, || Refusal::UnknownHost { host: host.clone() })?;
            }
            PlaceScope::Site(site) => {
                let known = self.spec.spec.sites.contains_key(site);
                rule("ledger.unknown_scope", known, || Refusal::UnknownSite { site: site.clone() })?;
            }
        }
        Ok(Restriction { at: self.position.index, span, because: because.to_owned() })
    }
}

fn check_span(span: Duration) -> Result<(), Refusal> {
    rule("ledger.endless_freeze", !span.is_zero(), || Refusal::NoEnd {})
}

fn check_end(restriction: Option<&Restriction>, cause: &EndCause) -> Result<(), Refusal> {
    let restriction = restriction.ok_or(Refusal::NothingToEnd {})?;
    check_elapsed(restriction.span, cause)
}

fn check_elapsed(span: Duration, cause: &EndCause) -> Result<(), Refusal> {
    match cause {
        EndCause::Person(_) => Ok(()),
        EndCause::Elapsed { waited } => {
            rule("ledger.ended_early", *waited >= span, || Refusal::StillRuns { waited: *waited, span })
        }
    }
}
