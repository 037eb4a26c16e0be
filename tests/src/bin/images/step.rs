//! Steps of a workload: done on a store, and entered in the books.

use std::sync::Arc;
use std::time::Duration;

use shared::age;
use shared::lane::{self, Arrival, LanePosition, NotApplied, Parked, QueuedBody, QueuedUnit, Settling};
use shared::store::sim::SimDisk;
use shared::store::{BodyKey, Committed, Rows, Store, StoreError, Stored, Txn};

use crate::book::{
    APPLIED, Book, ENTRIES, Id, Numbers, ROWS, body, body_key, body_length, number_of, position, reason,
};
use crate::inbound::{Fate, Incoming, incoming_id, objection, read_head};
use crate::outbound::again;

/// Bytes of a segment: small, so that a short workload fills several.
const SEGMENT_BYTES: u64 = 96 * 1024;
/// A unit's body longer than this goes ahead of it.
const INLINE_BYTES: usize = 4_000;
/// Ids that are looked at together when old ones are forgotten.
const FORGET_AT_ONCE: usize = 5;

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
    /// Units arrive under the numbers from `first` on.
    Arrive { lane: u8, first: u64, units: Vec<Incoming>, now: u64 },
    /// Ids of what was applied before `before` are forgotten.
    Forget { before: u64 },
    /// What was parked before `before` becomes a dead letter.
    BuryOverdue { before: u64, now: u64 },
    /// The partner confirms up to `to`.
    Confirmed { lane: u8, to: u64, refused: Vec<u64>, deferred: Vec<u64>, now: u64 },
    /// The partner holds the body of a waiting unit.
    Held { id: Id },
    /// What was deferred and is due is queued again.
    QueueDue { now: u64 },
    /// A dead letter is offered again.
    Retry { id: Id },
    /// A dead letter is dropped.
    Drop { id: Id },
    /// A safety store is trimmed, by age and by size.
    Trim { lane: u8, before: u64, octets_max: u64 },
    /// A lane's ends stand together again: with `held`, of what lies behind `after`, this node was restored, or, if its past
    /// is `proved` or `after` is not what was confirmed, both; otherwise the partner.
    Settle {
        lane: u8,
        received: LanePosition,
        held: Option<Vec<Id>>,
        proved: bool,
        after: u64,
        generations: (u32, u32),
        now: u64,
    },
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

fn unit_id(unit: u64) -> Id {
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

fn held(id: &Id) -> (u64, [u8; 32]) {
    (number_of(id), position(0, number_of(id)).chain)
}

/// What a node does with a unit from the partner. It has written already when it finds that it cannot.
fn apply(txn: &mut Txn<'_>, number: u64, fate: Fate) -> Result<(), NotApplied> {
    let key = number.to_be_bytes();
    let before = txn.get::<Numbers>(APPLIED, &key)?.and_then(|row| row.0.first().copied());
    txn.put(APPLIED, &key, &Numbers(vec![before.unwrap_or(0) + 1]))?;
    match fate {
        Fate::Applied => Ok(()),
        Fate::Refused => Err(NotApplied::Never(objection(number))),
        Fate::Deferred => Err(NotApplied::Later(objection(number))),
    }
}

fn arrive(txn: &mut Txn<'_>, lane: u8, first: u64, units: &[Incoming], now: u64) -> Result<(), StoreError> {
    for (number, unit) in (first..).zip(units) {
        let head = unit.head();
        let arrival = Arrival {
            lane,
            number,
            id: incoming_id(unit.number),
            after: unit.after.map(incoming_id),
            alone: unit.alone.then_some(&head),
        };
        let known = |txn: &Txn<'_>, id: &Id| Ok(txn.raw(ENTRIES, &number_of(id).to_be_bytes())?.is_some());
        let parked = |txn: &mut Txn<'_>, parked: &Parked| {
            let (number, fate) = read_head(&parked.head);
            apply(txn, number, fate)
        };
        lane::take(txn, arrival, now, known, |txn| apply(txn, unit.number, unit.fate), parked)?;
    }
    let from = lane::state(txn, lane)?.received;
    lane::received(txn, lane, from, position(lane, first + units.len() as u64 - 1))
}

/// The node has lived until `now`.
fn live_until(txn: &mut Txn<'_>, now: u64) -> Result<(), StoreError> {
    let passed = now.saturating_sub(age::lived(txn)?);
    age::live_on(txn, Duration::from_millis(passed), now)
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
            Self::Arrive { lane, first, units, now } => book.arrive(*lane, *first, units, *now),
            Self::Forget { before } => book.forget_seen(*before),
            Self::BuryOverdue { before, now } => book.bury_overdue(*before, *now),
            Self::Confirmed { lane, to, refused, deferred, now } => {
                book.confirmed(*lane, *to, refused, deferred, *now);
            }
            Self::Held { id } => {
                let (length, digest) = held(id);
                book.held(*id, length, digest);
            }
            Self::QueueDue { now } => book.queue_due(*now),
            Self::Retry { id } => book.retry(id),
            Self::Drop { id } => book.drop_dead(id),
            Self::Trim { lane, before, octets_max } => book.trim(*lane, *before, *octets_max),
            Self::Settle { lane, received, held, proved, after, generations, now } => {
                let held = held.as_deref().map(|held| (held, *proved, *after));
                book.settle(*lane, *received, held, *generations, *now);
            }
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
            Self::Arrive { lane, first, units, now } => {
                live_until(txn, *now)?;
                arrive(txn, *lane, *first, units, *now)
            }
            Self::Forget { before } => {
                let mut next = Some(Vec::new());
                while let Some(cursor) = next {
                    next = lane::forget_ids(txn, &cursor, FORGET_AT_ONCE, *before)?;
                }
                Ok(())
            }
            Self::BuryOverdue { before, now } => lane::bury_overdue(txn, *before, *now),
            Self::Confirmed { lane, to, refused, deferred, now } => {
                live_until(txn, *now)?;
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
            Self::Retry { id } => lane::retry_dead(txn, id).map(drop),
            Self::Drop { id } => lane::drop_dead(txn, id).map(drop),
            Self::Trim { lane, before, octets_max } => lane::trim(txn, *lane, *before, *octets_max).map(drop),
            Self::Settle { lane, received, held, proved, after, generations, now } => {
                let settling = match held {
                    Some(held) => Settling::Renumber { held: held.clone(), proved: *proved, after: *after },
                    None => Settling::Replay,
                };
                live_until(txn, *now)?;
                let again = |_: &mut Txn<'_>, unit| Ok(again(unit));
                lane::settle(txn, *lane, *received, &settling, *generations, again).map(drop)
            }
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
                    open.commit_lazily(move |txn| lazy.write(txn, None), || ())?;
                }
                if *fails {
                    let failing = |txn: &mut Txn<'_>| {
                        txn.put(ROWS, &u64::MAX.to_be_bytes(), &Numbers(vec![1]))?;
                        lane::queue(txn, &unit(u64::MAX, 0, None))?;
                        Err(StoreError::Full)
                    };
                    open.commit_lazily(failing, || ())?;
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
