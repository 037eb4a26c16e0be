//! The topology file: the one description of the pair, read by both nodes.
//!
//! Text becomes types once, here. [`Topology::parse`] refuses what it does not know, what this
//! version does not implement, and what cannot be meant; past it nobody checks a port, a domain or
//! a limit again. Each refusal names file, line and column, shows the line, and says the mend.
//!
//! Reading a topology opens nothing but its file: no socket, no name is looked up. Relative paths
//! in it are relative to the folder the file is in, so a command means the same wherever it is typed.
//!
//! In the order of reading: `keys` says which keys there are, `validate` what their values may be,
//! `refusal` how an error looks, `figure` how the pair looks; `relay` is the smart host, `lists` lists of addresses in
//! DNS, `web_place` a URL.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use crate::address::{Address, Domain};

mod figure;
mod keys;
mod lists;
mod refusal;
mod relay;
#[cfg(test)]
mod tests;
mod validate;
mod web_place;

pub use figure::figure;
pub use lists::{CODES_MAX, DnsList, LISTS_MAX, Lists, NotAList, Word};
pub use refusal::{Refusal, TopologyError};
pub use relay::{Mode, NotAPlace, NotRelayTls, Place, RelayTls, SmartHost, is_reached};
pub use web_place::{NotAWebPlace, WebPlace};

/// What `receivers` may be: SMTP sessions at once.
pub const RECEIVERS: RangeInclusive<i64> = 1..=20_000;
/// What `size_max` may be, in octets; RFC 5321 §4.5.3.1.7 asks for 64 KiB at least.
pub const SIZE_MAX: RangeInclusive<i64> = 65_536..=1_073_741_824;
/// What each wait in `retry` may be, in seconds.
pub const RETRY: RangeInclusive<i64> = 1..=86_400;
/// Waits that `retry` may list.
pub const RETRIES_MAX: usize = 64;
/// What `delay_notice` may be, in seconds: up to 30 days; 0 is never.
pub const DELAY_NOTICE: RangeInclusive<i64> = 0..=2_592_000;
/// What `concurrency` may be: attempts at one destination at once.
pub const CONCURRENCY: RangeInclusive<i64> = 1..=100;
/// What `expire` may be, in seconds: up to 30 days.
pub const EXPIRE: RangeInclusive<i64> = 1..=2_592_000;

/// What `stale_after` may be, in seconds: big says every minute that it has told everything, and one word
/// of it may be late. Up to a week.
pub const STALE_AFTER: RangeInclusive<i64> = 120..=604_800;
/// What `login_delay` may be, in seconds: up to an hour.
pub const LOGIN_DELAY: RangeInclusive<i64> = 0..=3_600;
/// What `greeting_pause` may be, in seconds: clients wait for a greeting for five minutes (RFC 5321 §4.5.3.2.1), but not
/// all do.
pub const GREETING_PAUSE: RangeInclusive<i64> = 0..=30;
/// What `delay` of greylisting may be, in seconds: senders wait longer than that between two attempts anyway.
pub const GREYLIST_DELAY: RangeInclusive<i64> = 1..=1_800;
/// What `window` of greylisting may be, in seconds: longer than any delay, up to a week.
pub const GREYLIST_WINDOW: RangeInclusive<i64> = 3_600..=604_800;
/// What `spool_max`, `inbound_hourly` and `safety_bytes` may be, in octets: 1 MiB to 1 PiB.
pub const BOUND_OCTETS: RangeInclusive<i64> = 1_048_576..=1_125_899_906_842_624;
/// What `safety_hours` may be: up to 30 days.
pub const SAFETY_HOURS: RangeInclusive<i64> = 1..=720;

/// A pair, validated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// What is true of the whole site.
    pub site: Site,
    /// The node inside.
    pub big: Big,
    /// The node in the DMZ.
    pub edge: Edge,
    /// The link between them.
    pub link: Link,
}

/// `[site]`: what is true of the whole site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The domains whose mail is ours; at least one, the first is the one we write as.
    pub domains: Vec<Domain>,
    /// Who reads the postmaster's mail (RFC 5321 §4.5.1): a local name at the first domain.
    pub postmaster: Address,
    /// How mail with attachments is filed for people who have not chosen.
    pub attachments: AttachmentMode,
    /// Who takes mail for names that nobody has in a domain: a local name at the first.
    pub catch_all: BTreeMap<Domain, Address>,
    /// Whether those outside who have a message already are sent a notice when its author revises it.
    pub follow_up: bool,
}

