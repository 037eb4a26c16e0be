//! Composing and sending: what was typed, or what follows from another message, becomes one message and leaves.

use std::sync::Arc;

use shared::id::{MessageId, unix_millis};
use shared::mime::{self, Draft, DraftMailbox, NewAttachment};
use shared::notify::{Notify, Return};
use shared::origin::{Channel, Mailbox};
use shared::render;
use shared::store::{Rows, Snapshot};

use super::{Filed, draft, forward, recipients_of, reply, returned};
use crate::directory;
use crate::error::Refused;
use crate::mail::{self, Site, Tie, Ways};
use crate::node::{self, Node, signed};
use crate::record::{About, Person};
use crate::request::{Attached, Sent, Written};

/// Recipients of one message.
const RECIPIENTS_MAX: usize = 1000;

/// What is sent: recipients as typed, and the text.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// Recipients, shown as To.
    pub to: Vec<String>,
    /// Recipients, shown as Cc.
    pub cc: Vec<String>,
    /// The subject; an empty one follows from what the message is about.
    pub subject: String,
    /// The text.
    pub text: String,
    /// Attachments.
    pub attachments: Vec<NewAttachment>,
    /// Attachments that are parts of a message already; they come before the others.
    pub entities: Vec<Vec<u8>>,
    /// Below an answer, the text that it answers.
    pub quote: bool,
}

/// A message that is ready but for its id and its date.
#[derive(Debug, Default)]
pub(super) struct Letter {
    pub to: Vec<DraftMailbox>,
    pub cc: Vec<DraftMailbox>,
    /// The ways out that were chosen, or that follow from the message it is about.
    pub ways: Ways,
    pub subject: String,
    pub text: String,
    pub attachments: Vec<NewAttachment>,
    /// Parts of another message that go along as they are.
    pub entities: Vec<Vec<u8>>,
    pub in_reply_to: Option<String>,
    pub references: Vec<String>,
    pub tie: Option<Tie>,
    /// Of which ends of the delivery its author wants reports.
    pub notify: Option<Notify>,
    /// How much of it a report of failure returns.
    pub returns: Option<Return>,
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

/// Composes and sends what is written, in itself or about another message; with `quote`, an answer has the text that it
/// answers below it. Text and attachments are in `body`.
pub async fn send(
    node: &Arc<Node>,
    author: &Person,
    written: Written,
    quote: bool,
    body: &[u8],
) -> Result<Sent, Refused> {
    let Written { to, cc, subject, about, attachments: attached, text_bytes, notify, returns } = written;
    if quote && !matches!(about, Some(About::Reply { .. })) {
        return Err(Refused::new("only an answer has a quotation: it names no message that it answers"));
    }
    let (text, attachments) = attachments(body, text_bytes, attached)?;
    let outgoing = Outgoing { to, cc, subject, text, attachments, quote, ..Outgoing::default() };
    let letter = Letter { notify, returns, ..letter(node, author, outgoing, about.as_ref())? };
    dispatch(node, author, letter, None).await
}

/// Sends a draft, and with the same commit it is none any more.
pub async fn send_draft(node: &Arc<Node>, author: &Person, text: &str) -> Result<Sent, Refused> {
    let (id, outgoing, about) = tokio::task::block_in_place(|| draft::outgoing(node, author, text))?;
    let letter = letter(node, author, outgoing, about.as_ref())?;
    dispatch(node, author, letter, Some(id)).await
}

fn letter(
    node: &Node,
    author: &Person,
    outgoing: Outgoing,
    about: Option<&About>,
) -> Result<Letter, Refused> {
    let snapshot = node.store.read()?;
    // Another message may be large: reading and taking it apart takes a while.
    tokio::task::block_in_place(|| match about {
        None => typed(node, &snapshot, author, outgoing),
        Some(About::Reply { message, all, list }) => {
            let whom = match (all, list) {
                (true, true) => {
                    return Err(Refused::new("an answer goes to all or to the list: choose one of them"));
                }
                (true, false) => reply::Whom::All,
                (false, true) => reply::Whom::List,
                (false, false) => reply::Whom::Author,
            };
            let original = Original::read(node, &snapshot, author, message)?;
            reply::letter(node, &snapshot, author, &original, whom, outgoing)
        }
        Some(About::Forward { message, as_attachment, without }) => {
            let original = Original::read(node, &snapshot, author, message)?;
            forward::letter(node, &snapshot, author, &original, *as_attachment, without, outgoing)
        }
        Some(About::Return { message, without }) => {
            let original = Original::read(node, &snapshot, author, message)?;
            returned::letter(node, &snapshot, author, &original, without, outgoing)
        }
    })
}

/// The message that another one is about, with its content.
pub(super) struct Original {
    pub filed: Filed,
    /// Its octets, trace headers included.
    pub content: Vec<u8>,
}

impl Original {
    fn read(node: &Node, rows: &Snapshot, person: &Person, text: &str) -> Result<Self, Refused> {
        let filed = super::filed(rows, person, text)?;
        if draft::row(rows, filed.id)?.is_some() {
            let text = format!("{} is a draft: nobody has got it yet; `mail draft send` sends it", filed.id);
            return Err(Refused::new(text));
        }
        let body = node.store.body(filed.message.body())?;
        let content = mail::content(body, &filed.message, super::READ_BYTES_MAX)?;
        Ok(Self { filed, content })
    }

