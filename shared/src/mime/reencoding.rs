//! Binary parts, written in base64 while their message passes by (RFC 3030 §3, RFC 2045 §6): what comes in octets
//! leaves in lines.
//!
//! Each part whose Content-Transfer-Encoding is `binary` becomes `base64`; what may not be encoded because it holds other
//! parts (RFC 2045 §6.4), a multipart or an attached message, is called `8bit`, and what is in it is looked at. All else
//! leaves as it came, octet by octet, and has to be lines: what is not labelled, what is signed (the first part of
//! multipart/signed, RFC 1847 §2.1), and what cannot be followed for sure, because its header has two readings or a limit
//! is reached.
//!
//! A state machine without I/O, linear in the octets, whose result does not depend on how they are cut. It keeps one
//! header, one line that may be a delimiter, and the boundaries of the multiparts that are open; never a body.

mod binary;
#[cfg(test)]
pub(super) mod tests;

use binary::Binary;
use memchr::memchr3;

use super::header::{self, Field, HEADER_BLOCK_MAX};
use super::parameters::Parameterised;
use super::structure::{self, Boundary, DEPTH_MAX, PARTS_MAX};
use super::write;

/// Octets of a boundary (RFC 2046 §5.1.1).
const BOUNDARY_MAX: usize = 70;
/// Octets of a line, its end not counted, that may be a delimiter, with blanks at its end (RFC 5322 §2.1.1).
const DELIMITER_MAX: usize = 998;
const ENCODING: &str = "Content-Transfer-Encoding";

/// Where octets stand that are no lines (a bare CR, a bare LF or a NUL) and cannot be encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotLines {
    /// In a header.
    #[error("in a header")]
    Header,
    /// In a part, or between parts, where nothing says that there may be any.
    #[error("where no Content-Transfer-Encoding says binary")]
    Unlabelled,
    /// In a message, the whole or an attached one, that does not say that it has parts.
    #[error("in a message without MIME-Version")]
    NotMime,
    /// In what is signed: it has to be 7bit (RFC 1847 §2.1), and no signature outlives an encoding.
    #[error("in what is signed, which has to be 7bit and is not changed")]
    Signed,
    /// In a multipart, or a message/ of which nobody knows the parts, that cannot be looked into.
    #[error("in a multipart or message/ that may not be encoded and cannot be looked into")]
    Composite,
    /// Behind a header of which programs make different things.
    #[error("behind a header with two readings")]
    Ambiguous,
    /// Where a limit was reached: depth, parts, parameters, or a header's length.
    #[error("in parts that are too complex to be encoded")]
    TooComplex,
}

/// Writes the binary parts of one message in base64.
#[derive(Debug)]
pub struct Reencoding {
    /// Multiparts whose end has not come, outermost first.
    open: Vec<Multipart>,
    /// Headers that have begun.
    parts: usize,
    line: Line,
    state: State,
}

/// What the octets belong to.
#[derive(Debug)]
enum State {
    /// A header, which is kept until its end says what follows.
    Header { of: Entity, block: Vec<u8> },
    /// What stays as it is; and what is said if it is no lines.
    Lines(NotLines),
    /// A part that becomes base64.
    Binary(Binary),
}

/// Whose header it is (RFC 2045 §2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entity {
    /// A message's, which says by MIME-Version that the rest counts.
    Message,
    /// A part's.
    Part,
    /// A part's in a multipart/digest: it is a message if it does not say what it is (RFC 2046 §5.1.5).
    Digested,
}

#[derive(Debug)]
struct Multipart {
    boundary: Vec<u8>,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Any,
    Digest,
    /// The next of its parts is what is signed.
    Signed,
}

impl Default for Reencoding {
    fn default() -> Self {
        Self::new()
    }
}

impl Reencoding {
    /// Before the first octet of a message.
    pub fn new() -> Self {
        let state = State::Header { of: Entity::Message, block: Vec::new() };
        Self { open: Vec::new(), parts: 1, line: Line::default(), state }
    }

    /// Takes the next octets, and appends to `out` what can leave.
    ///
    /// # Errors
    /// Where octets stand that are no lines. The message is then of no further use.
    pub fn push(&mut self, octets: &[u8], out: &mut Vec<u8>) -> Result<(), NotLines> {
        let mut rest = octets;
        while !rest.is_empty() {
            rest = match &mut self.state {
                State::Binary(_) => self.binary(rest, out),
                State::Header { .. } | State::Lines(_) => self.lines(rest, out)?,
            };
        }
        Ok(())
    }

