//! The safety store: confirmed units, kept for a partner that is restored from a backup.
//!
//! Beside the units lies one row per recorded confirm: its chain digest, from which a position inside
//! the safety store is checked, and its time, by which the store is trimmed. What was trimmed leaves its
//! id behind, so that "older than the safety store" can name what may be missing.

use rkyv::{Archive, Deserialize, Serialize};

use super::missing::lacking;
use super::{
    LANES_MAX, LanePosition, LaneRow, LoggedUnit, QueuedUnit, TRANSMISSION, let_go, number_of, numbered,
    octets, set_state, state,
};
use crate::age::lived;
use crate::store::{Rows, Store, StoreError, Table, Txn};

const CONFIRMS: Table = Table("confirms");
const GONE: Table = Table("gone");

/// Units that one call of [`trim`] removes.
const TRIMMED_AT_ONCE: usize = 2000;
/// Ids of trimmed units that are kept per lane.
const GONE_MAX: u64 = 1_000_000;

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug)]
struct ConfirmRow {
    chain: [u8; 32],
    /// How long this node had lived, in milliseconds.
    at: u64,
}
crate::row!(ConfirmRow, 1);

/// A unit whose content has been trimmed from the safety store.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone {
    /// Its id: of a message from outside, the message's.
    pub id: [u8; 16],
    /// Octets of its head and body.
    pub octets: u64,
}
crate::row!(Gone, 2);

/// Notes a confirmed position.
pub(super) fn record(txn: &mut Txn<'_>, lane: u8, position: LanePosition) -> Result<(), StoreError> {
    let row = ConfirmRow { chain: position.chain, at: lived(txn)? };
    txn.put(CONFIRMS, &numbered(lane, position.number), &row)
}

/// How far back a safety store reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The receiver's chain can be recomputed from this position.
    From(LanePosition),
    /// What followed is here, and cannot be proved.
    Unproved,
    /// Something that followed is gone.
    Gone,
}

/// Whether a receiver that stands at `number` can be given again what followed.
pub fn reach(rows: &impl Rows, lane: u8, number: u64) -> Result<Reach, StoreError> {
    let row = state(rows, lane)?;
    if lacked_after(&row, number) < row.trimmed {
        return Ok(Reach::Gone);
    }
    if is_unproved(&row, number) {
        return Ok(Reach::Unproved);
    }
    let end = numbered(lane, number.saturating_add(1));
    let found = rows.range_backwards::<ConfirmRow>(CONFIRMS, &[lane], Some(&end), 1)?;
    let position = found.first().map(|(key, row)| LanePosition { number: number_of(key), chain: row.chain });
    // Before the first confirm of a lane stands its beginning.
    Ok(Reach::From(position.unwrap_or_default()))
}

/// Whether this node, which was restored, does not know which of its units a partner with this number has.
fn is_unproved(row: &LaneRow, number: u64) -> bool {
    number > row.unproved_after && number < row.unproved_to
}

/// Behind which number of its log a partner that stands at `number` may lack units: what it had of a life of this node
/// that is lost lies in the log under other numbers, behind the last proved one.
pub(super) fn lacked_after(row: &LaneRow, number: u64) -> u64 {
    if is_unproved(row, number) { row.unproved_after } else { number }
}

/// The newest units of a lane's safety store that the partner has applied, at most `max`.
pub fn applied(rows: &impl Rows, lane: u8, max: usize) -> Result<Vec<QueuedUnit>, StoreError> {
    let row = state(rows, lane)?;
    let (first, end) =
        (numbered(lane, row.trimmed + 1), numbered(lane, row.confirmed.number.saturating_add(1)));
    let newest = rows.range_backwards::<LoggedUnit>(TRANSMISSION, &first, Some(&end), max)?;
    Ok(newest.into_iter().filter(|(_, logged)| !logged.moved).map(|(_, logged)| logged.unit).collect())
}

/// Trims every lane of a store: see [`trim`].
pub async fn trim_all(store: &Store, before: u64, bytes_max: u64) -> Result<(), StoreError> {
    for lane in 0..LANES_MAX {
        while is_due(&store.read()?, lane, before, bytes_max)? {
            store.commit(move |txn| trim(txn, lane, before, bytes_max)).await?;
        }
    }
    Ok(())
}

/// Whether [`trim`] would remove anything.
fn is_due(rows: &impl Rows, lane: u8, before: u64, bytes_max: u64) -> Result<bool, StoreError> {
    let row = state(rows, lane)?;
    let end = numbered(lane, row.confirmed.number.saturating_add(1));
    let oldest = rows.range::<LoggedUnit>(TRANSMISSION, &numbered(lane, row.trimmed + 1), Some(&end), 1)?;
    let Some((key, oldest)) = oldest.first() else { return Ok(false) };
    let over = confirmed_bytes(rows, lane, &row)?.saturating_sub(oldest.bytes_before) > bytes_max;
    let confirm = rows.range::<ConfirmRow>(CONFIRMS, key, Some(&end), 1)?;
    let aged = confirm.first().is_some_and(|(_, confirm)| confirm.at < before);
    Ok(over || (aged && lacking(rows, lane)?.is_none()))
}

