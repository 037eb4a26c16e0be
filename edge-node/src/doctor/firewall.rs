//! Which ports a firewall has to let through, by the topology: whether one does cannot be seen from here.

use std::net::SocketAddr;

use shared::doctor::Finding;
use shared::topology::{CertificateSource, Edge, Mode, Place, SmartHost};

/// The port of DNS (RFC 1035 §4.2), at which the system's resolvers are asked.
const DNS_PORT: u16 = 53;
/// The port at which an authority asks whether the name is ours (RFC 8555 §8.3).
const HTTP_PORT: u16 = 80;

/// What has to be let in and out.
pub fn advice(edge: &Edge, link: SocketAddr) -> Finding {
    let listeners = [&edge.smtp, &edge.submission, &edge.submissions, &edge.pop3, &edge.pop3s];
    let listeners = listeners.into_iter().flatten().chain(edge.certificate.http());
    let anybody = listed(listeners.map(SocketAddr::port));
    let mut inward: Vec<_> =
        (!anybody.is_empty()).then(|| format!("TCP {anybody} from anywhere")).into_iter().collect();
    inward.push(format!("UDP {} from big", link.port()));
    let advice = format!(
        "has to let in {}, and out {}{}",
        inward.join(" and "),
        outward(edge).join(", "),
        challenge(edge).unwrap_or_default()
    );
    Finding::unchecked("firewall", advice, "")
}

/// The ports at which the resolvers are asked.
pub fn resolver_ports(edge: &Edge) -> String {
    match edge.dns_servers.as_slice() {
        [] => DNS_PORT.to_string(),
        servers => listed(servers.iter().map(SocketAddr::port)),
    }
}

/// What goes out, each with where to.
fn outward(edge: &Edge) -> Vec<String> {
    let outbound = &edge.outbound;
    let mut ways = vec![format!("UDP and TCP {} to the resolvers", resolver_ports(edge))];
    // Who gives all to the smart host asks no domain for its hosts, and for no policy of theirs.
    if !matches!(outbound.mode, Mode::Relay(_)) {
        ways.push(format!("TCP {} to other mail hosts", outbound.port));
        ways.extend(outbound.mta_sts.as_ref().map(|sts| format!("TCP {} for MTA-STS policies", sts.port)));
    }
    ways.extend(outbound.mode.smart_host().map(|SmartHost { place, .. }| {
        let port = match place {
            Place::Name(_, port) => *port,
            Place::Address(address) => address.port(),
        };
        format!("TCP {port} to the smart host {}", place.name())
    }));
    if let CertificateSource::Acme(acme) = &edge.certificate {
        ways.push(format!(
            "TCP {} to the certificate's authority {}",
            acme.directory.port, acme.directory.host
        ));
    }
    ways
}

/// Where the authority asks, if that is another port than we listen on.
fn challenge(edge: &Edge) -> Option<String> {
    let at = edge.certificate.http();
    let elsewhere = !at.is_empty() && at.iter().all(|at| at.port() != HTTP_PORT);
    elsewhere.then(|| {
        let (hostname, ports) = (&edge.hostname, listed(at.iter().map(SocketAddr::port)));
        format!("; TCP {HTTP_PORT} of {hostname}, where the authority asks, has to lead to {ports}")
    })
}

/// Each port once, in order; without those that the system chooses, which nobody can know.
fn listed(ports: impl Iterator<Item = u16>) -> String {
    let mut ports: Vec<_> = ports.filter(|port| *port != 0).collect();
    ports.sort_unstable();
    ports.dedup();
    let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
    ports.join(", ")
}

#[cfg(test)]
mod tests {
    use shared::topology::{SMALLEST, Topology};

    use super::*;

    /// What is said of an edge with these keys and tables of `[edge]`.
    fn of(text: &str) -> String {
        let text = SMALLEST.replace("[link]", &format!("{text}\n[link]"));
        let edge = Topology::parse(&text, "t.toml").expect("valid").edge;
        advice(&edge, "192.0.2.1:7625".parse().expect("an address")).found
    }

    #[test]
    fn each_way_out_for_mail_has_its_own_ports() {
        let plain = "has to let in UDP 7625 from big, and out UDP and TCP 53 to the resolvers";
        let (mail, policies) = ("TCP 25 to other mail hosts", "TCP 443 for MTA-STS policies");
        let host = "TCP 587 to the smart host smtp.isp.example";
        assert_eq!(of(""), format!("{plain}, {mail}, {policies}"));
        let of_mode = |mode: &str, more: &str| {
            let relay = "relay = \"smtp.isp.example:587\"";
            of(&format!("[edge.outbound]\nmode = \"{mode}\"\n{relay}\n{more}"))
        };
        assert_eq!(of_mode("relay", ""), format!("{plain}, {host}"), "neither 25 nor 443");
        assert_eq!(of_mode("direct-then-relay", ""), format!("{plain}, {mail}, {policies}, {host}"));
        let without = of_mode("direct-then-relay", "mta_sts = false");
        assert_eq!(without, format!("{plain}, {mail}, {host}"));
        let other = of("[edge.outbound]\nport = 2025\nmta_sts_port = 8443");
        assert!(other.ends_with(", TCP 2025 to other mail hosts, TCP 8443 for MTA-STS policies"), "{other}");
        let address = of("[edge.outbound]\nmode = \"relay\"\nrelay = \"192.0.2.7:465\"");
        assert!(address.ends_with(", TCP 465 to the smart host 192.0.2.7"), "{address}");
    }

    #[test]
    fn what_listens_is_let_in_and_who_is_asked_is_reached_at_their_ports() {
        let services = "smtp = [\"192.0.2.1:25\", \"[2001:db8::1]:25\"]\nsubmission = [\"192.0.2.1:587\"]\n\
                        submissions = [\"192.0.2.1:465\"]\npop3 = [\"192.0.2.1:0\"]\npop3s = [\"192.0.2.1:995\"]";
        let found = of(services);
        assert!(
            found.starts_with("has to let in TCP 25, 465, 587, 995 from anywhere and UDP 7625 from big, "),
            "{found}"
        );
        let acme = |http: &str| {
            let directory = "directory = \"https://acme.example:14000/dir\"";
            of(&format!("{services}\n[edge.acme]\n{directory}\nterms_agreed = true\nhttp = [\"{http}\"]"))
        };
        let found = acme("192.0.2.1:80");
        assert!(found.contains("TCP 25, 80, 465, 587, 995 from anywhere"), "{found}");
        assert!(found.ends_with(", TCP 14000 to the certificate's authority acme.example"), "{found}");
        let found = acme("192.0.2.1:8080");
        let led = "; TCP 80 of mx.example.com, where the authority asks, has to lead to 8080";
        assert!(
            found.contains("TCP 25, 465, 587, 995, 8080 from anywhere") && found.ends_with(led),
            "{found}"
        );
        let found = of("[edge.dns]\nservers = [\"192.0.2.53:5353\", \"192.0.2.54:53\", \"192.0.2.55:53\"]");
        assert!(found.contains("out UDP and TCP 53, 5353 to the resolvers, "), "{found}");
    }
}
