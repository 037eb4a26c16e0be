//! How many connections there may be, in all and from one network.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bits of an IPv6 address that count as one client: the smallest network anyone is given.
const IPV6_NETWORK_BITS: u32 = 64;

/// Counts the sessions of a service, over all its listeners.
#[derive(Debug)]
pub struct Admission {
    sessions_max: usize,
    per_network_max: usize,
    kept: Option<Kept>,
    counts: Mutex<Counts>,
}

/// Places that only some get.
struct Kept {
    places: usize,
    is_known: Box<dyn Fn(IpAddr) -> bool + Send + Sync>,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} places", self.places)
    }
}

#[derive(Debug, Default)]
struct Counts {
    sessions: usize,
    /// One entry per network with a session: no more entries than sessions.
    networks: HashMap<IpAddr, usize>,
}

impl Admission {
    /// Admits `sessions_max` at once, of them `per_network_max` from one IPv4 address or IPv6 /64.
    pub fn new(sessions_max: usize, per_network_max: usize) -> Arc<Self> {
        Arc::new(Self { sessions_max, per_network_max, kept: None, counts: Mutex::default() })
    }

    /// The same; the last `places` of them are for addresses that are known, however many others come.
    pub fn keeping(
        sessions_max: usize,
        per_network_max: usize,
        places: usize,
        is_known: impl Fn(IpAddr) -> bool + Send + Sync + 'static,
    ) -> Arc<Self> {
        let kept = Some(Kept { places, is_known: Box::new(is_known) });
        Arc::new(Self { sessions_max, per_network_max, kept, counts: Mutex::default() })
    }

    /// Whether one of the places that are left is for `address`.
    fn has_place(&self, sessions: usize, address: IpAddr) -> bool {
        let left = self.sessions_max.saturating_sub(sessions);
        match &self.kept {
            Some(kept) if left <= kept.places => left > 0 && (kept.is_known)(address),
            _ => left > 0,
        }
    }

    /// A permit for one session from `address`, or `None` over a limit.
    pub fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Permit> {
        let network = network(address);
        let mut counts = self.counts();
        let here = counts.networks.get(&network).copied().unwrap_or(0);
        if here >= self.per_network_max || !self.has_place(counts.sessions, address) {
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

/// The network that an address is counted with: an IPv4 address by itself, an IPv6 one with its /64.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let host_bits = u128::BITS - IPV6_NETWORK_BITS;
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> host_bits << host_bits))
        }
        v4 => v4,
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
        let _second = admit("::ffff:192.0.2.1").expect("two from one address");
        assert!(admit("192.0.2.1").is_none(), "a third from one address");
        let _other = admit("2001:db8::1").expect("another network");
        assert!(admit("192.0.2.2").is_none(), "a fourth in all");
        drop(first);
        assert_eq!(admission.sessions(), 2);
        let _again = admit("192.0.2.1").expect("a place came free");
    }

    #[test]
    fn the_last_places_are_for_those_who_are_known() {
        let known: IpAddr = "192.0.2.7".parse().expect("an address");
        let admission = Admission::keeping(3, 2, 1, move |address| address == known);
        let admit = |address: &str| admission.admit(address.parse().expect("an address"));
        let first = admit("192.0.2.1").expect("free");
        let _second = admit("192.0.2.2").expect("free");
        assert!(admit("192.0.2.3").is_none(), "the last one is kept");
        let _known = admit("192.0.2.7").expect("kept for it");
        assert!(admit("192.0.2.7").is_none(), "there is none more");
        drop(first);
        assert!(admit("192.0.2.3").is_none(), "it is kept again");
        let _again = admit("192.0.2.7").expect("kept for it");
        assert!(admit("192.0.2.7").is_none(), "a third from one address");
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
