//! The durable side of the link: each lane's log of units, both positions, what was rejected, the
//! partner.
//!
//! A lane's outbound units lie in one log under their numbers. Up to the *confirmed* position they are
//! the **safety store**: the partner has them, and they are kept for a while so that a partner restored
//! from a backup can be given again what it has lost. Above it they are the transmission queue. A unit
//! is numbered in the commit that makes its message ours (a large body's unit: in the commit after the
//! partner has said that it holds the body). The receiving position is stored in the commit that applies
//! the units; that is what makes at-least-once sending exactly-once storing. Used by both nodes; knows
//! no wire.

use rkyv::{Archive, Deserialize, Serialize};

use crate::fault::{SeededFault, seeded};
use crate::store::{BodyKey, Rows, StoreError, Table, Txn, behind};

mod confirm;
mod decide;
mod missing;
mod node;
mod old;
mod receive;
mod safety;
mod settle;
mod staged;
#[cfg(test)]
mod tests;

pub use confirm::{
    DeadLetter, OFFER_AGAIN_MILLIS, Outstanding, Reasons, confirmed, dead_letter, dead_letter_count,
    dead_letters, dead_letters_under, deferred, drop_dead, is_due, outstanding, queue_due, retry_dead,
};
pub use decide::{Decision, DecisionRow, compared, decisions, reset, resolve};
pub use missing::{Missing, NAMED_MAX, lacks, missing};
pub use node::{
    NodeIdentity, PartnerError, PartnerRow, adopt, adopt_store, adopted, epoch, identity, next_epoch,
    paired_again, partner, pin_next, remember_partner, restored, set_identity, set_partner,
};
pub use old::hold_old;
pub use receive::{
    Arrival, NotApplied, Parked, RejectedRow, bury_overdue, forget_ids, ids_kept, is_here, is_known,
    received, rejected, take,
};
pub use safety::{Gone, Reach, applied, gone, kept_octets, reach, safety_octets, trim, trim_all};
pub use settle::{Settling, reconsider, settle, together};
pub use staged::{STAGED_MAX, STAGED_TIME, Staged};

const LANES: Table = Table("lanes");
const TRANSMISSION: Table = Table("transmission");
const WAITING: Table = Table("waiting");

/// The lanes of mail, as the link numbers them.
const INTER: u8 = 2;
const BATCH: u8 = 3;
/// Lanes, as the link numbers them.
pub const LANES_MAX: u8 = 4;

/// Number and chain digest up to which a lane is stored.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LanePosition {
    /// The last number.
    pub number: u64,
    /// The link's digest of everything up to it.
    pub chain: [u8; 32],
}

/// How the next session has to begin a lane whose sender and receiver do not stand together.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rebase {
    /// They do.
    #[default]
    None,
    /// The receiver, which stands here, is to go on after what is confirmed.
    From(LanePosition),
    /// An operator has decided: the receiver goes on from wherever it stands.
    Any,
}

/// Where a lane stands on this node.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneRow {
    /// Outbound: the partner confirmed this.
    pub confirmed: LanePosition,
    /// Outbound: the last number given out.
    pub last: u64,
    /// Outbound: the safety store begins after this number.
    pub trimmed: u64,
    /// Outbound: behind this number …
    pub unproved_after: u64,
    /// … and before this one the receiver's chain cannot be recomputed here, because this node was
    /// restored and has lost units that the receiver holds.
    pub unproved_to: u64,
    /// Outbound: octets of heads and bodies of all units ever numbered.
    pub bytes: u64,
    /// Outbound: how the next session begins.
    pub rebase: Rebase,
    /// Outbound: this node's generation when the lane was last settled with the partner.
    pub own_generation: u32,
    /// Outbound: the partner's generation then.
    pub partner_generation: u32,
    /// Inbound: applied here.
    pub received: LanePosition,
}
crate::row!(LaneRow, 2);

