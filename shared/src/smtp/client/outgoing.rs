//! Content as it is sent: without the Return-Path that stands at its head, with its dots doubled where a dot ends it.
//!
//! Return-Path says that a message was delivered here for good. One that goes on has not been, and the host
//! that delivers it writes its own (RFC 5321 §4.4).

use std::mem;

use crate::wire::{DotStuffing, LineError};

/// The field that does not go on, in lower case.
const FIELD: &[u8] = b"return-path:";

/// One message's content on its way out, in pieces of any size.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// Fields that are still to go before it.
    before: Vec<u8>,
    head: Head,
    stuffing: DotStuffing,
}

/// What the content begins with.
#[derive(Debug)]
enum Head {
    /// These octets: the name so far.
    Open(Vec<u8>),
    /// A Return-Path, which is being left out; whether a line has just ended.
    Dropped { line_ended: bool },
    /// Something else, or what follows it.
    Passed,
}

impl Default for Head {
    fn default() -> Self {
        Self::Open(Vec::new())
    }
}

impl Outgoing {
    /// Content behind header fields that were put before it, whose lines end with CRLF.
    pub fn behind(before: Vec<u8>) -> Self {
        Self { before, ..Self::default() }
    }

    /// The same where its length is told (BDAT), and no dot ends it.
    pub fn counted(before: Vec<u8>) -> Self {
        Self { before, stuffing: DotStuffing::off(), ..Self::default() }
    }

    fn begin(&mut self, out: &mut Vec<u8>) -> Result<(), LineError> {
        let before = mem::take(&mut self.before);
        if before.is_empty() { Ok(()) } else { self.stuffing.piece(&before, out) }
    }

    /// Appends the next piece of content to `out`.
    ///
    /// # Errors
    /// [`LineError::Bare`], as [`DotStuffing::piece`].
    pub fn piece(&mut self, content: &[u8], out: &mut Vec<u8>) -> Result<(), LineError> {
        self.begin(out)?;
        let mut rest = content;
        while let Some((first, behind)) = rest.split_first() {
            match &mut self.head {
                Head::Passed => return self.stuffing.piece(rest, out),
                Head::Open(name) => {
                    name.push(*first);
                    rest = behind;
                    if !FIELD.starts_with(&name.to_ascii_lowercase()) {
                        let name = mem::take(name);
                        self.head = Head::Passed;
                        self.stuffing.piece(&name, out)?;
                    } else if name.len() == FIELD.len() {
                        self.head = Head::Dropped { line_ended: false };
                    }
                }
                // A line that begins with white space goes on with the one before.
                Head::Dropped { line_ended: true } if !matches!(first, b' ' | b'\t') => {
                    self.head = Head::Passed;
                }
                Head::Dropped { line_ended } => {
                    let end = memchr::memchr(b'\n', rest);
                    *line_ended = end.is_some();
                    rest = end.and_then(|end| rest.get(end + 1..)).unwrap_or_default();
                }
            }
        }
        Ok(())
    }

    /// Appends what ends the message; with [`counted`](Self::counted) that is its last line's CRLF, if that is missing.
    ///
    /// # Errors
    /// [`LineError::Bare`], as [`DotStuffing::finish`].
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<(), LineError> {
        self.begin(out)?;
        if let Head::Open(name) = &self.head {
            self.stuffing.piece(name, out)?;
        }
        self.stuffing.finish(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(content: &[u8], pieces: usize) -> Vec<u8> {
        let (mut outgoing, mut out) = (Outgoing::default(), Vec::new());
        for piece in content.chunks(pieces) {
            outgoing.piece(piece, &mut out).expect("lines end well");
        }
        outgoing.finish(&mut out).expect("lines end well");
        out
    }

    #[test]
    fn the_return_path_at_the_head_stays_here_and_nothing_else() {
        for (content, goes) in [
            ("Return-Path: <a@b.example>\r\nReceived: x\r\n\r\ntext\r\n", "Received: x\r\n\r\ntext\r\n.\r\n"),
            ("RETURN-PATH:\r\n <a@b.example>\r\n\t\r\nSubject: x\r\n\r\n", "Subject: x\r\n\r\n.\r\n"),
            ("Return-Path: <>\r\n\r\n.dot\r\n", "\r\n..dot\r\n.\r\n"),
            ("Return-Path: <>\r\nReturn-Path: <b>\r\n\r\n", "Return-Path: <b>\r\n\r\n.\r\n"),
            ("Received: x\r\nReturn-Path: <b>\r\n\r\n", "Received: x\r\nReturn-Path: <b>\r\n\r\n.\r\n"),
            ("Return-Path-Of: x\r\n\r\n", "Return-Path-Of: x\r\n\r\n.\r\n"),
            ("Ret", "Ret\r\n.\r\n"),
            (".", "..\r\n.\r\n"),
            ("", ".\r\n"),
        ] {
            for pieces in 1..=content.len().max(1) {
                let sent = sent(content.as_bytes(), pieces);
                assert_eq!(String::from_utf8_lossy(&sent), goes, "{content:?} in pieces of {pieces}");
            }
        }
        for (content, goes) in [
            ("Return-Path: <a>\r\nSubject: x\r\n\r\n", "Signed: x\r\nSubject: x\r\n\r\n.\r\n"),
            ("", "Signed: x\r\n.\r\n"),
        ] {
            let (mut outgoing, mut out) = (Outgoing::behind(b"Signed: x\r\n".to_vec()), Vec::new());
            content.as_bytes().chunks(1).try_for_each(|piece| outgoing.piece(piece, &mut out)).expect("fits");
            outgoing.finish(&mut out).expect("lines end well");
            assert_eq!(String::from_utf8_lossy(&out), goes, "also behind a field of ours");
        }
        let (mut outgoing, mut out) = (Outgoing::counted(b"Signed: x\r\n".to_vec()), Vec::new());
        outgoing.piece(b"Return-Path: <a>\r\n.dot\r\n.", &mut out).expect("fits");
        outgoing.finish(&mut out).expect("lines end well");
        assert_eq!(
            String::from_utf8_lossy(&out),
            "Signed: x\r\n.dot\r\n.\r\n",
            "and where its length is told"
        );
        let mut outgoing = Outgoing::default();
        assert_eq!(outgoing.piece(b"Re\nt", &mut Vec::new()), Err(LineError::Bare));
    }
}
