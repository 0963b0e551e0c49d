//! QUIC's settings for the two kinds of connection, and how a called host tells them apart.
//!
//! | | beat | bulk |
//! |---|---|---|
//! | carries | datagrams; between a voter and a host without a vote the few messages, too | message streams, streams on demand |
//! | congestion | a wide fixed window | as QUIC does by default |
//! | kept alive by | beats | QUIC |
//!
//! Beats have a connection of their own so that no bulk data delays them. Their rate is fixed by the protocol and small
//! (20 a second), so congestion control has nothing to control; the usual one would fill its window during a cut of a
//! few seconds and then hold beats back until its probes, which slow down exponentially, get through again.
//!
//! The kind is marked in the first bytes of the connection id that the calling end chooses, so that the called end can
//! pick the right settings before the handshake. The mark proves nothing: the protocol name agreed upon in TLS does.

use super::TransportError;
use super::config::Limits;
use super::ids::{CheckedIds, IdKey};
use quinn_proto::congestion::{Controller, ControllerFactory};
use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn_proto::{
    AckFrequencyConfig, ClientConfig, ConnectionId, EndpointConfig, IdleTimeout, NoneTokenStore, ServerConfig,
    TransportConfig, ValidationTokenConfig, VarInt,
};
use ring::rand::{SecureRandom, SystemRandom};
use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Largest datagram that always fits into one packet: 1,200 bytes (what every path must carry) less QUIC's own.
pub const DATAGRAM_BYTES_MAX: usize = 1_150;

/// What hosts are called by in TLS. Never checked and never sent; identity is in the certificate.
pub(super) const SERVER_NAME: &str = "antipode";

/// Beats in flight without an answer, in bytes: 30 s of beats of 1,200 bytes at 20 a second.
const BEAT_WINDOW_BYTES: u64 = 1 << 20;

/// Round trip assumed before the first measurement; three of them pass before a lost first packet is sent again.
const FIRST_RTT: Duration = Duration::from_millis(100);

/// More beats than these are acknowledged at once, whatever else.
const BEATS_PER_ACK: VarInt = VarInt::from_u32(8);

/// Bytes of messages on their way beside beats: 26 ms of a path of 10 Mbit/s, which a beat behind them would come later.
/// At a round trip of 40 ms they carry 800 KB a second.
pub(super) const RIDING_BYTES_MAX: VarInt = VarInt::from_u32(32 << 10);

/// How long an acknowledgement may wait for a beat to ride on: more than Δ is at most. QUIC takes the round trip if that is
/// shorter, and 25 ms if both are.
const ACK_DELAY_MAX: Duration = Duration::from_millis(250);

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Beats.
    Beat = 0,
    /// Everything else.
    Bulk = 1,
}

/// The protocol for beats with which messages may ride along; the one before it has beats alone.
pub(super) const CARRIES_MESSAGES: &[u8] = b"antipode-beat/2";

impl Kind {
    /// The protocol's names in TLS, with their versions, the best one first.
    pub(super) fn protocols(self) -> Vec<Vec<u8>> {
        let names: &[&[u8]] = match self {
            Self::Beat => &[CARRIES_MESSAGES, b"antipode-beat/1"],
            Self::Bulk => &[b"antipode-bulk/1"],
        };
        names.iter().map(|name| name.to_vec()).collect()
    }

    const fn mark(self) -> [u8; 4] {
        match self {
            Self::Beat => *b"ApB1",
            Self::Bulk => *b"ApK1",
        }
    }

    /// The kind that the calling end has marked; `None` for a stranger to this protocol.
    pub(super) fn of_first_id(id: &[u8]) -> Option<Self> {
        let mark = id.first_chunk::<4>()?;
        [Self::Beat, Self::Bulk].into_iter().find(|kind| kind.mark() == *mark)
    }

    /// A connection id for the first packet: the mark, then as many random bytes as QUIC asks for, and more.
    pub(super) fn first_id(self) -> ConnectionId {
        let mut id = [0; 20];
        id[..4].copy_from_slice(&self.mark());
        // Without randomness from the kernel the handshake fails by itself.
        let _ = SystemRandom::new().fill(&mut id[4..]);
        ConnectionId::new(&id)
    }
}

/// The one provider of cryptography; named everywhere, so that a second one in the binary can't confuse rustls.
pub(super) fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

pub(super) fn endpoint_config(reset_seed: &[u8; 32]) -> EndpointConfig {
    // Tied to the host's key, so that after a restart this host's resets are believed and peers call again at once.
    let mut config = EndpointConfig::new(Arc::new(ring::hmac::Key::new(ring::hmac::HMAC_SHA256, reset_seed)));
    let key = IdKey::new(reset_seed);
    config.cid_generator(move || Box::new(CheckedIds(key)));
    // The bit tells QUIC from anything else, and is checked before QUIC sees a packet.
    config.grease_quic_bit(false);
    // Resets are smaller than what they answer and go to known addresses only; a restarted voter owes one to each host.
    config.min_reset_interval(Duration::from_millis(1));
    config
}

