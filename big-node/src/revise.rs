//! Revising what one has sent: replacing it, adding to it, taking it back (design §8).
//!
//! A revision is entered in one commit, which decides for every recipient whose copy is here: in a mailbox, or
//! waiting for an inside gateway. What the edge holds it decides, and reports; until then the result is
//! *pending*. `make` composes revisions, `outgoing` sends them to the edge, `result` records what they come to,
//! `notice` what those get who have the old text already; `control` is for travellers, who ask by mail, `history`
//! shows what has become of a message, and `rebuilt` enters again what the segments hold.

pub mod control;
mod history;
mod make;
pub mod notice;
mod outgoing;
mod rebuilt;
mod result;

use shared::id::MessageId;
use shared::lane;
use shared::render::{when, word};
use shared::store::{Rows, StoreError, Stored, Txn};
use shared::trace;
use shared::unit::{
    DeliveryState, Id, REVISIONS_MAX, ReviseMode, ReviseResult, is_redirect, revision_after, revision_ordinal,
};

use crate::error::Refused;
use crate::folder;
use crate::gateway::queue;
use crate::mail::{self, Site, recipient_key};
use crate::record::{
    COPIES, CopyRow, Entry, Folder, MAILBOXES, MESSAGES, Message, Noted, Person, Place, RECIPIENTS, REVISED,
    REVISIONS, Recipient, RevisedRow, Revision, WindowRow, entry_key, key2, revised_key, revision_key,
};
use crate::redirect;
use crate::travel::fill::open_window;
pub use history::history;
#[cfg(test)]
pub(crate) use make::amend_as_of;
pub use make::{Amendment, amend};
pub use outgoing::{again, give_up, is_open_for, pending_for, send_again, undecided};
use outgoing::{send_to_edge, send_to_window};
pub use rebuilt::{has_revisions, restore, show_again};
pub use result::{Decided, Reported, decided, reported, results, withdrawn_before_restore};
pub(crate) use result::{cut, settle_withdrawn};

/// The kind under which the bodies of revisions are written.
pub const REVISION_KIND: u8 = 4;

impl Revision {
    /// The message as this revision.
    pub fn of(self, original: &Message) -> Message {
        let Self { number, origin, parts, unparsed, .. } = self;
        let (thread, parent) = (original.thread, original.parent);
        Message { origin, revision: number, thread, parent, parts, unparsed }
    }
}

/// The bit of a revision in [`Entry::shown`].
pub fn bit(revision: u32) -> u128 {
    1_u128.checked_shl(revision_ordinal(revision)).unwrap_or_default()
}

/// The number of the revision that comes after the latest one.
fn next_number(rows: &impl Rows, latest: u32) -> Result<u32, StoreError> {
    let generation = lane::identity(rows)?.map_or(1, |identity| identity.generation);
    Ok(revision_after(latest, generation))
}

/// The recipient's index in the key of their row.
pub fn index_of(key: &[u8]) -> u32 {
    key.last_chunk().map_or(0, |index| u32::from_be_bytes(*index))
}

/// The revisions of a message, the first one first.
fn revisions(rows: &impl Rows, id: MessageId) -> Result<Vec<Revision>, StoreError> {
    let found = rows.prefix::<Revision>(REVISIONS, &id.0, REVISIONS_MAX)?;
    Ok(found.into_iter().map(|(_, revision)| revision).collect())
}

/// A message that the person has sent and still has, and its revisions. What is somebody else's is refused as
/// what is not there.
fn own(rows: &impl Rows, person: &Person, id: MessageId) -> Result<(Message, Vec<Revision>), Refused> {
    let missing = || {
        Refused::new(format!(
            "{} has sent no message {id}; `mail list --folder sent` shows what can be revised",
            person.name
        ))
    };
    let message = rows.get::<Message>(MESSAGES, &id.0)?.ok_or_else(missing)?;
    if !mail::is_author(rows, &message, person)? || mail::entry(rows, &person.id, id)?.is_none() {
        return Err(missing());
    }
    Ok((message, revisions(rows, id)?))
}

