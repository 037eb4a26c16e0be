//! Floods of the ports of the link: what strangers send there costs no memory, gets less than it sent, and the
//! link goes on.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use big_node::record::Folder;
use quinn::crypto::rustls::QuicClientConfig;
use rustls::RootCertStore;
use rustls::version::TLS13;
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
fn flood(to: SocketAddr, mut packet: impl FnMut() -> Vec<u8>) -> std::io::Result<(usize, usize)> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_nonblocking(true)?;
    let (mut sent, mut answered, mut answer) = (0, 0, [0; 2048]);
    for _ in 0..PACKETS {
        // What does not fit into the socket's buffer is lost, as on any line.
        sent += socket.send_to(&packet(), to).unwrap_or_default();
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
        let (sent, answered) = tokio::task::spawn_blocking(move || {
            let mut random = Random::new(seed);
            flood(to, || packet(&mut random))
        })
        .await??;
        let grown = usage(pid)?.peak_memory.saturating_sub(at_rest);
        assert!(sent > 0 && answered <= sent, "{answered} octets for {sent}");
        assert!(grown <= GROWTH_MAX, "process {pid} has grown by {grown} octets");
    }
    let after = world.receive(&[ALICE], b"Subject: after\r\n\r\n.\r\n").await?;
    world.desk("alice").filed(Folder::In, &after).await?;
    assert_eq!(world.big().link().await?.epoch, epoch, "the session is the same");
    world.end().await
}

/// True first packets, each of a connection of its own.
const INITIALS: usize = 64;
/// Strangers who answer the edge's Retry, so that their handshakes begin.
const STRANGERS: usize = 300;
/// A handshake that has not ended by then has failed.
const PATIENCE: Duration = Duration::from_secs(5);

/// A QUIC client that speaks the link's protocol and has no key.
fn stranger() -> Result<(quinn::Endpoint, quinn::ClientConfig), Trouble> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"sallypost-link/1".to_vec()];
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config)?));
    Ok((quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into())?, config))
}

async fn first_packets() -> Result<Vec<Vec<u8>>, Trouble> {
    let (endpoint, config) = stranger()?;
    let tap = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let mut packets = Vec::new();
    for _ in 0..INITIALS {
        let _connecting = endpoint.connect_with(config.clone(), tap.local_addr()?, "edge")?;
        let mut packet = vec![0; 2048];
        let size = tap.recv(&mut packet).await?;
        packet.truncate(size);
        assert!(size >= FULL, "a first packet is full");
        packets.push(packet);
    }
    Ok(packets)
}

#[tokio::test]
async fn true_first_packets_and_strangers_who_go_on_cost_no_memory_either() -> Result<(), Trouble> {
    let world = World::start(Program::at(env!("CARGO_BIN_EXE_pair"))).await?;
    let before = world.receive(&[ALICE], b"Subject: before\r\n\r\n.\r\n").await?;
    world.desk("alice").filed(Folder::In, &before).await?;
    let (epoch, pid) = (world.big().link().await?.epoch, world.nodes.edge_ready().pid);
    let (to, packets) = (SocketAddr::from((Ipv4Addr::LOCALHOST, port(pid)?)), first_packets().await?);
    forget_peak(pid)?;
    let at_rest = usage(pid)?.peak_memory;
    let (sent, answered) = tokio::task::spawn_blocking(move || {
        let mut next = packets.iter().cycle().cloned();
        flood(to, || next.next().unwrap_or_default())
    })
    .await??;
    assert!(answered > 0, "they are answered by a Retry");
    assert!(answered <= sent, "{answered} octets for {sent}");
    let (endpoint, config) = stranger()?;
    let mut handshakes = tokio::task::JoinSet::new();
    for _ in 0..STRANGERS {
        handshakes.spawn(tokio::time::timeout(PATIENCE, endpoint.connect_with(config.clone(), to, "edge")?));
    }
    while let Some(ended) = handshakes.join_next().await {
        // Refused, or, where too many ask at once, not answered.
        assert!(!matches!(ended?, Ok(Ok(_))), "a stranger came in");
    }
    let grown = usage(pid)?.peak_memory.saturating_sub(at_rest);
    assert!(grown <= GROWTH_MAX, "the edge has grown by {grown} octets");
    let after = world.receive(&[ALICE], b"Subject: after\r\n\r\n.\r\n").await?;
    world.desk("alice").filed(Folder::In, &after).await?;
    assert_eq!(world.big().link().await?.epoch, epoch, "the session is the same");
    world.end().await
}
