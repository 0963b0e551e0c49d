//! The hosts: production engine and transport; only the keeper's page is made up, because there is one machine.

use super::voter::ADDRESS;
use antipode::driver::clock;
use antipode::driver::transport::{
    Channel, Dial, Grid, Limits, Path as Route, Peer, Rest, Transport, TransportConfig, TransportEvent, TransportHandle,
};
use antipode::engine::{self, Effect, Engine, Identity, Input, KeeperPage, Now, Resting, Setup};
use antipode::heartbeat::{self, KeeperState};
use antipode::pki::IdentityFiles;
use quorum::id::{AgentInstance, BootId, ClusterName, HardwareId, HostName, KeeperInstance, SiteName};
use quorum::ledger::{Class, WatchdogAttestation};
use quorum::timing::{Measured, Timing};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

/// The one channel of messages between agents.
const MESSAGES: Channel = Channel(1);
/// Without a deadline an engine is woken this often.
const WAKE_MAX: Duration = Duration::from_secs(1);
/// Tells one life of a host from the next.
static LIVES: AtomicU64 = AtomicU64::new(1);

/// A host's name.
pub fn name(n: usize) -> String {
    format!("h{n:04}")
}

/// Half of them here, half there.
pub fn site(n: usize) -> &'static str {
    if n.is_multiple_of(2) { "a" } else { "b" }
}

/// Each has a loopback address of its own.
pub fn address(n: usize) -> SocketAddr {
    SocketAddr::from(([127, 1, u8::try_from(n / 250).unwrap_or(255), u8::try_from(n % 250 + 1).unwrap_or(1)], 17_600))
}

/// All hosts; dropped, their connections end without a word, as in a crash.
pub struct Hosts {
    /// Taken on drop: everything that runs in it stops where it stands.
    runtime: Option<Runtime>,
    leases: Vec<Arc<AtomicBool>>,
}

impl Drop for Hosts {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(10));
        }
    }
}

impl Hosts {
    /// Starts them all at once.
    pub fn start(folder: &Path, count: usize) -> Self {
        let leases: Vec<Arc<AtomicBool>> = (0..count).map(|_| Arc::default()).collect();
        let life = LIVES.fetch_add(1, Ordering::Relaxed);
        let runtime = Runtime::new().expect("a runtime");
        for (n, lease) in leases.iter().enumerate() {
            let (files, lease) = (IdentityFiles::in_directory(&folder.join("tls").join(name(n))), Arc::clone(lease));
            runtime.spawn(async move { Host::start((n, life), files, lease).run().await });
        }
        Self { runtime: Some(runtime), leases }
    }

    /// How many hold a lease now.
    pub fn with_lease(&self) -> usize {
        self.leases.iter().filter(|lease| lease.load(Ordering::Relaxed)).count()
    }
}

struct Host {
    engine: Engine,
    transport: TransportHandle,
    events: mpsc::Receiver<TransportEvent>,
    page: KeeperPage,
    lease: Arc<AtomicBool>,
    rest: Option<Resting>,
}

fn now() -> Now {
    Now { moment: clock::now(), wall_ms: 0 }
}

/// Sixteen bytes that are this host's, in this life if `life` isn't 0.
fn stamp(n: usize, life: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&(n as u64 + 1).to_le_bytes());
    bytes[8..].copy_from_slice(&life.to_le_bytes());
    bytes
}

