//! Steps of a workload: chosen by dice from what the books say is there, done on a store, and entered in
//! the books.

use std::sync::Arc;

use shared::lane::{self, QueuedBody, QueuedUnit};
use shared::store::sim::{Dice, SimDisk};
use shared::store::{BodyKey, Committed, Store, StoreError, Stored, Txn};

use crate::book::{
    Book, ENTRIES, LANES, Numbers, ROWS, body, body_key, body_length, body_number, position, reason,
    rejection,
};

/// Bytes of a segment: small, so that a short workload fills several.
const SEGMENT_BYTES: u64 = 96 * 1024;
/// Entries from which on more are removed than added.
const ENTRIES_MANY: u64 = 10;
/// A unit's body longer than this goes ahead of it.
const INLINE_BYTES: usize = 4_000;
/// Keys of rows without bodies.
const ROW_KEYS: u64 = 24;

/// What one operation writes.
#[derive(Clone, Debug)]
pub enum Action {
    /// A body, its entry and, if there is a lane for it, the unit that carries it.
    Add { body: u64, lane: Option<u8> },
    /// An entry goes, and with the last reference its body.
    Remove { body: u64 },
    /// Rows come, change and go.
    Rows { changes: Vec<(u64, Option<Numbers>)> },
    /// A unit without a body.
    Queue { unit: u64, lane: u8 },
    /// Units up to `to` were applied here, the last one rejected if so said.
    Received { lane: u8, to: u64, rejects: bool },
    /// The partner confirms up to `to`.
    Confirmed { lane: u8, to: u64, refused: Vec<u64>, deferred: Vec<u64>, now: u64 },
    /// The partner holds the body of a waiting unit.
    Held { id: [u8; 16] },
    /// What was deferred and is due is queued again.
    QueueDue { now: u64 },
}

/// One step. A commit with `lazy` takes along an operation that was left to it; with `fails` one that
/// fails after it has written.
#[derive(Clone, Debug)]
pub enum Step {
    Commit {
        lazy: Option<Action>,
        fails: bool,
        action: Action,
    },
    /// Bytes that no commit names.
    Abandon {
        body: u64,
    },
    Compact,
    /// The store is closed and opened again.
    Reopen,
}

fn unit_id(unit: u64) -> [u8; 16] {
    let mut id = [3; 16];
    id[..8].copy_from_slice(&unit.to_be_bytes());
    id
}

fn unit(number: u64, lane: u8, carries: Option<u64>) -> QueuedUnit {
    let body = match carries {
        None => QueuedBody::None,
        Some(carried) if body_length(carried) > INLINE_BYTES => QueuedBody::Ahead { key: body_key(carried) },
        Some(carried) => QueuedBody::Inline { key: body_key(carried) },
    };
    let after = number.is_multiple_of(5).then(|| unit_id(number / 2));
    let head = number.to_le_bytes().repeat(usize::try_from(number % 40).unwrap_or(0));
    QueuedUnit { id: unit_id(number), lane, after, head, body }
}

fn held(id: &[u8; 16]) -> (u64, [u8; 32]) {
    (body_number(id), position(0, body_number(id)).chain)
}

impl Action {
    /// Enters it in the books.
    pub fn enter(&self, book: &mut Book) {
        match self {
            Self::Add { body, lane } => {
                book.refer(*body);
                book.entries.insert(*body, entry(*body));
                if let Some(lane) = lane {
                    book.refer(*body);
                    book.queue(unit(*body, *lane, Some(*body)));
                }
            }
            Self::Remove { body } => {
                book.entries.remove(body);
                book.release(*body);
            }
            Self::Rows { changes } => {
                for (key, row) in changes {
                    match row {
                        Some(row) => book.rows.insert(*key, row.clone()),
                        None => book.rows.remove(key),
                    };
                }
            }
            Self::Queue { unit: number, lane } => book.queue(unit(*number, *lane, None)),
            Self::Received { lane, to, rejects } => book.received(*lane, *to, *rejects),
            Self::Confirmed { lane, to, refused, deferred, now } => {
                book.confirmed(*lane, *to, refused, deferred, *now);
            }
            Self::Held { id } => {
                let (length, digest) = held(id);
                book.held(*id, length, digest);
            }
            Self::QueueDue { now } => book.queue_due(*now),
        }
    }

