//! One simulated host: power, clock, disk, keeper, engine, places.

use super::clock::Clock;
use super::disk::{SimDisk, SimStore};
use super::keeper::SimKeeper;
use super::place::Place;
use super::watch::Point;
use crate::engine::{Engine, Identity, KeeperOrder, Now, Setup, Work, WorkId, decode_ledger, encode_ledger};
use quorum::codec::Blob;
use quorum::id::{
    AgentInstance, BootId, Era, GroupName, HardwareId, HostEpoch, HostName, LogIndex, SiteName, Term, VoterId,
};
use quorum::ledger::{Class, Ledger};
use quorum::moment::Moment;
use quorum::replica::{Params, Position, Replica, Snapshot, SnapshotMeta};
use quorum::roster::Membership;
use quorum::storage::{Founding, Identity as StoreIdentity, StorageError};
use quorum::timing::Timing;
use std::collections::BTreeMap;
use std::time::Duration;

/// What a host is made from and keeps for ever.
#[derive(Clone, Debug)]
pub(super) struct HostSpec {
    pub(super) name: HostName,
    pub(super) site: SiteName,
    pub(super) voter: Option<VoterId>,
    pub(super) class: Class,
    pub(super) rate_ppm: i64,
    pub(super) prefers_lead: bool,
    /// How far its wall clock is off, in milliseconds.
    pub(super) wall_off_ms: i64,
}

/// What every boot needs to know of the cluster.
#[derive(Clone, Debug)]
pub(super) struct Founded {
    pub(super) membership: Membership,
    pub(super) peers: BTreeMap<HostName, SiteName>,
    pub(super) timing: Timing,
}

/// What lives from power-on to power-off.
pub(super) struct Boot {
    pub(super) id: BootId,
    pub(super) clock: Clock,
    pub(super) keeper: Option<SimKeeper>,
    /// What a keeper that ended left for the next one: the record and its latch.
    pub(super) left: Option<(Option<KeeperOrder>, HostEpoch)>,
    pub(super) agent: Option<Agent>,
    /// Real time of the last pet; the watchdog counts from it. `None` until the first.
    pub(super) petted_ns: Option<u64>,
    /// How long this watchdog takes to fire after the last pet: W or less.
    pub(super) bite_ns: u64,
    pub(super) is_dog_awaited: bool,
    /// Nothing in the protected slice executes.
    pub(super) slice_frozen: bool,
    /// The whole host is suspended.
    pub(super) is_asleep: bool,
    /// Counts the keeper processes of this boot.
    pub(super) keepers: u64,
    /// Counts boots, so that events of an earlier one are told apart.
    pub(super) number: u64,
}

/// The agent process.
pub(super) struct Agent {
    pub(super) engine: Engine,
    pub(super) store: Option<SimStore>,
    /// Counts processes of the host, so that events of an earlier one are told apart.
    pub(super) number: u64,
    pub(super) work: BTreeMap<WorkId, (GroupName, Work)>,
    /// Real time of the next wake; wakes for any other time are overtaken.
    pub(super) wake_ns: u64,
    /// Stopped until this real time: what happens to it meanwhile happens then.
    pub(super) paused_until: u64,
}

/// Why the agent's process ended at its start.
pub(super) enum NoStart {
    /// The disk failed: the service manager tries again.
    Disk(String),
    /// The store is damaged or has forgotten something: it refuses for ever.
    Refused(String),
}

impl From<StorageError> for NoStart {
    fn from(error: StorageError) -> Self {
        let text = error.to_string();
        match error {
            StorageError::Io { .. } | StorageError::Full { .. } | StorageError::Poisoned | StorageError::InUse(_) => {
                Self::Disk(text)
            }
            StorageError::Damaged { .. }
            | StorageError::Forgotten { .. }
            | StorageError::NewerVersion(_)
            | StorageError::Empty
            | StorageError::Taken(_) => Self::Refused(text),
        }
    }
}

impl NoStart {
    fn refused(error: impl ToString) -> Self {
        Self::Refused(error.to_string())
    }
}

/// A host.
pub struct SimHost {
    pub(super) spec: HostSpec,
    pub(super) disk: SimDisk,
    /// No flush ends before this real time.
    pub(super) stalled_until: u64,
    /// When the last write that it was given will be flushed.
    pub(super) flushes_until: u64,
    /// Why its voter's store can't be used any more.
    pub(super) spoiled: Option<String>,
    /// Its power goes with the next write that fails.
    pub(super) torn: bool,
    /// Where a process of it is to be stopped once, and for how long.
    pub(super) stops: BTreeMap<Point, Duration>,
    /// Groups here.
    pub places: BTreeMap<GroupName, Place>,
    pub(super) boot: Option<Boot>,
    pub(super) boots: u64,
    pub(super) processes: u64,
}

