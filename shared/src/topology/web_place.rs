//! A place on the web, as the topology names it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::address::Domain;

/// Octets of a URL.
const URL_MAX: usize = 1_000;
/// The port of `https` (RFC 9110 §4.2.2).
const HTTPS_PORT: u16 = 443;

/// A URL under TLS: `https`, a host, perhaps a port, and a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebPlace {
    /// A name or an IP address, which the host has to prove.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The path and what follows it; begins with `/`.
    pub path: String,
}

/// A text is no [`WebPlace`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not a URL of https")]
pub struct NotAWebPlace;

impl WebPlace {
    /// Host and port as in a URL and a Host field: without the port that is meant anyway.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == HTTPS_PORT { host } else { format!("{host}:{}", self.port) }
    }
}

impl fmt::Display for WebPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}{}", self.authority(), self.path)
    }
}

impl FromStr for WebPlace {
    type Err = NotAWebPlace;

    fn from_str(text: &str) -> Result<Self, NotAWebPlace> {
        let rest = text.strip_prefix("https://").filter(|rest| rest.len() <= URL_MAX).ok_or(NotAWebPlace)?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = match authority.strip_prefix('[') {
            Some(literal) => {
                let (host, port) = literal.split_once(']').ok_or(NotAWebPlace)?;
                let port =
                    if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or(NotAWebPlace)?) };
                (host.parse::<std::net::Ipv6Addr>().map_err(|_| NotAWebPlace)?.to_string(), port)
            }
            None => {
                let (host, port) =
                    authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
                let is_host = host.parse::<IpAddr>().is_ok() || host.parse::<Domain>().is_ok();
                (if is_host { host.to_ascii_lowercase() } else { return Err(NotAWebPlace) }, port)
            }
        };
        let port = port.map_or(Ok(HTTPS_PORT), str::parse).ok().filter(|port| *port != 0);
        let path = if path.is_empty() { "/" } else { path };
        if !path.bytes().all(is_in_path) {
            return Err(NotAWebPlace);
        }
        Ok(Self { host, port: port.ok_or(NotAWebPlace)?, path: path.to_owned() })
    }
}

/// Whether a path or a query may have this octet (RFC 3986 §3.3 and 3.4). Others take more of them, and not all the same.
fn is_in_path(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:@/?".contains(&octet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_host_under_tls_and_a_path() {
        for (text, host, port, path) in [
            ("https://acme.example/directory", "acme.example", 443, "/directory"),
            ("https://Acme.Example:14000/dir?x=1", "acme.example", 14_000, "/dir?x=1"),
            ("https://127.0.0.1:14000/dir", "127.0.0.1", 14_000, "/dir"),
            ("https://[2001:db8::1]/", "2001:db8::1", 443, "/"),
            ("https://[::1]:8443/a", "::1", 8443, "/a"),
        ] {
            let place: WebPlace = text.parse().expect(text);
            assert_eq!((place.host.as_str(), place.port, place.path.as_str()), (host, port, path));
            assert_eq!(place.to_string(), text.to_ascii_lowercase(), "it is written as it was read");
        }
        let long = format!("https://acme.example/{}", "x".repeat(URL_MAX));
        for text in [
            "http://acme.example/directory",
            "https://",
            "https:///directory",
            "https://user@acme.example/",
            "https://acme.example:0/",
            "https://acme.example:65536/",
            "https://acme.example/a b",
            "https://acme.example/a\r\nHost: x",
            "https://acme.example/#top",
            "https://acme.example/<name>/directory",
            "https://acme.example/{name}",
            "https://acme.example/a|b",
            "https://acme.example/`x`",
            "https://acme.example/\"x\"",
            "https://acme.example/a\\b",
            "https://acme.example/[a]",
            "https://acme.example/a^b",
            "https://acme.example/\u{e4}",
            "https://[::1/",
            "https://[::1]x/",
            "https://a_b.example/",
            &long,
        ] {
            assert_eq!(text.parse::<WebPlace>(), Err(NotAWebPlace), "{text}");
        }
    }
}
