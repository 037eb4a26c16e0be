//! Test messages, the same for the same seed: short text, an attachment, several parts.
//!
//! Every line ends in CRLF and is at most 78 octets, so that no relay has a reason to touch it. The
//! first header field is the ledger's, and everything a relay may add goes above it, so that the
//! rest can be compared byte for byte. Text has lines that begin with dots and with `From `, which
//! careless mail software alters. Octets beyond ASCII are in the one kind that is there for them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::ledger::{self, Token};
use crate::random::Random;

/// The usual short message, in octets.
pub const SHORT: usize = 4 * 1024;
/// The usual message with an attachment, in octets.
pub const LONG: usize = 64 * 1024;

const WORDS: &[&str] = &[
    "the", "edge", "holds", "a", "letter", "until", "big", "confirms", "it", "and", "then", "lets", "go",
    "mail", "moves", "through", "two", "doors", "never", "both", "open", "one", "unit", "at", "rest",
];
const BOUNDARY: &str = "=_sallypost_test";
/// Octets of an attachment in one base64 line of 76.
const BASE64_LINE: usize = 57;

/// Who writes to whom.
#[derive(Clone, Copy, Debug)]
pub struct Letter<'a> {
    /// The address in From.
    pub from: &'a str,
    /// The address in To.
    pub to: &'a str,
    /// The subject; ASCII, as the addresses, unless the message goes by SMTPUTF8.
    pub subject: &'a str,
    /// The ledger's mark.
    pub token: Token,
}

/// A file in a message.
#[derive(Clone, Copy, Debug)]
pub struct Attachment<'a> {
    /// Its name; any characters (RFC 2231).
    pub name: &'a str,
    /// Its media type, such as `application/pdf`.
    pub media_type: &'a str,
    /// What is in it.
    pub content: &'a [u8],
}

impl Letter<'_> {
    /// Plain text of about `size` octets in all.
    pub fn text(&self, size: usize) -> Vec<u8> {
        let mut message = self.header();
        message.push_str("Content-Type: text/plain; charset=us-ascii\r\n\r\n");
        let room = size.saturating_sub(message.len());
        message.push_str(&prose(room, self.random()));
        message.into_bytes()
    }

    /// Text in every octet that 8BITMIME adds (RFC 6152), which is no UTF-8, and then lines of words.
    pub fn eight_bit(&self) -> Vec<u8> {
        let mut message = self.header().into_bytes();
        let fields: &[u8] =
            b"Content-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: 8bit\r\n\r\n";
        message.extend_from_slice(fields);
        for octets in (0x80..=0xFF).collect::<Vec<u8>>().chunks(32) {
            message.extend_from_slice(octets);
            message.extend_from_slice(b"\r\n");
        }
        message.extend_from_slice(prose(SHORT, self.random()).as_bytes());
        message
    }

    /// A short text and one binary attachment `name`, about `size` octets in all.
    pub fn with_attachment(&self, name: &str, size: usize) -> Vec<u8> {
        let mut random = self.random();
        let content: Vec<u8> = (0..size * 3 / 4).map(|_| random.next_u64().to_le_bytes()[0]).collect();
        let media_type = "application/octet-stream";
        self.multipart(&prose(300, random), &[Attachment { name, media_type, content: &content }])
    }

    /// A text, in CRLF lines, and any attachments (RFC 2046 §5.1.3).
    pub fn multipart(&self, text: &str, attachments: &[Attachment<'_>]) -> Vec<u8> {
        let mut message = self.header();
        message.push_str(&format!("Content-Type: multipart/mixed; boundary=\"{BOUNDARY}\"\r\n\r\n"));
        message
            .push_str(&format!("--{BOUNDARY}\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n{text}"));
        for attachment in attachments {
            message.push_str(&format!("\r\n--{BOUNDARY}\r\n{}\r\n", attachment.header()));
            for line in attachment.content.chunks(BASE64_LINE) {
                BASE64.encode_string(line, &mut message);
                message.push_str("\r\n");
            }
        }
        message.push_str(&format!("\r\n--{BOUNDARY}--\r\n"));
        message.into_bytes()
    }

    fn header(&self) -> String {
        let Self { from, to, subject, token } = self;
        format!(
            "{}: {token}\r\nFrom: {from}\r\nTo: {to}\r\nSubject: {subject}\r\n\
             Date: Mon, 2 Nov 2026 09:00:00 +0000\r\nMessage-ID: <{token}@ledger.test>\r\n\
             MIME-Version: 1.0\r\n",
            ledger::HEADER
        )
    }

    fn random(&self) -> Random {
        Random::new(self.token.seed ^ self.token.number.rotate_left(32))
    }
}

