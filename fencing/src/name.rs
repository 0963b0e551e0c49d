//! Names of the things a fencing topology speaks about.
//!
//! Each is a checked string of its own type, so that a device can't be taken for a host. The rule is strict because
//! names go into argument lists, file names and metrics: 1–63 characters, small letters, digits, `.`, `_`, `-`, and a
//! letter or digit first (so that a name is never an option).

use serde::{Deserialize, Serialize};
use std::fmt;

/// Longest name, in characters.
pub const NAME_LENGTH_MAX: usize = 63;

/// Why a string can't be a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} can't be a name: {because}")]
pub struct BadName {
    /// What was given.
    pub text: String,
    /// The rule that it breaks.
    pub because: &'static str,
}

fn check(text: &str) -> Result<(), BadName> {
    let bad = |because| Err(BadName { text: text.to_owned(), because });
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if text.is_empty() || text.len() > NAME_LENGTH_MAX {
        return bad("a name has 1 to 63 characters");
    }
    if !text.starts_with(plain) {
        return bad("a name begins with a small letter or a digit");
    }
    if !text.chars().all(|c| plain(c) || matches!(c, '.' | '_' | '-')) {
        return bad("a name consists of small letters, digits, '.', '_' and '-'");
    }
    Ok(())
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Takes `text` as a name.
            ///
            /// # Errors
            /// [`BadName`] says which rule it breaks.
            pub fn new(text: impl Into<String>) -> Result<Self, BadName> {
                let text = text.into();
                check(&text)?;
                Ok(Self(text))
            }

            /// The name's text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadName;
            fn try_from(text: String) -> Result<Self, BadName> {
                Self::new(text)
            }
        }

        impl std::str::FromStr for $name {
            type Err = BadName;
            fn from_str(text: &str) -> Result<Self, BadName> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

names! {
    /// A host: the machine that is to be proven harmless.
    HostName
    /// A fencing device.
    DeviceName
    /// A site: a failure domain with its own power and network.
    SiteName
    /// One of a host's power feeds (a power supply and the outlet it hangs on).
    FeedName
    /// A shared volume that a reservation guards.
    VolumeName
    /// A protection group.
    GroupName
    /// A power circuit, network segment or room: something that fails as a whole.
    DomainName
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_never_an_option_nor_a_path() {
        for text in ["", "-rf", "a/b", "a b", "a\n", "ä", "A", &"x".repeat(64)] {
            assert!(DeviceName::new(text).is_err(), "{text:?} was taken");
        }
        for text in ["a", "tk-p1", "bmc.tk-p1_2", &"x".repeat(63)] {
            assert!(DeviceName::new(text).is_ok(), "{text:?} was refused");
        }
    }
}
