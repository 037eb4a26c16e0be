//! Gateways: mail systems inside to which big hands mail itself, and the domains that they take.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use serde::{Deserialize, Serialize};
use shared::address::{Domain, canonical_local};
use shared::id::random;
use shared::mime::terminal;
use shared::store::{Rows, StoreError};

use super::ROLES;
use super::entry::{Gateway, Listed, TakenBy, Takes, Transport};
use super::naming::{local_name, own_address, shown};
use super::policy::Policy;
use super::register::changed_after;
use super::route::Way;
use crate::error::Refused;
use crate::record::{GATEWAY_DOMAINS, GATEWAYS, LISTED};

/// Gateways of a site.
pub const GATEWAYS_MAX: usize = 100;
/// Hosts of one gateway.
pub const HOSTS_MAX: usize = 10;
/// Domains of one gateway.
pub const DOMAINS_MAX: usize = 100;
/// Addresses that are listed for the gateways of a site.
pub const LISTED_MAX: u64 = 200_000;
/// Octets of a folder's path.
const FOLDER_MAX: usize = 1024;

/// How a gateway is to be reached, as asked for: exactly one of these is given.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Reach {
    /// Hosts for LMTP.
    pub lmtp: Vec<String>,
    /// Hosts for SMTP.
    pub smtp: Vec<String>,
    /// A folder into which messages are put.
    pub drop: Option<String>,
    /// A folder from which messages are picked up.
    pub pickup: Option<String>,
}

impl Reach {
    fn is_empty(&self) -> bool {
        self.lmtp.is_empty() && self.smtp.is_empty() && self.drop.is_none() && self.pickup.is_none()
    }
}

/// A new gateway, as asked for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct NewGateway {
    /// Its name.
    pub name: String,
    /// How it is reached.
    pub reach: Reach,
    /// The domains that it takes.
    pub domains: Vec<String>,
    /// Which names in the site's domains.
    #[serde(default)]
    pub takes: Takes,
}

/// What changes of a gateway; what is empty stays.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct GatewayChange {
    /// Its name.
    pub name: String,
    /// How it is reached.
    pub reach: Reach,
    /// More domains.
    pub add_domains: Vec<String>,
    /// Domains that go.
    pub remove_domains: Vec<String>,
    /// Which names in the site's domains.
    #[serde(default)]
    pub takes: Option<Takes>,
}

/// The gateway that is asked for.
pub fn new_gateway(rows: &impl Rows, new: &NewGateway, now: u64) -> Result<Gateway, Refused> {
    let name = local_name(&new.name)?;
    if name == Way::Edge.as_str() {
        return Err(Refused::new("smtp is the way out by the edge, which is always there"));
    }
    if rows.raw(GATEWAYS, name.as_bytes())?.is_some() {
        return Err(Refused::new(format!("there is a gateway {name} already; choose another name")));
    }
    if rows.count(GATEWAYS)? >= GATEWAYS_MAX as u64 {
        return Err(Refused::new(format!("a site has {GATEWAYS_MAX} gateways at most")));
    }
    let mut gateway = Gateway {
        id: random(),
        name,
        transport: transport(&new.reach)?,
        domains: Vec::new(),
        takes: new.takes,
        changed_at: now,
    };
    add_domains(rows, &mut gateway, &new.domains)?;
    own_folders(rows, &gateway)?;
    Ok(gateway)
}

/// The gateway as changed.
pub fn changed(
    rows: &impl Rows,
    gateway: &Gateway,
    change: &GatewayChange,
    now: u64,
) -> Result<Gateway, Refused> {
    let mut gateway = Gateway { changed_at: changed_after(gateway.changed_at, now), ..gateway.clone() };
    if !change.reach.is_empty() {
        gateway.transport = transport(&change.reach)?;
    }
    for text in &change.remove_domains {
        let domain = domain(text)?;
        let Some(at) = gateway.domains.iter().position(|taken| *taken == domain) else {
            return Err(Refused::new(format!("{} does not take {domain}", gateway.name)));
        };
        if let Some(listed) = listed(rows, &gateway.name)?.iter().find(|listed| in_domain(listed, &domain)) {
            let text = format!(
                "{} is listed for {}; `gateway recipient remove` it first",
                listed.address, gateway.name
            );
            return Err(Refused::new(text));
        }
        gateway.domains.remove(at);
    }
    gateway.takes = change.takes.unwrap_or(gateway.takes);
    add_domains(rows, &mut gateway, &change.add_domains)?;
    own_folders(rows, &gateway)?;
    Ok(gateway)
}

