//! Which packets belong to which connection: connection ids that this host gave out, and the log of each.
//!
//! QUIC doesn't tell an application which connection id a connection goes by. But ids are generated on the very thread
//! that starts a handshake, first of all: [`capture`] notes the first one generated while a closure runs. A peer keeps
//! using that id for the connection's whole life, since neither end moves to other addresses and ids have no lifetime;
//! if one ever changed, its datagrams would merely count from the moment of reading.
//!
//! Ids also carry a check ([`IdKey`]), so that what isn't addressed to this host at all is told from what is before QUIC
//! spends anything on it ([`judge`]).
//!
//! Not here: matching packets to datagrams (`stamp`).

use super::quic::Kind;
use super::stamp::ArrivalLog;
use quinn::ConnectionId;
use quorum::moment::Moment;
use ring::rand::{SecureRandom, SystemRandom};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// Length of the connection ids that this host gives out.
pub(super) const CID_BYTES: usize = 8;

/// A connection id of this host.
pub(super) type Cid = [u8; CID_BYTES];

thread_local! {
    static FIRST: Cell<Option<Cid>> = const { Cell::new(None) };
}

/// Runs `start` and answers, with its result, the first connection id generated on this thread meanwhile.
pub(super) fn capture<T>(start: impl FnOnce() -> T) -> (T, Option<Cid>) {
    FIRST.set(None);
    let result = start();
    (result, FIRST.take())
}

/// What the check in this host's ids is made with. Derived from the host's key, so that the ids of the last run are
/// still known after a restart (and answered with a reset).
///
/// The check is no proof: whoever has seen an id can repeat it. It keeps junk away from QUIC and counts it.
#[derive(Clone, Copy, Debug)]
pub(super) struct IdKey(u64);

impl IdKey {
    pub(super) fn new(seed: &[u8; 32]) -> Self {
        Self(seed.iter().fold(0, |key, &byte| (key ^ u64::from(byte)).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    fn check_of(self, nonce: [u8; 4]) -> [u8; 4] {
        let mut mixed = self.0 ^ u64::from(u32::from_le_bytes(nonce));
        for _ in 0..2 {
            mixed = (mixed ^ (mixed >> 31)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        }
        ((mixed >> 32) as u32).to_le_bytes()
    }

    pub(super) fn make(self, nonce: [u8; 4]) -> Cid {
        let mut id: Cid = [0; CID_BYTES];
        id[..4].copy_from_slice(&nonce);
        id[4..].copy_from_slice(&self.check_of(nonce));
        id
    }

    fn made(self, id: &[u8]) -> bool {
        id.len() == CID_BYTES && id.first_chunk::<4>().is_some_and(|&nonce| self.check_of(nonce) == id[4..])
    }
}

/// What a packet can be, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nature {
    /// QUIC version 1, to an id that this host made, or the first one of a connection of a known kind.
    Ours,
    /// A restarted peer's stateless reset, which looks random by design, or junk that looks like one. Only QUIC can
    /// tell, and does so without a reply.
    Reset,
    /// Nothing of this protocol.
    Junk,
}

/// What this packet can be. Pure; every byte string is fine.
pub(super) fn judge(packet: &[u8], key: IdKey) -> Nature {
    /// Shortest reset that is accepted (RFC 9000 §10.3): 5 bytes that look like a header, and a token.
    const RESET_BYTES_MIN: usize = 21;
    let Some((&flags, rest)) = packet.split_first() else { return Nature::Junk };
    let (long, fixed) = (flags & 0x80 != 0, flags & 0x40 != 0);
    if !fixed {
        return Nature::Junk;
    }
    if !long {
        let ours = rest.get(..CID_BYTES).is_some_and(|id| key.made(id));
        let other = if packet.len() >= RESET_BYTES_MIN { Nature::Reset } else { Nature::Junk };
        return if ours { Nature::Ours } else { other };
    }
    let Some((version, rest)) = rest.split_first_chunk::<4>() else { return Nature::Junk };
    let Some((&length, rest)) = rest.split_first() else { return Nature::Junk };
    let Some(id) = rest.get(..usize::from(length)) else { return Nature::Junk };
    let ours = u32::from_be_bytes(*version) == 1 && (key.made(id) || Kind::of_first_id(id).is_some());
    if ours { Nature::Ours } else { Nature::Junk }
}

/// Random ids with a check, noted for [`capture`].
#[derive(Debug)]
pub(super) struct NotedIds(pub(super) IdKey);

impl quinn::ConnectionIdGenerator for NotedIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut nonce = [0; 4];
        // Without randomness from the kernel nothing else here works either (TLS fails); a zero id does no harm.
        let _ = SystemRandom::new().fill(&mut nonce);
        let id = self.0.make(nonce);
        if FIRST.get().is_none() {
            FIRST.set(Some(id));
        }
        ConnectionId::new(&id)
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), quinn_proto::InvalidCid> {
        if self.0.made(id) { Ok(()) } else { Err(quinn_proto::InvalidCid) }
    }

    fn cid_len(&self) -> usize {
        CID_BYTES
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        None
    }
}

/// The logs of all connections whose packets are to be stamped.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    logs: RwLock<BTreeMap<Cid, Arc<Mutex<ArrivalLog>>>>,
}

