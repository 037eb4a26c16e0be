//! The one HTTP response that is wanted (RFC 8461 §3.3, RFC 9112): 200, a plain text, whole. Pure.

use httparse::{EMPTY_HEADER, Response, Status};

/// Header fields that are looked at; a response with more is none.
const FIELDS_MAX: usize = 64;
/// Octets of a policy (RFC 8461 §3.3 suggests as many).
const BODY_MAX: usize = 64 * 1024;
/// Octets of a response, with what frames it.
pub const RESPONSE_MAX: usize = 2 * BODY_MAX;

/// Why a response is none that is wanted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadResponse {
    /// It says something else: redirects count for nothing.
    #[error("it is answered with {0}")]
    Status(u16),
    /// It is no plain text.
    #[error("it is not text/plain")]
    ContentType,
    /// It is no HTTP, or ends before its end.
    #[error("the answer is malformed or cut short")]
    Malformed,
    /// It is larger than a policy may be.
    #[error("it is larger than {BODY_MAX} octets")]
    TooLarge,
}

/// The text of the response that `bytes` are, all of them; whether the host has `ended` the connection counts where
/// nothing else says that it is whole.
///
/// # Errors
/// [`BadResponse`].
pub fn read(bytes: &[u8], ended: bool) -> Result<String, BadResponse> {
    if bytes.len() > RESPONSE_MAX {
        return Err(BadResponse::TooLarge);
    }
    let mut fields = [EMPTY_HEADER; FIELDS_MAX];
    let mut response = Response::new(&mut fields);
    let head = match response.parse(bytes).map_err(|_| BadResponse::Malformed)? {
        Status::Complete(length) => length,
        Status::Partial => return Err(BadResponse::Malformed),
    };
    if let Some(code) = response.code.filter(|code| *code != 200) {
        return Err(BadResponse::Status(code));
    }
    let field = |name: &str| {
        let mut found = response.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
        found.next().and_then(|field| std::str::from_utf8(field.value).ok()).map(str::trim)
    };
    let media = field("content-type").and_then(|value| value.split(';').next()).map(str::trim);
    if !media.is_some_and(|media| media.eq_ignore_ascii_case("text/plain")) {
        return Err(BadResponse::ContentType);
    }
    let rest = &bytes[head..];
    let body = match (field("transfer-encoding"), field("content-length")) {
        (Some(coding), _) if coding.eq_ignore_ascii_case("chunked") => unchunked(rest)?,
        (Some(_), _) => return Err(BadResponse::Malformed),
        (None, Some(length)) => {
            let length: usize = length.parse().map_err(|_| BadResponse::Malformed)?;
            if length > BODY_MAX {
                return Err(BadResponse::TooLarge);
            }
            rest.get(..length).map(<[u8]>::to_vec)
        }
        (None, None) => ended.then(|| rest.to_vec()),
    };
    match body {
        None => Err(BadResponse::Malformed),
        Some(body) if body.len() > BODY_MAX => Err(BadResponse::TooLarge),
        Some(body) => String::from_utf8(body).map_err(|_| BadResponse::Malformed),
    }
}

/// What the chunks hold; `None` if the last is not there.
fn unchunked(mut bytes: &[u8]) -> Result<Option<Vec<u8>>, BadResponse> {
    let mut body = Vec::new();
    loop {
        let (begin, length) = match httparse::parse_chunk_size(bytes).map_err(|_| BadResponse::Malformed)? {
            Status::Complete(found) => found,
            Status::Partial => return Ok(None),
        };
        let length = usize::try_from(length).map_err(|_| BadResponse::TooLarge)?;
        if length == 0 {
            return Ok(Some(body));
        }
        if body.len().saturating_add(length) > BODY_MAX {
            return Err(BadResponse::TooLarge);
        }
        let end = begin + length;
        match (bytes.get(begin..end), bytes.get(end..end + 2)) {
            (Some(chunk), Some(b"\r\n")) => body.extend_from_slice(chunk),
            (_, Some(_)) => return Err(BadResponse::Malformed),
            (_, None) => return Ok(None),
        }
        bytes = &bytes[end + 2..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_text_comes_whole_in_all_three_framings() {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: Text/Plain; charset=utf-8\r\n";
        for framed in [
            "Content-Length: 5\r\n\r\nhello",
            "\r\nhello",
            "Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=1\r\nlo\r\n0\r\n\r\n",
            "Content-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ] {
            let response = format!("{head}{framed}");
            assert_eq!(read(response.as_bytes(), true).as_deref(), Ok("hello"), "{framed}");
            // Whoever cuts it off is found out by the framing, or because it is TLS that says where it ends.
            let is_framed = !framed.starts_with('\r');
            let cut = read(response.as_bytes(), false);
            assert_eq!(cut.is_ok(), is_framed, "{framed}");
            for length in 0..response.len().saturating_sub(2) {
                let cut = read(&response.as_bytes()[..length], false);
                assert_eq!(cut, Err(BadResponse::Malformed), "{length} of {framed}");
            }
        }
    }

    #[test]
    fn anything_else_is_not_what_was_asked_for() {
        let text = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n";
        for (response, why) in [
            ("HTTP/1.1 301 Moved\r\nLocation: https://evil.example/\r\n\r\n", BadResponse::Status(301)),
            ("HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\n\r\nno", BadResponse::Status(404)),
            ("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>", BadResponse::ContentType),
            ("HTTP/1.1 200 OK\r\n\r\nhello", BadResponse::ContentType),
            ("220 mx.example ESMTP\r\n", BadResponse::Malformed),
            (&format!("{text}Content-Length: 9\r\n\r\nhello"), BadResponse::Malformed),
            (&format!("{text}Content-Length: -1\r\n\r\nhello"), BadResponse::Malformed),
            (&format!("{text}Content-Length: 65537\r\n\r\n"), BadResponse::TooLarge),
            (&format!("{text}Transfer-Encoding: gzip\r\n\r\nhello"), BadResponse::Malformed),
            (&format!("{text}Transfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n"), BadResponse::Malformed),
            (&format!("{text}Transfer-Encoding: chunked\r\n\r\nFFFFFFFF\r\n"), BadResponse::TooLarge),
            (&format!("{text}Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n"), BadResponse::Malformed),
        ] {
            assert_eq!(read(response.as_bytes(), true), Err(why), "{response:?}");
        }
        let endless = format!("{text}X: {}", "x".repeat(RESPONSE_MAX));
        assert_eq!(read(endless.as_bytes(), true), Err(BadResponse::TooLarge));
        let large = format!("{text}\r\n{}", "x".repeat(BODY_MAX + 1));
        assert_eq!(read(large.as_bytes(), true), Err(BadResponse::TooLarge));
    }
}
