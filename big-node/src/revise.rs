//! Revising what one has sent: replacing it, adding to it, taking it back (design §8).
//!
//! A revision is entered in one commit, which decides for every recipient whose copy is here: in a mailbox, or
//! waiting for an inside gateway. What the edge holds it decides, and reports; until then the result is
//! *pending*. `make` composes revisions, `notice` what those get who have the old text already, `control` is for
//! travellers, who ask by mail, and `history` shows what has become of a message.

pub mod control;
mod history;
mod make;
pub mod notice;

use std::collections::BTreeMap;

use shared::id::MessageId;
use shared::lane::{self, QueuedBody, QueuedUnit};
use shared::render::{when, word};
use shared::seal::{FileKey, PublicKey};
use shared::store::{Rows, StoreError, Stored, Txn};
use shared::trace;
use shared::unit::{
    CopyRevision, DeliveryState, Id, REVISION, Revise, ReviseMode, ReviseResult, Revised, ToEdge, carrier_id,
    decode, encode, revision_after, revision_ordinal,
};

use crate::error::Refused;
use crate::folder;
use crate::gateway::queue;
use crate::mail::{self, Site, recipient_key};
use crate::projection;
use crate::record::{
    COPIES, CopyRow, Entry, Folder, MAILBOXES, MESSAGES, Message, NOTICES, Named, Noted, Person, Place,
    RECIPIENTS, REVISED, REVISIONS, Recipient, RevisedRow, Revision, WindowRow, entry_key, folder_of, key2,
    message_of, revised_key, revision_key,
};
use crate::request::RevisedView;
use crate::travel::fill::open_window;
pub use history::history;
pub use make::{Amendment, amend};

/// Revisions of one message.
pub const REVISIONS_MAX: usize = 64;
/// The kind under which the bodies of revisions are written.
pub const REVISION_KIND: u8 = 4;
/// Characters of what an edge says about a revision.
const TEXT_MAX: usize = 512;
const SERVICE_LANE: u8 = 0;
const BATCH_LANE: u8 = 3;

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

/// Enters a revision and decides it for every recipient whose copy is here. Refused if it is not the next one.
fn enter(
    txn: &mut Txn<'_>,
    site: &Site,
    author: &Person,
    (id, revision, stored, signatures): (MessageId, Revision, &Stored, &str),
    now: u64,
) -> Result<(), Refused> {
    let (original, earlier) = own(txn, author, id)?;
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
                    mode,
                    recipient,
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
            let text = if row.state == DeliveryState::Failed { "its delivery had failed" } else { "" };
            decided(txn, site, decided_here, ReviseResult::TooLate, text)?;
            Ok(false)
        }
    }
}

/// Whether an earlier revision has taken the message back from a recipient.
fn taken_back(rows: &impl Rows, id: MessageId, recipient: u32, before: u32) -> Result<bool, StoreError> {
    let prefix = key2(&id.0, &recipient.to_be_bytes());
    let earlier = rows.prefix::<RevisedRow>(REVISED, &prefix, usize::MAX)?;
    let is_back = |row: &RevisedRow| row.mode == ReviseMode::Withdraw && row.result != ReviseResult::Refused;
    Ok(earlier.iter().any(|(key, row)| index_of(key) < before && is_back(row)))
}

