//! What a person at a desk does: list, read, send, reply, delete, ask.

use std::sync::Arc;

use shared::address::Address;
use shared::id::{MessageId, unix_millis};
use shared::mime::{self, Draft, DraftMailbox, HeaderFacts, Kind, NewAttachment, Opened};
use shared::origin::{Channel, Mailbox};
use shared::store::Rows;
use shared::topology::AttachmentMode;

use crate::directory;
use crate::error::Refused;
use crate::folder;
use crate::mail::{self, Ways, recipient_key};
use crate::node::{Node, incoming};
use crate::part::{self, PartPath};
use crate::record::{
    Entry, Folder, MAILBOXES, MESSAGES, Message, Part, Person, RECIPIENTS, Recipient, entry_key,
    folder_prefix, message_of,
};
use crate::request::{Attached, Deleted, Line, Reading, RecipientView, Sent, Status};

/// Largest message that is read whole into memory.
const READ_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Recipients of one message.
const RECIPIENTS_MAX: usize = 1000;

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
        let Some(message) = snapshot.get::<Message>(MESSAGES, &id.0)? else { continue };
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
        to: origin.recipients.iter().map(|recipient| recipient.address.clone()).collect(),
        subject: origin.subject.clone(),
        size: origin.size,
        content_type: None,
        read: entry.read,
        answered: entry.answered,
        forwarded: entry.forwarded,
        late: entry.late,
        revision: 0,
        amended: false,
        withdrawn: false,
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
    let message = rows.get::<Message>(MESSAGES, &id.0)?.ok_or_else(missing)?;
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
    let snapshot = node.store.read()?;
    let (id, path) = text.split_once('.').unwrap_or((text, "0"));
    let path: PartPath = path.parse().map_err(|error| Refused::new(format!("{text}: {error}")))?;
    let Filed { id, message, folder, entry } = filed(&snapshot, person, id)?;
    let folder = folder::name(&snapshot, &person.id, folder)?;
    // A large message takes a while to be read and taken apart.
    let (mut reading, bytes) = tokio::task::block_in_place(|| {
        let content = mail::content(node.store.body(message.body())?, &message, READ_BYTES_MAX)?;
        let mut reading = whole(id, &message, &entry, folder);
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
    if !entry.read {
        let person = person.id;
        node.store.commit(move |txn| mail::mark(txn, &person, id, |entry| entry.read = true)).await?;
    }
    Ok((reading, bytes))
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
        revision: 0,
        amended: false,
        withdrawn: false,
        parent: message.parent.map(|parent| MessageId(parent).to_string()),
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
}

fn shown_as_written(mailbox: &mime::Mailbox) -> String {
    shown(&Mailbox { name: mailbox.name.clone().unwrap_or_default(), address: mailbox.address.clone() })
}

/// What is sent: recipients as typed, and the text.
#[derive(Debug)]
pub struct Outgoing {
    /// Recipients, shown as To.
    pub to: Vec<String>,
    /// Recipients, shown as Cc.
    pub cc: Vec<String>,
    /// The subject.
    pub subject: String,
    /// The text.
    pub text: String,
    /// Attachments.
    pub attachments: Vec<NewAttachment>,
}

/// Splits a request's body into text and attachments.
pub fn attachments(
    body: &[u8],
    text_bytes: usize,
    attached: Vec<Attached>,
) -> Result<(String, Vec<NewAttachment>), Refused> {
    let short = || Refused::new("the request's body is shorter than it says");
    let (text, mut rest) = body.split_at_checked(text_bytes).ok_or_else(short)?;
    let mut attachments = Vec::new();
    for Attached { name, bytes, text } in attached {
        let (content, behind) = rest.split_at_checked(bytes).ok_or_else(short)?;
        let content_type = if text { "text/plain" } else { "application/octet-stream" }.into();
        attachments.push(NewAttachment { name, content_type, content: content.into() });
        rest = behind;
    }
    Ok((String::from_utf8_lossy(text).into_owned(), attachments))
}

/// Composes and sends a message.
pub async fn send(node: &Arc<Node>, author: &Person, outgoing: Outgoing) -> Result<Sent, Refused> {
    let snapshot = node.store.read()?;
    let mut ways = Ways::new();
    let to = mailboxes(node, &snapshot, author, &outgoing.to, &mut ways)?;
    let cc = mailboxes(node, &snapshot, author, &outgoing.cc, &mut ways)?;
    dispatch(node, author, to, cc, ways, outgoing, None).await
}

/// Answers a message: recipients, subject and thread come from its origin.
pub async fn reply(
    node: &Arc<Node>,
    author: &Person,
    text: &str,
    all: bool,
    body: String,
) -> Result<Sent, Refused> {
    let snapshot = node.store.read()?;
    let Filed { message, .. } = filed(&snapshot, author, text)?;
    let origin = &message.origin;
    let own = |mailbox: &&Mailbox| {
        let address: Result<Address, _> = mailbox.address.parse();
        address.is_ok_and(|address| author.addresses.contains(&address.canonical()))
    };
    // One's own message is answered to those it went to.
    let mine = origin.from.iter().any(|mailbox| own(&mailbox));
    let main = if mine { &origin.to } else { origin.reply_addresses() };
    let others = origin.to.iter().chain(&origin.cc).filter(|mailbox| !own(mailbox));
    let drafts = |list: Vec<&Mailbox>| -> Result<Vec<DraftMailbox>, Refused> {
        list.into_iter().map(draft_mailbox).collect()
    };
    let mut to = drafts(main.iter().collect())?;
    if to.is_empty() {
        // Nothing in the header to answer to: the reverse-path is left.
        let path = origin
            .reverse_path
            .clone()
            .ok_or_else(|| Refused::new("that message names nobody to answer to"))?;
        to.push(draft_mailbox(&Mailbox { name: String::new(), address: path })?);
    }
    let mut cc = if all { drafts(others.collect())? } else { Vec::new() };
    cc.retain(|mailbox| to.iter().all(|main| main.address.canonical() != mailbox.address.canonical()));
    let subject = match origin.subject.get(..3) {
        Some(prefix) if prefix.eq_ignore_ascii_case("re:") => origin.subject.clone(),
        _ => format!("Re: {}", origin.subject),
    };
    let outgoing = Outgoing { to: Vec::new(), cc: Vec::new(), subject, text: body, attachments: Vec::new() };
    dispatch(node, author, to, cc, Ways::new(), outgoing, Some(&message)).await
}

fn draft_mailbox(mailbox: &Mailbox) -> Result<DraftMailbox, Refused> {
    let address =
        mailbox.address.parse().map_err(|error| Refused::new(format!("{}: {error}", mailbox.address)))?;
    Ok(DraftMailbox { name: (!mailbox.name.is_empty()).then(|| mailbox.name.clone()), address })
}

/// Recipients as a person types them: nicknames, names, addresses, gateways. The first way that is
/// chosen for an address counts.
fn mailboxes(
    node: &Node,
    rows: &impl Rows,
    person: &Person,
    typed: &[String],
    ways: &mut Ways,
) -> Result<Vec<DraftMailbox>, Refused> {
    let one = |text: &String| {
        let directory::Resolved { address, name, by, .. } =
            directory::resolve(rows, &node.site.policy, Some(person), text)?;
        if let Some(way) = by {
            ways.entry(address.to_string()).or_insert(way);
        }
        Ok(DraftMailbox { name, address })
    };
    typed.iter().map(one).collect()
}

fn own_mailbox(person: &Person) -> Result<DraftMailbox, Refused> {
    let nowhere = || Refused::new(format!("{} has no address", person.name));
    let address = person.addresses.first().ok_or_else(nowhere)?;
    let address = address.parse().map_err(|error| Refused::new(format!("{address}: {error}")))?;
    Ok(DraftMailbox { name: Some(person.display.clone()), address })
}

async fn dispatch(
    node: &Arc<Node>,
    author: &Person,
    to: Vec<DraftMailbox>,
    cc: Vec<DraftMailbox>,
    ways: Ways,
    outgoing: Outgoing,
    answers: Option<&Message>,
) -> Result<Sent, Refused> {
    let mut recipients: Vec<String> = Vec::new();
    for mailbox in to.iter().chain(&cc) {
        let address = mailbox.address.to_string();
        if !recipients.contains(&address) {
            recipients.push(address);
        }
    }
    if recipients.is_empty() || recipients.len() > RECIPIENTS_MAX {
        return Err(Refused::new(format!(
            "a message goes to 1 to {RECIPIENTS_MAX} recipients, not to {}",
            recipients.len()
        )));
    }
    let id = MessageId::generate();
    let from = own_mailbox(author)?;
    let reverse_path = Some(from.address.to_string());
    let mut references = Vec::new();
    if let Some(answered) = answers {
        references.clone_from(&answered.origin.references);
        references.extend(answered.origin.message_id.clone());
    }
    let draft = Draft {
        id,
        from,
        to,
        cc,
        subject: outgoing.subject,
        date: i64::try_from(unix_millis() / 1000).unwrap_or(i64::MAX),
        in_reply_to: answers.and_then(|answered| answered.origin.message_id.clone()),
        references,
        text: outgoing.text,
        attachments: outgoing.attachments,
    };
    // Attachments may be large: composing and hashing them takes a while.
    let channel = Channel::Desk { person: author.id };
    let mut incoming = tokio::task::block_in_place(|| {
        incoming(&node.store, id, channel, reverse_path, recipients, &mime::compose(&draft))
    })?;
    incoming.ways = ways;
    let (site, author) = (Arc::clone(&node.site), author.clone());
    node.store.commit(move |txn| mail::send(txn, &site, incoming, &author, false, unix_millis())).await?;
    node.queued();
    Ok(Sent { id: id.to_string(), recipients: recipients_of(&node.store.read()?, id)? })
}

/// Moves a message to Trash, or from there away.
pub async fn delete(node: &Arc<Node>, person: &Person, text: &str) -> Result<Deleted, Refused> {
    let id = message_id(text)?;
    let person = person.clone();
    let from = node.store.commit(move |txn| mail::delete(txn, &person, id, unix_millis())).await?;
    Ok(Deleted { id: id.to_string(), for_good: *from == Folder::Trash })
}

/// Where each recipient's copy of a sent message is.
pub fn status(node: &Node, person: &Person, text: &str) -> Result<Status, Refused> {
    let snapshot = node.store.read()?;
    let Filed { id, message, .. } = filed(&snapshot, person, text)?;
    if snapshot.raw(MAILBOXES, &entry_key(&person.id, Folder::Sent, id))?.is_none() {
        return Err(Refused::new(format!(
            "{id} was not sent by {}; status is for what one has sent",
            person.name
        )));
    }
    Ok(Status {
        id: id.to_string(),
        subject: message.origin.subject,
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
    Ok(found.into_iter().map(|(_, row)| recipient_view(row)).collect())
}

fn recipient_view(row: Recipient) -> RecipientView {
    RecipientView {
        address: row.address,
        via: row.via,
        gateway: row.gateway,
        state: row.state,
        at: row.at,
        host: row.host,
        tls: row.tls,
        status: row.status,
        text: row.text,
        in_doubt: row.in_doubt,
        next_attempt_at: row.next_attempt_at,
        revised: None,
    }
}
