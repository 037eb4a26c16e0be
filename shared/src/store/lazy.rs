//! Operations that nobody waits for: the next commit takes them along, and one comes by itself soon.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::writer::Operation;

/// How long an operation that can wait does, if no commit takes it along before.
pub(super) const LAZY_TIME: Duration = Duration::from_millis(50);
/// The same for one whose commit has failed. Longer, for every attempt on a disk that refuses opens the index anew and is
/// logged. What comes in that time waits as long.
pub(super) const AGAIN_TIME: Duration = Duration::from_secs(1);

/// What waits.
pub(super) struct Lazy {
    operations: Mutex<Vec<Operation>>,
    /// See [`Coming`].
    comes: AtomicBool,
    /// Weak, or a writer that is being closed would wait for this.
    writer: mpsc::WeakSender<Operation>,
}

impl Lazy {
    pub fn new(writer: mpsc::WeakSender<Operation>) -> Self {
        Self { operations: Mutex::default(), comes: AtomicBool::new(false), writer }
    }

    /// Leaves an operation to the next commit, and sees to it that one comes after `time`, unless one is on its way.
    /// Without a runtime (a simulation) it comes when it comes.
    pub fn push(self: &Arc<Self>, operation: Operation, time: Duration, runtime: Option<Handle>) {
        self.operations.lock().unwrap_or_else(PoisonError::into_inner).push(operation);
        if let Some(runtime) = runtime
            && let Some(coming) = Coming::once(self)
        {
            runtime.spawn(coming.after(time));
        }
    }

    /// What waits, in the order in which it came.
    pub fn take(&self) -> Vec<Operation> {
        std::mem::take(&mut *self.operations.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A commit that comes by itself is on its way, as long as this is.
struct Coming(Arc<Lazy>);

impl Coming {
    /// `None` if one is.
    fn once(lazy: &Arc<Lazy>) -> Option<Self> {
        (!lazy.comes.swap(true, Ordering::AcqRel)).then(|| Self(Arc::clone(lazy)))
    }

    async fn after(self, time: Duration) {
        tokio::time::sleep(time).await;
        let writer = self.0.writer.clone();
        // Before the commit: what is left to it from here on may miss it, and asks for the next one.
        drop(self);
        // A writer that has ended has done what was queued.
        if let Some(writer) = writer.upgrade() {
            let _ = writer.send(Box::new(|_| Box::new(|_| ()))).await;
        }
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        self.0.comes.store(false, Ordering::Release);
    }
}
