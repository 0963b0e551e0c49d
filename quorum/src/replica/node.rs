//! The replica: its parameters and its inputs.
//!
//! Not here: what comes out of it (`flow`), what it shows (`view`), what peers may say (`check`).

use super::campaign::Courtesy;
use super::check::{BadMessage, PENDING_READS_MAX, check};
use super::convert;
use super::flow::Outstanding;
use super::log::Log;
use super::membership::{self, MemberStep, MembershipChange, MembershipError};
use super::read::{ReadContext, Reads};
use super::ready::Standing;
use super::tick::{Jitter, timeouts};
use super::view::Configuration;
use super::wire::{APPEND_BYTES_MAX, Body, ENTRY_BYTES_MAX, Entry, Message, Snapshot};
use crate::id::{Era, LogIndex, Term, VoterId};
use crate::roster::ConfigId;
use crate::storage::Loaded;
use raft::{RawNode, ReadOnlyOption, SnapshotStatus, StateRole};
use std::collections::{BTreeMap, VecDeque};

/// Appends on their way to one follower. More only fill the network when it is slow.
const INFLIGHT_MAX: usize = 64;

/// Proposed and not yet committed bytes, beyond which a leader refuses more.
const UNCOMMITTED_BYTES_MAX: u64 = 16 << 20;

/// Committed entries handed out at once, so that a late voter applies in pieces between its beats.
const COMMITTED_BYTES_MAX: u64 = 4 << 20;

/// How a replica behaves. Times are in ticks of the caller's [`Ticker`](super::Ticker).
#[derive(Clone, Debug)]
pub struct Params {
    /// Where election timeouts come from; another one for each start of a real voter.
    pub seed: u64,
    /// For so long a voter that hears a leader elects no other. Without one it stands for election a tick later at the
    /// soonest, when the others have stopped waiting too, and after one and a half times that at the latest. At least 2.
    pub election_ticks: usize,
    /// Time between a leader's heartbeats. At least 1, less than `election_ticks`.
    pub heartbeat_ticks: usize,
    /// A positive one stands for election early, a negative one late. It is a preference and never withholds a vote: who
    /// wants a certain leader has the leader hand over.
    pub priority: i64,
    /// Entries kept behind a snapshot, to spare late followers the whole snapshot.
    pub keep_entries: u64,
    /// Time after which a snapshot nobody has answered or reported is sent again.
    pub snapshot_retry_ticks: u32,
}

impl Default for Params {
    fn default() -> Self {
        // Protocol §3: heartbeat = election timeout / 10. Of its 300 ms or more a second snapshot after 30 such spans is
        // late enough for a large one on a slow line, and soon enough for a lost one.
        Self {
            seed: 0,
            election_ticks: 10,
            heartbeat_ticks: 1,
            priority: 0,
            keep_entries: 512,
            snapshot_retry_ticks: 300,
        }
    }
}

/// Why a replica did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A parameter is out of its range, or the loaded state is none that raft accepts.
    #[error("start raft")]
    Raft(#[source] raft::Error),
}

/// Why something was not proposed. Nothing was appended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Only the leader appends. What to do with the proposal is the caller's business; raft's own forwarding is off,
    /// because a forwarded proposal can be appended twice.
    #[error("propose: not the leader")]
    NotLeader {
        /// Who is, as far as this voter knows.
        leader: Option<VoterId>,
    },
    /// No content, or more than [`ENTRY_BYTES_MAX`].
    #[error("propose an entry of {0} bytes")]
    Size(usize),
    /// The leader is handing over, or too much is not committed yet. Try again later.
    #[error("propose now: busy")]
    Busy,
    /// Another change of the membership is under way, or may be: a new leader doesn't know until it has applied what
    /// it found. Try again later.
    #[error("change the membership: another change is under way")]
    Pending,
    /// The change breaks a rule.
    #[error("change the membership")]
    Membership(#[source] MembershipError),
}

/// Where a proposal was appended. If it is committed there in that term, it is this proposal; else it never will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposed {
    /// Its index.
    pub index: LogIndex,
    /// The leader's term.
    pub term: Term,
}

/// Why a read was not started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// There is no leader to ask.
    #[error("read: no leader is known")]
    NoLeader,
    /// This leader has not yet committed an entry of its term and so doesn't know what is committed.
    #[error("read: the leader is new")]
    NewLeader,
    /// More reads wait to be confirmed than a leader holds.
    #[error("read: too many reads wait")]
    TooMany,
}

