//! Close codes: whose fault it is that a connection ends, said to the other end.
//!
//! What a code says of the partner is the partner's word. Its text is cut and cleaned before anybody reads
//! it; ours never holds what this node's store or system said, which is nobody's business outside.

use std::fmt;

use quinn::{Connection, VarInt};

use super::LinkError;
use crate::session::SessionError;

/// Characters of a close's reason, in both directions.
const CLOSE_REASON_MAX: usize = 160;

/// Why a node closed a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CloseCode {
    /// Nobody's fault: the session is over, or the node ends.
    Ended = 0,
    /// Nobody's fault: a newer connection took over.
    Superseded = 1,
    // 2 is a stream given up before its end; see `BROKEN`.
    /// An operator at the closing end holds the link.
    Held = 3,
    /// The fault of the end that is told: its hello was refused; REFUSED has said why.
    Refused = 4,
    /// The fault of the end that is told: it broke the protocol.
    Protocol = 5,
    /// The fault of the closing end: its node could not go on.
    Node = 6,
    /// The fault of the end that is told: it did not complete the opening in time.
    OpeningTime = 7,
    /// The fault of the end that is told: it does not read what it is sent.
    NotRead = 8,
    /// An operator has to decide: it is not the key, store or version that the closing end knows.
    Stranger = 9,
}

impl CloseCode {
    /// Every code.
    pub const ALL: [Self; 9] = [
        Self::Ended,
        Self::Superseded,
        Self::Held,
        Self::Refused,
        Self::Protocol,
        Self::Node,
        Self::OpeningTime,
        Self::NotRead,
        Self::Stranger,
    ];

    /// The code with which a connection is closed that ends like that.
    pub(super) fn of(error: &LinkError) -> Self {
        match error {
            LinkError::Session(error) => match error {
                SessionError::OpeningTime => Self::OpeningTime,
                SessionError::Unexpected(_) | SessionError::Violation { .. } | SessionError::BodyNotSent => {
                    Self::Protocol
                }
                SessionError::Refused(_) => Self::Refused,
                SessionError::Version { .. }
                | SessionError::NotPaired
                | SessionError::WrongKey
                | SessionError::FormerKey
                | SessionError::WrongStore(_) => Self::Stranger,
                SessionError::RefusedBy(_) => Self::Ended,
                SessionError::Store { .. } => Self::Node,
            },
            LinkError::Frame(_) | LinkError::Streams => Self::Protocol,
            LinkError::Host(_) | LinkError::Socket { .. } => Self::Node,
            LinkError::Superseded => Self::Superseded,
            LinkError::Held => Self::Held,
            LinkError::NotRead => Self::NotRead,
            LinkError::Tls(_) => Self::Stranger,
            LinkError::NotAdmitted
            | LinkError::Rekeyed
            | LinkError::Lost(_)
            | LinkError::NoAnswer(_)
            | LinkError::TicketExpired
            | LinkError::Closed { .. }
            | LinkError::NotTaken => Self::Ended,
        }
    }

    /// The code of that number, if there is one.
    fn from_number(number: VarInt) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.number() == number)
    }

    /// Its number on the wire.
    pub(super) fn number(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ended => "the session is over",
            Self::Superseded => "a newer connection took over",
            Self::Held => {
                "an operator there holds the link closed; `link release` there lets it come up again"
            }
            Self::Refused => "it refused this node",
            Self::Protocol => "it says that this node broke the protocol",
            Self::Node => "it could not go on; its own log says why",
            Self::OpeningTime => "it says that this node did not complete the opening in time",
            Self::NotRead => "it says that this node does not read what it is sent",
            Self::Stranger => {
                "this is not the key, store or version that it knows; its own `link status` says more"
            }
        })
    }
}

/// Closes a connection that ends with `error`, and says whose fault that is.
pub(super) fn close(connection: &Connection, error: &LinkError) {
    let code = CloseCode::of(error);
    // What broke the protocol is the partner's own doing; anything else might tell it of this node.
    let reason = if code == CloseCode::Protocol { error.to_string() } else { String::new() };
    connection.close(code.number(), cleaned(reason.as_bytes()).as_bytes());
}

/// What the partner's close means to this node.
pub(super) fn read(number: VarInt, reason: &[u8]) -> LinkError {
    match CloseCode::from_number(number) {
        Some(CloseCode::Superseded) => LinkError::Superseded,
        code => LinkError::Closed { code, reason: cleaned(reason) },
    }
}

/// Printable ASCII, and not much of it.
fn cleaned(reason: &[u8]) -> String {
    let printable = |byte: &u8| matches!(byte, b' '..=b'~');
    reason
        .iter()
        .filter(|byte| printable(byte))
        .take(CLOSE_REASON_MAX)
        .map(|byte| char::from(*byte))
        .collect()
}

/// What a close said, as part of a sentence.
pub(super) struct Said<'a>(pub(super) &'a Option<CloseCode>, pub(super) &'a str);

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(code) => write!(f, "{code}")?,
            None => f.write_str("for a reason that this version does not know")?,
        }
        if self.1.is_empty() { Ok(()) } else { write!(f, " ({})", self.1) }
    }
}
