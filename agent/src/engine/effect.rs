//! Everything an agent can do. The driver performs effects in order; what an effect brings back is an input.

use super::message::Message;
use super::operator::Answer;
use crate::config::ClusterSpec;
use crate::event::Event;
use crate::heartbeat::Datagram;
use quorum::id::{BootId, Epoch, Era, Generation, GroupName, HostEpoch, HostName, KeeperInstance, TaskId, VoterId};
use quorum::moment::Moment;
use quorum::replica::Write;
use quorum::storage::Seen;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Identity of a piece of work within one agent process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorkId(pub u64);

/// An order to the driver.
#[derive(Debug)]
pub enum Effect {
    /// Send a datagram on every path, now; lost if lost.
    Datagram {
        /// To whom.
        to: HostName,
        /// What.
        datagram: Box<Datagram>,
    },
    /// Send the same datagram to each of these, as [`Effect::Datagram`] does. It is encoded once.
    Datagrams {
        /// To whom.
        to: Vec<HostName>,
        /// What.
        datagram: Box<Datagram>,
    },
    /// Send a message on the stream connection; dropped if there is none.
    Message {
        /// To whom.
        to: HostName,
        /// What.
        message: Box<Message>,
    },
    /// Send the same message to each of these, as [`Effect::Message`] does. It is encoded, and held, once; and so it is with
    /// later ones that share it.
    Messages {
        /// To whom.
        to: Vec<HostName>,
        /// What.
        message: Arc<Message>,
    },
    /// Make durable, then hand in `Persisted`. Writes are performed in order.
    Persist(Box<Write>),
    /// Remember durably what another voter's disk was seen to have.
    Remember {
        /// Whose.
        voter: VoterId,
        /// The most that was seen.
        seen: Seen,
    },
    /// This host becomes a member: found an empty store for this id, load it, hand in `Joined`. A store of another id
    /// that is still there is put aside, never used again.
    Join {
        /// The id.
        voter: VoterId,
        /// In which era.
        era: Era,
    },
    /// This host votes no more under this id: put its store aside, and never use it again.
    VoteEnded {
        /// The id.
        voter: VoterId,
        /// Why.
        because: String,
    },
    /// Write the keeper's record. Only an effect of the step that found the lease good.
    Keeper(KeeperOrder),
    /// Work on a group here.
    Work {
        /// Comes back with the report.
        id: WorkId,
        /// The group.
        group: GroupName,
        /// The admission under which this host acts, if it has one.
        host_epoch: Option<HostEpoch>,
        /// What.
        work: Work,
    },
    /// Whatever is under way for the group is overtaken: its report will be ignored.
    Overtaken {
        /// The group.
        group: GroupName,
    },
    /// Fence a host for a task. [`Engine::fence_permit`](super::Engine::fence_permit) is asked last thing before each
    /// device call.
    Fence(Box<fencing::FenceOrder>),
    /// Wait for what an earlier process of this agent began: `Fenced::Finished` is handed in when nothing of it can
    /// reach a device any more. The task may be taken up anew.
    OutwaitFence {
        /// The task.
        task: TaskId,
        /// Whom it is about.
        target: fencing::name::HostName,
        /// Where the decision stands.
        stamp: fencing::request::Stamp,
    },
    /// End a task for good: `Fenced::Finished` is handed in when nothing of it can reach a device any more.
    CancelFence {
        /// The task.
        task: TaskId,
        /// Whom it is about.
        target: fencing::name::HostName,
        /// Where the decision stands: everything about the target up to it ends.
        stamp: fencing::request::Stamp,
        /// Why.
        because: String,
    },
    /// A host was admitted again: orders about its older epochs are refused from now on.
    FenceReadmitted {
        /// The host.
        target: fencing::name::HostName,
        /// Its epoch.
        host_epoch: u64,
    },
    /// Answer a person.
    Answer {
        /// As asked.
        ticket: u64,
        /// What.
        answer: Box<Answer>,
    },
    /// The spec in force changed: peers, devices and kinds are built anew from it.
    Spec(Arc<ClusterSpec>),
    /// Something became so.
    Event(Event),
    /// An invariant is broken or the disk failed: end the process, now.
    Halt {
        /// Why.
        because: String,
    },
}

