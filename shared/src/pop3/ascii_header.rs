//! A header for a client that has not said UTF8: what is not ASCII in it as encoded-words (RFC 2047).
//!
//! RFC 6856 §5 leaves two ways with such a message: refuse it, or send another one in its place. A client
//! that is refused a RETR mostly gives up the whole maildrop, and hardly any says UTF8, so a stranger could
//! shut a traveller out by one letter. The words stay readable; an address that needs UTF-8 becomes a name
//! without an address, for which such a client could not send anyway. The message keeps its size in LIST,
//! which is the octets that UTF8 gets.

use std::borrow::Cow;

use memchr::memchr;

/// Octets of a line that are held back until it ends; what is longer is written in parts.
const LINE_BYTES_MAX: usize = 16 * 1024;
/// Octets of an encoded-word (RFC 2047 §2).
const WORD_BYTES_MAX: usize = 75;
const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// Rewrites a message's header in pieces of any size.
#[derive(Debug)]
pub(super) struct AsciiHeader {
    in_header: bool,
    line: Vec<u8>,
    /// What is held back goes on with a line of which some was written.
    within_line: bool,
    /// The last word that was written is an encoded one.
    encoded: bool,
}

impl AsciiHeader {
    pub(super) fn new() -> Self {
        Self { in_header: true, line: Vec::new(), within_line: false, encoded: false }
    }

    /// What to send for the next piece; what is held back of it comes with a later one.
    pub(super) fn piece<'a>(&mut self, piece: &'a [u8]) -> Cow<'a, [u8]> {
        if !self.in_header {
            return Cow::Borrowed(piece);
        }
        let (mut out, mut rest) = (Vec::with_capacity(piece.len()), piece);
        while self.in_header {
            let Some(end) = memchr(b'\n', rest) else {
                self.line.extend_from_slice(rest);
                if self.line.len() > LINE_BYTES_MAX {
                    self.write(&mut out);
                    self.within_line = true;
                }
                return Cow::Owned(out);
            };
            let (line, after) = rest.split_at(end + 1);
            self.line.extend_from_slice(line);
            self.in_header = self.within_line || self.line != b"\r\n";
            self.write(&mut out);
            self.within_line = false;
            rest = after;
        }
        out.extend_from_slice(rest);
        Cow::Owned(out)
    }

    /// What is still held back when the message ends within its header.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    /// Writes what is held back.
    fn write(&mut self, out: &mut Vec<u8>) {
        let line = std::mem::take(&mut self.line);
        if line.is_ascii() {
            self.encoded = false;
            return out.extend_from_slice(&line);
        }
        let text = line.strip_suffix(b"\r\n").unwrap_or(&line);
        let mut rest = text;
        let goes_on = self.within_line || text.first().is_some_and(is_space);
        if !goes_on {
            self.encoded = false;
            // A field's name cannot be encoded.
            let name = memchr(b':', text).map_or(text.len(), |colon| colon + 1);
            let (name, value) = text.split_at(name);
            out.extend(name.iter().map(|octet| if octet.is_ascii() { *octet } else { b'?' }));
            rest = value;
        }
        let mut at_start = goes_on;
        while !rest.is_empty() {
            let space = rest.iter().take_while(|octet| is_space(octet)).count();
            let word = rest.iter().skip(space).take_while(|octet| !is_space(octet)).count();
            let (taken, after) = rest.split_at(space + word);
            self.word(taken, space, at_start, out);
            (rest, at_start) = (after, false);
        }
        out.extend_from_slice(line.get(text.len()..).unwrap_or_default());
    }

    /// Writes a word and the `space` octets before it.
    fn word(&mut self, taken: &[u8], space: usize, at_start: bool, out: &mut Vec<u8>) {
        if taken.is_ascii() {
            self.encoded &= taken.len() == space;
            return out.extend_from_slice(taken);
        }
        let (before, word) = taken.split_at(space);
        // The space between two encoded-words is none (RFC 2047 §6.2): it goes into the second.
        let text = if self.encoded { taken } else { word };
        let mut separator: &[u8] = match (self.encoded, at_start) {
            (true, false) => b"\r\n ",
            _ if before.is_empty() || self.encoded => b" ",
            _ => before,
        };
        for encoded in encoded_words(text) {
            out.extend_from_slice(separator);
            out.extend_from_slice(&encoded);
            separator = b"\r\n ";
        }
        self.encoded = true;
    }
}

fn is_space(octet: &u8) -> bool {
    matches!(octet, b' ' | b'\t')
}