/// Where a unit's body is, and how it goes.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum QueuedBody {
    /// There is none.
    None,
    /// Small: in the unit's own frame.
    Inline {
        /// Its key in the store.
        key: [u8; 32],
    },
    /// Large: it goes ahead of the unit, which has no number yet.
    Ahead {
        /// Its key in the store.
        key: [u8; 32],
    },
    /// Large, and the partner holds it.
    Held {
        /// Its key in the store.
        key: [u8; 32],
        /// Bytes as they crossed.
        length: u64,
        /// BLAKE3 of the bytes as they crossed.
        digest: [u8; 32],
    },
}

impl QueuedBody {
    /// Its key in the store.
    pub fn key(&self) -> Option<[u8; 32]> {
        match self {
            Self::None => None,
            Self::Inline { key } | Self::Ahead { key } | Self::Held { key, .. } => Some(*key),
        }
    }
}

/// A unit in a lane's log.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct QueuedUnit {
    /// Unique at birth; rises with time.
    pub id: [u8; 16],
    /// The lane's index.
    pub lane: u8,
    /// A unit to be applied before it.
    pub after: Option<[u8; 16]>,
    /// For the partner's node.
    pub head: Vec<u8>,
    /// Its body. The log holds one reference to it.
    pub body: QueuedBody,
}
crate::row!(QueuedUnit, 1);

/// A numbered unit, as it lies in the log.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
struct LoggedUnit {
    unit: QueuedUnit,
    /// Octets of heads and bodies of all units of the lane before this one.
    bytes_before: u64,
    /// The partner refused or deferred it: it lives on as a dead letter or under another number, and
    /// stays here only because the chain digest covers it.
    moved: bool,
}
crate::row!(LoggedUnit, 1);

fn numbered(lane: u8, number: u64) -> [u8; 9] {
    let mut key = [lane; 9];
    key[1..].copy_from_slice(&number.to_be_bytes());
    key
}

fn number_of(key: &[u8]) -> u64 {
    key.last_chunk().map_or(0, |number| u64::from_be_bytes(*number))
}

/// Where `lane` stands.
pub fn state(rows: &impl Rows, lane: u8) -> Result<LaneRow, StoreError> {
    Ok(rows.get(LANES, &[lane])?.unwrap_or_default())
}

fn set_state(txn: &mut Txn<'_>, lane: u8, row: &LaneRow) -> Result<(), StoreError> {
    txn.put(LANES, &[lane], row)
}

/// Queues a unit: at once under the lane's next number, or, with a large body, behind its body.
///
/// Returns the number.
pub fn queue(txn: &mut Txn<'_>, unit: &QueuedUnit) -> Result<Option<u64>, StoreError> {
    if matches!(unit.body, QueuedBody::Ahead { .. }) {
        // The same unit again, perhaps said otherwise: it waits once.
        if let Some(older) = waiting_unit(txn, &unit.id)? {
            let_go(txn, &older)?;
        }
        txn.put(WAITING, &unit.id, unit)?;
        return Ok(None);
    }
    let mut row = state(txn, unit.lane)?;
    append(txn, &mut row, unit)?;
    set_state(txn, unit.lane, &row)?;
    Ok(Some(row.last))
}

/// Gives a unit the next number of its lane.
fn append(txn: &mut Txn<'_>, row: &mut LaneRow, unit: &QueuedUnit) -> Result<(), StoreError> {
    let octets = octets(txn, unit)?;
    let reused = seeded(SeededFault::NumberReused) && row.last % 16 == 9;
    row.last += u64::from(!reused);
    let logged = LoggedUnit { unit: unit.clone(), bytes_before: row.bytes, moved: false };
    row.bytes = row.bytes.saturating_add(octets);
    txn.put(TRANSMISSION, &numbered(unit.lane, row.last), &logged)
}

/// Octets of a unit's head and body.
fn octets(txn: &Txn<'_>, unit: &QueuedUnit) -> Result<u64, StoreError> {
    let body = match unit.body.key() {
        Some(key) => txn.body_length(BodyKey(key))?.unwrap_or_default(),
        None => 0,
    };
    Ok(body.saturating_add(unit.head.len() as u64))
}

/// Numbered units of a lane from `from` on, at most `max`.
pub fn units(
    rows: &impl Rows,
    lane: u8,
    from: u64,
    max: usize,
) -> Result<Vec<(u64, QueuedUnit)>, StoreError> {
    let end = [lane + 1];
    let found = rows.range::<LoggedUnit>(TRANSMISSION, &numbered(lane, from), Some(&end), max)?;
    Ok(found.into_iter().map(|(key, logged)| (number_of(&key), logged.unit)).collect())
}

