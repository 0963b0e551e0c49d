//! The global brake: too much lost at once is more likely our own mistake than the world's end.
//!
//! A second site lost within 60 s of the first, or within 60 s more than 40 % (and at least 3) of the hosts of sites
//! that are not themselves declared lost, stops automatic activation until a person releases it. Fencing goes on
//! (protocol §5).

use quorum::id::{HostName, SiteName};
use quorum::moment::Moment;
use std::collections::BTreeMap;
use std::time::Duration;

/// When the brake is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrakeParams {
    /// Losses this close together count together.
    pub window: Duration,
    /// More than this share of the remaining hosts, in percent …
    pub hosts_percent: usize,
    /// … and at least this many.
    pub hosts_min: usize,
}

impl Default for BrakeParams {
    fn default() -> Self {
        Self { window: Duration::from_secs(60), hosts_percent: 40, hosts_min: 3 }
    }
}

/// Remembers recent losses. Built anew by each leader from what it sees committed, so that a change of leader can
/// only make it pull earlier in the new leader's own count, never release.
#[derive(Clone, Debug, Default)]
pub struct Brake {
    params: BrakeParams,
    sites: BTreeMap<SiteName, Moment>,
    hosts: BTreeMap<HostName, (SiteName, Moment)>,
}

impl Brake {
    /// No losses seen.
    pub fn new(params: BrakeParams) -> Self {
        Self { params, ..Self::default() }
    }

    /// Takes the loss of hosts of one site; `whole` if all its hosts are lost now. `roster` counts the hosts of
    /// each site. Says why the brake must be pulled, if it must.
    pub fn lost(
        &mut self,
        now: Moment,
        lost: (&SiteName, &[HostName], bool),
        roster: &BTreeMap<SiteName, usize>,
    ) -> Option<String> {
        let (site, hosts, whole) = lost;
        let window = self.params.window;
        self.sites.retain(|_, at| now.waited_since(*at) < window);
        self.hosts.retain(|_, (_, at)| now.waited_since(*at) < window);
        if whole {
            // Hosts counted one by one before become their site's loss.
            self.hosts.retain(|_, (of, _)| of != site);
            self.sites.insert(site.clone(), now);
        } else {
            self.hosts.extend(hosts.iter().map(|host| (host.clone(), (site.clone(), now))));
        }
        if self.sites.len() >= 2 {
            let names: Vec<&str> = self.sites.keys().map(SiteName::as_str).collect();
            return Some(format!("sites {} were lost within {} s", names.join(" and "), window.as_secs()));
        }
        let remaining: usize = roster.iter().filter(|(name, _)| !self.sites.contains_key(*name)).map(|(_, n)| n).sum();
        let gone = self.hosts.len();
        let too_many = gone >= self.params.hosts_min && gone * 100 > remaining * self.params.hosts_percent;
        too_many.then(|| format!("{gone} of {remaining} hosts were lost within {} s", window.as_secs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(secs: u64) -> Moment {
        Moment::from_ns(secs * 1_000_000_000)
    }

    fn site(name: &str) -> SiteName {
        SiteName::new(name).expect("a name")
    }

    fn hosts(names: &[&str]) -> Vec<HostName> {
        names.iter().map(|name| HostName::new(name).expect("a name")).collect()
    }

    fn roster() -> BTreeMap<SiteName, usize> {
        [("a", 4), ("b", 4), ("c", 2)].map(|(name, n)| (site(name), n)).into()
    }

    #[test]
    fn a_second_site_within_a_minute_pulls_the_brake() {
        let mut brake = Brake::new(BrakeParams::default());
        assert_eq!(brake.lost(s(10), (&site("a"), &[], true), &roster()), None);
        assert!(brake.lost(s(69), (&site("b"), &[], true), &roster()).is_some());
    }

    #[test]
    fn a_second_site_later_does_not() {
        let mut brake = Brake::new(BrakeParams::default());
        brake.lost(s(10), (&site("a"), &[], true), &roster());
        assert_eq!(brake.lost(s(70), (&site("b"), &[], true), &roster()), None);
    }

    #[test]
    fn hosts_of_a_lost_site_are_counted_as_their_site() {
        let mut brake = Brake::new(BrakeParams::default());
        brake.lost(s(10), (&site("a"), &hosts(&["a1", "a2"]), false), &roster());
        assert_eq!(brake.lost(s(12), (&site("a"), &hosts(&["a3", "a4"]), true), &roster()), None);
        // 3 of the 6 hosts of b and c.
        assert!(brake.lost(s(13), (&site("b"), &hosts(&["b1", "b2", "b3"]), false), &roster()).is_some());
    }
}
