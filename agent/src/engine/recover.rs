//! A new era after a majority of voters was lost for ever (protocol §9): from what one voter's disk, or a backup, still
//! says to the state from which a cluster of one voter begins.
//!
//! ```text
//!   snapshot + every entry on the disk ─► replay ─┐
//!   backup ─► read_backup ────────────────────────┴─► begin ─► Founding of the new era
//! ```
//! Entries that were never known to be committed count, too: what a lost majority may have committed must not be
//! missing, and one that nobody committed can do no harm, because the era's first entry puts everything in doubt.
//!
//! Not here: looking for living voters, files, asking the person (`driver::runtime::recover`).

use super::log::{decode_entry, decode_ledger, decode_snapshot, encode_ledger};
use super::membership::FOUNDING_IDS_MAX;
use quorum::codec::{self, Blob};
use quorum::id::{AgentInstance, Era, GroupName, HostName, LogIndex, ProposalKey, SiteName, Term, VoterId};
use quorum::ledger::{AuditRecord, Command, Decision, Entry, EraBegun, Event, FreezeScope, Ledger, Position, Refusal};
use quorum::replica::wire::SNAPSHOT_BYTES_MAX;
use quorum::replica::{EntryKind, Snapshot, SnapshotMeta, membership};
use quorum::roster::{Membership, VoterInfo};
use quorum::storage::{Founding, Identity, Loaded};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Version of a [`Backup`].
const BACKUP_VERSION: u8 = 1;
/// A new era begins frozen for this long, unless a person thaws it before.
const FROZEN: Duration = Duration::from_secs(24 * 3_600);
/// A backup is a ledger and a few words around it.
const BACKUP_BYTES_MAX: usize = SNAPSHOT_BYTES_MAX + 1_024;

/// Why there is no new era. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// An entry or the snapshot was written by a newer release, or is damaged.
    #[error("read the ledger at index {index}: {source}; run the release that wrote it")]
    Unreadable {
        /// Where.
        index: LogIndex,
        /// Why.
        #[source]
        source: codec::DecodeError,
    },
    /// The voter had just joined and received nothing.
    #[error("find a cluster in this voter's store: it had received nothing yet")]
    Nothing,
    /// The ledger refuses the era.
    #[error("begin the era: {0}")]
    Refused(String),
    /// The ledger outgrew a snapshot.
    #[error("write the ledger")]
    TooLarge(#[source] codec::EncodeError),
    /// The backup belongs to another cluster.
    #[error("use this backup: it is of another cluster")]
    OtherCluster,
}

/// The ledger as it stands, to be kept outside the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// Which cluster.
    pub cluster: String,
    /// The era.
    pub era: Era,
    /// Up to which entry.
    pub index: LogIndex,
    /// The ledger.
    pub ledger: Blob,
}

/// Writes a backup.
///
/// # Errors
/// [`RecoverError::TooLarge`].
pub fn backup(cluster: &str, ledger: &Ledger) -> Result<Vec<u8>, RecoverError> {
    let bytes = encode_ledger(ledger).map_err(RecoverError::TooLarge)?;
    let backup =
        Backup { cluster: cluster.to_owned(), era: ledger.era(), index: ledger.applied(), ledger: Blob::from(bytes) };
    codec::encode(BACKUP_VERSION, &backup, BACKUP_BYTES_MAX).map_err(RecoverError::TooLarge)
}

/// Reads a backup of `cluster`.
///
/// # Errors
/// [`RecoverError`] for anything else.
pub fn read_backup(cluster: &str, bytes: &[u8]) -> Result<Ledger, RecoverError> {
    let unreadable = |source| RecoverError::Unreadable { index: LogIndex(0), source };
    let backup: Backup = codec::decode(BACKUP_VERSION, bytes, BACKUP_BYTES_MAX).map_err(unreadable)?;
    if backup.cluster != cluster {
        return Err(RecoverError::OtherCluster);
    }
    let index = backup.index;
    decode_ledger(&backup.ledger).map_err(|source| RecoverError::Unreadable { index, source })
}

/// Everything that a voter's disk says, committed or not.
///
/// # Errors
/// [`RecoverError::Unreadable`] when a part of it can't be decoded: nothing is skipped.
pub fn replay(loaded: &Loaded) -> Result<Ledger, RecoverError> {
    let snapshot = loaded.snapshot.as_ref().ok_or(RecoverError::Nothing)?;
    let at = snapshot.meta.last.index;
    let unreadable = |index| move |source| RecoverError::Unreadable { index, source };
    let mut ledger = decode_snapshot(snapshot).map_err(unreadable(at))?;
    for entry in loaded.entries.iter().filter(|entry| entry.index > at) {
        if entry.term < ledger.position().term {
            let falls = codec::DecodeError::Impossible("it is of an earlier term than the entry before it");
            return Err(unreadable(entry.index)(falls));
        }
        let position = Position { index: entry.index, term: entry.term };
        match &entry.kind {
            EntryKind::Empty => drop(ledger.apply_empty(position)),
            EntryKind::Normal(data) => {
                let entry = decode_entry(data).map_err(unreadable(entry.index))?;
                let _applied = ledger.apply(position, &entry);
            }
            EntryKind::Membership(change) => match membership::changed(ledger.membership(), change) {
                Ok(members) => drop(ledger.apply_membership(position, members)),
                Err(_) => drop(ledger.apply_empty(position)),
            },
        }
    }
    Ok(ledger)
}

