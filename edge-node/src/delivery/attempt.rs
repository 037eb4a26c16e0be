//! One attempt: the hosts of a domain in order, until one takes the message or refuses it; or the smart host.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use shared::address::{Address, Domain};
use shared::id::MessageId;
use shared::sasl::Credentials;
use shared::seal::FileKey;
use shared::smtp::Enhanced;
use shared::smtp::client::{
    Class, Config, Host, Message, Outcome, Protocol, Status, Talk, TlsPolicy, converse, opportunistic,
};
use shared::store::BodyKey;
use shared::topology::Place;

use super::relay::{Route, SmartHost};
use super::resolve::Resolver;
use crate::content::Content;
use crate::node::Node;
use crate::record::QueueRow;

/// Why the smart host is asked, where all mail goes there.
const BY_MODE: &str = "all mail goes there";

/// How long hosts of a domain that say nothing are tried, one after the other.
const DIRECT_TIME: Duration = Duration::from_secs(5 * 60);

/// What became of one recipient in an attempt.
#[derive(Clone, Debug)]
pub(super) struct Report {
    pub status: Status,
    /// The host that said so.
    pub host: Option<String>,
    pub tls: bool,
    /// Why the smart host was asked; `None` if the domain's own were.
    pub relay: Option<String>,
}

impl Report {
    /// No host was asked.
    pub fn ours(status: Status) -> Self {
        Self { status, host: None, tls: false, relay: None }
    }
}

/// A message on its way to some of its recipients.
#[derive(Clone, Copy, Debug)]
pub(super) struct Copies<'a> {
    pub message: MessageId,
    /// As it was when the attempt was entered as under way.
    pub row: &'a QueueRow,
    /// With their indexes on big.
    pub recipients: &'a [(u32, Address)],
}

impl Copies<'_> {
    /// The same report for each recipient.
    pub fn all(&self, report: &Report) -> Vec<(u32, Report)> {
        self.recipients.iter().map(|(index, _)| (*index, report.clone())).collect()
    }

    fn told(&self, outcomes: Vec<Outcome>, report: impl Fn(Status) -> Report) -> Vec<(u32, Report)> {
        let one = |outcome: Outcome| {
            let (index, _) = self.recipients.get(outcome.recipient)?;
            Some((*index, report(outcome.status)))
        };
        outcomes.into_iter().filter_map(one).collect()
    }
}

/// What came of asking the hosts of a domain.
enum Asked {
    /// DNS or a host has spoken.
    Told(Vec<(u32, Report)>),
    /// DNS gave no answer, or no host could be reached.
    Unroutable(Report),
}

/// Whom to talk to, and how.
struct Target<'a> {
    name: &'a str,
    address: SocketAddr,
    tls: &'a Arc<ClientConfig>,
    policy: TlsPolicy,
    login: Option<&'a Credentials>,
}

/// What attempts need.
#[derive(Debug)]
pub(super) struct Attempt {
    node: Arc<Node>,
    resolver: Resolver,
    route: Route,
    tls: Arc<ClientConfig>,
}

impl Attempt {
    pub fn new(node: Arc<Node>, resolver: Resolver, route: Route) -> Self {
        Self { node, resolver, route, tls: Arc::new(opportunistic()) }
    }

    /// The group of recipients that this one is attempted with: those of its domain, or everybody.
    pub fn group(&self, recipient: &Address) -> Option<Domain> {
        match self.route {
            Route::Relay(_) => None,
            Route::Direct | Route::DirectThenRelay(_) => Some(recipient.domain().clone()),
        }
    }

    /// Attempts delivery to the recipients of one [group](Self::group). Exactly one report for each.
    pub async fn deliver(&self, copies: Copies<'_>, domain: Option<&Domain>) -> Vec<(u32, Report)> {
        let asked = match domain {
            Some(domain) => self.direct(copies, domain).await,
            None => {
                Asked::Unroutable(Report::ours(Status::ours(Class::Temporary, Enhanced(4, 4, 4), BY_MODE)))
            }
        };
        match (asked, &self.route) {
            (Asked::Told(reports), _) => reports,
            (Asked::Unroutable(report), Route::Direct) => copies.all(&report),
            (Asked::Unroutable(report), Route::Relay(host) | Route::DirectThenRelay(host)) => {
                self.relay(copies, host, report.status.text).await
            }
        }
    }

