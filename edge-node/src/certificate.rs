//! The certificate that this edge shows, and how it is kept current: files are read again, an authority is asked in
//! time. `schedule` says when, without I/O; `order` asks, by `directory`; `http01` answers the authority.
//!
//! Whatever fails, the certificate that there is stays in use. An authority's is for the key of the self-signed one, which
//! is kept: records that pin the key (TLSA 3 1 1) hold before the first certificate and after each renewal.

mod directory;
pub mod http01;
mod order;
mod schedule;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use shared::address::Domain;
use shared::id::unix_millis;
use shared::listener::{CurrentIdentity, IdentityError, TlsIdentity};
use shared::render::when;
use shared::state::State;
use shared::store::{Rows as _, StoreError};
use shared::topology::{Acme, CertificateSource, Edge, TlsFiles};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};
use x509_cert::Certificate as Parsed;
use x509_cert::der::Decode as _;

use crate::delivery::Resolver;
use crate::node::Node;
use crate::record::SETTINGS;
use crate::request::CertificateView;
use http01::Tokens;
use order::{Failure, Wanted};
use schedule::{Attempts, Validity};

/// Between two looks at files, and at whether an authority is to be asked: the clock may have been set.
const LOOK: Duration = Duration::from_secs(60);
/// How long one attempt may take; a command waits for it.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(240);
/// Where the attempts are kept.
const ATTEMPTS: &[u8] = b"certificate";

/// The identity that a node with this topology would show first. Nothing is made.
///
/// # Errors
/// [`IdentityError`] if what is there cannot be used.
pub fn kept(edge: &Edge) -> Result<Option<TlsIdentity>, IdentityError> {
    match &edge.certificate {
        CertificateSource::SelfSigned => TlsIdentity::kept_in(&edge.state),
        CertificateSource::Files(files) => from(files).map(Some),
        CertificateSource::Acme(_) => match issued(edge) {
            Some(issued) => Ok(Some(issued)),
            None => TlsIdentity::kept_in(&edge.state),
        },
    }
}

fn from(files: &TlsFiles) -> Result<TlsIdentity, IdentityError> {
    TlsIdentity::from_files(&files.certificate, &files.key)
}

/// What an authority has issued for this edge's name and key; what cannot be used is as if it were not there, for another one
/// can be had.
fn issued(edge: &Edge) -> Option<TlsIdentity> {
    match TlsIdentity::issued_in(&edge.state) {
        Ok(issued) => issued.filter(|identity| {
            is_for(identity.chain(), &edge.hostname) && CurrentIdentity::new(identity).is_ok()
        }),
        Err(error) => {
            tracing::warn!(%error, "what the authority has issued cannot be used");
            None
        }
    }
}

