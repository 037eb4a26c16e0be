//! One attempt for one domain: its hosts in order, until one takes the message or refuses it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rustls::ClientConfig;
use shared::address::{Address, Domain};
use shared::id::MessageId;
use shared::seal::FileKey;
use shared::smtp::Enhanced;
use shared::smtp::client::{
    Class, Config, Host, Message, Outcome, Protocol, Status, Talk, TlsPolicy, converse, opportunistic,
};
use shared::store::BodyKey;

use super::resolve::{MailHost, Resolver};
use crate::content::Content;
use crate::node::Node;
use crate::record::QueueRow;

/// What became of one recipient in an attempt.
#[derive(Clone, Debug)]
pub(super) struct Report {
    pub status: Status,
    /// The host that said so.
    pub host: Option<String>,
    pub tls: bool,
}

impl Report {
    /// No host was asked.
    pub fn ours(status: Status) -> Self {
        Self { status, host: None, tls: false }
    }
}

/// What attempts need.
#[derive(Debug)]
pub(super) struct Attempt {
    node: Arc<Node>,
    resolver: Resolver,
    tls: Arc<ClientConfig>,
}

impl Attempt {
    pub fn new(node: Arc<Node>, resolver: Resolver) -> Self {
        Self { node, resolver, tls: Arc::new(opportunistic()) }
    }

    /// Attempts delivery to the recipients in one domain. Exactly one report for each.
    pub async fn domain(
        &self,
        id: MessageId,
        row: &QueueRow,
        domain: &Domain,
        recipients: &[(u32, Address)],
    ) -> Vec<(u32, Report)> {
        let all = |report: &Report| recipients.iter().map(|(index, _)| (*index, report.clone())).collect();
        let hosts = match self.resolver.hosts(domain).await {
            Ok(hosts) => hosts,
            Err(status) => return all(&Report::ours(status)),
        };
        let mut last = None;
        for host in &hosts {
            for address in &host.addresses {
                if let Err(status) = self.allowed(*address) {
                    last.get_or_insert(Report::ours(status));
                    continue;
                }
                match self.connection(id, row, host, *address, recipients).await {
                    Talk::Done(outcomes, tls) => return told(outcomes, recipients, host, tls),
                    Talk::Next(status) | Talk::HandshakeFailed(status) => {
                        last = Some(Report { status, host: Some(host.name.clone()), tls: false });
                    }
                }
            }
        }
        let nobody = || {
            Report::ours(Status::ours(
                Class::Temporary,
                Enhanced(4, 4, 1),
                &format!("no host of {domain} can be reached"),
            ))
        };
        let mut report = last.unwrap_or_else(nobody);
        if hosts.len() > 1 && report.status.class == Class::Permanent && report.status.code.is_some() {
            // A host that greets with 5xx speaks for itself, not for the domain.
            report.status.class = Class::Temporary;
        }
        all(&report)
    }

    /// The very address that would be connected to, after every step of resolution.
    fn allowed(&self, address: IpAddr) -> Result<(), Status> {
        if self.node.topology.edge.outbound.private_addresses || is_public(address) {
            return Ok(());
        }
        let text = format!("DNS names {address}, which is not an address on the Internet");
        Err(Status::ours(Class::Permanent, Enhanced(5, 4, 4), &text))
    }

    async fn connection(
        &self,
        id: MessageId,
        row: &QueueRow,
        host: &MailHost,
        address: IpAddr,
        recipients: &[(u32, Address)],
    ) -> Talk {
        match self.conversation(id, row, host, address, recipients, TlsPolicy::Opportunistic).await {
            Talk::HandshakeFailed(_) => {
                self.conversation(id, row, host, address, recipients, TlsPolicy::Never).await
            }
            other => other,
        }
    }

    async fn conversation(
        &self,
        id: MessageId,
        row: &QueueRow,
        host: &MailHost,
        address: IpAddr,
        recipients: &[(u32, Address)],
        tls: TlsPolicy,
    ) -> Talk {
        let log = |error: &dyn std::fmt::Display| {
            tracing::error!(message = %id, %error, "a queued body cannot be read");
        };
        let unreadable = |error: &dyn std::fmt::Display| {
            log(error);
            let text = "the message cannot be read at the moment";
            Talk::Next(Status::ours(Class::Temporary, Enhanced(4, 3, 0), text))
        };
        let key = match FileKey::unwrap(&row.wrapped_key, &self.node.sealing, id) {
            Ok(key) => key,
            Err(error) => return unreadable(&error),
        };
        let mut content = match self.node.store.body(BodyKey(row.body)) {
            Ok(reader) => Content::new(reader, &key),
            Err(error) => return unreadable(&error),
        };
        let host = Host {
            name: host.name.clone(),
            address: SocketAddr::new(address, self.node.topology.edge.outbound.port),
            tls: Arc::clone(&self.tls),
        };
        let helo = self.node.topology.edge.hostname.to_string();
        let piece = || content.next().inspect_err(|error| log(error));
        converse(&host, Config { helo, tls, protocol: Protocol::Smtp }, message(row, recipients), piece).await
    }
}

fn message(row: &QueueRow, recipients: &[(u32, Address)]) -> Message {
    Message {
        reverse_path: row.reverse_path.as_deref().and_then(|path| path.parse().ok()),
        recipients: recipients.iter().map(|(_, address)| address.clone()).collect(),
        size: row.size,
        eight_bit: row.body_8bit,
        utf8_header: row.utf8_header,
    }
}

fn told(
    outcomes: Vec<Outcome>,
    recipients: &[(u32, Address)],
    host: &MailHost,
    tls: bool,
) -> Vec<(u32, Report)> {
    let report = |outcome: Outcome| {
        let (index, _) = recipients.get(outcome.recipient)?;
        Some((*index, Report { status: outcome.status, host: Some(host.name.clone()), tls }))
    };
    outcomes.into_iter().filter_map(report).collect()
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
