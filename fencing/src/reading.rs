//! What a device's state looked like, once: the only raw material from which evidence is made.
//!
//! Contract for device kinds: an [`Observed`] is what the device *said in this very call* about the machine's state,
//! never what we asked it to become, never a cached value, never a return code. What can't be said is a
//! [`Trouble`](crate::trouble::Trouble); there is deliberately no variant "unknown" that a rule could forget.

use crate::moment::Moment;
use crate::name::VolumeName;
use crate::target::ReportedIdentity;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// A power state as read from a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Power {
    /// The machine has no power to run (or the VM has no process).
    Off,
    /// It runs.
    On,
    /// Anything that is neither: powering off, paused, suspended, saved. May run again by itself: not off.
    Between(String),
}

/// Whether the fenced host may still write to a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// The reservation is ours, and none of the fenced host's keys is registered on any path.
    Excluded,
    /// It could still write: says why.
    Possible(String),
}

/// What was observed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Observed {
    /// The power state of the machine, of one feed, or of a VM: the device's facts say which.
    Power(Power),
    /// The fenced host's access to each volume that the device guards.
    Storage(BTreeMap<VolumeName, Access>),
    /// Whether the fenced host's port is shut (`true`) or open.
    Isolated(bool),
    /// Something worth showing that proves nothing (a message in a slot).
    Note(String),
}

impl Observed {
    /// Whether this is the state that fencing wants to see.
    pub fn is_harmless(&self) -> bool {
        match self {
            Self::Power(power) => *power == Power::Off,
            Self::Storage(volumes) => !volumes.is_empty() && volumes.values().all(|access| *access == Access::Excluded),
            Self::Isolated(isolated) => *isolated,
            Self::Note(_) => false,
        }
    }

    /// Whether it speaks *against* the target being harmless. A note speaks neither way.
    pub fn is_contrary(&self) -> bool {
        match self {
            Self::Power(_) | Self::Storage(_) | Self::Isolated(_) => !self.is_harmless(),
            Self::Note(_) => false,
        }
    }
}

impl fmt::Display for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Power(Power::Off) => f.write_str("off"),
            Self::Power(Power::On) => f.write_str("on"),
            Self::Power(Power::Between(what)) => write!(f, "{what}"),
            Self::Isolated(true) => f.write_str("port shut"),
            Self::Isolated(false) => f.write_str("port open"),
            Self::Note(text) => f.write_str(text),
            Self::Storage(volumes) => {
                for (index, (volume, access)) in volumes.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    match access {
                        Access::Excluded => write!(f, "{comma}{volume} excluded")?,
                        Access::Possible(why) => write!(f, "{comma}{volume} writable ({why})")?,
                    }
                }
                Ok(())
            }
        }
    }
}

/// One answer of a device about the state of the machine it speaks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reading {
    /// When the call was begun: the state may have been sampled any time from here ...
    pub asked: Moment,
    /// ... to here, when its answer was complete.
    pub answered: Moment,
    /// The state.
    pub observed: Observed,
    /// Whom the device says it speaks for.
    pub identity: ReportedIdentity,
    /// The device is a laboratory's stand-in: its evidence is marked.
    pub lab: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_off_is_off() {
        assert!(Observed::Power(Power::Off).is_harmless());
        for power in [Power::On, Power::Between("powering off".into()), Power::Between("paused".into())] {
            let observed = Observed::Power(power);
            assert!(!observed.is_harmless() && observed.is_contrary());
        }
    }

    #[test]
    fn excluded_from_no_volume_is_not_excluded() {
        assert!(!Observed::Storage(BTreeMap::new()).is_harmless());
        let one = VolumeName::new("a").unwrap();
        let two = VolumeName::new("b").unwrap();
        let mut volumes = BTreeMap::from([(one, Access::Excluded)]);
        assert!(Observed::Storage(volumes.clone()).is_harmless());
        volumes.insert(two, Access::Possible("key 0x1 is registered".into()));
        assert!(!Observed::Storage(volumes).is_harmless());
    }

    #[test]
    fn a_note_speaks_neither_way() {
        let note = Observed::Note("slot holds: off".into());
        assert!(!note.is_harmless() && !note.is_contrary());
    }
}
