//! What an exec upgrade hands over: the same instance, latch, record and phase in a new program (protocol §2).
//!
//! Invariant: a core made from what [`Core::save`] gave decides exactly as the old one would have.
//! Not here: the memfd and its checks (`keeper::handover`).

use super::{Core, Head, Params, Phase, Reason};
use quorum::id::{Era, HostEpoch};
use quorum::moment::Moment;

/// Everything of a [`Core`] but its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    /// What was armed, if anything was; else the keeper was at rest.
    pub armed: Option<Head>,
    /// The highest era adopted.
    pub era: Era,
    /// The latch.
    pub retired: HostEpoch,
    /// The last sequence adopted.
    pub sequence: u64,
    /// The last sequence echoed.
    pub echoed: u64,
    /// The last host epoch attested, zero if none.
    pub attested: HostEpoch,
    /// Why the last host epoch was retired.
    pub cause: Reason,
}

impl Core {
    /// What the next program needs; `None` in the middle of ending something, when an upgrade has to wait.
    pub fn save(&self) -> Option<Saved> {
        let armed = match self.phase {
            Phase::Armed(head) => Some(head),
            Phase::Rest if self.owed.is_none() => None,
            Phase::Rest | Phase::Clearing(_) | Phase::Settling(_) | Phase::Thawing(..) => return None,
        };
        Some(Saved {
            armed,
            era: self.era,
            retired: self.retired,
            sequence: self.sequence,
            echoed: self.echoed,
            attested: self.attested.unwrap_or_default(),
            cause: self.cause,
        })
    }

    /// The core that goes on where `saved` was taken, under the same instance.
    ///
    /// Whether an armed lease still allows a pet is for the next step to find out, by the same inequality.
    pub fn resumed(params: Params, saved: &Saved) -> Self {
        Self {
            phase: saved.armed.map_or(Phase::Rest, Phase::Armed),
            era: saved.era,
            retired: saved.retired,
            sequence: saved.sequence,
            echoed: saved.echoed,
            owed: None,
            attested: (saved.attested != HostEpoch::default()).then_some(saved.attested),
            reason: Reason::None,
            cause: saved.cause,
            params,
        }
    }

    /// The moment at which the armed lease ends.
    pub fn expiry(&self) -> Option<Moment> {
        match self.phase {
            Phase::Armed(head) | Phase::Thawing(head, _) => Some(head.expiry),
            Phase::Clearing(_) | Phase::Settling(_) | Phase::Rest => None,
        }
    }
}
