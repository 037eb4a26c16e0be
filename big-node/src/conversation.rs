//! Conversations: what a message answers, and all that belong together.
//!
//! Message-IDs say it. Some relays rewrite them, and then an answer names an id that nobody here knows: it is
//! tied by its subject to what its receiver has sent to its author lately, and the id is learned, so that the next
//! answer is found by it. What was learned is written once, with what taught it.

use shared::address::Address;
use shared::id::MessageId;
use shared::mime::words::{Prefix, base_subject};
use shared::origin::{Channel, Mailbox, Origin};
use shared::store::{Rows, StoreError, Txn, behind};
use shared::unit::Id;

use crate::directory;
use crate::error::Refused;
use crate::record::{
    FURTHER_IDS, FurtherId, MESSAGE_IDS, MESSAGES, Message, Named, Person, RECIPIENTS, Recipient,
    SENT_SUBJECTS, SentSubject, THREADS, key2, message_id_key, message_of,
};

/// How long an answer is looked for by its subject.
const SUBJECT_MILLIS: u64 = 60 * 24 * 3_600_000;
/// Receivers of an answer whose sent mail is looked through.
const RECEIVERS_MAX: usize = 20;
/// Messages of one subject and one sender that are looked at, the latest.
const SAME_SUBJECT_MAX: usize = 16;
/// Recipients of a sent message that are compared with who answers.
const COMPARED_MAX: usize = 1000;
/// Further Message-IDs of one message.
const FURTHER_IDS_MAX: usize = 16;
/// Messages of a conversation that are shown.
pub const THREAD_MAX: usize = 10_000;

/// Whether a message only sends another one on: it refers to it, and its subject says so.
pub fn sends_on(origin: &Origin) -> bool {
    origin.in_reply_to.is_empty() && base_subject(&origin.subject).1 == Prefix::Forward
}

/// The message here that this one, new as `id`, answers: by In-Reply-To, else by its subject, else the newest
/// reference that is known. References win if the two lead to different conversations.
pub fn parent_of(
    txn: &mut Txn<'_>,
    origin: &Origin,
    id: MessageId,
    now: u64,
) -> Result<Option<Id>, StoreError> {
    if let Some(parent) = first_known(txn, origin.in_reply_to.iter())? {
        return Ok(Some(parent));
    }
    let referred = first_known(txn, origin.references.iter().rev())?;
    let Some(parent) = parent_by_subject(txn, origin, now)? else { return Ok(referred) };
    if let Some(referred) = referred
        && thread_of(txn, referred)? != thread_of(txn, parent)?
    {
        return Ok(Some(referred));
    }
    if let Some(unknown) =
        origin.in_reply_to.first().or(origin.references.last().filter(|_| referred.is_none()))
    {
        learn(txn, parent, unknown, id, now)?;
    }
    Ok(Some(parent))
}

/// Whether a message names others.
pub fn refers(origin: &Origin) -> bool {
    !origin.in_reply_to.is_empty() || !origin.references.is_empty()
}

/// Ties a message that a rebuild found to the newest that it names, if that is here.
pub fn tie_again(txn: &mut Txn<'_>, id: MessageId, message: &mut Message) -> Result<(), StoreError> {
    let named = message.origin.in_reply_to.iter().chain(message.origin.references.iter().rev());
    let Some(parent) = first_known(txn, named)?.filter(|parent| *parent != id.0) else { return Ok(()) };
    message.parent = Some(parent);
    message.thread = thread_of(txn, parent)?;
    enter(txn, message, id)
}

fn first_known<'a>(
    rows: &impl Rows,
    mut message_ids: impl Iterator<Item = &'a String>,
) -> Result<Option<Id>, StoreError> {
    let known = |message_id: &String| rows.get::<Named>(MESSAGE_IDS, &message_id_key(message_id)).transpose();
    Ok(message_ids.find_map(known).transpose()?.map(|Named(parent)| parent))
}

fn thread_of(rows: &impl Rows, id: Id) -> Result<Id, StoreError> {
    Ok(rows.get::<Message>(MESSAGES, &id)?.map_or(id, |message| message.thread))
}

/// Makes `message_id`, which nobody knows, another name of a message.
fn learn(
    txn: &mut Txn<'_>,
    message: Id,
    message_id: &str,
    by: MessageId,
    now: u64,
) -> Result<(), StoreError> {
    if txn.prefix::<FurtherId>(FURTHER_IDS, &message, FURTHER_IDS_MAX)?.len() == FURTHER_IDS_MAX {
        return Ok(());
    }
    let hash = message_id_key(message_id);
    let further = FurtherId { message_id: message_id.to_owned(), at: now, by: by.0 };
    txn.put(FURTHER_IDS, &key2(&message, &hash), &further)?;
    txn.put(MESSAGE_IDS, &hash, &Named(message))
}

