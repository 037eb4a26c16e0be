//! What has become of a message, revision by revision.

use shared::id::MessageId;
use shared::mime::{self, terminal};
use shared::store::Store;
use shared::unit::revision_ordinal;

use super::{bit, revisions};
use crate::difference::{self, Change};
use crate::directory;
use crate::error::Refused;
use crate::mail;
use crate::record::{Message, Part, Person};
use crate::request::RevisionView;

/// Largest message whose text is compared.
const READ_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Octets of all differences in one answer.
const DIFFERENCES_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Lines that are shown before and after a change; of what is the same besides, how much it is.
const CONTEXT_LINES: usize = 3;

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
    let (mut views, mut before): (Vec<RevisionView>, Option<Option<Said>>) = (Vec::new(), None);
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
        before = Some(said(store, &original));
    }
    for revision in revisions.into_iter().filter(|revision| is_visible(revision.number)) {
        let by = directory::by_id(&snapshot, &revision.author)?;
        let (revised, at, mode, reason) =
            (revision_ordinal(revision.number), revision.at, revision.mode, revision.reason.clone());
        let message = revision.of(&original);
        let shown: usize = views.iter().map(|view| view.difference.len()).sum();
        let now = said(store, &message);
        let difference = match (before, &now) {
            (None, _) => String::new(),
            (Some(Some(old)), Some(new))
                if shown + old.text.len() + new.text.len() > DIFFERENCES_BYTES_MAX =>
            {
                "@ the texts are too long to be compared here\n".into()
            }
            (Some(Some(old)), Some(new)) => {
                difference(&old.text, &new.text) + &changed(&old.attachments, &new.attachments)
            }
            _ => "@ the texts cannot be compared: one of them is not here any more\n".into(),
        };
        before = Some(now);
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

/// What a revision says: its text, and a line for each attachment.
struct Said {
    text: String,
    attachments: String,
}

/// What a message says; `None` if it cannot be read.
fn said(store: &Store, message: &Message) -> Option<Said> {
    let content =
        store.body(message.body()).and_then(|reader| mail::content(reader, message, READ_BYTES_MAX));
    let attachment = |part: &Part| {
        let name = terminal::safe_line(part.name.as_deref().unwrap_or("(no name)"));
        format!("attachment: {name}, {}, {} octets\n", terminal::safe_line(&part.content_type), part.size)
    };
    let attachments = message.parts.iter().map(attachment).collect();
    Some(Said { text: mime::text_of(&content.ok()?), attachments })
}

/// How two texts differ, line by line: what was removed after `-`, what was added after `+`, what is the same around
/// that after a blank, and after `@` how much more is the same. So no line can pass for another one's.
fn difference(old: &str, new: &str) -> String {
    let lines = difference::lines(old, new);
    let is_same = |change: &Change<'_>| matches!(change, Change::Same(_));
    let mut difference = String::new();
    let runs: Vec<_> = lines.chunk_by(|one, other| is_same(one) == is_same(other)).collect();
    for (at, run) in runs.iter().enumerate() {
        // At the ends there is a change on one side only.
        let before = if at == 0 { 0 } else { CONTEXT_LINES };
        let after = if at + 1 == runs.len() { 0 } else { CONTEXT_LINES };
        let left_out = run.len().saturating_sub(before + after);
        if !run.first().is_some_and(is_same) || left_out < 2 {
            difference.extend(run.iter().map(line));
            continue;
        }
        difference.extend(run[..before].iter().map(line));
        difference += &format!("@ {left_out} lines are the same\n");
        difference.extend(run[run.len() - after..].iter().map(line));
    }
    difference
}

/// Which attachments were taken away, and which were added.
fn changed(old: &str, new: &str) -> String {
    let changes = difference::lines(old, new);
    changes.iter().filter(|change| !matches!(change, Change::Same(_))).map(line).collect()
}

fn line(change: &Change<'_>) -> String {
    match change {
        Change::Same(line) => format!(" {line}\n"),
        Change::Old(line) => format!("-{line}\n"),
        Change::New(line) => format!("+{line}\n"),
    }
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

    #[test]
    fn of_what_is_the_same_only_what_is_near_a_change_is_shown() {
        let numbered = |from: usize, to: usize| (from..=to).map(|n| format!("{n}\n")).collect::<String>();
        let old = numbered(1, 20);
        assert_eq!(difference(&old, &old), "@ 20 lines are the same\n");
        let new = format!("{}ten\n{}", numbered(1, 9), numbered(11, 20));
        assert_eq!(
            difference(&old, &new),
            "@ 6 lines are the same\n 7\n 8\n 9\n-10\n+ten\n 11\n 12\n 13\n@ 7 lines are the same\n"
        );
        let new = format!("{}ten\n{}twenty\n", numbered(1, 9), numbered(11, 19));
        let between = " 11\n 12\n 13\n@ 3 lines are the same\n 17\n 18\n 19\n-20\n+twenty\n";
        assert!(difference(&old, &new).ends_with(between), "{}", difference(&old, &new));
        // One line is shown instead of a line that says so.
        assert_eq!(difference("a\nb\nc\nd\ne", "a\nb\nc\nd\nx"), " a\n b\n c\n d\n-e\n+x\n");
    }

    #[test]
    fn attachments_that_go_and_come_are_named() {
        let old = "attachment: a.pdf, application/pdf, 3 octets\nattachment: b, text/plain, 1 octets\n";
        let new = "attachment: a.pdf, application/pdf, 4 octets\nattachment: b, text/plain, 1 octets\n";
        assert_eq!(changed(old, old), "");
        assert_eq!(
            changed(old, new),
            "-attachment: a.pdf, application/pdf, 3 octets\n+attachment: a.pdf, application/pdf, 4 octets\n"
        );
    }
}
