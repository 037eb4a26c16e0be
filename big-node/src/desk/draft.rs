//! Drafts: what is being written, kept as a message that has not been sent, with recipients as they were typed. Whom
//! they mean, and what follows from the message that it is about, is found out when it is sent.

use std::sync::Arc;

use shared::id::{MessageId, unix_millis};
use shared::mime::{self, Draft};
use shared::origin::{Channel, Mailbox};
use shared::store::{Rows, StoreError, Txn};
use shared::unit::Id;

use super::send::{Outgoing, attachments, own_mailbox, within_size};
use super::{Filed, READ_BYTES_MAX, filed};
use crate::error::Refused;
use crate::mail;
use crate::node::{self, Node};
use crate::record::{
    About, DRAFTS, DraftRow, Entry, Folder, MAILBOXES, MESSAGES, Message, Person, entry_key, folder_prefix,
};
use crate::request::{DraftSaved, DraftView, Written};

/// Drafts of one person.
const DRAFTS_MAX: usize = 1000;
/// Recipients of a draft, and octets of one as it is typed.
const RECIPIENTS_MAX: usize = 1000;
const TYPED_MAX: usize = 400;
/// Characters of its subject.
const SUBJECT_MAX: usize = 998;

/// What a draft has besides its message; `None` for what is no draft.
pub(super) fn row(rows: &impl Rows, id: MessageId) -> Result<Option<DraftRow>, StoreError> {
    rows.get(DRAFTS, &id.0)
}

/// The draft of this id, with its content.
fn find(node: &Node, person: &Person, text: &str) -> Result<(Filed, DraftRow, Vec<u8>), Refused> {
    let snapshot = node.store.read()?;
    let filed = filed(&snapshot, person, text)?;
    let draft = row(&snapshot, filed.id)?.filter(|_| filed.folder == Folder::Drafts);
    let none =
        || Refused::new(format!("{} is no draft; `mail list --folder drafts` shows what there is", filed.id));
    let draft = draft.ok_or_else(none)?;
    let content = mail::content(node.store.body(filed.message.body())?, &filed.message, READ_BYTES_MAX)?;
    Ok((filed, draft, content))
}

/// Saves a draft, in the place of an earlier one if that is named.
pub async fn save(
    node: &Arc<Node>,
    person: &Person,
    earlier: Option<&str>,
    keep: &[u32],
    written: Written,
    body: &[u8],
) -> Result<DraftSaved, Refused> {
    let Written { to, cc, subject, about, attachments: attached, text_bytes, notify, returns } = written;
    if notify.is_some() || returns.is_some() {
        return Err(Refused::new("a draft keeps no wish for reports: send the message itself with it"));
    }
    let draft = DraftRow { to, cc, subject, about };
    check(node, person, &draft)?;
    let (text, attachments) = attachments(body, text_bytes, attached)?;
    // Attachments may be large.
    let (id, incoming) = tokio::task::block_in_place(|| {
        let (id, entities) = match earlier {
            None if keep.is_empty() => (MessageId::generate(), Vec::new()),
            None => return Err(Refused::new("a new draft has no earlier attachments to keep")),
            Some(earlier) => {
                let (Filed { id, .. }, _, content) = find(node, person, earlier)?;
                (id, kept(id, &content, keep)?)
            }
        };
        let written = Draft {
            id,
            from: own_mailbox(person)?,
            to: Vec::new(),
            cc: Vec::new(),
            subject: draft.subject.clone(),
            date: i64::try_from(unix_millis() / 1000).unwrap_or(i64::MAX),
            in_reply_to: None,
            references: Vec::new(),
            text,
            attachments,
            entities,
        };
        let content = mime::compose(&written);
        within_size(&node.site, &content)?;
        let mut origin = node::origin(Channel::Desk { person: person.id }, None, Vec::new(), &content);
        let typed = |list: &[String]| -> Vec<Mailbox> {
            list.iter().map(|text| Mailbox { name: String::new(), address: text.clone() }).collect()
        };
        (origin.to, origin.cc) = (typed(&draft.to), typed(&draft.cc));
        Ok((id, node::written(&node.store, id, origin.bounded(), &content)?))
    })?;
    let (person, replaces) = (person.id, earlier.is_some());
    let saved = node.store.commit(move |txn| {
        let key = entry_key(&person, Folder::Drafts, id);
        let old = match (replaces, txn.raw(MAILBOXES, &key)?) {
            (true, None) => return Err(gone(id)),
            (true, Some(_)) => txn.get::<Message>(MESSAGES, &id.0)?,
            (false, _) => {
                let drafts = folder_prefix(&person, Folder::Drafts);
                if txn.prefix::<Entry>(MAILBOXES, &drafts, DRAFTS_MAX)?.len() == DRAFTS_MAX {
                    let text = format!(
                        "there are {DRAFTS_MAX} drafts, which is all there can be; send or delete one"
                    );
                    return Err(Refused::new(text));
                }
                None
            }
        };
        txn.keep_body(&incoming.stored)?;
        let message = Message {
            origin: incoming.origin,
            revision: 0,
            thread: id.0,
            parent: None,
            parts: incoming.parts,
            unparsed: incoming.unparsed,
        };
        txn.put(MESSAGES, &id.0, &message)?;
        txn.put(DRAFTS, &id.0, &draft)?;
        txn.put(MAILBOXES, &key, &Entry { filed_at: unix_millis(), read: true, ..Entry::default() })?;
        if let Some(old) = old {
            txn.release_body(old.body())?;
        }
        Ok(())
    });
    saved.await?;
    Ok(DraftSaved { id: id.to_string() })
}

