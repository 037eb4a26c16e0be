//! What became of a message, recipient by recipient.

use crate::smtp::Enhanced;

use super::reply::HostReply;

/// Octets kept of a host's text.
pub const TEXT_BYTES_MAX: usize = 512;

/// TLS is required, and the host does not offer it, or refuses it for good (RFC 3463: encryption needed).
pub(super) const TLS_NEEDED: Enhanced = Enhanced(4, 7, 10);

/// Whether it is worth another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The host answers for it from now on.
    Delivered,
    /// Not now.
    Temporary,
    /// Not ever.
    Permanent,
}

/// What a host, or we, had to say about a recipient or a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Whether it is worth another try.
    pub class: Class,
    /// The host's reply code; `None` when the words are ours.
    pub code: Option<u16>,
    /// The enhanced code: the host's, or the one that says it best (RFC 3463).
    pub enhanced: Enhanced,
    /// What the host said word for word, beginning with its code, or our reason: one line of at most [`TEXT_BYTES_MAX`] octets without control characters.
    pub text: String,
    /// The end of the content (the final dot, or the last chunk) was sent and its reply never came: the host may have taken the message.
    pub in_doubt: bool,
}

impl Status {
    /// A refusal of our own making.
    pub fn ours(class: Class, enhanced: Enhanced, text: &str) -> Self {
        Self { class, code: None, enhanced, text: sanitised(text), in_doubt: false }
    }

    /// What a reply means for the recipients it speaks of. A code that makes no sense where it stands
    /// is not taken for a yes or a no.
    pub(super) fn of(reply: &HostReply) -> Self {
        let (class, digit) = match reply.code {
            200..300 => (Class::Delivered, 2),
            500..600 => (Class::Permanent, 5),
            _ => (Class::Temporary, 4),
        };
        Self {
            class,
            code: Some(reply.code),
            enhanced: reply.enhanced.unwrap_or(Enhanced(digit, 0, 0)),
            text: sanitised(&reply.text()),
            in_doubt: false,
        }
    }

    /// The same where a yes means nothing: what is not a refusal is something to try again.
    pub(super) fn into_refusal(self) -> Self {
        if self.class == Class::Delivered { self.into_temporary() } else { self }
    }

    /// Whether the host is one without TLS, which it had to have.
    pub fn lacks_tls(&self) -> bool {
        self.code.is_none() && self.enhanced == TLS_NEEDED
    }

    /// The same, as something to try again.
    pub fn into_temporary(self) -> Self {
        let Enhanced(_, subject, detail) = self.enhanced;
        Self { class: Class::Temporary, enhanced: Enhanced(4, subject, detail), ..self }
    }
}

/// What became of one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Its place in the message's list, from 0.
    pub recipient: usize,
    /// What was said.
    pub status: Status,
    /// The host has taken it, and has been told what the sender wants to hear of it (RFC 3461): it reports.
    pub host_reports: bool,
}

fn sanitised(text: &str) -> String {
    let mut text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    text
}
