//! Revisions after a rebuild: what the segments hold of them is entered again, and mailboxes show the last one.

use shared::id::MessageId;
use shared::store::{Rows, StoreError, Txn};

use super::{revisions, show};
use crate::record::{
    Entry, MAILBOXES, MESSAGES, Message, REVISIONS, Revision, folder_of, message_of, revision_key,
};

/// Enters a revision that a rebuild found; its body is kept already, for the rebuild.
pub fn restore(txn: &mut Txn<'_>, id: MessageId, revision: Revision) -> Result<(), StoreError> {
    // The original may lie behind it in the segments: that it is held too is what `holds` says not.
    let revision = Revision { holds: false, ..revision };
    txn.put(REVISIONS, &revision_key(id, revision.number), &revision)
}

/// Whether its author has made something else of a message.
pub fn has_revisions(rows: &impl Rows, id: MessageId) -> Result<bool, StoreError> {
    Ok(!rows.prefix::<Revision>(REVISIONS, &id.0, 1)?.is_empty())
}

/// After a rebuild: an entry that shows the original is to show what its author has last made of it for everybody.
/// What was unread when it was withdrawn was not shown any more; which that was, no record says, and so all say that
/// it was withdrawn.
pub fn show_again(txn: &mut Txn<'_>, key: &[u8]) -> Result<(), StoreError> {
    let (id, damaged) = (message_of(key), || StoreError::Damaged("a mailbox".into()));
    let (Some(person), Some(folder)) = (key.first_chunk::<16>(), folder_of(key)) else {
        return Err(damaged());
    };
    let made = revisions(txn, id)?;
    if made.iter().any(|revision| !revision.holds) {
        hold_again(txn, id, &made)?;
    }
    let (Some(entry), Some(last)) =
        (txn.get::<Entry>(MAILBOXES, key)?, made.into_iter().rfind(|revision| revision.for_all))
    else {
        return Ok(());
    };
    match entry.revision == last.number {
        true => Ok(()),
        false => show(txn, person, folder, id, (entry, &last), entry.read),
    }
}

/// After a rebuild: the revisions of a message hold their bodies, which the rebuild has kept, and that of the original.
fn hold_again(txn: &mut Txn<'_>, id: MessageId, made: &[Revision]) -> Result<(), StoreError> {
    let original = txn.get::<Message>(MESSAGES, &id.0)?;
    if let Some(original) = original
        && txn.reference_body(original.body())?
    {
        for revision in made {
            let held = Revision { holds: true, ..revision.clone() };
            txn.put(REVISIONS, &revision_key(id, revision.number), &held)?;
        }
    }
    Ok(())
}
