//! What a store shows when it is asked for everything in it.

use std::collections::BTreeMap;

use shared::lane::{self, Parked, QueuedUnit};
use shared::store::{BodyKey, BodyReader, Rows, Snapshot, Store, StoreError, Table};

use crate::book::{
    APPLIED, ENTRIES, Fact, Facts, Id, Item, LANES, Numbers, ROWS, body_key, is_body, number_of,
};

/// The store's own names of bodies: one that nothing else names would be kept for ever.
const BODIES: Table = Table("bodies");
/// Tables of the lanes that nothing lists.
const CONFIRMS: Table = Table("confirms");
const DEFERRED: Table = Table("deferred");
const IDS: Table = Table("unit-ids");
const PARKED: Table = Table("parked-units");

type Asked = Result<Vec<(Item, Fact)>, StoreError>;

/// What a store shows.
#[derive(Debug, Default)]
pub struct Found {
    /// What it returned.
    pub facts: Facts,
    /// What it said it cannot return.
    pub errors: Vec<String>,
}

impl Found {
    fn keep(&mut self, outcome: Asked) {
        match outcome {
            Ok(some) => self.facts.extend(some),
            Err(error) => self.errors.push(error.to_string()),
        }
    }
}

/// Asks a store for everything in it.
pub fn look(store: &Store) -> Found {
    let mut found = Found::default();
    let rows = match store.read() {
        Ok(rows) => rows,
        Err(error) => {
            found.errors.push(error.to_string());
            return found;
        }
    };
    found.keep(numbers(&rows, ENTRIES, Item::Entry));
    found.keep(numbers(&rows, ROWS, Item::Row));
    found.keep(numbers(&rows, APPLIED, Item::Applied));
    for lane in 0..LANES {
        found.keep(lane::state(&rows, lane).map(|row| vec![(Item::Lane(lane), Fact::Lane(row))]));
        found.keep(lane::units(&rows, lane, 0, usize::MAX).map(|units| {
            units.into_iter().map(|(at, unit)| (Item::Unit(lane, at), Fact::Unit(unit))).collect()
        }));
        found.keep(confirms(&rows, lane));
        found.keep(lane::gone(&rows, lane, 0, usize::MAX).map(|gone| {
            gone.into_iter().map(|(at, gone)| (Item::Gone(lane, at), Fact::Gone(gone.id))).collect()
        }));
        found.keep(lane::rejected(&rows, lane, 0).map(|rejected| {
            rejected.into_iter().map(|(at, row)| (Item::Rejected(lane, at), Fact::Rejected(row))).collect()
        }));
    }
    found.keep(lane::kept_octets(&rows).map(|octets| vec![(Item::Kept, Fact::Octets(octets))]));
    found.keep(
        lane::waiting(&rows, usize::MAX)
            .map(|units| units.into_iter().map(|unit| (Item::Waiting(unit.id), Fact::Unit(unit))).collect()),
    );
    found.keep(rows.prefix::<QueuedUnit>(DEFERRED, &[], usize::MAX).map(|units| {
        let item = |key: &[u8], unit: &QueuedUnit| Item::Deferred(number_of(key), unit.id);
        units.into_iter().map(|(key, unit)| (item(&key, &unit), Fact::Unit(unit))).collect()
    }));
    found.keep(lane::dead_letters(&rows, usize::MAX).map(|letters| {
        let fact = |l: lane::DeadLetter| Fact::Dead((l.unit, l.reason, l.at, l.inbound));
        letters.into_iter().map(|letter| (Item::Dead(letter.unit.id), fact(letter))).collect()
    }));
    found.keep(
        rows.raw_range(IDS, &[], None, usize::MAX, false)
            .map(|ids| ids.into_iter().map(|(key, _)| (Item::Seen(id(&key)), Fact::Seen)).collect()),
    );
    found.keep(parked(&rows));
    match rows.raw_range(BODIES, &[], None, usize::MAX, false) {
        Err(error) => found.keep(Err(error)),
        Ok(bodies) => bodies.iter().for_each(|(key, _)| found.keep(body(store, &rows, number_of(key)))),
    }
    found
}

fn id(key: &[u8]) -> Id {
    key.first_chunk().copied().unwrap_or_default()
}

fn numbers(rows: &Snapshot, table: Table, item: fn(u64) -> Item) -> Asked {
    let found = rows.range::<Numbers>(table, &[], None, usize::MAX)?;
    Ok(found.into_iter().map(|(key, row)| (item(number_of(&key)), Fact::Numbers(row))).collect())
}

fn confirms(rows: &Snapshot, lane: u8) -> Asked {
    let found = rows.raw_range(CONFIRMS, &[lane], Some(&[lane + 1]), usize::MAX, false)?;
    let fact = |number| Ok((Item::Confirm(lane, number), Fact::Reach(lane::reach(rows, lane, number)?)));
    found.iter().map(|(key, _)| fact(number_of(&key[1..]))).collect()
}

fn parked(rows: &Snapshot) -> Asked {
    let mut places = BTreeMap::<Id, usize>::new();
    let found = rows.range::<Parked>(PARKED, &[], None, usize::MAX)?;
    let next = |(key, parked): (Vec<u8>, Parked)| {
        let place = places.entry(id(&key)).or_default();
        *place += 1;
        (Item::Parked(id(&key), *place - 1), Fact::Parked(parked))
    };
    Ok(found.into_iter().map(next).collect())
}

fn body(store: &Store, rows: &Snapshot, number: u64) -> Asked {
    let key = BodyKey(body_key(number));
    let bytes = store.body(key).and_then(BodyReader::read_all)?;
    let references = rows.body_use(key)?.map_or(0, |used| used.references);
    Ok(vec![(Item::Body(number), Fact::Body(is_body(number, &bytes), references))])
}
