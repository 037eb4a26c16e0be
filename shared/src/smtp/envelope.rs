//! The envelope of a message (RFC 5321 §2.3.1), as a session hands it over with the content.

use std::fmt;

use crate::address::Address;
use crate::notify::{Notify, Return};

/// A forward-path, and what its sender wants to be told of that recipient (RFC 3461).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// The address.
    pub address: Address,
    /// NOTIFY, if it was given.
    pub notify: Option<Notify>,
    /// ORCPT, if it was given, [decoded](crate::notify::original_recipient).
    pub original: Option<String>,
}

impl From<Address> for Recipient {
    /// One of whom nothing is asked.
    fn from(address: Address) -> Self {
        Self { address, notify: None, original: None }
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// What a message's content is said to be (RFC 6152 §2, RFC 3030 §3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyType {
    /// Lines of ASCII, or nothing was said.
    #[default]
    SevenBit,
    /// Lines of octets.
    EightBit,
    /// Octets.
    Binary,
}

impl BodyType {
    /// The type that BODY calls so, in whatever case.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name.to_ascii_uppercase().as_str() {
            "7BIT" => Some(Self::SevenBit),
            "8BITMIME" => Some(Self::EightBit),
            "BINARYMIME" => Some(Self::Binary),
            _ => None,
        }
    }
}

/// What the client said about a message outside of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Where failures are reported; `None` is the null reverse-path `<>`.
    pub reverse_path: Option<Address>,
    /// The accepted forward-paths, in order, as often as the client named them.
    pub recipients: Vec<Recipient>,
    /// RET, if it was given: how much of the message a report of failure returns.
    pub returns: Option<Return>,
    /// ENVID, if it was given, decoded: what the sender calls this transaction.
    pub envelope_id: Option<String>,
    /// `BODY=`: what the content was declared to be.
    pub body: BodyType,
    /// `SMTPUTF8` was declared (RFC 6531).
    pub smtputf8: bool,
    /// `REQUIRETLS` was declared (RFC 8689).
    pub require_tls: bool,
    /// `SIZE=`, in octets: a claim, not a fact (RFC 1870).
    pub size: Option<u64>,
    /// The name given with HELO or EHLO: printable ASCII, otherwise unchecked.
    pub helo: String,
    /// The client said EHLO rather than HELO.
    pub esmtp: bool,
    /// The session was encrypted.
    pub tls: bool,
    /// Who submitted it, when the session was authenticated.
    pub authenticated: Option<String>,
}

impl Envelope {
    /// The protocol's name for the Received header (RFC 3848, RFC 6531 §4.3).
    pub fn protocol(&self) -> &'static str {
        match (self.smtputf8, self.tls, self.authenticated.is_some()) {
            _ if !self.esmtp => "SMTP",
            (false, false, false) => "ESMTP",
            (false, false, true) => "ESMTPA",
            (false, true, false) => "ESMTPS",
            (false, true, true) => "ESMTPSA",
            (true, false, false) => "UTF8SMTP",
            (true, false, true) => "UTF8SMTPA",
            (true, true, false) => "UTF8SMTPS",
            (true, true, true) => "UTF8SMTPSA",
        }
    }
}
