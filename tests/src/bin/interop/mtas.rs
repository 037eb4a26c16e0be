//! Real MTAs on an Internet of their own, in network namespaces: a signed DNS, a web host with MTA-STS policies, and
//! Postfix, Exim and OpenSMTPD, each of which takes mail from a pair and sends mail to it, by the rows of a matrix.

mod daemon;
mod dns;
mod domains;
mod exim;
mod lab;
mod matrix;
mod opensmtpd;
mod postfix;
mod running;
mod sts;
mod unpacked;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use tests::wait::Trouble;

use crate::namespaces::Namespaces;
use crate::tally::Tally;

use daemon::Daemon;
use lab::Lab;

/// All of them.
const ALL: [Mta; 3] = [postfix::POSTFIX, exim::EXIM, opensmtpd::OPENSMTPD];
/// The account that owns mail that has arrived: nobody.
const MAIL_OWNER: u32 = 65_534;
/// The largest message that an MTA takes, in octets: more than the edge does.
const SIZE_MAX: u32 = 62_914_560;

/// An MTA: what it is, and how it is told.
pub struct Mta {
    /// Its name.
    name: &'static str,
    /// Its domains are below this name.
    label: &'static str,
    /// Where it takes mail, with STARTTLS, and sends it from.
    address: Ipv4Addr,
    /// Where it takes mail without.
    clear: Ipv4Addr,
    /// Debian's packages of it that are unpacked; none if it is installed.
    packages: &'static [&'static str],
    /// Starts it with its files in this folder; the address is where it may ask for MTA-STS policies.
    start: fn(&Self, &Namespaces, &Path, Option<SocketAddr>) -> Result<Daemon, Trouble>,
    /// Its STARTTLS works; or it fails.
    tls: bool,
    /// It offers SMTPUTF8.
    utf8: bool,
    /// Its log, in that folder.
    log: &'static str,
    /// What it says there.
    words: Words,
}

/// What an MTA says in its log, in one line with the recipient or host that it is about.
struct Words {
    /// Whether a host has proved itself by DANE; `None` if it does without.
    dane: Option<Proof>,
    /// The same by MTA-STS.
    sts: Option<Proof>,
    /// Mail for a recipient has gone in chunks (BDAT); `None` if it never does.
    chunked: Option<&'static str>,
    /// Mail has come in chunks; `None` if it does not offer CHUNKING.
    taken: Option<Taken>,
}

/// What it says of mail that it takes in chunks.
#[derive(Clone, Copy)]
enum Taken {
    /// This, in the line with the mark of a message.
    Message(&'static str),
    /// This, in the lines with which it ends sessions of the edge's.
    Session {
        /// It begins one.
        begins: &'static str,
        /// It ends one.
        ends: &'static str,
        /// Mail has come in chunks.
        by_bdat: &'static str,
        /// Mail has come by DATA, in none of them.
        by_data: &'static str,
    },
}

/// What it says of hosts that have to prove themselves.
#[derive(Clone, Copy)]
struct Proof {
    /// A host has proved itself.
    verified: &'static str,
    /// Mail for a recipient waits, for the host has another certificate.
    another: &'static str,
}

/// An address of this Internet's.
const fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, last)
}

/// Every row with every MTA that is here; `packages` is where those are that are unpacked.
pub async fn cases(pair: &Path, packages: &Path, folder: &Path, tally: &mut Tally) {
    let wanted: Vec<_> = ALL.iter().filter(|mta| matrix::is_wanted(mta, tally)).collect();
    if wanted.is_empty()
        || !["ip", "named", "dnssec-signzone", "dpkg-deb"].iter().all(|program| tally.has(program))
    {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        return tally.absent("root, who may make network namespaces");
    }
    let mut here = Vec::new();
    for mta in wanted {
        match unpacked::files(packages, mta.packages) {
            Ok(files) if !files.is_empty() || tally.has("postfix") => here.push((mta, files)),
            Ok(_) => {}
            Err(name) => tally.absent(&format!("{name}_*.deb in {}", packages.display())),
        }
    }
    if here.is_empty() {
        return;
    }
    let setup = "the pair, a signed DNS and other MTAs";
    let with_sts = here.iter().any(|(mta, _)| mta.words.sts.is_some()) && tally.has(sts::PROGRAM);
    match Lab::set_up(pair, &folder.join("mtas"), here, with_sts).await {
        Ok(lab) => matrix::rows(&lab, tally).await,
        Err(trouble) => tally.failed(setup, &trouble.to_string()),
    }
}
