//! What `doctor` asks: the resolvers, our own addresses, and our own listeners.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use hickory_resolver::net::NetError;
use hickory_resolver::proto::rr::{RData, RecordType};
use mail_auth::common::parse::TxtRecordParser;
use mail_auth::common::verify::DomainKey;
use mail_auth::dmarc::{Dmarc, Policy};
use mail_auth::mta_sts::{MtaSts, TlsRpt};
use rustls::RootCertStore;
use shared::address::{Address, Domain};
use shared::containment::contain;
use shared::doctor::Finding;
use shared::id::unix_millis;
use shared::topology::{Dnssec, Place, Topology};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{
    Answer, OfDomain, OwnAddress, associations, certificate, clock, firewall, greets_as, of_domain,
    outward_port, own_addresses, signatures, smart_host,
};
use crate::authentication::{Sender, Spf};
use crate::delivery::{Ourselves, Resolver, are_signatures_needed, is_public, passing};
use crate::interfaces;
use crate::lists::{self, Lists};
use crate::request::{CertificateView, OutwardView};

/// How long a connection, and then a greeting, may take, beside the pause that strangers are made to wait.
const GREETING_TIME: Duration = Duration::from_secs(5);
/// Octets of a greeting (RFC 5321 §4.5.3.1.5).
const GREETING_MAX: usize = 512;
/// Names of an address that are looked at.
const NAMES_MAX: usize = 5;
/// Records of one name that are looked at.
const RECORDS_MAX: usize = 20;

/// What the running node says.
#[derive(Debug)]
pub struct Running {
    /// Of its clock ([`super::clock`]), or why there is no such node.
    pub clock: Result<Option<i64>, String>,
    /// Of the authority that it asks for certificates.
    pub renewal: Option<CertificateView>,
    /// Of other hosts.
    pub outward: Option<OutwardView>,
}

/// Asks, and judges. `selectors` name the DKIM keys that each domain is to have in DNS.
///
/// # Errors
/// If the resolvers cannot be used at all.
pub async fn examine(
    topology: &Topology,
    selectors: &[Domain],
    running: Running,
) -> Result<Vec<Finding>, String> {
    let edge = &topology.edge;
    let resolver = Resolver::new(&edge.dns_servers, &Dnssec::Off)
        .map_err(|error| format!("the resolvers cannot be used: {error}"))?;
    let mut findings = Vec::new();
    let Running { clock: ahead, renewal, outward } = running;
    match &ahead {
        Ok(ahead) => {
            findings.extend(listeners(topology).await);
            findings.push(clock(*ahead));
        }
        Err(why) => {
            let mend = "run `edge-node serve`: its listeners and its clock are looked at while it runs";
            findings.push(Finding::wrong("edge-node", why.trim_end(), mend));
        }
    }
    let mut key_hash = None;
    let mut is_trusted = false;
    match crate::certificate::kept(edge) {
        Ok(Some(identity)) => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            let now = Duration::from_millis(unix_millis());
            let (found, trusted) = certificate::of_chain(edge, identity.chain(), roots, now);
            findings.push(found);
            is_trusted = trusted;
            key_hash = identity.key_hash().ok();
        }
        Ok(None) => findings.push(Finding::unchecked(
            "certificate",
            "`edge-node serve` makes one when it first runs",
            "",
        )),
        Err(error) => findings.push(Finding::wrong("certificate", error.to_string(), "see [edge.tls]")),
    }
    findings.extend(renewal.as_ref().and_then(certificate::renewal));
    match resolver.data("", RecordType::NS).await {
        Ok(_) => {
            if are_signatures_needed(edge) {
                let passing = passing(&edge.dns_servers).await;
                let passing = passing.map_err(|error| format!("the resolvers cannot be used: {error}"))?;
                findings.extend(passing.iter().map(|(server, passing)| signatures(*server, passing)));
            }
            findings.extend(in_dns(topology, &resolver, selectors, key_hash, is_trusted).await);
        }
        Err(error) => {
            let found = format!("they do not answer about the root: {error}; nothing more is asked of them");
            let ports = firewall::resolver_ports(edge);
            let mend = format!("let UDP and TCP {ports} out to them, or name others in [edge.dns]");
            findings.push(Finding::wrong("resolvers", found, mend));
        }
    }
    findings.push(outward_port(edge, outward));
    findings.push(firewall::advice(edge, topology.link.listen));
    Ok(findings)
}