/// The text in encoded-words, no character cut in two.
fn encoded_words(text: &[u8]) -> Vec<Vec<u8>> {
    let (start, characters): (&[u8], Vec<&[u8]>) = match std::str::from_utf8(text) {
        Ok(text) => (b"=?utf-8?Q?", text.split_inclusive(|_: char| true).map(str::as_bytes).collect()),
        // Nobody knows in what it was written.
        Err(_) => (b"=?unknown-8bit?Q?", text.chunks(1).collect()),
    };
    let mut words = vec![start.to_vec()];
    for character in characters {
        let mut encoded = Vec::new();
        character.iter().for_each(|octet| quote(*octet, &mut encoded));
        let full = |word: &Vec<u8>| word.len() + encoded.len() + b"?=".len() > WORD_BYTES_MAX;
        if words.last().is_none_or(full) {
            words.push(start.to_vec());
        }
        words.last_mut().into_iter().for_each(|word| word.extend_from_slice(&encoded));
    }
    words.iter_mut().for_each(|word| word.extend_from_slice(b"?="));
    words
}

/// Q as it is in every place (RFC 2047 §5 (3)).
fn quote(octet: u8, out: &mut Vec<u8>) {
    match octet {
        b' ' => out.push(b'_'),
        _ if octet.is_ascii_alphanumeric() => out.push(octet),
        _ => out.extend([b'=', HEX[usize::from(octet >> 4)], HEX[usize::from(octet & 15)]]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ascii(message: &[u8], cut: usize) -> String {
        let mut header = AsciiHeader::new();
        let (first, second) = message.split_at(cut);
        let mut out = header.piece(first).into_owned();
        out.extend_from_slice(&header.piece(second));
        out.extend(header.finish());
        String::from_utf8(out).expect("the tests' bodies are UTF-8")
    }

    #[test]
    fn words_that_need_it_are_encoded_and_nothing_else_changes() {
        let cases: [(&[u8], &str); 10] = [
            (b"Subject: plain\r\n\r\nbody\r\n", "Subject: plain\r\n\r\nbody\r\n"),
            (
                "Subject: Gr\u{fc}\u{df}e an alle\r\n\r\n\u{fc}\r\n".as_bytes(),
                "Subject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?= an alle\r\n\r\n\u{fc}\r\n",
            ),
            // The space between two encoded-words would be lost.
            (
                "Subject: \u{e4} \u{e4} b\r\n\r\n".as_bytes(),
                "Subject: =?utf-8?Q?=C3=A4?=\r\n =?utf-8?Q?_=C3=A4?= b\r\n\r\n",
            ),
            (
                "Subject: \u{e4}\r\n \u{e4}\r\n\r\n".as_bytes(),
                "Subject: =?utf-8?Q?=C3=A4?=\r\n =?utf-8?Q?_=C3=A4?=\r\n\r\n",
            ),
            ("Subject:\u{e4}\r\n\r\n".as_bytes(), "Subject: =?utf-8?Q?=C3=A4?=\r\n\r\n"),
            (
                "From: \"J\u{fc}rgen\" <j@x.example>\r\n\r\n".as_bytes(),
                "From: =?utf-8?Q?=22J=C3=BCrgen=22?= <j@x.example>\r\n\r\n",
            ),
            (
                "From: <j\u{fc}@x.example>\r\n\r\n".as_bytes(),
                "From: =?utf-8?Q?=3Cj=C3=BC=40x=2Eexample=3E?=\r\n\r\n",
            ),
            (b"Subject: caf\xe9\r\n\r\n", "Subject: =?unknown-8bit?Q?caf=E9?=\r\n\r\n"),
            ("S\u{fc}bject: x\r\n\r\n".as_bytes(), "S??bject: x\r\n\r\n"),
            ("Subject: \u{fc}".as_bytes(), "Subject: =?utf-8?Q?=C3=BC?="),
        ];
        for (message, expected) in cases {
            for cut in 0..=message.len() {
                assert_eq!(ascii(message, cut), expected, "{message:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn no_encoded_word_is_too_long_and_no_character_is_cut() {
        let message = format!("Subject: {}\r\n\r\n", "\u{20ac}".repeat(100));
        let found = ascii(message.as_bytes(), 0);
        let lines: Vec<_> = found.trim_end().split("\r\n").collect();
        assert!(lines.len() > 10 && lines.iter().all(|line| line.len() <= 9 + WORD_BYTES_MAX), "{found}");
        assert_eq!(found.matches("=E2=82=AC").count(), 100);
    }

    #[test]
    fn a_line_without_end_is_not_kept() {
        let mut header = AsciiHeader::new();
        let long = [b"Subject: ".as_slice(), &b"x".repeat(LINE_BYTES_MAX)].concat();
        assert_eq!(&*header.piece(&long), long);
        assert!(header.line.is_empty());
        assert_eq!(&*header.piece("\u{fc}\r\n\r\n".as_bytes()), b" =?utf-8?Q?=C3=BC?=\r\n\r\n");
        assert!(!header.in_header);
    }
}
