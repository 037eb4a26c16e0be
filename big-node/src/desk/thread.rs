//! A conversation, as far as it is in a person's mailbox.

use super::{filed, line};
use crate::conversation;
use crate::error::Refused;
use crate::folder;
use crate::mail;
use crate::node::Node;
use crate::record::Person;
use crate::request::Line;

/// The conversation of a message, oldest first, each with how many answers it is away from the first message.
pub fn thread(node: &Node, person: &Person, text: &str) -> Result<Vec<Line>, Refused> {
    let snapshot = node.store.read()?;
    let thread = filed(&snapshot, person, text)?.message.thread;
    let mut lines = Vec::new();
    for (id, original, depth) in conversation::thread(&snapshot, thread)? {
        if let Some((folder, entry)) = mail::entry(&snapshot, &person.id, id)? {
            let message = mail::shown(&snapshot, id, entry.revision)?.unwrap_or(original);
            let folder = folder::name(&snapshot, &person.id, folder)?;
            lines.push(Line { depth, ..line(id, &message, &entry, &folder) });
        }
    }
    Ok(lines)
}
