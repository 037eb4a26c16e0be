//! Inside gateways: mail that big hands to other mail systems itself, by LMTP, SMTP or files.
//!
//! `queue` holds what waits, as rows; `runner` attempts what is due, and commits each attempt's result; `attempt`
//! is one conversation, `dropped` one message as files.

mod attempt;
mod dropped;
pub mod queue;
mod runner;
#[cfg(test)]
mod tests;

pub use runner::run;
