//! Inside gateways: mail that big hands to other mail systems itself, by LMTP, SMTP or files.
//!
//! `queue` holds what waits, as rows; `runner` attempts what is due, and commits each attempt's result; `attempt`
//! is one conversation, `dropped` one message as files. `pickup` is the way back from such files,
//! `hop` its trace.

mod attempt;
mod dropped;
mod hop;
mod pickup;
pub mod queue;
mod runner;

pub use hop::picked_up;
#[cfg(test)]
pub use pickup::pick_up;
pub use pickup::run as pick_up_all;
#[cfg(test)]
pub use runner::hand_over;
pub use runner::run;
