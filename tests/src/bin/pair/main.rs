//! `pair`: both nodes from topology.toml, as two real processes, inside a small Internet of its own.
//!
//! `cargo run --release --bin pair` makes alice and bob, gives bob a standing travel window, says what
//! can be typed, and stays until Ctrl-C. `--json` says the same in one line for scripts. `--once` plays
//! the [story], audits every message, and ends.
//!
//! From the topology it takes everything but what it has to own: the state folders, the DNS servers and
//! the port of other MTAs, which are its stand-in Internet's. What it makes of the file lies in the
//! state folder, and the nodes' commands take it with `--topology`.

mod guide;
mod stage;
mod story;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use shared::lifetime;
use tests::process::dispatch;
use tests::wait::Trouble;

use crate::stage::{Ports, Stage};

/// Runs a whole pair on this machine, with a small Internet to try it in
#[derive(Debug, Parser)]
#[command(name = "pair", version)]
struct Options {
    /// The file that describes the pair [default: topology.toml here, else the project's]
    #[arg(long, value_name = "FILE")]
    topology: Option<PathBuf>,
    /// Keep state in this folder, and go on from what it holds [default: a new one, removed at the end]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Play the story, audit every message, and end
    #[arg(long, conflicts_with = "json")]
    once: bool,
    /// Print one line of JSON when ready, on free ports, instead of the guide
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    if let Some(ended) = dispatch(big_node::cli, edge_node::cli) {
        return ended;
    }
    let options = Options::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    match runtime.block_on(run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => failed(&trouble),
    }
}

fn failed(trouble: &Trouble) -> ExitCode {
    eprintln!("pair: {trouble}");
    ExitCode::FAILURE
}

async fn run(options: &Options) -> Result<(), Trouble> {
    let file = match &options.topology {
        Some(file) => file.clone(),
        None => stage::usual_topology(),
    };
    let ports = if options.once || options.json { Ports::Free } else { Ports::AsWritten };
    let state = options.state.as_deref();
    if options.once && state.is_some_and(stage::is_used) {
        return Err("--once tells its story from the beginning: give --state a new folder".into());
    }
    let stage = Stage::set(&file, state, ports).await?;
    if options.once { story::play(stage).await } else { stay(stage, options.json).await }
}

/// Makes the people, says what there is, and waits to be told to stop.
async fn stay(mut stage: Stage, json: bool) -> Result<(), Trouble> {
    stage.open().await?;
    let bob = stage.send_bob_travelling().await?;
    match json {
        true => println!("{}", serde_json::to_string(&stage.ready(&bob))?),
        false => print!("{}", guide::text(&stage.ready(&bob), stage.is_temporary())?),
    }
    tokio::select! {
        stopped = lifetime::until_told_to_stop() => drop(stopped?),
        failure = stage.world.nodes.failure() => {
            let (node, status) = failure?;
            let folder = stage.world.keep();
            let log = folder.display();
            return Err(format!("{} ended by itself ({status}); the logs are in {log}", node.name()).into());
        }
    }
    stage.world.end().await?;
    if !json {
        println!("\nBoth nodes have ended.");
    }
    Ok(())
}