    /// Its octets as they came, without the trace that was put before them here.
    pub fn as_it_came(&self) -> &[u8] {
        let trace = usize::try_from(self.filed.message.origin.trace_bytes).unwrap_or(usize::MAX);
        self.content.get(trace..).unwrap_or(&self.content)
    }

    /// The conversation, as an answer names it (RFC 5322 §3.6.4): its own references, or what it answers, and itself.
    pub fn references(&self) -> Vec<String> {
        let origin = &self.filed.message.origin;
        let mut references = match (origin.references.as_slice(), origin.in_reply_to.as_slice()) {
            ([], [answered]) => vec![answered.clone()],
            (references, _) => references.to_vec(),
        };
        if let Some(own) = &origin.message_id {
            references.retain(|reference| reference != own);
            references.push(own.clone());
        }
        references
    }

    /// The lines of its header that say what it was, for a text that it stands in.
    pub fn header_lines(&self) -> String {
        let origin = &self.filed.message.origin;
        let list = |list: &[Mailbox]| list.iter().map(super::shown).collect::<Vec<_>>().join(", ");
        let lines = [
            ("From", list(&origin.from)),
            ("Date", self.date()),
            ("Subject", origin.subject.clone()),
            ("To", list(&origin.to)),
            ("Cc", list(&origin.cc)),
        ];
        // What is in a value begins no line of its own.
        let line = |(name, value): &(&str, String)| {
            format!("{name}: {}\n", value.split_whitespace().collect::<Vec<_>>().join(" "))
        };
        lines.iter().filter(|(_, value)| !value.is_empty()).map(line).collect()
    }

    /// When it was written, as it says, or else when it came.
    pub fn date(&self) -> String {
        let written = mime::HeaderFacts::of(self.as_it_came()).date;
        let written = written.and_then(|seconds| u64::try_from(seconds).ok()).map(|seconds| seconds * 1000);
        format!("{} UTC", render::when(written.unwrap_or(self.filed.message.origin.accepted_at)))
    }

    /// Who wrote it, for a text.
    pub fn author(&self) -> String {
        let origin = &self.filed.message.origin;
        let from = origin.from.first().map(super::shown);
        from.or_else(|| origin.reverse_path.clone()).unwrap_or_else(|| "somebody".into())
    }

