//! What SMTP and POP3 share on the wire: lines that end in CRLF, and dot-stuffed content.
//!
//! A line ends in CRLF and in nothing else. A bare CR, a bare LF or a NUL is an error, never a guess:
//! two programs that guess differently about where a message ends are what SMTP smuggling lives on.
//! [`Input`] reads lines so, [`DotStuffing`] writes content so (RFC 5321 §2.3.8 and §4.5.2,
//! RFC 1939 §3), and what one writes the other side reads back byte for byte.

use memchr::{memchr, memchr2, memchr3};

/// Input that does not end its lines as the protocol says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// A bare CR, a bare LF or a NUL.
    #[error("lines end in CRLF, and hold no other CR, LF or NUL")]
    Bare,
    /// The line is longer than the reader allows.
    #[error("the line is too long")]
    TooLong,
}

/// Bytes that have arrived and are not yet read.
///
/// It holds at most one piece from the network and one unfinished line, if its owner reads lines
/// until there is none before it pushes again.
#[derive(Debug, Default)]
pub struct Input {
    bytes: Vec<u8>,
    /// Everything before is read.
    start: usize,
    /// How many unread bytes are known to hold no LF.
    scanned: usize,
}

impl Input {
    /// Appends what arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.start);
        self.start = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// What has not been read.
    pub fn unread(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// Whether everything has been read.
    pub fn is_empty(&self) -> bool {
        self.unread().is_empty()
    }

    /// Counts the first `length` unread bytes as read.
    pub fn consume(&mut self, length: usize) {
        self.start = self.bytes.len().min(self.start.saturating_add(length));
        self.scanned = 0;
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// The next line, without its CRLF; `None` until it is complete.
    ///
    /// # Errors
    /// When the line breaks the rules or is longer than `bytes_max` without its CRLF. The input is
    /// then of no further use: nobody knows where the next line begins.
    pub fn line(&mut self, bytes_max: usize) -> Result<Option<Vec<u8>>, LineError> {
        let unread = self.bytes.get(self.start..).unwrap_or_default();
        let Some(found) = memchr(b'\n', unread.get(self.scanned..).unwrap_or_default()) else {
            self.scanned = unread.len();
            // The CR of an unfinished line may be here already.
            return if unread.len() > bytes_max + 1 { Err(LineError::TooLong) } else { Ok(None) };
        };
        let end = self.scanned + found;
        let line = unread.get(..end).unwrap_or_default();
        if line.len() > bytes_max + 1 {
            return Err(LineError::TooLong);
        }
        let line = line.strip_suffix(b"\r").ok_or(LineError::Bare)?;
        if memchr2(b'\r', 0, line).is_some() {
            return Err(LineError::Bare);
        }
        let line = line.to_vec();
        self.consume(end + 1);
        Ok(Some(line))
    }
}

/// Writes one message's content with its dots doubled, and ends it with a dot; or as it is, where its end is told otherwise.
///
/// Content comes in pieces of any size, cut anywhere.
#[derive(Debug)]
pub struct DotStuffing {
    at: Place,
    is_off: bool,
}

/// Where in a line the next byte falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Start,
    Text,
    AfterCr,
}

impl Default for DotStuffing {
    fn default() -> Self {
        Self::new()
    }
}

impl DotStuffing {
    /// Before the first byte of a message.
    pub fn new() -> Self {
        Self { at: Place::Start, is_off: false }
    }

    /// The same for content whose length is told (BDAT, RFC 3030): no dot is added. Its lines are held to the same rules, for its
    /// host may pass it on behind DATA.
    pub fn off() -> Self {
        Self { is_off: true, ..Self::new() }
    }

    /// Appends the next piece of content to `out`.
    ///
    /// # Errors
    /// [`LineError::Bare`] when the content holds a bare CR, a bare LF or a NUL. The receiver must
    /// then not be sent the closing dot.
    pub fn piece(&mut self, content: &[u8], out: &mut Vec<u8>) -> Result<(), LineError> {
        out.reserve(content.len() + content.len() / 64);
        let mut rest = content;
        while let Some(first) = rest.first() {
            match (self.at, first) {
                (Place::AfterCr, b'\n') => {
                    out.push(b'\n');
                    self.at = Place::Start;
                    rest = rest.get(1..).unwrap_or_default();
                }
                (Place::AfterCr, _) => return Err(LineError::Bare),
                (Place::Start, b'.') if !self.is_off => {
                    out.push(b'.');
                    self.at = Place::Text;
                }
                (Place::Start | Place::Text, _) => rest = self.text(rest, out)?,
            }
        }
        Ok(())
    }

    /// Copies up to and with the next CR; returns what follows it.
    fn text<'a>(&mut self, content: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], LineError> {
        let length = match memchr3(b'\r', b'\n', 0, content) {
            None => {
                self.at = Place::Text;
                content.len()
            }
            Some(cr) if content.get(cr) == Some(&b'\r') => {
                self.at = Place::AfterCr;
                cr + 1
            }
            Some(_) => return Err(LineError::Bare),
        };
        let (text, rest) = content.split_at(length);
        out.extend_from_slice(text);
        Ok(rest)
    }