/// What its receivers have sent to the author of an answer, under the same subject and lately: the newest.
fn parent_by_subject(rows: &impl Rows, origin: &Origin, now: u64) -> Result<Option<Id>, StoreError> {
    let (subject, prefix) = base_subject(&origin.subject);
    let from_others = matches!(origin.channel, Channel::Reception { .. } | Channel::Gateway { .. });
    if prefix != Prefix::Answer || subject.is_empty() || origin.automatic || !from_others {
        return Ok(None);
    }
    let hash = message_id_key(&subject);
    let receivers = receivers(rows, origin)?;
    let authors = addresses(origin.from.iter().chain(&origin.sender).chain(&origin.reply_to));
    // Who answers through a list writes from an address that the list has, and to the list.
    let lists = addresses(origin.to.iter().chain(&origin.cc).chain(&origin.reply_to));
    for receiver in &receivers {
        let prefix = key2(&receiver.id, &hash);
        let sent = rows.prefix_backwards::<SentSubject>(SENT_SUBJECTS, &prefix, SAME_SUBJECT_MAX)?;
        for (key, _) in sent.iter().filter(|(_, sent)| !is_old(sent, now)) {
            let id = message_of(key);
            if went_to(rows, id.0, &authors, &lists, receiver)? {
                return Ok(Some(id.0));
            }
        }
    }
    Ok(None)
}

/// The people here whose addresses an envelope names.
fn receivers(rows: &impl Rows, origin: &Origin) -> Result<Vec<Person>, StoreError> {
    let mut receivers: Vec<Person> = Vec::new();
    for recipient in origin.recipients.iter().take(RECEIVERS_MAX) {
        let Ok(address) = recipient.address.parse::<Address>() else { continue };
        for address in [Some(address.clone()), address.without_tag()].into_iter().flatten() {
            match directory::by_name(rows, &address.to_string()) {
                Ok(person) => {
                    if receivers.iter().all(|known| known.id != person.id) {
                        receivers.push(person);
                    }
                    break;
                }
                Err(Refused::Store(error)) => return Err(error),
                Err(Refused::Asked(_)) => {}
            }
        }
    }
    Ok(receivers)
}

fn addresses<'a>(mailboxes: impl Iterator<Item = &'a Mailbox>) -> Vec<Address> {
    mailboxes.filter_map(|mailbox| mailbox.address.parse().ok()).collect()
}

/// Whether a sent message went to one of `authors`, to somebody of their domain, or to one of `lists`, which is not
/// the sender's own.
fn went_to(
    rows: &impl Rows,
    id: Id,
    authors: &[Address],
    lists: &[Address],
    sender: &Person,
) -> Result<bool, StoreError> {
    let is_own = |address: &Address| sender.addresses.contains(&address.canonical());
    let rows = rows.prefix::<Recipient>(RECIPIENTS, &id, COMPARED_MAX)?;
    let written = rows.iter().flat_map(|(_, row)| [Some(&row.address), row.via.as_ref()]).flatten();
    Ok(written.filter_map(|text| text.parse::<Address>().ok()).any(|recipient| {
        let same = |other: &Address| other.canonical() == recipient.canonical();
        authors.iter().any(|author| same(author) || author.domain() == recipient.domain())
            || lists.iter().any(|list| same(list) && !is_own(list))
    }))
}

fn is_old(sent: &SentSubject, now: u64) -> bool {
    now.saturating_sub(sent.at) > SUBJECT_MILLIS
}

/// Enters a message into its conversation, unless it begins one.
pub fn enter(txn: &mut Txn<'_>, message: &Message, id: MessageId) -> Result<(), StoreError> {
    match message.thread == id.0 {
        true => Ok(()),
        false => txn.put(THREADS, &key2(&message.thread, &id.0), &Named(id.0)),
    }
}

/// Notes the subject of a message that a person sends, by which answers are found whose header does not help.
pub fn note_sent(
    txn: &mut Txn<'_>,
    author: &Person,
    message: &Message,
    id: MessageId,
    now: u64,
) -> Result<(), StoreError> {
    let (subject, _) = base_subject(&message.origin.subject);
    if subject.is_empty() {
        return Ok(());
    }
    let key = [author.id.as_slice(), &message_id_key(&subject), &id.0].concat();
    txn.put(SENT_SUBJECTS, &key, &SentSubject { at: now })
}

/// Looks at some of the subjects, from `cursor` on, and forgets those that are too old to be answered. Returns where to
/// go on the next time; `None` is from the beginning.
pub fn forget_old(
    txn: &mut Txn<'_>,
    cursor: &[u8],
    max: usize,
    now: u64,
) -> Result<Option<Vec<u8>>, StoreError> {
    let found = txn.range::<SentSubject>(SENT_SUBJECTS, cursor, None, max)?;
    for (key, _) in found.iter().filter(|(_, sent)| is_old(sent, now)) {
        txn.delete(SENT_SUBJECTS, key)?;
    }
    Ok(behind(&found, max))
}

/// Every message of a conversation with how many answers it is away from the first, oldest first.
pub fn thread(rows: &impl Rows, thread: Id) -> Result<Vec<(MessageId, Message, u32)>, StoreError> {
    let answers = rows.prefix::<Named>(THREADS, &thread, THREAD_MAX)?;
    let ids = std::iter::once(thread).chain(answers.into_iter().map(|(_, Named(id))| id));
    let mut depths = std::collections::HashMap::<Id, u32>::new();
    let mut found = Vec::new();
    for id in ids {
        let Some(message) = rows.get::<Message>(MESSAGES, &id)? else { continue };
        // Ids rise with time, so what is answered comes first.
        let above = message.parent.and_then(|parent| depths.get(&parent).copied());
        let depth = above.map_or(u32::from(message.parent.is_some()), |above| above.saturating_add(1));
        depths.insert(id, depth);
        found.push((MessageId(id), message, depth));
    }
    Ok(found)
}
