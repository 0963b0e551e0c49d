//! One simulated host: power, clock, disk, keeper, engine, places.

use super::clock::Clock;
use super::keeper::SimKeeper;
use super::place::Place;
use crate::engine::{Engine, Identity, Now, Setup, Work, WorkId, decode_ledger, encode_ledger};
use quorum::codec::Blob;
use quorum::id::{
    AgentInstance, BootId, Era, GroupName, HardwareId, HostName, KeeperInstance, LogIndex, SiteName, Term, VoterId,
};
use quorum::ledger::{Class, Ledger};
use quorum::moment::Moment;
use quorum::replica::{Params, Position, Replica, Snapshot, SnapshotMeta};
use quorum::roster::Membership;
use quorum::storage::{Founding, Identity as StoreIdentity, LogStore, MemoryDisk, MemoryStore};
use quorum::timing::Timing;
use std::collections::BTreeMap;

/// What a host is made from and keeps for ever.
#[derive(Clone, Debug)]
pub(super) struct HostSpec {
    pub(super) name: HostName,
    pub(super) site: SiteName,
    pub(super) voter: Option<VoterId>,
    pub(super) class: Class,
    pub(super) rate_ppm: i64,
    pub(super) prefers_lead: bool,
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
    pub(super) agent: Option<Agent>,
    /// Real time of the last pet; the watchdog counts from it. `None` until the first.
    pub(super) petted_ns: Option<u64>,
    /// Counts boots, so that events of an earlier one are told apart.
    pub(super) number: u64,
}

/// The agent process.
pub(super) struct Agent {
    pub(super) engine: Engine,
    pub(super) store: Option<MemoryStore>,
    /// Counts processes of the host, so that events of an earlier one are told apart.
    pub(super) number: u64,
    pub(super) work: BTreeMap<WorkId, (GroupName, Work)>,
    /// Real time of the next wake; wakes for any other time are overtaken.
    pub(super) wake_ns: u64,
}

/// A host.
pub struct SimHost {
    pub(super) spec: HostSpec,
    pub(super) disk: MemoryDisk,
    /// Groups here.
    pub places: BTreeMap<GroupName, Place>,
    pub(super) boot: Option<Boot>,
    pub(super) boots: u64,
    pub(super) processes: u64,
}

impl SimHost {
    pub(super) fn new(spec: HostSpec) -> Self {
        Self { spec, disk: MemoryDisk::default(), places: BTreeMap::new(), boot: None, boots: 0, processes: 0 }
    }

    /// Whether it has power.
    pub fn is_powered(&self) -> bool {
        self.boot.is_some()
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

    /// Starts the keeper process.
    pub(super) fn start_keeper(&mut self, instance: KeeperInstance, timing: &Timing) {
        let class = self.spec.class;
        if let Some(boot) = &mut self.boot {
            boot.keeper = Some(SimKeeper::new(boot.id, instance, timing, class));
        }
    }

    /// Starts the agent process from what is on its disk.
    pub(super) fn start_agent(&mut self, now: Now, instance: AgentInstance, founded: &Founded) {
        self.processes += 1;
        let number = self.processes;
        let Some(boot) = &self.boot else { return };
        let identity = Identity {
            host: self.spec.name.clone(),
            site: self.spec.site.clone(),
            boot: boot.id,
            hardware: self.hardware(),
            agent: instance,
            voter: self.spec.voter,
        };
        let mut store = self.spec.voter.map(|voter| self.open_store(voter, founded));
        let voting = store.as_mut().map(|store| {
            let loaded = store.load().expect("a store of the simulator is whole");
            let snapshot = loaded.snapshot.as_ref().expect("a founded store has a snapshot");
            let ledger = decode_ledger(&snapshot.data).expect("the snapshot is a ledger");
            let seed = u64::from_le_bytes(instance.0[..8].try_into().unwrap_or_default());
            let params = Params { seed, priority: i64::from(self.spec.prefers_lead), ..Params::default() };
            (Replica::new(params, loaded).expect("a loaded replica starts"), ledger)
        });
        let peers = founded.peers.iter().filter(|(name, _)| **name != self.spec.name);
        let peers = peers.map(|(name, site)| (name.clone(), site.clone())).collect();
        let setup = Setup { identity, peers, timing: founded.timing.clone(), voting };
        let engine = Engine::new(now, setup);
        if let Some(boot) = &mut self.boot {
            boot.agent = Some(Agent { engine, store, number, work: BTreeMap::new(), wake_ns: u64::MAX });
        }
    }

    fn open_store(&self, voter: VoterId, founded: &Founded) -> MemoryStore {
        let mut store = MemoryStore::on(&self.disk).expect("the memory disk opens");
        if store.identity().is_none() {
            store.found(founding(voter, founded)).expect("an empty disk takes a founding");
        }
        store
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
