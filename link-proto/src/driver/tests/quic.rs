//! What a partner who holds the right key can do with QUIC itself: streams, addresses, keys of the connection.

use tokio::task::JoinSet;

use super::*;

/// Streams that are asked for beyond those that there may be.
const STREAMS: usize = 10_000;
/// Units that are sent, each under a key of the connection that is to be another one.
const UPDATES: u64 = 200;

/// An enemy whose lane of mail has begun, and what it has sent there.
pub(super) struct Sender {
    pub(super) enemy: Enemy,
    position: Position,
}

impl Sender {
    pub(super) async fn new(pair: &Pair) -> Self {
        let (mut enemy, _) = Enemy::open(pair, 1).await;
        let resume = crate::frame::Resume { position: Position::default(), rebase: false };
        enemy.streams.lanes[2].0.write_all(&Frame::Resume(resume).encode().concat()).await.unwrap();
        Self { enemy, position: Position::default() }
    }

    async fn send(&mut self) {
        self.send_units(1, Bytes::new()).await;
    }

    /// Sends so many units with this head in one batch.
    pub(super) async fn send_units(&mut self, count: u64, head: Bytes) {
        let first = self.position.number + 1;
        let unit = |number| {
            let id = unit_id(u32::try_from(number).unwrap());
            Unit { number, id, after: None, head: head.clone(), body: Body::None }
        };
        let units: Vec<_> = (first..first + count).map(unit).collect();
        self.position = units.iter().fold(self.position, |position, unit| position.after(unit));
        let batch = Batch { units, chain: self.position.chain };
        let batch = Frame::Batch(batch).encode().concat();
        self.enemy.streams.lanes[2].0.write_all(&batch).await.unwrap();
    }

    /// Sends a unit and waits until it is confirmed, so that whatever was sent before has been dealt with.
    pub(super) async fn round_trip(&mut self) {
        self.send().await;
        while !matches!(self.enemy.hear().await, Frame::Confirmed(_)) {}
    }
}

#[test]
fn of_ten_thousand_streams_none_is_granted_beyond_the_limit() {
    bounded(ask_for_streams());
}

async fn ask_for_streams() {
    let pair = Pair::new();
    let mut sender = Sender::new(&pair).await;
    let connection = sender.enemy.connection.clone();
    let mut bodies = Vec::new();
    for _ in 0..crate::session::BODIES_MAX {
        bodies.push(timeout(FOREVER, connection.open_uni()).await.unwrap().unwrap());
    }
    let mut more = JoinSet::new();
    for number in 0..STREAMS {
        let connection = connection.clone();
        more.spawn(async move {
            match number % 2 {
                0 => connection.open_uni().await.map(drop),
                _ => connection.open_bi().await.map(drop),
            }
        });
    }
    for _ in 0..10 {
        sender.round_trip().await;
    }
    assert!(more.try_join_next().is_none(), "one more stream was granted");
    assert_eq!(connection.max_datagram_size(), None, "no datagrams");
    // The place of one that ended is for one other, and for no lane.
    bodies.pop().unwrap().finish().unwrap();
    let granted = timeout(FOREVER, more.join_next()).await.unwrap().unwrap().unwrap();
    assert!(granted.is_ok() && connection.close_reason().is_none());
    sender.round_trip().await;
}

#[tokio::test]
async fn a_partner_who_moves_to_another_address_is_not_followed() {
    let pair = Pair::new();
    let mut sender = Sender::new(&pair).await;
    sender.round_trip().await;
    let before = pair.edge_handle.status().borrow().connected.clone().unwrap().peer;
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    sender.enemy.endpoint.rebind(socket).unwrap();
    let sent = sender.enemy.connection.stats().udp_tx.datagrams;
    sender.send().await;
    // It is sent, and sent again.
    let again = async {
        while sender.enemy.connection.stats().udp_tx.datagrams < sent + 3 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(FOREVER, again).await.unwrap();
    // Behind it at the same socket of the edge comes one of somebody else, who is answered.
    let stale = Enemy::connect(&pair).await;
    assert!(stale.connection.close_reason().is_none());
    assert_eq!(pair.edge.with(|state| state.lanes[2].received.number), 1, "what came from there was taken");
    assert_eq!(pair.edge_handle.status().borrow().connected.clone().unwrap().peer, before);
}

#[tokio::test]
async fn a_partner_who_changes_the_connections_keys_at_each_unit_is_served() {
    let pair = Pair::new();
    let mut sender = Sender::new(&pair).await;
    for _ in 0..UPDATES {
        sender.enemy.connection.force_key_update();
        sender.round_trip().await;
    }
    assert_eq!(pair.edge.with(|state| state.lanes[2].received.number), UPDATES);
    assert!(sender.enemy.connection.close_reason().is_none());
}
