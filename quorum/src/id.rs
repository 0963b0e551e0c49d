//! Names and counters that mean one thing in the whole cluster.
//!
//! Names are what people wrote in the cluster spec and are the identity of a thing for ever: a name that was removed
//! leaves a tombstone in the ledger, and the same name goes on from its last epoch. Counters only rise; those that
//! act as fencing tokens carry the era in their top bits, so that every token of an older era compares smaller
//! (protocol §9).

use serde::de::{Deserializer, Error, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use std::fmt;

/// Longest name in bytes: the limit of a DNS label, so that a name can always become one.
pub const NAME_BYTES_MAX: usize = 63;

/// Why a text is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text was empty or longer than [`NAME_BYTES_MAX`].
    #[error("a name has 1 to {NAME_BYTES_MAX} characters, {0:?} has {len}", len = .0.len())]
    Length(String),
    /// The text has a character that a name can't have.
    #[error("a name has only a-z, 0-9, '-', '_' and '.', and starts with a letter or digit; {0:?} does not")]
    Character(String),
}

fn check_name(text: &str) -> Result<(), NameError> {
    if text.is_empty() || text.len() > NAME_BYTES_MAX {
        return Err(NameError::Length(text.chars().take(80).collect()));
    }
    let bytes = text.as_bytes();
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    if !plain(bytes[0]) || !bytes.iter().all(|&b| plain(b) || matches!(b, b'-' | b'_' | b'.')) {
        return Err(NameError::Character(text.to_owned()));
    }
    Ok(())
}

/// Maps are searched by name all the time: short names lie in the maps themselves, not somewhere in memory.
macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(SmolStr);

        impl $type {
            /// Checks `text` and makes it a name.
            ///
            /// # Errors
            /// [`NameError`] says which rule the text breaks.
            pub fn new(text: &str) -> Result<Self, NameError> {
                check_name(text)?;
                Ok(Self(text.into()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(&text)
            }
        }

        impl std::str::FromStr for $type {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0.as_str().to_owned()
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $type;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a string")
                    }

                    fn visit_str<E: Error>(self, text: &str) -> Result<$type, E> {
                        $type::new(text).map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// A cluster: all hosts that one certificate authority vouches for.
    ClusterName
);
name!(
    /// A person (or a program acting for one) that holds an operator's certificate.
    OperatorName
);
name!(
    /// A machine with an agent.
    HostName
);
name!(
    /// A failure domain with its own power and network.
    SiteName
);
name!(
    /// A protection group: the smallest unit that moves.
    GroupName
);
name!(
    /// A fencing device as named in the cluster spec.
    DeviceName
);

macro_rules! counter {
    ($(#[$doc:meta])* $type:ident($int:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $type(pub $int);

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($type), "({})"), self.0)
            }
        }
    };
}

counter!(
    /// Counts the times a majority was lost for ever and the cluster was recovered by hand. The first era is 1.
    Era(u16)
);
counter!(
    /// Identity of a voter in Raft. Never reused: a voter that lost its disk comes back under a new one.
    VoterId(u64)
);
counter!(
    /// Position in the replicated log; the first entry is 1.
    LogIndex(u64)
);
counter!(
    /// Raft's term.
    Term(u64)
);
counter!(
    /// Counts the states of a group's data that can't be told to be the same; rises when a copy is left behind.
    Generation(u64)
);
counter!(
    /// A replicated plan.
    PlanId(u64)
);
counter!(
    /// A switchover's or migration's intent. It is the log index of the entry that opened it.
    IntentId(u64)
);
/// A replicated fence task: the log index of the entry that opened it, and the host's position in that entry in the
/// low 16 bits. Shown as `index.position`.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskId(pub u64);

impl TaskId {
    const POSITION_BITS: u32 = 16;

    /// The task of the host at `position` in the entry at `index`.
    ///
    /// # Panics
    /// If an entry names 2^16 hosts, which its size limit forbids.
    pub fn of(index: LogIndex, position: usize) -> Self {
        assert!(position < 1 << Self::POSITION_BITS, "too many hosts in one entry");
        Self(index.0 << Self::POSITION_BITS | position as u64)
    }

