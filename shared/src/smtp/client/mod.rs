//! The client's side of SMTP (RFC 5321, 1870, 2920, 3030, 3207, 3461, 4954, 6152, 6531) and LMTP (RFC 2033): one connection
//! to one host.
//!
//! A [`Client`] is a state machine: bytes and content in, [`Action`]s out. It opens no socket, resolves
//! no name and reads no clock; a driver ([`converse`]) connects, moves its bytes, does the TLS handshake and
//! reads the message. What it keeps:
//!
//! - every recipient gets exactly one [`Outcome`], with the remote's own code and text made safe;
//! - delivered is only what a 2yz after the end of the content says, in LMTP the one for that recipient; if the
//!   connection is lost in between, the outcome is temporary and *in doubt*;
//! - content goes in chunks to a host that offers CHUNKING and has taken one of one octet in this session (`chunks`), and by DATA to
//!   any other; no chunk goes before the one before it was taken;
//! - nothing the host said before TLS is believed after it, and nothing may follow its reply to STARTTLS;
//! - content is never altered, but that a Return-Path at its head stays here (RFC 5321 §4.4): what the host
//!   cannot take (8-bit, UTF-8 addresses) comes back as a permanent outcome with the reason;
//! - a session that was used before and ends before a message's MAIL is answered has not attempted that message;
//! - what the sender wants to be told goes to a host that offers DSN as it came, and to no other one;
//! - a host's replies are bounded in lines and octets, and one that breaks the rules is left.

mod chunks;
mod converse;
mod login;
mod outcome;
mod outgoing;
mod reply;
mod session;
mod tls;
mod transaction;
mod wish;

#[cfg(test)]
mod tests;

pub use chunks::NoChunks;
pub use converse::{Host, Session, Talk, connect, converse, unreachable};
pub use outcome::{Class, Outcome, Status, TEXT_BYTES_MAX};
pub use reply::{LINE_BYTES_MAX, LINES_MAX, ReplyError};
pub use session::{Action, Client, Config, Message, PIPELINE_MAX, Protocol, TlsPolicy};
pub use tls::{ByName, Judge, in_words, judged, opportunistic, result_type, verified};
pub use transaction::{REQUIRETLS_NEEDED, is_of_offer};
pub use wish::is_of_wish;
