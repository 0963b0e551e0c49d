//! What is known about a configured device before it is asked anything: what it proves, how fast, and with whom it fails.
//!
//! Each kind derives these from its checked parameters; the pure part decides by them alone and never by a kind's name.

use crate::name::{DeviceName, FeedName, GroupName, VolumeName};
use crate::target::Place;
use serde::Serialize;
use std::collections::BTreeSet;
use std::time::Duration;

/// What a device's reading is about, and so what it can prove.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Proves {
    /// The machine's own power state (BMC, hypervisor of a VM host). Ends writes and service.
    Machine,
    /// The state of these power feeds (outlets). Ends writes and service once all feeds of the target are off.
    Feeds(BTreeSet<FeedName>),
    /// That the VM in which this group runs is off. Group scope.
    Hypervisor(GroupName),
    /// That the target can't write to these volumes. Ends writes, not service.
    Storage(BTreeSet<VolumeName>),
    /// That the target can't be reached by its clients. Ends service, not writes.
    Network,
    /// Nothing: it may make the target die sooner, but says nothing about its state. Says why.
    Nothing(&'static str),
    /// Nothing through us: the proof comes from elsewhere (the lease, a person) and the level waits for it.
    Elsewhere(&'static str),
}

/// What a device, or a set of them, puts an end to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ends {
    /// The target can write no more.
    pub writes: bool,
    /// The target's old instance can be reached no more.
    pub service: bool,
}

impl Ends {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { writes: self.writes || other.writes, service: self.service || other.service }
    }

    /// Whether that is enough to call the target harmless.
    pub fn is_enough(self) -> bool {
        self.writes && self.service
    }
}

impl Proves {
    /// What a proof of this kind puts an end to.
    pub fn ends(&self) -> Ends {
        match self {
            Self::Machine | Self::Feeds(_) | Self::Hypervisor(_) => Ends { writes: true, service: true },
            Self::Storage(_) => Ends { writes: true, service: false },
            Self::Network => Ends { writes: false, service: true },
            Self::Nothing(_) | Self::Elsewhere(_) => Ends::default(),
        }
    }

    /// Whether the device is read for evidence.
    pub fn is_evidence(&self) -> bool {
        self.ends() != Ends::default()
    }
}

/// How it is known for which machine the device speaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Binding {
    /// The device reports the machine's identity in every reading; it is compared every time, and before anything is
    /// switched off.
    Reported,
    /// The device can't report it (an outlet knows no serial number): a person attested the wiring. Holds who and when.
    /// If the device reports an identity nevertheless, that must not differ.
    Wired(String),
    /// The reading names what it is about by itself: the volumes' identities and the keys of the fenced host.
    Claim,
}

/// Time limits and rhythm of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Rhythm {
    /// Longest time that one `read` may take before it counts as silence.
    pub read_limit: Duration,
    /// Longest time that one `off` may take.
    pub off_limit: Duration,
    /// Pause between two reads while waiting for the state to change.
    pub poll: Duration,
    /// Time that must lie between the two readings of a proof.
    pub settle: Duration,
    /// After this long without the wanted state, `off` is sent again.
    pub off_again: Duration,
}

/// Everything the pure part knows about a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceFacts {
    /// Its name.
    pub name: DeviceName,
    /// Its kind, as configured.
    pub kind: &'static str,
    /// What its readings are about.
    pub proves: Proves,
    /// How it is bound to the target.
    pub binding: Binding,
    /// Limits and rhythm.
    pub rhythm: Rhythm,
    /// Where it is reached; devices with the same endpoint are one thing and are not used at the same time. Empty: none.
    pub endpoint: String,
    /// Where it stands.
    pub place: Place,
    /// A stand-in of a laboratory: its evidence is marked.
    pub lab: bool,
}
