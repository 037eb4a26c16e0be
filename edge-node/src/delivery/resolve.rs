//! Who serves a domain (RFC 5321 §5, RFC 7505), and what is published of its hosts' certificates (RFC 7672 §2.2).

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::dnssec::{Proof, TrustAnchors};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use shared::address::Domain;
use shared::id::random;
use shared::smtp::Enhanced;
use shared::smtp::client::{Class, Status};
use shared::topology::Dnssec;

use super::dane::TlsaRecord;

/// Hosts of one domain that are tried.
pub const HOSTS_MAX: usize = 10;
/// Addresses of one host that are tried.
pub const ADDRESSES_MAX: usize = 5;
/// Aliases that are followed one by one.
const ALIASES_MAX: usize = 8;
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// A host that serves a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailHost {
    /// Its name, as TLS and the sender are told.
    pub name: String,
    /// Its addresses, in the order in which they are tried.
    pub addresses: Vec<IpAddr>,
    /// What it has published of its certificates.
    pub published: Published,
}

impl MailHost {
    /// The name by which it is asked for under TLS.
    pub fn asked(&self) -> &str {
        match &self.published {
            Published::Records { base, .. } => base,
            Published::Nothing | Published::Unknown(_) => &self.name,
        }
    }
}

/// What a host has published of its certificates, as far as DNS proves that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Published {
    /// Nothing, or nothing that is proved.
    Nothing,
    /// These TLSA records.
    Records {
        /// The name that they are of: what the host is to be asked for by.
        base: String,
        /// The names that its certificate may be for (RFC 7672 §3.2.2).
        names: Vec<String>,
        /// The records, at least one.
        records: Vec<TlsaRecord>,
    },
    /// DNS gives no answer that is proved, or none at all, for this reason: it may have been forged.
    Unknown(String),
}

