//! One order of a certificate (RFC 8555 §7.4), from the account to the chain.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeType, Error, Identifier, NewAccount, NewOrder,
    Order, OrderStatus, Problem, RetryPolicy,
};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use shared::address::Domain;
use shared::listener::{IdentityError, TlsIdentity};
use shared::render::cut;
use shared::smtp::client::verified;
use shared::state::{State, StateError};
use shared::topology::Acme;

use super::directory::Directory;
use super::http01::Tokens;
use crate::delivery::Resolver;

/// The name of the key file that holds the account.
const ACCOUNT: &str = "acme-account";
/// Authorizations that an order for one name may have.
const AUTHORIZATIONS_MAX: usize = 4;
/// Between two looks at an order while the authority works on it.
pub const LOOK: Duration = Duration::from_secs(2);
/// How long it is looked at for each of the two things that the authority does: to look for the token, and to issue.
const LOOKS_TIMEOUT: Duration = Duration::from_secs(90);
/// Characters that are kept of what an authority says.
const SAID_MAX: usize = 400;
const ACCOUNT_UNKNOWN: &str = "accountDoesNotExist";

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
enum OrderError {
    #[error("{}", words(.problem, *.of, .hostname))]
    Refused { problem: Problem, of: Part, hostname: Domain },
    #[error("{}", cut(&.0.to_string(), SAID_MAX))]
    Acme(Error),
    #[error("`roots` in [edge.acme]: {0}")]
    Roots(String),
    #[error("the authority does not offer the challenge http-01 for this name")]
    NoChallenge,
    #[error("the authority does not say what it found wrong with the challenge")]
    Invalid,
    #[error("the authority asks for {0} authorizations for one name")]
    Authorizations(usize),
    #[error("the authority gives a token that is none")]
    Token,
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// What an authority refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// That the name is ours.
    Challenge,
    /// Anything else: it does not take our word, whatever the name.
    Order,
}

impl OrderError {
    /// When the authority wants the order to be looked at again, if that is too late for this attempt.
    fn asked(&self) -> Option<Duration> {
        match self {
            Self::Acme(Error::Timeout(Some(at))) => Some(at.saturating_duration_since(Instant::now())),
            _ => None,
        }
    }
}

/// A failure, as it is told; and how long the authority wants to be left alone, if it has said so.
#[derive(Debug)]
pub struct Failure {
    pub why: String,
    pub asked: Option<Duration>,
}

/// What an order is made with.
#[derive(Debug)]
pub struct Wanted<'a> {
    pub acme: &'a Acme,
    pub hostname: &'a Domain,
    /// Whose key the certificate is to be for.
    pub own: &'a TlsIdentity,
    /// Where the account is kept.
    pub state: &'a State,
    pub resolver: &'a Resolver,
    pub tokens: &'a Arc<Tokens>,
    /// Between two looks at the order: [`LOOK`].
    pub look: Duration,
}

/// The account, as it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    directory: String,
    contact: Option<String>,
    credentials: AccountCredentials,
}

