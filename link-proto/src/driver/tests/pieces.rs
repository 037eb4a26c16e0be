//! Streams in pieces of one byte, out of order and with gaps (promises §5.7 T48, RUSTSEC-2026-0185).
//!
//! Quinn sends no such thing. Its packets are filled up to their size with PADDING (RFC 9000 §19.1), and in the place of
//! that the enemy's key for packets writes the frames before it encrypts them.

use std::any::Any;

use bytes::BytesMut;
use quinn::crypto::{
    self, CryptoError, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, Session,
};
use quinn::{ConnectError, ConnectionId, Side, VarInt};
use quinn_proto::TransportError;
use quinn_proto::transport_parameters::TransportParameters;
use tokio::sync::Notify;

use super::*;

/// Bytes of a frame that bears one: type, stream, offset, length, and the byte.
const FRAME_BYTES: usize = 8;
/// Zeros behind the last byte of a packet that is none: they may belong to a frame.
const MARGIN: usize = 8;

/// One byte of a stream, and where.
type Piece = (u32, u8);

/// What is to be sent in pieces.
#[derive(Default)]
struct Pieces {
    waiting: Mutex<(u8, VecDeque<Piece>)>,
    sent: AtomicUsize,
    /// A packet has left.
    left: Notify,
}

impl Pieces {
    /// Writes as many frames as fit into what is padding.
    fn fill(&self, payload: &mut [u8]) {
        let used = payload.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1 + MARGIN);
        let (stream, waiting) = &mut *self.waiting.lock().unwrap();
        for frame in payload.get_mut(used..).unwrap_or_default().chunks_exact_mut(FRAME_BYTES) {
            let Some((offset, byte)) = waiting.pop_front() else { break };
            // STREAM with an offset, here in four bytes, and a length (RFC 9000 §19.8).
            frame[..2].copy_from_slice(&[0x0e, *stream]);
            frame[2..6].copy_from_slice(&(offset | 0x8000_0000).to_be_bytes());
            frame[6..].copy_from_slice(&[1, byte]);
            self.sent.fetch_add(1, Ordering::SeqCst);
        }
        self.left.notify_one();
    }

    fn are_sent(&self) -> bool {
        self.waiting.lock().unwrap().1.is_empty()
    }

    /// Has the connection send these on a stream of one byte's number. Each packet announces a larger window, as it has
    /// to say something.
    async fn send(&self, connection: &quinn::Connection, window: &mut u32, stream: u8, pieces: &[Piece]) {
        *self.waiting.lock().unwrap() = (stream, pieces.iter().copied().collect());
        while !self.are_sent() && connection.close_reason().is_none() {
            *window += 1;
            connection.set_receive_window(VarInt::from_u32(*window));
            tokio::select! {
                () = self.left.notified() => {}
                _ = connection.closed() => {}
            }
        }
    }
}

/// Packets' key of the enemy's.
struct Filling(Box<dyn PacketKey>, Arc<Pieces>);

impl PacketKey for Filling {
    fn encrypt(&self, packet: u64, buf: &mut [u8], header_len: usize) {
        let end = buf.len() - self.0.tag_len();
        self.1.fill(&mut buf[header_len..end]);
        self.0.encrypt(packet, buf, header_len);
    }

    fn decrypt(&self, packet: u64, header: &[u8], payload: &mut BytesMut) -> Result<(), CryptoError> {
        self.0.decrypt(packet, header, payload)
    }

    fn tag_len(&self) -> usize {
        self.0.tag_len()
    }

    fn confidentiality_limit(&self) -> u64 {
        self.0.confidentiality_limit()
    }

    fn integrity_limit(&self) -> u64 {
        self.0.integrity_limit()
    }
}

/// The enemy's TLS, true but for that key.
struct Crypto(Arc<dyn crypto::ClientConfig>, Arc<Pieces>);

impl crypto::ClientConfig for Crypto {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        server_name: &str,
        parameters: &TransportParameters,
    ) -> Result<Box<dyn Session>, ConnectError> {
        let inner = Arc::clone(&self.0).start_session(version, server_name, parameters)?;
        Ok(Box::new(Handshake { inner, pieces: Arc::clone(&self.1), keys: 0 }))
    }
}

