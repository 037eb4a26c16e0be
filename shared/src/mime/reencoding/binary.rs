//! The content of a part that becomes base64, and where it ends.

use memchr::{memchr, memchr2};

use super::super::write::{self, BASE64_LINE_OCTETS};
use super::DELIMITER_MAX;

const CRLF: &[u8] = b"\r\n";

/// Octets on their way into base64. The CRLF before a delimiter belongs to that (RFC 2046 §5.1.1), so what may be one is
/// held.
#[derive(Debug, Default)]
pub(super) struct Binary {
    base64: Base64,
    at: At,
    /// The CRLF before the line that is held; nothing where that begins the part.
    before: &'static [u8],
    /// A line that begins with hyphens.
    line: Vec<u8>,
}

/// Where the next octet falls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    /// In a line that is no delimiter.
    Content,
    /// After its CR, or a bare one.
    Cr,
    /// In a line that may be a delimiter.
    #[default]
    Line,
    /// After its CR.
    LineCr,
    /// After its LF.
    LineEnd,
}

impl Binary {
    /// Takes octets up to the end of a line that may be a delimiter, and returns those behind it.
    pub(super) fn push<'a>(&mut self, octets: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        let mut rest = octets;
        while let (Some((octet, behind)), true) = (rest.split_first(), self.at != At::LineEnd) {
            rest = match (self.at, octet) {
                (At::Content, _) => {
                    let length = memchr(b'\r', rest).unwrap_or(rest.len());
                    let (content, rest) = rest.split_at(length);
                    self.base64.push(content, out);
                    match rest.split_first() {
                        Some((_, behind)) => {
                            self.at = At::Cr;
                            behind
                        }
                        None => rest,
                    }
                }
                (At::Cr, b'\n') => {
                    (self.at, self.before) = (At::Line, CRLF);
                    behind
                }
                (At::Line, b'\r') if self.line.len() > 1 => {
                    self.at = At::LineCr;
                    behind
                }
                (At::LineCr, b'\n') => {
                    self.at = At::LineEnd;
                    behind
                }
                (At::Line, _) => self.line(rest, out),
                (At::Cr | At::LineCr | At::LineEnd, _) => {
                    self.release(out);
                    rest
                }
            };
        }
        rest
    }

    /// Holds what may be of a delimiter, and lets go what cannot be.
    fn line<'a>(&mut self, octets: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        let (text, rest) = octets.split_at(memchr2(b'\r', b'\n', octets).unwrap_or(octets.len()));
        let has_hyphens = self.line.iter().chain(text).zip(b"--").all(|(octet, hyphen)| octet == hyphen);
        if has_hyphens && !text.is_empty() && self.line.len() + text.len() <= DELIMITER_MAX {
            self.line.extend_from_slice(text);
            return rest;
        }
        self.release(out);
        octets
    }

    /// The line that has just ended and may be a delimiter.
    pub(super) fn ended_line(&self) -> Option<&[u8]> {
        (self.at == At::LineEnd).then_some(&self.line)
    }

    /// The line that the message may end with.
    pub(super) fn last_line(&self) -> &[u8] {
        if self.at == At::Line { &self.line } else { b"" }
    }

    /// The line that has ended is content; the next one may be a delimiter.
    pub(super) fn next_line(&mut self, out: &mut Vec<u8>) {
        self.at = At::Line;
        self.release(out);
        (self.at, self.before) = (At::Line, CRLF);
    }

    /// What is held is content.
    fn release(&mut self, out: &mut Vec<u8>) {
        let end: &[u8] = if matches!(self.at, At::Cr | At::LineCr) { b"\r" } else { b"" };
        for octets in [std::mem::take(&mut self.before), &self.line, end] {
            self.base64.push(octets, out);
        }
        self.line.clear();
        self.at = At::Content;
    }

    /// The part has ended, by the line that is held if that `is_delimiter`.
    pub(super) fn finish(&mut self, is_delimiter: bool, out: &mut Vec<u8>) {
        if !is_delimiter {
            self.release(out);
            return self.base64.finish(out);
        }
        self.base64.finish(out);
        // The end of the last line of base64 is the delimiter's.
        if self.base64.is_empty {
            out.extend_from_slice(self.before);
        }
        out.extend_from_slice(&self.line);
        if self.at == At::LineEnd {
            out.extend_from_slice(CRLF);
        }
    }
}

/// Octets in base64, in lines, as they come (RFC 2045 §6.8).
#[derive(Debug)]
struct Base64 {
    is_empty: bool,
    /// The octets of a line that is not full.
    line: Vec<u8>,
}

impl Default for Base64 {
    fn default() -> Self {
        Self { is_empty: true, line: Vec::new() }
    }
}

impl Base64 {
    fn push(&mut self, octets: &[u8], out: &mut Vec<u8>) {
        self.is_empty &= octets.is_empty();
        let mut rest = octets;
        if !self.line.is_empty() {
            let (head, tail) = rest.split_at(rest.len().min(BASE64_LINE_OCTETS - self.line.len()));
            self.line.extend_from_slice(head);
            rest = tail;
            if self.line.len() == BASE64_LINE_OCTETS {
                self.finish(out);
            }
        }
        let (lines, rest) = rest.split_at(rest.len() - rest.len() % BASE64_LINE_OCTETS);
        write::base64(out, lines);
        self.line.extend_from_slice(rest);
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        write::base64(out, &self.line);
        self.line.clear();
    }
}