/// What a person says of the lost majority.
#[derive(Clone, Debug)]
pub struct Recovery {
    /// The cluster's identity in stores.
    pub cluster: [u8; 16],
    /// The one host that votes in the new era.
    pub host: HostName,
    /// Its site.
    pub site: SiteName,
    /// Its vote of the older era, if it is a survivor.
    pub survivor: Option<VoterId>,
    /// Voters of the older era that were looked for and didn't answer.
    pub unreachable: Vec<VoterId>,
    /// Machines that may run a group, beyond those that the ledger names.
    pub places: BTreeMap<GroupName, Vec<HostName>>,
    /// An era that must lie behind: the largest that anybody has seen.
    pub above: Era,
    /// Drawn for this recovery.
    pub instance: AgentInstance,
    /// The wall clock, for people.
    pub wall_ms: u64,
    /// Who and why.
    pub by: Decision,
}

/// The new era's beginning: its ledger, and the store's founding.
#[derive(Debug)]
pub struct Begun {
    /// The era.
    pub era: Era,
    /// The one voter.
    pub voter: VoterId,
    /// What the store begins with.
    pub founding: Founding,
    /// The state at its first entries.
    pub ledger: Ledger,
    /// The freeze under which it begins.
    pub freeze: LogIndex,
    /// Its first records of the audit trail: nobody applies these entries once more and writes them down.
    pub audited: Vec<AuditRecord>,
}

/// Begins a new era: its first entry, a freeze, and a configuration of one voter under a new id.
///
/// # Errors
/// [`RecoverError::Refused`] with the ledger's own reason, e.g. while a majority lives.
pub fn begin(mut ledger: Ledger, recovery: &Recovery) -> Result<Begun, RecoverError> {
    let newest = ledger.era().max(recovery.above).0;
    let era = newest.checked_add(1).map(Era).ok_or_else(|| RecoverError::Refused("no era is left".to_owned()))?;
    let last = ledger.position();
    let at = |n: u64| Position { index: LogIndex(last.index.0 + n), term: Term(last.term.0 + 1) };
    let command = Command::EraBegun(EraBegun {
        era,
        places: recovery.places.clone(),
        unreachable: recovery.unreachable.clone(),
        survivors: recovery.survivor.into_iter().collect(),
        by: recovery.by.clone(),
    });
    // Nothing moves by itself until a person has looked at what the new era knows.
    let mut by = recovery.by.clone();
    by.reason = format!("era {era} began: {}", by.reason);
    let freeze = Command::Freeze { scope: FreezeScope::Cluster, span: FROZEN, hold_activation: false, by };
    let instance = recovery.instance.0;
    let mut second = instance;
    second[0] ^= 1;
    let mut audited = Vec::new();
    for (n, key, command) in [(1, instance, command), (2, second, freeze)] {
        let (proposer, wall_ms) = (recovery.host.clone(), recovery.wall_ms);
        let entry = Entry { key: ProposalKey(key), proposer, era, wall_ms, command };
        let applied = ledger.apply(at(n), &entry);
        applied.outcome.map_err(|refusal: Refusal| RecoverError::Refused(refusal.to_string()))?;
        audited.extend(applied.events.into_iter().filter_map(|event| {
            let Event::Audited { record } = event else { return None };
            Some(record)
        }));
    }
    let voter = VoterId(FOUNDING_IDS_MAX + at(3).index.0);
    let info = VoterInfo { id: voter, host: recovery.host.clone(), site: recovery.site.clone() };
    let membership = Membership { voters: BTreeMap::from([(voter, info)]), ..Membership::default() };
    let _events = ledger.apply_membership(at(3), membership.clone());
    let data = encode_ledger(&ledger).map_err(RecoverError::TooLarge)?;
    let last = quorum::replica::Position { index: at(3).index, term: at(3).term };
    let genesis = Snapshot { meta: SnapshotMeta { last, config: last.index, membership }, data: Blob::from(data) };
    let identity = Identity { cluster: recovery.cluster, era, voter };
    let founding = Founding { identity, genesis: Some(genesis) };
    Ok(Begun { era, voter, founding, ledger, freeze: at(2).index, audited })
}
