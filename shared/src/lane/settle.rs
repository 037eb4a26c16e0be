//! Making a lane's two ends stand together again after one of them went back.

use std::collections::HashSet;

use super::confirm::DEFERRED;
use super::missing;
use super::safety::{lacked_after, record};
use super::{
    LanePosition, LoggedUnit, QueuedBody, QueuedUnit, Rebase, TRANSMISSION, WAITING, append, let_go,
    number_of, numbered, offered_again, queue, set_state, state,
};
use crate::store::{Rows, StoreError, Txn, behind};

/// Units that are looked at together.
const AT_ONCE: usize = 1000;

/// Why a lane is settled anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settling {
    /// The receiver was restored from a backup: it is given again what it has lost.
    Replay,
    /// This node was restored, or an operator decided: what the receiver does not hold is numbered anew.
    Renumber {
        /// Units that the receiver holds already.
        held: Vec<[u8; 16]>,
        /// The receiver's chain was shown to be this node's: no life of this node that is lost is between them.
        proved: bool,
        /// It was asked for what lies behind this number, and lacks nothing before.
        after: u64,
    },
}

/// Lets a lane go on after `received`, where the receiver stands: units that it lacks get new numbers
/// above everything that either side has used, in their order. `again` looks at each of them: it may alter
/// it, or drop it as no longer needed. Returns the position after which the lane goes on.
///
/// Numbers are never reused, so the receiver has to be told of the gap; [`Rebase`] remembers that until
/// it has confirmed something behind it.
///
/// # Errors
/// [`StoreError::Moved`]: something that the receiver lacks is in the safety store no more, as the next session finds.
pub fn settle(
    txn: &mut Txn<'_>,
    lane: u8,
    received: LanePosition,
    settling: &Settling,
    generations: (u32, u32),
    mut again: impl FnMut(&mut Txn<'_>, QueuedUnit) -> Result<Option<QueuedUnit>, StoreError>,
) -> Result<LanePosition, StoreError> {
    let mut row = state(txn, lane)?;
    let old_last = row.last;
    let (mut from, held) = match settling {
        Settling::Replay => (lacked_after(&row, received.number), HashSet::new()),
        Settling::Renumber { held, after, .. } => (*after, held.iter().copied().collect()),
    };
    // What was asked of the safety store before may have been trimmed since; an operator's decision goes on without it.
    if from < row.trimmed && row.rebase != Rebase::Any {
        return Err(StoreError::Moved);
    }
    // Where a receiver that is told of a gap goes on, none has ever stood: one that is restored to a later backup
    // than this time may stand at the last number, and with another chain.
    row.last = if received.number < old_last { old_last.saturating_add(1) } else { received.number };
    row.confirmed = LanePosition { number: row.last, chain: received.chain };
    row.rebase = if row.confirmed == received { Rebase::None } else { Rebase::From(received) };
    (row.own_generation, row.partner_generation) = generations;
    if matches!(settling, Settling::Renumber { proved: false, .. }) {
        // What is trimmed is no question any more.
        let none_before = row.unproved_to <= row.trimmed;
        row.unproved_after = if none_before { from } else { row.unproved_after.min(from) };
        row.unproved_to = row.last;
    }
    let end = numbered(lane, old_last.saturating_add(1));
    row.bytes = close_up(txn, (lane, from), &end, row.bytes, &held)?;
    loop {
        let rows = txn.range::<LoggedUnit>(TRANSMISSION, &numbered(lane, from + 1), Some(&end), AT_ONCE)?;
        let Some((last, _)) = rows.last() else { break };
        from = number_of(last);
        for (key, logged) in rows {
            if held.contains(&logged.unit.id) {
                // Where it lies it belongs to the safety store now.
                continue;
            }
            txn.delete(TRANSMISSION, &key)?;
            let unit = offered_again(logged.unit);
            let kept = if logged.moved { None } else { again(txn, unit.clone())? };
            match kept {
                None => let_go(txn, &unit)?,
                Some(unit) if matches!(unit.body, QueuedBody::Ahead { .. }) => drop(queue(txn, &unit)?),
                Some(unit) => append(txn, &mut row, &unit)?,
            }
        }
    }
    missing::forget(txn, lane)?;
    record(txn, lane, row.confirmed)?;
    set_state(txn, lane, &row)?;
    Ok(row.confirmed)
}

/// Counts the octets of a lane's units behind number `after` as if only those that are `held` were there: where the others go
/// again they are counted anew. `octets` are those of all units of the lane; returns what is left of them.
fn close_up(
    txn: &mut Txn<'_>,
    (lane, after): (u8, u64),
    end: &[u8],
    octets: u64,
    held: &HashSet<[u8; 16]>,
) -> Result<u64, StoreError> {
    let (mut left, mut last): (Option<u64>, Option<u64>) = (None, None);
    let mut cursor = Some(numbered(lane, after.saturating_add(1)).to_vec());
    while let Some(from) = cursor.take() {
        let rows = txn.range::<LoggedUnit>(TRANSMISSION, &from, Some(end), AT_ONCE)?;
        cursor = behind(&rows, AT_ONCE);
        for (key, mut logged) in rows {
            let before = logged.bytes_before;
            let counted = left.get_or_insert(before);
            *counted += last.map_or(0, |last| before.saturating_sub(last));
            let stays = held.contains(&logged.unit.id);
            if stays && *counted != before {
                logged.bytes_before = *counted;
                txn.put(TRANSMISSION, &key, &logged)?;
            }
            last = stays.then_some(before);
        }
    }
    let last = last.map_or(0, |last| octets.saturating_sub(last));
    Ok(left.map_or(octets, |left| left + last))
}

/// After the receiver went back: lets `again` look at the units that have no number yet, as [`settle`] does at those that
/// have one. What it drops lets go of its body.
pub fn reconsider(
    txn: &mut Txn<'_>,
    mut again: impl FnMut(&mut Txn<'_>, QueuedUnit) -> Result<Option<QueuedUnit>, StoreError>,
) -> Result<(), StoreError> {
    for table in [WAITING, DEFERRED] {
        let mut cursor = Some(Vec::new());
        while let Some(from) = cursor.take() {
            let rows = txn.range::<QueuedUnit>(table, &from, None, AT_ONCE)?;
            cursor = behind(&rows, AT_ONCE);
            for (key, unit) in rows {
                match again(txn, unit.clone())? {
                    // What waits for its body is found by its id.
                    Some(again) if table == WAITING && again.id != unit.id => {
                        txn.delete(table, &key)?;
                        queue(txn, &again)?;
                    }
                    Some(unit) => txn.put(table, &key, &unit)?,
                    None => {
                        txn.delete(table, &key)?;
                        let_go(txn, &unit)?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// The ends of a lane stand together as they are, under these generations.
pub fn together(txn: &mut Txn<'_>, lane: u8, generations: (u32, u32)) -> Result<(), StoreError> {
    let mut row = state(txn, lane)?;
    (row.own_generation, row.partner_generation) = generations;
    missing::forget(txn, lane)?;
    set_state(txn, lane, &row)
}
