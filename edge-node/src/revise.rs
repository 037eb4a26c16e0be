//! Revisions that big sends after a message: of what waits for delivery here (`waiting`), and of copies in
//! secondary mailboxes (`copies`). Each is decided for each recipient in one commit, which also queues the
//! report to big; `busy` says why the old text cannot leave after that.
//!
//! A revision may come before the message that it is of, which goes by another lane: it is kept until then, and
//! applied in the message's own commit, so that nobody ever sees the old text. After this edge went back a message may
//! come in parts, to each recipient as it is for that one: what has come is remembered for each (`latest`), and what was
//! decided is told again to a big that asks again.

pub mod busy;
mod copies;
pub mod latest;
#[cfg(test)]
mod tests;
mod waiting;

use std::collections::BTreeMap;
use std::sync::Arc;

use rkyv::{Archive, Deserialize, Serialize};
use shared::age;
use shared::id::MessageId;
use shared::lane::NotApplied;
use shared::store::{BodyKey, Rows, StoreError, Stored, Table, Txn};
use shared::tls_wish::TlsWish;
use shared::trace;
use shared::unit::{
    CopyRevision, Id, Revise, ReviseMode, ReviseResult, Revised, ToBig, ToEdge, are_signatures, decode,
    encode, is_redirect, revision_ordinal,
};

use crate::facts;
use crate::queue::{self, is_free};
use crate::record::{QueueRow, copy_key, queue_key};
use crate::windows;
use busy::{Busy, UnderWay};
#[cfg(feature = "sim")]
pub use copies::any_waits;
pub use copies::{
    begin_session, end_session, file as file_copy, sessions, settle as settle_copies, settle_message,
};
pub(crate) use waiting::late;
pub use waiting::{Decided, Waiting, message_of, waits};

/// Message or window and message, revision to [`EarlyRow`]: revisions that have overtaken their message.
const EARLY: Table = Table("early-revisions");
/// Revisions that wait for their message, at most.
const EARLY_MAX: u64 = 10_000;
/// How long one waits, of the node's life: the message has not come by then, and will not.
const EARLY_MILLIS: u64 = 30 * 24 * 3_600_000;

/// Why a unit with anything else before its message is refused.
pub const NOT_SIGNATURES: &str = "what is to stand before the message are not signatures";

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

/// Names the body of a unit. Returns what holds it.
fn keep(txn: &mut Txn<'_>, body: Option<&Stored>) -> Result<Option<[u8; 32]>, StoreError> {
    let Some(body) = body else { return Ok(None) };
    txn.keep_body(body)?;
    Ok(Some(body.key().0))
}

/// Whether one more revision may wait for its message.
fn has_room(rows: &impl Rows) -> Result<(), NotApplied> {
    match rows.count(EARLY)? {
        ..EARLY_MAX => Ok(()),
        _ => Err(NotApplied::Later("too many revisions wait for their messages".into())),
    }
}

/// Sets a revision aside since a moment, for recipients whose text has not come, besides those for whom it waits already.
/// Takes over the reference on `body`.
fn set_aside(
    txn: &mut Txn<'_>,
    mut revise: Revise,
    body: Option<[u8; 32]>,
    mut since: u64,
) -> Result<(), StoreError> {
    let key = queue_key(&revise.message, revise.revision);
    if let Some(waits) = txn.get::<EarlyRow>(EARLY, &key)? {
        since = since.min(waits.since);
        if let Some(ToEdge::Revise(waits)) = decode::<ToEdge>(&waits.head) {
            let mut all: BTreeMap<_, _> = waits.recipients.into_iter().collect();
            all.extend(revise.recipients);
            revise.recipients = all.into_iter().collect();
        }
        if let Some(body) = waits.body {
            txn.release_body(BodyKey(body))?;
        }
    }
    txn.put(EARLY, &key, &EarlyRow { head: encode(&ToEdge::Revise(revise)), body, since })
}

