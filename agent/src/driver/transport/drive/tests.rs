//! Two endpoints on loopback, with real packets and certificates.

use super::{Connection, Endpoint};
use crate::driver::clock;
use crate::driver::transport::config::{Limits, TransportConfig};
use crate::driver::transport::ids::IdKey;
use crate::driver::transport::pace::{Pace, Rest};
use crate::driver::transport::quic::{self, Kind, SERVER_NAME};
use crate::driver::transport::socket::{KnownAddresses, SocketShared, StampedSocket};
use crate::driver::transport::tls::Trust;
use crate::pki::authority::Holder;
use crate::pki::{Authority, Validity, files};
use bytes::Bytes;
use quinn_proto::{ConnectionError, VarInt};
use quorum::id::{ClusterName, HostName};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::Notify;

/// Longer than anything takes on the most loaded machine; only a failure waits so long.
pub(super) const LIMIT: Duration = Duration::from_secs(60);

/// Two endpoints on loopback that trust each other.
pub(super) struct Pair {
    _base: TempDir,
    pub(super) trust: Trust,
    pub(super) ends: [Endpoint; 2],
}

impl Pair {
    /// Must be called within a tokio runtime.
    pub(super) fn new() -> Self {
        let base = tempfile::tempdir().expect("a folder");
        let cluster = ClusterName::new("tests").expect("a name");
        let validity = || Validity::from_now(Duration::from_secs(86_400));
        let authority = Authority::create(&base.path().join("pki"), &cluster, validity()).expect("an authority");
        let host: HostName = "a".parse().expect("a name");
        let holder = Holder::Host { host: host.clone(), site: "tokyo".parse().expect("a name") };
        let certified = authority.issue(&holder, validity()).expect("a certificate");
        let roots = files::Trust::of(&authority).expect("roots and lists");
        let identity = files::write_identity(&base.path().join("a"), &certified, None, &roots).expect("write");
        let (limits, listen) = (Limits::default(), vec![loopback()]);
        let config = TransportConfig { cluster, host, listen, peers: vec![], identity, limits };
        let trust = Trust::load(&config, 1).expect("trust");
        let ends = [end(&trust), end(&trust)];
        Self { _base: base, trust, ends }
    }

    fn call(&self, kind: Kind) -> Connection {
        self.call_at(self.ends[1].local_address().expect("an address"), kind)
    }

    pub(super) fn call_at(&self, to: SocketAddr, kind: Kind) -> Connection {
        self.ends[0].connect(self.trust.client(kind), (to, SERVER_NAME), kind == Kind::Beat).expect("called")
    }

    /// Both ends of a new connection, whose handshakes are over.
    async fn connect(&self, kind: Kind) -> [Connection; 2] {
        let calling = self.call(kind);
        let attempt = in_time(self.ends[1].attempt()).await.expect("somebody calls");
        let called = attempt.accept(self.trust.server(kind), kind == Kind::Beat).expect("accepted");
        in_time(calling.established()).await.expect("established");
        in_time(called.established()).await.expect("established");
        [calling, called]
    }
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn end(trust: &Trust) -> Endpoint {
    let known = KnownAddresses::default();
    known.replace([IpAddr::from([127, 0, 0, 1])].into());
    let (known, counters) = (Arc::new(known), Arc::default());
    let shared = SocketShared { known, counters, ids: IdKey::new(trust.reset_seed()), buffer_bytes: 1 << 16 };
    let socket = StampedSocket::bind(loopback(), shared).expect("bind");
    let config = (quic::endpoint_config(trust.reset_seed()), trust.server(Kind::Bulk));
    Endpoint::start(socket, config, Arc::new(Pace::start().expect("a timer")))
}

pub(super) async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, what).await.expect("in time")
}

