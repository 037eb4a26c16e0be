//! A store's label: whose it is and how new its format is, so that no store is taken for another one.
//!
//! An index, the segments beside it and the keys of the node belong together. What is copied or mounted into the
//! wrong place would be opened all the same: the rows of another node would be looked at for ours, and segments
//! that an index does not name would be removed. So the label is compared before anything is changed.

use rkyv::{Archive, Deserialize, Serialize};

use super::marker::{MARKER_BYTES, Marker};
use super::txn::{Row, Rows, Table, Txn};
use super::{Store, StoreError};

const LABEL: Table = Table("label");
const KEY: &[u8] = b"store";

/// Whose a store is: a hash of what only its node has.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner([u8; 16]);

impl Owner {
    /// The node that has this key.
    pub fn of_key(key: &[u8]) -> Self {
        let mut owner = [0; 16];
        blake3::Hasher::new_derive_key("sallypost store owner 1").update(key).finalize_xof().fill(&mut owner);
        Self(owner)
    }
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
struct Label {
    owner: Owner,
    marker: [u8; MARKER_BYTES],
}
// This version is that of the whole store: a change of any row or record that an older program would misread
// raises it.
crate::row!(Label, 1);

/// Whether the store whose index has `rows`, and whose segments begin with `marker` where that is known, is
/// `owner`'s and of a format that this program reads. A store without a label is older than labels are.
pub(super) fn check(rows: &impl Rows, owner: Owner, marker: Option<&Marker>) -> Result<(), StoreError> {
    if let Some((version, _)) = rows.raw(LABEL, KEY)?
        && version > Label::VERSION
    {
        return Err(StoreError::Newer(format!("format {version}, this one reads up to {}", Label::VERSION)));
    }
    let Some(label) = rows.get::<Label>(LABEL, KEY)? else { return Ok(()) };
    if label.owner != owner {
        return Err(StoreError::Foreign("it belongs to another node than the keys beside it"));
    }
    match marker {
        Some(marker) if marker.octets() != label.marker => {
            Err(StoreError::Foreign("its index and its segments belong to two different stores"))
        }
        _ => Ok(()),
    }
}

/// Labels a store that has been opened as `owner`'s, unless it is labelled so.
pub(super) fn put(store: &Store, owner: Owner) -> Result<(), StoreError> {
    let label = Label { owner, marker: store.segments.marker().octets() };
    if store.read()?.get::<Label>(LABEL, KEY)? == Some(label) {
        return Ok(());
    }
    let write = || store.commit_blocking(move |txn: &mut Txn<'_>| txn.put(LABEL, KEY, &label)).map(drop);
    // Stores are opened on threads of a runtime too, which must not wait.
    let written = std::thread::scope(|scope| scope.spawn(write).join());
    written.unwrap_or_else(|_| Err(StoreError::Stopped("the label could not be written".into())))
}
