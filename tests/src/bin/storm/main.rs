//! The storm: mail flows both ways while everything fails, again and again.
//!
//! Both nodes run as real processes. Strangers send to the edge, the desks inside write and answer, a
//! traveller submits and collects, a clerk lets people, who travel, groups and shadows come, change and go, authors replace, append to
//! and withdraw what they have sent, for all recipients or some, from desks and by mail from the road; meanwhile
//!
//! - `storm --rounds N` kills edge, big or both with SIGKILL at a random moment of every round and
//!   starts them again;
//! - `storm --loss 5,20,30` lets the link's line lose so many percent of the packets, and wants mail to
//!   arrive all the while;
//! - `storm --cuts N` cuts the line for a moment, N times, and lets a node stand still (SIGSTOP) now
//!   and then, and each of them once for longer than the link waits;
//! - `storm --calls N` kills a node at a system call, by its name and number, or has the call fail, by strace; in
//!   every fourth round something more happens to the node as it starts again. The seed decides the order in which all
//!   such combinations come, none again before all have come.
//!
//! Then everything is let settle, and what arrived is compared with books kept outside the nodes: every
//! message answered 250 is filed exactly once, every message a desk was told is sent is delivered,
//! every deletion on the road is final; what was accepted for somebody who went is in one place, their mailbox or
//! the postmaster's undeliverable mail, and nobody who was known was refused for good; each revision has one final result
//! for each recipient, nobody gets a text after it was reported as replaced or withdrawn, and both nodes hold the same.
//! An MTA outside may see a message again, or a text that was revised since, only where edge was killed between that
//! MTA's 250 and edge's record of it; each such case is named or counted.
//!
//! The seed decides what fails and when, and what is sent; how the processes interleave is the
//! machine's. The last line is
//! `storm: N rounds, M accepted, lost 0, doubled 0, ghost 0, altered 0, undetermined U, directory changes D,
//! undeliverable V`, and the exit code 1 if one of the four is not 0. That of calls ends with `, hit H, missed M`: how many
//! rounds reached their calls; 12 rounds or more of which fewer than three quarters did have failed. Loss and cuts need root, `ip`
//! and `nft` for network namespaces of their own, calls need strace, which has to be allowed to trace; without that they
//! say so, and there is no such line.
//!
//! `--record FILE` makes a job of the kills, or of the calls: storms of 50 rounds, each with nodes of its own, until FILE
//! has as many rounds as were asked for. It may be stopped at any time and goes on where it was; with calls, in the order
//! of one seed, 0 unless it is named.

mod calls;
mod clerk;
mod count;
mod cuts;
mod disturbance;
mod field;
mod kills;
mod kinds;
mod lab;
mod line;
mod loss;
mod play;
mod record;
mod revisions;
mod road;
mod senders;
mod weather;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tests::process::dispatch;
use tests::random::Random;

use crate::count::Counts;
use crate::lab::Lab;
use crate::record::Record;
use crate::weather::Weather;

/// Rounds of one storm in a job: few enough that a stopped job loses little.
const STORM_ROUNDS: u32 = 50;

