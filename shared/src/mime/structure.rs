//! The parts of a message, found in one pass over its lines (RFC 2045, RFC 2046 §5.1).
//!
//! The pass holds a stack of open multiparts, at most [`DEPTH_MAX`] high, and compares each line that
//! begins with two hyphens with their boundaries. An attached message is one part: it is opened by
//! scanning it, if somebody asks for it. Whatever the message, the cost is linear in its octets, and
//! over a limit it is given up: [`TooComplex`].

use std::ops::Range;

use super::header::{self, HEADER_BLOCK_MAX, HEADERS_MAX};
use super::parameters::Parameterised;

/// Multiparts within multiparts.
pub const DEPTH_MAX: usize = 64;
/// Parts of a message, the containers counted.
pub const PARTS_MAX: usize = 10_000;
/// Octets of a boundary; RFC 2046 §5.1.1 allows 70.
const BOUNDARY_MAX: usize = 998;
/// Octets of a media type; RFC 6838 §4.2 allows twice 127.
const MEDIA_TYPE_MAX: usize = 255;

/// Why a message is not shown in parts but raw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooComplex {
    /// More than [`DEPTH_MAX`] multiparts within each other.
    #[error("too complex to be shown in parts: multiparts {DEPTH_MAX} deep and more")]
    Depth,
    /// More than [`PARTS_MAX`] parts.
    #[error("too complex to be shown in parts: it has more than {PARTS_MAX}")]
    Parts,
    /// More than 1,000 parameters in one field.
    #[error("too complex to be shown in parts: a field has too many parameters")]
    Parameters,
    /// A header block of more than [`HEADER_BLOCK_MAX`] octets or [`HEADERS_MAX`] fields.
    #[error("too complex to be shown in parts: a header is too long")]
    Header,
}

/// How a part says it is to be shown (RFC 2183).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Disposition {
    /// It does not say.
    #[default]
    Unsaid,
    /// With the text around it.
    Inline,
    /// On request.
    Attachment,
}

/// How a part's octets are written (RFC 2045 §6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// As they are: 7bit, 8bit, binary, and what nobody knows.
    #[default]
    Identity,
    /// Quoted-printable.
    QuotedPrintable,
    /// Base64.
    Base64,
    /// Uuencode, which MIME replaced and old programs still write.
    Uuencode,
}

/// One part: the whole message, a container, or a leaf with content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// The container it is in; an index into the parts.
    pub parent: Option<usize>,
    /// Containers around it.
    pub depth: usize,
    /// Where its header block is, the empty line included.
    pub header: Range<usize>,
    /// Where its content is, encoded.
    pub body: Range<usize>,
    /// Whether it is a multipart with parts in it.
    pub container: bool,
    /// Its media type, in lower case: `text/plain` when it does not say.
    pub content_type: String,
    /// The charset it says its text is in.
    pub charset: Option<String>,
    /// Its file name, decoded. Others chose it: it is data, never a path.
    pub name: Option<String>,
    /// Its Content-ID, without angle brackets.
    pub content_id: Option<String>,
    /// How it is to be shown.
    pub disposition: Disposition,
    /// How it is written.
    pub encoding: Encoding,
}

/// The parts of a message, each before those it contains; the first is the message itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Structure {
    /// Never empty.
    pub parts: Vec<Part>,
    /// Whether the first is a package that was opened, and is to be taken apart.
    pub(super) unpacked: bool,
}

/// Finds the parts of a message.
pub fn scan(message: &[u8]) -> Result<Structure, TooComplex> {
    Ok(Structure { parts: parts_of(message)?, unpacked: false })
}

/// Finds the parts of a package (see [`super::Kind`]), to look into it.
pub(super) fn unpack(package: &[u8]) -> Result<Structure, TooComplex> {
    Ok(Structure { parts: parts_of(package)?, unpacked: true })
}

fn parts_of(message: &[u8]) -> Result<Vec<Part>, TooComplex> {
    let mut scanner = Scanner {
        message,
        parts: Vec::new(),
        open: Vec::new(),
        closed: Vec::new(),
        current: Current::Nothing,
    };
    scanner.begin_part(0)?;
    let mut at = 0;
    while let Some(line) = header::line_at(message, at) {
        scanner.line(at, line)?;
        at += line.len();
    }
    scanner.end_part(at)?;
    scanner.close_to(0, at);
    scanner.end_closed(at);
    Ok(scanner.parts)
}

