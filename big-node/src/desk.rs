//! What a person at a desk does: list, read, delete, ask; `send` composes and sends, `reply`, `forward` and `returned`
//! say what a message about another one is, `draft` keeps what is being written, `search` finds, `thread` shows a
//! conversation, `watch` waits for change.

mod draft;
mod forward;
mod reply;
mod returned;
mod search;
mod send;
mod thread;
mod watch;

use std::sync::Arc;

use shared::id::{MessageId, unix_millis};
use shared::mime::{self, HeaderFacts, Kind, Opened};
use shared::origin::Mailbox;
use shared::store::{Rows, StoreError};
use shared::topology::AttachmentMode;
use shared::unit::revision_ordinal;
use shared::verdict::Disposition;

use crate::directory;
use crate::error::Refused;
use crate::folder;
use crate::mail::{self, recipient_key};
use crate::node::Node;
use crate::part::{self, PartPath};
use crate::record::{
    Entry, Folder, MAILBOXES, Message, Part, Person, RECIPIENTS, Recipient, entry_key, folder_prefix,
    message_of,
};
use crate::redirect;
use crate::request::{Deleted, Line, Marked, Moved, Reading, RecipientView, RevisedView, Status};
use crate::revise;

pub use draft::{restore as restore_draft, save as save_draft, show as show_draft};
pub use search::{Search, search};
pub use send::{attachments, send, send_draft, within_size};
pub use thread::thread;
pub use watch::watch;

/// Largest message that is read whole into memory.
const READ_BYTES_MAX: usize = 256 * 1024 * 1024;

/// A folder's messages, newest first; under a cover, its attachments. Only what is older than `before`.
pub fn list(
    node: &Node,
    person: &Person,
    folder: &str,
    max: usize,
    before: Option<&str>,
) -> Result<Vec<Line>, Refused> {
    let snapshot = node.store.read()?;
    let folder = folder::find(&snapshot, person, folder)?;
    let name = folder::name(&snapshot, &person.id, folder)?;
    let prefix = folder_prefix(&person.id, folder);
    let found = match before {
        None => snapshot.prefix_backwards::<Entry>(MAILBOXES, &prefix, max)?,
        Some(before) => {
            let before = entry_key(&person.id, folder, message_id(before)?);
            snapshot.range_backwards::<Entry>(MAILBOXES, &prefix, Some(&before), max)?
        }
    };
    let mut lines = Vec::new();
    for (key, entry) in found {
        let id = message_of(&key);
        let Some(message) = mail::shown(&snapshot, id, entry.revision)? else { continue };
        lines.extend(lines_of(id, &message, &entry, &name, node.site.filing_of(person)));
    }
    Ok(lines)
}

fn message_id(text: &str) -> Result<MessageId, Refused> {
    text.parse().map_err(|error| Refused::new(format!("{}: {error}", directory::shown(text))))
}

/// A message's lines. The mode is the reader's of now, whatever it was when the message came.
fn lines_of(
    id: MessageId,
    message: &Message,
    entry: &Entry,
    folder: &str,
    filing: AttachmentMode,
) -> Vec<Line> {
    let cover = line(id, message, entry, folder);
    let parts = match filing {
        AttachmentMode::BreakApart => message.parts.as_slice(),
        AttachmentMode::Passthru => &[],
    };
    let part = |part: &Part| Line {
        id: format!("{id}.{}", part.number),
        part: part.number,
        to: Vec::new(),
        subject: part.name.clone().unwrap_or_default(),
        size: part.size,
        content_type: Some(part.content_type.clone()),
        ..cover.clone()
    };
    let parts: Vec<_> = parts.iter().map(part).collect();
    [vec![cover], parts].concat()
}

fn line(id: MessageId, message: &Message, entry: &Entry, folder: &str) -> Line {
    let origin = &message.origin;
    Line {
        id: id.to_string(),
        part: 0,
        at: entry.filed_at,
        from: origin.from.first().map(shown).or_else(|| origin.reverse_path.clone()).unwrap_or_default(),
        to: match origin.recipients.as_slice() {
            // A draft has none yet.
            [] => origin.to.iter().map(shown).collect(),
            recipients => recipients.iter().map(|recipient| recipient.address.clone()).collect(),
        },
        subject: origin.subject.clone(),
        size: origin.size,
        content_type: None,
        read: entry.read,
        answered: entry.answered,
        forwarded: entry.forwarded,
        late: entry.late,
        revision: revision_ordinal(entry.revision),
        amended: entry.amended,
        withdrawn: entry.withdrawn,
        suspect: Disposition::of(&origin.verdicts) != Disposition::Deliver,
        thread: MessageId(message.thread).to_string(),
        folder: folder.to_owned(),
        depth: 0,
    }
}

