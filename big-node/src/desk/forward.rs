//! Sending a message on: its text below one's own, its attachments as they are; or all of it attached.

use shared::mime::words::Prefix;
use shared::mime::{self, FILE_NAME_MAX};
use shared::store::Snapshot;

use super::reply::subject;
use super::send::{Letter, Original, Outgoing, address};
use crate::error::Refused;
use crate::mail::Tie;
use crate::node::Node;
use crate::record::Person;

/// What stands between one's own text and the other one.
const RULE: &str = "---------- Forwarded message ----------";

/// A message that sends another one on, ready to be sent.
pub(super) fn letter(
    node: &Node,
    rows: &Snapshot,
    author: &Person,
    original: &Original,
    as_attachment: bool,
    without: &[u32],
    outgoing: Outgoing,
) -> Result<Letter, Refused> {
    if outgoing.to.is_empty() && outgoing.cc.is_empty() {
        return Err(Refused::new("a message is sent on to somebody: name a recipient"));
    }
    let mut letter = Letter {
        subject: subject(&original.filed.message.origin.subject, &outgoing.subject, "Fwd:", Prefix::Forward),
        attachments: outgoing.attachments,
        references: original.references(),
        tie: Some(Tie::Forwards(original.filed.id)),
        ..Letter::default()
    };
    if as_attachment {
        if !without.is_empty() {
            let text = "a message that is attached goes whole: its attachments cannot be left out of it";
            return Err(Refused::new(text));
        }
        letter.text = outgoing.text;
        let name = file_name(&original.filed.message.origin.subject);
        letter.entities = vec![mime::attached_message(original.as_it_came(), &name)];
    } else {
        letter.entities = original.attachments(without)?;
        let own = outgoing.text.trim_end();
        let between = if own.is_empty() { "" } else { "\n\n" };
        let text = mime::text_of(&original.content);
        letter.text = format!("{own}{between}{RULE}\n{}\n{text}", original.header_lines());
    }
    letter.entities.extend(outgoing.entities);
    address(node, rows, author, &mut letter, &outgoing.to, &outgoing.cc)?;
    Ok(letter)
}

/// What a message is called that is attached.
fn file_name(subject: &str) -> String {
    const ENDING: &str = ".eml";
    let name = mime::file_name(Some(subject).filter(|subject| !subject.is_empty()), "message/rfc822", "1");
    let stem = name.strip_suffix(ENDING).unwrap_or(&name);
    let (stem, _) = stem.split_at(stem.floor_char_boundary(FILE_NAME_MAX - ENDING.len()));
    format!("{stem}{ENDING}")
}