    /// The task shown as `index.position`.
    pub fn parse(text: &str) -> Option<Self> {
        let (index, position) = text.split_once('.')?;
        let (index, position): (u64, u64) = (index.parse().ok()?, position.parse().ok()?);
        let fits = position < 1 << Self::POSITION_BITS && index < 1 << (64 - Self::POSITION_BITS);
        fits.then_some(Self(index << Self::POSITION_BITS | position))
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 >> Self::POSITION_BITS, self.0 & ((1 << Self::POSITION_BITS) - 1))
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskId({self})")
    }
}

macro_rules! token {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $type(pub u64);

        impl $type {
            const COUNT_BITS: u32 = 48;

            /// The token with this count in this era.
            pub const fn in_era(era: Era, count: u64) -> Self {
                Self((era.0 as u64) << Self::COUNT_BITS | count & ((1 << Self::COUNT_BITS) - 1))
            }

            /// The era in which it was minted; era 0 is "before the first".
            pub const fn era(self) -> Era {
                Era((self.0 >> Self::COUNT_BITS) as u16)
            }

            /// Its count within the era.
            pub const fn count(self) -> u64 {
                self.0 & ((1 << Self::COUNT_BITS) - 1)
            }

            /// The next one in the same era.
            ///
            /// # Panics
            /// When 2^48 were used up in one era, which no cluster lives to see.
            #[must_use]
            pub fn next(self) -> Self {
                assert!(self.count() < (1 << Self::COUNT_BITS) - 1, "token counter is used up");
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                if self.era().0 > 1 {
                    write!(f, "{}.{}", self.era(), self.count())
                } else {
                    write!(f, "{}", self.count())
                }
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($type), "({})"), self)
            }
        }
    };
}

token!(
    /// Counts the grants of a group's ticket: the fencing token.
    Epoch
);
token!(
    /// Counts a host's admissions. Leases, evidence and commands are bound to one; it dies with the boot or the
    /// keeper instance.
    HostEpoch
);

macro_rules! stamp {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $type(pub [u8; 16]);

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().take(4).try_for_each(|b| write!(f, "{b:02x}"))
            }
        }
    };
}

stamp!(
    /// The kernel's boot id (`/proc/sys/kernel/random/boot_id`): another one after each boot.
    BootId
);
stamp!(
    /// Drawn by a keeper when it starts: another one after each restart, the same across an exec upgrade.
    KeeperInstance
);
stamp!(
    /// Drawn by an agent when it starts.
    AgentInstance
);
stamp!(
    /// What makes a machine that machine (DMI UUID and serial, hashed): equal before and after a reboot.
    HardwareId
);
stamp!(
    /// A proposal's identity: proposed again after a doubt, it takes effect once.
    ProposalKey
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_of_an_older_era_compares_smaller() {
        let old = Epoch::in_era(Era(1), 900_000);
        let new = Epoch::in_era(Era(2), 1);
        assert!(old < new);
        assert_eq!((new.era(), new.count()), (Era(2), 1));
        assert_eq!(old.next().count(), 900_001);
    }

    #[test]
    fn a_task_is_shown_by_its_entry_and_position_and_read_back() {
        let task = TaskId::of(LogIndex(15), 3);
        assert_eq!(task.to_string(), "15.3");
        assert_eq!(TaskId::parse("15.3"), Some(task));
        assert_eq!(TaskId::parse("15"), None);
        assert_eq!(TaskId::parse("15.70000"), None);
    }

    #[test]
    fn a_name_says_which_rule_it_breaks() {
        assert!(HostName::new("tk-k1.example").is_ok());
        assert!(matches!(HostName::new(""), Err(NameError::Length(_))));
        assert!(matches!(HostName::new("Tokyo"), Err(NameError::Character(_))));
        assert!(matches!(HostName::new("-x"), Err(NameError::Character(_))));
    }
}
