//! Finding messages by words: the rows first, and a body only where the rows do not decide. The work is bounded, and
//! where it ended is said.

use shared::id::MessageId;
use shared::mime::{self, words::folded};
use shared::origin::Mailbox;
use shared::store::{Rows, Snapshot};

use super::line;
use crate::error::Refused;
use crate::folder;
use crate::mail;
use crate::node::Node;
use crate::record::{Entry, Folder, MAILBOXES, Message, Person, folder_prefix, message_of};
use crate::request::Found;

/// Words of one search, and characters of all.
const WORDS_MAX: usize = 20;
const TYPED_MAX: usize = 1000;
/// Messages that one search looks at.
const MESSAGES_MAX: u64 = 50_000;
/// Octets of bodies that one search reads, and of one body.
const BODIES_BYTES_MAX: u64 = 256 * 1024 * 1024;
const BODY_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Messages in which every word occurs, newest first.
pub fn search(
    node: &Node,
    person: &Person,
    words: &str,
    folder: Option<&str>,
    max: usize,
) -> Result<Found, Refused> {
    let words = wanted(words)?;
    let snapshot = node.store.read()?;
    let folders = match folder {
        Some(name) => vec![folder::find(&snapshot, person, name)?],
        None => folder::every(&snapshot, &person.id)?,
    };
    // Thousands of rows and bodies take a while.
    tokio::task::block_in_place(|| look(node, &snapshot, person, &words, &folders, max))
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

fn look(
    node: &Node,
    rows: &Snapshot,
    person: &Person,
    words: &[String],
    folders: &[Folder],
    max: usize,
) -> Result<Found, Refused> {
    let mut entries: Vec<(MessageId, Folder, Entry)> = Vec::new();
    for folder in folders {
        let found = rows.prefix::<Entry>(MAILBOXES, &folder_prefix(&person.id, *folder), usize::MAX)?;
        entries.extend(found.into_iter().map(|(key, entry)| (message_of(&key), *folder, entry)));
    }
    // Of one that lies in two folders, the place where it is looked for first.
    entries.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    entries.dedup_by_key(|entry| entry.0);
    let mut found = Found { lines: Vec::new(), looked_at: 0, unread_texts: 0, ended: None };
    let mut bytes_left = BODIES_BYTES_MAX;
    for (id, folder, entry) in entries {
        found.ended = match () {
            () if found.lines.len() == max => Some(format!("{max} are found")),
            () if found.looked_at == MESSAGES_MAX => Some(format!("{MESSAGES_MAX} messages are the most")),
            () if bytes_left == 0 => Some("that is as much text as one search reads".into()),
            () => None,
        };
        if found.ended.is_some() {
            break;
        }
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