/// Why the leadership is not handed over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// Only the leader can.
    #[error("transfer the leadership: not the leader")]
    NotLeader {
        /// Who is, as far as this voter knows.
        leader: Option<VoterId>,
    },
    /// It leads already.
    #[error("transfer the leadership to {0}: it already leads")]
    AlreadyLeads(VoterId),
    /// It must be a voter.
    #[error("transfer the leadership to {0}: not a voter")]
    NotVoter(VoterId),
}

/// What became of a snapshot on its way to a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The follower has it.
    Done,
    /// It got lost, wholly or in part.
    Failed,
}

/// One voter's replica of the log. See the module's contract.
pub struct Replica {
    pub(super) node: RawNode<Log>,
    pub(super) id: VoterId,
    pub(super) era: Era,
    pub(super) params: Params,
    pub(super) jitter: Jitter,
    pub(super) courtesy: Courtesy,
    pub(super) reads: Reads,
    /// Writes that are not persisted yet, oldest first.
    pub(super) outstanding: VecDeque<Outstanding>,
    /// Number of the newest write.
    pub(super) number: u64,
    /// Newest term that is durable here.
    pub(super) durable_term: Term,
    /// A snapshot on its way through raft, which sees its metadata only.
    pub(super) incoming: Option<Snapshot>,
    /// A snapshot that the caller has not installed yet.
    pub(super) installing: Option<LogIndex>,
    /// Index of the newest snapshot from which raft took its configuration.
    pub(super) restored: LogIndex,
    /// A snapshot made here, not yet written.
    pub(super) compaction: Option<Snapshot>,
    /// Committed membership changes that the caller has not applied yet.
    pub(super) unapplied: VecDeque<Entry>,
    /// Highest index that was handed to the caller to apply.
    pub(super) handed_out: LogIndex,
    /// The configurations in force since the last snapshot; the last one is in force.
    pub(super) configurations: Vec<Configuration>,
    /// Index of a membership entry that is in the log and not applied.
    pub(super) pending_membership: Option<LogIndex>,
    /// For which last entry and applied index `pending_membership` was found.
    pub(super) pending_of: Option<(u64, u64, u64)>,
    /// What was last reported in `After`.
    pub(super) standing: Option<Standing>,
    /// Ticks since this process started.
    pub(super) ticks: u64,
    /// The tick at which each member last said something to this leader.
    pub(super) answered: BTreeMap<VoterId, u64>,
    /// For how many ticks a follower has been waiting for a snapshot.
    pub(super) snapshot_waits: BTreeMap<u64, u32>,
}

impl Replica {
    /// Continues from what a store has loaded.
    ///
    /// # Errors
    /// [`StartError`] when a parameter is out of range.
    pub fn new(params: Params, loaded: Loaded) -> Result<Self, StartError> {
        let id = loaded.identity.voter;
        let start = loaded.snapshot.as_ref().map_or(LogIndex(0), |snapshot| snapshot.meta.last.index);
        let log = Log::new(&loaded);
        let first = Configuration {
            id: ConfigId {
                era: loaded.identity.era,
                index: loaded.snapshot.as_ref().map_or(LogIndex(0), |snapshot| snapshot.meta.config),
            },
            since: start,
            membership: log.membership(),
        };
        let config = raft_config(id, &params, start);
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = RawNode::new(&config, log, &logger).map_err(StartError::Raft)?;
        let mut replica = Self {
            jitter: Jitter::new(params.seed, id, timeouts(params.election_ticks)),
            courtesy: Courtesy::default(),
            reads: Reads::new(id, loaded.incarnation),
            node,
            id,
            era: loaded.identity.era,
            params,
            outstanding: VecDeque::new(),
            number: 0,
            durable_term: loaded.hard_state.term,
            incoming: None,
            installing: None,
            restored: start,
            compaction: None,
            unapplied: VecDeque::new(),
            handed_out: start,
            configurations: vec![first],
            pending_membership: None,
            pending_of: None,
            standing: None,
            ticks: 0,
            answered: BTreeMap::new(),
            snapshot_waits: BTreeMap::new(),
        };
        replica.settle();
        Ok(replica)
    }

