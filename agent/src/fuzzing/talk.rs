//! An agent that peers talk to: what they say is decoded, believed to be theirs, and stepped.
//!
//! Peers are no liars, but bugs, other releases and stolen keys are: whatever they say, an agent neither ends nor grows.

use super::samples::{HISTORY, datagrams, host, membership, messages};
use crate::engine::{self, Effect, Engine, Identity, Input, Now, Setup, Vote};
use crate::event::Event;
use crate::heartbeat;
use crate::sim::fuzz::HOSTS;
use quorum::codec::Blob;
use quorum::fuzzing::{joined, pieces};
use quorum::id::{AgentInstance, BootId, Era, HardwareId, HostName, SiteName, VoterId};
use quorum::moment::Moment;
use quorum::replica::{Params, Position, Replica, Snapshot, SnapshotMeta};
use quorum::storage::{Founding, Identity as StoreIdentity, LogStore, MemoryDisk, MemoryStore};
use std::sync::LazyLock;
use std::time::Duration;

/// One input has no more effects than this: agents don't answer with a storm.
const EFFECTS_MAX: usize = 2_000;

/// The disk of the voter that is talked to, as the played history left it.
static DISK: LazyLock<MemoryDisk> = LazyLock::new(|| {
    let at = HISTORY.ledger.position();
    let last = Position { index: at.index, term: at.term };
    let data = Blob::from(engine::encode_ledger(&HISTORY.ledger).expect("small"));
    let meta = SnapshotMeta { last, config: HISTORY.ledger.config_id().index, membership: membership() };
    let disk = MemoryDisk::default();
    let mut store = MemoryStore::on(&disk).expect("an empty disk opens");
    let identity = StoreIdentity { cluster: [7; 16], era: Era(1), voter: VoterId(2) };
    store.found(Founding { identity, genesis: Some(Snapshot { meta, data }) }).expect("an empty disk takes a founding");
    disk
});

struct Agent {
    engine: Engine,
    store: Option<MemoryStore>,
    now: Now,
    has_halted: bool,
    /// Why it dropped what it was told.
    dropped: Vec<String>,
}

impl Agent {
    fn new(name: &str, site: &str, votes: bool) -> Self {
        Self::with(name, site, votes.then(|| loaded(&HISTORY.ledger)))
    }

    #[cfg(test)]
    fn voting(name: &str, site: &str, ledger: &quorum::ledger::Ledger) -> Self {
        Self::with(name, site, Some(loaded(ledger)))
    }

    fn with(name: &str, site: &str, vote: Option<(MemoryStore, Vote)>) -> Self {
        let start = Duration::from_secs(100);
        let now = Now { moment: Moment::default().plus(start), wall_ms: 1_790_000_000_000 };
        let (store, voting) = vote.unzip();
        let site = SiteName::new(site).expect("a name");
        let identity = Identity {
            host: host(name),
            site,
            boot: BootId([1; 16]),
            hardware: HardwareId([4; 16]),
            agent: AgentInstance([2; 16]),
        };
        let peers = HOSTS.iter().filter(|(peer, _, _)| *peer != name);
        let peers = peers.map(|(peer, site, _)| (host(peer), SiteName::new(site).expect("a name"))).collect();
        let timing = HISTORY.ledger.timing().cloned().expect("a founded cluster has its time spans");
        let setup = Setup { identity, peers, timing, voting, ended_votes: [].into() };
        Self { engine: Engine::new(now, setup), store, now, has_halted: false, dropped: Vec::new() }
    }

    fn take(&mut self, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let effects = self.engine.step(self.now, input);
            assert!(effects.len() < EFFECTS_MAX, "{} effects of one input", effects.len());
            for effect in effects {
                match effect {
                    Effect::Persist(write) => {
                        let Some(store) = &mut self.store else { continue };
                        let persisted = store.persist(vec![*write]).expect("a disk without faults");
                        inputs.extend(persisted.into_iter().map(|done| Input::Persisted(Box::new(done))));
                    }
                    Effect::VoteEnded { .. } => self.store = None,
                    Effect::Halt { .. } => self.has_halted = true,
                    Effect::Event(Event::Dropped { because, .. }) => self.dropped.push(because),
                    _ => {}
                }
            }
        }
        let _next = self.engine.deadline();
    }
}

fn loaded(ledger: &quorum::ledger::Ledger) -> (MemoryStore, Vote) {
    let mut store = MemoryStore::on(&DISK.backup()).expect("a whole disk");
    let loaded = store.load().expect("a whole disk");
    let vote = Vote {
        seen: loaded.seen(),
        replica: Replica::new(Params::default(), loaded).expect("good parameters"),
        ledger: ledger.clone(),
        is_new: false,
        remembered: store.remembered().clone(),
    };
    (store, vote)
}

/// Pieces, one after the other. Of each, the first byte says from whom it is (two bits), whether it is a message or a
/// datagram, and for how long nothing was said before it. The first byte of all says who listens: a voter or a host.
pub(super) fn talk(bytes: &[u8]) -> bool {
    let Some((&who, bytes)) = bytes.split_first() else { return false };
    let (name, site, votes) = if who & 1 == 0 { ("os-1", "osaka", true) } else { ("tk-1", "tokyo", false) };
    let mut agent = Agent::new(name, site, votes);
    agent.take(Input::Wake);
    for (peer, _, _) in HOSTS.iter().filter(|(peer, _, _)| *peer != name) {
        agent.take(Input::Link { peer: host(peer), up: true });
    }
    let mut is_understood = false;
    for piece in pieces(bytes) {
        let Some((&how, said)) = piece.split_first() else { continue };
        agent.now.moment = agent.now.moment.plus(Duration::from_millis(u64::from(how >> 3) * 37));
        let (from, _, _) = HOSTS[usize::from(how & 0x03) % 3];
        if let Some(input) =
            heard(host(if from == name { "ng-1" } else { from }), (how & 0x04 == 0, said), agent.now.moment)
        {
            agent.take(input);
            is_understood = true;
        }
        agent.take(Input::Wake);
        if agent.has_halted {
            break;
        }
    }
    is_understood
}