/// Why there is no resolver.
#[derive(Debug, thiserror::Error)]
pub enum ResolverError {
    /// It cannot be made.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The keys that answers are to be validated by cannot be read.
    #[error("{}: {reason}; `trust_anchors` has to name a file of DNSKEY records", .path.display())]
    Anchors {
        /// Their file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
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
    /// Asks `servers`, or the system's resolvers if there are none, and validates what they say as `dnssec` has it: an
    /// answer that should be signed and is not is none.
    ///
    /// # Errors
    /// [`ResolverError`] if the servers or the keys cannot be used.
    pub fn new(servers: &[SocketAddr], dnssec: &Dnssec) -> Result<Self, ResolverError> {
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
        let anchors = match dnssec {
            Dnssec::Off => None,
            Dnssec::Root => Some(TrustAnchors::default()),
            Dnssec::Anchors(path) => Some(anchors(path)?),
        };
        if let Some(anchors) = anchors {
            let options = builder.options_mut();
            options.validate = true;
            // Without it nobody is asked for signatures; the system's settings may not have it.
            options.edns0 = true;
            builder = builder.with_trust_anchor(Arc::new(anchors));
        }
        Ok(Self(builder.build()?))
    }

    /// Says in the log if the servers pass no DNSSEC records on, by which the root's keys could be trusted: every answer
    /// would look forged then.
    pub async fn check_root(&self) {
        let is_proved = match self.0.lookup(".", RecordType::NS).await {
            Ok(lookup) => are_proved(lookup.answers(), RecordType::NS),
            Err(error) if is_unproved(&error) => false,
            // It says nothing of that.
            Err(_) => true,
        };
        if !is_proved {
            tracing::error!(
                "the resolvers pass no DNSSEC records on, so DNS proves nothing and mail waits: name others with \
                 [edge.dns] `servers`, or do without DANE by `dnssec = false`"
            );
        }
    }

    /// The same resolver with the same cache, for a library.
    pub fn inner(&self) -> TokioResolver {
        self.0.clone()
    }

    /// The hosts that serve `domain`, best first: its MX hosts, or itself if it has none. Hosts of
    /// equal preference come in random order. With what those have published of their certificates for `port`.
    pub async fn hosts(&self, domain: &Domain, port: u16) -> Result<Vec<MailHost>, Status> {
        let Exchanges { mut names, is_proved, next_hops } = self.exchanges(domain).await?;
        names.truncate(HOSTS_MAX);
        let (mut hosts, mut unsure) = (Vec::new(), None);
        for name in names {
            match self.found(&name).await {
                Ok(found) if found.addresses.is_empty() => {}
                Ok(Found { addresses, bases }) => {
                    let published = match is_proved {
                        true => self.published(&bases, &next_hops, port).await,
                        false => Published::Nothing,
                    };
                    hosts.push(MailHost { name, addresses, published });
                }
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

    /// The records of a name, and the aliases that lead to them. Aliases are followed one by one where DNS proves them
    /// only so: an answer about all of a chain may carry denials that speak of another step of it.
    async fn records(&self, name: &str, record_type: RecordType) -> Result<Vec<Record>, NetError> {
        let (mut name, mut records) = (format!("{name}."), Vec::new());
        for _ in 0..ALIASES_MAX {
            let unproved = match self.0.lookup(name.as_str(), record_type).await {
                Ok(lookup) => {
                    records.extend_from_slice(lookup.answers());
                    return Ok(records);
                }
                Err(error) if is_unproved(&error) => error,
                Err(error) => return Err(error),
            };
            let Ok(step) = self.0.lookup(name.as_str(), RecordType::CNAME).await else {
                return Err(unproved);
            };
            let target = step.answers().iter().find_map(|record| match &record.data {
                RData::CNAME(target) => Some(target.to_ascii()),
                _ => None,
            });
            let Some(target) = target else { return Err(unproved) };
            records.extend_from_slice(step.answers());
            name = target;
        }
        Err(NetError::Message("there are too many aliases"))
    }

    async fn exchanges(&self, domain: &Domain) -> Result<Exchanges, Status> {
        let records = match self.records(domain.as_str(), RecordType::MX).await {
            Ok(records) => records,
            Err(error) if absence(&error) == Some(ResponseCode::NXDomain) => {
                return Err(Status::ours(
                    Class::Permanent,
                    Enhanced(5, 1, 2),
                    &format!("there is no domain {domain} in DNS"),
                ));
            }
            Err(error) if absence(&error).is_some() => return Ok(Exchanges::itself(domain)),
            Err(error) => return Err(temporary(domain, &error)),
        };
        let exchange = |record: &Record| match &record.data {
            RData::MX(mx) => Some((mx.preference, u64::from_le_bytes(random()), plain(&mx.exchange))),
            _ => None,
        };
        let mut exchanges: Vec<_> = records.iter().filter_map(exchange).collect();
        if exchanges.is_empty() {
            return Ok(Exchanges::itself(domain));
        }
        if exchanges.iter().all(|(_, _, name)| name.is_empty()) {
            let text = format!("{domain} says that it accepts no mail (null MX)");
            return Err(Status::ours(Class::Permanent, Enhanced(5, 1, 10), &text));
        }
        exchanges.retain(|(_, _, name)| !name.is_empty());
        exchanges.sort_unstable();
        let owner = records.iter().find(|record| record.record_type() == RecordType::MX);
        let mut next_hops = vec![domain.to_string()];
        next_hops.extend(owner.map(|record| plain(&record.name)).filter(|name| *name != next_hops[0]));
        Ok(Exchanges {
            names: exchanges.into_iter().map(|(_, _, name)| name).collect(),
            is_proved: are_proved(&records, RecordType::MX),
            next_hops,
        })
    }

    /// A host's addresses; none if it has none. An IP address is not a host name (RFC 5321 §5.1).
    pub async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, NetError> {
        self.found(host).await.map(|found| found.addresses)
    }

    /// The text records of a name, each whole; none if DNS does not give them.
    pub async fn texts(&self, name: &str) -> Vec<String> {
        let Ok(records) = self.records(name, RecordType::TXT).await else { return Vec::new() };
        let text = |record: &Record| match &record.data {
            RData::TXT(text) => Some(String::from_utf8_lossy(&text.txt_data.concat()).into_owned()),
            _ => None,
        };
        records.iter().filter_map(text).collect()
    }

    async fn found(&self, host: &str) -> Result<Found, NetError> {
        let mut records = Vec::new();
        for record_type in [RecordType::A, RecordType::AAAA] {
            match self.records(host, record_type).await {
                Ok(found) => records.extend(found),
                Err(error) if absence(&error).is_some() => {}
                Err(error) if records.is_empty() => return Err(error),
                Err(_) => {}
            }
        }
        let address = |record: &Record| match &record.data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            RData::AAAA(address) => Some(IpAddr::V6(address.0)),
            _ => None,
        };
        let addresses = records.iter().filter_map(address).take(ADDRESSES_MAX).collect();
        Ok(Found { addresses, bases: bases(host, &records) })
    }

    /// The TLSA records of the first of `bases` that has some.
    async fn published(&self, bases: &[String], next_hops: &[String], port: u16) -> Published {
        for base in bases {
            let found = match self.records(&format!("_{port}._tcp.{base}"), RecordType::TLSA).await {
                Ok(found) => found,
                Err(error) if absence(&error).is_some() => continue,
                Err(error) => return Published::Unknown(error.to_string()),
            };
            let record = |record: &Record| match &record.data {
                RData::TLSA(tlsa) => Some(TlsaRecord {
                    usage: tlsa.cert_usage.into(),
                    selector: tlsa.selector.into(),
                    matching: tlsa.matching.into(),
                    data: tlsa.cert_data.clone(),
                }),
                _ => None,
            };
            let records: Vec<_> = found.iter().filter_map(record).collect();
            if !records.is_empty() && are_proved(&found, RecordType::TLSA) {
                let mut names = vec![base.clone()];
                names.extend(next_hops.iter().filter(|name| *name != base).cloned());
                return Published::Records { base: base.clone(), names, records };
            }
        }
        Published::Nothing
    }

    /// What records of one kind `name` (the root's is empty) has, those on the way along its aliases left out; nothing if
    /// it has none.
    pub async fn data(&self, name: &str, kind: RecordType) -> Result<Vec<RData>, NetError> {
        match self.records(name, kind).await {
            Ok(records) => {
                let data = records.into_iter().map(|record| record.data);
                Ok(data.filter(|data| data.record_type() == kind).collect())
            }
            Err(error) if absence(&error).is_some() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

/// Who serves a domain.
struct Exchanges {
    names: Vec<String>,
    /// DNS proves that it is these.
    is_proved: bool,
    /// The domain, and what it is another name of.
    next_hops: Vec<String>,
}

impl Exchanges {
    /// The domain has no MX. Whether that is proved makes no odds: its address is in the same zone.
    fn itself(domain: &Domain) -> Self {
        let name = domain.to_string();
        Self { names: vec![name.clone()], is_proved: true, next_hops: vec![name] }
    }
}

/// A host in DNS.
struct Found {
    addresses: Vec<IpAddr>,
    /// The names whose TLSA records count, best first.
    bases: Vec<String>,
}

/// Whether the records of this type, and the aliases that lead to them, are all proved.
fn are_proved(records: &[Record], record_type: RecordType) -> bool {
    let counts = |record: &&Record| {
        let found = record.record_type();
        found == record_type || found == RecordType::CNAME
    };
    records.iter().filter(counts).all(|record| record.proof == Proof::Secure)
}

/// The names whose TLSA records count for a host with these addresses (RFC 7672 §2.2.2): what it is another name of,
/// then its own; none if DNS does not prove that the host is there.
fn bases(host: &str, records: &[Record]) -> Vec<String> {
    let is_proved = are_proved(records, RecordType::A) && are_proved(records, RecordType::AAAA);
    let is_host = |record: &&Record| plain(&record.name) == host.to_ascii_lowercase();
    let mut of_type = records.iter().filter(|record| record.record_type() == RecordType::CNAME);
    match of_type.find(is_host) {
        None if is_proved => vec![host.to_owned()],
        Some(_) if is_proved => {
            let is_address = |record: &&Record| matches!(record.data, RData::A(_) | RData::AAAA(_));
            let end = records.iter().find(is_address).map(|record| plain(&record.name));
            end.into_iter().chain([host.to_owned()]).collect()
        }
        // The alias itself is proved, what it leads to is not.
        Some(alias) if alias.proof == Proof::Secure => vec![host.to_owned()],
        _ => Vec::new(),
    }
}

/// A name of DNS as it is written elsewhere: in small letters, for the case of a question comes back in its answer.
fn plain(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_ascii_lowercase()
}

/// Something in the answer is not proved.
fn is_unproved(error: &NetError) -> bool {
    matches!(error, NetError::Dns(DnsError::DnssecBogus | DnsError::Nsec { proof: Proof::Bogus, .. }))
}

fn anchors(path: &std::path::Path) -> Result<TrustAnchors, ResolverError> {
    let refused = |reason: String| ResolverError::Anchors { path: path.into(), reason };
    let text = std::fs::read_to_string(path).map_err(|error| refused(error.to_string()))?;
    if !text.contains("DNSKEY") {
        return Err(refused("it holds none".into()));
    }
    text.parse().map_err(|error| refused(format!("{error}")))
}

/// That there is no such record, and how: the name is there (`NoError`), or not (`NXDomain`). Denials that cannot be
/// proved because their zone does not ask for it count.
fn absence(error: &NetError) -> Option<ResponseCode> {
    let code = match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => none.response_code,
        NetError::Dns(DnsError::Nsec { response, proof: Proof::Insecure, .. }) => response.response_code,
        _ => return None,
    };
    matches!(code, ResponseCode::NoError | ResponseCode::NXDomain).then_some(code)
}

fn temporary(domain: &Domain, error: &NetError) -> Status {
    Status::ours(Class::Temporary, Enhanced(4, 4, 3), &format!("DNS gives no answer about {domain}: {error}"))
}

#[cfg(test)]
mod tests {
    use hickory_resolver::net::NoRecords;
    use hickory_resolver::proto::op::Query;
    use hickory_resolver::proto::rr::rdata::{A, CNAME};

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).expect("a name")
    }

    fn proved(owner: &str, data: RData, proof: Proof) -> Record {
        let mut record = Record::from_rdata(name(owner), 60, data);
        record.proof = proof;
        record
    }

    #[test]
    fn tlsa_records_count_at_names_that_dns_proves() {
        use Proof::{Bogus, Indeterminate, Insecure, Secure};
        let address = |owner, proof| proved(owner, RData::A(A::new(192, 0, 2, 1)), proof);
        let alias = |owner, target, proof| proved(owner, RData::CNAME(CNAME(name(target))), proof);
        let own = ["mx.a.example"];
        for (records, wanted) in [
            (vec![address("MX.a.Example.", Secure)], &own[..]),
            (vec![address("mx.a.example.", Insecure)], &[]),
            (vec![address("mx.a.example.", Indeterminate)], &[]),
            (vec![address("mx.a.example.", Secure), address("mx.a.example.", Bogus)], &[]),
            (
                vec![alias("mx.a.example.", "h.B.example.", Secure), address("h.B.example.", Secure)],
                &["h.b.example", "mx.a.example"],
            ),
            // Where it leads to is not proved, that it leads there is.
            (vec![alias("mx.a.example.", "h.b.example.", Secure), address("h.b.example.", Insecure)], &own),
            (vec![alias("mx.a.example.", "h.b.example.", Insecure), address("h.b.example.", Secure)], &[]),
        ] {
            assert_eq!(bases("mx.a.example", &records), wanted, "{records:?}");
        }
    }

    #[test]
    fn that_nothing_is_there_is_told_from_that_nobody_knows() {
        let none = |code| NetError::from(NoRecords::new(Query::query(name("a."), RecordType::TLSA), code));
        for code in [ResponseCode::NoError, ResponseCode::NXDomain] {
            assert_eq!(absence(&none(code)), Some(code));
        }
        assert_eq!(absence(&none(ResponseCode::ServFail)), None);
        assert_eq!(absence(&NetError::Dns(DnsError::DnssecBogus)), None);
        assert_eq!(absence(&NetError::Timeout), None);
        assert_eq!(absence(&NetError::Dns(DnsError::ResponseCode(ResponseCode::ServFail))), None);
    }
}
