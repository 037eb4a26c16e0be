//! How many connections there may be, in all and from one network.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bits of an IPv4 address that count as one client: what one customer mostly has.
pub const IPV4_NETWORK_BITS: u32 = 24;
/// Bits of an IPv6 address that count as one client: the smallest network anyone is given.
pub const IPV6_NETWORK_BITS: u32 = 64;

/// Counts the sessions of a service, over all its listeners.
#[derive(Debug)]
pub struct Admission {
    sessions_max: usize,
    per_network_max: usize,
    kept: Option<Kept>,
    counts: Mutex<Counts>,
}

/// What is kept for clients that are known, however many others come.
pub struct Kept {
    /// The last places of all are for them.
    pub places: usize,
    /// Sessions at once from one network that is not known.
    pub others_per_network_max: usize,
    /// Whether an address is known.
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
    /// One entry per network with a session: no more entries than sessions.
    networks: HashMap<IpAddr, usize>,
}

impl Admission {
    /// Admits `sessions_max` at once, of them `per_network_max` from one [`network`].
    pub fn new(sessions_max: usize, per_network_max: usize) -> Arc<Self> {
        Arc::new(Self { sessions_max, per_network_max, kept: None, counts: Mutex::default() })
    }

    /// The same, of which some is kept for clients that are known.
    pub fn keeping(sessions_max: usize, per_network_max: usize, kept: Kept) -> Arc<Self> {
        Arc::new(Self { sessions_max, per_network_max, kept: Some(kept), counts: Mutex::default() })
    }

    /// Whether one of the places that are left is for `address`, of whose network so many sessions are `here`.
    fn has_place(&self, sessions: usize, here: usize, address: IpAddr) -> bool {
        let left = self.sessions_max.saturating_sub(sessions);
        let is_for_known = |kept: &Kept| left <= kept.places || here >= kept.others_per_network_max;
        match &self.kept {
            _ if left == 0 || here >= self.per_network_max => false,
            Some(kept) if is_for_known(kept) => (kept.is_known)(address),
            _ => true,
        }
    }

    /// A permit for one session from `address`, or `None` over a limit.
    pub fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Permit> {
        let network = network(address);
        let mut counts = self.counts();
        let here = counts.networks.get(&network).copied().unwrap_or(0);
        if !self.has_place(counts.sessions, here, address) {
            return None;
        }
        counts.sessions += 1;
        counts.networks.insert(network, here + 1);
        Some(Permit { admission: self.clone(), network })
    }

    /// Sessions now.
    pub fn sessions(&self) -> usize {
        self.counts().sessions
    }

    fn leave(&self, network: IpAddr) {
        let mut counts = self.counts();
        counts.sessions -= 1;
        if let Some(here) = counts.networks.get_mut(&network) {
            *here -= 1;
            if *here == 0 {
                counts.networks.remove(&network);
            }
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
    network: IpAddr,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission.leave(self.network);
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
    fn sessions_are_counted_in_all_and_by_network() {
        let admission = Admission::new(3, 2);
        let admit = |address: &str| admission.admit(address.parse().expect("an address"));
        let first = admit("192.0.2.1").expect("free");
        let _second = admit("::ffff:192.0.2.254").expect("two from one network");
        assert!(admit("192.0.2.3").is_none(), "a third from one network");
        let _other = admit("2001:db8::1").expect("another network");
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
        assert!(admit("198.51.100.7").is_none(), "a third from one network");
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
    fn an_ipv6_network_is_one_client() {
        let admission = Admission::new(9, 1);
        let admit = |address: &str| admission.admit(address.parse().expect("an address"));
        let held = admit("2001:db8:0:1::1");
        assert!(held.is_some() && admit("2001:db8:0:1:ffff::2").is_none());
        assert!(admit("2001:db8:0:2::1").is_some());
        drop(held);
        assert!(admit("2001:db8:0:1:ffff::2").is_some());
        assert!(admission.counts().networks.is_empty(), "nobody is remembered");
    }
}
