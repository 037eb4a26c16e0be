//! What lies in mailboxes: found, marked, read, moved to Trash and removed, with what holds its body.

use shared::id::MessageId;
use shared::store::{Rows, StoreError, Txn};
use shared::unit::{Id, PopAct};

use crate::error::Refused;
use crate::folder;
use crate::record::{
    AfterFetch, DRAFTS, Entry, Folder, MAILBOXES, MESSAGES, Message, Person, REVISIONS, Revision, WindowRow,
    entry_key, revision_key,
};
use crate::revise;
use crate::travel::fill;

/// A message's entry in a person's mailbox, wherever it is filed.
pub fn entry(rows: &impl Rows, person: &Id, id: MessageId) -> Result<Option<(Folder, Entry)>, StoreError> {
    for folder in folder::every(rows, person)? {
        if let Some(entry) = rows.get(MAILBOXES, &entry_key(person, folder, id))? {
            return Ok(Some((folder, entry)));
        }
    }
    Ok(None)
}

/// A message as one of its revisions.
pub fn shown(rows: &impl Rows, id: MessageId, revision: u32) -> Result<Option<Message>, StoreError> {
    let Some(message) = rows.get::<Message>(MESSAGES, &id.0)? else { return Ok(None) };
    if revision == 0 {
        return Ok(Some(message));
    }
    let found = rows.get::<Revision>(REVISIONS, &revision_key(id, revision))?;
    Ok(found.map(|found| found.of(&message)))
}

/// Changes the marks of a message in a person's mailbox, in every folder in which it lies.
pub fn mark(
    txn: &mut Txn<'_>,
    person: &Id,
    id: MessageId,
    mut change: impl FnMut(&mut Entry),
) -> Result<(), StoreError> {
    for folder in folder::every(txn, person)? {
        let key = entry_key(person, folder, id);
        if let Some(mut found) = txn.get::<Entry>(MAILBOXES, &key)? {
            change(&mut found);
            txn.put(MAILBOXES, &key, &found)?;
        }
    }
    Ok(())
}

/// A person reads a revision of a message: marks it, unless another one is shown by now. An entry that is gone
/// has nothing to mark.
pub fn read(txn: &mut Txn<'_>, person: &Id, id: MessageId, revision: u32) -> Result<bool, StoreError> {
    let Some((folder, found)) = entry(txn, person, id)? else { return Ok(true) };
    if found.revision != revision {
        return Ok(false);
    }
    let read = Entry { read: true, shown: found.shown | revise::bit(revision), ..found };
    if (read.read, read.shown) != (found.read, found.shown) {
        txn.put(MAILBOXES, &entry_key(person, folder, id), &read)?;
    }
    Ok(true)
}

/// Moves a message to Trash; from Trash it goes for good, and with its last holder the body.
pub fn delete(txn: &mut Txn<'_>, person: &Person, id: MessageId, now: u64) -> Result<Folder, Refused> {
    let Some((folder, found)) = entry(txn, &person.id, id)? else {
        return Err(Refused::new(format!(
            "{} has no message {id}; `mail list` shows what there is",
            person.name
        )));
    };
    if folder == Folder::Trash {
        erase(txn, &person.id, id)?;
    } else {
        discard(txn, &person.id, folder, id, found, now)?;
    }
    Ok(folder)
}

/// Moves an entry to Trash, where it counts from now.
pub fn discard(
    txn: &mut Txn<'_>,
    person: &Id,
    folder: Folder,
    id: MessageId,
    found: Entry,
    now: u64,
) -> Result<(), StoreError> {
    if !matches!(folder, Folder::Sent | Folder::Drafts) {
        fill::deleted(txn, person, id)?;
    }
    to_trash(txn, person, folder, id, found, now)
}

fn to_trash(
    txn: &mut Txn<'_>,
    person: &Id,
    folder: Folder,
    id: MessageId,
    found: Entry,
    now: u64,
) -> Result<(), StoreError> {
    let trash = entry_key(person, Folder::Trash, id);
    if txn.raw(MAILBOXES, &trash)?.is_some() {
        // It lies there already, from another folder: one entry holds one reference.
        return forget(txn, person, folder, id);
    }
    txn.delete(MAILBOXES, &entry_key(person, folder, id))?;
    txn.put(MAILBOXES, &trash, &Entry { filed_at: now, ..found })
}

/// Removes a message from Trash, and so for good.
pub fn erase(txn: &mut Txn<'_>, person: &Id, id: MessageId) -> Result<(), StoreError> {
    forget(txn, person, Folder::Trash, id)?;
    // It may have come here from Sent: what was received of it stays on the road with its own entry.
    if revise::received(txn, person, id)?.is_some() {
        return Ok(());
    }
    // What was deleted on the road came here without a word to the edge, which has it again if it went back, or if its
    // author has revised it since.
    fill::deleted(txn, person, id)
}

/// Removes an entry for good, and with a message's last holder its body.
pub fn forget(txn: &mut Txn<'_>, person: &Id, folder: Folder, id: MessageId) -> Result<(), StoreError> {
    let key = entry_key(person, folder, id);
    let revision = txn.get::<Entry>(MAILBOXES, &key)?.map_or(0, |entry| entry.revision);
    txn.delete(MAILBOXES, &key)?;
    // If it was a draft, that was its only holder.
    txn.delete(DRAFTS, &id.0)?;
    if let Some(message) = shown(txn, id, revision)? {
        txn.release_body(message.body())?;
    }
    revise::let_go(txn, person, id)
}

/// What an act on the road does to the message at home. One with an earlier revision says nothing of that
/// which is shown now, but that the earlier one was read.
pub fn after_fetch(txn: &mut Txn<'_>, row: &WindowRow, act: &PopAct, now: u64) -> Result<(), StoreError> {
    let (person, id, deleted) = (row.window.person, MessageId(act.message), act.deleted);
    let mut is_shown = true;
    mark(txn, &person, id, |entry| {
        let is_it = entry.revision == act.revision;
        is_shown &= is_it;
        entry.shown |= revise::bit(act.revision);
        entry.read |= is_it && row.after_fetch != AfterFetch::Keep;
    })?;
    // What was collected on the road is what was received: a copy in Sent is left alone.
    if deleted
        && is_shown
        && row.after_fetch == AfterFetch::Delete
        && let Some(found) = txn.get::<Entry>(MAILBOXES, &entry_key(&person, Folder::In, id))?
    {
        to_trash(txn, &person, Folder::In, id, found, now)?;
    }
    Ok(())
}
