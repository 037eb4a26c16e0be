//! What a node must not send by itself any more: it was restored from a backup so old that its partner may have forgotten
//! the ids of what it had been sent, and would take it once more.

use std::time::Duration;

use super::confirm::{DEFERRED, DeadLetter, bury, move_out};
use super::{
    BATCH, INTER, LoggedUnit, QueuedUnit, TRANSMISSION, WAITING, number_of, numbered, offered_again, state,
};
use crate::age;
use crate::store::{Rows, StoreError, Txn};

const HELD: &str = "held: this node was restored from a backup so old that the other one may have had it and forgotten \
                    that; look whether it arrived, then retry or drop it";
const HELD_BY_CLOCK: &str = "held: this node was restored while its clock was behind the backup, which may be so old that \
                             the other one has had it and forgotten that; set the clock, look whether it arrived, then \
                             retry or drop it";

/// After a restore at `now`, milliseconds since 1970: holds the mail that the partner had not confirmed, as dead letters
/// for the operator, if the backup is older than units' ids are remembered (`kept`, see [`super::ids_kept`]), or may be for
/// all that the clock can say. Facts are sent again: they are the same twice. Returns how many units are held.
pub fn hold_old(txn: &mut Txn<'_>, kept: Duration, now: u64) -> Result<usize, StoreError> {
    let reason = match age::rested(txn, now)? {
        Some(rested) if rested <= kept => return Ok(0),
        Some(_) => HELD,
        None => HELD_BY_CLOCK,
    };
    let mut units = Vec::new();
    for lane in [INTER, BATCH] {
        let row = state(txn, lane)?;
        let from = numbered(lane, row.confirmed.number.saturating_add(1));
        for (key, _) in txn.range::<LoggedUnit>(TRANSMISSION, &from, Some(&[lane + 1]), usize::MAX)? {
            units.extend(move_out(txn, lane, number_of(&key))?);
        }
    }
    for table in [WAITING, DEFERRED] {
        for (key, unit) in txn.prefix::<QueuedUnit>(table, &[], usize::MAX)? {
            if [INTER, BATCH].contains(&unit.lane) {
                txn.delete(table, &key)?;
                units.push(unit);
            }
        }
    }
    for unit in &units {
        let unit = offered_again(unit.clone());
        bury(txn, &DeadLetter { unit, reason: reason.into(), at: now, inbound: false })?;
    }
    Ok(units.len())
}