/// Refuses a folder that another gateway has: one would overwrite what the other has put there.
fn own_folders(rows: &impl Rows, gateway: &Gateway) -> Result<(), Refused> {
    for other in all(rows)?.iter().filter(|other| other.name != gateway.name) {
        for folder in gateway.transport.folders() {
            if other.transport.folders().any(|taken| Path::new(taken) == Path::new(folder)) {
                return Err(Refused::new(format!("{folder} belongs to the gateway {}", other.name)));
            }
        }
    }
    Ok(())
}

fn domain(text: &str) -> Result<String, Refused> {
    let parsed: Result<Domain, _> = text.parse();
    parsed.map(|domain| domain.to_string()).map_err(|error| Refused::new(format!("{}: {error}", shown(text))))
}

fn add_domains(rows: &impl Rows, gateway: &mut Gateway, more: &[String]) -> Result<(), Refused> {
    for text in more {
        let domain = domain(text)?;
        if let Some(other) = of_domain(rows, &domain)?.filter(|other| *other != gateway.name) {
            return Err(Refused::new(format!("{domain} is taken by the gateway {other}")));
        }
        if !gateway.domains.contains(&domain) {
            gateway.domains.push(domain);
        }
    }
    match gateway.domains.len() {
        0..=DOMAINS_MAX => Ok(()),
        _ => Err(Refused::new(format!("a gateway takes {DOMAINS_MAX} domains at most"))),
    }
}

fn transport(reach: &Reach) -> Result<Transport, Refused> {
    match (&reach.lmtp[..], &reach.smtp[..], &reach.drop, &reach.pickup) {
        ([_, ..], [], None, None) => hosts(&reach.lmtp).map(Transport::Lmtp),
        ([], [_, ..], None, None) => hosts(&reach.smtp).map(Transport::Smtp),
        ([], [], Some(into), pickup) => {
            let (into, pickup) = (folder(into)?, pickup.as_deref().map(folder).transpose()?);
            if pickup.as_ref().is_some_and(|pickup| Path::new(pickup) == Path::new(&into)) {
                return Err(Refused::new("what is dropped would be picked up again; name another folder"));
            }
            Ok(Transport::Drop { folder: into, pickup })
        }
        _ => Err(Refused::new(
            "a gateway is reached in one way: --lmtp HOST:PORT, --smtp HOST:PORT, or --drop DIR, which may have \
             a --pickup DIR",
        )),
    }
}

/// Hosts as they are kept: big resolves no names, and has no business outside.
fn hosts(texts: &[String]) -> Result<Vec<String>, Refused> {
    if texts.len() > HOSTS_MAX {
        return Err(Refused::new(format!("a gateway has {HOSTS_MAX} hosts at most")));
    }
    let host = |text: &String| {
        let address: SocketAddr = text.parse().map_err(|_| {
            let text = shown(text);
            Refused::new(format!(
                "{text}: a host is an IP address and a port, as 10.0.0.5:24 or [fd00::5]:24; big resolves no names"
            ))
        })?;
        if !is_private(address.ip()) {
            return Err(Refused::new(format!(
                "{address} is not a private address; mail to the Internet goes by the edge"
            )));
        }
        if address.port() == 0 {
            return Err(Refused::new(format!("{address}: nothing listens on port 0")));
        }
        Ok(address.to_string())
    };
    texts.iter().map(host).collect()
}

/// Whether an address is inside (RFC 1918, RFC 4193) or this host's own.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_private() || v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_loopback(),
    }
}

