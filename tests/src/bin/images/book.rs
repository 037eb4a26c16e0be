//! The books kept outside the store: what it was told to keep and has confirmed, as facts, and the
//! facts that are found in a store.

use std::collections::BTreeMap;

use shared::lane::{self, LanePosition, LaneRow, OFFER_AGAIN_MILLIS, QueuedBody, QueuedUnit, RejectedRow};
use shared::store::{BodyKey, Row, Rows, Store, StoreError, Table};

/// Lanes of the link.
pub const LANES: u8 = 4;
/// A body, its length and the message it belongs to.
pub const ENTRIES: Table = Table("entries");
/// Rows without bodies.
pub const ROWS: Table = Table("rows");
/// The store's own names of bodies: one that nothing else names would be kept for ever.
const BODIES: Table = Table("bodies");

/// A row of plain numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbers(pub Vec<u64>);

impl Row for Numbers {
    const VERSION: u8 = 1;

    fn encode(&self) -> Vec<u8> {
        self.0.iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (words, rest) = bytes.as_chunks::<8>();
        rest.is_empty().then(|| Self(words.iter().map(|word| u64::from_le_bytes(*word)).collect()))
    }
}

/// What a fact is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Item {
    Entry(u64),
    Row(u64),
    Body(u64),
    Lane(u8),
    Unit(u8, u64),
    Waiting([u8; 16]),
    Due,
    Rejected(u8, u64),
    Dead([u8; 16]),
}

/// What is so about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    Numbers(Numbers),
    /// A body: whether it is there to the last byte.
    Whole(bool),
    Lane(LaneRow),
    Unit(QueuedUnit),
    Due(u64),
    Rejected(RejectedRow),
    Dead(QueuedUnit, String),
}

/// All that can be asked of a store, except about bytes that were damaged.
pub type Facts = BTreeMap<Item, Fact>;

/// The key of body `number`.
pub fn body_key(number: u64) -> [u8; 32] {
    let mut key = [0x5a; 32];
    key[..8].copy_from_slice(&number.to_be_bytes());
    key
}

/// Length in bytes of body `number`: most are small, some longer than a piece of the store (256 KiB).
pub fn body_length(number: u64) -> usize {
    const LENGTHS: [usize; 16] =
        [0, 10, 600, 5_000, 1_200, 4_096, 70_000, 2_500, 40, 9_000, 600, 3_333, 20_000, 800, 1_500, 300_000];
    LENGTHS[usize::try_from(number % 16).unwrap_or(0)]
}

fn word(number: u64, at: usize) -> [u8; 8] {
    (number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ at as u64)
        .wrapping_mul(0x2545_f491_4f6c_dd1d)
        .to_le_bytes()
}

/// The bytes of body `number`.
pub fn body(number: u64) -> Vec<u8> {
    let length = body_length(number);
    let mut bytes: Vec<u8> = (0..length.div_ceil(8)).flat_map(|at| word(number, at)).collect();
    bytes.truncate(length);
    bytes
}

fn is_body(number: u64, bytes: &[u8]) -> bool {
    bytes.len() == body_length(number)
        && bytes.chunks(8).enumerate().all(|(at, chunk)| *chunk == word(number, at)[..chunk.len()])
}

/// A lane's position at `number`, with a chain that no other position has.
pub fn position(lane: u8, number: u64) -> LanePosition {
    let mut chain = [lane; 32];
    for (at, part) in chain.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        *part = word(number << 8 | u64::from(lane), at);
    }
    LanePosition { number, chain }
}

/// Why unit `number` is rejected here, and whether for now.
pub fn rejection(number: u64) -> RejectedRow {
    RejectedRow { later: number.is_multiple_of(2), reason: format!("reason {number}") }
}

/// Why the partner rejects unit `number`.
pub fn reason(number: u64) -> String {
    format!("the partner's reason {number}")
}

#[derive(Clone, Debug, Default)]
struct Lane {
    row: LaneRow,
    units: BTreeMap<u64, QueuedUnit>,
}

