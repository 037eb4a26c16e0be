//! Space: how much of each segment is alive, and giving back what is not.

use super::body::{BODIES, BodyRow};
use super::segment::Extent;
use super::txn::{Rows, Table, Txn};
use super::{Store, StoreError};

pub(super) const SEGMENTS: Table = Table("segments");
/// A segment with less than this share alive (in percent) is emptied into the current one.
const WORTH_COMPACTING_PERCENT: u64 = 50;
/// Records moved in one commit.
const MOVES_MAX: usize = 64;

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize, Clone, Copy, Debug)]
struct SegmentRow {
    live_bytes: u64,
}
crate::row!(SegmentRow, 1);

pub(super) fn add(txn: &mut Txn<'_>, segment: u32, length: u32) -> Result<(), StoreError> {
    let key = segment.to_be_bytes();
    let live = txn.get::<SegmentRow>(SEGMENTS, &key)?.map_or(0, |row| row.live_bytes);
    txn.put(SEGMENTS, &key, &SegmentRow { live_bytes: live + u64::from(length) })
}

pub(super) fn subtract(txn: &mut Txn<'_>, segment: u32, length: u32) -> Result<(), StoreError> {
    let key = segment.to_be_bytes();
    let live = txn.get::<SegmentRow>(SEGMENTS, &key)?.map_or(0, |row| row.live_bytes);
    match live.saturating_sub(u64::from(length)) {
        0 => {
            txn.emptied.push(segment);
            txn.delete(SEGMENTS, &key)
        }
        live_bytes => txn.put(SEGMENTS, &key, &SegmentRow { live_bytes }),
    }
}

pub(super) fn is_live(rows: &impl Rows, segment: u32) -> Result<bool, StoreError> {
    Ok(rows.raw(SEGMENTS, &segment.to_be_bytes())?.is_some())
}

fn all(rows: &impl Rows) -> Result<Vec<(u32, u64)>, StoreError> {
    let rows = rows.range::<SegmentRow>(SEGMENTS, &[], None, usize::MAX)?;
    let number = |key: &[u8]| key.try_into().map(u32::from_be_bytes).unwrap_or_default();
    Ok(rows.iter().map(|(key, row)| (number(key), row.live_bytes)).collect())
}

/// The segments in which something lives.
pub(super) fn live_segments(rows: &impl Rows) -> Result<Vec<u32>, StoreError> {
    Ok(all(rows)?.into_iter().map(|(number, _)| number).collect())
}

/// Bytes that live, in all segments.
pub(super) fn live_bytes(rows: &impl Rows) -> Result<u64, StoreError> {
    Ok(all(rows)?.iter().map(|(_, live)| live).sum())
}

/// Gives back all that can be: also from the segment that grows, which is ended if most of it is dead.
pub(super) async fn reclaim(store: &Store) -> Result<(), StoreError> {
    store.segments.end_current(|number| {
        let row = store.read()?.get::<SegmentRow>(SEGMENTS, &number.to_be_bytes())?;
        Ok(row.map_or(0, |row| row.live_bytes))
    })?;
    while compact(store).await? {}
    // Space goes with a commit, and there may be none for a while.
    store.commit(|_| Ok::<_, StoreError>(())).await.map(drop)
}

pub(super) async fn compact(store: &Store) -> Result<bool, StoreError> {
    let current = store.segments.current();
    let mut sparse = Vec::new();
    for (number, live) in all(&store.read()?)? {
        let length = store.segments.length(number)?;
        if number != current && live * 100 < length * WORTH_COMPACTING_PERCENT {
            sparse.push((live, number));
        }
    }
    sparse.sort_unstable();
    for (_, number) in sparse {
        // A segment whose live records are damaged yields nothing, and is not looked at for ever.
        if empty(store, number).await? > 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Moves what lives in a segment into the current one. Returns how many records that was.
async fn empty(store: &Store, number: u32) -> Result<usize, StoreError> {
    let mut moved = 0;
    let mut candidates = Vec::new();
    store.segments.scan(number, |extent, record| candidates.push((extent, record.key)))?;
    for some in candidates.chunks(MOVES_MAX) {
        let mut moves = Vec::new();
        for (old, key) in some {
            let named = store.read()?.get::<BodyRow>(BODIES, &key.0)?;
            if named.is_some_and(|row| row.extents().any(|extent| extent == *old)) {
                let (new, pin) = store.segments.append_again(*old)?;
                moves.push((key.0, *old, new, pin));
            }
        }
        moved += moves.len();
        let rename = move |txn: &mut Txn<'_>| {
            moves.iter().try_for_each(|(key, old, new, _)| move_piece(txn, *key, *old, *new))
        };
        store.commit(rename).await?;
    }
    Ok(moved)
}

fn move_piece(txn: &mut Txn<'_>, key: [u8; 32], old: Extent, new: Extent) -> Result<(), StoreError> {
    let Some(mut row) = txn.get::<BodyRow>(BODIES, &key)? else { return Ok(()) };
    let Some(place) = row.extents().position(|extent| extent == old) else { return Ok(()) };
    row.pieces[place] = (new.segment, new.offset, new.length);
    subtract(txn, old.segment, old.length)?;
    add(txn, new.segment, new.length)?;
    txn.put(BODIES, &key, &row)
}
