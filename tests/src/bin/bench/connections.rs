//! Thousands of connections that do nothing: what they cost the edge, and what a known peer, a traveller and the link
//! notice of them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use big_node::directory::NewPerson;
use big_node::request::{PersonView, Request, Started, Terms};
use clap::Args;
use shared::control::socket_in;
use shared::lifetime::take_descriptors;
use tests::ask;
use tests::client::pop3::Pop3Client;
use tests::client::smtp::SmtpClient;
use tests::nodes::Nodes;
use tests::proc::resident;
use tests::process::Program;
use tests::topology::TestTopology;
use tests::wire::Wire;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::Failure;
use crate::load::message;
use crate::took::Took;

/// Networks that the connections come from.
const NETWORKS: usize = 10;
/// Connections that are made at once.
const AT_ONCE: usize = 50;
/// How long all of them may take to be open, and any probe to be answered.
const WITHIN: Duration = Duration::from_secs(120);
/// Octets of a probe's message.
const SIZE: usize = 4 * 1024;
/// The pause between two looks at what big has filed.
const LOOK: Duration = Duration::from_millis(1);
/// What a client of POP3 may be silent before it logs in; port 25 is more patient with who has said EHLO. The probes
/// beside the connections have to be done within that.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// Who reads the probes, and travels.
const PERSON: &str = "alice";

/// The site, and who travels.
pub struct Under {
    pub nodes: Nodes,
    trip: Started,
    /// Messages that were filed.
    filed: u64,
}

/// Times of each kind of probe.
#[derive(Default)]
pub struct Probes {
    accepted: Vec<Duration>,
    filed: Vec<Duration>,
    collected: Vec<Duration>,
}

impl Probes {
    /// Prints a row for each kind.
    pub fn print(self, when: &str) {
        println!("{}", Took::of(self.accepted).row(&format!("{when}: a known peer's message is accepted")));
        println!("{}", Took::of(self.filed).row(&format!("{when}: it is filed inside, over the link")));
        println!("{}", Took::of(self.collected).row(&format!("{when}: POP3, a login under TLS and STAT")));
    }
}

/// How many connections there are to be, and what they may cost.
#[derive(Args)]
pub struct Options {
    /// Connections to port 25's role
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    smtp: usize,
    /// Connections to port 110's role
    #[arg(long, default_value_t = 3_000, value_name = "N")]
    pop3: usize,
    /// Messages of a known peer, each filed and each followed by a look at a maildrop, before and beside them
    #[arg(long, default_value_t = 100, value_name = "N")]
    probes: usize,
    /// What the edge may have resident beside them, MiB; more is a failure
    #[arg(long, default_value_t = 256, value_name = "N")]
    memory_max: u64,
}

/// Measures, and prints a table.
///
/// # Errors
/// If fewer connections are open than there are to be, or the edge needs more memory than it may.
pub async fn run(folder: &Path, options: &Options) -> Result<(), Failure> {
    let Options { smtp, pop3, probes, memory_max } = *options;
    let probes = probes.max(2);
    take_descriptors();
    let mut under = Under::start(folder, smtp).await?;
    let edge = under.nodes.edge_ready().pid;
    // From now on the probes' host is one from which mail has come.
    under.probe(10).await?;
    let before = under.probe(probes).await?;
    let at_rest = resident(edge)?;

    let ready = under.nodes.edge_ready();
    let (to_smtp, to_pop3) = (first(&ready.smtp)?, first(&ready.pop3)?);
    let since = Instant::now();
    let strangers = open(smtp, 1, move |host| async move { greeted_by_smtp(host, to_smtp).await }).await?;
    let (opened, with_smtp) = (since.elapsed(), resident(edge)?);
    let collecting = Instant::now();
    let collectors = open(pop3, 2, move |host| async move { greeted_by_pop3(host, to_pop3).await }).await?;
    let with_pop3 = resident(edge)?;
    let beside = under.probe(probes).await?;
    let held = collecting.elapsed();
    let with_probes = resident(edge)?;
    println!(
        "{} of {smtp} connections to port 25 were open after {:.1} s, and {} of {pop3} to POP3; the probes beside them were \
         done {:.1} s after the first of those.\n",
        strangers.len(),
        opened.as_secs_f64(),
        collectors.len(),
        held.as_secs_f64()
    );
    let each = |grown: u64, count: usize| grown as f64 / 1024.0 / count.max(1) as f64;
    println!("| memory of the edge, MiB | |\n|---|---|");
    println!("| before | {} |", at_rest >> 20);
    println!(
        "| with those to port 25 | {} ({:.1} KiB each) |",
        with_smtp >> 20,
        each(with_smtp.saturating_sub(at_rest), strangers.len())
    );
    println!(
        "| with those to POP3, too | {} ({:.1} KiB each) |",
        with_pop3 >> 20,
        each(with_pop3.saturating_sub(with_smtp), collectors.len())
    );
    println!("| after the probes beside them | {} |\n", with_probes >> 20);
    println!("| {probes} probes, ms | p50 | p99 | longest |\n|---|---|---|---|");
    before.print("before");
    beside.print("beside them");
    if held > IDLE_MAX {
        return Err(format!("the probes took {held:?}: the first connections were closed meanwhile").into());
    }
    if (strangers.len(), collectors.len()) != (smtp, pop3) {
        let open = (strangers.len(), collectors.len());
        return Err(format!("{open:?} of {:?} connections were open", (smtp, pop3)).into());
    }
    within(with_probes.max(with_pop3), memory_max)?;
    drop((strangers, collectors));
    // They are gone, and mail goes on.
    under.probe(2).await.map(drop)
}

