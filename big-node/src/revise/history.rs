//! What has become of a message, revision by revision.

use shared::id::MessageId;
use shared::mime;
use shared::store::Store;
use shared::unit::revision_ordinal;

use super::{bit, revisions};
use crate::difference::{self, Change};
use crate::directory;
use crate::error::Refused;
use crate::mail;
use crate::record::{Message, Person};
use crate::request::RevisionView;

/// Largest message whose text is compared.
const READ_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Octets of all differences in one answer.
const DIFFERENCES_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The revisions of a message in the person's mailbox, the first one first: for its author all of them, for a
/// reader those that were read and the one that is shown.
pub fn history(store: &Store, person: &Person, text: &str) -> Result<Vec<RevisionView>, Refused> {
    let id: MessageId = text.parse().map_err(|error| Refused::new(format!("{text}: {error}")))?;
    let snapshot = store.read()?;
    let missing =
        || Refused::new(format!("{} has no message {id}; `mail list` shows what there is", person.name));
    let (_, entry) = mail::entry(&snapshot, &person.id, id)?.ok_or_else(missing)?;
    let original = mail::shown(&snapshot, id, 0)?.ok_or_else(missing)?;
    let revisions = revisions(&snapshot, id)?;
    let is_author = mail::is_author(&snapshot, &original, person)?;
    let is_visible = |number: u32| is_author || number == entry.revision || entry.shown & bit(number) != 0;
    let author = original.origin.from.first().map_or_else(String::new, |from| from.address.clone());
    let (mut views, mut before): (Vec<RevisionView>, Option<Option<String>>) = (Vec::new(), None);
    if is_visible(0) {
        views.push(RevisionView {
            revision: 0,
            at: original.origin.accepted_at,
            mode: None,
            reason: None,
            author: author.clone(),
            subject: original.origin.subject.clone(),
            difference: String::new(),
        });
        before = Some(text_of(store, &original));
    }
    for revision in revisions.into_iter().filter(|revision| is_visible(revision.number)) {
        let by = directory::by_id(&snapshot, &revision.author)?;
        let (revised, at, mode, reason) =
            (revision_ordinal(revision.number), revision.at, revision.mode, revision.reason.clone());
        let message = revision.of(&original);
        let shown: usize = views.iter().map(|view| view.difference.len()).sum();
        let text = text_of(store, &message);
        let difference = match (before, &text) {
            (None, _) => String::new(),
            (Some(Some(old)), Some(new)) if shown + old.len() + new.len() > DIFFERENCES_BYTES_MAX => {
                "the texts are too long to be compared here\n".into()
            }
            (Some(Some(old)), Some(new)) => difference(&old, new),
            _ => "the texts cannot be compared: one of them is not here any more\n".into(),
        };
        before = Some(text);
        views.push(RevisionView {
            revision: revised,
            at,
            mode: Some(mode),
            reason,
            author: by.map_or_else(|| author.clone(), |by| by.name),
            subject: message.origin.subject,
            difference,
        });
    }
    Ok(views)
}

/// The text of a message; `None` if it cannot be read.
fn text_of(store: &Store, message: &Message) -> Option<String> {
    let content =
        store.body(message.body()).and_then(|reader| mail::content(reader, message, READ_BYTES_MAX));
    Some(mime::text_of(&content.ok()?))
}

/// How two texts differ, line by line: what is in both after a blank, what was removed after `-`, what was added
/// after `+`.
fn difference(old: &str, new: &str) -> String {
    let line = |change| match change {
        Change::Same(line) => format!(" {line}\n"),
        Change::Old(line) => format!("-{line}\n"),
        Change::New(line) => format!("+{line}\n"),
    };
    difference::lines(old, new).into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_read_line_by_line() {
        assert_eq!(difference("a\nb\nc\n", "a\nx\nc\nd\n"), " a\n-b\n+x\n c\n+d\n");
        assert_eq!(difference("", "a"), "+a\n");
        assert_eq!(difference("a", ""), "-a\n");
        assert_eq!(difference("", ""), "");
        assert_eq!(difference("same\r\n", "same\n"), " same\n");
    }
}
