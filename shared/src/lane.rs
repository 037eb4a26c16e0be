//! The durable side of the link: the transmission queue of each lane, both positions, the partner.
//!
//! A unit is numbered in the same commit that makes its message ours (a large body's unit: in the
//! commit after the partner has said that it holds the body), and leaves the queue when the partner
//! has confirmed it. The receiving position is stored in the commit that applies the units; that is
//! what makes at-least-once sending exactly-once storing. Used by both nodes; knows no wire.

use rkyv::{Archive, Deserialize, Serialize};

use crate::id::random;
use crate::store::{Rows, StoreError, Table, Txn};

const LANES: Table = Table("lanes");
const TRANSMISSION: Table = Table("transmission");
const WAITING: Table = Table("waiting");
const DEFERRED: Table = Table("deferred");
const REJECTED: Table = Table("rejected");
const DEAD: Table = Table("dead-letters");
const NODE: Table = Table("node");

/// A deferred unit is offered again after this many milliseconds.
pub const OFFER_AGAIN_MILLIS: u64 = 5_000;

/// How far behind the newest number rejections are remembered.
const REJECTED_MAX: u64 = 100_000;

/// Number and chain digest up to which a lane is stored.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LanePosition {
    /// The last number.
    pub number: u64,
    /// The link's digest of everything up to it.
    pub chain: [u8; 32],
}

/// Where a lane stands on this node.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneRow {
    /// Outbound: the partner confirmed this.
    pub confirmed: LanePosition,
    /// Outbound: the last number given out.
    pub last: u64,
    /// Inbound: applied here.
    pub received: LanePosition,
}
crate::row!(LaneRow, 1);

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

/// A unit in a transmission queue.
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
    /// Its body.
    pub body: QueuedBody,
}
crate::row!(QueuedUnit, 1);

/// A unit that the partner will never take.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub struct DeadLetter {
    /// The unit.
    pub unit: QueuedUnit,
    /// The partner's reason.
    pub reason: String,
    /// When, milliseconds since 1970.
    pub at: u64,
}
crate::row!(DeadLetter, 1);

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

/// Queues a unit: at once under the lane's next number, or, with a large body, behind its body.
pub fn queue(txn: &mut Txn<'_>, unit: &QueuedUnit) -> Result<(), StoreError> {
    if matches!(unit.body, QueuedBody::Ahead { .. }) {
        return txn.put(WAITING, &unit.id, unit);
    }
    let mut row = state(txn, unit.lane)?;
    row.last += 1;
    txn.put(LANES, &[unit.lane], &row)?;
    txn.put(TRANSMISSION, &numbered(unit.lane, row.last), unit)
}

/// Numbered units of a lane from `from` on, at most `max`.
pub fn units(
    rows: &impl Rows,
    lane: u8,
    from: u64,
    max: usize,
) -> Result<Vec<(u64, QueuedUnit)>, StoreError> {
    let end = [lane + 1];
    let found = rows.range::<QueuedUnit>(TRANSMISSION, &numbered(lane, from), Some(&end), max)?;
    Ok(found.into_iter().map(|(key, unit)| (number_of(&key), unit)).collect())
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
    queue(txn, &unit)
}

/// What the partner did not apply: number and reason.
pub type Rejected = [(u64, String)];

/// The partner has stored everything up to `position`: the units leave the queue. Those it refused
/// become dead letters, those it deferred are queued again later. Returns the applied ones, whose
/// bodies the caller lets go.
pub fn confirmed(
    txn: &mut Txn<'_>,
    lane: u8,
    position: LanePosition,
    refused: &Rejected,
    deferred: &Rejected,
    now: u64,
) -> Result<Vec<QueuedUnit>, StoreError> {
    let mut row = state(txn, lane)?;
    if position.number <= row.confirmed.number {
        return Ok(Vec::new());
    }
    let mut applied = Vec::new();
    let from = numbered(lane, row.confirmed.number + 1);
    let to = numbered(lane, position.number + 1);
    for (key, unit) in txn.range::<QueuedUnit>(TRANSMISSION, &from, Some(&to), usize::MAX)? {
        let number = number_of(&key);
        txn.delete(TRANSMISSION, &key)?;
        if let Some((_, reason)) = refused.iter().find(|(n, _)| *n == number) {
            let id = unit.id;
            txn.put(DEAD, &id, &DeadLetter { unit, reason: reason.clone(), at: now })?;
        } else if deferred.iter().any(|(n, _)| *n == number) {
            let mut due = (now + OFFER_AGAIN_MILLIS).to_be_bytes().to_vec();
            due.extend_from_slice(&unit.id);
            txn.put(DEFERRED, &due, &offered_again(unit))?;
        } else {
            applied.push(unit);
        }
    }
    row.confirmed = position;
    txn.put(LANES, &[lane], &row)?;
    Ok(applied)
}