/// How a received message with attachments is filed (design §10).
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
    rkyv::Archive,
    rkyv::Serialize,
    rkyv::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum AttachmentMode {
    /// A cover and one message per attachment, linked to it.
    #[default]
    BreakApart,
    /// Whole.
    Passthru,
}

impl AttachmentMode {
    /// The word for it, in the topology file and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BreakApart => "break-apart",
            Self::Passthru => "passthru",
        }
    }
}

/// The text is neither `break-apart` nor `passthru`.
#[derive(Debug, thiserror::Error)]
#[error("an attachment mode is `break-apart` or `passthru`")]
pub struct NotAnAttachmentMode;

impl FromStr for AttachmentMode {
    type Err = NotAnAttachmentMode;

    fn from_str(text: &str) -> Result<Self, NotAnAttachmentMode> {
        [Self::BreakApart, Self::Passthru]
            .into_iter()
            .find(|mode| mode.as_str() == text)
            .ok_or(NotAnAttachmentMode)
    }
}

/// What a 250 vouches for: where the message is durable before it is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acknowledge {
    /// On the edge.
    #[default]
    Local,
    /// On both nodes: while the link is down, mail is refused for now.
    Pair,
    /// On both nodes while the link is up, on the edge while it is down.
    PairOrLocal,
}

impl Acknowledge {
    /// The word for it in the topology file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Pair => "pair",
            Self::PairOrLocal => "pair-or-local",
        }
    }
}

/// The text is none of the words for [`Acknowledge`].
#[derive(Debug, thiserror::Error)]
#[error("what a 250 vouches for is `local`, `pair` or `pair-or-local`")]
pub struct NotAnAcknowledge;

impl FromStr for Acknowledge {
    type Err = NotAnAcknowledge;

    fn from_str(text: &str) -> Result<Self, NotAnAcknowledge> {
        let all = [Self::Local, Self::Pair, Self::PairOrLocal];
        all.into_iter().find(|ack| ack.as_str() == text).ok_or(NotAnAcknowledge)
    }
}

/// `[edge.authentication] dmarc`: what becomes of mail from the Internet for which its author's domain does not speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dmarc {
    /// Nothing is verified, and DNS is not asked.
    Off,
    /// The verdicts are recorded with the message.
    #[default]
    Record,
    /// They are recorded, and what fails has a mark in lists.
    Mark,
    /// They are recorded, and what fails is filed in Junk.
    Quarantine,
    /// They are recorded, and what fails is refused.
    Refuse,
}

impl Dmarc {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Off, Self::Record, Self::Mark, Self::Quarantine, Self::Refuse];

    /// The word for it in the topology file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Record => "record",
            Self::Mark => "mark",
            Self::Quarantine => "quarantine",
            Self::Refuse => "refuse",
        }
    }
}

/// The text is none of the words for [`Dmarc`].
#[derive(Debug, thiserror::Error)]
#[error("what becomes of mail by DMARC is `off`, `record`, `mark`, `quarantine` or `refuse`")]
pub struct NotADmarc;

impl FromStr for Dmarc {
    type Err = NotADmarc;

    fn from_str(text: &str) -> Result<Self, NotADmarc> {
        Self::ALL.into_iter().find(|dmarc| dmarc.as_str() == text).ok_or(NotADmarc)
    }
}

/// `[edge.authentication]`: how mail from the Internet is verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authentication {
    /// What becomes of what fails.
    pub dmarc: Dmarc,
    /// The domains whose ARC seal is believed, where they say that a message was its author's when it came to them.
    pub trusted_sealers: Vec<Domain>,
}

/// Whether a node confines itself, and what it does where the kernel cannot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Confinement {
    /// It does not.
    Off,
    /// As far as the kernel can.
    #[default]
    Wanted,
    /// Where the kernel cannot do all of it, the node does not start.
    Required,
}

/// `[big]`: the node inside. It has no listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Big {
    /// The folder that holds all it keeps.
    pub state: PathBuf,
    /// The socket at which people ask for what is theirs; without it, only the account that serves and root do.
    pub desk: Option<PathBuf>,
    /// Octets of mail from the edge that it takes in within an hour.
    pub inbound_hourly: u64,
    /// Whether it confines itself once it runs ([`crate::sandbox`]).
    pub sandbox: Confinement,
}

