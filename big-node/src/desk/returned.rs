//! Amend and return: a received message with its text changed, sent back to its sender or on to others. The original's
//! header stands above it, and each line that was changed is marked.

use shared::id::unix_millis;
use shared::mime::words::Prefix;
use shared::mime::{self, terminal};
use shared::render;
use shared::store::Snapshot;

use super::reply::{self, Whom, subject};
use super::send::{Letter, Original, Outgoing, address};
use crate::difference::{self, Change};
use crate::error::Refused;
use crate::mail::Tie;
use crate::node::Node;
use crate::record::Person;

/// The message, ready to be sent. Without recipients it goes back.
pub(super) fn letter(
    node: &Node,
    rows: &Snapshot,
    author: &Person,
    original: &Original,
    without: &[u32],
    outgoing: Outgoing,
) -> Result<Letter, Refused> {
    let origin = &original.filed.message.origin;
    let goes_back = outgoing.to.is_empty() && outgoing.cc.is_empty();
    let marked = marked(&mime::text_of(&original.content), &outgoing.text);
    if marked.is_none() && without.is_empty() {
        let text = "the text is as it was, and nothing is left out; `mail reply` answers and `mail forward` sends on \
                    what is not changed";
        return Err(Refused::new(text));
    }
    let by = format!("{}, {} UTC", author.display, render::when(unix_millis()));
    let heading = match &marked {
        Some(_) => format!("[Changed by {by}. Lines with - are as they were, lines with + as they are now.]"),
        None => format!("[Sent without some of its attachments by {by}. Its text is as it was.]"),
    };
    let text = marked.unwrap_or(outgoing.text);
    // A subject that is as it was is no other one.
    let typed = if outgoing.subject.trim() == origin.subject.trim() { "" } else { &outgoing.subject };
    let (prefix, means, id) = (("Re:", "Fwd:"), (Prefix::Answer, Prefix::Forward), original.filed.id);
    let mut letter = Letter {
        subject: match goes_back {
            true => subject(&origin.subject, typed, prefix.0, means.0),
            false => subject(&origin.subject, typed, prefix.1, means.1),
        },
        text: format!("{heading}\n\n{}\n{text}", original.header_lines()),
        attachments: outgoing.attachments,
        entities: [original.attachments(without)?, outgoing.entities].concat(),
        in_reply_to: origin.message_id.clone(),
        references: original.references(),
        tie: Some(if goes_back { Tie::Answers(id) } else { Tie::Forwards(id) }),
        ..Letter::default()
    };
    match goes_back {
        true => reply::address_answer(node, rows, author, original, Whom::Author, &mut letter)?,
        false => address(node, rows, author, &mut letter, &outgoing.to, &outgoing.cc)?,
    }
    Ok(letter)
}

/// The new text with every change marked; `None` where there is none. What `mail read` shows is what is edited, so
/// lines are the same if they look the same there.
fn marked(old: &str, new: &str) -> Option<String> {
    let (old, new) = (terminal::safe(old), terminal::safe(new));
    let changes = difference::lines(old.trim_end(), new.trim_end());
    if changes.iter().all(|change| matches!(change, Change::Same(_))) {
        return None;
    }
    let line = |change: &Change<'_>| match change {
        Change::Same("") => "\n".into(),
        Change::Same(line) => format!("  {line}\n"),
        Change::Old(line) => format!("- {line}\n"),
        Change::New(line) => format!("+ {line}\n"),
    };
    Some(changes.iter().map(line).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_marked_and_nothing_else() {
        for (old, new, expected) in [
            ("a\nb\n", "a\nb", None),
            ("a\tb", "a       b", None),
            ("a \nb", "a\nb", None),
            ("one\ntwo\nthree\n", "one\n2\nthree\nfour\n", Some("  one\n- two\n+ 2\n  three\n+ four\n")),
            ("a\n\nb", "a\n\nc", Some("  a\n\n- b\n+ c\n")),
            ("", "new", Some("+ new\n")),
            ("old", "", Some("- old\n")),
            ("x\u{1b}[2J", "y", Some("- x\u{241b}[2J\n+ y\n")),
        ] {
            assert_eq!(marked(old, new).as_deref(), expected, "{old:?} {new:?}");
        }
    }
}
