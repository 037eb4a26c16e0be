//! Aggregate reports: what the edge has counted in a day of UTC of the mail hosts of a domain (RFC 8460), or of mail in its
//! name (DMARC, RFC 7489 §7.2), for big to write and to send to whom that domain names.
//!
//! The edge says what it has seen, and where the domain wants it sent; big makes the report of that, so that what leaves
//! under our signature is a report whatever the edge has become. `sound` says what may stand in one.

mod sound;

use rkyv::{Archive, Deserialize, Serialize};

pub use self::sound::{DETAILS_MAX, POLICIES_MAX, SHOWN_MAX, SIGNATURES_MAX, TEXT_BYTES_MAX, cut};
use crate::unit::Id;

/// Seconds of a day, which is what a report is about.
pub const DAY_SECONDS: u64 = 24 * 3_600;
/// Mailboxes that one report goes to: those that a domain names first.
pub const MAILBOXES_MAX: usize = 2;
/// Reports of one day of UTC: whoever has taken the edge over is not to mail the whole world.
pub const REPORTS_A_DAY_MAX: u32 = 5_000;

/// What was counted of a domain in a day.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct AggregateReport {
    /// Names it: the same day of the same domain has the same, however often it is told. Its mail has it, too.
    pub id: Id,
    /// The domain that it is about.
    pub domain: String,
    /// When the day began, in seconds since 1970.
    pub begin: u64,
    /// The mailboxes that the domain wants it sent to.
    pub to: Vec<String>,
    /// What was counted.
    pub counts: Counts,
    /// What was seen and is not in the counts: there was no room for more.
    pub left_out: u64,
}

/// What was counted.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum Counts {
    /// How the domain's mail hosts did at TLS when mail was delivered to them (RFC 8460).
    Tls(Vec<PolicyCounts>),
    /// What was found of mail in the domain's name (RFC 7489 §7.2).
    Dmarc(DmarcCounts),
}

impl Counts {
    /// The word for the kind of report.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Tls(_) => "tls",
            Self::Dmarc(_) => "dmarc",
        }
    }
}

/// The sessions to which one policy applied.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct PolicyCounts {
    /// The policy.
    pub policy: TlsPolicy,
    /// Sessions under TLS that was as the policy asks for.
    pub successes: u64,
    /// Sessions that were not, or did not come about for that.
    pub failures: u64,
    /// Those one by one, as far as there was room.
    pub details: Vec<FailureCount>,
}

/// What a domain, or a host of it, has published of TLS.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Hash)]
pub struct TlsPolicy {
    /// Its kind.
    pub kind: PolicyKind,
    /// The name that it is published for: the recipient's domain, or for DANE the TLSA base domain (RFC 8460 §1.1).
    pub domain: String,
    /// What was published, a record or a line each.
    pub text: Vec<String>,
    /// The patterns of host names in it (MTA-STS).
    pub hosts: Vec<String>,
}

/// The kinds of policies (RFC 8460 §4.2).
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyKind {
    /// TLSA records (DANE).
    Tlsa,
    /// An MTA-STS policy.
    Sts,
    /// None.
    NoPolicyFound,
}

/// So many sessions that failed alike.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct FailureCount {
    /// How.
    pub failure: TlsFailure,
    /// How many.
    pub count: u64,
}

/// Why a session was not as a policy asks for (RFC 8460 §4.3).
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct TlsFailure {
    /// The kind of failure.
    pub result: ResultType,
    /// Our address, if there was a connection.
    pub sending_ip: Option<String>,
    /// The name of the host.
    pub host: Option<String>,
    /// Its address, if there was a connection.
    pub receiving_ip: Option<String>,
    /// More about it.
    pub reason: Option<String>,
}

impl TlsFailure {
    /// A failure before there was a connection, about a host if one is named.
    pub fn unconnected(result: ResultType, host: Option<&str>, reason: &str) -> Self {
        let (host, reason) = (host.map(cut), Some(cut(reason)));
        Self { result, sending_ip: None, host, receiving_ip: None, reason }
    }
}