/// Numbers and ids of the units of a lane behind number `after`, in order, at most `max`; none of those that the partner
/// has refused or deferred.
pub fn ids(rows: &impl Rows, lane: u8, after: u64, max: usize) -> Result<Vec<(u64, [u8; 16])>, StoreError> {
    let (mut ids, mut cursor) = (Vec::new(), Some(numbered(lane, after.saturating_add(1)).to_vec()));
    while let Some(from) = cursor.take().filter(|_| ids.len() < max) {
        let left = max - ids.len();
        let found = rows.range::<LoggedUnit>(TRANSMISSION, &from, Some(&[lane + 1]), left)?;
        cursor = behind(&found, left);
        let kept = found.into_iter().filter(|(_, logged)| !logged.moved);
        ids.extend(kept.map(|(key, logged)| (number_of(&key), logged.unit.id)));
    }
    Ok(ids)
}

/// [`ids`] of all units of a lane that the partner has not confirmed, at most `max`.
pub fn unconfirmed_ids(rows: &impl Rows, lane: u8, max: usize) -> Result<Vec<(u64, [u8; 16])>, StoreError> {
    ids(rows, lane, state(rows, lane)?.confirmed.number, max)
}

/// Units whose body has to go ahead, oldest first.
pub fn waiting(rows: &impl Rows, max: usize) -> Result<Vec<QueuedUnit>, StoreError> {
    Ok(rows.prefix(WAITING, &[], max)?.into_iter().map(|(_, unit)| unit).collect())
}

/// One unit whose body has to go ahead.
pub fn waiting_unit(rows: &impl Rows, id: &[u8; 16]) -> Result<Option<QueuedUnit>, StoreError> {
    rows.get(WAITING, id)
}

/// The partner holds the body of a waiting unit: numbers it.
pub fn body_held(txn: &mut Txn<'_>, id: &[u8; 16], length: u64, digest: [u8; 32]) -> Result<(), StoreError> {
    let Some(mut unit) = waiting_unit(txn, id)? else { return Ok(()) };
    if let Some(key) = unit.body.key() {
        unit.body = QueuedBody::Held { key, length, digest };
    }
    txn.delete(WAITING, id)?;
    queue(txn, &unit).map(drop)
}

/// A unit whose body the partner may no longer hold: it goes ahead again.
fn offered_again(mut unit: QueuedUnit) -> QueuedUnit {
    if let QueuedBody::Held { key, .. } = unit.body {
        unit.body = QueuedBody::Ahead { key };
    }
    unit
}

/// Drops a unit's reference to its body.
fn let_go(txn: &mut Txn<'_>, unit: &QueuedUnit) -> Result<(), StoreError> {
    unit.body.key().map_or(Ok(()), |key| txn.release_body(BodyKey(key)))
}

/// Something that changes whenever a unit is queued.
pub fn queue_mark(rows: &impl Rows) -> Result<(u64, Option<Vec<u8>>), StoreError> {
    let newest_waiting = rows.raw_range(WAITING, &[], None, 1, true)?.pop().map(|(key, _)| key);
    let mut numbered = 0;
    for lane in 0..LANES_MAX {
        numbered += state(rows, lane)?.last;
    }
    Ok((numbered, newest_waiting))
}

/// Units of a lane whose bodies have to go ahead, and which have no number yet: all that is so large goes on one lane.
pub fn ahead(rows: &impl Rows, lane: u8) -> Result<u64, StoreError> {
    if lane == BATCH { rows.count(WAITING) } else { Ok(0) }
}

/// Units that the partner has not taken, by lane: sent and not confirmed, numbered, behind their bodies, or deferred.
pub fn depth(rows: &impl Rows) -> Result<[u64; 4], StoreError> {
    let mut depth = deferred(rows)?;
    for (lane, units) in (0..).zip(&mut depth) {
        let row = state(rows, lane)?;
        *units += row.last - row.confirmed.number + ahead(rows, lane)?;
    }
    Ok(depth)
}
