//! The keys of a node that is about to have another one, or has had another one before.
//!
//! | step | here | at the partner | the next connection is opened with |
//! |---|---|---|---|
//! | before | present | present | present |
//! | [`KeyRing::rotate`] | present, next | present | present; the next one is announced |
//! | the partner has pinned it | present, next | present, next | present |
//! | `KeyRing::turn` | former, present | former, present | present |
//! | the partner was shown it | former, present | present | present |
//!
//! Whatever comes between two steps, the partner has pinned a key that this node has. The former key stays for a
//! partner that goes back to a backup: it is shown only to one that has pinned no later one, and the present key is
//! announced to it then.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::{Key, KeyError};
use crate::host::HostError;

/// Where a node keeps its keys. What returns is durable.
pub trait KeyStore: Send + Sync {
    /// Keeps a new key beside the present one.
    fn write_next(&self, pkcs8: &[u8]) -> Result<(), HostError>;
    /// The next key becomes the present one, and that the former one, in one step.
    fn turn(&self) -> Result<(), HostError>;
}

/// A node's keys.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Opens connections.
    pub present: Key,
    /// Will, once the partner has pinned it.
    pub next: Option<Key>,
    /// Did.
    pub former: Option<Key>,
}

impl Keys {
    /// The key with which the node wants to open its connections.
    pub(super) fn wanted(&self) -> &Key {
        self.next.as_ref().unwrap_or(&self.present)
    }

    /// What is announced on a connection that was opened with `shown`.
    pub(super) fn announced_beside(&self, shown: &[u8]) -> Option<Vec<u8>> {
        let wanted = self.wanted().public();
        (wanted != shown).then(|| wanted.to_vec())
    }

    /// All of them; the first that the partner has pinned is shown.
    pub(super) fn in_order(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.present).chain(&self.next).chain(&self.former)
    }
}

/// What comes of [`KeyRing::rotate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// A new key was made.
    Begun,
    /// The one before has not reached the partner yet; it stays the next one.
    UnderWay,
}

/// The keys of a running node, shared by its link and its commands.
#[derive(Clone)]
pub struct KeyRing {
    keys: Arc<watch::Sender<Keys>>,
    /// Held from reading the keys until what follows is stored.
    store: Arc<Mutex<Box<dyn KeyStore>>>,
}

impl KeyRing {
    /// The keys that `store` holds.
    pub fn new(keys: Keys, store: impl KeyStore + 'static) -> Self {
        Self { keys: Arc::new(watch::Sender::new(keys)), store: Arc::new(Mutex::new(Box::new(store))) }
    }

    /// A key that is kept elsewhere, and stays.
    pub fn fixed(key: Key) -> Self {
        Self::new(Keys { present: key, next: None, former: None }, Fixed)
    }

    /// The keys as they are now.
    pub fn keys(&self) -> Keys {
        self.keys.borrow().clone()
    }

    /// Makes a new key. A live connection is closed for it: the next one announces the key, and the one after that is
    /// opened with it.
    ///
    /// # Errors
    /// [`KeyError`]; nothing has changed.
    pub fn rotate(&self) -> Result<Rotation, KeyError> {
        let store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = self.keys();
        if keys.next.is_some() {
            return Ok(Rotation::UnderWay);
        }
        let next = Key::generate()?;
        store.write_next(next.pkcs8()).map_err(|error| KeyError::NotKept(error.0))?;
        self.keys.send_replace(Keys { next: Some(next), ..keys });
        Ok(Rotation::Begun)
    }

    /// The partner has pinned this key: if it is the next one, it is the present one from now on. Another one may have
    /// been made since a connection was begun, and that one the partner does not know.
    pub(super) fn turn(&self, pinned: &[u8]) -> Result<(), HostError> {
        let store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        let Keys { present, next: Some(next), .. } = self.keys() else { return Ok(()) };
        if next.public() != pinned {
            return Ok(());
        }
        store.turn()?;
        tracing::info!("the partner has pinned this node's next key, which is in use from now on");
        self.keys.send_replace(Keys { present: next, next: None, former: Some(present) });
        Ok(())
    }

    /// The keys as they are now, and as they change.
    pub(super) fn watch(&self) -> watch::Receiver<Keys> {
        self.keys.subscribe()
    }
}

struct Fixed;

impl KeyStore for Fixed {
    fn write_next(&self, _: &[u8]) -> Result<(), HostError> {
        Err(HostError("there is no place for another key".into()))
    }

    fn turn(&self) -> Result<(), HostError> {
        Ok(())
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing").field("keys", &*self.keys.borrow()).finish_non_exhaustive()
    }
}