    /// The message has ended: appends what was kept of it.
    ///
    /// # Errors
    /// If its last octet is a bare CR outside a binary part.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), NotLines> {
        if self.line.has_cr {
            return Err(self.not_lines());
        }
        match &mut self.state {
            State::Lines(_) => {}
            State::Header { block, .. } => out.append(block),
            State::Binary(binary) => {
                let is_delimiter = delimiter(binary.last_line(), &self.open).is_some();
                binary.finish(is_delimiter, out);
            }
        }
        Ok(())
    }

    fn not_lines(&self) -> NotLines {
        match &self.state {
            State::Lines(why) => *why,
            State::Header { .. } | State::Binary(_) => NotLines::Header,
        }
    }

    /// Reads up to and with the next octet that is not plain text; returns what follows it.
    fn lines<'a>(&mut self, octets: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], NotLines> {
        let length = match self.line.has_cr {
            true => 0,
            false => memchr3(b'\r', b'\n', 0, octets).unwrap_or(octets.len()),
        };
        let (text, rest) = octets.split_at(length);
        self.line.text(text);
        self.keep(text, out);
        match (rest.split_first(), self.line.has_cr) {
            (None, _) => Ok(rest),
            (Some((b'\r', rest)), false) => {
                self.keep(b"\r", out);
                self.line.has_cr = true;
                Ok(rest)
            }
            (Some((b'\n', rest)), true) => {
                self.keep(b"\n", out);
                self.end_of_line(out);
                Ok(rest)
            }
            _ => Err(self.not_lines()),
        }
    }

    /// Keeps octets of a header, and lets others leave.
    fn keep(&mut self, octets: &[u8], out: &mut Vec<u8>) {
        let State::Header { block, .. } = &mut self.state else { return out.extend_from_slice(octets) };
        block.extend_from_slice(octets);
        if block.len() > HEADER_BLOCK_MAX {
            out.append(block);
            self.state = State::Lines(NotLines::TooComplex);
        }
    }

    fn end_of_line(&mut self, out: &mut Vec<u8>) {
        let line = std::mem::take(&mut self.line);
        let found = delimiter(line.whole(), &self.open);
        match (&mut self.state, found) {
            // A part that ends before its header does has no body.
            (State::Header { block, .. }, Some(_)) => out.append(block),
            (State::Header { of, block }, None) if line.start.is_empty() => {
                let (of, block) = (*of, std::mem::take(block));
                self.end_header(of, &block, out);
            }
            _ => {}
        }
        if let Some(found) = found {
            self.delimited(found);
        }
    }

    /// A delimiter has come. Inner multiparts end with the outer, said or not.
    fn delimited(&mut self, (level, boundary): (usize, Boundary)) {
        match boundary {
            Boundary::Next => {
                self.open.truncate(level + 1);
                self.begin_part();
            }
            Boundary::Last => {
                self.open.truncate(level);
                self.state = State::Lines(NotLines::Unlabelled);
            }
        }
    }

    fn begin_part(&mut self) {
        let Some(multipart) = self.open.last_mut() else { return };
        match multipart.kind {
            Kind::Signed => {
                multipart.kind = Kind::Any;
                self.state = State::Lines(NotLines::Signed);
            }
            Kind::Digest => self.begin_header(Entity::Digested),
            Kind::Any => self.begin_header(Entity::Part),
        }
    }

    fn begin_header(&mut self, of: Entity) {
        self.parts += 1;
        if self.parts > PARTS_MAX {
            // Nothing of the rest is looked at.
            self.open.clear();
            self.state = State::Lines(NotLines::TooComplex);
        } else {
            self.state = State::Header { of, block: Vec::new() };
        }
    }

    /// A header is there, with the empty line that ends it.
    fn end_header(&mut self, of: Entity, block: &[u8], out: &mut Vec<u8>) {
        match Content::of(of, block) {
            Ok(Content::Lines) => self.goes_on(block, out, State::Lines(NotLines::Unlabelled)),
            Ok(Content::Binary) => {
                self.goes_on(&labelled(block, "base64"), out, State::Binary(Binary::default()));
            }
            Ok(Content::Multipart(_)) if self.open.len() == DEPTH_MAX => {
                self.goes_on(block, out, State::Lines(NotLines::TooComplex));
            }
            Ok(Content::Multipart(multipart)) => {
                self.open.push(multipart);
                self.goes_on(&labelled(block, "8bit"), out, State::Lines(NotLines::Unlabelled));
            }
            Ok(Content::Message) => {
                out.extend_from_slice(&labelled(block, "8bit"));
                self.begin_header(Entity::Message);
            }
            Ok(Content::Opaque) => {
                self.goes_on(&labelled(block, "8bit"), out, State::Lines(NotLines::Composite));
            }
            Err(why) => self.goes_on(block, out, State::Lines(why)),
        }
    }

    fn goes_on(&mut self, header: &[u8], out: &mut Vec<u8>, state: State) {
        out.extend_from_slice(header);
        self.state = state;
    }

    /// Reads a binary part up to a line that may end it; returns what follows that.
    fn binary<'a>(&mut self, octets: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        let State::Binary(binary) = &mut self.state else { return octets };
        let rest = binary.push(octets, out);
        if let Some(line) = binary.ended_line() {
            match delimiter(line, &self.open) {
                Some(found) => {
                    binary.finish(true, out);
                    self.delimited(found);
                }
                None => binary.next_line(out),
            }
        }
        rest
    }
}

