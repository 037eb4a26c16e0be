//! A stand-in Internet on loopback: names ([`dns`]) and a host that takes mail ([`mta`]), which a
//! test can make as unkind as it likes ([`rules`]).

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use dns::{Dns, Zone};
use mta::{Mta, Options};

pub mod dns;
pub mod mta;
pub mod rules;
mod session;
pub mod signed;
pub mod web;

/// The domain that is there from the start.
pub const DOMAIN: &str = "remote.example";
/// The host that takes its mail.
pub const HOST: &str = "mx.remote.example";

/// An address of this machine's own, other than 127.0.0.1: where another host is.
pub fn loopback(last: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 0, last).into()
}

/// The smallest Internet: [`DOMAIN`], in DNS, and [`HOST`], which takes its mail.
pub struct Internet {
    /// Its DNS server.
    pub dns: Dns,
    /// Its receiving MTA, at 127.0.0.1.
    pub mta: Mta,
}

impl Internet {
    /// Starts it; with `keep_in`, what arrives is also kept there.
    pub async fn start(keep_in: Option<PathBuf>) -> io::Result<Self> {
        let mta = Mta::start(Options { name: HOST.into(), keep_in, ..Options::default() }).await?;
        let dns = Dns::start([Zone::new(DOMAIN).mx(10, HOST).a(HOST, Ipv4Addr::LOCALHOST)]).await?;
        Ok(Self { dns, mta })
    }
}