impl SimHost {
    pub(super) fn new(spec: HostSpec, disk: SimDisk) -> Self {
        Self {
            spec,
            disk,
            stalled_until: 0,
            flushes_until: 0,
            spoiled: None,
            torn: false,
            stops: BTreeMap::new(),
            places: BTreeMap::new(),
            boot: None,
            boots: 0,
            processes: 0,
        }
    }

    /// What its wall clock reads.
    pub(super) fn wall_ms(&self, real_ns: u64) -> u64 {
        (real_ns / 1_000_000).saturating_add_signed(self.spec.wall_off_ms)
    }

    pub(super) fn engine_mut(&mut self) -> Option<&mut Engine> {
        Some(&mut self.boot.as_mut()?.agent.as_mut()?.engine)
    }

    /// Whether it has power.
    pub fn is_powered(&self) -> bool {
        self.boot.is_some()
    }

    /// Its site.
    pub fn site(&self) -> &SiteName {
        &self.spec.site
    }

    /// Why its voter's store can't be used any more, if that is so: a person must replace the voter.
    pub fn spoiled(&self) -> Option<&str> {
        self.spoiled.as_deref()
    }

    /// The agent's engine, if it runs.
    pub fn engine(&self) -> Option<&Engine> {
        Some(&self.boot.as_ref()?.agent.as_ref()?.engine)
    }

    pub(super) fn hardware(&self) -> HardwareId {
        let mut bytes = [0; 16];
        let name = self.spec.name.as_str().as_bytes();
        let len = name.len().min(16);
        bytes[..len].copy_from_slice(&name[..len]);
        HardwareId(bytes)
    }

    /// What the host's clocks read; `None` without power.
    pub(super) fn read(&self, real_ns: u64) -> Option<Moment> {
        Some(self.boot.as_ref()?.clock.read(real_ns))
    }

    /// Starts the agent process from what is on its disk and says up to where its log goes, or why the voter's store refuses.
    pub(super) fn start_agent(&mut self, now: Now, instance: AgentInstance, founded: &Founded) -> Result<u64, NoStart> {
        self.processes += 1;
        let number = self.processes;
        let Some(boot) = &self.boot else { return Ok(0) };
        let identity = Identity {
            host: self.spec.name.clone(),
            site: self.spec.site.clone(),
            boot: boot.id,
            hardware: self.hardware(),
            agent: instance,
            voter: self.spec.voter,
        };
        let mut store = match self.spec.voter {
            Some(voter) => Some(self.disk.open(&founding(voter, founded))?),
            None => None,
        };
        let (mut voting, mut last) = (None, 0);
        if let Some(store) = &mut store {
            let loaded = store.load()?;
            last = loaded.last().index.0;
            let snapshot = loaded.snapshot.as_ref().ok_or_else(|| NoStart::refused("the store has no snapshot"))?;
            let ledger = decode_ledger(&snapshot.data).map_err(NoStart::refused)?;
            let seed = u64::from_le_bytes(instance.0[..8].try_into().unwrap_or_default());
            let params = Params { seed, priority: i64::from(self.spec.prefers_lead), ..Params::default() };
            let replica = Replica::new(params, loaded).map_err(NoStart::refused)?;
            voting = Some((replica, ledger));
        }
        let peers = founded.peers.iter().filter(|(name, _)| **name != self.spec.name);
        let peers = peers.map(|(name, site)| (name.clone(), site.clone())).collect();
        let setup = Setup { identity, peers, timing: founded.timing.clone(), voting };
        let engine = Engine::new(now, setup);
        if let Some(boot) = &mut self.boot {
            let work = BTreeMap::new();
            boot.agent = Some(Agent { engine, store, number, work, wake_ns: u64::MAX, paused_until: 0 });
        }
        Ok(last)
    }
}

fn founding(voter: VoterId, founded: &Founded) -> Founding {
    let mut ledger = Ledger::new();
    let first = quorum::ledger::Position { index: LogIndex(1), term: Term(1) };
    let _events = ledger.apply_membership(first, founded.membership.clone());
    let data = encode_ledger(&ledger).expect("an empty ledger is small");
    let last = Position { index: first.index, term: first.term };
    let meta = SnapshotMeta { last, config: first.index, membership: founded.membership.clone() };
    Founding {
        identity: StoreIdentity { cluster: [7; 16], era: Era(1), voter },
        genesis: Some(Snapshot { meta, data: Blob::from(data) }),
    }
}