/// Applies a revision of a message for the Internet.
pub fn revise(
    txn: &mut Txn<'_>,
    busy: &Busy,
    mut revise: Revise,
    body: Option<&Stored>,
    now: u64,
) -> Result<(), NotApplied> {
    if body.is_none() && revise.mode != ReviseMode::Withdraw {
        return Err(NotApplied::Never("a revision without a body".into()));
    }
    if !are_signatures(&revise.signatures) {
        return Err(NotApplied::Never(NOT_SIGNATURES.into()));
    }
    let parts = parts(txn, &mut revise)?;
    if !parts.early.is_empty() {
        has_room(txn)?;
    }
    let (body, since) = (keep(txn, body)?, age::lived(txn)?);
    Ok(decide_or_wait(txn, busy, revise, parts, (body, since), now)?)
}

/// The recipients of a revision.
#[derive(Debug, Default)]
struct Parts {
    /// Whose text has come, or an older one.
    here: Vec<(u32, u32)>,
    /// The others.
    early: Vec<(u32, u32)>,
}

/// Takes the recipients out of a revision.
fn parts(rows: &impl Rows, revise: &mut Revise) -> Result<Parts, StoreError> {
    let id = MessageId(revise.message);
    let (waiting, mut parts) = (Waiting::load(rows, id)?, Parts::default());
    for (recipient, text) in std::mem::take(&mut revise.recipients) {
        // An older text that waits no more has left: nothing comes in its place.
        let is_here =
            waiting.revision_of(recipient).is_some() || latest::latest(rows, id, recipient)?.is_some();
        if is_here { parts.here.push((recipient, text)) } else { parts.early.push((recipient, text)) }
    }
    Ok(parts)
}

/// Decides a revision for those whose text has come; for the others it waits, since a moment. Takes over the reference
/// on the body.
fn decide_or_wait(
    txn: &mut Txn<'_>,
    busy: &Busy,
    revise: Revise,
    Parts { here, early }: Parts,
    (body, since): (Option<[u8; 32]>, u64),
    now: u64,
) -> Result<(), StoreError> {
    if here.is_empty() {
        return set_aside(txn, Revise { recipients: early, ..revise }, body, since);
    }
    if !early.is_empty() {
        if let Some(body) = body {
            txn.reference_body(BodyKey(body))?;
        }
        set_aside(txn, Revise { recipients: early, ..revise.clone() }, body, since)?;
    }
    decide(txn, busy, &Revise { recipients: here, ..revise }, body, now)
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
    let attempted = busy.attempted(id);
    let mut decided = waiting.settle_left(&attempted);
    if let Some(body) = body {
        // Of the envelope, a revision changes nothing.
        let envelope = waiting.rows().first().cloned();
        let row = QueueRow {
            revision: revise.revision,
            body,
            wrapped_key: revise.wrapped_key.clone(),
            size: revise.size,
            returns: envelope.as_ref().and_then(|row| row.returns),
            tls_wish: envelope.as_ref().map_or(TlsWish::Unsaid, |row| row.tls_wish),
            envelope_id: envelope.as_ref().and_then(|row| row.envelope_id.clone()),
            reverse_path: envelope.and_then(|row| row.reverse_path),
            body_8bit: revise.body_8bit,
            utf8_header: revise.utf8_header,
            signatures: revise.signatures.clone(),
            recipients: Vec::new(),
            noted: Vec::new(),
            queued_at: now,
            since: age::lived(txn)?,
        };
        if !waiting.add(row) {
            txn.release_body(BodyKey(body))?;
        }
    }
    let (revision, mode) = (revise.revision, revise.mode);
    for (recipient, _) in &revise.recipients {
        let recipient = *recipient;
        let gone = waiting.revision_of(recipient).is_none();
        // Whom a redirect is for has its number.
        let is_redirected = is_redirect(revision) && waiting.state_of(revision).is_some();
        if gone && (is_redirected || latest::latest(txn, id, recipient)? == Some(revision)) {
            // A big that went back asks again; so may this edge have done since it decided.
            decided.push(Decided { recipient, revision, result: waiting::done(mode), text: "" });
        } else {
            decided.extend(waiting.revise(recipient, revision, mode, attempted.contains(&recipient)));
        }
    }
    waiting.store(txn)?;
    tell(txn, id, decided, now)
}

