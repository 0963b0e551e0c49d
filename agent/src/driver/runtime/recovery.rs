//! `quorum recover` and `quorum restore`: break glass for a lost majority, with the agent stopped.
//!
//! Looks for every voter of the older era first: one that answers with its vote forbids it. Then the new era's store is
//! written beside the old one and put in its place in one step; the old one is kept under another name.

use super::audit::AuditTrail;
use super::start::{RunError, cluster_id, in_folder, now, transport_config};
use super::store::{self, Disk};
use crate::config::AgentConfig;
use crate::driver::transport::{Channel, Transport, TransportEvent};
use crate::engine::{self, Begun, Message, RecoverError, Recovery, Standing};
use quorum::id::{AgentInstance, Era, GroupName, HostName, VoterId};
use quorum::ledger::{Decision, Ledger};
use quorum::roster::ConfigId;
use quorum::storage::{FileStore, LogStore, StorageError};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Voters are asked again this often while they are looked for.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// What a person asks for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Begin from this backup instead of the store.
    pub backup: Option<PathBuf>,
    /// Machines that may run a group, beyond those that the ledger names.
    pub places: BTreeMap<GroupName, Vec<HostName>>,
    /// How long the other voters are looked for.
    pub look_for: Duration,
    /// Only say what would be done.
    pub dry_run: bool,
    /// Who and why.
    pub by: Decision,
}

/// What was done, or would be.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// The new era.
    pub era: Era,
    /// The one voter's id.
    pub voter: VoterId,
    /// The newest entry that the new era knows of the older one.
    pub index: u64,
    /// Groups whose start now needs a person's acceptance of loss.
    pub groups: Vec<GroupName>,
    /// Hosts of the older voters: they must be wiped of their votes, and are added again.
    pub others: Vec<HostName>,
    /// The freeze under which the era begins, as `antipode thaw` wants it named.
    pub freeze: u64,
}

