//! The certificate that this edge shows, and how it is kept current: files are read again, an authority is asked in
//! time. `schedule` says when, without I/O; `order` asks, by `directory`; `http01` answers the authority.
//!
//! Whatever fails, the certificate that there is stays in use. An authority's is for the key of the self-signed one, which
//! is kept: records that pin the key (TLSA 3 1 1) hold before the first certificate and after each renewal.

mod directory;
pub mod http01;
mod order;
mod schedule;

use std::path::Path;
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
use tokio::task::spawn_blocking;
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
        CertificateSource::Acme(_) => {
            let own = TlsIdentity::kept_in(&edge.state)?;
            Ok(own.map(|own| issued(&edge.state, &edge.hostname, &own).unwrap_or(own)))
        }
    }
}

fn from(files: &TlsFiles) -> Result<TlsIdentity, IdentityError> {
    TlsIdentity::from_files(&files.certificate, &files.key)
}

/// What an authority has issued for this edge's name and key. What cannot be used, as one for the key before, is none:
/// there is `own` to show, and another one is asked for.
fn issued(state: &Path, hostname: &Domain, own: &TlsIdentity) -> Option<TlsIdentity> {
    match own.issued_in(state) {
        Ok(issued) => issued.filter(|identity| is_for(identity.chain(), hostname)),
        Err(error) => {
            tracing::error!(%error, "the certificate that the authority has issued cannot be used, and counts as none");
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

/// The attempts that count: those that are kept, where an authority is asked. They stay for when one is asked again.
fn counted(source: &CertificateSource, kept: Option<Attempts>) -> Attempts {
    match source {
        CertificateSource::Acme(_) => kept.unwrap_or_default(),
        CertificateSource::Files(_) | CertificateSource::SelfSigned => Attempts::default(),
    }
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
    /// The authority is being asked. Until that has ended, the attempts have the error of the one before.
    is_asking: bool,
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
            CertificateSource::Acme(_) => {
                let own = made()?;
                let issued = issued(state.path(), &edge.hostname, &own);
                (Some(own), issued)
            }
        };
        let is_own = first.is_none();
        let identity = first.as_ref().or(own.as_ref()).ok_or(OpenError::Nothing)?;
        if is_own && matches!(edge.certificate, CertificateSource::Acme(_)) {
            tracing::warn!(
                "there is no certificate of the authority yet: the edge shows one that is signed by itself"
            );
        }
        let attempts = counted(&edge.certificate, node.store.read()?.get(SETTINGS, ATTEMPTS)?);
        let current = Arc::new(CurrentIdentity::new(identity)?);
        let mut shown = Shown::of(identity, is_own, attempts);
        if !shown.is_due(unix_millis()) {
            // The node may have ended when there was a new one, and before that was recorded.
            shown.attempts.error = None;
        }
        let shown = Mutex::new(shown);
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
                CertificateSource::Files(files) => self.read_again(files).await,
                CertificateSource::Acme(acme) => self.ask_if_due(acme).await,
            }
            tokio::select! {
                () = sleep(LOOK) => {}
                _ = hangup.recv() => {}
            }
        }
    }

    async fn read_again(&self, files: &TlsFiles) {
        let (files, current) = (files.clone(), Arc::clone(&self.current));
        // An unchanged chain may have got another key.
        let read = spawn_blocking(move || {
            let identity = from(&files)?;
            current.change(&identity).map(|()| identity)
        });
        let fault = match read.await {
            Ok(Ok(identity)) => {
                if self.with(|shown| shown.chain != identity.chain()) {
                    tracing::info!("another certificate is in use from now on");
                    self.with(|shown| *shown = Shown::of(&identity, false, Attempts::default()));
                }
                None
            }
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(error.to_string()),
        };
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
            CertificateSource::Acme(acme) => match self.asking.try_lock() {
                Ok(asking) => self.ask(acme, &asking).await,
                Err(_) => {
                    Err("the authority is being asked already: `edge-node certificate` says what comes of it"
                        .into())
                }
            },
            CertificateSource::Files(files) => {
                self.read_again(files).await;
                self.with(|shown| shown.fault.clone()).map_or(Ok(()), Err)
            }
            CertificateSource::SelfSigned => Err(
                "the edge has signed its certificate itself, without an end: see [edge.acme] and [edge.tls]"
                    .into(),
            ),
        }
    }

    async fn ask_if_due(&self, acme: &Acme) {
        // Who is asking now because an operator wants it has the last word on when the next one is due.
        let Ok(asking) = self.asking.try_lock() else { return };
        let now = unix_millis();
        if let Some(set_back) = self.with(|shown| shown.attempts.set_back(now)) {
            if let Err(error) = self.keep(&set_back).await {
                tracing::error!(%error, "when the authority may be asked again could not be recorded");
            }
            self.with(|shown| shown.attempts = set_back);
        }
        if self.with(|shown| shown.attempts.due_at(shown.renewable(), now)) <= now {
            // What failed is in the log, and in what is told of the certificate.
            let _ = self.ask(acme, &asking).await;
        }
    }

    /// Asks the authority; the caller is the only one who does.
    async fn ask(&self, acme: &Acme, _: &tokio::sync::MutexGuard<'_, ()>) -> Result<(), String> {
        let Some(own) = &self.own else { return Err("the edge has no key of its own".into()) };
        let kept = self.with(|shown| shown.renewable().copied());
        let begun = self.with(|shown| shown.attempts.begun(kept.as_ref(), unix_millis()));
        // Before anything is asked: a node that dies in it again and again must not ask each time.
        if let Err(error) = self.keep(&begun).await {
            let why = format!("nobody was asked, for that could not be recorded: {error}");
            tracing::error!(why, "there is no new certificate; the one that there is stays in use");
            let failed = begun.failed(kept.as_ref(), unix_millis(), None, why.clone());
            self.with(|shown| shown.attempts = failed);
            return Err(why);
        }
        self.with(|shown| shown.begin(&begun));
        let wanted = Wanted {
            acme,
            hostname: &self.node.topology.edge.hostname,
            own,
            state: &self.state,
            resolver: &self.resolver,
            tokens: &self.tokens,
            look: order::LOOK,
        };
        let ordered = timeout(ATTEMPT_TIMEOUT, wanted.chain()).await.unwrap_or_else(|_| {
            let why = format!("it takes longer than {} s", ATTEMPT_TIMEOUT.as_secs());
            Err(Failure { why, asked: None })
        });
        let used = match ordered {
            Ok(chain) => self.take(own, chain).await.map_err(|why| Failure { why, asked: None }),
            Err(failure) => Err(failure),
        };
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
                (begun.failed(kept.as_ref(), now, asked, why.clone()), Err(why))
            }
        };
        self.with(|shown| (shown.is_asking, shown.attempts) = (false, attempts.clone()));
        match self.keep(&attempts).await {
            Ok(()) => told,
            Err(error) => told.and(Err(error.to_string())),
        }
    }

    /// Takes what an authority has issued into use, once it is durable.
    async fn take(&self, own: &TlsIdentity, chain: String) -> Result<Validity, String> {
        let issued = own
            .issued(&chain)
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
        let state = self.state.path().to_owned();
        let kept = spawn_blocking(move || TlsIdentity::keep_issued(&state, &chain));
        kept.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        self.current.change(&issued).map_err(|error| error.to_string())?;
        self.with(|shown| *shown = Shown::of(&issued, false, shown.attempts.clone()));
        Ok(got)
    }

    async fn keep(&self, attempts: &Attempts) -> Result<(), StoreError> {
        let row = attempts.clone();
        self.node.store.commit(move |txn| txn.put(SETTINGS, ATTEMPTS, &row)).await.map(drop)
    }

    fn with<T>(&self, action: impl FnOnce(&mut Shown) -> T) -> T {
        let mut shown: MutexGuard<'_, Shown> = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        action(&mut shown)
    }

    /// What is wrong, for an operator who has to see to it.
    pub fn alarm(&self) -> Option<String> {
        self.with(|shown| shown.alarm(unix_millis()))
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
                is_due: shown.is_due(now),
                is_asking: shown.is_asking,
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
        let (key_hash, fault) = (identity.key_hash().ok(), None);
        Self { chain, key_hash, validity, is_own, fault, is_asking: false, attempts }
    }

    /// The authority is asked from now on, and nothing has failed yet.
    fn begin(&mut self, begun: &Attempts) {
        let error = self.attempts.error.take();
        (self.is_asking, self.attempts) = (true, Attempts { error, ..begun.clone() });
    }

    /// Whether another certificate is needed by now.
    fn is_due(&self, now: u64) -> bool {
        self.renewable().is_none_or(|kept| kept.renewed_at() <= now)
    }

    /// What an operator has to see to. An attempt that failed while nothing was due has cost nothing.
    fn alarm(&self, now: u64) -> Option<String> {
        let failed = self.attempts.error.as_ref().filter(|_| self.is_due(now));
        let error = self.fault.as_ref().or(failed)?;
        let until = match self.renewable() {
            Some(kept) => format!("the one in use ends {} UTC", when(kept.until)),
            None => "the edge shows one that is signed by itself".to_owned(),
        };
        Some(format!("there is no new certificate: {error}; {until}; see `edge-node certificate`"))
    }

    /// Until when the authority's certificate need not be replaced; `None` if there is none.
    fn renewable(&self) -> Option<&Validity> {
        self.validity.as_ref().filter(|_| !self.is_own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate of 90 days for an edge's own key, its own identity, and where that is kept.
    fn issue(from: (i32, u8, u8), until: (i32, u8, u8)) -> (String, TlsIdentity, tempfile::TempDir) {
        let state = tempfile::tempdir().expect("a folder");
        let own = TlsIdentity::self_signed_in(state.path(), "mx.example.com").expect("made");
        let mut params = rcgen::CertificateParams::new(["mx.example.com".to_owned()]).expect("a name");
        params.not_before = rcgen::date_time_ymd(from.0, from.1, from.2);
        params.not_after = rcgen::date_time_ymd(until.0, until.1, until.2);
        let pem = std::fs::read_to_string(state.path().join("keys/tls.key")).expect("readable");
        let key = pem.find("-----BEGIN PRIVATE KEY").and_then(|at| rcgen::KeyPair::from_pem(&pem[at..]).ok());
        let key = key.expect("a key");
        (params.self_signed(&key).expect("made").pem(), own, state)
    }

    #[test]
    fn what_was_issued_for_another_key_or_name_or_is_damaged_counts_as_none() {
        let (chain, own, state) = issue((2026, 1, 1), (2026, 4, 1));
        let (other, _, _other) = issue((2026, 1, 1), (2026, 4, 1));
        let hostname = "mx.example.com".parse().expect("a name");
        assert!(issued(state.path(), &hostname, &own).is_none());
        for text in [&other, "", "no certificate", &chain[..chain.len() / 2], "-----BEGIN CERTIFICATE-----\n"]
        {
            TlsIdentity::keep_issued(state.path(), text).expect("written");
            assert!(issued(state.path(), &hostname, &own).is_none(), "{text}");
        }
        TlsIdentity::keep_issued(state.path(), &chain).expect("written");
        assert!(issued(state.path(), &hostname, &own).is_some());
        assert!(issued(state.path(), &"mx.example.org".parse().expect("a name"), &own).is_none());
    }

    #[test]
    fn an_alarm_is_of_an_attempt_that_has_failed_where_another_certificate_is_needed() {
        let (chain, own, _state) = issue((2026, 1, 1), (2026, 4, 1));
        let (day, from) = (24 * 3_600_000, 1_767_225_600_000);
        let (young, due) = (from + 30 * day, from + 61 * day);
        let authoritys = own.issued(&chain).expect("for that key");
        for (identity, is_own, now, is_needed) in
            [(&own, true, young, true), (&authoritys, false, young, false), (&authoritys, false, due, true)]
        {
            let mut shown = Shown::of(identity, is_own, Attempts::default());
            let begun = shown.attempts.begun(None, now);
            shown.begin(&begun);
            assert_eq!(shown.alarm(now), None, "it is under way");
            shown.attempts = begun.failed(None, now, None, "port 80 is closed".into());
            assert_eq!(shown.alarm(now).is_some(), is_needed);
            shown.begin(&shown.attempts.begun(None, now));
            let alarm = shown.alarm(now);
            assert_eq!(alarm.is_some(), is_needed, "the one before has failed");
            assert!(alarm.is_none_or(|alarm| alarm.contains("port 80 is closed")));
        }
        let mut files = Shown::of(&authoritys, false, Attempts::default());
        files.fault = Some("no pair".into());
        assert!(files.alarm(young).is_some_and(|alarm| alarm.contains("no pair")));
    }

    #[test]
    fn where_no_authority_is_asked_any_more_no_attempt_raises_an_alarm() {
        let (_, own, _state) = issue((2026, 1, 1), (2026, 4, 1));
        let now = 1_767_225_600_000;
        let failed = Attempts::default().begun(None, now).failed(None, now, None, "port 80 is closed".into());
        let files = TlsFiles { certificate: "chain.pem".into(), key: "key.pem".into() };
        for source in [CertificateSource::SelfSigned, CertificateSource::Files(files)] {
            let attempts = counted(&source, Some(failed.clone()));
            assert_eq!(Shown::of(&own, true, attempts).alarm(now), None, "{source:?}");
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
