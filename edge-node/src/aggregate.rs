//! Aggregate reports: what is counted of other domains in a day of UTC, and told to big when that is over, if they ask for
//! it in DNS (RFC 8460, RFC 7489 §7). `counts` is what is counted, `destination` what a domain asks for, `run` tells.
//!
//! The rows of a domain's day and the unit that tells of it never are there together: one commit takes the one away and
//! queues the other. Its id follows from the day and the domain, so what an edge tells twice, because it went back, is told
//! once.

mod counts;
mod destination;
mod run;

pub use counts::{count_dmarc, count_tls};
pub use run::run;
#[cfg(feature = "sim")]
pub use run::tell_at_once;
