//! SPF alone (RFC 7208): of a message with all else, and of a stranger before there is a message.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use mail_auth::spf::verify::SpfParameters;
use mail_auth::{MessageAuthenticator, SpfOutput, SpfResult};
use shared::address::{Address, Domain};
use shared::containment::contain;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

use super::Sender;

/// How long it may take at RCPT; the client waits for the answer meanwhile.
const TIME_MAX: Duration = Duration::from_secs(5);
/// Clients that are looked at at once, a thread each.
const AT_ONCE_MAX: usize = 64;

/// For what SPF is asked: the property that tells it, and the domain as it was given.
pub fn claimed(sender: &Sender) -> (&'static str, &str) {
    match &sender.reverse_path {
        None => ("smtp.helo", &sender.helo),
        Some(address) => ("smtp.mailfrom", address.domain().as_str()),
    }
}

/// What SPF says of a client that sends to `host`.
pub async fn verified(dns: &MessageAuthenticator, host: &str, sender: &Sender) -> SpfOutput {
    let (client, helo) = (sender.client.to_canonical(), sender.helo.as_str());
    let path = sender.reverse_path.as_ref().map(Address::to_string);
    dns.verify_spf(match &path {
        None => SpfParameters::verify_ehlo(client, helo, host),
        Some(path) => SpfParameters::verify_mail_from(client, helo, host, path),
    })
    .await
}

/// Asks SPF of strangers.
pub struct Spf {
    dns: MessageAuthenticator,
    hostname: Domain,
    at_work: Arc<Semaphore>,
}

impl fmt::Debug for Spf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Spf of {}", self.hostname)
    }
}

impl Spf {
    /// Asks by `resolver`, as `hostname`.
    pub fn new(resolver: TokioResolver, hostname: Domain) -> Arc<Self> {
        let at_work = Arc::new(Semaphore::new(AT_ONCE_MAX));
        Arc::new(Self { dns: MessageAuthenticator(resolver), hostname, at_work })
    }

    /// The domain that lets the client send for it. What is not known in time is none.
    pub async fn vouches(self: &Arc<Self>, sender: Sender) -> Option<String> {
        let domain = claimed(&sender).1.to_owned();
        (self.result(sender).await == SpfResult::Pass).then_some(domain)
    }

    /// The result for a sender; a temporary error where it is not known in time.
    pub async fn result(self: &Arc<Self>, sender: Sender) -> SpfResult {
        let deadline = Instant::now() + TIME_MAX;
        let Ok(Ok(place)) = timeout_at(deadline, Arc::clone(&self.at_work).acquire_owned()).await else {
            return SpfResult::TempError;
        };
        let (this, runtime) = (Arc::clone(self), Handle::current());
        let work = spawn_blocking(move || {
            let _place = place;
            contain(|| {
                runtime.block_on(timeout_at(deadline, verified(&this.dns, this.hostname.as_str(), &sender)))
            })
        });
        match work.await {
            Ok(Ok(Ok(output))) => output.result(),
            Ok(Err(_)) => SpfResult::PermError,
            Ok(Ok(Err(_))) | Err(_) => SpfResult::TempError,
        }
    }
}