struct Scanner<'a> {
    message: &'a [u8],
    parts: Vec<Part>,
    open: Vec<Multipart>,
    /// Multiparts whose last boundary has come: what follows is theirs, up to a boundary around them.
    closed: Vec<usize>,
    current: Current,
}

/// A multipart whose end has not come.
struct Multipart {
    part: usize,
    boundary: Vec<u8>,
}

/// What the lines now belong to.
enum Current {
    /// The header of a part that begins at `start`.
    Header { part: usize, start: usize },
    /// The body of a leaf.
    Body { part: usize },
    /// The text before the first and after the last part of a multipart.
    Nothing,
}

/// What a delimiter (RFC 2046 §5.1.1) says of the parts of its multipart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Boundary {
    /// Another one begins.
    Next,
    /// There are no more.
    Last,
}

/// Which of the `boundaries` of open multiparts, outermost first, a line is a delimiter of; the innermost counts.
pub(super) fn delimiter<'a>(
    line: &[u8],
    boundaries: impl DoubleEndedIterator<Item = &'a [u8]> + ExactSizeIterator,
) -> Option<(usize, Boundary)> {
    let said = line.strip_prefix(b"--")?.trim_ascii_end();
    boundaries.enumerate().rev().find_map(|(level, boundary)| match said.strip_prefix(boundary)? {
        b"" => Some((level, Boundary::Next)),
        b"--" => Some((level, Boundary::Last)),
        _ => None,
    })
}

impl Scanner<'_> {
    fn line(&mut self, at: usize, line: &[u8]) -> Result<(), TooComplex> {
        if let Current::Header { part, start } = self.current
            && self.is_body(at, line)
        {
            self.end_header(part, start..at)?;
        }
        if let Some((level, boundary)) = self.boundary(line) {
            self.end_part(at)?;
            self.end_closed(at);
            // Inner multiparts end with the outer, said or not.
            self.close_to(level + 1, at);
            return match boundary {
                Boundary::Next => self.begin_part(at + line.len()),
                Boundary::Last => {
                    self.closed.extend(self.open.pop().map(|multipart| multipart.part));
                    Ok(())
                }
            };
        }
        match self.current {
            Current::Header { part, start } if matches!(line, b"\r\n" | b"\n") => {
                self.end_header(part, start..at + line.len())
            }
            Current::Header { start, .. } if at - start > HEADER_BLOCK_MAX => Err(TooComplex::Header),
            _ => Ok(()),
        }
    }

    /// Whether the line cannot be in a header, whose empty line must have been forgotten. One line that
    /// is no field among those that are is passed over.
    fn is_body(&self, at: usize, line: &[u8]) -> bool {
        let is_header =
            |line: &[u8]| matches!(line, [b' ' | b'\t', ..] | b"\r\n" | b"\n") || header::is_field(line);
        if is_header(line) || self.boundary(line).is_some() {
            return false;
        }
        line.starts_with(b"--") || !header::line_at(self.message, at + line.len()).is_some_and(is_header)
    }

    /// Which open multipart the line is a boundary of; the innermost counts.
    fn boundary(&self, line: &[u8]) -> Option<(usize, Boundary)> {
        delimiter(line, self.open.iter().map(|multipart| multipart.boundary.as_slice()))
    }

    fn begin_part(&mut self, start: usize) -> Result<(), TooComplex> {
        if self.parts.len() == PARTS_MAX {
            return Err(TooComplex::Parts);
        }
        let depth = self.open.len();
        if depth > DEPTH_MAX {
            return Err(TooComplex::Depth);
        }
        let part = self.parts.len();
        let parent = self.open.last().map(|multipart| multipart.part);
        if let Some(parent) = parent.and_then(|parent| self.parts.get_mut(parent)) {
            parent.container = true;
        }
        self.parts.push(Part { parent, depth, header: start..start, body: start..start, ..Part::default() });
        self.current = Current::Header { part, start };
        Ok(())
    }

    /// The part being read ends before `at`, and the line end before that is the boundary's.
    fn end_part(&mut self, at: usize) -> Result<(), TooComplex> {
        match self.current {
            Current::Header { part, start } => {
                self.end_header(part, start..at)?;
                if let Current::Nothing = self.current {
                    // A multipart without even an empty line: nothing can be in it.
                    self.open.pop();
                }
            }
            Current::Body { part } => self.end_body(part, at),
            Current::Nothing => {}
        }
        self.current = Current::Nothing;
        Ok(())
    }

    fn end_body(&mut self, part: usize, at: usize) {
        let Some(part) = self.parts.get_mut(part) else { return };
        let body = self.message.get(part.body.start..at).unwrap_or_default();
        let trimmed = match at == self.message.len() {
            true => body,
            false => body.strip_suffix(b"\n").map_or(body, |body| body.strip_suffix(b"\r").unwrap_or(body)),
        };
        part.body.end = part.body.start + trimmed.len();
    }

    fn end_closed(&mut self, at: usize) {
        for part in std::mem::take(&mut self.closed) {
            self.end_body(part, at);
        }
    }

    fn close_to(&mut self, height: usize, at: usize) {
        while self.open.len() > height {
            if let Some(multipart) = self.open.pop() {
                self.end_body(multipart.part, at);
            }
        }
    }

    fn end_header(&mut self, part: usize, header: Range<usize>) -> Result<(), TooComplex> {
        let block = self.message.get(header.clone()).unwrap_or_default();
        if block.len() > HEADER_BLOCK_MAX || header::raw_fields(block).nth(HEADERS_MAX).is_some() {
            return Err(TooComplex::Header);
        }
        let in_digest = self.open.last().and_then(|multipart| self.parts.get(multipart.part));
        let default = match in_digest.is_some_and(|parent| parent.content_type == "multipart/digest") {
            true => "message/rfc822",
            false => "text/plain",
        };
        let Some(part_read) = self.parts.get_mut(part) else { return Ok(()) };
        part_read.body = header.end..header.end;
        part_read.header = header;
        let boundary = part_read.describe(block, default)?;
        match boundary {
            Some(boundary) => {
                self.open.push(Multipart { part, boundary: boundary.into_bytes() });
                self.current = Current::Nothing;
            }
            None => self.current = Current::Body { part },
        }
        Ok(())
    }
}

