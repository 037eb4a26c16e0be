//! Travel windows: how long after the command the edge lets their traveller in, and keeps them out again; and how
//! fast what was there before is filled in.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use big_node::harness::Big;
use big_node::record::Scope;
use big_node::request::{Request, Started, Terms, WindowView};
use shared::control::socket_in;
use shared::state::State;
use shared::topology::Topology;
use tests::ask;
use tests::client::pop3::{Pop3Client, Pop3Error};
use tests::messages::SHORT;
use tests::nodes::Nodes;
use tests::process::{Node, Program};
use tests::topology::TestTopology;

use crate::Failure;
use crate::load::message;
use crate::took::Took;

/// How long the edge may take for anything.
const WITHIN: Duration = Duration::from_secs(120);
/// The pause between two looks at how far a back-fill is.
const LOOK: Duration = Duration::from_millis(50);
/// How soon a window has to be live.
const LIVE_WITHIN: Duration = Duration::from_secs(1);
/// For whom the last window is filled.
const PERSON: &str = "alice";

/// Opens and ends `trips` windows, one after the other, then one that is filled with `messages`, and prints a table.
/// Each look at a login is a connection and a login of its own, which the times include.
pub async fn run(state: &Path, trips: usize, messages: u64) -> Result<(), Failure> {
    // Nothing is delivered, so nothing is asked of the Internet.
    let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
    let topology = TestTopology::new(state, nobody, nobody.port())?;
    let program = Program::this()?;
    let mut nodes = Nodes::init(topology, program.clone(), program).await?;
    let (folder, file) = (nodes.topology.big_state(), nodes.file.clone());
    // One for each window: a login that is refused is a guess, and after a few guesses at an account it waits.
    let travellers: Vec<_> = (0..trips).map(|number| format!("traveller{number}")).collect();
    let people = travellers.clone();
    tokio::task::spawn_blocking(move || fill(&folder, &file, people, messages)).await??;
    nodes.start_edge().await?;
    nodes.start_big().await?;
    nodes.pair().await?;
    let control = socket_in(&nodes.topology.big_state());
    let (mut begins, mut ends) = (Vec::with_capacity(trips), Vec::with_capacity(trips));
    for person in travellers {
        let start = Instant::now();
        let request = Request::TravelStart { person: person.clone(), terms: Terms::default() };
        let (trip, _) = ask::big::<Started>(&control, request, Vec::new()).await?;
        until(&nodes, &trip, true).await?;
        begins.push(start.elapsed());
        let end = Instant::now();
        let request = Request::TravelEnd { person, revoke: false };
        ask::big::<WindowView>(&control, request, Vec::new()).await?;
        until(&nodes, &trip, false).await?;
        ends.push(end.elapsed());
    }
    let terms = Terms { scope: Scope::All, ..Terms::default() };
    let start = Instant::now();
    let request = Request::TravelStart { person: PERSON.into(), terms };
    let (trip, _) = ask::big::<Started>(&control, request, Vec::new()).await?;
    until(&nodes, &trip, true).await?;
    let live = start.elapsed();
    until_filled(&nodes, &trip, messages).await?;
    let filled = start.elapsed();
    nodes.stop(Node::Big).await?;
    nodes.stop(Node::Edge).await?;
    let longest = begins.iter().max().copied().unwrap_or_default();
    println!("| {trips} travel windows, ms | p50 | p99 | longest |\n|---|---|---|---|");
    println!("{}", Took::of(begins).row("`travel start` until a login works"));
    println!("{}", Took::of(ends).row("`travel end` until it is refused"));
    let rate = messages as f64 / filled.as_secs_f64();
    println!(
        "\nWith {messages} messages of {} KiB to be filled in: live after {:.0} ms, full after {:.1} s, {rate:.0} messages/s",
        SHORT / 1024,
        live.as_secs_f64() * 1000.0,
        filled.as_secs_f64()
    );
    if longest > LIVE_WITHIN {
        return Err(format!("a window was live after {longest:?}, and not within {LIVE_WITHIN:?}").into());
    }
    Ok(())
}

/// Mail for the traveller that lies at home, put there while big does not run.
fn fill(state: &Path, file: &Path, mut people: Vec<String>, messages: u64) -> Result<(), Failure> {
    let state = State::open(state)?;
    let topology = Topology::read(file)?;
    let domain = topology.site.domains.first().ok_or("a site has a domain")?;
    let big = Big::new(state.store()?, &topology, state.key32("sealing")?);
    people.extend([PERSON.to_owned(), "bob".to_owned()]);
    big.add_people(&people)?;
    for number in 0..messages {
        big.send("bob", &[&format!("{PERSON}@{domain}")], &message(number, SHORT))?;
    }
    Ok(())
}

async fn until_filled(nodes: &Nodes, trip: &Started, messages: u64) -> Result<(), Failure> {
    let (since, pop3s) = (Instant::now(), *nodes.edge_ready().pop3s.first().expect("the topology has one"));
    while since.elapsed() < WITHIN {
        let mut session = Pop3Client::connect_tls(pop3s).await?;
        session.login(&trip.user, &trip.password).await?;
        let count = session.stat().await?.0;
        session.quit().await?;
        if count == messages {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(format!("{messages} messages were not filled in within {WITHIN:?}").into())
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
