//! Aggregate reports: what is counted of other domains in a day of UTC, and told to big when that is over, if they ask for
//! it in DNS (RFC 8460, RFC 7489 §7). `counts` is what is counted, `destination` what a domain asks for, `run` tells.
//!
//! The rows of a domain's day and the unit that tells of it never are there together: one commit takes the one away and
//! queues the other. Its id follows from the day and the domain, so what an edge tells twice, because it went back, is told
//! once.

mod counts;
mod destination;
mod run;

use std::net::IpAddr;

use shared::aggregate::DmarcFound;

pub use self::counts::{count_dmarc, count_tls};
pub use self::run::run;
#[cfg(feature = "sim")]
pub use self::run::tell_at_once;
use crate::delivery::is_public;

/// Whether what was found of a message may be told: not of one from our own network, whose addresses are nobody's business
/// unless mail goes to such addresses as well (`private`), nor what big would sign no report of.
pub fn is_told(found: &DmarcFound, private: bool) -> bool {
    let is_shown = |address: IpAddr| private || is_public(address);
    found.is_sound() && found.source.parse().is_ok_and(is_shown)
}

#[cfg(test)]
mod tests {
    use shared::aggregate::Handling;

    use super::*;

    #[test]
    fn mail_from_our_own_network_is_in_no_report() {
        for (source, private, expected) in [
            ("10.1.2.3", false, false),
            ("fd00::1", false, false),
            ("10.1.2.3", true, true),
            ("193.0.0.1", false, true),
            ("somewhere", true, false),
        ] {
            let found = DmarcFound {
                source: source.into(),
                disposition: Handling::None,
                dkim: false,
                spf: false,
                overridden: None,
                header_from: "a.example".into(),
                envelope_from: String::new(),
                signatures: Vec::new(),
                spf_domain: "a.example".into(),
                spf_of_helo: false,
                spf_result: "none".into(),
            };
            assert_eq!(is_told(&found, private), expected, "{source}");
        }
    }
}
