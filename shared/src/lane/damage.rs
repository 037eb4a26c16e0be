//! What a unit has met here that is damaged on disk. The unit waits for the mend, all others go on, and an operator is told.

use rkyv::{Archive, Deserialize, Serialize};

use crate::store::{Rows, StoreError, Table, Txn};

const DAMAGE: Table = Table("damage");
/// It is met again every few seconds while the link is up; what has not been for so long is mended.
const MENDED_MILLIS: u64 = 10 * 60_000;

/// What was met last.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// What is damaged, for a person.
    pub what: String,
    /// Since when units meet something damaged, milliseconds since 1970.
    pub since: u64,
    /// When one did last.
    pub at: u64,
}
crate::row!(Damage, 1);

/// Notes that a unit has met it at `now`, milliseconds since 1970.
pub(super) fn note(txn: &mut Txn<'_>, what: String, now: u64) -> Result<(), StoreError> {
    let since = damage(txn, now)?.map_or(now, |known| known.since);
    txn.put(DAMAGE, &[], &Damage { what, since, at: now })
}

/// What is damaged and not mended, as far as units have met it lately.
pub fn damage(rows: &impl Rows, now: u64) -> Result<Option<Damage>, StoreError> {
    Ok(rows.get::<Damage>(DAMAGE, &[])?.filter(|met| now.abs_diff(met.at) < MENDED_MILLIS))
}