pub(super) fn server_config(
    tls: rustls::ServerConfig,
    kind: Kind,
    limits: &Limits,
) -> Result<ServerConfig, TransportError> {
    let crypto = QuicServerConfig::try_from(tls).map_err(|e| TransportError::Config(e.to_string()))?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(Arc::new(transport_config(kind, limits)?));
    // Hosts stay where the configuration says; a packet from elsewhere doesn't move a connection.
    config.migration(false);
    config.max_incoming(256).incoming_buffer_size(8 << 10).incoming_buffer_size_total(1 << 20);
    config.retry_token_lifetime(Duration::from_secs(5));
    let mut tokens = ValidationTokenConfig::default();
    tokens.sent(0);
    config.validation_token_config(tokens);
    Ok(config)
}

pub(super) fn client_config(
    tls: rustls::ClientConfig,
    kind: Kind,
    limits: &Limits,
) -> Result<ClientConfig, TransportError> {
    let crypto = QuicClientConfig::try_from(tls).map_err(|e| TransportError::Config(e.to_string()))?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport_config(kind, limits)?));
    config.initial_dst_cid_provider(Arc::new(move || kind.first_id()));
    config.token_store(Arc::new(NoneTokenStore));
    Ok(config)
}

fn transport_config(kind: Kind, limits: &Limits) -> Result<TransportConfig, TransportError> {
    let idle = |span: Duration| IdleTimeout::try_from(span).map_err(|e| TransportError::Config(e.to_string()));
    let mut config = TransportConfig::default();
    config.initial_rtt(FIRST_RTT).allow_spin(false);
    // The one stream that each end opens by itself: the welcome, and the messages.
    config.max_concurrent_uni_streams(VarInt::from_u32(1));
    match kind {
        Kind::Beat => {
            config.max_idle_timeout(Some(idle(limits.beat_idle_max)?)).keep_alive_interval(None);
            config.max_concurrent_bidi_streams(VarInt::from_u32(0));
            config.datagram_receive_buffer_size(Some(64 << 10)).datagram_send_buffer_size(16 << 10);
            config.stream_receive_window(RIDING_BYTES_MAX).receive_window(RIDING_BYTES_MAX);
            config.send_window(2 * RIDING_BYTES_MAX.into_inner());
            // Beats fit into the smallest packet that every path carries.
            config.mtu_discovery_config(None);
            // One beat is one packet: there is nothing to segment, and each connection would keep room for ten.
            config.enable_segmentation_offload(false);
            config.congestion_controller_factory(Arc::new(FixedWindow));
            config.ack_frequency_config(Some(seldom()));
        }
        Kind::Bulk => {
            config.max_idle_timeout(Some(idle(limits.bulk_idle_max)?));
            config.keep_alive_interval(Some(limits.bulk_idle_max / 4));
            config.max_concurrent_bidi_streams(VarInt::from_u32(limits.streams_max));
            config.datagram_receive_buffer_size(None);
            // 4 MiB in flight fill 800 Mbit/s at a round trip of 40 ms; they also bound what one peer can make us hold.
            config.stream_receive_window(VarInt::from_u32(2 << 20)).receive_window(VarInt::from_u32(4 << 20));
            config.send_window(4 << 20);
        }
    }
    Ok(config)
}

/// Acknowledgements that ride on the peer's own beats: a packet of their own is sent only when no beat comes for a round
/// trip. Nothing here waits for one: beats aren't sent again, and silence is judged by beats.
fn seldom() -> AckFrequencyConfig {
    let mut config = AckFrequencyConfig::default();
    config
        .ack_eliciting_threshold(BEATS_PER_ACK)
        .max_ack_delay(Some(ACK_DELAY_MAX))
        .reordering_threshold(VarInt::from_u32(0));
    config
}

/// A congestion window that nothing changes. Only for traffic whose rate is bounded elsewhere.
#[derive(Clone, Copy, Debug)]
struct FixedWindow;

impl ControllerFactory for FixedWindow {
    fn build(self: Arc<Self>, _now: Instant, _current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Self)
    }
}

impl Controller for FixedWindow {
    fn on_congestion_event(&mut self, _now: Instant, _sent: Instant, _persistent: bool, _lost_bytes: u64) {}

    fn on_mtu_update(&mut self, _new_mtu: u16) {}

    fn window(&self) -> u64 {
        BEAT_WINDOW_BYTES
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(*self)
    }

    fn initial_window(&self) -> u64 {
        BEAT_WINDOW_BYTES
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_called_host_recognises_the_kind_by_the_first_id_and_strangers_by_its_absence() {
        for kind in [Kind::Beat, Kind::Bulk] {
            assert_eq!(Kind::of_first_id(&kind.first_id()), Some(kind));
        }
        assert_eq!(Kind::of_first_id(&[0; 20]), None);
        assert_eq!(Kind::of_first_id(b"Ap"), None);
        assert_ne!(Kind::Beat.first_id(), Kind::Beat.first_id());
    }
}
