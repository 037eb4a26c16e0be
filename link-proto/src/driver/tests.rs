//! The driver on loopback, between two nodes that keep everything in memory.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::streams::Streams;
use super::{CloseCode, Dialler, Handle, Key, KeyRing, LinkError, Listener, pair, tls, transport};
use crate::frame::{Batch, Compare, CompareLane, Frame, Hello, Refusal, Stop};
use crate::host::{
    Applied, BodySink, BodySource, Host, HostError, Identity, LaneState, Opening, Partner, Rejection,
};
use crate::session::{PARTS_MAX, SessionError};
use crate::ticket::Ticket;
use crate::unit::{Body, Digest, Lane, Position, Unit, UnitId};

mod edge;
mod failing;
mod line;
mod lossy;
mod peers;
mod pieces;
mod quic;
mod replay;
mod rotation;

/// Names none of the edge's keys.
const SERVER_NAME: &str = "sallypost-link.invalid";
const SECRET: [u8; 32] = [3; 32];
const LARGE_BYTES: u64 = 20 * 1024 * 1024 + 5;
const PIECE: &[u8] = &[7; 64 * 1024];
/// Bytes that both ends of a link may have in use at once, whatever one of them does: half of what promises §5.7 allow
/// one of them.
const MEMORY_MAX: u64 = 32 * 1024 * 1024;
/// Far longer than anything here takes; a test that waits so long has failed.
const FOREVER: Duration = Duration::from_secs(60);

#[derive(Default)]
struct State {
    number: u8,
    epoch: u64,
    partner: Option<Partner>,
    invitation: Option<[u8; 32]>,
    welcome: Option<Vec<u8>>,
    lanes: [LaneState; 4],
    queue: [VecDeque<Unit>; 4],
    filed: [Vec<UnitId>; 4],
    waiting: Vec<UnitId>,
    staged: Vec<(UnitId, u64, Digest)>,
    /// Bytes of each body that goes ahead.
    body_bytes: u64,
    /// Bytes of bodies that were read to be sent, all in all.
    read: u64,
    /// Bytes of bodies that came, all in all.
    written: u64,
    /// No more of them is taken than this.
    written_max: Option<u64>,
    /// The next batch cannot be applied, as is found when this has ended.
    failing: Option<oneshot::Receiver<()>>,
    /// The partner is remembered when this has ended.
    remembering: Option<oneshot::Receiver<()>>,
    /// Where lane `inter` stands once the partner is remembered.
    stands_then: Option<Position>,
}

/// A node in memory: every change is at once durable.
struct Memory {
    state: Mutex<State>,
    changes: watch::Sender<()>,
}

impl Memory {
    fn new(number: u8) -> Arc<Self> {
        let state = State { number, body_bytes: LARGE_BYTES, ..State::default() };
        Arc::new(Self { state: Mutex::new(state), changes: watch::Sender::new(()) })
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state.lock().unwrap());
        self.changes.send_replace(());
        result
    }

    async fn until(&self, what: &str, holds: impl FnMut(&State) -> bool) {
        self.until_within(FOREVER, what, holds).await;
    }

    async fn until_within(&self, time: Duration, what: &str, mut holds: impl FnMut(&State) -> bool) {
        let mut changes = self.changes.subscribe();
        let wait = async {
            while !holds(&self.state.lock().unwrap()) {
                changes.changed().await.unwrap();
            }
        };
        timeout(time, wait).await.unwrap_or_else(|_| panic!("waited for ever: {what}"));
    }

    fn identity(&self) -> Identity {
        let number = self.state.lock().unwrap().number;
        Identity { node: [number; 16], log_name: [number + 100; 16], generation: 1 }
    }

    fn offer(&self, lane: Lane, ids: std::ops::Range<u32>) {
        self.with(|state| {
            for id in ids {
                state.offer(lane, unit_id(id), Body::Inline(Bytes::from(vec![1; 4096])));
            }
        });
    }
}

impl State {
    fn offer(&mut self, lane: Lane, id: UnitId, body: Body) {
        let index = usize::from(lane.index());
        let number = self.lanes[index].next.max(1);
        self.lanes[index].next = number + 1;
        self.queue[index].push_back(Unit {
            number,
            id,
            after: None,
            head: Bytes::from_static(b"head"),
            body,
        });
    }
}

fn unit_id(number: u32) -> UnitId {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&number.to_be_bytes());
    id
}

fn ids(range: std::ops::Range<u32>) -> Vec<UnitId> {
    range.map(unit_id).collect()
}

struct Pieces(u64, Arc<Memory>);

impl BodySource for Pieces {
    fn next(&mut self) -> Result<Option<Bytes>, HostError> {
        let size = self.0.min(PIECE.len() as u64);
        self.0 -= size;
        self.1.with(|state| state.read += size);
        Ok((size > 0).then(|| Bytes::from_static(&PIECE[..usize::try_from(size).unwrap()])))
    }
}

struct Counter(Arc<Mutex<usize>>, UnitId, Arc<Memory>);

