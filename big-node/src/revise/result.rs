//! What a revision came to for each recipient: decided here, reported by the edge, or owed by a notice.

use std::collections::BTreeMap;

use shared::id::MessageId;
use shared::render::word;
use shared::store::{Rows, StoreError, Txn};
use shared::trace;
use shared::unit::{
    DeliveryState, Id, REVISIONS_MAX, ReviseMode, ReviseResult, Revised, generation_end, is_redirect,
    revision_ordinal,
};

use super::{bit, index_of, last_for, next_number, open_copy, received, revisions};
use crate::mail::{self, Site, recipient_key};
use crate::record::{
    COPIES, CopyRow, Entry, Folder, MAILBOXES, NOTICES, Named, RECIPIENTS, REVISED, REVISIONS, Recipient,
    RevisedRow, Revision, entry_key, key2, revised_key, revision_key,
};
use crate::redirect;
use crate::request::RevisedView;

/// Characters of what an edge says about a revision.
const TEXT_MAX: usize = 512;

/// What an edge says about a revision, as much of it as is kept.
pub(crate) fn cut(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}

/// Which revision for which recipient, and when.
#[derive(Clone, Copy, Debug)]
pub struct Decided {
    /// The message.
    pub id: MessageId,
    /// The recipient's index.
    pub recipient: u32,
    /// Which revision.
    pub revision: u32,
    /// When, milliseconds since 1970.
    pub at: u64,
}

/// Records what a revision came to for a recipient, and what follows from it.
pub fn decided(
    txn: &mut Txn<'_>,
    site: &Site,
    of: Decided,
    result: ReviseResult,
    text: &str,
) -> Result<(), StoreError> {
    let Decided { id, recipient, revision, at } = of;
    if is_redirect(revision) {
        return redirect::decided(txn, site, of, result, text);
    }
    let (key, to) = (revised_key(id, recipient, revision), recipient_key(id, recipient));
    let Some(mut row) = txn.get::<RevisedRow>(REVISED, &key)? else { return Ok(()) };
    let Some(mut who) = txn.get::<Recipient>(RECIPIENTS, &to)? else { return Ok(()) };
    // One that was overtaken on the link is no news to somebody who was sent, or told of, what came after it.
    let overtaken = match result {
        ReviseResult::TooLate if who.person.is_none() => overtaken_by(txn, id, recipient, revision)?,
        _ => None,
    };
    let (result, text) = match overtaken {
        Some(ReviseResult::NoticeSent) => (result, "the notice is of a later revision"),
        Some(_) => (ReviseResult::Replaced, "a later revision has overtaken it"),
        None => (result, text),
    };
    (row.result, row.at, row.text) = (result, at, cut(text));
    if who.in_doubt && matches!(result, ReviseResult::Replaced | ReviseResult::Withdrawn) {
        row.text = "a host may have the old text all the same: what it answered is not known".into();
    }
    match result {
        ReviseResult::Replaced if who.person.is_none() => who.revision = who.revision.max(revision),
        ReviseResult::Withdrawn if who.person.is_none() => {
            settle_withdrawn(txn, (id, &to), &mut who, at, "withdrawn by its author")?;
        }
        ReviseResult::Withdrawn => end_overtaken(txn, site, of)?,
        ReviseResult::TooLate
            if who.state == DeliveryState::Relayed && site.follow_up && overtaken.is_none() =>
        {
            (row.result, row.notice_owed) = (ReviseResult::Pending, true);
            row.text = "it had left already; a notice will follow it".into();
            txn.put(NOTICES, &revision_key(id, revision), &Named(id.0))?;
        }
        _ => {}
    }
    row.home = None;
    mail::touch_author(txn, id)?;
    txn.put(RECIPIENTS, &to, &who)?;
    txn.put(REVISED, &key, &row)?;
    let number = revision_ordinal(revision);
    let what = format!("revision {number} for {}: {} {}", who.address, word(&row.result), row.text);
    trace::note(txn, id, at, what.trim_end())
}

/// A reader's copy was taken back: a text before that, which may still be on its way, is offered nowhere. It is decided with
/// it, for an edge that went back would be told that text again, and not that it was withdrawn.
fn end_overtaken(txn: &mut Txn<'_>, site: &Site, withdrawn: Decided) -> Result<(), StoreError> {
    let prefix = key2(&withdrawn.id.0, &withdrawn.recipient.to_be_bytes());
    for (key, row) in txn.prefix::<RevisedRow>(REVISED, &prefix, REVISIONS_MAX)? {
        let revision = index_of(&key);
        if revision < withdrawn.revision && row.result == ReviseResult::Pending {
            let earlier = Decided { revision, ..withdrawn };
            decided(txn, site, earlier, ReviseResult::Replaced, "a later revision has overtaken it")?;
        }
    }
    Ok(())
}