/// Gives everything else its turn until `holds`.
pub(super) async fn until(mut holds: impl FnMut() -> bool) {
    in_time(async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

fn taken_from(connection: &Connection) -> Arc<Mutex<Vec<u8>>> {
    let taken = Arc::<Mutex<Vec<u8>>>::default();
    let into = Arc::clone(&taken);
    connection.take_datagrams(Box::new(move |bytes, _| into.lock().expect("lock").push(bytes[0])));
    taken
}

fn mark(mark: u8) -> Bytes {
    Bytes::copy_from_slice(&[mark; 40])
}

#[tokio::test]
async fn a_connection_ends_with_its_last_handle_and_a_stream_is_one() {
    let pair = Pair::new();
    let [calling, called] = pair.connect(Kind::Bulk).await;
    let mut stream = in_time(calling.open_uni()).await.expect("a stream");
    drop(calling);
    in_time(stream.write_all(b"still there")).await.expect("written");
    let mut reading = in_time(called.accept_uni()).await.expect("a stream");
    let mut read = [0; 11];
    in_time(reading.read_exact(&mut read)).await.expect("read");
    assert_eq!((&read[..], called.close_reason()), (&b"still there"[..], None));
    drop(stream);
    let reason = in_time(called.closed()).await;
    assert!(matches!(reason, ConnectionError::ApplicationClosed(_)), "{reason:?}");
    until(|| pair.ends.iter().all(|end| end.open_connections() == 0)).await;
}

#[tokio::test]
async fn what_the_kernel_has_no_room_for_is_sent_once_it_has() {
    let pair = Pair::new();
    let first = pair.connect(Kind::Beat).await;
    let second = pair.connect(Kind::Beat).await;
    let taken = [taken_from(&first[1]), taken_from(&second[1])];
    for round in 0..20 {
        // The first of them is refused twice, those after it wait behind it.
        pair.ends[0].shared().socket.full.store(2, Ordering::Release);
        for connection in [&first[0], &second[0]] {
            assert_eq!(connection.send_datagram(mark(round)), Ok(true));
        }
        until(|| taken.iter().all(|taken| taken.lock().expect("lock").len() == usize::from(round) + 1)).await;
        assert_eq!(pair.ends[0].shared().socket.full.load(Ordering::Acquire), 0, "asked twice in vain");
    }
    for taken in taken {
        assert_eq!(*taken.lock().expect("lock"), (0..20).collect::<Vec<u8>>());
    }
}

#[tokio::test]
async fn datagrams_that_nobody_took_yet_are_handed_on_the_newest_of_them() {
    let pair = Pair::new();
    let [calling, called] = pair.connect(Kind::Beat).await;
    for round in 0..100 {
        calling.send_datagram(mark(round)).expect("sent");
        until(|| called.stats().frame_rx.datagram == u64::from(round) + 1).await;
    }
    let taken = taken_from(&called);
    calling.send_datagram(mark(100)).expect("sent");
    until(|| taken.lock().expect("lock").last() == Some(&100)).await;
    assert_eq!(*taken.lock().expect("lock"), (36..=100).collect::<Vec<u8>>());
}

#[tokio::test]
async fn datagrams_carry_the_moment_of_the_packet_in_which_they_came() {
    let pair = Pair::new();
    let [calling, called] = pair.connect(Kind::Beat).await;
    let came = Arc::<Mutex<Vec<_>>>::default();
    let into = Arc::clone(&came);
    called.take_datagrams(Box::new(move |_, at| into.lock().expect("lock").push(at)));
    let mut sent = Vec::new();
    for round in 0..5 {
        let before = clock::now();
        calling.send_datagram(mark(round)).expect("sent");
        until(|| came.lock().expect("lock").len() == usize::from(round) + 1).await;
        sent.push((before, clock::now()));
    }
    let came = came.lock().expect("lock");
    for (at, (before, after)) in came.iter().zip(sent) {
        assert!(before.minus(Duration::from_millis(1)) <= *at && *at <= after, "{before:?} {at:?} {after:?}");
    }
}

#[tokio::test]
async fn at_rest_who_answers_has_its_turn_before_the_connection_has() {
    const ROUNDS: usize = 20;
    let pair = Pair::new();
    let [calling, called] = pair.connect(Kind::Beat).await;
    let came = Arc::<Notify>::default();
    let tell = Arc::clone(&came);
    called.take_datagrams(Box::new(move |_, _| tell.notify_one()));
    let shared = pair.ends[1].shared();
    let waits = || shared.core().connections.iter().flatten().any(|kept| kept.inner.listed.load(Ordering::Acquire));
    for rest in [None, Some(Rest { looks: None, beats_late: Duration::ZERO })] {
        shared.pace.set(rest);
        let mut first = 0;
        for round in 0..ROUNDS {
            assert_eq!(calling.send_datagram(mark(round as u8)), Ok(true));
            in_time(came.notified()).await;
            first += usize::from(waits());
            until(|| !waits()).await;
        }
        // What QUIC itself has to say may have come just before.
        assert!(if rest.is_some() { first > ROUNDS / 2 } else { first == 0 }, "{rest:?}: first in {first} of {ROUNDS}");
    }
}

#[tokio::test]
async fn at_rest_a_connection_has_its_turn_though_something_comes_in_all_the_time() {
    const BEFORE: u32 = 50;
    let pair = Pair::new();
    let [calling, called] = pair.connect(Kind::Beat).await;
    let (_heard, answered) = (taken_from(&called), taken_from(&calling));
    pair.ends[1].shared().pace.set(Some(Rest { looks: None, beats_late: Duration::ZERO }));
    let mut rounds = 0;
    until(|| {
        rounds += 1;
        calling.send_datagram(mark(1)).expect("sent");
        if rounds == BEFORE {
            called.send_datagram(mark(2)).expect("sent");
        }
        !answered.lock().expect("lock").is_empty()
    })
    .await;
    // As many as may be on their way unacknowledged are many more.
    assert!(rounds < BEFORE + 20, "{rounds} rounds");
}

#[tokio::test]
async fn who_waits_no_more_leaves_nothing_behind() {
    let pair = Pair::new();
    let [calling, _called] = pair.connect(Kind::Bulk).await;
    let _only = in_time(calling.open_uni()).await.expect("a stream");
    for _ in 0..50 {
        let moment = Duration::from_millis(1);
        assert!(tokio::time::timeout(moment, calling.open_uni()).await.is_err(), "one stream is the peer's limit");
        assert!(tokio::time::timeout(moment, calling.accept_bi()).await.is_err(), "nobody opens one");
        assert!(tokio::time::timeout(moment, calling.closed()).await.is_err(), "it is up");
    }
    assert_eq!(calling.waiting(), 0);
}

#[tokio::test]
async fn what_is_written_and_read_in_turns_arrives_whole_though_there_is_more_than_fits() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let pair = Pair::new();
    let [calling, called] = pair.connect(Kind::Bulk).await;
    let (mut sending, _) = in_time(calling.open_bi()).await.expect("a stream");
    let content: Vec<u8> = (0..9_000_000_u32).map(|i| (i / 7 % 251) as u8).collect();
    let write = async {
        sending.write_all(&content).await.expect("written");
        sending.shutdown().await.expect("ended");
    };
    let read = async {
        let (_, mut reading) = called.accept_bi().await.expect("a stream");
        let mut read = Vec::new();
        reading.read_to_end(&mut read).await.expect("read");
        read
    };
    let ((), read) = in_time(async { tokio::join!(write, read) }).await;
    assert!(read == content, "{} of {} bytes, or others", read.len(), content.len());
    in_time(sending.arrived()).await;
}

#[tokio::test]
async fn a_reader_that_wants_no_more_stops_the_writer_and_a_broken_off_stream_is_no_end() {
    let pair = Pair::new();
    let [calling, called] = pair.connect(Kind::Bulk).await;
    let (mut sending, mut answers) = in_time(calling.open_bi()).await.expect("a stream");
    in_time(sending.write_all(b"x")).await.expect("written");
    let (mut answering, reading) = in_time(called.accept_bi()).await.expect("a stream");
    drop(reading);
    let stopped = in_time(async {
        loop {
            if let Err(error) = sending.write_all(&[0; 1_000]).await {
                return error;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(matches!(stopped, super::WriteError::Stopped), "{stopped:?}");
    in_time(answering.write_all(b"half")).await.expect("written");
    let mut half = [0; 4];
    in_time(answers.read_exact(&mut half)).await.expect("read");
    answering.reset();
    let broken = in_time(answers.read_chunk(10)).await;
    assert!(matches!(broken, Err(super::stream::ReadError::Reset)), "{broken:?}");
    assert_eq!(calling.close_reason(), None);
}

#[tokio::test]
async fn an_attempt_that_nobody_takes_is_forgotten() {
    // More than QUIC lets wait.
    const CALLS: usize = 300;
    let pair = Pair::new();
    let mut called = BTreeSet::new();
    for call in 1..=CALLS {
        // Not all at once, which is more than the kernel need have room for; and nobody calls again who was heard.
        let _calling = pair.call(Kind::Beat);
        while called.len() < call {
            let attempt = in_time(pair.ends[1].attempt()).await.expect("somebody calls");
            assert!(!attempt.is_address_proven());
            called.insert(attempt.first_id().to_vec());
        }
    }
    assert_eq!(pair.ends[1].open_connections(), 0);
}

#[tokio::test]
async fn a_closed_endpoint_tells_its_peers_and_takes_no_more() {
    let pair = Pair::new();
    let [calling, called] = pair.connect(Kind::Beat).await;
    let to = pair.ends[0].local_address().expect("an address");
    let _calls_back = pair.ends[1].connect(pair.trust.client(Kind::Beat), (to, SERVER_NAME), true).expect("called");
    let too_late = in_time(pair.ends[0].attempt()).await.expect("somebody calls");
    pair.ends[0].close(VarInt::from_u32(7));
    let refused = too_late.accept(pair.trust.server(Kind::Beat), true);
    assert_eq!(refused.err(), Some(ConnectionError::LocallyClosed));
    let reason = in_time(called.closed()).await;
    assert!(matches!(&reason, ConnectionError::ApplicationClosed(close) if close.error_code == VarInt::from_u32(7)));
    assert_eq!(in_time(calling.closed()).await, ConnectionError::LocallyClosed);
    let to = pair.ends[1].local_address().expect("an address");
    assert!(pair.ends[0].connect(pair.trust.client(Kind::Beat), (to, SERVER_NAME), true).is_err());
    assert!(in_time(pair.ends[0].attempt()).await.is_none());
    in_time(pair.ends[0].idle()).await;
    // The driver is gone, and with it its hold of the socket.
    until(|| Arc::strong_count(pair.ends[0].shared()) == 1).await;
}