/// `[edge]`: the node in the DMZ. A service without an address is not offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The name it says in greetings, EHLO and Received.
    pub hostname: Domain,
    /// The folder that holds all it keeps.
    pub state: PathBuf,
    /// Whether it confines itself once it runs ([`crate::sandbox`]).
    pub sandbox: Confinement,
    /// Where mail from other MTAs arrives (port 25's role).
    pub smtp: Vec<SocketAddr>,
    /// Where travellers submit, STARTTLS (port 587's role, RFC 6409).
    pub submission: Vec<SocketAddr>,
    /// Where travellers submit, TLS from the first byte (port 465's role, RFC 8314).
    pub submissions: Vec<SocketAddr>,
    /// Where travellers collect, STLS (port 110's role, RFC 1939, RFC 2595).
    pub pop3: Vec<SocketAddr>,
    /// Where travellers collect, TLS from the first byte (port 995's role, RFC 8314).
    pub pop3s: Vec<SocketAddr>,
    /// SMTP sessions at once; the next is answered 421.
    pub receivers: usize,
    /// The largest message accepted, in octets (RFC 1870).
    pub size_max: u64,
    /// Octets of mail that it holds for big and for delivery; then it takes no more.
    pub spool_max: u64,
    /// How long after big's last word an address that is not in the directory is refused for good; then
    /// only for now.
    pub stale_after: Duration,
    /// What a 250 vouches for.
    pub ack: Acknowledge,
    /// How mail from the Internet is verified.
    pub authentication: Authentication,
    /// The lists that are asked about strangers.
    pub lists: Lists,
    /// How long strangers are told to wait; `None` is not at all.
    pub greylist: Option<Greylist>,
    /// Which aggregate reports are sent.
    pub reports: Reports,
    /// The ports at which travellers reach it, where those are others than it listens on.
    pub public: PublicPorts,
    /// How long a traveller is to wait between two logins by POP3; zero is not at all.
    pub login_delay: Duration,
    /// How long a stranger has to wait on port 25 for the greeting, in silence; zero is not at all.
    pub greeting_pause: Duration,
    /// Whether messages in octets are taken (RFC 3030), whose binary parts become base64.
    pub binarymime: bool,
    /// Where the certificate for STARTTLS and TLS comes from.
    pub certificate: CertificateSource,
    /// How mail leaves for the Internet.
    pub outbound: Outbound,
    /// Who answers DNS questions; empty means the system's resolvers.
    pub dns_servers: Vec<SocketAddr>,
    /// By which keys their answers about other mail hosts are validated.
    pub dnssec: Dnssec,
}

/// `[edge.dns] dnssec` and `trust_anchors`: by which keys answers about other mail hosts are validated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Dnssec {
    /// By none: they are believed, and DANE is not used.
    Off,
    /// By the root's, which are built in.
    #[default]
    Root,
    /// By the DNSKEY records in this file.
    Anchors(PathBuf),
}

/// `[edge.greylist]`: who is new has to come again (RFC 6647).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greylist {
    /// How long after the first attempt the next one is taken.
    pub delay: Duration,
    /// How long after the first attempt the next one has to come.
    pub window: Duration,
}

/// `[edge.reports]`: the aggregate reports that other domains are sent, if they ask for them in DNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reports {
    /// How their mail hosts did at TLS (RFC 8460).
    pub tls: bool,
    /// What was found of mail in their name (DMARC).
    pub dmarc: bool,
}

impl Default for Reports {
    /// Of TLS a domain is told what it could see of its own hosts, and who tries a policy out hears nothing otherwise. Of
    /// mail it is told who writes to this site: that is for the site to want.
    fn default() -> Self {
        Self { tls: true, dmarc: false }
    }
}

/// `[edge.public]`: the ports that something before the edge forwards to it; `None` is the one it listens on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublicPorts {
    /// Submission with STARTTLS.
    pub submission: Option<u16>,
    /// Submission under TLS.
    pub submissions: Option<u16>,
    /// POP3 with STLS.
    pub pop3: Option<u16>,
    /// POP3 under TLS.
    pub pop3s: Option<u16>,
}

/// `[edge.tls]`: a certificate chain and its key, as PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and those between it and its root, in that order.
    pub certificate: PathBuf,
    /// The private key; nobody but its owner may be able to read it.
    pub key: PathBuf,
}

/// Where the edge's certificate comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CertificateSource {
    /// The edge makes one that is signed by itself.
    #[default]
    SelfSigned,
    /// From files.
    Files(TlsFiles),
    /// From an authority that is asked for it; until that has issued one, the edge's own.
    Acme(Acme),
}

impl CertificateSource {
    /// Where an authority is answered; nowhere without one.
    pub fn http(&self) -> &[SocketAddr] {
        match self {
            Self::SelfSigned | Self::Files(_) => &[],
            Self::Acme(acme) => &acme.http,
        }
    }
}