fn is_for(chain: &[CertificateDer<'_>], hostname: &Domain) -> bool {
    let Some(certificate) = chain.first() else { return false };
    let Ok(name) = ServerName::try_from(hostname.as_str()) else { return false };
    let parsed = ParsedCertificate::try_from(certificate);
    parsed.is_ok_and(|parsed| rustls::client::verify_server_name(&parsed, &name).is_ok())
}

fn validity(chain: &[CertificateDer<'_>]) -> Option<Validity> {
    let parsed = Parsed::from_der(chain.first()?.as_ref()).ok()?;
    let validity = parsed.tbs_certificate().validity();
    let millis =
        |time: x509_cert::time::Time| u64::try_from(time.to_unix_duration().as_millis()).unwrap_or(u64::MAX);
    Some(Validity { from: millis(validity.not_before), until: millis(validity.not_after) })
}

/// The certificate of a running edge.
#[derive(Debug)]
pub struct Certificate {
    node: Arc<Node>,
    resolver: Resolver,
    state: State,
    /// The self-signed identity, whose key an authority's certificate is for.
    own: Option<TlsIdentity>,
    current: Arc<CurrentIdentity>,
    shown: Mutex<Shown>,
    tokens: Arc<Tokens>,
    /// Held by whoever asks the authority.
    asking: tokio::sync::Mutex<()>,
}

/// What is told of the certificate that is in use.
#[derive(Debug)]
struct Shown {
    chain: Vec<CertificateDer<'static>>,
    key_hash: Option<[u8; 32]>,
    validity: Option<Validity>,
    /// An authority vouches for it, or files hold it.
    is_own: bool,
    /// Why the files cannot be used as they are now.
    fault: Option<String>,
    attempts: Attempts,
}

impl Certificate {
    /// Takes the certificate that is there; without one, the edge makes its own. `resolver` is asked for the authority.
    ///
    /// # Errors
    /// [`IdentityError`] if what is there cannot be used, and [`StoreError`] if the attempts cannot be read.
    pub fn open(node: &Arc<Node>, state: &State, resolver: &Resolver) -> Result<Self, OpenError> {
        let edge = &node.topology.edge;
        let made = || TlsIdentity::self_signed_in(state.path(), edge.hostname.as_str());
        let (own, first) = match &edge.certificate {
            CertificateSource::SelfSigned => (Some(made()?), None),
            CertificateSource::Files(files) => (None, Some(from(files)?)),
            CertificateSource::Acme(_) => (Some(made()?), issued(edge)),
        };
        let is_own = first.is_none();
        let identity = first.as_ref().or(own.as_ref()).ok_or(OpenError::Nothing)?;
        if is_own && matches!(edge.certificate, CertificateSource::Acme(_)) {
            tracing::warn!(
                "there is no certificate of the authority yet: the edge shows one that is signed by itself"
            );
        }
        let attempts = node.store.read()?.get(SETTINGS, ATTEMPTS)?.unwrap_or_default();
        let current = Arc::new(CurrentIdentity::new(identity)?);
        let shown = Mutex::new(Shown::of(identity, is_own, attempts));
        let (node, state, resolver) = (Arc::clone(node), state.clone(), resolver.clone());
        let (tokens, asking) = (Arc::default(), tokio::sync::Mutex::default());
        Ok(Self { node, resolver, state, own, current, shown, tokens, asking })
    }

    /// What the listeners show.
    pub fn current(&self) -> &Arc<CurrentIdentity> {
        &self.current
    }

    /// What an authority is answered with.
    pub fn tokens(&self) -> &Arc<Tokens> {
        &self.tokens
    }

    /// Keeps it current, for ever: looks once a minute, and whenever the process gets SIGHUP.
    pub async fn run(&self) {
        let mut hangup = match signal(SignalKind::hangup()) {
            Ok(hangup) => hangup,
            Err(error) => {
                tracing::error!(%error, "the certificate is not kept current: SIGHUP cannot be waited for");
                return;
            }
        };
        loop {
            match &self.node.topology.edge.certificate {
                CertificateSource::SelfSigned => {}
                CertificateSource::Files(files) => self.read_again(files),
                CertificateSource::Acme(acme) => {
                    let now = unix_millis();
                    if self.with(|shown| shown.attempts.due_at(shown.renewable(), now)) <= now {
                        // What failed is in the log, and in what is told of the certificate.
                        let _ = self.ask(acme).await;
                    }
                }
            }
            tokio::select! {
                () = sleep(LOOK) => {}
                _ = hangup.recv() => {}
            }
        }
    }

    fn read_again(&self, files: &TlsFiles) {
        let fault = match from(files) {
            Ok(identity) if self.with(|shown| shown.chain == identity.chain()) => None,
            Ok(identity) => self.current.change(&identity).map_or_else(Some, |()| {
                tracing::info!("another certificate is in use from now on");
                self.with(|shown| *shown = Shown::of(&identity, false, Attempts::default()));
                None
            }),
            Err(error) => Some(error),
        };
        let fault = fault.map(|error| error.to_string());
        if let Some(fault) = &fault
            && self.with(|shown| shown.fault.as_ref() != Some(fault))
        {
            tracing::error!(
                fault,
                "the certificate's files cannot be used as they are; the one from before stays in use"
            );
        }
        self.with(|shown| shown.fault = fault);
    }

    /// Asks the authority now, because an operator wants it; when it is due does not count.
    ///
    /// # Errors
    /// Why there is no certificate.
    pub async fn renew(&self) -> Result<(), String> {
        match &self.node.topology.edge.certificate {
            CertificateSource::Acme(acme) => self.ask(acme).await,
            CertificateSource::Files(files) => {
                self.read_again(files);
                self.with(|shown| shown.fault.clone()).map_or(Ok(()), Err)
            }
            CertificateSource::SelfSigned => Err(
                "the edge has signed its certificate itself, without an end: see [edge.acme] and [edge.tls]"
                    .into(),
            ),
        }
    }

    async fn ask(&self, acme: &Acme) -> Result<(), String> {
        let _asking = self.asking.lock().await;
        let Some(own) = &self.own else { return Err("the edge has no key of its own".into()) };
        let begun = self.with(|shown| shown.attempts.begun(unix_millis()));
        // Before anything is asked: a node that dies in it again and again must not ask each time.
        if let Err(error) = self.keep(begun.clone()).await {
            let why = format!("nobody was asked, for that could not be recorded: {error}");
            tracing::error!(why, "there is no new certificate; the one that there is stays in use");
            self.with(|shown| shown.attempts = begun.failed(unix_millis(), None, why.clone()));
            return Err(why);
        }
        let wanted = Wanted {
            acme,
            hostname: &self.node.topology.edge.hostname,
            own,
            state: &self.state,
            resolver: &self.resolver,
            tokens: &self.tokens,
        };
        let ordered = timeout(ATTEMPT_TIMEOUT, wanted.chain()).await.unwrap_or_else(|_| {
            let why = format!("it takes longer than {} s", ATTEMPT_TIMEOUT.as_secs());
            Err(Failure { why, asked: None })
        });
        let used =
            ordered.and_then(|chain| self.take(own, &chain).map_err(|why| Failure { why, asked: None }));
        let now = unix_millis();
        let (attempts, told) = match used {
            Ok(got) => {
                tracing::info!(
                    until = when(got.until),
                    "the authority has issued a certificate, which is in use now"
                );
                (begun.succeeded(now, &got), Ok(()))
            }
            Err(Failure { why, asked }) => {
                tracing::error!(why, "there is no new certificate; the one that there is stays in use");
                let asked = asked.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
                (begun.failed(now, asked, why.clone()), Err(why))
            }
        };
        match self.keep(attempts).await {
            Ok(()) => told,
            Err(error) => told.and(Err(error.to_string())),
        }
    }

    /// Takes what an authority has issued into use, once it is durable.
    fn take(&self, own: &TlsIdentity, chain: &str) -> Result<Validity, String> {
        let issued = own
            .issued(chain)
            .map_err(|error| format!("what the authority has issued cannot be used: {error}"))?;
        let hostname = &self.node.topology.edge.hostname;
        if !is_for(issued.chain(), hostname) {
            return Err(format!("what the authority has issued is not for {hostname}"));
        }
        let now = unix_millis();
        let got = validity(issued.chain()).filter(|validity| now < validity.until);
        let Some(got) = got else {
            return Err(
                "what the authority has issued has ended already: see whether this host's clock is right"
                    .into(),
            );
        };
        TlsIdentity::keep_issued(self.state.path(), chain).map_err(|error| error.to_string())?;
        self.current.change(&issued).map_err(|error| error.to_string())?;
        self.with(|shown| *shown = Shown::of(&issued, false, shown.attempts.clone()));
        Ok(got)
    }

    async fn keep(&self, attempts: Attempts) -> Result<(), StoreError> {
        let row = attempts.clone();
        self.with(|shown| shown.attempts = attempts);
        self.node.store.commit(move |txn| txn.put(SETTINGS, ATTEMPTS, &row)).await.map(drop)
    }

    fn with<T>(&self, action: impl FnOnce(&mut Shown) -> T) -> T {
        let mut shown: MutexGuard<'_, Shown> = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        action(&mut shown)
    }

    /// What is wrong, for an operator who has to see to it.
    pub fn alarm(&self) -> Option<String> {
        let view = self.view();
        let error = view.error?;
        let until = match view.valid_until {
            Some(until) if !self.with(|shown| shown.is_own) => {
                format!("the one in use ends {} UTC", when(until))
            }
            _ => "the edge shows one that is signed by itself".to_owned(),
        };
        Some(format!("there is no new certificate: {error}; {until}; see `edge-node certificate`"))
    }

    /// For people.
    pub fn view(&self) -> CertificateView {
        let edge = &self.node.topology.edge;
        let now = unix_millis();
        self.with(|shown| {
            let attempted = Some(shown.attempts.attempted_at).filter(|at| *at > 0);
            let mut view = CertificateView {
                source: if shown.is_own { "the edge itself" } else { "files" }.to_owned(),
                valid_from: shown.validity.map(|validity| validity.from),
                valid_until: shown.validity.map(|validity| validity.until),
                key_hash: shown
                    .key_hash
                    .map(|hash| hash.iter().map(|octet| format!("{octet:02x}")).collect()),
                directory: None,
                attempted_at: None,
                error: shown.fault.clone(),
                next_attempt_at: None,
            };
            if let CertificateSource::Acme(acme) = &edge.certificate {
                if !shown.is_own {
                    view.source = "the authority".to_owned();
                }
                view.directory = Some(acme.directory.to_string());
                view.attempted_at = attempted;
                view.error.clone_from(&shown.attempts.error);
                view.next_attempt_at = Some(shown.attempts.due_at(shown.renewable(), now).max(now));
            }
            view
        })
    }
}

/// Why the edge has no certificate to show.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The one that is there cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The attempts to get one cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is none.
    #[error("there is no certificate")]
    Nothing,
}

impl Shown {
    fn of(identity: &TlsIdentity, is_own: bool, attempts: Attempts) -> Self {
        let chain = identity.chain().to_vec();
        let validity = validity(&chain);
        Self { key_hash: identity.key_hash().ok(), chain, validity, is_own, fault: None, attempts }
    }

    /// Until when the authority's certificate need not be replaced; `None` if there is none.
    fn renewable(&self) -> Option<&Validity> {
        self.validity.as_ref().filter(|_| !self.is_own)
    }
}

#[cfg(test)]
mod tests {
    use shared::topology::{SMALLEST, Topology};

    use super::*;

    #[test]
    fn what_was_issued_for_another_key_or_name_stops_nothing() {
        let [state, other] = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
        let edge = Topology::parse(SMALLEST, "t.toml").expect("valid").edge;
        let edge = Edge { state: state.path().to_owned(), ..edge };
        let made = |folder: &std::path::Path| {
            TlsIdentity::self_signed_in(folder, "mx.example.com").expect("made");
            std::fs::read_to_string(folder.join("keys/tls.key")).expect("readable")
        };
        let (own, foreign) = (made(state.path()), made(other.path()));
        assert!(issued(&edge).is_none(), "there is nothing yet");
        TlsIdentity::keep_issued(&edge.state, &own).expect("kept");
        assert!(issued(&edge).is_some());
        let renamed = Edge { hostname: "mx2.example.com".parse().expect("a name"), ..edge.clone() };
        assert!(issued(&renamed).is_none(), "it is for another name");
        for useless in [foreign.as_str(), "no certificate"] {
            TlsIdentity::keep_issued(&edge.state, useless).expect("kept");
            assert!(issued(&edge).is_none(), "{useless}");
        }
    }

    #[test]
    fn a_certificate_says_from_when_until_when_and_for_whom() {
        let mut params = rcgen::CertificateParams::new(["mx.example.com".to_owned()]).expect("a name");
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2026, 4, 1);
        let key = rcgen::KeyPair::generate().expect("a key");
        let chain = [params.self_signed(&key).expect("made").der().clone()];
        let day = 24 * 3_600_000;
        let from = 1_767_225_600_000;
        assert_eq!(validity(&chain), Some(Validity { from, until: from + 90 * day }));
        assert!(is_for(&chain, &"mx.example.com".parse().expect("a name")));
        assert!(!is_for(&chain, &"example.com".parse().expect("a name")));
        assert_eq!(validity(&[CertificateDer::from(vec![0x30, 0x00])]), None);
        assert_eq!(validity(&[]), None);
    }
}
