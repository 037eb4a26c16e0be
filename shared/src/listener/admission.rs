//! How many connections there may be, in all, from one host and from the strangers of one network.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bits of an IPv4 address that count as one network: what one customer mostly has.
pub const IPV4_NETWORK_BITS: u32 = 24;
/// Bits of an IPv6 address that count as one network, and as one host: the smallest network anyone is given.
pub const IPV6_NETWORK_BITS: u32 = 64;

/// Counts the sessions of a service, over all its listeners.
#[derive(Debug)]
pub struct Admission {
    sessions_max: usize,
    per_host_max: usize,
    kept: Option<Kept>,
    counts: Mutex<Counts>,
}

/// What is kept for clients that are known, however many others come.
pub struct Kept {
    /// The last places of all are for them.
    pub places: usize,
    /// Sessions at once from hosts of one [`network`] that are not known.
    pub others_per_network_max: usize,
    /// Whether the [`host`] of an address is known.
    pub is_known: Box<dyn Fn(IpAddr) -> bool + Send + Sync>,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} places, others {} of a network", self.places, self.others_per_network_max)
    }
}

#[derive(Debug, Default)]
struct Counts {
    sessions: usize,
    /// One entry per host with a session: no more entries than sessions.
    hosts: HashMap<IpAddr, usize>,
    /// The same of networks, and of sessions of hosts that were not known when they came.
    networks: HashMap<IpAddr, usize>,
}

fn of(counts: &HashMap<IpAddr, usize>, whose: IpAddr) -> usize {
    counts.get(&whose).copied().unwrap_or(0)
}

fn one_less(counts: &mut HashMap<IpAddr, usize>, whose: IpAddr) {
    if let Some(count) = counts.get_mut(&whose) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&whose);
        }
    }
}

impl Admission {
    /// Admits `sessions_max` at once, of them `per_host_max` from one [`host`].
    pub fn new(sessions_max: usize, per_host_max: usize) -> Arc<Self> {
        Arc::new(Self { sessions_max, per_host_max, kept: None, counts: Mutex::default() })
    }

    /// The same, of which some is kept for clients that are known.
    pub fn keeping(sessions_max: usize, per_host_max: usize, kept: Kept) -> Arc<Self> {
        Arc::new(Self { sessions_max, per_host_max, kept: Some(kept), counts: Mutex::default() })
    }

    /// A permit for one session from `address`, or `None` over a limit.
    pub fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Permit> {
        let host = host(address);
        let kept = self.kept.as_ref().filter(|kept| !(kept.is_known)(address));
        // A stranger is counted with those near them, a peer by itself.
        let strangers = kept.map(|kept| (network(address), kept));
        let mut counts = self.counts();
        let left = self.sessions_max.saturating_sub(counts.sessions);
        let has_place = left > 0 && of(&counts.hosts, host) < self.per_host_max;
        let has_share = strangers.is_none_or(|(network, kept)| {
            left > kept.places && of(&counts.networks, network) < kept.others_per_network_max
        });
        if !has_place || !has_share {
            return None;
        }
        let network = strangers.map(|(network, _)| network);
        counts.sessions += 1;
        *counts.hosts.entry(host).or_default() += 1;
        if let Some(network) = network {
            *counts.networks.entry(network).or_default() += 1;
        }
        Some(Permit { admission: self.clone(), host, network })
    }

    /// Sessions now.
    pub fn sessions(&self) -> usize {
        self.counts().sessions
    }

