//! What can go wrong between us and a device. Every kind speaks of failure in these words and no others.
//!
//! Contract: a trouble says something about the *device*, never about the target: whatever it is, the target's state
//! is unknown afterwards, and an `off` that ended in trouble may or may not have been carried out. There is no
//! conversion from a trouble to an observation, so "we couldn't ask" can't become "it is off".

use crate::target::ReportedIdentity;
use serde::Serialize;
use std::time::Duration;

/// Why a device call brought no observation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "kebab-case", tag = "trouble")]
pub enum Trouble {
    /// No answer within the limit. The call was ended; the device may still act on it.
    #[error("no answer within {limit:?}")]
    Silent {
        /// How long was waited.
        limit: Duration,
    },
    /// No connection: refused, no route, name unknown.
    #[error("can't be reached: {because}")]
    Unreachable {
        /// The transport's words.
        because: String,
    },
    /// The connection ended in the middle of an answer.
    #[error("broke off in the middle of its answer: {because}")]
    BrokeOff {
        /// The transport's words.
        because: String,
    },
    /// The device doesn't accept the user or the password. Repeating it may lock the account.
    #[error("refuses the login: {because}")]
    LoginRefused {
        /// The device's words, secrets masked.
        because: String,
    },
    /// The device's certificate isn't the expected one. No password was sent.
    #[error("shows another certificate than expected: {because}")]
    Untrusted {
        /// What was expected and what was shown.
        because: String,
    },
    /// The device answered, and what it said can't be understood.
    #[error("gave an answer that can't be understood: {because}")]
    Garbled {
        /// What was wrong with it.
        because: String,
    },
    /// The device understood and said no, or that it failed.
    #[error("refused: {because}")]
    Refused {
        /// The device's words, secrets masked.
        because: String,
    },
    /// The device speaks for another machine than the target. Nothing was or will be switched through it.
    #[error("speaks for another machine: expected {expected}, it reports {reported}")]
    WrongMachine {
        /// What the target has.
        expected: String,
        /// What the device reported.
        reported: String,
    },
    /// The device doesn't say for which machine it speaks, and nobody attested it.
    #[error("doesn't say for which machine it speaks (reported: {reported})")]
    Nameless {
        /// What it did report.
        reported: ReportedIdentity,
    },
    /// The device's configuration can't work: a missing program, secret, key or permission.
    #[error("isn't usable as configured: {because}")]
    Unusable {
        /// What is missing and what to do.
        because: String,
    },
    /// The task that asked for this call has been overtaken, cancelled or has ended. Nothing was sent.
    #[error("was not asked: {because}")]
    Overtaken {
        /// Who refused and why.
        because: String,
    },
}

impl Trouble {
    /// Whether asking again within the same session can't help, or could do damage (a locked account, the wrong
    /// machine).
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::LoginRefused { .. }
            | Self::Untrusted { .. }
            | Self::WrongMachine { .. }
            | Self::Nameless { .. }
            | Self::Unusable { .. }
            | Self::Overtaken { .. } => true,
            Self::Silent { .. }
            | Self::Unreachable { .. }
            | Self::BrokeOff { .. }
            | Self::Garbled { .. }
            | Self::Refused { .. } => false,
        }
    }

    /// Whether it means that nothing at all was heard from the device: the sign of lost power or network there.
    pub fn is_silence(&self) -> bool {
        match self {
            Self::Silent { .. } | Self::Unreachable { .. } => true,
            Self::BrokeOff { .. }
            | Self::LoginRefused { .. }
            | Self::Untrusted { .. }
            | Self::Garbled { .. }
            | Self::Refused { .. }
            | Self::WrongMachine { .. }
            | Self::Nameless { .. }
            | Self::Unusable { .. }
            | Self::Overtaken { .. } => false,
        }
    }

    /// What a person can do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Silent { .. } | Self::Unreachable { .. } => "check the device's power, address and network",
            Self::BrokeOff { .. } => {
                "check the network on the way and the device's load; some devices allow few sessions"
            }
            Self::LoginRefused { .. } => "check user and secret; wait for a lockout to end before trying again",
            Self::Untrusted { .. } => {
                "find out why the certificate changed; if that was intended, update the pin or the CA in the device's table"
            }
            Self::Garbled { .. } => "check that address and kind fit the device; look at its firmware's notes",
            Self::Refused { .. } => "read the device's words; check the user's privilege",
            Self::WrongMachine { .. } => {
                "stop: correct the device's address or the host's uuid/serial before anything else"
            }
            Self::Nameless { .. } => {
                "let the device report uuid or serial, or attest the wiring with `wired = \"who, when\"`"
            }
            Self::Unusable { .. } => "correct the device's table or install what is missing",
            Self::Overtaken { .. } => "nothing: a newer decision stands",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_login_is_never_repeated_within_a_session() {
        assert!(Trouble::LoginRefused { because: String::new() }.is_lasting());
        assert!(!Trouble::Refused { because: "409".into() }.is_lasting());
    }
}
