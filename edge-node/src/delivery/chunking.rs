//! The hosts that offer CHUNKING and get content by DATA all the same for a while, for a chunk came to nothing there. A state machine,
//! which reads no clock.
//!
//! That a host takes chunks is not remembered: another machine may answer at the same address next time.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// How long a host is remembered.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// Hosts that are remembered, at most.
const HOSTS_MAX: usize = 1000;

/// The hosts, and since when.
#[derive(Debug, Default)]
pub struct ByData {
    hosts: BTreeMap<SocketAddr, Duration>,
}

impl ByData {
    /// Whether content goes to this host by DATA at `now`.
    pub fn has(&self, host: &SocketAddr, now: Duration) -> bool {
        self.hosts.get(host).is_some_and(|since| now.saturating_sub(*since) < KEPT)
    }

    /// A chunk came to nothing there at `now`. For a host too many the oldest is forgotten.
    pub fn note(&mut self, host: SocketAddr, now: Duration) {
        self.hosts.insert(host, now);
        if self.hosts.len() > HOSTS_MAX {
            let oldest = self.hosts.iter().min_by_key(|(_, since)| **since).map(|(host, _)| *host);
            oldest.map(|oldest| self.hosts.remove(&oldest));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(port: usize) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], u16::try_from(port).expect("a port")))
    }

    #[test]
    fn a_host_is_remembered_for_a_bounded_time() {
        let (mut hosts, at) = (ByData::default(), Duration::from_secs);
        assert!(!hosts.has(&host(1), at(0)));
        for since in [at(5), at(100_000)] {
            hosts.note(host(1), since);
            assert!(hosts.has(&host(1), since + KEPT - at(1)));
            assert!(!hosts.has(&host(1), since + KEPT) && !hosts.has(&host(2), since));
        }
    }

    #[test]
    fn the_oldest_goes_for_one_too_many() {
        let (mut hosts, at) = (ByData::default(), Duration::from_secs);
        for number in 1..=HOSTS_MAX + 1 {
            hosts.note(host(number), at(number as u64));
        }
        let now = at(HOSTS_MAX as u64 + 2);
        assert_eq!(hosts.hosts.len(), HOSTS_MAX);
        assert_eq!([1, 2, HOSTS_MAX + 1].map(|number| hosts.has(&host(number), now)), [false, true, true]);
    }
}