/// What a later revision for a recipient outside has come to, if it has reached them, in whatever way.
fn overtaken_by(
    rows: &impl Rows,
    id: MessageId,
    recipient: u32,
    revision: u32,
) -> Result<Option<ReviseResult>, StoreError> {
    let prefix = key2(&id.0, &recipient.to_be_bytes());
    let all = rows.prefix::<RevisedRow>(REVISED, &prefix, usize::MAX)?;
    let is_later = |number: u32| number > revision && !is_redirect(number);
    let later = all.into_iter().filter(|(key, _)| is_later(index_of(key)));
    let result = |row: RevisedRow| if row.notice_owed { ReviseResult::NoticeSent } else { row.result };
    let has_come = |result: &ReviseResult| {
        matches!(result, ReviseResult::Replaced | ReviseResult::Withdrawn | ReviseResult::NoticeSent)
    };
    Ok(later.map(|(_, row)| result(row)).rfind(has_come))
}

/// The recipient's copy is not delivered any more.
pub(crate) fn settle_withdrawn(
    txn: &mut Txn<'_>,
    (id, to): (MessageId, &[u8]),
    who: &mut Recipient,
    at: u64,
    why: &str,
) -> Result<(), StoreError> {
    (who.state, who.at, who.text) = (DeliveryState::Withdrawn, at, why.into());
    (who.status, who.next_attempt_at) = (String::new(), None);
    mail::settled(txn, id, to)
}

/// The edge reports that it has withdrawn a copy, by a revision that a restored big knows nothing of. What waited
/// there waits no more, and its author learns why. A revision that was forgotten is one that was made after all that
/// are known of its generation, and before the last restore: what an edge says of another one it has made up.
pub fn withdrawn_before_restore(txn: &mut Txn<'_>, report: &Revised) -> Result<(), StoreError> {
    let id = MessageId(report.message);
    let to = recipient_key(id, report.recipient);
    let Some(mut who) = txn.get::<Recipient>(RECIPIENTS, &to)? else { return Ok(()) };
    let goes_by_edge = who.person.is_none() && who.gateway.is_none();
    if report.result != ReviseResult::Withdrawn || !goes_by_edge || !who.state.waits() {
        return Ok(());
    }
    if is_redirect(report.revision) {
        return redirect::forgotten(txn, report, who);
    }
    let (since, end) = (next_number(txn, 0)?, generation_end(report.revision));
    let known = revisions(txn, id)?.into_iter().map(|revision| revision.number);
    let known = known.filter(|number| *number < end).max().unwrap_or_default();
    if !(known + 1..since).contains(&report.revision) {
        return Ok(());
    }
    let why = "withdrawn by its author, before this node was restored";
    settle_withdrawn(txn, (id, &to), &mut who, report.at, why)?;
    txn.put(RECIPIENTS, &to, &who)?;
    mail::touch_author(txn, id)?;
    trace::note(txn, id, report.at, format!("for {}: {why}", who.address))
}

/// Records what became of a notice that was owed to a recipient.
pub(super) fn decided_late(
    txn: &mut Txn<'_>,
    id: MessageId,
    recipient: u32,
    revision: u32,
    (result, text): (ReviseResult, &str),
    now: u64,
) -> Result<(), StoreError> {
    let key = revised_key(id, recipient, revision);
    let Some(row) = txn.get::<RevisedRow>(REVISED, &key)?.filter(|row| row.notice_owed) else {
        return Ok(());
    };
    txn.put(REVISED, &key, &RevisedRow { result, at: now, text: text.into(), notice_owed: false, ..row })
}

/// What became of an edge's report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reported {
    /// It is recorded, or was decided before.
    Recorded,
    /// No such revision was sent to the edge.
    Nobody,
    /// The edge cannot know that, or contradicts itself.
    Impossible(&'static str),
}