/// Refuses a revision of what is not in the state that its author believes it to be in.
fn may_be_revised(id: MessageId, revisions: &[Revision], base: Option<u32>) -> Result<(), Refused> {
    let latest = revisions.last().map_or(0, |revision| revision_ordinal(revision.number));
    if let Some(withdrawn) =
        revisions.iter().find(|revision| revision.mode == ReviseMode::Withdraw && revision.for_all)
    {
        let text = format!(
            "{id} was withdrawn on {} UTC, and what was withdrawn is not revised; send a new message",
            when(withdrawn.at)
        );
        return Err(Refused::new(text));
    }
    if base.is_some_and(|base| base != latest) {
        let text = match revisions.last() {
            None => format!(
                "{id} has not been revised: the original is revision 0, and the base can only be that"
            ),
            Some(last) => format!(
                "the latest revision of {id} is {latest}, made on {} UTC ({}); look at it with `mail history {id}`, \
                 then revise it with --base {latest}",
                when(last.at),
                word(&last.mode)
            ),
        };
        return Err(Refused::new(text));
    }
    if revisions.len() >= REVISIONS_MAX {
        let text = format!(
            "{id} has been revised {REVISIONS_MAX} times, which is as often as may be; send a new one"
        );
        return Err(Refused::new(text));
    }
    Ok(())
}

/// How many recipients a message has: a redirect adds one.
fn reach(rows: &impl Rows, id: MessageId) -> Result<usize, StoreError> {
    Ok(rows.prefix::<Recipient>(RECIPIENTS, &id.0, usize::MAX)?.len())
}

/// Enters a revision and decides it for every recipient whose copy is here. Refused if it is not the next one, or was
/// composed when the message had not as many recipients.
fn enter(
    txn: &mut Txn<'_>,
    site: &Site,
    author: &Person,
    (id, revision, stored, signatures): (MessageId, Revision, &Stored, &str),
    recipients: usize,
    now: u64,
) -> Result<(), Refused> {
    let (original, earlier) = own(txn, author, id)?;
    if reach(txn, id)? != recipients {
        let text = format!("{id} was redirected to another address meanwhile; revise it again");
        return Err(Refused::new(text));
    }
    may_be_revised(id, &earlier, Some(revision_ordinal(revision.base)))?;
    txn.keep_body(stored)?;
    if earlier.is_empty() && !txn.reference_body(original.body())? {
        return Err(Refused::Store(StoreError::Damaged("a message that is revised has no body: it".into())));
    }
    txn.put(REVISIONS, &revision_key(id, revision.number), &revision)?;
    trace::note(
        txn,
        id,
        now,
        format!("revision {}: {}", revision_ordinal(revision.number), word(&revision.mode)),
    )?;
    let mut by_edge = Vec::new();
    for recipient in &revision.scope {
        if decide(txn, site, id, &revision, &original, *recipient, now)? {
            by_edge.push(*recipient);
        }
    }
    if !by_edge.is_empty() {
        mail::keep_signatures(txn, id, revision.number, signatures)?;
        send_to_edge(txn, site, id, &revision, &original, by_edge)?;
    }
    if revision.for_all {
        show_to_author(txn, author, id, &revision)?;
    }
    Ok(())
}

/// Shows a revision wherever its author has the message. What its author has received is decided by then.
fn show_to_author(
    txn: &mut Txn<'_>,
    author: &Person,
    id: MessageId,
    revision: &Revision,
) -> Result<(), StoreError> {
    for folder in folder::every(txn, &author.id)? {
        let key = entry_key(&author.id, folder, id);
        let entry = txn.get::<Entry>(MAILBOXES, &key)?.filter(|entry| entry.revision != revision.number);
        if let Some(entry) = entry {
            let entry = Entry { shown: entry.shown | bit(revision.number), ..entry };
            show(txn, &author.id, folder, id, (entry, revision), true)?;
        }
    }
    Ok(())
}

