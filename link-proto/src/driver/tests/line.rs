//! The line between both ends: what goes first where it carries little, and what somebody on it can end.

use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use super::quic::Sender;
use super::*;
use crate::driver::body;
use crate::driver::transport::STREAM_WINDOW;
use crate::session::BODIES_MAX;
use crate::unit::BATCH_UNITS_MAX;

/// Octets of what a short header begins with: flags, and a connection id (RFC 9000 §17.3.1).
const SHORT_HEADER_BYTES: usize = 9;

/// What passes packets on between big and the edge, and can send others in the name of either.
struct Line {
    socket: Arc<UdpSocket>,
    edge: SocketAddr,
    passed: Arc<Mutex<Passed>>,
    /// Octets that it carries yet to the edge. While there are too few for a packet, nothing goes either way.
    carries: watch::Sender<usize>,
    passing: JoinHandle<()>,
}

#[derive(Clone, Default)]
struct Passed {
    big: Option<SocketAddr>,
    /// How the newest packets of the connection began.
    to_big: Vec<u8>,
    to_edge: Vec<u8>,
}

impl Line {
    /// Whoever connects to the pair's edge from now on does so over this.
    async fn before(pair: &mut Pair) -> Self {
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let edge = std::mem::replace(&mut pair.address, socket.local_addr().unwrap());
        let (passed, carries) = (Arc::<Mutex<Passed>>::default(), watch::Sender::new(usize::MAX));
        let passing = tokio::spawn(pass(Arc::clone(&socket), edge, Arc::clone(&passed), carries.clone()));
        Self { socket, edge, passed, carries, passing }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.passing.abort();
    }
}

async fn pass(
    socket: Arc<UdpSocket>,
    edge: SocketAddr,
    passed: Arc<Mutex<Passed>>,
    carries: watch::Sender<usize>,
) {
    let (mut packet, mut room) = ([0; 2048], carries.subscribe());
    while let Ok((size, from)) = socket.recv_from(&mut packet).await {
        let begins = packet[..size.min(SHORT_HEADER_BYTES)].to_vec();
        let to = {
            let mut passed = passed.lock().unwrap();
            if from == edge {
                passed.to_big = begins;
                passed.big
            } else {
                (passed.big, passed.to_edge) = (Some(from), begins);
                Some(edge)
            }
        };
        if to == Some(edge) {
            room.wait_for(|room| *room >= size).await.unwrap();
            carries.send_modify(|room| *room -= size);
        }
        if let Some(to) = to {
            let _ = socket.send_to(&packet[..size], to).await;
        }
    }
}

/// Of a sender whose line is full: what is more urgent leaves first, although it was there last.
#[tokio::test]
async fn mail_that_comes_behind_large_bodies_goes_before_the_rest_of_them() {
    // So little that the mail is through before QUIC sends faster than the line's socket can hold, which would lose some.
    const HEAD: &[u8] = &[1; 1024];
    const MAIL: usize = BATCH_UNITS_MAX * HEAD.len();
    let mut pair = Pair::new();
    let line = Line::before(&mut pair).await;
    let mut sender = Sender::new(&pair).await;
    sender.round_trip().await;

    let connection = sender.enemy.connection.clone();
    let before = connection.stats().udp_tx.bytes;
    line.carries.send_replace(0);
    let host = Arc::new(Node(Arc::clone(&pair.big)));
    for number in 0..BODIES_MAX {
        let unit = unit_id(u32::try_from(number).unwrap());
        tokio::spawn(body::send(Arc::clone(&host), connection.clone(), unit, 0, mpsc::channel(1).0));
    }
    let windows = BODIES_MAX as u64 * u64::from(STREAM_WINDOW);
    pair.big.until("QUIC has all of the bodies that it takes", |state| state.read == windows).await;
    assert!(connection.close_reason().is_none(), "a machine that stands still for 10 s ends it");
    let under_way = usize::try_from(connection.stats().udp_tx.bytes - before).unwrap();
    assert!(under_way < MAIL, "{under_way} octets have left: most of the bodies has to wait");

    let count = BATCH_UNITS_MAX as u64;
    sender.send_units(count, Bytes::from_static(HEAD)).await;
    // As many octets of each body as of the mail would be more than twice as many.
    line.carries.send_replace(under_way + 2 * MAIL);
    pair.edge.until("the mail", |state| state.lanes[2].received.number == 1 + count).await;
}

/// Octets of the smallest datagram that may be a stateless reset (RFC 9000 §10.3).
const RESET_BYTES_MIN: usize = 21;
/// Octets of the largest one that is sent here.
const DATAGRAM_BYTES: usize = 1200;

/// What may look like a packet of a connection, or like a stateless reset of it: of any size, and the connection is the
/// one of which a packet `begins` so, or none.
fn forged(number: usize, begins: &[u8]) -> Vec<u8> {
    let sizes =
        [RESET_BYTES_MIN, DATAGRAM_BYTES, RESET_BYTES_MIN + number % (DATAGRAM_BYTES - RESET_BYTES_MIN)];
    let mut datagram = vec![0; sizes[number % sizes.len()]];
    blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut datagram);
    if number.is_multiple_of(2) {
        datagram[..begins.len()].copy_from_slice(begins);
    }
    datagram[0] = 0x40 | datagram[0] & 0x3f;
    datagram
}

#[test]
fn what_only_looks_like_the_end_of_a_connection_ends_none() {
    bounded(forge_resets());
}

async fn forge_resets() {
    const DATAGRAMS: usize = 10_000;
    /// Far fewer than a socket's buffer holds: none is lost.
    const AT_ONCE: usize = 40;
    let mut pair = Pair::new();
    let line = Line::before(&mut pair).await;
    let mut sender = Sender::new(&pair).await;
    sender.round_trip().await;
    let (stranger, mut answer) = (UdpSocket::bind("127.0.0.1:0").await.unwrap(), [0; 2048]);
    let (mut sent, mut answered) = (0, 0);
    let Passed { big, to_big, to_edge } = line.passed.lock().unwrap().clone();
    for first in (0..DATAGRAMS).step_by(AT_ONCE) {
        // By turns, for the edge answers one in 20 ms.
        let by = if (first / AT_ONCE).is_multiple_of(2) { &stranger } else { &line.socket };
        for number in first..first + AT_ONCE {
            sent += by.send_to(&forged(number, &to_edge), line.edge).await.unwrap();
            line.socket.send_to(&forged(number, &to_big), big.unwrap()).await.unwrap();
        }
        sender.round_trip().await;
        while let Ok((length, _)) = stranger.try_recv_from(&mut answer) {
            answered += length;
        }
    }
    assert!(answered < sent, "no amplification: {answered} octets for {sent}");
    let trips = 1 + DATAGRAMS / AT_ONCE;
    assert_eq!(pair.edge.with(|state| state.lanes[2].received.number), trips as u64);
    assert!(sender.enemy.connection.close_reason().is_none() && pair.edge_handle.is_open());
    assert_eq!(pair.edge.with(|state| state.partner.as_ref().unwrap().epoch), 1, "the session is the same");
}
