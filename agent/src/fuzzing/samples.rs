//! One of everything that is sent or stored, with fields of every width: where fuzzing begins, and what must stay
//! readable for ever (`tests`).

use crate::engine::{self, Challenge, Fed, Message, Prospect, SeenRunning, Standing};
use crate::heartbeat::{self, Beat, Datagram, Echo, GroupLag, Hello, KeeperState, Suspicions};
use crate::policy::Wish;
use crate::sim::fuzz::{HOSTS, history};
use quorum::codec::Blob;
use quorum::id::{
    AgentInstance, BootId, Era, Generation, GroupName, HardwareId, HostEpoch, HostName, KeeperInstance, LogIndex,
    ProposalKey, SiteName, TaskId, Term, VoterId,
};
use quorum::lease::{self, Claim, Grant, LeaseRequest, Nonce};
use quorum::ledger::{Class, Command, CopyCheck, Entry, Ledger, Position, WatchdogAttestation};
use quorum::replica::wire::Body;
use quorum::replica::{MemberStep, MembershipChange, Message as RaftMessage, ReadContext};
use quorum::roster::{ConfigId, Membership, VoterInfo};
use quorum::storage::Seen;
use std::sync::LazyLock;
use std::time::Duration;

/// A played cluster's history.
pub(super) struct History {
    /// The ledger before the first entry: three voters, nothing else.
    pub(super) founded: Ledger,
    /// The log.
    pub(super) entries: Vec<Entry>,
    /// The ledger after it.
    pub(super) ledger: Ledger,
}

/// Played once for the process.
pub(super) static HISTORY: LazyLock<History> = LazyLock::new(|| {
    let mut founded = Ledger::new();
    let _events = founded.apply_membership(Position { index: LogIndex(1), term: Term(1) }, membership());
    let (entries, ledger) = history();
    History { founded, entries, ledger }
});

/// The three voters.
pub(super) fn membership() -> Membership {
    Membership { voters: HOSTS.map(|(_, _, vote)| (VoterId(vote), info(vote))).into(), ..Membership::default() }
}

fn info(vote: u64) -> VoterInfo {
    let (name, site, _) = HOSTS[usize::try_from(vote - 1).unwrap_or_default() % 3];
    VoterInfo { id: VoterId(vote), host: host(name), site: SiteName::new(site).expect("a name") }
}

pub(super) fn host(name: &str) -> HostName {
    HostName::new(name).expect("a name")
}

fn erp() -> GroupName {
    GroupName::new("erp").expect("a name")
}

fn he(count: u64) -> HostEpoch {
    HostEpoch::in_era(Era(1), count)
}

fn hello() -> Hello {
    let worst = Duration::from_millis(1_210);
    Hello {
        boot: BootId([1; 16]),
        agent: AgentInstance([2; 16]),
        keeper: Some(KeeperInstance([3; 16])),
        hardware: HardwareId([4; 16]),
        class: Class::B,
        lab: true,
        host_epoch: Some(he(300)),
        keeper_state: KeeperState::Clearing,
        watchdog: Some(WatchdogAttestation { driver: "softdog".into(), worst, fire_tests: 3, conditions_hold: true }),
    }
}

/// The datagrams, encoded.
pub(super) fn datagrams() -> Vec<(&'static str, Vec<u8>)> {
    let nonce = Nonce { agent: AgentInstance([2; 16]), count: 70_000 };
    let claim = Claim { era: Era(1), host_epoch: he(300), boot: BootId([1; 16]), instance: KeeperInstance([3; 16]) };
    let beat = Beat {
        era: Era(1),
        seq: 70_000,
        hello: hello(),
        echoes: vec![Echo { voter: host("ng-1"), seq: 300, age_ms: 12 }],
        lease: Some(LeaseRequest { host: host("tk-1"), claim, nonce }),
        lease_left_ms: 3_400,
        sickness: 2,
        suspicions: Suspicions {
            abstains: false,
            sites: vec![SiteName::new("osaka").expect("a name")],
            hosts: vec![host("tk-2")],
        },
        applied: LogIndex(70_000),
        term: Term(12),
        leader: Some(host("ng-1")),
        lag: Some(GroupLag { group: erp(), lag_ms: 250, lag_bytes: 1 << 33 }),
        padding: vec![],
    };
    let bare = Beat { lease: None, leader: None, lag: None, padding: vec![0; 400], ..beat.clone() };
    let grant = Grant {
        voter: VoterId(3),
        config: ConfigId { era: Era(1), index: LogIndex(300) },
        voters: vec![VoterId(1), VoterId(2), VoterId(3)],
        outgoing: vec![VoterId(1)],
        lease: Duration::from_millis(3_700),
        host: host("tk-1"),
        host_epoch: he(300),
        nonce,
    };
    let refused = lease::Answer::Refuse { voter: VoterId(3), nonce, reason: lease::Refusal::NotAdmitted };
    let all = [
        ("beat", Datagram::Beat(Box::new(beat))),
        ("beat-padded", Datagram::Beat(Box::new(bare))),
        ("grant", Datagram::Lease(lease::Answer::Grant(grant))),
        ("refusal", Datagram::Lease(refused)),
    ];
    all.map(|(name, datagram)| (name, heartbeat::encode(&datagram).expect("fits"))).into()
}

