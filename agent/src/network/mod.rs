//! Addresses that follow a group: neighbours are told where an address lives now.
//!
//! An address moves with its guest; what stays behind is the neighbours' memory of the hardware address that answered
//! for it before. Each kind tells them, unasked, by what its protocol has for that: `arp` for IPv4, `ndp` for IPv6.
//! Announcing is a courtesy that shortens an outage, never a safeguard: a neighbour may not hear it, so it is repeated,
//! and nothing is concluded from its success.
//!
//! An announcement carries the *guest's* hardware address, also as the frame's source, so that switches on the way learn
//! the new port, and goes out on the bridge that the guest is plugged into.
//!
//! Not here: whether the group may run here (announcing is part of bringing it up, and stands under the same ticket);
//! withdrawal, which needs no message: a dead guest's tap is gone and nobody answers.

pub mod frame;
mod link;

use crate::workload::Doing;
use crate::workload::qemu::spec::MacAddress;
use link::Link;
use std::net::IpAddr;
use std::time::Duration;

/// When an announcement is said, counted from the first. The first ones catch the neighbour that is waiting right now;
/// the last ones those whose switch port or bridge was still learning.
pub const REPEATS: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_millis(1_000),
    Duration::from_millis(3_000),
];

/// Which protocol tells the neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnnounceKind {
    /// Gratuitous ARP, as a request and as a reply: some stacks heed only one of them.
    Arp,
    /// Unsolicited neighbour advertisement to all nodes.
    Ndp,
}

/// What is announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The address that lives here now.
    pub ip: IpAddr,
    /// The interface or bridge of this host on which it is said.
    pub interface: String,
    /// The hardware address that answers for it; the interface's own if absent.
    pub mac: Option<MacAddress>,
}

/// Why an announcement could not be made. Nothing is left behind; neighbours learn by themselves, later.
#[derive(Debug, thiserror::Error)]
pub enum AnnounceError {
    /// There is no such interface here, or it has no hardware address.
    #[error("find an interface with a hardware address called {0:?}")]
    NoInterface(String),
    /// The kernel refused.
    #[error("{doing} on {interface}")]
    Refused {
        /// What was tried.
        doing: &'static str,
        /// The interface.
        interface: String,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
}

impl Announcement {
    /// The kind that fits the address.
    pub fn kind(&self) -> AnnounceKind {
        match self.ip {
            IpAddr::V4(_) => AnnounceKind::Arp,
            IpAddr::V6(_) => AnnounceKind::Ndp,
        }
    }

    /// The frames of one saying, from this hardware address.
    pub fn frames(&self, mac: MacAddress) -> Vec<Vec<u8>> {
        match self.ip {
            IpAddr::V4(ip) => vec![frame::arp_request(ip, mac), frame::arp_reply(ip, mac)],
            IpAddr::V6(ip) => vec![frame::neighbour_advertisement(ip, mac)],
        }
    }
}

/// Says an announcement once, at once.
///
/// # Errors
/// [`AnnounceError`].
pub fn announce_once(announcement: &Announcement) -> Result<(), AnnounceError> {
    let link = Link::open(&announcement.interface)?;
    say(&link, announcement)
}

/// Says an announcement as often as [`REPEATS`] says; dropping the future ends it. Safe to say again.
///
/// # Errors
/// [`AnnounceError`] of the first saying. Later ones are lost in silence: the interface may be going away with its guest.
pub fn announce(announcement: &Announcement) -> Doing<'_, Result<(), AnnounceError>> {
    Box::pin(async {
        let link = Link::open(&announcement.interface)?;
        let begin = tokio::time::Instant::now();
        for (index, after) in REPEATS.into_iter().enumerate() {
            tokio::time::sleep_until(begin + after).await;
            let said = say(&link, announcement);
            if index == 0 {
                said?;
            }
        }
        Ok(())
    })
}

fn say(link: &Link, announcement: &Announcement) -> Result<(), AnnounceError> {
    let mac = announcement.mac.unwrap_or(link.mac());
    announcement.frames(mac).iter().try_for_each(|frame| link.send(frame))
}
