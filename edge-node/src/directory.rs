//! The directory's projection as big has told it: keyed hashes of addresses, and whose they are.
//!
//! The rows lie in generations. Lookups go by the current one; a directory that is told anew is built
//! beside it, as another generation, and begins to count by one row that names it. What lies in neither is
//! swept away in steps. `compare` finds rows that are not what big has told.

use std::collections::BTreeSet;

use rkyv::{Archive, Deserialize, Serialize};
use shared::id::unix_millis;
use shared::lane::NotApplied;
use shared::projection::{Digester, Digests};
use shared::row;
use shared::store::{Rows, StoreError, Table, Txn};
use shared::unit::{AddressRow, DirectoryCompared, DirectoryMark, DirectoryRows, ToBig};

use crate::facts::{self, EVENT_LANE};
use crate::node::Node;
use crate::record::SETTINGS;
use shared::moment::Moment;

/// Generation, keyed address hash to [`AddressRow`].
const ADDRESSES: Table = Table("addresses");
/// Rows that one step sweeps away.
const SWEPT_AT_ONCE: usize = 2000;
/// Rows read at once.
const PAGE: usize = 1000;

/// How far the directory is here.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectoryRow {
    /// The generation that counts; 0 before one was ever whole.
    pub current: u32,
    /// The last generation that was begun: another one than the current is being told.
    pub newest: u32,
    /// What big said of the directory as it is now; void with the next change.
    pub root: Option<[u8; 32]>,
    /// Last compared, milliseconds since 1970; 0 before.
    pub compared_at: u64,
    /// Comparisons that found a difference.
    pub differed: u64,
    /// Parts that were put in place of what was here.
    pub mended: u64,
}
row!(DirectoryRow, 1);

/// How far the directory is here.
pub fn state(rows: &impl Rows) -> Result<DirectoryRow, StoreError> {
    Ok(rows.get(SETTINGS, b"directory")?.unwrap_or_default())
}

fn set_state(txn: &mut Txn<'_>, row: &DirectoryRow) -> Result<(), StoreError> {
    txn.put(SETTINGS, b"directory", row)
}

fn key(generation: u32, hash: &[u8]) -> Vec<u8> {
    [&generation.to_be_bytes(), hash].concat()
}

/// The row of a hash, in the generation that counts.
pub fn find(
    rows: &impl Rows,
    state: &DirectoryRow,
    hash: &[u8; 32],
) -> Result<Option<AddressRow>, StoreError> {
    rows.get(ADDRESSES, &key(state.current, hash))
}

/// The directory is told anew from here on; what was told of it before is begun again.
pub fn begin(txn: &mut Txn<'_>) -> Result<(), StoreError> {
    let mut row = state(txn)?;
    row.newest += 1;
    set_state(txn, &row)
}

/// It is whole: from this commit on it counts.
pub fn complete(txn: &mut Txn<'_>) -> Result<(), StoreError> {
    let mut row = state(txn)?;
    (row.current, row.root) = (row.newest, None);
    set_state(txn, &row)
}

/// Many rows at once, in place of what lies between their bounds.
pub fn rows(txn: &mut Txn<'_>, told: &DirectoryRows) -> Result<(), NotApplied> {
    let DirectoryRows { from, to, rows } = told;
    let within = rows.iter().all(|row| (from..=to).contains(&&row.hash));
    if !within || !rows.is_sorted_by(|a, b| a.hash < b.hash) {
        return Err(NotApplied::Never("rows of the directory that are not in order".into()));
    }
    let mut state = state(txn)?;
    let generation = state.newest;
    let told: BTreeSet<_> = rows.iter().map(|row| row.hash).collect();
    let end = [key(generation, to).as_slice(), &[0]].concat();
    for (place, row) in txn.range::<AddressRow>(ADDRESSES, &key(generation, from), Some(&end), usize::MAX)? {
        if !told.contains(&row.hash) {
            txn.delete(ADDRESSES, &place)?;
        }
    }
    for row in rows {
        txn.put(ADDRESSES, &key(generation, &row.hash), row)?;
    }
    if generation == state.current {
        state.mended += 1;
        state.root = None;
        set_state(txn, &state)?;
    }
    Ok(())
}

/// An address takes mail, or is somebody else's than it was.
pub fn address(txn: &mut Txn<'_>, row: &AddressRow) -> Result<(), StoreError> {
    for generation in changed(txn)? {
        txn.put(ADDRESSES, &key(generation, &row.hash), row)?;
    }
    Ok(())
}

/// An address takes mail no more.
pub fn gone(txn: &mut Txn<'_>, hash: &[u8; 32]) -> Result<(), StoreError> {
    for generation in changed(txn)? {
        txn.delete(ADDRESSES, &key(generation, hash))?;
    }
    Ok(())
}

