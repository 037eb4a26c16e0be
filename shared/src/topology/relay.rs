//! How mail leaves: to the hosts of each domain, or to a smart host.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use crate::address::Domain;

/// How mail leaves for the Internet (design §6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// To the hosts that serve each domain.
    Direct,
    /// All of it to the smart host.
    Relay(SmartHost),
    /// To the hosts that serve each domain; to the smart host what cannot be routed there: DNS gives no answer, or
    /// no host can be reached.
    DirectThenRelay(SmartHost),
}

impl Mode {
    /// The smart host, if there is one.
    pub fn smart_host(&self) -> Option<&SmartHost> {
        match self {
            Self::Direct => None,
            Self::Relay(host) | Self::DirectThenRelay(host) => Some(host),
        }
    }
}

/// A host that takes mail for everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmartHost {
    /// Where it is.
    pub place: Place,
    /// How it is spoken to.
    pub tls: RelayTls,
    /// A PEM file with the certificates to trust, instead of the system's.
    pub roots: Option<PathBuf>,
    /// A file with the login: the user in its first line, the password in its second; nobody but its owner may be
    /// able to read it.
    pub login: Option<PathBuf>,
}

/// A host by name or by address, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Its addresses are asked of DNS; not its MX.
    Name(Domain, u16),
    /// At this address.
    Address(SocketAddr),
}

impl Place {
    /// What its certificate has to be for.
    pub fn name(&self) -> String {
        match self {
            Self::Name(name, _) => name.to_string(),
            Self::Address(address) => address.ip().to_string(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name, port) => write!(f, "{name}:{port}"),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// The text is no host with a port.
#[derive(Debug, thiserror::Error)]
#[error("a place is a host name or an IP address, and a port")]
pub struct NotAPlace;

impl FromStr for Place {
    type Err = NotAPlace;

    fn from_str(text: &str) -> Result<Self, NotAPlace> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            let usable = address.port() != 0 && !address.ip().is_unspecified();
            return if usable { Ok(Self::Address(address)) } else { Err(NotAPlace) };
        }
        let (name, port) = text.rsplit_once(':').ok_or(NotAPlace)?;
        let port = port.parse::<u16>().ok().filter(|port| *port != 0).ok_or(NotAPlace)?;
        if name.parse::<IpAddr>().is_ok() {
            return Err(NotAPlace);
        }
        Ok(Self::Name(name.parse().map_err(|_| NotAPlace)?, port))
    }
}

/// Whether whoever connects to `address` on this host comes to what listens at `listener`. Which addresses it has is not
/// asked: what listens on all of them, of IPv4 or of IPv6, is known at the loopback ones.
pub fn is_reached(listener: SocketAddr, address: SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    let is_on_all = listener.ip().is_unspecified() && ip.is_loopback() && listener.is_ipv4() == ip.is_ipv4();
    (listener.ip() == ip || is_on_all) && listener.port() == address.port()
}

/// How a smart host is spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RelayTls {
    /// STARTTLS, and a certificate that proves its name; else the mail waits (port 587).
    #[default]
    StartTls,
    /// TLS from the first byte, and a certificate that proves its name (port 465, RFC 8314).
    Implicit,
    /// STARTTLS if it is offered, with any certificate; never with a login.
    Opportunistic,
}

impl RelayTls {
    /// The word for it in the topology file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StartTls => "starttls",
            Self::Implicit => "tls",
            Self::Opportunistic => "opportunistic",
        }
    }
}

/// The text is none of the words for [`RelayTls`].
#[derive(Debug, thiserror::Error)]
#[error("a smart host is spoken to under `starttls`, `tls` or `opportunistic`")]
pub struct NotRelayTls;

impl FromStr for RelayTls {
    type Err = NotRelayTls;

    fn from_str(text: &str) -> Result<Self, NotRelayTls> {
        let all = [Self::StartTls, Self::Implicit, Self::Opportunistic];
        all.into_iter().find(|tls| tls.as_str() == text).ok_or(NotRelayTls)
    }
}
