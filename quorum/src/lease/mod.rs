//! The host lease, both sides (protocol §3): until when a host may go on, and from when nobody needs to wait for it.
//!
//! A host holds its lease against a *majority of voters*, not against a leader, so a change of leader costs nothing.
//!
//! ```text
//!   holder                                voter
//!   request sent at s  ───────────────►   judged (voter::judge); granted at g: last_grant := g
//!   E_h = m-th newest s + L  ◄─────────   Grant{config id, voter list, L}
//!   pet while n + 2W + δ_hw ≤ E_h         Lost or Retired persisted: no grant any more
//!   else kill, or the watchdog fires      committed and L_v after last_grant: Expired{config id}
//! ```
//!
//! Invariant: any majority that granted meets any majority that expired in one voter, which granted before it
//! persisted the host's end, and waited L_v from a moment that is not earlier than the holder's own count. No clock
//! reading ever leaves its machine.
//!
//! Not here: reading clocks, sending, the log (`ledger` says who is admitted and ended), the watchdog (the agent's
//! keeper, which asks [`may_pet`]).

use crate::id::{AgentInstance, BootId, Era, HostEpoch, HostName, KeeperInstance, VoterId};
use crate::moment::Moment;
use crate::roster::ConfigId;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

pub mod holder;
pub mod voter;

pub use holder::{Holder, Ignored};
pub use voter::{Ended, Facts, VoterLease};

/// As whom a host asks for a lease: exactly what its admission says, in every part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Claim {
    /// The era in which it was admitted.
    pub era: Era,
    /// Its admission.
    pub host_epoch: HostEpoch,
    /// The boot in which it was admitted.
    pub boot: BootId,
    /// The keeper that was running then.
    pub instance: KeeperInstance,
}

/// Ties a grant to one request to one voter. It names the agent's process, so that an answer to a request that an
/// earlier process sent cannot be taken for one to a later request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Nonce {
    /// The agent process that asked.
    pub agent: AgentInstance,
    /// Its count of requests, over all voters.
    pub count: u64,
}

/// A host asks one voter to promise that it will wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRequest {
    /// Who asks. The transport's certificate must name the same host.
    pub host: HostName,
    /// As whom.
    pub claim: Claim,
    /// Comes back in the answer.
    pub nonce: Nonce,
}

/// A voter's promise: it will say `Expired` for this host epoch no earlier than L_v after now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Who promises.
    pub voter: VoterId,
    /// The configuration that it has applied.
    pub config: ConfigId,
    /// The voters of that configuration; in a joint one the incoming half.
    pub voters: Vec<VoterId>,
    /// In a joint configuration the half that is going, else empty.
    pub outgoing: Vec<VoterId>,
    /// L as the voter has applied it.
    pub lease: Duration,
    /// To whom.
    pub host: HostName,
    /// For which admission.
    pub host_epoch: HostEpoch,
    /// In answer to which request.
    pub nonce: Nonce,
}

/// Why a voter promises nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Refusal {
    /// The request belongs to another era.
    OtherEra,
    /// The voter is a learner or no member in the configuration that it has applied.
    NotVoter,
    /// The voter has persisted something that it cannot decode; it may be this host's end.
    Undecodable,
    /// The voter's log holds a configuration that it has not applied.
    ConfigurationPending,
    /// Lost, Retired or evidence for this host epoch or a later one is in the voter's log, committed or not.
    HasEnded,
    /// No host of this name is admitted in the voter's applied state.
    NotAdmitted,
    /// A later host epoch is admitted.
    Superseded,
    /// The voter has not yet applied this admission.
    NotYetApplied,
    /// The admission names another boot.
    OtherBoot,
    /// The admission names another keeper.
    OtherInstance,
}

impl Refusal {
    /// Every reason, in the order of declaration.
    pub const ALL: [Self; 10] = [
        Self::OtherEra,
        Self::NotVoter,
        Self::Undecodable,
        Self::ConfigurationPending,
        Self::HasEnded,
        Self::NotAdmitted,
        Self::Superseded,
        Self::NotYetApplied,
        Self::OtherBoot,
        Self::OtherInstance,
    ];
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OtherEra => "the request is of another era",
            Self::NotVoter => "this member has no vote in its configuration",
            Self::Undecodable => "this voter holds an entry that it cannot decode",
            Self::ConfigurationPending => "this voter has yet to apply a configuration change",
            Self::HasEnded => "this host epoch was ended",
            Self::NotAdmitted => "the host is not admitted",
            Self::Superseded => "a later host epoch is admitted",
            Self::NotYetApplied => "this voter has yet to apply the admission",
            Self::OtherBoot => "another boot was admitted",
            Self::OtherInstance => "another keeper was admitted",
        })
    }
}

/// What a voter answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It promises.
    Grant(Grant),
    /// It does not.
    Refuse {
        /// Who refuses.
        voter: VoterId,
        /// The request that is refused.
        nonce: Nonce,
        /// Why.
        reason: Refusal,
    },
}

/// A voter's statement that it has waited out its own promises to a host. Counts only under the configuration that
/// is in force at its position in the log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Expired {
    /// Who has waited.
    pub voter: VoterId,
    /// For whom.
    pub host: HostName,
    /// For which admission.
    pub host_epoch: HostEpoch,
    /// Under which configuration all of the wait lay.
    pub config: ConfigId,
}

/// Whether the watchdog may be petted: n + reserve ≤ E_h on *both* clocks (I7).
///
/// `reserve` is [`crate::timing::Timing::pet_reserve`]: the pet may come up to W after this check, and W more may
/// pass until the reset. A clock that has passed counts even if the other has not.
pub fn may_pet(now: Moment, expires: Moment, reserve: Duration) -> bool {
    let latest = now.plus(reserve);
    if crate::mutants::on("lease.pet_trusts_one_clock") {
        return latest.raw_ns <= expires.raw_ns;
    }
    latest.boot_ns <= expires.boot_ns && latest.raw_ns <= expires.raw_ns
}

#[cfg(test)]
mod tests;
