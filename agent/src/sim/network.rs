//! The network: delay, jitter, loss and cuts, for each direction by itself.

use super::random::Random;
use quorum::id::HostName;
use std::collections::BTreeMap;
use std::time::Duration;

/// One direction between two hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// One-way delay.
    pub delay: Duration,
    /// Up to this much is added, evenly.
    pub jitter: Duration,
    /// Lost datagrams per thousand. Messages aren't lost while the link is up: a stream sends again.
    pub loss_per_mille: u64,
    /// Nothing passes.
    pub is_cut: bool,
}

impl Default for Link {
    fn default() -> Self {
        Self { delay: Duration::from_millis(20), jitter: Duration::from_micros(200), loss_per_mille: 0, is_cut: false }
    }
}

/// All links.
#[derive(Clone, Debug, Default)]
pub struct Network {
    links: BTreeMap<(HostName, HostName), Link>,
    /// The last arrival of a message on each direction: streams keep their order.
    arrivals: BTreeMap<(HostName, HostName), u64>,
}

impl Network {
    /// The direction from one host to another.
    pub fn link(&mut self, from: &HostName, to: &HostName) -> &mut Link {
        self.links.entry((from.clone(), to.clone())).or_default()
    }

    /// When a datagram sent now arrives; `None` if it doesn't.
    pub(super) fn datagram(
        &mut self,
        now_ns: u64,
        (from, to): (&HostName, &HostName),
        random: &mut Random,
    ) -> Option<u64> {
        let link = *self.link(from, to);
        if link.is_cut || random.chance(link.loss_per_mille) {
            return None;
        }
        Some(now_ns + travel(link, random))
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
        while random.chance(link.loss_per_mille) {
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
