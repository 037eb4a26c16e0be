//! Checks of passwords: how many there are at once, and the work of one.
//!
//! A check costs some ms of a CPU, and whoever has no password at all may ask for one. So there are few at once, as
//! many as half of the CPUs can do: what else a node does has the rest, however many ask. They come in the order in
//! which they were asked for. From where a traveller has logged in before they have a lane of their own, so that a
//! flood from elsewhere does not keep the traveller out.

use std::io;
use std::sync::Arc;
#[cfg(test)]
use std::sync::atomic::{AtomicUsize, Ordering};

use shared::id::unix_millis;
use shared::sasl::Credentials;
use shared::seal::PrivateKey;
use shared::wipe;
use tokio::sync::Semaphore;

use crate::login::{Refused, Traveller};
use crate::node::Node;

/// The lanes of one node.
#[derive(Debug)]
pub struct Checks {
    all: Arc<Semaphore>,
    known: Arc<Semaphore>,
    /// Checks that were begun.
    #[cfg(test)]
    begun: AtomicUsize,
}

/// Who asks for a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Anybody.
    All,
    /// Only who is where a traveller was before.
    Known,
}

impl Default for Checks {
    /// As many as are right on this host.
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self::at_once((processors / 2).max(1))
    }
}

impl Checks {
    /// So many at once in each lane.
    pub fn at_once(checks: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(checks)),
            known: Arc::new(Semaphore::new(checks)),
            #[cfg(test)]
            begun: AtomicUsize::new(0),
        }
    }

    /// Whether there is a queue, or will be with the next one.
    pub fn is_busy(&self, lane: Lane) -> bool {
        self.lane(lane).available_permits() == 0
    }

    /// How many were begun since the last time.
    #[cfg(test)]
    pub fn take_begun(&self) -> usize {
        self.begun.swap(0, Ordering::Relaxed)
    }

    /// Takes all places of both lanes, for as long as what is returned lives.
    #[cfg(test)]
    pub fn occupied(&self) -> [tokio::sync::OwnedSemaphorePermit; 2] {
        [Lane::All, Lane::Known].map(|lane| {
            let places = u32::try_from(self.lane(lane).available_permits()).expect("few");
            Arc::clone(self.lane(lane)).try_acquire_many_owned(places).expect("they are free")
        })
    }

    fn lane(&self, lane: Lane) -> &Arc<Semaphore> {
        match lane {
            Lane::All => &self.all,
            Lane::Known => &self.known,
        }
    }
}

/// What these credentials open, with the same work whoever is meant; `None` if they are wrong. A check that is not
/// waited for any more goes to its end once it has begun, and holds its place until then.
pub async fn check(
    node: &Node,
    lane: Lane,
    credentials: &Arc<Credentials>,
) -> Result<Option<(Traveller, PrivateKey)>, Refused> {
    let place = Arc::clone(node.checks.lane(lane)).acquire_owned().await;
    let place = place.map_err(|_| Refused::Temporary)?;
    // It may have begun, ended or got another password while this waited.
    let mut window = match node.window_of_login(&credentials.user)? {
        Some(window) => window,
        None => node.nobody().map_err(|_| Refused::Temporary)?,
    };
    #[cfg(test)]
    node.checks.begun.fetch_add(1, Ordering::Relaxed);
    let (covers, credentials) = (node.covers.clone(), Arc::clone(credentials));
    let work = tokio::task::spawn_blocking(move || {
        let opened = covers.uncover(&mut window).map(|()| {
            let key = window.open(&credentials.secret, unix_millis()).ok();
            key.map(|(key, login)| (Traveller { window, login }, key))
        });
        // Whatever is not taken over is wiped here.
        drop(credentials);
        wipe::stack();
        // With it the next one begins, behind the answer to this one.
        (opened, place)
    });
    let opened: io::Result<_> = work.await.map_err(|_| Refused::Temporary)?.0;
    opened.map_err(|_| Refused::Temporary)
}
