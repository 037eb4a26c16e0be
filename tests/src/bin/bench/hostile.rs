//! Clients at port 25 that mean no good: a thousand that trickle, and floods of connections; what a known peer, a traveller
//! and the link notice of them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use shared::lifetime::take_descriptors;
use tests::proc::{forget_peak, usage};
use tests::wire::Wire;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::Failure;
use crate::connections::{Under, first, open, within};
use crate::took::Took;

/// The pause between two octets of a client that trickles.
const TRICKLE: Duration = Duration::from_secs(1);
/// In which all of them have to be hung up on.
const HUNG_UP_WITHIN: Duration = Duration::from_secs(120);
/// How long a connection of a flood waits for its first line.
const FIRST_LINE_WITHIN: Duration = Duration::from_secs(60);
/// Connections of a flood that are made at once.
const AT_ONCE: usize = 100;
/// Networks of the second flood.
const NETWORKS: usize = 250;
/// The beginning of a ClientHello of 512 octets.
const HELLO: [u8; 11] = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];

/// How many of them there are, and what they may cost.
#[derive(Args)]
pub struct Options {
    /// Clients that send an octet a second: a third each in a command, in content and in a TLS handshake
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    trickle: usize,
    /// Connections of a flood, from one address and then from 250 networks
    #[arg(long, default_value_t = 5_000, value_name = "N")]
    flood: usize,
    /// Messages of a known peer, each filed and each followed by a look at a maildrop, before and beside each
    #[arg(long, default_value_t = 50, value_name = "N")]
    probes: usize,
    /// What the edge may have resident at its most, MiB; more is a failure
    #[arg(long, default_value_t = 256, value_name = "N")]
    memory_max: u64,
}

/// Measures, and prints a table.
///
/// # Errors
/// If a client that trickles does not come in or is not hung up on, a connection of a flood gets no answer, or the edge
/// needs more memory than it may.
pub async fn run(folder: &Path, options: &Options) -> Result<(), Failure> {
    let Options { trickle, flood, probes, memory_max } = *options;
    let probes = probes.max(2);
    take_descriptors();
    let mut under = Under::start(folder, trickle).await?;
    let edge = under.nodes.edge_ready().pid;
    let to = first(&under.nodes.edge_ready().smtp)?;
    let alice = format!("alice@{}", under.nodes.topology.domains.first().ok_or("a site has a domain")?);
    // From now on the probes' host is one from which mail has come.
    under.probe(10).await?;
    let before = under.probe(probes).await?;
    forget_peak(edge)?;
    let at_rest = usage(edge)?.peak_memory;

    let number = Arc::<AtomicUsize>::default();
    let connect = move |host| {
        let (alice, number) = (alice.clone(), number.fetch_add(1, Ordering::Relaxed));
        async move { Trickling::begin(host, to, &alice, number).await.ok() }
    };
    let begun = Instant::now();
    let clients = open(trickle, 1, connect).await?;
    let came_in = clients.len();
    println!(
        "{came_in} of {trickle} clients that trickle were in after {:.1} s.",
        begun.elapsed().as_secs_f64()
    );
    let mut trickling = JoinSet::new();
    clients.into_iter().for_each(|client| drop(trickling.spawn(client.goes_on())));
    let beside = under.probe(probes).await?;
    let probed = Instant::now();
    let ended = timeout(HUNG_UP_WITHIN, trickling.join_all()).await.map_err(|_| "some are not hung up on")?;
    let still = ended.iter().filter(|(_, end)| *end > probed).count();
    println!("{still} of them were there all the while that the probes beside them took.");
    let held = ended.into_iter().map(|(since, end)| end - since).collect();

    let mut floods = Vec::new();
    for networks in [1, NETWORKS] {
        let begun = Instant::now();
        let flooding = tokio::spawn(flooded(flood, networks, to));
        let beside = under.probe(probes).await?;
        let (greeted, refused) = flooding.await??;
        let after = begun.elapsed().as_secs_f64();
        println!(
            "A flood of {flood} from {networks}: {greeted} greeted, {refused} told 421, within {after:.1} s."
        );
        if greeted + refused != flood {
            return Err(format!("{} connections got no answer", flood - greeted - refused).into());
        }
        floods.push((networks, beside));
    }
    let peak = usage(edge)?.peak_memory;

    println!("\nThe edge had {} MiB before and {} MiB at its most.\n", at_rest >> 20, peak >> 20);
    println!("| {probes} probes, ms | p50 | p99 | longest |\n|---|---|---|---|");
    before.print("before");
    beside.print("beside those who trickle");
    floods.into_iter().for_each(|(networks, beside)| beside.print(&format!("in a flood from {networks}")));
    println!("{}", Took::of(held).row("a client that trickles is hung up on"));
    if (came_in, still) != (trickle, trickle) {
        return Err(
            format!("{came_in} of {trickle} came in, and {still} were there beside the probes").into()
        );
    }
    within(peak, memory_max)
}

