//! Units of the edge's that were refused here: an edge that is sound has none but by a restore or a damaged disk, so
//! whoever operates the node is told, whatever the edge says of it.

use shared::render::when;
use shared::store::{Rows, StoreError, Txn};

use crate::record::{REFUSALS, Refusals};

/// How long an alarm is shown after the last of them.
const ALARM_MILLIS: u64 = 24 * 3_600_000;
/// Characters of a reason that are kept.
const REASON_MAX: usize = 300;

/// Counts one, in the commit that refuses it.
pub fn note(txn: &mut Txn<'_>, reason: &str, now: u64) -> Result<(), StoreError> {
    let before = txn.get::<Refusals>(REFUSALS, &[])?.filter(|row| now.abs_diff(row.at) < ALARM_MILLIS);
    let count = before.map_or(0, |row| row.count).saturating_add(1);
    let reason = reason.chars().take(REASON_MAX).collect();
    txn.put(REFUSALS, &[], &Refusals { count, at: now, reason })
}

/// What there is to say of them.
pub fn alarm(rows: &impl Rows, now: u64) -> Result<Option<String>, StoreError> {
    let row = rows.get::<Refusals>(REFUSALS, &[])?.filter(|row| now.abs_diff(row.at) < ALARM_MILLIS);
    Ok(row.map(|Refusals { count, at, reason }| {
        format!(
            "{count} units of the edge's were refused here, the last on {} UTC: {reason}; if neither node was restored, \
             look after the edge: `edge-node queue dead` lists them, unless it is somebody else's by now",
            when(at)
        )
    }))
}
