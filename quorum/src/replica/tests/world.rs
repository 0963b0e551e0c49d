//! A cluster in one thread: replicas, their stores, a network and a clock, all from one seed.
//!
//! Messages travel as bytes. The oracle looks at every event: one leader a term, one history for all, no read older
//! than what anybody had applied when it began, no promise that a disk doesn't hold after a crash.

use super::super::*;
use crate::codec::Blob;
use crate::id::{Era, HostName, LogIndex, SiteName, VoterId};
use crate::roster::{Membership, VoterInfo};
use crate::storage::{FaultyBlocks, FileStore, Founding, Identity, LogStore, MemoryDisk, MemoryStore, StorageError};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

/// One tick of a replica; the unit of everything else is a thousandth of an election timeout.
pub const TICK: u64 = 100;

/// A leader's lease; without one voters stand after 11 to 15 ticks.
pub const ELECTION: u64 = 10 * TICK;

pub const ERA: Era = Era(1);

#[derive(Clone, Debug)]
pub struct Chances {
    /// Of a hundred messages, how many are lost.
    pub loss: u64,
    /// How many arrive twice.
    pub twice: u64,
    /// How much longer than the shortest delay a message may take.
    pub delay: u64,
    /// The shortest delay of a message.
    pub least: u64,
    /// Longest time of a write.
    pub write: u64,
}

impl Default for Chances {
    fn default() -> Self {
        Self { loss: 0, twice: 0, delay: 20, least: 1, write: 5 }
    }
}

#[derive(Clone, Debug)]
pub enum Disk {
    Memory(MemoryDisk),
    Blocks(FaultyBlocks),
}

impl Disk {
    pub fn open(&self) -> Result<Box<dyn LogStore>, StorageError> {
        Ok(match self {
            Self::Memory(disk) => Box::new(MemoryStore::on(disk)?),
            Self::Blocks(blocks) => Box::new(FileStore::on(blocks.clone(), Path::new("simulated"))?),
        })
    }
}

/// What a process has and loses with a crash.
pub struct Process {
    pub replica: Replica,
    store: Box<dyn LogStore>,
    /// Writes on their way, with the time at which each is done.
    writes: VecDeque<(u64, Write)>,
    /// The state machine: a digest of all entries, up to an index.
    pub digest: u64,
    pub applied: LogIndex,
    pub answered: Vec<ReadState>,
    next_tick: u64,
}

impl Process {
    /// No tick passes any more.
    pub fn sleep(&mut self) {
        self.next_tick = u64::MAX;
    }

    /// Starts what the replica wants written, and sends nothing.
    pub fn begin_writes(&mut self) {
        while let Some(Ready { send_now: _, write }) = self.replica.ready() {
            self.writes.push_back((0, write));
        }
    }

    /// The oldest write is done; its entries are noted as applied, and nothing is sent.
    pub fn finish_write(&mut self) {
        let Some((_, write)) = self.writes.pop_front() else { return };
        let persisted = self.store.persist(vec![write]).unwrap().remove(0);
        let After { committed, snapshot, .. } = self.replica.persisted(persisted);
        let installed = snapshot.map(|snapshot| snapshot.meta.last.index);
        if let Some(applied) = committed.last().map(|entry| entry.index).or(installed) {
            self.applied = applied;
        }
    }
}

pub struct Node {
    pub disk: Disk,
    pub process: Option<Process>,
    pub params: Params,
    /// While set, writes take for ever.
    pub is_stalled: bool,
    /// Counts writes that were persisted, over all restarts.
    pub persisted: u64,
}

struct Flight {
    from: u64,
    to: u64,
    frame: Vec<u8>,
}

#[derive(Default)]
pub struct Oracle {
    leaders: BTreeMap<u64, u64>,
    /// What the entries up to an index make of the state, and the newest entry's term.
    pub history: BTreeMap<u64, (u64, u64)>,
    /// When a read began: what had been applied anywhere.
    floors: BTreeMap<ReadContext, u64>,
    pub reads_answered: usize,
    pub snapshots_installed: usize,
    pub refused: BTreeMap<String, usize>,
}

pub struct World {
    pub now: u64,
    rng: u64,
    pub nodes: BTreeMap<u64, Node>,
    flights: BTreeMap<(u64, u64), Flight>,
    sequence: u64,
    /// Directed links that carry nothing.
    pub cut: BTreeSet<(u64, u64)>,
    pub chances: Chances,
    pub oracle: Oracle,
    /// Entries between snapshots; 0 is never.
    pub compact_every: u64,
    /// Everything that was ever sent, if it is kept.
    pub recorded: Option<Vec<(u64, u64, Vec<u8>)>>,
    pub trace: u64,
}

