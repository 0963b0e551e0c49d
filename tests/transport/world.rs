//! Hosts on loopback with real certificates, and what the tests do to them.

use antipode::driver::clock;
use antipode::driver::transport::{
    Counted, Dial, Path, Peer, Transport, TransportConfig, TransportEvent, TransportHandle,
};
use antipode::pki::authority::Holder;
use antipode::pki::files::{self, Trust};
use antipode::pki::{Authority, Certified, Identity, IdentityFiles, IssuedRecord, RevocationReason, Validity};
use bytes::Bytes;
use quorum::id::{ClusterName, HostName};
use quorum::moment::Moment;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

/// Longer than anything takes on the most loaded machine; only a failure waits so long.
pub const LIMIT: Duration = Duration::from_secs(60);

pub fn host(name: &str) -> HostName {
    HostName::new(name).expect("a host name")
}

/// A cluster's authority, and a directory for each host.
pub struct World {
    pub base: TempDir,
    pub authority: Authority,
}

impl World {
    pub fn new(cluster: &str) -> Self {
        let base = tempfile::tempdir().expect("temporary directory");
        let cluster = ClusterName::new(cluster).expect("cluster name");
        let validity = Validity::from_now(Duration::from_secs(86_400));
        let authority = Authority::create(&base.path().join("pki"), &cluster, validity).expect("an authority");
        Self { base, authority }
    }

    pub fn issue(&self, name: &str, validity: Validity) -> Certified {
        let holder = Holder::Host { host: host(name), site: "tokyo".parse().expect("site name") };
        self.authority.issue(&holder, validity).expect("issue")
    }

    /// Gives a host a fresh certificate that counts for a day.
    pub fn equip(&self, name: &str) -> (IdentityFiles, Certified) {
        let certified = self.issue(name, Validity::from_now(Duration::from_secs(86_400)));
        (self.write(name, &certified), certified)
    }

    pub fn write(&self, name: &str, certified: &Certified) -> IdentityFiles {
        files::write_identity(&self.base.path().join(name), certified, None, &self.trust()).expect("write")
    }

    pub fn trust(&self) -> Trust {
        Trust::of(&self.authority).expect("roots and lists")
    }

    /// Revokes the one certificate of a host.
    pub fn revoke(&self, name: &str) {
        let is_it = |r: &IssuedRecord| matches!(&r.identity, Identity::Host { host, .. } if host.as_str() == name);
        let record = self.authority.issued().expect("records").into_iter().find(is_it).expect("a certificate");
        self.authority.revoke(record.serial, RevocationReason::KeyCompromise).expect("revoke");
    }

    /// Hands the present roots and revocation lists to a host.
    pub fn publish_to(&self, name: &str) {
        files::write_trust(&self.base.path().join(name), &self.trust()).expect("write");
    }

    pub fn config(&self, name: &str, identity: IdentityFiles, listen: Vec<SocketAddr>) -> TransportConfig {
        let cluster = self.authority.cluster().clone();
        let limits = antipode::driver::transport::Limits::default();
        TransportConfig { cluster, host: host(name), listen, peers: vec![], identity, limits }
    }

    /// A running host with one path.
    pub fn start(&self, name: &str) -> Node {
        let (identity, _) = self.equip(name);
        Node::start(self.config(name, identity, vec![loopback()]))
    }
}

pub fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// A running transport, with what it has told so far.
pub struct Node {
    pub name: HostName,
    pub handle: TransportHandle,
    pub events: mpsc::Receiver<TransportEvent>,
    /// What came in while something else was waited for.
    missed: Vec<TransportEvent>,
}

impl Node {
    pub fn start(config: TransportConfig) -> Self {
        Self::start_with_room(config, 1024)
    }

