//! Revisions that big sends after a message: of what waits for delivery here (`waiting`), and of copies in
//! secondary mailboxes (`copies`). Each is decided for each recipient in one commit, which also queues the
//! report to big; `busy` says why the old text cannot leave after that.
//!
//! A revision may come before the message that it is of, which goes by another lane: it is kept until then, and
//! applied in the message's own commit, so that nobody ever sees the old text.

pub mod busy;
mod copies;
#[cfg(test)]
mod tests;
mod waiting;

use std::sync::Arc;

use rkyv::{Archive, Deserialize, Serialize};
use shared::age;
use shared::id::MessageId;
use shared::lane::{self, NotApplied};
use shared::store::{BodyKey, Rows, StoreError, Stored, Table, Txn};
use shared::trace;
use shared::unit::{
    CopyRevision, Id, OUTBOUND, REVISION, REVISIONS_MAX, Revise, ReviseMode, ReviseResult, Revised, ToBig,
    ToEdge, are_signatures, carrier_id, decode, encode, revision_ordinal,
};

use crate::facts;
use crate::queue::{self, is_free};
use crate::record::{QueueRow, copy_key, queue_key};
use crate::windows;
use busy::{Busy, UnderWay};
pub use copies::{begin_session, end_session, file as file_copy, sessions, settle as settle_copies};
pub use waiting::{Decided, Waiting, message_of, waits};

/// Message or window and message, revision to [`EarlyRow`]: revisions that have overtaken their message.
const EARLY: Table = Table("early-revisions");
/// Revisions that wait for their message, at most.
const EARLY_MAX: u64 = 10_000;
/// How long one waits, of the node's life: the message has not come by then, and will not.
const EARLY_MILLIS: u64 = 30 * 24 * 3_600_000;
/// Decisions that one commit looks at.
const FORGOTTEN_AT_ONCE: usize = 10_000;

/// Why a unit with anything else before its message is refused.
pub const NOT_SIGNATURES: &str = "what is to stand before the message are not signatures";

/// Message and recipient to [`DecidedRow`]: what they are not to get any more.
const DECIDED: Table = Table("decided-revisions");

/// The last revision that has taken the place of what a recipient had, or has taken it back.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug)]
struct DecidedRow {
    revision: u32,
    /// Since when, in milliseconds of the node's life ([`age`]).
    since: u64,
}
shared::row!(DecidedRow, 1);

/// A revision that came before its message.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
struct EarlyRow {
    /// The unit.
    head: Vec<u8>,
    /// Its body, which this row holds.
    body: Option<[u8; 32]>,
    /// Since when, in milliseconds of the node's life ([`age`]).
    since: u64,
}
shared::row!(EarlyRow, 2);

