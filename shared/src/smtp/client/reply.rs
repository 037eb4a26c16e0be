//! Replies of a host that may be hostile (RFC 5321 §4.2).

use crate::smtp::Enhanced;
use crate::wire::{Input, LineError};

/// Lines of one reply.
pub const LINES_MAX: usize = 100;
/// Octets of one line without its CRLF. RFC 5321 §4.5.3.1.5 gives 512; some hosts say more.
pub const LINE_BYTES_MAX: usize = 4_096;

/// Why what a host sent is not a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// A line that breaks the rules for lines.
    #[error("the host's reply: {0}")]
    Line(#[from] LineError),
    /// More than [`LINES_MAX`] lines.
    #[error("the host's reply has too many lines")]
    TooManyLines,
    /// A line that does not begin with a reply code.
    #[error("the host sent something that is not a reply")]
    Garbage,
    /// Lines of one reply with different codes.
    #[error("the host changed the code within a reply")]
    CodeChange,
}

/// A complete reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostReply {
    /// 200 to 599.
    pub code: u16,
    /// The enhanced code, when the text begins with one of the same class.
    pub enhanced: Option<Enhanced>,
    /// The text of each line as the host wrote it, without the reply code, and but for the first one without the
    /// enhanced code that it repeats; as UTF-8 as far as it is that.
    pub lines: Vec<String>,
}

impl HostReply {
    /// What the host said, in one line: its code, its enhanced code if it wrote one, its text.
    pub(super) fn text(&self) -> String {
        format!("{} {}", self.code, self.lines.join(" ")).trim_end().to_owned()
    }
}

/// Puts replies together.
#[derive(Debug, Default)]
pub(super) struct Replies {
    input: Input,
    code: Option<u16>,
    lines: Vec<String>,
}

impl Replies {
    /// Appends what arrived.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.input.push(bytes);
    }

    /// Whether nothing is there that has not been read as a reply.
    pub(super) fn is_empty(&self) -> bool {
        self.input.is_empty() && self.code.is_none()
    }

    /// The next complete reply. After an error nothing more can be read.
    pub(super) fn next(&mut self) -> Result<Option<HostReply>, ReplyError> {
        while let Some(line) = self.input.line(LINE_BYTES_MAX)? {
            let (code, last, text) = split(&line).ok_or(ReplyError::Garbage)?;
            if self.code.is_some_and(|begun| begun != code) {
                return Err(ReplyError::CodeChange);
            }
            if self.lines.len() >= LINES_MAX {
                return Err(ReplyError::TooManyLines);
            }
            self.code = Some(code);
            self.lines.push(String::from_utf8_lossy(text).into_owned());
            if last {
                self.code = None;
                return Ok(Some(reply(code, std::mem::take(&mut self.lines))));
            }
        }
        Ok(None)
    }
}

/// Code, whether it is the last line, and text.
fn split(line: &[u8]) -> Option<(u16, bool, &[u8])> {
    let (code, rest) = line.split_at_checked(3)?;
    let [b'2'..=b'5', b'0'..=b'9', b'0'..=b'9'] = code else {
        return None;
    };
    let code = code.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    match rest.split_first() {
        None => Some((code, true, rest)),
        Some((b' ', text)) => Some((code, true, text)),
        Some((b'-', text)) => Some((code, false, text)),
        Some(_) => None,
    }
}

fn reply(code: u16, mut lines: Vec<String>) -> HostReply {
    let enhanced = lines.first().and_then(|line| enhanced(line, code));
    if let Some(prefix) = enhanced.map(|enhanced| enhanced.to_string()) {
        for line in lines.iter_mut().skip(1) {
            if let Some(text) = line.strip_prefix(&prefix) {
                *line = text.trim_start().to_owned();
            }
        }
    }
    HostReply { code, enhanced, lines }
}

/// The enhanced code that a line begins with; one of another class than the reply's is not believed.
fn enhanced(line: &str, code: u16) -> Option<Enhanced> {
    let enhanced: Enhanced = line.split(' ').next()?.parse().ok()?;
    (u16::from(enhanced.0) == code / 100).then_some(enhanced)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<HostReply>, ReplyError> {
        let mut replies = Replies::default();
        replies.push(bytes);
        std::iter::from_fn(|| replies.next().transpose()).collect()
    }

    fn one(bytes: &[u8]) -> (u16, Option<Enhanced>, String) {
        let replies = read(bytes).expect("a sound reply");
        assert_eq!(replies.len(), 1);
        (replies[0].code, replies[0].enhanced, replies[0].text())
    }

    #[test]
    fn replies_are_put_together() {
        assert_eq!(one(b"250 ok\r\n"), (250, None, "250 ok".into()));
        assert_eq!(one(b"250\r\n"), (250, None, "250".into()));
        assert_eq!(one(b"250-a\r\n250-\r\n250 b\r\n"), (250, None, "250 a  b".into()));
        assert_eq!(
            one(b"550-5.1.1 no\r\n550 5.1.1 user\r\n"),
            (550, Some(Enhanced(5, 1, 1)), "550 5.1.1 no user".into())
        );
        assert_eq!(one(b"550 5.1.1\r\n"), (550, Some(Enhanced(5, 1, 1)), "550 5.1.1".into()));
        assert_eq!(one(b"550 2.0.0 no\r\n"), (550, None, "550 2.0.0 no".into()));
        assert_eq!(one(b"550 \xff\r\n"), (550, None, "550 \u{fffd}".into()));
        assert_eq!(read(b"250 a\r\n354 b\r\n25").map(|r| r.len()), Ok(2));
    }

    #[test]
    fn what_is_not_a_reply_is_refused() {
        for garbage in
            ["25\r\n", "999 x\r\n", "199 x\r\n", "2500 x\r\n", "abc\r\n", "\r\n", " 250 x\r\n", "250_x\r\n"]
        {
            assert_eq!(read(garbage.as_bytes()), Err(ReplyError::Garbage), "{garbage:?}");
        }
        assert_eq!(read(b"250-x\r\n550 y\r\n"), Err(ReplyError::CodeChange));
        assert_eq!(read(b"250 x\n"), Err(ReplyError::Line(LineError::Bare)));
        assert_eq!(read(&[b'2'; 1_000_000]), Err(ReplyError::Line(LineError::TooLong)));
        assert_eq!(read(&b"250-x\r\n".repeat(1_000_000)), Err(ReplyError::TooManyLines));
        assert_eq!(
            read(&[&b"250-x\r\n".repeat(99)[..], b"250 x\r\n"].concat()).map(|r| r[0].lines.len()),
            Ok(100)
        );
    }
}