/// A reader's entry of the message, wherever it is filed; never the one by which its author has sent it.
fn received(rows: &impl Rows, person: &Id, id: MessageId) -> Result<Option<(Folder, Entry)>, StoreError> {
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
    let entry = Entry { revision: revision.number, read, amended: true, withdrawn, ..entry };
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

/// Queues a revision for what the edge has still to deliver. A small one goes by the lane of what is urgent, so
/// that it overtakes the message if that still waits for the link.
fn send_to_edge(
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
    let head = ToEdge::Revise(Revise {
        message: id.0,
        revision: revision.number,
        mode,
        recipients,
        wrapped_key: wrapped(site, id, revision.number, PublicKey(edge.sealing_key))?,
        size: message.origin.size,
        body_8bit: message.origin.body_8bit,
        utf8_header: message.origin.utf8_header,
        signatures: match mode {
            ReviseMode::Withdraw => String::new(),
            ReviseMode::Replace | ReviseMode::Append => mail::signatures(txn, id, revision.number)?,
        },
    });
    queue_unit(txn, &head, carrier_id(&id.0, revision.number, REVISION), body)
}

/// Queues a revision of a copy in a secondary mailbox.
fn send_to_window(
    txn: &mut Txn<'_>,
    site: &Site,
    id: MessageId,
    message: Message,
    mode: ReviseMode,
    recipient: u32,
    (window, copy): (WindowRow, CopyRow),
) -> Result<(), StoreError> {
    let (number, reader) = (message.revision, PublicKey(window.window.public_key));
    let window = window.window.window;
    txn.put(COPIES, &key2(&window, &id.0), &CopyRow { revision: number, size: message.origin.size, ..copy })?;
    let head = ToEdge::ReviseCopy(CopyRevision {
        window,
        message: id.0,
        revision: number,
        mode,
        recipient,
        wrapped_key: wrapped(site, id, number, reader)?,
        size: message.origin.size,
    });
    let body = mail::queued_body(txn, &message)?;
    queue_unit(txn, &head, carrier_id(&id.0, number, &[REVISION, &window].concat()), body)
}

fn wrapped(site: &Site, id: MessageId, revision: u32, reader: PublicKey) -> Result<Vec<u8>, StoreError> {
    let key = FileKey::of_outbound(&site.outbound_secret, id, revision, &reader);
    key.wrap(&reader, id).map_err(|error| StoreError::Damaged(format!("a reader's key ({error})")))
}

fn queue_unit(txn: &mut Txn<'_>, head: &ToEdge, id: Id, body: QueuedBody) -> Result<(), StoreError> {
    let lane = if matches!(body, QueuedBody::Ahead { .. }) { BATCH_LANE } else { SERVICE_LANE };
    lane::queue(txn, &QueuedUnit { id, lane, after: None, head: encode(head), body }).map(drop)
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
    decided: Decided,
    result: ReviseResult,
    text: &str,
) -> Result<(), StoreError> {
    let Decided { id, recipient, revision, at } = decided;
    let (key, to) = (revised_key(id, recipient, revision), recipient_key(id, recipient));
    let Some(mut row) = txn.get::<RevisedRow>(REVISED, &key)? else { return Ok(()) };
    let Some(mut who) = txn.get::<Recipient>(RECIPIENTS, &to)? else { return Ok(()) };
    (row.result, row.at, row.text) = (result, at, text.chars().take(TEXT_MAX).collect());
    if who.in_doubt && matches!(result, ReviseResult::Replaced | ReviseResult::Withdrawn) {
        row.text =
            "a host may have the old text all the same: a connection was lost before it answered".into();
    }
    match result {
        ReviseResult::Replaced if who.person.is_none() => who.revision = who.revision.max(revision),
        ReviseResult::Withdrawn if who.person.is_none() => {
            (who.state, who.at, who.text) = (DeliveryState::Withdrawn, at, "withdrawn by its author".into());
            (who.status, who.next_attempt_at) = (String::new(), None);
            mail::settled(txn, id, &to)?;
        }
        ReviseResult::TooLate if who.state == DeliveryState::Relayed && site.follow_up => {
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

/// Records what became of a notice that was owed to a recipient.
fn decided_late(
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
    if row.result != ReviseResult::Pending || row.notice_owed {
        return Ok(Reported::Recorded);
    }
    let at_end = matches!(who.state, DeliveryState::Relayed | DeliveryState::Failed);
    let mut result = result;
    if who.person.is_none() && at_end {
        // An edge that was restored does not know what it has reported before.
        result = ReviseResult::TooLate;
    }
    if let Some(person) = who.person {
        result = with_home(txn, id, &person, revision, (row.home, result), now)?;
    }
    decided(txn, site, Decided { id, recipient, revision, at }, result, text)?;
    Ok(Reported::Recorded)
}

/// What a revision came to for a person with a copy at home and one on the road: read anywhere is read.
fn with_home(
    txn: &mut Txn<'_>,
    id: MessageId,
    person: &Id,
    revision: u32,
    (home, road): (Option<ReviseResult>, ReviseResult),
    now: u64,
) -> Result<ReviseResult, StoreError> {
    if let Some((window, copy)) = open_copy(txn, id, person)?
        && copy.revision == revision
    {
        // What its client did so far, it did with an earlier one.
        let fresh = CopyRow { retrieved: false, deleted: false, ..copy };
        txn.put(COPIES, &key2(&window.window.window, &id.0), &fresh)?;
    }
    if road != ReviseResult::Revised {
        let decided_at_home = road == ReviseResult::TooLate || home == Some(ReviseResult::Revised);
        return Ok(if decided_at_home { home.unwrap_or(road) } else { road });
    }
    let row = txn.get::<Revision>(REVISIONS, &revision_key(id, revision))?;
    let Some(row) = row else { return Ok(road) };
    if home == Some(ReviseResult::Withdrawn) && received(txn, person, id)?.is_none() {
        // It was taken from the mailbox unread, but it was read on the road: its reader is told here too.
        txn.reference_body(shared::store::BodyKey(row.origin.body))?;
        let (filed_at, shown) = (now, bit(row.base));
        let entry = Entry { filed_at, revision, shown, amended: true, withdrawn: true, ..Entry::default() };
        txn.put(MAILBOXES, &entry_key(person, Folder::In, id), &entry)?;
    } else if let Some((folder, entry)) = received(txn, person, id)? {
        let entry = Entry { shown: entry.shown | bit(row.base), ..entry };
        txn.put(MAILBOXES, &entry_key(person, folder, id), &entry)?;
    }
    Ok(ReviseResult::Revised)
}

/// What the last revision for each recipient came to, by their index.
pub fn results(rows: &impl Rows, id: MessageId) -> Result<BTreeMap<u32, RevisedView>, StoreError> {
    let mut results = BTreeMap::new();
    for (key, row) in rows.prefix::<RevisedRow>(REVISED, &id.0, usize::MAX)? {
        let recipient = key.get(..20).map_or(0, index_of);
        let revision = revision_ordinal(index_of(&key));
        let view = RevisedView { revision, result: row.result, at: row.at, text: row.text };
        results.insert(recipient, view);
    }
    Ok(results)
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

/// The revisions that the edge has not decided: message, recipient, revision.
pub fn undecided(rows: &impl Rows) -> Result<Vec<(MessageId, u32, u32)>, StoreError> {
    let found = rows.prefix::<RevisedRow>(REVISED, &[], usize::MAX)?;
    let open = found.into_iter().filter(|(_, row)| row.result == ReviseResult::Pending && !row.notice_owed);
    let place = |key: &[u8]| {
        let id = MessageId(key.first_chunk().copied().unwrap_or_default());
        (id, key.get(..20).map_or(0, index_of), index_of(key))
    };
    Ok(open.map(|(key, _)| place(&key)).collect())
}

/// After the edge went back: sends it again every revision that it has not decided.
pub fn send_again(txn: &mut Txn<'_>, site: &Site) -> Result<(), StoreError> {
    let mut by_edge: BTreeMap<(MessageId, u32), Vec<u32>> = BTreeMap::new();
    for (id, recipient, number) in undecided(txn)? {
        let Some(who) = txn.get::<Recipient>(RECIPIENTS, &recipient_key(id, recipient))? else { continue };
        match who.person {
            None if who.gateway.is_none() => by_edge.entry((id, number)).or_default().push(recipient),
            None => {}
            Some(person) => {
                let row = txn.get::<Revision>(REVISIONS, &revision_key(id, number))?;
                let original = txn.get::<Message>(MESSAGES, &id.0)?;
                let (Some(row), Some(original)) = (row, original) else { continue };
                match (open_copy(txn, id, &person)?, row.mode) {
                    (Some(found), mode) => {
                        ignoring_lost(send_to_window(
                            txn,
                            site,
                            id,
                            row.of(&original),
                            mode,
                            recipient,
                            found,
                        ))?;
                    }
                    // Its window has ended, and no edge knows of it any more: what was decided at home stands.
                    (None, _) => {
                        let row = txn.get::<RevisedRow>(REVISED, &revised_key(id, recipient, number))?;
                        let Some(row) = row else { continue };
                        let decided_here = Decided { id, recipient, revision: number, at: row.at };
                        let home = row.home.unwrap_or(ReviseResult::TooLate);
                        decided(txn, site, decided_here, home, "the travel window has ended")?;
                    }
                }
            }
        }
    }
    for ((id, number), recipients) in by_edge {
        let row = txn.get::<Revision>(REVISIONS, &revision_key(id, number))?;
        if let (Some(row), Some(original)) = (row, txn.get::<Message>(MESSAGES, &id.0)?) {
            ignoring_lost(send_to_edge(txn, site, id, &row, &original, recipients))?;
        }
    }
    Ok(())
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

/// A revision that is to be sent once more, with its key for the edge there is; `None` once it is decided.
pub fn again(txn: &mut Txn<'_>, site: &Site, mut unit: QueuedUnit) -> Result<Option<QueuedUnit>, StoreError> {
    let is_open = |rows: &Txn<'_>, id, recipient, revision| -> Result<bool, StoreError> {
        let row = rows.get::<RevisedRow>(REVISED, &revised_key(MessageId(id), recipient, revision))?;
        Ok(row.is_some_and(|row| row.result == ReviseResult::Pending))
    };
    match decode::<ToEdge>(&unit.head) {
        Some(ToEdge::Revise(mut revise)) => {
            let mut left = Vec::new();
            for recipient in revise.recipients {
                if is_open(txn, revise.message, recipient, revise.revision)? {
                    left.push(recipient);
                }
            }
            let Some(edge) = projection::edge(txn)?.filter(|_| !left.is_empty()) else { return Ok(None) };
            revise.recipients = left;
            revise.wrapped_key =
                wrapped(site, MessageId(revise.message), revise.revision, PublicKey(edge.sealing_key))?;
            unit.head = encode(&ToEdge::Revise(revise));
            Ok(Some(unit))
        }
        Some(ToEdge::ReviseCopy(copy)) => {
            Ok(is_open(txn, copy.message, copy.recipient, copy.revision)?.then_some(unit))
        }
        _ => Ok(Some(unit)),
    }
}

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