fn shown(mailbox: &Mailbox) -> String {
    match mailbox.name.as_str() {
        "" => mailbox.address.clone(),
        name => format!("{name} <{}>", mailbox.address),
    }
}

/// A message in a person's mailbox.
#[derive(Clone, Debug)]
struct Filed {
    id: MessageId,
    message: Message,
    folder: Folder,
    entry: Entry,
}

/// The message of this id in the person's mailbox.
fn filed(rows: &impl Rows, person: &Person, text: &str) -> Result<Filed, Refused> {
    let id = message_id(text)?;
    let missing =
        || Refused::new(format!("{} has no message {id}; `mail list` shows what there is", person.name));
    let (folder, entry) = mail::entry(rows, &person.id, id)?.ok_or_else(missing)?;
    let message = mail::shown(rows, id, entry.revision)?.ok_or_else(missing)?;
    Ok(Filed { id, message, folder, entry })
}

/// Reads a message and marks it read. The bytes are those of the part that was asked for, or of the
/// whole message if `raw`.
pub async fn read(
    node: &Arc<Node>,
    person: &Person,
    text: &str,
    raw: bool,
) -> Result<(Reading, Vec<u8>), Refused> {
    loop {
        let (reading, bytes, revision) = read_once(node, person, text, raw)?;
        let (id, _) = text.split_once('.').unwrap_or((text, ""));
        let id: MessageId = id.parse().map_err(|error| Refused::new(format!("{text}: {error}")))?;
        let person = person.id;
        // Marked before it is shown: a revision that is decided first is what is read then.
        let marked = node.store.commit(move |txn| mail::read(txn, &person, id, revision)).await?;
        if marked.into_inner() {
            return Ok((reading, bytes));
        }
    }
}

/// Reads what is shown at this moment, and says which revision that is.
fn read_once(
    node: &Node,
    person: &Person,
    text: &str,
    raw: bool,
) -> Result<(Reading, Vec<u8>, u32), Refused> {
    let snapshot = node.store.read()?;
    let (id, path) = text.split_once('.').unwrap_or((text, "0"));
    let path: PartPath = path.parse().map_err(|error| Refused::new(format!("{text}: {error}")))?;
    let Filed { id, message, folder, entry } = filed(&snapshot, person, id)?;
    let folder = folder::name(&snapshot, &person.id, folder)?;
    // A large message takes a while to be read and taken apart.
    let (mut reading, bytes) = tokio::task::block_in_place(|| {
        let content = mail::content(node.store.body(message.body())?, &message, READ_BYTES_MAX)?;
        let mut reading = whole(id, &message, &entry, folder);
        if mail::is_author(&snapshot, &message, person)? {
            reading.latest = Some(revise::latest(&snapshot, id)?);
        }
        if path.is_whole() {
            reading.text = if raw { String::new() } else { mime::text_of(&content) };
            return Ok((reading, if raw { content } else { Vec::new() }));
        }
        let opened = path.open(&content, &message.parts).ok_or_else(|| no_part(id, &path, &message))?;
        reading.id = format!("{id}.{path}");
        of_part(&mut reading, &opened);
        Ok::<_, Refused>((reading, opened.octets))
    })?;
    if raw {
        reading.text.clear();
    }
    Ok((reading, bytes, entry.revision))
}

fn no_part(id: MessageId, path: &PartPath, message: &Message) -> Refused {
    let has = match message.parts.len() {
        0 => "no attachments".to_owned(),
        count => format!("{count}; `mail read {id}` lists them"),
    };
    Refused::new(format!("message {id} has no attachment {path}; it has {has}"))
}

/// A message as it is read, still without its text.
fn whole(id: MessageId, message: &Message, entry: &Entry, folder: String) -> Reading {
    let strings = |list: &[Mailbox]| list.iter().map(shown).collect();
    let origin = &message.origin;
    Reading {
        id: id.to_string(),
        from: strings(&origin.from),
        to: strings(&origin.to),
        cc: strings(&origin.cc),
        subject: origin.subject.clone(),
        at: origin.accepted_at,
        text: String::new(),
        parts: message.parts.clone(),
        unparsed: message.unparsed.clone(),
        answered: entry.answered,
        forwarded: entry.forwarded,
        folder,
        revision: revision_ordinal(entry.revision),
        latest: None,
        amended: entry.amended,
        withdrawn: entry.withdrawn,
        parent: message.parent.map(|parent| MessageId(parent).to_string()),
        verdicts: origin.verdicts.clone(),
        part_name: None,
        content_type: None,
    }
}