    pub fn start_with_room(config: TransportConfig, room: usize) -> Self {
        let (sender, events) = mpsc::channel(room);
        let name = config.host.clone();
        let handle = Transport::start(config, sender).expect("start a transport");
        Self { name, handle, events, missed: vec![] }
    }

    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.handle.local_addresses().expect("bound addresses")
    }

    pub fn as_peer(&self, dial: Dial) -> Peer {
        Peer { host: self.name.clone(), addresses: self.addresses(), dial }
    }

    /// The first event not yet asked for that `wanted` maps to something.
    pub async fn next<T>(&mut self, what: &str, mut wanted: impl FnMut(&TransportEvent) -> Option<T>) -> T {
        if let Some((at, found)) = self.missed.iter().enumerate().find_map(|(i, e)| wanted(e).map(|found| (i, found))) {
            self.missed.remove(at);
            return found;
        }
        let found = tokio::time::timeout(LIMIT, async {
            loop {
                let event = self.events.recv().await.expect("the transport runs");
                if let Some(found) = wanted(&event) {
                    return found;
                }
                self.missed.push(event);
            }
        });
        found.await.unwrap_or_else(|_| panic!("{}: no {what}; counted {:?}", self.name, self.handle.stats()))
    }

    pub async fn up(&mut self, peer: &HostName, path: Path) {
        let wanted = |event: &TransportEvent| match event {
            TransportEvent::PathUp { peer: p, path: on, .. } if p == peer && *on == path => Some(()),
            _ => None,
        };
        self.next(&format!("path {path} to {peer}"), wanted).await;
    }

    pub async fn datagram(&mut self, content: &[u8]) -> (HostName, Path, Moment) {
        let wanted = |event: &TransportEvent| match event {
            TransportEvent::Datagram { from, path, bytes, received } if bytes == content => {
                Some((from.clone(), *path, *received))
            }
            _ => None,
        };
        self.next("datagram", wanted).await
    }

    pub async fn message(&mut self, content: &[u8]) -> HostName {
        let wanted = |event: &TransportEvent| match event {
            TransportEvent::Message { from, bytes, .. } if bytes == content => Some(from.clone()),
            _ => None,
        };
        self.next("message", wanted).await
    }

    pub fn counted(&self, what: Counted) -> u64 {
        self.handle.stats().iter().filter(|c| c.what == what).map(|c| c.count).sum()
    }

    /// Waits until something has been counted at least so often.
    pub async fn until_counted(&self, what: Counted, count: u64) {
        let started = clock::now();
        while self.counted(what) < count {
            let waited = clock::now().held_since(started);
            assert!(waited < LIMIT, "{}: no {count} {what:?}, but {:?}", self.name, self.handle.stats());
            pause(5).await;
        }
    }

    pub fn is_up(&self, path: Path) -> bool {
        self.handle.paths().iter().any(|p| p.path == path && p.up)
    }
}

/// The time between two beats, or between two looks at a condition.
pub async fn pause(milliseconds: u64) {
    let period = Duration::from_millis(milliseconds);
    tokio::time::interval_at(tokio::time::Instant::now() + period, period).tick().await;
}

/// Waits for a condition.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let started = clock::now();
    while !condition() {
        assert!(clock::now().held_since(started) < LIMIT, "waited in vain: {what}");
        pause(5).await;
    }
}

/// Makes hosts each other's peers; the first name dials.
pub fn introduce(nodes: &[&Node]) {
    for node in nodes {
        let others = nodes.iter().filter(|n| n.name != node.name).map(|n| n.as_peer(Dial::ByName)).collect();
        node.handle.update_peers(others).expect("peers");
    }
}

/// Two hosts of one cluster whose path is up.
pub async fn pair(world: &World) -> (Node, Node) {
    let (mut a, mut b) = (world.start("a"), world.start("b"));
    introduce(&[&a, &b]);
    a.up(&host("b"), Path(0)).await;
    b.up(&host("a"), Path(0)).await;
    (a, b)
}

pub async fn beat(from: &Node, to: &mut Node, path: Path, content: &'static [u8]) {
    // A beat may be lost on the way (a datagram is); the next one isn't.
    let receiver = to.name.clone();
    let sent = async {
        loop {
            let _ = from.handle.send_datagram(&receiver, path, Bytes::from_static(content));
            pause(20).await;
        }
    };
    let name = from.name.clone();
    tokio::select! {
        () = sent => {}
        (from, on, _) = to.datagram(content) => assert_eq!((from, on), (name, path)),
    }
}

/// A path between two hosts that can be cut: forwards packets from its first caller to `to`, and answers back.
pub struct Relay {
    pub address: SocketAddr,
    state: Arc<RelayState>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct RelayState {
    packets: AtomicUsize,
    /// The first packet that doesn't pass.
    cut_at: AtomicUsize,
}

impl RelayState {
    /// Whether the packet that has just come in passes.
    fn passes(&self) -> bool {
        self.packets.fetch_add(1, Ordering::AcqRel) < self.cut_at.load(Ordering::Acquire)
    }
}

impl Relay {
    pub async fn to(to: SocketAddr) -> Self {
        let outside = UdpSocket::bind(loopback()).await.expect("bind");
        let inside = UdpSocket::bind(loopback()).await.expect("bind");
        let address = outside.local_addr().expect("address");
        let state = Arc::new(RelayState { cut_at: usize::MAX.into(), ..RelayState::default() });
        let task = tokio::spawn(forward((outside, inside), to, Arc::clone(&state)));
        Self { address, state, task }
    }

