//! The disk is full at a write, or a sync fails: at every write and every sync of a workload.

use std::sync::Arc;

use shared::store::sim::{Dice, Faults, SimDisk};
use shared::store::{Store, StoreError};

use crate::book::Book;
use crate::image::{AFTER_RECOVERY, Tally, audit, go_on, recover};
use crate::step::{Runtimes, Step, open};
use crate::workload::{Known, Run};

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// This write (from 1) and every later one finds the disk full.
    Full(u64),
    /// This sync (from 1) fails.
    Sync(u64),
}

/// Every fault that a run can meet.
pub fn all(run: &Run) -> Result<Vec<Fault>, StoreError> {
    let disk = SimDisk::default();
    play(&disk, &run.steps).map_err(|(_, error)| error)?;
    Ok((1..=disk.writes()).map(Fault::Full).chain((1..=disk.syncs()).map(Fault::Sync)).collect())
}

/// Opens a store and does the steps: the store, or the step (0 is the opening) that failed.
fn play(disk: &SimDisk, steps: &[Step]) -> Result<Option<Store>, (usize, StoreError)> {
    let runtimes = Runtimes::new().map_err(|error| (0, error.into()))?;
    let mut store = Some(open(disk).map_err(|error| (0, error))?);
    for (number, step) in (1..).zip(steps) {
        step.run(disk, &mut store, &runtimes).map_err(|error| (number, error))?;
    }
    Ok(store)
}

type Outcome = Result<(), (Tally, String)>;

fn wrong(what: String) -> (Tally, String) {
    (Tally { unopenable: 1, ..Tally::default() }, what)
}

/// How a run went on.
#[derive(Clone, Debug, Default)]
pub struct Met {
    /// What was wrong, and the first of it.
    pub tally: Tally,
    pub wrong: Option<String>,
    /// A step that was refused for want of room was there all the same, and whole.
    pub appeared: bool,
}

/// Does the run again with a fault.
pub fn meet(run: &Run, fault: Fault) -> Met {
    let mut met = Met::default();
    let outcome = match fault {
        Fault::Full(write) => full(run, write, &mut met.appeared),
        Fault::Sync(sync) => unsynced(run, sync),
    };
    if let Err((tally, what)) = outcome {
        met.tally = tally;
        met.wrong = Some(what);
    }
    met
}

/// With room again the same store goes on, without being opened anew, and does what it refused and
/// everything after it. A refused step is there whole or not at all; `appeared` says that it was there:
/// the disk was full at a write behind the one that made the commit.
fn full(run: &Run, write: u64, appeared: &mut bool) -> Outcome {
    let runtimes = Runtimes::new().map_err(|error| wrong(error.to_string()))?;
    let disk = SimDisk::new(Faults { full_at_write: Some(write), ..Faults::default() });
    let (mut known, mut refused) = (Known::new(Book::default()), false);
    let mut store = match open(&disk) {
        Ok(store) => Some(store),
        Err(error) => {
            refused = true;
            check_full(&error)?;
            disk.make_room();
            Some(open(&disk).map_err(|error| wrong(error.to_string()))?)
        }
    };
    for step in &run.steps {
        if let Err(error) = step.run(&disk, &mut store, &runtimes) {
            if refused {
                return Err(wrong(format!("{step:?} is refused with room: {error}")));
            }
            refused = true;
            check_full(&error)?;
            if let Some(store) = &store
                && store.ready().is_ok()
            {
                return Err(wrong("a full disk is called ready".into()));
            }
            disk.make_room();
            // What is read before the next operation may be an error: redb is opened anew with that one.
            if let Some(store) = &store {
                let nothing = store.commit_blocking(|_| Ok::<(), StoreError>(()));
                nothing.map_err(|error| wrong(error.to_string()))?;
                let holds = audit(store, &[Arc::clone(&known), known.after(step)])?;
                if holds.facts != known.facts {
                    *appeared = true;
                    known = holds;
                    continue;
                }
            }
            step.run(&disk, &mut store, &runtimes).map_err(|error| wrong(error.to_string()))?;
        }
        known = known.after(step);
    }
    match &store {
        Some(store) => audit(store, &[known]).map(drop),
        None => Err(wrong("the store is closed".into())),
    }
}

fn check_full(error: &StoreError) -> Outcome {
    match error {
        StoreError::Full | StoreError::Io(_) => Ok(()),
        other => Err(wrong(format!("a full disk is called: {other}"))),
    }
}

/// After a failed sync the store takes nothing more. What was confirmed is there when it is started
/// again: after the power went, or at once on the same kernel, and then after the power goes.
fn unsynced(run: &Run, sync: u64) -> Outcome {
    let runtimes = Runtimes::new().map_err(|error| wrong(error.to_string()))?;
    let mut dice = Dice::new(sync);
    let disk = SimDisk::new(Faults { error_at_sync: Some(sync), ..Faults::default() });
    let mut known = vec![Known::new(Book::default())];
    let mut store = None;
    if let Ok(opened) = open(&disk) {
        store = Some(opened);
        for step in &run.steps {
            let holds = Arc::clone(&known[0]);
            known = vec![holds.after(step)];
            if step.run(&disk, &mut store, &runtimes).is_err() {
                known.push(holds);
                break;
            }
        }
    }
    if let (Some(stopped), 2) = (&store, known.len()) {
        match stopped.commit_blocking(|_| Ok::<(), StoreError>(())) {
            Err(StoreError::Stopped(_)) => {}
            other => return Err(wrong(format!("a failed sync is followed by {other:?}"))),
        }
    }
    drop(store);
    recover(&disk.after_power_cut(&mut dice, Faults::default()), &known, &mut dice)?;
    // The kernel's pages still show what the disk never got.
    let (again, holds) = go_on(&disk, &known, &mut dice, AFTER_RECOVERY)?;
    let cut = disk.after_power_cut(&mut dice, Faults::default());
    drop(again);
    recover(&cut, &[holds], &mut dice)
}