/// What is read of a part. An attached message is read as a message; what it says of itself, anybody
/// can have written.
fn of_part(reading: &mut Reading, opened: &Opened) {
    reading.text = opened.text().unwrap_or_default();
    reading.parts = part::within(opened);
    reading.unparsed =
        opened.structure().and_then(|structure| structure.err()).map(|error| error.to_string());
    reading.part_name = opened.part.name.clone();
    reading.content_type = Some(opened.part.content_type.clone());
    if opened.kind != Kind::Message {
        return;
    }
    let facts = HeaderFacts::of(&opened.octets);
    let strings = |list: &[mime::Mailbox]| list.iter().map(shown_as_written).collect();
    reading.from = strings(&facts.from);
    reading.to = strings(&facts.to);
    reading.cc = strings(&facts.cc);
    reading.subject = facts.subject.unwrap_or_default();
    let date = facts.date.and_then(|seconds| u64::try_from(seconds).ok());
    reading.at = date.map_or(reading.at, |seconds| seconds.saturating_mul(1000));
    (reading.answered, reading.forwarded, reading.parent) = (false, false, None);
    reading.verdicts.clear();
}

fn shown_as_written(mailbox: &mime::Mailbox) -> String {
    shown(&Mailbox { name: mailbox.name.clone().unwrap_or_default(), address: mailbox.address.clone() })
}

/// Moves a message to Trash, or from there away.
pub async fn delete(node: &Arc<Node>, person: &Person, text: &str) -> Result<Deleted, Refused> {
    let id = message_id(text)?;
    let person = person.clone();
    let from = node.store.commit(move |txn| mail::delete(txn, &person, id, unix_millis())).await?;
    Ok(Deleted { id: id.to_string(), for_good: *from == Folder::Trash })
}

/// Moves a message to another folder.
pub async fn shift(node: &Node, person: &Person, text: &str, to: &str) -> Result<Moved, Refused> {
    let id = message_id(text)?;
    let (whose, to) = (person.clone(), to.to_owned());
    let moved = node.store.commit(move |txn| {
        let to = folder::find(txn, &whose, &to)?;
        folder::shift(txn, &whose, id, to, unix_millis())?;
        Ok::<_, Refused>(to)
    });
    let folder = moved.await?.into_inner();
    Ok(Moved { id: id.to_string(), folder: folder::name(&node.store.read()?, &person.id, folder)? })
}

/// Marks a message read or unread.
pub async fn mark(node: &Node, person: &Person, text: &str, read: bool) -> Result<Marked, Refused> {
    let Filed { id, .. } = filed(&node.store.read()?, person, text)?;
    let person = person.id;
    node.store.commit(move |txn| mail::mark(txn, &person, id, |entry| entry.read = read)).await?;
    Ok(Marked { id: id.to_string(), read })
}

/// Where each recipient's copy of a sent message is.
pub fn status(node: &Node, person: &Person, text: &str) -> Result<Status, Refused> {
    let snapshot = node.store.read()?;
    let Filed { id, message, entry, .. } = filed(&snapshot, person, text)?;
    if !mail::is_author(&snapshot, &message, person)? || draft::row(&snapshot, id)?.is_some() {
        return Err(Refused::new(format!(
            "{id} was not sent by {}; status is for what one has sent",
            person.name
        )));
    }
    Ok(Status {
        id: id.to_string(),
        subject: message.origin.subject,
        late: entry.late,
        recipients: recipients_of(&snapshot, id)?,
    })
}

/// The recipients of a sent message.
pub fn recipients_of(rows: &impl Rows, id: MessageId) -> Result<Vec<RecipientView>, Refused> {
    let found = rows.range::<Recipient>(
        RECIPIENTS,
        &recipient_key(id, 0),
        Some(&recipient_key(id, u32::MAX)),
        usize::MAX,
    )?;
    let mut revised = revise::results(rows, id)?;
    let mut view = |(key, row): (Vec<u8>, Recipient)| -> Result<RecipientView, StoreError> {
        let index = revise::index_of(&key);
        let redirect = redirect::pending(rows, id, index)?.map(|redirect| redirect.to);
        Ok(RecipientView { redirect, ..recipient_view(row, revised.remove(&index)) })
    };
    Ok(found.into_iter().map(&mut view).collect::<Result<_, _>>()?)
}

fn recipient_view(row: Recipient, revised: Option<RevisedView>) -> RecipientView {
    RecipientView {
        redirect: None,
        address: row.address,
        via: row.via,
        forwarder: row.forwarder,
        gateway: row.gateway,
        state: row.state,
        at: row.at,
        host: row.host,
        tls: row.tls,
        relay: row.relay,
        status: row.status,
        text: row.text,
        in_doubt: row.in_doubt,
        host_reports: row.host_reports && row.notify.is_some_and(|notify| notify.success),
        next_attempt_at: row.next_attempt_at,
        revised,
    }
}
