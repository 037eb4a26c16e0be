//! MTA-STS (RFC 8461): the policy of a domain, which DNS announces and its web host proves, fetched and kept.

mod cache;
mod policy;
mod response;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use rustls::RootCertStore;
use shared::address::Domain;
use shared::age;
use shared::aggregate::ResultType;
use shared::id::monotonic;
use shared::smtp::client::{ByName, Judge, verified};
use shared::store::StoreError;
use shared::topology::MtaSts;
use tokio::time::timeout;

use super::public::is_public;
use super::relay::{RelayError, add_certificates};
use super::resolve::Resolver;
use super::security::Trusted;
use crate::node::Node;
use crate::web::{self, WebError};
pub(super) use cache::StsRow;
pub(super) use policy::{Mode, allows};
use policy::{NotAPolicy, Policy};
use response::NotAText;

/// How long fetching one policy may take, from the first address to its last octet.
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);
/// A policy that could not be fetched is not asked for again for so long (RFC 8461 §3.3).
const AGAIN: Duration = Duration::from_secs(300);
/// Domains of which that is remembered.
const FAILED_MAX: usize = 1_000;
/// Between two looks for policies that are old.
const ROUND: Duration = Duration::from_secs(3_600);

/// Why a policy could not be fetched.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("DNS gives no address of {0} that can be used")]
    NoAddress(String),
    #[error("{0}")]
    Web(#[from] WebError),
    #[error("it takes longer than {} s", FETCH_TIMEOUT.as_secs())]
    TooSlow,
    #[error("{0}")]
    Response(#[from] NotAText),
    #[error("the policy cannot be used: {0}")]
    Policy(#[from] NotAPolicy),
}

impl FetchError {
    /// How reports of TLS call it (RFC 8460 §4.3.2.2).
    fn result_type(&self) -> ResultType {
        let is_of_certificate = |error: &std::io::Error| {
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
            matches!(inner, Some(rustls::Error::InvalidCertificate(_)))
        };
        match self {
            Self::Policy(_) => ResultType::StsPolicyInvalid,
            Self::Web(WebError::Io(error)) if is_of_certificate(error) => ResultType::StsWebpkiInvalid,
            Self::NoAddress(_) | Self::Web(_) | Self::TooSlow | Self::Response(_) => {
                ResultType::StsPolicyFetchError
            }
        }
    }
}

/// Why it cannot be said what policy a domain has, or whether it has one.
#[derive(Debug, thiserror::Error)]
pub(super) enum PolicyError {
    /// The node cannot say what it has kept.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nothing is kept, and DNS does not say whether there is one.
    #[error("DNS does not say whether there is one: {0}")]
    NoAnswer(String),
    /// Nothing is kept, and the one that is announced could not be fetched.
    #[error("it could not be fetched: {why}")]
    NotFetched {
        /// Why not.
        why: String,
        /// How reports of TLS call that.
        result: ResultType,
    },
}

/// The policies of all domains.
#[derive(Debug)]
pub(super) struct Policies {
    node: Arc<Node>,
    resolver: Arc<Resolver>,
    port: u16,
    trusted: Trusted,
    judge: Arc<dyn Judge>,
    /// Held by whoever fetches the policy of a domain.
    fetching: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
    /// When fetching failed last, by a clock that never goes back, and how.
    failed: Mutex<HashMap<String, (Duration, ResultType)>>,
}

impl Policies {
    /// As the topology has it; `None` if it is not wanted, or nobody is trusted.
    ///
    /// # Errors
    /// [`RelayError`] if the file with certificates cannot be used.
    pub fn open(node: &Arc<Node>, resolver: &Arc<Resolver>) -> Result<Option<Self>, RelayError> {
        let Some(MtaSts { roots, port }) = &node.topology.edge.outbound.mta_sts else { return Ok(None) };
        let roots = trusted(roots.as_deref())?;
        if roots.is_empty() {
            tracing::warn!(
                "MTA-STS is off: this system has no certificates to check others' with; install the package \
                 ca-certificates, or name a file with [edge.outbound] `mta_sts_roots`"
            );
            return Ok(None);
        }
        let (node, resolver) = (Arc::clone(node), Arc::clone(resolver));
        let (judge, trusted) = (Arc::new(ByName(roots.clone())), Trusted(Arc::new(verified(roots))));
        let (fetching, failed) = (Mutex::default(), Mutex::default());
        Ok(Some(Self { node, resolver, port: *port, trusted, judge, fetching, failed }))
    }

    /// The certificates that hosts have to lead to, as policies ask for it.
    pub fn trusted(&self) -> &Trusted {
        &self.trusted
    }

    /// Who says whether one leads there.
    pub fn judge(&self) -> &Arc<dyn Judge> {
        &self.judge
    }

    /// Fetches anew what is old, for ever: a policy that is not asked for often must not end unseen.
    pub async fn run(&self) {
        loop {
            tokio::time::sleep(ROUND).await;
            if let Err(error) = self.refresh().await {
                tracing::warn!(%error, "MTA-STS policies could not be looked over");
            }
        }
    }

    async fn refresh(&self) -> Result<(), StoreError> {
        let lived = self.lived()?;
        self.node.store.commit(move |txn| cache::forget_ended(txn, lived)).await?;
        for (domain, row) in cache::all(&self.node.store.read()?)? {
            // One that cannot be read is looked at as well, for the log: the others are not to end because of it.
            let is_old = row.map_or(true, |row| row.is_old(lived));
            let (true, Ok(domain)) = (is_old, domain.parse()) else { continue };
            if let Err(PolicyError::Store(error)) = self.of(&domain).await {
                tracing::error!(%domain, %error, "a domain's MTA-STS policy cannot be read");
            }
        }
        Ok(())
    }

    /// The policy that holds for a domain. What cannot be fetched now leaves the one that was there.
    ///
    /// # Errors
    /// [`PolicyError`] if that cannot be said now.
    pub async fn of(&self, domain: &Domain) -> Result<Option<StsRow>, PolicyError> {
        let texts = match self.resolver.texts(&format!("_mta-sts.{domain}")).await {
            Ok(texts) => texts,
            Err(error) => return self.kept_or(domain, || PolicyError::NoAnswer(error.to_string())),
        };
        let Some(id) = policy::id(&texts) else { return Ok(self.kept(domain)?) };
        if let Some(current) = self.current(domain, &id)? {
            return Ok(Some(current));
        }
        let turn = self.turn(domain);
        let _turn = turn.lock().await;
        // Whoever had the turn before has fetched it, or could not.
        if let Some(current) = self.current(domain, &id)? {
            return Ok(Some(current));
        }
        if let Some(result) = self.has_failed(domain) {
            return self
                .kept_or(domain, || PolicyError::NotFetched { why: "not asked again yet".into(), result });
        }
        match timeout(FETCH_TIMEOUT, self.fetch(domain)).await.unwrap_or(Err(FetchError::TooSlow)) {
            Ok(policy) => {
                let row = StsRow::new(id, policy, self.lived()?);
                let (name, kept) = (domain.to_string(), row.clone());
                // It holds now all the same: what it forbids is not to happen because a disk is full.
                if let Err(error) = self.node.store.commit(move |txn| cache::keep(txn, &name, &kept)).await {
                    tracing::error!(%domain, %error, "an MTA-STS policy that was fetched cannot be kept");
                }
                Ok(Some(row))
            }
            Err(error) => {
                let (why, result) = (error.to_string(), error.result_type());
                tracing::warn!(%domain, error = why, "an MTA-STS policy could not be fetched");
                self.note_failure(domain, result);
                self.kept_or(domain, || PolicyError::NotFetched { why, result })
            }
        }
    }

    fn lived(&self) -> Result<u64, StoreError> {
        age::lived(&self.node.store.read()?)
    }

    fn kept(&self, domain: &Domain) -> Result<Option<StsRow>, StoreError> {
        cache::find(&self.node.store.read()?, domain.as_str(), self.lived()?)
    }

    /// The policy that is kept; without one, it cannot be said whether another would hold.
    fn kept_or(
        &self,
        domain: &Domain,
        why: impl FnOnce() -> PolicyError,
    ) -> Result<Option<StsRow>, PolicyError> {
        self.kept(domain)?.map_or_else(|| Err(why()), |kept| Ok(Some(kept)))
    }

    /// The policy of this id, if it need not be fetched anew.
    fn current(&self, domain: &Domain, id: &str) -> Result<Option<StsRow>, StoreError> {
        let (kept, lived) = (self.kept(domain)?, self.lived()?);
        Ok(kept.filter(|kept| kept.id == id && !kept.is_old(lived)))
    }

    /// What is held by whoever fetches a domain's policy.
    fn turn(&self, domain: &Domain) -> Arc<tokio::sync::Mutex<()>> {
        let mut fetching = lock(&self.fetching);
        if let Some(turn) = fetching.get(domain.as_str()).and_then(Weak::upgrade) {
            return turn;
        }
        fetching.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::default();
        fetching.insert(domain.to_string(), Arc::downgrade(&turn));
        turn
    }

    /// How fetching failed a moment ago, if it did.
    fn has_failed(&self, domain: &Domain) -> Option<ResultType> {
        let failed = lock(&self.failed).get(domain.as_str()).copied();
        failed.filter(|(at, _)| monotonic().saturating_sub(*at) < AGAIN).map(|(_, result)| result)
    }

    fn note_failure(&self, domain: &Domain, result: ResultType) {
        let (mut failed, now) = (lock(&self.failed), monotonic());
        failed.retain(|_, (at, _)| now.saturating_sub(*at) < AGAIN);
        if failed.len() < FAILED_MAX {
            failed.insert(domain.to_string(), (now, result));
        }
    }

    async fn fetch(&self, domain: &Domain) -> Result<Policy, FetchError> {
        let host = format!("mta-sts.{domain}");
        let private = self.node.topology.edge.outbound.private_addresses;
        let mut addresses = self.resolver.addresses(&host).await.unwrap_or_default();
        addresses.retain(|address| private || is_public(*address));
        let mut last = FetchError::NoAddress(host.clone());
        for address in addresses {
            match self.get(SocketAddr::new(address, self.port), &host).await {
                Ok(text) => return Ok(Policy::read(&text)?),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// What a web host says at one address, if it proves its name.
    async fn get(&self, address: SocketAddr, host: &str) -> Result<String, FetchError> {
        let request = format!(
            "GET /.well-known/mta-sts.txt HTTP/1.1\r\nHost: {host}\r\nAccept: text/plain\r\nConnection: close\r\n\r\n"
        );
        let stream = web::connect(&self.trusted.0, address, host).await?;
        Ok(response::text(web::ask(stream, request.as_bytes(), false).await?)?)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whom the system trusts, and those in a file.
fn trusted(file: Option<&Path>) -> Result<RootCertStore, RelayError> {
    let mut roots = RootCertStore::empty();
    let of_the_system = rustls_native_certs::load_native_certs();
    for error in of_the_system.errors {
        tracing::warn!(%error, "a certificate that this system trusts for MTA-STS cannot be read");
    }
    roots.add_parsable_certificates(of_the_system.certs);
    file.map_or(Ok(()), |path| add_certificates(&mut roots, path))?;
    Ok(roots)
}