    /// Packets that came in so far, from both ends.
    pub fn packets(&self) -> usize {
        self.state.packets.load(Ordering::Acquire)
    }

    pub fn cut(&self, cut: bool) {
        self.state.cut_at.store(if cut { 0 } else { usize::MAX }, Ordering::Release);
    }

    /// So many more packets pass, of both ends together.
    pub fn cut_after(&self, packets: usize) {
        self.state.cut_at.store(self.packets() + packets, Ordering::Release);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward((outside, inside): (UdpSocket, UdpSocket), to: SocketAddr, state: Arc<RelayState>) {
    let mut caller = None;
    let (mut one, mut other) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            Ok((length, from)) = outside.recv_from(&mut one) => {
                caller = Some(from);
                if state.passes() {
                    let _ = inside.send_to(&one[..length], to).await;
                }
            }
            Ok((length, _)) = inside.recv_from(&mut other) => {
                if state.passes() && let Some(caller) = caller {
                    let _ = outside.send_to(&other[..length], caller).await;
                }
            }
        }
    }
}

/// A client that isn't ours: says what it likes, with any certificate or none.
pub struct Stranger {
    endpoint: quinn::Endpoint,
    config: quinn::ClientConfig,
}

impl Stranger {
    /// `mark` and `alpn` are what an agent would send; `identity` its files.
    pub fn new(mark: [u8; 4], alpn: &[u8], identity: Option<&IdentityFiles>) -> Self {
        Self::collecting(mark, alpn, (identity, Tickets::default()))
    }

    /// Also keeps whatever would allow to resume a session.
    pub fn collecting(mark: [u8; 4], alpn: &[u8], (identity, tickets): (Option<&IdentityFiles>, Tickets)) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(TrustAnybody(provider)));
        let mut tls = match identity.map(|files| files.load().expect("identity")) {
            Some(own) => builder.with_client_auth_cert(own.chain, own.key).expect("certificate and key"),
            None => builder.with_no_client_auth(),
        };
        tls.alpn_protocols = vec![alpn.to_vec()];
        tls.resumption = rustls::client::Resumption::store(Arc::new(tickets));
        let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).expect("QUIC");
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.initial_dst_cid_provider(Arc::new(move || {
            let mut id = [7; 20];
            id[..4].copy_from_slice(&mark);
            id[4..12].copy_from_slice(&clock::now().raw_ns.to_le_bytes());
            quinn::ConnectionId::new(&id)
        }));
        Self { endpoint: quinn::Endpoint::client(loopback()).expect("bind"), config }
    }

    pub fn bulk(identity: Option<&IdentityFiles>) -> Self {
        Self::new(*b"ApK1", b"antipode-bulk/1", identity)
    }

    pub fn address(&self) -> SocketAddr {
        self.endpoint.local_addr().expect("bound")
    }

    pub fn call(&self, to: SocketAddr) -> quinn::Connecting {
        self.endpoint.connect_with(self.config.clone(), to, "antipode").expect("call")
    }

    /// Makes this the host `b` among the peers of `to`, and gets in.
    pub async fn calls_as_b(&self, to: &Node, dial: Dial) -> quinn::Connection {
        to.handle.update_peers(vec![Peer { host: host("b"), addresses: vec![self.address()], dial }]).expect("peers");
        let connection = self.call(to.addresses()[0]).await.expect("a good certificate");
        let mut welcome = connection.accept_uni().await.expect("welcome");
        welcome.read_exact(&mut [0]).await.expect("version");
        connection
    }
}

/// Counts the tickets that a server hands out.
#[derive(Clone, Debug, Default)]
pub struct Tickets(Arc<AtomicUsize>);

impl Tickets {
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

impl rustls::client::ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: rustls::pki_types::ServerName<'static>, _: rustls::NamedGroup) {}

    fn kx_hint(&self, _: &rustls::pki_types::ServerName<'_>) -> Option<rustls::NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: rustls::pki_types::ServerName<'static>, _: rustls::client::Tls12ClientSessionValue) {
    }

    fn tls12_session(&self, _: &rustls::pki_types::ServerName<'_>) -> Option<rustls::client::Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &rustls::pki_types::ServerName<'static>) {}

    fn insert_tls13_ticket(
        &self,
        _: rustls::pki_types::ServerName<'static>,
        _: rustls::client::Tls13ClientSessionValue,
    ) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }

    fn take_tls13_ticket(
        &self,
        _: &rustls::pki_types::ServerName<'static>,
    ) -> Option<rustls::client::Tls13ClientSessionValue> {
        None
    }
}

#[derive(Debug)]
struct TrustAnybody(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for TrustAnybody {
    // So many parameters: the trait's signature.
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2".into()))
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
