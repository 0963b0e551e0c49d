//! The network: delay, jitter, loss, copies, strays and cuts, for each direction by itself.
//!
//! Datagrams may be lost, doubled, overtaken, or come once more when nobody thinks of them any more. Messages travel
//! on a stream: they keep their order and are sent again when lost, but a cut direction swallows them.

use super::random::Random;
use quorum::id::HostName;
use std::collections::BTreeMap;
use std::time::Duration;

/// One direction between two hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// One-way delay.
    pub delay: Duration,
    /// Up to this much is added, evenly. More than the gap between two datagrams makes them overtake each other.
    pub jitter: Duration,
    /// Lost datagrams per thousand. Messages aren't lost while the link is up: a stream sends again.
    pub loss_per_mille: u64,
    /// Datagrams per thousand that arrive twice.
    pub twice_per_mille: u64,
    /// Datagrams per thousand of which a copy arrives once more, this much later.
    pub stray_per_mille: u64,
    /// How much later.
    pub stray_after: Duration,
    /// Nothing passes.
    pub is_cut: bool,
    /// Nothing passes that is padded to the full packet size.
    pub is_narrow: bool,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            delay: Duration::from_millis(20),
            jitter: Duration::from_micros(200),
            loss_per_mille: 0,
            twice_per_mille: 0,
            stray_per_mille: 0,
            stray_after: Duration::ZERO,
            is_cut: false,
            is_narrow: false,
        }
    }
}

/// All links.
#[derive(Clone, Debug, Default)]
pub struct Network {
    /// No new connection comes up, as when certificates can't be checked; those that are up stay so.
    pub refuses_handshakes: bool,
    links: BTreeMap<(HostName, HostName), Link>,
    /// The last arrival of a message on each direction: streams keep their order.
    arrivals: BTreeMap<(HostName, HostName), u64>,
}

impl Network {
    /// The direction from one host to another.
    pub fn link(&mut self, from: &HostName, to: &HostName) -> &mut Link {
        self.links.entry((from.clone(), to.clone())).or_default()
    }

    /// The direction as it is.
    pub fn seen(&self, from: &HostName, to: &HostName) -> Link {
        self.links.get(&(from.clone(), to.clone())).copied().unwrap_or_default()
    }

    /// Whether both directions between two hosts pass.
    pub fn is_whole(&self, one: &HostName, other: &HostName) -> bool {
        !self.seen(one, other).is_cut && !self.seen(other, one).is_cut
    }

    /// Whether anything is cut.
    pub fn is_cut(&self) -> bool {
        self.links.values().any(|link| link.is_cut)
    }

    /// Every direction that ever was touched is as new.
    pub(super) fn heal(&mut self) {
        self.links.clear();
    }

    /// When a datagram sent now arrives: never, once, or more often.
    pub(super) fn datagram(
        &mut self,
        now_ns: u64,
        (from, to): (&HostName, &HostName),
        random: &mut Random,
    ) -> Vec<u64> {
        let link = *self.link(from, to);
        let mut arrivals = Vec::new();
        if link.is_cut || random.chance(link.loss_per_mille) {
            return arrivals;
        }
        arrivals.push(now_ns + travel(link, random));
        if link.twice_per_mille > 0 && random.chance(link.twice_per_mille) {
            arrivals.push(now_ns + travel(link, random));
        }
        if link.stray_per_mille > 0 && random.chance(link.stray_per_mille) {
            arrivals.push(now_ns + nanos(link.stray_after) + travel(link, random));
        }
        arrivals
    }

    /// When a message sent now arrives; `None` if the direction is cut.
    pub(super) fn message(
        &mut self,
        now_ns: u64,
        (from, to): (&HostName, &HostName),
        random: &mut Random,
    ) -> Option<u64> {
        let link = *self.link(from, to);
        if link.is_cut {
            return None;
        }
        // A lost packet is sent again after about two round trips.
        let mut travel_ns = travel(link, random);
        while random.chance(link.loss_per_mille.min(900)) {
            travel_ns += nanos(link.delay) * 4;
        }
        let last = self.arrivals.entry((from.clone(), to.clone())).or_default();
        *last = (now_ns + travel_ns).max(*last + 1);
        Some(*last)
    }
}

fn travel(link: Link, random: &mut Random) -> u64 {
    nanos(link.delay) + random.below(nanos(link.jitter) + 1)
}

pub(super) fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
