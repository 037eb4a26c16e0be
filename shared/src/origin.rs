//! The origin of a message: the immutable record, made once where it enters, of all that a reply,
//! an amend or a report will need and that SMTP and POP3 lose on the way.

use rkyv::{Archive, Deserialize, Serialize};

/// A display name and an address, as a header field gave them.
#[derive(
    Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize,
)]
pub struct Mailbox {
    /// Decoded display name; may be empty.
    pub name: String,
    /// The address, as written.
    pub address: String,
}

/// The way a message came in. A property of the socket it arrived on, never of what it says of itself.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Channel {
    /// From the Internet, on the edge's port 25.
    Reception {
        /// The HELO or EHLO name, as given.
        helo: String,
        /// The client's IP address.
        client: String,
        /// Whether the session was under TLS.
        tls: bool,
    },
    /// From a traveller, authenticated on the edge.
    Submission {
        /// The travel window that was logged in to.
        window: [u8; 16],
    },
    /// From a person at a desk inside.
    Desk {
        /// The person.
        person: [u8; 16],
    },
    /// Made by big itself: a delivery status notification.
    Report,
}

/// One original recipient (RFC 5321 §3.3, RFC 3461 §4).
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct OriginalRecipient {
    /// The forward-path as given.
    pub address: String,
    /// ORCPT, decoded, if given.
    pub original: Option<String>,
    /// NOTIFY, if given.
    pub notify: Option<String>,
}

/// How a message came. Immutable.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Origin {
    /// The way in.
    pub channel: Channel,
    /// When it was accepted, milliseconds since 1970.
    pub accepted_at: u64,
    /// The reverse-path; `None` is the null one.
    pub reverse_path: Option<String>,
    /// The recipients that were accepted here.
    pub recipients: Vec<OriginalRecipient>,
    /// ENVID (RFC 3461 §4.4).
    pub envelope_id: Option<String>,
    /// RET (RFC 3461 §4.3).
    pub return_content: Option<String>,
    /// From.
    pub from: Vec<Mailbox>,
    /// Reply-To.
    pub reply_to: Vec<Mailbox>,
    /// Sender.
    pub sender: Vec<Mailbox>,
    /// Mail-Followup-To.
    pub mail_followup_to: Vec<Mailbox>,
    /// To.
    pub to: Vec<Mailbox>,
    /// Cc.
    pub cc: Vec<Mailbox>,
    /// Message-ID as seen here, without its angle brackets.
    pub message_id: Option<String>,
    /// In-Reply-To.
    pub in_reply_to: Vec<String>,
    /// References, oldest first.
    pub references: Vec<String>,
    /// Subject, decoded.
    pub subject: String,
    /// Content-Language.
    pub language: Option<String>,
    /// Whether a machine sent it (RFC 3834 Auto-Submitted, Precedence, a list): no automatic answer.
    pub automatic: bool,
    /// Authentication verdicts, as `method=result`.
    pub verdicts: Vec<String>,
    /// Whether the content holds 8-bit bytes (RFC 6152).
    pub body_8bit: bool,
    /// Bytes of trace headers that were put before the content here.
    pub trace_bytes: u32,
    /// Length of trace headers and content in bytes.
    pub size: u64,
    /// BLAKE3 of trace headers and content.
    pub body: [u8; 32],
}
crate::row!(Origin, 1);

impl Origin {
    /// Where a reply goes: Reply-To, else From; never a retyped address.
    pub fn reply_addresses(&self) -> &[Mailbox] {
        if self.reply_to.is_empty() { &self.from } else { &self.reply_to }
    }
}
