//! The travel windows told anew with the directory, after big was restored or adopted this edge: what is
//! not repeated goes.

use rkyv::{Archive, Deserialize, Serialize};
use shared::row;
use shared::store::{Rows, StoreError, Table, Txn};
use shared::unit::{Id, Window};

use crate::record::WINDOWS;

/// What has been repeated since the renewal began; the empty key says that one is under way.
const RENEWED: Table = Table("renewed");

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug)]
struct Repeated;
row!(Repeated, 1);

/// A renewal begins; one that was under way begins again.
pub fn begin(txn: &mut Txn<'_>) -> Result<(), StoreError> {
    clear(txn)?;
    txn.put(RENEWED, b"", &Repeated)
}

/// A window was told.
pub fn window(txn: &mut Txn<'_>, window: &Id) -> Result<(), StoreError> {
    match txn.raw(RENEWED, b"")? {
        Some(_) => txn.put(RENEWED, window, &Repeated),
        None => Ok(()),
    }
}

/// The renewal is complete: returns the windows that were not repeated, which have to be ended. Nothing, if
/// none was under way.
pub fn complete(txn: &mut Txn<'_>) -> Result<Vec<Id>, StoreError> {
    if txn.raw(RENEWED, b"")?.is_none() {
        return Ok(Vec::new());
    }
    let mut ended = Vec::new();
    for (key, window) in txn.prefix::<Window>(WINDOWS, &[], usize::MAX)? {
        if txn.raw(RENEWED, &key)?.is_none() {
            ended.push(window.window);
        }
    }
    clear(txn)?;
    Ok(ended)
}

fn clear(txn: &mut Txn<'_>) -> Result<(), StoreError> {
    let told = txn.prefix::<Repeated>(RENEWED, &[], usize::MAX)?;
    told.iter().try_for_each(|(key, _)| txn.delete(RENEWED, key))
}
