//! Declaration: hosts are lost, one by one, for good (protocol §5).
//!
//! Nothing the proposer concluded is believed: the reports are counted again under the configuration in force here.
//! A person's declaration is bound by none of this, only by the admission that it names.

use super::apply::rule;
use super::command::{Lost, LostCause, LostScope, SuspectReport, Verdict};
use super::event::Event;
use super::evidence::Incarnation;
use super::refusal::Refusal;
use super::state::{Ended, FenceTask, Ledger};
use crate::id::{HostName, SiteName, TaskId, VoterId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Reporters must be in at least so many failure domains other than those of the suspected hosts.
const DOMAINS_MIN: usize = 2;

/// Most hosts in one declaration: as many as a cluster has (architecture, scale).
const HOSTS_MAX: usize = 10_000;

impl Ledger {
    pub(super) fn lose(&mut self, lost: &Lost, events: &mut Vec<Event>) -> Result<(), Refusal> {
        self.check_loss(lost)?;
        let at = self.position.index;
        let (by_person, because) = match &lost.cause {
            LostCause::Automatic { .. } => (false, "automatic".to_owned()),
            LostCause::Operator(decision) => (true, decision.by.to_string()),
        };
        for of in &lost.hosts {
            let state = self.incarnation_mut(of);
            let was_retired = matches!(state.ended, Some(Ended::Retired { .. }));
            state.ended = Some(Ended::Lost { at, by_person, was_retired });
            events.push(Event::HostLost { of: of.clone(), because: because.clone() });
        }
        if let LostCause::Automatic { scope, since_previous, .. } = &lost.cause {
            if let LostScope::Site(site) = scope {
                let hosts = u32::try_from(lost.hosts.len()).unwrap_or(u32::MAX);
                events.push(Event::SiteLost { site: site.clone(), hosts });
            }
            self.count_for_brake(scope, &lost.hosts, *since_previous, events);
        }
        for (position, of) in lost.hosts.iter().enumerate() {
            self.open_first_task(position, of, events);
        }
        Ok(())
    }

    /// Whether the declaration would be accepted now.
    ///
    /// # Errors
    /// The rule that refuses it.
    pub fn check_loss(&self, lost: &Lost) -> Result<(), Refusal> {
        rule("ledger.nobody_lost", !lost.hosts.is_empty(), || Refusal::NoHosts {})?;
        let many = lost.hosts.len() > HOSTS_MAX;
        rule("ledger.too_many_lost", !many, || Refusal::TooManyHosts { limit: count(HOSTS_MAX) })?;
        for (position, of) in lost.hosts.iter().enumerate() {
            let state = self.current(of)?;
            let open = match state.ended {
                None | Some(Ended::Retired { .. }) => !lost.hosts[..position].contains(of),
                Some(Ended::Lost { .. } | Ended::EraOver { .. }) => false,
            };
            rule("ledger.lost_twice", open, || Refusal::AlreadyLost { of: of.clone() })?;
        }
        match &lost.cause {
            LostCause::Operator(_) => Ok(()),
            LostCause::Automatic { scope, reports, .. } => {
                self.check_nothing_forbids(&lost.hosts)?;
                self.check_scope(scope, &lost.hosts)?;
                self.check_reports(reports, &lost.hosts)
            }
        }
    }

    fn check_nothing_forbids(&self, hosts: &[Incarnation]) -> Result<(), Refusal> {
        for of in hosts {
            if let Some((freeze, frozen)) = self.freeze_of_host(&of.host) {
                rule("ledger.declared_while_frozen", false, || Refusal::Frozen {
                    freeze,
                    scope: frozen.scope.clone(),
                })?;
            }
            let working = self.maintenance_of(&of.host).is_some();
            rule("ledger.declared_in_maintenance", !working, || Refusal::InMaintenance { host: of.host.clone() })?;
        }
        match &self.brake {
            None => Ok(()),
            Some(brake) => {
                rule("ledger.declared_under_brake", false, || Refusal::BrakeOn { because: brake.because.clone() })
            }
        }
    }

    /// A site is declared only when all of its admitted hosts are, but for those in maintenance.
    fn check_scope(&self, scope: &LostScope, hosts: &[Incarnation]) -> Result<(), Refusal> {
        let LostScope::Site(site) = scope else { return Ok(()) };
        for of in hosts {
            let here = self.site_of(&of.host) == Some(site);
            rule("ledger.site_with_strangers", here, || Refusal::NotOfSite {
                site: site.clone(),
                host: of.host.clone(),
            })?;
        }
        let listed: BTreeSet<&HostName> = hosts.iter().map(|of| &of.host).collect();
        let at_site = self.spec.spec.hosts.iter().filter(|(_, spec)| spec.site == *site);
        let missing = at_site.map(|(host, _)| host).find(|host| {
            self.admitted(host).is_some() && !listed.contains(host) && self.maintenance_of(host).is_none()
        });
        match missing {
            None => Ok(()),
            Some(host) => rule("ledger.site_incomplete", false, || Refusal::SiteIncomplete {
                site: site.clone(),
                host: host.clone(),
            }),
        }
    }

    /// Protocol §5: a majority suspects, from two other failure domains at least, nobody healthy hears them, and no
    /// voter that shares a site with them has a doubt.
    fn check_reports(&self, reports: &[SuspectReport], hosts: &[Incarnation]) -> Result<(), Refusal> {
        let sites: BTreeSet<&SiteName> = hosts.iter().filter_map(|of| self.site_of(&of.host)).collect();
        let limit = self.timing().expect("checked before every command").detection;
        let where_is: BTreeMap<VoterId, &SiteName> =
            self.membership.all_voters().map(|voter| (voter.id, &voter.site)).collect();
        let mut seen = BTreeSet::new();
        let mut suspecting = BTreeMap::new();
        for report in reports {
            let voter = report.voter;
            let Some(site) = where_is.get(&voter).copied() else {
                return Err(Refusal::ReportFromStranger { voter });
            };
            rule("ledger.report_counted_twice", seen.insert(voter), || Refusal::ReportTwice { voter })?;
            match report.verdict {
                Verdict::Hears => rule("ledger.heard_and_lost", false, || Refusal::StillHeard { voter })?,
                Verdict::Abstains => {
                    let outside = !sites.contains(site);
                    rule("ledger.insider_ignored", outside, || Refusal::InsiderUnsure { voter })?;
                }
                Verdict::Suspects => {
                    let fresh = report.age <= limit;
                    rule("ledger.old_report_counted", fresh, || Refusal::ReportStale {
                        voter,
                        age: report.age,
                        limit,
                    })?;
                    suspecting.insert(voter, site);
                }
            }
        }
        self.check_counts(&suspecting, &sites)
    }

    fn check_counts(
        &self,
        suspecting: &BTreeMap<VoterId, &SiteName>,
        lost: &BTreeSet<&SiteName>,
    ) -> Result<(), Refusal> {
        let enough = self.membership.has_majority(|id| suspecting.contains_key(&id));
        rule("ledger.minority_declares", enough, || Refusal::TooFewReports { have: count(suspecting.len()) })?;
        let domains: BTreeSet<&SiteName> = suspecting.values().filter(|site| !lost.contains(*site)).copied().collect();
        rule("ledger.one_domain_declares", domains.len() >= DOMAINS_MIN, || Refusal::TooFewDomains {
            have: count(domains.len()),
        })
    }

    /// Every lost host that has a device to be fenced with is to be fenced at once, all levels concurrently.
    fn open_first_task(&mut self, position: usize, of: &Incarnation, events: &mut Vec<Event>) {
        let Some(deadline) = self.fence_deadline(&of.host) else { return };
        self.open_task(position, of, deadline, events);
    }

    /// How long fencing a host may take: its slowest level, each device asked twice. None if it has no device.
    pub fn fence_deadline(&self, host: &HostName) -> Option<Duration> {
        let spec = self.spec.spec.hosts.get(host)?;
        let of_level = |level: &Vec<crate::id::DeviceName>| {
            let devices = level.iter().filter_map(|device| self.spec.spec.devices.get(device));
            let each = devices.map(|device| device.deadline.saturating_mul(2).saturating_add(device.settle));
            each.fold(Duration::ZERO, Duration::saturating_add)
        };
        spec.fencing.iter().map(of_level).max().filter(|longest| !longest.is_zero())
    }

    pub(super) fn open_task(&mut self, position: usize, of: &Incarnation, deadline: Duration, events: &mut Vec<Event>) {
        let task = TaskId::of(self.position.index, position);
        let opened = FenceTask {
            of: of.clone(),
            opened_at: self.position.index,
            deadline,
            executors: BTreeMap::new(),
            cancelled: None,
            expired: false,
            opened_term: self.position.term,
        };
        self.tasks.insert(task, opened);
        events.push(Event::FenceTaskOpened { task, of: of.clone(), deadline });
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