/// Decides a revision for one recipient, if their copy is here; `true` if the edge has to.
fn decide(
    txn: &mut Txn<'_>,
    site: &Site,
    id: MessageId,
    revision: &Revision,
    original: &Message,
    recipient: u32,
    now: u64,
) -> Result<bool, StoreError> {
    let Some(row) = txn.get::<Recipient>(RECIPIENTS, &recipient_key(id, recipient))? else {
        return Ok(false);
    };
    let (number, mode) = (revision.number, revision.mode);
    let pending = RevisedRow {
        mode,
        result: ReviseResult::Pending,
        at: now,
        text: String::new(),
        home: None,
        notice_owed: false,
    };
    let key = revised_key(id, recipient, number);
    txn.put(REVISED, &key, &pending)?;
    let decided_here = Decided { id, recipient, revision: number, at: now };
    if taken_back(txn, id, recipient, number)? {
        decided(
            txn,
            site,
            decided_here,
            ReviseResult::Refused,
            "it was withdrawn from this recipient before",
        )?;
        return Ok(false);
    }
    let waits = row.state.waits();
    if waits {
        redirect::revised(txn, (id, recipient), revision, &row, now)?;
    }
    match (&row.person, &row.gateway) {
        (Some(person), _) => {
            let home = in_mailbox(txn, id, person, revision)?;
            if let Some((window, copy)) = open_copy(txn, id, person)? {
                let home = (home != ReviseResult::TooLate).then_some(home);
                txn.put(REVISED, &key, &RevisedRow { home, ..pending })?;
                send_to_window(
                    txn,
                    site,
                    id,
                    revision.clone().of(original),
                    (mode, recipient, false),
                    (window, copy),
                )?;
            } else {
                decided(txn, site, decided_here, home, "")?;
            }
            Ok(false)
        }
        (None, Some(gateway)) if waits => {
            let noted = Noted { recipient, revision: number, mode };
            if let Some(result) = queue::revise(txn, site, (id, gateway), noted)? {
                decided(txn, site, decided_here, result, "")?;
            }
            Ok(false)
        }
        (None, None) if waits => Ok(true),
        _ => {
            let text = match row.state {
                DeliveryState::Failed => "its delivery had failed",
                DeliveryState::Withdrawn => "it does not go there any more",
                _ => "",
            };
            decided(txn, site, decided_here, ReviseResult::TooLate, text)?;
            Ok(false)
        }
    }
}

/// Whether an earlier revision has taken the message back from a recipient. A redirect has once the edge has given the
/// recipient up: until then, what its author makes of the message is made of the recipient's text.
fn taken_back(rows: &impl Rows, id: MessageId, recipient: u32, before: u32) -> Result<bool, StoreError> {
    let prefix = key2(&id.0, &recipient.to_be_bytes());
    let earlier = rows.prefix::<RevisedRow>(REVISED, &prefix, usize::MAX)?;
    let is_back = |number: u32, row: &RevisedRow| {
        let may_be = match row.result {
            ReviseResult::Refused | ReviseResult::TooLate => false,
            ReviseResult::Pending => !is_redirect(number),
            _ => true,
        };
        row.mode == ReviseMode::Withdraw && may_be
    };
    Ok(earlier.iter().any(|(key, row)| index_of(key) < before && is_back(index_of(key), row)))
}

/// The last revision before another one that was for a recipient and `counts`; 0 is the original, which was for all.
fn last_for(
    rows: &impl Rows,
    id: MessageId,
    recipient: u32,
    before: u32,
    counts: impl Fn(&RevisedRow) -> bool,
) -> Result<u32, StoreError> {
    let prefix = key2(&id.0, &recipient.to_be_bytes());
    let earlier = rows.prefix::<RevisedRow>(REVISED, &prefix, usize::MAX)?;
    let is_it = |(key, row): &(Vec<u8>, RevisedRow)| {
        index_of(key) < before && row.result != ReviseResult::Refused && counts(row)
    };
    Ok(earlier.into_iter().rfind(is_it).map_or(0, |(key, _)| index_of(&key)))
}

