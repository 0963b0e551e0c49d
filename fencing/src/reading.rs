//! What a device's state looked like, once: the only raw material from which evidence is made.
//!
//! Contract for device kinds: an [`Observed`] is what the device *said in this very call* about the machine's state,
//! never what we asked it to become, never a cached value, never a return code. What can't be said is a
//! [`Trouble`](crate::trouble::Trouble); there is deliberately no variant "unknown" that a rule could forget.

use crate::moment::Moment;
use crate::name::VolumeName;
use crate::target::ReportedIdentity;
use serde::{Deserialize, Serialize};
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

impl fmt::Display for Power {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::On => "on",
            Self::Between(what) => what,
        })
    }
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

/// What a hypervisor says beside the power of a VM: whether "off" stays off (protocol §6, `hypervisor-off`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Which hypervisor or management server answered.
    pub source: String,
    /// Whoever could start the VM beside it can't any more: the agent's VM is off, or its account is disabled and its
    /// sessions have ended.
    pub agent_contained: bool,
    /// Power-on tasks that are still pending.
    pub pending_starts: u32,
    /// The VM is unregistered, or its disks are detached.
    pub detached: bool,
    /// HA restart and autostart of the VM are off.
    pub automatic_start_off: bool,
}

impl Standing {
    /// What could bring the VM back; none if nothing can.
    pub fn loose_end(&self) -> Option<&'static str> {
        if !self.agent_contained {
            Some("the agent beside it could start it again")
        } else if self.pending_starts > 0 {
            Some("a power-on task is pending")
        } else if !self.detached {
            Some("it is registered, with its disks")
        } else if !self.automatic_start_off {
            Some("HA or autostart is on")
        } else {
            None
        }
    }
}

/// What was observed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Observed {
    /// The power state of the machine, of one feed, or of a VM: the device's facts say which.
    Power(Power),
    /// The power state of a VM, by a hypervisor that also says whether it stays so.
    Vm {
        /// The state.
        power: Power,
        /// What could change it.
        standing: Standing,
    },
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
            Self::Vm { power, standing } => *power == Power::Off && standing.loose_end().is_none(),
            Self::Storage(volumes) => !volumes.is_empty() && volumes.values().all(|access| *access == Access::Excluded),
            Self::Isolated(isolated) => *isolated,
            Self::Note(_) => false,
        }
    }

    /// Whether it speaks *against* the target being harmless. A note speaks neither way.
    pub fn is_contrary(&self) -> bool {
        match self {
            Self::Power(_) | Self::Storage(_) | Self::Isolated(_) => !self.is_harmless(),
            // One that is off and could be started isn't harmless, and is no sign of life either.
            Self::Vm { power, .. } => *power != Power::Off,
            Self::Note(_) => false,
        }
    }
}

impl fmt::Display for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Power(power) => write!(f, "{power}"),
            Self::Vm { power, standing } => match standing.loose_end().filter(|_| *power == Power::Off) {
                None => write!(f, "{power}"),
                Some(loose_end) => write!(f, "off, but {loose_end}"),
            },
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
    fn a_vm_that_could_be_started_again_is_neither_harmless_nor_a_sign_of_life() {
        let tight = Standing {
            source: "vc-1".into(),
            agent_contained: true,
            pending_starts: 0,
            detached: true,
            automatic_start_off: true,
        };
        let off = |standing: &Standing| Observed::Vm { power: Power::Off, standing: standing.clone() };
        assert!(off(&tight).is_harmless() && off(&tight).to_string() == "off");
        let loose = [
            Standing { agent_contained: false, ..tight.clone() },
            Standing { pending_starts: 1, ..tight.clone() },
            Standing { detached: false, ..tight.clone() },
            Standing { automatic_start_off: false, ..tight.clone() },
        ];
        for standing in &loose {
            let observed = off(standing);
            assert!(!observed.is_harmless() && !observed.is_contrary(), "{observed}");
            assert!(observed.to_string().starts_with("off, but "), "{observed}");
        }
        let on = Observed::Vm { power: Power::On, standing: tight };
        assert!(on.is_contrary() && !on.is_harmless());
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
