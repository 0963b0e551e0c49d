//! Connection ids that this host gives out, and what a packet can be by the one that it carries.
//!
//! Ids carry a check ([`IdKey`]), so that what isn't addressed to this host at all is told from what is before QUIC spends
//! anything on it ([`judge`]).

use super::quic::Kind;
use quinn_proto::{ConnectionId, ConnectionIdGenerator, InvalidCid};
use ring::rand::{SecureRandom, SystemRandom};

/// Length of the connection ids that this host gives out.
const CID_BYTES: usize = 8;

/// A connection id of this host.
type Cid = [u8; CID_BYTES];

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

/// Random ids with a check.
#[derive(Debug)]
pub(super) struct CheckedIds(pub(super) IdKey);

impl ConnectionIdGenerator for CheckedIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut nonce = [0; 4];
        // Without randomness from the kernel nothing else here works either (TLS fails); a zero id does no harm.
        let _ = SystemRandom::new().fill(&mut nonce);
        ConnectionId::new(&self.0.make(nonce))
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        if self.0.made(id) { Ok(()) } else { Err(InvalidCid) }
    }

    fn cid_len(&self) -> usize {
        CID_BYTES
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
