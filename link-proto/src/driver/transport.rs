//! QUIC's settings: everything that the partner could make this node hold or do has a limit here.

use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{
    ClientConfig, ConnectionId, ConnectionIdGenerator, EndpointConfig, IdleTimeout, ServerConfig,
    TransportConfig, VarInt,
};

use ring::rand::{SecureRandom, SystemRandom};

use super::Key;
use super::congestion::SteadyFactory;
use crate::session::BODIES_MAX;

/// Bidirectional streams: control and four lanes, all opened by big.
const BIDI_STREAMS: u32 = 5;
/// Bytes of one stream that may be under way or unread.
pub(super) const STREAM_WINDOW: u32 = 1024 * 1024;
/// Bytes of a connection that may be under way or unread: all lanes and bodies at once.
pub(super) const CONNECTION_WINDOW: u32 = 10 * 1024 * 1024;
/// Bytes sent and not acknowledged.
const SEND_WINDOW: u64 = 10 * 1024 * 1024;
/// A partner that is silent for so long is gone.
pub(super) const IDLE_TIME: Duration = Duration::from_secs(10);
/// The round trip that is expected of a partner who has not answered yet. A third of what QUIC proposes:
/// when a line is back the first packet that finds it counts, and one too many costs nothing.
const ROUND_TRIP: Duration = Duration::from_millis(100);
/// How often big shows that it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// Connections that wait to be looked at.
const INCOMING_MAX: usize = 16;
/// Bytes kept for one connection that waits.
const INCOMING_BYTES: u64 = 64 * 1024;
/// Bytes kept for all of them.
const INCOMING_BYTES_TOTAL: u64 = 1024 * 1024;
/// Bytes of a connection id.
const CONNECTION_ID_BYTES: usize = 8;
/// How long the last words of a connection may take.
pub(super) const CLOSE_TIME: Duration = Duration::from_secs(1);

/// A stream given up before its end; connections are closed with a [`super::CloseCode`].
pub(super) const BROKEN: VarInt = VarInt::from_u32(2);

/// The edge's endpoint. Its stateless resets (RFC 9000 §10.3) follow from its key: an edge that was
/// killed and started again tells big at once that their connection is gone.
pub(super) fn listening(key: &Key) -> EndpointConfig {
    let reset = blake3::derive_key("sallypost link 1: stateless reset", key.pkcs8());
    let mut config = EndpointConfig::new(Arc::new(ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &reset)));
    config.cid_generator(|| Box::new(Ids::new()));
    config
}

/// Random connection ids. Quinn's own would let an endpoint know which ids are not its own, and a
/// restarted one would not answer for its predecessor's.
struct Ids(blake3::OutputReader);

impl Ids {
    fn new() -> Self {
        let mut seed = [0; 32];
        // Without randomness ids only become predictable; they are no secret.
        let _ = SystemRandom::new().fill(&mut seed);
        Self(blake3::Hasher::new_keyed(&seed).finalize_xof())
    }
}

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; CONNECTION_ID_BYTES];
        self.0.fill(&mut id);
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

pub(super) fn server_config(crypto: Arc<dyn quinn::crypto::ServerConfig>) -> ServerConfig {
    let mut transport = transport();
    transport.max_concurrent_bidi_streams(VarInt::from_u32(BIDI_STREAMS));
    let mut tokens = quinn::ValidationTokenConfig::default();
    tokens.sent(0);
    let mut config = ServerConfig::with_crypto(crypto);
    config
        .transport_config(Arc::new(transport))
        .validation_token_config(tokens)
        .migration(false)
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES)
        .incoming_buffer_size_total(INCOMING_BYTES_TOTAL);
    config
}

pub(super) fn client_config(crypto: Arc<QuicClientConfig>) -> ClientConfig {
    let mut transport = transport();
    transport.max_concurrent_bidi_streams(VarInt::from_u32(0)).keep_alive_interval(Some(KEEP_ALIVE));
    let mut config = ClientConfig::new(crypto);
    config.transport_config(Arc::new(transport));
    config
}

pub(super) fn transport() -> TransportConfig {
    let idle = IdleTimeout::try_from(IDLE_TIME).expect("some seconds fit QUIC's idle timeout");
    let bodies = u32::try_from(BODIES_MAX).expect("a handful of bodies");
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_uni_streams(VarInt::from_u32(bodies))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(SEND_WINDOW)
        .max_idle_timeout(Some(idle))
        .initial_rtt(ROUND_TRIP)
        .congestion_controller_factory(Arc::new(SteadyFactory))
        .datagram_receive_buffer_size(None)
        .datagram_send_buffer_size(0);
    transport
}
