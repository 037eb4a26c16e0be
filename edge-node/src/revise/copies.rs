//! Revisions of copies in secondary mailboxes. A copy that no client has fetched is swapped; else the new text
//! is offered as another message. A session keeps what it saw at its login: what comes meanwhile is noted, and
//! decided when it ends. So is one for which the window has no room: it is decided once a session begins or ends and
//! there is room, or when the window ends. A revision that another one has overtaken on the link is never offered,
//! whether that one is there still, was withdrawn or was deleted. A later revision that big files because this edge went
//! back takes the place of the copy in the same way, and nobody is told.

use rkyv::{Archive, Deserialize, Serialize};
use shared::id::MessageId;
use shared::lane;
use shared::store::{BodyKey, Rows, StoreError, Stored, Table, Txn};
use shared::unit::{CopyRevision, Id, REVISIONS_MAX, ReviseMode, ReviseResult, WindowCopy, carrier_id};

use super::busy::Busy;
use super::tell_one;
use super::waiting::{Decided, done};
use crate::record::{COPIES, CopyRow, ENDED_WINDOWS, SESSIONS, copy_key, copy_of};
use crate::windows::{self, Latest};

/// Window, message id, revision to [`NotedRow`]: revisions that came during a session.
const NOTED: Table = Table("noted-copy-revisions");

#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
struct NotedRow {
    /// Whose it is, for the report; `None` if big waits for none.
    recipient: Option<u32>,
    mode: ReviseMode,
    /// The sealed body, which this row holds.
    body: [u8; 32],
    wrapped_key: Vec<u8>,
    size: u64,
    /// See [`CopyRevision::earlier`].
    earlier: Vec<u32>,
    /// See [`CopyRevision::comes`].
    comes: bool,
    /// See [`CopyRevision::retrieved`].
    retrieved: bool,
}
shared::row!(NotedRow, 4);

/// A session that has a maildrop.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug)]
struct SessionRow {
    /// Milliseconds since 1970.
    since: u64,
}
shared::row!(SessionRow, 1);

/// Whether a copy of the message, or a revision of it, is in the window, or the window is no more.
pub(super) fn is_filed(rows: &impl Rows, window: &Id, id: MessageId) -> Result<bool, StoreError> {
    let prefix = [window.as_slice(), &id.0].concat();
    Ok(rows.raw(ENDED_WINDOWS, window)?.is_some()
        || !rows.prefix::<CopyRow>(COPIES, &prefix, 1)?.is_empty()
        || !rows.prefix::<NotedRow>(NOTED, &prefix, 1)?.is_empty())
}

/// Whether a copy has been in the window once, as one of the revisions before this or as the original. One that this edge
/// filed itself, and a client has deleted, is known by that alone.
pub(super) fn has_come(rows: &impl Rows, copy: &CopyRevision) -> Result<bool, StoreError> {
    has_been(rows, &copy.window, MessageId(copy.message), &copy.earlier)
}

fn has_been(rows: &impl Rows, window: &Id, id: MessageId, earlier: &[u32]) -> Result<bool, StoreError> {
    for revision in std::iter::once(&0).chain(earlier).take(REVISIONS_MAX) {
        if lane::is_here(rows, &carrier_id(&id.0, *revision, window))? {
            return Ok(true);
        }
    }
    Ok(windows::latest(rows, window, id)?.is_some())
}

/// Decides a revision, or notes it while a session has the maildrop. Takes over the reference on `body`.
pub(super) fn decide(
    txn: &mut Txn<'_>,
    busy: &Busy,
    copy: &CopyRevision,
    body: [u8; 32],
    now: u64,
) -> Result<(), StoreError> {
    let copy = copy.clone();
    let (window, message, revision) = (copy.window, copy.message, copy.revision);
    let row = NotedRow {
        recipient: Some(copy.recipient),
        mode: copy.mode,
        body,
        wrapped_key: copy.wrapped_key,
        size: copy.size,
        earlier: copy.earlier,
        comes: copy.comes,
        retrieved: copy.retrieved,
    };
    note_or_swap(txn, busy, copy_key(&window, MessageId(message), revision), row, now)
}

