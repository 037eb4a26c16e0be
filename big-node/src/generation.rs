//! How often the edge may say that it was restored: its generation is its own word, and each rise has big settle the lanes
//! with its safety store, and tell it everything anew.

use std::time::Duration;

use shared::age::lived;
use shared::lane::{self, PartnerError, PartnerRow};
use shared::render::when;
use shared::store::{Rows, StoreError, Txn};

use crate::record::{RISES, Rises, UsedUp};

/// So many rises are taken at once …
const AT_ONCE: u64 = 6;
/// … and after that one in so many milliseconds of this node's life.
const APART_MILLIS: u64 = 10 * 60_000;
/// How long of this node's life an alarm is shown after the last rise that used the allowance up.
const ALARM_MILLIS: u64 = 24 * 3_600_000;

/// Why what the edge says of itself is not remembered.
#[derive(Debug, thiserror::Error)]
pub enum NotRemembered {
    /// It was restored too often, as it says.
    #[error(
        "the edge says again that it was restored, more often than is taken ({AT_ONCE} times, then once in {} minutes); \
         it is let in in {} minutes, or at once after `big-node link hold`, `link adopt --yes` and `link release`; if \
         nobody restores it, look after it, for it may be somebody else's by now",
        APART_MILLIS / 60_000,
        .0.as_secs().div_ceil(60)
    )]
    RestoredTooOften(Duration),
    /// As for any partner.
    #[error(transparent)]
    Partner(#[from] PartnerError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Remembers what a session says of the edge, at `now` in milliseconds since 1970. Returns whether it went back, or is let
/// in by an operator as if it had.
///
/// # Errors
/// [`NotRemembered`]
pub fn remember(txn: &mut Txn<'_>, row: &PartnerRow, now: u64) -> Result<bool, NotRemembered> {
    let known = lane::partner(txn)?;
    lane::remember_partner(txn, row)?;
    let Some(known) = known.filter(|known| known.identity.generation != row.identity.generation) else {
        return Ok(false);
    };
    // An operator's word lets it in, higher or lower.
    if !known.adopt {
        rise(txn, now)?;
    }
    Ok(true)
}

/// Counts a rise.
fn rise(txn: &mut Txn<'_>, now: u64) -> Result<(), NotRemembered> {
    let (rises, lived) = (txn.get::<Rises>(RISES, &[])?.unwrap_or_default(), lived(txn)?);
    let paid = rises.paid_at.max(lived) + APART_MILLIS;
    if let Some(wait) = paid.checked_sub(lived + AT_ONCE * APART_MILLIS).filter(|wait| *wait > 0) {
        return Err(NotRemembered::RestoredTooOften(Duration::from_millis(wait)));
    }
    let used_up = paid > lived + (AT_ONCE - 1) * APART_MILLIS;
    let used_up = if used_up { Some(UsedUp { at: now, lived }) } else { rises.used_up };
    Ok(txn.put(RISES, &[], &Rises { paid_at: paid, used_up })?)
}

/// What there is to say of that.
pub fn alarm(rows: &impl Rows) -> Result<Option<String>, StoreError> {
    let used_up = rows.get::<Rises>(RISES, &[])?.and_then(|rises| rises.used_up);
    let lived = lived(rows)?;
    Ok(used_up.filter(|used_up| lived.saturating_sub(used_up.lived) < ALARM_MILLIS).map(|used_up| {
        format!(
            "the edge has said that it was restored {AT_ONCE} times, the last on {} UTC; from then on it is let in with that \
             once in {} minutes; if nobody restores it, look after it, for it may be somebody else's by now",
            when(used_up.at),
            APART_MILLIS / 60_000
        )
    }))
}
