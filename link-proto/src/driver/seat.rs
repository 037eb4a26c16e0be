//! Who may hold the edge's one session: the newest connection that was accepted.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::OwnedMutexGuard;

use super::{LinkError, close::close};
use crate::host::Partner;

type Guard = OwnedMutexGuard<()>;

/// What the connections of a listener share.
pub(super) struct Shared {
    /// Held from reading the stored epoch until the new one is stored, so that two hellos cannot both
    /// be the newest.
    pub(super) gate: Arc<tokio::sync::Mutex<()>>,
    /// Held by the live session until its last commit has come to an end.
    floor: Arc<tokio::sync::Mutex<()>>,
    /// The live session's connection. It must not stay here after its end: the endpoint's TLS
    /// configuration holds this, and a connection holds its endpoint.
    current: Mutex<Option<quinn::Connection>>,
    partner: RwLock<Option<Partner>>,
}

impl Shared {
    pub(super) fn new(partner: Option<Partner>) -> Self {
        Self {
            gate: Arc::default(),
            floor: Arc::default(),
            current: Mutex::new(None),
            partner: RwLock::new(partner),
        }
    }

    /// The partner as it is pinned.
    pub(super) fn partner(&self) -> Option<Partner> {
        self.partner.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Pins the keys of the partner as the node now remembers it.
    pub(super) fn pin(&self, partner: Option<&Partner>) {
        *self.partner.write().unwrap_or_else(PoisonError::into_inner) = partner.cloned();
    }
}

/// The place from which an engine plays its session.
pub(super) enum Seat {
    /// Big dials one connection at a time.
    Dialler,
    /// The edge's connections follow each other.
    Listener {
        shared: Arc<Shared>,
        /// Given back once the hello is accepted or refused.
        gate: Option<Guard>,
        /// Held from then to the end.
        floor: Option<Floor>,
    },
}

/// The live session's place; dropping it makes room.
pub(super) struct Floor {
    shared: Arc<Shared>,
    connection: usize,
    _guard: Guard,
}

impl Drop for Floor {
    fn drop(&mut self) {
        let mut current = self.shared.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.take_if(|current| current.stable_id() == self.connection);
    }
}

impl Seat {
    pub(super) fn listener(shared: Arc<Shared>, gate: Guard) -> Self {
        Self::Listener { shared, gate: Some(gate), floor: None }
    }

    /// The hello is accepted: closes the older connection, and waits for its end.
    pub(super) async fn take(&mut self, connection: &quinn::Connection) {
        if let Self::Listener { shared, floor, .. } = self {
            if let Some(older) = &*shared.current.lock().unwrap_or_else(PoisonError::into_inner) {
                close(older, &LinkError::Superseded);
            }
            let guard = Arc::clone(&shared.floor).lock_owned().await;
            *shared.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection.clone());
            let connection = connection.stable_id();
            *floor = Some(Floor { shared: Arc::clone(shared), connection, _guard: guard });
        }
    }

    /// The partner's next key is remembered.
    pub(super) fn pin(&self, partner: &Partner) {
        if let Self::Listener { shared, .. } = self {
            shared.pin(Some(partner));
        }
    }

    /// The partner is remembered: its key is the pinned one, and other hellos may be looked at.
    pub(super) fn taken(&mut self, partner: &Partner) {
        if let Self::Listener { shared, gate, .. } = self {
            shared.pin(Some(partner));
            *gate = None;
        }
    }
}
