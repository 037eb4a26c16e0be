//! The receiving half: units applied once, in order; the position, what was rejected, what is parked.

use std::time::Duration;

use rkyv::{Archive, Deserialize, Serialize};

use super::confirm::{DeadLetter, bury, dead_letter, dead_letter_count};
use super::{LanePosition, QueuedBody, QueuedUnit, number_of, numbered, set_state, state};
use crate::age::lived;
use crate::fault::{SeededFault, seeded};
use crate::store::{Rows, StoreError, Table, Txn, behind};

const REJECTED: Table = Table("rejected");
const IDS: Table = Table("unit-ids");
const PARKED: Table = Table("parked-units");
/// The ids of what is parked.
const PARKED_IDS: Table = Table("parked-ids");

/// How far behind the newest number rejections are remembered.
const REJECTED_MAX: u64 = 100_000;
/// How long the id of a unit is remembered at least: 30 days.
const IDS_KEPT_MIN: Duration = Duration::from_secs(30 * 24 * 3_600);
/// Units that are parked for one target, and in all.
const PARKED_PER_TARGET: usize = 16;
const PARKED_IN_ALL: usize = 10_000;
/// With so many dead letters nothing more is parked.
const DEAD_MAX: u64 = 10_000;
/// Octets of a unit that is parked: what may wait is a fact about another unit, and all of it is looked
/// through at once.
const PARKED_HEAD_BYTES_MAX: usize = 1024;

/// Why a unit is not applied.
#[derive(Debug, thiserror::Error)]
pub enum NotApplied {
    /// Never.
    #[error("{0}")]
    Never(String),
    /// Not now.
    #[error("{0}")]
    Later(String),
    /// The store failed: the whole batch is tried again.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<crate::seal::Sealed> for NotApplied {
    fn from(error: crate::seal::Sealed) -> Self {
        Self::Never(error.to_string())
    }
}

impl From<crate::chunk::Broken> for NotApplied {
    fn from(error: crate::chunk::Broken) -> Self {
        Self::Never(error.to_string())
    }
}

/// A unit that has arrived, as far as its order and its repeats are concerned.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// The lane's index.
    pub lane: u8,
    /// Its number there.
    pub number: u64,
    /// Its id.
    pub id: [u8; 16],
    /// A unit that has to be applied before it.
    pub after: Option<[u8; 16]>,
    /// What it says, if that is all of it; a unit with a body cannot be parked.
    pub alone: Option<&'a [u8]>,
}