    /// Takes a peer's message. `sender` is who brought it, by its certificate.
    ///
    /// # Errors
    /// [`BadMessage`] says why it was dropped; nothing changed. [`BadMessage::Forgotten`] is this voter's end.
    pub fn step(&mut self, sender: VoterId, message: Message) -> Result<(), BadMessage> {
        check(&self.node.raft, self.era, sender, &message)?;
        if matches!(message.body, Body::TakeOver) && !self.may_campaign() {
            return Err(BadMessage::NotNow);
        }
        // Nobody was asked for a vote before all of the log was durable; raft would lead with what isn't.
        let elects = matches!(message.body, Body::VoteAnswer { pre: false, granted: true, .. })
            && self.node.raft.state == StateRole::Candidate;
        let log = &self.node.raft.raft_log;
        if elects && (self.installing.is_some() || log.last_index() != log.persisted) {
            return Err(BadMessage::NotNow);
        }
        if self.gives_way(&message) {
            return Ok(());
        }
        // What raft refuses here is a proposal that it drops or a peer that it doesn't know; both were checked.
        let _ = self.node.step(convert::message_to_raft(&message));
        if self.is_leader() && self.node.raft.prs().get(sender.0).is_some() {
            self.answered.insert(sender, self.ticks);
        }
        if let Body::Snapshot(snapshot) = message.body
            && self.node.snap().is_some_and(|taken| convert::is_same_snapshot(taken, &snapshot.meta))
        {
            self.incoming = Some(snapshot);
        }
        self.settle();
        Ok(())
    }

    /// A tick has passed.
    pub fn tick(&mut self) {
        self.ticks += 1;
        if !self.is_leader() && !self.may_campaign() {
            return;
        }
        self.node.tick();
        self.stands_anew();
        self.retry_snapshots();
        self.leave_joint();
        self.settle();
    }

    /// Appends `data` to the log, if this voter leads.
    ///
    /// # Errors
    /// [`ProposeError`]; nothing was appended.
    pub fn propose(&mut self, data: Vec<u8>) -> Result<Proposed, ProposeError> {
        self.must_lead()?;
        if data.is_empty() || data.len() > ENTRY_BYTES_MAX {
            return Err(ProposeError::Size(data.len()));
        }
        let result = self.node.propose(Vec::new(), data);
        self.proposed(result)
    }

    /// Proposes a change of the membership: one step directly, several by way of a joint configuration, which the
    /// leader leaves by itself once it is applied.
    ///
    /// # Errors
    /// [`ProposeError`]; nothing was appended.
    pub fn propose_membership(&mut self, mut steps: Vec<MemberStep>) -> Result<Proposed, ProposeError> {
        let change =
            if steps.len() == 1 { MembershipChange::One(steps.remove(0)) } else { MembershipChange::Joint(steps) };
        self.propose_change(&change)
    }

    fn propose_change(&mut self, change: &MembershipChange) -> Result<Proposed, ProposeError> {
        self.must_lead()?;
        // raft would append an empty entry in the change's place, and say nothing.
        if self.node.raft.has_pending_conf() || self.pending_membership.is_some() {
            return Err(ProposeError::Pending);
        }
        membership::changed(&self.config().membership, change).map_err(ProposeError::Membership)?;
        let context = membership::encode_change(change).map_err(ProposeError::Membership)?;
        let result = self.node.propose_conf_change(context, membership::conf_change(change));
        self.proposed(result)
    }

    fn must_lead(&self) -> Result<(), ProposeError> {
        if self.is_leader() { Ok(()) } else { Err(ProposeError::NotLeader { leader: self.leader() }) }
    }

    fn proposed(&mut self, result: raft::Result<()>) -> Result<Proposed, ProposeError> {
        result.map_err(|_| ProposeError::Busy)?;
        self.settle();
        Ok(Proposed { index: self.last_index(), term: self.term() })
    }

    /// Starts a read. Its index comes in `After::reads`, unless it gets lost; then start another one after a while.
    ///
    /// # Errors
    /// [`ReadError`] when it would be lost for sure.
    pub fn read_index(&mut self) -> Result<ReadContext, ReadError> {
        if self.is_leader() && !self.node.raft.commit_to_current_term() {
            return Err(ReadError::NewLeader);
        }
        if self.leader().is_none() {
            return Err(ReadError::NoLeader);
        }
        if self.node.raft.pending_read_count() >= PENDING_READS_MAX {
            return Err(ReadError::TooMany);
        }
        let context = self.reads.open();
        self.node.read_index(context.to_bytes());
        self.settle();
        Ok(context)
    }