/// Lets everything fail under load, again and again, and audits every message.
#[derive(Parser)]
struct Options {
    /// How often something is killed
    #[arg(long, default_value_t = 50, value_name = "N", conflicts_with_all = ["loss", "cuts", "calls"])]
    rounds: u32,
    /// Instead of kills: how many percent of the link's packets are lost, one after another
    #[arg(long, value_name = "PERCENT,...", value_delimiter = ',', conflicts_with_all = ["cuts", "calls"],
          value_parser = clap::value_parser!(u8).range(1..100))]
    loss: Vec<u8>,
    /// How long each loss lasts
    #[arg(long, default_value_t = 15, requires = "loss")]
    seconds: u64,
    /// Instead of kills: how often the link's line is cut for a moment
    #[arg(long, value_name = "N")]
    cuts: Option<u32>,
    /// Instead of kills at random: at how many system calls a node is killed, or the call fails
    #[arg(long, value_name = "N", conflicts_with = "cuts")]
    calls: Option<u32>,
    /// After so many rounds in the order of the seed, with which another storm began
    #[arg(long, default_value_t = 0, value_name = "N", requires = "calls")]
    from: u32,
    /// How long each node once stands still among the cuts; the link waits for 10 seconds
    #[arg(long, default_value_t = 12, value_name = "SECONDS", requires = "cuts")]
    still: u64,
    /// The seed of everything random; a new one otherwise
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Keep the nodes' state and logs in this folder, which must not hold any; a temporary one
    /// otherwise
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Run storms of 50 rounds until this file has a record of as many rounds as --rounds or --calls says
    #[arg(long, value_name = "FILE", conflicts_with_all = ["loss", "cuts", "state", "from"])]
    record: Option<PathBuf>,
    /// Be the one inside the lab of this number
    #[arg(long, hide = true, value_name = "NUMBER")]
    lab: Option<u32>,
}

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> ExitCode {
    if let Some(code) = dispatch(big_node::cli, edge_node::cli) {
        return code;
    }
    let options = Options::parse();
    let runtime = tokio::runtime::Runtime::new().map_err(Failure::from);
    match runtime.and_then(|runtime| runtime.block_on(run(&options))) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("storm: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<ExitCode, Failure> {
    if options.calls.is_some()
        && let Some(missing) = calls::missing()?
    {
        return Ok(not_run(missing));
    }
    let seed = options.seed.unwrap_or_else(Random::any_seed);
    let kept = match (&options.record, options.lab.map(Lab)) {
        (Some(file), _) => job(options, file).await?,
        (None, Some(lab)) => {
            lab::end_with_maker();
            one(options, seed, &options.in_lab(lab)).await?
        }
        (None, None) if !options.needs_lab() => {
            one(options, seed, &options.on_loopback(options.from, options.asked())).await?
        }
        (None, None) => match lab::missing() {
            None => return lab::run_inside().await,
            Some(missing) => return Ok(not_run(missing)),
        },
    };
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn not_run(missing: &str) -> ExitCode {
    println!("not here: {missing}");
    println!("storm: not run, and not counted as passed");
    ExitCode::SUCCESS
}

impl Options {
    /// How many rounds are asked for, where no lab is needed.
    fn asked(&self) -> u32 {
        self.calls.unwrap_or(self.rounds)
    }

    fn on_loopback(&self, from: u32, rounds: u32) -> Weather {
        match self.calls {
            Some(_) => Weather::Calls { from, rounds },
            None => Weather::Kills { rounds },
        }
    }

    fn needs_lab(&self) -> bool {
        self.cuts.is_some() || !self.loss.is_empty()
    }

    fn in_lab(&self, lab: Lab) -> Weather {
        match self.cuts {
            Some(cuts) => Weather::Cuts { lab, cuts, long: Duration::from_secs(self.still) },
            None => {
                Weather::Loss { lab, percents: self.loss.clone(), each: Duration::from_secs(self.seconds) }
            }
        }
    }
}

/// One storm; whether every promise was kept.
async fn one(options: &Options, seed: u64, weather: &Weather) -> Result<bool, Failure> {
    let counts = storm(weather, seed, options.state.as_deref()).await?;
    println!("storm: {} rounds, {counts}", weather.rounds());
    Ok(counts.is_clean())
}

/// A job of many storms, on from where its record ends; whether every promise was kept in all of them.
async fn job(options: &Options, file: &Path) -> Result<bool, Failure> {
    let mut record = Record::open(file)?;
    println!("storm: {} rounds are recorded in {}", record.rounds, file.display());
    while record.rounds < options.asked() {
        let rounds = STORM_ROUNDS.min(options.asked() - record.rounds);
        let seed = match (options.calls, options.seed) {
            // One order for all of the job, so that nothing comes again before all have come.
            (Some(_), seed) => seed.unwrap_or_default(),
            (None, Some(seed)) => seed.wrapping_add(record.storms),
            (None, None) => Random::any_seed(),
        };
        let weather = options.on_loopback(record.rounds, rounds);
        match storm(&weather, seed, None).await {
            Ok(counts) => {
                record.ended(seed, rounds, &counts)?;
                // One that went wrong is to be looked at before there are more.
                if !counts.is_clean() {
                    break;
                }
            }
            Err(error) => {
                record.broke_off(seed, &error.to_string())?;
                return Err(error);
            }
        }
    }
    println!("storm: {} rounds, {}", record.rounds, record.counts);
    Ok(record.counts.is_clean())
}

/// Plays one storm in `state` or a folder of its own, which is kept if a promise was not.
async fn storm(weather: &Weather, seed: u64, state: Option<&Path>) -> Result<Counts, Failure> {
    let mut folder = tempfile::Builder::new().prefix("storm").tempdir()?;
    let state = state.unwrap_or_else(|| folder.path()).to_owned();
    println!("storm: seed {seed}, state and logs in {}", state.display());
    let counts = play::play(weather, seed, &state).await;
    if !counts.as_ref().is_ok_and(Counts::is_clean) {
        folder.disable_cleanup(true);
        println!(
            "storm: to be had again with --seed {seed}{}; the state and the logs stay in {}",
            weather.again(),
            state.display()
        );
    }
    counts
}
