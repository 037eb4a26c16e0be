//! The directory: how long a new edge takes to know everybody, how soon a change counts there, and what
//! that costs.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use big_node::directory::NewPerson;
use big_node::harness::Big;
use big_node::request::{PersonView, Request};
use shared::report::LinkView;
use shared::state::State;
use shared::topology::Topology;
use shared::unit::{AddressRow, ToEdge, encode};
use tests::ask;
use tests::client::smtp::SmtpClient;
use tests::nodes::Nodes;
use tests::proc::{forget_peak, usage};
use tests::process::{Node, Program};
use tests::topology::TestTopology;

use crate::Failure;
use crate::took::Took;

/// People added in one commit, before anything is measured.
const ADDED_AT_ONCE: usize = 1000;
/// How long the edge may take for anything.
const WITHIN: Duration = Duration::from_secs(120);
/// One minute, in which the directory is compared once, and a little more.
const ONE_COMPARISON: Duration = Duration::from_secs(61);

/// Measures with `people` persons and `changes` changes, and prints a table.
pub async fn run(state: &Path, people: usize, changes: usize) -> Result<(), Failure> {
    // Nothing is delivered, so nothing is asked of the Internet.
    let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
    let topology = TestTopology::new(state, nobody, nobody.port())?;
    let program = Program::this()?;
    let mut nodes = Nodes::init(topology, program.clone(), program).await?;
    let (folder, file) = (nodes.topology.big_state(), nodes.file.clone());
    tokio::task::spawn_blocking(move || fill(&folder, &file, people)).await??;
    nodes.start_edge().await?;
    nodes.start_big().await?;
    let (big, edge) = (nodes.big_ready().pid, nodes.edge_ready().pid);
    forget_peak(big)?;
    forget_peak(edge)?;

    let start = Instant::now();
    nodes.pair().await?;
    let last = format!("p{}", people - 1);
    until_answered(&nodes, &last, 250).await?;
    let known = start.elapsed();
    until_compared(&nodes).await?;
    let compared = start.elapsed();
    let peaks = [usage(big)?.peak_memory >> 20, usage(edge)?.peak_memory >> 20];

    let before = [usage(big)?.cpu, usage(edge)?.cpu];
    tokio::time::sleep(ONE_COMPARISON).await;
    let minute = [usage(big)?.cpu - before[0], usage(edge)?.cpu - before[1]];

    let mut took = Vec::with_capacity(changes);
    for number in 0..changes {
        took.push(change(&nodes, number / 2, number % 2 == 0).await?);
    }
    let took = Took::of(took);
    let delta = encode(&ToEdge::Address(AddressRow { hash: [1; 32], person: Some([1; 16]) })).len();
    nodes.stop(Node::Big).await?;
    nodes.stop(Node::Edge).await?;

    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    println!("| {people} persons | |\n|---|---|");
    println!("| a new edge knows everybody, ms after `pair` began | {:.0} |", ms(known));
    println!("| and has compared, ms | {:.0} |", ms(compared));
    println!("| peak MiB until then, big / edge | {} / {} |", peaks[0], peaks[1]);
    println!(
        "| CPU of an idle minute with one comparison, ms, big / edge | {:.0} / {:.0} |",
        ms(minute[0]),
        ms(minute[1])
    );
    println!(
        "| {changes} changes: effective at RCPT, p50 / p99 / longest ms | {:.1} / {:.1} / {:.1} |",
        took.ms(50),
        took.ms(99),
        took.ms(100)
    );
    println!("| octets of one change | {delta} |");
    Ok(())
}

/// Adds people to big's store while it does not run: nobody is told.
fn fill(state: &Path, file: &Path, people: usize) -> Result<(), Failure> {
    let state = State::open(state)?;
    let big = Big::new(state.store()?, &Topology::read(file)?, state.key32("sealing")?);
    let names: Vec<String> =
        std::iter::once("alice".to_owned()).chain((0..people).map(|number| format!("p{number}"))).collect();
    for names in names.chunks(ADDED_AT_ONCE) {
        big.add_people(names)?;
    }
    Ok(())
}

/// Adds or removes a person: how long after the command began the edge answers by it.
async fn change(nodes: &Nodes, number: usize, add: bool) -> Result<Duration, Failure> {
    let name = format!("new{number}");
    let request = match add {
        true => Request::PersonAdd(NewPerson { name: name.clone(), ..NewPerson::default() }),
        false => Request::PersonRemove { name: name.clone() },
    };
    let control = shared::control::socket_in(&nodes.topology.big_state());
    let start = Instant::now();
    ask::big::<PersonView>(&control, request, Vec::new()).await?;
    until_answered(nodes, &name, if add { 250 } else { 550 }).await?;
    Ok(start.elapsed())
}

async fn until_answered(nodes: &Nodes, name: &str, code: u16) -> Result<(), Failure> {
    let since = Instant::now();
    let smtp = *nodes.edge_ready().smtp.first().expect("the topology has one");
    let rcpt = format!("RCPT TO:<{name}@example.com>");
    while since.elapsed() < WITHIN {
        let mut client = SmtpClient::ready(smtp, None).await?;
        client.expect("MAIL FROM:<>", 250).await?;
        if client.command(&rcpt).await?.code == code {
            return Ok(());
        }
    }
    Err(format!("{name} was not answered {code} within {WITHIN:?}").into())
}

async fn until_compared(nodes: &Nodes) -> Result<(), Failure> {
    let since = Instant::now();
    let control = shared::control::socket_in(&nodes.topology.edge_state());
    while since.elapsed() < WITHIN {
        let link: LinkView = ask::edge_link(&control).await?;
        if link.directory.compared_at.is_some() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Err(format!("nothing was compared within {WITHIN:?}").into())
}