/// Why not.
#[derive(Debug, thiserror::Error)]
pub enum NotRecovered {
    /// Another voter lives: the majority may, too.
    #[error("voter {voter} on {host} answers (era {era}): the quorum may still form")]
    Reachable {
        /// Which.
        voter: VoterId,
        /// Where.
        host: HostName,
        /// Of which era.
        era: Era,
    },
    /// The store can't be used, e.g. because the agent still runs.
    #[error("open this voter's store")]
    Store(#[from] StorageError),
    /// Its content can't be.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// Files, sockets, certificates.
    #[error(transparent)]
    Run(#[from] RunError),
    /// This host isn't a host that the ledger knows a site for.
    #[error("this host votes nowhere: recover on a voter, or restore a backup of its cluster")]
    NoVote,
}

/// Begins a new era on this host.
///
/// # Errors
/// [`NotRecovered`]; nothing was changed.
pub async fn recover(config: &AgentConfig, asked: &Asked) -> Result<Recovered, NotRecovered> {
    let dir = &config.data_dir;
    let Known { ledger, survivor, held } = known(config, asked)?;
    let members = ledger.membership();
    let others: Vec<(VoterId, HostName)> = members
        .all_voters()
        .filter(|voter| Some(voter.id) != survivor && voter.host != config.host)
        .map(|voter| (voter.id, voter.host.clone()))
        .collect();
    let above = look_for(config, &others, &ledger, asked.look_for).await?;
    let mut instance = [0; 16];
    rustix::rand::getrandom(&mut instance, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| RunError::File { doing: "draw an id".into(), source: error.into() })?;
    let unreachable = members.all_voters().map(|voter| voter.id).filter(|id| Some(*id) != survivor).collect();
    let recovery = Recovery {
        cluster: cluster_id(&config.cluster),
        host: config.host.clone(),
        site: config.site.clone(),
        survivor,
        unreachable,
        places: asked.places.clone(),
        above,
        instance: AgentInstance(instance),
        wall_ms: now().wall_ms,
        by: asked.by.clone(),
    };
    let index = ledger.applied().0;
    let begun = engine::begin_era(ledger, &recovery)?;
    let recovered = Recovered {
        era: begun.era,
        voter: begun.voter,
        index,
        groups: begun.ledger.groups().keys().cloned().collect(),
        others: others.into_iter().map(|(_, host)| host).collect(),
        freeze: begun.freeze.0,
    };
    if !asked.dry_run {
        let audited = begun.audited.clone();
        replace_store(dir, held, begun)?;
        let mut trail = AuditTrail::open(dir).map_err(in_folder(dir))?;
        for record in &audited {
            trail.append(record);
        }
    }
    Ok(recovered)
}

/// What is known of the older era.
struct Known {
    /// The ledger as the store or the backup has it.
    ledger: Ledger,
    /// This host's vote in it, if it survives with its memory.
    survivor: Option<VoterId>,
    /// The vote that ends here, whatever is known of it.
    held: Option<VoterId>,
}

fn known(config: &AgentConfig, asked: &Asked) -> Result<Known, NotRecovered> {
    let dir = &config.data_dir;
    let ended = store::ended_votes(dir).map_err(in_folder(dir))?;
    let founding = config.voter.as_ref().map(|voter| voter.id);
    // Without a store of its own the founding vote still ends: founded again, it would be of an era that is over.
    let presumed = store::whose(founding, &ended);
    let has_store = store::store_in(dir).exists();
    if let Some(file) = &asked.backup {
        let bytes = std::fs::read(file)
            .map_err(|source| RunError::File { doing: format!("read {}", file.display()), source })?;
        // Opened to see that no agent uses it.
        let held = match has_store.then(|| Disk::open(dir, None).map(|disk| disk.loaded.identity.voter)) {
            Some(Err(error @ StorageError::InUse(_))) => return Err(error.into()),
            Some(Ok(voter)) => Some(voter),
            Some(Err(_)) | None => presumed,
        };
        return Ok(Known { ledger: engine::read_backup(&config.cluster, &bytes)?, survivor: None, held });
    }
    if !has_store {
        return Err(NotRecovered::NoVote);
    }
    let disk = Disk::open(dir, None)?;
    let ledger = engine::replay(&disk.loaded)?;
    let survivor = Some(disk.loaded.identity.voter);
    Ok(Known { ledger, survivor, held: survivor })
}

/// Asks every other voter, for a while, whether it has its vote. Returns the newest era that anybody spoke of.
async fn look_for(
    config: &AgentConfig,
    others: &[(VoterId, HostName)],
    ledger: &Ledger,
    span: Duration,
) -> Result<Era, NotRecovered> {
    let (events, mut incoming) = mpsc::channel(1_024);
    let transport = Transport::start(transport_config(config)?, events).map_err(RunError::from)?;
    let until = Instant::now() + span;
    let mut asks = tokio::time::interval(ASK_EVERY);
    let mut newest = ledger.era();
    let question = question(ledger.era())?;
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(until) => return Ok(newest),
            _ = asks.tick() => {
                for (_, host) in others {
                    // Not connected: that is what is being found out.
                    let _not_connected = transport.send_message(host, Channel(1), question.clone().into());
                }
            }
            event = incoming.recv() => {
                let Some(event) = event else { return Ok(newest) };
                let TransportEvent::Message { from, bytes, .. } = event else { continue };
                let Ok(Message::Standing(standing)) = engine::decode(&bytes) else { continue };
                newest = newest.max(standing.era);
                if let Some((voter, _)) = standing.voter {
                    return Err(NotRecovered::Reachable { voter, host: from, era: standing.era });
                }
            }
        }
    }
}

fn question(era: Era) -> Result<Vec<u8>, NotRecovered> {
    let standing =
        Standing { era, voter: None, of_you: None, config: ConfigId::default(), members: Vec::new(), asks: true };
    let encoded = engine::encode(&Message::Standing(standing));
    Ok(encoded.map_err(|error| RunError::Config(format!("encode a question: {error}")))?)
}

/// A crash leaves the old store or the new one, never none and never both.
fn replace_store(dir: &std::path::Path, held: Option<VoterId>, begun: Begun) -> Result<(), NotRecovered> {
    let new = dir.join("voter.redb.era");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(in_folder(dir)(error).into()),
        Ok(()) | Err(_) => {}
    }
    let mut store = FileStore::at(&new)?;
    store.found(begun.founding)?;
    drop(store);
    store::keep_aside(dir, held).map_err(in_folder(dir))?;
    let put = std::fs::rename(&new, store::store_in(dir));
    put.and_then(|()| std::fs::File::open(dir)?.sync_all()).map_err(in_folder(dir))?;
    Ok(())
}
