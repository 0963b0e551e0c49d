//! People in the log: who decided, and what their decision may be used for.
//!
//! Invariant: a person is the key that signed, not the name typed. Two approvals are two certificate keys; the local
//! socket counts as one person and never completes a pair.

use crate::id::{LogIndex, Term};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What identifies a person.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PersonKey {
    /// SHA-256 of the public key of the certificate that authenticated the request.
    Certificate([u8; 32]),
    /// User id of the process that came over the local socket.
    Local(u32),
}

impl PersonKey {
    /// Whether this key may be one of two.
    pub const fn may_pair(&self) -> bool {
        match self {
            Self::Certificate(_) => true,
            Self::Local(_) => false,
        }
    }
}

impl fmt::Display for PersonKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(digest) => {
                f.write_str("cert:")?;
                digest.iter().take(8).try_for_each(|b| write!(f, "{b:02x}"))
            }
            Self::Local(uid) => write!(f, "local:{uid}"),
        }
    }
}

impl fmt::Debug for PersonKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Who asked for something.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Person {
    /// For people to read.
    pub name: String,
    /// What counts.
    pub key: PersonKey,
}

impl fmt::Display for Person {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.key)
    }
}

/// A person's decision and its reason, as audited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Who.
    pub by: Person,
    /// Why, in their words.
    pub reason: String,
    /// What the person was shown when deciding (evidence for and against, what will be released). May be empty where
    /// nothing is at stake.
    pub shown: String,
}

/// Who began something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Initiator {
    /// The leader, by policy.
    Automatic,
    /// A person.
    Person(Decision),
}

impl Initiator {
    /// Whether nobody was asked.
    pub const fn is_automatic(&self) -> bool {
        match self {
            Self::Automatic => true,
            Self::Person(_) => false,
        }
    }

    /// The decision behind it, if a person's.
    pub const fn decision(&self) -> Option<&Decision> {
        match self {
            Self::Automatic => None,
            Self::Person(decision) => Some(decision),
        }
    }
}

/// A permit that people gave: it ends with the term in which it was given, because a new leader can't measure its
/// age (protocol §7).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permit {
    /// The entry that asked for it; its identity.
    pub index: LogIndex,
    /// The term in which it was asked for. It is void in any other.
    pub term: Term,
    /// How many people it needs.
    pub needs: u32,
    /// Who has agreed, in order.
    pub agreed: Vec<Decision>,
}

impl Permit {
    /// Whether enough different people agreed. The local socket alone may give a permit that needs one person.
    pub fn is_given(&self) -> bool {
        if self.needs <= 1 {
            return !self.agreed.is_empty();
        }
        let mut keys: Vec<&PersonKey> = self.agreed.iter().map(|d| &d.by.key).filter(|key| key.may_pair()).collect();
        keys.sort();
        keys.dedup();
        keys.len() >= self.needs as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(name: &str, key: PersonKey) -> Decision {
        Decision { by: Person { name: name.into(), key }, reason: "r".into(), shown: String::new() }
    }

    fn permit(needs: u32, agreed: Vec<Decision>) -> Permit {
        Permit { index: LogIndex(1), term: Term(1), needs, agreed }
    }

    #[test]
    fn two_names_on_one_key_are_one_person() {
        let key = PersonKey::Certificate([1; 32]);
        assert!(!permit(2, vec![decision("ann", key.clone()), decision("bob", key)]).is_given());
        let two =
            vec![decision("ann", PersonKey::Certificate([1; 32])), decision("bob", PersonKey::Certificate([2; 32]))];
        assert!(permit(2, two).is_given());
    }

    #[test]
    fn the_local_socket_never_completes_a_pair() {
        let mixed = vec![decision("ann", PersonKey::Certificate([1; 32])), decision("root", PersonKey::Local(0))];
        assert!(!permit(2, mixed).is_given());
        assert!(permit(1, vec![decision("root", PersonKey::Local(0))]).is_given());
    }
}
