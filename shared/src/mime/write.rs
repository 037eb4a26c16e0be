//! Writing header fields and bodies: 7-bit, CRLF, short lines, and no way out of a field.
//!
//! Text becomes words that hold neither CR, LF nor other control characters before it is folded, so
//! no value can begin a field of its own.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

use crate::address::Address;

/// Columns of a line, its end not counted (RFC 5322 §2.1.1: should be at most 78).
const LINE: usize = 76;
/// Octets in a line of base64 (RFC 2045 §6.8: at most 76 characters).
pub(super) const BASE64_LINE_OCTETS: usize = LINE / 4 * 3;
/// Octets of text in one encoded word, so that the word stays within 75 (RFC 2047 §2).
const ENCODED_WORD_OCTETS: usize = 45;
/// Characters of a file name that are written.
const NAME_MAX: usize = 255;
/// Octets of a Message-ID that is referred to; others would make a line too long.
const MESSAGE_ID_MAX: usize = 900;

/// Writes a field of `words`, folded between them.
pub(super) fn field(out: &mut Vec<u8>, name: &str, words: impl IntoIterator<Item = String>) {
    let mut column = name.len() + 1;
    out.extend_from_slice(name.as_bytes());
    out.push(b':');
    for word in words {
        let fits = column + 1 + word.len() <= LINE;
        out.extend_from_slice(if fits { b" " } else { b"\r\n " });
        out.extend_from_slice(word.as_bytes());
        column = if fits { column + 1 + word.len() } else { 1 + word.len() };
    }
    out.extend_from_slice(b"\r\n");
}

/// Unstructured text as words: its own, or encoded ones (RFC 2047).
pub(super) fn text(text: &str) -> Vec<String> {
    let text = without_controls(text);
    match is_plain(&text) {
        true => text.split_whitespace().map(str::to_owned).collect(),
        false => encoded_words(text.trim()),
    }
}

/// Text for a field that has no encoded words (RFC 3464): ASCII, cut to `max` characters.
pub(super) fn ascii(text: &str, max: usize) -> Vec<String> {
    exact(text, max).split_whitespace().map(str::to_owned).collect()
}

/// The same as one word, with the spaces that are in it.
pub(super) fn exact(text: &str, max: usize) -> String {
    let ascii = |c: char| if c.is_ascii() { c } else { '?' };
    without_controls(text).chars().map(ascii).take(max).collect()
}

/// A mailbox as words.
pub(super) fn mailbox(name: Option<&str>, address: &Address) -> Vec<String> {
    let mut words = name.map(phrase).unwrap_or_default();
    words.push(format!("<{address}>"));
    words
}

/// A display name as words (RFC 5322 §3.2.5).
fn phrase(name: &str) -> Vec<String> {
    let name = without_controls(name);
    let is_atom = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c);
    if is_plain(&name) && name.chars().all(|c| is_atom(c) || c == ' ') {
        return name.split_whitespace().map(str::to_owned).collect();
    }
    if is_plain(&name) && name.len() <= LINE - 10 {
        let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
        return vec![format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))];
    }
    encoded_words(name.trim())
}

/// Message-IDs as words; what could not stand between angle brackets is left out.
pub(super) fn message_ids<'a>(ids: impl IntoIterator<Item = &'a String>) -> Vec<String> {
    let is_safe = |id: &&String| {
        (1..=MESSAGE_ID_MAX).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_graphic() && b != b'<' && b != b'>')
    };
    ids.into_iter().filter(is_safe).map(|id| format!("<{id}>")).collect()
}

/// A moment as RFC 5322 §3.3 writes it, in UTC.
pub(super) fn date(unix_seconds: i64) -> String {
    let moment = Timestamp::from_second(unix_seconds).unwrap_or(Timestamp::UNIX_EPOCH);
    moment.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}

