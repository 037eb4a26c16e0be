//! What is sent to the edge of a revision: for what it has still to deliver, for copies in secondary mailboxes, and
//! again after it went back.

use std::collections::BTreeMap;

use shared::id::MessageId;
use shared::lane::{self, QueuedBody, QueuedUnit};
use shared::seal::PublicKey;
use shared::store::{Rows, StoreError, Txn};
use shared::unit::{
    CopyRevision, Id, REVISION, Revise, ReviseMode, ReviseResult, ToEdge, carrier_id, decode, encode,
    is_redirect, part_id,
};

use super::result::{Decided, decided};
use super::{index_of, open_copy, revisions};
use crate::mail::{self, Site, recipient_key};
use crate::projection;
use crate::record::{
    COPIES, CopyRow, MESSAGES, Message, Place, RECIPIENTS, REVISED, REVISIONS, Recipient, RevisedRow,
    Revision, WindowRow, key2, revised_key, revision_key,
};
use crate::redirect;

const SERVICE_LANE: u8 = 0;
const BATCH_LANE: u8 = 3;

/// Queues a revision for what the edge has still to deliver. A small one goes by the lane of what is urgent, so
/// that it overtakes the message if that still waits for the link.
pub(super) fn send_to_edge(
    txn: &mut Txn<'_>,
    site: &Site,
    id: MessageId,
    revision: &Revision,
    original: &Message,
    recipients: Vec<u32>,
) -> Result<(), StoreError> {
    let Some(edge) = projection::edge(txn)? else { return Ok(()) };
    let (message, mode) = (revision.clone().of(original), revision.mode);
    let body = match mode {
        ReviseMode::Withdraw => QueuedBody::None,
        ReviseMode::Replace | ReviseMode::Append => mail::queued_body(txn, &message)?,
    };
    let unit = part_id(&id.0, revision.number, REVISION, recipients.iter().copied());
    let has = |index| Ok((index, text_of(txn, id, index)?));
    let head = ToEdge::Revise(Revise {
        message: id.0,
        revision: revision.number,
        mode,
        recipients: recipients.into_iter().map(has).collect::<Result<_, StoreError>>()?,
        wrapped_key: wrapped(site, id, revision.number, PublicKey(edge.sealing_key))?,
        size: message.origin.size,
        body_8bit: message.origin.body_8bit,
        utf8_header: message.origin.utf8_header,
        signatures: match mode {
            ReviseMode::Withdraw => String::new(),
            ReviseMode::Replace | ReviseMode::Append => mail::signatures(txn, id, revision.number)?,
        },
    });
    queue_unit(txn, &head, unit, body)
}

/// Queues that the edge is to give a recipient up by a redirect: a withdrawal, behind which no text stands.
pub fn give_up(txn: &mut Txn<'_>, id: MessageId, number: u32, recipient: u32) -> Result<(), StoreError> {
    let head = ToEdge::Revise(Revise {
        message: id.0,
        revision: number,
        mode: ReviseMode::Withdraw,
        recipients: vec![(recipient, text_of(txn, id, recipient)?)],
        wrapped_key: Vec::new(),
        size: 0,
        body_8bit: false,
        utf8_header: false,
        signatures: String::new(),
    });
    let unit = part_id(&id.0, number, REVISION, std::iter::once(recipient));
    queue_unit(txn, &head, unit, QueuedBody::None)
}

/// The last revision of which it is known that it took the place of what a recipient was to get.
fn text_of(rows: &impl Rows, id: MessageId, recipient: u32) -> Result<u32, StoreError> {
    Ok(rows.get::<Recipient>(RECIPIENTS, &recipient_key(id, recipient))?.map_or(0, |row| row.revision))
}

/// Queues a revision of a copy in a secondary mailbox; `again` if the edge may have lost the copy.
pub(super) fn send_to_window(
    txn: &mut Txn<'_>,
    site: &Site,
    id: MessageId,
    message: Message,
    (mode, recipient, again): (ReviseMode, u32, bool),
    (window, copy): (WindowRow, CopyRow),
) -> Result<(), StoreError> {
    let (number, reader) = (message.revision, PublicKey(window.window.public_key));
    let window = window.window.window;
    let body = mail::queued_body(txn, &message)?;
    let retrieved = is_retrieved(txn, &copy, (id, recipient, number))?;
    let comes = copy.is_there() && !(again && is_settled_without(txn, mode, id, recipient)?);
    // One that is told again may have been overtaken.
    if number >= copy.revision {
        let copy = CopyRow { revision: number, size: message.origin.size, ..copy };
        txn.put(COPIES, &key2(&window, &id.0), &copy)?;
    }
    let head = ToEdge::ReviseCopy(CopyRevision {
        window,
        message: id.0,
        revision: number,
        earlier: earlier(txn, id, number)?,
        mode,
        recipient,
        wrapped_key: wrapped(site, id, number, reader)?,
        size: message.origin.size,
        comes,
        retrieved,
    });
    queue_unit(txn, &head, carrier_id(&id.0, number, &[REVISION, &window].concat()), body)
}

