//! What happened, as typed facts of one agent: log line, journal entry, metric and golden trace are renderings.

use quorum::id::{AgentInstance, GroupName, HostEpoch, HostName, LogIndex, SiteName, Term, VoterId};
use quorum::ledger::{self, Incarnation};
use serde::Serialize;
use std::time::Duration;

/// Something that happened at this agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The agent process began.
    AgentStarted {
        /// This process.
        instance: AgentInstance,
    },
    /// A peer is silent here.
    Suspect {
        /// Who.
        peer: HostName,
        /// Why.
        because: String,
    },
    /// A peer is heard again.
    Trusted {
        /// Who.
        peer: HostName,
    },
    /// All hosts of a site are silent here.
    SiteSuspect {
        /// Which.
        site: SiteName,
    },
    /// This voter follows another leader.
    Leader {
        /// Who, if anybody.
        leader: Option<HostName>,
        /// The term.
        term: Term,
    },
    /// This host holds a lease.
    LeaseHeld {
        /// Under which host epoch.
        host_epoch: HostEpoch,
    },
    /// This host's lease ran out or was refused.
    LeaseLost {
        /// Under which host epoch.
        host_epoch: HostEpoch,
        /// Why.
        because: String,
    },
    /// This voter has waited out the lease that it last granted to a host that is lost or retired, and says so.
    LeaseWaitedOut {
        /// Whose.
        of: Incarnation,
        /// For how long, since its last grant.
        waited: Duration,
    },
    /// A command was applied.
    Applied {
        /// Where in the log.
        index: LogIndex,
        /// What became so.
        fact: Box<ledger::Event>,
    },
    /// A command was refused by the ledger.
    Refused {
        /// Where in the log.
        index: LogIndex,
        /// Which command.
        command: &'static str,
        /// The stable name of the rule.
        rule: &'static str,
        /// Why.
        because: String,
    },
    /// A piece of work began here.
    WorkStarted {
        /// For which group.
        group: GroupName,
        /// What.
        work: String,
    },
    /// A piece of work ended here.
    WorkEnded {
        /// For which group.
        group: GroupName,
        /// What.
        work: String,
        /// How.
        outcome: String,
    },
    /// A copy that was left behind has everything again.
    ResyncDone {
        /// Of which group.
        group: GroupName,
        /// Whose copy.
        copy: HostName,
        /// Bytes compared at both ends.
        compared_bytes: u64,
        /// Of these, bytes that differed.
        differing_bytes: u64,
        /// Bytes sent in all: what differed, and what was written meanwhile.
        copied_bytes: u64,
        /// Bytes of the old side that were kept first.
        kept_bytes: u64,
        /// How long the workload stood still for the last of it.
        pause_ms: u64,
    },
    /// What only this host's copy had was kept before it was overwritten.
    DataKept {
        /// Of which group.
        group: GroupName,
        /// The kept set: `antipode kept show`.
        id: String,
        /// How many bytes.
        bytes: u64,
    },
    /// A suspect host or site isn't declared.
    NotDeclared {
        /// Which host.
        host: HostName,
        /// Why.
        because: String,
    },
    /// A host speaks and isn't admitted.
    NotAdmitted {
        /// Which host.
        host: HostName,
        /// Why.
        because: String,
    },
    /// This leader put a change of the voters into the log.
    MembersProposed {
        /// Where.
        index: LogIndex,
        /// What.
        steps: String,
    },
    /// This host votes no more under this id.
    VoteEnded {
        /// The id.
        voter: VoterId,
        /// Why.
        because: String,
    },
    /// A message was refused.
    Dropped {
        /// From whom.
        from: HostName,
        /// Why.
        because: String,
    },
}

impl Event {
    /// The event's name, as in the journal.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::AgentStarted { .. } => "agent-started",
            Self::Suspect { .. } => "suspect",
            Self::Trusted { .. } => "trusted",
            Self::SiteSuspect { .. } => "site-suspect",
            Self::Leader { .. } => "leader",
            Self::LeaseHeld { .. } => "lease-held",
            Self::LeaseLost { .. } => "lease-lost",
            Self::LeaseWaitedOut { .. } => "lease-waited-out",
            Self::Applied { .. } => "applied",
            Self::Refused { .. } => "refused",
            Self::WorkStarted { .. } => "work-started",
            Self::WorkEnded { .. } => "work-ended",
            Self::ResyncDone { .. } => "resync-done",
            Self::DataKept { .. } => "data-kept",
            Self::NotDeclared { .. } => "not-declared",
            Self::NotAdmitted { .. } => "not-admitted",
            Self::MembersProposed { .. } => "members-proposed",
            Self::VoteEnded { .. } => "vote-ended",
            Self::Dropped { .. } => "dropped",
        }
    }
}