/// A deferred unit may have been deferred because its body was lost: it goes ahead again.
fn offered_again(mut unit: QueuedUnit) -> QueuedUnit {
    if let QueuedBody::Held { key, .. } = unit.body {
        unit.body = QueuedBody::Ahead { key };
    }
    unit
}

/// When the next deferred unit is due, milliseconds since 1970.
pub fn next_due(rows: &impl Rows) -> Result<Option<u64>, StoreError> {
    let first = rows.raw_range(DEFERRED, &[], None, 1, false)?;
    Ok(first.first().and_then(|(key, _)| key.first_chunk()).map(|due| u64::from_be_bytes(*due)))
}

/// Queues again, under new numbers and the same ids, the deferred units that are due.
pub fn queue_due(txn: &mut Txn<'_>, now: u64) -> Result<usize, StoreError> {
    let due = txn.range::<QueuedUnit>(DEFERRED, &[], Some(&(now + 1).to_be_bytes()), 1000)?;
    for (key, unit) in &due {
        txn.delete(DEFERRED, key)?;
        queue(txn, unit)?;
    }
    Ok(due.len())
}

/// Everything up to `position` has been applied in this commit.
pub fn received(txn: &mut Txn<'_>, lane: u8, position: LanePosition) -> Result<(), StoreError> {
    let mut row = state(txn, lane)?;
    row.received = position;
    txn.put(LANES, &[lane], &row)
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
pub fn reject(txn: &mut Txn<'_>, lane: u8, number: u64, row: &RejectedRow) -> Result<(), StoreError> {
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

/// What was not applied above number `after`, rising.
pub fn rejected(rows: &impl Rows, lane: u8, after: u64) -> Result<Vec<(u64, RejectedRow)>, StoreError> {
    let found = rows.range(REJECTED, &numbered(lane, after + 1), Some(&[lane + 1]), usize::MAX)?;
    Ok(found.into_iter().map(|(key, row)| (number_of(&key), row)).collect())
}

/// Units that the partner refused for good.
pub fn dead_letters(rows: &impl Rows, max: usize) -> Result<Vec<DeadLetter>, StoreError> {
    Ok(rows.prefix(DEAD, &[], max)?.into_iter().map(|(_, letter)| letter).collect())
}

/// Something that changes whenever a unit is queued.
pub fn queue_mark(rows: &impl Rows) -> Result<(u64, Option<Vec<u8>>), StoreError> {
    let newest_waiting = rows.raw_range(WAITING, &[], None, 1, true)?.pop().map(|(key, _)| key);
    let mut numbered = 0;
    for lane in 0..4 {
        numbered += state(rows, lane)?.last;
    }
    Ok((numbered, newest_waiting))
}

/// Numbered and waiting units that have not been confirmed, by lane.
pub fn depth(rows: &impl Rows) -> Result<[u64; 4], StoreError> {
    let mut depth = [0; 4];
    for (lane, units) in (0..).zip(&mut depth) {
        let row = state(rows, lane)?;
        *units = row.last - row.confirmed.number;
    }
    depth[3] += rows.raw_range(WAITING, &[], None, usize::MAX, false)?.len() as u64;
    Ok(depth)
}

/// This node's link identity, made with its store.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeIdentity {
    /// Fixed when the node was created.
    pub node: [u8; 16],
    /// Created with the store.
    pub log_name: [u8; 16],
    /// +1 at every restore or adopt.
    pub generation: u32,
}
crate::row!(NodeIdentity, 1);

/// What is remembered of the partner.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct PartnerRow {
    /// Its identity.
    pub identity: NodeIdentity,
    /// Its pinned public key.
    pub key: Vec<u8>,
    /// On the edge: the highest epoch accepted.
    pub epoch: u64,
}
crate::row!(PartnerRow, 1);

