//! Flap damping: a host or site that keeps getting lost and coming back is held until it has been quiet.
//!
//! Each loss adds a fixed penalty that halves every 30 minutes (the scheme of BGP route flap damping, RFC 2439, with
//! thresholds of research for this protocol). A flapping host isn't chosen as a target and fails back by hand only.

use quorum::id::HostName;
use quorum::moment::Moment;
use std::collections::BTreeMap;
use std::time::Duration;

const PENALTY: u64 = 1_000;
const HALF_LIFE: Duration = Duration::from_secs(1_800);
/// From this penalty on a host is flapping …
pub const FLAPPING_FROM: u64 = 2_000;
/// … and below this one it is trusted again.
pub const TRUSTED_BELOW: u64 = 750;

/// Nobody is told of a longer hold than a day's.
const HELD_MINUTES_MAX: u64 = 1_440;

/// Penalties of hosts.
#[derive(Clone, Debug, Default)]
pub struct Damping {
    hosts: BTreeMap<HostName, (u64, Moment, bool)>,
}

impl Damping {
    /// Takes the loss of a host.
    pub fn lost(&mut self, now: Moment, host: &HostName) {
        let penalty = self.penalty(now, host) + PENALTY;
        let flapping = self.is_flapping(now, host) || penalty >= FLAPPING_FROM;
        self.hosts.insert(host.clone(), (penalty, now, flapping));
    }

    /// A person lets the host off.
    pub fn forgive(&mut self, host: &HostName) {
        self.hosts.remove(host);
    }

    /// For how long the host is held yet, rounded up to minutes; `None` if it isn't.
    pub fn held_for(&self, now: Moment, host: &HostName) -> Option<Duration> {
        let minutes = |count: u64| Duration::from_secs(60 * count);
        let is_over = |count: &u64| !self.is_flapping(now.plus(minutes(*count)), host);
        self.is_flapping(now, host)
            .then(|| (1..HELD_MINUTES_MAX).find(is_over).map_or(minutes(HELD_MINUTES_MAX), minutes))
    }

    /// The penalty as it stands now: whole half-lives halve it, the part in between is linear.
    pub fn penalty(&self, now: Moment, host: &HostName) -> u64 {
        let Some((penalty, at, _)) = self.hosts.get(host) else { return 0 };
        let elapsed = now.waited_since(*at).as_secs();
        let halved = penalty >> (elapsed / HALF_LIFE.as_secs()).min(63);
        halved - halved * (elapsed % HALF_LIFE.as_secs()) / (2 * HALF_LIFE.as_secs())
    }

    /// Whether the host is held as flapping.
    pub fn is_flapping(&self, now: Moment, host: &HostName) -> bool {
        let held = self.hosts.get(host).is_some_and(|(_, _, flapping)| *flapping);
        held && self.penalty(now, host) >= TRUSTED_BELOW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(secs: u64) -> Moment {
        Moment::from_ns(secs * 1_000_000_000)
    }

    #[test]
    fn two_losses_in_a_row_are_flapping_and_an_hour_of_quiet_ends_it() {
        let host = HostName::new("a1").expect("a name");
        let mut damping = Damping::default();
        damping.lost(s(0), &host);
        assert!(!damping.is_flapping(s(1), &host));
        damping.lost(s(0), &host);
        assert!(damping.is_flapping(s(1), &host));
        assert!(damping.is_flapping(s(2_400), &host));
        let left = damping.held_for(s(2_400), &host).expect("held");
        assert!(!damping.is_flapping(s(2_400).plus(left), &host) && left <= Duration::from_secs(1_260), "{left:?}");
        let mut forgiven = damping.clone();
        forgiven.forgive(&host);
        assert_eq!(forgiven.held_for(s(1), &host), None);
        assert!(!damping.is_flapping(s(3_601), &host));
    }
}