impl Part {
    /// Takes what the header says; of a field that comes twice the first counts. Gives the boundary
    /// of a multipart.
    fn describe(&mut self, block: &[u8], default: &str) -> Result<Option<String>, TooComplex> {
        let parameterised = |name: &str| match header::find(block, name) {
            Some(field) => Parameterised::parse(&field.unfolded()),
            None => Ok(Parameterised::default()),
        };
        let content_type = parameterised("Content-Type")?;
        let disposition = parameterised("Content-Disposition")?;
        let encoding = parameterised("Content-Transfer-Encoding")?;
        let valid = is_media_type(&content_type.value);
        self.content_type = if valid { content_type.value.clone() } else { default.to_owned() };
        self.charset = content_type.get("charset").map(str::to_owned);
        self.name = disposition.file_name("filename").or_else(|| content_type.file_name("name"));
        self.content_id = header::find(block, "Content-ID")
            .map(|field| field.unfolded().trim_matches(['<', '>', ' ']).to_owned())
            .filter(|id| !id.is_empty());
        self.disposition = match disposition.value.as_str() {
            "" => Disposition::Unsaid,
            "inline" => Disposition::Inline,
            // RFC 2183 §2.8: what is not known is an attachment.
            _ => Disposition::Attachment,
        };
        self.encoding = match encoding.value.as_str() {
            "base64" => Encoding::Base64,
            "quoted-printable" => Encoding::QuotedPrintable,
            "x-uuencode" | "uuencode" | "x-uue" | "uue" => Encoding::Uuencode,
            _ => Encoding::Identity,
        };
        let boundary = content_type.get("boundary").map(str::trim_end).map(str::to_owned);
        let usable = |boundary: &String| !boundary.is_empty() && boundary.len() <= BOUNDARY_MAX;
        Ok(boundary.filter(usable).filter(|_| self.content_type.starts_with("multipart/")))
    }
}

/// Whether this is a media type: two tokens of RFC 2045 §5.1 and a slash.
pub(super) fn is_media_type(text: &str) -> bool {
    text.split_once('/').is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype))
}

fn is_token(text: &str) -> bool {
    let is_special = |b: u8| b"()<>@,;:\\\"/[]?=".contains(&b);
    (1..=MEDIA_TYPE_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && !is_special(b))
}
