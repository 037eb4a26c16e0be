//! A workload, run once on a disk that records, and the books at every point of it.

use std::sync::Arc;

use shared::store::sim::{Dice, SimDisk, Trace};
use shared::store::{Store, StoreError};

use crate::book::{Book, Facts};
use crate::choose::Chooser;
use crate::step::{Runtimes, Step, open};

/// Steps of a workload.
const STEPS: u64 = 60;

/// The books at one moment, with the facts that follow from them.
#[derive(Debug, Default)]
pub struct Known {
    pub book: Book,
    pub facts: Facts,
}

impl Known {
    /// What follows from `book`.
    pub fn new(book: Book) -> Arc<Self> {
        let facts = book.facts();
        Arc::new(Self { book, facts })
    }

    /// The books after one step more.
    pub fn after(self: &Arc<Self>, step: &Step) -> Arc<Self> {
        match step {
            Step::Commit { .. } => {
                let mut book = self.book.clone();
                step.enter(&mut book);
                Self::new(book)
            }
            Step::Abandon { .. } | Step::Compact | Step::Reopen => Arc::clone(self),
        }
    }
}

/// A step: what the disk had done before it and when it was confirmed, and what holds since.
#[derive(Debug)]
struct Mark {
    from: u64,
    to: u64,
    after: Arc<Known>,
}

/// A recorded run.
#[derive(Debug)]
pub struct Run {
    pub trace: Trace,
    pub steps: Vec<Step>,
    /// What could hold before it.
    before: Vec<Arc<Known>>,
    marks: Vec<Mark>,
}

impl Run {
    /// What can hold after a power cut behind the first `at` things done: what was confirmed, and
    /// possibly the step that was under way.
    pub fn known(&self, at: u64) -> Vec<Arc<Known>> {
        let done = self.marks.partition_point(|mark| mark.to <= at);
        let mut known = match done.checked_sub(1).and_then(|last| self.marks.get(last)) {
            Some(mark) => vec![Arc::clone(&mark.after)],
            None => self.before.clone(),
        };
        known.extend(self.marks.get(done).filter(|mark| mark.from < at).map(|mark| Arc::clone(&mark.after)));
        known
    }

    /// What holds at the end.
    pub fn end(&self) -> Arc<Known> {
        self.marks.last().map(|mark| Arc::clone(&mark.after)).unwrap_or_default()
    }

    /// Things done until the store was open.
    pub fn opened(&self) -> u64 {
        self.marks.first().map_or(0, |mark| mark.to)
    }
}

/// A run being recorded.
#[derive(Debug)]
pub struct Recorder {
    disk: SimDisk,
    store: Option<Store>,
    steps: Vec<Step>,
    before: Vec<Arc<Known>>,
    marks: Vec<Mark>,
}

impl Recorder {
    /// Opens a store on a disk that holds one of `before`, and records from there.
    pub fn open(disk: SimDisk, before: Vec<Arc<Known>>) -> Result<Self, StoreError> {
        disk.record();
        let store = Some(open(&disk)?);
        Ok(Self { disk, store, steps: Vec::new(), before, marks: Vec::new() })
    }

    /// The open store.
    pub fn store(&self) -> Option<&Store> {
        self.store.as_ref()
    }

    /// It was found that `known` holds, now that the store is open.
    pub fn opened(&mut self, known: Arc<Known>) {
        self.marks.push(Mark { from: 0, to: self.disk.ops(), after: known });
    }

    /// Does `count` steps.
    pub fn steps(
        &mut self,
        chooser: &mut Chooser,
        count: u64,
        runtimes: &Runtimes,
    ) -> Result<(), StoreError> {
        for _ in 0..count {
            let known = self.marks.last().map(|mark| Arc::clone(&mark.after)).unwrap_or_default();
            let step = chooser.step(&known.book);
            let from = self.disk.ops();
            step.run(&self.disk, &mut self.store, runtimes)?;
            self.marks.push(Mark { from, to: self.disk.ops(), after: known.after(&step) });
            self.steps.push(step);
        }
        Ok(())
    }

    /// Closes the store, which writes too, and ends the recording.
    pub fn close(mut self) -> Run {
        let from = self.disk.ops();
        drop(self.store.take());
        let after = self.marks.last().map(|mark| Arc::clone(&mark.after)).unwrap_or_default();
        self.marks.push(Mark { from, to: self.disk.ops(), after });
        let trace = self.disk.trace().expect("recording since it was opened");
        Run { trace, steps: self.steps, before: self.before, marks: self.marks }
    }
}

/// Records workload `number`.
pub fn record(number: u64) -> Result<Run, StoreError> {
    let runtimes = Runtimes::new()?;
    let nothing = Known::new(Book::default());
    let mut recorder = Recorder::open(SimDisk::repeatable()?, vec![Arc::clone(&nothing)])?;
    recorder.opened(nothing);
    let mut dice = Dice::new(number);
    // Neighbouring numbers begin alike.
    dice.roll();
    recorder.steps(&mut Chooser::new(dice, 0), STEPS, &runtimes)?;
    Ok(recorder.close())
}
