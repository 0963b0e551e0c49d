//! One simulated host: power, clock, disk, keeper, engine, places.

use super::clock::Clock;
use super::disk::{SimDisk, SimStore};
use super::keeper::SimKeeper;
use super::place::Place;
use super::watch::Point;
use crate::engine::{
    Engine, Identity, KeeperOrder, Now, RecoverError, Recovery, Setup, Vote, Work, WorkId, begin_era, decode_ledger,
    encode_ledger, replay,
};
use quorum::codec::Blob;
use quorum::id::{
    AgentInstance, BootId, Era, GroupName, HardwareId, HostEpoch, HostName, LogIndex, SiteName, Term, VoterId,
};
use quorum::ledger::{Class, Decision, Ledger};
use quorum::moment::Moment;
use quorum::replica::{Params, Position, Replica, Snapshot, SnapshotMeta};
use quorum::roster::Membership;
use quorum::storage::{Founding, Identity as StoreIdentity, StorageError};
use quorum::timing::Timing;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
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
    /// What the cluster had decided before this world began; none if it is founded in it.
    pub(super) genesis: Option<Arc<Ledger>>,
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
    /// Counts the stores of this process: a write to an earlier one is nobody's.
    pub(super) store_number: u64,
    pub(super) instance: AgentInstance,
    /// Counts processes of the host, so that events of an earlier one are told apart.
    pub(super) number: u64,
    pub(super) work: BTreeMap<WorkId, (GroupName, Work)>,
    /// Real time of the next wake; wakes for any other time are overtaken.
    pub(super) wake_ns: u64,
    /// Stopped until this real time: what happens to it meanwhile happens then.
    pub(super) paused_until: u64,
}

/// A host.
pub struct SimHost {
    pub(super) spec: HostSpec,
    pub(super) disk: SimDisk,
    /// The version that the release on it understands, if not this one's.
    pub(super) understands: Option<u32>,
    /// No flush ends before this real time.
    pub(super) stalled_until: u64,
    /// When the last write that it was given will be flushed.
    pub(super) flushes_until: u64,
    /// Why its vote ended, until it votes again.
    pub(super) spoiled: Option<String>,
    /// Ids under which it has voted and must never again.
    pub(super) ended: BTreeSet<VoterId>,
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
            understands: None,
            stalled_until: 0,
            flushes_until: 0,
            spoiled: None,
            ended: BTreeSet::new(),
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

    /// Why its vote ended, if it has had one and doesn't vote again yet.
    pub fn spoiled(&self) -> Option<&str> {
        self.spoiled.as_deref()
    }

    /// The agent's engine, if it runs.
    pub fn engine(&self) -> Option<&Engine> {
        Some(&self.boot.as_ref()?.agent.as_ref()?.engine)
    }

    /// What the host's clocks read; `None` without power.
    pub(super) fn read(&self, real_ns: u64) -> Option<Moment> {
        Some(self.boot.as_ref()?.clock.read(real_ns))
    }

    /// Starts the agent process from what is on its disk, and says up to where its log goes.
    pub(super) fn start_agent(
        &mut self,
        now: Now,
        instance: AgentInstance,
        founded: &Founded,
    ) -> Result<u64, StorageError> {
        self.processes += 1;
        let number = self.processes;
        let (store, voting) = self.open_store(instance, founded)?.unzip();
        let last = voting.as_ref().map_or(0, |vote: &Vote| vote.seen.durable.0);
        let Some(boot) = &mut self.boot else { return Ok(0) };
        let hardware = hardware(&self.spec.name);
        let (host, site) = (self.spec.name.clone(), self.spec.site.clone());
        let identity = Identity { host, site, boot: boot.id, hardware, agent: instance };
        let peers = founded.peers.iter().filter(|(name, _)| **name != self.spec.name);
        let peers = peers.map(|(name, site)| (name.clone(), site.clone())).collect();
        let timing = founded.timing.clone();
        let setup = Setup { identity, peers, timing, voting, ended_votes: self.ended.clone() };
        let mut engine = Engine::new(now, setup);
        self.understands.into_iter().for_each(|version| engine.play_release(version));
        boot.agent = Some(Agent {
            engine,
            store,
            store_number: 0,
            instance,
            number,
            work: BTreeMap::new(),
            wake_ns: u64::MAX,
            paused_until: 0,
        });
        Ok(last)
    }