/// Tells big what was decided.
pub fn tell(txn: &mut Txn<'_>, id: MessageId, decided: Vec<Decided>, now: u64) -> Result<(), StoreError> {
    for decided in decided {
        if matches!(decided.result, ReviseResult::Replaced | ReviseResult::Withdrawn) {
            latest::remember(txn, id, decided.recipient, decided.revision)?;
        }
        tell_one(txn, id, decided, now)?;
    }
    Ok(())
}

fn tell_one(txn: &mut Txn<'_>, id: MessageId, decided: Decided, now: u64) -> Result<(), StoreError> {
    let Decided { recipient, revision, result, text } = decided;
    let word = serde_json::to_value(result).unwrap_or_default();
    let word = word.as_str().unwrap_or_default();
    let what = match is_redirect(revision) {
        true => format!("redirect of recipient {recipient} to another address: {word}"),
        false => format!("revision {} for recipient {recipient}: {word}", revision_ordinal(revision)),
    };
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
    if copy.comes && !copies::is_filed(txn, &copy.window, id)? && !copies::has_come(txn, &copy)? {
        has_room(txn)?;
        let (body, since) = (keep(txn, Some(body))?, age::lived(txn)?);
        let key = copy_key(&copy.window, id, copy.revision);
        let row = EarlyRow { head: encode(&ToEdge::ReviseCopy(copy)), body, since };
        return Ok(txn.put(EARLY, &key, &row)?);
    }
    txn.keep_body(body)?;
    Ok(copies::decide(txn, busy, &copy, body.key().0, now)?)
}

/// Applies the revisions that have come before what was queued or filed under `prefix`.
pub fn apply_early(txn: &mut Txn<'_>, busy: &Busy, prefix: &[u8], now: u64) -> Result<(), StoreError> {
    for (key, row) in txn.prefix::<EarlyRow>(EARLY, prefix, usize::MAX)? {
        txn.delete(EARLY, &key)?;
        match (decode::<ToEdge>(&row.head), row.body) {
            (Some(ToEdge::Revise(mut revise)), body) => {
                let parts = parts(txn, &mut revise)?;
                decide_or_wait(txn, busy, revise, parts, (body, row.since), now)?;
            }
            (Some(ToEdge::ReviseCopy(copy)), Some(body)) => copies::decide(txn, busy, &copy, body, now)?,
            (_, body) => {
                tracing::error!("a revision that waited for its message cannot be read, and is dropped");
                body.map_or(Ok(()), |body| txn.release_body(BodyKey(body)))?;
            }
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
    // What has waited for room, or for the end of a session, is too late.
    settle_copies(txn, window, now)?;
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
            Some(ToEdge::Revise(Revise { message, recipients, revision, .. })) => {
                (message, recipients.into_iter().map(|(index, _)| index).collect(), revision)
            }
            Some(ToEdge::ReviseCopy(copy)) => (copy.message, vec![copy.recipient], copy.revision),
            _ => continue,
        };
        let never_came =
            |recipient| Decided { text: "the message has not come to the edge", ..late(recipient, revision) };
        tell(txn, MessageId(id), recipients.into_iter().map(never_came).collect(), now)?;
    }
    Ok(())
}

/// Keeps a revision that a rebuild found, with its body, until the message is found too.
pub fn found(txn: &mut Txn<'_>, revise: Revise, body: BodyKey) -> Result<(), StoreError> {
    let since = age::lived(txn)?;
    set_aside(txn, revise, Some(body.0), since)
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
    let attempted = busy.attempted(id);
    let decided = waiting.settle_left(&attempted);
    let begun = waiting.rows().iter().find_map(|row| {
        let due = row.recipients.iter().filter(|recipient| {
            is_free(recipient)
                && age::is_due(recipient.next_attempt_at, now)
                && !attempted.contains(&recipient.index)
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