/// Files a copy that big has sent. If an earlier revision is here, for this edge went back, it takes the place of that.
pub fn file(
    txn: &mut Txn<'_>,
    busy: &Busy,
    copy: WindowCopy,
    body: &Stored,
    now: u64,
) -> Result<(), StoreError> {
    let (window, id) = (copy.window, MessageId(copy.message));
    let present = txn.prefix::<CopyRow>(COPIES, &[window, id.0].concat(), usize::MAX)?;
    // What has been here and is not there any more was deleted by a client, which a big that went back does not know.
    let is_over = |latest: Latest| match present.is_empty() {
        true => latest.revision >= copy.revision,
        false => latest.revision > copy.revision,
    };
    if let Some(latest) = windows::latest(txn, &window, id)?.filter(|latest| is_over(*latest)) {
        // What has been withdrawn or overtaken has a later number.
        let is_deleted = present.is_empty() && latest.revision == copy.revision;
        return if is_deleted { windows::tell_deleted(txn, &copy, now) } else { Ok(()) };
    }
    if present.iter().all(|(key, _)| copy_of(key).1 == copy.revision) {
        return windows::file(txn, copy, body, now);
    }
    txn.keep_body(body)?;
    let WindowCopy { revision, wrapped_key, size, retrieved, .. } = copy;
    let row = NotedRow {
        recipient: None,
        mode: ReviseMode::Replace,
        body: body.key().0,
        wrapped_key,
        size,
        earlier: Vec::new(),
        comes: true,
        retrieved,
    };
    note_or_swap(txn, busy, copy_key(&window, id, revision), row, now)
}

fn note_or_swap(
    txn: &mut Txn<'_>,
    busy: &Busy,
    key: Vec<u8>,
    row: NotedRow,
    now: u64,
) -> Result<(), StoreError> {
    let window: Id = key.first_chunk().copied().unwrap_or_default();
    if is_in_use(txn, busy, &window)? {
        return note(txn, &key, &row);
    }
    settle_message(txn, busy, &window, copy_of(&key).0, now)?;
    swap(txn, &key, row, now)
}

/// Whether a session shows the maildrop to a client. What a window had is gone when it ends, whoever is looking.
fn is_in_use(rows: &impl Rows, busy: &Busy, window: &Id) -> Result<bool, StoreError> {
    Ok(busy.is_locked(window) && rows.raw(ENDED_WINDOWS, window)?.is_none())
}

/// Keeps a revision until it can be decided. It may be noted already, as what big files and as what it waits for a report
/// of: that one stays.
fn note(txn: &mut Txn<'_>, key: &[u8], row: &NotedRow) -> Result<(), StoreError> {
    match txn.get::<NotedRow>(NOTED, key)? {
        Some(noted) if noted.recipient.is_some() || row.recipient.is_none() => {
            txn.release_body(BodyKey(row.body))
        }
        noted => {
            noted.map_or(Ok(()), |noted| txn.release_body(BodyKey(noted.body)))?;
            txn.put(NOTED, key, row)
        }
    }
}

/// Whether revisions wait in a window.
#[cfg(feature = "sim")]
pub fn any_waits(rows: &impl Rows, window: &Id) -> Result<bool, StoreError> {
    Ok(!rows.prefix::<NotedRow>(NOTED, window, 1)?.is_empty())
}

/// Decides what was noted for a window. Called when nobody shows the maildrop to a client.
pub fn settle(txn: &mut Txn<'_>, window: &Id, now: u64) -> Result<(), StoreError> {
    settle_under(txn, window, window, now)
}

/// Decides what was noted for a message in a window, unless a session has the maildrop.
pub fn settle_message(
    txn: &mut Txn<'_>,
    busy: &Busy,
    window: &Id,
    id: MessageId,
    now: u64,
) -> Result<(), StoreError> {
    match is_in_use(txn, busy, window)? {
        true => Ok(()),
        false => settle_under(txn, window, &[*window, id.0].concat(), now),
    }
}

