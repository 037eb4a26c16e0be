//! Email authentication: what SPF, DKIM, ARC, DMARC and the client's own name say of a message from the Internet
//! (RFC 7208, RFC 6376, RFC 8617, RFC 9989, RFC 8601 §2.7.3), by mail-auth, and what the site makes of it.
//! `body` hashes what is too large to be held, `counted` is what reports of DMARC say of a message, `plural` finds policies that are none, `results` is the field that tells, `spf` asks of strangers before there is
//! a message.
//!
//! All of it is done on a thread that may block, for a signature costs CPU, and contained, for the library reads what
//! strangers wrote. DNS is asked once the message is there; mail-auth bounds SPF's questions (RFC 7208 §4.6.4), we the
//! signatures and the time. What got no answer in time is a temporary error, and such an error refuses nobody.

mod body;
mod counted;
#[cfg(test)]
mod dns_tests;
mod plural;
mod results;
mod spf;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use mail_auth::common::crypto::HashAlgorithm;
use mail_auth::dkim::Canonicalization;
use mail_auth::dmarc::Policy;
use mail_auth::dmarc::verify::DmarcParameters;
use mail_auth::{
    AuthenticatedMessage, DkimOutput, DkimResult, DmarcOutput, DmarcResult, DnsError, Error, IprevResult,
    MessageAuthenticator, Parameters, SpfOutput, SpfResult,
};
use shared::address::{Address, Domain};
use shared::aggregate::{DmarcFound, DmarcPolicy, SIGNATURES_MAX};
use shared::containment::contain;
use shared::mime::{self, Field, HeaderFacts, header_len};
use shared::topology::{Authentication, Dmarc};
use shared::verdict::{self, Disposition};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout, timeout_at};

pub use body::{BodyHashes, Hashing};
use plural::Plural;
pub use spf::{Spf, Vouched};

/// How long all of it may take for one message; its client waits for the 250 meanwhile.
const TIME_MAX: Duration = Duration::from_secs(10);
/// How much of it is kept for DMARC, which needs what the others have found, and asks the author's domain.
const DMARC_TIME: Duration = Duration::from_secs(3);
/// How long the thread that does it may take beyond that: it is at work, or the machine is.
const WORK_TIME: Duration = Duration::from_secs(5);
/// How long the client's own name is asked for, by which nothing is decided.
const IPREV_TIME_MAX: Duration = Duration::from_secs(3);
/// What is said to who sends a message of nobody's.
const UNCLEAR: &str = "the header does not say clearly who wrote it: there has to be one From field with an address, and \
                       no line that is no field";
/// Messages that are verified at once, a thread each.
const AT_ONCE_MAX: usize = 128;
/// Messages at once that are held whole for what will be found of them.
const HELD_AT_ONCE_MAX: usize = 256;
/// Octets of a signature's field: with the header's limits it bounds what one costs.
const SIGNATURE_BYTES_MAX: usize = 8 * 1024;

/// Who hands a message over, as the session knows it.
#[derive(Clone, Debug)]
pub struct Sender {
    /// The client's address.
    pub client: IpAddr,
    /// Its HELO or EHLO name, as given.
    pub helo: String,
    /// The reverse-path; `None` is the null one.
    pub reverse_path: Option<Address>,
}

/// What was found of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdicts {
    /// As [`shared::verdict`] has them; empty if nothing was verified.
    pub found: Vec<String>,
    /// What becomes of the message, unless it is refused.
    pub disposition: Disposition,
    /// Why it is refused.
    pub refused: Option<String>,
    /// What its author's domain may want to be told of it.
    pub counted: Option<Box<(DmarcPolicy, DmarcFound)>>,
}

/// Verifies messages.
pub struct Authenticator {
    dns: MessageAuthenticator,
    /// Under which name verdicts are told (RFC 8601 §2.5).
    hostname: Domain,
    site: Authentication,
    at_work: Arc<Semaphore>,
    held: Arc<Semaphore>,
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authenticator of {}", self.hostname)
    }
}

impl Authenticator {
    /// Asks `resolver`, speaks as `hostname`, and decides as the site wants; `None` where it wants nothing verified.
    pub fn new(resolver: TokioResolver, hostname: Domain, site: Authentication) -> Option<Arc<Self>> {
        (site.dmarc != Dmarc::Off).then(|| {
            Arc::new(Self {
                dns: MessageAuthenticator(resolver),
                hostname,
                site,
                at_work: Arc::new(Semaphore::new(AT_ONCE_MAX)),
                held: Arc::new(Semaphore::new(HELD_AT_ONCE_MAX)),
            })
        })
    }