/// Whether a copy is not to vanish, nor to change as if nobody had seen it: what was read in the mailbox here was read, and
/// what a client has deleted is taken for retrieved.
fn is_retrieved(
    rows: &impl Rows,
    copy: &CopyRow,
    (id, recipient, revision): (MessageId, u32, u32),
) -> Result<bool, StoreError> {
    let row = rows.get::<RevisedRow>(REVISED, &revised_key(id, recipient, revision))?;
    let was_read_at_home = row.is_some_and(|row| row.home == Some(ReviseResult::Revised));
    Ok(copy.retrieved || copy.deleted || was_read_at_home)
}

/// Whether an edge that went back, and lacks the copy, decides a revision all the same: a withdrawal, for which nothing has to
/// come, and any of what is in the mailbox here no more, of which no copy is sent again.
fn is_settled_without(
    rows: &impl Rows,
    mode: ReviseMode,
    id: MessageId,
    recipient: u32,
) -> Result<bool, StoreError> {
    let row = rows.get::<Recipient>(RECIPIENTS, &recipient_key(id, recipient))?;
    let Some(person) = row.and_then(|row| row.person).filter(|_| mode != ReviseMode::Withdraw) else {
        return Ok(true);
    };
    Ok(mail::entry(rows, &person, id)?.is_none())
}

/// The numbers of the revisions before one.
fn earlier(rows: &impl Rows, id: MessageId, before: u32) -> Result<Vec<u32>, StoreError> {
    let numbers = revisions(rows, id)?.into_iter().map(|revision| revision.number);
    Ok(numbers.filter(|number| *number < before).collect())
}

fn wrapped(site: &Site, id: MessageId, revision: u32, reader: PublicKey) -> Result<Vec<u8>, StoreError> {
    site.wrapped(id, revision, &reader)
        .map_err(|error| StoreError::Damaged(format!("a reader's key ({error})")))
}

fn queue_unit(txn: &mut Txn<'_>, head: &ToEdge, id: Id, body: QueuedBody) -> Result<(), StoreError> {
    let lane = if matches!(body, QueuedBody::Ahead { .. }) { BATCH_LANE } else { SERVICE_LANE };
    lane::queue(txn, &QueuedUnit { id, lane, after: None, head: encode(head), body }).map(drop)
}

/// The revisions that the edge has not decided: message, recipient, revision.
pub fn undecided(rows: &impl Rows) -> Result<Vec<(MessageId, u32, u32)>, StoreError> {
    let found = rows.prefix::<RevisedRow>(REVISED, &[], usize::MAX)?;
    let open = found.into_iter().filter(|(_, row)| is_undecided(row));
    let place = |key: &[u8]| {
        let id = MessageId(key.first_chunk().copied().unwrap_or_default());
        (id, key.get(..20).map_or(0, index_of), index_of(key))
    };
    Ok(open.map(|(key, _)| place(&key)).collect())
}

/// The first revision for a recipient that is not decided.
pub fn pending_for(rows: &impl Rows, id: MessageId, recipient: u32) -> Result<Option<u32>, StoreError> {
    let prefix = key2(&id.0, &recipient.to_be_bytes());
    let all = rows.prefix::<RevisedRow>(REVISED, &prefix, usize::MAX)?;
    Ok(all.into_iter().find(|(_, row)| is_undecided(row)).map(|(key, _)| index_of(&key)))
}