impl Arrivals {
    /// Starts a log for the connection that goes by `id`; it ends when the answer is dropped.
    pub(super) fn follow(self: &Arc<Self>, id: Option<Cid>) -> Followed {
        let log = Arc::new(Mutex::new(ArrivalLog::default()));
        if let Some(id) = id {
            self.logs.write().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::clone(&log));
        }
        Followed { arrivals: Arc::clone(self), id, log }
    }

    /// Whether any log would take this packet.
    pub(super) fn log_of(&self, packet: &[u8]) -> Option<Arc<Mutex<ArrivalLog>>> {
        let id = short_header_id(packet)?;
        self.logs.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }
}

/// The connection id of a packet with a short header; beats come in no others.
fn short_header_id(packet: &[u8]) -> Option<Cid> {
    let (flags, rest) = packet.split_first()?;
    (flags & 0x80 == 0).then(|| rest.first_chunk::<CID_BYTES>().copied()).flatten()
}

/// The log of one connection, for its reader.
#[derive(Debug)]
pub(super) struct Followed {
    arrivals: Arc<Arrivals>,
    id: Option<Cid>,
    log: Arc<Mutex<ArrivalLog>>,
}

impl Followed {
    /// When datagrams of these lengths came in, given that they are all that there are now.
    pub(super) fn take(&self, lengths: &[usize], read_at: Moment) -> Vec<Moment> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).take(lengths, read_at)
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.arrivals.logs.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quinn::ConnectionIdGenerator;

    #[test]
    fn the_first_id_of_a_handshake_is_captured_and_later_ones_are_not() {
        let mut ids = NotedIds(IdKey::new(&[3; 32]));
        let (first, captured) = capture(|| {
            let first = ids.generate_cid();
            ids.generate_cid();
            first
        });
        assert_eq!(captured.as_ref().map(|c| &c[..]), Some(&first[..]));
        assert_eq!(capture(|| ()).1, None);
    }

    #[test]
    fn only_packets_to_ids_of_this_host_and_first_packets_of_this_protocol_are_ours() {
        let key = IdKey::new(&[3; 32]);
        let id = key.make([1, 2, 3, 4]);
        let long =
            |version: u32, id: &[u8]| [&[0xc0][..], &version.to_be_bytes(), &[id.len() as u8], id, &[0; 50]].concat();
        for ours in [[&[0x40][..], &id, &[0; 30]].concat(), long(1, &id), long(1, &Kind::Beat.first_id())] {
            assert_eq!(judge(&ours, key), Nature::Ours, "{ours:?}");
        }
        let foreign = IdKey::new(&[4; 32]).make([1, 2, 3, 4]);
        let no_fixed_bit = [&[0x00][..], &id, &[0; 30]].concat();
        let cut = [0xc0, 0, 0, 0, 1, 20, b'A', b'p', b'B', b'1'].to_vec();
        let other_version = long(0x6b33_43cf, &id);
        let short_text = b"GET / HTTP/1.1".to_vec();
        for junk in
            [vec![], vec![0x40], short_text, no_fixed_bit, other_version, cut, long(1, &[9; 20]), long(1, &foreign)]
        {
            assert_eq!(judge(&junk, key), Nature::Junk, "{junk:?}");
        }
        assert_eq!(judge(&[0x5a; 40], key), Nature::Reset);
    }

    proptest::proptest! {
        #[test]
        fn no_packet_makes_the_check_panic(packet in proptest::collection::vec(proptest::num::u8::ANY, 0..80)) {
            let _ = judge(&packet, IdKey::new(&[3; 32]));
        }
    }

    #[test]
    fn a_packet_finds_the_log_of_its_connection_until_that_ends() {
        let arrivals = Arc::new(Arrivals::default());
        let packet = [&[0x40_u8][..], &[7; CID_BYTES], &[0; 40]].concat();
        assert!(arrivals.log_of(&packet).is_none());
        let followed = arrivals.follow(Some([7; CID_BYTES]));
        let log = arrivals.log_of(&packet).expect("followed");
        log.lock().expect("lock").record(Moment::from_ns(5), packet.len());
        assert_eq!(followed.take(&[10], Moment::from_ns(9)), [Moment::from_ns(5)]);
        let long_header = [&[0xc0_u8][..], &[7; CID_BYTES], &[0; 40]].concat();
        assert!(arrivals.log_of(&long_header).is_none());
        assert!(arrivals.log_of(&packet[..5]).is_none());
        drop(followed);
        assert!(arrivals.log_of(&packet).is_none());
    }
}
