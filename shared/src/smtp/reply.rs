//! SMTP replies (RFC 5321 §4.2, RFC 3463): a code, an enhanced code, and text that is safe to send.

use std::fmt;
use std::io::Write as _;
use std::str::FromStr;

/// Octets of one line of reply text; with code, enhanced code and CRLF it stays within the 512 of
/// RFC 5321 §4.5.3.1.5.
pub const TEXT_BYTES_MAX: usize = 480;
/// Lines of one reply.
pub const LINES_MAX: usize = 20;

/// An enhanced status code (RFC 3463): class, subject, detail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enhanced(pub u8, pub u16, pub u16);

impl fmt::Display for Enhanced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// The text is not an enhanced status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an enhanced status code")]
pub struct NotEnhanced;

impl FromStr for Enhanced {
    type Err = NotEnhanced;

    fn from_str(text: &str) -> Result<Self, NotEnhanced> {
        let mut parts = text.split('.');
        let mut part = |digits_max: usize| {
            let part = parts.next().filter(|p| (1..=digits_max).contains(&p.len()))?;
            part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse::<u16>().ok())?
        };
        let (class, subject, detail) = (part(1), part(3), part(3));
        match (class, subject, detail, parts.next()) {
            (Some(2), Some(subject), Some(detail), None) => Ok(Self(2, subject, detail)),
            (Some(4), Some(subject), Some(detail), None) => Ok(Self(4, subject, detail)),
            (Some(5), Some(subject), Some(detail), None) => Ok(Self(5, subject, detail)),
            _ => Err(NotEnhanced),
        }
    }
}

/// One reply. Its text holds no control characters: whatever it was made from, it is one reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    code: u16,
    enhanced: Option<Enhanced>,
    text: String,
}

impl Reply {
    /// A reply with an enhanced code. A line feed in `text` begins a new line of the reply; other
    /// control characters become spaces, and what is over the limits is cut off.
    pub fn new(code: u16, enhanced: Enhanced, text: &str) -> Self {
        Self { enhanced: Some(enhanced), ..Self::bare(code, text) }
    }

    /// A reply that has no enhanced code: greetings, the answers to HELO and EHLO, 334 and 354
    /// (RFC 2034 §4).
    pub fn bare(code: u16, text: &str) -> Self {
        debug_assert!((200..600).contains(&code), "reply codes have three digits and a known class");
        let lines = text.split('\n').take(LINES_MAX).map(sanitised);
        Self { code, enhanced: None, text: lines.collect::<Vec<_>>().join("\n") }
    }

    /// The reply code.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// The enhanced code.
    pub fn enhanced(&self) -> Option<Enhanced> {
        self.enhanced
    }

    /// The text, its lines separated by line feeds.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it refuses for good (5yz).
    pub fn is_permanent(&self) -> bool {
        self.code >= 500
    }

    /// Whether it refuses a mailbox (450, 550; RFC 5321 §4.2.3), and not the client, whoever is named.
    pub fn refuses_mailbox(&self) -> bool {
        matches!(self.code, 450 | 550)
    }

    /// Whether the server closes the connection after it (421; RFC 5321 §3.8).
    pub fn closes(&self) -> bool {
        self.code == 421
    }

    /// Appends the reply as it goes over the wire.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let mut lines = self.text.split('\n').peekable();
        while let Some(line) = lines.next() {
            let mark = if lines.peek().is_some() { '-' } else { ' ' };
            let written = match self.enhanced {
                Some(enhanced) => write!(out, "{}{mark}{enhanced} {line}\r\n", self.code),
                None => write!(out, "{}{mark}{line}\r\n", self.code),
            };
            written.expect("writing to a Vec does not fail");
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.code)?;
        if let Some(enhanced) = self.enhanced {
            write!(f, "{enhanced} ")?;
        }
        f.write_str(&self.text.replace('\n', " "))
    }
}

/// One line of text without control characters, at most [`TEXT_BYTES_MAX`] octets.
fn sanitised(line: &str) -> String {
    let mut text: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    text.truncate(text.trim_end().len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(reply: &Reply) -> String {
        let mut out = Vec::new();
        reply.write(&mut out);
        String::from_utf8(out).expect("replies are UTF-8")
    }

    #[test]
    fn every_line_carries_the_code() {
        let reply = Reply::new(550, Enhanced(5, 1, 1), "no such user\nask postmaster");
        assert_eq!(written(&reply), "550-5.1.1 no such user\r\n550 5.1.1 ask postmaster\r\n");
        assert_eq!(written(&Reply::bare(354, "go on")), "354 go on\r\n");
        assert_eq!(reply.to_string(), "550 5.1.1 no such user ask postmaster");
    }

    #[test]
    fn hostile_text_stays_text() {
        let reply = Reply::new(550, Enhanced(5, 0, 0), "a\r\n250 b\0\u{1b}[2J\u{85}");
        assert_eq!(written(&reply), "550-5.0.0 a\r\n550 5.0.0 250 b  [2J\r\n");
        let long = Reply::new(550, Enhanced(5, 0, 0), &"\u{fc}".repeat(1000));
        assert!(written(&long).len() <= 512);
        assert_eq!(Reply::bare(250, &"x\n".repeat(1000)).text().lines().count(), LINES_MAX);
    }

    #[test]
    fn enhanced_codes_are_read_strictly() {
        assert_eq!("5.1.1".parse(), Ok(Enhanced(5, 1, 1)));
        assert_eq!("4.999.999".parse(), Ok(Enhanced(4, 999, 999)));
        for bad in ["", "5", "5.1", "5.1.1.1", "3.1.1", "5.1.1000", "5.+1.1", "5..1", "55.1.1", "5.1.x"] {
            assert_eq!(bad.parse::<Enhanced>(), Err(NotEnhanced), "{bad}");
        }
    }
}