/// The kinds of failures (RFC 8460 §4.3).
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResultType {
    /// The host offers no STARTTLS, or does not keep to it.
    StarttlsNotSupported,
    /// Its certificate is for other names.
    CertificateHostMismatch,
    /// Its certificate is out of date.
    CertificateExpired,
    /// Its certificate leads to nobody whom we trust.
    CertificateNotTrusted,
    /// Something else.
    ValidationFailure,
    /// Its TLSA records are none that can be used.
    TlsaInvalid,
    /// DNS does not prove what it says of the host.
    DnssecInvalid,
    /// The domain's MTA-STS policy could not be fetched.
    StsPolicyFetchError,
    /// It could not be read.
    StsPolicyInvalid,
    /// The web host that has it did not prove its name.
    StsWebpkiInvalid,
}

/// What was found of mail in a domain's name.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct DmarcCounts {
    /// The policy that it was held to last.
    pub policy: DmarcPolicy,
    /// What was found, and of how many messages.
    pub records: Vec<DmarcCount>,
}

/// A domain's DMARC policy, as far as a report shows it.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct DmarcPolicy {
    /// Where its record is: the author's domain, or one above it.
    pub domain: String,
    /// What it wants for its own mail.
    pub own: Handling,
    /// What it wants for that of domains below it.
    pub below: Handling,
    /// DKIM has to be of the very domain.
    pub dkim_strict: bool,
    /// So has SPF.
    pub spf_strict: bool,
    /// Of what it wants to hear at once (`fo`).
    pub failures: FailureOptions,
}

/// What becomes of a message by DMARC.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handling {
    /// Nothing.
    None,
    /// It is set aside.
    Quarantine,
    /// It is refused.
    Reject,
}

impl Handling {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Quarantine => "quarantine",
            Self::Reject => "reject",
        }
    }
}

/// `fo` of a DMARC record (RFC 7489 §6.3).
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureOptions {
    /// If nothing speaks for a message.
    All,
    /// If something does not.
    Any,
    /// If a signature fails.
    Dkim,
    /// If SPF fails.
    Spf,
    /// If either does.
    DkimSpf,
}

impl FailureOptions {
    /// As the record has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "0",
            Self::Any => "1",
            Self::Dkim => "d",
            Self::Spf => "s",
            Self::DkimSpf => "d:s",
        }
    }
}

/// So many messages of which the same was found.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct DmarcCount {
    /// What was found.
    pub found: DmarcFound,
    /// How many.
    pub count: u64,
}

/// What was found of a message, without anything that tells one of them from another.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct DmarcFound {
    /// The client's address.
    pub source: String,
    /// What became of it.
    pub disposition: Handling,
    /// A signature speaks for the author's domain.
    pub dkim: bool,
    /// SPF does.
    pub spf: bool,
    /// Why its policy was not followed.
    pub overridden: Option<Override>,
    /// The author's domain.
    pub header_from: String,
    /// The domain of the reverse-path; empty for the null one.
    pub envelope_from: String,
    /// What was found of its signatures.
    pub signatures: Vec<SignatureFound>,
    /// What SPF was asked about.
    pub spf_domain: String,
    /// It was the client's name, for want of a reverse-path.
    pub spf_of_helo: bool,
    /// What SPF said, as RFC 7208 calls it.
    pub spf_result: String,
}

/// Why a policy was not followed (RFC 7489 appendix C).
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Override {
    /// A forwarder whose seal is believed had found the message to be the author's.
    TrustedForwarder,
    /// The site wants it so.
    LocalPolicy,
}

impl Override {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TrustedForwarder => "trusted_forwarder",
            Self::LocalPolicy => "local_policy",
        }
    }
}

/// What was found of a signature.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct SignatureFound {
    /// Whose.
    pub domain: String,
    /// By which key.
    pub selector: String,
    /// The result, as RFC 8601 calls it.
    pub result: String,
}
