//! Crash images: the store's promise, held against many power cuts.
//!
//! `cargo run --release --bin images -- --images N [--seed S] [--budget SECONDS] [--record FILE]` runs
//! seeded workloads on a real store over a simulated disk and records what they do to it. Each image is
//! the disk after a power cut at a random point, with unsynced writes lost, torn and reordered; every fifth
//! loses power again while it recovers. The store is opened, everything in it is held against books kept
//! outside, and it has to go on working. Then the disk is full at every write and fails at every sync of
//! a workload, and bits of a closed store are flipped 5,000 times, and its pages mixed up or zeroed as often.
//!
//! A seed decides an image completely: one that failed is had again with `--seed S --images 1`. The last
//! line is `images: N images (D double), lost 0, phantom 0, altered 0, unopenable 0; F faults, B flips,
//! P pages, missing 0, silent 0`, and the exit code 1 if anything else is not 0.
//!
//! With `--record` every thousand seeds add a line to a file, and a job that was stopped goes on after
//! the last line when it is started again.

mod book;
mod choose;
mod faults;
mod flips;
mod image;
mod inbound;
mod job;
mod look;
mod outbound;
mod record;
#[cfg(test)]
mod smoke;
mod step;
mod workload;

use std::error::Error;
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use tests::random::Random;

use crate::flips::Damage;
use crate::job::{Failures, Images};
use crate::record::Record;

/// Images of one workload, and of one line of a record.
const BLOCK: u64 = 1000;
/// Times that a closed store is damaged in each way.
const DAMAGES: u64 = 5000;

/// Cuts the power under the store at every kind of moment and audits what it finds afterwards.
#[derive(Parser)]
struct Options {
    /// How many images; without a number, as many as the budget allows
    #[arg(long, value_name = "N", required_unless_present_any = ["budget", "damage"])]
    images: Option<u64>,
    /// The first image's seed; otherwise a new one, a multiple of a thousand, and 0 for a record that begins
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Make no more images after so many seconds
    #[arg(long, value_name = "SECONDS")]
    budget: Option<u64>,
    /// Add a line to this file for every thousand seeds, and go on after its last line
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Threads; one for each core otherwise
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Meet damage of this kind and say how: what the program asks of itself
    #[arg(long, hide = true, requires_all = ["damage_from", "damage_to"])]
    damage: Option<Damage>,
    #[arg(long, hide = true, value_name = "S")]
    damage_from: Option<u64>,
    #[arg(long, hide = true, value_name = "S")]
    damage_to: Option<u64>,
}

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> ExitCode {
    let options = Options::parse();
    let outcome = match (options.damage, options.damage_from, options.damage_to) {
        (Some(kind), Some(from), Some(to)) => damage(&options, kind, from..to),
        _ => run(&options),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("images: {error}");
            ExitCode::FAILURE
        }
    }
}

fn damage(options: &Options, kind: Damage, seeds: Range<u64>) -> Result<bool, Failure> {
    let run = workload::record(options.seed.unwrap_or(0) / BLOCK)?;
    flips::say(&run, kind, seeds)?;
    Ok(true)
}

/// Runs all parts; whether every promise was kept.
fn run(options: &Options) -> Result<bool, Failure> {
    let begun = Instant::now();
    let (record, earlier) = options.record.as_deref().map(Record::open).transpose()?.unzip();
    let earlier = earlier.unwrap_or_default();
    let any_seed = || if record.is_some() { 0 } else { (Random::any_seed() >> 32) * BLOCK };
    let first = options.seed.unwrap_or_else(any_seed);
    let begin = earlier.to.unwrap_or(first);
    let end = options.images.map_or(u64::MAX, |images| first.saturating_add(images));
    println!(
        "images: seed {first}{}",
        if begin > first { format!(", on from {begin}") } else { String::new() }
    );
    let threads = match options.threads {
        Some(threads) => threads.max(1),
        None => std::thread::available_parallelism()?.get(),
    };

    job::announce_seeds_on_panic();
    let failures = Failures::default();
    let until = options.budget.map(|seconds| begun + Duration::from_secs(seconds));
    let (mut all, mut record) = Images::new(begin..end, until, record).make(threads, &failures)?;
    let rate = all.images as f64 / begun.elapsed().as_secs_f64();
    println!("images: {rate:.0} a second on {threads} threads");
    all += earlier.tally;

    let faults = job::faults(first / BLOCK, threads, &failures)?;
    all += faults.tally;
    println!("images: full disk: {} refused steps were there all the same", faults.appeared);
    let flips = job::damage(first / BLOCK, Damage::Bits, DAMAGES, threads, &failures)?;
    let pages = job::damage(first / BLOCK, Damage::Pages, DAMAGES, threads, &failures)?;
    for (what, met) in [("flips", flips), ("pages", pages)] {
        println!(
            "images: {what}: {} harmless, {} detected, {} ended the process, {} missing without an error, \
             {} returned as something else",
            met.harmless, met.detected, met.panicked, met.missing, met.silent
        );
    }
    for failure in failures.described() {
        println!("{failure}");
    }
    let summary = format!(
        "images: {} images ({} double), lost {}, phantom {}, altered {}, unopenable {}; {} faults, \
         {} flips, {} pages, missing {}, silent {}",
        all.images,
        all.double,
        all.lost,
        all.phantom,
        all.altered,
        all.unopenable,
        faults.count,
        flips.count(),
        pages.count(),
        flips.missing + pages.missing,
        flips.silent + pages.silent
    );
    if let Some(record) = &mut record {
        record.append(&summary)?;
    }
    println!("{summary}");
    Ok(all.is_clean() && flips.is_clean() && pages.is_clean())
}