impl BodySink for Counter {
    async fn write(&mut self, piece: Bytes) -> Result<(), HostError> {
        let length = piece.len() as u64;
        let room = |state: &State| state.written_max.is_none_or(|max| state.written + length <= max);
        self.2.until("room for a piece", room).await;
        *self.0.lock().unwrap() += piece.len();
        self.2.with(|state| state.written += piece.len() as u64);
        Ok(())
    }

    async fn finish(self, length: u64, digest: Digest) -> Result<(), HostError> {
        assert_eq!(*self.0.lock().unwrap() as u64, length);
        self.2.with(|state| state.staged.push((self.1, length, digest)));
        Ok(())
    }
}

/// The host of the tests; `stage` needs to hand itself out.
#[derive(Clone)]
struct Node(Arc<Memory>);

impl Host for Node {
    type Sink = Counter;

    async fn open(&self) -> Result<Opening, HostError> {
        let local = self.0.identity();
        Ok(self.0.with(|state| {
            // Big is number 1.
            state.epoch += u64::from(state.number == 1);
            Opening {
                local,
                epoch: state.epoch,
                partner: state.partner.clone(),
                adopt: false,
                lanes: state.lanes,
            }
        }))
    }

    async fn remember(&self, partner: Partner) -> Result<(), HostError> {
        let remembering = self.0.with(|state| state.remembering.take());
        if let Some(gate) = remembering {
            let _ = gate.await;
        }
        self.0.with(|state| {
            state.partner = Some(partner);
            state.lanes[2].received = state.stands_then.unwrap_or(state.lanes[2].received);
        });
        Ok(())
    }

    async fn remember_key(&self, partner: Partner) -> Result<(), HostError> {
        self.0.with(|state| state.partner = Some(partner));
        Ok(())
    }

    fn invitation(&self) -> Option<[u8; 32]> {
        self.0.state.lock().unwrap().invitation
    }

    async fn paired_by(&self, partner: Partner) -> Result<Vec<u8>, HostError> {
        self.0.with(|state| (state.partner, state.invitation) = (Some(partner), None));
        Ok(b"welcome".to_vec())
    }

    async fn paired_with(&self, partner: Partner, welcome: Vec<u8>) -> Result<(), HostError> {
        self.0.with(|state| (state.partner, state.welcome) = (Some(partner), Some(welcome)));
        Ok(())
    }

    fn units(
        &self,
        lane: Lane,
        from: u64,
        units_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Unit>, HostError> {
        assert!(bytes_max >= 200 * 4096);
        let state = self.0.state.lock().unwrap();
        let queue = &state.queue[usize::from(lane.index())];
        Ok(queue.iter().skip_while(|unit| unit.number < from).take(units_max).cloned().collect())
    }

    async fn apply(
        &self,
        lane: Lane,
        units: Vec<Unit>,
        from: Position,
        position: Position,
    ) -> Result<Applied, HostError> {
        let failing = self.0.with(|state| state.failing.take());
        if let Some(gate) = failing {
            let _ = gate.await;
            return Err(HostError("the disk is full".into()));
        }
        let refused = units.iter().filter(|unit| unit.head.starts_with(b"refuse"));
        let reason = "no ".repeat(80);
        let refused = refused.map(|unit| Rejection { number: unit.number, reason: reason.clone() }).collect();
        let applied = Applied { refused, deferred: Vec::new() };
        // Another task's turn, as a real commit would give.
        tokio::task::yield_now().await;
        self.0.with(|state| {
            let index = usize::from(lane.index());
            assert_eq!(state.lanes[index].received, from, "in order, once");
            for unit in units {
                if let Body::Staged { length, digest } = unit.body {
                    assert!(state.staged.contains(&(unit.id, length, digest)));
                }
                state.filed[index].push(unit.id);
            }
            state.lanes[index].received = position;
        });
        Ok(applied)
    }

    async fn confirmed(&self, lane: Lane, position: Position, _applied: Applied) -> Result<(), HostError> {
        self.0.with(|state| {
            let index = usize::from(lane.index());
            state.lanes[index].confirmed = position;
            state.queue[index].retain(|unit| unit.number > position.number);
        });
        Ok(())
    }

    fn waiting(&self, max: usize) -> Result<Vec<UnitId>, HostError> {
        Ok(self.0.state.lock().unwrap().waiting.iter().take(max).copied().collect())
    }

    fn body(&self, _unit: UnitId) -> Result<Box<dyn BodySource>, HostError> {
        Ok(Box::new(Pieces(self.0.with(|state| state.body_bytes), Arc::clone(&self.0))))
    }

    async fn body_held(&self, unit: UnitId, length: u64, digest: Digest) -> Result<(), HostError> {
        self.0.with(|state| {
            state.waiting.retain(|waiting| *waiting != unit);
            state.offer(Lane::Batch, unit, Body::Staged { length, digest });
        });
        Ok(())
    }

    fn stage(&self, unit: UnitId) -> Result<Counter, HostError> {
        Ok(Counter(Arc::default(), unit, Arc::clone(&self.0)))
    }
}

/// Two paired nodes and the edge's address.
struct Pair {
    big: Arc<Memory>,
    edge: Arc<Memory>,
    big_key: Key,
    edge_key: Key,
    address: SocketAddr,
    big_handle: Handle,
    edge_handle: Handle,
    serving: JoinHandle<()>,
}

impl Pair {
    fn new() -> Self {
        let (big, edge) = (Memory::new(1), Memory::new(2));
        let (big_key, edge_key) = (Key::generate().unwrap(), Key::generate().unwrap());
        let partner = |node: &Memory, key: &Key| {
            Some(Partner {
                identity: node.identity(),
                key: key.public().to_vec(),
                next_key: None,
                former_key: None,
                epoch: 0,
            })
        };
        let (of_edge, of_big) = (partner(&edge, &edge_key), partner(&big, &big_key));
        big.with(|state| state.partner = of_edge);
        edge.with(|state| state.partner = of_big);
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let edge_handle = Handle::new();
        let (address, serving) = serve(loopback, &KeyRing::fixed(edge_key.clone()), &edge, &edge_handle);
        Self { big, edge, big_key, edge_key, address, big_handle: Handle::new(), edge_handle, serving }
    }