fn folder(text: &str) -> Result<String, Refused> {
    if text.len() > FOLDER_MAX || terminal::safe_line(text) != *text || !Path::new(text).is_absolute() {
        let text = format!("{}: a folder is an absolute path of at most {FOLDER_MAX} octets", shown(text));
        return Err(Refused::new(text));
    }
    Ok(text.to_owned())
}

/// The gateway of this name.
pub fn of_name(rows: &impl Rows, name: &str) -> Result<Option<Gateway>, StoreError> {
    rows.get(GATEWAYS, canonical_local(name).as_bytes())
}

/// The gateway of this name, or the reason why there is none.
pub fn known(rows: &impl Rows, name: &str) -> Result<Gateway, Refused> {
    let missing = || Refused::new(format!("there is no gateway {}; `gateway list` shows them", shown(name)));
    of_name(rows, name)?.ok_or_else(missing)
}

/// The name of the gateway that takes a domain.
pub fn of_domain(rows: &impl Rows, domain: &str) -> Result<Option<String>, StoreError> {
    Ok(rows.get::<TakenBy>(GATEWAY_DOMAINS, domain.as_bytes())?.map(|TakenBy(name)| name))
}

/// Whether the gateway `name`, which has its domain, takes mail for one of these canonical addresses: every one,
/// or what is listed.
pub fn takes<'a>(
    rows: &impl Rows,
    name: &str,
    addresses: impl IntoIterator<Item = &'a str>,
) -> Result<bool, StoreError> {
    if takes_any(rows, name)? {
        return Ok(true);
    }
    for address in addresses {
        let listed = rows.get::<Listed>(LISTED, address.as_bytes())?;
        if listed.is_some_and(|listed| listed.gateway == name) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the gateway `name` takes every name of its domains.
pub fn takes_any(rows: &impl Rows, name: &str) -> Result<bool, StoreError> {
    Ok(of_name(rows, name)?.is_some_and(|gateway| gateway.takes == Takes::Any))
}

/// What is listed for a gateway, by address.
pub fn listed(rows: &impl Rows, name: &str) -> Result<Vec<Listed>, StoreError> {
    let all = rows.prefix::<Listed>(LISTED, &[], usize::MAX)?.into_iter().map(|(_, listed)| listed);
    Ok(all.filter(|listed| listed.gateway == name).collect())
}

/// What is listed, as far as its gateway has the domain.
pub fn listed_and_taken(rows: &impl Rows) -> Result<Vec<Listed>, StoreError> {
    let gateways = all(rows)?;
    let taken = |listed: &Listed| {
        let gateway = gateways.iter().find(|gateway| gateway.name == listed.gateway);
        gateway.is_some_and(|gateway| gateway.domains.iter().any(|domain| in_domain(listed, domain)))
    };
    let all = rows.prefix::<Listed>(LISTED, &[], usize::MAX)?.into_iter().map(|(_, listed)| listed);
    Ok(all.filter(taken).collect())
}

fn in_domain(listed: &Listed, domain: &str) -> bool {
    listed.address.rsplit_once('@').is_some_and(|(_, of)| of == domain)
}

/// The listing that is asked for. Whether it may be entered is judged in the commit that enters it.
pub fn new_listed(policy: &Policy, gateway: &str, text: &str, now: u64) -> Result<Listed, Refused> {
    let address = own_address(policy, text)?;
    let role = address.split('@').next().is_some_and(|local| ROLES.contains(&local));
    if role {
        let text = format!("{address}: a role that every domain has; its mail goes to the postmaster");
        return Err(Refused::new(text));
    }
    Ok(Listed { id: random(), gateway: canonical_local(gateway), address, changed_at: now })
}

/// Refuses what the gateway has no domain for, what somebody has, and more than there may be.
pub fn may_list(rows: &impl Rows, new: &Listed) -> Result<(), Refused> {
    let (gateway, address) = (known(rows, &new.gateway)?, &new.address);
    if !gateway.domains.iter().any(|domain| in_domain(new, domain)) {
        let text =
            format!("{} does not take the domain of {address}; `gateway set --add-domain` it", gateway.name);
        return Err(Refused::new(text));
    }
    not_listed(rows, address)?;
    match rows.count(LISTED)? >= LISTED_MAX {
        true => Err(Refused::new(format!("a site lists {LISTED_MAX} addresses for its gateways at most"))),
        false => Ok(()),
    }
}

/// Refuses an address that is listed.
pub fn not_listed(rows: &impl Rows, address: &str) -> Result<(), Refused> {
    match rows.get::<Listed>(LISTED, address.as_bytes())? {
        None => Ok(()),
        Some(Listed { gateway, .. }) => Err(Refused::new(format!(
            "{address} is listed for the gateway {gateway}; `gateway recipient remove` it"
        ))),
    }
}

/// The listing of an address for a gateway, or the reason why there is none.
pub fn known_listed(rows: &impl Rows, policy: &Policy, gateway: &str, text: &str) -> Result<Listed, Refused> {
    let (gateway, address) = (known(rows, gateway)?.name, own_address(policy, text)?);
    let listed = rows.get::<Listed>(LISTED, address.as_bytes())?.filter(|listed| listed.gateway == gateway);
    let missing = || {
        Refused::new(format!("{address} is not listed for {gateway}; `gateway recipient list` shows what is"))
    };
    listed.ok_or_else(missing)
}

/// Every gateway, by name.
pub fn all(rows: &impl Rows) -> Result<Vec<Gateway>, StoreError> {
    Ok(rows.prefix(GATEWAYS, &[], usize::MAX)?.into_iter().map(|(_, gateway)| gateway).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_private_literals() {
        let one = |text: &str| hosts(&[text.to_owned()]).map_err(|refused| refused.to_string());
        for (text, kept) in [
            ("10.0.0.5:24", "10.0.0.5:24"),
            ("172.16.0.1:25", "172.16.0.1:25"),
            ("192.168.7.7:2424", "192.168.7.7:2424"),
            ("127.0.0.1:24", "127.0.0.1:24"),
            ("[fd00:0:0::5]:24", "[fd00::5]:24"),
            ("[::1]:24", "[::1]:24"),
        ] {
            assert_eq!(one(text), Ok(vec![kept.to_owned()]));
        }
        for (text, reason) in [
            ("dovecot.example.net:24", "resolves no names"),
            ("localhost:24", "resolves no names"),
            ("10.0.0.5", "and a port"),
            ("10.0.0.5:0", "port 0"),
            ("8.8.8.8:24", "not a private address"),
            ("172.32.0.1:24", "not a private address"),
            ("0.0.0.0:24", "not a private address"),
            ("169.254.1.1:24", "not a private address"),
            ("[2606:4700::1]:24", "not a private address"),
            ("[::ffff:8.8.8.8]:24", "not a private address"),
            ("[::ffff:10.0.0.5]:24", "not a private address"),
        ] {
            let refused = one(text).expect_err(text);
            assert!(refused.contains(reason), "{text}: {refused}");
        }
        assert!(hosts(&vec!["10.0.0.5:24".to_owned(); HOSTS_MAX + 1]).is_err());
    }

    #[test]
    fn there_is_one_way_to_a_gateway() {
        let some = || vec!["10.0.0.5:24".to_owned()];
        let folder = |text: &str| Some(text.to_owned());
        let good = Reach { drop: folder("/var/out"), pickup: folder("/var/back"), ..Reach::default() };
        assert!(transport(&good).is_ok());
        for bad in [
            Reach::default(),
            Reach { lmtp: some(), smtp: some(), ..Reach::default() },
            Reach { lmtp: some(), drop: folder("/var/out"), ..Reach::default() },
            Reach { pickup: folder("/var/back"), ..Reach::default() },
            Reach { drop: folder("out"), ..Reach::default() },
            Reach { drop: folder("/var/o\x1b[2Jut"), ..Reach::default() },
            Reach { drop: folder("/var/out"), pickup: folder("/var/out"), ..Reach::default() },
        ] {
            assert!(transport(&bad).is_err(), "{bad:?}");
        }
    }
}
