//! The books kept outside the store: what it was told to keep and has confirmed, as facts.

use std::collections::BTreeMap;

use shared::lane::{LanePosition, LaneRow, Parked, QueuedUnit, Reach, RejectedRow};
use shared::store::{Row, Table};

use crate::outbound::Lane;

/// Lanes of the link.
pub const LANES: u8 = 4;
/// A body, its length and the message it belongs to.
pub const ENTRIES: Table = Table("entries");
/// Rows without bodies.
pub const ROWS: Table = Table("rows");
/// How often each unit from the partner was applied.
pub const APPLIED: Table = Table("applied");

/// A unit's id.
pub type Id = [u8; 16];

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
    Confirm(u8, u64),
    Gone(u8, u64),
    /// What the safety stores of all lanes hold.
    Kept,
    Waiting(Id),
    Deferred(u64, Id),
    Dead(Id),
    Applied(u64),
    Rejected(u8, u64),
    /// An id that is remembered.
    Seen(Id),
    /// Units that wait for another, in the order in which they came.
    Parked(Id, usize),
}

/// What is so about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    Numbers(Numbers),
    /// A body: whether it is there to the last byte, and how many refer to it.
    Body(bool, u32),
    Lane(LaneRow),
    Unit(QueuedUnit),
    /// Whether and from where a receiver that stands at this confirm can be given again what followed.
    Reach(Reach),
    Gone(Id),
    Octets(u64),
    Dead(Letter),
    Rejected(RejectedRow),
    Seen,
    Parked(Parked),
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

/// Whether these are the bytes of body `number`.
pub fn is_body(number: u64, bytes: &[u8]) -> bool {
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

/// Why the partner rejects unit `number`.
pub fn reason(number: u64) -> String {
    format!("the partner's reason {number}")
}

/// A dead letter: unit, reason, time, whether it came from the partner.
pub type Letter = (QueuedUnit, String, u64, bool);

/// What was confirmed.
#[derive(Clone, Debug, Default)]
pub struct Book {
    pub entries: BTreeMap<u64, Numbers>,
    pub rows: BTreeMap<u64, Numbers>,
    /// References by body.
    bodies: BTreeMap<u64, u32>,
    pub lanes: [Lane; LANES as usize],
    pub waiting: BTreeMap<Id, QueuedUnit>,
    pub deferred: BTreeMap<(u64, Id), QueuedUnit>,
    pub dead: BTreeMap<Id, Letter>,
    /// How often the unit of a number was applied.
    pub applied: BTreeMap<u64, u64>,
    pub rejected: BTreeMap<(u8, u64), RejectedRow>,
    /// Ids of applied units, and when that was.
    pub seen: BTreeMap<Id, u64>,
    /// By what they wait for.
    pub parked: BTreeMap<Id, Vec<Parked>>,
}

impl Book {
    /// Where a lane stands.
    pub fn lane(&self, lane: u8) -> LaneRow {
        self.lanes[usize::from(lane)].row
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

    /// The facts that a store with this in it shows.
    pub fn facts(&self) -> Facts {
        let mut facts = Facts::new();
        let numbers = |row: &Numbers| Fact::Numbers(row.clone());
        facts.extend(self.entries.iter().map(|(number, row)| (Item::Entry(*number), numbers(row))));
        facts.extend(self.rows.iter().map(|(number, row)| (Item::Row(*number), numbers(row))));
        let bodies = self.bodies.iter();
        facts.extend(bodies.map(|(number, uses)| (Item::Body(*number), Fact::Body(true, *uses))));
        for (number, lane) in (0..LANES).zip(&self.lanes) {
            lane.enter_facts(number, &mut facts);
        }
        facts.insert(Item::Kept, Fact::Octets(self.lanes.iter().map(Lane::kept).sum()));
        let unit = |unit: &QueuedUnit| Fact::Unit(unit.clone());
        facts.extend(self.waiting.iter().map(|(id, waits)| (Item::Waiting(*id), unit(waits))));
        let deferred = self.deferred.iter();
        facts.extend(deferred.map(|((due, id), waits)| (Item::Deferred(*due, *id), unit(waits))));
        facts.extend(self.dead.iter().map(|(id, letter)| (Item::Dead(*id), Fact::Dead(letter.clone()))));
        let applied = self.applied.iter();
        facts.extend(
            applied.map(|(number, times)| (Item::Applied(*number), Fact::Numbers(Numbers(vec![*times])))),
        );
        let rejected = self.rejected.iter();
        facts.extend(
            rejected.map(|((lane, at), row)| (Item::Rejected(*lane, *at), Fact::Rejected(row.clone()))),
        );
        facts.extend(self.seen.keys().map(|id| (Item::Seen(*id), Fact::Seen)));
        for (target, parked) in &self.parked {
            let places = parked.iter().enumerate();
            facts.extend(places.map(|(at, unit)| (Item::Parked(*target, at), Fact::Parked(unit.clone()))));
        }
        facts
    }
}

/// The number that a key or an id begins with.
pub fn number_of(key: &[u8]) -> u64 {
    key.first_chunk().map_or(u64::MAX, |number| u64::from_be_bytes(*number))
}