    /// Big's daemon.
    fn dial(&self) -> JoinHandle<()> {
        let dialler = Dialler::new(self.address, KeyRing::fixed(self.big_key.clone())).unwrap();
        let (host, handle) = (Arc::new(Node(Arc::clone(&self.big))), self.big_handle.clone());
        tokio::spawn(async move { dialler.run(host, handle).await })
    }

    /// One attempt of a big with this key.
    async fn attempt(&self, key: &Key) -> LinkError {
        let dialler = Dialler::new(self.address, KeyRing::fixed(key.clone())).unwrap();
        let host = Arc::new(Node(Arc::clone(&self.big)));
        timeout(FOREVER, dialler.attempt(&host, &Handle::new(), FOREVER, &Arc::default(), 0)).await.unwrap().0
    }

    fn big_ring(&self) -> KeyRing {
        KeyRing::fixed(self.big_key.clone())
    }

    fn ticket(&self, expires: u64) -> Ticket {
        Ticket { address: self.address, key: self.edge_key.public().to_vec(), secret: SECRET, expires }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn serve(
    address: SocketAddr,
    keys: &KeyRing,
    edge: &Arc<Memory>,
    handle: &Handle,
) -> (SocketAddr, JoinHandle<()>) {
    let listener = Listener::bind(address, keys.clone()).unwrap();
    let address = listener.local_addr().unwrap();
    let (host, handle) = (Arc::new(Node(Arc::clone(edge))), handle.clone());
    let serving = tokio::spawn(async move {
        listener.serve(host, handle).await;
    });
    (address, serving)
}

async fn connected(handle: &Handle) {
    let mut status = handle.status();
    let up = status.wait_for(|status| status.connected.is_some());
    timeout(FOREVER, up).await.expect("the link comes up").unwrap();
}

#[tokio::test]
async fn a_ticket_pairs_once_and_the_link_comes_up() {
    let pair_of = Pair::new();
    for node in [&pair_of.big, &pair_of.edge] {
        node.with(|state| state.partner = None);
    }
    let ticket = pair_of.ticket(u64::MAX).to_string().parse::<Ticket>().unwrap();
    let node = Arc::new(Node(Arc::clone(&pair_of.big)));

    let refused = pair(&ticket, &pair_of.big_ring(), Arc::clone(&node), &Handle::new()).await;
    assert!(refused.is_err(), "no invitation is open");
    pair_of.edge.with(|state| state.invitation = Some([9; 32]));
    let refused = pair(&ticket, &pair_of.big_ring(), Arc::clone(&node), &Handle::new()).await.unwrap_err();
    let unknown = |error: &LinkError| matches!(error, LinkError::Session(SessionError::RefusedBy(why)) if why.0.why == Refusal::Unknown);
    assert!(unknown(&refused), "{refused}");
    assert!(pair_of.edge.state.lock().unwrap().partner.is_none());

    pair_of.edge.with(|state| state.invitation = Some(SECRET));
    let partner = pair(&ticket, &pair_of.big_ring(), Arc::clone(&node), &Handle::new()).await.unwrap();
    assert_eq!(partner.key, pair_of.edge_key.public());
    assert_eq!(pair_of.big.state.lock().unwrap().welcome.as_deref(), Some(&b"welcome"[..]));
    let known = pair_of.edge.state.lock().unwrap().partner.clone().unwrap();
    assert_eq!((known.identity, known.key.as_slice()), (pair_of.big.identity(), pair_of.big_key.public()));

    let stranger = Arc::new(Node(Memory::new(1)));
    assert!(
        pair(&ticket, &KeyRing::fixed(Key::generate().unwrap()), stranger, &Handle::new()).await.is_err(),
        "the ticket is used up"
    );
    let expired = pair(&pair_of.ticket(1), &pair_of.big_ring(), node, &Handle::new()).await.unwrap_err();
    assert!(matches!(expired, LinkError::TicketExpired));

    let dialling = pair_of.dial();
    connected(&pair_of.big_handle).await;
    connected(&pair_of.edge_handle).await;
    dialling.abort();
}

/// Or what the operator decides is overwritten by what the opening has known before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_is_not_at_rest_while_a_session_is_on_its_way() {
    let pair_of = Pair::new();
    let (go_on, gate) = oneshot::channel();
    pair_of.edge.with(|state| state.remembering = Some(gate));
    let dialling = pair_of.dial();
    pair_of.edge.until("the hello has come", |state| state.remembering.is_none()).await;
    let handle = &pair_of.edge_handle;
    handle.hold(true);
    assert!(handle.is_held() && !handle.is_open() && !handle.is_at_rest());
    go_on.send(()).unwrap();
    timeout(FOREVER, handle.at_rest()).await.unwrap();
    handle.hold(false);
    pair_of.big_handle.redial();
    connected(handle).await;
    assert!(!handle.is_at_rest());
    dialling.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pairing_ends_the_session_of_the_edge_that_is_replaced() {
    let pair_of = Pair::new();
    let dialling = pair_of.dial();
    connected(&pair_of.big_handle).await;
    let (another, key) = (Memory::new(3), Key::generate().unwrap());
    another.with(|state| state.invitation = Some(SECRET));
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let (address, serving) = serve(loopback, &KeyRing::fixed(key.clone()), &another, &Handle::new());
    let ticket = Ticket { address, key: key.public().to_vec(), ..pair_of.ticket(u64::MAX) };
    let node = Arc::new(Node(Arc::clone(&pair_of.big)));
    pair(&ticket, &pair_of.big_ring(), node, &pair_of.big_handle).await.unwrap();
    assert!(!pair_of.big_handle.is_open(), "nobody else's session is open");
    // And whoever is where the old one was is dialled again, and is not the partner.
    pair_of.big_handle.redial();
    let mut status = pair_of.big_handle.status();
    let wrong_key = SessionError::WrongKey.to_string();
    let refused = status.wait_for(|status| status.last_error.as_ref() == Some(&wrong_key));
    timeout(FOREVER, refused).await.expect("it is refused").unwrap();
    assert_eq!(pair_of.big.with(|state| state.partner.clone()).unwrap().key, key.public());
    dialling.abort();
    serving.abort();
}

#[tokio::test]
async fn a_wrong_key_is_refused_in_both_directions() {
    let pair = Pair::new();
    let error = pair.attempt(&Key::generate().unwrap()).await;
    assert!(matches!(error, LinkError::NotAdmitted), "another big: {error}");
    pair.big.with(|state| state.partner.as_mut().unwrap().key = Key::generate().unwrap().public().to_vec());
    let error = pair.attempt(&pair.big_key).await;
    assert!(matches!(error, LinkError::Session(SessionError::WrongKey)), "another edge: {error}");
    assert!(pair.edge_handle.status().borrow().connected.is_none());
    assert_eq!(pair.edge.state.lock().unwrap().partner.as_ref().unwrap().epoch, 0, "no hello came through");
}

#[tokio::test]
async fn an_open_invitation_lets_a_stranger_say_hello_and_no_more() {
    let pair = Pair::new();
    pair.edge.with(|state| state.invitation = Some(SECRET));
    let error = pair.attempt(&Key::generate().unwrap()).await;
    assert!(matches!(error, LinkError::Session(SessionError::RefusedBy(_))), "{error}");
    assert_eq!(pair.edge.state.lock().unwrap().invitation, Some(SECRET));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn units_flow_both_ways_on_every_lane() {
    const COUNT: u32 = 1000;
    let pair = Pair::new();
    for lane in Lane::ALL {
        pair.big.offer(lane, 0..COUNT / 2);
        pair.edge.offer(lane, 0..COUNT);
    }
    let dialling = pair.dial();
    connected(&pair.big_handle).await;
    for lane in Lane::ALL {
        pair.big.offer(lane, COUNT / 2..COUNT);
        pair.big_handle.units(lane);
    }
    let all = |state: &State| state.filed.iter().all(|filed| *filed == ids(0..COUNT));
    pair.edge.until("all units of big", all).await;
    pair.big.until("all units of the edge", all).await;
    let empty = |state: &State| state.queue.iter().all(VecDeque::is_empty);
    pair.big.until("all confirmed to big", empty).await;
    pair.edge.until("all confirmed to the edge", empty).await;
    let (big, edge) = (pair.big.state.lock().unwrap().lanes, pair.edge.state.lock().unwrap().lanes);
    for (big, edge) in big.iter().zip(&edge) {
        assert_eq!((big.confirmed, big.received), (edge.received, edge.confirmed));
    }
    let mut status = pair.big_handle.status();
    let settled =
        status.wait_for(|status| status.lanes.iter().all(|lane| lane.confirmed == u64::from(COUNT)));
    timeout(FOREVER, settled).await.unwrap().unwrap();
    dialling.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_end_comes_back_and_goes_on() {
    const STEP: u32 = 400;
    let mut pair = Pair::new();
    let mut dialling = pair.dial();
    for round in 0..6 {
        for node in [&pair.big, &pair.edge] {
            node.offer(Lane::Inter, round * STEP..(round + 1) * STEP);
        }
        pair.big_handle.units(Lane::Inter);
        pair.edge_handle.units(Lane::Inter);
        // Killed in the middle of the round.
        let some = (round * STEP + 100) as usize;
        pair.edge.until("some units", |state| state.filed[2].len() >= some).await;
        if round % 2 == 0 {
            dialling.abort();
            let _ = dialling.await;
            dialling = pair.dial();
        } else {
            pair.serving.abort();
            let _ = (&mut pair.serving).await;
            // The port is free once the last of the old endpoint is gone.
            let rebound = async {
                loop {
                    let again = Listener::bind(pair.address, KeyRing::fixed(pair.edge_key.clone()));
                    match again {
                        Ok(listener) => break listener,
                        Err(_) => tokio::task::yield_now().await,
                    }
                }
            };
            let listener = timeout(FOREVER, rebound).await.unwrap();
            let (host, handle) = (Arc::new(Node(Arc::clone(&pair.edge))), pair.edge_handle.clone());
            pair.serving = tokio::spawn(async move {
                listener.serve(host, handle).await;
            });
            pair.big_handle.redial();
        }
    }
    let all = |state: &State| state.filed[2] == ids(0..6 * STEP);
    pair.edge.until("every unit of big, once", all).await;
    pair.big.until("every unit of the edge, once", all).await;
    dialling.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_stream_through_in_pieces() {
    let pair = Pair::new();
    for node in [&pair.big, &pair.edge] {
        node.with(|state| state.waiting = ids(0..6));
    }
    let dialling = pair.dial();
    connected(&pair.big_handle).await;
    pair.big.offer(Lane::Inter, 10..20);
    pair.big_handle.units(Lane::Inter);
    for node in [&pair.edge, &pair.big] {
        node.until("six large units", |state| state.filed[3].len() == 6).await;
        let state = node.state.lock().unwrap();
        assert_eq!(state.written, 6 * LARGE_BYTES);
        assert!(state.staged.iter().all(|(_, length, _)| *length == LARGE_BYTES));
        let mut filed = state.filed[3].clone();
        filed.sort_unstable();
        assert_eq!(filed, ids(0..6));
    }
    pair.edge.until("small mail beside it", |state| state.filed[2] == ids(10..20)).await;
    dialling.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_body_goes_on_where_its_connection_was_lost() {
    let pair = Pair::new();
    pair.big.with(|state| state.waiting = ids(0..1));
    for cut in 1..=3 {
        let some = 2_000_000 * cut;
        pair.edge.with(|state| state.written_max = Some(some));
        let dialling = pair.dial();
        pair.edge.until("a part of it", |state| state.written + PIECE.len() as u64 > some).await;
        dialling.abort();
        let _ = dialling.await;
    }
    assert!(pair.edge.with(|state| state.staged.is_empty()), "it was cut before its end");
    pair.edge.with(|state| state.written_max = None);
    let dialling = pair.dial();
    pair.edge.until("the whole of it", |state| state.filed[3].len() == 1).await;
    assert_eq!(pair.edge.with(|state| state.written), LARGE_BYTES, "no byte came twice");
    dialling.abort();
}

/// Passes packets on between one big and the edge it is pointed at; any other edge is not heard.
async fn relay(socket: tokio::net::UdpSocket, edges: [SocketAddr; 2], at: Arc<AtomicUsize>) {
    let mut big = None;
    let mut packet = [0; 2048];
    while let Ok((size, from)) = socket.recv_from(&mut packet).await {
        let edge = edges[at.load(Ordering::SeqCst)];
        let to = match from {
            from if from == edge => big,
            from if edges.contains(&from) => None,
            from => {
                big = Some(from);
                Some(edge)
            }
        };
        if let Some(to) = to {
            let _ = socket.send_to(&packet[..size], to).await;
        }
    }
}

#[tokio::test]
async fn an_edge_that_was_killed_without_a_word_says_so_when_it_is_back() {
    let mut pair = Pair::new();
    let (again, serving) = serve(
        SocketAddr::from(([127, 0, 0, 1], 0)),
        &KeyRing::fixed(pair.edge_key.clone()),
        &pair.edge,
        &Handle::new(),
    );
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let edges = [pair.address, again];
    pair.address = socket.local_addr().unwrap();
    let at = Arc::new(AtomicUsize::new(0));
    let relaying = tokio::spawn(relay(socket, edges, Arc::clone(&at)));

    let dialler = Dialler::new(pair.address, KeyRing::fixed(pair.big_key.clone())).unwrap();
    let (host, handle) = (Arc::new(Node(Arc::clone(&pair.big))), pair.big_handle.clone());
    let attempt =
        tokio::spawn(async move { dialler.attempt(&host, &handle, FOREVER, &Arc::default(), 0).await.0 });
    connected(&pair.big_handle).await;
    at.store(1, Ordering::SeqCst);
    pair.big.offer(Lane::Inter, 0..1);
    pair.big_handle.units(Lane::Inter);
    let error = timeout(FOREVER, attempt).await.unwrap().unwrap();
    assert!(matches!(&error, LinkError::Lost(why) if why.contains("reset")), "{error}");
    serving.abort();
    relaying.abort();
}

#[tokio::test]
async fn the_newest_connection_wins() {
    let pair = Pair::new();
    let host = Arc::new(Node(Arc::clone(&pair.big)));
    let dial = |handle: Handle| {
        let dialler = Dialler::new(pair.address, KeyRing::fixed(pair.big_key.clone())).unwrap();
        let host = Arc::clone(&host);
        tokio::spawn(async move { dialler.attempt(&host, &handle, FOREVER, &Arc::default(), 0).await.0 })
    };
    let (first, second) = (Handle::new(), Handle::new());
    let older = dial(first.clone());
    connected(&first).await;
    let newer = dial(second.clone());
    connected(&second).await;
    let error = timeout(FOREVER, older).await.unwrap().unwrap();
    assert!(matches!(error, LinkError::Superseded), "{error}");
    pair.big.offer(Lane::Inter, 0..10);
    second.units(Lane::Inter);
    pair.edge.until("units over the newer one", |state| state.filed[2] == ids(0..10)).await;
    newer.abort();
}

#[tokio::test]
async fn what_the_node_makes_of_its_lanes_as_it_remembers_its_partner_is_what_is_compared() {
    let pair = Pair::new();
    pair.edge.offer(Lane::Inter, 0..1);
    let at_the_edge = pair.edge.with(|state| Position::default().after(&state.queue[2][0]));
    pair.big.with(|state| {
        // The edge went back since.
        state.partner.as_mut().unwrap().identity.generation -= 1;
        state.stands_then = Some(at_the_edge);
    });
    let dialling = pair.dial();
    pair.edge.until("big has the unit", |state| state.lanes[2].confirmed.number == 1).await;
    assert_eq!(pair.big.with(|state| state.filed[2].clone()), ids(0..0), "and has not got it again");
    dialling.abort();
}

/// Plays on one thread, and fails if both ends together have more in use at once than [`MEMORY_MAX`]. Only what this thread
/// takes is counted: what is played must start no other one.
fn bounded(play: impl Future<Output = ()>) {
    let taken = allocation_counter::measure(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(play);
    });
    assert!(taken.bytes_max <= MEMORY_MAX, "{} bytes in use at once", taken.bytes_max);
}

/// A QUIC endpoint of an enemy.
fn enemy() -> quinn::Endpoint {
    quinn::Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap()
}

/// An enemy that holds big's key: its connection, and the five streams.
struct Enemy {
    connection: quinn::Connection,
    streams: Streams,
    endpoint: quinn::Endpoint,
}

impl Enemy {
    async fn connect(pair: &Pair) -> Self {
        let pinned = pair.edge_key.public().to_vec();
        let known = move |key: &[u8]| tls::Known::by(key, &pinned);
        Self::connect_as(pair, tls::client_config(&pair.big_key, known, Handle::new()).unwrap()).await
    }

    async fn connect_as(pair: &Pair, config: quinn::ClientConfig) -> Self {
        let endpoint = enemy();
        let connecting = endpoint.connect_with(config, pair.address, SERVER_NAME).unwrap();
        let connection = timeout(FOREVER, connecting).await.unwrap().unwrap();
        let streams = Streams::open(&connection).await.unwrap();
        Self { connection, streams, endpoint }
    }

    async fn say(&mut self, frame: Frame) {
        self.streams.control.0.write_all(&frame.encode().concat()).await.unwrap();
    }

    async fn hear(&mut self) -> Frame {
        timeout(FOREVER, self.streams.first_frame()).await.unwrap().unwrap()
    }

    /// Connects and greets.
    async fn open(pair: &Pair, epoch: u64) -> (Self, Vec<(UnitId, u64)>) {
        Self::connect(pair).await.greet(pair, epoch).await
    }

    /// Says hello and compares, as big would. Returns what the edge holds of large bodies.
    async fn greet(self, pair: &Pair, epoch: u64) -> (Self, Vec<(UnitId, u64)>) {
        let mut enemy = self;
        let hello =
            Hello { newest: 1, oldest: 1, identity: pair.big.identity(), epoch, proof: None, rotates: false };
        enemy.say(Frame::Hello(hello)).await;
        assert!(matches!(enemy.hear().await, Frame::Hello(_)));
        let lanes = [CompareLane { next: 1, ..CompareLane::default() }; 4];
        let held = pair.edge.identity().log_name;
        enemy.say(Frame::Compare(Box::new(Compare { held, lanes }))).await;
        assert!(matches!(enemy.hear().await, Frame::Compare(_)));
        let (mut parts, mut credits) = (Vec::new(), 0);
        while credits < 4 {
            match enemy.hear().await {
                Frame::BodyPart(unit, length) => parts.push((unit, length)),
                Frame::Credit(..) => credits += 1,
                other => panic!("{other:?}"),
            }
        }
        (enemy, parts)
    }

    /// The code and the words with which the edge closes the connection.
    async fn closed(&self) -> (CloseCode, String) {
        match timeout(FOREVER, self.connection.closed()).await.unwrap().into() {
            LinkError::Closed { code: Some(code), reason } => (code, reason),
            other => panic!("{other:?}"),
        }
    }
}

async fn last_error(handle: &Handle) -> String {
    let mut status = handle.status();
    let failed = status.wait_for(|status| status.last_error.is_some());
    timeout(FOREVER, failed).await.expect("it fails").unwrap().last_error.clone().unwrap()
}

#[tokio::test]
async fn who_broke_the_protocol_is_told_so_and_the_operator_too() {
    let rejected = Frame::Stopped(Stop::Differs).encode().concat();
    let unit = Unit { number: 2, id: [1; 16], after: None, head: Bytes::new(), body: Body::None };
    let gap = Frame::Batch(Batch { units: vec![unit], chain: [0; 32] }).encode().concat();
    let resume = crate::frame::Resume { position: Position::default(), rebase: false };
    let resumed = [Frame::Resume(resume).encode().concat(), gap].concat();
    let cases = [
        (0, b"GET / HTTP/1.1\r\n\r\n".to_vec(), "a frame of unknown kind 71"),
        (0, rejected, "STOPPED where it has no place"),
        (3, resumed, "its numbers do not follow the last ones"),
    ];
    let pair = Pair::new();
    for (epoch, (stream, bytes, what)) in (1..).zip(cases) {
        let (mut enemy, _) = Enemy::open(&pair, epoch).await;
        let sent = match stream {
            0 => &mut enemy.streams.control.0,
            lane => &mut enemy.streams.lanes[lane - 1].0,
        };
        sent.write_all(&bytes).await.unwrap();
        let (code, reason) = enemy.closed().await;
        assert_eq!(code, CloseCode::Protocol);
        assert!(reason.contains(what), "{reason}");
        let error = last_error(&pair.edge_handle).await;
        assert!(error.contains(what), "{error}");
        // The next connection clears that, and not that there was a fault.
        pair.edge_handle.opened(pair.address);
        pair.edge_handle.closed();
        let status = pair.edge_handle.status().borrow().clone();
        assert_eq!(status.last_error, None);
        assert!(status.fault.is_some_and(|fault| fault.error.contains(what)));
    }
}

#[test]
fn who_never_reads_is_told_so_and_does_not_fill_the_memory() {
    bounded(never_read());
}

async fn never_read() {
    const BATCH: u64 = 50;
    let pair = Pair::new();
    let (mut enemy, _) = Enemy::open(&pair, 1).await;
    let resume = crate::frame::Resume { position: Position::default(), rebase: false };
    enemy.streams.lanes[2].0.write_all(&Frame::Resume(resume).encode().concat()).await.unwrap();
    let mut position = Position::default();
    // Confirms with many reasons, of which nobody reads one: beyond the windows they wait, and then no more do.
    while enemy.connection.close_reason().is_none() {
        let units: Vec<_> = (position.number + 1..=position.number + BATCH)
            .map(|number| {
                let id = unit_id(u32::try_from(number).unwrap());
                Unit { number, id, after: None, head: Bytes::from_static(b"refuse"), body: Body::None }
            })
            .collect();
        position = units.iter().fold(position, |position, unit| position.after(unit));
        assert!(position.number < 1_000_000, "it ends");
        let batch = Frame::Batch(Batch { units, chain: position.chain }).encode().concat();
        if enemy.streams.lanes[2].0.write_all(&batch).await.is_err() {
            break;
        }
        // Its credit is known without reading: it is what was applied, and 400 units more.
        let applied = pair
            .edge
            .until("it is applied", |state| state.lanes[2].received.number + 2 * BATCH >= position.number);
        tokio::select! {
            () = applied => {}
            _ = enemy.connection.closed() => {}
        }
    }
    assert_eq!(enemy.closed().await.0, CloseCode::NotRead);
    let error = last_error(&pair.edge_handle).await;
    assert!(error.contains("does not read"), "{error}");
}

#[tokio::test]
async fn a_stale_hello_is_refused_and_has_no_effect() {
    let pair = Pair::new();
    let (first, _) = Enemy::open(&pair, 7).await;
    for epoch in [7, 6, 0] {
        let mut replayed = Enemy::connect(&pair).await;
        let hello =
            Hello { newest: 1, oldest: 1, identity: pair.big.identity(), epoch, proof: None, rotates: false };
        replayed.say(Frame::Hello(hello)).await;
        assert!(matches!(replayed.hear().await, Frame::Refused(refused) if refused.epoch == 7));
        assert_eq!(replayed.closed().await.0, CloseCode::Refused);
    }
    assert!(first.connection.close_reason().is_none(), "the live session goes on");
    assert_eq!(pair.edge.with(|state| state.partner.as_ref().unwrap().epoch), 7);
}

#[tokio::test]
async fn an_operator_who_holds_the_link_is_named_at_the_other_end() {
    let pair = Pair::new();
    let dialling = pair.dial();
    connected(&pair.big_handle).await;
    pair.edge_handle.hold(true);
    let error = last_error(&pair.big_handle).await;
    assert!(error.contains("an operator"), "{error}");
    pair.edge_handle.hold(false);
    pair.big_handle.redial();
    connected(&pair.big_handle).await;
    dialling.abort();
}

#[test]
fn a_partners_last_words_are_cut_and_cleaned() {
    let words = [b"\x1b[2J\r\nALARM \xff".as_slice(), &[b'x'; 1000]].concat();
    let error = super::close::read(CloseCode::Protocol.number(), &words).to_string();
    assert!(error.chars().all(|c| (' '..='~').contains(&c)) && error.len() < 400, "{error}");
    let unknown = super::close::read(quinn::VarInt::from_u32(77), b"");
    assert!(matches!(unknown, LinkError::Closed { code: None, .. }));
}

#[tokio::test]
async fn an_edge_that_shows_bigs_own_key_is_not_the_edge() {
    let pair = Pair::new();
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let (address, serving) =
        serve(loopback, &KeyRing::fixed(pair.big_key.clone()), &pair.edge, &Handle::new());
    let dialler = Dialler::new(address, KeyRing::fixed(pair.big_key.clone())).unwrap();
    let host = Arc::new(Node(Arc::clone(&pair.big)));
    let parts = Arc::default();
    let attempt = dialler.attempt(&host, &pair.big_handle, FOREVER, &parts, 0);
    let (error, _) = timeout(FOREVER, attempt).await.unwrap();
    assert!(matches!(error, LinkError::Session(SessionError::WrongKey)), "{error}");
    serving.abort();
}

#[test]
fn bodies_that_never_end_leave_a_bounded_rest() {
    bounded(begin_bodies());
}

async fn begin_bodies() {
    let pair = Pair::new();
    let mut number = 0;
    for epoch in 1..=4u32 {
        let (enemy, parts) = Enemy::open(&pair, epoch.into()).await;
        assert!(parts.len() <= PARTS_MAX, "{parts:?}");
        let before = pair.edge.with(|state| state.written);
        for _ in 0..crate::session::BODIES_MAX {
            number += 1;
            let mut stream = enemy.connection.open_uni().await.unwrap();
            let begun = [unit_id(number).as_slice(), &[0; 8], &4u32.to_le_bytes(), b"part"].concat();
            stream.write_all(&begun).await.unwrap();
        }
        pair.edge.until("four parts", |state| state.written == before + 16).await;
    }
    let (_enemy, parts) = Enemy::open(&pair, 5).await;
    assert_eq!(parts.len(), PARTS_MAX);
    assert!(pair.edge.with(|state| state.staged.is_empty()));
}

#[tokio::test]
async fn a_flood_of_first_packets_gets_retries_and_holds_nothing() {
    const PACKETS: usize = 3000;
    let pair = Pair::new();
    let dialling = pair.dial();
    connected(&pair.big_handle).await;
    let epoch = pair.edge.with(|state| state.partner.as_ref().unwrap().epoch);
    // A true first packet of somebody's.
    let tap = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let endpoint = enemy();
    let config = {
        let pinned = pair.edge_key.public().to_vec();
        tls::client_config(&pair.big_key, move |key| tls::Known::by(key, &pinned), Handle::new()).unwrap()
    };
    let connecting = endpoint.connect_with(config, tap.local_addr().unwrap(), SERVER_NAME).unwrap();
    let mut first = [0; 2048];
    let size = timeout(FOREVER, tap.recv(&mut first)).await.unwrap().unwrap();
    drop(connecting);
    assert!(size >= 1200);
    let (mut answers, mut octets, mut answer) = (0, 0, [0; 2048]);
    let mut look = |tap: &tokio::net::UdpSocket| {
        while let Ok((length, from)) = tap.try_recv_from(&mut answer) {
            if from == pair.address {
                assert_eq!(answer[0] & 0xf0, 0xf0, "a Retry (RFC 9000 §17.2.5)");
                assert!(length < size, "no amplification");
                answers += 1;
                octets += length;
            }
        }
    };
    for _ in 0..PACKETS {
        tap.send_to(&first[..size], pair.address).await.unwrap();
        look(&tap);
    }
    pair.big.offer(Lane::Inter, 0..10);
    pair.big_handle.units(Lane::Inter);
    pair.edge.until("units of the live session", |state| state.filed[2] == ids(0..10)).await;
    look(&tap);
    assert!((1..=PACKETS).contains(&answers), "{answers}");
    assert!(
        octets <= 3 * PACKETS * size,
        "{octets} octets to an address that is not validated (RFC 9000 §8.1)"
    );
    assert_eq!(pair.edge.with(|state| state.partner.as_ref().unwrap().epoch), epoch, "nobody came in");
    assert!(pair.big_handle.is_open() && pair.edge_handle.is_open());
    dialling.abort();
}