/// What is found by the resolvers, which answer. `key_hash` is that of our certificate, which others can check if
/// `is_trusted`.
async fn in_dns(
    topology: &Topology,
    resolver: &Resolver,
    selectors: &[Domain],
    key_hash: Option<[u8; 32]>,
    is_trusted: bool,
) -> Vec<Finding> {
    let edge = &topology.edge;
    let own = addresses(topology, resolver).await;
    let mut findings = own_addresses(edge, &own);
    let own: Vec<_> = match own {
        Answer::Told(own) => own.into_iter().map(|own| own.address).collect(),
        Answer::Silent(_) => Vec::new(),
    };
    if let Some(hash) = key_hash {
        let name = format!("_{}._tcp.{}", edge.outbound.port, edge.hostname);
        findings.push(associations(edge, &tlsa(resolver, &name).await, &hash));
    }
    let spf = Spf::new(resolver.inner(), edge.hostname.clone());
    if let Some(host) = edge.outbound.mode.smart_host() {
        findings.push(match interfaces::addresses() {
            Ok(own) => smart_host(host, &places(resolver, &host.place).await, &Ourselves::of(edge, &own)),
            Err(error) => Finding::unchecked(
                format!("smart host {}", host.place),
                format!("the system does not say which addresses this host has ({error})"),
                "look whether it is this host itself",
            ),
        });
    }
    for domain in &topology.site.domains {
        let of = domain_of(resolver, &spf, edge.hostname.as_str(), domain, &own, selectors).await;
        findings.extend(of_domain(edge, &of, is_trusted));
    }
    if let Some(lists) = Lists::new(resolver, &edge.lists) {
        for (zone, proven) in lists.proven().await {
            let about = format!("list {zone}");
            findings.push(match proven {
                Ok(()) => Finding::ok(about, "answers as lists do"),
                Err((true, why)) => Finding::warning(
                    about,
                    why,
                    "ask by resolvers of your own, see [edge.dns]; or leave it out of [edge.lists]",
                ),
                Err((false, why)) => Finding::wrong(about, why, "leave it out of [edge.lists]"),
            });
        }
    }
    findings
}

/// The name under which DNS has the names of an address (RFC 1035 §3.5, RFC 3596 §2.5).
pub fn reversed(address: IpAddr) -> String {
    let zone = if address.to_canonical().is_ipv4() { "in-addr.arpa" } else { "ip6.arpa" };
    format!("{}{zone}", lists::reversed(address))
}

fn answer<T>(asked: Result<T, NetError>) -> Answer<T> {
    asked.map_or_else(|error| Answer::Silent(error.to_string()), Answer::Told)
}

async fn addresses(topology: &Topology, resolver: &Resolver) -> Answer<Vec<OwnAddress>> {
    let edge = &topology.edge;
    let found = match resolver.addresses(edge.hostname.as_str()).await {
        Ok(found) => found,
        Err(error) => return Answer::Silent(error.to_string()),
    };
    let mut own = Vec::new();
    for address in found {
        let at = SocketAddr::new(address, edge.outbound.port);
        // No packet is sent.
        let (is_public, is_here) = (is_public(address), UdpSocket::bind((address, 0)).is_ok());
        let is_asked = is_public || is_here || edge.outbound.private_addresses;
        let greeting = if is_asked { greeting(at, edge.greeting_pause).await } else { None };
        let names = names(resolver, address).await;
        own.push(OwnAddress { address, is_public, is_here, is_asked, names, greeting });
    }
    Answer::Told(own)
}