/// `[edge.acme]`: an authority that issues certificates by ACME (RFC 8555), by the challenge HTTP-01.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acme {
    /// Its directory.
    pub directory: WebPlace,
    /// Whom it may write to.
    pub contact: Option<Address>,
    /// A PEM file with the certificates to trust for the directory itself; without it, the system's.
    pub roots: Option<PathBuf>,
    /// Where it is answered: what port 80 of the edge's name leads to. Never empty.
    pub http: Vec<SocketAddr>,
}

/// `[edge.outbound]`: how mail leaves for the Internet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outbound {
    /// To whom.
    pub mode: Mode,
    /// Whether mail may be delivered to loopback and private addresses.
    pub private_addresses: bool,
    /// The port other MTAs listen on.
    pub port: u16,
    /// The waits between attempts, in order; the last repeats. Never empty.
    pub retry: Vec<Duration>,
    /// How long after acceptance a message that cannot be delivered is given up.
    pub expire: Duration,
    /// How long recipients have waited, of big's life, when a sender inside is told so; `None` is never.
    pub delay_notice: Option<Duration>,
    /// Attempts at one destination at once, at most.
    pub concurrency: usize,
    /// How MTA-STS policies are fetched; `None` is not at all.
    pub mta_sts: Option<MtaSts>,
}

/// How MTA-STS policies are fetched, and hosts prove themselves by them (RFC 8461).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MtaSts {
    /// A PEM file with certificates to trust beside the system's.
    pub roots: Option<PathBuf>,
    /// The port at which policies are fetched.
    pub port: u16,
}

/// `[link]`: where the nodes meet, over UDP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Where edge listens.
    pub listen: SocketAddr,
    /// Where big finds edge.
    pub dial: SocketAddr,
    /// How long confirmed units are kept, to be replayed to a partner that was restored.
    pub safety_hours: u64,
    /// Octets of confirmed units that are kept; beyond them the oldest go.
    pub safety_bytes: u64,
}

/// The smallest file that describes a pair, for tests.
#[cfg(any(test, feature = "sim"))]
pub const SMALLEST: &str = r#"
[site]
domains = ["example.com"]
postmaster = "alice"
[big]
state = "var/big"
[edge]
hostname = "mx.example.com"
state = "var/edge"
[link]
listen = "127.0.0.1:7625"
dial = "127.0.0.1:7625"
"#;

impl Topology {
    /// Reads and validates the file at `path`.
    pub fn read(path: &Path) -> Result<Self, TopologyError> {
        let unreadable = |source| TopologyError::Unreadable { file: path.display().to_string(), source };
        let text = fs::read_to_string(path).map_err(unreadable)?;
        let mut topology = Self::parse(&text, &path.display().to_string())?;
        topology.make_paths_relative_to(path.parent().unwrap_or(Path::new("")));
        Ok(topology)
    }

    /// Validates `text`; `file` is the name that errors call it by. Relative paths stay as written.
    pub fn parse(text: &str, file: &str) -> Result<Self, TopologyError> {
        let source = refusal::Source { file, text };
        keys::check(&source)?;
        validate::topology(&source)
    }

    fn make_paths_relative_to(&mut self, folder: &Path) {
        let tls = match &mut self.edge.certificate {
            CertificateSource::SelfSigned => [None, None],
            CertificateSource::Files(files) => [Some(&mut files.certificate), Some(&mut files.key)],
            CertificateSource::Acme(acme) => [acme.roots.as_mut(), None],
        };
        let tls = tls.into_iter().flatten();
        let relay = match &mut self.edge.outbound.mode {
            Mode::Direct => None,
            Mode::Relay(host) | Mode::DirectThenRelay(host) => Some([&mut host.roots, &mut host.login]),
        };
        let relay = relay.into_iter().flatten().flatten();
        let states = [&mut self.big.state, &mut self.edge.state];
        let anchors = match &mut self.edge.dnssec {
            Dnssec::Off | Dnssec::Root => None,
            Dnssec::Anchors(path) => Some(path),
        };
        let sts = self.edge.outbound.mta_sts.as_mut().and_then(|sts| sts.roots.as_mut());
        for path in tls.chain(relay).chain(anchors).chain(sts).chain(states).chain(&mut self.big.desk) {
            *path = folder.join(&*path);
        }
    }
}

impl Link {
    /// How long confirmed units are kept, while a node runs.
    pub fn safety(&self) -> Duration {
        Duration::from_secs(self.safety_hours * 3_600)
    }
}

impl Outbound {
    /// How long to wait after the `failures`-th failed attempt in a row, counted from 1.
    pub fn wait_after(&self, failures: usize) -> Duration {
        let wait = self.retry.get(failures.saturating_sub(1)).or(self.retry.last());
        *wait.expect("a validated retry schedule is never empty")
    }
}
