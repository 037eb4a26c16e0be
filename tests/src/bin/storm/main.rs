//! The storm: mail flows both ways while the nodes are killed, again and again.
//!
//! `cargo run --release --bin storm -- --rounds N [--seed S]` runs both nodes as real processes.
//! Strangers send to the edge, the desks inside write and answer, a traveller submits and collects;
//! meanwhile every round kills edge, big or both with SIGKILL at a random moment and starts them
//! again. When the rounds are over everything is let settle, and what arrived is compared with books
//! kept outside the nodes: every message answered 250 is filed exactly once, every message a desk was
//! told is sent is delivered, every deletion on the road is final. An MTA outside may see a message
//! again only where edge was killed between that MTA's 250 and edge's record of it; each such case is
//! named.
//!
//! The seed decides what is killed and when, and what is sent; how the processes interleave is the
//! machine's. The last line is
//! `storm: N rounds, M accepted, lost 0, doubled 0, ghost 0, altered 0, undetermined U`, and the exit
//! code 1 if one of the four is not 0.

mod count;
mod field;
mod road;
mod senders;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::Parser;
use tests::process::{Node, dispatch};
use tests::random::Random;
use tests::site::Site;
use tokio::task::JoinSet;

use crate::field::{BOB, Field, PEOPLE};
use crate::road::Road;

/// A node is killed at most so long after the one before has come back.
const KILL_WITHIN_MILLIS: u64 = 300;
/// A node stays dead for at most so long.
const DEAD_MILLIS: u64 = 100;
/// One round in so many does not wait for the link before it kills.
const UNJOINED_ONE_IN: u64 = 4;
/// How long everything may take to arrive once the killing is over.
const SETTLE_WITHIN: Duration = Duration::from_secs(120);
/// Rounds between two lines of progress.
const PROGRESS_ROUNDS: u32 = 10;
/// Senders from outside.
const STRANGERS: u64 = 6;

/// Kills the nodes under load, again and again, and audits every message.
#[derive(Parser)]
struct Options {
    /// How often something is killed
    #[arg(long, default_value_t = 50, value_name = "N")]
    rounds: u32,
    /// The seed of everything random; a new one otherwise
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Keep the nodes' state and logs in this folder, which must not hold any; a temporary one
    /// otherwise
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> ExitCode {
    if let Some(code) = dispatch(big_node::cli, edge_node::cli) {
        return code;
    }
    let options = Options::parse();
    let runtime = tokio::runtime::Runtime::new().map_err(Failure::from);
    match runtime.and_then(|runtime| runtime.block_on(run(&options))) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("storm: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the storm; whether every promise was kept.
async fn run(options: &Options) -> Result<bool, Failure> {
    let seed = options.seed.unwrap_or_else(Random::any_seed);
    let mut folder = tempfile::Builder::new().prefix("storm").tempdir()?;
    let state = options.state.clone().unwrap_or_else(|| folder.path().to_owned());
    println!("storm: seed {seed}, state and logs in {}", state.display());
    let kept = storm(options.rounds, seed, &state).await;
    if !matches!(kept, Ok(true)) {
        folder.disable_cleanup(true);
        println!(
            "storm: to be had again with --seed {seed}; the state and the logs stay in {}",
            state.display()
        );
    }
    kept
}

async fn storm(rounds: u32, seed: u64, state: &std::path::Path) -> Result<bool, Failure> {
    let people: Vec<String> = PEOPLE.iter().map(|&name| name.to_owned()).collect();
    let mut site = Site::start(state, &people).await?;
    let field = Arc::new(Field::new(&site, seed));
    let password = senders::open_window(&field, BOB).await?;
    site.until_settled(SETTLE_WITHIN).await?;

    let mut random = Random::new(seed);
    let mut load = JoinSet::new();
    for number in 0..STRANGERS {
        load.spawn(senders::stranger(field.clone(), Random::new(seed ^ (number + 1))));
    }
    for (number, person) in (0..).zip(PEOPLE) {
        load.spawn(senders::desk(field.clone(), person, Random::new(seed ^ (100 + number))));
    }
    load.spawn(senders::traveller(field.clone(), password.clone(), Random::new(seed ^ 200)));
    let road = Arc::new(Road::new(field.clone(), password));
    let on_the_road = tokio::spawn(road.clone().collect_until_over());

    for number in 1..=rounds {
        round(&mut site, &field, &mut random).await.map_err(|e| format!("round {number}: {e}"))?;
        if number % PROGRESS_ROUNDS == 0 {
            println!("storm: {number} rounds, {}", field.progress());
        }
    }
    field.end();
    while let Some(ended) = load.join_next().await {
        ended?;
    }
    on_the_road.await?;
    site.until_joined().await?;
    let settled = site.until_settled(SETTLE_WITHIN).await;
    if settled.is_ok() {
        road.collect_rest(SETTLE_WITHIN).await?;
    }
    let tally = count::count(&site, &field, &road).await?;
    if let Err(late) = &settled {
        println!("{late}");
    }
    print!("{tally}");
    println!("storm: {rounds} rounds, {}", tally.summary());
    Ok(settled.is_ok() && tally.is_clean())
}

/// Kills one node or both at a random moment, and starts what was killed.
async fn round(site: &mut Site, field: &Field, random: &mut Random) -> Result<(), Failure> {
    if random.below(UNJOINED_ONE_IN) != 0 {
        site.until_joined().await?;
    }
    tokio::time::sleep(Duration::from_millis(random.below(KILL_WITHIN_MILLIS + 1))).await;
    let victims: &[Node] = random.pick::<&[Node]>(&[
        &[Node::Edge],
        &[Node::Big],
        &[Node::Edge, Node::Big],
        &[Node::Big, Node::Edge],
    ]);
    for &victim in victims {
        // Big's death excuses no repeat outside: only edge speaks to MTAs.
        if victim == Node::Edge {
            field.books.killed("edge", SystemTime::now())?;
        }
        site.nodes.kill(victim).await?;
    }
    tokio::time::sleep(Duration::from_millis(random.below(DEAD_MILLIS + 1))).await;
    for &victim in victims {
        match victim {
            Node::Edge => drop(site.nodes.start_edge().await?),
            Node::Big => drop(site.nodes.start_big().await?),
        }
    }
    Ok(())
}