    /// Appends what ends the message: the CRLF that its last line may lack, and the dot.
    ///
    /// # Errors
    /// [`LineError::Bare`] when the content's last byte is a CR.
    pub fn finish(self, out: &mut Vec<u8>) -> Result<(), LineError> {
        match self.at {
            Place::Start => {}
            Place::Text => out.extend_from_slice(b"\r\n"),
            Place::AfterCr => return Err(LineError::Bare),
        }
        if !self.is_off {
            out.extend_from_slice(b".\r\n");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8], bytes_max: usize) -> Result<Vec<Vec<u8>>, LineError> {
        let mut input = Input::default();
        input.push(bytes);
        let mut lines = Vec::new();
        while let Some(line) = input.line(bytes_max)? {
            lines.push(line);
        }
        Ok(lines)
    }

    #[test]
    fn lines_end_in_crlf_only() {
        assert_eq!(lines(b"NOOP\r\n\r\nQU", 10), Ok(vec![b"NOOP".to_vec(), vec![]]));
        for bad in [&b"NOOP\n"[..], b"NO\rOP\r\n", b"NOOP\r\r\n", b"NO\0OP\r\n", b"\n", b"A\r\nB\nC\r\n"] {
            assert_eq!(lines(bad, 10), Err(LineError::Bare), "{bad:?}");
        }
    }

    #[test]
    fn a_line_is_cut_off_at_its_limit_whether_it_has_ended_or_not() {
        let line = |length: usize, end: &str| [&b"x".repeat(length)[..], end.as_bytes()].concat();
        assert_eq!(lines(&line(9, "\r\n"), 10).map(|l| l.len()), Ok(1));
        assert_eq!(lines(&line(10, "\r\n"), 10).map(|l| l.len()), Ok(1));
        assert_eq!(lines(&line(11, "\r\n"), 10), Err(LineError::TooLong));
        assert_eq!(lines(&line(10, "\r"), 10), Ok(vec![]));
        assert_eq!(lines(&line(12, ""), 10), Err(LineError::TooLong));
    }

    #[test]
    fn a_line_may_arrive_in_any_pieces() {
        let script = b"EHLO a\r\nNOOP\r\n";
        for cut in 0..script.len() {
            let mut input = Input::default();
            let mut got = Vec::new();
            for piece in [&script[..cut], &script[cut..]] {
                input.push(piece);
                while let Some(line) = input.line(100).expect("sound lines") {
                    got.push(line);
                }
            }
            assert_eq!(got, [&b"EHLO a"[..], b"NOOP"], "cut at {cut}");
            assert!(input.is_empty());
        }
    }

    fn stuffed(pieces: &[&[u8]]) -> Result<Vec<u8>, LineError> {
        written(DotStuffing::new(), pieces)
    }

    fn written(mut stuffing: DotStuffing, pieces: &[&[u8]]) -> Result<Vec<u8>, LineError> {
        let mut out = Vec::new();
        for piece in pieces {
            stuffing.piece(piece, &mut out)?;
        }
        stuffing.finish(&mut out)?;
        Ok(out)
    }

    #[test]
    fn dots_at_the_start_of_lines_are_doubled_wherever_the_pieces_end() {
        let content = b".\r\n..\r\na.b\r\n\r\n.\r\n\r\n\r\n.end\r\n";
        let expected = b"..\r\n...\r\na.b\r\n\r\n..\r\n\r\n\r\n..end\r\n.\r\n";
        for first in 0..=content.len() {
            for second in first..=content.len() {
                let pieces = [&content[..first], &content[first..second], &content[second..]];
                assert_eq!(stuffed(&pieces).as_deref(), Ok(&expected[..]), "cut at {first} and {second}");
            }
        }
    }

    #[test]
    fn the_end_is_written_once_and_on_a_line_of_its_own() {
        assert_eq!(stuffed(&[]).as_deref(), Ok(&b".\r\n"[..]));
        assert_eq!(stuffed(&[b"a\r\n"]).as_deref(), Ok(&b"a\r\n.\r\n"[..]));
        assert_eq!(stuffed(&[b"a"]).as_deref(), Ok(&b"a\r\n.\r\n"[..]));
        assert_eq!(stuffed(&[b"a", b"."]).as_deref(), Ok(&b"a.\r\n.\r\n"[..]));
    }

    #[test]
    fn where_the_length_is_told_no_dot_is_added() {
        for (content, expected) in
            [("", ""), (".\r\n", ".\r\n"), ("..a\r\n.", "..a\r\n.\r\n"), ("a\r\n.\r\n", "a\r\n.\r\n")]
        {
            let pieces: Vec<_> = content.as_bytes().chunks(1).collect();
            assert_eq!(written(DotStuffing::off(), &pieces).as_deref(), Ok(expected.as_bytes()));
        }
    }

    #[test]
    fn content_that_could_smuggle_is_not_written() {
        for bad in [&b"a\nb\r\n"[..], b"a\rb\r\n", b"a\0b\r\n", b"a\r\r\n", b"a\r", b"\n.\n", b"\r.\r"] {
            let (first, second) = bad.split_at(1);
            for stuffing in [DotStuffing::new, DotStuffing::off] {
                assert_eq!(written(stuffing(), &[bad]), Err(LineError::Bare), "{bad:?}");
                assert_eq!(written(stuffing(), &[first, second]), Err(LineError::Bare), "{bad:?}");
            }
        }
    }
}
