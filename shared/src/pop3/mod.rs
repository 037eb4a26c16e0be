//! The server's side of POP3 (RFC 1939, 2449, 2595, 3206, 5034, 6856).
//!
//! A [`Session`] is one connection as a state machine: bytes and answers in, [`Action`]s out. It opens
//! no socket, reads no clock and keeps no mail; a driver moves its bytes, checks credentials, locks the
//! maildrop, reads messages and commits. What it keeps:
//!
//! - no credentials outside TLS, and nothing carried across STLS;
//! - the maildrop as it was at the login, until the end of the session;
//! - deletion only at QUIT, and +OK for it only as the answer to [`Session::committed`];
//! - a named limit on every count, length and wait. Answers of any length are written piece by piece.
//!
//! APOP is not spoken: it needs the password in the clear on the server. A client that has not said UTF8 gets
//! headers in ASCII (`ascii_header` says why and how); bodies are what they are.

mod ascii_header;
mod command;
mod maildrop;
mod session;
mod transaction;

#[cfg(test)]
mod tests;

pub use maildrop::Entry;
pub use session::{
    Action, BAD_COMMANDS_MAX, COMMAND_BYTES_MAX, Config, Expire, IDLE_TIMEOUT, LINE_TIMEOUT,
    LOGIN_FAILURES_MAX, LOGIN_TIMEOUT, LoginRefusal, Opened, REPLIES_BYTES_MAX, Session,
};
pub use transaction::End;
