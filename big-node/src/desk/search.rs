//! Finding messages by words: the rows first, and a body only where the rows do not decide. The work of one request is
//! bounded, and where it ended is said, so that another one goes on from there.

use shared::id::MessageId;
use shared::mime::{self, words::folded};
use shared::origin::Mailbox;
use shared::store::{Rows, Snapshot};

use super::{line, message_id};
use crate::error::Refused;
use crate::folder;
use crate::mail;
use crate::node::Node;
use crate::record::{Entry, Folder, MAILBOXES, Message, Person, entry_key, folder_prefix, message_of};
use crate::request::Found;

/// Words of one search, and characters of all.
const WORDS_MAX: usize = 20;
const TYPED_MAX: usize = 1000;
/// Messages that one request looks at: a search goes on with another one behind the last of them, so that what is
/// found is shown meanwhile, and whoever looks for it may stop.
const MESSAGES_MAX: usize = 2_000;
/// Octets of bodies that one request reads, and of one body.
const BODIES_BYTES_MAX: u64 = 32 * 1024 * 1024;
const BODY_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What is looked for.
#[derive(Clone, Copy, Debug)]
pub struct Search<'a> {
    /// The words.
    pub words: &'a str,
    /// Only in the folder of this name.
    pub folder: Option<&'a str>,
    /// At most so many messages.
    pub max: usize,
    /// Only those older than the message with this id.
    pub before: Option<&'a str>,
}

/// Messages in which every word occurs, newest first, as far as one request looks.
pub fn search(node: &Node, person: &Person, search: Search<'_>) -> Result<Found, Refused> {
    let words = wanted(search.words)?;
    let before = search.before.map(message_id).transpose()?;
    let snapshot = node.store.read()?;
    let folders = match search.folder {
        Some(name) => vec![folder::find(&snapshot, person, name)?],
        None => folder::every(&snapshot, &person.id)?,
    };
    // Thousands of rows and bodies take a while.
    tokio::task::block_in_place(|| {
        let entries = newest(&snapshot, person, &folders, before)?;
        look(node, &snapshot, person, &words, entries, search.max)
    })
}

fn wanted(text: &str) -> Result<Vec<String>, Refused> {
    let words: Vec<_> = folded(text).split_whitespace().map(str::to_owned).collect();
    match words.len() {
        1..=WORDS_MAX if text.len() <= TYPED_MAX => Ok(words),
        _ => {
            Err(Refused::new(format!("a search is for 1 to {WORDS_MAX} words, of {TYPED_MAX} octets in all")))
        }
    }
}

type Placed = (MessageId, Folder, Entry);

/// The newest messages of these folders that are older than `before`: those that one request looks at, and one more
/// if there is any.
fn newest(
    rows: &Snapshot,
    person: &Person,
    folders: &[Folder],
    before: Option<MessageId>,
) -> Result<Vec<Placed>, Refused> {
    let mut entries: Vec<Placed> = Vec::new();
    for folder in folders {
        let prefix = folder_prefix(&person.id, *folder);
        let found = match before {
            None => rows.prefix_backwards::<Entry>(MAILBOXES, &prefix, MESSAGES_MAX + 1)?,
            Some(before) => {
                let before = entry_key(&person.id, *folder, before);
                rows.range_backwards::<Entry>(MAILBOXES, &prefix, Some(&before), MESSAGES_MAX + 1)?
            }
        };
        entries.extend(found.into_iter().map(|(key, entry)| (message_of(&key), *folder, entry)));
    }
    // Of one that lies in two folders, the place where it is looked for first.
    entries.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    entries.dedup_by_key(|entry| entry.0);
    entries.truncate(MESSAGES_MAX + 1);
    Ok(entries)
}

fn look(
    node: &Node,
    rows: &Snapshot,
    person: &Person,
    words: &[String],
    entries: Vec<Placed>,
    max: usize,
) -> Result<Found, Refused> {
    let mut found = Found::default();
    let mut bytes_left = BODIES_BYTES_MAX;
    let mut last = None;
    for (number, (id, folder, entry)) in entries.into_iter().enumerate() {
        if found.lines.len() >= max || number == MESSAGES_MAX || bytes_left == 0 {
            // There is this one still.
            found.behind = last.map(|id: MessageId| id.to_string());
            break;
        }
        last = Some(id);
        let Some(message) = mail::shown(rows, id, entry.revision)? else { continue };
        found.looked_at += 1;
        let header = header_text(&message);
        let missing: Vec<_> = words.iter().filter(|word| !header.contains(word.as_str())).collect();
        let fits = match missing.is_empty() {
            true => true,
            false if message.origin.size > BODY_BYTES_MAX => {
                found.unread_texts += 1;
                false
            }
            false => {
                bytes_left = bytes_left.saturating_sub(message.origin.size);
                let body = node.store.body(message.body());
                let limit = usize::try_from(BODY_BYTES_MAX).unwrap_or(usize::MAX);
                match body.and_then(|reader| mail::content(reader, &message, limit)) {
                    Ok(content) => {
                        let text = folded(&mime::text_of(&content));
                        missing.iter().all(|word| text.contains(word.as_str()))
                    }
                    Err(_) => {
                        found.unread_texts += 1;
                        false
                    }
                }
            }
        };
        if fits {
            let name = folder::name(rows, &person.id, folder)?;
            found.lines.push(line(id, &message, &entry, &name));
        }
    }
    Ok(found)
}

/// What a message's row says of it.
fn header_text(message: &Message) -> String {
    let origin = &message.origin;
    let mailboxes = [&origin.from, &origin.to, &origin.cc].into_iter().flatten();
    let mailbox = |mailbox: &Mailbox| format!("{} {}", mailbox.name, mailbox.address);
    let recipients = origin.recipients.iter().map(|recipient| recipient.address.clone());
    let texts: Vec<_> =
        std::iter::once(origin.subject.clone()).chain(mailboxes.map(mailbox)).chain(recipients).collect();
    folded(&texts.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_has_words_and_not_too_many() {
        assert_eq!(wanted(" Grüße  ÉTÉ ").expect("words"), ["gruße", "ete"]);
        for text in ["", "  ", &"a ".repeat(WORDS_MAX + 1), &"a".repeat(TYPED_MAX + 1)] {
            assert!(wanted(text).is_err(), "{text}");
        }
    }
}