impl Attachment<'_> {
    fn header(&self) -> String {
        let plain = self.name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_. ".contains(&b));
        let name = if plain {
            format!("filename=\"{}\"", self.name)
        } else {
            let encoded: String = self.name.bytes().map(percent).collect();
            format!("filename*=UTF-8''{encoded}")
        };
        format!(
            "Content-Type: {}\r\nContent-Transfer-Encoding: base64\r\n\
             Content-Disposition: attachment;\r\n {name}\r\n",
            self.media_type
        )
    }
}

/// The text of a reply that is composed on big, marked for the ledger in its body: what a mail
/// composer adds around it does not count. In CRLF lines, none of which a composer has a reason to
/// encode: the books compare octets.
pub fn marked_text(token: Token) -> String {
    let text = prose(200, Random::new(token.seed ^ !token.number));
    let text = format!("{}: {token}\r\n{text}{}: {token}\r\n", ledger::TEXT, ledger::TEXT_END);
    text.replace("\r\nFrom ", "\r\nfrom ")
}

/// Lines of words, of about `size` octets and no less than one line.
fn prose(size: usize, mut random: Random) -> String {
    let mut text = String::with_capacity(size + 80);
    loop {
        let mut line = match random.below(20) {
            0 => ".".to_owned(),
            1 => "From here".to_owned(),
            _ => (*random.pick(WORDS)).to_owned(),
        };
        while line.len() < 66 {
            line.push(' ');
            line.push_str(random.pick::<&str>(WORDS));
        }
        text.push_str(&line);
        text.push_str("\r\n");
        if text.len() + 70 > size {
            return text;
        }
    }
}

fn percent(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LETTER: Letter<'_> = Letter {
        from: "alice@example.com",
        to: "bob@remote.example",
        subject: "test",
        token: Token { seed: 7, number: 3 },
    };

    fn check_lines(message: &[u8]) {
        let text = std::str::from_utf8(message).expect("ASCII");
        assert!(text.ends_with("\r\n"));
        for line in text.split_terminator("\r\n") {
            assert!(line.len() <= 78 && !line.contains(['\r', '\n']), "{line:?}");
        }
    }

    #[test]
    fn messages_are_fit_for_any_relay_and_repeatable() {
        for size in [SHORT, LONG] {
            let text = LETTER.text(size);
            check_lines(&text);
            assert!(text.len().abs_diff(size) < 100, "{}", text.len());
            assert_eq!(text, LETTER.text(size));
        }
        let long = LETTER.with_attachment("report.pdf", LONG);
        check_lines(&long);
        assert!(long.len().abs_diff(LONG) < LONG / 10, "{}", long.len());
        let other = Letter { token: Token { seed: 7, number: 4 }, ..LETTER };
        assert_ne!(LETTER.text(SHORT), other.text(SHORT));
    }

    #[test]
    fn attachments_keep_their_names_and_bytes() {
        let files = [
            Attachment { name: "plan 1.txt", media_type: "text/plain", content: b"one\n" },
            Attachment { name: "na\u{ef}ve.bin", media_type: "application/octet-stream", content: &[0, 255] },
        ];
        let message = LETTER.multipart("cover\r\n", &files);
        check_lines(&message);
        let text = String::from_utf8(message).expect("ASCII");
        assert!(text.contains("filename=\"plan 1.txt\"\r\n\r\nb25lCg==\r\n"));
        assert!(text.contains("filename*=UTF-8''na%C3%AFve%2Ebin\r\n\r\nAP8=\r\n"));
        assert_eq!(text.matches(&format!("--{BOUNDARY}")).count(), 4);
    }
}