/// How many revisions a message has had, for whomever they were.
pub fn latest(rows: &impl Rows, id: MessageId) -> Result<u32, StoreError> {
    Ok(revisions(rows, id)?.last().map_or(0, |revision| revision_ordinal(revision.number)))
}

/// A reader's entry of the message, wherever it is filed; never the one by which its author has sent it.
pub fn received(rows: &impl Rows, person: &Id, id: MessageId) -> Result<Option<(Folder, Entry)>, StoreError> {
    let is_own = |folder: &Folder| matches!(folder, Folder::Sent | Folder::Drafts);
    for folder in folder::every(rows, person)?.into_iter().filter(|folder| !is_own(folder)) {
        if let Some(entry) = rows.get::<Entry>(MAILBOXES, &entry_key(person, folder, id))? {
            return Ok(Some((folder, entry)));
        }
    }
    Ok(None)
}

/// Decides a revision in a reader's mailbox.
fn in_mailbox(
    txn: &mut Txn<'_>,
    id: MessageId,
    person: &Id,
    revision: &Revision,
) -> Result<ReviseResult, StoreError> {
    let Some((folder, entry)) = received(txn, person, id)? else { return Ok(ReviseResult::TooLate) };
    let was_read = entry.read || entry.shown != 0;
    if !was_read && revision.mode == ReviseMode::Withdraw {
        mail::forget(txn, person, folder, id)?;
        return Ok(ReviseResult::Withdrawn);
    }
    let shown = entry.shown | if entry.read { bit(entry.revision) } else { 0 };
    show(txn, person, folder, id, (Entry { shown, ..entry }, revision), false)?;
    Ok(if was_read { ReviseResult::Revised } else { ReviseResult::Replaced })
}

/// Shows a revision in a mailbox; the entry lets go of the body it held and holds the new one.
fn show(
    txn: &mut Txn<'_>,
    person: &Id,
    folder: Folder,
    id: MessageId,
    (entry, revision): (Entry, &Revision),
    read: bool,
) -> Result<(), StoreError> {
    txn.reference_body(shared::store::BodyKey(revision.origin.body))?;
    if let Some(old) = mail::shown(txn, id, entry.revision)? {
        txn.release_body(old.body())?;
    }
    let withdrawn = revision.mode == ReviseMode::Withdraw;
    // In Trash a text that is new to its reader has its own 30 days.
    let filed_at = if folder == Folder::Trash { entry.filed_at.max(revision.at) } else { entry.filed_at };
    let entry = Entry { revision: revision.number, filed_at, read, amended: true, withdrawn, ..entry };
    txn.put(MAILBOXES, &entry_key(person, folder, id), &entry)
}

/// The person's open window, if a copy of the message is in it.
fn open_copy(
    rows: &impl Rows,
    id: MessageId,
    person: &Id,
) -> Result<Option<(WindowRow, CopyRow)>, StoreError> {
    let Some(row) = open_window(rows, person)? else { return Ok(None) };
    let copy = rows.get::<CopyRow>(COPIES, &key2(&row.window.window, &id.0))?;
    // What is not on the edge is sent as its author last wrote it.
    Ok(copy.filter(|copy| copy.place == Place::Edge).map(|copy| (row, copy)))
}

/// An entry has gone for good. When it was the author's last one, the revisions let go of their bodies: what
/// others are shown is held by their own entries.
pub fn let_go(txn: &mut Txn<'_>, person: &Id, id: MessageId) -> Result<(), StoreError> {
    let revisions = revisions(txn, id)?;
    let is_authors = revisions.first().is_some_and(|first| first.author == *person && first.holds);
    if !is_authors || mail::entry(txn, person, id)?.is_some() {
        return Ok(());
    }
    if let Some(original) = txn.get::<Message>(MESSAGES, &id.0)? {
        txn.release_body(original.body())?;
    }
    for revision in revisions {
        txn.release_body(shared::store::BodyKey(revision.origin.body))?;
        let key = revision_key(id, revision.number);
        txn.put(REVISIONS, &key, &Revision { holds: false, ..revision })?;
    }
    Ok(())
}
