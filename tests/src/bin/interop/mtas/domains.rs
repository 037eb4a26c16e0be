//! The domains that mail goes to, by what is special about each: what their zones say of them, and their policies.

use std::net::Ipv4Addr;

use super::Mta;
use crate::namespaces::{EDGE, WEB};

/// What is special about a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// Nothing.
    Plain,
    /// Its host offers no STARTTLS; on the way to the edge, its MTA is told to do without.
    Clear,
    /// Its host has a TLSA record.
    Dane,
    /// The TLSA record is of another key.
    AnotherKey,
    /// The host has a TLSA record, and offers no STARTTLS.
    Stripped,
    /// It has an MTA-STS policy in *enforce*, and a certificate for its host's name.
    Enforced,
    /// The same, but the certificate is not for its host's name.
    Unproved,
    /// The same, but the policy is in *testing*.
    Testing,
}

/// Those of each MTA.
const ALL: [Domain; 8] = [
    Domain::Plain,
    Domain::Clear,
    Domain::Dane,
    Domain::AnotherKey,
    Domain::Stripped,
    Domain::Enforced,
    Domain::Unproved,
    Domain::Testing,
];
/// Those of the edge.
const OURS: [Domain; 7] = [
    Domain::Plain,
    Domain::Clear,
    Domain::Dane,
    Domain::AnotherKey,
    Domain::Enforced,
    Domain::Unproved,
    Domain::Testing,
];
/// Where ours are.
pub const OUR_ZONE: &str = "example.com";
/// Where those of the MTAs are.
pub const THEIR_ZONE: &str = "example";

impl Domain {
    fn label(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Clear => "clear",
            Self::Dane => "dane",
            Self::AnotherKey => "another-key",
            Self::Stripped => "stripped",
            Self::Enforced => "enforced",
            Self::Unproved => "unproved",
            Self::Testing => "testing",
        }
    }

    /// The edge's domain.
    pub fn ours(self) -> String {
        format!("{}.{OUR_ZONE}", self.label())
    }

    /// The MTA's domain.
    pub fn of(self, mta: &Mta) -> String {
        format!("{}.{}.{THEIR_ZONE}", self.label(), mta.label)
    }

    fn key(self, hash: &str) -> Option<&str> {
        match self {
            Self::Dane | Self::Stripped => Some(hash),
            Self::AnotherKey => Some("0000000000000000000000000000000000000000000000000000000000000000"),
            _ => None,
        }
    }

    fn mode(self) -> Option<&'static str> {
        match self {
            Self::Enforced | Self::Unproved => Some("enforce"),
            Self::Testing => Some("testing"),
            _ => None,
        }
    }

    /// Its host's name is in its certificate.
    fn is_named(self) -> bool {
        !matches!(self, Self::Unproved | Self::Testing)
    }

    /// Its name, and its policy (RFC 8461 §3.2).
    fn policy(self, name: String) -> Option<(String, String)> {
        let (host, mode) = (host(&name), self.mode()?);
        Some((name, format!("version: STSv1\r\nmode: {mode}\r\nmx: {host}\r\nmax_age: 86400\r\n")))
    }

    /// Its lines in a zone: `domain` is served by one host at `address`.
    fn records(self, domain: &str, address: Ipv4Addr, key_hash: &str) -> String {
        let host = host(domain);
        let mut lines = format!("{domain}. MX 10 {host}.\n{host}. A {address}\n");
        if let Some(key) = self.key(key_hash) {
            lines.push_str(&format!("_25._tcp.{host}. TLSA 3 1 1 {key}\n"));
        }
        if self.mode().is_some() {
            lines
                .push_str(&format!("_mta-sts.{domain}. TXT \"v=STSv1; id=1;\"\nmta-sts.{domain}. A {WEB}\n"));
        }
        lines
    }
}

/// The only host of a domain.
pub fn host(domain: &str) -> String {
    format!("mx.{domain}")
}

/// The lines of our zone.
pub fn our_records(key_hash: &str) -> String {
    OURS.iter().map(|domain| domain.records(&domain.ours(), EDGE, key_hash)).collect()
}

/// Our domains.
pub fn ours() -> Vec<String> {
    OURS.iter().map(|domain| domain.ours()).collect()
}

/// The lines of an MTA's domains.
pub fn records_of(mta: &Mta, key_hash: &str) -> String {
    let records = |domain: &Domain| {
        let address = match domain {
            Domain::Clear | Domain::Stripped => mta.clear,
            _ => mta.address,
        };
        domain.records(&domain.of(mta), address, key_hash)
    };
    ALL.iter().map(records).collect()
}

/// The domains of an MTA's.
pub fn domains_of(mta: &Mta) -> Vec<String> {
    ALL.iter().map(|domain| domain.of(mta)).collect()
}

/// The names that an MTA's certificate is for.
pub fn names_of(mta: &Mta) -> Vec<String> {
    ALL.iter().filter(|domain| domain.is_named()).map(|domain| host(&domain.of(mta))).collect()
}

/// The names that the edge's certificate is for.
pub fn our_names() -> Vec<String> {
    OURS.iter().filter(|domain| domain.is_named()).map(|domain| host(&domain.ours())).collect()
}

/// The domains of an MTA's that have a policy, and the policies.
pub fn policies_of(mta: &Mta) -> Vec<(String, String)> {
    ALL.iter().filter_map(|domain| domain.policy(domain.of(mta))).collect()
}

/// The same of the edge's.
pub fn our_policies() -> Vec<(String, String)> {
    OURS.iter().filter_map(|domain| domain.policy(domain.ours())).collect()
}
