//! What a session concluded. Three answers: proven, still running, unknown; the last two are never called dead.

use crate::evidence::Evidence;
use crate::moment::Moment;
use crate::name::DeviceName;
use crate::reading::Observed;
use serde::Serialize;
use std::fmt;

/// The end of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "verdict")]
pub enum Verdict {
    /// The target, or what the evidence covers of it, can do no more harm.
    Proven {
        /// The proof.
        evidence: Evidence,
    },
    /// Nothing was proven: the target's state is unknown, or known to be running.
    Unproven(Unproven),
}

/// Why a session ended without proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "ended", content = "because")]
pub enum Ended {
    /// Every level failed for good.
    Exhausted,
    /// The time allowed ran out.
    Deadline,
    /// It was called off.
    Cancelled(String),
    /// The proof came from elsewhere (the lease, the keeper, a person): the ledger said so.
    Elsewhere(String),
}

/// One device's part in a session without proof, in words for a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// The level, counted from 1.
    pub level: usize,
    /// The device, if it is about one.
    pub device: Option<DeviceName>,
    /// What happened.
    pub text: String,
    /// What to do about it.
    pub remedy: String,
    /// Nothing at all was heard from it.
    pub silent: bool,
}

/// A reading that speaks against the target being harmless.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Contrary {
    /// The device.
    pub device: DeviceName,
    /// What it read.
    pub observed: Observed,
    /// When.
    pub at: Moment,
}

/// A session without proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unproven {
    /// How it ended.
    pub ended: Ended,
    /// Each device's part; never empty.
    pub reasons: Vec<Reason>,
    /// The latest readings that show the target running.
    pub contrary: Vec<Contrary>,
    /// What levels without devices of ours wait for.
    pub waits_for: Vec<&'static str>,
}

impl Unproven {
    /// Whether every device that was asked stayed silent: the sign of a site without power or network.
    pub fn is_all_silent(&self) -> bool {
        let mut asked = self.reasons.iter().filter(|reason| reason.device.is_some()).peekable();
        asked.peek().is_some() && asked.all(|reason| reason.silent)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proven { evidence } => {
                let seen: Vec<&str> = evidence.seen().iter().map(|proof| proof.device().as_str()).collect();
                write!(
                    f,
                    "{} he {}: {} (level {}, {})",
                    evidence.target(),
                    evidence.he(),
                    evidence.kind(),
                    evidence.level(),
                    seen.join(" + ")
                )
            }
            Self::Unproven(unproven) => fmt::Display::fmt(unproven, f),
        }
    }
}

impl fmt::Display for Unproven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.ended {
            Ended::Exhausted => f.write_str("not proven, every level failed")?,
            Ended::Deadline => f.write_str("not proven in the time allowed")?,
            Ended::Cancelled(because) => write!(f, "called off: {because}")?,
            Ended::Elsewhere(by) => write!(f, "ended, proven by {by}")?,
        }
        for reason in &self.reasons {
            match &reason.device {
                Some(device) => write!(f, "; level {}: {device} {}", reason.level, reason.text)?,
                None => write!(f, "; level {}: {}", reason.level, reason.text)?,
            }
        }
        Ok(())
    }
}
