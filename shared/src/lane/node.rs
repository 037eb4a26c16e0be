//! Who this node is on the link, and who its partner is.

use rkyv::{Archive, Deserialize, Serialize};

use super::decide::{Decision, note};
use super::receive::forget_rejected;
use super::{LANES_MAX, LanePosition, LaneRow, Rebase, missing, set_state, state};
use crate::id::random;
use crate::store::{Rows, StoreError, Table, Txn};

const NODE: Table = Table("node");

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
    /// The one it is about to have, which is pinned beside it.
    pub next_key: Option<Vec<u8>>,
    /// The one it has had before, which is refused.
    pub former_key: Option<Vec<u8>>,
    /// On the edge: the highest epoch accepted.
    pub epoch: u64,
    /// An operator said that a partner with another log name is to be taken: it lost its store.
    pub adopt: bool,
}
crate::row!(PartnerRow, 3);

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

/// Since when minutes are counted for generations: 2020, in milliseconds since 1970.
const MINUTES_FROM: u64 = 1_577_836_800_000;
/// The year 2083. A clock that is further ahead says nothing, and what it would say could not be undone.
const MINUTES_MAX: u32 = (1 << 25) - 1;

/// Stores this node's identity.
pub fn set_identity(txn: &mut Txn<'_>, identity: NodeIdentity) -> Result<(), StoreError> {
    txn.put(NODE, b"identity", &identity)
}

impl NodeIdentity {
    /// Whether this is the same store of the same node, whatever its generation.
    pub fn is_same_store(&self, other: &Self) -> bool {
        (self.node, self.log_name) == (other.node, other.log_name)
    }

    /// When this node went back to a backup, milliseconds since 1970 and up to a minute later; `None` if it never has.
    pub fn went_back_at(&self) -> Option<u64> {
        (self.generation > 1).then(|| MINUTES_FROM + u64::from(self.generation) * 60_000)
    }
}

/// Raises this node's generation above what it is, and above `to`.
fn raise_generation(txn: &mut Txn<'_>, to: u32) -> Result<NodeIdentity, StoreError> {
    let identity = identity(txn)?.unwrap_or_default();
    let generation = identity.generation.max(to).saturating_add(1);
    let raised = NodeIdentity { generation, ..identity };
    set_identity(txn, raised)?;
    Ok(raised)
}

/// This node's store was restored from a backup, at `now` in milliseconds since 1970. Its generation is the minute, so
/// that two restores of one backup, a minute or more apart, have two; and above the one it had, whatever the clock says.
pub fn restored(txn: &mut Txn<'_>, now: u64) -> Result<NodeIdentity, StoreError> {
    let minutes = u32::try_from(now.saturating_sub(MINUTES_FROM) / 60_000);
    raise_generation(txn, minutes.ok().filter(|minutes| *minutes <= MINUTES_MAX).unwrap_or_default())
}

/// The partner; `None` before pairing.
pub fn partner(rows: &impl Rows) -> Result<Option<PartnerRow>, StoreError> {
    rows.get(NODE, b"partner")
}

/// Remembers the partner.
pub fn set_partner(txn: &mut Txn<'_>, partner: &PartnerRow) -> Result<(), StoreError> {
    txn.put(NODE, b"partner", partner)
}

/// `link adopt`: raises this node's generation, so that whatever either side holds is compared and
/// replayed as after a restore, and takes the partner's next log name, whatever it is. A lane whose partner
/// lacks what is gone here ([`missing`]) goes on without it.
pub fn adopt(txn: &mut Txn<'_>, now: u64) -> Result<NodeIdentity, StoreError> {
    if let Some(partner) = partner(txn)? {
        set_partner(txn, &PartnerRow { adopt: true, ..partner })?;
    }
    for lane in 0..LANES_MAX {
        let row = state(txn, lane)?;
        note(txn, lane, Decision::Adopt, (row.confirmed.number, row.last), now)?;
        // No other lane goes on without a proof.
        if missing(txn, lane)?.is_some() {
            set_state(txn, lane, &LaneRow { rebase: Rebase::Any, ..row })?;
        }
    }
    // To the minute: a snapshot from before a restore has to come above that, too.
    restored(txn, now)
}

