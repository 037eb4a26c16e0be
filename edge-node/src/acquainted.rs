//! The hosts from which a message has been taken for somebody other than a role: they need not wait for the greeting.
//!
//! It lives in memory: a restart makes everybody a stranger once more, which costs them a moment.

use std::collections::{HashSet, VecDeque};
use std::net::IpAddr;

use shared::listener::host;

/// Hosts that are remembered; beyond them the one from which nothing has come for longest is forgotten.
const HOSTS_MAX: usize = 10_000;

/// The hosts, in the order in which they came last.
#[derive(Debug, Default)]
pub struct Acquainted {
    known: HashSet<IpAddr>,
    order: VecDeque<IpAddr>,
}

impl Acquainted {
    /// Whether a message has come from the host of that address.
    pub fn has(&self, address: IpAddr) -> bool {
        self.known.contains(&host(address))
    }

    /// A message has come from there.
    pub fn add(&mut self, address: IpAddr) {
        let host = host(address);
        if !self.known.insert(host)
            && let Some(before) = self.order.iter().position(|known| *known == host)
        {
            self.order.remove(before);
        }
        self.order.push_back(host);
        if self.order.len() > HOSTS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn so_many_hosts_are_remembered_and_who_has_not_come_for_longest_is_forgotten() {
        let mut acquainted = Acquainted::default();
        let address = |number: u32| IpAddr::V4(Ipv4Addr::from_bits(number));
        let max = u32::try_from(HOSTS_MAX).expect("small");
        for number in 0..max {
            acquainted.add(address(number));
        }
        acquainted.add(address(0));
        assert!(acquainted.has(address(0)) && !acquainted.has(address(max)));
        acquainted.add(address(max));
        assert!(acquainted.has(address(0)) && !acquainted.has(address(1)) && acquainted.has(address(max)));
        assert!(!acquainted.has(address(max + 1)), "its neighbour is another host");
        let v6 = |text: &str| text.parse::<IpAddr>().expect("an address");
        acquainted.add(v6("2001:db8::1"));
        assert!(acquainted.has(v6("2001:db8::ffff")), "an IPv6 /64 is one host");
        assert!(!acquainted.has(v6("2001:db8:0:1::1")));
        assert_eq!((acquainted.known.len(), acquainted.order.len()), (HOSTS_MAX, HOSTS_MAX));
    }
}
