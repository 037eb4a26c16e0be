//! SPF alone (RFC 7208): of a message with all else, and of a stranger before there is a message.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use mail_auth::spf::verify::SpfParameters;
use mail_auth::{MessageAuthenticator, SpfOutput, SpfResult};
use shared::address::{Address, Domain};
use shared::containment::contain;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

use super::Sender;
use crate::lockout::Network;

/// How long it may take at RCPT; the client waits for the answer meanwhile.
const TIME_MAX: Duration = Duration::from_secs(5);
/// Clients that are looked at at once, a thread each.
const AT_ONCE_MAX: usize = 64;
/// Those of them of one network: nobody's slow DNS takes all places.
const OF_A_NETWORK_MAX: usize = 2;

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

/// What SPF says for a client before there is a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vouched {
    /// This domain lets it send.
    For(String),
    /// None does.
    Not,
    /// DNS does not say in time whether this domain does.
    Unsure(String),
    /// It was not asked: too many others are.
    Busy,
}

/// The places where clients are looked at.
struct Places {
    all: Arc<Semaphore>,
    of_networks: Mutex<HashMap<Network, Weak<Semaphore>>>,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NoPlace {
    /// The client's network has all of its own.
    OfNetwork,
    /// All are taken.
    AtAll,
}

/// A place, until it is dropped.
#[derive(Debug)]
struct Place {
    _of_network: Option<OwnedSemaphorePermit>,
    _of_all: OwnedSemaphorePermit,
}

impl Places {
    fn new() -> Self {
        Self { all: Arc::new(Semaphore::new(AT_ONCE_MAX)), of_networks: Mutex::default() }
    }

    async fn take(&self, network: Network, deadline: Instant) -> Result<Place, NoPlace> {
        let of_network = match network {
            // Whoever is behind a proxy on this host is not one network.
            Network::Here => None,
            Network::Of(_) => {
                let places = self.of(network);
                let place = timeout_at(deadline, places.acquire_owned()).await;
                Some(place.ok().and_then(Result::ok).ok_or(NoPlace::OfNetwork)?)
            }
        };
        let of_all = timeout_at(deadline, Arc::clone(&self.all).acquire_owned()).await;
        let of_all = of_all.ok().and_then(Result::ok).ok_or(NoPlace::AtAll)?;
        Ok(Place { _of_network: of_network, _of_all: of_all })
    }

    /// The places of a network; those of networks from which nobody is looked at are forgotten.
    fn of(&self, network: Network) -> Arc<Semaphore> {
        let mut networks = self.of_networks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = networks.get(&network).and_then(Weak::upgrade) {
            return places;
        }
        networks.retain(|_, places| places.strong_count() > 0);
        let places = Arc::new(Semaphore::new(OF_A_NETWORK_MAX));
        networks.insert(network, Arc::downgrade(&places));
        places
    }
}

/// Asks SPF of strangers.
pub struct Spf {
    dns: MessageAuthenticator,
    hostname: Domain,
    places: Places,
}

impl fmt::Debug for Spf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Spf of {}", self.hostname)
    }
}

impl Spf {
    /// Asks by `resolver`, as `hostname`.
    pub fn new(resolver: TokioResolver, hostname: Domain) -> Arc<Self> {
        Arc::new(Self { dns: MessageAuthenticator(resolver), hostname, places: Places::new() })
    }

    /// Whether a domain lets the client send for it.
    pub async fn vouches(self: &Arc<Self>, sender: Sender) -> Vouched {
        let domain = claimed(&sender).1.to_owned();
        match self.asked(sender).await {
            Ok(SpfResult::Pass) => Vouched::For(domain),
            // That a network has much looked at is its own doing.
            Ok(SpfResult::TempError) | Err(NoPlace::OfNetwork) => Vouched::Unsure(domain),
            Ok(_) => Vouched::Not,
            Err(NoPlace::AtAll) => Vouched::Busy,
        }
    }

    /// The result for a sender; a temporary error where it is not known in time.
    pub async fn result(self: &Arc<Self>, sender: Sender) -> SpfResult {
        self.asked(sender).await.unwrap_or(SpfResult::TempError)
    }

    async fn asked(self: &Arc<Self>, sender: Sender) -> Result<SpfResult, NoPlace> {
        let deadline = Instant::now() + TIME_MAX;
        let place = self.places.take(Network::of(sender.client), deadline).await?;
        let (this, runtime) = (Arc::clone(self), Handle::current());
        let work = spawn_blocking(move || {
            let _place = place;
            contain(|| {
                runtime.block_on(timeout_at(deadline, verified(&this.dns, this.hostname.as_str(), &sender)))
            })
        });
        Ok(match work.await {
            Ok(Ok(Ok(output))) => output.result(),
            Ok(Err(_)) => SpfResult::PermError,
            Ok(Ok(Err(_))) | Err(_) => SpfResult::TempError,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_network_takes_all_places_and_those_that_are_free_are_forgotten() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.expect("a runtime").block_on(async {
            let places = Places::new();
            let take = |client: [u8; 4]| {
                let deadline = Instant::now() + Duration::from_millis(20);
                places.take(Network::of(client.into()), deadline)
            };
            let mut taken = Vec::new();
            for _ in 0..OF_A_NETWORK_MAX {
                taken.push(take([192, 0, 2, 1]).await.expect("a place"));
            }
            assert_eq!(take([192, 0, 2, 9]).await.map(drop), Err(NoPlace::OfNetwork));
            for network in 0..AT_ONCE_MAX - OF_A_NETWORK_MAX {
                let network = u8::try_from(network).expect("small");
                taken.push(take([198, 51, network, 1]).await.expect("another network"));
            }
            assert_eq!(take([203, 0, 113, 1]).await.map(drop), Err(NoPlace::AtAll));
            taken.clear();
            drop(take([192, 0, 2, 9]).await.expect("a place again"));
            assert_eq!(places.of_networks.lock().expect("locked").len(), 1);
        });
    }
}
