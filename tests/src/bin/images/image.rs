//! One image: the power goes, once or twice, and the store that is opened then is held against the books.

use std::ops::AddAssign;
use std::sync::Arc;

use shared::store::sim::{Dice, Loss, SimDisk};
use shared::store::{Store, StoreError, verify};

use crate::book::Facts;
use crate::choose::Chooser;
use crate::look::look;
use crate::step::{Runtimes, open};
use crate::workload::{Known, Recorder, Run};

/// Of so many seeds that follow each other one loses power again while its image recovers.
const DOUBLE_ONE_IN: u64 = 5;
/// One image in so many is also looked over by the store's own `verify`.
const VERIFY_ONE_IN: u64 = 16;
/// Steps after a recovery: it has to go on working.
const STEPS_AFTER: u64 = 3;
/// Where the numbers of what is new begin after a recovery that is not the last one. They are times too, and
/// those only rise.
pub const AFTER_RECOVERY: u64 = 1 << 20;
/// Where they begin after the last one.
const AFTER_LAST_RECOVERY: u64 = 1 << 21;

/// What was made and what was wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Images made.
    pub images: u64,
    /// Those of them that lost power twice.
    pub double: u64,
    /// Things confirmed and gone, or there and unreadable.
    pub lost: u64,
    /// Things there that were never written, were removed, or were written by half a commit.
    pub phantom: u64,
    /// Things that are not what was written.
    pub altered: u64,
    /// Stores that could not be opened or did not go on working.
    pub unopenable: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.images += other.images;
        self.double += other.double;
        self.lost += other.lost;
        self.phantom += other.phantom;
        self.altered += other.altered;
        self.unopenable += other.unopenable;
    }
}

impl Tally {
    /// Whether nothing was wrong.
    pub fn is_clean(&self) -> bool {
        self.lost + self.phantom + self.altered + self.unopenable == 0
    }
}

/// Holds a store against what may be in it: which of it is, or what is wrong.
pub fn audit(store: &Store, known: &[Arc<Known>]) -> Result<Arc<Known>, (Tally, String)> {
    let found = look(store);
    if let Some(error) = found.errors.first() {
        return Err((Tally { lost: found.errors.len() as u64, ..Tally::default() }, error.clone()));
    }
    match known.iter().find(|known| known.facts == found.facts) {
        Some(known) => Ok(Arc::clone(known)),
        None => Err(differences(&found.facts, known)),
    }
}

fn differences(found: &Facts, known: &[Arc<Known>]) -> (Tally, String) {
    let mut tally = Tally::default();
    let mut what = String::new();
    let mut note = |count: &mut u64, word: &str, item: &dyn std::fmt::Debug| {
        *count += 1;
        if what.is_empty() {
            what = format!("{item:?} is {word}");
        }
    };
    if let Some((first, rest)) = known.split_first() {
        for item in first.facts.keys() {
            if rest.iter().all(|known| known.facts.contains_key(item)) && !found.contains_key(item) {
                note(&mut tally.lost, "lost", item);
            }
        }
    }
    for (item, fact) in found {
        let mut possible = known.iter().filter_map(|known| known.facts.get(item)).peekable();
        if possible.peek().is_none() {
            note(&mut tally.phantom, "a phantom", item);
        } else if possible.all(|possible| possible != fact) {
            note(&mut tally.altered, "altered", &(item, fact));
        }
    }
    if tally.is_clean() {
        note(&mut tally.phantom, "there", &"half a commit");
    }
    (tally, what)
}

fn unopenable(error: &StoreError) -> (Tally, String) {
    (Tally { unopenable: 1, ..Tally::default() }, error.to_string())
}

/// Opens the store on `disk`, holds it against the books, and lets it go on working, with new things numbered from
/// `first` on: the open store, and what it holds then.
pub fn go_on(
    disk: &SimDisk,
    known: &[Arc<Known>],
    dice: &mut Dice,
    first: u64,
) -> Result<(Option<Store>, Arc<Known>), (Tally, String)> {
    let runtimes = Runtimes::new().map_err(|error| unopenable(&error.into()))?;
    let opened = open(disk).map_err(|error| unopenable(&error))?;
    let mut holds = audit(&opened, known)?;
    let mut store = Some(opened);
    let mut chooser = Chooser::new(*dice, first);
    dice.roll();
    for _ in 0..STEPS_AFTER {
        let step = chooser.step(&holds.book);
        step.run(disk, &mut store, &runtimes).map_err(|error| unopenable(&error))?;
        holds = holds.after(&step);
    }
    if let Some(store) = &store {
        audit(store, &[Arc::clone(&holds)])?;
        if dice.below(VERIFY_ONE_IN) == 0 {
            let verdict = verify(store).map_err(|error| unopenable(&error))?;
            if let Some(damage) = verdict.damage.first() {
                return Err((Tally { altered: 1, ..Tally::default() }, damage.clone()));
            }
        }
    }
    Ok((store, holds))
}

/// [`go_on`], for the last time on this disk.
pub fn recover(disk: &SimDisk, known: &[Arc<Known>], dice: &mut Dice) -> Result<(), (Tally, String)> {
    let open = go_on(disk, known, dice, AFTER_LAST_RECOVERY)?;
    // What closing would write is of no use to anybody.
    disk.cut_power();
    drop(open);
    Ok(())
}

/// Makes the image that `seed` stands for from a run: what it found, and the first thing that was wrong.
pub fn make(run: &Run, seed: u64) -> (Tally, Option<String>) {
    let mut dice = Dice::new(seed);
    dice.roll();
    let double = seed.is_multiple_of(DOUBLE_ONE_IN);
    let outcome = if double { cut_twice(run, &mut dice) } else { cut_once(run, &mut dice) };
    let (mut tally, wrong) = match outcome {
        Ok(()) => (Tally::default(), None),
        Err((tally, wrong)) => (tally, Some(wrong)),
    };
    tally += Tally { images: 1, double: u64::from(double), ..Tally::default() };
    (tally, wrong)
}

fn cut_once(run: &Run, dice: &mut Dice) -> Result<(), (Tally, String)> {
    let at = dice.below(run.trace.len() + 1);
    let disk = run.trace.cut(at, Loss::any(dice), dice);
    recover(&disk, &run.known(at), dice)
}

/// As [`cut_once`], and the power goes again: half of the time before the store is open, otherwise at
/// any point of what it does then.
fn cut_twice(run: &Run, dice: &mut Dice) -> Result<(), (Tally, String)> {
    let at = dice.below(run.trace.len() + 1);
    let disk = run.trace.cut(at, Loss::any(dice), dice);
    let known = run.known(at);
    let failed = |error: StoreError| unopenable(&error);
    let runtimes = Runtimes::new().map_err(|error| failed(error.into()))?;
    let mut recorder = Recorder::open(disk, known.clone()).map_err(failed)?;
    if let Some(store) = recorder.store() {
        let holds = audit(store, &known)?;
        recorder.opened(holds);
    }
    let mut chooser = Chooser::new(*dice, AFTER_RECOVERY);
    dice.roll();
    recorder.steps(&mut chooser, 1, &runtimes).map_err(failed)?;
    let recovery = recorder.close();
    let within = if dice.below(2) == 0 { recovery.opened() } else { recovery.trace.len() };
    let again = dice.below(within + 1);
    let disk = recovery.trace.cut(again, Loss::any(dice), dice);
    recover(&disk, &recovery.known(again), dice)
}