/// That the edge has needed no more memory than it may, in octets and in MiB.
pub fn within(resident: u64, memory_max: u64) -> Result<(), Failure> {
    if resident <= memory_max << 20 {
        return Ok(());
    }
    Err(format!("the edge had {} MiB resident, and {memory_max} is the most", resident >> 20).into())
}

impl Under {
    /// A site whose edge has places for so many strangers.
    pub async fn start(folder: &Path, receivers: usize) -> Result<Self, Failure> {
        // Nothing is delivered, so nothing is asked of the Internet.
        let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
        let mut topology = TestTopology::new(folder, nobody, nobody.port())?;
        // One in ten places is kept for those from whom mail has come.
        topology.receivers = u32::try_from(receivers + receivers / 8)?.clamp(100, 20_000);
        let program = Program::this()?;
        let nodes = Nodes::paired(topology, program.clone(), program).await?;
        let control = socket_in(&nodes.topology.big_state());
        let person = NewPerson { name: PERSON.into(), ..NewPerson::default() };
        ask::big::<PersonView>(&control, Request::PersonAdd(person), Vec::new()).await?;
        let request = Request::TravelStart { person: PERSON.into(), terms: Terms::default() };
        let (trip, _) = ask::big::<Started>(&control, request, Vec::new()).await?;
        let mut under = Self { nodes, trip, filed: 0 };
        let since = Instant::now();
        while under.collect().await.is_err() {
            if since.elapsed() > WITHIN {
                return Err("the traveller is not let in".into());
            }
            tokio::time::sleep(LOOK * 500).await;
        }
        under.filed = under.count().await?;
        Ok(under)
    }

    /// Messages that big has filed.
    async fn count(&self) -> Result<u64, Failure> {
        Ok(ask::filed(&ask::big_link(&socket_in(&self.nodes.topology.big_state())).await?))
    }

    /// Sends messages, one after the other, over a connection each; waits until each is filed, and looks at the
    /// maildrop.
    pub async fn probe(&mut self, count: usize) -> Result<Probes, Failure> {
        let mut probes = Probes::default();
        for number in 0..count as u64 {
            let start = Instant::now();
            timeout(WITHIN, self.send(number)).await??;
            probes.accepted.push(start.elapsed());
            self.filed += 1;
            while self.count().await? < self.filed {
                if start.elapsed() > WITHIN {
                    return Err("a message was not filed: the link stands still".into());
                }
                tokio::time::sleep(LOOK).await;
            }
            probes.filed.push(start.elapsed());
            let start = Instant::now();
            timeout(WITHIN, self.collect()).await??;
            probes.collected.push(start.elapsed());
        }
        Ok(probes)
    }

    async fn send(&self, number: u64) -> Result<(), Failure> {
        let mut client = SmtpClient::ready(first(&self.nodes.edge_ready().smtp)?, None).await?;
        // As `load` writes it, for the first of the people there.
        let to = format!("{PERSON}@{}", self.nodes.topology.domains.first().ok_or("a site has a domain")?);
        client.send("peer@remote.example", &[&to], &message(number, SIZE)).await?;
        client.quit().await?;
        Ok(())
    }

    async fn collect(&self) -> Result<(), Failure> {
        let mut session = Pop3Client::connect_tls(first(&self.nodes.edge_ready().pop3s)?).await?;
        session.login(&self.trip.user, &self.trip.password).await?;
        session.stat().await?;
        session.quit().await?;
        Ok(())
    }
}

pub fn first(addresses: &[SocketAddr]) -> Result<SocketAddr, Failure> {
    addresses.first().copied().ok_or_else(|| "every service listens".into())
}

/// Opens connections from networks 127.`net`.x; those that are refused are left out.
pub async fn open<C, F>(
    count: usize,
    net: u8,
    connect: impl Fn(IpAddr) -> F + Clone + Send + 'static,
) -> Result<Vec<C>, Failure>
where
    C: Send + 'static,
    F: Future<Output = Option<C>> + Send,
{
    let mut tasks = JoinSet::new();
    for task in 0..AT_ONCE {
        let connect = connect.clone();
        tasks.spawn(async move {
            let mut open = Vec::new();
            for number in (task..count).step_by(AT_ONCE) {
                let network = u8::try_from(number % NETWORKS).unwrap_or(u8::MAX);
                open.extend(connect(Ipv4Addr::new(127, net, network, 1).into()).await);
            }
            open
        });
    }
    let all = async {
        let mut open = Vec::new();
        while let Some(opened) = tasks.join_next().await {
            open.extend(opened?);
        }
        Ok::<_, Failure>(open)
    };
    timeout(WITHIN, all).await?
}

/// A session that has said EHLO.
async fn greeted_by_smtp(host: IpAddr, to: SocketAddr) -> Option<SmtpClient> {
    SmtpClient::ready_from(host, to, None).await.ok()
}

/// A session that has been greeted.
async fn greeted_by_pop3(host: IpAddr, to: SocketAddr) -> Option<Wire> {
    let mut wire = Wire::connect_from(host, to).await.ok()?;
    let greeting = wire.line().await.ok()?;
    greeting.starts_with(b"+OK").then_some(wire)
}