    /// As the daemon does: the store on the disk, or a new one if this host founds the cluster.
    fn open_store(&self, instance: AgentInstance, founded: &Founded) -> Result<Option<(SimStore, Vote)>, StorageError> {
        let founder = self.spec.voter.filter(|id| !self.ended.contains(id));
        let mut store = self.disk.open()?;
        let is_new = store.identity().is_none();
        if is_new {
            let Some(voter) = founder else { return Ok(None) };
            store.found(founding(voter, founded))?;
        }
        // Only the founders of a cluster wait for each other.
        let vote = self.load(&mut store, instance, is_new && founded.genesis.is_none())?;
        Ok(Some((store, vote)))
    }

    /// The store is nobody's any more, and the id, if it is known, is never founded again here.
    pub(super) fn put_aside(&mut self, voter: Option<VoterId>, because: String) {
        self.ended.extend(voter);
        self.spoiled = Some(because);
        self.disk = self.disk.empty();
    }

    /// An empty store for a host that was made a member.
    pub(super) fn join(
        &mut self,
        (voter, era): (VoterId, Era),
        instance: AgentInstance,
    ) -> Result<(SimStore, Vote), StorageError> {
        let mut store = self.disk.open()?;
        if store.identity().is_some_and(|held| held.voter != voter || held.era != era) {
            drop(store);
            self.disk = self.disk.empty();
            store = self.disk.open()?;
        }
        if store.identity().is_none() {
            let identity = StoreIdentity { cluster: CLUSTER, era, voter };
            store.found(Founding { identity, genesis: None })?;
        }
        let vote = self.load(&mut store, instance, false)?;
        Ok((store, vote))
    }

    /// `quorum recover` with the agent stopped: a new era from what is on the disk, all other voters given up.
    pub(super) fn recover(&mut self, by: Decision, instance: AgentInstance) -> Result<(), RecoverError> {
        let mut store = self.disk.open().expect("the survivor's disk is whole");
        let loaded = store.load().expect("a store that opened is whole");
        drop(store);
        let survivor = loaded.identity.voter;
        let ledger = replay(&loaded)?;
        let voters = ledger.membership().all_voters().map(|voter| voter.id);
        let recovery = Recovery {
            cluster: CLUSTER,
            host: self.spec.name.clone(),
            site: self.spec.site.clone(),
            survivor: Some(survivor),
            unreachable: voters.filter(|id| *id != survivor).collect(),
            places: BTreeMap::new(),
            above: Era(0),
            instance,
            wall_ms: 0,
            by,
        };
        let begun = begin_era(ledger, &recovery)?;
        self.put_aside(Some(survivor), "a new era began".into());
        self.spoiled = None;
        let mut store = self.disk.open().expect("an empty disk opens");
        store.found(begun.founding).expect("an empty disk takes a founding");
        Ok(())
    }

    fn load(&self, store: &mut SimStore, instance: AgentInstance, is_new: bool) -> Result<Vote, StorageError> {
        let loaded = store.load()?;
        let snapshot = loaded.snapshot.as_ref();
        let ledger = snapshot.map(|snapshot| decode_ledger(&snapshot.data).expect("the snapshot is a ledger"));
        let seed = u64::from_le_bytes(instance.0[..8].try_into().unwrap_or_default());
        let params = Params { seed, priority: i64::from(self.spec.prefers_lead), ..Params::default() };
        Ok(Vote {
            seen: loaded.seen(),
            replica: Replica::new(params, loaded).expect("a loaded replica starts"),
            ledger: ledger.unwrap_or_default(),
            is_new,
            remembered: store.remembered(),
        })
    }
}

/// The simulated cluster's identity in stores.
const CLUSTER: [u8; 16] = [7; 16];

fn hardware(name: &HostName) -> HardwareId {
    let mut bytes = [0; 16];
    let name = name.as_str().as_bytes();
    let len = name.len().min(16);
    bytes[..len].copy_from_slice(&name[..len]);
    HardwareId(bytes)
}

fn founding(voter: VoterId, founded: &Founded) -> Founding {
    let (ledger, era, config) = match &founded.genesis {
        Some(ledger) => ((**ledger).clone(), ledger.era(), ledger.config_id().index),
        None => {
            let mut ledger = Ledger::new();
            let first = Position { index: LogIndex(1), term: Term(1) };
            let at = quorum::ledger::Position { index: first.index, term: first.term };
            let _events = ledger.apply_membership(at, founded.membership.clone());
            (ledger, Era(1), first.index)
        }
    };
    let at = ledger.position();
    let last = Position { index: at.index, term: at.term };
    let data = encode_ledger(&ledger).expect("what was decoded, or is empty, is small enough");
    let meta = SnapshotMeta { last, config, membership: ledger.membership().clone() };
    Founding {
        identity: StoreIdentity { cluster: CLUSTER, era, voter },
        genesis: Some(Snapshot { meta, data: Blob::from(data) }),
    }
}