    /// A place for a message that is held whole, if there is one.
    pub fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.held).try_acquire_owned().ok()
    }

    /// Whether a field tells verdicts as if we had found them.
    pub fn is_forged(&self, field: &Field<'_>) -> bool {
        results::is_of(field, self.hostname.as_str())
    }

    /// The field that tells verdicts, with the end of its line.
    pub fn field(&self, found: &[String]) -> String {
        results::field(self.hostname.as_str(), found)
    }

    /// What is to be said of a message. `content` is all of it, or its header if the body's hashes are known.
    pub async fn verify(
        self: &Arc<Self>,
        sender: Sender,
        content: &Arc<Vec<u8>>,
        body: Option<BodyHashes>,
    ) -> Verdicts {
        let deadline = Instant::now() + TIME_MAX;
        let Ok(Ok(place)) = timeout_at(deadline, Arc::clone(&self.at_work).acquire_owned()).await else {
            return unknown("temperror");
        };
        let (this, content, runtime) = (Arc::clone(self), Arc::clone(content), Handle::current());
        let work = spawn_blocking(move || {
            let _place = place;
            contain(|| runtime.block_on(this.ask(&sender, &content, body, deadline)))
        });
        match timeout_at(deadline + WORK_TIME, work).await {
            Ok(Ok(Ok(verdicts))) => verdicts,
            Ok(Ok(Err(_))) => unknown("permerror"),
            Ok(Err(_)) | Err(_) => unknown("temperror"),
        }
    }

    /// Each method has its own time: whoever makes the answers to one slow costs the others nothing.
    async fn ask(
        &self,
        sender: &Sender,
        content: &[u8],
        body: Option<BodyHashes>,
        deadline: Instant,
    ) -> Verdicts {
        let (header, rest) = content.split_at(header_len(content));
        let body = body.unwrap_or_else(|| body::hashed(header, rest));
        let (mut message, passed_over) = parsed(header, body);
        let authors = authors(header);
        message.from = authors.clone().unwrap_or_default();
        let client = sender.client.to_canonical();
        let (identity, claimed) = spf::claimed(sender);
        let by = deadline.checked_sub(DMARC_TIME).unwrap_or(deadline);
        let (spf, iprev, dkim, arc) = tokio::join!(
            timeout_at(by, spf::verified(&self.dns, self.hostname.as_str(), sender)),
            timeout(IPREV_TIME_MAX, self.dns.verify_iprev(client)),
            timeout_at(by, self.dns.verify_dkim(&message)),
            timeout_at(by, self.arc(&message))
        );
        let late = |_| SpfOutput::new(claimed.to_owned()).with_result(SpfResult::TempError);
        let (spf, dkim) = (spf.unwrap_or_else(late), dkim.unwrap_or_else(|_| unanswered(&message)));
        let arc = arc.unwrap_or("temperror");
        let mut found = vec![
            format!("spf={} {identity}={}", spf_word(spf.result()), results::value(claimed)),
            format!("iprev={}", iprev.map_or("temperror", |iprev| iprev_word(iprev.result()))),
        ];
        found.extend(dkim.iter().map(dkim_verdict));
        if passed_over {
            found.push("dkim=policy".into());
        } else if dkim.is_empty() {
            found.push("dkim=none".into());
        }
        found.push(format!("arc={arc}"));
        if authors.is_none() {
            let mut verdicts = Verdicts { found, ..Verdicts::default() };
            match self.site.dmarc {
                Dmarc::Mark => verdicts.disposition = Disposition::Mark,
                Dmarc::Quarantine => verdicts.disposition = Disposition::Quarantine,
                Dmarc::Refuse => verdicts.refused = Some(UNCLEAR.to_owned()),
                Dmarc::Off | Dmarc::Record => {}
            }
            verdicts.found.push(verdicts.disposition.applied("dmarc=permerror"));
            return verdicts;
        }
        if has_authors_of_several_domains(&message) {
            // Nobody can say whose policy is meant, and RFC 9989 exempts such mail.
            found.push("dmarc=permerror".into());
            return Verdicts { found, ..Verdicts::default() };
        }
        let mut verdicts = Verdicts { found, ..Verdicts::default() };
        let Ok((dmarc, plural)) = timeout_at(deadline, self.dmarc(&message, &dkim, &spf, claimed)).await
        else {
            verdicts.found.push("dmarc=temperror".into());
            return verdicts;
        };
        let (mut told, mut is_sealed) = (dmarc_verdict(&dmarc), false);
        if is_disowned(&dmarc) {
            let sealer = if arc == "pass" { self.trusted_sealer(&message, dmarc.domain()) } else { None };
            match (sealer, self.site.dmarc) {
                (Some(sealer), _) => (told, is_sealed) = (verdict::overridden(&told, sealer), true),
                (None, Dmarc::Mark) => verdicts.disposition = Disposition::Mark,
                (None, Dmarc::Quarantine) => verdicts.disposition = Disposition::Quarantine,
                (None, Dmarc::Refuse) => {
                    let author = results::value(dmarc.domain());
                    verdicts.refused = Some(format!(
                        "neither SPF nor DKIM speaks for {author}, and that domain wants such mail refused or set aside \
                         (DMARC)"
                    ));
                }
                (None, Dmarc::Off | Dmarc::Record) => {}
            }
        }
        verdicts.found.push(verdicts.disposition.applied(&told));
        verdicts.counted = plural.owner(&dmarc).and_then(|owner| {
            let mut counted = counted::of(sender, owner, &dmarc, &dkim, (&spf, identity, claimed))?;
            counted::decided(&mut counted.1, &dmarc, &verdicts, is_sealed);
            Some(Box::new(counted))
        });
        verdicts
    }

    /// The word for a message's ARC chain (RFC 8617 §4.4).
    async fn arc(&self, message: &AuthenticatedMessage<'_>) -> &'static str {
        if message.ams_headers.len() > SIGNATURES_MAX || message.as_headers.len() > SIGNATURES_MAX {
            return "fail";
        }
        match self.dns.verify_arc(message).await.result() {
            DkimResult::Pass => "pass",
            DkimResult::None => "none",
            DkimResult::TempError(_) => "temperror",
            DkimResult::Neutral(_) | DkimResult::Fail(_) | DkimResult::PermError(_) => "fail",
        }
    }

    async fn dmarc(
        &self,
        message: &AuthenticatedMessage<'_>,
        dkim: &[DkimOutput<'_>],
        spf: &SpfOutput,
        claimed: &str,
    ) -> (DmarcOutput, Plural) {
        let asked = DmarcParameters {
            message,
            dkim_output: dkim,
            dkim2_output: None,
            rfc5321_mail_from_domain: claimed,
            spf_output: spf,
        };
        let author = message.from.first().and_then(|from| from.rsplit_once('@')).map_or("", |(_, of)| of);
        let plural = Plural::of(&self.dns.0, author).await;
        let dmarc = self.dns.verify_dmarc(Parameters::new(asked).with_txt_cache(&plural)).await;
        (dmarc, plural)
    }

    /// Who sealed a message last, of a chain that holds, if the site believes them and they have found that it was
    /// `author`'s.
    fn trusted_sealer(&self, message: &AuthenticatedMessage<'_>, author: &str) -> Option<&Domain> {
        let (seal, told) = (message.as_headers.last()?, message.aar_headers.last()?);
        let trusted = &self.site.trusted_sealers;
        let sealer = trusted.iter().find(|domain| domain.as_str().eq_ignore_ascii_case(&seal.header.d))?;
        results::tells_pass(&String::from_utf8_lossy(told.value), author).then_some(sealer)
    }
}

/// The addresses of a message's authors as mail readers show them, which is not how mail-auth reads every header. `None`
/// where readers differ: without one From that has an address, or with a line that belongs to no field.
fn authors(header: &[u8]) -> Option<Vec<String>> {
    let facts = HeaderFacts::of(header);
    let is_once = !facts.cut && !facts.duplicated.iter().any(|name| name == "From");
    let is_clear = is_once && !facts.from.is_empty() && mime::has_fields_alone(header);
    is_clear.then(|| facts.from.iter().map(|mailbox| mailbox.address.to_lowercase()).collect())
}

/// What is said of signatures whose keys DNS did not give in time.
fn unanswered<'x>(message: &'x AuthenticatedMessage<'_>) -> Vec<DkimOutput<'x>> {
    let late = || DkimOutput::temp_err(Error::Dns(DnsError::Resolver("not in time".into())));
    message.dkim_headers.iter().map(|found| late().with_signature(&found.header)).collect()
}

/// The verdicts on a message of which nothing was found.
fn unknown(word: &str) -> Verdicts {
    let found = ["spf", "dkim", "dmarc"].map(|method| format!("{method}={word}")).into();
    Verdicts { found, ..Verdicts::default() }
}

/// The header as mail-auth reads it, with the hashes of its body, and whether signatures were passed over: there are
/// too many, they are too large, or they do not cover From (RFC 6376 §5.4).
fn parsed<'a>(header: &'a [u8], [simple, relaxed]: BodyHashes) -> (AuthenticatedMessage<'a>, bool) {
    let mut message = AuthenticatedMessage::parse(header).unwrap_or_default();
    for (form, algorithm, _, hash) in &mut message.body_hashes {
        *hash = match (form, algorithm) {
            (Canonicalization::Simple, HashAlgorithm::Sha256) => simple.to_vec(),
            (Canonicalization::Relaxed, HashAlgorithm::Sha256) => relaxed.to_vec(),
            // SHA-1 proves nothing any more (RFC 8301 §3.1): it equals no hash.
            _ => Vec::new(),
        };
    }
    let signatures = message.dkim_headers.len();
    message.dkim_headers.retain(|signature| {
        let covers_from = signature.header.h.iter().any(|name| name.eq_ignore_ascii_case("from"));
        covers_from && signature.value.len() <= SIGNATURE_BYTES_MAX
    });
    message.dkim_headers.truncate(SIGNATURES_MAX);
    message.errors.truncate(SIGNATURES_MAX);
    if message.ams_headers.iter().any(|signature| signature.value.len() > SIGNATURE_BYTES_MAX) {
        message.has_arc_errors = true;
    }
    let passed_over = message.dkim_headers.len() < signatures;
    (message, passed_over)
}

