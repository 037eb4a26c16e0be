//! A connection that somebody on the way has recorded, and says again.

use tokio::net::UdpSocket;

use super::*;

/// Passes packets on between big and the edge, and keeps those of big's.
struct Tap {
    address: SocketAddr,
    said: Arc<Mutex<Vec<Vec<u8>>>>,
    socket: Arc<UdpSocket>,
    passing: JoinHandle<()>,
}

impl Tap {
    async fn before(edge: SocketAddr) -> Self {
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let (said, address) = (Arc::<Mutex<Vec<Vec<u8>>>>::default(), socket.local_addr().unwrap());
        let (kept, passes) = (Arc::clone(&said), Arc::clone(&socket));
        let passing = tokio::spawn(async move {
            let (mut big, mut packet) = (None, [0; 2048]);
            while let Ok((size, from)) = passes.recv_from(&mut packet).await {
                let to = if from == edge { big } else { Some(edge) };
                if from != edge {
                    big = Some(from);
                    kept.lock().unwrap().push(packet[..size].to_vec());
                }
                if let Some(to) = to {
                    let _ = passes.send_to(&packet[..size], to).await;
                }
            }
        });
        Self { address, said, socket, passing }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.passing.abort();
    }
}

#[tokio::test]
async fn a_recorded_opening_said_again_twice_opens_nothing_and_does_nothing() {
    let mut pair = Pair::new();
    let edge = pair.address;
    let tap = Tap::before(edge).await;
    pair.address = tap.address;
    let dialling = pair.dial();
    connected(&pair.big_handle).await;
    connected(&pair.edge_handle).await;
    pair.big.offer(Lane::Inter, 0..3);
    pair.big_handle.units(Lane::Inter);
    pair.edge.until("units over the recorded connection", |state| state.filed[2] == ids(0..3)).await;
    let since = pair.edge_handle.status().borrow().connected.as_ref().map(|connected| connected.since);

    let recorded = tap.said.lock().unwrap().clone();
    assert!(recorded.len() > 3 && recorded[0].len() >= 1200, "its first flight is there");
    // From where it came, and from somewhere else: the edge reads its socket in order, so what comes after has
    // been preceded by all of it.
    let elsewhere = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for _ in 0..2 {
        for packet in &recorded {
            tap.socket.send_to(packet, edge).await.unwrap();
            elsewhere.send_to(packet, edge).await.unwrap();
            tokio::task::yield_now().await;
        }
    }
    pair.big.offer(Lane::Inter, 3..6);
    pair.big_handle.units(Lane::Inter);
    pair.edge.until("the units that follow", |state| state.filed[2].len() >= 6).await;
    let status = pair.edge_handle.status().borrow().clone();
    assert_eq!(status.connected.map(|connected| connected.since), since, "it is the connection it was");
    pair.edge.with(|state| {
        assert_eq!(state.filed[2], ids(0..6), "each once, in order");
        assert_eq!(state.partner.as_ref().unwrap().epoch, 1, "one hello was heard");
    });
    assert_eq!(pair.big.with(|state| state.epoch), 1, "big has dialled once");
    dialling.abort();
}