fn check(node: &Node, person: &Person, draft: &DraftRow) -> Result<(), Refused> {
    if draft.to.len() + draft.cc.len() > RECIPIENTS_MAX {
        return Err(Refused::new(format!("a message goes to {RECIPIENTS_MAX} recipients at most")));
    }
    if draft.to.iter().chain(&draft.cc).any(|typed| typed.len() > TYPED_MAX) {
        return Err(Refused::new(format!(
            "a recipient is a name or an address, of {TYPED_MAX} octets at most"
        )));
    }
    if draft.subject.chars().count() > SUBJECT_MAX {
        return Err(Refused::new(format!("a subject has {SUBJECT_MAX} characters at most")));
    }
    match &draft.about {
        None => Ok(()),
        Some(
            About::Reply { message, .. } | About::Forward { message, .. } | About::Return { message, .. },
        ) => filed(&node.store.read()?, person, message).map(drop),
    }
}

/// Those of the draft's attachments that stay.
fn kept(id: MessageId, content: &[u8], keep: &[u32]) -> Result<Vec<Vec<u8>>, Refused> {
    let listed = mime::attachments(content);
    let part = |number: &u32| {
        let index = usize::try_from(*number).ok().and_then(|number| number.checked_sub(1));
        let attachment = index.and_then(|index| listed.get(index));
        let part = attachment.and_then(|attachment| mime::entity(content, attachment.index));
        part.ok_or_else(|| Refused::new(format!("draft {id} has no attachment {number}")))
    };
    keep.iter().map(part).collect()
}

fn gone(id: MessageId) -> Refused {
    Refused::new(format!("{id} is no draft any more: it was sent or deleted meanwhile"))
}

/// A draft, to go on writing it.
pub fn show(node: &Node, person: &Person, text: &str) -> Result<DraftView, Refused> {
    let (filed, draft, content) = tokio::task::block_in_place(|| find(node, person, text))?;
    Ok(DraftView {
        id: filed.id.to_string(),
        at: filed.entry.filed_at,
        to: draft.to,
        cc: draft.cc,
        subject: draft.subject,
        about: draft.about,
        text: mime::text_of(&content),
        parts: filed.message.parts,
    })
}

/// What a draft sends.
pub(super) fn outgoing(
    node: &Node,
    person: &Person,
    text: &str,
) -> Result<(MessageId, Outgoing, Option<About>), Refused> {
    let (filed, draft, content) = find(node, person, text)?;
    let attached = mime::attachments(&content);
    let outgoing = Outgoing {
        to: draft.to,
        cc: draft.cc,
        subject: draft.subject,
        text: mime::text_of(&content),
        entities: attached.iter().filter_map(|attached| mime::entity(&content, attached.index)).collect(),
        ..Outgoing::default()
    };
    Ok((filed.id, outgoing, draft.about))
}

/// Removes a draft in the commit that sends it.
pub(super) fn sent(txn: &mut Txn<'_>, person: &Person, id: MessageId) -> Result<(), Refused> {
    if txn.raw(MAILBOXES, &entry_key(&person.id, Folder::Drafts, id))?.is_none() {
        return Err(gone(id));
    }
    mail::forget(txn, &person.id, Folder::Drafts, id)?;
    Ok(txn.delete(MESSAGES, &id.0)?)
}

/// Files a draft that a rebuild found. Of several states of one, the one that was saved last counts, in whatever order
/// they are found. Its body is kept already, for the rebuild.
pub fn restore(txn: &mut Txn<'_>, id: MessageId, message: Message, person: &Id) -> Result<(), StoreError> {
    if let Some(found) = txn.get::<Message>(MESSAGES, &id.0)? {
        if found.origin.accepted_at > message.origin.accepted_at {
            return txn.release_body(message.body());
        }
        txn.release_body(found.body())?;
    }
    let typed = |list: &[Mailbox]| list.iter().map(|mailbox| mailbox.address.clone()).collect();
    let origin = &message.origin;
    let (to, cc, subject) = (typed(&origin.to), typed(&origin.cc), origin.subject.clone());
    let entry = Entry { filed_at: origin.accepted_at, read: true, ..Entry::default() };
    txn.put(DRAFTS, &id.0, &DraftRow { to, cc, subject, about: None })?;
    txn.put(MAILBOXES, &entry_key(person, Folder::Drafts, id), &entry)?;
    txn.put(MESSAGES, &id.0, &message)
}
