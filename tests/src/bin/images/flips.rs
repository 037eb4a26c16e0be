//! Damage to a closed store: flipped bits, and pages that went to the wrong place or were zeroed. What is
//! returned afterwards is all that was written, or an error.
//!
//! redb may panic on pages of its own that were damaged, and in a release build a panic ends the process,
//! as it does a node's. So the damage is looked at in processes of its own, which say one line for each.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::ops::{AddAssign, Range};
use std::process::{Command, Stdio};

use clap::ValueEnum;
use shared::store::sim::{Dice, SimDisk};
use shared::store::{Disk, StoreError};

use crate::look::look;
use crate::step::open;
use crate::workload::{Known, Run};

const PAGE: usize = 4096;
/// The exit code of a process that panics and unwinds; one that aborts has none.
const PANICKED: i32 = 101;

/// Kinds of damage, counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Damage {
    /// A bit, or some close together, as in a failing cell.
    Bits,
    /// A page with what another one holds, or with zeros.
    Pages,
}

/// How damage was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything is there as it was written.
    Harmless,
    /// Some of it is an error.
    Detected,
    /// Some of it is gone without an error.
    Missing,
    /// Something is returned that was never written so.
    Silent,
}

/// Outcomes counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    pub harmless: u64,
    pub detected: u64,
    pub missing: u64,
    pub panicked: u64,
    pub silent: u64,
}

impl Outcomes {
    /// Whether each of them was noticed, or did no harm; and whether they were looked at at all: most damage of a store
    /// either shows or lies where nothing is, and ends no process.
    pub fn is_clean(&self) -> bool {
        let is_looked_at = self.harmless > 0 && self.detected > 0 && self.panicked < self.count() / 2;
        self.missing == 0 && self.silent == 0 && is_looked_at
    }

    /// All of them.
    pub fn count(&self) -> u64 {
        self.harmless + self.detected + self.missing + self.panicked + self.silent
    }

    fn add(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Harmless => self.harmless += 1,
            Outcome::Detected => self.detected += 1,
            Outcome::Missing => self.missing += 1,
            Outcome::Silent => self.silent += 1,
        }
    }
}

impl AddAssign for Outcomes {
    fn add_assign(&mut self, other: Self) {
        self.harmless += other.harmless;
        self.detected += other.detected;
        self.missing += other.missing;
        self.panicked += other.panicked;
        self.silent += other.silent;
    }
}

/// The disk of a run that ended with the store closed.
pub fn closed(run: &Run) -> SimDisk {
    let mut dice = Dice::new(0);
    run.trace.cut(run.trace.len(), shared::store::sim::Loss::TornFirst, &mut dice)
}

/// Damages a copy of a closed disk as `seed` says and asks for everything.
pub fn meet(closed: &SimDisk, known: &Known, kind: Damage, seed: u64) -> Outcome {
    let mut dice = Dice::new(seed);
    dice.roll();
    let disk = closed.copy();
    damage(&disk, kind, &mut dice);
    let outcome = ask(&disk, known);
    disk.cut_power();
    outcome.unwrap_or(Outcome::Detected)
}

fn ask(disk: &SimDisk, known: &Known) -> Result<Outcome, StoreError> {
    let store = open(disk)?;
    let found = look(&store);
    disk.cut_power();
    let is_so = |(item, fact)| known.facts.get(item) == Some(fact);
    Ok(if !found.facts.iter().all(is_so) {
        Outcome::Silent
    } else if !found.errors.is_empty() {
        Outcome::Detected
    } else if found.facts.len() < known.facts.len() {
        Outcome::Missing
    } else {
        Outcome::Harmless
    })
}

fn below(end: usize, dice: &mut Dice) -> usize {
    usize::try_from(dice.below(end as u64)).unwrap_or(0)
}

fn damage(disk: &SimDisk, kind: Damage, dice: &mut Dice) {
    let names: Vec<String> = disk.list().unwrap_or_default();
    let names: Vec<&String> = names.iter().filter(|name| disk.length(name) > 0).collect();
    let name = names[below(names.len(), dice)];
    let length = disk.length(name);
    match (kind, dice.below(2)) {
        (Damage::Bits, 0) => disk.flip(name, below(length * 8, dice)),
        (Damage::Bits, _) => {
            let first = below(length, dice);
            // A bit that is flipped twice would be none.
            let bits: BTreeSet<usize> = (0..2 + dice.below(6))
                .map(|_| (first + below(64, dice)).min(length - 1) * 8 + below(8, dice))
                .collect();
            bits.into_iter().for_each(|bit| disk.flip(name, bit));
        }
        (Damage::Pages, 0) => {
            let (from, to) = (below(length, dice) / PAGE * PAGE, below(length, dice) / PAGE * PAGE);
            let mut page = vec![0; PAGE.min(length - from).min(length - to)];
            disk.peek(name, from, &mut page);
            disk.overwrite(name, to, &page);
        }
        (Damage::Pages, _) => {
            let at = below(length, dice) / PAGE * PAGE;
            disk.overwrite(name, at, &vec![0; PAGE.min(length - at)]);
        }
    }
}

/// In a process of its own: meets the damage of every seed and says how.
pub fn say(run: &Run, kind: Damage, seeds: Range<u64>) -> std::io::Result<()> {
    let (closed, known) = (closed(run), run.end());
    let mut out = std::io::stdout().lock();
    for seed in seeds {
        writeln!(out, "{:?}", meet(&closed, &known, kind, seed))?;
        out.flush()?;
    }
    Ok(())
}

/// Meets the damage of every seed in processes started as `process` says. The seeds whose damage was not
/// noticed come with the count, and what it did.
pub fn count(
    seeds: Range<u64>,
    process: impl Fn(&Range<u64>) -> Command,
) -> std::io::Result<(Outcomes, Vec<(u64, Outcome)>)> {
    let (mut outcomes, mut unnoticed) = (Outcomes::default(), Vec::new());
    let mut left = seeds;
    while !left.is_empty() {
        let mut child =
            process(&left).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        if let Some(said) = child.stdout.take() {
            for line in BufReader::new(said).lines() {
                let outcome = match line?.as_str() {
                    "Harmless" => Outcome::Harmless,
                    "Detected" => Outcome::Detected,
                    "Missing" => Outcome::Missing,
                    _ => Outcome::Silent,
                };
                if matches!(outcome, Outcome::Missing | Outcome::Silent) {
                    unnoticed.push((left.start, outcome));
                }
                outcomes.add(outcome);
                left.start += 1;
            }
        }
        let status = child.wait()?;
        if matches!(status.code(), Some(code) if code != 0 && code != PANICKED) {
            return Err(std::io::Error::other(format!("a process that looks at damage ended with {status}")));
        }
        if !left.is_empty() {
            if status.success() {
                return Err(std::io::Error::other(
                    "a process that looks at damage ended before it had looked",
                ));
            }
            outcomes.panicked += 1;
            left.start += 1;
        }
    }
    Ok((outcomes, unnoticed))
}
