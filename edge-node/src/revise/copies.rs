//! Revisions of copies in secondary mailboxes. A copy that no client has fetched is swapped; else the new text
//! is offered as another message. A session keeps what it saw at its login: what comes meanwhile is noted, and
//! decided when it ends.

use rkyv::{Archive, Deserialize, Serialize};
use shared::id::MessageId;
use shared::store::{BodyKey, Rows, StoreError, Table, Txn};
use shared::unit::{CopyRevision, Id, ReviseMode, ReviseResult};

use super::busy::Busy;
use super::tell_one;
use super::waiting::Decided;
use crate::record::{COPIES, CopyRow, ENDED_WINDOWS, copy_key, copy_of};
use crate::windows;

/// Window, message id, revision to [`NotedRow`]: revisions that came during a session.
const NOTED: Table = Table("noted-copy-revisions");

#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
struct NotedRow {
    recipient: u32,
    mode: ReviseMode,
    /// The sealed body, which this row holds.
    body: [u8; 32],
    wrapped_key: Vec<u8>,
    size: u64,
}
shared::row!(NotedRow, 1);

/// Whether a copy of the message, or a revision of it, is in the window, or the window is no more.
pub(super) fn is_filed(rows: &impl Rows, window: &Id, id: MessageId) -> Result<bool, StoreError> {
    let prefix = [window.as_slice(), &id.0].concat();
    Ok(rows.raw(ENDED_WINDOWS, window)?.is_some()
        || !rows.prefix::<CopyRow>(COPIES, &prefix, 1)?.is_empty()
        || !rows.prefix::<NotedRow>(NOTED, &prefix, 1)?.is_empty())
}

/// Decides a revision, or notes it while a session has the maildrop. Takes over the reference on `body`.
pub(super) fn decide(
    txn: &mut Txn<'_>,
    busy: &Busy,
    copy: &CopyRevision,
    body: [u8; 32],
    now: u64,
) -> Result<(), StoreError> {
    let CopyRevision { window, message, revision, mode, recipient, wrapped_key, size } = copy.clone();
    let row = NotedRow { recipient, mode, body, wrapped_key, size };
    if busy.is_locked(&window) {
        return txn.put(NOTED, &copy_key(&window, MessageId(message), revision), &row);
    }
    settle(txn, &window, now)?;
    swap(txn, &window, MessageId(message), revision, row, now)
}

/// Decides what was noted for a window. Called when nobody shows the maildrop to a client.
pub fn settle(txn: &mut Txn<'_>, window: &Id, now: u64) -> Result<(), StoreError> {
    windows::settle_gone(txn, window)?;
    for (key, row) in txn.prefix::<NotedRow>(NOTED, window, usize::MAX)? {
        txn.delete(NOTED, &key)?;
        let (message, revision) = copy_of(&key);
        swap(txn, window, message, revision, row, now)?;
    }
    Ok(())
}

/// A session has sent these copies, or parts of them, to its client.
pub fn seen(txn: &mut Txn<'_>, window: &Id, sent: &[(MessageId, u32)]) -> Result<(), StoreError> {
    for (message, revision) in sent {
        let key = copy_key(window, *message, *revision);
        if let Some(row) = txn.get::<CopyRow>(COPIES, &key)? {
            txn.put(COPIES, &key, &CopyRow { seen: true, ..row })?;
        }
    }
    Ok(())
}

fn swap(
    txn: &mut Txn<'_>,
    window: &Id,
    id: MessageId,
    revision: u32,
    row: NotedRow,
    now: u64,
) -> Result<(), StoreError> {
    let NotedRow { recipient, mode, body, wrapped_key, size } = row;
    let prefix = [window.as_slice(), &id.0].concat();
    let present = txn.prefix::<CopyRow>(COPIES, &prefix, usize::MAX)?;
    let later = present.iter().find(|(key, _)| copy_of(key).1 >= revision);
    // What is not there any more has been deleted by a client, and that it was fetched before must be assumed.
    let fetched = present.is_empty() || present.iter().any(|(_, row)| row.retrieved || row.seen || row.again);
    let (result, text) = if txn.raw(ENDED_WINDOWS, window)?.is_some() {
        txn.release_body(BodyKey(body))?;
        (ReviseResult::TooLate, "the travel window has ended")
    } else if let Some((_, later)) = later {
        txn.release_body(BodyKey(body))?;
        (if later.again { ReviseResult::Revised } else { ReviseResult::Replaced }, "")
    } else {
        for (key, old) in present {
            txn.delete(COPIES, &key)?;
            txn.release_body(BodyKey(old.body))?;
        }
        if mode == ReviseMode::Withdraw && !fetched {
            txn.release_body(BodyKey(body))?;
            (ReviseResult::Withdrawn, "")
        } else {
            let copy = CopyRow {
                body,
                wrapped_key,
                size,
                retrieved: false,
                seen: false,
                again: fetched,
                after: None,
                hidden: false,
            };
            txn.put(COPIES, &copy_key(window, id, revision), &copy)?;
            match fetched {
                true => (ReviseResult::Revised, "it was fetched on the road, and is offered there again"),
                false => (ReviseResult::Replaced, ""),
            }
        }
    };
    tell_one(txn, id, Decided { recipient, revision, result, text }, now)
}
