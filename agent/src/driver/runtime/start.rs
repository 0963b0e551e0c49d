//! Starting the agent: identity, disk, transport, keeper, admin, then the loop.

use super::audit::AuditTrail;
use super::beside::Beside;
use super::generation::{AtStart, Generation};
use super::journal::Journal;
use super::keeper::KeeperEnd;
use super::peers::peers;
use super::step::{Incoming, Loop, Votes};
use super::store::{self, Disk, DiskThread};
use crate::admin;
use crate::config::AgentConfig;
use crate::driver::clock;
use crate::driver::fence::FenceDriver;
use crate::driver::transport::{Limits, Transport, TransportConfig, TransportError};
use crate::engine::{Engine, Identity, Now, Setup, Vote};
use crate::metrics::Metrics;
use crate::pki::files::IdentityFiles;
use quorum::codec::Blob;
use quorum::id::{AgentInstance, ClusterName, Era, HardwareId, HostName, LogIndex, SiteName, Term, VoterId};
use quorum::ledger::Ledger;
use quorum::replica::{Params, Position, Replica, Snapshot, SnapshotMeta};
use quorum::roster::{Membership, VoterInfo};
use quorum::storage::{Founding, Identity as StoreIdentity, StorageError};
use quorum::timing::{Measured, Timing};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Inputs that may wait for the engine; beyond it beats are dropped, oldest first, by the transport.
const INBOX: usize = 4_096;

