//! The simulation: both nodes' stores and link sessions over a hostile line, disks that lose power, and a
//! clock that a seed moves.
//!
//! `cargo run --release --bin sim -- --schedules N [--seed S]` runs N schedules, each decided by its own
//! seed alone: mail comes in and goes out, people and travel windows come and go, while the line is cut at any byte, nodes
//! lose power with torn and reordered writes (also while they recover), disks fill up, syncs fail, clocks
//! jump, stores are restored from old backups or put back by hand, and a peer sends garbage or lies. When a
//! schedule is over, everything is let settle, and what is where is compared with a ledger kept outside
//! the nodes. A schedule that failed is printed with its seed, and `--schedules 1 --seed S` plays it
//! again, `--verbose` with every step.
//!
//! Nothing here uses sockets, threads of its own or the system's clock: one process plays one schedule
//! after the other. `--jobs` starts several such processes.

mod end;
#[cfg(test)]
mod fence;
mod keys;
#[cfg(test)]
mod kinds;
mod ledger;
mod liar;
mod line;
#[cfg(test)]
mod outage;
mod play;
#[cfg(test)]
mod pressure;
#[cfg(test)]
mod restored;
#[cfg(test)]
mod retries;
mod world;

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use clap::Parser;

use crate::ledger::Tally;

/// Schedules between two lines of a record.
const RECORDED_AT_ONCE: u64 = 1000;

/// Plays schedules of faults over both nodes' stores and link sessions, and audits each.
#[derive(Parser)]
struct Options {
    /// How many schedules to play
    #[arg(long, default_value_t = 1000, value_name = "N")]
    schedules: u64,
    /// The first schedule's seed; each further one has the next number
    #[arg(long, default_value_t = 1, value_name = "S")]
    seed: u64,
    /// Stop after so many seconds, however many schedules that were
    #[arg(long, value_name = "SECONDS")]
    budget: Option<u64>,
    /// Stop at the first schedule that fails
    #[arg(long)]
    first: bool,
    /// Processes that share the work
    #[arg(long, default_value_t = 1, value_name = "N")]
    jobs: u64,
    /// Append every thousand schedules to this file, and go on behind what it holds
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Print every step
    #[arg(long)]
    verbose: bool,
    /// Print the counts for the process that started this one, and nothing else
    #[arg(long, hide = true)]
    child: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if options.verbose {
        shared::telemetry::init();
    }
    let tally = match (&options.record, options.jobs) {
        (Some(record), _) => recorded(&options, record),
        (None, 0 | 1) => Ok(play_all(&options, options.seed, options.schedules)),
        (None, jobs) => shared_out(&options, options.seed, options.schedules, jobs),
    };
    match tally {
        Ok(tally) if options.child => {
            println!("{}", tally.to_line());
            ExitCode::SUCCESS
        }
        Ok(tally) => {
            println!("sim: {tally}");
            if tally.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("sim: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The clock and the dice are the process's: tests that set them wait for each other.
#[cfg(test)]
fn alone() -> std::sync::MutexGuard<'static, ()> {
    static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Plays `count` schedules from `first` on, or as many as the budget allows.
fn play_all(options: &Options, first: u64, count: u64) -> Tally {
    let until = options.budget.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut tally = Tally::default();
    for seed in first..first.saturating_add(count) {
        if until.is_some_and(|until| Instant::now() >= until) {
            break;
        }
        let outcome = play::schedule(seed, options.verbose);
        if !outcome.is_clean() {
            eprintln!("sim: seed {seed}: {outcome}");
            for fault in &outcome.faults {
                eprintln!("  {fault}");
            }
        }
        tally.add(outcome);
        if options.first && !tally.is_clean() {
            break;
        }
    }
    tally
}

/// Shares schedules out to processes.
fn shared_out(options: &Options, first: u64, count: u64, jobs: u64) -> Result<Tally, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let each = count.div_ceil(jobs);
    let mut children = Vec::new();
    for job in 0..jobs {
        let from = first + job * each;
        let mut command = Command::new(&program);
        command.args(["--child", "--seed", &from.to_string()]);
        command.args(["--schedules", &each.min((first + count).saturating_sub(from)).to_string()]);
        if options.first {
            command.arg("--first");
        }
        if let Some(seconds) = options.budget {
            command.args(["--budget", &seconds.to_string()]);
        }
        let child = command.stdout(std::process::Stdio::piped()).spawn();
        children.push(child.map_err(|error| error.to_string())?);
    }
    let mut tally = Tally::default();
    for child in children {
        let output = child.wait_with_output().map_err(|error| error.to_string())?;
        let line = String::from_utf8_lossy(&output.stdout).into_owned();
        tally.join(
            Tally::of_line(&line).ok_or_else(|| format!("a process ended with {}: {line}", output.status))?,
        );
    }
    Ok(tally)
}

/// A job that can be stopped and started again: its file says what has been played. Lines that begin with
/// `#` are remarks.
fn recorded(options: &Options, path: &PathBuf) -> Result<Tally, String> {
    let so_far = fs::read_to_string(path).unwrap_or_default();
    let mut tally = Tally::default();
    let mut next = options.seed;
    for line in so_far.lines().filter(|line| !line.starts_with('#')) {
        let (seeds, counts) =
            line.split_once(": ").ok_or_else(|| format!("not a line of a record: {line}"))?;
        let last = seeds.rsplit(' ').next().and_then(|last| last.parse::<u64>().ok());
        next = last.ok_or_else(|| format!("no seeds in {line}"))? + 1;
        tally.join(Tally::of_line(counts).ok_or_else(|| format!("no counts in {line}"))?);
    }
    let mut file =
        fs::OpenOptions::new().create(true).append(true).open(path).map_err(|error| error.to_string())?;
    let until = options.budget.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    while tally.schedules < options.schedules && until.is_none_or(|until| Instant::now() < until) {
        let count = RECORDED_AT_ONCE.min(options.schedules - tally.schedules);
        let unbounded = Options { budget: None, record: None, ..Options::parse() };
        let played = match options.jobs {
            0 | 1 => play_all(&unbounded, next, count),
            jobs => shared_out(&unbounded, next, count, jobs)?,
        };
        let line = format!("seeds {next} to {}: {}\n", next + count - 1, played.to_line());
        file.write_all(line.as_bytes()).and_then(|()| file.sync_data()).map_err(|error| error.to_string())?;
        next += count;
        tally.join(played);
    }
    Ok(tally)
}
