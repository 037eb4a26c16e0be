//! Writes a message: what a person on big sends (RFC 5322, RFC 2045, RFC 2047, RFC 2231).
//!
//! The result is 7-bit safe: CRLF lines of at most 998 octets, aimed at 76, everything else encoded.
//! So no host on its way has a reason to change it, and its signature holds. Only a part of another
//! message that is sent on stays as it is, and says so where it is 8-bit. Whatever the texts of
//! the draft hold, they cannot begin a header field, a part or a message of their own.
//!
//! No clock and no dice: the same draft gives the same octets.

use super::write;
use crate::address::{Address, Domain};
use crate::id::MessageId;

/// Message-IDs in References: the first and the latest (RFC 5322 §3.6.4 sets no limit).
const REFERENCES_WRITTEN_MAX: usize = 20;
/// Characters of a subject that are written.
const SUBJECT_WRITTEN_MAX: usize = 998;

/// A message to be written.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Its id; the Message-ID is `<id@domain of from>`.
    pub id: MessageId,
    /// Who writes.
    pub from: DraftMailbox,
    /// Who it is to.
    pub to: Vec<DraftMailbox>,
    /// Who has a copy.
    pub cc: Vec<DraftMailbox>,
    /// The subject; control characters become blanks.
    pub subject: String,
    /// When it was written, in seconds since 1970.
    pub date: i64,
    /// The Message-ID it answers, without angle brackets.
    pub in_reply_to: Option<String>,
    /// The conversation, oldest first, without angle brackets.
    pub references: Vec<String>,
    /// What it says. Lines may end in LF or CRLF.
    pub text: String,
    /// What goes with it.
    pub attachments: Vec<NewAttachment>,
    /// Parts of other messages, each with its header, that go with it as they are; see [`super::entity`].
    pub entities: Vec<Vec<u8>>,
}

/// A mailbox to write to or as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DraftMailbox {
    /// The display name.
    pub name: Option<String>,
    /// The address.
    pub address: Address,
}

/// A file to go with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAttachment {
    /// Its name; written so that any text can be one.
    pub name: String,
    /// Its media type; what is none becomes `application/octet-stream`, and so does text that is not UTF-8.
    pub content_type: String,
    /// Its content.
    pub content: Vec<u8>,
}

impl Draft {
    /// Whether some address in it cannot be sent to a host without SMTPUTF8 (RFC 6531). Such
    /// addresses are all that is not 7-bit in the message.
    pub fn needs_smtputf8(&self) -> bool {
        [&self.from].into_iter().chain(&self.to).chain(&self.cc).any(|mailbox| !mailbox.address.is_ascii())
    }
}

/// What sets a message apart, where its draft does not say so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The Message-ID, without angle brackets, in the place of that which follows from the id.
    pub message_id: Option<String>,
    /// The Message-ID of the message whose place it takes (RFC 4021 §2.1.46).
    pub supersedes: Option<String>,
}

/// The message that `draft` describes.
pub fn compose(draft: &Draft) -> Vec<u8> {
    compose_as(draft, &Identity::default())
}

/// The message that `draft` describes, with another identity.
pub fn compose_as(draft: &Draft, identity: &Identity) -> Vec<u8> {
    let mut out = Vec::new();
    let domain = draft.from.address.domain();
    write::field(&mut out, "From", write::mailbox(draft.from.name.as_deref(), &draft.from.address));
    match draft.to.is_empty() && draft.cc.is_empty() {
        true => out.extend_from_slice(b"To: undisclosed-recipients:;\r\n"),
        false => mailboxes(&mut out, "To", &draft.to),
    }
    mailboxes(&mut out, "Cc", &draft.cc);
    let subject: String = draft.subject.chars().take(SUBJECT_WRITTEN_MAX).collect();
    write::field(&mut out, "Subject", write::text(&subject));
    write::field(&mut out, "Date", [write::date(draft.date)]);
    let kept = write::message_ids(&identity.message_id);
    let own = || vec![format!("<{}>", message_id(draft.id, domain))];
    write::field(&mut out, "Message-ID", if kept.is_empty() { own() } else { kept });
    message_ids(&mut out, "Supersedes", write::message_ids(&identity.supersedes));
    message_ids(&mut out, "In-Reply-To", write::message_ids(&draft.in_reply_to));
    message_ids(&mut out, "References", write::message_ids(&draft.references));
    out.extend_from_slice(b"MIME-Version: 1.0\r\n");
    if draft.attachments.is_empty() && draft.entities.is_empty() {
        text_part(&mut out, &draft.text);
        return out;
    }
    let boundary = boundary(draft.id);
    write::field(&mut out, "Content-Type", ["multipart/mixed;".into(), format!("boundary=\"{boundary}\"")]);
    if !draft.entities.iter().all(|entity| entity.is_ascii()) {
        write::field(&mut out, "Content-Transfer-Encoding", ["8bit".into()]);
    }
    out.extend_from_slice(b"\r\n");
    begin_part(&mut out, &boundary);
    text_part(&mut out, &draft.text);
    for entity in &draft.entities {
        begin_part(&mut out, &boundary);
        out.extend_from_slice(entity);
    }
    for attachment in &draft.attachments {
        begin_part(&mut out, &boundary);
        attachment_part(&mut out, attachment);
    }
    end_parts(&mut out, &boundary);
    out
}