/// The generations that a change goes to: also the one that is being told, whose row may be older.
fn changed(txn: &mut Txn<'_>) -> Result<BTreeSet<u32>, StoreError> {
    let row = state(txn)?;
    if row.root.is_some() {
        set_state(txn, &DirectoryRow { root: None, ..row })?;
    }
    Ok([row.current, row.newest].into())
}

/// Big has told everything up to here, and says what that comes to.
pub fn mark(txn: &mut Txn<'_>, mark: &DirectoryMark) -> Result<(), StoreError> {
    let row = state(txn)?;
    // While another directory is being told there is nothing to compare with.
    let root = mark.root.filter(|_| row.current == row.newest && row.current > 0);
    if root == row.root {
        return Ok(());
    }
    set_state(txn, &DirectoryRow { root, ..row })
}

/// Sweeps away some of what lies in no generation that is needed. Returns whether there may be more.
pub fn sweep(txn: &mut Txn<'_>) -> Result<bool, StoreError> {
    let mut left = SWEPT_AT_ONCE;
    for (from, to) in swept(&state(txn)?) {
        let found = txn.raw_range(ADDRESSES, &from, to.as_deref(), left, false)?;
        left -= found.len();
        found.iter().try_for_each(|(key, _)| txn.delete(ADDRESSES, key))?;
    }
    Ok(left == 0)
}

/// Whether there is anything to sweep away.
pub fn is_swept(rows: &impl Rows) -> Result<bool, StoreError> {
    for (from, to) in swept(&state(rows)?) {
        if !rows.raw_range(ADDRESSES, &from, to.as_deref(), 1, false)?.is_empty() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The ranges that hold nothing of use: before the generation that counts, and between it and the newest.
fn swept(row: &DirectoryRow) -> [(Vec<u8>, Option<Vec<u8>>); 2] {
    let current = key(row.current, &[]);
    let behind = key(row.current.saturating_add(1), &[]);
    [(Vec::new(), Some(current)), (behind.clone(), Some(key(row.newest, &[]).max(behind)))]
}

/// What is known under the generation that counts, by pages.
pub fn each(
    rows: &impl Rows,
    state: &DirectoryRow,
    mut visit: impl FnMut(&AddressRow),
) -> Result<(), StoreError> {
    let end = key(state.current.saturating_add(1), &[]);
    let mut from = key(state.current, &[]);
    loop {
        let page = rows.range::<AddressRow>(ADDRESSES, &from, Some(&end), PAGE)?;
        page.iter().for_each(|(_, row)| visit(row));
        let Some((last, _)) = page.last().filter(|_| page.len() == PAGE) else { return Ok(()) };
        // The least key after the last one.
        from = [last.as_slice(), &[0]].concat();
    }
}

fn digests(rows: &impl Rows, state: &DirectoryRow) -> Result<Digests, StoreError> {
    let mut digester = Digester::default();
    each(rows, state, |row| digester.push(row))?;
    Ok(digester.finish())
}

/// Compares the directory with what big said of it, if it has since the last time and nothing has changed
/// since then; tells big, and the fence. `heard` is when big was heard of.
///
/// The rows are read from a snapshot, so that no commit waits for it: 50,000 of them take a moment.
pub async fn compare(node: &Node, heard: Moment) -> Result<(), StoreError> {
    let snapshot = node.store.read()?;
    let row = state(&snapshot)?;
    let Some(root) = row.root else {
        node.with_fence(|fence| fence.heard(heard));
        return Ok(());
    };
    let here = tokio::task::block_in_place(|| digests(&snapshot, &row))?;
    drop(snapshot);
    let same = here.root() == root;
    node.with_fence(|fence| fence.compared(heard, same));
    if !same {
        tracing::warn!("the directory here is not the one that big has told; it is mended");
    }
    let differs = (!same).then(|| here.into_buckets());
    let reported = node.store.commit(move |txn| report(txn, root, differs)).await;
    reported?;
    node.queued(EVENT_LANE);
    Ok(())
}

fn report(txn: &mut Txn<'_>, root: [u8; 32], differs: Option<Vec<[u8; 16]>>) -> Result<(), StoreError> {
    let mut row = state(txn)?;
    // What has changed meanwhile, or was said anew, is compared the next time.
    row.root = row.root.filter(|now| *now != root);
    row.compared_at = unix_millis();
    row.differed += u64::from(differs.is_some());
    set_state(txn, &row)?;
    facts::tell(txn, &ToBig::DirectoryCompared(DirectoryCompared { differs }))
}

/// Changes a row as a fault would, with nothing else knowing of it.
#[cfg(any(test, feature = "sim"))]
pub fn drift(txn: &mut Txn<'_>, hash: [u8; 32], there: bool) -> Result<(), StoreError> {
    let place = key(state(txn)?.current, &hash);
    match there {
        true => txn.put(ADDRESSES, &place, &AddressRow { hash, person: None }),
        false => txn.delete(ADDRESSES, &place),
    }
}

#[cfg(test)]
pub(crate) mod tests;