impl Wanted<'_> {
    /// Orders a certificate, and returns the chain in PEM form. Nothing has looked at it yet.
    pub async fn chain(&self) -> Result<String, Failure> {
        let acme = self.acme;
        let roots = roots(acme.roots.as_deref());
        let roots = roots.map_err(|error| Failure { why: error.to_string(), asked: None })?;
        let directory = Directory::new(acme.directory.clone(), self.resolver.clone(), verified(roots));
        let mut issued = self.issued(&directory).await;
        if let Err(OrderError::Refused { problem, .. }) = &issued
            && is_of(problem, ACCOUNT_UNKNOWN)
        {
            // The authority has begun anew, or it is another one under the same URL.
            issued = match self.state.remove_key(ACCOUNT) {
                Ok(()) => self.issued(&directory).await,
                Err(error) => Err(error.into()),
            };
        }
        issued.map_err(|error| Failure {
            why: error.to_string(),
            asked: directory.asked().or_else(|| error.asked()),
        })
    }

    async fn issued(&self, directory: &Directory) -> Result<String, OrderError> {
        let account = self.account(directory).await?;
        let name = [Identifier::Dns(self.hostname.to_string())];
        let mut order = account.new_order(&NewOrder::new(&name)).await.map_err(|error| self.failed(error))?;
        let mut published = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(|error| self.failed(error))?;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            if published.len() == AUTHORIZATIONS_MAX {
                return Err(OrderError::Authorizations(published.len() + 1));
            }
            let challenge = authorization.challenge(ChallengeType::Http01);
            let mut challenge = challenge.ok_or(OrderError::NoChallenge)?;
            let answer = challenge.key_authorization();
            let token = self.tokens.publish(&challenge.token, answer.as_str());
            published.push(token.ok_or(OrderError::Token)?);
            challenge.set_ready().await.map_err(|error| self.failed(error))?;
        }
        // The library would double the delay, and give up without a look where the next one is beyond the end.
        let looks = RetryPolicy::new().initial_delay(self.look).backoff(1.0).timeout(LOOKS_TIMEOUT);
        match order.poll_ready(&looks).await {
            Ok(OrderStatus::Ready) => {}
            Ok(_) => return Err(self.found_wrong(&mut order).await.unwrap_or(OrderError::Invalid)),
            Err(error) => {
                let told = self.found_wrong(&mut order).await;
                return Err(told.unwrap_or_else(|| match error {
                    Error::Api(problem) => self.refused(problem, Part::Challenge),
                    error => self.failed(error),
                }));
            }
        }
        drop(published);
        let request = self.own.request(self.hostname.as_str())?;
        order.finalize_csr(&request).await.map_err(|error| self.failed(error))?;
        order.poll_certificate(&looks).await.map_err(|error| self.failed(error))
    }

    /// What the authority says of the challenge: the order itself often says nothing.
    async fn found_wrong(&self, order: &mut Order) -> Option<OrderError> {
        let mut authorizations = order.authorizations();
        while let Some(Ok(mut authorization)) = authorizations.next().await {
            let state = authorization.refresh().await.ok()?;
            if let Some(problem) = state.challenges.iter().find_map(|challenge| challenge.error.clone()) {
                return Some(self.refused(problem, Part::Challenge));
            }
        }
        None
    }

    /// The account that is kept for this directory, or a new one.
    async fn account(&self, directory: &Directory) -> Result<Account, OrderError> {
        let builder = Account::builder_with_http(Box::new(directory.clone()));
        let url = self.acme.directory.to_string();
        let contact = self.acme.contact.as_ref().map(|address| format!("mailto:{address}"));
        let contacts: Vec<&str> = contact.iter().map(String::as_str).collect();
        let kept = match self.state.key(ACCOUNT) {
            Ok(bytes) => serde_json::from_slice::<Kept>(&bytes).ok().filter(|kept| kept.directory == url),
            Err(StateError::KeyMissing(_)) => None,
            Err(error) => return Err(error.into()),
        };
        let is_current = kept.as_ref().is_some_and(|kept| kept.contact == contact);
        let (account, credentials) = match kept {
            Some(Kept { credentials, .. }) => {
                let same = serde_json::to_vec(&credentials).map_err(|error| self.failed(error.into()))?;
                let same = serde_json::from_slice(&same).map_err(|error| self.failed(error.into()))?;
                let account =
                    builder.from_credentials(credentials).await.map_err(|error| self.failed(error))?;
                if !is_current {
                    account.update_contacts(&contacts).await.map_err(|error| self.failed(error))?;
                }
                (account, same)
            }
            None => {
                // The topology is refused without the administrator's word on the terms.
                let new = NewAccount {
                    contact: &contacts,
                    terms_of_service_agreed: true,
                    only_return_existing: false,
                };
                builder.create(&new, url.clone(), None).await.map_err(|error| self.failed(error))?
            }
        };
        if !is_current {
            let kept = Kept { directory: url, contact, credentials };
            let bytes = serde_json::to_vec(&kept).map_err(|error| self.failed(error.into()))?;
            match self.state.remove_key(ACCOUNT) {
                Ok(()) | Err(StateError::File { .. }) => self.state.write_key(ACCOUNT, &bytes)?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(account)
    }

    fn failed(&self, error: Error) -> OrderError {
        match error {
            Error::Api(problem) => self.refused(problem, Part::Order),
            error => OrderError::Acme(error),
        }
    }

    fn refused(&self, problem: Problem, of: Part) -> OrderError {
        OrderError::Refused { problem, of, hostname: self.hostname.clone() }
    }
}

/// Whether a problem is of this type (RFC 8555 §6.7).
fn is_of(problem: &Problem, kind: &str) -> bool {
    let found = problem.r#type.as_deref().and_then(|urn| urn.strip_prefix("urn:ietf:params:acme:error:"));
    found == Some(kind)
}

/// What the authority says, and what mends it.
fn words(problem: &Problem, of: Part, hostname: &Domain) -> String {
    let not_ours = match of {
        Part::Challenge => {
            "see that port 80 of every address of the edge's name leads to [edge.acme] http, and no other server or proxy answers there"
        }
        Part::Order => {
            "if it knows our account no more, remove keys/acme-account.key in the edge's state: the next attempt makes another one"
        }
    };
    let mends = [
        ("connection", "see that port 80 of every address of the edge's name leads to [edge.acme] http"),
        ("unauthorized", not_ours),
        ("incorrectResponse", not_ours),
        ("dns", "see the address records of the edge's name"),
        ("caa", "add this authority to the domain's CAA records, or ask another one"),
        (
            "rateLimited",
            "it asks again by itself when it may; `certificate renew` before that only makes it longer",
        ),
        ("userActionRequired", "its terms have changed: read them where the directory says, and agree there"),
        (
            "externalAccountRequired",
            "it wants an account made elsewhere, which this version has not: ask another authority",
        ),
        ("rejectedIdentifier", "it issues nothing for such a name: see [edge] hostname"),
        ("unsupportedIdentifier", "it issues nothing for such a name: see [edge] hostname"),
        ("invalidContact", "see `contact` in [edge.acme]"),
        ("unsupportedContact", "see `contact` in [edge.acme]"),
    ];
    let mend = mends.iter().find(|(kind, _)| is_of(problem, kind)).map(|(_, mend)| *mend);
    let said = problem.detail.as_deref().or(problem.r#type.as_deref()).unwrap_or("it does not say why");
    let told: Vec<_> = problem.subproblems.iter().filter_map(|one| one.detail.as_deref()).collect();
    let said = [&[said][..], &told[..]].concat().join("; ");
    let mend = mend.map_or_else(String::new, |mend| format!("; {mend}"));
    format!("the authority refuses a certificate for {hostname}: {}{mend}", cut(&said, SAID_MAX))
}

/// Whom the directory has to prove itself by.
fn roots(file: Option<&Path>) -> Result<RootCertStore, OrderError> {
    let mut roots = RootCertStore::empty();
    let Some(path) = file else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let none = "this system has no certificates to check the directory's with; install the package \
                    ca-certificates, or name a file";
        return if roots.is_empty() { Err(OrderError::Roots(none.into())) } else { Ok(roots) };
    };
    let unreadable =
        |error: &dyn std::fmt::Display| OrderError::Roots(format!("{}: {error}", path.display()));
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    for certificate in found.map_err(|error| unreadable(&error))? {
        roots.add(certificate).map_err(|error| unreadable(&error))?;
    }
    if roots.is_empty() { Err(unreadable(&"it holds no certificates in PEM form")) } else { Ok(roots) }
}

#[cfg(test)]
mod tests;