/// Where a client trickles.
enum Within {
    Command,
    Content,
    Handshake,
}

/// A client that sends an octet a second.
struct Trickling {
    wire: Wire,
    within: Within,
    since: Instant,
}

impl Trickling {
    async fn begin(host: IpAddr, to: SocketAddr, recipient: &str, number: usize) -> Result<Self, Failure> {
        let mut wire = Wire::connect_from(host, to).await?;
        let within = match number % 3 {
            0 => Within::Command,
            1 => Within::Content,
            _ => Within::Handshake,
        };
        expect(&mut wire, "", b"220").await?;
        expect(&mut wire, "EHLO client.test\r\n", b"250").await?;
        match within {
            Within::Command => {}
            Within::Content => {
                let mail = format!("MAIL FROM:<slow@remote.example>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n");
                expect(&mut wire, &mail, b"250").await?;
                expect(&mut wire, "", b"250").await?;
                expect(&mut wire, "", b"354").await?;
            }
            Within::Handshake => expect(&mut wire, "STARTTLS\r\n", b"220").await?,
        }
        Ok(Self { wire, within, since: Instant::now() })
    }

    /// Goes on until it is hung up on; since when, and when that was.
    async fn goes_on(mut self) -> (Instant, Instant) {
        for number in 0.. {
            let octet = match self.within {
                Within::Handshake => HELLO.get(number).copied().unwrap_or_default(),
                Within::Command | Within::Content => b'x',
            };
            if self.wire.send(&[octet]).await.is_err() {
                break;
            }
            // Whatever is said now is the end.
            if timeout(TRICKLE, self.wire.readable()).await.is_ok() {
                break;
            }
        }
        (self.since, Instant::now())
    }
}

/// Sends, and takes a reply that has to begin so.
async fn expect(wire: &mut Wire, send: &str, code: &[u8]) -> Result<(), Failure> {
    wire.send(send.as_bytes()).await?;
    loop {
        let line = wire.line().await?;
        if !line.starts_with(code) {
            return Err(format!("answered {}", line.escape_ascii()).into());
        }
        if line.get(3) != Some(&b'-') {
            return Ok(());
        }
    }
}

/// Opens so many connections from so many networks; how many are greeted, and how many are told 421. Those that are greeted
/// say nothing, and stay until all have an answer.
async fn flooded(count: usize, networks: usize, to: SocketAddr) -> Result<(usize, usize), Failure> {
    let mut tasks = JoinSet::new();
    for task in 0..AT_ONCE {
        tasks.spawn(async move {
            let (mut greeted, mut refused) = (Vec::new(), 0);
            for number in (task..count).step_by(AT_ONCE) {
                let network = u8::try_from(number % networks).unwrap_or_default();
                let host = Ipv4Addr::new(127, if networks == 1 { 2 } else { 3 }, network, 1);
                let Ok(mut wire) = Wire::connect_from(host.into(), to).await else { continue };
                match timeout(FIRST_LINE_WITHIN, wire.line()).await {
                    Ok(Ok(line)) if line.starts_with(b"220") => greeted.push(wire),
                    Ok(Ok(line)) if line.starts_with(b"421") => refused += 1,
                    _ => {}
                }
            }
            (greeted, refused)
        });
    }
    let (mut greeted, mut refused) = (Vec::new(), 0);
    while let Some(done) = tasks.join_next().await {
        let done = done?;
        greeted.extend(done.0);
        refused += done.1;
    }
    Ok((greeted.len(), refused))
}
