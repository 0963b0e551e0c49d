//! What all tasks of one transport share.

use super::drive::Endpoint;
use super::event::{CloseCode, Ended, Path, Refusal, Side};
use super::pace::Pace;
use super::remote::Remote;
use super::slot::Live;
use super::socket::KnownAddresses;
use super::stats::{Counted, Counter, Counters};
use super::tls::{self, Trust};
use super::{TransportConfig, TransportEvent};
use quorum::id::HostName;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use tokio::sync::mpsc;

/// One local address.
#[derive(Debug)]
pub(super) struct LocalEnd {
    pub(super) endpoint: Endpoint,
    /// What can't be told to be a peer's.
    pub(super) strangers: Arc<Counters>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: TransportConfig,
    pub(super) events: mpsc::Sender<TransportEvent>,
    pub(super) ends: Vec<LocalEnd>,
    pub(super) known: Arc<KnownAddresses>,
    pub(super) pace: Arc<Pace>,
    trust: RwLock<Arc<Trust>>,
    remotes: RwLock<BTreeMap<HostName, Arc<Remote>>>,
    /// Kept while the configuration is being replaced, so that two replacements can't cross.
    pub(super) replacing: Mutex<()>,
}

/// Why a connection could not be set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// One end refused.
    Refused(Refusal, Side),
    /// Nobody answered, or the path broke.
    Unanswered,
}

impl Failure {
    pub(super) fn of(error: &quinn_proto::ConnectionError) -> Self {
        use quinn_proto::ConnectionError as E;
        let refused = |code: quinn_proto::TransportErrorCode, by: Side| match tls_alert(code) {
            Some(alert) => Self::Refused(tls::refusal_of_alert_number(alert).unwrap_or(Refusal::BadCertificate), by),
            None => Self::Refused(Refusal::Protocol, by),
        };
        match error {
            E::TransportError(error) => refused(error.code, Side::Us),
            E::ConnectionClosed(close) => refused(close.error_code, Side::Them),
            E::ApplicationClosed(close) => {
                let code = CloseCode::from_wire(close.error_code.into_inner());
                code.as_refusal().map_or(Self::Unanswered, |refusal| Self::Refused(refusal, Side::Them))
            }
            E::VersionMismatch => Self::Refused(Refusal::Protocol, Side::Them),
            E::Reset | E::TimedOut | E::LocallyClosed | E::CidsExhausted => Self::Unanswered,
        }
    }
}

/// The TLS alert within a QUIC error code (RFC 9001 §4.8: 0x0100 plus the alert).
fn tls_alert(code: quinn_proto::TransportErrorCode) -> Option<u8> {
    u64::from(code).checked_sub(0x100).and_then(|alert| u8::try_from(alert).ok())
}

impl Shared {
    pub(super) fn new(
        config: TransportConfig,
        events: mpsc::Sender<TransportEvent>,
        (ends, known, pace): (Vec<LocalEnd>, Arc<KnownAddresses>, Arc<Pace>),
        trust: Trust,
    ) -> Self {
        Self {
            config,
            events,
            ends,
            known,
            pace,
            trust: RwLock::new(Arc::new(trust)),
            remotes: RwLock::default(),
            replacing: Mutex::new(()),
        }
    }

    pub(super) fn us(&self) -> &HostName {
        &self.config.host
    }

    pub(super) fn trust(&self) -> Arc<Trust> {
        Arc::clone(&self.trust.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn set_trust(&self, trust: Trust) {
        *self.trust.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(trust);
    }

    pub(super) fn remote(&self, host: &HostName) -> Option<Arc<Remote>> {
        self.remotes.read().unwrap_or_else(PoisonError::into_inner).get(host).cloned()
    }

    pub(super) fn remotes(&self) -> Vec<Arc<Remote>> {
        self.remotes.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub(super) fn insert(&self, remote: Arc<Remote>) {
        let host = remote.peer.host.clone();
        self.remotes.write().unwrap_or_else(PoisonError::into_inner).insert(host, remote);
    }

    pub(super) fn remove(&self, host: &HostName) -> Option<Arc<Remote>> {
        self.remotes.write().unwrap_or_else(PoisonError::into_inner).remove(host)
    }

    /// The peer that is to be found at this address, for counting what never showed who it is.
    pub(super) fn remote_at(&self, address: SocketAddr) -> Option<Arc<Remote>> {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        self.remotes().into_iter().find(|r| r.peer.addresses.contains(&address))
    }

    /// Counts a refusal and tells the engine, if it takes it.
    pub(super) fn refused(&self, who: Option<&Remote>, (address, path): (SocketAddr, Path), why: (Refusal, Side)) {
        let (because, by) = why;
        let what = match by {
            Side::Us => Counted::RefusedByUs(because),
            Side::Them => Counted::RefusedByThem(because),
        };
        match who {
            Some(remote) => remote.count(path, what),
            None => self.count_stranger(path, what),
        }
        let peer = who.map(|r| r.peer.host.clone());
        tracing::debug!(peer = peer.as_ref().map(HostName::as_str), %address, %path, because = because.as_str(), ?by,
            "connection refused");
        // Never waits: refusals may come as a flood, and the counters are complete.
        let _ = self.events.try_send(TransportEvent::Refused { peer, address, path, because, by });
    }

    pub(super) fn count_stranger(&self, path: Path, what: Counted) {
        if let Some(end) = self.ends.get(path.index()) {
            end.strangers.add(what);
        }
    }

    /// Tells the engine that beats can flow on `live`, unless something newer has taken its place.
    pub(super) async fn tell_up(&self, remote: &Remote, live: &Arc<Live>) {
        let Some(to) = remote.path(live.path) else { return };
        let mut told = to.told.lock().await;
        if to.beats.current().is_some_and(|current| Arc::ptr_eq(&current, live)) {
            told.up = true;
            let (peer, path, rtt) = (remote.peer.host.clone(), live.path, live.connection.rtt());
            tracing::info!(%peer, %path, state = "up", because = "handshake", "path changed");
            let _ = self.events.send(TransportEvent::PathUp { peer, path, rtt }).await;
        }
    }

    /// Tells the engine that beats can't flow on `path`, if that is news.
    pub(super) async fn tell_down(&self, remote: &Remote, path: Path, because: Ended) {
        let Some(to) = remote.path(path) else { return };
        let mut told = to.told.lock().await;
        if told.up && to.beats.current().is_none() {
            told.up = false;
            let peer = remote.peer.host.clone();
            tracing::info!(%peer, %path, state = "down", ?because, "path changed");
            let _ = self.events.send(TransportEvent::PathDown { peer, path, because }).await;
        }
    }

    pub(super) fn counters(&self) -> Vec<Counter> {
        let mut report = Vec::new();
        for (i, end) in self.ends.iter().enumerate() {
            end.strangers.report(None, Path(i as u8), &mut report);
        }
        for remote in self.remotes() {
            for (i, to) in remote.paths.iter().enumerate() {
                to.counters.report(Some(&remote.peer.host), Path(i as u8), &mut report);
            }
        }
        report
    }
}
