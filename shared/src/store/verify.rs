//! Looking over everything stored, and making the index anew from the segments.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::body::{BODIES, BodyKey, BodyRow, Stored};
use super::marker::Marker;
use super::segment::{self, Extent, Pin};
use super::txn::{Rows, Txn};
use super::{Disk, Store, StoreError, index};

/// What [`verify`] found.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Verdict {
    /// Rows of the index that were checked.
    pub rows: u64,
    /// Bodies that were read and checked.
    pub bodies: u64,
    /// Their length in bytes.
    pub bytes: u64,
    /// What is damaged, for a person.
    pub damage: Vec<String>,
}

/// Checks every page of the index, and reads every row and every body and checks their hashes. The store
/// is not to be written to meanwhile.
pub fn verify(store: &Store) -> Result<Verdict, StoreError> {
    let mut verdict = Verdict::default();
    verdict.damage.extend(index::check(store.disk.as_ref()).err().map(|error| error.to_string()));
    let snapshot = store.read()?;
    snapshot.check_rows(|row| {
        verdict.rows += 1;
        verdict.damage.extend(row.err().map(|error| error.to_string()));
    })?;
    for (key, _) in snapshot.range::<BodyRow>(BODIES, &[], None, usize::MAX)? {
        let Ok(key) = key.try_into().map(BodyKey) else { continue };
        match read_through(store, key) {
            Ok(bytes) => verdict.bytes += bytes,
            Err(error) => verdict.damage.push(error.to_string()),
        }
        verdict.bodies += 1;
    }
    Ok(verdict)
}

fn read_through(store: &Store, key: BodyKey) -> Result<u64, StoreError> {
    let mut reader = store.body(key)?;
    let mut bytes = 0;
    while let Some(piece) = reader.next_piece()? {
        bytes += piece.len() as u64;
    }
    Ok(bytes)
}

/// A whole body found in the segments.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// What it was kept under.
    pub key: BodyKey,
    /// The kind it was written with.
    pub kind: u8,
    /// The notes it was finished with.
    pub notes: Vec<u8>,
}

#[derive(Default)]
struct Pieces {
    at: BTreeMap<u32, (Extent, u64)>,
    end: Option<(u32, u8, Vec<u8>)>,
}

/// Makes the index anew from the segments, setting the old one aside. `restore` is called once for
/// each whole body, within the commit that keeps it, and writes the node's own rows for it. Returns
/// the store and the number of bodies kept. Bodies are restored by kind, rising. Bodies that had been removed but whose space was not yet
/// given back come back too: better twice than never.
pub fn rebuild(
    disk: Arc<dyn Disk>,
    restore: impl Fn(&mut Txn<'_>, &Recovered) -> Result<(), StoreError> + Clone + Send + 'static,
) -> Result<(Store, u64), StoreError> {
    index::set_aside(disk.as_ref())?;
    let numbers = segment::list(disk.as_ref())?;
    let next = numbers.last().map_or(1, |last| last + 1);
    let index = index::open(disk.as_ref(), false)?;
    let marker = Marker::open(disk.as_ref(), &numbers, next)?;
    let store = Store::on(disk, index, next, segment::SEGMENT_BYTES, marker)?;

    let mut found = BTreeMap::<BodyKey, Pieces>::new();
    for number in &numbers {
        store.segments.scan(*number, |extent, record| {
            let pieces = found.entry(record.key).or_default();
            pieces.at.insert(record.piece, (extent, record.bytes.len() as u64));
            if record.last {
                pieces.end = Some((record.piece, record.kind, record.notes));
            }
        })?;
    }
    let mut kept = 0;
    let mut found: Vec<_> = found.into_iter().collect();
    found.sort_by_key(|(key, pieces)| (pieces.end.as_ref().map(|(_, kind, _)| *kind), *key));
    for (key, pieces) in found {
        let Some((last, kind, notes)) = pieces.end else { continue };
        let whole = pieces.at.keys().copied().eq(0..=last);
        if !whole {
            continue;
        }
        let length = pieces.at.values().map(|(_, bytes)| bytes).sum();
        let extents = pieces.at.values().map(|(at, _)| (*at, Pin::of(&store.segments, at.segment))).collect();
        let stored = Stored::found(key, kind, length, extents);
        let recovered = Recovered { key, kind, notes };
        let restore = restore.clone();
        store.commit_blocking(move |txn| {
            txn.keep_body(&stored)?;
            restore(txn, &recovered)
        })?;
        kept += 1;
    }
    Ok((store, kept))
}
