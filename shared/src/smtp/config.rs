//! What a session is told about itself, and the limits it keeps.

use std::time::Duration;

use crate::address::{Address, Domain};

/// Octets in a command line without its CRLF. RFC 5321 §4.5.3.1.4 gives 512, to which SMTPUTF8,
/// SIZE and others add.
pub const COMMAND_BYTES_MAX: usize = 2_048;
/// Commands that were refused for their form, name or order, after which the session ends.
pub const BAD_COMMANDS_MAX: u32 = 20;
/// Commands between two messages that bring no message nearer (NOOP, RSET, EHLO, VRFY …, and a MAIL that is refused);
/// those over it count as bad.
pub const IDLE_COMMANDS_MAX: u32 = 100;
/// Recipients refused for good in one session, on the reception side, after which it ends: more is
/// somebody who guesses names.
pub const UNKNOWN_RECIPIENTS_MAX: u32 = 10;
/// Recipients of one session, over the limit or refused for what the client is or for now, after which it ends.
pub const RECIPIENTS_REFUSED_MAX: u32 = 1_000;
/// Errors of a client (bad commands, unknown recipients) from which on each one is answered later.
pub const ERRORS_AT_ONCE_MAX: u32 = 5;
/// How much later.
pub const ERROR_PAUSE: Duration = Duration::from_secs(1);
/// Failed logins in one session.
pub const LOGIN_FAILURES_MAX: u32 = 3;
/// Octets of replies that are collected before they are sent.
pub const REPLIES_BYTES_MAX: usize = 16 * 1024;

/// How long a client may take for its first command, and for the rest of a line it has begun.
pub const LINE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long content may come at less than [`DATA_BYTES_PER_SECOND_MIN`].
pub const DATA_GRACE: Duration = Duration::from_secs(60);
/// The slowest that content may come, after [`DATA_GRACE`].
pub const DATA_BYTES_PER_SECOND_MIN: u64 = 500;

/// Which service a session gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Port 25: mail for us, from anybody. AUTH does not exist here.
    Reception,
    /// Ports 587 and 465: mail from our own people (RFC 6409). Nothing is taken before TLS and AUTH.
    Submission,
}

/// The limits on a message's content; each refusal names the one it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentLimits {
    /// Octets of content; offered as SIZE.
    pub bytes_max: u64,
    /// Octets of a line without its CRLF (RFC 5321 §4.5.3.1.6).
    pub line_bytes_max: usize,
    /// Octets of the header.
    pub header_bytes_max: usize,
    /// Fields in the header.
    pub fields_max: usize,
    /// Received fields: a message with more goes round in a loop (RFC 5321 §6.3).
    pub hops_max: usize,
}

impl Default for ContentLimits {
    fn default() -> Self {
        Self {
            bytes_max: 50 * 1024 * 1024,
            line_bytes_max: 998,
            header_bytes_max: 256 * 1024,
            fields_max: 1_000,
            hops_max: 50,
        }
    }
}

/// What all sessions of one listener have in common.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our name, for the greeting.
    pub hostname: Domain,
    /// Which service this is.
    pub role: Role,
    /// Whom `RCPT TO:<Postmaster>` without a domain means (RFC 5321 §4.5.1).
    pub postmaster: Address,
    /// Whether STARTTLS is offered on a session that began in the clear.
    pub starttls: bool,
    /// Whether BINARYMIME is offered (RFC 3030 §3): its binary parts are taken in base64.
    pub binarymime: bool,
    /// Recipients of one message (RFC 5321 §4.5.3.1.8 wants at least 100).
    pub recipients_max: usize,
    /// The limits on a message's content.
    pub content: ContentLimits,
    /// How long a client may be silent between commands (RFC 5321 §4.5.3.2.7: at least 5 minutes).
    pub idle_timeout: Duration,
    /// How long one message's content may take in all.
    pub data_timeout: Duration,
}

impl Config {
    /// A service with STARTTLS and the default limits.
    pub fn new(role: Role, hostname: Domain, postmaster: Address) -> Self {
        Self {
            hostname,
            role,
            postmaster,
            starttls: true,
            binarymime: false,
            recipients_max: 1_000,
            content: ContentLimits::default(),
            idle_timeout: Duration::from_secs(300),
            data_timeout: Duration::from_secs(600),
        }
    }
}
