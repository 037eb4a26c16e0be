//! Directory harvesting: how many recipients who are not here a network has named within an hour, over all its sessions.
//!
//! One session ends after ten of them, and another one begins. This counts on, and whoever has named too many is told
//! nothing of anybody for the rest of the hour, so that a list of names cannot be tried from one place.
//!
//! Time comes in with each question. The counts are in memory: a restart forgives them.

use std::collections::HashMap;
use std::time::Duration;

use shared::smtp::{Enhanced, Reply, Verdict};

use crate::lockout::{Network, forget};

/// How long recipients are counted that a network has named, from the first one.
const COUNTED_FOR: Duration = Duration::from_secs(3_600);
/// Recipients who are not here that it may name meanwhile: more than a list with old addresses has of one site.
const NAMED_MAX: u32 = 50;
/// Networks that are counted: some MiB.
const NETWORKS_MAX: usize = 65_536;

#[derive(Debug)]
struct Count {
    named: u32,
    since: Duration,
}

/// The counts.
#[derive(Debug, Default)]
pub struct Harvest {
    counts: HashMap<Network, Count>,
}

impl Harvest {
    /// For how much longer a network is told nothing at `now`; `None` if it may ask.
    fn left(&self, network: Network, now: Duration) -> Option<Duration> {
        let count = self.counts.get(&network).filter(|count| count.named >= NAMED_MAX)?;
        let left = COUNTED_FOR.saturating_sub(now.saturating_sub(count.since));
        (!left.is_zero()).then_some(left)
    }

    /// Whether a stranger of that network may ask at `now` who is here, or what they are told instead.
    pub fn may_ask(&self, network: Network, now: Duration) -> Verdict {
        let Some(left) = self.left(network, now) else { return Ok(()) };
        let text = format!(
            "too many unknown recipients were named from {network}; send it again in {} minutes or later",
            left.as_secs().div_ceil(60)
        );
        Err(Reply::new(450, Enhanced(4, 7, 1), &text))
    }

    /// A stranger of that network has named somebody who is not here. Whether that was the last one that it may name, for
    /// the log.
    pub fn named(&mut self, network: Network, now: Duration) -> bool {
        // Whoever is behind a proxy here is not one network.
        if network == Network::Here {
            return false;
        }
        if self.counts.len() >= NETWORKS_MAX && !self.counts.contains_key(&network) {
            forget(&mut self.counts, NETWORKS_MAX, now.checked_sub(COUNTED_FOR), |count| Some(count.since));
        }
        let count = self.counts.entry(network).or_insert(Count { named: 0, since: now });
        if now.saturating_sub(count.since) >= COUNTED_FOR {
            *count = Count { named: 0, since: now };
        }
        count.named = count.named.saturating_add(1);
        count.named == NAMED_MAX
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn network(address: &str) -> Network {
        Network::of(address.parse().expect("an address"))
    }

    fn minutes(minutes: u64) -> Duration {
        Duration::from_secs(60 * minutes)
    }

    /// What a stranger is told there.
    fn told(harvest: &Harvest, address: &str, now: Duration) -> String {
        harvest.may_ask(network(address), now).map_or_else(|reply| reply.to_string(), |()| "ok".into())
    }

    #[test]
    fn who_has_named_fifty_who_are_not_here_is_told_nothing_for_the_rest_of_the_hour() {
        let mut harvest = Harvest::default();
        let last = |harvest: &mut Harvest, now| {
            // From all over the network, a session each.
            (1..=NAMED_MAX).map(|n| harvest.named(network(&format!("192.0.2.{n}")), now)).collect::<Vec<_>>()
        };
        let seen = last(&mut harvest, minutes(5));
        assert_eq!(seen.iter().position(|last| *last), Some(49), "said once, with the last one");
        let expected = "450 4.7.1 too many unknown recipients were named from 192.0.2.0/24; send it again in 60 minutes or later";
        assert_eq!(told(&harvest, "192.0.2.200", minutes(5)), expected);
        assert!(told(&harvest, "192.0.2.200", minutes(64)).contains("in 1 minutes"));
        for other in ["192.0.3.1", "2001:db8::1"] {
            assert_eq!(told(&harvest, other, minutes(5)), "ok");
        }
        // Another hour begins, with a count of its own.
        assert_eq!(told(&harvest, "192.0.2.200", minutes(65)), "ok");
        assert!(!harvest.named(network("192.0.2.1"), minutes(65)));
        assert_eq!(told(&harvest, "192.0.2.200", minutes(66)), "ok");
    }

    #[test]
    fn forty_nine_in_an_hour_are_no_harvest_however_many_hours() {
        let mut harvest = Harvest::default();
        for hour in 0..24 {
            for minute in 0..49 {
                assert!(!harvest.named(network("192.0.2.1"), minutes(60 * hour + minute)));
            }
        }
        assert_eq!(told(&harvest, "192.0.2.1", minutes(24 * 60 - 1)), "ok");
    }

    #[test]
    fn this_host_is_no_network() {
        let mut harvest = Harvest::default();
        assert!((0..100).all(|_| !harvest.named(network("127.0.0.1"), minutes(1))));
        assert_eq!((told(&harvest, "127.0.0.1", minutes(1)), harvest.counts.len()), ("ok".into(), 0));
    }

    #[test]
    fn so_many_networks_are_counted_and_the_oldest_are_forgotten() {
        let mut harvest = Harvest::default();
        let of = |n: u32| Network::of(IpAddr::from((0x0a00_0000 + (n << 8)).to_be_bytes()));
        for n in 0..2 * u32::try_from(NETWORKS_MAX).expect("small") {
            harvest.named(of(n), Duration::from_millis(n.into()));
            assert!(harvest.counts.len() <= NETWORKS_MAX);
        }
        assert!(!harvest.counts.contains_key(&of(0)) && harvest.counts.contains_key(&of(131_071)));
    }
}