    fn leave(&self, host: IpAddr, network: Option<IpAddr>) {
        let mut counts = self.counts();
        counts.sessions -= 1;
        one_less(&mut counts.hosts, host);
        if let Some(network) = network {
            one_less(&mut counts.networks, network);
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // No panic can leave the counts half changed.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One admitted session; its place comes free when this is dropped.
#[derive(Debug)]
pub struct Permit {
    admission: Arc<Admission>,
    host: IpAddr,
    /// Of a stranger.
    network: Option<IpAddr>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission.leave(self.host, self.network);
    }
}

/// The host that an address is: an IPv4 address by itself, an IPv6 one with its /64, by its first address.
pub fn host(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        v4 @ IpAddr::V4(_) => v4,
        v6 => network(v6),
    }
}

/// The network that an address is counted with, by its first address: an IPv4 /24 or an IPv6 /64.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let host_bits = u32::BITS - IPV4_NETWORK_BITS;
            Ipv4Addr::from_bits(v4.to_bits() >> host_bits << host_bits).into()
        }
        IpAddr::V6(v6) => {
            let host_bits = u128::BITS - IPV6_NETWORK_BITS;
            Ipv6Addr::from_bits(v6.to_bits() >> host_bits << host_bits).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_counted_in_all_and_by_host() {
        let admission = Admission::new(3, 2);
        let admit = |address: &str| admission.admit(address.parse().expect("an address"));
        let first = admit("192.0.2.1").expect("free");
        let _second = admit("::ffff:192.0.2.1").expect("two from one host");
        assert!(admit("192.0.2.1").is_none(), "a third from one host");
        let _neighbour = admit("192.0.2.2").expect("another host");
        assert!(admit("192.0.3.1").is_none(), "a fourth in all");
        drop(first);
        assert_eq!(admission.sessions(), 2);
        let _again = admit("192.0.2.1").expect("a place came free");
    }

    /// Where addresses of 198.51.100.0/24 are known.
    fn keeping(sessions_max: usize, per_network_max: usize, places: usize, others: usize) -> Arc<Admission> {
        let known: IpAddr = "198.51.100.0".parse().expect("an address");
        let is_known = Box::new(move |address| network(address) == known);
        let kept = Kept { places, others_per_network_max: others, is_known };
        Admission::keeping(sessions_max, per_network_max, kept)
    }

    #[test]
    fn the_last_places_are_for_those_who_are_known() {
        let admission = keeping(3, 2, 1, 2);
        let admit = |address: &str| admission.admit(address.parse().expect("an address"));
        let first = admit("192.0.2.1").expect("free");
        let _second = admit("192.0.2.2").expect("free");
        assert!(admit("192.0.3.3").is_none(), "the last one is kept");
        let _known = admit("198.51.100.7").expect("kept for it");
        assert!(admit("198.51.100.7").is_none(), "there is none more");
        drop(first);
        assert!(admit("192.0.3.3").is_none(), "it is kept again");
        let _again = admit("198.51.100.7").expect("kept for it");
        assert!(admit("198.51.100.7").is_none(), "a third from one host");
    }

    #[test]
    fn a_neighbour_of_a_known_host_takes_none_of_its_places() {
        let known: IpAddr = "192.0.2.7".parse().expect("an address");
        let is_known = Box::new(move |address| address == known);
        let kept = Kept { places: 2, others_per_network_max: 4, is_known };
        let admission = Admission::keeping(20, 10, kept);
        let neighbours: Vec<_> =
            (8..99).filter_map(|n| admission.admit(Ipv4Addr::new(192, 0, 2, n).into())).collect();
        assert_eq!(neighbours.len(), 4);
        let its: Vec<_> = (0..20).filter_map(|_| admission.admit(known)).collect();
        assert_eq!(its.len(), 10, "a host that is known has its own");
        drop((its, neighbours));
        let counts = admission.counts();
        assert!(counts.hosts.is_empty() && counts.networks.is_empty(), "nobody is remembered");
    }

    #[test]
    fn a_network_of_strangers_has_a_small_share_whatever_its_addresses() {
        let admission = keeping(20, 16, 2, 4);
        let admit = |address: String| admission.admit(address.parse().expect("an address"));
        // Two networks with all the addresses that they have.
        let all = (0..=255).flat_map(|n| [format!("192.0.2.{n}"), format!("192.0.3.{n}")]);
        let all = all.chain((0..100).map(|n| format!("2001:db8::{n:x}")));
        let taken: Vec<_> = all.filter_map(admit).collect();
        assert_eq!(taken.len(), 12, "four each");
        let known: Vec<_> = (0..99).filter_map(|n| admit(format!("198.51.100.{n}"))).collect();
        assert_eq!(known.len(), 8, "whoever is known has all that are left");
        drop(known);
        let others: Vec<_> = (4..99).filter_map(|n| admit(format!("192.0.{n}.1"))).collect();
        assert_eq!(others.len(), 6, "other strangers have all but what is kept");
    }

    #[test]
    fn an_ipv6_network_is_one_host() {
        let admission = Admission::new(9, 1);
        let admit = |address: &str| admission.admit(address.parse().expect("an address"));
        let held = admit("2001:db8:0:1::1");
        assert!(held.is_some() && admit("2001:db8:0:1:ffff::2").is_none());
        assert!(admit("2001:db8:0:2::1").is_some());
        drop(held);
        assert!(admit("2001:db8:0:1:ffff::2").is_some());
        assert!(admission.counts().hosts.is_empty(), "nobody is remembered");
    }
}