/// What the keeper's record is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeeperOrder {
    /// The era.
    pub era: Era,
    /// The admission.
    pub host_epoch: HostEpoch,
    /// The boot it is bound to.
    pub boot: BootId,
    /// The keeper it is bound to.
    pub instance: KeeperInstance,
    /// E_h.
    pub expires: Moment,
    /// Counts the records of all agent processes of this boot.
    pub sequence: u64,
    /// The groups that may run here, with their epochs; pinned ones are exempt from the lease's end.
    pub armed: BTreeMap<GroupName, Armed>,
}

/// One group of the armed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Armed {
    /// Under which epoch.
    pub epoch: Epoch,
    /// Exempt from freeze and kill at the lease's end.
    pub pinned: bool,
}

/// What a driver can do for a group on this host. Each is idempotent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Look what is here. Reports `Found`.
    Observe,
    /// Make this host's copy the writable one: cut the receiver, discard its queue, check that the copy has
    /// generation `opens`, record `generation`.
    Promote {
        /// Under which epoch.
        epoch: Epoch,
        /// The generation that the copy must have.
        opens: Generation,
        /// The generation that is written from now on.
        generation: Generation,
    },
    /// Bring the workload up inside the protected slice.
    Start {
        /// Under which epoch.
        epoch: Epoch,
        /// Under which host epoch.
        host_epoch: HostEpoch,
    },
    /// See that it answers.
    Probe {
        /// Under which epoch.
        epoch: Epoch,
    },
    /// Make its addresses lead here.
    Announce {
        /// Under which epoch.
        epoch: Epoch,
    },
    /// Stop gracefully, flush, drain the mirror, release; kill after `patience`. Reports `Stopped`.
    Stop {
        /// Under which epoch it runs.
        epoch: Epoch,
        /// How long the workload may take.
        patience: Duration,
        /// A copy for which no write waits: it is brought up to date, and writes wait for it, before the stop.
        drain_to: Option<HostName>,
    },
    /// Kill whatever is here.
    Kill,
    /// Move what runs into the group's pinned cgroup, where the lease's end doesn't reach it.
    Tie {
        /// Under which epoch it runs.
        epoch: Epoch,
    },
    /// Move what runs back under the lease. Also where nothing runs any more.
    Untie {
        /// Under which epoch it runs.
        epoch: Epoch,
    },
    /// Receive the owner's writes: open this copy to the owner's epoch and to no older one.
    OpenExport {
        /// The owner's epoch.
        epoch: Epoch,
        /// The owner.
        owner: HostName,
        /// The ledger counts this copy as whole: it goes on as what it is. Otherwise it is made equal anew, and is a
        /// mixture until then, whatever it was recorded as.
        is_whole: bool,
    },
    /// Receive nothing any more.
    CloseExport,
    /// Bring the standby's copy up to date with the guest running, then mirror every write to it. Reports `Mirrored`.
    Mirror {
        /// Under which epoch.
        epoch: Epoch,
        /// Whose copy.
        standby: HostName,
        /// The ledger counts it as in sync: writes that wait for it may only be let go by a committed detachment.
        counts: bool,
        /// Writes wait until the copy has them, of every volume.
        waits: bool,
    },
    /// The detachment is committed: answer the writes that wait, and mirror no more.
    ReleaseWrites {
        /// Under which epoch.
        epoch: Epoch,
    },
    /// Record the copy's generation beside it.
    RecordGeneration {
        /// Under which epoch.
        epoch: Epoch,
        /// The generation.
        generation: Generation,
    },
}