fn delimiter(line: &[u8], open: &[Multipart]) -> Option<(usize, Boundary)> {
    structure::delimiter(line, open.iter().map(|multipart| multipart.boundary.as_slice()))
}

/// A line that stays as it is.
#[derive(Debug, Default)]
struct Line {
    /// How it begins: all of it, and an octet more if it is too long, where it may be a delimiter.
    start: Vec<u8>,
    has_cr: bool,
}

impl Line {
    fn text(&mut self, text: &[u8]) {
        let (hyphens, rest) = text.split_at(text.len().min(2_usize.saturating_sub(self.start.len())));
        self.start.extend_from_slice(hyphens);
        if self.start.starts_with(b"--") {
            let room = (DELIMITER_MAX + 1).saturating_sub(self.start.len());
            self.start.extend_from_slice(rest.get(..room).unwrap_or(rest));
        }
    }

    /// The line if it may be a delimiter, or else nothing.
    fn whole(&self) -> &[u8] {
        if self.start.len() > DELIMITER_MAX { b"" } else { &self.start }
    }
}

/// What follows a header.
#[derive(Debug)]
enum Content {
    /// What is lines already, or text in an encoding.
    Lines,
    /// Octets.
    Binary,
    Multipart(Multipart),
    /// An attached message.
    Message,
    /// What may hold parts and cannot be looked into: it may not be encoded (RFC 2045 §6.4).
    Opaque,
}

impl Content {
    fn of(of: Entity, block: &[u8]) -> Result<Self, NotLines> {
        let named =
            |name| header::raw_fields(block).filter_map(header::field).filter(move |field| field.is(name));
        if !header::has_fields_alone(block) {
            return Err(NotLines::Ambiguous);
        }
        if of == Entity::Message && named("MIME-Version").next().is_none() {
            return Err(NotLines::NotMime);
        }
        let read =
            |field: Field<'_>| Parameterised::parse(&field.unfolded()).map_err(|_| NotLines::TooComplex);
        let encodings = named(ENCODING).map(read).collect::<Result<Vec<_>, _>>()?;
        let types = named("Content-Type").map(read).collect::<Result<Vec<_>, _>>()?;
        let encoding = encodings.first().map_or("7bit", |first| first.value.as_str());
        let is_composite =
            |kind: &Parameterised| matches!(kind.value.split('/').next(), Some("multipart" | "message"));
        // Some take for parts what is of no type to others.
        let is_unlike = |kind: &Parameterised| {
            is_composite(kind) && (types.len() > 1 || !structure::is_media_type(&kind.value))
        };
        if encodings.iter().any(|other| other.value != encoding) || types.iter().any(is_unlike) {
            return Err(NotLines::Ambiguous);
        }
        let is_encoded = !matches!(encoding, "7bit" | "8bit" | "binary");
        let content_type = types.first().filter(|kind| structure::is_media_type(&kind.value));
        Ok(match content_type.map(|kind| (kind, kind.value.as_str())) {
            None if of == Entity::Digested && !is_encoded => Self::Message,
            Some((_, "message/rfc822" | "message/global")) if !is_encoded => Self::Message,
            Some((kind, name)) if name.starts_with("multipart/") => {
                Multipart::of(kind).map_or(Self::Opaque, Self::Multipart)
            }
            Some((kind, _)) if is_composite(kind) && !is_encoded => Self::Opaque,
            _ if encoding == "binary" => Self::Binary,
            _ => Self::Lines,
        })
    }
}

impl Multipart {
    /// One whose boundary can be found.
    fn of(content_type: &Parameterised) -> Option<Self> {
        let boundary = content_type.get("boundary")?.trim_end();
        let kind = match content_type.value.as_str() {
            "multipart/digest" => Kind::Digest,
            "multipart/signed" => Kind::Signed,
            _ => Kind::Any,
        };
        let is_usable = (1..=BOUNDARY_MAX).contains(&boundary.len()) && boundary.is_ascii();
        is_usable.then(|| Self { boundary: boundary.as_bytes().to_vec(), kind })
    }
}

/// A header whose encoding is another one, if it was binary.
fn labelled(block: &[u8], encoding: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(block.len());
    for lines in header::raw_fields(block) {
        let is_binary = |field: Field<'_>| {
            field.is(ENCODING)
                && Parameterised::parse(&field.unfolded()).is_ok_and(|read| read.value == "binary")
        };
        match header::field(lines).is_some_and(is_binary) {
            true => write::field(&mut out, ENCODING, [encoding.to_owned()]),
            false => out.extend_from_slice(lines),
        }
    }
    out.extend_from_slice(b"\r\n");
    out
}