/// Records what the edge reports of a revision. Its word counts only for what it was sent, and has not decided
/// yet.
pub fn reported(txn: &mut Txn<'_>, site: &Site, report: &Revised, now: u64) -> Result<Reported, StoreError> {
    let Revised { message, recipient, revision, result, at, ref text } = *report;
    let id = MessageId(message);
    let Some(row) = txn.get::<RevisedRow>(REVISED, &revised_key(id, recipient, revision))? else {
        return Ok(Reported::Nobody);
    };
    let Some(who) = txn.get::<Recipient>(RECIPIENTS, &recipient_key(id, recipient))? else {
        return Ok(Reported::Nobody);
    };
    if who.gateway.is_some() {
        return Ok(Reported::Impossible("a result for somebody whose mail does not go by the edge"));
    }
    let done = match row.mode {
        ReviseMode::Withdraw => ReviseResult::Withdrawn,
        ReviseMode::Replace | ReviseMode::Append => ReviseResult::Replaced,
    };
    let possible = result == done
        || result == ReviseResult::TooLate
        || (result == ReviseResult::Revised && who.person.is_some());
    if !possible {
        return Ok(Reported::Impossible("not a result that such a revision can have"));
    }
    // What was taken for replaced has left as it was before all the same: an operator had an edge that went back attempt it, or
    // it is at the new address of a redirect, which this node had forgotten.
    let has_left = who.state == DeliveryState::Relayed
        && who.revision == revision
        && (row.result, result) == (ReviseResult::Replaced, ReviseResult::TooLate);
    if (row.result != ReviseResult::Pending && !has_left) || row.notice_owed {
        return Ok(Reported::Recorded);
    }
    let at_end = matches!(who.state, DeliveryState::Relayed | DeliveryState::Failed);
    let mut result = result;
    if who.person.is_none() && at_end {
        // An edge that was restored does not know what it has reported before.
        result = ReviseResult::TooLate;
    }
    if let Some(person) = who.person {
        result = with_home(txn, (id, recipient), &person, revision, (row.home, result), now)?;
    }
    decided(txn, site, Decided { id, recipient, revision, at }, result, text)?;
    Ok(Reported::Recorded)
}

/// What a revision came to for a person with a copy at home and one on the road: read anywhere is read.
fn with_home(
    txn: &mut Txn<'_>,
    (id, recipient): (MessageId, u32),
    person: &Id,
    revision: u32,
    (home, road): (Option<ReviseResult>, ReviseResult),
    now: u64,
) -> Result<ReviseResult, StoreError> {
    if let Some((window, copy)) = open_copy(txn, id, person)?
        && copy.revision == revision
        && copy.acted < revision
    {
        // What its client did so far, it did with an earlier one: an edge that went back may show this one before it reports it.
        let fresh = CopyRow { retrieved: false, deleted: false, acted: revision, ..copy };
        txn.put(COPIES, &key2(&window.window.window, &id.0), &fresh)?;
    }
    if road != ReviseResult::Revised {
        let decided_at_home = road == ReviseResult::TooLate || home == Some(ReviseResult::Revised);
        return Ok(if decided_at_home { home.unwrap_or(road) } else { road });
    }
    let row = txn.get::<Revision>(REVISIONS, &revision_key(id, revision))?;
    let Some(row) = row else { return Ok(road) };
    // What this reader had before, which is not what others had.
    let before = last_for(txn, id, recipient, revision, |_| true)?;
    if home == Some(ReviseResult::Withdrawn) && received(txn, person, id)?.is_none() {
        // It was taken from the mailbox unread, but it was read on the road: its reader is told here too.
        txn.reference_body(shared::store::BodyKey(row.origin.body))?;
        let (filed_at, shown) = (now, bit(before));
        let entry = Entry { filed_at, revision, shown, amended: true, withdrawn: true, ..Entry::default() };
        txn.put(MAILBOXES, &entry_key(person, Folder::In, id), &entry)?;
    } else if let Some((folder, entry)) = received(txn, person, id)? {
        let entry = Entry { shown: entry.shown | bit(before), ..entry };
        txn.put(MAILBOXES, &entry_key(person, folder, id), &entry)?;
    }
    Ok(ReviseResult::Revised)
}

/// What the last revision for each recipient came to, by their index. Redirects are none.
pub fn results(rows: &impl Rows, id: MessageId) -> Result<BTreeMap<u32, RevisedView>, StoreError> {
    let mut results = BTreeMap::new();
    for (key, row) in rows.prefix::<RevisedRow>(REVISED, &id.0, usize::MAX)? {
        let (recipient, number) = (key.get(..20).map_or(0, index_of), index_of(&key));
        if is_redirect(number) {
            continue;
        }
        let revision = revision_ordinal(number);
        let view = RevisedView { revision, result: row.result, at: row.at, text: row.text };
        results.insert(recipient, view);
    }
    Ok(results)
}
