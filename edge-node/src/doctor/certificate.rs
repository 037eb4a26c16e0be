//! Our certificate, as others see it: who it is for, until when, and who vouches for it.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, Error, RootCertStore};
use shared::doctor::Finding;
use shared::render::when;
use shared::topology::{CertificateSource, Edge};

use crate::request::CertificateView;

/// So long before its end a certificate should have been renewed.
const RENEWED_BEFORE: Duration = Duration::from_secs(14 * 24 * 3600);

/// What is found of a chain at `now`, and whether others can check it by `roots`.
pub fn of_chain(
    edge: &Edge,
    chain: &[CertificateDer<'_>],
    roots: RootCertStore,
    now: Duration,
) -> (Finding, bool) {
    let hostname = &edge.hostname;
    let about = format!("certificate for {hostname}");
    let renew = match &edge.certificate {
        CertificateSource::SelfSigned => "remove keys/tls.key in the edge's state, and start it again",
        CertificateSource::Files(_) => "renew it: the edge reads its files again within a minute",
        CertificateSource::Acme(_) => "see `edge-node certificate`: why the authority issues none",
    };
    let Some((certificate, between)) = chain.split_first() else {
        return (Finding::wrong(about, "there is none", "see [edge.tls]"), false);
    };
    let check = |roots: &RootCertStore, at: Duration| {
        let name =
            ServerName::try_from(hostname.as_str()).map_err(|_| Error::General("no host name".into()))?;
        let builder = WebPkiServerVerifier::builder_with_provider(
            Arc::new(roots.clone()),
            Arc::new(default_provider()),
        );
        let verifier = builder.build().map_err(|error| Error::General(error.to_string()))?;
        verifier
            .verify_server_cert(certificate, between, &name, &[], UnixTime::since_unix_epoch(at))
            .map(drop)
    };
    let judged = |found: Result<(), Error>, later: Result<(), Error>, who: &str| match (found, later) {
        (Ok(()), Ok(())) => Finding::ok(about.clone(), format!("is valid, {who}")),
        (Ok(()), Err(_)) => Finding::warning(about.clone(), "ends within 14 days", renew),
        (Err(error), _) => fault(&about, &error, renew),
    };
    let trusted = check(&roots, now);
    let is_unknown = |found: &Result<(), Error>| {
        matches!(found, Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)))
    };
    if !roots.is_empty() && !is_unknown(&trusted) {
        let is_trusted = trusted.is_ok();
        return (
            judged(
                trusted,
                check(&roots, now + RENEWED_BEFORE),
                "for this name, from somebody whom this system trusts",
            ),
            is_trusted,
        );
    }
    // By itself, or by what it comes with.
    let mut own = RootCertStore::empty();
    own.add_parsable_certificates(chain.iter().map(|one| one.clone().into_owned()));
    let by_itself = check(&own, now);
    let later = check(&own, now + RENEWED_BEFORE);
    if by_itself.is_err() || later.is_err() {
        return (judged(by_itself, later, ""), false);
    }
    let mend = "others use TLS with it without checking; MTA-STS and most mail clients want one from a certificate authority, \
                with all between it and its root in the file";
    (Finding::warning(about, "nobody whom this system trusts vouches for it", mend), false)
}

/// What a running edge says of the authority that it asks for certificates; `None` if it asks nobody.
pub fn renewal(view: &CertificateView) -> Option<Finding> {
    let about = format!("certificates by {}", view.directory.as_deref()?);
    let (Some(next), Some(until)) = (view.next_attempt_at, view.valid_until) else { return None };
    let next = format!("it is asked again {} UTC", when(next));
    Some(match &view.error {
        None if view.is_asking => Finding::unchecked(about, "it is being asked", next),
        Some(error) if !view.is_due => {
            let found =
                format!("valid until {} UTC; {next}; an attempt before that failed: {error}", when(until));
            Finding::ok(about, found)
        }
        None if view.attempted_at.is_none() => Finding::unchecked(about, "it has not been asked yet", next),
        None => Finding::ok(about, format!("valid until {} UTC; {next}", when(until))),
        Some(error) => {
            Finding::wrong(about, error, format!("{next}; `edge-node certificate renew` asks now"))
        }
    })
}

fn fault(about: &str, error: &Error, renew: &str) -> Finding {
    let Error::InvalidCertificate(error) = error else {
        return Finding::wrong(about, format!("cannot be checked: {error}"), "get another one");
    };
    let (found, mend) = match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            ("has ended".to_owned(), renew)
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            ("is not valid yet".to_owned(), "see whether this host's clock is right")
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            ("is for another name".to_owned(), "get one for [edge] hostname")
        }
        other => (format!("is not valid: {other}"), "get another one"),
    };
    Finding::wrong(about, found, mend)
}