/// Why the agent didn't start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A folder or file can't be used.
    #[error("{doing}")]
    File {
        /// What was being done.
        doing: String,
        /// What the operating system says.
        #[source]
        source: std::io::Error,
    },
    /// The voter's store.
    #[error("open the voter's store")]
    Store(#[from] quorum::storage::StorageError),
    /// Raft.
    #[error("start the voter")]
    Raft(#[from] quorum::replica::StartError),
    /// Sockets or certificates.
    #[error("start the transport")]
    Transport(#[from] TransportError),
    /// The fencing journal.
    #[error("start the fence driver")]
    Fencing(#[from] fencing::executor::StartError),
    /// The configuration names something impossible.
    #[error("{0}")]
    Config(String),
    /// The engine asked for an end.
    #[error("the agent ended itself: {0}")]
    Halted(String),
}

/// Runs the agent until it is told to end.
///
/// # Errors
/// [`RunError`]; protected groups go on under the keeper until the lease ends.
pub async fn run(config: AgentConfig) -> Result<(), RunError> {
    for dir in [&config.data_dir, &config.run_dir] {
        std::fs::create_dir_all(dir)
            .map_err(|source| RunError::File { doing: format!("create {}", dir.display()), source })?;
    }
    let (inbox, incoming) = mpsc::channel(INBOX);
    let identity = identity(&config)?;
    let now = now();
    let (disk, generation) = open_disk(&config)?;
    let voting = disk.as_ref().map(|disk| voter(&config, disk, identity.agent)).transpose()?;
    let ended_votes = store::ended_votes(&config.data_dir).map_err(in_folder(&config.data_dir))?;
    let (events, transport_events) = mpsc::channel(INBOX);
    let transport = Transport::start(transport_config(&config)?, events)?;
    let agent = identity.agent;
    let setup = Setup { identity, peers: seeds(&config), timing: first_timing(), voting, ended_votes };
    let journal = Journal::open(&config.data_dir, config.host.clone())
        .map_err(|source| RunError::File { doing: "open the event journal".into(), source })?;
    let threads = |source| RunError::File { doing: "start threads".into(), source };
    let beside = Beside::start().map_err(threads)?;
    let entered = beside.enter();
    let fence = FenceDriver::start(&config.data_dir.join("fencing"), inbox.clone())?;
    let audit = AuditTrail::open(&config.data_dir)
        .map_err(|source| RunError::File { doing: "open the audit trail".into(), source })?;
    let (ask, asked) = mpsc::channel(64);
    let ask_too = ask.clone();
    let metrics = Arc::new(Metrics::new());
    let _admin = admin::serve(&config, ask, (fence.handle(), Arc::clone(&metrics)))
        .map_err(|source| RunError::File { doing: "open the admin socket".into(), source })?;
    forward_requests(asked, inbox.clone());
    if let Some(notify) = config.notify.clone() {
        super::notify::start(notify, config.host.clone(), ask_too);
    }
    drop(entered);
    let writes = disk.map(|disk| start_disk(disk, &inbox, 0));
    let keeper = config.keeper.clone().map(KeeperEnd::new);
    let engine = Engine::new(now, setup);
    let votes = Votes { agent, writes, number: 0, generation };
    let from = (transport_events, incoming);
    Loop { engine, config, transport, from, inbox, votes, keeper, journal, audit, metrics, fence, beside }.run().await
}

/// What people ask goes through the same inbox as everything else.
fn forward_requests(mut asked: mpsc::Receiver<admin::Asked>, inbox: mpsc::Sender<Incoming>) {
    tokio::spawn(async move {
        while let Some(asked) = asked.recv().await {
            if inbox.send(Incoming::Asked(asked)).await.is_err() {
                return;
            }
        }
    });
}

/// Both clocks and the wall.
pub(super) fn now() -> Now {
    let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Now { moment: clock::now(), wall_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX) }
}

fn identity(config: &AgentConfig) -> Result<Identity, RunError> {
    let mut instance = [0; 16];
    rustix::rand::getrandom(&mut instance, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| RunError::File { doing: "draw an instance id".into(), source: error.into() })?;
    Ok(Identity {
        host: config.host.clone(),
        site: config.site.clone(),
        boot: clock::boot_id().map_err(|error| RunError::Config(error.to_string()))?,
        hardware: hardware(config)?,
        agent: AgentInstance(instance),
    })
}

/// What makes this machine this machine. Where the firmware says nothing, the operating system's machine id and the
/// host's name stand in for it: less, because a copied disk has them too.
fn hardware(config: &AgentConfig) -> Result<HardwareId, RunError> {
    if let Ok(id) = clock::hardware_id() {
        return Ok(id);
    }
    let machine = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    clock::hardware_id_of(&[machine.trim(), config.host.as_str()])
        .ok_or_else(|| RunError::Config("this machine has neither a hardware identity nor a machine id".into()))
}

/// Time spans before the cluster exists: those of the fastest watchdog at 80 ms.
fn first_timing() -> Timing {
    Timing::derive(Measured::new(Duration::from_millis(1_100), Duration::from_millis(80)))
}

fn seeds(config: &AgentConfig) -> BTreeMap<HostName, SiteName> {
    config.peers.iter().map(|peer| (peer.host.clone(), peer.site.clone())).collect()
}

/// What every founding voter begins from: the same membership, an empty ledger.
fn founding(config: &AgentConfig) -> Result<Founding, RunError> {
    let own = config.voter.as_ref().ok_or_else(|| RunError::Config("this host does not vote".into()))?;
    let mut voters: BTreeMap<VoterId, VoterInfo> = BTreeMap::new();
    voters.insert(own.id, VoterInfo { id: own.id, host: config.host.clone(), site: config.site.clone() });
    for peer in &config.peers {
        if let Some(id) = peer.voter {
            let info = VoterInfo { id, host: peer.host.clone(), site: peer.site.clone() };
            if voters.insert(id, info).is_some() {
                return Err(RunError::Config(format!("voter id {id} is given twice in agent.toml")));
            }
        }
    }
    let membership = Membership { voters, ..Membership::default() };
    let first = quorum::ledger::Position { index: LogIndex(1), term: Term(1) };
    let mut ledger = Ledger::new();
    let _events = ledger.apply_membership(first, membership.clone());
    let data = crate::engine::encode_ledger(&ledger)
        .map_err(|error| RunError::Config(format!("encode the first ledger: {error}")))?;
    let last = Position { index: first.index, term: first.term };
    Ok(Founding {
        identity: StoreIdentity { cluster: cluster_id(&config.cluster), era: Era(1), voter: own.id },
        genesis: Some(Snapshot {
            meta: SnapshotMeta { last, config: first.index, membership },
            data: Blob::from(data),
        }),
    })
}

pub(super) fn cluster_id(name: &str) -> [u8; 16] {
    use sha2::Digest;
    let digest = sha2::Sha256::digest(name.as_bytes());
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    id
}

/// The store of this host's vote, if it has one: founded with the cluster, or when it was added. One that may have
/// forgotten something is put aside: the host then comes back under a new id (protocol §2).
fn open_disk(config: &AgentConfig) -> Result<(Option<Disk>, Option<Generation>), RunError> {
    let dir = &config.data_dir;
    let named = config.voter.as_ref().and_then(|voter| voter.generation_id.as_deref());
    let generation = Generation::at_start(dir, named)
        .map_err(|source| RunError::File { doing: "read the machine's generation id".into(), source })?;
    let founding_id = config.voter.as_ref().map(|voter| voter.id);
    let mut ended = store::ended_votes(dir).map_err(in_folder(dir))?;
    if let Some((generation, found)) = &generation {
        if *found == AtStart::Changed && store::store_in(dir).exists() {
            let held = Disk::open(dir, None).map(|disk| disk.loaded.identity.voter).ok();
            let id = held.or_else(|| store::whose(founding_id, &ended));
            tracing::error!(voter = ?id, "this machine was rolled back or copied: its vote ends");
            store::put_aside(dir, id).map_err(in_folder(dir))?;
            ended.extend(id);
        }
        generation.keep(dir).map_err(in_folder(dir))?;
    }
    let generation = generation.map(|(generation, _)| generation);
    let may_found = founding_id.is_some_and(|id| !ended.contains(&id));
    if !store::store_in(dir).exists() && !may_found {
        return Ok((None, generation));
    }
    let founding = may_found.then(|| founding(config)).transpose()?;
    match Disk::open(dir, founding) {
        Ok(disk) => Ok((Some(disk), generation)),
        Err(StorageError::Empty) => Ok((None, generation)),
        Err(error @ (StorageError::Damaged { .. } | StorageError::Forgotten { .. })) => {
            let id = store::whose(founding_id, &ended);
            tracing::error!(voter = ?id, %error, "the store is put aside: this host asks for a vote under a new id");
            store::put_aside(dir, id).map_err(in_folder(dir))?;
            Ok((None, generation))
        }
        Err(error) => Err(error.into()),
    }
}

pub(super) fn in_folder(dir: &std::path::Path) -> impl Fn(std::io::Error) -> RunError {
    move |source| RunError::File { doing: format!("use the voter's files in {}", dir.display()), source }
}

/// An empty store for a host that was made a member.
pub(super) fn join(
    config: &AgentConfig,
    (voter_id, era): (VoterId, Era),
    agent: AgentInstance,
) -> Result<(Disk, Vote), RunError> {
    let dir = &config.data_dir;
    if store::store_in(dir).exists() {
        let held = Disk::open(dir, None).map(|disk| disk.loaded.identity);
        if !held.as_ref().is_ok_and(|held| held.voter == voter_id && held.era == era) {
            store::put_aside(dir, held.map(|held| held.voter).ok()).map_err(in_folder(dir))?;
        }
    }
    let identity = StoreIdentity { cluster: cluster_id(&config.cluster), era, voter: voter_id };
    let disk = Disk::open(dir, Some(Founding { identity, genesis: None }))?;
    let vote = voter(config, &disk, agent)?;
    Ok((disk, vote))
}

fn voter(config: &AgentConfig, disk: &Disk, agent: AgentInstance) -> Result<Vote, RunError> {
    let ledger = match &disk.loaded.snapshot {
        Some(snapshot) => crate::engine::decode_snapshot(snapshot)
            .map_err(|error| RunError::Config(format!("read the ledger in the voter's store: {error}")))?,
        None => Ledger::new(),
    };
    let prefers = config.voter.as_ref().is_some_and(|voter| voter.prefer_leader);
    let seed = u64::from_le_bytes(agent.0[..8].try_into().unwrap_or_default());
    let params = Params { seed, priority: i64::from(prefers), ..Params::default() };
    Ok(Vote {
        replica: Replica::new(params, disk.loaded.clone())?,
        ledger,
        seen: disk.loaded.seen(),
        // One that joins has no members of its own to hear; its leader speaks to it first.
        is_new: disk.is_new && disk.loaded.snapshot.is_some(),
        remembered: disk.remembered.clone(),
    })
}

pub(super) fn transport_config(config: &AgentConfig) -> Result<TransportConfig, RunError> {
    let cluster = ClusterName::new(&config.cluster).map_err(|error| RunError::Config(error.to_string()))?;
    Ok(TransportConfig {
        cluster,
        host: config.host.clone(),
        listen: config.listen.clone(),
        peers: peers(config, None),
        identity: identity_files(config),
        limits: Limits::default(),
    })
}

/// This host's certificate and whom it trusts.
pub(super) fn identity_files(config: &AgentConfig) -> IdentityFiles {
    IdentityFiles {
        authorities: config.tls.ca.clone(),
        certificate: config.tls.cert.clone(),
        key: config.tls.key.clone(),
        crl: config.tls.crl.clone(),
    }
}

pub(super) fn start_disk(disk: Disk, inbox: &mpsc::Sender<Incoming>, number: u64) -> DiskThread {
    let (done, failed) = (inbox.clone(), inbox.clone());
    disk.start(
        move |persisted| {
            let _gone = done.blocking_send(Incoming::Persisted(number, persisted));
        },
        move |error| {
            let _gone = failed.blocking_send(Incoming::DiskFailed(error.to_string()));
        },
    )
}
