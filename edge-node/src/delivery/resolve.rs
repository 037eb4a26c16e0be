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
use hickory_resolver::proto::rr::domain::usage::{INVALID, ONION};
use hickory_resolver::proto::rr::rdata::SOA;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use shared::address::Domain;
use shared::id::random;
use shared::smtp::Enhanced;
use shared::smtp::client::{Class, Status};
use shared::topology::Dnssec;

use super::dane::TlsaRecord;
use super::ourselves::{Ourselves, loops};
use super::signatures::Passing;

/// Hosts of one domain that are tried.
pub const HOSTS_MAX: usize = 10;
/// Addresses of one host that are tried.
pub const ADDRESSES_MAX: usize = 5;
/// Aliases that are followed, however many answers they come in.
const ALIASES_MAX: usize = 8;
/// What may have been forged is told by this: nobody is asked for the mail another way (RFC 3463 §3.8).
pub const UNPROVED: Enhanced = Enhanced(4, 7, 5);
/// Why an answer is none.
const NOT_THERE: &str = "it answers with nothing that was asked for";
/// Why a denial is none.
const OF_ANOTHER: &str = "what it denies is of another name or zone";
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// A host that serves a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailHost {
    /// Its name, as TLS and the sender are told.
    pub name: String,
    /// Hosts with a lower one are better (RFC 5321 §5.1).
    pub preference: u16,
    /// Its addresses, in the order in which they are tried.
    pub addresses: Vec<IpAddr>,
    /// DNS proves that the domain names it, or it is the domain itself.
    pub is_proved: bool,
    /// What it has published of its certificates.
    pub published: Published,
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
pub struct Resolver {
    inner: TokioResolver,
    /// Answers are none unless DNS proves them, or proves that it cannot.
    validates: bool,
}

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
        let validates = anchors.is_some();
        if let Some(anchors) = anchors {
            let options = builder.options_mut();
            options.validate = true;
            // Without it nobody is asked for signatures; the system's settings may not have it.
            options.edns0 = true;
            builder = builder.with_trust_anchor(Arc::new(anchors));
        }
        Ok(Self { inner: builder.build()?, validates })
    }

    /// The servers that are asked: `configured`, or the system's if there are none.
    ///
    /// # Errors
    /// [`ResolverError`] if the system's cannot be read.
    pub fn servers(configured: &[SocketAddr]) -> Result<Vec<SocketAddr>, ResolverError> {
        if !configured.is_empty() {
            return Ok(configured.to_vec());
        }
        let (config, _) = read_system_conf()?;
        let port = |server: &NameServerConfig| server.connections.first().map(|connection| connection.port);
        let servers = config.name_servers().iter();
        Ok(servers.filter_map(|server| Some(SocketAddr::new(server.ip, port(server)?))).collect())
    }

    /// Whether the servers pass on what the root has signed: without it, every answer looks forged.
    pub async fn passing(&self) -> Passing {
        match self.records("", RecordType::NS).await {
            Ok(records) if are_proved(&records) => Passing::Passes,
            // It says nothing of that.
            Err(error) if !self.is_doubtful(&error) => Passing::Unknown(error.to_string()),
            Ok(_) | Err(_) => Passing::Strips,
        }
    }

    /// The same resolver with the same cache, for a library.
    pub fn inner(&self) -> TokioResolver {
        self.inner.clone()
    }

    /// The hosts that serve `domain`, best first: its MX hosts, or itself if it has none. Hosts of
    /// equal preference come in random order. With what those have published of their certificates for `port`; and why it is
    /// not known now where another one is, if there is such. Where `ours` is one of them, it and all that are not better are
    /// left out (RFC 5321 §5.1).
    pub async fn hosts(
        &self,
        domain: &Domain,
        port: u16,
        ours: Option<&Ourselves>,
    ) -> Result<(Vec<MailHost>, Option<(u16, Status)>), Status> {
        let Exchanges { mut names, is_proved, next_hops, is_doubtful } = self.exchanges(domain).await?;
        let is_ours = |(_, name): &&(u16, String)| ours.is_some_and(|ours| ours.is_named(name));
        let mut own = names.iter().find(is_ours).cloned();
        if let Some((preference, _)) = &own {
            names.retain(|(other, _)| other < preference);
        }
        names.truncate(HOSTS_MAX);
        let (mut hosts, mut unsure) = (Vec::new(), Vec::new());
        for (preference, name) in names {
            match self.found(&name).await {
                Ok(found) if found.addresses.is_empty() => {}
                // Its zone is signed, so it would prove that it has no MX.
                Ok(found) if is_doubtful && !found.bases.is_empty() => {
                    return Err(unproved(domain, OF_ANOTHER));
                }
                Ok(Found { addresses, .. })
                    if ours.is_some_and(|ours| {
                        addresses.iter().any(|address| ours.is_at(SocketAddr::new(*address, port)))
                    }) =>
                {
                    hosts.retain(|other: &MailHost| other.preference < preference);
                    unsure.retain(|(other, _)| *other < preference);
                    own = Some((preference, name));
                    break;
                }
                Ok(Found { addresses, bases }) => {
                    let published = match is_proved {
                        true => self.published(&bases, &next_hops, port).await,
                        false => Published::Nothing,
                    };
                    hosts.push(MailHost { name, preference, addresses, is_proved, published });
                }
                Err(error) if self.is_doubtful(&error) => {
                    let published = Published::Unknown(format!("nor where it is: {error}"));
                    let addresses = Vec::new();
                    hosts.push(MailHost { name, preference, addresses, is_proved, published });
                }
                Err(error) => unsure.push((preference, error)),
            }
        }
        let unsure = unsure.into_iter().next();
        match (hosts.is_empty(), unsure, own) {
            (false, unsure, _) => {
                let unsure = unsure.map(|(preference, error)| (preference, self.no_answer(domain, &error)));
                Ok((hosts, unsure))
            }
            (true, Some((_, error)), _) => Err(self.no_answer(domain, &error)),
            (true, None, _) if is_doubtful => Err(unproved(domain, OF_ANOTHER)),
            (true, None, Some((_, name))) => Err(loops(domain, &name)),
            (true, None, None) => {
                let text = format!("no host that serves {domain} has an address in DNS");
                Err(Status::ours(Class::Permanent, Enhanced(5, 4, 4), &text))
            }
        }
    }

    /// The records of this kind that a name has, behind the aliases that lead to them: at least one. Aliases are followed
    /// one by one where an answer about all of them will not do: it may carry denials that speak of another step, or
    /// be put together from what was asked before.
    async fn records(&self, name: &str, kind: RecordType) -> Result<Vec<Record>, NetError> {
        let (mut name, mut records) = (Name::from_utf8(format!("{name}."))?, Vec::new());
        for _ in 0..ALIASES_MAX {
            let doubt = match self.inner.lookup(name.clone(), kind).await {
                Ok(lookup) => {
                    let (end, found) = chain(&name, kind, lookup.answers());
                    let is_there = found.last().is_some_and(|last| last.record_type() == kind);
                    records.extend(found);
                    let is_alias = |record: &&Record| record.record_type() == RecordType::CNAME;
                    if records.iter().filter(is_alias).count() > ALIASES_MAX {
                        break;
                    }
                    if is_there {
                        let is_bogus = |record: &Record| record.proof == Proof::Bogus;
                        return match self.validates && records.iter().any(is_bogus) {
                            true => Err(NetError::Dns(DnsError::DnssecBogus)),
                            false => Ok(records),
                        };
                    }
                    name = end;
                    NetError::Message(NOT_THERE)
                }
                Err(error) if is_unproved(&error) => error,
                Err(error) if self.validates && denied(&error).is_some_and(|denied| *denied != name) => {
                    NetError::Message(OF_ANOTHER)
                }
                Err(error) if !self.validates && is_bare(&error) => error,
                Err(error) => return Err(error),
            };
            let Ok(step) = self.inner.lookup(name.clone(), RecordType::CNAME).await else {
                return Err(doubt);
            };
            let (_, aliases) = chain(&name, RecordType::CNAME, step.answers());
            let Some(RData::CNAME(target)) = aliases.first().map(|alias| &alias.data) else {
                return Err(doubt);
            };
            name = target.0.clone();
            records.extend(aliases);
        }
        Err(NetError::Message("there are too many aliases"))
    }

    async fn exchanges(&self, domain: &Domain) -> Result<Exchanges, Status> {
        let records = match self.records(domain.as_str(), RecordType::MX).await {
            Ok(records) => records,
            Err(error) => match denial(&error, self.validates) {
                Some(Denial { code: ResponseCode::NXDomain, is_believed: true }) => {
                    return Err(Status::ours(
                        Class::Permanent,
                        Enhanced(5, 1, 2),
                        &format!("there is no domain {domain} in DNS"),
                    ));
                }
                // Servers of zones that are not signed may deny without saying for which zone.
                Some(Denial { code: ResponseCode::NoError, is_believed }) => {
                    return Ok(Exchanges::itself(domain, !is_believed));
                }
                _ => return Err(self.no_answer(domain, &error)),
            },
        };
        let exchange = |record: &Record| match &record.data {
            RData::MX(mx) => Some((mx.preference, u64::from_le_bytes(random()), plain(&mx.exchange))),
            _ => None,
        };
        let mut exchanges: Vec<_> = records.iter().filter_map(exchange).collect();
        if exchanges.is_empty() {
            return Err(unproved(domain, NOT_THERE));
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
            names: exchanges.into_iter().map(|(preference, _, name)| (preference, name)).collect(),
            is_proved: are_proved(&records),
            next_hops,
            is_doubtful: false,
        })
    }

    /// A host's addresses; none if it has none. An IP address is not a host name (RFC 5321 §5.1).
    pub async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, NetError> {
        self.found(host).await.map(|found| found.addresses)
    }

    /// The text records of a name, each whole; nothing if it has none.
    pub async fn texts(&self, name: &str) -> Result<Vec<String>, NetError> {
        let text = |data: &RData| match data {
            RData::TXT(text) => Some(String::from_utf8_lossy(&text.txt_data.concat()).into_owned()),
            _ => None,
        };
        Ok(self.data(name, RecordType::TXT).await?.iter().filter_map(text).collect())
    }

    async fn found(&self, host: &str) -> Result<Found, NetError> {
        let (mut records, mut failed) = (Vec::new(), None);
        for kind in [RecordType::A, RecordType::AAAA] {
            match self.records(host, kind).await {
                Ok(found) => records.extend(found),
                Err(error) if self.is_absence(&error) => {}
                Err(error) if failed.is_none() || self.is_doubtful(&error) => failed = Some(error),
                Err(_) => {}
            }
        }
        let addresses = alternating(&records);
        match failed {
            Some(error) if addresses.is_empty() => Err(error),
            _ => Ok(Found { addresses, bases: bases(host, &records) }),
        }
    }

    /// The TLSA records of the first of `bases` that has some.
    async fn published(&self, bases: &[String], next_hops: &[String], port: u16) -> Published {
        for base in bases {
            let found = match self.records(&format!("_{port}._tcp.{base}"), RecordType::TLSA).await {
                Ok(found) if are_proved(&found) => found,
                // Its zone is not signed, which is proved.
                Ok(found) if found.iter().all(|record| is_settled(record.proof)) => continue,
                Ok(_) => return Published::Unknown("they are not proved".into()),
                Err(error) if self.is_absence(&error) => continue,
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
            let records = found.iter().filter_map(record).collect();
            let mut names = vec![base.clone()];
            names.extend(next_hops.iter().filter(|name| *name != base).cloned());
            return Published::Records { base: base.clone(), names, records };
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
            Err(error) if self.is_absence(&error) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// That there is no such record, which may be believed.
    fn is_absence(&self, error: &NetError) -> bool {
        denial(error, self.validates).is_some_and(|denial| denial.is_believed)
    }

    /// That it may have been forged.
    fn is_doubtful(&self, error: &NetError) -> bool {
        is_unproved(error)
            || matches!(error, NetError::Message(NOT_THERE | OF_ANOTHER))
            || denial(error, self.validates).is_some_and(|denial| !denial.is_believed)
    }

    fn no_answer(&self, domain: &Domain, error: &NetError) -> Status {
        match self.is_doubtful(error) {
            true => unproved(domain, &error.to_string()),
            false => no_answer(Enhanced(4, 4, 3), domain, &error.to_string()),
        }
    }
}

/// The addresses in `records`, as many as are tried: of both families in turn, so that many of one leave room for the other.
fn alternating(records: &[Record]) -> Vec<IpAddr> {
    let (mut four, mut six) = (Vec::new(), Vec::new());
    for record in records {
        match &record.data {
            RData::A(address) => four.push(IpAddr::V4(address.0)),
            RData::AAAA(address) => six.push(IpAddr::V6(address.0)),
            _ => {}
        }
    }
    let turns = (0..ADDRESSES_MAX).flat_map(|turn| [four.get(turn), six.get(turn)]);
    turns.flatten().copied().take(ADDRESSES_MAX).collect()
}

/// Who serves a domain.
struct Exchanges {
    /// Preferences and names, best first.
    names: Vec<(u16, String)>,
    /// DNS proves that it is these.
    is_proved: bool,
    /// The domain, and what it is another name of.
    next_hops: Vec<String>,
    /// That it has no MX does not come from its zone.
    is_doubtful: bool,
}

impl Exchanges {
    /// The domain has no MX. Whether that is proved makes no odds: its address is in the same zone.
    fn itself(domain: &Domain, is_doubtful: bool) -> Self {
        let name = domain.to_string();
        Self { names: vec![(0, name.clone())], is_proved: true, next_hops: vec![name], is_doubtful }
    }
}

/// A host in DNS.
struct Found {
    addresses: Vec<IpAddr>,
    /// The names whose TLSA records count, best first.
    bases: Vec<String>,
}

/// What an answer says of `name`: the name at the end of its aliases, and those aliases, then the records of this kind
/// that the end has, if any. Whatever else is in there was not asked for, and neither proves nor casts doubt.
fn chain(name: &Name, kind: RecordType, answers: &[Record]) -> (Name, Vec<Record>) {
    let (mut end, mut found) = (name, Vec::new());
    let steps = if kind == RecordType::CNAME { 0 } else { ALIASES_MAX };
    for _ in 0..steps {
        let alias = answers.iter().find_map(|record| match &record.data {
            RData::CNAME(target) if record.name == *end => Some((record, &target.0)),
            _ => None,
        });
        let Some((alias, target)) = alias else { break };
        found.push(alias.clone());
        end = target;
    }
    let is_wanted = |record: &&Record| record.record_type() == kind && record.name == *end;
    found.extend(answers.iter().filter(is_wanted).cloned());
    (end.clone(), found)
}

/// Whether records, and the aliases that lead to them, are all proved.
fn are_proved(records: &[Record]) -> bool {
    records.iter().all(|record| record.proof == Proof::Secure)
}

/// It is proved, or that its zone is not signed is.
fn is_settled(proof: Proof) -> bool {
    matches!(proof, Proof::Secure | Proof::Insecure)
}

/// The names whose TLSA records count for a host with these addresses (RFC 7672 §2.2.2): what it is another name of,
/// then its own; none if DNS does not prove that the host is there.
fn bases(host: &str, records: &[Record]) -> Vec<String> {
    let is_proved = are_proved(records);
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

/// That there is no such record.
#[derive(Debug, PartialEq, Eq)]
struct Denial {
    /// The name is there (`NoError`), or not (`NXDomain`).
    code: ResponseCode,
    /// It comes from the zone that the name is in, which proves it or does not sign: others have no say.
    is_believed: bool,
}

/// `None` if an error is no denial.
fn denial(error: &NetError, validates: bool) -> Option<Denial> {
    let (code, is_of_its_zone) = match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => {
            let name = none.query.name();
            let is_zone = |soa: &Record<SOA>| is_settled(soa.proof) && soa.name.zone_of(name);
            let is_zone = none.soa.as_deref().is_some_and(is_zone);
            // The library denies these itself (RFC 6761 §6.4, RFC 7686 §2).
            (none.response_code, is_zone || INVALID.zone_of(name) || ONION.zone_of(name))
        }
        NetError::Dns(DnsError::Nsec { query, response, proof: Proof::Insecure, .. }) => {
            let is_soa =
                |record: &&Record| record.record_type() == RecordType::SOA && record.proof == Proof::Secure;
            let soa = response.authorities.iter().find(is_soa);
            (response.response_code, soa.is_some_and(|soa| soa.name.zone_of(query.name())))
        }
        _ => return None,
    };
    let is_denial = matches!(code, ResponseCode::NoError | ResponseCode::NXDomain);
    is_denial.then_some(Denial { code, is_believed: !validates || is_of_its_zone })
}

/// Whether a denial does not say of which zone it is. The library makes such a one of aliases of which it has had enough, as
/// of a loop: those are no reason to give mail up.
fn is_bare(error: &NetError) -> bool {
    let NetError::Dns(DnsError::NoRecordsFound(none)) = error else { return false };
    none.soa.is_none() && none.response_code == ResponseCode::NoError
}

/// The name that a denial speaks of.
fn denied(error: &NetError) -> Option<&Name> {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => Some(none.query.name()),
        NetError::Dns(DnsError::Nsec { query, .. }) => Some(query.name()),
        _ => None,
    }
}

/// The answer about a domain may have been forged.
fn unproved(domain: &Domain, why: &str) -> Status {
    no_answer(UNPROVED, domain, why)
}

fn no_answer(enhanced: Enhanced, domain: &Domain, why: &str) -> Status {
    Status::ours(Class::Temporary, enhanced, &format!("DNS gives no answer about {domain}: {why}"))
}

#[cfg(test)]
mod forger_tests;
#[cfg(test)]
mod tests;