    async fn direct(&self, copies: Copies<'_>, domain: &Domain) -> Asked {
        let hosts = match self.resolver.hosts(domain).await {
            Ok(hosts) => hosts,
            Err(status) if status.class == Class::Temporary => {
                return Asked::Unroutable(Report::ours(status));
            }
            Err(status) => return Asked::Told(copies.all(&Report::ours(status))),
        };
        let (mut last, mut reached, mut tried) = (None, false, false);
        let begun = Instant::now();
        for host in &hosts {
            for address in &host.addresses {
                // Hosts that take connections and say nothing would use up what time there is for the smart host.
                if !reached && begun.elapsed() > DIRECT_TIME {
                    break;
                }
                if let Err(status) = self.allowed(*address) {
                    last.get_or_insert(Report::ours(status));
                    continue;
                }
                tried = true;
                let target = Target {
                    name: &host.name,
                    address: SocketAddr::new(*address, self.node.topology.edge.outbound.port),
                    tls: &self.tls,
                    policy: TlsPolicy::Opportunistic,
                    login: None,
                };
                let report = |status, tls| Report { status, host: Some(host.name.clone()), tls, relay: None };
                match self.connection(copies, &target).await {
                    Talk::Done(outcomes, tls) => {
                        return Asked::Told(copies.told(outcomes, |status| report(status, tls)));
                    }
                    Talk::Next { status, greeted } => {
                        reached |= greeted;
                        last = Some(report(status, false));
                    }
                    // It was there to offer TLS.
                    Talk::HandshakeFailed(status) => {
                        reached = true;
                        last = Some(report(status, false));
                    }
                }
            }
        }
        let nobody = || {
            let text = format!("no host of {domain} can be reached");
            Report::ours(Status::ours(Class::Temporary, Enhanced(4, 4, 1), &text))
        };
        let mut report = last.unwrap_or_else(nobody);
        if tried && !reached {
            return Asked::Unroutable(report);
        }
        if hosts.len() > 1 && report.status.class == Class::Permanent && report.status.code.is_some() {
            // A host that greets with 5xx speaks for itself, not for the domain.
            report.status.class = Class::Temporary;
        }
        Asked::Told(copies.all(&report))
    }

    /// Hands the copies to the smart host, and says why there.
    async fn relay(&self, copies: Copies<'_>, host: &SmartHost, why: String) -> Vec<(u32, Report)> {
        let name = host.place.name();
        let report = |status, tls| Report { status, host: Some(name.clone()), tls, relay: Some(why.clone()) };
        let addresses = match &host.place {
            Place::Address(address) => Ok(vec![*address]),
            Place::Name(_, port) => self.resolver.addresses(&name).await.map(|addresses| {
                addresses.into_iter().map(|address| SocketAddr::new(address, *port)).collect()
            }),
        };
        let no_address = |why: &str| {
            let text = format!("DNS gives no address of the smart host {name}{why}");
            report(Status::ours(Class::Temporary, Enhanced(4, 4, 3), &text), false)
        };
        let addresses = match addresses {
            Ok(addresses) => addresses,
            Err(error) => return copies.all(&no_address(&format!(": {error}"))),
        };
        let mut last = no_address("");
        for address in addresses {
            let SmartHost { tls, policy, login, .. } = host;
            let target = Target { name: &name, address, tls, policy: *policy, login: login.as_ref() };
            match self.connection(copies, &target).await {
                Talk::Done(outcomes, tls) => {
                    return copies.told(outcomes, |status| report(ours_to_mend(status), tls));
                }
                Talk::Next { status, .. } | Talk::HandshakeFailed(status) => last = report(status, false),
            }
        }
        tracing::warn!(message = %copies.message, relay = %host.place, why = last.status.text, "the smart host cannot be used");
        // It speaks of itself; its operator, or ours, mends that.
        last.status = last.status.into_temporary();
        copies.all(&last)
    }

    /// The very address that would be connected to, after every step of resolution.
    fn allowed(&self, address: IpAddr) -> Result<(), Status> {
        if self.node.topology.edge.outbound.private_addresses || is_public(address) {
            return Ok(());
        }
        let text = format!("DNS names {address}, which is not an address on the Internet");
        Err(Status::ours(Class::Permanent, Enhanced(5, 4, 4), &text))
    }

