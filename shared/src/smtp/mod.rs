//! SMTP. [`client`] is the side that delivers; the rest is the server's: reception and submission (RFC 5321, 6409, 1870, 2920,
//! 3030, 3207, 3461 (DSN), 4954, 6152, 6531, 9422).
//!
//! A [`Session`] is one connection as a state machine: bytes and answers in, [`Action`]s out. It opens
//! no socket, reads no clock and stores nothing; a driver moves its bytes, asks the directory, opens
//! and commits bodies. What it keeps:
//!
//! - one reading of every line or none (see [`crate::wire`]), so nothing can be smuggled;
//! - 250 for a message only as the answer to [`Session::completed`], which the driver gives once the
//!   message is durable;
//! - a transaction that every outcome uses up, so nothing of it reaches the next;
//! - nothing carried across STARTTLS, and no AUTH outside TLS;
//! - a named limit on every count, length and wait.

pub mod client;
mod command;
mod config;
mod content;
mod dialogue;
mod envelope;
mod reply;
mod session;
mod trace;

#[cfg(test)]
pub(crate) mod tests;

pub use config::*;
pub use content::Facts;
pub use envelope::{BodyType, Envelope, Recipient};
pub use reply::{Enhanced, NotEnhanced, Reply};
pub use session::{Action, Refused, Session, Verdict};
pub use trace::{date, received, received_by_itself, return_path};
