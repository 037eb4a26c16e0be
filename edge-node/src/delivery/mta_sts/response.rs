//! The one response that is wanted (RFC 8461 §3.3): 200, a plain text. Pure.

use crate::web::Response;

/// Why a response is none that is wanted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAText {
    /// It says something else: redirects count for nothing.
    #[error("it is answered with {0}")]
    Status(u16),
    /// It is no plain text.
    #[error("it is not text/plain")]
    ContentType,
    /// It says so, and is none.
    #[error("it is not UTF-8")]
    Coding,
}

/// The text that a response holds.
///
/// # Errors
/// [`NotAText`].
pub fn text(response: Response) -> Result<String, NotAText> {
    if response.status != 200 {
        return Err(NotAText::Status(response.status));
    }
    let media = response.field("content-type").and_then(|value| value.split(';').next()).map(str::trim);
    if !media.is_some_and(|media| media.eq_ignore_ascii_case("text/plain")) {
        return Err(NotAText::ContentType);
    }
    String::from_utf8(response.body).map_err(|_| NotAText::Coding)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_text_is_what_was_asked_for() {
        let said = |response: &[u8]| text(Response::read(response, true, false).expect("a response"));
        let plain = b"HTTP/1.1 200 OK\r\ncontent-type: Text/Plain; charset=utf-8\r\n\r\nhello";
        assert_eq!(said(plain).as_deref(), Ok("hello"));
        for (response, why) in [
            (&b"HTTP/1.1 301 Moved\r\nLocation: https://evil.example/\r\n\r\n"[..], NotAText::Status(301)),
            (b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\n\r\nno", NotAText::Status(404)),
            (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>", NotAText::ContentType),
            (b"HTTP/1.1 200 OK\r\n\r\nhello", NotAText::ContentType),
            (b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n\xff", NotAText::Coding),
        ] {
            assert_eq!(said(response), Err(why));
        }
    }
}