pub fn info(id: u64) -> VoterInfo {
    VoterInfo {
        id: VoterId(id),
        host: HostName::new(&format!("h{id}")).unwrap(),
        site: SiteName::new(&format!("s{id}")).unwrap(),
    }
}

pub fn members(ids: impl IntoIterator<Item = u64>) -> Membership {
    Membership { voters: ids.into_iter().map(|id| (VoterId(id), info(id))).collect(), ..Membership::default() }
}

pub fn genesis(ids: impl IntoIterator<Item = u64>) -> Snapshot {
    let last = Position { index: LogIndex(1), term: crate::id::Term(1) };
    Snapshot {
        meta: SnapshotMeta { last, config: LogIndex(1), membership: members(ids) },
        data: Blob::from(0u64.to_be_bytes().as_slice()),
    }
}

fn mix(digest: u64, bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(digest ^ 0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

impl World {
    /// Founding voters 1 to `voters`, all running.
    pub fn new(seed: u64, voters: u64) -> Self {
        Self::with_disks(seed, voters, |_| Disk::Memory(MemoryDisk::default()))
    }

    pub fn with_disks(seed: u64, voters: u64, disk: impl Fn(u64) -> Disk) -> Self {
        let mut world = Self {
            now: 0,
            rng: seed,
            nodes: BTreeMap::new(),
            flights: BTreeMap::new(),
            sequence: 0,
            cut: BTreeSet::new(),
            chances: Chances::default(),
            oracle: Oracle::default(),
            compact_every: 0,
            recorded: None,
            trace: 0,
        };
        world.oracle.history.insert(1, (0, 1));
        for id in 1..=voters {
            world.found(id, disk(id), Some(genesis(1..=voters)));
            world.start(id);
        }
        world
    }

    /// Makes a node with an empty disk a voter's, not yet running.
    pub fn found(&mut self, id: u64, disk: Disk, genesis: Option<Snapshot>) {
        let identity = Identity { cluster: [7; 16], era: ERA, voter: VoterId(id) };
        disk.open().unwrap().found(Founding { identity, genesis }).unwrap();
        let params = Params { keep_entries: 4, ..Params::default() };
        self.nodes.insert(id, Node { disk, process: None, params, is_stalled: false, persisted: 0 });
    }

    /// A node that joins: it knows nobody.
    pub fn join(&mut self, id: u64) {
        self.found(id, Disk::Memory(MemoryDisk::default()), None);
        self.start(id);
    }

    pub fn random(&mut self, below: u64) -> u64 {
        self.rng = self.rng.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.rng ^ (self.rng >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % below.max(1)
    }

    fn note(&mut self, what: &str) {
        self.trace = mix(mix(self.trace, &self.now.to_be_bytes()), what.as_bytes());
    }

    /// Starts a node from its disk. Fails when its store refuses.
    pub fn try_start(&mut self, id: u64) -> Result<(), StorageError> {
        let seed = self.random(u64::MAX);
        let phase = self.random(TICK);
        let now = self.now;
        let node = self.nodes.get_mut(&id).unwrap();
        let mut store = node.disk.open()?;
        let loaded = store.load()?;
        let digest = loaded.snapshot.as_ref().map_or(0, |snapshot| digest_of(&snapshot.data));
        let applied = loaded.snapshot.as_ref().map_or(LogIndex(0), |snapshot| snapshot.meta.last.index);
        node.process = Some(Process {
            replica: Replica::new(Params { seed, ..node.params.clone() }, loaded).unwrap(),
            store,
            writes: VecDeque::new(),
            digest,
            applied,
            answered: Vec::new(),
            next_tick: now + TICK + phase,
        });
        self.note("start");
        self.pump(id);
        Ok(())
    }

    pub fn start(&mut self, id: u64) {
        self.try_start(id).unwrap();
    }

    /// The process is gone; of the writes on their way, `landed` made it to the disk without anybody knowing.
    pub fn crash(&mut self, id: u64, landed: usize) {
        self.note("crash");
        let Some(mut process) = self.nodes.get_mut(&id).unwrap().process.take() else { return };
        let writes: Vec<Write> = process.writes.drain(..).take(landed).map(|(_, write)| write).collect();
        let _ = process.store.persist(writes);
    }

    pub fn replica(&mut self, id: u64) -> &mut Replica {
        &mut self.process(id).replica
    }

    pub fn process(&mut self, id: u64) -> &mut Process {
        self.nodes.get_mut(&id).unwrap().process.as_mut().expect("the node runs")
    }

    pub fn running(&self) -> Vec<u64> {
        self.nodes.iter().filter(|(_, node)| node.process.is_some()).map(|(id, _)| *id).collect()
    }

    /// The leader of the newest term, if one runs.
    pub fn leader(&self) -> Option<u64> {
        let leaders = self.nodes.iter().filter_map(|(id, node)| {
            let replica = &node.process.as_ref()?.replica;
            replica.is_leader().then_some((replica.term(), *id))
        });
        leaders.max().map(|(_, id)| id)
    }

    /// Everything that this node wants done: messages go out, writes start.
    pub fn pump(&mut self, id: u64) {
        loop {
            let Some(process) = self.nodes.get_mut(&id).unwrap().process.as_mut() else { return };
            let standing = process.replica.standing_now();
            let ready = process.replica.ready();
            if standing.role == Role::Leader {
                let first = *self.oracle.leaders.entry(standing.term.0).or_insert(id);
                assert_eq!(first, id, "two leaders in term {}", standing.term);
            }
            let Some(Ready { send_now, write }) = ready else { return };
            self.send_all(send_now);
            let took = self.random(self.chances.write + 1);
            let now = self.now;
            let writes = &mut self.process(id).writes;
            let begins = writes.back().map_or(now, |(done, _)| *done);
            writes.push_back((begins + took, write));
        }
    }

    fn send_all(&mut self, messages: Vec<Message>) {
        for message in messages {
            let (from, to) = (message.from.0, message.to.0);
            let frame = message.encode().unwrap();
            self.trace = mix(mix(self.trace, &self.now.to_be_bytes()), &frame);
            if let Some(recorded) = &mut self.recorded {
                recorded.push((from, to, frame.clone()));
            }
            self.send_frame(from, to, frame);
        }
    }

    pub fn send_frame(&mut self, from: u64, to: u64, frame: Vec<u8>) {
        let copies = if self.random(100) < self.chances.twice { 2 } else { 1 };
        for _ in 0..copies {
            let is_lost = self.random(100) < self.chances.loss;
            let at = self.now + self.chances.least + self.random(self.chances.delay);
            self.sequence += 1;
            if !is_lost {
                self.flights.insert((at, self.sequence), Flight { from, to, frame: frame.clone() });
            }
        }
    }

    /// One unit of time passes.
    pub fn step(&mut self) {
        self.now += 1;
        while let Some(first) = self.flights.first_entry()
            && first.key().0 <= self.now
        {
            let flight = first.remove();
            if !self.cut.contains(&(flight.from, flight.to)) {
                self.deliver(&flight);
            }
        }
        for id in self.running() {
            self.finish_writes(id);
            let now = self.now;
            if self.nodes[&id].process.as_ref().is_some_and(|process| process.next_tick <= now) {
                let process = self.process(id);
                process.next_tick += TICK;
                process.replica.tick();
                self.pump(id);
            }
        }
    }

    fn deliver(&mut self, flight: &Flight) {
        let message = Message::decode(&flight.frame, crate::codec::FRAME_BYTES_MAX).unwrap();
        let Some(process) = self.nodes.get_mut(&flight.to).and_then(|node| node.process.as_mut()) else { return };
        if let Err(error) = process.replica.step(VoterId(flight.from), message) {
            assert!(!matches!(error, BadMessage::Forgotten { .. }), "{} lost what it had: {error}", flight.to);
            *self.oracle.refused.entry(format!("{error:?}")).or_default() += 1;
        }
        self.pump(flight.to);
    }

    fn finish_writes(&mut self, id: u64) {
        loop {
            let now = self.now;
            let node = self.nodes.get_mut(&id).unwrap();
            let Some(process) = node.process.as_mut().filter(|_| !node.is_stalled) else { return };
            let Some((_, write)) = process.writes.pop_front_if(|(done, _)| *done <= now) else { return };
            let Ok(mut persisted) = process.store.persist(vec![write]) else {
                // What a real voter does: it ends.
                node.process = None;
                self.note("disk failed");
                return;
            };
            node.persisted += 1;
            let after = process.replica.persisted(persisted.remove(0));
            self.perform(id, after);
            self.pump(id);
        }
    }

    fn perform(&mut self, id: u64, after: After) {
        self.send_all(after.send);
        if let Some(snapshot) = after.snapshot {
            self.oracle.snapshots_installed += 1;
            let process = self.process(id);
            process.digest = digest_of(&snapshot.data);
            process.applied = snapshot.meta.last.index;
            let (index, term, digest) = (process.applied.0, snapshot.meta.last.term.0, process.digest);
            self.agree(id, index, term, digest);
        }
        for entry in after.committed {
            let process = self.process(id);
            assert_eq!(entry.index.0, process.applied.0 + 1, "no entry is left out and none comes twice");
            process.applied = entry.index;
            let kind = crate::codec::encode(1, &entry.kind, 1 << 21).unwrap();
            process.digest = mix(mix(process.digest, &entry.index.0.to_be_bytes()), &kind);
            let digest = process.digest;
            self.agree(id, entry.index.0, entry.term.0, digest);
        }
        for read in after.reads {
            let floor = self.oracle.floors[&read.context];
            assert!(read.index.0 >= floor, "a stale read: {} of {floor}", read.index);
            self.oracle.reads_answered += 1;
            self.process(id).answered.push(read);
        }
        let compact_every = self.compact_every;
        let process = self.process(id);
        let applied = process.applied;
        process.replica.applied(applied);
        let is_due = compact_every > 0 && applied.0 >= process.replica.snapshot_index().0 + compact_every;
        if (is_due || process.replica.wants_snapshot()) && process.replica.applied_index() == applied {
            let data = Blob::from(process.digest.to_be_bytes().as_slice());
            process.replica.compact(applied, data);
        }
    }

    fn agree(&mut self, id: u64, index: u64, term: u64, digest: u64) {
        let first = *self.oracle.history.entry(index).or_insert((digest, term));
        assert_eq!(first, (digest, term), "{id} applied something else at {index}");
        self.trace = mix(self.trace, &digest.to_be_bytes());
    }

    /// Highest index that anybody has applied.
    pub fn applied_anywhere(&self) -> u64 {
        self.oracle.history.last_key_value().map_or(0, |(index, _)| *index)
    }

    /// Starts a read and notes what it must not miss.
    pub fn read(&mut self, id: u64) -> Option<ReadContext> {
        let floor = self.applied_anywhere();
        let context = self.replica(id).read_index().ok()?;
        self.oracle.floors.insert(context, floor);
        self.pump(id);
        Some(context)
    }

    pub fn propose(&mut self, id: u64, data: &[u8]) -> Result<Proposed, ProposeError> {
        let proposed = self.replica(id).propose(data.to_vec());
        self.pump(id);
        proposed
    }

    pub fn run(&mut self, time: u64) {
        for _ in 0..time {
            self.step();
        }
    }

    /// Runs until `done`, at most `limit`.
    pub fn until(&mut self, limit: u64, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        for _ in 0..limit {
            if done(self) {
                return;
            }
            self.step();
        }
        for (id, node) in &self.nodes {
            let process = node.process.as_ref();
            eprintln!(
                "{id}: {:?} {:?} {:?}",
                process.map(|p| &p.replica),
                process.map(|p| p.replica.config()),
                process.map(|p| p.replica.peers())
            );
        }
        panic!("not within {limit}: {what}; refused {:?}", self.oracle.refused);
    }

    pub fn elect(&mut self) -> u64 {
        self.until(40 * ELECTION, "a leader that has committed in its term", |world| {
            world.leader().is_some_and(|id| world.replica(id).node.raft.commit_to_current_term())
        });
        self.leader().unwrap()
    }

    /// Proposes at whoever leads until it is applied there.
    pub fn commit(&mut self, data: &[u8]) -> Proposed {
        let mut proposed = None;
        self.until(80 * ELECTION, "an entry is committed", |world| {
            let Some(leader) = world.leader() else { return false };
            match proposed {
                Some((who, Proposed { index, term })) if who == leader && world.replica(leader).term() == term => {
                    world.process(leader).applied >= index
                }
                _ => {
                    proposed = world.propose(leader, data).ok().map(|at| (leader, at));
                    false
                }
            }
        });
        proposed.unwrap().1
    }

    /// Cuts every link between the two sides, both ways.
    pub fn partition(&mut self, left: &[u64], right: &[u64]) {
        for (a, b) in left.iter().flat_map(|a| right.iter().map(move |b| (*a, *b))) {
            self.cut.insert((a, b));
            self.cut.insert((b, a));
        }
    }

    /// Everything works again: all nodes run, agree and make progress.
    pub fn heal_and_converge(&mut self) {
        self.cut.clear();
        self.chances = Chances::default();
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        for id in &ids {
            self.nodes.get_mut(id).unwrap().is_stalled = false;
            if self.nodes[id].process.is_none() {
                self.start(*id);
            }
        }
        self.commit(b"after all");
        self.until(80 * ELECTION, "all members have applied the same", |world| {
            let Some(leader) = world.leader() else { return false };
            let membership = world.replica(leader).config().membership.clone();
            let (index, digest) = (world.process(leader).applied, world.process(leader).digest);
            let mut all = membership.voters.keys().chain(membership.learners.keys());
            !membership.is_joint()
                && all.all(|id| (world.process(id.0).applied, world.process(id.0).digest) == (index, digest))
        });
    }
}

fn digest_of(data: &[u8]) -> u64 {
    u64::from_be_bytes(data.try_into().expect("a snapshot is a digest"))
}