    fn write(&self, txn: &mut Txn<'_>, stored: Option<&Stored>) -> Result<(), StoreError> {
        match self {
            Self::Add { body, lane } => {
                if let Some(stored) = stored {
                    txn.keep_body(stored)?;
                }
                txn.put(ENTRIES, &body.to_be_bytes(), &entry(*body))?;
                if let Some(lane) = lane {
                    txn.reference_body(BodyKey(body_key(*body)))?;
                    lane::queue(txn, &unit(*body, *lane, Some(*body)))?;
                }
                Ok(())
            }
            Self::Remove { body } => {
                txn.release_body(BodyKey(body_key(*body)))?;
                txn.delete(ENTRIES, &body.to_be_bytes())
            }
            Self::Rows { changes } => changes.iter().try_for_each(|(key, row)| match row {
                Some(row) => txn.put(ROWS, &key.to_be_bytes(), row),
                None => txn.delete(ROWS, &key.to_be_bytes()),
            }),
            Self::Queue { unit: number, lane } => lane::queue(txn, &unit(*number, *lane, None)).map(drop),
            Self::Received { lane, to, rejects } => {
                if *rejects {
                    reject(txn, *lane, *to)?;
                }
                lane::received(txn, *lane, position(*lane, *to))
            }
            Self::Confirmed { lane, to, refused, deferred, now } => {
                let with_reason =
                    |numbers: &[u64]| numbers.iter().map(|n| (*n, reason(*n))).collect::<Vec<_>>();
                let (refused, deferred) = (with_reason(refused), with_reason(deferred));
                lane::confirmed(txn, *lane, position(*lane, *to), &refused, &deferred, *now)
            }
            Self::Held { id } => {
                let (length, digest) = held(id);
                lane::body_held(txn, id, length, digest)
            }
            Self::QueueDue { now } => lane::queue_due(txn, *now).map(drop),
        }
    }
}

fn entry(body: u64) -> Numbers {
    Numbers(vec![body, body_length(body) as u64])
}

/// Runs futures of the store, and holds what it spawns: the timers of deferred operations, which are
/// never run here, so that only the workload decides which commit takes them along.
#[derive(Debug)]
pub struct Runtimes {
    runs: tokio::runtime::Runtime,
    holds: tokio::runtime::Runtime,
}

impl Runtimes {
    /// New ones, for one thread.
    pub fn new() -> std::io::Result<Self> {
        let runtime = || tokio::runtime::Builder::new_current_thread().build();
        Ok(Self { runs: runtime()?, holds: runtime()? })
    }
}

/// Opens the store on a simulated disk.
pub fn open(disk: &SimDisk) -> Result<Store, StoreError> {
    Store::open_with(Arc::new(disk.clone()), SEGMENT_BYTES)
}

fn write_body(store: &Store, number: u64) -> Result<Stored, StoreError> {
    let mut writer = store.body_writer(BodyKey(body_key(number)), 1);
    let bytes = body(number);
    bytes.chunks(60_000).try_for_each(|part| writer.write(part))?;
    writer.finish(number.to_be_bytes().to_vec())
}

impl Step {
    /// Does it. `store` is empty only while it is opened again, or if that failed.
    pub fn run(
        &self,
        disk: &SimDisk,
        store: &mut Option<Store>,
        runtimes: &Runtimes,
    ) -> Result<(), StoreError> {
        if matches!(self, Self::Reopen) {
            drop(store.take());
        }
        let open = match store {
            Some(open) => open,
            None => store.insert(open(disk)?),
        };
        match self {
            Self::Reopen => Ok(()),
            Self::Compact => runtimes.runs.block_on(open.compact()).map(drop),
            Self::Abandon { body } => write_body(open, *body).map(drop),
            Self::Commit { lazy, fails, action } => {
                let stored = match action {
                    Action::Add { body, .. } => Some(write_body(open, *body)?),
                    _ => None,
                };
                let _held = runtimes.holds.enter();
                if let Some(lazy) = lazy.clone() {
                    open.commit_lazily(move |txn| lazy.write(txn, None))?;
                }
                if *fails {
                    open.commit_lazily(|txn| {
                        txn.put(ROWS, &u64::MAX.to_be_bytes(), &Numbers(vec![1]))?;
                        lane::queue(txn, &unit(u64::MAX, 0, None))?;
                        Err(StoreError::Full)
                    })?;
                }
                let action = action.clone();
                open.commit_blocking(move |txn| action.write(txn, stored.as_ref())).map(Committed::into_inner)
            }
        }
    }

    /// Enters it in the books.
    pub fn enter(&self, book: &mut Book) {
        if let Self::Commit { lazy, action, .. } = self {
            lazy.iter().chain([action]).for_each(|action| action.enter(book));
        }
    }
}