fn settle_under(txn: &mut Txn<'_>, window: &Id, prefix: &[u8], now: u64) -> Result<(), StoreError> {
    if txn.raw(SESSIONS, window)?.is_some() {
        // It ended with the node, or its end could not be written: whatever was there may have been read.
        let copies = txn.prefix::<CopyRow>(COPIES, window, windows::COPIES_MAX)?;
        let copies: Vec<_> = copies.iter().map(|(key, _)| copy_of(key)).collect();
        end_session(txn, window, &copies)?;
    }
    windows::settle_gone(txn, window)?;
    for (key, row) in txn.prefix::<NotedRow>(NOTED, prefix, usize::MAX)? {
        txn.delete(NOTED, &key)?;
        swap(txn, &key, row, now)?;
    }
    Ok(())
}

/// A session has the maildrop from now on. What it sends is known to the node alone until it ends.
pub fn begin_session(txn: &mut Txn<'_>, window: &Id, now: u64) -> Result<(), StoreError> {
    settle(txn, window, now)?;
    txn.put(SESSIONS, window, &SessionRow { since: now })
}

/// The windows of sessions that have begun and not ended.
pub fn sessions(rows: &impl Rows) -> Result<Vec<Id>, StoreError> {
    let open = rows.prefix::<SessionRow>(SESSIONS, &[], windows::WINDOWS_MAX)?;
    Ok(open.iter().filter_map(|(key, _)| key.first_chunk().copied()).collect())
}

/// A session is over, and has sent these copies, or parts of them, to its client.
pub fn end_session(txn: &mut Txn<'_>, window: &Id, sent: &[(MessageId, u32)]) -> Result<(), StoreError> {
    txn.delete(SESSIONS, window)?;
    for (message, revision) in sent {
        let key = copy_key(window, *message, *revision);
        if let Some(row) = txn.get::<CopyRow>(COPIES, &key)? {
            txn.put(COPIES, &key, &CopyRow { seen: true, ..row })?;
        }
    }
    Ok(())
}

fn swap(txn: &mut Txn<'_>, key: &[u8], row: NotedRow, now: u64) -> Result<(), StoreError> {
    let noted = row.clone();
    let NotedRow { recipient, mode, body, wrapped_key, size, earlier, comes, retrieved } = row;
    let (window, (id, revision)) = (key.first_chunk().copied().unwrap_or_default(), copy_of(key));
    let prefix = [window, id.0].concat();
    let present = txn.prefix::<CopyRow>(COPIES, &prefix, usize::MAX)?;
    let later = present.iter().find(|(key, _)| copy_of(key).1 >= revision).map(|(_, later)| later.again);
    // A later one that has been here may have gone: it has overtaken this one all the same.
    let latest = windows::latest(txn, &window, id)?.filter(|latest| latest.revision >= revision);
    // What is not there any more has been deleted by a client, and that it was fetched before must be assumed: except
    // of what was never there.
    let deleted = present.is_empty() && (comes || has_been(txn, &window, id, &earlier)?);
    let fetched =
        retrieved || deleted || present.iter().any(|(_, row)| row.retrieved || row.seen || row.again);
    let (result, text) = if txn.raw(ENDED_WINDOWS, &window)?.is_some() {
        txn.release_body(BodyKey(body))?;
        (ReviseResult::TooLate, "the travel window has ended")
    } else if windows::is_gone(txn, &window, id)? {
        txn.release_body(BodyKey(body))?;
        (ReviseResult::TooLate, "it is not at home any more")
    } else if let Some(again) = later.or(latest.map(|latest| latest.again)) {
        txn.release_body(BodyKey(body))?;
        (if again || retrieved { ReviseResult::Revised } else { done(mode) }, "")
    } else if (mode != ReviseMode::Withdraw || fetched)
        && !windows::fits(txn, &window, size, present.iter().map(|(_, old)| old.size).sum())?
    {
        return note(txn, key, &noted);
    } else {
        for (key, old) in present {
            windows::take_copy(txn, &key, &old)?;
        }
        windows::revised(txn, &window, id, &Latest { revision, again: fetched, at: now })?;
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
            windows::put_copy(txn, key, &copy)?;
            match fetched {
                true => (ReviseResult::Revised, "it was fetched on the road, and is offered there again"),
                false => (ReviseResult::Replaced, ""),
            }
        }
    };
    match recipient {
        Some(recipient) => tell_one(txn, id, Decided { recipient, revision, result, text }, now),
        None => Ok(()),
    }
}
