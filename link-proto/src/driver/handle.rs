//! The node's handle on its link: wake it, and see how it stands.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{Mutex as AsyncMutex, MutexGuard, Notify, watch};

use super::LinkError;
use crate::session::LaneView;
use crate::unit::Lane;

/// The bit of large bodies, after those of the four lanes.
const BODIES_BIT: u8 = 1 << 4;

/// How long the same error is not logged again.
const LOG_PAUSE: Duration = Duration::from_secs(60);
/// Different errors that are logged within that time; a partner's word may be another one each time.
const LOGGED_MAX: usize = 16;

/// How the link stands, for `link status`.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// The live connection, once its lanes have begun.
    pub connected: Option<Connected>,
    /// Why the last connection or attempt ended; cleared when a link comes up.
    pub last_error: Option<String>,
    /// The last connection that one of the nodes broke down, whatever has come up since.
    pub fault: Option<Fault>,
    /// A key that the partner has had before, and that somebody has shown who owns it; `None` if nobody has since a link
    /// came up last.
    pub former_key_shown: Option<FormerKeyShown>,
    /// The lanes of the live session, or of the last one. Indexed by [`Lane::index`].
    pub lanes: [LaneView; 4],
}

/// Somebody has opened a connection with a key that the partner has had before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormerKeyShown {
    /// When.
    pub at: SystemTime,
    /// The public key (SubjectPublicKeyInfo, DER).
    pub key: Vec<u8>,
}

/// A connection ended by what one of the nodes did or could not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// When.
    pub at: SystemTime,
    /// What.
    pub error: String,
}

/// A live connection.
#[derive(Clone, Debug)]
pub struct Connected {
    /// Since when.
    pub since: SystemTime,
    /// The partner's address.
    pub peer: SocketAddr,
    /// The round trip, as QUIC estimates it.
    pub rtt: Duration,
}

/// A cheap, cloneable handle. It outlives connections: what is woken while there is none is found by
/// the next one anyway.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    woken: AtomicU8,
    wake: Notify,
    redial: Notify,
    /// An operator holds the link closed.
    held: watch::Sender<bool>,
    /// Big: held by the one session, or by a pairing.
    line: AsyncMutex<()>,
    /// Big: pairings that wait for it, or hold it.
    pairing: watch::Sender<usize>,
    /// Sessions that have looked at what the node knows, open or on their way to it.
    sessions: watch::Sender<usize>,
    open_since: Mutex<Option<Instant>>,
    /// What was logged lately, and when.
    logged: Mutex<Vec<(String, Instant)>>,
    status: watch::Sender<Status>,
}

impl Default for Handle {
    fn default() -> Self {
        Self::new()
    }
}

