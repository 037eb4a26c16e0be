//! Writes a delivery status notification (RFC 3461, RFC 3464): a multipart/report of a text for a
//! person, the status for a program, and the message it is about, or its header.
//!
//! The caller sends it from the null reverse-path, once, and never about another notification.

use super::compose::{begin_part, boundary, end_parts, message_id, text_part};
use super::header::header_len;
use super::write;
use crate::address::{Address, Domain};
use crate::id::MessageId;
use crate::notify::{self, Return};

/// Characters of a remote's reply, an envelope id or a recipient as it was, that are written.
const FOREIGN_MAX: usize = 500;
/// Octets of the message's header that are returned.
const HEADER_MAX: usize = 32 << 10;
/// Octets of a message that is returned whole.
const WHOLE_MAX: usize = 256 << 10;

/// What became of a recipient (RFC 3464 §2.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It could not be delivered and will not be tried again.
    Failed,
    /// It has not been delivered yet; attempts go on.
    Delayed,
    /// It is in the mailbox.
    Delivered,
    /// It went to a host that sends no notifications.
    Relayed,
    /// It was delivered to a list of recipients.
    Expanded,
}

impl Action {
    /// The word for it in the report.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Delayed => "delayed",
            Self::Delivered => "delivered",
            Self::Relayed => "relayed",
            Self::Expanded => "expanded",
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Self::Failed => "could not be delivered",
            Self::Delayed => "has not been delivered yet; attempts go on, you need not send it again",
            Self::Delivered => "was delivered",
            Self::Relayed => "was handed to a host that does not report delivery",
            Self::Expanded => "was delivered to the members of a list",
        }
    }
}

/// A notification to be written.
#[derive(Clone, Debug)]
pub struct DsnReport {
    /// Its own id.
    pub id: MessageId,
    /// Who reports, usually the postmaster.
    pub from: Address,
    /// Who is told: the sender of the message.
    pub to: Address,
    /// When it is written, in seconds since 1970.
    pub date: i64,
    /// The host that made the attempts.
    pub reporting_mta: Domain,
    /// When the message was accepted, in seconds since 1970.
    pub arrival: Option<i64>,
    /// The sender's ENVID, decoded (RFC 3461 §4.4).
    pub envelope_id: Option<String>,
    /// The Message-ID of the message, without angle brackets.
    pub original_message_id: Option<String>,
    /// What became of whom; one or more.
    pub recipients: Vec<DsnRecipient>,
    /// The message, or only its header.
    pub original: Vec<u8>,
    /// How much of it the sender wants back. All of it comes in a report of failure only, and only if it is short and
    /// can stand in one as it is; otherwise its header does.
    pub returns: Option<Return>,
}

/// What became of one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DsnRecipient {
    /// The address the message was for.
    pub recipient: Address,
    /// The sender's ORCPT, decoded, with its type: `rfc822;alice@example.com` (RFC 3461 §4.2).
    pub original: Option<String>,
    /// What became of it.
    pub action: Action,
    /// The enhanced status code: `5.1.1` (RFC 3463).
    pub status: String,
    /// The host that answered.
    pub remote_mta: Option<String>,
    /// Its reply, code and text; or our own reason.
    pub diagnostic: Option<String>,
    /// When the last attempt was, in seconds since 1970.
    pub last_attempt: Option<i64>,
    /// Until when attempts go on, in seconds since 1970.
    pub retry_until: Option<i64>,
}

/// The message that `report` describes.
pub fn dsn(report: &DsnReport) -> Vec<u8> {
    let mut out = Vec::new();
    let boundary = boundary(report.id);
    write::field(&mut out, "From", write::mailbox(Some("Mail delivery"), &report.from));
    write::field(&mut out, "To", write::mailbox(None, &report.to));
    write::field(&mut out, "Subject", write::text(subject(&report.recipients)));
    write::field(&mut out, "Date", [write::date(report.date)]);
    let own_id = message_id(report.id, report.from.domain());
    write::field(&mut out, "Message-ID", [format!("<{own_id}>")]);
    let original_id = write::message_ids(&report.original_message_id);
    if !original_id.is_empty() {
        write::field(&mut out, "In-Reply-To", original_id.clone());
        write::field(&mut out, "References", original_id);
    }
    out.extend_from_slice(b"Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n");
    let kind = ["multipart/report;", "report-type=delivery-status;"].map(String::from);
    write::field(&mut out, "Content-Type", kind.into_iter().chain([format!("boundary=\"{boundary}\"")]));
    out.extend_from_slice(b"\r\n");
    begin_part(&mut out, &boundary);
    text_part(&mut out, &explanation(report));
    begin_part(&mut out, &boundary);
    status(&mut out, report);
    begin_part(&mut out, &boundary);
    match returns_whole(report) {
        true => whole(&mut out, &report.original),
        false => header(&mut out, &report.original),
    }
    end_parts(&mut out, &boundary);
    out
}

