//! Who serves a domain (RFC 5321 §5, RFC 7505).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{RData, RecordType};
use shared::address::Domain;
use shared::id::random;

use shared::smtp::Enhanced;
use shared::smtp::client::{Class, Status};

/// Hosts of one domain that are tried.
pub const HOSTS_MAX: usize = 10;
/// Addresses of one host that are tried.
pub const ADDRESSES_MAX: usize = 5;
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// A host that serves a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailHost {
    /// Its name, as TLS and the sender are told.
    pub name: String,
    /// Its addresses, in the order in which they are tried.
    pub addresses: Vec<IpAddr>,
}

/// The node's resolver. One for all, because it caches; clones share that.
#[derive(Clone)]
pub struct Resolver(TokioResolver);

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Resolver")
    }
}

impl Resolver {
    /// Asks `servers`, or the system's resolvers if there are none.
    pub fn new(servers: &[SocketAddr]) -> Result<Self, NetError> {
        let mut builder = if servers.is_empty() {
            TokioResolver::builder_tokio()?
        } else {
            let servers = servers.iter().map(|server| {
                let mut config = NameServerConfig::udp_and_tcp(server.ip());
                config.connections.iter_mut().for_each(|connection| connection.port = server.port());
                config
            });
            let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        let options = builder.options_mut();
        options.timeout = LOOKUP_TIMEOUT;
        // A forged answer has to guess the case of every letter too.
        options.case_randomization = true;
        Ok(Self(builder.build()?))
    }

    /// The same resolver with the same cache, for a library.
    pub fn inner(&self) -> TokioResolver {
        self.0.clone()
    }

    /// The hosts that serve `domain`, best first: its MX hosts, or itself if it has none. Hosts of
    /// equal preference come in random order.
    pub async fn hosts(&self, domain: &Domain) -> Result<Vec<MailHost>, Status> {
        let mut names = self.exchanges(domain).await?;
        names.truncate(HOSTS_MAX);
        let (mut hosts, mut unsure) = (Vec::new(), None);
        for name in names {
            match self.addresses(&name).await {
                Ok(addresses) if addresses.is_empty() => {}
                Ok(addresses) => hosts.push(MailHost { name, addresses }),
                Err(error) => unsure = Some(error),
            }
        }
        match (hosts.is_empty(), unsure) {
            (false, _) => Ok(hosts),
            (true, Some(error)) => Err(temporary(domain, &error)),
            (true, None) => {
                let text = format!("no host that serves {domain} has an address in DNS");
                Err(Status::ours(Class::Permanent, Enhanced(5, 4, 4), &text))
            }
        }
    }

    async fn exchanges(&self, domain: &Domain) -> Result<Vec<String>, Status> {
        let name = format!("{domain}.");
        let lookup = match self.0.lookup(name.as_str(), RecordType::MX).await {
            Ok(lookup) => lookup,
            Err(error) if error.is_nx_domain() => {
                return Err(Status::ours(
                    Class::Permanent,
                    Enhanced(5, 1, 2),
                    &format!("there is no domain {domain} in DNS"),
                ));
            }
            Err(error) if is_nothing(&error) => return Ok(vec![domain.to_string()]),
            Err(error) => return Err(temporary(domain, &error)),
        };
        let mut exchanges: Vec<(u16, u64, String)> = lookup
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::MX(mx) => Some((mx.preference, u64::from_le_bytes(random()), mx.exchange.to_ascii())),
                _ => None,
            })
            .map(|(preference, dice, name)| (preference, dice, name.trim_end_matches('.').to_owned()))
            .collect();
        if exchanges.is_empty() {
            return Ok(vec![domain.to_string()]);
        }
        if exchanges.iter().all(|(_, _, name)| name.is_empty()) {
            let text = format!("{domain} says that it accepts no mail (null MX)");
            return Err(Status::ours(Class::Permanent, Enhanced(5, 1, 10), &text));
        }
        exchanges.retain(|(_, _, name)| !name.is_empty());
        exchanges.sort_unstable();
        Ok(exchanges.into_iter().map(|(_, _, name)| name).collect())
    }

    /// A host's addresses; none if it has none. An IP address is not a host name (RFC 5321 §5.1).
    pub async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, NetError> {
        let mut addresses = Vec::new();
        for kind in [RecordType::A, RecordType::AAAA] {
            match self.records(host, kind).await {
                Ok(records) => addresses.extend(records.iter().filter_map(|record| match record {
                    RData::A(address) => Some(IpAddr::V4(address.0)),
                    RData::AAAA(address) => Some(IpAddr::V6(address.0)),
                    _ => None,
                })),
                Err(error) if addresses.is_empty() => return Err(error),
                Err(_) => {}
            }
        }
        addresses.truncate(ADDRESSES_MAX);
        Ok(addresses)
    }

    /// The records of one kind that `name` (the root's is empty) has, those on the way along its aliases left out; none if it has none.
    pub async fn records(&self, name: &str, kind: RecordType) -> Result<Vec<RData>, NetError> {
        match self.0.lookup(format!("{name}.").as_str(), kind).await {
            Ok(lookup) => {
                let records = lookup.answers().iter().map(|record| record.data.clone());
                Ok(records.filter(|data| data.record_type() == kind).collect())
            }
            Err(error) if error.is_nx_domain() || is_nothing(&error) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

/// The name is there and has no such record.
fn is_nothing(error: &NetError) -> bool {
    matches!(error, NetError::Dns(DnsError::NoRecordsFound(none)) if none.response_code == ResponseCode::NoError)
}

fn temporary(domain: &Domain, error: &NetError) -> Status {
    Status::ours(Class::Temporary, Enhanced(4, 4, 3), &format!("DNS gives no answer about {domain}: {error}"))
}
