//! A session at a maildrop without a socket, for the simulation: what a client says is called.

use std::sync::Arc;

use shared::pop3::Entry;
use shared::seal::PrivateKey;
use shared::store::{Rows as _, StoreError};
use shared::unit::{Id, Window};

use super::locked::{Maildrop, entries};
use crate::login::Traveller;
use crate::node::Node;
use crate::record::WINDOWS;

/// A traveller who has logged in and not said QUIT.
#[derive(Debug)]
pub struct Collecting {
    maildrop: Maildrop,
    entries: Vec<Entry>,
    retrieved: Vec<Entry>,
}

impl Collecting {
    /// Whoever can open the private key of a window logs in to it, which has to be open.
    pub(crate) async fn begin(node: &Arc<Node>, window: &Id, key: PrivateKey) -> Result<Self, String> {
        let row = node.store.read().and_then(|rows| rows.get::<Window>(WINDOWS, window));
        let row = row.map_err(|error| error.to_string())?.ok_or("there is no such window")?;
        let login = row.credential.stored_key;
        if !node.is_open(window, &login) {
            return Err("the window is not open".into());
        }
        node.used(*window).map_err(|error| error.to_string())?;
        let locked = Maildrop::lock(node, Traveller { window: row, login }, key).await;
        let maildrop = locked.map_err(|refusal| format!("{refusal:?}"))?;
        let entries = entries(&node.store, window).map_err(|error| error.to_string())?;
        Ok(Self { maildrop, entries, retrieved: Vec::new() })
    }

    /// The window.
    pub fn window(&self) -> Id {
        self.maildrop.window
    }

    /// What the client sees: message and revision of each.
    pub fn listed(&self) -> Vec<(Id, u32)> {
        self.entries.iter().map(|entry| (entry.message.0, entry.revision)).collect()
    }

    /// What was sent to the client in full: message and revision of each.
    pub fn retrieved(&self) -> Vec<(Id, u32)> {
        self.retrieved.iter().map(|entry| (entry.message.0, entry.revision)).collect()
    }

    /// RETR. The message as it is sent; `None` if it is there no more, or cannot be read now.
    pub fn retrieve(&mut self, place: usize) -> Option<Vec<u8>> {
        let (entry, next) = (*self.entries.get(place)?, self.entries.get(place + 1).copied());
        let mut content = self.maildrop.read(entry, next).ok()?;
        let mut text = Vec::new();
        while let Some(piece) = content.next().ok()? {
            text.extend_from_slice(&piece);
        }
        self.maildrop.read_ahead();
        self.retrieved.push(entry);
        Some(text)
    }

    /// QUIT behind the DELEs of these places: `Ok` is +OK.
    pub async fn quit(self, deleted: &[usize]) -> Result<(), StoreError> {
        let deleted: Vec<Entry> =
            deleted.iter().filter_map(|place| self.entries.get(*place).copied()).collect();
        self.maildrop.commit(&deleted, &self.retrieved).await
    }

    /// The connection is lost before QUIT.
    pub async fn cut(self) -> Result<(), StoreError> {
        self.maildrop.abandon().await
    }
}