/// Whether the message of a revision is here or has been, as one of the revisions `earlier` or as the original. No row
/// means too late only if a unit brought it once.
fn has_come(rows: &impl Rows, id: MessageId, earlier: &[u32], reader: &[u8]) -> Result<bool, StoreError> {
    for revision in std::iter::once(&0).chain(earlier).take(REVISIONS_MAX) {
        if lane::is_here(rows, &carrier_id(&id.0, *revision, reader))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a revision has brought a text that stays: not while it waits for its message.
pub fn has_brought(rows: &impl Rows, id: MessageId, revision: u32) -> Result<bool, StoreError> {
    let is_early = rows.raw(EARLY, &queue_key(&id.0, revision))?.is_some();
    Ok(!is_early && lane::is_here(rows, &carrier_id(&id.0, revision, REVISION))?)
}

/// Whether a later revision has been decided for a recipient: after this edge went back, the text before it may come
/// behind it, for it goes by another lane.
pub fn is_overtaken(
    rows: &impl Rows,
    id: MessageId,
    recipient: u32,
    revision: u32,
) -> Result<bool, StoreError> {
    let decided = rows.get::<DecidedRow>(DECIDED, &queue_key(&id.0, recipient))?;
    Ok(decided.is_some_and(|decided| decided.revision > revision))
}

/// Names the body of a unit. Returns what holds it.
fn keep(txn: &mut Txn<'_>, body: Option<&Stored>) -> Result<Option<[u8; 32]>, StoreError> {
    let Some(body) = body else { return Ok(None) };
    txn.keep_body(body)?;
    Ok(Some(body.key().0))
}

fn set_aside(txn: &mut Txn<'_>, key: &[u8], head: &ToEdge, body: Option<&Stored>) -> Result<(), NotApplied> {
    if txn.count(EARLY)? >= EARLY_MAX {
        return Err(NotApplied::Later("too many revisions wait for their messages".into()));
    }
    let body = keep(txn, body)?;
    let since = age::lived(txn)?;
    Ok(txn.put(EARLY, key, &EarlyRow { head: encode(head), body, since })?)
}

/// Applies a revision of a message for the Internet.
pub fn revise(
    txn: &mut Txn<'_>,
    busy: &Busy,
    revise: Revise,
    body: Option<&Stored>,
    now: u64,
) -> Result<(), NotApplied> {
    if body.is_none() && revise.mode != ReviseMode::Withdraw {
        return Err(NotApplied::Never("a revision without a body".into()));
    }
    if !are_signatures(&revise.signatures) {
        return Err(NotApplied::Never(NOT_SIGNATURES.into()));
    }
    let id = MessageId(revise.message);
    if Waiting::load(txn, id)?.is_empty() && !has_come(txn, id, &revise.earlier, OUTBOUND)? {
        let key = queue_key(&revise.message, revise.revision);
        return set_aside(txn, &key, &ToEdge::Revise(revise), body);
    }
    let body = keep(txn, body)?;
    Ok(decide(txn, busy, &revise, body, now)?)
}

/// Decides a revision for each of its recipients. Takes over the reference on `body`.
fn decide(
    txn: &mut Txn<'_>,
    busy: &Busy,
    revise: &Revise,
    body: Option<[u8; 32]>,
    now: u64,
) -> Result<(), StoreError> {
    let id = MessageId(revise.message);
    let mut waiting = Waiting::load(txn, id)?;
    if let Some(body) = body {
        // Of the envelope, a revision changes nothing.
        let envelope = waiting.rows().first().cloned();
        let row = QueueRow {
            revision: revise.revision,
            body,
            wrapped_key: revise.wrapped_key.clone(),
            size: revise.size,
            returns: envelope.as_ref().and_then(|row| row.returns),
            envelope_id: envelope.as_ref().and_then(|row| row.envelope_id.clone()),
            reverse_path: envelope.and_then(|row| row.reverse_path),
            body_8bit: revise.body_8bit,
            utf8_header: revise.utf8_header,
            signatures: revise.signatures.clone(),
            recipients: Vec::new(),
            noted: Vec::new(),
            queued_at: now,
            since: age::lived(txn)?,
            held: false,
            restored: false,
        };
        if !waiting.add(row) {
            txn.release_body(BodyKey(body))?;
        }
    }
    let mut decided = Vec::new();
    for recipient in &revise.recipients {
        let is_attempted = busy.is_attempted(id, *recipient);
        decided.extend(waiting.revise(*recipient, revise.revision, revise.mode, is_attempted));
    }
    waiting.store(txn)?;
    tell(txn, id, decided, now)
}

/// Tells big what was decided.
pub fn tell(txn: &mut Txn<'_>, id: MessageId, decided: Vec<Decided>, now: u64) -> Result<(), StoreError> {
    for decided in decided {
        if matches!(decided.result, ReviseResult::Replaced | ReviseResult::Withdrawn) {
            let key = queue_key(&id.0, decided.recipient);
            let before = txn.get::<DecidedRow>(DECIDED, &key)?.map_or(0, |row| row.revision);
            let (revision, since) = (decided.revision.max(before), age::lived(txn)?);
            txn.put(DECIDED, &key, &DecidedRow { revision, since })?;
        }
        tell_one(txn, id, decided, now)?;
    }
    Ok(())
}

fn tell_one(txn: &mut Txn<'_>, id: MessageId, decided: Decided, now: u64) -> Result<(), StoreError> {
    let Decided { recipient, revision, result, text } = decided;
    let word = serde_json::to_value(result).unwrap_or_default();
    let what = format!(
        "revision {} for recipient {recipient}: {}",
        revision_ordinal(revision),
        word.as_str().unwrap_or_default()
    );
    trace::note(txn, id, now, what)?;
    let revised = Revised { message: id.0, recipient, revision, result, at: now, text: text.into() };
    facts::tell(txn, &ToBig::Revised(revised))
}

/// Applies a revision of a copy in a secondary mailbox.
pub fn revise_copy(
    txn: &mut Txn<'_>,
    busy: &Busy,
    copy: CopyRevision,
    body: &Stored,
    now: u64,
) -> Result<(), NotApplied> {
    let id = MessageId(copy.message);
    // A withdrawal waits for nothing that will not come; another text comes itself, as a copy.
    let comes = !copy.resent || copy.mode != ReviseMode::Withdraw;
    if comes && !copies::is_filed(txn, &copy.window, id)? && !has_come(txn, id, &copy.earlier, &copy.window)?
    {
        let key = copy_key(&copy.window, id, copy.revision);
        return set_aside(txn, &key, &ToEdge::ReviseCopy(copy), Some(body));
    }
    txn.keep_body(body)?;
    Ok(copies::decide(txn, busy, &copy, body.key().0, now)?)
}

/// Applies the revisions that have come before what was queued or filed under `prefix`.
pub fn apply_early(txn: &mut Txn<'_>, busy: &Busy, prefix: &[u8], now: u64) -> Result<(), StoreError> {
    for (key, row) in txn.prefix::<EarlyRow>(EARLY, prefix, usize::MAX)? {
        txn.delete(EARLY, &key)?;
        match (decode::<ToEdge>(&row.head), row.body) {
            (Some(ToEdge::Revise(revise)), body) => decide(txn, busy, &revise, body, now)?,
            (Some(ToEdge::ReviseCopy(copy)), Some(body)) => copies::decide(txn, busy, &copy, body, now)?,
            (_, Some(body)) => txn.release_body(BodyKey(body))?,
            (_, None) => {}
        }
    }
    Ok(())
}

/// Ends a window ([`windows::end`]), and decides the revisions that have waited for messages in it.
pub fn end_window(
    txn: &mut Txn<'_>,
    busy: &Busy,
    window: &Id,
    until: Option<u64>,
    now: u64,
) -> Result<(), StoreError> {
    windows::end(txn, window, until, now)?;
    if !busy.is_locked(window) {
        // What has waited for room is too late.
        settle_copies(txn, window, now)?;
    }
    apply_early(txn, busy, window, now)
}

/// Gives up revisions whose message has not come for 30 days.
pub fn forget_early(txn: &mut Txn<'_>, now: u64) -> Result<(), StoreError> {
    let limit = usize::try_from(EARLY_MAX).unwrap_or(usize::MAX);
    let lived = age::lived(txn)?;
    for (key, row) in txn.prefix::<EarlyRow>(EARLY, &[], limit)? {
        if lived.saturating_sub(row.since) <= EARLY_MILLIS {
            continue;
        }
        txn.delete(EARLY, &key)?;
        if let Some(body) = row.body {
            txn.release_body(BodyKey(body))?;
        }
        let (id, recipients, revision) = match decode::<ToEdge>(&row.head) {
            Some(ToEdge::Revise(revise)) => (revise.message, revise.recipients, revise.revision),
            Some(ToEdge::ReviseCopy(copy)) => (copy.message, vec![copy.recipient], copy.revision),
            _ => continue,
        };
        let late = |recipient| Decided {
            recipient,
            revision,
            result: ReviseResult::TooLate,
            text: "the message has not come to the edge",
        };
        tell(txn, MessageId(id), recipients.into_iter().map(late).collect(), now)?;
    }
    Ok(())
}

/// Forgets what was decided, after as long as a revision is waited with for its message. The oldest messages come first.
pub fn forget_decided(txn: &mut Txn<'_>) -> Result<(), StoreError> {
    let lived = age::lived(txn)?;
    for (key, row) in txn.prefix::<DecidedRow>(DECIDED, &[], FORGOTTEN_AT_ONCE)? {
        if lived.saturating_sub(row.since) > EARLY_MILLIS {
            txn.delete(DECIDED, &key)?;
        }
    }
    Ok(())
}

/// Keeps a revision that a rebuild found, with its body, until the message is found too.
pub fn found(txn: &mut Txn<'_>, revise: Revise, body: BodyKey) -> Result<(), StoreError> {
    let key = queue_key(&revise.message, revise.revision);
    let since = age::lived(txn)?;
    txn.put(EARLY, &key, &EarlyRow { head: encode(&ToEdge::Revise(revise)), body: Some(body.0), since })
}

/// After a rebuild: revisions take the place of the texts that they were of, as they did before.
pub fn apply_found(txn: &mut Txn<'_>, now: u64) -> Result<(), StoreError> {
    let messages: std::collections::BTreeSet<Id> = txn
        .prefix::<QueueRow>(crate::record::QUEUE, &[], usize::MAX)?
        .iter()
        .map(|(key, _)| message_of(key).0)
        .collect();
    messages.iter().try_for_each(|message| apply_early(txn, &Busy::default(), message, now))
}

/// An attempt as it begins.
#[derive(Debug)]
pub struct Begun {
    /// The revision that leaves, as its row is at this moment.
    pub row: QueueRow,
    /// For whom: they are entered as under way for as long as this is held.
    pub under_way: UnderWay,
}

/// Begins an attempt for one destination, or for all that is due of the message if there is none: decides what was left
/// noted, then enters as under way the recipients of a row who are due.
pub fn begin(
    txn: &mut Txn<'_>,
    busy: &Arc<Busy>,
    id: MessageId,
    destination: Option<&str>,
    now: u64,
) -> Result<Option<Begun>, StoreError> {
    let mut waiting = Waiting::load(txn, id)?;
    let decided = waiting.settle_left(|recipient| busy.is_attempted(id, recipient));
    let begun = waiting.rows().iter().filter(|row| !row.held).find_map(|row| {
        let due = row.recipients.iter().filter(|recipient| {
            is_free(recipient)
                && age::is_due(recipient.next_attempt_at, now)
                && !busy.is_attempted(id, recipient.index)
                && destination.is_none_or(|destination| queue::destination(&recipient.address) == destination)
        });
        let recipients: Vec<u32> = due.map(|recipient| recipient.index).collect();
        (!recipients.is_empty()).then(|| (row.clone(), recipients))
    });
    if !decided.is_empty() {
        waiting.store(txn)?;
        tell(txn, id, decided, now)?;
    }
    Ok(begun.map(|(row, recipients)| Begun { row, under_way: busy.begin(id, recipients) }))
}
