//! Floods of the ports of the link: what strangers send there costs no memory, gets less than it sent, and the
//! link goes on.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use big_node::record::Folder;
use tests::proc::{forget_peak, internet_sockets, usage};
use tests::process::Program;
use tests::random::Random;
use tests::wait::Trouble;
use tests::world::{ALICE, World};

/// Packets for each node.
const PACKETS: u64 = 30_000;
/// Octets of the smallest first packet that QUIC answers (RFC 9000 §14.1).
const FULL: usize = 1200;
/// How much a node may grow.
const GROWTH_MAX: u64 = 32 * 1024 * 1024;

/// The port of a node's one UDP socket.
fn port(pid: u32) -> Result<u16, Trouble> {
    let sockets = internet_sockets(pid)?;
    let udp = sockets.iter().find(|socket| socket.protocol == "udp").ok_or("a UDP socket")?;
    let (_, port) = udp.local.rsplit_once(':').ok_or("an address and a port")?;
    Ok(u16::from_str_radix(port, 16)?)
}

/// What may look like something to QUIC: a first packet, one of a version that nobody speaks, one of a connection
/// (or the end of one), and noise.
fn packet(random: &mut Random) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..FULL / 8).flat_map(|_| random.next_u64().to_le_bytes()).collect();
    let long = |bytes: &mut Vec<u8>, version: u32| {
        bytes[0] = 0xc3;
        bytes[1..5].copy_from_slice(&version.to_be_bytes());
        // Two connection ids of 8 octets, no token, and the length of the rest in two octets.
        (bytes[5], bytes[14], bytes[23]) = (8, 8, 0);
        let rest = u16::try_from(FULL - 26).unwrap_or_default() | 0x4000;
        bytes[24..26].copy_from_slice(&rest.to_be_bytes());
    };
    match random.below(4) {
        0 => long(&mut bytes, 1),
        1 => long(&mut bytes, 0x0a1a_2a3a),
        2 => bytes[0] = 0x40 | bytes[0] & 0x3f,
        _ => bytes.truncate(1 + usize::try_from(random.below(FULL as u64)).unwrap_or_default()),
    }
    bytes
}

/// Octets that were sent to `to`, and that came back.
fn flood(to: SocketAddr, mut random: Random) -> std::io::Result<(usize, usize)> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_nonblocking(true)?;
    let (mut sent, mut answered, mut answer) = (0, 0, [0; 2048]);
    for _ in 0..PACKETS {
        // What does not fit into the socket's buffer is lost, as on any line.
        sent += socket.send_to(&packet(&mut random), to).unwrap_or_default();
        while let Ok((length, _)) = socket.recv_from(&mut answer) {
            answered += length;
        }
    }
    Ok((sent, answered))
}

#[tokio::test]
async fn a_flood_of_packets_costs_no_memory_and_the_link_goes_on() -> Result<(), Trouble> {
    let world = World::start(Program::at(env!("CARGO_BIN_EXE_pair"))).await?;
    let before = world.receive(&[ALICE], b"Subject: before\r\n\r\n.\r\n").await?;
    world.desk("alice").filed(Folder::In, &before).await?;
    let epoch = world.big().link().await?.epoch;
    for (seed, pid) in [(1, world.nodes.edge_ready().pid), (2, world.nodes.big_ready().pid)] {
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port(pid)?));
        forget_peak(pid)?;
        let at_rest = usage(pid)?.peak_memory;
        let (sent, answered) = tokio::task::spawn_blocking(move || flood(to, Random::new(seed))).await??;
        let grown = usage(pid)?.peak_memory.saturating_sub(at_rest);
        assert!(sent > 0 && answered <= sent, "{answered} octets for {sent}");
        assert!(grown <= GROWTH_MAX, "process {pid} has grown by {grown} octets");
    }
    let after = world.receive(&[ALICE], b"Subject: after\r\n\r\n.\r\n").await?;
    world.desk("alice").filed(Folder::In, &after).await?;
    assert_eq!(world.big().link().await?.epoch, epoch, "the session is the same");
    world.end().await
}