impl Handle {
    /// The handle of a link that is yet to be served or run.
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            woken: AtomicU8::new(0),
            wake: Notify::new(),
            redial: Notify::new(),
            held: watch::Sender::new(false),
            line: AsyncMutex::default(),
            pairing: watch::Sender::new(0),
            sessions: watch::Sender::new(0),
            open_since: Mutex::default(),
            logged: Mutex::default(),
            status: watch::Sender::new(Status::default()),
        }))
    }

    /// New units were numbered on `lane`, durably.
    pub fn units(&self, lane: Lane) {
        self.wake(1 << lane.index());
    }

    /// New units wait for their large bodies to be carried over.
    pub fn bodies(&self) {
        self.wake(BODIES_BIT);
    }

    /// Big: dial now, whatever the pause; this node was just paired, or an operator asks.
    pub fn redial(&self) {
        self.0.redial.notify_one();
    }

    /// Closes the link and keeps it closed, or lets it come up again.
    pub fn hold(&self, held: bool) {
        self.0.held.send_replace(held);
    }

    /// Whether an operator holds the link closed.
    pub fn is_held(&self) -> bool {
        *self.0.held.borrow()
    }

    /// Waits until the link is held closed (`true`), or is not (`false`).
    pub(super) async fn until_held(&self, held: bool) {
        // The sender lives as long as this handle.
        let _ = self.0.held.subscribe().wait_for(|now| *now == held).await;
    }

    /// Big: the place of an attempt, once nobody else has it.
    pub(super) async fn line(&self) -> MutexGuard<'_, ()> {
        self.0.line.lock().await
    }

    /// Big: the place of a pairing. A session that has it is ended, with all that it has begun to commit.
    pub(super) async fn line_for_pairing(&self) -> Pairing<'_> {
        self.0.pairing.send_modify(|pairings| *pairings += 1);
        let announced = Announced(self);
        Pairing { _line: self.line().await, _announced: announced }
    }

    /// Waits until somebody wants to pair this node.
    pub(super) async fn until_pairing(&self) {
        let _ = self.0.pairing.subscribe().wait_for(|pairings| *pairings > 0).await;
    }

    /// Whether a session is open.
    pub fn is_open(&self) -> bool {
        self.0.status.borrow().connected.is_some()
    }

    /// Whether no session is open or on its way to it: what the node knows of its partner and of its lanes is changed by
    /// nobody else then, as long as the link is held closed.
    pub fn is_at_rest(&self) -> bool {
        *self.0.sessions.borrow() == 0
    }

    /// Waits until it is.
    pub async fn at_rest(&self) {
        // The sender lives as long as this handle.
        let _ = self.0.sessions.subscribe().wait_for(|sessions| *sessions == 0).await;
    }

    /// Counts a session that begins, before it looks at what the node knows. It has to ask after that whether the link is
    /// held: so whoever holds it sees the session, or the session sees that.
    pub(super) fn under_way(&self) -> UnderWay {
        self.0.sessions.send_modify(|sessions| *sessions += 1);
        UnderWay(self.clone())
    }

    /// How the link stands, now and as it changes.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.0.status.subscribe()
    }

    fn wake(&self, bit: u8) {
        if self.0.woken.fetch_or(bit, Ordering::AcqRel) & bit == 0 {
            self.0.wake.notify_one();
        }
    }

    /// Waits until something was woken: which lanes, and whether bodies.
    pub(super) async fn woken(&self) -> (impl Iterator<Item = Lane> + use<>, bool) {
        loop {
            let bits = self.0.woken.swap(0, Ordering::AcqRel);
            if bits != 0 {
                let lanes = Lane::ALL.into_iter().filter(move |lane| bits & 1 << lane.index() != 0);
                return (lanes, bits & BODIES_BIT != 0);
            }
            self.0.wake.notified().await;
        }
    }

    pub(super) async fn asked_to_redial(&self) {
        self.0.redial.notified().await;
    }

    /// How long ago a link came up, if one has since this was asked last.
    pub(super) fn was_open(&self) -> Option<Duration> {
        let since = self.0.open_since.lock().unwrap_or_else(PoisonError::into_inner).take();
        since.map(|since| since.elapsed())
    }

    pub(super) fn opened(&self, peer: SocketAddr) {
        *self.0.open_since.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        tracing::info!(%peer, "the link is up");
        self.0.status.send_modify(|status| {
            status.connected = Some(Connected { since: SystemTime::now(), peer, rtt: Duration::ZERO });
            status.last_error = None;
            // The partner is back with a key that is pinned; the log keeps who came before.
            status.former_key_shown = None;
        });
    }

    pub(super) fn moved(&self, rtt: Duration, lanes: [LaneView; 4]) {
        self.0.status.send_modify(|status| {
            status.lanes = lanes;
            if let Some(connected) = &mut status.connected {
                connected.rtt = rtt;
            }
        });
    }

    /// Somebody has shown a key that the partner has had before, and has proved to own it.
    pub(super) fn former_key_shown(&self, key: &[u8]) {
        if self.is_news("a former key was shown") {
            tracing::warn!("somebody has shown a key that the partner has had before");
        }
        let shown = FormerKeyShown { at: SystemTime::now(), key: key.to_vec() };
        self.0.status.send_modify(|status| status.former_key_shown = Some(shown));
    }

    /// The live connection is gone.
    pub(super) fn closed(&self) {
        self.0.status.send_modify(|status| status.connected = None);
    }

    /// A connection or an attempt ended.
    pub(super) fn failed(&self, error: &LinkError) {
        let (is_fault, error) = (error.is_fault(), error.to_string());
        if self.is_news(&error) {
            tracing::warn!(%error, "the link ended");
        }
        self.0.status.send_modify(|status| {
            if is_fault {
                status.fault = Some(Fault { at: SystemTime::now(), error: error.clone() });
            }
            if status.connected.is_none() {
                status.last_error = Some(error);
            }
        });
    }

    /// Whether `error` is to be logged: the same one only once in a while, or a stranger who keeps
    /// knocking would fill the log.
    fn is_news(&self, error: &str) -> bool {
        let mut logged = self.0.logged.lock().unwrap_or_else(PoisonError::into_inner);
        logged.retain(|(_, at)| at.elapsed() < LOG_PAUSE);
        if logged.len() >= LOGGED_MAX || logged.iter().any(|(known, _)| known == error) {
            return false;
        }
        logged.push((error.to_owned(), Instant::now()));
        true
    }
}

/// A session, from before it looks at what the node knows to when nothing of it is left.
pub(super) struct UnderWay(Handle);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.0.sessions.send_modify(|sessions| *sessions -= 1);
    }
}

/// The place of a pairing, until it is over.
pub(super) struct Pairing<'a> {
    // Dropped first: nobody waits for a place that is free.
    _announced: Announced<'a>,
    _line: MutexGuard<'a, ()>,
}

/// A pairing that was announced to the running session, whether or not it comes to its turn.
struct Announced<'a>(&'a Handle);

impl Drop for Announced<'_> {
    fn drop(&mut self) {
        self.0.0.pairing.send_modify(|pairings| *pairings -= 1);
    }
}