/// What was confirmed.
#[derive(Clone, Debug, Default)]
pub struct Book {
    pub entries: BTreeMap<u64, Numbers>,
    pub rows: BTreeMap<u64, Numbers>,
    /// References by body.
    bodies: BTreeMap<u64, u32>,
    lanes: [Lane; LANES as usize],
    pub waiting: BTreeMap<[u8; 16], QueuedUnit>,
    deferred: BTreeMap<(u64, [u8; 16]), QueuedUnit>,
    rejected: BTreeMap<(u8, u64), RejectedRow>,
    dead: BTreeMap<[u8; 16], (QueuedUnit, String)>,
}

impl Book {
    /// Where a lane stands.
    pub fn lane(&self, lane: u8) -> LaneRow {
        self.lanes[usize::from(lane)].row
    }

    /// When the first deferred unit is due, milliseconds.
    pub fn due(&self) -> Option<u64> {
        self.deferred.keys().next().map(|(due, _)| *due)
    }

    /// Something refers to a body once more.
    pub fn refer(&mut self, body: u64) {
        *self.bodies.entry(body).or_default() += 1;
    }

    /// Something refers to a body no more.
    pub fn release(&mut self, body: u64) {
        if let Some(references) = self.bodies.get_mut(&body) {
            *references -= 1;
            if *references == 0 {
                self.bodies.remove(&body);
            }
        }
    }

    /// A unit is queued.
    pub fn queue(&mut self, unit: QueuedUnit) {
        if matches!(unit.body, QueuedBody::Ahead { .. }) {
            self.waiting.insert(unit.id, unit);
            return;
        }
        let lane = &mut self.lanes[usize::from(unit.lane)];
        lane.row.last += 1;
        lane.units.insert(lane.row.last, unit);
    }

    /// The partner holds a waiting unit's body.
    pub fn held(&mut self, id: [u8; 16], length: u64, digest: [u8; 32]) {
        if let Some(mut unit) = self.waiting.remove(&id) {
            if let QueuedBody::Ahead { key } = unit.body {
                unit.body = QueuedBody::Held { key, length, digest };
            }
            self.queue(unit);
        }
    }

    /// The partner has confirmed up to number `to`, and rejected some.
    pub fn confirmed(&mut self, lane: u8, to: u64, refused: &[u64], deferred: &[u64], now: u64) {
        let book = &mut self.lanes[usize::from(lane)];
        if to <= book.row.confirmed.number {
            return;
        }
        book.row.confirmed = position(lane, to);
        let kept = book.units.split_off(&(to + 1));
        for (number, mut unit) in std::mem::replace(&mut book.units, kept) {
            if refused.contains(&number) {
                self.dead.insert(unit.id, (unit, reason(number)));
            } else if deferred.contains(&number) {
                if let QueuedBody::Held { key, .. } = unit.body {
                    unit.body = QueuedBody::Ahead { key };
                }
                self.deferred.insert((now + OFFER_AGAIN_MILLIS, unit.id), unit);
            } else if let Some(key) = unit.body.key() {
                self.release(body_number(&key));
            }
        }
    }

    /// Deferred units that are due are queued again.
    pub fn queue_due(&mut self, now: u64) {
        let later = self.deferred.split_off(&(now + 1, [0; 16]));
        for (_, unit) in std::mem::replace(&mut self.deferred, later) {
            self.queue(unit);
        }
    }

    /// Units up to `to` have been applied here; the last of them not, if it is rejected.
    pub fn received(&mut self, lane: u8, to: u64, rejects: bool) {
        self.lanes[usize::from(lane)].row.received = position(lane, to);
        if rejects {
            self.rejected.insert((lane, to), rejection(to));
        }
    }