/// Whether the edge has still to decide a revision of a person's copy.
pub fn is_open_for(rows: &impl Rows, id: MessageId, person: &Id) -> Result<bool, StoreError> {
    for (key, row) in rows.prefix::<RevisedRow>(REVISED, &id.0, usize::MAX)? {
        if is_undecided(&row) {
            let who = rows.get::<Recipient>(RECIPIENTS, key.get(..20).unwrap_or_default())?;
            if who.is_some_and(|who| who.person == Some(*person)) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn is_undecided(row: &RevisedRow) -> bool {
    row.result == ReviseResult::Pending && !row.notice_owed
}

/// After the edge went back: sends it again every revision that it has not decided.
pub fn send_again(txn: &mut Txn<'_>, site: &Site) -> Result<(), StoreError> {
    let mut by_edge: BTreeMap<(MessageId, u32), Vec<u32>> = BTreeMap::new();
    // The latest first, of a copy: what has overtaken a text, as its withdrawal has, is there before that text.
    for (id, recipient, number) in undecided(txn)?.into_iter().rev() {
        let Some(who) = txn.get::<Recipient>(RECIPIENTS, &recipient_key(id, recipient))? else { continue };
        match who.person {
            None if who.gateway.is_some() => {}
            None if who.state.waits() => by_edge.entry((id, number)).or_default().push(recipient),
            // An edge that went back to before it got the message would wait for it.
            None => {
                let decided_here = Decided { id, recipient, revision: number, at: who.at };
                decided(txn, site, decided_here, ReviseResult::TooLate, "")?;
            }
            Some(person) => {
                let row = txn.get::<Revision>(REVISIONS, &revision_key(id, number))?;
                let original = txn.get::<Message>(MESSAGES, &id.0)?;
                let (Some(row), Some(original)) = (row, original) else { continue };
                let Some(found) = open_copy(txn, id, &person)? else {
                    // No edge knows of the window any more.
                    as_at_home(txn, site, (id, recipient, number), "the travel window has ended")?;
                    continue;
                };
                let (window, mode) = (found.0.window.window, row.mode);
                match send_to_window(txn, site, id, row.of(&original), (mode, recipient, true), found) {
                    Ok(()) => {}
                    // Its author has deleted it for good, so no edge will decide it.
                    Err(StoreError::Damaged(_)) => {
                        if mail::entry(txn, &person, id)?.is_none() {
                            projection::tell_edge(txn, &ToEdge::CopyGone { window, message: id.0 })?;
                        }
                        as_at_home(txn, site, (id, recipient, number), "its text is here no more")?;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
    }
    for ((id, number), mut recipients) in by_edge {
        // In the order that the unit had: it goes by the same id, by which the edge knows it.
        recipients.sort_unstable();
        if is_redirect(number) {
            recipients.into_iter().try_for_each(|recipient| give_up(txn, id, number, recipient))?;
            continue;
        }
        let row = txn.get::<Revision>(REVISIONS, &revision_key(id, number))?;
        if let (Some(row), Some(original)) = (row, txn.get::<Message>(MESSAGES, &id.0)?) {
            ignoring_lost(send_to_edge(txn, site, id, &row, &original, recipients))?;
        }
    }
    Ok(())
}

/// What no edge will decide any more is as it was decided at home.
fn as_at_home(
    txn: &mut Txn<'_>,
    site: &Site,
    (id, recipient, revision): (MessageId, u32, u32),
    why: &str,
) -> Result<(), StoreError> {
    let Some(row) = txn.get::<RevisedRow>(REVISED, &revised_key(id, recipient, revision))? else {
        return Ok(());
    };
    let decided_here = Decided { id, recipient, revision, at: row.at };
    decided(txn, site, decided_here, row.home.unwrap_or(ReviseResult::TooLate), why)
}

/// What its author has deleted for good cannot be sent again.
fn ignoring_lost(sent: Result<(), StoreError>) -> Result<(), StoreError> {
    match sent {
        Err(StoreError::Damaged(what)) => {
            tracing::warn!(%what, "a revision cannot be sent again");
            Ok(())
        }
        other => other,
    }
}

/// A revision that is to be sent once more, with its key for the edge there is; `None` once it is decided. A redirect from
/// before this node was restored goes all the same: the edge may have been given the old address anew since.
pub fn again(txn: &mut Txn<'_>, site: &Site, mut unit: QueuedUnit) -> Result<Option<QueuedUnit>, StoreError> {
    let is_open = |rows: &Txn<'_>, id, recipient, revision| -> Result<bool, StoreError> {
        let row = rows.get::<RevisedRow>(REVISED, &revised_key(MessageId(id), recipient, revision))?;
        Ok(match row.map(|row| row.result) {
            Some(ReviseResult::Pending) => true,
            Some(ReviseResult::Withdrawn) => redirect::is_from_before_restore(rows, revision)?,
            _ => false,
        })
    };
    match decode::<ToEdge>(&unit.head) {
        Some(ToEdge::Revise(mut revise)) => {
            let mut left = Vec::new();
            for (recipient, _) in revise.recipients {
                if is_open(txn, revise.message, recipient, revise.revision)? {
                    left.push((recipient, text_of(txn, MessageId(revise.message), recipient)?));
                }
            }
            let Some(edge) = projection::edge(txn)?.filter(|_| !left.is_empty()) else { return Ok(None) };
            let indexes = left.iter().map(|(index, _)| *index);
            unit.id = part_id(&revise.message, revise.revision, REVISION, indexes);
            revise.recipients = left;
            revise.wrapped_key =
                wrapped(site, MessageId(revise.message), revise.revision, PublicKey(edge.sealing_key))?;
            unit.head = encode(&ToEdge::Revise(revise));
            Ok(Some(unit))
        }
        Some(ToEdge::ReviseCopy(copy)) => {
            let is_open = is_open(txn, copy.message, copy.recipient, copy.revision)?;
            let sent = txn.get::<CopyRow>(COPIES, &key2(&copy.window, &copy.message))?;
            // Of what is not in the books nothing comes.
            let sent = sent.unwrap_or(CopyRow { place: Place::Gone, ..CopyRow::default() });
            let (id, recipient) = (MessageId(copy.message), copy.recipient);
            let retrieved = is_retrieved(txn, &sent, (id, recipient, copy.revision))?;
            let comes = sent.is_there() && !is_settled_without(txn, copy.mode, id, recipient)?;
            unit.head = encode(&ToEdge::ReviseCopy(CopyRevision { comes, retrieved, ..copy }));
            Ok(is_open.then_some(unit))
        }
        _ => Ok(Some(unit)),
    }
}
