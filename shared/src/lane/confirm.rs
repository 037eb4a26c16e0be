//! What becomes of units that the partner has dealt with: kept, dead, or offered again.

use rkyv::{Archive, Deserialize, Serialize};

use super::safety::{record, trim};
use super::{
    LanePosition, LoggedUnit, QueuedUnit, Rebase, TRANSMISSION, behind, let_go, numbered, offered_again,
    queue, set_state, state, unconfirmed_ids, waiting_unit,
};
use crate::fault::{SeededFault, seeded};
use crate::store::{BodyKey, Rows, StoreError, Table, Txn};

pub(super) const DEFERRED: Table = Table("deferred");
const DEAD: Table = Table("dead-letters");

/// A deferred unit is offered again after this many milliseconds.
pub const OFFER_AGAIN_MILLIS: u64 = 5_000;
/// Deferred units that are queued again in one commit, or counted at once.
const DUE_AT_ONCE: usize = 1000;

/// A unit that will never be applied.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The unit. It holds its body until the letter is dropped.
    pub unit: QueuedUnit,
    /// Why, for a person.
    pub reason: String,
    /// When, milliseconds since 1970.
    pub at: u64,
    /// It came from the partner and was parked here for a unit that was refused; otherwise the partner
    /// refused it.
    pub inbound: bool,
}
crate::row!(DeadLetter, 2);

/// What the partner did not apply: number and reason.
pub type Reasons = [(u64, String)];

/// The partner has stored everything up to `position`: its units are the safety store's now. Those it
/// refused become dead letters, those it deferred are queued again later. A confirm that comes again
/// changes nothing.
pub fn confirmed(
    txn: &mut Txn<'_>,
    lane: u8,
    position: LanePosition,
    refused: &Reasons,
    deferred: &Reasons,
    now: u64,
) -> Result<(), StoreError> {
    let mut row = state(txn, lane)?;
    if position.number <= row.confirmed.number {
        return Ok(());
    }
    let within = |number: u64| number > row.confirmed.number && number <= position.number;
    for (number, reason) in refused.iter().filter(|(number, _)| within(*number)) {
        if let Some(unit) = move_out(txn, lane, *number)? {
            bury(txn, &DeadLetter { unit, reason: reason.clone(), at: now, inbound: false })?;
        }
    }
    for (number, _) in deferred.iter().filter(|(number, _)| within(*number)) {
        if let Some(unit) = move_out(txn, lane, *number)? {
            let due = [&(now + OFFER_AGAIN_MILLIS).to_be_bytes()[..], &unit.id].concat();
            txn.put(DEFERRED, &due, &offered_again(unit))?;
        }
    }
    row.confirmed = position;
    row.rebase = Rebase::None;
    record(txn, lane, position)?;
    set_state(txn, lane, &row)?;
    if seeded(SeededFault::SafetyCutShort) {
        trim(txn, lane, 0, 0)?;
    }
    Ok(())
}

/// Marks a unit of the log as living on elsewhere, with a reference of its own to its body.
pub(super) fn move_out(txn: &mut Txn<'_>, lane: u8, number: u64) -> Result<Option<QueuedUnit>, StoreError> {
    let key = numbered(lane, number);
    let Some(mut logged) = txn.get::<LoggedUnit>(TRANSMISSION, &key)? else { return Ok(None) };
    if logged.moved {
        return Ok(None);
    }
    logged.moved = true;
    txn.put(TRANSMISSION, &key, &logged)?;
    if let Some(body) = logged.unit.body.key() {
        txn.reference_body(BodyKey(body))?;
    }
    Ok(Some(logged.unit))
}

/// Keeps a dead letter; it holds its unit's body.
pub(super) fn bury(txn: &mut Txn<'_>, letter: &DeadLetter) -> Result<(), StoreError> {
    txn.put(DEAD, &letter.unit.id, letter)
}

/// What has become of a unit that was queued once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outstanding {
    /// It is not confirmed yet, or will be offered again.
    Waits,
    /// The partner refused it.
    Dead,
    /// The partner has applied it.
    Confirmed,
}

