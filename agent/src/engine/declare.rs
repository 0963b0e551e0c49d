//! From the voters' reports to `Lost`: builds the view for the policy and proposes what it decides.

use super::core::Engine;
use crate::detector::Judgement;
use crate::event::Event;
use crate::policy::{DeclareView, Declared, HostFacts, Reporter, Waiting, WhyNot, declare};
use quorum::id::{HostEpoch, HostName, SiteName};
use quorum::ledger::{Command, Ended, Incarnation, Lost, LostCause, LostScope, SuspectReport, Verdict};
use quorum::mutants;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What a commit takes at worst when it was never measured: the lazy wait must not overrun the lease.
pub(super) const COMMIT_SLOW: Duration = Duration::from_millis(150);

impl Engine {
    pub(super) fn declare_lost(&mut self) {
        let reporters = self.reporters();
        if reporters.iter().all(|voter| voter.sites.is_empty() && voter.hosts.is_empty()) {
            if let Some(leading) = &mut self.leading {
                leading.told.clear();
            }
            return;
        }
        let view = self.declare_view(reporters);
        let declaration = declare(&view);
        if let Some(leading) = &mut self.leading {
            leading.told.retain(|host, _| declaration.waiting.iter().any(|waiting| waiting.host == *host));
        }
        for Waiting { host, until, .. } in &declaration.waiting {
            let because = match until {
                Ok(left) => format!("corroborated; declared in at most {} ms", left.as_millis() / 100 * 100 + 100),
                Err(WhyNot::StillHeardBy(voter)) if voter == host => {
                    format!("it said something itself within the last {} ms", view.detection.as_millis())
                }
                Err(why) => explain(why),
            };
            self.tell_once(host, until.clone().err(), because);
        }
        for declared in declaration.now {
            self.propose_lost(&view, declared);
        }
    }

    /// What every voter says, this one included.
    fn reporters(&self) -> Vec<Reporter> {
        let now = self.now.moment;
        let is_deaf =
            |host: &HostName| matches!(self.detector.judgement(host), Some(Judgement::Suspect { deaf: true, .. }));
        let report = |host: &HostName, site: &SiteName| {
            if *host == self.me.host {
                let (sites, hosts) = self.detector.suspects();
                return Reporter {
                    host: host.clone(),
                    site: site.clone(),
                    age: Some(Duration::ZERO),
                    abstains: self.health.abstains(),
                    sites: sites.into_iter().collect(),
                    hosts: hosts.into_iter().collect(),
                };
            }
            let last = self.heard.get(host);
            let suspicions = last.map(|last| &last.beat.suspicions);
            Reporter {
                host: host.clone(),
                site: site.clone(),
                // A voter that hears nobody makes no progress: that it hears its own site speaks for nothing.
                age: last.map(|last| now.held_since(last.at)).filter(|_| !is_deaf(host)),
                abstains: suspicions.is_some_and(|suspicions| suspicions.abstains),
                sites: suspicions.map(|s| s.sites.iter().cloned().collect()).unwrap_or_default(),
                hosts: suspicions.map(|s| s.hosts.iter().cloned().collect()).unwrap_or_default(),
            }
        };
        self.ledger.membership().all_voters().map(|voter| report(&voter.host, &voter.site)).collect()
    }

    fn declare_view(&self, voters: Vec<Reporter>) -> DeclareView {
        let mut sites: BTreeMap<SiteName, BTreeMap<HostName, HostFacts>> = BTreeMap::new();
        let mut frozen = BTreeSet::new();
        for host in self.ledger.hosts().keys() {
            let (Some(he), Some(site)) = (self.may_be_lost(host), self.ledger.site_of(host)) else { continue };
            if self.ledger.freeze_of_host(host).is_some() {
                frozen.insert(site.clone());
            }
            let of = Incarnation { host: host.clone(), he };
            sites.entry(site.clone()).or_default().insert(host.clone(), self.host_facts(&of));
        }
        let membership = self.ledger.membership();
        DeclareView {
            sites,
            majority: quorum::roster::majority(membership.voters.len()),
            voters,
            detection: self.timing.detection,
            commit_p99: COMMIT_SLOW,
            frozen,
            braked: self.ledger.brake().is_some(),
        }
    }

