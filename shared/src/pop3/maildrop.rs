//! A maildrop as a session sees it: fixed at the login, with marks that count only at QUIT.

use memchr::memchr;

use crate::id::MessageId;

/// One message of a maildrop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Octets as they are served: with CRLF at every line's end, without doubled dots.
    pub size: u64,
    /// The message.
    pub message: MessageId,
    /// Its revision.
    pub revision: u32,
}

impl Entry {
    /// The unique-id (RFC 1939 §7): message, revision and part, of which 0 is the whole. Nothing of it is
    /// the sender's to choose, and no other message ever has it.
    pub fn unique_id(&self) -> String {
        format!("{}.{}.0", self.message, self.revision)
    }
}

/// The messages of a session and what has been done to them.
#[derive(Debug)]
pub(super) struct Maildrop {
    messages: Vec<Message>,
}

#[derive(Debug)]
struct Message {
    entry: Entry,
    deleted: bool,
    retrieved: bool,
}

impl Maildrop {
    pub(super) fn new(entries: Vec<Entry>) -> Self {
        let message = |entry| Message { entry, deleted: false, retrieved: false };
        Self { messages: entries.into_iter().map(message).collect() }
    }

    /// The index of a message that is there and not deleted, by its number.
    pub(super) fn index(&self, number: u64) -> Result<usize, &'static str> {
        let index = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
        match index.and_then(|index| Some((index, self.messages.get(index)?))) {
            None => Err("no such message"),
            Some((_, message)) if message.deleted => Err("the message is deleted"),
            Some((index, _)) => Ok(index),
        }
    }

    /// The message at an index.
    pub(super) fn entry(&self, index: usize) -> Option<Entry> {
        self.messages.get(index).map(|message| message.entry)
    }

    /// Number and entry of the first message at `index` or after it that is not deleted.
    pub(super) fn next(&self, index: usize) -> Option<(usize, &Entry)> {
        let mut rest = self.messages.iter().enumerate().skip(index);
        rest.find(|(_, message)| !message.deleted).map(|(index, message)| (index + 1, &message.entry))
    }

    /// Messages that are not deleted, and their octets.
    pub(super) fn total(&self) -> (usize, u64) {
        let kept = self.messages.iter().filter(|message| !message.deleted);
        kept.fold((0, 0), |(count, size), message| (count + 1, size.saturating_add(message.entry.size)))
    }

    pub(super) fn delete(&mut self, index: usize) {
        if let Some(message) = self.messages.get_mut(index) {
            message.deleted = true;
        }
    }

    pub(super) fn retrieved(&mut self, index: usize) {
        if let Some(message) = self.messages.get_mut(index) {
            message.retrieved = true;
        }
    }

    pub(super) fn undelete(&mut self) {
        for message in &mut self.messages {
            message.deleted = false;
        }
    }

    /// The deleted messages, and those that were retrieved whole.
    pub(super) fn marks(&self) -> (Vec<Entry>, Vec<Entry>) {
        let entries = |marked: fn(&&Message) -> bool| {
            self.messages.iter().filter(marked).map(|message| message.entry).collect()
        };
        (entries(|message| message.deleted), entries(|message| message.retrieved))
    }
}

/// Cuts a message after its header, the empty line, and so many lines of its body (TOP), in pieces of
/// any size.
#[derive(Debug)]
pub(super) struct Top {
    lines: u64,
    in_header: bool,
    /// Octets of the current line, without its LF.
    line_bytes: usize,
    done: bool,
}

impl Top {
    pub(super) fn new(lines: u64) -> Self {
        Self { lines, in_header: true, line_bytes: 0, done: false }
    }

    /// Whether all that is wanted has been seen.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// As much of the next piece as is wanted.
    pub(super) fn cut<'a>(&mut self, piece: &'a [u8]) -> &'a [u8] {
        let mut at = 0;
        while !self.done {
            let rest = piece.get(at..).unwrap_or_default();
            let Some(line) = memchr(b'\n', rest) else {
                self.line_bytes = self.line_bytes.saturating_add(rest.len());
                return piece;
            };
            at += line + 1;
            self.end_of_line(self.line_bytes.saturating_add(line));
        }
        piece.get(..at).unwrap_or_default()
    }

    fn end_of_line(&mut self, line_bytes: usize) {
        self.line_bytes = 0;
        if self.in_header {
            // Only its CR: the empty line.
            self.in_header = line_bytes > 1;
        } else {
            self.lines -= 1;
        }
        self.done = !self.in_header && self.lines == 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn top(message: &str, lines: u64, cut: usize) -> String {
        let mut top = Top::new(lines);
        let (first, second) = message.as_bytes().split_at(cut);
        let kept = [top.cut(first), top.cut(second)].concat();
        String::from_utf8(kept).expect("UTF-8")
    }

    #[test]
    fn top_ends_after_the_lines_asked_for_wherever_the_pieces_end() {
        let message = "A: b\r\n c\r\n\r\n1\r\n\r\n3\r\n";
        for cut in 0..=message.len() {
            assert_eq!(top(message, 0, cut), "A: b\r\n c\r\n\r\n", "cut at {cut}");
            assert_eq!(top(message, 1, cut), "A: b\r\n c\r\n\r\n1\r\n", "cut at {cut}");
            assert_eq!(top(message, 2, cut), "A: b\r\n c\r\n\r\n1\r\n\r\n", "cut at {cut}");
            assert_eq!(top(message, u64::MAX, cut), message, "cut at {cut}");
        }
        assert_eq!(top("only: header\r\n", 0, 4), "only: header\r\n");
    }
}
