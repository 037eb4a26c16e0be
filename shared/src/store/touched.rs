//! Tells who waits that a commit has written rows of a table, by what their keys begin with.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use super::txn::Table;

/// Octets of a key that rows are told apart by.
pub const TOUCHED_KEY_BYTES: usize = 16;

/// What the rows that are told apart begin with.
pub type TouchedKey = [u8; TOUCHED_KEY_BYTES];

/// How often commits have written rows of one table since the store was opened. Nothing of it is on disk.
#[derive(Debug, Default)]
pub struct Touched {
    state: Mutex<State>,
    wake: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    table: Option<Table>,
    times: HashMap<TouchedKey, u64>,
}

impl Touched {
    /// Says which table it is about. What was written before does not count.
    pub fn observe(&self, table: Table) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).table = Some(table);
    }

    /// In how many commits rows that begin with `key` were written.
    pub fn times(&self, key: &TouchedKey) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).times.get(key).copied().unwrap_or_default()
    }

    /// Waits until that is not `seen`, and returns it.
    pub async fn differs(&self, key: &TouchedKey, seen: u64) -> u64 {
        let mut woken = self.wake.subscribe();
        loop {
            woken.borrow_and_update();
            match self.times(key) {
                times if times != seen => return times,
                // The sender is part of this.
                _ => woken.changed().await.unwrap_or_default(),
            }
        }
    }

    /// After a commit: the tables and keys that it wrote.
    pub(super) fn committed<'k>(&self, written: impl Iterator<Item = (Table, &'k [u8])>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(observed) = state.table else { return };
        let mut keys: Vec<TouchedKey> = written
            .filter(|(table, _)| *table == observed)
            .filter_map(|(_, key)| key.first_chunk().copied())
            .collect();
        keys.sort_unstable();
        keys.dedup();
        if keys.is_empty() {
            return;
        }
        for key in keys {
            *state.times.entry(key).or_default() += 1;
        }
        drop(state);
        self.wake.send_replace(());
    }
}