    /// Hands the leadership to another voter, as soon as that one has the whole log. Meanwhile proposals are refused;
    /// after an election timeout it is given up.
    ///
    /// # Errors
    /// [`TransferError`]; nothing changed.
    pub fn transfer_leader(&mut self, to: VoterId) -> Result<(), TransferError> {
        if !self.is_leader() {
            return Err(TransferError::NotLeader { leader: self.leader() });
        }
        if to == self.id {
            return Err(TransferError::AlreadyLeads(to));
        }
        if !self.node.raft.prs().conf().voters().contains(to.0) {
            return Err(TransferError::NotVoter(to));
        }
        self.node.transfer_leader(to.0);
        self.settle();
        Ok(())
    }

    /// Raises or lowers this voter's standing in elections from now on. A sick voter lowers it.
    pub fn set_priority(&mut self, priority: i64) {
        self.params.priority = priority;
        self.node.set_priority(votes_priority(priority));
    }

    /// The transport could not deliver to `peer`.
    pub fn report_unreachable(&mut self, peer: VoterId) {
        self.node.report_unreachable(peer.0);
        self.settle();
    }

    /// The transport is done with a snapshot for `peer`.
    pub fn report_snapshot(&mut self, peer: VoterId, delivery: Delivery) {
        let status = match delivery {
            Delivery::Done => SnapshotStatus::Finish,
            Delivery::Failed => SnapshotStatus::Failure,
        };
        self.snapshot_waits.remove(&peer.0);
        self.node.report_snapshot(peer.0, status);
        self.settle();
    }

    /// Whether this voter could stand for election now. raft would look for entries that a snapshot has replaced, or,
    /// as the only voter, lead with entries that are not durable yet.
    fn may_campaign(&self) -> bool {
        let raft = &self.node.raft;
        let all_durable = self.outstanding.is_empty() && raft.raft_log.last_index() == raft.raft_log.persisted;
        let decides_alone = raft.prs().has_quorum(&[raft.id].into_iter().collect());
        self.installing.is_none() && (all_durable || !decides_alone)
    }

    /// raft waits for ever for the answer to a snapshot that got lost without a report.
    fn retry_snapshots(&mut self) {
        let is_waiting = |progress: &raft::Progress| progress.state == raft::ProgressState::Snapshot;
        let raft = &self.node.raft;
        let mut waiting: Vec<u64> = Vec::new();
        if raft.state == StateRole::Leader {
            waiting = raft.prs().iter().filter(|(_, progress)| is_waiting(progress)).map(|(id, _)| *id).collect();
            waiting.sort_unstable();
        }
        self.snapshot_waits.retain(|id, _| waiting.contains(id));
        for id in waiting {
            let ticks = self.snapshot_waits.entry(id).or_default();
            *ticks += 1;
            if *ticks >= self.params.snapshot_retry_ticks {
                self.snapshot_waits.remove(&id);
                self.node.report_snapshot(id, SnapshotStatus::Failure);
            }
        }
    }

    /// Leaves an applied joint configuration. Whoever leads does, whoever proposed it; again until it is done.
    pub(super) fn leave_joint(&mut self) {
        if self.is_leader() && self.config().membership.is_joint() {
            // Refused while another entry of the kind is in the log: then that one is the leave.
            let _ = self.propose_change(&MembershipChange::Leave);
        }
    }
}

fn raft_config(id: VoterId, params: &Params, applied: LogIndex) -> raft::Config {
    raft::Config {
        id: id.0,
        election_tick: params.election_ticks,
        heartbeat_tick: params.heartbeat_ticks,
        applied: applied.0,
        max_size_per_msg: APPEND_BYTES_MAX as u64,
        max_inflight_msgs: INFLIGHT_MAX,
        check_quorum: true,
        pre_vote: true,
        min_election_tick: 0,
        max_election_tick: 0,
        read_only_option: ReadOnlyOption::Safe,
        skip_bcast_commit: false,
        // Batching ignores the limit on a message's size.
        batch_append: false,
        priority: votes_priority(params.priority),
        max_uncommitted_size: UNCOMMITTED_BYTES_MAX,
        max_committed_size_per_ready: COMMITTED_BYTES_MAX,
    }
}

/// What raft itself may know of the priority: nothing. It has a voter refuse one of a lower priority whose log is better but
/// not longer; if the voter's own log is worse, it can't win either, and two of three voters never elect anybody.
fn votes_priority(priority: i64) -> i64 {
    if crate::mutants::on("replica.withholds_votes") { priority } else { 0 }
}

impl std::fmt::Debug for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replica")
            .field("id", &self.id)
            .field("standing", &self.standing_now())
            .field("last", &self.last_index())
            .field("committed", &self.committed())
            .field("applied", &self.applied_index())
            .finish_non_exhaustive()
    }
}
