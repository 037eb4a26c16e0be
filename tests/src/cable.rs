//! The link's cable, in a test's hands: what big and edge send each other passes, is lost, or is held on the way.
//!
//! It is a relay of UDP packets on loopback: big dials it ([`Cable::lay`]), and it knows where edge listens.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket as StdUdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use crate::process::Node;
use crate::topology::TestTopology;
use crate::wait::{SOON, Trouble, until};

/// Octets of one packet; QUIC's are smaller on a path of the Internet.
const PACKET_MAX: usize = 2048;
/// Octets that are held for one side; more are lost, as in any queue.
const HELD_MAX: usize = 4 * 1024 * 1024;

/// What becomes of packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// They pass.
    #[default]
    Open,
    /// They are lost.
    Cut,
    /// They are on the way until it is open again.
    Held,
}

/// A cable between the nodes. It is gone when this is dropped.
#[derive(Debug)]
pub struct Cable {
    socket: Arc<UdpSocket>,
    sides: Arc<Mutex<Sides>>,
    relaying: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Sides {
    edge: Side,
    big: Side,
}

/// What leads to one node.
#[derive(Debug, Default)]
struct Side {
    /// Where it is; big is known by its first packet.
    address: Option<SocketAddr>,
    way: Way,
    held: Vec<Vec<u8>>,
    octets: usize,
}

impl Cable {
    /// Lays a cable into a topology that no node has read yet.
    pub fn lay(topology: &mut TestTopology) -> io::Result<Self> {
        let socket = StdUdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_nonblocking(true)?;
        let socket = Arc::new(UdpSocket::from_std(socket)?);
        topology.link_dial = socket.local_addr()?;
        let edge = Side { address: Some(topology.link_listen), ..Side::default() };
        let sides = Arc::new(Mutex::new(Sides { edge, big: Side::default() }));
        let relaying = tokio::spawn(relay(Arc::clone(&socket), Arc::clone(&sides)));
        Ok(Self { socket, sides, relaying })
    }

    /// What leads to `node` is `way` from now on. What was held goes on its way once it is open.
    pub async fn towards(&self, node: Node, way: Way) -> io::Result<()> {
        let (address, held) = {
            let mut sides = lock(&self.sides);
            let side = sides.of(node);
            side.way = way;
            if way == Way::Held {
                return Ok(());
            }
            side.octets = 0;
            (side.address, std::mem::take(&mut side.held))
        };
        if let (Way::Open, Some(address)) = (way, address) {
            for packet in held {
                self.socket.send_to(&packet, address).await?;
            }
        }
        Ok(())
    }

    /// The same in both directions.
    pub async fn both(&self, way: Way) -> io::Result<()> {
        self.towards(Node::Edge, way).await?;
        self.towards(Node::Big, way).await
    }

    /// Waits until so many octets are held on their way to `node`.
    pub async fn holds(&self, node: Node, octets: usize) -> Result<(), Trouble> {
        until(&format!("{octets} octets are on the wire"), SOON, async || {
            Ok((lock(&self.sides).of(node).octets >= octets).then_some(()))
        })
        .await
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.relaying.abort();
    }
}

impl Sides {
    fn of(&mut self, node: Node) -> &mut Side {
        match node {
            Node::Edge => &mut self.edge,
            Node::Big => &mut self.big,
        }
    }
}

impl Side {
    /// Where a packet goes now, if anywhere.
    fn take(&mut self, packet: &[u8]) -> Option<SocketAddr> {
        match self.way {
            Way::Open => self.address,
            Way::Held if self.octets + packet.len() <= HELD_MAX => {
                self.octets += packet.len();
                self.held.push(packet.to_owned());
                None
            }
            Way::Held | Way::Cut => None,
        }
    }
}

fn lock(sides: &Mutex<Sides>) -> MutexGuard<'_, Sides> {
    sides.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn relay(socket: Arc<UdpSocket>, sides: Arc<Mutex<Sides>>) {
    let mut packet = [0; PACKET_MAX];
    loop {
        // The other end of loopback may not be there yet, or any more: that is no end of the cable.
        let Ok((size, from)) = socket.recv_from(&mut packet).await else { continue };
        let to = {
            let mut sides = lock(&sides);
            if sides.edge.address == Some(from) {
                sides.big.take(&packet[..size])
            } else {
                sides.big.address = Some(from);
                sides.edge.take(&packet[..size])
            }
        };
        if let Some(to) = to {
            let _ = socket.send_to(&packet[..size], to).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn packets_pass_are_lost_or_come_once_it_is_open() {
        let folder = tempfile::tempdir().expect("a folder");
        let edge = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
        let mut topology = TestTopology::new(folder.path(), nowhere, 25).expect("a topology");
        topology.link_listen = edge.local_addr().expect("bound");
        let cable = Cable::lay(&mut topology).expect("laid");
        let big = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
        big.connect(topology.link_dial).await.expect("there");
        let heard = async |socket: &UdpSocket| {
            let mut packet = [0; 16];
            let (size, from) = socket.recv_from(&mut packet).await.expect("heard");
            (packet[..size].to_vec(), from)
        };
        big.send(b"one").await.expect("sent");
        let (packet, from) = heard(&edge).await;
        assert_eq!(packet, b"one");
        edge.send_to(b"back", from).await.expect("sent");
        assert_eq!(heard(&big).await.0, b"back");

        cable.towards(Node::Edge, Way::Held).await.expect("held");
        big.send(b"two").await.expect("sent");
        cable.holds(Node::Edge, 3).await.expect("is on the wire");
        assert!(tokio::time::timeout(Duration::ZERO, heard(&edge)).await.is_err());
        cable.both(Way::Open).await.expect("open");
        assert_eq!(heard(&edge).await.0, b"two");

        cable.towards(Node::Edge, Way::Held).await.expect("held");
        big.send(b"lost").await.expect("sent");
        cable.holds(Node::Edge, 4).await.expect("is on the wire");
        cable.both(Way::Cut).await.expect("cut");
        cable.both(Way::Open).await.expect("open");
        big.send(b"three").await.expect("sent");
        assert_eq!(heard(&edge).await.0, b"three");
    }
}