fn entry() -> Entry {
    let command = Command::Supports { host: host("tk-1"), version: 1 };
    Entry { key: ProposalKey([5; 16]), proposer: host("tk-1"), era: Era(1), wall_ms: 1_790_000_000_000, command }
}

/// The messages on the stream connection.
fn all_messages() -> Vec<(&'static str, Message)> {
    let context = ReadContext { voter: VoterId(2), incarnation: 5, count: 1_000 };
    let raft = RaftMessage {
        era: Era(1),
        from: VoterId(3),
        to: VoterId(2),
        term: Term(12),
        body: Body::Heartbeat { commit: LogIndex(2), read: Some(context) },
    };
    let change = MembershipChange::Joint(vec![MemberStep::Remove(VoterId(1)), MemberStep::AddVoter(info(2))]);
    let bytes = Blob::from(engine::encode_entry(&entry()).expect("small"));
    let fed = vec![Fed::Empty(Term(1)), Fed::Entry(Term(1), bytes), Fed::Membership(Term(12), change)];
    let challenge = Challenge { era: Era(1), host_epoch: he(300), nonce: 1 << 40 };
    let seen = Seen { incarnation: 3, durable: LogIndex(300) };
    let standing = Standing {
        era: Era(1),
        voter: Some((VoterId(3), seen)),
        of_you: Some((VoterId(2), seen)),
        config: ConfigId { era: Era(1), index: LogIndex(1) },
        members: vec![VoterId(1), VoterId(2), VoterId(3)],
        asks: true,
    };
    let prospect = Prospect {
        host: host("tk-1"),
        devices: 2,
        proven_ms_ago: Some(900),
        takes_ms: None,
        running: Some(SeenRunning { device: "bmc".into(), ms_ago: 70_000 }),
    };
    let wish = Wish::Add { host: host("tk-1"), replaces: Some(VoterId(1)) };
    let task = TaskId::of(LogIndex(88), 1);
    let copy = Some(CopyCheck::Older(Generation(3)));
    vec![
        ("raft", Message::Raft(Box::new(raft))),
        ("propose", Message::Propose(Box::new(entry()))),
        ("not-leader", Message::NotLeader { key: entry().key, leader: Some(host("ng-1")) }),
        ("read-index", Message::ReadIndex { context: 300 }),
        ("read-index-at", Message::ReadIndexAt { context: 300, index: LogIndex(70_000) }),
        ("follow", Message::Follow { after: LogIndex(300) }),
        ("committed", Message::Committed { first: LogIndex(1), entries: fed }),
        ("snapshot", Message::Snapshot { index: LogIndex(300), part: 0, parts: 2, bytes: Blob::from(vec![7; 40]) }),
        ("challenge", Message::Challenge(challenge.clone())),
        ("challenge-answer", Message::ChallengeAnswer { challenge, hello: hello(), remnants: vec![erp()] }),
        ("ask-copy", Message::AskCopy { group: erp() }),
        ("copy-is", Message::CopyIs { group: erp(), generation: Some(Generation(4)), check: copy }),
        ("last-grants", Message::LastGrants { grants: vec![(host("tk-1"), he(300), 250)] }),
        ("fence-assign", Message::FenceAssign { task }),
        ("fence-declined", Message::FenceDeclined { task, because: "no device".into() }),
        ("fence-prospects", Message::FenceProspects { prospects: vec![prospect] }),
        ("standing", Message::Standing(standing)),
        ("members", Message::Members(wish.clone())),
        ("members-refused", Message::MembersRefused { wish, because: "a voter is away".into() }),
    ]
}

/// The messages, encoded.
pub(super) fn messages() -> Vec<(&'static str, Vec<u8>)> {
    all_messages().into_iter().map(|(name, message)| (name, engine::encode(&message).expect("fits"))).collect()
}

/// Samples of one kind, by name.
type Named = Vec<(&'static str, Vec<u8>)>;

/// Everything that agents and keepers of two releases must understand of each other, by name.
pub fn samples() -> Vec<(String, Vec<u8>)> {
    let entry = [("supports", engine::encode_entry(&entry()).expect("small"))];
    let kinds: [(&str, Named); 5] = [
        ("datagram", datagrams()),
        ("message", messages()),
        ("entry", entry.into()),
        ("resync", crate::replication::resync::fuzz::samples()),
        ("keeper", crate::keeper::fuzz::samples()),
    ];
    let named = |(kind, samples): (&'static str, Named)| {
        samples.into_iter().map(move |(name, bytes)| (format!("{kind} {name}"), bytes))
    };
    kinds.into_iter().flat_map(named).collect()
}
