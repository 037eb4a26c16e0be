//! Travel windows: how long after the command the edge lets their traveller in, and keeps them out again.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use big_node::request::{Request, Started, Terms, WindowView};
use shared::control::socket_in;
use tests::ask;
use tests::client::pop3::{Pop3Client, Pop3Error};
use tests::nodes::Nodes;
use tests::process::{Node, Program};
use tests::topology::TestTopology;

use crate::Failure;

/// How long the edge may take for anything.
const WITHIN: Duration = Duration::from_secs(60);
const PERSON: &str = "alice";

/// Opens and ends `trips` windows, one after the other, and prints a table. Each look is a connection and a login of
/// its own, which the times include.
pub async fn run(state: &Path, trips: usize) -> Result<(), Failure> {
    // Nothing is delivered, so nothing is asked of the Internet.
    let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
    let topology = TestTopology::new(state, nobody, nobody.port())?;
    let program = Program::this()?;
    let mut nodes = Nodes::paired(topology, program.clone(), program).await?;
    nodes.big.run(&["person", "add", PERSON]).await?;
    let control = socket_in(&nodes.topology.big_state());
    let (mut begins, mut ends) = (Vec::with_capacity(trips), Vec::with_capacity(trips));
    for _ in 0..trips {
        let start = Instant::now();
        let request = Request::TravelStart { person: PERSON.into(), terms: Terms::default() };
        let (trip, _) = ask::big::<Started>(&control, request, Vec::new()).await?;
        until(&nodes, &trip, true).await?;
        begins.push(start.elapsed());
        let end = Instant::now();
        let request = Request::TravelEnd { person: PERSON.into(), revoke: false };
        ask::big::<WindowView>(&control, request, Vec::new()).await?;
        until(&nodes, &trip, false).await?;
        ends.push(end.elapsed());
    }
    nodes.stop(Node::Big).await?;
    nodes.stop(Node::Edge).await?;
    println!("| {trips} travel windows, ms | p50 | p99 | longest |\n|---|---|---|---|");
    for (what, mut took) in
        [("`travel start` until a login works", begins), ("`travel end` until it is refused", ends)]
    {
        took.sort_unstable();
        let percentile = |percent: usize| {
            let at = (took.len().saturating_sub(1)) * percent / 100;
            took.get(at).copied().unwrap_or_default().as_secs_f64() * 1000.0
        };
        println!("| {what} | {:.1} | {:.1} | {:.1} |", percentile(50), percentile(99), percentile(100));
    }
    Ok(())
}

async fn until(nodes: &Nodes, trip: &Started, works: bool) -> Result<(), Failure> {
    let (since, pop3s) = (Instant::now(), *nodes.edge_ready().pop3s.first().expect("the topology has one"));
    while since.elapsed() < WITHIN {
        let mut session = Pop3Client::connect_tls(pop3s).await?;
        let logged_in = match session.login(&trip.user, &trip.password).await {
            Ok(()) => true,
            Err(Pop3Error::Refused { .. }) => false,
            Err(error) => return Err(error.into()),
        };
        if logged_in == works {
            return Ok(());
        }
    }
    Err(format!("a login that should be {works} was not within {WITHIN:?}").into())
}