/// Octets of heads and bodies that the safety stores of all lanes hold.
pub fn kept_octets(rows: &impl Rows) -> Result<u64, StoreError> {
    let mut octets = 0;
    for lane in 0..LANES_MAX {
        let row = state(rows, lane)?;
        let end = numbered(lane, row.confirmed.number.saturating_add(1));
        let first = numbered(lane, row.trimmed + 1);
        let oldest = rows.range::<LoggedUnit>(TRANSMISSION, &first, Some(&end), 1)?;
        if let Some((_, oldest)) = oldest.first() {
            octets += confirmed_bytes(rows, lane, &row)?.saturating_sub(oldest.bytes_before);
        }
    }
    Ok(octets)
}

/// Octets that the safety store of each lane may hold now, of `most`. Room for mail comes before room for a replay: where
/// the disk lacks it, all of them together hold half of what they held, the newest, until there is some.
pub fn safety_octets(rows: &impl Rows, most: u64, lacks_room: bool) -> Result<u64, StoreError> {
    Ok(if lacks_room { most.min(kept_octets(rows)? / (2 * u64::from(LANES_MAX))) } else { most })
}

/// Octets of all units of a lane up to the last confirmed one.
fn confirmed_bytes(rows: &impl Rows, lane: u8, row: &LaneRow) -> Result<u64, StoreError> {
    let next = numbered(lane, row.confirmed.number.saturating_add(1));
    Ok(rows.get::<LoggedUnit>(TRANSMISSION, &next)?.map_or(row.bytes, |next| next.bytes_before))
}

/// Removes what had been confirmed when this node had lived for `before` milliseconds, and the oldest beyond
/// `bytes_max` octets. Returns how many units that was; at most some at a time, so call it until that
/// is 0. Nothing ages while an operator has to decide about what is gone of the lane.
pub fn trim(txn: &mut Txn<'_>, lane: u8, before: u64, bytes_max: u64) -> Result<usize, StoreError> {
    let (mut row, decided) = (state(txn, lane)?, lacking(txn, lane)?.is_none());
    let end = numbered(lane, row.confirmed.number.saturating_add(1));
    let oldest = txn.range::<ConfirmRow>(CONFIRMS, &[lane], Some(&end), TRIMMED_AT_ONCE)?;
    let aged = oldest.iter().take_while(|(_, confirm)| confirm.at < before).last();
    let aged = aged.filter(|_| decided).map_or(0, |(key, _)| number_of(key));
    let from = numbered(lane, row.trimmed + 1);
    let units = txn.range::<LoggedUnit>(TRANSMISSION, &from, Some(&end), TRIMMED_AT_ONCE)?;
    let confirmed_bytes = confirmed_bytes(txn, lane, &row)?;
    let mut trimmed = 0;
    for (key, logged) in units {
        let number = number_of(&key);
        if number > aged && confirmed_bytes.saturating_sub(logged.bytes_before) <= bytes_max {
            break;
        }
        txn.delete(TRANSMISSION, &key)?;
        // What was moved lives on elsewhere.
        if !logged.moved {
            let octets = octets(txn, &logged.unit)?;
            txn.put(GONE, &key, &Gone { id: logged.unit.id, octets })?;
        }
        let_go(txn, &logged.unit)?;
        row.trimmed = number;
        trimmed += 1;
    }
    if trimmed > 0 {
        forget(txn, lane, row.trimmed)?;
        set_state(txn, lane, &row)?;
    }
    Ok(trimmed)
}

/// Forgets confirms before the last one at or below `trimmed`, and the oldest of many ids.
fn forget(txn: &mut Txn<'_>, lane: u8, trimmed: u64) -> Result<(), StoreError> {
    let end = numbered(lane, trimmed.saturating_add(1));
    let last = txn.range_backwards::<ConfirmRow>(CONFIRMS, &[lane], Some(&end), 1)?;
    if let Some((last, _)) = last.first() {
        for (key, _) in txn.range::<ConfirmRow>(CONFIRMS, &[lane], Some(last), TRIMMED_AT_ONCE)? {
            txn.delete(CONFIRMS, &key)?;
        }
    }
    let end = numbered(lane, trimmed.saturating_sub(GONE_MAX));
    for (key, _) in txn.range::<Gone>(GONE, &[lane], Some(&end), TRIMMED_AT_ONCE)? {
        txn.delete(GONE, &key)?;
    }
    Ok(())
}

/// Numbers and ids of trimmed units of a lane above number `after`, at most `max`.
pub fn gone(rows: &impl Rows, lane: u8, after: u64, max: usize) -> Result<Vec<(u64, Gone)>, StoreError> {
    let from = numbered(lane, after.saturating_add(1));
    let found = rows.range::<Gone>(GONE, &from, Some(&[lane + 1]), max)?;
    Ok(found.into_iter().map(|(key, row)| (number_of(&key), row)).collect())
}
