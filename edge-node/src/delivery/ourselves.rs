//! This host, as the MX of somebody else's domain may name it (RFC 5321 §5.1). Pure.

use std::net::{IpAddr, SocketAddr};

use shared::address::Domain;
use shared::smtp::Enhanced;
use shared::smtp::client::{Class, Status};
use shared::topology::{Edge, is_reached};

/// What others know this host by.
#[derive(Clone, Debug)]
pub struct Ourselves {
    hostname: Domain,
    /// Where mail comes from outside. What listens on every address of this host is known by its name only.
    smtp: Vec<SocketAddr>,
    /// Where mail comes from anybody.
    listeners: Vec<SocketAddr>,
    /// The addresses of this host, by which what listens on all of them is reached.
    addresses: Vec<IpAddr>,
}

impl Ourselves {
    /// As the topology has it, on a host that has these `addresses`.
    pub fn of(edge: &Edge, addresses: &[IpAddr]) -> Self {
        let listeners =
            [&edge.smtp, &edge.submission, &edge.submissions].into_iter().flatten().copied().collect();
        let smtp = edge.smtp.iter().filter(|at| !at.ip().is_unspecified()).copied().collect();
        Self { hostname: edge.hostname.clone(), smtp, listeners, addresses: addresses.to_vec() }
    }

    /// Whether that is our name.
    pub fn is_named(&self, host: &str) -> bool {
        self.hostname.as_str().eq_ignore_ascii_case(host)
    }

    /// Whether it is us who take mail there from outside.
    pub fn is_at(&self, address: SocketAddr) -> bool {
        self.smtp.contains(&address)
    }

    /// Whether it is us who answer there.
    pub fn is_reached_at(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        let is_here = self.addresses.contains(&ip);
        let takes = |listener: &SocketAddr| {
            let is_on_all = listener.ip().is_unspecified() && listener.is_ipv4() == ip.is_ipv4();
            is_reached(*listener, address) || is_here && is_on_all && listener.port() == address.port()
        };
        self.listeners.iter().any(takes)
    }
}

/// What becomes of mail for the smart host `name`, which is this host at `address`.
pub fn is_no_smart_host(name: &str, address: SocketAddr) -> Status {
    let text = format!(
        "the smart host {name} is this edge itself, at {address}, and mail would go round: `relay` in [edge.outbound] has to \
         name the host that takes mail for everywhere"
    );
    Status::ours(Class::Temporary, Enhanced(4, 4, 6), &text)
}

/// What becomes of mail for `domain`, none of whose hosts is better than `host`, which is this one.
pub fn loops(domain: &Domain, host: &str) -> Status {
    let text = format!(
        "DNS leads mail for {domain} to {host}, which is this host, and here it is nobody's: the MX of {domain} has to name \
         the host that takes its mail, or [site] `domains` here has to name {domain}"
    );
    Status::ours(Class::Permanent, Enhanced(5, 4, 6), &text)
}

#[cfg(test)]
mod tests {
    use shared::topology::{SMALLEST, Topology};

    use super::*;

    #[test]
    fn this_host_is_known_by_its_name_and_by_the_addresses_it_is_told_to_listen_on() {
        let mut edge = Topology::parse(SMALLEST, "t.toml").expect("valid").edge;
        let at = |text: &str| text.parse::<SocketAddr>().expect("an address");
        edge.smtp = vec![at("192.0.2.1:25"), at("0.0.0.0:26"), at("[::]:25")];
        let ours = Ourselves::of(&edge, &[]);
        let names = ["MX.example.com", "mx2.example.com", "example.com"].map(|name| ours.is_named(name));
        assert_eq!(names, [true, false, false]);
        let places = ["192.0.2.1:25", "192.0.2.1:26", "192.0.2.2:25", "[2001:db8::1]:25"];
        assert_eq!(places.map(|place| ours.is_at(at(place))), [true, false, false, false]);
        edge.submission = vec![at("192.0.2.1:587")];
        let ours = Ourselves::of(&edge, &[]);
        let places = ["127.0.0.1:26", "[::1]:25", "127.0.0.1:25", "127.0.0.1:10025", "192.0.2.1:587"];
        assert_eq!(places.map(|place| ours.is_reached_at(at(place))), [true, true, false, false, true]);
        // Many a domain's first MX is a loopback address for nobody to be there.
        assert!(!places.iter().any(|place| ours.is_at(at(place))));
        // What listens everywhere is reached at each address that this host has, and at no other one.
        let here = ["192.0.2.7", "2001:db8::7"].map(|text| text.parse().expect("an address"));
        let ours = Ourselves::of(&edge, &here);
        let places = [
            ("192.0.2.7:26", true),
            ("[::ffff:192.0.2.7]:26", true),
            ("[2001:db8::7]:25", true),
            ("192.0.2.7:25", false),
            ("[2001:db8::7]:26", false),
            ("192.0.2.7:587", false),
            ("192.0.2.8:26", false),
        ];
        for (place, expected) in places {
            assert_eq!(ours.is_reached_at(at(place)), expected, "{place}");
            assert!(!ours.is_at(at(place)));
        }
    }
}
