//! The origin of a message: the immutable record, made once where it enters, of all that a reply,
//! an amend or a report will need and that SMTP and POP3 lose on the way.

use rkyv::{Archive, Deserialize, Serialize};

use crate::notify::{Notify, Return, is_envelope_id, is_original_recipient};
use crate::tls_wish::TlsWish;

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
    /// Picked up from an inside gateway's folder.
    Gateway {
        /// The gateway.
        name: String,
    },
}

/// One original recipient (RFC 5321 §3.3, RFC 3461 §4).
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct OriginalRecipient {
    /// The forward-path as given.
    pub address: String,
    /// ORCPT, [decoded](crate::notify::original_recipient), if given.
    pub original: Option<String>,
    /// NOTIFY, as [`Notify`] writes it, if given.
    pub notify: Option<String>,
}

impl OriginalRecipient {
    /// One of whom nothing is asked.
    pub fn new(address: impl Into<String>) -> Self {
        Self { address: address.into(), original: None, notify: None }
    }

    /// What is asked of it. What cannot be read counts for nothing here, nor in the other wishes: an edge wrote it.
    pub fn asked(&self) -> Option<Notify> {
        self.notify.as_ref()?.parse().ok()
    }

    /// The recipient that the sender named, if there is one that can be told.
    pub fn named(&self) -> Option<&str> {
        self.original.as_deref().filter(|original| is_original_recipient(original))
    }
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
    /// What its sender wishes of TLS (RFC 8689).
    pub tls_wish: TlsWish,
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
    /// Authentication verdicts, as [`crate::verdict`] has them.
    pub verdicts: Vec<String>,
    /// Whether the content holds 8-bit bytes (RFC 6152).
    pub body_8bit: bool,
    /// Whether the header holds UTF-8 under a declared SMTPUTF8 (RFC 6531): it cannot go to a host that
    /// does not offer that.
    pub utf8_header: bool,
    /// Bytes of trace headers that were put before the content here.
    pub trace_bytes: u32,
    /// Length of trace headers and content in bytes.
    pub size: u64,
    /// BLAKE3 of trace headers and content.
    pub body: [u8; 32],
}
crate::row!(Origin, 2);

/// Octets kept of a list of mailboxes or Message-IDs, and of the two long ones, To and Cc.
const LIST_BYTES_MAX: usize = 8 * 1024;
const LONG_LIST_BYTES_MAX: usize = 32 * 1024;
/// What the frame of one entry counts for.
const ENTRY_BYTES: usize = 32;
/// Octets of all recipients of one message together, what is asked of them included: with the lists of its header they have to fit the
/// head of one unit.
pub const RECIPIENTS_BYTES_MAX: usize = 96 * 1024;

fn cut<T>(list: &mut Vec<T>, bytes_max: usize, bytes: impl Fn(&T) -> usize) {
    let mut left = bytes_max;
    let fits = list.iter().take_while(|entry| {
        let needed = bytes(entry) + ENTRY_BYTES;
        let fits = needed <= left;
        left = left.saturating_sub(needed);
        fits
    });
    let fit = fits.count();
    list.truncate(fit);
}

impl Origin {
    /// The same with lists no longer than a unit's head can carry. What strangers wrote into a header
    /// may be of any length.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        let mailbox = |mailbox: &Mailbox| mailbox.name.len() + mailbox.address.len();
        for list in [&mut self.from, &mut self.reply_to, &mut self.sender, &mut self.mail_followup_to] {
            cut(list, LIST_BYTES_MAX, mailbox);
        }
        for list in [&mut self.to, &mut self.cc] {
            cut(list, LONG_LIST_BYTES_MAX, mailbox);
        }
        cut(&mut self.verdicts, LIST_BYTES_MAX, String::len);
        cut(&mut self.in_reply_to, LIST_BYTES_MAX, String::len);
        // The newest references are what a thread is found by.
        self.references.reverse();
        cut(&mut self.references, LIST_BYTES_MAX, String::len);
        self.references.reverse();
        for text in [&mut self.message_id, &mut self.language] {
            text.take_if(|text| text.len() > LIST_BYTES_MAX);
        }
        self.subject.truncate(self.subject.floor_char_boundary(LIST_BYTES_MAX));
        self
    }

    /// How much of it a report of failure returns, if its sender has said so: of what has to go under TLS the header
    /// (RFC 8689 §5).
    pub fn returns(&self) -> Option<Return> {
        match self.tls_wish {
            TlsWish::Required => Some(Return::Headers),
            TlsWish::Unsaid | TlsWish::Dispensable => self.return_content.as_deref().and_then(Return::named),
        }
    }

    /// What its sender calls the transaction, if that can be told.
    pub fn named(&self) -> Option<&str> {
        self.envelope_id.as_deref().filter(|id| is_envelope_id(id))
    }

    /// Where a reply goes: Reply-To, else From; never a retyped address.
    pub fn reply_addresses(&self) -> &[Mailbox] {
        if self.reply_to.is_empty() { &self.from } else { &self.reply_to }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Row;

    #[test]
    fn no_header_makes_an_origin_too_long_for_a_unit() {
        let long = |n: usize| Mailbox { name: "\u{20ac}".repeat(n), address: "a@example.com".into() };
        let lists = [vec![long(100); 1000], vec![long(100_000)], vec![long(0); 100_000]];
        for list in lists {
            let recipient = OriginalRecipient {
                address: "x".repeat(40),
                original: Some("o".repeat(38)),
                notify: Some("n".repeat(18)),
            };
            let origin = Origin {
                channel: Channel::Report,
                accepted_at: 0,
                reverse_path: None,
                recipients: vec![recipient; RECIPIENTS_BYTES_MAX / 96],
                envelope_id: None,
                return_content: None,
                tls_wish: TlsWish::Unsaid,
                from: list.clone(),
                reply_to: list.clone(),
                sender: list.clone(),
                mail_followup_to: list.clone(),
                to: list.clone(),
                cc: list,
                message_id: Some("m".repeat(100_000)),
                in_reply_to: vec!["i".repeat(998); 100],
                references: (0..100).map(|n| format!("{n}{}", "r".repeat(990))).collect(),
                subject: "\u{20ac}".repeat(100_000),
                language: Some("l".repeat(100_000)),
                automatic: false,
                verdicts: vec!["v".repeat(300); 1000],
                body_8bit: false,
                utf8_header: false,
                trace_bytes: 0,
                size: 0,
                body: [0; 32],
            };
            let origin = origin.bounded();
            assert!(origin.encode().len() < 250_000, "{}", origin.encode().len());
            assert!(origin.references.last().is_some_and(|newest| newest.starts_with("99")));
            assert_eq!(origin.recipients.len(), RECIPIENTS_BYTES_MAX / 96, "those are never cut");
        }
    }
}