    async fn connection(&self, copies: Copies<'_>, target: &Target<'_>) -> Talk {
        match self.conversation(copies, target, target.policy).await {
            Talk::HandshakeFailed(_) if target.policy == TlsPolicy::Opportunistic => {
                self.conversation(copies, target, TlsPolicy::Never).await
            }
            other => other,
        }
    }

    async fn conversation(&self, copies: Copies<'_>, target: &Target<'_>, tls: TlsPolicy) -> Talk {
        let Copies { message: id, row, recipients } = copies;
        let log = |error: &dyn std::fmt::Display| {
            tracing::error!(message = %id, %error, "a queued body cannot be read");
        };
        let unreadable = |error: &dyn std::fmt::Display| {
            log(error);
            let text = "the message cannot be read at the moment";
            Talk::Next { status: Status::ours(Class::Temporary, Enhanced(4, 3, 0), text), greeted: false }
        };
        let key = match FileKey::unwrap(&row.wrapped_key, &self.node.sealing, id) {
            Ok(key) => key,
            Err(error) => return unreadable(&error),
        };
        let mut content = match self.node.store.body(BodyKey(row.body)) {
            Ok(reader) => Content::new(reader, &key),
            Err(error) => return unreadable(&error),
        };
        let host =
            Host { name: target.name.to_owned(), address: target.address, tls: Arc::clone(target.tls) };
        let config = Config {
            helo: self.node.topology.edge.hostname.to_string(),
            tls,
            protocol: Protocol::Smtp,
            login: target.login.cloned(),
        };
        let piece = || content.next().inspect_err(|error| log(error));
        converse(&host, config, message(row, recipients), piece).await
    }
}

/// What a smart host says of our login speaks of its topology, not of the recipient (RFC 4954 §6).
fn ours_to_mend(status: Status) -> Status {
    match status.code {
        Some(530 | 534 | 535 | 538) => status.into_temporary(),
        _ => status,
    }
}

fn message(row: &QueueRow, recipients: &[(u32, Address)]) -> Message {
    Message {
        reverse_path: row.reverse_path.as_deref().and_then(|path| path.parse().ok()),
        recipients: recipients.iter().map(|(_, address)| address.clone()).collect(),
        size: row.size + row.signatures.len() as u64,
        eight_bit: row.body_8bit,
        utf8_header: row.utf8_header,
        before: row.signatures.clone().into_bytes(),
    }
}

/// Whether an address is one on the Internet (RFC 6890): what is not must not be connected to because
/// a stranger's DNS says so.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => {
            let segments = v6.segments();
            let embedded = v6.to_ipv4_mapped().or_else(|| {
                // NAT64, 6to4 and the old compatible form carry an IPv4 address of anybody's choice.
                let [_, _, _, _, _, _, high, low] = segments;
                let of = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
                match segments {
                    [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0, 0, 0, 0, 0, 0, ..] => Some(of(high, low)),
                    [0x2002, high, low, ..] => Some(of(high, low)),
                    _ => None,
                }
            });
            match embedded {
                Some(v4) => is_public_v4(v4),
                None => {
                    let global = segments[0] & 0xe000 == 0x2000;
                    let documentation = segments[0] == 0x2001 && segments[1] == 0x0db8;
                    let special = segments[0] == 0x2001 && segments[1] < 0x0200;
                    global && !documentation && !special
                }
            }
        }
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_broadcast()
        || a == 0
        || a >= 224
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (18..20).contains(&b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_on_the_internet_are_public() {
        let hidden = [
            "127.0.0.1",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.1.1",
            "100.64.0.1",
            "192.0.0.8",
            "192.0.2.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b::10.0.0.1",
            "2002:7f00:1::",
            "2002:a00:1::",
            "2001:db8::1",
            "2001::1",
            "::127.0.0.1",
        ];
        for text in hidden {
            assert!(!is_public(text.parse().expect("an address")), "{text}");
        }
        for text in
            ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"]
        {
            assert!(is_public(text.parse().expect("an address")), "{text}");
        }
    }
}
