//! What a partner lacks that went back behind the safety store: which units are gone, until an operator goes
//! on without them.

use rkyv::{Archive, Deserialize, Serialize};

use super::safety::{Gone, gone, lacked_after};
use super::{Rebase, state};
use crate::store::{Rows, StoreError, Table, Txn};

const LACKING: Table = Table("lacking");
/// Units that are named one by one; all are counted.
pub const NAMED_MAX: usize = 10_000;
/// Ids that are looked at together.
const AT_ONCE: usize = 10_000;

/// Where the partner of a lane that has stopped stands.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug)]
struct LackingRow {
    number: u64,
}
crate::row!(LackingRow, 1);

/// Units of a lane that the partner lacks and that the safety store has no more.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// The partner has everything up to this number.
    pub after: u64,
    /// How many they are.
    pub units: u64,
    /// Octets of their heads and bodies.
    pub octets: u64,
    /// Their numbers and ids, oldest first; at most [`NAMED_MAX`].
    pub named: Vec<(u64, Gone)>,
}

/// Notes that the partner, restored to `number`, lacks more of a lane than the safety store has. Where an operator has decided
/// about what was noted before, that stays.
pub fn lacks(txn: &mut Txn<'_>, lane: u8, number: u64) -> Result<(), StoreError> {
    if state(txn, lane)?.rebase == Rebase::Any && lacking(txn, lane)?.is_some() {
        return Ok(());
    }
    txn.put(LACKING, &[lane], &LackingRow { number })
}

/// Behind which number the partner may lack units, where a lane stands still because of that.
pub(super) fn lacking(rows: &impl Rows, lane: u8) -> Result<Option<u64>, StoreError> {
    Ok(rows.get::<LackingRow>(LACKING, &[lane])?.map(|row| row.number))
}

/// What a lane that stands still because of that would go on without.
pub fn missing(rows: &impl Rows, lane: u8) -> Result<Option<Missing>, StoreError> {
    lacking(rows, lane)?.map(|number| behind(rows, lane, number)).transpose()
}

/// The ends of a lane stand together again.
pub(super) fn forget(txn: &mut Txn<'_>, lane: u8) -> Result<(), StoreError> {
    txn.delete(LACKING, &[lane])
}

/// What is gone of a lane for a partner that stands at `number`.
pub(super) fn behind(rows: &impl Rows, lane: u8, number: u64) -> Result<Missing, StoreError> {
    let row = state(rows, lane)?;
    let (mut at, trimmed) = (lacked_after(&row, number), row.trimmed);
    let mut missing = Missing { after: at, ..Missing::default() };
    while at < trimmed {
        let found = gone(rows, lane, at, AT_ONCE)?;
        let Some((last, _)) = found.last() else { break };
        at = *last;
        missing.units += found.len() as u64;
        missing.octets += found.iter().map(|(_, gone)| gone.octets).sum::<u64>();
        let room = NAMED_MAX - missing.named.len();
        missing.named.extend(found.into_iter().take(room));
    }
    Ok(missing)
}