fn has_authors_of_several_domains(message: &AuthenticatedMessage<'_>) -> bool {
    let mut domains = message.from.iter().filter_map(|from| from.rsplit_once('@')).map(|(_, domain)| domain);
    let first = domains.next();
    domains.any(|domain| Some(domain) != first)
}

/// Whether a message is not its author's, and that domain wants such mail refused or set aside. Only a clear failure
/// counts.
fn is_disowned(dmarc: &DmarcOutput) -> bool {
    matches!(dmarc.policy(), Policy::Quarantine | Policy::Reject)
        && matches!(dmarc.result(), DmarcResult::Fail(_))
}

/// The word for what a signature comes to (RFC 8601 §2.7.1).
fn dkim_word(output: &DkimOutput<'_>) -> &'static str {
    match output.result() {
        DkimResult::Pass => "pass",
        DkimResult::Neutral(_) => "neutral",
        DkimResult::Fail(_) => "fail",
        DkimResult::PermError(_) => "permerror",
        DkimResult::TempError(_) => "temperror",
        DkimResult::None => "none",
    }
}

fn dkim_verdict(output: &DkimOutput<'_>) -> String {
    let word = dkim_word(output);
    match output.signature() {
        Some(signature) => format!("dkim={word} header.d={}", results::value(&signature.d)),
        None => format!("dkim={word}"),
    }
}

fn dmarc_verdict(output: &DmarcOutput) -> String {
    let word = match output.result() {
        DmarcResult::Pass => "pass",
        DmarcResult::Fail(_) => "fail",
        DmarcResult::TempError(_) => "temperror",
        DmarcResult::PermError(_) => "permerror",
        DmarcResult::None => "none",
    };
    let policy = match output.policy() {
        Policy::Reject => "reject",
        Policy::Quarantine => "quarantine",
        Policy::None | Policy::Unspecified => "none",
    };
    match output.domain() {
        "" => format!("dmarc={word}"),
        author => format!("dmarc={word} header.from={} policy.dmarc={policy}", results::value(author)),
    }
}

/// The word for what SPF says (RFC 8601 §2.7.2).
pub fn spf_word(result: SpfResult) -> &'static str {
    match result {
        SpfResult::Pass => "pass",
        SpfResult::Fail => "fail",
        SpfResult::SoftFail => "softfail",
        SpfResult::Neutral => "neutral",
        SpfResult::TempError => "temperror",
        SpfResult::PermError => "permerror",
        SpfResult::None => "none",
    }
}