fn heard(from: HostName, (is_message, said): (bool, &[u8]), received: Moment) -> Option<Input> {
    if is_message {
        Some(Input::Message { from, message: Box::new(engine::decode(said).ok()?) })
    } else {
        Some(Input::Datagram { from, path: 0, datagram: Box::new(heartbeat::decode(said).ok()?), received })
    }
}

/// Everything that peers ever say, from the leader and from another, to a voter and to a host that doesn't vote.
pub(super) fn talk_seeds() -> Vec<Vec<u8>> {
    let beats: Vec<Vec<u8>> = datagrams().into_iter().map(|(_, bytes)| [vec![0x06], bytes].concat()).collect();
    let from = |how: u8| messages().into_iter().map(move |(_, bytes)| [vec![how], bytes].concat());
    let all: Vec<Vec<u8>> = beats.iter().cloned().chain(from(0x02)).chain(from(0x30)).collect();
    let ledger = engine::encode_ledger(&HISTORY.ledger).expect("small");
    let whole =
        engine::Message::Snapshot { index: HISTORY.ledger.applied(), part: 0, parts: 1, bytes: Blob::from(ledger) };
    let whole = [vec![0x02], engine::encode(&whole).expect("fits")].concat();
    let follows = [&beats[..1], &[whole][..], &all[..]].concat();
    let mut seeds: Vec<Vec<u8>> =
        [&all, &follows].iter().flat_map(|all| [0, 1].map(|who| [vec![who], joined(*all)].concat())).collect();
    for piece in &all {
        seeds.push([vec![0], joined([&beats[0], piece])].concat());
    }
    seeds
}

/// What an agent has applied after it was told something, why it dropped something, and what it shows people of that.
#[cfg(test)]
#[derive(Debug)]
pub(super) struct Told {
    pub(super) applied: quorum::ledger::Position,
    pub(super) dropped: Vec<String>,
    pub(super) unread: Vec<engine::AttentionLine>,
}

#[cfg(test)]
impl Agent {
    /// `None` if it has ended.
    fn told(self) -> Option<Told> {
        let unread = self.engine.status().attention.into_iter().filter(|line| line.code == "log-unread").collect();
        let applied = self.engine.ledger().position();
        (!self.has_halted).then_some(Told { applied, dropped: self.dropped, unread })
    }
}

/// The voter in force beats, then says this to a host without a vote.
#[cfg(test)]
pub(super) fn after_messages(messages: Vec<engine::Message>) -> Option<Told> {
    after_eras([messages])
}

/// The same, in one era after the other.
#[cfg(test)]
pub(super) fn after_eras(eras: impl IntoIterator<Item = Vec<engine::Message>>) -> Option<Told> {
    use heartbeat::{Beat, Datagram};
    let mut agent = Agent::new("tk-1", "tokyo", false);
    agent.take(Input::Wake);
    let (_, beat) = datagrams().into_iter().next().expect("a beat");
    let Datagram::Beat(beat) = heartbeat::decode(&beat).expect("a beat") else { panic!("a beat comes first") };
    for (n, messages) in (0..).zip(eras) {
        let beat = Beat { era: Era(beat.era.0 + n), seq: beat.seq + u64::from(n), ..(*beat).clone() };
        let datagram = Box::new(Datagram::Beat(Box::new(beat)));
        let from = || host("ng-1");
        agent.take(Input::Datagram { from: from(), path: 0, datagram, received: agent.now.moment });
        for message in messages {
            agent.take(Input::Message { from: from(), message: Box::new(message) });
        }
    }
    agent.told()
}

/// Another voter says something of Raft to one that votes and has applied `ledger`. `None` if that ended it.
#[cfg(test)]
pub(super) fn after_raft(
    ledger: &quorum::ledger::Ledger,
    term: quorum::id::Term,
    body: quorum::replica::wire::Body,
) -> Option<Told> {
    use engine::{Message, Standing};
    use quorum::storage::Seen;
    let mut agent = Agent::voting("os-1", "osaka", ledger);
    let hears = |from: &str, message| Input::Message { from: host(from), message: Box::new(message) };
    // Others say that it has forgotten nothing.
    for (voter, from) in [(1, "tk-1"), (3, "ng-1")] {
        let standing = Standing {
            era: Era(1),
            voter: Some((VoterId(voter), Seen::default())),
            of_you: Some((VoterId(2), Seen::default())),
            config: HISTORY.ledger.config_id(),
            members: [1, 2, 3].map(VoterId).into(),
            asks: false,
        };
        agent.take(hears(from, Message::Standing(standing)));
    }
    let said = quorum::replica::Message { era: Era(1), from: VoterId(3), to: VoterId(2), term, body };
    agent.take(hears("ng-1", Message::Raft(Box::new(said))));
    agent.told()
}

/// The voter in force beats, then feeds a host two entries from `first` on.
#[cfg(test)]
pub(super) fn committed_at(first: u64, terms: [u64; 2]) -> Vec<u8> {
    use quorum::id::{LogIndex, Term};
    let entries = terms.map(|term| engine::Fed::Empty(Term(term))).into();
    let message = engine::Message::Committed { first: LogIndex(first), entries };
    let (_, beat) = datagrams().into_iter().next().expect("a beat");
    let pieces = [[vec![0x06], beat].concat(), [vec![0x02], engine::encode(&message).expect("fits")].concat()];
    [vec![1], joined(pieces)].concat()
}