/// Takes one unit of a batch: applies it by `apply`, unless its id has been applied before; parks it
/// while what it follows is not here (as `known` knows besides the ids of units); then applies what was
/// parked for it by `parked`. Returns what its sender has to be told, and remembers that for as long as
/// the sender may ask.
pub fn take(
    txn: &mut Txn<'_>,
    arrival: Arrival<'_>,
    now: u64,
    known: impl Fn(&Txn<'_>, &[u8; 16]) -> Result<bool, StoreError>,
    apply: impl FnOnce(&mut Txn<'_>) -> Result<(), NotApplied>,
    mut parked: impl FnMut(&mut Txn<'_>, &Parked) -> Result<(), NotApplied>,
) -> Result<Option<RejectedRow>, StoreError> {
    let Arrival { lane, number, id, after, alone } = arrival;
    if is_here(txn, &id)? && !seeded(SeededFault::DedupeDropped) {
        return Ok(None);
    }
    let lived = lived(txn)?;
    let not_applied = match missing(txn, after, known)? {
        Some(target) => match alone.map(|head| Parked { id, lane, head: head.into(), at: lived }) {
            Some(unit) if park(txn, &target, &unit)? => return Ok(None),
            _ => NotApplied::Later("what it follows is not here yet".into()),
        },
        None => match undone_unless_applied(txn, apply) {
            Ok(()) => {
                remember(txn, &id, lived)?;
                // What was parked may itself be what others are parked for.
                let mut targets = vec![id];
                while let Some(target) = targets.pop() {
                    for unit in parked_after(txn, &target)? {
                        if is_here(txn, &unit.id)? {
                            continue;
                        }
                        match undone_unless_applied(txn, |txn| parked(txn, &unit)) {
                            Ok(()) => {
                                remember(txn, &unit.id, lived)?;
                                targets.push(unit.id);
                            }
                            Err(NotApplied::Store(error)) => return Err(error),
                            Err(why) => bury_parked(txn, unit, why.to_string(), now)?,
                        }
                    }
                }
                return Ok(None);
            }
            Err(why) => why,
        },
    };
    let row = match not_applied {
        NotApplied::Store(error) => return Err(error),
        NotApplied::Later(reason) => RejectedRow { later: true, reason },
        NotApplied::Never(reason) => {
            for unit in parked_after(txn, &id)? {
                bury_parked(txn, unit, format!("what it follows was refused: {reason}"), now)?;
            }
            RejectedRow { later: false, reason }
        }
    };
    reject(txn, lane, number, &row)?;
    Ok(Some(row))
}

fn missing(
    txn: &Txn<'_>,
    after: Option<[u8; 16]>,
    known: impl Fn(&Txn<'_>, &[u8; 16]) -> Result<bool, StoreError>,
) -> Result<Option<[u8; 16]>, StoreError> {
    match after {
        Some(target) if !is_here(txn, &target)? && !known(txn, &target)? => Ok(Some(target)),
        _ => Ok(None),
    }
}

fn undone_unless_applied(
    txn: &mut Txn<'_>,
    apply: impl FnOnce(&mut Txn<'_>) -> Result<(), NotApplied>,
) -> Result<(), NotApplied> {
    let mark = txn.mark();
    match apply(txn) {
        Err(why @ (NotApplied::Never(_) | NotApplied::Later(_))) => {
            txn.undo(mark)?;
            Err(why)
        }
        other => other,
    }
}

/// What follows on `from` has been applied in this commit, up to `position`.
///
/// # Errors
/// [`StoreError::Moved`] if the lane does not stand at `from`: what failed before it would be passed over for ever.
pub fn received(
    txn: &mut Txn<'_>,
    lane: u8,
    from: LanePosition,
    position: LanePosition,
) -> Result<(), StoreError> {
    let mut row = state(txn, lane)?;
    if row.received != from {
        return Err(StoreError::Moved);
    }
    row.received = position;
    set_state(txn, lane, &row)
}

/// Why a unit was not applied here.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct RejectedRow {
    /// Offer it again later (deferred), or never (refused).
    pub later: bool,
    /// For a person.
    pub reason: String,
}
crate::row!(RejectedRow, 1);

/// Remembers that a unit was not applied, in the commit that stores the position past it: the
/// confirm that says so may be lost and have to be said again.
fn reject(txn: &mut Txn<'_>, lane: u8, number: u64, row: &RejectedRow) -> Result<(), StoreError> {
    // The sender holds at most a window of unconfirmed units: what is far behind has been told.
    let old = txn.range::<RejectedRow>(
        REJECTED,
        &[lane],
        Some(&numbered(lane, number.saturating_sub(REJECTED_MAX))),
        100,
    )?;
    for (key, _) in old {
        txn.delete(REJECTED, &key)?;
    }
    txn.put(REJECTED, &numbered(lane, number), row)
}

/// The partner's numbers begin anew: what it was once told of others is no answer to them.
pub(super) fn forget_rejected(txn: &mut Txn<'_>, lane: u8) -> Result<(), StoreError> {
    let told = rejected(txn, lane, 0)?;
    told.into_iter().try_for_each(|(number, _)| txn.delete(REJECTED, &numbered(lane, number)))
}

/// What was not applied above number `after`, rising.
pub fn rejected(rows: &impl Rows, lane: u8, after: u64) -> Result<Vec<(u64, RejectedRow)>, StoreError> {
    let from = numbered(lane, after.saturating_add(1));
    let found = rows.range(REJECTED, &from, Some(&[lane + 1]), usize::MAX)?;
    Ok(found.into_iter().map(|(key, row)| (number_of(&key), row)).collect())
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug)]
struct IdRow {
    /// How long this node had lived, in milliseconds.
    at: u64,
}
crate::row!(IdRow, 1);

/// Whether a unit of this id has been applied here, as long as that is remembered ([`ids_kept`]).
pub fn is_here(rows: &impl Rows, id: &[u8; 16]) -> Result<bool, StoreError> {
    Ok(rows.raw(IDS, id)?.is_some())
}

/// Whether the sender of a unit of this id has been told that it is stored, as far as that is remembered: it was applied, is
/// parked, or is a dead letter of this side. One that was refused or deferred is not known: its sender has to hear that again.
pub fn is_known(rows: &impl Rows, id: &[u8; 16]) -> Result<bool, StoreError> {
    Ok(is_here(rows, id)?
        || rows.raw(PARKED_IDS, id)?.is_some()
        || dead_letter(rows, id)?.is_some_and(|letter| letter.inbound))
}

fn remember(txn: &mut Txn<'_>, id: &[u8; 16], lived: u64) -> Result<(), StoreError> {
    txn.put(IDS, id, &IdRow { at: lived })
}

/// How long ids are remembered where the partner keeps confirmed units for `safety` and tries mail for
/// `queue_life`: whatever it may send again is known here.
pub fn ids_kept(safety: Duration, queue_life: Duration) -> Duration {
    IDS_KEPT_MIN.max(safety.saturating_add(queue_life))
}

/// Forgets ids of units that were applied when this node had lived for less than `before` milliseconds, among
/// `max` behind `cursor`. Returns where to go on; `None` at the end.
pub fn forget_ids(
    txn: &mut Txn<'_>,
    cursor: &[u8],
    max: usize,
    before: u64,
) -> Result<Option<Vec<u8>>, StoreError> {
    let found = txn.range::<IdRow>(IDS, cursor, None, max)?;
    for (key, row) in &found {
        if row.at < before {
            txn.delete(IDS, key)?;
        }
    }
    Ok(behind(&found, max))
}

/// A unit that waits for another one to be applied first.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    /// Its id.
    pub id: [u8; 16],
    /// The lane it came on.
    pub lane: u8,
    /// What it says.
    pub head: Vec<u8>,
    /// How long this node had lived then, in milliseconds.
    pub at: u64,
}
crate::row!(Parked, 1);

/// Parks a unit without a body until `target` is applied; `false` if it is too large, or too many are
/// parked or dead already.
pub(super) fn park(txn: &mut Txn<'_>, target: &[u8; 16], parked: &Parked) -> Result<bool, StoreError> {
    if parked.head.len() > PARKED_HEAD_BYTES_MAX {
        return Ok(false);
    }
    let here = txn.prefix::<Parked>(PARKED, target, PARKED_PER_TARGET)?;
    if here.iter().any(|(_, waits)| waits.id == parked.id) {
        // It comes again under another number.
        return Ok(true);
    }
    // What is parked may become a dead letter: too many of those, and the other node has to keep its own.
    let full = txn.count(PARKED)? >= PARKED_IN_ALL as u64 || dead_letter_count(txn)? >= DEAD_MAX;
    if here.len() >= PARKED_PER_TARGET || full {
        return Ok(false);
    }
    // Not their count: those before the last may have been buried.
    let last = here.last().and_then(|(key, _)| key.last_chunk()).map(|place| u64::from_be_bytes(*place));
    let place = last.map_or(0, |last| last + 1).to_be_bytes();
    txn.put(PARKED, &[target.as_slice(), &place].concat(), parked)?;
    txn.put(PARKED_IDS, &parked.id, &IdRow { at: parked.at })?;
    Ok(true)
}

/// Takes out the units that were parked for `target`, in the order in which they came.
fn parked_after(txn: &mut Txn<'_>, target: &[u8; 16]) -> Result<Vec<Parked>, StoreError> {
    let found = txn.prefix::<Parked>(PARKED, target, PARKED_PER_TARGET)?;
    for (key, parked) in &found {
        unpark(txn, key, parked)?;
    }
    Ok(found.into_iter().map(|(_, parked)| parked).collect())
}

fn unpark(txn: &mut Txn<'_>, key: &[u8], parked: &Parked) -> Result<(), StoreError> {
    txn.delete(PARKED, key)?;
    txn.delete(PARKED_IDS, &parked.id)
}

/// A parked unit whose target was refused, or that could not be applied after all: a dead letter of this
/// side, for its sender has been told long ago that it is stored.
fn bury_parked(txn: &mut Txn<'_>, parked: Parked, reason: String, now: u64) -> Result<(), StoreError> {
    let Parked { id, lane, head, .. } = parked;
    if is_here(txn, &id)? {
        return Ok(());
    }
    tracing::error!(lane, %reason, "a parked unit is a dead letter");
    let unit = QueuedUnit { id, lane, after: None, head, body: QueuedBody::None };
    bury(txn, &DeadLetter { unit, reason, at: now, inbound: true })
}

/// Makes dead letters, at `now`, of what was parked when this node had lived for less than `before`
/// milliseconds: what it follows will not come any more.
pub fn bury_overdue(txn: &mut Txn<'_>, before: u64, now: u64) -> Result<(), StoreError> {
    for (key, parked) in txn.prefix::<Parked>(PARKED, &[], PARKED_IN_ALL)? {
        if parked.at < before {
            unpark(txn, &key, &parked)?;
            bury_parked(txn, parked, "what it follows has not come".into(), now)?;
        }
    }
    Ok(())
}
