//! The header block: where it ends, the fields in it, their text (RFC 5322 §2.2).

use memchr::{memchr, memmem};

use super::decode;

/// Octets of a header block that are read; RFC 5322 sets no limit.
pub const HEADER_BLOCK_MAX: usize = 256 << 10;
/// Fields of a header block that are read.
pub const HEADERS_MAX: usize = 1_000;

/// One header field, as it stands in the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name, as written; printable ASCII.
    pub name: &'a str,
    /// What follows the colon, folded and encoded as it is, without the last line's end.
    pub raw: &'a [u8],
}

impl Field<'_> {
    /// Whether this is the field called `name`, in whatever case.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// The value on one line, its charset guessed where it is not UTF-8; encoded words stay.
    pub fn unfolded(&self) -> String {
        let text = decode::text_or_latin(self.raw);
        let unfolded: String = text.chars().filter(|c| !matches!(c, '\r' | '\n' | '\0')).collect();
        unfolded.trim().to_owned()
    }

    /// The value on one line, encoded words decoded (RFC 2047).
    pub fn text(&self) -> String {
        decode::encoded_words(&self.unfolded())
    }
}

/// How many octets of `message` are its header block, the empty line that ends it included.
pub fn header_len(message: &[u8]) -> usize {
    let mut at = 0;
    while let Some(line) = line_at(message, at) {
        at += line.len();
        if matches!(line, b"\r\n" | b"\n") {
            break;
        }
    }
    at
}

/// The fields of a header block, in order; lines that belong to none are passed over.
///
/// Reads [`HEADERS_MAX`] fields of the first [`HEADER_BLOCK_MAX`] octets.
pub fn fields(block: &[u8]) -> impl Iterator<Item = Field<'_>> {
    let block = block.get(..HEADER_BLOCK_MAX).unwrap_or(block);
    raw_fields(block).filter_map(field).take(HEADERS_MAX)
}

/// The first field called `name`, in whatever case.
pub fn find<'a>(block: &'a [u8], name: &str) -> Option<Field<'a>> {
    fields(block).find(|field| field.is(name))
}

/// A header block without the fields that `goes` names; all else is as it was, octet by octet. One goes also from behind
/// lines that are no field and that it seems to continue, with those lines: who passes them over reads it.
pub fn without(block: &[u8], goes: impl Fn(&Field<'_>) -> bool) -> Vec<u8> {
    let (mut kept, mut read) = (Vec::with_capacity(block.len()), 0);
    for lines in raw_fields(block) {
        read += lines.len();
        if !hidden(lines).is_some_and(|field| goes(&field)) {
            kept.extend_from_slice(lines);
        }
    }
    kept.extend_from_slice(block.get(read..).unwrap_or_default());
    kept
}

/// The field in lines that belong together, behind those of them that are no field. Looks at an octet a few times at most,
/// however many lines there are.
fn hidden(lines: &[u8]) -> Option<Field<'_>> {
    let mut rest = lines.trim_ascii_start();
    while let Some(first) = line_at(rest, 0) {
        let name = rest.iter().take_while(|octet| octet.is_ascii_graphic() && **octet != b':').count();
        let behind = rest.get(name..).unwrap_or_default().trim_ascii_start();
        if name > 0 && behind.starts_with(b":") {
            return field(rest);
        }
        rest = rest.get(first.len()..).unwrap_or_default().trim_ascii_start();
    }
    None
}

/// Each line with the lines that continue it, up to an empty line; without limits.
pub(super) fn raw_fields(block: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at;
        let first = line_at(block, at).filter(|line| !matches!(*line, b"\r\n" | b"\n"))?;
        at += first.len();
        while let Some(line) = line_at(block, at).filter(|line| matches!(line, [b' ' | b'\t', ..])) {
            at += line.len();
        }
        block.get(start..at)
    })
}

/// Whether every line of a header block belongs to a field.
pub fn has_fields_alone(block: &[u8]) -> bool {
    raw_fields(block).all(is_field)
}

/// Whether a line is the beginning of a field.
pub(super) fn is_field(line: &[u8]) -> bool {
    field(line).is_some()
}

/// The field in lines that belong together.
pub(super) fn field(lines: &[u8]) -> Option<Field<'_>> {
    let (name, raw) = lines.split_at_checked(memchr(b':', lines)?)?;
    let name = str::from_utf8(name.trim_ascii_end()).ok()?;
    let raw = raw.get(1..)?;
    let raw = raw.strip_suffix(b"\n").unwrap_or(raw);
    let raw = raw.strip_suffix(b"\r").unwrap_or(raw);
    (!name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic())).then_some(Field { name, raw })
}

/// The line that begins at `at`, with its end.
pub(super) fn line_at(text: &[u8], at: usize) -> Option<&[u8]> {
    let rest = text.get(at..).filter(|rest| !rest.is_empty())?;
    let end = memchr(b'\n', rest).map_or(rest.len(), |newline| newline + 1);
    rest.get(..end)
}

/// Keeps the header block of a message that passes by in pieces, [`HEADER_BLOCK_MAX`] octets at most.
///
/// For the accept path: once the block has ended, a piece costs a comparison.
#[derive(Debug, Default)]
pub struct HeaderScan {
    block: Vec<u8>,
    ended: bool,
    cut: bool,
}

impl HeaderScan {
    /// Takes the next octets of the message, lines ending in CRLF.
    pub fn push(&mut self, octets: &[u8]) {
        if self.ended {
            return;
        }
        let room = HEADER_BLOCK_MAX - self.block.len();
        let taken = octets.get(..room).unwrap_or(octets);
        let searched = self.block.len().saturating_sub(3);
        self.block.extend_from_slice(taken);
        let fresh = self.block.get(searched..).unwrap_or_default();
        if self.block.starts_with(b"\r\n") {
            self.block.truncate(2);
            self.ended = true;
        } else if let Some(end) = memmem::find(fresh, b"\r\n\r\n") {
            self.block.truncate(searched + end + 4);
            self.ended = true;
        } else if self.block.len() == HEADER_BLOCK_MAX {
            self.ended = true;
            self.cut = true;
        }
    }