/// The Message-ID, without angle brackets, of what `id` names at `domain`.
pub fn message_id(id: MessageId, domain: &Domain) -> String {
    format!("{id}@{domain}")
}

/// A boundary that nothing inside can hold: base64 has no hyphens, quoted-printable no `=_`, text that
/// goes as it is no line that begins with hyphens, and the id is new.
pub(super) fn boundary(id: MessageId) -> String {
    format!("=_{id}")
}

/// What stands before a part.
pub(super) fn begin_part(out: &mut Vec<u8>, boundary: &str) {
    out.extend_from_slice(format!("\r\n--{boundary}\r\n").as_bytes());
}

/// What stands after the last part.
pub(super) fn end_parts(out: &mut Vec<u8>, boundary: &str) {
    out.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
}

/// The fields and the body of a text part; the last thing of a message or a part.
pub(super) fn text_part(out: &mut Vec<u8>, text: &str) {
    let text = write::crlf_lines(text);
    if write::is_7bit_text(&text) {
        out.extend_from_slice(
            b"Content-Type: text/plain; charset=us-ascii\r\nContent-Transfer-Encoding: 7bit\r\n\r\n",
        );
        out.extend_from_slice(text.as_bytes());
    } else {
        out.extend_from_slice(b"Content-Type: text/plain; charset=utf-8\r\n");
        out.extend_from_slice(b"Content-Transfer-Encoding: quoted-printable\r\n\r\n");
        write::quoted_printable(out, text.as_bytes());
    }
}

fn attachment_part(out: &mut Vec<u8>, attachment: &NewAttachment) {
    let text = str::from_utf8(&attachment.content).ok().filter(|_| attachment.content_type == "text/plain");
    let content_type = match (text, media_type(&attachment.content_type)) {
        (Some(text), _) if text.is_ascii() => "text/plain; charset=us-ascii",
        (Some(_), _) => "text/plain; charset=utf-8",
        (None, "text/plain") => "application/octet-stream",
        (None, other) => other,
    };
    write::field(out, "Content-Type", content_type.split(' ').map(str::to_owned));
    let mut disposition = vec![String::from("attachment")];
    if !attachment.name.is_empty() {
        disposition = vec!["attachment;".into()];
        disposition.extend(write::file_name_parameter("filename", &attachment.name));
    }
    write::field(out, "Content-Disposition", disposition);
    // Whatever the encoding, the file that arrives is the one that was sent.
    match text {
        Some(text) if write::is_7bit_text(text) => {
            out.extend_from_slice(b"Content-Transfer-Encoding: 7bit\r\n\r\n");
            out.extend_from_slice(text.as_bytes());
        }
        Some(text) if is_mostly_readable(text) => {
            out.extend_from_slice(b"Content-Transfer-Encoding: quoted-printable\r\n\r\n");
            write::quoted_printable(out, text.as_bytes());
        }
        _ => {
            out.extend_from_slice(b"Content-Transfer-Encoding: base64\r\n\r\n");
            write::base64(out, &attachment.content);
        }
    }
}

/// Whether quoted-printable is of use: the lines end in CRLF, so that they stay lines, and it is the
/// shorter encoding, with three octets for one that must be encoded, where base64 has four for every three.
fn is_mostly_readable(text: &str) -> bool {
    let is_line_end = |at: usize| at > 0 && text.as_bytes().get(at - 1) == Some(&b'\r');
    let encoded = text.bytes().filter(|byte| !matches!(byte, b' '..=b'~' | b'\t' | b'\r' | b'\n')).count();
    encoded <= text.len() / 6 && memchr::memchr_iter(b'\n', text.as_bytes()).all(is_line_end)
}

/// The media type, if it is one that may be in base64: multiparts and messages may not (RFC 2046
/// §5.1, §5.2.1), and travel as plain files.
fn media_type(text: &str) -> &str {
    let is_word = |word: &str| {
        (1..=64).contains(&word.len())
            && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b))
    };
    match text.split_once('/') {
        Some((kind, subtype)) if is_word(kind) && is_word(subtype) && !is_composite(kind) => text,
        _ => "application/octet-stream",
    }
}

fn is_composite(kind: &str) -> bool {
    kind.eq_ignore_ascii_case("multipart") || kind.eq_ignore_ascii_case("message")
}

fn mailboxes(out: &mut Vec<u8>, name: &str, mailboxes: &[DraftMailbox]) {
    let mut words: Vec<String> = Vec::new();
    for mailbox in mailboxes {
        if let Some(last) = words.last_mut() {
            last.push(',');
        }
        words.extend(write::mailbox(mailbox.name.as_deref(), &mailbox.address));
    }
    if !words.is_empty() {
        write::field(out, name, words);
    }
}

fn message_ids(out: &mut Vec<u8>, name: &str, mut ids: Vec<String>) {
    if ids.len() > REFERENCES_WRITTEN_MAX {
        ids.drain(1..=ids.len() - REFERENCES_WRITTEN_MAX);
    }
    if !ids.is_empty() {
        write::field(out, name, ids);
    }
}