/// Where a smart host is.
async fn places(resolver: &Resolver, place: &Place) -> Answer<Vec<SocketAddr>> {
    match place {
        Place::Address(address) => Answer::Told(vec![*address]),
        Place::Name(name, port) => {
            let found = resolver.addresses(name.as_str()).await;
            answer(found.map(|found| found.into_iter().map(|ip| SocketAddr::new(ip, *port)).collect()))
        }
    }
}

async fn names(resolver: &Resolver, address: IpAddr) -> Answer<Vec<(String, bool)>> {
    let records = match resolver.data(&reversed(address), RecordType::PTR).await {
        Ok(records) => records,
        Err(error) => return Answer::Silent(error.to_string()),
    };
    let mut names = Vec::new();
    for record in records.iter().take(NAMES_MAX) {
        let RData::PTR(name) = record else { continue };
        let name = name.to_ascii().trim_end_matches('.').to_owned();
        let leads_back = resolver.addresses(&name).await.is_ok_and(|found| found.contains(&address));
        names.push((name, leads_back));
    }
    Answer::Told(names)
}

/// The first line that is said at an address of ours; `None` if nothing is.
async fn greeting(address: SocketAddr, pause: Duration) -> Option<String> {
    let read = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let (mut line, mut octet) = (Vec::new(), [0]);
        while line.len() < GREETING_MAX && stream.read(&mut octet).await.ok()? == 1 && octet != *b"\n" {
            line.push(octet[0]);
        }
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        (!line.is_empty()).then_some(line)
    };
    timeout(GREETING_TIME + pause, read).await.ok().flatten()
}

/// What each of our listeners says. One on a port that the system chooses is not found by the topology.
async fn listeners(topology: &Topology) -> Vec<Finding> {
    let edge = &topology.edge;
    let mut findings = Vec::new();
    for (service, addresses, says) in [
        ("SMTP", &edge.smtp, true),
        ("submission", &edge.submission, true),
        ("submission under TLS", &edge.submissions, false),
        ("POP3", &edge.pop3, true),
        ("POP3 under TLS", &edge.pop3s, false),
        ("HTTP for the certificate's authority", &edge.certificate.http().to_vec(), false),
    ] {
        for at in addresses.iter().filter(|at| at.port() != 0) {
            let about = format!("{service} on {at}");
            let mend = "see the log of `edge-node serve`, and this host's firewall";
            let to = SocketAddr::new(reachable(at.ip()), at.port());
            if !says {
                let connected = timeout(GREETING_TIME, TcpStream::connect(to)).await;
                findings.push(match connected {
                    Ok(Ok(_)) => Finding::ok(about, "takes connections"),
                    Ok(Err(_)) | Err(_) => Finding::wrong(about, "nobody answers", mend),
                });
                continue;
            }
            findings.push(match greeting(to, edge.greeting_pause).await {
                Some(text) if greets_as(&text, &edge.hostname) || text.starts_with("+OK") => {
                    Finding::ok(about, "greets")
                }
                Some(text) => {
                    Finding::warning(about, format!("it says {text:?}"), "see `edge-node link status`")
                }
                None => Finding::wrong(about, "nobody answers", mend),
            });
        }
    }
    findings
}

/// Where a listener on every address is found from here.
fn reachable(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    }
}

async fn tlsa(resolver: &Resolver, name: &str) -> Answer<Vec<super::Association>> {
    let found = answer(resolver.data(name, RecordType::TLSA).await);
    let association = |record: &RData| match record {
        RData::TLSA(tlsa) => {
            Some((tlsa.cert_usage.into(), tlsa.selector.into(), tlsa.matching.into(), tlsa.cert_data.clone()))
        }
        _ => None,
    };
    match found {
        Answer::Told(records) => {
            Answer::Told(records.iter().take(RECORDS_MAX).filter_map(association).collect())
        }
        Answer::Silent(why) => Answer::Silent(why),
    }
}

