//! What is in use at this moment, and so cannot be revised before it is over.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shared::id::MessageId;
use shared::unit::Id;

/// Attempts under way and maildrops in use.
///
/// A revision is decided by an operation of the store's writer, which looks here. For its word to hold, nobody
/// may have read the old text before and still use it: an attempt is entered by the very operation that reads
/// its row, and a maildrop is locked before an operation that its session waits for and only then reads. So
/// every use is either before the decision, and seen here, or after it, and sees the new text.
#[derive(Debug, Default)]
pub struct Busy {
    /// Messages and indexes of recipients.
    attempts: Mutex<HashSet<(MessageId, u32)>>,
    maildrops: Mutex<HashSet<Id>>,
}

/// An attempt that is under way, until this is dropped: however it ends, also by a commit of its beginning that failed.
#[derive(Debug)]
pub struct UnderWay {
    busy: Arc<Busy>,
    message: MessageId,
    /// The indexes of the recipients it is for.
    pub recipients: Vec<u32>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.busy.end(self.message, &self.recipients);
    }
}

fn lock<T>(set: &Mutex<T>) -> MutexGuard<'_, T> {
    set.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Busy {
    /// An attempt for these recipients of a message begins. Called within the operation that reads its row.
    pub fn begin(self: &Arc<Self>, message: MessageId, recipients: Vec<u32>) -> UnderWay {
        self.go_on(message, &recipients);
        UnderWay { busy: Arc::clone(self), message, recipients }
    }

    /// The recipients of a message for whom attempts are under way. An operation looks once and goes by that: an attempt that
    /// is given up ends at any moment, and between two looks what was noted for it would be passed over.
    pub fn attempted(&self, message: MessageId) -> HashSet<u32> {
        let attempts = lock(&self.attempts);
        attempts.iter().filter(|(of, _)| *of == message).map(|(_, recipient)| *recipient).collect()
    }

    /// The attempt for these recipients is under way no more. Called within the operation that records the outcome,
    /// or when the attempt is given up.
    pub fn end(&self, message: MessageId, recipients: &[u32]) {
        let mut attempts = lock(&self.attempts);
        for recipient in recipients {
            attempts.remove(&(message, *recipient));
        }
    }

    /// The outcome for these recipients was not recorded after all: their attempt is under way still.
    pub fn go_on(&self, message: MessageId, recipients: &[u32]) {
        lock(&self.attempts).extend(recipients.iter().map(|recipient| (message, *recipient)));
    }

    /// Locks a window's maildrop; `false` if it is locked already.
    pub fn lock_maildrop(&self, window: Id) -> bool {
        lock(&self.maildrops).insert(window)
    }

    /// Whether a session has the maildrop.
    pub fn is_locked(&self, window: &Id) -> bool {
        lock(&self.maildrops).contains(window)
    }

    /// Unlocks a maildrop.
    pub fn unlock_maildrop(&self, window: &Id) {
        lock(&self.maildrops).remove(window);
    }
}