fn iprev_word(result: &IprevResult) -> &'static str {
    match result {
        IprevResult::Pass => "pass",
        IprevResult::TempError(_) => "temperror",
        // The client has no name, or one that leads elsewhere.
        IprevResult::Fail(_) | IprevResult::PermError(_) | IprevResult::None => "fail",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail_auth::common::parse::TxtRecordParser as _;

    const HEADER: &str = "From: Joe <joe@example.com>\r\nFrom: a@b.example, \"c\" <d@e.example>\r\n\
        DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/simple; d=example.com; s=k; t=1; x=2; l=7;\r\n\
        \th=From:To; z=From:joe=40x; i=joe@example.com; q=dns/txt; bh=2jUSOH9N+Q==; b=AuUoFEfDxT==\r\n\
        ARC-Seal: i=1; a=ed25519-sha256; t=1; cv=none; d=example.com; s=k; b=AuUoFEfDxT==\r\n\
        ARC-Message-Signature: i=1; a=rsa-sha1; c=relaxed/relaxed; d=example.com; s=k; h=From;\r\n\
        \tbh=2jUSOH9N; b=AuUoFEfD\r\nARC-Authentication-Results: i=1; mx.example.com; spf=pass\r\n\r\n";

    fn signature(names: &str) -> String {
        format!("DKIM-Signature: v=1; a=rsa-sha256; d=example.com; s=k; h={names}; bh=AAAA; b=AAAA\r\n")
    }

    #[test]
    fn signatures_are_few_small_and_cover_the_author() {
        let signed = |fields: String| {
            let header = format!("From: a@example.com\r\n{fields}\r\n");
            let (message, passed_over) = parsed(header.as_bytes(), BodyHashes::default());
            (message.dkim_headers.len(), passed_over)
        };
        assert_eq!(signed(String::new()), (0, false));
        assert_eq!(signed(signature("To:from").repeat(SIGNATURES_MAX)), (SIGNATURES_MAX, false));
        assert_eq!(signed(signature("From").repeat(1_000)), (SIGNATURES_MAX, true));
        assert_eq!(signed(signature("To")), (0, true));
        assert_eq!(signed(signature(&"From:".repeat(SIGNATURE_BYTES_MAX / 5))), (0, true));
    }

    #[test]
    fn authors_of_one_domain_are_told_from_those_of_several() {
        for (from, several) in [
            ("From: a@b.example\r\n", false),
            ("From: a@b.example, c@B.example\r\n", false),
            ("From: a@b.example, c@d.example\r\n", true),
            ("From: a@b.example\r\nFrom: c@d.example\r\n", true),
            ("Subject: s\r\n", false),
        ] {
            let header = format!("{from}\r\n");
            let (message, _) = parsed(header.as_bytes(), BodyHashes::default());
            assert_eq!(has_authors_of_several_domains(&message), several, "{from}");
        }
    }

    /// What strangers write, here and in DNS, may bring a panic about only if that is contained; it is better not to.
    #[test]
    fn signatures_and_records_that_are_not_well_formed_are_borne() {
        let records = [
            "v=spf1 include:%{ir}.%{v}.a.example a:b.example/24//96 mx ptr exists:%{l1r-}.x exp=e.example ~all",
            "v=DMARC1; p=reject; sp=none; np=quarantine; psd=y; adkim=s; rua=mailto:a@b.example!10m; fo=1:d:s",
            "v=DKIM1; k=ed25519; h=sha256; t=y:s; s=email; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
        ];
        let mut state = 1_u64;
        let mut dice = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).expect("31 bits") % below
        };
        let mut mutated = |text: &str| {
            let mut bytes = text.as_bytes().to_vec();
            for _ in 0..=dice(4) {
                let at = dice(bytes.len().max(1));
                if bytes.len() <= at {
                    break;
                }
                match dice(4) {
                    0 => bytes[at] = u8::try_from(dice(256)).expect("an octet"),
                    1 => drop(bytes.remove(at)),
                    2 => bytes.insert(at, b";:=@%\"\\\r\n\0\xff0"[dice(12)]),
                    _ => bytes.truncate(at.max(1)),
                }
            }
            bytes
        };
        for _ in 0..5_000 {
            let header = mutated(HEADER);
            let (message, _) = parsed(&header, BodyHashes::default());
            assert!(message.dkim_headers.len() <= SIGNATURES_MAX);
            let [spf, dmarc, key] = records.map(&mut mutated);
            let _ = mail_auth::spf::Spf::parse(&spf);
            let _ = mail_auth::dmarc::Dmarc::parse(&dmarc);
            let _ = mail_auth::common::verify::DomainKey::parse(&key);
        }
    }
}
