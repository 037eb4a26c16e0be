//! The mark by which a message is known in the books, and the part of it that must not change.

use super::Token;

/// The header field that marks a message; it is the first that the sender writes.
pub const HEADER: &str = "X-Ledger";
/// The line that marks a text which a mail composer will wrap in a message of its own making.
pub const TEXT: &str = "X-Ledger-Text";
/// The line that ends such a text.
pub const TEXT_END: &str = "X-Ledger-End";

/// What a message found somewhere is to the books.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Marked {
    /// A message of the books, and the BLAKE3 of the part that must not change.
    Token(Token, String),
    /// A delivery report (RFC 3464), which may quote a message but is none.
    Report,
    /// Something else; the first line of it that may say what.
    Stranger(String),
}

/// Reads the mark. In the header it covers the rest of the message; in the body, the marked text.
pub(super) fn read(message: &[u8]) -> Marked {
    // Without an empty line it may be a text that is not yet in a message.
    let (header, body) = match memchr::memmem::find(message, b"\r\n\r\n") {
        Some(at) => message.split_at(at + 2),
        None => (message, message),
    };
    if let Some((token, at)) = find(header, HEADER) {
        return Marked::Token(token, digest(&message[at..]));
    }
    if String::from_utf8_lossy(header).to_ascii_lowercase().contains("multipart/report") {
        return Marked::Report;
    }
    let text = find(body, TEXT);
    let marked = text.and_then(|(token, at)| {
        let rest = &body[at..];
        let end = find(rest, TEXT_END).filter(|(closing, _)| *closing == token)?.1;
        Some(Marked::Token(token, digest(&rest[..end])))
    });
    // A text whose end is gone is still that text, altered.
    let cut = || text.map(|(token, at)| Marked::Token(token, digest(&body[at..])));
    marked.or_else(cut).unwrap_or_else(|| Marked::Stranger(title(header)))
}

/// The first line `name: token`, and where it begins.
fn find(lines: &[u8], name: &str) -> Option<(Token, usize)> {
    let start = format!("{name}: ");
    memchr::memmem::find_iter(lines, start.as_bytes()).find_map(|at| {
        let begins_line = at == 0 || lines.get(at - 1) == Some(&b'\n');
        let value = lines.get(at + start.len()..)?.split(|&b| b == b'\r' || b == b'\n').next()?;
        let token = std::str::from_utf8(value).ok()?.trim().parse().ok()?;
        begins_line.then_some((token, at))
    })
}

fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

fn title(header: &[u8]) -> String {
    let header = String::from_utf8_lossy(header);
    let subject = header.lines().find(|line| line.to_ascii_lowercase().starts_with("subject:"));
    subject.or(header.lines().next()).unwrap_or_default().to_owned()
}
