//! Sallypost's peer link: LU6.2's idea on today's transport.
//!
//! The core ([`session`]) is a state machine: frames and answers in, frames and requests out. It
//! opens no socket, reads no clock, rolls no dice, and knows no mail: a unit is a number, an id, a
//! head of opaque bytes and perhaps a body of opaque bytes. The `driver` feature adds the thin shell
//! that moves its frames over QUIC and calls the node's [`host::Host`].
//!
//! The core rule: **the receiver commits a batch's effects and its own position in the same
//! transaction.** At-least-once sending then becomes exactly-once storing.
//!
//! `docs/PROTOCOL.md` has every frame, state, limit and close code as tables; tests hold it against the code.

#[cfg(feature = "driver")]
pub mod driver;
pub mod frame;
pub mod host;
pub mod session;
pub mod spki;
pub mod ticket;
pub mod unit;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