/// What has become of the unit `id`, which was queued on `lane`. Looks through all that is not confirmed.
pub fn outstanding(rows: &impl Rows, lane: u8, id: &[u8; 16]) -> Result<Outstanding, StoreError> {
    if waiting_unit(rows, id)?.is_some() {
        return Ok(Outstanding::Waits);
    }
    if dead_letter(rows, id)?.is_some() {
        return Ok(Outstanding::Dead);
    }
    let deferred = rows.prefix::<QueuedUnit>(DEFERRED, &[], usize::MAX)?;
    let waits = deferred.iter().any(|(_, unit)| unit.id == *id)
        || unconfirmed_ids(rows, lane, usize::MAX)?.iter().any(|(_, queued)| queued == id);
    Ok(if waits { Outstanding::Waits } else { Outstanding::Confirmed })
}

/// Whether [`queue_due`] would queue anything.
pub fn is_due(rows: &impl Rows, now: u64) -> Result<bool, StoreError> {
    let due_at = |backwards| -> Result<Option<u64>, StoreError> {
        let found = rows.raw_range(DEFERRED, &[], None, 1, backwards)?;
        Ok(found.first().and_then(|(key, _)| key.first_chunk()).map(|due| u64::from_be_bytes(*due)))
    };
    Ok(due_at(false)?.is_some_and(|due| due <= now)
        || due_at(true)?.is_some_and(|due| due > now.saturating_add(OFFER_AGAIN_MILLIS)))
}

/// Units that wait to be offered again, by lane.
pub fn deferred(rows: &impl Rows) -> Result<[u64; 4], StoreError> {
    let (mut deferred, mut cursor) = ([0; 4], Some(Vec::new()));
    while let Some(from) = cursor.take() {
        let found = rows.range::<QueuedUnit>(DEFERRED, &from, None, DUE_AT_ONCE)?;
        cursor = behind(&found, DUE_AT_ONCE);
        for (_, unit) in found {
            deferred.get_mut(usize::from(unit.lane)).into_iter().for_each(|units| *units += 1);
        }
    }
    Ok(deferred)
}

/// Queues again, under new numbers and the same ids, the deferred units that are due. Those that are due
/// in a future too far off were deferred before the clock went back: they are due as well.
pub fn queue_due(txn: &mut Txn<'_>, now: u64) -> Result<usize, StoreError> {
    let mut due = txn.range::<QueuedUnit>(DEFERRED, &[], Some(&(now + 1).to_be_bytes()), DUE_AT_ONCE)?;
    let too_far = now.saturating_add(OFFER_AGAIN_MILLIS + 1).to_be_bytes();
    due.extend(txn.range::<QueuedUnit>(DEFERRED, &too_far, None, DUE_AT_ONCE)?);
    for (key, unit) in &due {
        txn.delete(DEFERRED, key)?;
        queue(txn, unit)?;
    }
    Ok(due.len())
}

/// Dead letters, oldest first.
pub fn dead_letters(rows: &impl Rows, max: usize) -> Result<Vec<DeadLetter>, StoreError> {
    Ok(rows.prefix(DEAD, &[], max)?.into_iter().map(|(_, letter)| letter).collect())
}

/// Those whose ids begin with `prefix`.
pub fn dead_letters_under(rows: &impl Rows, prefix: &[u8]) -> Result<Vec<DeadLetter>, StoreError> {
    Ok(rows.prefix(DEAD, prefix, usize::MAX)?.into_iter().map(|(_, letter)| letter).collect())
}

/// How many dead letters there are.
pub fn dead_letter_count(rows: &impl Rows) -> Result<u64, StoreError> {
    rows.count(DEAD)
}

/// One dead letter.
pub fn dead_letter(rows: &impl Rows, id: &[u8; 16]) -> Result<Option<DeadLetter>, StoreError> {
    rows.get(DEAD, id)
}

/// Offers a dead letter to the partner again, under a new number and the same id. `None` if there is no
/// such letter; one that came from the partner cannot be offered to it and is returned as it is.
pub fn retry_dead(txn: &mut Txn<'_>, id: &[u8; 16]) -> Result<Option<DeadLetter>, StoreError> {
    let Some(letter) = dead_letter(txn, id)? else { return Ok(None) };
    if !letter.inbound {
        txn.delete(DEAD, id)?;
        queue(txn, &offered_again(letter.unit.clone()))?;
    }
    Ok(Some(letter))
}

/// Drops a dead letter and what it holds.
pub fn drop_dead(txn: &mut Txn<'_>, id: &[u8; 16]) -> Result<Option<DeadLetter>, StoreError> {
    let Some(letter) = dead_letter(txn, id)? else { return Ok(None) };
    txn.delete(DEAD, id)?;
    let_go(txn, &letter.unit)?;
    Ok(Some(letter))
}
