//! The envelope of a message (RFC 5321 §2.3.1), as a session hands it over with the content.

use crate::address::Address;

/// What the client said about a message outside of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Where failures are reported; `None` is the null reverse-path `<>`.
    pub reverse_path: Option<Address>,
    /// The accepted forward-paths, in order, as often as the client named them.
    pub recipients: Vec<Address>,
    /// `BODY=8BITMIME` was declared (RFC 6152).
    pub body_8bit: bool,
    /// `SMTPUTF8` was declared (RFC 6531).
    pub smtputf8: bool,
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