    /// The host epoch that a declaration would name: that of an admitted host, or one that was retired and may still
    /// own
    /// something. Such a host is to come back at once; if it falls silent instead, its groups must go on elsewhere.
    fn may_be_lost(&self, host: &HostName) -> Option<HostEpoch> {
        let state = self.ledger.host(host)?;
        let of = Incarnation { host: host.clone(), he: state.he };
        let owns = || self.ledger.groups_on(host).any(|(_, group)| group.owners.contains_key(&of));
        let may_be = match state.incarnations.get(&state.he)?.ended {
            None => true,
            Some(Ended::Retired { .. }) => owns() && !mutants::on("engine.retired_is_never_lost"),
            Some(Ended::Lost { .. } | Ended::EraOver { .. }) => false,
        };
        may_be.then_some(state.he)
    }

    fn host_facts(&self, of: &Incarnation) -> HostFacts {
        let now = self.now.moment;
        let granted = self.voting.as_ref().map(|voting| voting.lease.last_grant(&of.host)).unwrap_or_default();
        let silent_for = match self.detector.judgement(&of.host) {
            Some(Judgement::Suspect { since, .. }) => now.waited_since(since),
            Some(Judgement::Trusted | Judgement::Awaited) | None => Duration::ZERO,
        };
        let groups = self.ledger.groups_on(&of.host);
        let hold_off = groups.filter_map(|(name, _)| Some(self.ledger.group_spec(name)?.hold_off)).min();
        let (mode, alone) = self.declare_modes(&of.host, COMMIT_SLOW);
        HostFacts {
            host_epoch: of.he,
            in_maintenance: self.ledger.maintenance_of(&of.host).is_some(),
            hold_off: hold_off.unwrap_or_default(),
            mode,
            alone,
            since_grant: now.waited_since(granted),
            lease_wait: self.ledger.largest_lease_wait(of).unwrap_or_default(),
            silent_for,
        }
    }

    fn propose_lost(&mut self, view: &DeclareView, declared: Declared) {
        let now = self.now.moment;
        // A process that applied no loss knows that none was committed since it began.
        let since_previous = now.waited_since(self.last_loss.unwrap_or(self.started));
        let facts = &view.sites[&declared.site];
        let suspected_for = declared.hosts.iter().map(|(host, _)| facts[host].silent_for).min().unwrap_or_default();
        let hosts: Vec<Incarnation> =
            declared.hosts.iter().map(|(host, he)| Incarnation { host: host.clone(), he: *he }).collect();
        let scope = if declared.whole_site { LostScope::Site(declared.site.clone()) } else { LostScope::Hosts };
        let reports = self.suspect_reports(view, &declared);
        let cause = LostCause::Automatic { scope, reports, since_previous, suspected_for };
        self.propose_paced(declared.site.as_str(), Command::Lost(Lost { hosts, cause }));
    }

    fn suspect_reports(&self, view: &DeclareView, declared: &Declared) -> Vec<SuspectReport> {
        let ids = self.voter_hosts();
        let id_of = |host: &HostName| ids.iter().find(|(_, named)| *named == host).map(|(id, _)| *id);
        let fresh =
            view.voters.iter().filter_map(|voter| Some((voter, voter.age.filter(|age| *age <= view.detection)?)));
        let report = |(voter, age): (&Reporter, Duration)| {
            let silent = |(host, _): &(HostName, _)| voter.sites.contains(&declared.site) || voter.hosts.contains(host);
            let verdict = if voter.abstains {
                Verdict::Abstains
            } else if declared.hosts.iter().all(silent) {
                Verdict::Suspects
            } else {
                Verdict::Hears
            };
            Some(SuspectReport { voter: id_of(&voter.host)?, age, verdict })
        };
        fresh.filter_map(report).collect()
    }

    /// Says why a suspect host isn't declared, once per reason; that it only waits is one reason, however long it is.
    fn tell_once(&mut self, host: &HostName, why_not: Option<WhyNot>, because: String) {
        let Some(leading) = &mut self.leading else { return };
        let before = leading.told.insert(host.clone(), (why_not.clone(), because.clone()));
        if before.is_none_or(|(before, _)| before != why_not) {
            self.event(Event::NotDeclared { host: host.clone(), because });
        }
    }
}

fn explain(why: &WhyNot) -> String {
    match why {
        WhyNot::TooFewReports { have, need } => format!("{have} of {need} voters report it silent"),
        WhyNot::OneDomain => "the reports come from a single failure domain".to_owned(),
        WhyNot::StillHeardBy(voter) => format!("{voter} still hears it: a link fault, nothing is declared"),
        WhyNot::Frozen => "frozen by an operator".to_owned(),
        WhyNot::Maintenance => "in maintenance".to_owned(),
        WhyNot::Braked => "the brake is set; `antipode brake release` once the reason is understood".to_owned(),
    }
}
