//! The three parts of the job, spread over threads.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::process::Command;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use shared::store::StoreError;

use crate::flips::{self, Damage, Outcomes};
use crate::image::{self, Tally};
use crate::record::{Record, line};
use crate::{BLOCK, faults, workload};

/// Failures that are described; the rest are counted.
const DESCRIBED_MAX: usize = 20;

/// What went wrong, for a person, with the seed.
#[derive(Debug, Default)]
pub struct Failures(Mutex<Vec<String>>);

impl Failures {
    fn note(&self, failure: impl FnOnce() -> String) {
        let mut described = lock(&self.0);
        if described.len() < DESCRIBED_MAX {
            described.push(failure());
        }
    }

    /// All that were described.
    pub fn described(self) -> Vec<String> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The seed each thread is at, so that a panic, which ends the process, names it.
static AT_WORK: Mutex<BTreeMap<usize, u64>> = Mutex::new(BTreeMap::new());

/// Makes a panic say at which seeds the threads are.
pub fn announce_seeds_on_panic() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        before(panic);
        // The thread that panics may hold it.
        if let Ok(at_work) = AT_WORK.try_lock() {
            let seeds: Vec<_> = at_work.values().map(|seed| format!("--seed {seed}")).collect();
            eprintln!("images: a panic, at one of {}", seeds.join(", "));
        }
    }));
}

struct Progress {
    tally: Tally,
    record: Option<Record>,
    /// The seed behind those that are recorded.
    next: u64,
    /// Blocks that are done, by their first seed, and not recorded: one before them is not done.
    done: BTreeMap<u64, (u64, Tally)>,
}

/// Many images.
pub struct Images {
    seeds: Range<u64>,
    until: Option<Instant>,
    blocks: AtomicU64,
    progress: Mutex<Progress>,
}

impl Images {
    /// The images of `seeds`, as many as can be made `until` then. With a record only whole blocks of
    /// seeds count, and they are recorded in order.
    pub fn new(seeds: Range<u64>, until: Option<Instant>, record: Option<Record>) -> Self {
        let progress = Progress { tally: Tally::default(), record, next: seeds.start, done: BTreeMap::new() };
        Self { seeds, until, blocks: AtomicU64::new(0), progress: Mutex::new(progress) }
    }

    /// Makes them.
    pub fn make(self, threads: usize, failures: &Failures) -> io::Result<(Tally, Option<Record>)> {
        std::thread::scope(|scope| {
            let work = |thread| {
                scope.spawn({
                    let images = &self;
                    move || images.work(thread, failures)
                })
            };
            let workers: Vec<_> = (0..threads).map(work).collect();
            workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| Err(panicked())))
        })?;
        let progress = self.progress.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok((progress.tally, progress.record))
    }

    /// Block by block: the images of one workload.
    fn work(&self, thread: usize, failures: &Failures) -> io::Result<()> {
        loop {
            let block = self.seeds.start / BLOCK + self.blocks.fetch_add(1, Ordering::Relaxed);
            let from = self.seeds.start.max(block * BLOCK);
            let to = self.seeds.end.min((block + 1).saturating_mul(BLOCK));
            if from >= to || self.is_over() {
                return Ok(());
            }
            let run = workload::record(block).map_err(store_failed)?;
            let mut tally = Tally::default();
            let mut seeds = from..to;
            while !self.is_over()
                && let Some(seed) = seeds.next()
            {
                lock(&AT_WORK).insert(thread, seed);
                let (one, wrong) = image::make(&run, seed);
                tally += one;
                if let Some(wrong) = wrong {
                    failures.note(|| format!("FAILED: --seed {seed} --images 1: {wrong}"));
                }
            }
            self.done(from, to, tally, seeds.is_empty())?;
        }
    }

    fn is_over(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }

    fn done(&self, from: u64, to: u64, tally: Tally, whole: bool) -> io::Result<()> {
        let Progress { tally: sum, record, next, done } = &mut *lock(&self.progress);
        let Some(record) = record else {
            *sum += tally;
            return Ok(());
        };
        if whole {
            done.insert(from, (to, tally));
        }
        while let Some((to, tally)) = done.remove(next) {
            record.append(&line(*next, to, &tally))?;
            *sum += tally;
            *next = to;
        }
        Ok(())
    }
}

fn panicked() -> io::Error {
    io::Error::other("a thread panicked")
}

fn store_failed(error: StoreError) -> io::Error {
    io::Error::other(format!("a store fails on a disk without faults: {error}"))
}

/// The faults of a workload.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// How many were met.
    pub count: u64,
    /// What was wrong.
    pub tally: Tally,
    /// Steps refused by a full disk that were there all the same.
    pub appeared: u64,
}

/// Meets every fault of a workload.
pub fn faults(workload: u64, threads: usize, failures: &Failures) -> io::Result<Faults> {
    let run = workload::record(workload).map_err(store_failed)?;
    let faults = faults::all(&run).map_err(store_failed)?;
    let next = AtomicUsize::new(0);
    let sum = Mutex::new(Faults::default());
    std::thread::scope(|scope| {
        let work = || {
            while let Some(fault) = faults.get(next.fetch_add(1, Ordering::Relaxed)) {
                let met = faults::meet(&run, *fault);
                let mut sum = lock(&sum);
                sum.count += 1;
                sum.tally += met.tally;
                sum.appeared += u64::from(met.appeared);
                if let Some(wrong) = met.wrong {
                    failures.note(|| format!("FAILED: --seed {}, {fault:?}: {wrong}", workload * BLOCK));
                }
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| panicked()))
    })?;
    Ok(sum.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Damages the closed store of a workload `count` times.
pub fn damage(
    workload: u64,
    kind: Damage,
    count: u64,
    threads: usize,
    failures: &Failures,
) -> io::Result<Outcomes> {
    let program = std::env::current_exe()?;
    let arguments = |seeds: &Range<u64>| {
        let word = format!("{kind:?}").to_lowercase();
        let Range { start, end } = seeds;
        format!("--seed {} --damage {word} --damage-from {start} --damage-to {end}", workload * BLOCK)
    };
    let process = |seeds: &Range<u64>| {
        let mut command = Command::new(&program);
        command.args(arguments(seeds).split(' '));
        command
    };
    let share = count.div_ceil(threads as u64);
    let mut sum = Outcomes::default();
    std::thread::scope(|scope| {
        let part = |thread: u64| (thread * share).min(count)..((thread + 1) * share).min(count);
        let workers: Vec<_> = (0..threads as u64)
            .map(|thread| scope.spawn(move || flips::count(part(thread), process)))
            .collect();
        workers.into_iter().try_for_each(|worker| {
            let (outcomes, unnoticed) = worker.join().map_err(|_| panicked())??;
            sum += outcomes;
            for (seed, outcome) in unnoticed {
                failures.note(|| format!("FAILED: {}: {outcome:?}", arguments(&(seed..seed + 1))));
            }
            Ok::<(), io::Error>(())
        })
    })?;
    Ok(sum)
}