fn subject(recipients: &[DsnRecipient]) -> &'static str {
    let any = |action| recipients.iter().any(|recipient| recipient.action == action);
    match () {
        () if any(Action::Failed) => "Undelivered: your message was not delivered",
        () if any(Action::Delayed) => "Delayed: your message is still being sent",
        () if any(Action::Delivered) => "Delivered: your message arrived",
        () if any(Action::Relayed) => "Relayed: your message was handed on",
        () => "Expanded: your message went to the members of a list",
    }
}

/// The part for a person.
fn explanation(report: &DsnReport) -> String {
    let mut text = format!("This is the mail system at {}.\n", report.reporting_mta);
    for recipient in &report.recipients {
        text += &format!("\nYour message to <{}> {}.\n", recipient.recipient, recipient.action.sentence());
        if let Some(diagnostic) = &recipient.diagnostic {
            let who = recipient.remote_mta.as_deref().unwrap_or("The reason");
            let line = format!("{who}: {diagnostic}");
            text += &format!("  {}\n", write::ascii(&line, FOREIGN_MAX).join(" "));
        }
    }
    let returned = if returns_whole(report) { "Your message" } else { "The header of your message" };
    text + &format!("\n{returned} is attached.\n")
}

/// The part for a program (RFC 3464 §2).
fn status(out: &mut Vec<u8>, report: &DsnReport) {
    out.extend_from_slice(b"Content-Type: message/delivery-status\r\n\r\n");
    if let Some(id) = &report.envelope_id {
        write::field(out, "Original-Envelope-Id", [write::exact(id, FOREIGN_MAX)]);
    }
    write::field(out, "Reporting-MTA", ["dns;".into(), report.reporting_mta.to_string()]);
    if let Some(arrival) = report.arrival {
        write::field(out, "Arrival-Date", [write::date(arrival)]);
    }
    for recipient in &report.recipients {
        out.extend_from_slice(b"\r\n");
        recipient_status(out, recipient);
    }
}

fn recipient_status(out: &mut Vec<u8>, recipient: &DsnRecipient) {
    if let Some(original) = &recipient.original {
        write::field(out, "Original-Recipient", [write::exact(original, FOREIGN_MAX)]);
    }
    let (kind, address) = notify::typed(&recipient.recipient);
    write::field(out, "Final-Recipient", [format!("{kind};"), address]);
    write::field(out, "Action", [recipient.action.as_str().into()]);
    write::field(out, "Status", write::ascii(&recipient.status, FOREIGN_MAX));
    if let Some(remote) = &recipient.remote_mta {
        write::field(out, "Remote-MTA", ["dns;".into()].into_iter().chain(write::ascii(remote, FOREIGN_MAX)));
    }
    if let Some(diagnostic) = &recipient.diagnostic {
        write::field(
            out,
            "Diagnostic-Code",
            ["smtp;".into()].into_iter().chain(write::ascii(diagnostic, FOREIGN_MAX)),
        );
    }
    if let Some(last) = recipient.last_attempt {
        write::field(out, "Last-Attempt-Date", [write::date(last)]);
    }
    if let Some(until) = recipient.retry_until {
        write::field(out, "Will-Retry-Until", [write::date(until)]);
    }
}

/// Whether the message comes back whole. What is 8-bit could not be sent back to every host, and a message within
/// another one is never encoded (RFC 2046 §5.2.1).
fn returns_whole(report: &DsnReport) -> bool {
    let failed = report.recipients.iter().any(|recipient| recipient.action == Action::Failed);
    let fits = (1..=WHOLE_MAX).contains(&report.original.len());
    let boundary = boundary(report.id);
    let can_stand = || {
        let is_text = report.original.is_ascii() && !report.original.contains(&0);
        is_text && !report.original.windows(boundary.len()).any(|octets| octets == boundary.as_bytes())
    };
    report.returns == Some(Return::Full) && failed && fits && can_stand()
}

fn whole(out: &mut Vec<u8>, original: &[u8]) {
    out.extend_from_slice(b"Content-Type: message/rfc822\r\n\r\n");
    out.extend_from_slice(original);
}

/// The header of the message, in whole lines (RFC 6522 §4).
fn header(out: &mut Vec<u8>, original: &[u8]) {
    let header = original.get(..header_len(original)).unwrap_or_default();
    let kept = header.get(..HEADER_MAX).unwrap_or(header);
    let whole_lines = kept.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    let kept = String::from_utf8_lossy(kept.get(..whole_lines).unwrap_or_default());
    let text = write::crlf_lines(kept.trim_end_matches(['\r', '\n']));
    out.extend_from_slice(b"Content-Type: text/rfc822-headers\r\n");
    if write::is_7bit_text(&text) {
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(text.as_bytes());
    } else {
        out.extend_from_slice(b"Content-Transfer-Encoding: quoted-printable\r\n\r\n");
        write::quoted_printable(out, text.as_bytes());
    }
}