    /// The attachments but those of the numbers `without`, each as it stands in the message.
    pub fn attachments(&self, without: &[u32]) -> Result<Vec<Vec<u8>>, Refused> {
        let structure = mime::scan(&self.content).map_err(|error| {
            Refused::new(format!(
                "{} cannot be taken apart ({error}); `mail forward --as-attachment` sends it on whole",
                self.filed.id
            ))
        })?;
        let listed = structure.attachments(&self.content);
        let unknown = without.iter().find(|number| !(1..=listed.len()).contains(&(**number as usize)));
        if let Some(number) = unknown {
            let text = format!(
                "message {} has no attachment {number}; it has {}, and `mail read` lists them",
                self.filed.id,
                listed.len()
            );
            return Err(Refused::new(text));
        }
        let kept = (1_u32..).zip(&listed).filter(|(number, _)| !without.contains(number));
        Ok(kept.filter_map(|(_, attachment)| mime::entity(&self.content, attachment.index)).collect())
    }
}

/// A message in itself.
fn typed(node: &Node, rows: &Snapshot, author: &Person, outgoing: Outgoing) -> Result<Letter, Refused> {
    let mut letter = Letter {
        subject: outgoing.subject,
        text: outgoing.text,
        attachments: outgoing.attachments,
        entities: outgoing.entities,
        ..Letter::default()
    };
    address(node, rows, author, &mut letter, &outgoing.to, &outgoing.cc)?;
    Ok(letter)
}

/// Addresses a letter as it was typed.
pub(super) fn address(
    node: &Node,
    rows: &Snapshot,
    author: &Person,
    letter: &mut Letter,
    to: &[String],
    cc: &[String],
) -> Result<(), Refused> {
    letter.to = mailboxes(node, rows, author, to, &mut letter.ways)?;
    letter.cc = mailboxes(node, rows, author, cc, &mut letter.ways)?;
    Ok(())
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

pub(super) fn own_mailbox(person: &Person) -> Result<DraftMailbox, Refused> {
    let nowhere = || Refused::new(format!("{} has no address", person.name));
    let address = person.addresses.first().ok_or_else(nowhere)?;
    let address = address.parse().map_err(|error| Refused::new(format!("{address}: {error}")))?;
    Ok(DraftMailbox { name: Some(person.display.clone()), address })
}

/// Sends it. A draft that it was is removed with the commit.
async fn dispatch(
    node: &Arc<Node>,
    author: &Person,
    letter: Letter,
    draft: Option<MessageId>,
) -> Result<Sent, Refused> {
    let mut recipients: Vec<String> = Vec::new();
    for mailbox in letter.to.iter().chain(&letter.cc) {
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
    let written = Draft {
        id,
        from,
        to: letter.to,
        cc: letter.cc,
        subject: letter.subject,
        date: i64::try_from(unix_millis() / 1000).unwrap_or(i64::MAX),
        in_reply_to: letter.in_reply_to,
        references: letter.references,
        text: letter.text,
        attachments: letter.attachments,
        entities: letter.entities,
    };
    // Attachments may be large: composing and hashing them takes a while.
    let channel = Channel::Desk { person: author.id };
    let incoming = tokio::task::block_in_place(|| {
        let content = mime::compose(&written);
        within_size(&node.site, &content)?;
        let mut origin = node::origin(channel, reverse_path, recipients, &content);
        if let Some(notify) = letter.notify {
            origin.recipients.iter_mut().for_each(|to| to.notify = Some(notify.to_string()));
            // By which the reports of hosts outside name it.
            origin.envelope_id = Some(id.to_string());
        }
        origin.return_content = letter.returns.map(|returns| returns.as_str().to_owned());
        let mut incoming = node::written(&node.store, id, origin, &content)?;
        (incoming.ways, incoming.tie) = (letter.ways, letter.tie);
        Ok::<_, Refused>(signed(&node.store, &node.site, incoming, &content)?)
    })?;
    let (site, author) = (Arc::clone(&node.site), author.clone());
    let sent = node.store.commit(move |txn| {
        mail::send(txn, &site, incoming, &author, false, unix_millis())?;
        match draft {
            Some(draft) => draft::sent(txn, &author, draft),
            None => Ok(()),
        }
    });
    sent.await?;
    node.queued();
    Ok(Sent { id: id.to_string(), recipients: recipients_of(&node.store.read()?, id)? })
}

/// Refuses what is larger than any message here may be.
pub fn within_size(site: &Site, content: &[u8]) -> Result<(), Refused> {
    let max = site.content_bytes_max;
    match content.len() as u64 > max {
        false => Ok(()),
        true => Err(Refused::new(format!(
            "with everything in it the message has {}, and {} is the most; leave an attachment out",
            render::size(content.len() as u64),
            render::size(max)
        ))),
    }
}
