//! A stand-in Internet on loopback: names ([`dns`]) and a host that takes mail ([`mta`]), which a
//! test can make as unkind as it likes ([`rules`]).

pub mod dns;
pub mod mta;
pub mod rules;
mod session;
