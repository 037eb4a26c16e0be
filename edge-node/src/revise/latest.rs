//! The latest text of a message that has come for each recipient outside, or that was taken back: what came before it
//! is not to leave any more. After one of the nodes went back messages come again, in other parts and by lanes that
//! overtake each other; what is known here of each recipient makes all of that the same twice.

use rkyv::{Archive, Deserialize, Serialize};
use shared::age;
use shared::id::MessageId;
use shared::store::{Rows, StoreError, Table, Txn, behind};

use crate::record::queue_key;

/// Message and recipient to [`LatestRow`].
const LATEST: Table = Table("latest-texts");

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug)]
struct LatestRow {
    /// Which revision; 0 is the original.
    revision: u32,
    /// Since when, in milliseconds of the node's life ([`age`]).
    since: u64,
}
shared::row!(LatestRow, 1);

/// The latest text that has come for a recipient; `None` if there is none.
pub fn latest(rows: &impl Rows, id: MessageId, recipient: u32) -> Result<Option<u32>, StoreError> {
    let latest = rows.get::<LatestRow>(LATEST, &queue_key(&id.0, recipient))?;
    Ok(latest.map(|latest| latest.revision))
}

/// A text has come for a recipient, or was taken back.
pub fn remember(txn: &mut Txn<'_>, id: MessageId, recipient: u32, revision: u32) -> Result<(), StoreError> {
    let revision = revision.max(latest(txn, id, recipient)?.unwrap_or_default());
    let since = age::lived(txn)?;
    txn.put(LATEST, &queue_key(&id.0, recipient), &LatestRow { revision, since })
}

/// Forgets what came when this node had lived for less than `before` milliseconds, among `max` rows behind `cursor`: as
/// long ago as the ids of units are remembered ([`shared::lane::ids_kept`]), which come again as long. Returns where to
/// go on; `None` at the end.
pub fn forget(
    txn: &mut Txn<'_>,
    cursor: &[u8],
    max: usize,
    before: u64,
) -> Result<Option<Vec<u8>>, StoreError> {
    let found = txn.range::<LatestRow>(LATEST, cursor, None, max)?;
    for (key, row) in &found {
        if row.since < before {
            txn.delete(LATEST, key)?;
        }
    }
    Ok(behind(&found, max))
}

/// How many recipients are remembered.
#[cfg(test)]
pub fn count(rows: &impl Rows) -> Result<u64, StoreError> {
    rows.count(LATEST)
}