/// A partner whose store begins anew is remembered: nothing of what it once received or sent counts, and
/// the outbound lanes go on above the numbers they have used.
pub fn adopted(txn: &mut Txn<'_>, partner: &PartnerRow) -> Result<(), StoreError> {
    set_partner(txn, &PartnerRow { adopt: false, ..partner.clone() })?;
    for lane in 0..LANES_MAX {
        let row = state(txn, lane)?;
        let rebase = if row.last == 0 { Rebase::None } else { Rebase::Any };
        let received = LanePosition::default();
        forget_rejected(txn, lane)?;
        set_state(txn, lane, &LaneRow { received, rebase, partner_generation: 0, ..row })?;
    }
    Ok(())
}

/// Why what a session says of its partner is not remembered.
#[derive(Debug, thiserror::Error)]
pub enum PartnerError {
    /// Another one was paired since the session began, or the same one with another key: whoever has the old key has no
    /// say in who the partner is.
    #[error(
        "another partner, or another key of it, was paired since this connection began, which ends with that"
    )]
    Replaced,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Remembers what a session says of its partner. Where its generation is lower than the one that was known, as an operator
/// has admitted, the lanes are settled with it anew.
///
/// # Errors
/// [`PartnerError::Replaced`]: its key is pinned no more, or its store is not the partner's.
pub fn remember_partner(txn: &mut Txn<'_>, row: &PartnerRow) -> Result<(), PartnerError> {
    let known = pinned(txn, row)?;
    if !known.identity.is_same_store(&row.identity) {
        return Err(PartnerError::Replaced);
    }
    Ok(paired_again(txn, row)?)
}

/// Pins the next key of `row`, the partner of a session, beside the present one.
///
/// # Errors
/// [`PartnerError::Replaced`]: its key is not the partner's, or its store is not.
pub fn pin_next(txn: &mut Txn<'_>, row: PartnerRow) -> Result<(), PartnerError> {
    let known = pinned(txn, &row)?;
    if !known.identity.is_same_store(&row.identity) || known.key != row.key {
        return Err(PartnerError::Replaced);
    }
    Ok(set_partner(txn, &PartnerRow { next_key: row.next_key, ..known })?)
}

/// Takes the partner's new store, of which a session says, if an operator has said that it is to be taken.
///
/// # Errors
/// [`PartnerError::Replaced`]: its key is pinned no more, or no other store is to be taken any more.
pub fn adopt_store(txn: &mut Txn<'_>, row: &PartnerRow) -> Result<(), PartnerError> {
    match pinned(txn, row)?.adopt {
        true => Ok(adopted(txn, row)?),
        false => Err(PartnerError::Replaced),
    }
}

/// The partner is paired anew, with the store that is known: nothing begins anew, whatever its keys are.
pub fn paired_again(txn: &mut Txn<'_>, row: &PartnerRow) -> Result<(), StoreError> {
    let known = partner(txn)?.map_or(0, |known| known.identity.generation);
    set_partner(txn, row)?;
    if row.identity.generation < known { forget_generation(txn) } else { Ok(()) }
}

/// The partner as it is remembered, which has to have pinned the key of a session's.
fn pinned(txn: &Txn<'_>, row: &PartnerRow) -> Result<PartnerRow, PartnerError> {
    let is_pinned = |known: &PartnerRow| known.key == row.key || known.next_key.as_ref() == Some(&row.key);
    partner(txn)?.filter(is_pinned).ok_or(PartnerError::Replaced)
}

fn forget_generation(txn: &mut Txn<'_>) -> Result<(), StoreError> {
    for lane in 0..LANES_MAX {
        let row = state(txn, lane)?;
        set_state(txn, lane, &LaneRow { partner_generation: 0, ..row })?;
    }
    Ok(())
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