    /// The facts that a store with this in it shows.
    pub fn facts(&self) -> Facts {
        let mut facts = Facts::new();
        let numbers = |row: &Numbers| Fact::Numbers(row.clone());
        facts.extend(self.entries.iter().map(|(number, row)| (Item::Entry(*number), numbers(row))));
        facts.extend(self.rows.iter().map(|(number, row)| (Item::Row(*number), numbers(row))));
        facts.extend(self.bodies.keys().map(|number| (Item::Body(*number), Fact::Whole(true))));
        for (number, lane) in (0..LANES).zip(&self.lanes) {
            facts.insert(Item::Lane(number), Fact::Lane(lane.row));
            let units = lane.units.iter();
            facts.extend(units.map(|(at, unit)| (Item::Unit(number, *at), Fact::Unit(unit.clone()))));
        }
        facts.extend(self.waiting.iter().map(|(id, unit)| (Item::Waiting(*id), Fact::Unit(unit.clone()))));
        facts.extend(self.due().map(|due| (Item::Due, Fact::Due(due))));
        let rejected = self.rejected.iter();
        facts.extend(
            rejected.map(|((lane, at), row)| (Item::Rejected(*lane, *at), Fact::Rejected(row.clone()))),
        );
        let dead = self.dead.iter();
        facts.extend(dead.map(|(id, (unit, why))| (Item::Dead(*id), Fact::Dead(unit.clone(), why.clone()))));
        facts
    }
}

/// The number of the body that a key stands for.
pub fn body_number(key: &[u8]) -> u64 {
    key.first_chunk().map_or(u64::MAX, |number| u64::from_be_bytes(*number))
}

/// What a store shows.
#[derive(Debug, Default)]
pub struct Found {
    /// What it returned.
    pub facts: Facts,
    /// What it said it cannot return.
    pub errors: Vec<String>,
}

/// Asks a store for everything in it.
pub fn look(store: &Store) -> Found {
    let mut found = Found::default();
    let mut keep = |outcome: Result<Vec<(Item, Fact)>, StoreError>| match outcome {
        Ok(some) => found.facts.extend(some),
        Err(error) => found.errors.push(error.to_string()),
    };
    let rows = match store.read() {
        Ok(rows) => rows,
        Err(error) => {
            found.errors.push(error.to_string());
            return found;
        }
    };
    keep(numbers(&rows, ENTRIES, Item::Entry));
    keep(numbers(&rows, ROWS, Item::Row));
    for lane in 0..LANES {
        keep(lane::state(&rows, lane).map(|row| vec![(Item::Lane(lane), Fact::Lane(row))]));
        let units = lane::units(&rows, lane, 0, usize::MAX);
        keep(units.map(|units| {
            units.into_iter().map(|(at, unit)| (Item::Unit(lane, at), Fact::Unit(unit))).collect()
        }));
        let rejected = lane::rejected(&rows, lane, 0);
        keep(rejected.map(|rejected| {
            rejected.into_iter().map(|(at, row)| (Item::Rejected(lane, at), Fact::Rejected(row))).collect()
        }));
    }
    let waiting = lane::waiting(&rows, usize::MAX);
    keep(
        waiting
            .map(|units| units.into_iter().map(|unit| (Item::Waiting(unit.id), Fact::Unit(unit))).collect()),
    );
    keep(lane::deferred(&rows).map(|count| vec![(Item::Due, Fact::Due(count as u64))]));
    let dead = lane::dead_letters(&rows, usize::MAX);
    keep(dead.map(|letters| {
        letters.into_iter().map(|l| (Item::Dead(l.unit.id), Fact::Dead(l.unit, l.reason))).collect()
    }));
    match rows.raw_range(BODIES, &[], None, usize::MAX, false) {
        Err(error) => keep(Err(error)),
        Ok(bodies) => {
            for (key, _) in bodies {
                let number = body_number(&key);
                let bytes =
                    store.body(BodyKey(body_key(number))).and_then(shared::store::BodyReader::read_all);
                keep(bytes.map(|bytes| vec![(Item::Body(number), Fact::Whole(is_body(number, &bytes)))]));
            }
        }
    }
    found
}

fn numbers(rows: &impl Rows, table: Table, item: fn(u64) -> Item) -> Result<Vec<(Item, Fact)>, StoreError> {
    let found = rows.range::<Numbers>(table, &[], None, usize::MAX)?;
    Ok(found.into_iter().map(|(key, row)| (item(body_number(&key)), Fact::Numbers(row))).collect())
}
