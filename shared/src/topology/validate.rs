//! From the raw file to a [`Topology`]: what each value may be. `edge` is `[edge]` and its tables.

mod edge;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer};
use serde_spanned::Spanned;

use self::edge::RawEdge;
use super::refusal::{Source, TopologyError};
use super::{AttachmentMode, BOUND_OCTETS, Big, Confinement, Link, SAFETY_HOURS, Site, Topology, keys};
use crate::address::{Address, Domain};

type Text = Spanned<String>;
type Number = Spanned<i64>;
type Texts = Spanned<Vec<Text>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTopology {
    site: RawSite,
    big: RawBig,
    edge: RawEdge,
    link: RawLink,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSite {
    domains: Texts,
    postmaster: Text,
    attachments: Option<Text>,
    catch_all: Option<Spanned<RawCatchAll>>,
    follow_up: Option<bool>,
}

impl<'de> Deserialize<'de> for Confinement {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl Visitor<'_> for Either {
            type Value = Confinement;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or \"required\"")
            }

            fn visit_bool<E: de::Error>(self, wanted: bool) -> Result<Confinement, E> {
                Ok(if wanted { Confinement::Wanted } else { Confinement::Off })
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Confinement, E> {
                match word {
                    "required" => Ok(Confinement::Required),
                    other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
                }
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// One name for all domains, or a name for each of some.
enum RawCatchAll {
    Everywhere(String),
    By(BTreeMap<Text, Text>),
}

impl<'de> Deserialize<'de> for RawCatchAll {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = RawCatchAll;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name, or a table of domains and names")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<RawCatchAll, E> {
                Ok(RawCatchAll::Everywhere(name.to_owned()))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, table: A) -> Result<RawCatchAll, A::Error> {
                Deserialize::deserialize(MapAccessDeserializer::new(table)).map(RawCatchAll::By)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBig {
    state: Text,
    desk: Option<Text>,
    inbound_hourly: Option<Number>,
    sandbox: Option<Confinement>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLink {
    listen: Text,
    dial: Text,
    safety_hours: Option<Number>,
    safety_bytes: Option<Number>,
}

/// The topology that `source` describes; its keys have been checked.
pub(super) fn topology(source: &Source<'_>) -> Result<Topology, TopologyError> {
    let raw: RawTopology = toml::from_str(source.text).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        let mend = keys::looks_like(source, span.start);
        source.refuse(span, error.message(), mend)
    })?;
    let topology = Topology {
        site: source.site(raw.site)?,
        big: source.big(&raw.big)?,
        link: source.link(&raw.link)?,
        edge: source.edge(&raw.edge)?,
    };
    if topology.big.state == topology.edge.state {
        let reason = "both nodes would keep their state in one folder";
        return Err(source.refuse(raw.edge.state.span(), reason, "give each node a folder of its own"));
    }
    Ok(topology)
}

impl Source<'_> {
    fn site(&self, raw: RawSite) -> Result<Site, TopologyError> {
        let mut domains = Vec::new();
        for text in raw.domains.get_ref() {
            let domain = self.domain(text)?;
            if domains.contains(&domain) {
                return Err(self.refuse(
                    text.span(),
                    format!("{domain} is listed twice"),
                    "leave one of them out",
                ));
            }
            domains.push(domain);
        }
        let Some(first) = domains.first() else {
            let mend = "write the domains whose mail is yours, like [\"example.com\"]";
            return Err(self.refuse(raw.domains.span(), "a site has one domain or more", mend));
        };
        let postmaster = Address::new(raw.postmaster.get_ref(), first).map_err(|_| {
            let mend = "write only the part before the @ of one of your people, like \"alice\"";
            self.refuse(raw.postmaster.span(), "`postmaster` is not a local name", mend)
        })?;
        let attachments = match raw.attachments {
            None => AttachmentMode::default(),
            Some(text) => text.get_ref().parse().map_err(|_| {
                let mend = "write \"break-apart\" or \"passthru\"";
                self.refuse(text.span(), format!("`{}` is not a way to file mail", text.get_ref()), mend)
            })?,
        };
        let catch_all =
            raw.catch_all.map_or_else(|| Ok(BTreeMap::new()), |raw| self.catch_all(&domains, &raw))?;
        let follow_up = raw.follow_up.unwrap_or(true);
        Ok(Site { domains, postmaster, attachments, catch_all, follow_up })
    }

    /// Who takes unknown names, by domain; `domains` are those of the site, and there is one.
    fn catch_all(
        &self,
        domains: &[Domain],
        raw: &Spanned<RawCatchAll>,
    ) -> Result<BTreeMap<Domain, Address>, TopologyError> {
        let name = |name: &str, span: Range<usize>| {
            let first = domains.first().expect("a site has one domain or more");
            Address::new(name, first).map_err(|_| {
                let mend =
                    "write only the part before the @, like \"alice\"; leave it out to refuse unknown names";
                self.refuse(span, "`catch_all` is not a local name", mend)
            })
        };
        match raw.get_ref() {
            RawCatchAll::Everywhere(text) => {
                let name = name(text, raw.span())?;
                Ok(domains.iter().map(|domain| (domain.clone(), name.clone())).collect())
            }
            RawCatchAll::By(table) => {
                let mut by = BTreeMap::new();
                for (domain, text) in table {
                    let known = self.domain(domain)?;
                    if !domains.contains(&known) {
                        let reason = format!("{known} is not one of the site's domains");
                        let mend = "name one of those in `domains`, or add it there";
                        return Err(self.refuse(domain.span(), reason, mend));
                    }
                    if by.insert(known, name(text.get_ref(), text.span())?).is_some() {
                        return Err(self.refuse(
                            domain.span(),
                            "this domain has two",
                            "leave one of them out",
                        ));
                    }
                }
                Ok(by)
            }
        }
    }

    fn big(&self, raw: &RawBig) -> Result<Big, TopologyError> {
        let hourly = raw.inbound_hourly.as_ref();
        let state = self.path(&raw.state)?;
        let desk = raw.desk.as_ref().map(|text| self.path(text)).transpose()?;
        if let (Some(desk), Some(text)) = (&desk, &raw.desk)
            && desk.starts_with(&state)
        {
            let reason = "people cannot get to a socket in the state's folder, which is the node's alone";
            let mend = "write a path in a folder of its own, like \"/run/sallypost/desk.sock\"";
            return Err(self.refuse(text.span(), reason, mend));
        }
        Ok(Big {
            state,
            desk,
            inbound_hourly: self.number(hourly, "inbound_hourly", BOUND_OCTETS, 10_737_418_240)?,
            sandbox: raw.sandbox.unwrap_or_default(),
        })
    }

    fn link(&self, raw: &RawLink) -> Result<Link, TopologyError> {
        Ok(Link {
            listen: self.address(&raw.listen)?,
            dial: self.remote(&raw.dial, "dial", "big resolves no names")?,
            safety_hours: self.number(raw.safety_hours.as_ref(), "safety_hours", SAFETY_HOURS, 48)?,
            safety_bytes: self.number(
                raw.safety_bytes.as_ref(),
                "safety_bytes",
                BOUND_OCTETS,
                1_073_741_824,
            )?,
        })
    }

    /// A host of someone else: an IP address and a real port.
    fn remote(&self, text: &Text, key: &str, why: &str) -> Result<SocketAddr, TopologyError> {
        let parsed = text.get_ref().parse::<SocketAddr>().ok();
        parsed.filter(|address| address.port() != 0 && !address.ip().is_unspecified()).ok_or_else(|| {
            let reason = format!("`{}` is not an IP address with a port", text.get_ref());
            let mend = format!("{why}: write `{key}` as an IP address and a port, like 192.0.2.1:7625");
            self.refuse(text.span(), reason, mend)
        })
    }

    fn address(&self, text: &Text) -> Result<SocketAddr, TopologyError> {
        text.get_ref().parse().map_err(|_| {
            let reason = format!("`{}` is not an IP address with a port", text.get_ref());
            let mend = "write it like \"192.0.2.1:25\", or \"[2001:db8::1]:25\", or \"0.0.0.0:25\" for every address";
            self.refuse(text.span(), reason, mend)
        })
    }

    fn addresses(&self, texts: &[Text]) -> Result<Vec<SocketAddr>, TopologyError> {
        texts.iter().map(|text| self.address(text)).collect()
    }

    /// Two listeners cannot share an address; one on every address of its family takes them all.
    fn no_address_twice(&self, lists: &[&Vec<Text>]) -> Result<(), TopologyError> {
        let mut taken: Vec<SocketAddr> = Vec::new();
        for text in lists.iter().copied().flatten() {
            let address = self.address(text)?;
            if let Some(other) = taken.iter().find(|other| collide(**other, address)) {
                let reason = format!("{address} is taken: another listener has {other}");
                return Err(self.refuse(text.span(), reason, "give each listener a port of its own"));
            }
            taken.push(address);
        }
        Ok(())
    }

    fn domain(&self, text: &Text) -> Result<Domain, TopologyError> {
        text.get_ref().parse().map_err(|_| {
            let reason = format!("`{}` is not a host name", text.get_ref());
            self.refuse(
                text.span(),
                reason,
                "write a name like \"mail.example.com\", without a dot at the end",
            )
        })
    }

    fn path(&self, text: &Text) -> Result<PathBuf, TopologyError> {
        if text.get_ref().is_empty() || text.get_ref().contains('\0') {
            return Err(self.refuse(text.span(), "this is not a path", "write a path, like \"var/state\""));
        }
        Ok(PathBuf::from(text.get_ref()))
    }

    /// A number within `range`, or `default`. Every range here fits the type that is asked for.
    fn number<T: TryFrom<i64>>(
        &self,
        number: Option<&Number>,
        key: &str,
        range: RangeInclusive<i64>,
        default: T,
    ) -> Result<T, TopologyError> {
        let Some(number) = number else { return Ok(default) };
        let value = *number.get_ref();
        let fitting =
            Some(value).filter(|value| range.contains(value)).and_then(|value| T::try_from(value).ok());
        fitting.ok_or_else(|| {
            let reason = format!("{value} is out of range for `{key}`");
            self.refuse(
                number.span(),
                reason,
                format!("write a number from {} to {}", range.start(), range.end()),
            )
        })
    }
}

/// Whether both cannot be bound at once. Port 0 is a new port each time.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let same_family = a.is_ipv4() == b.is_ipv4();
    let every = |ip: IpAddr| ip.is_unspecified();
    let same_host = a.ip() == b.ip() || (same_family && (every(a.ip()) || every(b.ip())));
    a.port() != 0 && a.port() == b.port() && same_host
}