impl Host {
    fn start((n, life): (usize, u64), identity: IdentityFiles, lease: Arc<AtomicBool>) -> Self {
        let voter = HostName::new("voter").expect("a name");
        let (events, incoming) = mpsc::channel(256);
        let peer = Peer { host: voter.clone(), addresses: vec![ADDRESS.parse().expect("an address")], dial: Dial::Us };
        let config = TransportConfig {
            cluster: ClusterName::new("thousand").expect("a name"),
            host: HostName::new(&name(n)).expect("a name"),
            listen: vec![address(n)],
            peers: vec![peer],
            identity,
            limits: Limits { socket_buffer_bytes: 65_536, ..Limits::default() },
        };
        let timing = Timing::derive(Measured::new(Duration::from_millis(1_100), Duration::from_millis(40)));
        let identity = Identity {
            host: config.host.clone(),
            site: SiteName::new(site(n)).expect("a name"),
            boot: BootId(stamp(n, 0)),
            hardware: HardwareId(stamp(n, 0)),
            agent: AgentInstance(stamp(n, life)),
        };
        let peers = [(voter, SiteName::new("w").expect("a name"))].into();
        let transport = Transport::start(config, events).expect("a free port");
        let ended_votes = std::collections::BTreeSet::new();
        let engine = Engine::new(now(), Setup { identity, peers, timing: timing.clone(), voting: None, ended_votes });
        let attested = WatchdogAttestation {
            driver: "bench".to_owned(),
            worst: timing.watchdog_worst,
            fire_tests: 3,
            conditions_hold: true,
        };
        let page = KeeperPage {
            instance: KeeperInstance(stamp(n, 0)),
            state: KeeperState::Idle,
            host_epoch: None,
            echoed: 0,
            written: 0,
            attested: None,
            watchdog: Some(attested),
            class: Class::A,
            lab: true,
            because: String::new(),
        };
        Self { engine, transport, events: incoming, page, lease, rest: None }
    }

    async fn run(mut self) {
        let page = self.page.clone();
        self.step(Input::Keeper(page));
        loop {
            let at = now().moment;
            let left = self.engine.deadline().map_or(WAKE_MAX, |due| {
                Duration::from_nanos(due.boot_ns.saturating_sub(at.boot_ns).max(due.raw_ns.saturating_sub(at.raw_ns)))
            });
            let input = match tokio::time::timeout(left.min(WAKE_MAX), self.events.recv()).await {
                Ok(Some(event)) => translate(event),
                Ok(None) => return,
                Err(_elapsed) => Some(Input::Wake),
            };
            if let Some(input) = input {
                self.step(input);
            }
        }
    }

    fn step(&mut self, input: Input) {
        let to_voter = |host: &HostName| host.as_str() == "voter";
        let effects = self.engine.step(now(), input);
        self.rest();
        for effect in effects {
            match effect {
                Effect::Datagram { to, datagram } if to_voter(&to) => self.send_datagram(&to, &datagram),
                Effect::Datagrams { to, datagram } => {
                    to.iter().filter(|to| to_voter(to)).for_each(|to| self.send_datagram(to, &datagram));
                }
                Effect::Message { to, message } if to_voter(&to) => {
                    let bytes = engine::encode(&message).expect("a message fits");
                    let _not_up_yet = self.transport.send_message(&to, MESSAGES, bytes.into());
                }
                // A record reaches the keeper only while the lease is good.
                Effect::Keeper(_) => self.lease.store(true, Ordering::Relaxed),
                Effect::Event(antipode::event::Event::LeaseLost { .. }) => self.lease.store(false, Ordering::Relaxed),
                _ => {}
            }
        }
    }

    fn send_datagram(&self, to: &HostName, datagram: &heartbeat::Datagram) {
        let bytes = heartbeat::encode(datagram).expect("a beat fits");
        let _not_up_yet = self.transport.send_datagram(to, Route(0), bytes.into());
    }

    /// As the agent does.
    fn rest(&mut self) {
        let rest = self.engine.rest();
        if self.rest != rest {
            self.rest = rest;
            let beat = self.engine.next_beat().unwrap_or_default().boot_ns;
            let from = Instant::now() + Duration::from_nanos(beat.saturating_sub(now().moment.boot_ns));
            let looks = |every| Grid { from, every };
            self.transport.rest(rest.map(|rest| Rest { looks: rest.look.map(looks), beats_late: rest.beat }));
        }
    }
}

fn translate(event: TransportEvent) -> Option<Input> {
    match event {
        TransportEvent::Datagram { from, path, bytes, received } => {
            let datagram = Box::new(heartbeat::decode(&bytes).ok()?);
            Some(Input::Datagram { from, path: path.0, datagram, received })
        }
        TransportEvent::Message { from, bytes, .. } => {
            Some(Input::Message { from, message: Box::new(engine::decode(&bytes).ok()?) })
        }
        TransportEvent::PathUp { peer, .. } => Some(Input::Link { peer, up: true }),
        TransportEvent::PathDown { peer, .. } => Some(Input::Link { peer, up: false }),
        TransportEvent::Stream { .. } | TransportEvent::Refused { .. } => None,
    }
}