/// A counter that only rises.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default)]
struct Counter(u64);
crate::row!(Counter, 1);

impl NodeIdentity {
    /// The identity of a node whose store begins.
    pub fn new() -> Self {
        Self { node: random(), log_name: random(), generation: 1 }
    }
}

impl Default for NodeIdentity {
    fn default() -> Self {
        Self::new()
    }
}

/// This node's identity; `None` before `init`.
pub fn identity(rows: &impl Rows) -> Result<Option<NodeIdentity>, StoreError> {
    rows.get(NODE, b"identity")
}

/// Stores this node's identity.
pub fn set_identity(txn: &mut Txn<'_>, identity: NodeIdentity) -> Result<(), StoreError> {
    txn.put(NODE, b"identity", &identity)
}

/// The partner; `None` before pairing.
pub fn partner(rows: &impl Rows) -> Result<Option<PartnerRow>, StoreError> {
    rows.get(NODE, b"partner")
}

/// Remembers the partner.
pub fn set_partner(txn: &mut Txn<'_>, partner: &PartnerRow) -> Result<(), StoreError> {
    txn.put(NODE, b"partner", partner)
}

/// Big: the epoch of the latest attempt; `None` before the first.
pub fn epoch(rows: &impl Rows) -> Result<Option<u64>, StoreError> {
    Ok(rows.get::<Counter>(NODE, b"epoch")?.map(|epoch| epoch.0))
}

/// Big: raises and returns the epoch.
pub fn next_epoch(txn: &mut Txn<'_>) -> Result<u64, StoreError> {
    let epoch = epoch(txn)?.unwrap_or_default() + 1;
    txn.put(NODE, b"epoch", &Counter(epoch))?;
    Ok(epoch)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::Store;
    use crate::store::sim::{Faults, SimDisk};

    fn unit(id: u8, body: QueuedBody) -> QueuedUnit {
        QueuedUnit { id: [id; 16], lane: 2, after: None, head: vec![id], body }
    }

    fn position(number: u64) -> LanePosition {
        LanePosition { number, chain: [9; 32] }
    }

    #[test]
    fn units_are_numbered_confirmed_refused_and_offered_again() {
        let store = Store::open(Arc::new(SimDisk::new(Faults::default()))).expect("opens");
        let commit = store.commit_blocking(|txn| {
            for id in 1..=3 {
                queue(txn, &unit(id, QueuedBody::None))?;
            }
            queue(txn, &unit(4, QueuedBody::Ahead { key: [4; 32] }))?;
            assert_eq!(units(txn, 2, 1, 10)?.len(), 3, "a body that has not gone ahead has no number");
            assert_eq!(waiting(txn, 10)?.len(), 1);
            body_held(txn, &[4; 16], 70_000, [1; 32])?;
            assert_eq!(units(txn, 2, 4, 10)?[0].0, 4);
            assert_eq!(depth(txn)?, [0, 0, 4, 0]);

            let applied =
                confirmed(txn, 2, position(4), &[(1, "malformed".into())], &[(4, "body lost".into())], 1000)?;
            assert_eq!(applied.iter().map(|unit| unit.id[0]).collect::<Vec<_>>(), [2, 3]);
            assert_eq!(dead_letters(txn, 10)?[0].reason, "malformed");
            assert_eq!(units(txn, 2, 1, 10)?.len(), 0);
            assert_eq!(queue_due(txn, 1000)?, 0, "later is not now");
            assert_eq!(next_due(txn)?, Some(1000 + OFFER_AGAIN_MILLIS));
            assert_eq!(queue_due(txn, 1000 + OFFER_AGAIN_MILLIS)?, 1);
            assert_eq!(waiting(txn, 10)?[0].id, [4; 16], "its body goes ahead again");
            // A confirm that comes again changes nothing.
            assert_eq!(confirmed(txn, 2, position(4), &[], &[], 1000)?.len(), 0);
            assert_eq!(state(txn, 2)?.confirmed, position(4));
            Ok::<(), StoreError>(())
        });
        commit.expect("commits");
    }
}
