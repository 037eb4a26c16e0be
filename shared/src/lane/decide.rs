//! What an operator decided about a lane by hand, and what came out at the next contact.
//!
//! LU6.2 calls it a heuristic decision: it may turn out wrong, and then that has to be said. Each leaves
//! a record, which the next session compares with what the partner reports.

use rkyv::{Archive, Deserialize, Serialize};

use super::missing::{Missing, behind, lacking, missing};
use super::{Rebase, set_state, state};
use crate::store::{Rows, StoreError, Table, Txn};

const DECISIONS: Table = Table("decisions");
/// Records that are kept; beyond that the oldest go.
const DECISIONS_MAX: usize = 1000;

/// What was decided.
#[derive(
    Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// `link resolve --as stored`: the partner has what is in doubt.
    Stored,
    /// `link resolve --as not-stored`: it has not.
    NotStored,
    /// `link reset`: the lane begins where the partner stands, and what is not confirmed is sent anew.
    Reset,
    /// `link adopt`.
    Adopt,
}

/// The record of a decision.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct DecisionRow {
    /// The lane's index.
    pub lane: u8,
    /// What was decided.
    pub decision: Decision,
    /// The units it concerned: behind this number …
    pub after: u64,
    /// … and up to this one.
    pub to: u64,
    /// When, milliseconds since 1970.
    pub at: u64,
    /// What the next contact showed, for a person; `None` before it.
    pub outcome: Option<String>,
    /// The next contact showed that it was wrong.
    pub damage: bool,
    /// What the lane goes on without: as it was known when this was decided, and exactly since the next
    /// contact.
    pub missing: Missing,
}
crate::row!(DecisionRow, 2);

/// Writes a record.
pub(super) fn note(
    txn: &mut Txn<'_>,
    lane: u8,
    decision: Decision,
    (after, to): (u64, u64),
    now: u64,
) -> Result<(), StoreError> {
    let old = txn.prefix::<DecisionRow>(DECISIONS, &[], usize::MAX)?;
    for (key, _) in old.iter().take((old.len() + 1).saturating_sub(DECISIONS_MAX)) {
        txn.delete(DECISIONS, key)?;
    }
    let last = old.last().and_then(|(key, _)| key.first_chunk()).map_or(0, |key| u64::from_be_bytes(*key));
    let missing = missing(txn, lane)?.unwrap_or_default();
    let row = DecisionRow { lane, decision, after, to, at: now, outcome: None, damage: false, missing };
    txn.put(DECISIONS, &(last + 1).to_be_bytes(), &row)
}

/// `link resolve`: decides what became of the units in doubt on a lane, so that it goes on without a proof. The next
/// session asks which of them the partner has applied, and the others are sent anew: also of those *stored*, some may
/// have been refused or deferred. Returns the range of those units.
pub fn resolve(txn: &mut Txn<'_>, lane: u8, stored: bool, now: u64) -> Result<(u64, u64), StoreError> {
    let mut row = state(txn, lane)?;
    let range = (row.confirmed.number, row.last);
    row.rebase = Rebase::Any;
    set_state(txn, lane, &row)?;
    note(txn, lane, if stored { Decision::Stored } else { Decision::NotStored }, range, now)?;
    Ok(range)
}

/// `link reset`: whatever stands on a lane, it begins where the partner stands, and what is not
/// confirmed gets new numbers. Returns the range of those units.
pub fn reset(txn: &mut Txn<'_>, lane: u8, now: u64) -> Result<(u64, u64), StoreError> {
    let row = state(txn, lane)?;
    let range = (row.confirmed.number, row.last);
    set_state(txn, lane, &super::LaneRow { rebase: Rebase::Any, ..row })?;
    note(txn, lane, Decision::Reset, range, now)?;
    Ok(range)
}

/// Compares what was decided about a lane with where the partner stands, at the next contact.
pub fn compared(txn: &mut Txn<'_>, lane: u8, received: u64) -> Result<(), StoreError> {
    for (key, mut row) in txn.prefix::<DecisionRow>(DECISIONS, &[], DECISIONS_MAX)? {
        if row.lane != lane || row.outcome.is_some() {
            continue;
        }
        // Where nothing shows that the partner has what is gone, it was said to stand further back.
        let stands = received.min(lacking(txn, lane)?.unwrap_or(received));
        let (gone, listed) = (behind(txn, lane, stands)?, row.missing.units);
        let (outcome, damage) = match row.decision {
            _ if gone.units > listed => (
                format!(
                    "damage: the partner stands at {received}, and {} units that it lacks are gone from the safety \
                     store; when this was decided {listed} of them were known",
                    gone.units
                ),
                true,
            ),
            _ if gone.units > 0 => (
                format!(
                    "the partner stands at {received}: as decided, the lane goes on without {} units that are gone",
                    gone.units
                ),
                false,
            ),
            Decision::Stored if received < row.to => (
                format!(
                    "damage: the partner stands at {received}; units {} to {} were not stored there, and were \
                     sent again",
                    received.max(row.after) + 1,
                    row.to
                ),
                true,
            ),
            Decision::NotStored if received > row.after => (
                format!(
                    "the partner stands at {received}: it had stored some of units {} to {}; those it knew by \
                     their ids were not applied twice",
                    row.after + 1,
                    row.to
                ),
                true,
            ),
            _ => (format!("the partner stands at {received}: as decided"), false),
        };
        if damage {
            tracing::error!(lane, %outcome, "a decision of the operator was wrong");
        }
        (row.outcome, row.damage, row.missing) = (Some(outcome), damage, gone);
        txn.put(DECISIONS, &key, &row)?;
    }
    Ok(())
}

/// The records, oldest first.
pub fn decisions(rows: &impl Rows) -> Result<Vec<DecisionRow>, StoreError> {
    Ok(rows.prefix(DECISIONS, &[], DECISIONS_MAX)?.into_iter().map(|(_, row)| row).collect())
}