/// A file name as parameters (RFC 2231), each but the last with its semicolon.
pub(super) fn file_name_parameter(name: &str, value: &str) -> Vec<String> {
    let value: String = value.chars().take(NAME_MAX).collect();
    let simple = |c: char| c == ' ' || c.is_ascii_graphic() && !matches!(c, '"' | '\\' | '%');
    if value.len() <= LINE - 20 && value.chars().all(simple) && !value.contains("=?") {
        return vec![format!("{name}=\"{value}\"")];
    }
    let mut sections = vec![String::from("UTF-8''")];
    for octet in value.bytes() {
        let escaped = match octet {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' => char::from(octet).to_string(),
            octet => format!("%{octet:02X}"),
        };
        match sections.last_mut() {
            Some(section) if section.len() + escaped.len() <= LINE - 20 => section.push_str(&escaped),
            _ => sections.push(escaped),
        }
    }
    if let [only] = sections.as_slice() {
        return vec![format!("{name}*={only}")];
    }
    let last = sections.len() - 1;
    let end = |n: usize| if n == last { "" } else { ";" };
    sections.iter().enumerate().map(|(n, section)| format!("{name}*{n}*={section}{}", end(n))).collect()
}

/// Lines of text ending in CRLF, however they ended; the last one too.
pub(super) fn crlf_lines(text: &str) -> String {
    let lines = text.replace("\r\n", "\n").replace('\r', "\n");
    lines.split_terminator('\n').flat_map(|line| [line, "\r\n"]).collect()
}

/// Whether text in CRLF lines can go as it is: nothing that a host on the way would change, and
/// nothing that could be taken for a boundary.
pub(super) fn is_7bit_text(text: &str) -> bool {
    let harmless = |line: &str| {
        line.len() <= LINE + 2
            && !line.ends_with([' ', '\t'])
            && !line.starts_with("--")
            && !line.starts_with("From ")
            && line.bytes().all(|b| b == b'\t' || b == b' ' || b.is_ascii_graphic())
    };
    text.split_terminator("\r\n").all(harmless)
}

/// Octets in quoted-printable (RFC 2045 §6.7); a CRLF is a line end. No line begins a boundary,
/// for those have a `=` after their hyphens.
pub(super) fn quoted_printable(out: &mut Vec<u8>, text: &[u8]) {
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let (content, end) = match line.strip_suffix(b"\r\n") {
            Some(content) => (content, &b"\r\n"[..]),
            None => (line, &b""[..]),
        };
        let mut column = 0;
        for (n, byte) in content.iter().enumerate() {
            let last = n + 1 == content.len();
            let plain = match byte {
                b' ' | b'\t' => !last,
                b'=' => false,
                b'F' => n > 0 || !content.starts_with(b"From "),
                byte => byte.is_ascii_graphic(),
            };
            let width = if plain { 1 } else { 3 };
            if column + width > LINE - 1 {
                out.extend_from_slice(b"=\r\n");
                column = 0;
            }
            match plain {
                true => out.push(*byte),
                false => out.extend_from_slice(format!("={byte:02X}").as_bytes()),
            }
            column += width;
        }
        out.extend_from_slice(end);
    }
}

/// Octets in base64, in lines (RFC 2045 §6.8).
pub(super) fn base64(out: &mut Vec<u8>, octets: &[u8]) {
    for line in octets.chunks(BASE64_LINE_OCTETS) {
        out.extend_from_slice(STANDARD.encode(line).as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

fn without_controls(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Whether text can stand in a field as it is: ASCII that looks like no encoded word, in words that
/// fit on a line.
fn is_plain(text: &str) -> bool {
    text.is_ascii() && !text.contains("=?") && text.split_whitespace().all(|word| word.len() < LINE)
}

fn encoded_words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (word, after) = rest.split_at(rest.floor_char_boundary(ENCODED_WORD_OCTETS));
        words.push(format!("=?UTF-8?B?{}?=", STANDARD.encode(word)));
        rest = after;
    }
    words
}
