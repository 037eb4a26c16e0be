//! What is known of chunks at the hosts that offer CHUNKING, for a while: those where they fail get content by DATA, and others
//! need not be tried in each session. A state machine, which reads no clock.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use shared::smtp::client::Chunking;

/// How long a host is remembered.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// Hosts that are remembered, at most.
const HOSTS_MAX: usize = 1000;

/// What was found of each host, and when.
#[derive(Debug, Default)]
pub struct Hosts {
    found: BTreeMap<SocketAddr, (Chunking, Duration)>,
}

impl Hosts {
    /// What is known of a host at `now`.
    pub fn known(&self, host: &SocketAddr, now: Duration) -> Chunking {
        let fresh = self.found.get(host).filter(|(_, since)| now.saturating_sub(*since) < KEPT);
        fresh.map(|(found, _)| *found).unwrap_or_default()
    }

    /// That is what a session has found at `now`. What was known already is no finding; for a host too many the oldest is forgotten.
    pub fn note(&mut self, host: SocketAddr, found: Chunking, now: Duration) {
        if found == Chunking::Untried || found == self.known(&host, now) {
            return;
        }
        self.found.insert(host, (found, now));
        if self.found.len() > HOSTS_MAX {
            let oldest = self.found.iter().min_by_key(|(_, (_, since))| *since).map(|(host, _)| *host);
            oldest.map(|oldest| self.found.remove(&oldest));
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
    fn what_is_found_is_known_for_a_bounded_time() {
        let (mut hosts, at) = (Hosts::default(), Duration::from_secs);
        assert_eq!(hosts.known(&host(1), at(0)), Chunking::Untried);
        for (found, since) in [(Chunking::Works, at(5)), (Chunking::Fails, at(10))] {
            hosts.note(host(1), found, since);
            // Who does as is known is asked again all the same, some time.
            hosts.note(host(1), found, since + at(5));
            assert_eq!(hosts.known(&host(1), since + KEPT - at(1)), found);
            assert_eq!(hosts.known(&host(1), since + KEPT), Chunking::Untried);
            assert_eq!(hosts.known(&host(2), since), Chunking::Untried);
        }
    }

    #[test]
    fn the_oldest_goes_for_one_too_many() {
        let (mut hosts, at) = (Hosts::default(), Duration::from_secs);
        for number in 1..=HOSTS_MAX + 1 {
            hosts.note(host(number), Chunking::Works, at(number as u64));
        }
        let now = at(HOSTS_MAX as u64 + 2);
        assert_eq!(hosts.found.len(), HOSTS_MAX);
        let known = [1, 2, HOSTS_MAX + 1].map(|number| hosts.known(&host(number), now));
        assert_eq!(known, [Chunking::Untried, Chunking::Works, Chunking::Works]);
    }
}