async fn domain_of(
    resolver: &Resolver,
    spf: &std::sync::Arc<Spf>,
    hostname: &str,
    domain: &Domain,
    own: &[IpAddr],
    selectors: &[Domain],
) -> OfDomain {
    let mut results = Vec::new();
    for address in own {
        let reverse_path = Address::new("postmaster", domain).ok();
        let sender = Sender { client: *address, helo: hostname.to_owned(), reverse_path };
        results.push((*address, spf.result(sender).await));
    }
    let mut keys = Vec::new();
    for selector in selectors {
        let found = texts(resolver, &format!("{selector}._domainkey.{domain}"), "").await;
        let fault = |texts: Vec<String>| match only::<DomainKey>(&texts) {
            Ok(_) => None,
            Err(fault) if fault.is_empty() => Some("there is none".to_owned()),
            Err(fault) => Some(fault),
        };
        keys.push((selector.to_string(), found.map(fault)));
    }
    let dmarc = texts(resolver, &format!("_dmarc.{domain}"), "v=DMARC1").await;
    let mta_sts = texts(resolver, &format!("_mta-sts.{domain}"), "v=STSv1").await;
    let tls_reports = texts(resolver, &format!("_smtp._tls.{domain}"), "v=TLSRPTv1").await;
    OfDomain {
        domain: domain.clone(),
        exchangers: exchangers(resolver, domain).await,
        spf: results,
        keys,
        dmarc: dmarc.map(|texts| {
            only::<Dmarc>(&texts).map(|dmarc| matches!(dmarc.p, Policy::None | Policy::Unspecified))
        }),
        mta_sts: mta_sts.map(|texts| only::<MtaSts>(&texts).map(drop)),
        tls_reports: tls_reports.map(|texts| only::<TlsRpt>(&texts).map(drop)),
    }
}

async fn exchangers(resolver: &Resolver, domain: &Domain) -> Answer<Vec<(u16, String, bool)>> {
    let records = match resolver.data(domain.as_str(), RecordType::MX).await {
        Ok(records) => records,
        Err(error) => return Answer::Silent(error.to_string()),
    };
    let mut found = Vec::new();
    for record in records.iter().take(RECORDS_MAX) {
        let RData::MX(mx) = record else { continue };
        let name = mx.exchange.to_ascii().trim_end_matches('.').to_owned();
        let alias = resolver.data(&name, RecordType::CNAME).await;
        found.push((mx.preference, name, alias.is_ok_and(|records| !records.is_empty())));
    }
    found.sort();
    Answer::Told(found)
}

/// The text records of a name that begin so.
async fn texts(resolver: &Resolver, name: &str, begin: &str) -> Answer<Vec<String>> {
    let records = answer(resolver.data(name, RecordType::TXT).await);
    records.map(|records| {
        let texts = records.iter().take(RECORDS_MAX).filter_map(lists::text);
        texts.filter(|text| text.starts_with(begin)).collect()
    })
}

/// The one record that there is; else what is wrong, which is nothing if there is none.
fn only<T: TxtRecordParser>(texts: &[String]) -> Result<T, String> {
    match texts {
        [] => Err(String::new()),
        // Strangers may have written it, and a library reads it.
        [text] => match contain(|| T::parse(text.as_bytes())) {
            Ok(Ok(read)) => Ok(read),
            Ok(Err(error)) => Err(format!("it cannot be read: {error}")),
            Err(_) => Err("it cannot be read".into()),
        },
        several => Err(format!("there are {}, and so none counts", several.len())),
    }
}

impl<T> Answer<T> {
    fn map<U>(self, change: impl FnOnce(T) -> U) -> Answer<U> {
        match self {
            Self::Told(told) => Answer::Told(change(told)),
            Self::Silent(why) => Answer::Silent(why),
        }
    }
}
