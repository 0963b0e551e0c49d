//! The brake: many losses at once are more likely our own mistake than many disasters (protocol §5).
//!
//! A second site lost within the window, or too large a share of the hosts of sites that live, stops automatic
//! activation until a person releases it. Fencing goes on. Times between losses are measured by the leader, rounded
//! down; a new leader that knows none says zero, so the window starts anew with it.

use super::apply::rule;
use super::command::{Command, LostScope};
use super::event::Event;
use super::evidence::Incarnation;
use super::refusal::Refusal;
use super::state::{Brake, Ledger, RecentLoss};
use crate::id::{HostName, SiteName};
use crate::mutants;
use std::collections::BTreeSet;
use std::time::Duration;

impl Ledger {
    pub(super) fn apply_brake(&mut self, command: &Command, events: &mut Vec<Event>) -> Result<(), Refusal> {
        match command {
            Command::BrakeSet { because, .. } => {
                rule("ledger.brake_set_twice", self.brake.is_none(), || Refusal::BrakeAlready {})?;
                self.set_brake(because.clone(), events);
                Ok(())
            }
            Command::BrakeReleased { by } => {
                rule("ledger.brake_released_twice", self.brake.is_some(), || Refusal::BrakeAlready {})?;
                self.brake = None;
                self.recent_losses.clear();
                events.push(Event::BrakeReleased { by: by.by.to_string() });
                Ok(())
            }
            _ => unreachable!("the dispatcher sends only brake commands here"),
        }
    }

    fn set_brake(&mut self, because: String, events: &mut Vec<Event>) {
        self.brake = Some(Brake { at: self.position.index, because: because.clone() });
        events.push(Event::BrakeSet { because });
    }

    /// Takes an automatic loss into the window and sets the brake if that is too much.
    pub(super) fn count_for_brake(
        &mut self,
        scope: &LostScope,
        lost: &[Incarnation],
        since_previous: Duration,
        events: &mut Vec<Event>,
    ) {
        let window = self.spec.spec.policy.brake_window;
        for loss in &mut self.recent_losses {
            loss.age = loss.age.saturating_add(since_previous);
        }
        self.recent_losses.retain(|loss| loss.age <= window);
        let site = match scope {
            LostScope::Site(site) => Some(site.clone()),
            LostScope::Hosts => None,
        };
        if let Some(site) = &site {
            self.recount_as_site(site);
        }
        let hosts = lost.iter().map(|of| of.host.clone()).collect();
        self.recent_losses.push(RecentLoss { site, hosts, age: Duration::ZERO });
        if self.brake.is_none()
            && let Some(because) = self.too_much_lost()
            && !mutants::on("ledger.brake_never_set")
        {
            self.set_brake(because, events);
        }
    }

    /// Single hosts whose site follows within the window are part of the site's loss.
    fn recount_as_site(&mut self, site: &SiteName) {
        let here: BTreeSet<HostName> =
            self.spec.spec.hosts.iter().filter(|(_, spec)| spec.site == *site).map(|(host, _)| host.clone()).collect();
        for loss in self.recent_losses.iter_mut().filter(|loss| loss.site.is_none()) {
            loss.hosts.retain(|host| !here.contains(host));
        }
        self.recent_losses.retain(|loss| loss.site.is_some() || !loss.hosts.is_empty());
    }

    fn too_much_lost(&self) -> Option<String> {
        let policy = &self.spec.spec.policy;
        let sites: BTreeSet<&SiteName> = self.recent_losses.iter().filter_map(|loss| loss.site.as_ref()).collect();
        if sites.len() >= 2 {
            return Some(format!("{} sites lost within {:?}", sites.len(), policy.brake_window));
        }
        let single = self.recent_losses.iter().filter(|loss| loss.site.is_none()).flat_map(|loss| &loss.hosts);
        let single: BTreeSet<&HostName> = single.collect();
        let living = self.hosts.keys().filter(|host| {
            let site_lives = self.site_of(host).is_some_and(|site| !sites.contains(site));
            site_lives && (single.contains(host) || self.admitted(host).is_some())
        });
        let of = living.count();
        let many = single.len() >= policy.brake_hosts_min as usize;
        if many && single.len() * 100 > of * policy.brake_percent as usize {
            return Some(format!("{} of {of} hosts lost within {:?}", single.len(), policy.brake_window));
        }
        None
    }
}