struct Handshake {
    inner: Box<dyn Session>,
    pieces: Arc<Pieces>,
    /// Pairs of keys that there have been: of the handshake, then of what follows it.
    keys: u8,
}

impl Session for Handshake {
    fn initial_keys(&self, id: &ConnectionId, side: Side) -> Keys {
        self.inner.initial_keys(id, side)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.inner.handshake_data()
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.inner.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        self.inner.early_crypto()
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.inner.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.inner.is_handshaking()
    }

    fn read_handshake(&mut self, bytes: &[u8]) -> Result<bool, TransportError> {
        self.inner.read_handshake(bytes)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.inner.transport_parameters()
    }

    fn write_handshake(&mut self, out: &mut Vec<u8>) -> Option<Keys> {
        let mut keys = self.inner.write_handshake(out)?;
        self.keys += 1;
        if self.keys == 2 {
            keys.packet.local = Box::new(Filling(keys.packet.local, Arc::clone(&self.pieces)));
        }
        Some(keys)
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.inner.next_1rtt_keys()
    }

    fn is_valid_retry(&self, id: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.inner.is_valid_retry(id, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.inner.export_keying_material(output, label, context)
    }
}

/// An enemy that sends in pieces, and its session.
struct Shredder {
    enemy: Enemy,
    pieces: Arc<Pieces>,
    window: u32,
}

impl Shredder {
    async fn open(pair: &Pair, epoch: u64) -> Self {
        let pieces = Arc::<Pieces>::default();
        let crypto = peers::crypto(pair);
        let mut config = quinn::ClientConfig::new(Arc::new(Crypto(Arc::new(crypto), Arc::clone(&pieces))));
        let mut transport = transport::transport();
        transport.pad_to_mtu(true);
        config.transport_config(Arc::new(transport));
        let enemy = Enemy::connect_as(pair, config).await;
        let (enemy, _) = enemy.greet(pair, epoch).await;
        Self { enemy, pieces, window: transport::CONNECTION_WINDOW }
    }

    /// Begins a body in one piece of `length` bytes.
    async fn begin(&self, unit: u32, length: u32) -> quinn::SendStream {
        let mut stream = timeout(FOREVER, self.enemy.connection.open_uni()).await.unwrap().unwrap();
        let begun = [unit_id(unit).as_slice(), &[0; 8], &length.to_le_bytes()].concat();
        stream.write_all(&begun).await.unwrap();
        stream
    }

    async fn send(&mut self, stream: &quinn::SendStream, pieces: &[Piece]) {
        let number = u8::try_from(VarInt::from(stream.id()).into_inner()).unwrap();
        let sending = self.pieces.send(&self.enemy.connection, &mut self.window, number, pieces);
        timeout(FOREVER, sending).await.expect("they are sent");
    }
}

/// Where a body's first byte is in its stream.
const BEGUN: u32 = 16 + 8 + 4;

#[test]
fn gaps_that_nobody_fills_end_the_connection_before_they_fill_the_memory() {
    bounded(leave_gaps());
}

async fn leave_gaps() {
    /// Gaps of one stream that are borne.
    const BORNE: u32 = 1000;
    let pair = Pair::new();
    let mut shredder = Shredder::open(&pair, 1).await;
    let gaps = |gaps: std::ops::Range<u32>| gaps.map(|gap| (BEGUN + 2 * gap + 1, 7)).collect::<Vec<_>>();
    let mut streams = Vec::new();
    for body in 0..u32::try_from(crate::session::BODIES_MAX).unwrap() {
        let stream = shredder.begin(body, 1 << 16).await;
        shredder.send(&stream, &gaps(0..BORNE)).await;
        streams.push(stream);
    }
    assert!(shredder.enemy.connection.close_reason().is_none());
    // As many as the window of the stream has room for.
    shredder.send(&streams[0], &gaps(BORNE..500_000)).await;
    let closed = timeout(FOREVER, shredder.enemy.connection.closed()).await.unwrap().to_string();
    assert!(closed.contains("too many gaps in stream buffer"), "{closed}");
    let sent = shredder.pieces.sent.load(Ordering::SeqCst);
    assert!(sent < 10_000, "{sent} pieces");
    // The edge goes on.
    Enemy::open(&pair, 2).await;
}
