//! A long queue on the edge: what it costs to start with it and to list it. The memory for that is bounded, however long
//! the queue is: more is a failure.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use edge_node::harness::fill_queue;
use edge_node::request::{QueueFilter, QueuePage, Request};
use shared::control::socket_in;
use shared::id::unix_millis;
use shared::state::State;
use tests::ask;
use tests::nodes::Nodes;
use tests::proc::usage;
use tests::process::{Node, Program};
use tests::topology::TestTopology;

use crate::Failure;

/// When the messages are due: the bench is over by then.
const DUE_IN: Duration = Duration::from_secs(24 * 3600);

/// What is measured.
#[derive(clap::Args)]
pub struct Options {
    /// Messages that wait
    #[arg(long, default_value_t = 1_000_000, value_name = "N")]
    messages: u64,
    /// What the edge may have resident at its most, MiB; more is a failure
    #[arg(long, default_value_t = 256, value_name = "N")]
    memory_max: u64,
}

/// Measures, and prints a table.
///
/// # Errors
/// If something of the queue is not listed, or the edge needs more memory than it may.
pub async fn run(folder: &Path, options: &Options) -> Result<(), Failure> {
    let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
    let topology = TestTopology::new(folder, nobody, nobody.port())?;
    let program = Program::this()?;
    let mut nodes = Nodes::init(topology, program.clone(), program).await?;
    let empty = started(&mut nodes).await?;
    nodes.stop(Node::Edge).await?;

    let begun = Instant::now();
    let at = unix_millis() + u64::try_from(DUE_IN.as_millis())?;
    let (state, messages) = (nodes.state_of(Node::Edge), options.messages);
    tokio::task::block_in_place(|| {
        let store = State::open(&state)?.store()?;
        Ok::<_, Failure>(fill_queue(&store, messages, at)?)
    })?;
    let filled = begun.elapsed();
    let full = started(&mut nodes).await?;

    let (begun, control) = (Instant::now(), socket_in(&state));
    let (mut listed, mut filter) = (0, QueueFilter::default());
    loop {
        let page: QueuePage = ask::edge(&control, Request::QueueList(filter.clone())).await?;
        listed += page.queue.len() as u64;
        match page.next {
            Some(next) => filter.after = Some(next),
            None => break,
        }
    }
    let (took, peak) = (begun.elapsed(), usage(nodes.edge_ready().pid)?.peak_memory);
    nodes.stop(Node::Edge).await?;

    println!("{messages} messages were queued in {:.1} s.\n", filled.as_secs_f64());
    println!("| the edge | s | its memory at most, MiB |\n|---|---|---|");
    for (what, (took, peak)) in [
        ("starts, nothing waits", empty),
        ("starts, all of them wait", full),
        ("and has listed them", (took, peak)),
    ] {
        println!("| {what} | {:.1} | {} |", took.as_secs_f64(), peak >> 20);
    }
    if listed != messages {
        return Err(format!("{listed} of {messages} messages were listed").into());
    }
    if peak > options.memory_max << 20 {
        return Err(format!(
            "the edge had {} MiB resident, and {} is the most",
            peak >> 20,
            options.memory_max
        )
        .into());
    }
    Ok(())
}

/// Starts the edge: how long that takes, and the most memory that it had by then.
async fn started(nodes: &mut Nodes) -> Result<(Duration, u64), Failure> {
    let begun = Instant::now();
    let pid = nodes.start_edge().await?.pid;
    Ok((begun.elapsed(), usage(pid)?.peak_memory))
}