/// Chooses steps.
#[derive(Debug)]
pub struct Chooser {
    dice: Dice,
    next: u64,
}

impl Chooser {
    /// Chooses as `dice` fall; new things are numbered from `first` on.
    pub fn new(dice: Dice, first: u64) -> Self {
        Self { dice, next: first }
    }

    fn new_number(&mut self) -> u64 {
        self.next += 1;
        // The length of a body follows from its number: one in 40 is longer than a piece.
        let class = if self.dice.below(40) == 0 { 15 } else { self.dice.below(15) };
        self.next * 16 + class
    }

    fn any_of(&mut self, mut numbers: impl ExactSizeIterator<Item = u64>) -> Option<u64> {
        let place = usize::try_from(self.dice.below(numbers.len() as u64)).unwrap_or(0);
        numbers.nth(place)
    }

    /// A step that can follow on what the book says.
    pub fn step(&mut self, book: &Book) -> Step {
        match self.dice.below(40) {
            0 => Step::Reopen,
            1..=3 => Step::Compact,
            4 => Step::Abandon { body: self.new_number() },
            _ => self.commit(book),
        }
    }

    /// A step that commits.
    pub fn commit(&mut self, book: &Book) -> Step {
        let action = self.action(book);
        let lazy = match action {
            // Chosen from what is there before the deferred one, so none that confirms too.
            Action::Confirmed { .. } | Action::QueueDue { .. } => None,
            _ if self.dice.below(4) > 0 => None,
            _ => self.confirm(book, false),
        };
        Step::Commit { lazy, fails: self.dice.below(8) == 0, action }
    }

    fn action(&mut self, book: &Book) -> Action {
        let many = book.entries.len() as u64 >= ENTRIES_MANY;
        let lane = u8::try_from(self.dice.below(u64::from(LANES))).unwrap_or(0);
        match self.dice.below(16) {
            0..=1 if many => self.remove(book),
            0..=4 => {
                let lane = (self.dice.below(2) == 0).then_some(lane);
                Some(Action::Add { body: self.new_number(), lane })
            }
            5..=6 => self.remove(book),
            7..=8 => Some(Action::Queue { unit: self.new_number(), lane }),
            9..=10 => {
                let to = book.lane(lane).received.number + 1 + self.dice.below(3);
                Some(Action::Received { lane, to, rejects: self.dice.below(3) == 0 })
            }
            11..=12 => self.confirm(book, true),
            13 => self.any_waiting(book).map(|id| Action::Held { id }),
            14 => book.due().map(|now| Action::QueueDue { now }),
            _ => None,
        }
        .unwrap_or_else(|| self.rows())
    }

    fn remove(&mut self, book: &Book) -> Option<Action> {
        self.any_of(book.entries.keys().copied()).map(|body| Action::Remove { body })
    }

    fn any_waiting(&mut self, book: &Book) -> Option<[u8; 16]> {
        let place = usize::try_from(self.dice.below(book.waiting.len() as u64)).unwrap_or(0);
        book.waiting.keys().nth(place).copied()
    }

    fn rows(&mut self) -> Action {
        let changes = (0..=self.dice.below(6)).map(|_| {
            let key = self.dice.below(ROW_KEYS);
            let length = self.dice.below(120);
            let row =
                (self.dice.below(4) > 0).then(|| Numbers((0..length).map(|_| self.dice.roll()).collect()));
            (key, row)
        });
        Action::Rows { changes: changes.collect() }
    }

    /// The partner confirms some of the first lane that has something to confirm.
    fn confirm(&mut self, book: &Book, rejects: bool) -> Option<Action> {
        let first = self.dice.below(u64::from(LANES));
        let open = |lane: &u8| book.lane(*lane).last > book.lane(*lane).confirmed.number;
        let lane = (0..LANES).map(|n| (n + u8::try_from(first).unwrap_or(0)) % LANES).find(open)?;
        let row = book.lane(lane);
        let to = row.confirmed.number + 1 + self.dice.below(row.last - row.confirmed.number);
        let (mut refused, mut deferred) = (Vec::new(), Vec::new());
        for number in row.confirmed.number + 1..=to {
            match self.dice.below(10) {
                0 if rejects => refused.push(number),
                1..=2 if rejects => deferred.push(number),
                _ => {}
            }
        }
        Some(Action::Confirmed { lane, to, refused, deferred, now: 1_000 * self.next })
    }
}