    /// The header block as far as it was kept.
    pub fn block(&self) -> &[u8] {
        &self.block
    }

    /// Whether all of the header block that will be kept is there.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether the header block is longer than what was kept.
    pub fn is_cut(&self) -> bool {
        self.cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_goes_does_so_from_behind_lines_that_are_none() {
        let goes = |field: &Field<'_>| field.is("X-Bad");
        for block in [
            "X-Bad: 1\r\n",
            "x-bad : 1\r\n 2\r\n",
            "no colon\r\n X-Bad: 1\r\n",
            "no colon\r\n\tnor here\r\n  X-Bad: 1\r\n 2\r\n",
            "\u{e9}: a\r\n X-Bad\r\n : 1\r\n",
        ] {
            let around = |text: &str| format!("From: a\r\n{text}To: b\r\n\r\n");
            let left = without(around(block).as_bytes(), goes);
            assert_eq!(String::from_utf8_lossy(&left), around(""), "{block:?}");
        }
        let kept = "Subject: a\r\n X-Bad: 1\r\nno colon\r\nnor here\r\n too\r\nX-Good: X-Bad: 1\r\n\r\n";
        assert_eq!(without(kept.as_bytes(), goes), kept.as_bytes());
    }

    #[test]
    fn lines_that_belong_together_are_walked_through_once() {
        // Walked through to the end from each of them, these take hours.
        for white in [" \r\n", "\t\n", " a\r\n", " a \r\n", " :\r\n"] {
            let lines = 349_000;
            let hostile = format!("a b\r\n{}", white.repeat(lines));
            assert_eq!(without(hostile.as_bytes(), |_| true), hostile.as_bytes(), "{white:?}");
            let behind = format!("{hostile} X-Bad: 1\r\nTo: b\r\n");
            assert_eq!(without(behind.as_bytes(), |field| field.is("X-Bad")), b"To: b\r\n", "{white:?}");
        }
    }

    #[test]
    fn fields_are_found_folded_and_odd() {
        let block =
            b"From: a@example.com\r\nSubject : one\r\n two\r\n\tthree\r\nFr om: x\r\nno colon\r\n: empty\r\n\
                      SUBJECT: second\r\nX-Last:\r\n\r\nBody: no field\r\n";
        let found: Vec<_> = fields(block).map(|field| (field.name, field.unfolded())).collect();
        let expected =
            [("From", "a@example.com"), ("Subject", "one two\tthree"), ("SUBJECT", "second"), ("X-Last", "")];
        assert_eq!(found, expected.map(|(name, value)| (name, value.to_owned())));
        assert_eq!(find(block, "subject").map(|field| field.unfolded()), Some("one two\tthree".into()));
        assert!(block[header_len(block)..].starts_with(b"Body:"));
    }

    #[test]
    fn fields_are_taken_out_with_their_lines_and_nothing_else_changes() {
        let block = b"A: 1\r\nB : x\r\n y\r\nodd\r\nb: z\r\nC:\r\n\r\nB: body\r\n";
        let taken = without(block, |field| field.is("B"));
        assert_eq!(taken, b"A: 1\r\nodd\r\nC:\r\n\r\nB: body\r\n");
        assert_eq!(without(block, |_| false), block);
        assert_eq!(without(b"B: 1", |field| field.is("B")), b"");
    }

    #[test]
    fn a_message_may_be_all_header_or_all_body() {
        assert_eq!(header_len(b"A: b\r\nC: d"), 10);
        assert_eq!(header_len(b"\r\nbody"), 2);
        assert_eq!(header_len(b"A: b\n\nbody"), 6);
        assert_eq!(header_len(b""), 0);
    }

    #[test]
    fn what_is_over_the_limits_is_not_read() {
        let at_limit = "A: b\r\n".repeat(HEADERS_MAX);
        assert_eq!(fields(at_limit.as_bytes()).count(), HEADERS_MAX);
        assert_eq!(fields(at_limit.repeat(2).as_bytes()).count(), HEADERS_MAX);
        let late = format!("A: {}\r\nB: c\r\n", "x".repeat(HEADER_BLOCK_MAX));
        assert!(find(late.as_bytes(), "B").is_none());
    }

    fn scanned(message: &[u8], piece: usize) -> (Vec<u8>, bool) {
        let mut scan = HeaderScan::default();
        message.chunks(piece).for_each(|octets| scan.push(octets));
        (scan.block().to_vec(), scan.is_cut())
    }

    #[test]
    fn the_scan_keeps_the_block_however_it_is_cut_up() {
        for (message, block) in [
            ("A: b\r\nC: d\r\n\r\nbody\r\n\r\nmore", "A: b\r\nC: d\r\n\r\n"),
            ("\r\nbody\r\n\r\n", "\r\n"),
            ("A: b\r\n", "A: b\r\n"),
        ] {
            for piece in 1..=message.len() {
                assert_eq!(
                    scanned(message.as_bytes(), piece),
                    (block.into(), false),
                    "{message:?} by {piece}"
                );
            }
        }
    }

    #[test]
    fn the_scan_is_bounded() {
        let long = vec![b'x'; HEADER_BLOCK_MAX + 1];
        for piece in [1_000, long.len()] {
            let (block, cut) = scanned(&long, piece);
            assert_eq!((block.len(), cut), (HEADER_BLOCK_MAX, true));
        }
    }
}
